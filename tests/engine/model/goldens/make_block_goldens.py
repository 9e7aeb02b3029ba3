#!/usr/bin/env python3
"""Makes blocks.json: random blocks of every quantized kind of GGUF, as hex, and what the gguf
package's reference makes of them. Scales are sane numbers; everything else is any bits.

    make_block_goldens.py blocks.json        (needs: gguf, numpy)
"""
import json
import sys

import numpy as np
from gguf import GGMLQuantizationType as T
from gguf.quants import dequantize

# kind: (bytes of a block, where its fp16 scales lie)
KINDS = {"Q4_0": (18, [0]), "Q4_1": (20, [0, 2]), "Q5_0": (22, [0]), "Q5_1": (24, [0, 2]),
         "Q8_0": (34, [0]), "Q4_K": (144, [0, 2]), "Q5_K": (176, [0, 2]), "Q6_K": (210, [208])}


def main():
    random = np.random.default_rng(5)
    goldens = {}
    for kind, (size, scales) in KINDS.items():
        blocks = random.integers(0, 256, (2, size), dtype=np.uint8)
        for block in blocks:
            for at in scales:
                block[at:at + 2] = np.float16(random.normal() / 8).reshape(1).view(np.uint8)
        values = dequantize(blocks, T[kind]).astype(np.float32).ravel()
        goldens[kind] = {"bytes": blocks.tobytes().hex(), "values": [float(v) for v in values]}
    with open(sys.argv[1], "w") as out:
        out.write(json.dumps(goldens).replace("}, ", "},\n") + "\n")


main()
