#!/usr/bin/env python3
"""Makes tiny models with two KV heads and what transformers says when some entries are hidden.

    make_pruned_goldens.py OUT [FAMILY ...]

OUT/FAMILY/ gets config.json, model.safetensors and golden.json: token ids; by pruning `at` (tokens
read before it) and `kept` ([layer][KV head]: original positions that stay); `logits` after each
token from the first pruning on; `observed`: before the second, by layer and query head, the softmax
weights of what the KV head still holds, of the newest query and summed over the last WINDOW.

The whole text runs through transformers once, in fp32, without a cache: a query that comes after a
pruning has, in each layer and query head, exactly the dropped positions of its KV head masked. So
no cache's idea of lengths or positions is in it.

Needs: torch, transformers, safetensors.
"""
import json
import random
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, eager_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import eager_attention_forward

from make_family_goldens import VOCAB, make_model, token_ids

LAYERS, HEADS, LENGTH, AT, WINDOW = 2, 2, 554, [500, 530], 16
SIZES = dict(vocab_size=VOCAB, hidden_size=32, intermediate_size=32, num_hidden_layers=LAYERS,
             num_attention_heads=4, num_key_value_heads=HEADS, head_dim=32,
             max_position_embeddings=1024, bos_token_id=1, eos_token_id=2, pad_token_id=0)
FAMILIES = {
    "llama": ("llama", dict(SIZES, tie_word_embeddings=True)),
    "qwen3": ("qwen3", dict(SIZES, tie_word_embeddings=True)),
    "mistral": ("mistral", dict(SIZES, sliding_window=72, tie_word_embeddings=True)),
}
hidden = {}  # layer: [query, KV head, key], True where masked
weights = {}  # layer: [query head, query, key] of the last run


def masked_attention(module, query, key, value, attention_mask, scaling, **more):
    group = query.shape[1] // key.shape[1]
    mask = hidden[module.layer_idx].permute(1, 0, 2).repeat_interleave(group, 0)[None]
    bias = torch.zeros(mask.shape).masked_fill(mask, float("-inf"))
    out = eager_attention_forward(module, query, key, value, attention_mask + bias, scaling, **more)
    weights[module.layer_idx] = out[1][0]
    return out


ALL_ATTENTION_FUNCTIONS.register("masked", masked_attention)
ALL_MASK_ATTENTION_FUNCTIONS.register("masked", eager_mask)


def choices():
    """Two prunings; heads differ, and the second drops again out of what the first left."""
    rng = random.Random(5)
    first = [[sorted(rng.sample(range(AT[0]), n) + [AT[0] - 1]) for n in ns]
             for ns in ((180, 77), (33, 300))]
    first[0][1] = [p for p in first[0][1] if p < 256] + [AT[0] - 1]  # of the last page the newest
    first[1][0] = [p for p in first[1][0] if p >= 256]               # nothing of the first page
    first = [[sorted(set(head)) for head in layer] for layer in first]
    new = list(range(AT[0], AT[1]))
    second = [[sorted(rng.sample(head + new, (len(head) + len(new)) * 2 // 3)) for head in layer]
              for layer in first]
    second[0][0] = first[0][0] + new  # all of it
    return [first, second]


def observed(kept):
    """[layer][query head][entry] of what is held before the second pruning."""
    newest, window = [], []
    for layer in range(LAYERS):
        newest.append([])
        window.append([])
        for head, seen in enumerate(weights[layer]):
            entries = kept[layer][head * HEADS // len(weights[layer])] + list(range(*AT))
            for to, first in ((newest, AT[1] - 1), (window, AT[1] - WINDOW)):
                summed = seen[first:AT[1], entries].sum(0)
                to[-1].append([round(float(x), 5) for x in summed])
    return {"window": WINDOW, "newest": newest, "summed": window}


def main():
    out = Path(sys.argv[1])
    for name in sys.argv[2:] or FAMILIES:
        model_type, config = FAMILIES[name]
        folder = out / name
        folder.mkdir(parents=True, exist_ok=True)
        ids, kept = token_ids(LENGTH, 3), choices()
        for layer in range(LAYERS):
            mask = torch.zeros(LENGTH, HEADS, LENGTH, dtype=torch.bool)
            for at, choice in zip(AT, kept):
                for head in range(HEADS):
                    mask[at:, head, :at] = True
                    mask[at:, head, choice[layer][head]] = False
            hidden[layer] = mask
        model = make_model(model_type, torch.bfloat16, config, 1)
        model.config._attn_implementation = "masked"
        with torch.inference_mode():
            logits = model(torch.tensor([ids]), use_cache=False).logits[0]
            scores = observed(kept[0])
            for mask in hidden.values():
                mask[:] = False
            full = model(torch.tensor([ids]), use_cache=False).logits[0]
        moved = ((logits - full)[AT[0]:].norm(dim=1) / full[AT[0]:].norm(dim=1)).min().item()
        assert moved > 0.02, f"{name}: pruning changes too little to be seen: {moved}"
        model.to(torch.bfloat16).save_pretrained(folder)
        (folder / "generation_config.json").unlink(missing_ok=True)
        golden = {"ids": ids, "prunings": [{"at": a, "kept": k} for a, k in zip(AT, kept)],
                  "observed": scores,
                  "logits": [[round(float(x), 4) for x in row] for row in logits[AT[0]:]]}
        text = json.dumps(golden, separators=(",", ":")).replace('"logits"', '\n"logits"').replace('"obs', '\n"obs')
        (folder / "golden.json").write_text(text.replace("],[", "],\n[") + "\n")
        print(name, "least change", round(moved, 3), sum(f.stat().st_size for f in folder.iterdir()))


if __name__ == "__main__":
    main()
