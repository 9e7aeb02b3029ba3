"""make_caches.py TRANSFORMERS_4_44: writes caches/, the files of cache_import_test.cpp and
torch_file_test.cpp, as users of torch 2.11, NumPy 2 and transformers 5 and 4.44 write them.

TRANSFORMERS_4_44 is the folder of the unpacked wheel of transformers 4.44.2, of which only
cache_utils.py is run; transformers 5 is what this Python has.

Every cache has 2 layers, 2 heads, 3 tokens, head_dim 4, and counts its elements: layer 0's keys are
0 to 23, its values 24 to 47, and so on, which all of fp32, fp16 and bf16 hold exactly."""

import gzip
import importlib.util
import pathlib
import pickle
import sys
import types

import numpy as np
import torch
import transformers

OUT = pathlib.Path(__file__).resolve().parent / "caches"
IDS = torch.tensor([[7, 8, 9]])


def pairs(dtype=torch.float32):
    whole = torch.arange(96, dtype=torch.float32).reshape(2, 2, 1, 2, 3, 4).to(dtype)
    return tuple((layer[0].clone(), layer[1].clone()) for layer in whole)


def cache_of_5(dtype, **settings):
    cache = transformers.DynamicCache(**settings)
    for i, (key, value) in enumerate(pairs(dtype)):
        cache.update(key, value, i)
    return cache


class Transformers444:
    """While open, transformers.cache_utils is that of 4.44."""

    def __init__(self, folder):
        self.path = pathlib.Path(folder) / "transformers/cache_utils.py"

    def __enter__(self):
        names = ["transformers", "transformers.cache_utils", "transformers.utils",
                 "transformers.configuration_utils"]
        self.kept = {name: sys.modules.pop(name, None) for name in names}
        package = types.ModuleType("transformers")
        package.__path__ = []
        config = types.ModuleType("transformers.configuration_utils")
        config.PretrainedConfig = object
        utils = types.ModuleType("transformers.utils")
        utils.is_hqq_available = utils.is_quanto_available = lambda: False
        utils.is_torchdynamo_compiling = lambda: False
        utils.logging = types.SimpleNamespace(get_logger=lambda name: None)
        sys.modules |= {"transformers": package, "transformers.utils": utils,
                        "transformers.configuration_utils": config}
        spec = importlib.util.spec_from_file_location("transformers.cache_utils", self.path)
        module = importlib.util.module_from_spec(spec)
        sys.modules["transformers.cache_utils"] = module
        spec.loader.exec_module(module)
        return module

    def __exit__(self, *_):
        sys.modules.update({name: module for name, module in self.kept.items() if module})


def save_torch(name, value, **options):
    torch.save(value, OUT / name, **options)


def save_pickle(name, value, **options):
    (OUT / name).write_bytes(pickle.dumps(value, **options))


def tuples():
    for name, dtype in {"fp32": torch.float32, "fp16": torch.float16,
                        "bf16": torch.bfloat16}.items():
        save_torch(f"tuple_{name}.pt", pairs(dtype))
    save_torch("tuple_stream.pt", pairs(torch.bfloat16), _use_new_zipfile_serialization=False)
    for protocol in range(6):
        save_pickle(f"tuple_{protocol}.pkl", pairs(torch.bfloat16), protocol=protocol)
    # One storage for all, and rows apart: [1, T, heads, width] seen as [1, heads, T, width].
    whole = torch.arange(96.).reshape(2, 2, 1, 2, 3, 4)
    save_torch("shared.pt", [(layer[0], layer[1]) for layer in whole])
    save_torch("shared_stream.pt", [(layer[0], layer[1]) for layer in whole],
               _use_new_zipfile_serialization=False)
    apart = whole.transpose(3, 4).contiguous().transpose(3, 4)
    save_torch("strided.pt", [(layer[0], layer[1]) for layer in apart])
    save_torch("no_batch.pt", [(k[0], v[0]) for k, v in pairs()])
    torch.serialization.set_crc32_options(False)
    save_torch("no_crc.pt", pairs())
    torch.serialization.set_crc32_options(True)


def caches(folder):
    save_torch("dynamic_5.pt", cache_of_5(torch.bfloat16))
    save_pickle("dynamic_5.pkl", cache_of_5(torch.float16))
    save_pickle("dynamic_5_0.pkl", cache_of_5(torch.float32), protocol=0)
    with Transformers444(folder) as old:
        cache = old.DynamicCache()
        for i, (key, value) in enumerate(pairs(torch.bfloat16)):
            cache.update(key, value, i)
        save_torch("dynamic_4.pt", cache)
        save_pickle("dynamic_4.pkl", cache)


def dicts():
    save_torch("dict_kv.pt", {"input_ids": torch.arange(7, 13)[None], "kv": pairs(),
                              "positions": torch.tensor([0, 4, 5])})
    data = pickle.dumps({"input_ids": [7, 8, 9], "past_key_values": cache_of_5(torch.bfloat16)})
    (OUT / "dict_past_key_values.pkl.gz").write_bytes(gzip.compress(data, mtime=0))
    # As generate() leaves it: the last token has no keys yet.
    save_pickle("dict_cache.pkl", {"cache": pairs(), "input_ids": torch.tensor([[7, 8, 9, 10]])})
    arrays = [[(k.numpy(), v.numpy()) for k, v in pairs()], IDS.numpy().astype(np.int32)]
    for protocol in (2, 4, 5):
        save_pickle(f"numpy_{protocol}.pkl", {"kv": arrays[0], "input_ids": arrays[1]},
                    protocol=protocol)


def zips():
    flat = {f"{kind}_{i}": t.numpy() for i, kv in enumerate(pairs(torch.float16))
            for kind, t in zip(("key", "value"), kv)}
    np.savez(OUT / "flat.npz", input_ids=IDS.numpy(), **flat)
    np.savez_compressed(OUT / "flat_compressed.npz", **flat)
    stacked = torch.arange(96.).reshape(2, 2, 1, 2, 3, 4).numpy()
    np.savez_compressed(OUT / "stacked.npz", k=stacked[:, 0], v=stacked[:, 1])


def refused():
    save_torch("two_in_a_batch.pt", [(k.repeat(2, 1, 1, 1), v) for k, v in pairs()])
    save_torch("lengths_differ.pt", [pairs()[0], tuple(t[:, :, :2] for t in pairs()[1])])
    save_torch("double.pt", pairs(torch.float64))
    save_torch("empty.pt", transformers.DynamicCache())
    save_pickle("too_few_ids.pkl", {"kv": pairs(), "input_ids": [7, 8]})
    save_torch("no_cache.pt", {"weight": torch.zeros(3), "input_ids": IDS})

    class Evil:
        def __reduce__(self):
            import os
            return os.system, ("true",)

    save_torch("evil.pt", {"kv": pairs(), "input_ids": Evil()})


def main():
    OUT.mkdir(exist_ok=True)
    tuples()
    caches(sys.argv[1])
    dicts()
    zips()
    refused()


if __name__ == "__main__":
    main()
