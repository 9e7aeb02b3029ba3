"""make_seeds.py OUT: what the fuzzers start from, OUT/TARGET/..., made of the tests' own files."""

import json
import pathlib
import struct
import sys

TESTS = pathlib.Path(__file__).resolve().parents[1]
FAMILIES = TESTS / "engine/model/goldens/families"
TOKENIZERS = TESTS / "engine/text/tokenizers"
TEXT, ARRAY = 8, 9
SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # of numbers by kind


def safetensors_header(path):
    data = path.read_bytes()
    length, = struct.unpack_from("<Q", data)
    return data[:8 + length], len(data)


class Gguf:
    """Walks a file up to where its tensors' data begin."""

    def __init__(self, data):
        self.data, self.at = data, 4
        _, tensors, keys = self.take("IQQ")
        for _ in range(keys):
            self.text()
            self.value(self.take("I")[0])
        for _ in range(tensors):
            self.text()
            dims, = self.take("I")
            self.take(f"{dims}QIQ")

    def take(self, form):
        values = struct.unpack_from("<" + form, self.data, self.at)
        self.at += struct.calcsize("<" + form)
        return values

    def text(self):
        length, = self.take("Q")
        self.at += length

    def value(self, kind):
        if kind == TEXT:
            self.text()
        elif kind == ARRAY:
            inner, count = self.take("IQ")
            for _ in range(count):
                self.value(inner)
        else:
            self.at += SIZES[kind]


def text_of(value):
    value = value.encode()
    return struct.pack("<Q", len(value)) + value


def gguf_of(fields):
    """A GGUF of metadata alone."""
    def value(v):
        if isinstance(v, str):
            return TEXT, text_of(v)
        if isinstance(v, int):
            return 4, struct.pack("<I", v)
        kind = {str: TEXT, int: 5, float: 6}[type(v[0])]
        items = [text_of(x) if kind == TEXT else struct.pack("<i" if kind == 5 else "<f", x)
                 for x in v]
        return ARRAY, struct.pack("<IQ", kind, len(v)) + b"".join(items)

    out = b"GGUF" + struct.pack("<IQQ", 3, 0, len(fields))
    for name, v in fields.items():
        kind, data = value(v)
        out += text_of(name) + struct.pack("<I", kind) + data
    return out


def ggufs():
    for path in sorted(FAMILIES.glob("*/model.gguf")):
        data = path.read_bytes()
        end = Gguf(data).at
        yield path.parent.name, struct.pack("<I", len(data) - end) + data[:end]
    pieces = ["<unk>", "<s>", "</s>", "▁", "a", "b", "▁a", "ab", "<0x0A>"]
    kinds = [2, 3, 3, 1, 1, 1, 1, 1, 6]
    chat = "{% for m in messages %}<s>{{ m.content }}</s>{% endfor %}"
    for model in ("llama", "t5", "gpt2"):
        fields = {"general.architecture": "llama", "tokenizer.ggml.model": model,
                  "tokenizer.ggml.tokens": pieces, "tokenizer.ggml.token_type": kinds,
                  "tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2,
                  "tokenizer.ggml.unknown_token_id": 0, "tokenizer.chat_template": chat}
        if model == "gpt2":
            fields |= {"tokenizer.ggml.pre": "llama-bpe", "tokenizer.ggml.merges": ["a b"]}
        else:
            fields["tokenizer.ggml.scores"] = [-1.0 * i for i in range(len(pieces))]
        yield f"tokenizer-{model}", struct.pack("<I", 0) + gguf_of(fields)


def safetensors():
    for path in sorted(FAMILIES.glob("*/*.safetensors")):
        header, size = safetensors_header(path)
        yield f"{path.parent.name}-{path.stem}", struct.pack("<Q", size) + header


def configs():
    for folder in sorted(FAMILIES.iterdir()):
        tensors, end = {}, 0
        for path in sorted(folder.glob("*.safetensors")):  # shards become one
            part = json.loads(safetensors_header(path)[0][8:])
            part.pop("__metadata__", None)
            for name, entry in part.items():
                entry["data_offsets"] = [end + at for at in entry["data_offsets"]]
                tensors[name] = entry
            end = max(entry["data_offsets"][1] for entry in tensors.values())
        config = json.dumps(json.loads((folder / "config.json").read_text()))
        yield folder.name, (config + "\0" + json.dumps(tensors)).encode()


def tokenizers():
    for path in sorted(TOKENIZERS.glob("*/tokenizer.json")):
        yield path.parent.name, b"\1" + path.read_bytes()
    for path in sorted(TOKENIZERS.glob("*/tokenizer.model")):
        yield path.parent.name, b"\0" + path.read_bytes()


def templates():
    for path in sorted((TESTS / "engine/text/templates").glob("*.jinja")):
        yield path.stem, path.read_bytes()


def caches():
    for path in sorted((TESTS / "codec/container/caches").iterdir()):
        yield path.name, path.read_bytes()


def archives():
    for path in sorted((TESTS / "engine/store/archives").iterdir()):
        data = path.read_bytes()
        table, = struct.unpack_from("<Q", data, 16)
        yield path.name, data
        yield f"{path.stem}-mended", struct.pack("<I", table) + data[40:]


def main():
    out = pathlib.Path(sys.argv[1])
    for target, seeds in {"gguf": ggufs, "safetensors": safetensors, "config": configs,
                          "tokenizer_json": tokenizers, "chat_template": templates,
                          "cache_import": caches, "archive": archives}.items():
        folder = out / target
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in seeds():
            (folder / name).write_bytes(data)


if __name__ == "__main__":
    main()
