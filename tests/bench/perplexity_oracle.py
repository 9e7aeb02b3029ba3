#!/usr/bin/env python3
"""What transformers says of a text's first 2,000 tokens, in fp32, with a GGUF file's dequantized weights.

    perplexity_oracle.py MODEL.gguf TEXT OUT.json

OUT.json: "ids" (the file's own tokenizer's, begin token included where the file asks for one),
"argmax" after each, "nll" (natural, summed over the ids after the first) and "perplexity"; tests and
bench_perplexity hold the engine against it. transformers 5 ignores tokenizer.ggml.pre, so smollm's
pre-tokenizer is put right here. Needs: torch, transformers, gguf, tokenizers, accelerate.
"""
import hashlib
import json
import sys
from importlib.metadata import version
from pathlib import Path

import torch
from gguf import GGUFReader
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer

TOKENS = 2000


def field(reader, name):
    found = reader.get_field(name)
    return None if found is None else found.contents()


def ids_of(model_file, text):
    reader = GGUFReader(model_file)
    tokenizer = AutoTokenizer.from_pretrained(str(model_file.parent), gguf_file=model_file.name)
    if field(reader, "tokenizer.ggml.pre") == "smollm":
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    if field(reader, "tokenizer.ggml.add_bos_token"):
        ids.insert(0, int(field(reader, "tokenizer.ggml.bos_token_id")))
    assert len(ids) >= TOKENS, f"the text has {len(ids)} tokens"
    return ids[:TOKENS]


@torch.inference_mode()
def main():
    model_file, text, out = map(Path, sys.argv[1:])
    ids = ids_of(model_file, text.read_text())
    model = AutoModelForCausalLM.from_pretrained(str(model_file.parent), gguf_file=model_file.name,
                                                 dtype=torch.float32, attn_implementation="eager").eval()
    logits = model(torch.tensor([ids])).logits[0]
    nll = torch.nn.functional.cross_entropy(logits[:-1].double(), torch.tensor(ids[1:]), reduction="sum")
    perplexity = float((nll / (len(ids) - 1)).exp())
    result = {"model": model_file.name, "sha256": hashlib.sha256(model_file.read_bytes()).hexdigest(),
              "text": text.name,
              "versions": {name: version(name) for name in ("torch", "transformers", "gguf", "tokenizers")},
              "perplexity": perplexity, "nll": float(nll), "ids": ids, "argmax": logits.argmax(-1).tolist()}
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in result.items()]
    out.write_text("{" + ",\n ".join(lines) + "}\n")
    print(f"{model_file.name}: {len(ids)} tokens, perplexity {perplexity:.4f}")


main()
