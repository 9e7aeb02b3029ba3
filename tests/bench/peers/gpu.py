"""transformers and kvfs, through its mount, on one GPU in one run: random weights in a published shape.

    python3 tests/bench/peers/gpu.py {135m|1b|8b} [--context 8192] [--new 512] [--restarts 3] [--alone]
        [--json FILE]

Prints one JSON object; --alone leaves transformers' own figures out. Needs a python3 with torch, transformers, tokenizers, safetensors; kvfs from
scripts/pack-cuda (or KVFS_BIN). The model is written as a Hugging Face folder into --folder (/dev/shm),
the store lies in --store (/tmp), where dd measures the disk in the same run.

kvfs's own rate is what its job's clock says of the generation; the mount's is that of `cat` of the growing
reply, from its first byte to its last, so every token has to print something. The gaps are between a
reader's bytes, of an ask and of a continue whose long prompt is being saved meanwhile.
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

import torch

HERE = pathlib.Path(__file__).resolve().parent
SHAPES = {
    "135m": dict(hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
                 num_key_value_heads=3, head_dim=64, vocab_size=49152, tie_word_embeddings=True),
    "1b": dict(hidden_size=2048, intermediate_size=8192, num_hidden_layers=16, num_attention_heads=32,
               num_key_value_heads=8, head_dim=64, vocab_size=128256, tie_word_embeddings=True),
    "8b": dict(hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
               num_key_value_heads=8, head_dim=128, vocab_size=128256),
}


def timed(action):
    torch.cuda.synchronize()
    begin = time.perf_counter()
    value = action()
    torch.cuda.synchronize()
    return time.perf_counter() - begin, value


def word(number):
    return f"{number:05x} "[-6:]


def write_tokenizer(folder, vocab):
    """Every id prints a word; digits and letters are read one by one."""
    letters = {c: i for i, c in enumerate("0123456789abcdefĠ")}
    words = {word(i).replace(" ", "Ġ"): i for i in range(len(letters), vocab)}
    (folder / "tokenizer.json").write_text(json.dumps({
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
                          "use_regex": False},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
                    "use_regex": False},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
                  "vocab": letters | words, "merges": []}}))


def make_model(shape, folder):
    from transformers import LlamaConfig, LlamaForCausalLM
    torch.manual_seed(0)
    config = LlamaConfig(max_position_embeddings=131072, rope_theta=500000.0, bos_token_id=0,
                         eos_token_id=None, **SHAPES[shape])
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        model = LlamaForCausalLM(config).eval()
    torch.set_default_dtype(torch.float32)
    model.save_pretrained(folder)
    write_tokenizer(folder, config.vocab_size)
    return model


@torch.inference_mode()
def transformers_figures(model, context, new):
    from transformers import DynamicCache, StaticCache
    ids = torch.randint(0, 1000, (1, context), device="cuda")

    def read(cache, tokens, **more):
        out = model(input_ids=tokens, past_key_values=cache, use_cache=True, logits_to_keep=1, **more)
        return out.logits[:, -1].argmax(-1, keepdim=True)

    def decode(step, token):
        for _ in range(8):
            token = step(token)
        return new / timed(lambda: [step(token) for _ in range(new)])[0]

    read(DynamicCache(), ids)
    cache = DynamicCache()
    seconds, token = timed(lambda: read(cache, ids))
    figures = {"prefill, s": seconds, "eager decode, tok/s": decode(lambda t: read(cache, t), token)}

    static = StaticCache(config=model.config, max_cache_len=context + 2 * new + 64)
    token = read(static, ids)
    position = torch.tensor([context], device="cuda")
    compiled = torch.compile(model, mode="reduce-overhead", fullgraph=True)

    def step(token):
        torch.compiler.cudagraph_mark_step_begin()
        out = compiled(input_ids=token, past_key_values=static, use_cache=True,
                       cache_position=position, position_ids=position[None], logits_to_keep=1)
        position.add_(1)
        return out.logits[:, -1].argmax(-1, keepdim=True).clone()
    try:
        figures["compiled decode, tok/s"] = decode(step, token)
    except Exception as error:  # a figure less is no reason to lose the others
        figures["compiled decode failed"] = str(error)[:300]
    return figures


def disk_rate(folder):
    """GB/s of dd oflag=direct conv=fdatasync bs=1M."""
    out = subprocess.run(["dd", "if=/dev/zero", f"of={folder}/dd", "bs=1M", "count=1024", "oflag=direct",
                          "conv=fdatasync"], capture_output=True, text=True)
    (pathlib.Path(folder) / "dd").unlink(missing_ok=True)
    return out.stderr.splitlines()[-1] if out.stderr else "dd failed"


def job(daemon, state, name):
    answer = subprocess.run(["curl", "-s", "--unix-socket", str(daemon.socket),
                             f"http://kvfs/v1/states/{state.name}/jobs"], capture_output=True, text=True)
    return next(one for one in json.loads(answer.stdout)["jobs"] if one["name"] == name)


def stream(state, name):
    """Seconds at which the bytes of a growing reply came, from the first ones to the end's."""
    times = []
    with open(state / "replies" / name, "rb", buffering=0) as f:
        while f.read(1 << 20):
            times.append(time.perf_counter())
    return times + [time.perf_counter()]


def gaps(times):
    """The longest three and the median between a reply's tokens, ms; the end, which is saved, is none."""
    between = sorted(1e3 * (b - a) for a, b in zip(times, times[1:-1]))
    return {"longest": between[-3:], "median": between[len(between) // 2], "reads": len(between)}


def kvfs_figures(folder, store, context, new, restarts):
    sys.path[:0] = [str(HERE.parents[1] / "blackbox")]
    os.environ.setdefault("KVFS_DEVICE", "cuda")
    pack = HERE.parents[2] / "build/kvfs-cuda"
    if (pack / "programs").is_dir():
        os.environ.setdefault("KVFS_BIN", str(pack / "programs"))
        os.environ["PATH"] += f":{pack / 'bin'}"  # fusermount3
    from harness import Daemon
    daemon = Daemon(directory=store, model=folder)
    figures = {}
    try:
        figures["start, s"] = timed(lambda: daemon.start(seconds=500))[0]
        state = daemon.make("s", template="raw", temperature=0, max_tokens=new)
        daemon.run(state, "feed", "0123456789abcdef" * 16, "warm")  # its own state's first slices
        state = daemon.make("read", template="raw", temperature=0, max_tokens=new)
        daemon.run(state, "feed", ("0123456789abcdef" * (context // 16)), "f")
        read = job(daemon, state, "f")
        figures["tokens read"] = read["prompt_tokens"]
        figures["prefill, s"] = read["milliseconds"]["read"] / 1e3
        figures["save, s"] = read["milliseconds"]["save"] / 1e3
        figures["disk"] = disk_rate(store)
        rates = []
        for i in range(4):
            name = f"q{i}"
            (state / "ask" / name).write_text("0123456789abcdef0123")  # 20 tokens
            times = stream(state, name)
            seconds = times[-1] - times[0]
            daemon.wait_done(state, name)
            done = job(daemon, state, name)
            tokens = done["generated_tokens"] - 1  # the first one comes of the reading
            rates.append({"engine, tok/s": tokens / (done["milliseconds"]["generate"] / 1e3),
                          "cat, tok/s": tokens / seconds, "gaps, ms": gaps(times), "ms": done["milliseconds"]})
        figures["decode"] = rates
        best = max(rates, key=lambda one: one["engine, tok/s"])
        figures["decode through the mount, tok/s"] = best["cat, tok/s"]
        figures["decode by the engine's clock, tok/s"] = best["engine, tok/s"]

        saved = daemon.make("saved", template="raw", temperature=0, max_tokens=new)
        (saved / "continue" / "c").write_text("fedcba9876543210" * (context // 16))
        figures["gaps while its prompt is saved, ms"] = gaps(stream(saved, "c"))
        daemon.wait_done(saved, "c")
        done = job(daemon, saved, "c")
        figures["a prompt that is answered and saved"] = done["milliseconds"]

        def first_token(name):
            begin = time.perf_counter()
            (state / "ask" / name).write_text("0123456789abcdef0123")
            with open(state / "replies" / name, "rb", buffering=0) as f:
                f.read(1)
                seconds = time.perf_counter() - begin
            daemon.wait_done(state, name)
            return 1e3 * seconds
        (state / "params" / "max_tokens").write_text("1\n")
        figures["first token, pages on the device, ms"] = [first_token(f"d{i}") for i in range(5)]
        restored = []
        for i in range(restarts):
            daemon.stop()
            daemon.start(seconds=500)
            other = daemon.make(f"o{i}", template="raw", temperature=0, max_tokens=1)
            daemon.run(other, "ask", "0123", "warm")  # the model's first step is not the question's
            restored.append(first_token(f"r{i}"))
        figures["first token, restored from the page cache, ms"] = restored
        figures["restore"] = job(daemon, state, f"r{restarts - 1}")["milliseconds"]
    finally:
        daemon.close()
    return figures


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("--context", type=int, default=8192)
    parser.add_argument("--new", type=int, default=512)
    parser.add_argument("--restarts", type=int, default=3)  # each loads the model again
    parser.add_argument("--alone", action="store_true")
    parser.add_argument("--folder", default="/dev/shm")
    parser.add_argument("--store", default="/tmp")
    parser.add_argument("--json")
    arguments = parser.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="kvfs-peers-", dir=arguments.folder))
    store = pathlib.Path(tempfile.mkdtemp(prefix="kvfs-peers-", dir=arguments.store))
    try:
        import transformers
        model = make_model(arguments.shape, folder)
        figures = {"shape": arguments.shape, "context": arguments.context,
                   "device": torch.cuda.get_device_name(), "transformers": transformers.__version__,
                   "torch": torch.__version__}
        if not arguments.alone:
            figures["peer"] = transformers_figures(model, arguments.context, arguments.new)
        del model
        torch._dynamo.reset()
        torch.cuda.empty_cache()
        figures["kvfs"] = kvfs_figures(folder, store, arguments.context, arguments.new,
                                       arguments.restarts)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(store, ignore_errors=True)
    text = json.dumps(figures, indent=1)
    print(text)
    if arguments.json:
        pathlib.Path(arguments.json).write_text(text + "\n")


if __name__ == "__main__":
    main()
