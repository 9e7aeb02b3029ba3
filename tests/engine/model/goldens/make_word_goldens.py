#!/usr/bin/env python3
"""Makes words.json: what transformers says, in fp32, with a GGUF file's dequantized weights.

    make_word_goldens.py MODEL.gguf ENGLISH.txt words.json

"continuations": prompts and their greedy continuations of 64 tokens, each with the gap between the
best and the second logit at every step (a step of a tiny gap is no fair test of another machine's
rounding). "english": the text's ids, the argmax after each, and the total negative log-likelihood.

transformers 5 ignores tokenizer.ggml.pre, so the pre-tokenizer is put right here (smollm: digits
one by one, then byte level). Needs: torch, transformers, gguf, tokenizers, accelerate.
"""
import json
import sys
from pathlib import Path

import torch
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer

PROMPTS = [
    ("plain", "The capital of France is"),
    ("plain", "def fibonacci(n):\n    "),
    ("plain", "Once upon a time, in a village by the sea,"),
    ("plain", "Water boils at 100 degrees Celsius because"),
    ("chat", "Why is the sky blue?"),
    ("chat", "Give me three uses for a brick."),
    ("chat", "Write a haiku about rain."),
    ("chat", "What is 17 + 25? Think step by step."),
]
SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
STEPS = 64


def prompt_text(kind, text):
    if kind == "plain":
        return text
    return (f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n{text}<|im_end|>\n"
            "<|im_start|>assistant\n")


@torch.inference_mode()
def continuation(model, ids):
    past, tokens, gaps = None, [], []
    step = torch.tensor([ids])
    for _ in range(STEPS):
        out = model(step, past_key_values=past, use_cache=True)
        past = out.past_key_values
        best = out.logits[0, -1].topk(2)
        tokens.append(int(best.indices[0]))
        gaps.append(round(float(best.values[0] - best.values[1]), 5))
        step = torch.tensor([[tokens[-1]]])
    return tokens, gaps


@torch.inference_mode()
def main():
    model_file, english, out = map(Path, sys.argv[1:])
    folder, name = str(model_file.parent), model_file.name
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32)
    model.eval()

    continuations = []
    for kind, text in PROMPTS:
        ids = tokenizer(prompt_text(kind, text), add_special_tokens=False)["input_ids"]
        tokens, gaps = continuation(model, ids)
        continuations.append({"kind": kind, "prompt": text, "ids": ids, "tokens": tokens, "gaps": gaps,
                              "text": tokenizer.decode(tokens)})
    ids = tokenizer(english.read_text(), add_special_tokens=False)["input_ids"]
    logits = model(torch.tensor([ids])).logits[0].double()
    nll = -logits[:-1].log_softmax(-1).gather(1, torch.tensor(ids[1:])[:, None]).sum()
    best = logits.topk(2).values
    result = {"model": name, "continuations": continuations,
              "english": {"ids": ids, "argmax": logits.argmax(-1).tolist(),
                          "gaps": [round(float(x), 5) for x in best[:, 0] - best[:, 1]],
                          "nll": float(nll)}}
    lines = json.dumps(result, ensure_ascii=False).replace('{"kind"', '\n{"kind"').replace(', "english"', ',\n"english"')
    out.write_text(lines + "\n")


main()
