"""Models of a terabyte and more that take no disk: true headers, weights that are holes."""

import json
import pathlib
import shutil
import struct

FFN = 1 << 24  # the widest that a reader takes
F16 = 1        # ggml's number
SCALARS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # bytes


class Gguf:
    """The places of a GGUF file's header."""

    def __init__(self, data):
        self.data = data
        self.at = 8
        tensors, fields = self.take("<QQ")
        self.values = {}
        self.fields_begin = self.at
        for _ in range(fields):
            name = self.text()
            kind, = self.take("<I")
            self.values[name] = self.at
            self.skip(kind)
        self.fields_end = self.at
        self.tensors = []
        for _ in range(tensors):
            name = self.text()
            dims = self.take("<%dQ" % self.take("<I"))
            kind, _ = self.take("<IQ")
            self.tensors.append((name, list(dims), kind))

    def take(self, form):
        values = struct.unpack_from(form, self.data, self.at)
        self.at += struct.calcsize(form)
        return values

    def text(self):
        size, = self.take("<Q")
        self.at += size
        return bytes(self.data[self.at - size:self.at]).decode()

    def skip(self, kind):
        if kind == 8:
            self.text()
        elif kind == 9:
            inner, count = self.take("<IQ")
            for _ in range(count):
                self.skip(inner)
        else:
            self.at += SCALARS[kind]


def make_gguf(model, path):
    """model, but for feed-forward layers of 16.8 million: returns the bytes of the file."""
    data = bytearray(model.read_bytes())
    old = Gguf(data)
    struct.pack_into("<I", data, old.values["llama.feed_forward_length"], FFN)
    sizes = {0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 8: (32, 34), 12: (256, 144), 14: (256, 210)}
    table, offset = b"", 0
    for name, dims, kind in old.tensors:
        if ".ffn_" in name and "norm" not in name:
            dims[1 if dims[0] < dims[1] else 0] = FFN
            kind = F16
        count = 1
        for dim in dims:
            count *= dim
        elements, size = sizes[kind]
        table += struct.pack("<Q", len(name)) + name.encode()
        table += struct.pack("<I%dQIQ" % len(dims), len(dims), *dims, kind, offset)
        offset += (count // elements * size + 31) // 32 * 32
    header = bytes(data[:old.fields_end]) + table
    whole = (len(header) + 31) // 32 * 32 + offset
    with open(path, "wb") as f:
        f.write(header)
        f.truncate(whole)
    return whole


def make_folder(model, path, layers=200):
    """A Hugging Face folder like model, but for its depth and feed-forward layers."""
    shutil.copytree(model, path)
    config = json.loads((path / "config.json").read_text())
    config.update(num_hidden_layers=layers, intermediate_size=FFN)
    (path / "config.json").write_text(json.dumps(config))
    weights = pathlib.Path(path) / "model.safetensors"
    with open(weights, "rb") as f:
        old = json.loads(f.read(*struct.unpack("<Q", f.read(8))))
    header, end = {}, 0

    def add(name, shape):
        nonlocal end
        size = 2
        for dim in shape:
            size *= dim
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + size]}
        end += size

    for name, tensor in old.items():
        if name != "__metadata__" and ".layers." not in name:
            add(name, tensor["shape"])
    width = config["hidden_size"]
    for layer in range(layers):
        for name, tensor in old.items():
            if ".layers.0." in name:
                shape = tensor["shape"]
                if ".mlp." in name:
                    shape = [width, FFN] if "down" in name else [FFN, width]
                add(name.replace(".0.", f".{layer}."), shape)
    text = json.dumps(header).encode()
    weights.unlink()
    with open(weights, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        f.truncate(8 + len(text) + end)
    return 8 + len(text) + end
