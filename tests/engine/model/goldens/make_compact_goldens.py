#!/usr/bin/env python3
"""Adds to the tiny families what transformers says of a cache whose keys were moved by hand.

    make_compact_goldens.py FAMILIES [FAMILY ...]

FAMILIES/FAMILY/compact.json: `ids`, of which the first `at` are read; `kept` ([layer][KV head]: the
positions that stay, as many in each head); `logits` after each of the ids that follow, which
continue at the position where the kept ones end.

Keys are turned back by the cosines and sines of the model's own rotary embedding at their position
and on by those of 0 … n − 1, in fp32; layers without it keep theirs. The text is no longer than a
sliding window or than where LongRoPE changes its frequencies, which transformers changes for the
whole past.

Needs: torch, transformers, safetensors.
"""
import json
import random
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, DynamicCache

MOST, MORE = 200, 8
WITHOUT = {"gpt2", "lfm2"}  # learned positions; convolutions


def rotated(x, cos, sin, back=False):
    width = cos.shape[-1]
    turned, rest = x[..., :width], x[..., width:]
    half = torch.cat((-turned[..., width // 2:], turned[..., :width // 2]), -1)
    return torch.cat((turned * cos + (-1 if back else 1) * half * sin, rest), -1)


def angles(model, layer, positions):
    """[n, width] cosines and sines of a layer at positions, or None where it turns nothing."""
    body = model.model if hasattr(model, "model") else model.gpt_neox
    attention = getattr(body.layers[layer], "self_attn", None)
    if attention is not None and not getattr(attention, "use_rope", True):
        return None
    x, places = torch.zeros(1, 1, 1), positions[None]
    kinds = getattr(model.config, "layer_types", None)
    try:
        cos, sin = body.rotary_emb(x, places)
    except (AttributeError, TypeError):  # Gemma 3 has one for each kind of layer
        cos, sin = body.rotary_emb(x, places, kinds[layer])
    return cos[0], sin[0]


def moved(model, layer, keys, kept):
    """keys: [1, heads, all, width]; those kept, at 0 … n − 1."""
    out = []
    for head, positions in enumerate(kept):
        mine = keys[0, head, positions]
        before = angles(model, layer, torch.tensor(positions))
        if before is not None:
            scale = before[0][0, 0] ** 2 + before[1][0, 0] ** 2  # of YaRN and LongRoPE
            plain = rotated(mine, *before, back=True)
            width = before[0].shape[-1]
            plain[..., :width] /= scale
            mine = rotated(plain, *angles(model, layer, torch.arange(len(positions))))
        out.append(mine)
    return torch.stack(out)[None]


def main():
    families = Path(sys.argv[1])
    for folder in sorted(families.iterdir()):
        if folder.name in WITHOUT or (sys.argv[2:] and folder.name not in sys.argv[2:]):
            continue
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32,
                                                     attn_implementation="eager").eval()
        config = model.config
        golden = json.loads((folder / "golden.json").read_text())
        limits = [MOST, getattr(config, "sliding_window", None),
                  getattr(config, "original_max_position_embeddings", None)]
        at = min(limit for limit in limits if limit)
        at = min(at, 300 - MORE)
        ids = golden["ids"][:at + MORE]
        rng = random.Random(7)
        with torch.inference_mode():
            cache = DynamicCache()
            model(torch.tensor([ids[:at]]), past_key_values=cache, use_cache=True)
            heads = cache.layers[0].keys.shape[1]
            n = at // 3
            kept = [[sorted(rng.sample(range(at - 1), n - 1)) + [at - 1] for _ in range(heads)]
                    for _ in cache.layers]
            short = DynamicCache()
            for i, layer in enumerate(cache.layers):
                assert layer.keys.shape[2] == at, folder.name
                values = torch.stack([layer.values[0, h, p] for h, p in enumerate(kept[i])])[None]
                short.update(moved(model, i, layer.keys, kept[i]), values, i)
            logits = model(torch.tensor([ids[at:]]), past_key_values=short, use_cache=True,
                           position_ids=torch.arange(n, n + MORE)[None]).logits[0]
            # Not turned they would say something else.
            wrong = DynamicCache()
            for i, layer in enumerate(cache.layers):
                keys = torch.stack([layer.keys[0, h, p] for h, p in enumerate(kept[i])])[None]
                values = torch.stack([layer.values[0, h, p] for h, p in enumerate(kept[i])])[None]
                wrong.update(keys, values, i)
            other = model(torch.tensor([ids[at:]]), past_key_values=wrong, use_cache=True,
                          position_ids=torch.arange(n, n + MORE)[None]).logits[0]
        apart = ((other - logits).norm() / logits.norm()).item()
        assert apart > 0.003, f"{folder.name}: turning changes too little to be seen: {apart}"
        text = json.dumps({"ids": ids, "at": at, "kept": kept,
                           "logits": [[round(float(x), 5) for x in row] for row in logits]},
                          separators=(",", ":"))
        (folder / "compact.json").write_text(text.replace("],[", "],\n[") + "\n")
        print(folder.name, at, n, "apart", round(apart, 4), len(text))


if __name__ == "__main__":
    main()
