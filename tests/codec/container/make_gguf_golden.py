#!/usr/bin/env python3
"""Prints what the gguf package reads in a model file, one line a key and one a tensor.

    make_gguf_golden.py SmolLM2-135M-Instruct.Q4_1.gguf > smollm2_directory.txt

gguf_test.cpp prints the same lines from GgufFile. Needs the package gguf.
"""

import sys
import zlib

import gguf


def value_text(value):
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return "%.17g" % value
    if isinstance(value, str):
        return "text %d bytes crc %08x" % (len(value.encode()), zlib.crc32(value.encode()))
    if isinstance(value, list):
        crc = 0
        for element in value:
            crc = zlib.crc32(str(element).encode() + b"\0", crc)
        return "list %d elements crc %08x" % (len(value), crc)
    return str(value)


reader = gguf.GGUFReader(sys.argv[1])
for name in sorted(reader.fields):
    if not name.startswith("GGUF."):
        print("key", name, value_text(reader.fields[name].contents()))
for tensor in reader.tensors:
    head = tensor.data.tobytes()[:4096]
    print(
        "tensor", tensor.name, tensor.tensor_type.name,
        "x".join(str(int(d)) for d in tensor.shape),
        int(tensor.data_offset), int(tensor.n_bytes), "crc %08x" % zlib.crc32(head),
    )
