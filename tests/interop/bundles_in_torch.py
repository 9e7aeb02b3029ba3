"""Takes a state's bundles into torch and transformers and goes on there, and what they save back in.

Needs torch, transformers, gguf, numpy and safetensors (not what the tests install), a built kvfsd and
the embedded model, whose fp32 mode is used: every token has to be the same. Exits 1 otherwise.

    python tests/interop/bundles_in_torch.py
"""

import copy
import gzip
import os
import pathlib
import pickle
import shutil
import subprocess
import sys

import numpy as np
import safetensors.torch
import torch
from transformers import AutoModelForCausalLM, DynamicCache

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "blackbox"))
from harness import ENGLISH, MODEL, Daemon, fingerprint  # noqa: E402

NEW = 16


def goes_on(model, ids, pairs):
    """Greedy tokens from the cache; its last token is run again to get its logits."""
    cache = DynamicCache([(k[:, :, :-1].to(model.dtype), v[:, :, :-1].to(model.dtype))
                          for k, v in pairs])
    token, out = ids[:, -1:], []
    for _ in range(NEW):
        logits = model(input_ids=token, past_key_values=cache, use_cache=True).logits
        token = logits[:, -1].argmax(-1, keepdim=True)
        out.append(int(token))
    return out


def ours(daemon, name):
    """Greedy tokens that kvfs adds to a child of the state."""
    state = daemon.states / name / "on"
    state.mkdir()
    (state / "params/temperature").write_text("0\n")
    before = len(np.load(state / "tokens.npy"))
    daemon.step(state, NEW)
    tokens = np.load(state / "tokens.npy")[before:].tolist()
    state.rmdir()
    return tokens


def saved(folder, loaded):
    """The forms that users save, of one cache."""
    ids, pairs = loaded["input_ids"], loaded["past_key_values"]
    files = {}

    def put(name, write):
        files[name] = folder / name
        write(folder / name)

    put("tuple.pt", lambda p: torch.save({"input_ids": ids, "past_key_values": tuple(pairs)}, p))
    put("dynamic.pt", lambda p: torch.save({"input_ids": ids, "kv": DynamicCache(pairs)}, p))
    put("dict.pkl", lambda p: p.write_bytes(
        pickle.dumps({"input_ids": ids, "cache": DynamicCache(pairs)})))
    put("dict.pkl.gz", lambda p: p.write_bytes(gzip.compress(
        pickle.dumps({"input_ids": ids.tolist(), "past_key_values": tuple(pairs)}))))
    put("arrays.npz", lambda p: np.savez(p, input_ids=ids.numpy(), **{
        f"{half}_{i}": t.numpy() for i, kv in enumerate(pairs) for half, t in zip(("key", "value"), kv)}))
    put("layers.safetensors", lambda p: safetensors.torch.save_file(
        {"input_ids": ids} | {f"layers.{i}.{half}": t.contiguous()
                              for i, kv in enumerate(pairs) for half, t in zip(("key", "value"), kv)}, p))
    return files


def main():
    model = AutoModelForCausalLM.from_pretrained(MODEL.parent, gguf_file=MODEL.name,
                                                 dtype=torch.float32).eval()
    daemon = Daemon(extra=["--compute", "reference"])
    wrong = 0

    def check(what, good):
        nonlocal wrong
        wrong += not good
        print(f"{'same' if good else 'DIFFERS'}: {what}")

    try:
        daemon.start(120)
        bundles, folder = daemon.mount / "bundles", daemon.directory
        state = daemon.make("s", template="raw", temperature=0)
        daemon.run(state, "feed", ENGLISH[:1500])
        expected = ours(daemon, "s")
        loaded = torch.load(bundles / "s.pt", weights_only=True)
        mapped = torch.load(bundles / "s.pt", weights_only=True, mmap=True)
        check("keys by torch.load, mapped and not", all(
            torch.equal(a, b) for x, y in zip(loaded["past_key_values"], mapped["past_key_values"])
            for a, b in zip(x, y)))
        with torch.no_grad():
            check("tokens of transformers from s.pt",
                  goes_on(model, loaded["input_ids"], loaded["past_key_values"]) == expected)
        tensors = safetensors.torch.load_file(bundles / "s.safetensors")
        check("s.safetensors", torch.equal(tensors["input_ids"], loaded["input_ids"]) and all(
            torch.equal(tensors[f"layers.{i}.key"], k) and torch.equal(tensors[f"layers.{i}.value"], v)
            for i, (k, v) in enumerate(loaded["past_key_values"])))

        pickled = pickle.loads((bundles / "s.pkl").read_bytes())
        check("s.pkl by pickle.load", torch.equal(pickled["input_ids"], loaded["input_ids"]) and
              pickled["state"] == loaded["state"] and all(
                  torch.equal(a, b) for x, y in zip(loaded["past_key_values"], pickled["past_key_values"])
                  for a, b in zip(x, y)))
        with np.load(bundles / "s.npz") as arrays:
            check("s.npz by numpy.load, its CRCs checked", all(
                torch.equal(torch.from_numpy(arrays[f"{half}_{i}"]), t)
                for i, kv in enumerate(loaded["past_key_values"])
                for half, t in zip(("key", "value"), kv)))

        # A pruned state, whose heads hold positions of their own.
        (state / "pruned").mkdir()
        daemon.kvfs("prune", "s/pruned", "knorm", "keep=0.5")
        pruned = torch.load(bundles / "s/pruned.pt", weights_only=True)
        check("positions by layer and head", all(
            p.shape == k.shape[1:3] for p, (k, _) in zip(pruned["positions"], pruned["past_key_values"])))
        torch.save(pruned, folder / "pruned.pt")
        shutil.copy2(folder / "pruned.pt", bundles / "pruned.pt")
        check("a pruned state saved again by torch, every byte and word",
              fingerprint(daemon.states / "pruned") == fingerprint(state / "pruned") and
              ours(daemon, "pruned") == ours(daemon, "s/pruned"))
        del pruned["state"]
        torch.save(pruned, folder / "gaps.pt")
        shutil.copy2(folder / "gaps.pt", bundles / "gaps.pt")
        check("a cache that somebody else pruned, tokens",
              ours(daemon, "gaps") == ours(daemon, "s/pruned") and
              '"imported"' in (daemon.states / "gaps/state.json").read_text())
        shutil.rmtree(state / "pruned")

        for name in ("pt", "safetensors", "pkl", "npz", "kvfs"):
            shutil.copyfile(bundles / f"s.{name}", folder / f"b.{name}")
            shutil.copyfile(folder / f"b.{name}", bundles / f"b{name}.{name}")
            check(f"b.{name} back in, every byte", fingerprint(daemon.states / f"b{name}") == fingerprint(state))
        torch.save(loaded, folder / "again.pt")
        shutil.copyfile(folder / "again.pt", bundles / "again.pt")
        check("saved again by torch, every byte",
              fingerprint(daemon.states / "again") == fingerprint(state))
        for file, path in saved(folder, loaded).items():
            name = file.replace(".", "-")
            shutil.copyfile(path, bundles / (name + "." + file.split(".", 1)[1]))
            said = (daemon.states / name / "state.json").read_text()
            check(f"{file}, tokens", ours(daemon, name) == expected and '"imported"' in said)

        # Converted to and fro: kvfs in bf16 is another state, which still goes on.
        half = copy.deepcopy(loaded)
        half["past_key_values"] = [(k.bfloat16(), v.bfloat16()) for k, v in half["past_key_values"]]
        torch.save(half, folder / "half.pt")
        shutil.copyfile(folder / "half.pt", bundles / "half.pt")
        with torch.no_grad():
            check("bf16, tokens of transformers",
                  goes_on(model, half["input_ids"], half["past_key_values"]) == ours(daemon, "half"))
        loaded["past_key_values"][3][0][0, 0, 5] += 1
        torch.save(loaded, folder / "edited.pt")
        shutil.copyfile(folder / "edited.pt", bundles / "edited.pt")
        with torch.no_grad():
            check("edited, tokens of transformers",
                  goes_on(model, loaded["input_ids"], loaded["past_key_values"]) == ours(daemon, "edited"))
        check("edited, origin", '"edited"' in (daemon.states / "edited/state.json").read_text())

        del loaded["input_ids"], loaded["state"]
        torch.save(loaded, folder / "noids.pt")
        done = subprocess.run(["cp", folder / "noids.pt", bundles], capture_output=True, text=True)
        check("without ids " + done.stderr, done.returncode == 0)
        daemon.run(daemon.states / "noids", "continue", " and then", "j")
        check("without ids, goes on",
              (daemon.states / "noids/text").read_text().startswith("[tokens imported without ids"))
    finally:
        daemon.close()
    return 1 if wrong else 0


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    sys.exit(main())
