"""Writes goldens.json: what the published code keeps of made-up caches.

    python make_goldens.py KVPRESS

KVPRESS: the folder `kvpress` of the PyPI package kvpress 0.5.5, unpacked; needs torch and
transformers. Its classes are given attention, keys and values and asked for scores; where a method's
reference is not there, its rule is written out below: pyramid (the notebook rule) and pyramidkv
(KVCache-Factory's pyramidkv_utils.py divides integers, kvpress does not).

The caches have 3 layers, 6 query heads, 2 KV heads, keys and values of 8.
"""

import json
import pathlib
import sys
import types

import torch

package = types.ModuleType("kvpress")  # without its __init__, which wants more than is used here
package.__path__ = [sys.argv[1]]
sys.modules["kvpress"] = package
from kvpress.presses.adakv_press import AdaKVPress  # noqa: E402
from kvpress.presses.expected_attention_press import ExpectedAttentionPress  # noqa: E402
from kvpress.presses.knorm_press import KnormPress  # noqa: E402
from kvpress.presses.kvzip_press import KVzipPress  # noqa: E402
from kvpress.presses.observed_attention_press import ObservedAttentionPress  # noqa: E402
from kvpress.presses.snapkv_press import SnapKVPress  # noqa: E402
from kvpress.presses.tova_press import TOVAPress  # noqa: E402

LAYERS, HEADS, KV_HEADS, WIDTH = 3, 6, 2, 8
GROUP = HEADS // KV_HEADS
config = types.SimpleNamespace(num_attention_heads=HEADS, num_key_value_heads=KV_HEADS,
                               _attn_implementation="sdpa", num_hidden_layers=LAYERS)


def module(layer=0):
    return types.SimpleNamespace(config=config, head_dim=WIDTH, layer_idx=layer)


class Cache:
    """One layer: what the model saw."""

    def __init__(self, tokens):
        logits = 3 * torch.randn(1, HEADS, tokens, tokens)
        logits += torch.triu(torch.full((tokens, tokens), float("-inf")), 1)
        self.attention = torch.softmax(logits, -1)
        self.keys = torch.randn(1, KV_HEADS, tokens, WIDTH)
        self.values = torch.randn(1, KV_HEADS, tokens, WIDTH)
        self.mean = torch.randn(1, HEADS, WIDTH)
        root = torch.randn(1, HEADS, WIDTH, WIDTH) / 2
        self.covariance = root @ root.mT
        self.repeated = torch.rand(1, HEADS, tokens)
        self.hidden = torch.zeros(1, tokens, 1)

    def score(self, press):
        """[KV head, token]"""
        return press.score(module(), self.hidden, self.keys, self.values, self.attention, {})[0]

    def exponents(self):
        keys = self.keys.repeat_interleave(GROUP, 1)
        first = torch.einsum("bhnd,bhd->bhn", keys, self.mean) / WIDTH**0.5
        return first + torch.einsum("bhni,bhij,bhnj->bhn", keys, self.covariance, keys) / WIDTH / 2

    def observed(self, needs, window):
        tokens = self.attention.shape[-1]
        return {
            "nothing": [],
            "key_norms": self.keys.norm(dim=-1)[0],
            "newest_query": self.attention[0, :, -1],
            "window_queries": self.attention[0, :, -window:].sum(1) if window else [],
            "all_queries": self.attention[0].sum(1) / torch.arange(tokens, 0, -1),
            "expected_queries": self.exponents()[0],
            "reconstruction": self.repeated[0],
        }[needs]


def top(scores, count):
    """Indices by head, ascending; of equals the lower."""
    order = torch.sort(scores, dim=-1, descending=True, stable=True).indices[:, :count]
    return order.sort(-1).values.tolist()


def unmasked(masked, shape):
    """What AdaKV and KVzip leave: they name the heads and entries that go."""
    left = torch.ones(shape, dtype=torch.bool)
    left[masked[1], masked[2]] = False
    return [row.nonzero().flatten().tolist() for row in left]


def snapkv(cache, layer, capacity, window, kernel):
    return top(cache.score(SnapKVPress(0, window, kernel)), capacity)


def pyramidkv(cache, layer, capacity, window, kernel, beta):
    tokens, even = cache.keys.shape[2], capacity - window
    least = even // beta
    most = 2 * even - least
    if most >= tokens - window:
        most = tokens - window
        least = 2 * even - most
    if tokens < capacity:
        return [list(range(tokens))] * KV_HEADS
    count = even if tokens < 2 * even else most - layer * ((most - least) // (LAYERS - 1))
    return top(cache.score(SnapKVPress(0, window, kernel)), count + window)


def adakv(cache, layer, capacity, window, kernel, safeguard):
    tokens, at = cache.keys.shape[2], module()
    AdaKVPress(SnapKVPress(1 - capacity / tokens, window, kernel), safeguard).compress(
        at, cache.hidden, cache.keys, cache.values, cache.attention, {})
    return unmasked(at.masked_key_indices, (KV_HEADS, tokens))


def pyramid(cache, layer, window, bottom, top_, mean):
    tokens = cache.keys.shape[2]
    budget = max(round(bottom - layer * (bottom - top_) / (LAYERS - 1)), window)
    if tokens <= budget:
        return [list(range(tokens))] * KV_HEADS
    newest = cache.attention[0, :, -1, : tokens - window]
    heads = newest.mean(0, keepdim=True) if mean else newest
    chosen = sorted(set(sum(top(heads, budget - window), [])) | set(range(tokens - window, tokens)))
    return [chosen] * KV_HEADS


def observed(cache, layer, count):
    scores = cache.score(ObservedAttentionPress(0)).clone()
    scores[:, -1] = float("inf")  # kvpress does not hold on to the newest
    return top(scores, count)


def expected(cache, layer, count):
    press = ExpectedAttentionPress(0, n_sink=4)
    press.get_query_statistics = lambda *_: (cache.mean, cache.covariance)
    return top(cache.score(press), count)


def kvzip(caches, keep):
    press = KVzipPress(1 - keep, n_sink=4)
    press.score_val = torch.stack(
        [c.repeated.view(1, KV_HEADS, GROUP, -1).amax(2) for c in caches])
    layers = [types.SimpleNamespace(self_attn=module(i)) for i in range(LAYERS)]
    press.compress_post(types.SimpleNamespace(model=types.SimpleNamespace(layers=layers)))
    shape = press.score_val.shape[2:]
    return [unmasked(layer.self_attn.masked_key_indices, shape) for layer in layers]


def keep_last(cache, layer, n, sinks):
    tokens = cache.keys.shape[2]
    first = max(0, tokens - n)
    return [list(range(min(sinks, first))) + list(range(first, tokens))] * KV_HEADS


CASES = [  # words, what is observed, its window, tokens, what is kept of a layer
    ("keep_last n=20 sinks=4", "nothing", 0, 64, lambda c, i: keep_last(c, i, 20, 4)),
    ("keep_last n=100", "nothing", 0, 64, lambda c, i: keep_last(c, i, 100, 0)),
    ("snapkv capacity=16 window=6 kernel=5", "window_queries", 6, 64,
     lambda c, i: snapkv(c, i, 16, 6, 5)),
    ("snapkv capacity=24 window=8 kernel=1", "window_queries", 8, 64,
     lambda c, i: snapkv(c, i, 24, 8, 1)),
    ("pyramidkv capacity=20 window=8 kernel=5 beta=4", "window_queries", 8, 64,
     lambda c, i: pyramidkv(c, i, 20, 8, 5, 4)),
    ("pyramidkv capacity=40 window=8 kernel=3", "window_queries", 8, 64,  # most meets the length
     lambda c, i: pyramidkv(c, i, 40, 8, 3, 20)),
    ("pyramidkv capacity=44 window=8", "window_queries", 8, 64,  # even: below twice its budget
     lambda c, i: pyramidkv(c, i, 44, 8, 5, 20)),
    ("pyramidkv capacity=80 window=8", "window_queries", 8, 64,
     lambda c, i: pyramidkv(c, i, 80, 8, 5, 20)),
    ("adakv capacity=16 window=4 kernel=5", "window_queries", 4, 64,
     lambda c, i: adakv(c, i, 16, 4, 5, 0.2)),
    ("adakv capacity=16 window=4 kernel=5 safeguard=0.75", "window_queries", 4, 64,
     lambda c, i: adakv(c, i, 16, 4, 5, 0.75)),
    ("pyramid window=8 bottom=40 top=13", "newest_query", 1, 64,  # 26.5 is rounded to 26
     lambda c, i: pyramid(c, i, 8, 40, 13, False)),
    ("pyramid window=16 bottom=70 top=10 select=mean", "newest_query", 1, 64,
     lambda c, i: pyramid(c, i, 16, 70, 10, True)),
    ("tova keep=0.25", "newest_query", 1, 64, lambda c, i: top(c.score(TOVAPress(0)), 16)),
    ("knorm keep=13", "key_norms", 0, 64, lambda c, i: top(c.score(KnormPress(0)), 13)),
    ("h2o keep=0.3", "all_queries", 0, 64, lambda c, i: observed(c, i, 19)),
    ("expected keep=0.25", "expected_queries", 0, 64, lambda c, i: expected(c, i, 16)),
]


def numbers(rows):
    return [[float(f"{x:.7g}") for x in row] for row in torch.as_tensor(rows).tolist()]


def case(words, needs, window, caches, kept):
    layers = []
    for cache in caches:
        layer = {"scores": numbers(cache.observed(needs, window))}
        if needs == "expected_queries":
            layer["value_norms"] = numbers(cache.values.norm(dim=-1)[0])
        layers.append(layer)
    return {"policy": words, "kv_heads": KV_HEADS, "tokens": caches[0].keys.shape[2],
            "layers": layers, "kept": kept}


def main():
    torch.manual_seed(1)
    cases = []
    for words, needs, window, tokens, rule in CASES:
        caches = [Cache(tokens) for _ in range(LAYERS)]
        cases.append(case(words, needs, window, caches, [rule(c, i) for i, c in enumerate(caches)]))
    caches = [Cache(64) for _ in range(LAYERS)]
    cases.append(case("kvzip keep=0.25", "reconstruction", 0, caches, kvzip(caches, 0.25)))
    out = pathlib.Path(__file__).with_name("goldens.json")
    out.write_text("[\n" + ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases) + "\n]\n")


if __name__ == "__main__":
    main()
