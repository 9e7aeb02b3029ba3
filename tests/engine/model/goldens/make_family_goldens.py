#!/usr/bin/env python3
"""Makes tiny random models of every family and what transformers says of them, in fp32.

    make_family_goldens.py LLAMA_CPP OUT [FAMILY ...]

OUT/FAMILY/ gets config.json and safetensors (as save_pretrained writes them), model.gguf (as
llama.cpp's converter in the folder LLAMA_CPP writes it, where it knows the family) and golden.json:
300 token ids, the logits after some of them, and 100 greedy tokens after the first 60 with the
smallest gap between the best and the second.

Weights are random from a seed and rounded to the stored type before transformers sees them. Logits
are computed token by token: Phi-3's LongRoPE turns a whole history anew when it grows past the
original context, which no cache can follow; token by token each position has its own set.

Needs: torch, transformers, safetensors and the converter's own gguf package (LLAMA_CPP/gguf-py).
"""
import json
import sys
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM

POSITIONS = [0, 1, 31, 47, 63, 100, 130, 200, 255, 256, 299]
VOCAB, PROMPT, STEPS = 96, 60, 100
SIZES = dict(vocab_size=VOCAB, hidden_size=32, intermediate_size=32, num_hidden_layers=3,
             num_attention_heads=2, num_key_value_heads=1, head_dim=32,
             max_position_embeddings=512, bos_token_id=1, eos_token_id=2, pad_token_id=0)
GPT2 = dict(vocab_size=VOCAB, n_embd=32, n_layer=2, n_head=1, n_positions=320, n_ctx=320,
            bos_token_id=1, eos_token_id=2)
NEOX = dict(vocab_size=VOCAB, hidden_size=64, intermediate_size=64, num_hidden_layers=2,
            num_attention_heads=2, max_position_embeddings=512, bos_token_id=1, eos_token_id=2)


def rope(kind="default", base=10000.0, **more):
    return {"rope_type": kind, "rope_theta": base, **more}


# name: (model_type, stored type, config)
FAMILIES = {
    "llama": ("llama", torch.bfloat16, dict(SIZES, tie_word_embeddings=False, rope_parameters=rope(
        "llama3", 500000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
        original_max_position_embeddings=64))),
    "mistral": ("mistral", torch.float16, dict(SIZES, sliding_window=48, tie_word_embeddings=False)),
    "mixtral": ("mixtral", torch.bfloat16, dict(SIZES, num_local_experts=4, num_experts_per_tok=2,
                                                sliding_window=None, tie_word_embeddings=False)),
    "smollm3": ("smollm3", torch.bfloat16, dict(SIZES, num_hidden_layers=4, tie_word_embeddings=True)),
    "qwen2": ("qwen2", torch.bfloat16, dict(SIZES, tie_word_embeddings=True, rope_parameters=rope(
        "yarn", factor=4.0, original_max_position_embeddings=64))),
    "qwen3": ("qwen3", torch.bfloat16, dict(SIZES, tie_word_embeddings=True)),
    "qwen3_moe": ("qwen3_moe", torch.bfloat16, dict(
        SIZES, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32, norm_topk_prob=True,
        decoder_sparse_step=1, mlp_only_layers=[], tie_word_embeddings=False)),
    "phi3": ("phi3", torch.float16, dict(
        SIZES, hidden_size=64, num_hidden_layers=2, sliding_window=100, original_max_position_embeddings=128, tie_word_embeddings=False,
        rope_parameters=rope("longrope", short_factor=[1.0 + 0.02 * i for i in range(16)],
                             long_factor=[1.0 + 0.5 * i for i in range(16)],
                             original_max_position_embeddings=128))),
    "gemma2": ("gemma2", torch.bfloat16, dict(SIZES, sliding_window=40, query_pre_attn_scalar=32,
                                              attn_logit_softcapping=5.0,
                                              final_logit_softcapping=4.0)),
    "gemma3": ("gemma3_text", torch.bfloat16, dict(SIZES, num_hidden_layers=7, sliding_window=40,
                                                   query_pre_attn_scalar=32)),
    "gpt2": ("gpt2", torch.float16, GPT2),
    "gpt_neox": ("gpt_neox", torch.float16, dict(NEOX, rotary_pct=0.25, tie_word_embeddings=False)),
    "lfm2": ("lfm2", torch.bfloat16, dict(
        SIZES, num_hidden_layers=5, intermediate_size=48, block_multiple_of=32,
        layer_types=["conv", "full_attention", "conv", "conv", "full_attention"],
        tie_word_embeddings=True)),
    "olmo2": ("olmo2", torch.float32, dict(SIZES, num_hidden_layers=2, tie_word_embeddings=False)),
}


def token_ids(count, seed=1):
    ids = []
    for _ in range(count):
        seed = (seed * 1664525 + 1013904223) % 2**32
        ids.append((seed >> 8) % VOCAB)
    return ids


def make_model(model_type, dtype, config, seed):
    torch.manual_seed(seed)
    config = AutoConfig.for_model(model_type, **config)
    config._attn_implementation = "eager"
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "norm" in name or "ln_" in name:
                shift = 0.0 if "gemma" in model_type else 1.0
                p.copy_((0.2 * torch.randn_like(p) if p.dim() else p) + (shift if "weight" in name else 0.0))
            elif name.endswith("bias"):
                p.copy_(0.2 * torch.randn_like(p))
            else:
                # experts are [experts, outputs, inputs]; Conv1D is [inputs, outputs]: square enough
                p.copy_(torch.randn_like(p) * 1.3 / p.shape[-1] ** 0.5)
            p.copy_(p.to(dtype).float())
    return model.eval()


@torch.inference_mode()
def step_by_step(model, ids, steps=0):
    past, rows, greedy, gap = None, [], [], float("inf")
    for i in range(len(ids) + steps):
        token = ids[i] if i < len(ids) else greedy[-1]
        out = model(torch.tensor([[token]]), past_key_values=past, use_cache=True,
                    position_ids=torch.tensor([[i]]))
        past = out.past_key_values
        rows.append(out.logits[0, -1])
        if steps and i + 1 >= len(ids):
            best = rows[-1].topk(2)
            greedy.append(int(best.indices[0]))
            gap = min(gap, float(best.values[0] - best.values[1]))
    return rows, greedy[:steps], gap, past


def convert(llama_cpp, folder, dtype, config):
    sys.path[:0] = [str(llama_cpp / "gguf-py"), str(llama_cpp)]
    import gguf
    from conversion import get_model_class
    hparams = json.loads((folder / "config.json").read_text())
    made = get_model_class(hparams["architectures"][0])
    hparams = {**config, **made.load_hparams(folder, False)}  # it asks for keys of older configs
    kinds = {torch.float32: gguf.LlamaFileType.ALL_F32, torch.float16: gguf.LlamaFileType.MOSTLY_F16,
             torch.bfloat16: gguf.LlamaFileType.MOSTLY_BF16}
    made.set_vocab = lambda self: None
    tokenizer = folder / "tokenizer.json"  # Gemma's embedding is cut to what this lists
    tokenizer.write_text(json.dumps({"added_tokens": [], "model": {
        "vocab": {str(i): i for i in range(VOCAB)}}}))
    made(folder, kinds[dtype], folder / "model.gguf", model_name=folder.name,
         hparams=hparams).write()
    tokenizer.unlink()


def main():
    llama_cpp, out = Path(sys.argv[1]), Path(sys.argv[2])
    for name in sys.argv[3:] or FAMILIES:
        model_type, dtype, config = FAMILIES[name]
        folder = out / name
        folder.mkdir(parents=True, exist_ok=True)
        ids = token_ids(300)
        for seed in range(1, 60):  # the first whose greedy steps are all clear
            model = make_model(model_type, dtype, config, seed)
            _, greedy, gap, _ = step_by_step(model, ids[:PROMPT], STEPS)
            if gap > 4e-3:
                break
        rows, _, _, past = step_by_step(model, ids)
        model.to(dtype).save_pretrained(folder, max_shard_size="30KB" if name == "llama" else "1GB")
        if name != "mistral":  # a GGUF of Mistral has lost its window
            convert(llama_cpp, folder, dtype, config)
        golden = {"ids": ids, "prompt": PROMPT, "greedy": greedy, "gap": round(gap, 5),
                  "logits": {str(p): [round(float(x), 6) for x in rows[p]] for p in POSITIONS}}
        if name == "lfm2":  # [channels, taps] of its first layer, in the end
            state = past.layers[0].conv_states[0][0]
            golden["conv_state"] = [[round(float(x), 6) for x in row] for row in state]
        text = json.dumps(golden).replace('"logits"', '\n"logits"').replace("], ", "],\n")
        (folder / "golden.json").write_text(text + "\n")
        (folder / "generation_config.json").unlink(missing_ok=True)
        print(name, "seed", seed, "gap", round(gap, 4), sum(f.stat().st_size for f in folder.iterdir()))


if __name__ == "__main__":
    main()
