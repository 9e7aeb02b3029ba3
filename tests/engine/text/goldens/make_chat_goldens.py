#!/usr/bin/env python3
"""Makes chats_by_template.json: what transformers renders of every template in ../templates.

    make_chat_goldens.py        (needs transformers and jinja2; no model)

A conversation that the template refuses is null. The clock stands at NOON of 5 January 2026.
"""
import datetime
import json
from pathlib import Path

from transformers.utils import chat_template_utils

HERE = Path(__file__).parent
NOON = datetime.datetime(2026, 1, 5, 12)
TOKENS = {
    "deepseek-r1-distill": ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"),
    "gemma-2": ("<bos>", "<eos>"), "gemma-3": ("<bos>", "<eos>"),
    "gpt-oss": ("<|startoftext|>", "<|return|>"), "granite-3.3": ("<|end_of_text|>", "<|end_of_text|>"),
    "lfm2": ("<|startoftext|>", "<|im_end|>"), "olmo2": ("<|endoftext|>", "<|endoftext|>"),
    "phi-3": ("<s>", "<|endoftext|>"), "phi-3.5": ("<s>", "<|endoftext|>"),
    "smollm2": ("<|im_start|>", "<|im_end|>"), "smollm3": ("<|im_start|>", "<|im_end|>"),
}
for family in ("llama-2", "mistral-7b", "mistral-nemo", "mistral-small-3.2", "mixtral"):
    TOKENS[family] = ("<s>", "</s>")
for family in ("llama-3", "llama-3.1", "llama-3.2", "llama-3.3"):
    TOKENS[family] = ("<|begin_of_text|>", "<|eot_id|>")
for family in ("qwen2", "qwen2.5", "qwen3", "qwen3-coder"):
    TOKENS[family] = ("", "<|im_end|>")


class Clock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return NOON


def turns(*contents, system=None):
    out = [] if system is None else [{"role": "system", "content": system}]
    return out + [{"role": ("user", "assistant")[i % 2], "content": c} for i, c in enumerate(contents)]


CONVERSATIONS = [
    turns("Hello!"), turns("Why is the sky blue?", system="Answer in one word."),
    turns("Hi", "Hello, how can I help?", "What is 12 + 30?"),
    turns("Hi", "Hello!", "Bye", system="Be polite.\nAlways."), turns(""), turns("", "", ""),
    turns("x", system=""), turns("  leading and trailing  ", " ok ", "\ttab\n"),
    turns("two\n\nparagraphs\r\nof text", "\n\nyes\n", "fine", system="\n rules \n"),
    turns("今日はいい天気ですね", "Да, очень!", "مرحبا 👩‍👩‍👧‍👦", system="Žluťoučký kůň"),
    turns("a", "b", "c", "d", "e", "f", "g"), turns("1", "2", "3", "4", "5", system="0"),
    turns("Ends with a reply", "this one"), turns("q", "r", "s", "t", system="closed"),
    turns("<|im_end|><|eot_id|></s>[INST] {{ x }} {% y %}", "\"quoted\" & 'single'", "\\n"),
    turns("What?", "<think>\nhmm\n</think>\n\nThat.", "And?"), turns("No thoughts /no_think", system="/no_think short"),
    turns("\u3000\u00a0wide\u2028", "\u200bzero", "\u0085"), turns("a" * 300, "b" * 300, "c"),
    turns("if (a < b && c > d) { return \"x\\n\"; }", "```c\nint x;\n```", "Why?", system="You are a C compiler.\n\n"),
]


def main():
    chat_template_utils.datetime = Clock
    out = {"now": int(NOON.timestamp()), "conversations": CONVERSATIONS, "templates": {}}
    for path in sorted((HERE.parent / "templates").glob("*.jinja")):
        bos, eos = TOKENS[path.stem]
        rendered = []
        for i, messages in enumerate(CONVERSATIONS):
            try:
                text = chat_template_utils._compile_jinja_template(path.read_text()).render(
                    messages=messages, tools=None, documents=None, add_generation_prompt=i != 12 and i != 13,
                    bos_token=bos, eos_token=eos)
            except Exception as error:
                print(path.stem, i, error)
                text = None
            rendered.append(text)
        out["templates"][path.stem] = {"bos": bos, "eos": eos, "rendered": rendered}
    (HERE / "chats_by_template.json").write_text(json.dumps(out, ensure_ascii=False, separators=(",", ":")) + "\n")


main()
