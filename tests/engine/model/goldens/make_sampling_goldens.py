#!/usr/bin/env python3
"""Which tokens transformers' warpers leave to be drawn: sampling.txt.

A line a setting: temperature top_k top_p min_p typical, then the ids. The logits are those of
sampling_test.cpp's wavy(). Run with transformers and torch installed: make_sampling_goldens.py"""

import math
import pathlib

import torch
from transformers import (LogitsProcessorList, MinPLogitsWarper, TemperatureLogitsWarper,
                          TopKLogitsWarper, TopPLogitsWarper, TypicalLogitsWarper)

SETTINGS = [
    (4.0, 0, 1.0, 0.0, 0.2), (4.0, 0, 1.0, 0.0, 0.5), (6.0, 0, 1.0, 0.0, 0.9),
    (1.5, 0, 1.0, 0.0, 0.3), (3.0, 60, 1.0, 0.0, 0.5), (3.0, 0, 0.7, 0.0, 0.5),
    (3.0, 0, 1.0, 0.2, 0.6), (3.0, 80, 0.8, 0.1, 0.7), (3.0, 50, 1.0, 0.0, 1.0),
    (3.0, 0, 0.4, 0.0, 1.0), (3.0, 0, 1.0, 0.3, 1.0), (3.0, 70, 0.6, 0.25, 1.0),
]


def main():
    logits = torch.tensor([[4 * math.sin(7.13 * i) + 2 * math.cos(0.37 * i * i)
                            for i in range(300)]], dtype=torch.float32)
    lines = []
    for temperature, top_k, top_p, min_p, typical in SETTINGS:
        warpers = LogitsProcessorList([TemperatureLogitsWarper(temperature)])  # as generate() does
        if top_k:
            warpers.append(TopKLogitsWarper(top_k))
        if top_p < 1:
            warpers.append(TopPLogitsWarper(top_p))
        if min_p > 0:
            warpers.append(MinPLogitsWarper(min_p))
        if typical < 1:
            warpers.append(TypicalLogitsWarper(typical))
        left = torch.isfinite(warpers(None, logits.clone())[0]).nonzero()[:, 0].tolist()
        lines.append(" ".join(map(str, (temperature, top_k, top_p, min_p, typical, *left))))
    (pathlib.Path(__file__).parent / "sampling.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
