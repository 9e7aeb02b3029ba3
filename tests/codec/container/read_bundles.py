"""read_bundles.py FOLDER: torch and NumPy read what state_bundle_test wrote with
KVFS_KEEP_BUNDLES=FOLDER."""

import json
import pathlib
import pickle
import sys

import numpy
import torch
import transformers


def check_layers(pairs, lengths):
    for i, ((key, value), length) in enumerate(zip(pairs, lengths, strict=True)):
        assert key.shape == (1, 2, length, 4) and value.shape == (1, 2, length, 8)
        assert torch.equal(key.flatten(), 100 * i + torch.arange(8. * length))
        assert torch.equal(value.flatten(), 100 * i + 50 + torch.arange(16. * length))


def check_tree(one):
    assert one["input_ids"].tolist() == [[7, 8, -1]]
    assert one["positions"].tolist() == [0, 1, 2]
    assert one["state"] == {"model": "tiny", "origin": "computed"}
    check_layers(one["past_key_values"], [3, 3])
    cache = transformers.DynamicCache(one["past_key_values"])
    assert cache.get_seq_length() == 3


def check_pruned(positions, pairs):
    assert [p.tolist() for p in positions] == [[0, 1, 2], [[0, 2], [1, 2]], [[], []]] or \
        [p.tolist() for p in positions] == [[0, 1, 2], [[0, 2], [1, 2]], []]
    check_layers(pairs, [3, 2, 0])


def main():
    folder = pathlib.Path(sys.argv[1])
    for mmap in (False, True):
        check_tree(torch.load(folder / "one.pt", weights_only=True, mmap=mmap))
        pruned = torch.load(folder / "by_layer.pt", weights_only=True, mmap=mmap)
        check_pruned(pruned["positions"], pruned["past_key_values"])
    check_tree(pickle.loads((folder / "one.pkl").read_bytes()))
    pruned = pickle.loads((folder / "by_layer.pkl").read_bytes())
    check_pruned(pruned["positions"], pruned["past_key_values"])
    with numpy.load(folder / "one.npz") as arrays:
        one = {name: torch.from_numpy(arrays[name]) for name in ("input_ids", "positions")}
        one["past_key_values"] = [tuple(torch.from_numpy(arrays[f"{half}_{i}"])
                                        for half in ("key", "value")) for i in range(2)]
        one["state"] = json.loads(bytes(arrays["state"]))
        check_tree(one)
    with numpy.load(folder / "by_layer.npz") as arrays:
        check_pruned([arrays[f"positions_{i}"] for i in range(3)],
                     [tuple(torch.from_numpy(arrays[f"{half}_{i}"]) for half in ("key", "value"))
                      for i in range(3)])
    huge = torch.load(folder / "huge.pt", weights_only=True, mmap=True)["past_key_values"]
    assert [k.shape for k, _ in huge] == [(1, 2, 3, 250_000_000)] * 2
    assert torch.equal(huge[1][1].flatten(), 150 + torch.arange(48.))
    print("read by torch", torch.__version__, "transformers", transformers.__version__, "and NumPy",
          numpy.__version__)


if __name__ == "__main__":
    main()
