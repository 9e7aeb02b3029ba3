#!/usr/bin/env python3
"""Writes what kvpress's presses say of the tiny models' caches.

    make_observed_goldens.py KVPRESS OUT [FAMILY ...]

KVPRESS: the folder `kvpress` of the PyPI package kvpress 0.5.5, unpacked. OUT/FAMILY holds a model and
golden.json of make_pruned_goldens.py; OUT/FAMILY/observed.json gets, of the first TOKENS of its ids, by
layer and query head, a number a token:

  h2o       attention summed over all queries, over how many could see the token
            (ObservedAttentionPress; in a layer with a window, as many as its width at most)
  expected  the exponents, from ExpectedAttentionPress.get_query_statistics; with the values' norms,
            by KV head, and what its score() keeps of SHARE
  kvzip     the highest weight in any repetition (KVzipPress.score_kvzip, before the maximum over
            a group; a layer with a window sees no further), pieces of PIECE, the requests made up

Needs: torch, transformers.
"""
import json
import math
import sys
import types
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM
from transformers.models.llama.modeling_llama import rotate_half

package = types.ModuleType("kvpress")  # without its __init__, which wants more than is used here
package.__path__ = [sys.argv[1]]
sys.modules["kvpress"] = package
from kvpress.presses.expected_attention_press import ExpectedAttentionPress  # noqa: E402
from kvpress.presses.kvzip_press import KVzipPress  # noqa: E402
from kvpress.presses.observed_attention_press import ObservedAttentionPress  # noqa: E402
from kvpress.utils import get_prerope_key_states  # noqa: E402

TOKENS, PIECE, SHARE = 192, 80, 0.3
ASK, ASK_ON, ANSWER, BEFORE = [5, 9, 11], [7, 3], [4], 8


def rows(scores):
    return [[float(f"{x:.5g}") for x in row] for row in scores.tolist()]


class InWindow(KVzipPress):
    """A query sees the `window` keys up to its own alone."""

    def _mask_causal(self, attn_weights, window_size):
        super()._mask_causal(attn_weights, window_size)
        sinks = torch.arange(min(self.n_sink, self.start_idx))
        new = torch.arange(TOKENS, TOKENS + window_size)
        keys = torch.cat([sinks, torch.arange(self.start_idx, self.end_idx), new])
        attn_weights[..., new[:, None] - keys[None] >= self.window] = float("-inf")


def attention_inputs(model, call):
    """[layer] of what each self_attn was called with during call()."""
    seen = {}
    hooks = [layer.self_attn.register_forward_pre_hook(
        lambda m, args, kwargs: seen.__setitem__(m.layer_idx, kwargs), with_kwargs=True)
        for layer in model.model.layers]
    out = call()
    for hook in hooks:
        hook.remove()
    return out, seen


def h2o(attention, group, window):
    press = ObservedAttentionPress(0)
    tokens = attention.shape[-1]
    later = torch.arange(tokens, 0, -1)
    could_see = later.clamp(max=window) if window else later
    scores = attention[0].sum(1) / could_see
    keys = torch.zeros(1, attention.shape[1] // group, tokens, 1)
    if not window:
        theirs = press.score(None, None, keys, None, attention, {})[0]
        assert torch.allclose(theirs, scores.view(keys.shape[1], group, -1).mean(1))
    return rows(scores)


def expected(module, hidden, keys, values, group):
    press = ExpectedAttentionPress(0, n_sink=4)
    mean, covariance = press.get_query_statistics(module, hidden)
    spread = keys.repeat_interleave(group, 1)
    width = keys.shape[-1]
    exponents = torch.einsum("bhnd,bhd->bhn", spread, mean) / math.sqrt(width)
    exponents += torch.einsum("bhni,bhij,bhnj->bhn", spread, covariance, spread) / width / 2
    scores = press.score(module, hidden, keys, values, None, {})[0]
    kept = scores.topk(int(SHARE * TOKENS), -1).indices.sort(-1).values
    return {"exponents": rows(exponents[0]), "norms": rows(values[0].norm(dim=-1)), "kept": kept.tolist()}


def kvzip(model, ids, windows):
    config = model.config
    scores = [torch.zeros(config.num_attention_heads, TOKENS) for _ in model.model.layers]
    for begin in range(0, TOKENS, PIECE):
        end = min(begin + PIECE, TOKENS)
        ask = ASK if begin == 0 else ASK_ON + ids[begin - BEFORE:begin]
        repeat = ask + ANSWER + ids[begin:end]
        # The cache holds what a run of the whole would compute: so all in one run, without one.
        _, seen = attention_inputs(model, lambda: model(
            torch.tensor([ids + repeat]), use_cache=False))
        for layer in model.model.layers:
            at, module = layer.self_attn.layer_idx, layer.self_attn
            hidden = seen[at]["hidden_states"]
            cos, sin = seen[at]["position_embeddings"]
            keys = turned_keys(module, hidden, cos, sin)
            press = InWindow(0, n_sink=4) if windows[at] else KVzipPress(0, n_sink=4)
            press.window, press.start_idx, press.end_idx = windows[at], begin, end
            weights = press._compute_cross_attention(
                module, hidden[:, TOKENS:], keys,
                {"position_embeddings": (cos[:, TOKENS:], sin[:, TOKENS:])})
            sink = min(4, begin)
            best = weights[..., sink:sink + end - begin].amax(-2)[0].flatten(0, 1)
            scores[at][:, begin:end] = best
    return [rows(s) for s in scores]


def turned_keys(module, hidden, cos, sin):
    keys = get_prerope_key_states(module, hidden)
    return keys * cos.unsqueeze(1) + rotate_half(keys) * sin.unsqueeze(1)


def values_of(module, hidden):
    return module.v_proj(hidden).view(1, TOKENS, -1, module.head_dim).transpose(1, 2)


def main():
    out = Path(sys.argv[2])
    for name in sys.argv[3:] or ["llama", "qwen3", "mistral"]:
        model = AutoModelForCausalLM.from_pretrained(out / name, dtype=torch.float32,
                                                     attn_implementation="eager").eval()
        config = model.config
        group = config.num_attention_heads // config.num_key_value_heads
        window = getattr(config, "sliding_window", None) if name == "mistral" else None
        windows = [window] * config.num_hidden_layers
        ids = json.loads((out / name / "golden.json").read_text())["ids"][:TOKENS]
        golden = {"tokens": TOKENS, "piece": PIECE, "ask": ASK, "ask_on": ASK_ON, "answer": ANSWER,
                  "share": SHARE, "h2o": [], "expected": []}
        with torch.inference_mode():
            result, seen = attention_inputs(model, lambda: model(
                torch.tensor([ids]), output_attentions=True, use_cache=False))
            for layer in model.model.layers:
                module, at = layer.self_attn, layer.self_attn.layer_idx
                module.rotary_emb = model.model.rotary_emb
                hidden = seen[at]["hidden_states"]
                keys = turned_keys(module, hidden, *seen[at]["position_embeddings"])
                golden["h2o"].append(h2o(result.attentions[at], group, window))
                golden["expected"].append(
                    expected(module, hidden, keys, values_of(module, hidden), group))
            golden["kvzip"] = kvzip(model, ids, windows)
        text = json.dumps(golden, separators=(",", ":")).replace("],[", "],\n[")
        (out / name / "observed.json").write_text(text + "\n")
        print(name, len(text))


if __name__ == "__main__":
    main()
