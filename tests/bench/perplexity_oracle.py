#!/usr/bin/env python3
"""What transformers says of a text, in fp32, for bench_perplexity.

    perplexity_oracle.py FOLDER NAME.gguf TEXT OUT.json [TOKENS]

The ids are those of the GGUF's own tokenizer as transformers reads it; where that one is not right to
the last token, the comparison is still of the same ids. Needs: torch, transformers, gguf.
"""
import json
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

folder, name, text, out = sys.argv[1:5]
most = int(sys.argv[5]) if len(sys.argv) > 5 else 2000
tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32,
                                             attn_implementation="eager").eval()
ids = tokenizer(Path(text).read_text())["input_ids"][:most]
with torch.inference_mode():
    logits = model(torch.tensor([ids])).logits[0].double()
nll = -logits[:-1].log_softmax(-1).gather(1, torch.tensor(ids[1:])[:, None]).sum()
Path(out).write_text(json.dumps({"ids": ids, "nll": float(nll), "argmax": logits.argmax(-1).tolist()}))
print(len(ids), "tokens, perplexity", float((nll / (len(ids) - 1)).exp()))
