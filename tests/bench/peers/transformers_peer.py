"""transformers: the same GGUF dequantized, sdpa. The class drives a child of another Python, which runs
the rest of this file: both types of weights are loaded once and wait between the rounds."""

import json
import os
import pathlib
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[3]
VENV = ROOT / "build/peers/venv"
PACKAGES = ["torch==2.11.0", "transformers==5.23.0", "accelerate", "gguf"]


class Transformers:
    @staticmethod
    def install():
        if os.environ.get("KVFS_PEERS_PYTHON"):
            return
        subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
        subprocess.run([str(VENV / "bin/pip"), "install", "-q", *PACKAGES], check=True)

    def __init__(self, model, threads, folder, ids, question):
        python = os.environ.get("KVFS_PEERS_PYTHON", str(VENV / "bin/python"))
        if not pathlib.Path(python).exists():
            sys.exit("peers: transformers is not installed: run peers.py --prepare")
        # Threads that wait for work must not take the core of who is measured meanwhile.
        env = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0",
               "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        self.log = folder / "transformers.log"
        self.child = subprocess.Popen([python, __file__, str(model), str(threads), str(folder)],
                                      stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                      stderr=open(self.log, "w"), env=env)
        self.facts = self.ask({"ids": ids, "question": question})

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.child.stdin.close()
        self.child.wait(60)

    def ask(self, words):
        print(json.dumps(words), file=self.child.stdin, flush=True)
        line = self.child.stdout.readline()
        assert line, "transformers ended: " + self.log.read_text()[-2000:]
        return json.loads(line)

    def version(self):
        return f"transformers {self.facts['transformers']}, torch {self.facts['torch']}"

    def measure(self, dtype):
        return self.ask({"dtype": dtype})


# --- the child ------------------------------------------------------------------------------------


def timed(action):
    begin = time.perf_counter()
    value = action()
    return time.perf_counter() - begin, value


class Model:
    def __init__(self, path, dtype, ids, question, folder):
        import torch
        from transformers import AutoModelForCausalLM
        self.torch = torch
        self.model = AutoModelForCausalLM.from_pretrained(
            path.parent, gguf_file=path.name, dtype=getattr(torch, dtype),
            attn_implementation="sdpa").eval()
        self.ids, self.question = torch.tensor([ids]), torch.tensor([question])
        self.file = folder / f"{dtype}.pt"
        cache = self.read(self.ids)[1]
        torch.save([(layer.keys, layer.values) for layer in cache.layers], self.file)

    def read(self, ids, cache=None):
        """The next token of each row and the cache."""
        out = self.model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        return out.logits[:, -1].argmax(-1, keepdim=True), out.past_key_values

    def decode(self, token, cache, steps):
        """Tokens a second of all rows together."""
        seconds, _ = timed(lambda: [self.read(token, cache) for _ in range(steps)])
        return steps * len(token) / seconds

    def load(self):
        from transformers import DynamicCache
        cache = DynamicCache()
        for i, (keys, values) in enumerate(self.torch.load(self.file)):
            cache.update(keys, values, i)
        return cache

    def measure(self):
        prefill, (token, cache) = timed(lambda: self.read(self.ids))
        figures = {"prefill": self.ids.shape[1] / prefill}
        steps = 24
        figures["decode"] = self.decode(token, cache, steps)
        cache.crop(-steps)
        cache.batch_repeat_interleave(8)
        figures["branches"] = self.decode(token.repeat(8, 1), cache, 6)
        del cache
        figures["decode_empty"] = self.decode(token, self.read(token)[1], 32)
        figures["first_token"] = [
            1e3 * timed(lambda: int(self.read(self.question, self.load())[0]))[0] for _ in range(3)]
        return figures


def child():
    import torch
    import transformers
    path, folder = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[3])
    torch.set_num_threads(int(sys.argv[2]))
    words = json.loads(sys.stdin.readline())
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    with torch.inference_mode():
        models = {dtype: Model(path, dtype, words["ids"], words["question"], folder)
                  for dtype in ("bfloat16", "float32")}
        print(json.dumps({"transformers": transformers.__version__, "torch": torch.__version__}),
              file=answers, flush=True)
        for line in sys.stdin:
            print(json.dumps(models[json.loads(line)["dtype"]].measure()), file=answers, flush=True)


if __name__ == "__main__":
    child()
