#!/usr/bin/env python3
"""Writes caches/: the last conversation of golden.json up to twelve tokens before its end, as users of
transformers save its cache. Needs torch, transformers, safetensors, numpy; run after make_folder.py.
"""
import gzip
import json
import pickle
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from transformers import AutoModelForCausalLM, DynamicCache

HERE = Path(__file__).resolve().parent
OUT = HERE / "caches"
LEFT = 12


def main():
    OUT.mkdir(exist_ok=True)
    model = AutoModelForCausalLM.from_pretrained(HERE / "model", dtype=torch.float32).eval()
    ids = torch.tensor([json.loads((HERE / "golden.json").read_text())[-1]["ids"][:-LEFT]])
    cache = DynamicCache()
    with torch.no_grad():
        model(input_ids=ids, past_key_values=cache, use_cache=True)
    pairs = tuple((layer.keys.clone(), layer.values.clone()) for layer in cache.layers)
    torch.save({"input_ids": ids, "kv": cache}, OUT / "dynamic.pt")
    (OUT / "dynamic.pkl").write_bytes(pickle.dumps({"input_ids": ids, "cache": cache}))
    packed = pickle.dumps({"input_ids": ids.tolist(), "past_key_values": pairs})
    (OUT / "tuple.pkl.gz").write_bytes(gzip.compress(packed, mtime=0))
    np.savez(OUT / "arrays.npz", input_ids=ids.numpy(), **{
        f"{half}_{i}": t.numpy() for i, kv in enumerate(pairs) for half, t in zip(("key", "value"), kv)})
    safetensors.torch.save_file({"input_ids": ids} | {
        f"layers.{i}.{half}": t.contiguous()
        for i, kv in enumerate(pairs) for half, t in zip(("key", "value"), kv)}, OUT / "layers.safetensors")


if __name__ == "__main__":
    main()
