#!/usr/bin/env python3
"""One large state: tests/bench/large_state.py [--gb 4]

Makes a small model whose keys and values are wide (256 KiB a token), copies in a state of random KV for
it, and times what people do with it. Wanted, of 4 GB: kv/ read one after the other >= 2 GB/s
warm, cp out >= 1 GB/s, four readers at once scale, cp -r within the mount < 100 ms; stat of any file,
while a generation runs, 99.9 % < 10 ms. Figures: docs/PERFORMANCE.md."""

import argparse
import json
import multiprocessing
import os
import pathlib
import random
import shutil
import struct
import subprocess
import sys
import threading
import time

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/blackbox"))
sys.dont_write_bytecode = True
from harness import Daemon, wait_until  # noqa: E402
from states import used  # noqa: E402

LAYERS, HEADS, WIDTH, CONTEXT = 32, 16, 128, 32768
TOKEN_BYTES = LAYERS * HEADS * WIDTH * 2 * 2


def write_safetensors(path, tensors):
    """tensors: name → (dtype, shape, blocks of bytes)."""
    header, at = {}, 0
    for name, (dtype, shape, blocks) in tensors.items():
        size = sum(len(block) for block in blocks)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    with open(path, "wb", buffering=0) as out:
        out.write(struct.pack("<Q", len(head)) + head)
        for _, _, blocks in tensors.values():
            for block in blocks:
                for begin in range(0, len(block), 1 << 20):
                    out.write(block[begin:begin + (1 << 20)])


def bf16(rng, count, scale=0x3C00):
    """Random numbers around 1 (scale 0x3F00) or 0.01."""
    return ((rng.integers(0, 1 << 16, count, dtype=np.uint16) & 0x81FF) + scale).tobytes()


def make_model(directory):
    shutil.copytree(ROOT / "tests/blackbox/hf_folder/model", directory)
    config = json.loads((directory / "config.json").read_text())
    config.update(num_hidden_layers=LAYERS, num_attention_heads=HEADS, num_key_value_heads=HEADS,
                  head_dim=WIDTH, max_position_embeddings=CONTEXT)
    (directory / "config.json").write_text(json.dumps(config))
    rng, hidden, wide, ffn = np.random.default_rng(1), 64, HEADS * WIDTH, 128
    shapes = {"model.embed_tokens.weight": [384, hidden], "model.norm.weight": [hidden]}
    for layer in range(LAYERS):
        at = f"model.layers.{layer}."
        shapes |= {at + "input_layernorm.weight": [hidden], at + "post_attention_layernorm.weight": [hidden],
                   at + "mlp.gate_proj.weight": [ffn, hidden], at + "mlp.up_proj.weight": [ffn, hidden],
                   at + "mlp.down_proj.weight": [hidden, ffn], at + "self_attn.o_proj.weight": [hidden, wide]}
        shapes |= {at + f"self_attn.{name}_proj.weight": [wide, hidden] for name in "qkv"}
    write_safetensors(directory / "model.safetensors",
                      {name: ("BF16", shape, [bf16(rng, int(np.prod(shape)))])
                       for name, shape in sorted(shapes.items())})


def make_large(daemon, tokens):
    """A copy that somebody sends: state.json, tokens.npy and kv/ without a root."""
    seed = daemon.make("seed", template="raw")
    daemon.run(seed, "feed", "A few words.")
    state = json.loads((seed / "state.json").read_text())
    kv_type = state["dtype"]
    del state["root"]
    state["n_tokens"] = state["next_pos"] = tokens
    for layer in state["layers"]:
        layer["length"] = tokens
    large = daemon.states / "large"
    large.mkdir()
    (large / "state.json").write_text(json.dumps(state))
    ids = np.full(tokens, 65, dtype=np.int32)
    np.save(large / "tokens.npy", ids)
    (large / "kv").mkdir(exist_ok=True)
    positions = np.arange(tokens, dtype=np.int32).tobytes()
    for layer in range(LAYERS):
        rng = np.random.default_rng(layer)
        half = tokens * HEADS * WIDTH
        write_safetensors(large / f"kv/layer-{layer:03}.safetensors",
                          {"key": (kv_type, [1, HEADS, tokens, WIDTH], [bf16(rng, half)]),
                           "positions": ("I32", [tokens], [positions]),
                           "value": (kv_type, [1, HEADS, tokens, WIDTH], [bf16(rng, half)])})
    wait_until(lambda: not (large / "status").read_text().startswith("incomplete"), 600,
               "the copy is a state")
    assert json.loads((large / "state.json").read_text())["n_tokens"] == tokens
    return large


def read_all(paths):
    buffer = bytearray(1 << 20)
    total = 0
    for path in paths:
        with open(path, "rb", buffering=0) as file:
            while got := file.readinto(buffer):
                total += got
    return total


def rate(daemon, what, action, bytes_, times=3):
    """Wall time, and what the CPUs did for it: on a busy machine the second says more."""
    figures = []
    for _ in range(times):
        before, begin = used(daemon) + time.process_time(), time.monotonic()
        action()
        wall, cpu = time.monotonic() - begin, used(daemon) + time.process_time() - before
        figures.append(f"{bytes_ / wall / 1e9:5.2f} (of a CPU {bytes_ / max(cpu, 0.01) / 1e9:5.2f})")
    print(f"{what:42}", "  ".join(figures), "GB/s", flush=True)


def forget_pages():
    pathlib.Path("/proc/sys/vm/drop_caches").write_text("1\n")


def copies(daemon, large, bytes_, out):
    layers = sorted((large / "kv").iterdir())
    rate(daemon, "kv/ read through the daemon", lambda: read_all(layers), bytes_, 1)
    rate(daemon, "kv/ read again (the kernel has it)", lambda: read_all(layers), bytes_)

    def four():
        readers = [multiprocessing.get_context("fork").Process(target=read_all, args=(layers,))
                   for _ in range(4)]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
    rate(daemon, "... by four readers, all of them together", four, 4 * bytes_)

    def copy_out():
        shutil.rmtree(out, ignore_errors=True)
        subprocess.run(["cp", "-r", large / "kv", out], check=True)
    rate(daemon, f"cp -r kv/ to {out}", copy_out, bytes_, 2)
    shutil.rmtree(out)
    forget_pages()
    rate(daemon, "kv/ read, nothing of it in memory", lambda: read_all(layers), bytes_, 1)
    forget_pages()
    read_all([daemon.store / "data.mdb"])  # what the daemon maps; the mount's own pages are gone
    rate(daemon, "kv/ read, the store's file in memory", lambda: read_all(layers), bytes_, 1)
    figures = []
    for i in range(3):
        begin = time.monotonic()
        subprocess.run(["cp", "-r", large, daemon.states / f"copy{i}"], check=True)
        figures.append((time.monotonic() - begin) * 1000)
        for name in ("state.json", "kv/layer-000.safetensors"):
            assert (daemon.states / f"copy{i}" / name).stat().st_size == (large / name).stat().st_size
    print(f"{'cp -r within the mount':42}", "  ".join(f"{figure:5.0f}" for figure in figures), "ms", flush=True)


def stats(daemon, large, seconds=20):
    state = daemon.make("talking", template="raw", max_tokens=20000, temperature=1)
    stop, asked = threading.Event(), []

    def keep_talking():  # random weights say the end token now and then
        while not stop.is_set():
            asked.append(f"q{len(asked)}")
            (state / "ask" / asked[-1]).write_text("Once upon a time")
            (state / "replies" / asked[-1]).read_bytes()
    talker = threading.Thread(target=keep_talking)
    talker.start()
    wait_until(lambda: any(reply.stat().st_size for reply in (state / "replies").iterdir()), 60,
               "the first token")
    paths = [str(p) for p in [large, *large.rglob("*"), state, *state.rglob("*"), daemon.mount / "status"]
             if p.parent.name != "ask"]
    rng, times = random.Random(1), []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        path = rng.choice(paths)
        begin = time.perf_counter()
        os.stat(path)
        times.append(time.perf_counter() - begin)
        time.sleep(0.0005)
    stop.set()
    (state / "ctl").write_text(f"cancel {asked[-1]}\n")
    talker.join()
    times.sort()
    at = {name: times[min(len(times) - 1, int(len(times) * part))] * 1000
          for name, part in (("50 %", 0.5), ("99 %", 0.99), ("99.9 %", 0.999))}
    print(f"stat while a generation runs ({len(times)} calls): "
          + ", ".join(f"{name} {ms:.2f} ms" for name, ms in at.items())
          + f", longest {times[-1] * 1000:.2f} ms; {len(asked)} replies", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gb", type=float, default=4)
    parser.add_argument("--directory", help="of the store; it takes three times the state")
    parser.add_argument("--out", default="/dev/shm/kvfs-large-state", help="where cp copies to")
    given = parser.parse_args()
    daemon = Daemon(directory=given.directory)
    try:
        daemon.model = daemon.directory / "wide"
        make_model(daemon.model)
        daemon.start()
        begin = time.monotonic()
        large = make_large(daemon, int(given.gb * 1e9 / TOKEN_BYTES))
        bytes_ = sum(path.stat().st_size for path in (large / "kv").iterdir())
        print(f"copied in: {bytes_ / 1e9:.2f} GB in {time.monotonic() - begin:.0f} s", flush=True)
        copies(daemon, large, bytes_, pathlib.Path(given.out))
        stats(daemon, large)
    finally:
        daemon.close()
        shutil.rmtree(given.out, ignore_errors=True)


if __name__ == "__main__":
    main()
