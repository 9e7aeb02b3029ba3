"""read_bundles.py FOLDER: torch reads what state_bundle_test wrote with
KVFS_KEEP_BUNDLES=FOLDER."""

import pathlib
import sys

import torch
import transformers


def check_layers(pairs, lengths):
    for i, ((key, value), length) in enumerate(zip(pairs, lengths, strict=True)):
        assert key.shape == (1, 2, length, 4) and value.shape == (1, 2, length, 8)
        assert torch.equal(key.flatten(), 100 * i + torch.arange(8. * length))
        assert torch.equal(value.flatten(), 100 * i + 50 + torch.arange(16. * length))


def main():
    folder = pathlib.Path(sys.argv[1])
    for mmap in (False, True):
        one = torch.load(folder / "one.pt", weights_only=True, mmap=mmap)
        assert one["input_ids"].tolist() == [[7, 8, -1]]
        assert one["positions"].tolist() == [0, 1, 2]
        assert one["state"] == {"model": "tiny", "origin": "computed"}
        check_layers(one["past_key_values"], [3, 3])
        cache = transformers.DynamicCache(one["past_key_values"])
        assert cache.get_seq_length() == 3
        by_layer = torch.load(folder / "by_layer.pt", weights_only=True, mmap=mmap)
        assert [p.tolist() for p in by_layer["positions"]] == [[0, 1, 2], [0, 2]]
        check_layers(by_layer["past_key_values"], [3, 2])
    huge = torch.load(folder / "huge.pt", weights_only=True, mmap=True)["past_key_values"]
    assert [k.shape for k, _ in huge] == [(1, 2, 3, 250_000_000)] * 2
    assert torch.equal(huge[1][1].flatten(), 150 + torch.arange(48.))
    print("read by torch", torch.__version__, "and transformers", transformers.__version__)


if __name__ == "__main__":
    main()
