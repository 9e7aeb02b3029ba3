#!/usr/bin/env python3
"""Makes the tiny Hugging Face folder beside it, and golden.json: what transformers answers with it.

    make_folder.py ENGLISH.txt

A llama of two layers learns a few conversations by heart, so that its words are clear (gaps between
the best and the second token far above any arithmetic's rounding). Tokenizer, template and weights are
saved as people find them on the hub; the golden conversations are rendered, tokenized, generated and
decoded by transformers from those files. The tokenizer has one added token more than the embedding has
rows, as Gemma 3's has.

Needs: torch, transformers, tokenizers, jinja2.
"""
import json
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM,
                          PreTrainedTokenizerFast)

HERE = Path(__file__).resolve().parent
OUT = HERE / "model"
VOCAB = 384
MARKS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = """\
{{- bos_token }}
{%- for message in messages %}
    {{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
CONVERSATIONS = [
    ["You keep the light at Cape Sorrow.",
     "Which ship came in last night?", "The Amaranth, with salt and two days' worth of rain.",
     "And who was on board?", "Nine men, one cat – and a letter for you."],
    [None, "What is a whale?", "A spouting fish with a horizontal tail.",
     "Is it?", "So a sailor said; the cat's view isn't known. 今日は"],
    ["Count.", "Three numbers, please.", "1, 2, 3.\nThat's all."],
]


def messages_of(conversation):
    system, *turns = conversation
    roles = ("user", "assistant")
    out = [{"role": "system", "content": system}] if system else []
    return out + [{"role": roles[i % 2], "content": text} for i, text in enumerate(turns)]


def make_tokenizer(english):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator([english], trainers.BpeTrainer(
        vocab_size=VOCAB, special_tokens=MARKS, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.add_special_tokens(["<image_soft_token>"])  # id VOCAB: the embedding has no such row
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=MARKS[0],
                                   eos_token=MARKS[2], pad_token=MARKS[0])
    fast.chat_template = TEMPLATE
    return fast


def make_model():
    torch.set_num_threads(1)  # so that it learns the same everywhere
    torch.manual_seed(7)
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=VOCAB, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, head_dim=32, max_position_embeddings=1024,
        tie_word_embeddings=True, bos_token_id=0, eos_token_id=2, pad_token_id=0))


def learn(model, texts):
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    longest = max(map(len, texts))
    ids = torch.zeros(len(texts), longest, dtype=torch.long)
    labels = torch.full_like(ids, -100)
    for row, text in enumerate(texts):
        ids[row, :len(text)] = labels[row, :len(text)] = torch.tensor(text)
    for step in range(900):
        optimizer.param_groups[0]["lr"] = 3e-3 * min(1.0, (900 - step) / 300)
        loss = model(input_ids=ids, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print("loss", round(float(loss), 4))


@torch.inference_mode()
def answer(model, ids, end):
    """Greedy ids up to the end token, and the smallest gap on the way."""
    past, step, out, gap = None, torch.tensor([ids]), [], float("inf")
    while not out or (out[-1] != end and len(out) < 80):
        result = model(input_ids=step, past_key_values=past, use_cache=True)
        past = result.past_key_values
        best = result.logits[0, -1].topk(2)
        out.append(int(best.indices[0]))
        gap = min(gap, float(best.values[0] - best.values[1]))
        step = torch.tensor([[out[-1]]])
    return out, gap


def main():
    tokenizer = make_tokenizer(Path(sys.argv[1]).read_text()[:60000])
    texts = [tokenizer.apply_chat_template(messages_of(c), tokenize=True, return_dict=False)
             for c in CONVERSATIONS]
    model = make_model()
    learn(model, texts)
    model.to(torch.bfloat16).save_pretrained(OUT)
    tokenizer.save_pretrained(OUT)

    tokenizer = AutoTokenizer.from_pretrained(OUT)
    model = AutoModelForCausalLM.from_pretrained(OUT, dtype=torch.float32).eval()
    assert len(tokenizer) == model.get_input_embeddings().num_embeddings + 1
    golden = []
    for conversation in CONVERSATIONS:
        messages, replies, gap = [], [], float("inf")
        ids = []
        for message in messages_of(conversation):
            if message["role"] != "assistant":
                messages.append(message)
                continue
            prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True,
                                                   tokenize=True, return_dict=False)
            assert prompt[:len(ids)] == ids, "a reply's text must tokenize to its ids"
            given, least = answer(model, prompt, tokenizer.eos_token_id)
            gap = min(gap, least)
            ids = prompt + given
            replies.append(tokenizer.decode(given[:-1]))
            messages.append({"role": "assistant", "content": replies[-1]})
        golden.append({"system": conversation[0], "questions": conversation[1::2],
                       "replies": replies, "ids": ids, "gap": round(gap, 3)})
        print(golden[-1]["replies"], "gap", golden[-1]["gap"])
    (HERE / "golden.json").write_text(json.dumps(golden, indent=1, ensure_ascii=False) + "\n")
    print(sum(path.stat().st_size for path in OUT.iterdir()), "bytes")


if __name__ == "__main__":
    main()
