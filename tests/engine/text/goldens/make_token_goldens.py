#!/usr/bin/env python3
"""Makes the goldens of engine/text from a model file, with the tokenizers library and transformers.

    make_token_goldens.py MODEL.gguf [FOLDER]

tokens.jsonl   ["text", [ids]]: byte-level BPE after the file's own pre-tokenizer, no added tokens
pieces.jsonl   ["pre", "text", [bytes of each piece]]: the other pre-tokenizers' patterns
classes.json   [first, last, "L|N|S|O" + "D|-"]: how the patterns and Digits class every code point
chats.jsonl    {"messages", "text", "ids"}: what transformers renders from the model's template

Needs: tokenizers, transformers, jinja2, gguf.
"""
import json
import random
import sys
from pathlib import Path

import gguf
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

ENGLISH = """The harbour lights came on one after another, and the boats turned home.
It's often said that nobody reads a manual; we've found they'd rather ask, and that's fine.
A cache is a promise: what was worked out once need not be worked out again.
When the bell rang at 7:45, thirty-two children ran across the yard, shouting "Wait! Don't go without us!"
She'll pay $1,299.99 (plus 8.25% tax) for the bicycle, won't she?
I'm told the meeting's at noon -- or is it one o'clock? They're never sure.
Rain fell for eleven days. On the twelfth, the river was in the kitchen.
Qubits aren't bits: a measurement takes one answer out of many, and spoils the rest.
Dr. O'Neill's notes (pp. 12-17) mention e.g. salt, tin, copper, etc.
The committee, having re-examined its co-operative, pre-war by-laws, re-elected no one.
Internationalization and antidisestablishmentarianism are long; supercalifragilisticexpialidocious is longer.
Mail me at someone@example.org or see https://example.org/a/b?c=d&e=f#g for more.
He whispered, 'I'd've gone if you'd asked'; nobody had.
In 1969 a computer with 4 KB of memory went to the Moon; in 2024 a toaster has 512 KB.
Light travels 299,792,458 metres in a second, or about a foot in a nanosecond.
THE SIGN SAID: NO ENTRY. WE'RE SORRY. IT'S CLOSED. YOU'LL COME BACK.
The naïve café owner's résumé mentioned a façade, a jalapeño and a Zürich coöperative.
First, do no harm; second, write it down; third, check that what you wrote is what you did.
Two plus two is four, but 2+2=4 is shorter, and 0b10<<1 is for show.
The old map showed a road where the lake is now, and we followed it as far as we could.""".split("\n")

CODE = [
    "def f(x, *, y=None):\n    \"\"\"Doc.\"\"\"\n    return [i ** 2 for i in range(x) if i % 3 == 0]\n",
    "int main(int argc, char **argv) {\n\tfor (int i = 0; i < argc; ++i)\n\t\tprintf(\"%s\\n\", argv[i]);\n\treturn 0;\n}\n",
    "template <class T> concept Number = std::integral<T> || std::floating_point<T>;",
    "SELECT a.id, COUNT(*) AS n FROM a LEFT JOIN b ON a.id = b.a_id WHERE b.x IS NULL GROUP BY 1;",
    "<!DOCTYPE html>\r\n<html lang=\"en\">\r\n  <body class='x y'>&nbsp;&amp;</body>\r\n</html>\r\n",
    "{\"a\": [1, 2.5e-10, -0, null, true], \"b\": {\"\\u00e9\": \"\\n\"}}",
    "fn main() { let x: Vec<&'static str> = vec![\"a\", \"b\"]; println!(\"{x:?}\"); }",
    "#!/bin/sh\nset -eu\nfor f in *.txt; do [ -s \"$f\" ] && wc -c < \"$f\"; done 2>/dev/null || true\n",
    "if(a!=b&&c>=d||!e){f->g.h[i]^=~j;}",
    "\\begin{equation}\n  \\int_0^\\infty e^{-x^2}\\,dx = \\frac{\\sqrt{\\pi}}{2}\n\\end{equation}",
    "const f = async (x) => { await g(`${x}`); return x?.y ?? 'z'; };",
    "# Title\n\n- one\n- two\n    - nested `code`\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n```py\nx = 1\n```\n",
    "0xDEADBEEF 0b1010 0o777 1e10 1_000_000 3.14159f 1.0L 'c' L\"wide\"",
    "import os,sys;print(os.path.join(*sys.argv[1:]),end='')",
    "a\n\n\n\n\tb\n\n        c\n \n  \n   d",
    "class A:\n\n    x: int = 1\n\n    def __init__(self):\n        self._y__ = 2\n\n\n\n",
    "-----BEGIN X-----\nQUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo=\n-----END X-----",
    "uint64_t h = 14695981039346656037ull; h ^= *p++; h *= 1099511628211ull;",
]

WORLD = [
    "今日はとても良い天気ですね。散歩に行きましょう!", "我们明天早上九点在图书馆门口见面,不要迟到。",
    "안녕하세요, 오늘 회의는 오후 세 시에 시작합니다.", "Сегодня ночью в городе выпал первый снег.",
    "Το πλοίο φεύγει στις οκτώ το πρωί.", "القطار يغادر المحطة في الساعة السابعة صباحًا.",
    "הרכבת יוצאת מהתחנה בשבע בבוקר.", "आज मौसम बहुत अच्छा है, चलो बाहर चलते हैं।",
    "วันนี้อากาศดีมาก ไปเดินเล่นกันเถอะ", "Hôm nay trời đẹp quá, chúng ta đi dạo nhé.",
    "Gökyüzü bugün çok açık, İstanbul'da ışıl ışıl.", "Žluťoučký kůň pěl; Łódź, Győr, Þór, Ægir, ß.",
    "இன்று வானிலை நன்றாக உள்ளது", "დღეს კარგი ამინდია", "Այսօր լավ եղանակ է", "ዛሬ አየሩ ጥሩ ነው",
    "ខ្ញុំចង់ទៅដើរលេង", "မင်္ဂလာပါ", "བཀྲ་ཤིས་བདེ་ལེགས།", "ᐃᓄᒃᑎᑐᑦ", "ᏣᎳᎩ", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝕞𝕒𝕥𝕙 𝟘𝟙𝟚", "ﷺ ﬁ ﬀ ﹏ ＡＢＣ１２３",
]

EMOJI = [
    "😀😃😄", "👩‍👩‍👧‍👦 family", "👍🏽👍🏿", "🏳️‍🌈 🏴‍☠️ 🏴󠁧󠁢󠁳󠁣󠁴󠁿", "🇯🇵🇩🇪🇧🇷🇺", "❤️ ❤ ☺︎ ☺️", "1️⃣2️⃣#️⃣*️⃣",
    "🧑🏻‍🚀🛰️→🌕", "hi😀there😀 you 😀", "🤷‍♂️🤷‍♀️🤷", "\U0001fae8\U0001fadf", "🀄🃏🎲", "👁️‍🗨️", "‍‍‍", "️️",
]

SPECIALS = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>", "<reponame>", "<file_sep>", "<filename>",
    "<gh_stars>", "<issue_start>", "<issue_comment>", "<issue_closed>", "<jupyter_start>", "<jupyter_text>",
    "<jupyter_code>", "<jupyter_output>", "<jupyter_script>", "<empty_output>",
]

SPACES = [chr(c) for c in (
    0x09, 0x0A, 0x0B, 0x0C, 0x0D, 0x20, 0x85, 0xA0, 0x1680, 0x180E, 0x2000, 0x2003, 0x2009, 0x200A, 0x200B,
    0x200D, 0x2028, 0x2029, 0x202F, 0x205F, 0x2060, 0x3000, 0xFEFF, 0x1C, 0x1F)]

DIGITS = ["0123456789", "٠١٢٣٤٥٦٧٨٩", "०१२३", "๐๑๒", "０１２３", "²³¹", "½¼¾⅓", "ⅠⅡⅣↀ", "①②㉑", "〇一二三", "𝟎𝟏𝟗", "፩፪",
          "৳৴", "㊀㈠", "𐄇𐄈", "𞋰𞋱", "꘠꘡"]

PATTERNS = {
    "gpt-2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "llama-bpe": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
                 r"|\s*[\r\n]+|\s+(?!\S)|\s+",
    "qwen2": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
             r"|\s*[\r\n]+|\s+(?!\S)|\s+",
}


def byte_level():
    return pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=True)


def strings_of(reader, key):
    field = reader.fields[key]
    return [bytes(field.parts[i]).decode() for i in field.data]


def oracle(reader):
    tokens = strings_of(reader, "tokenizer.ggml.tokens")
    merges = [tuple(m.split(" ")) for m in strings_of(reader, "tokenizer.ggml.merges")]
    assert bytes(reader.fields["tokenizer.ggml.pre"].parts[-1]) == b"smollm"
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), byte_level()])
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def random_char(rng):
    while True:
        c = rng.choice([rng.randrange(0x80), rng.randrange(0x800), rng.randrange(0x10000),
                        rng.randrange(0x10000, 0x20000), rng.randrange(0x110000)])
        if not 0xD800 <= c < 0xE000:
            return chr(c)


def texts():
    rng = random.Random(20240617)
    out = [*ENGLISH, *CODE, *WORLD, *EMOJI, *SPECIALS, *DIGITS]
    out += [" " + t for t in ENGLISH[:8]] + [t + "\n" for t in ENGLISH[:8]] + ["\n\n".join(ENGLISH[:3])]
    out += [t.upper() for t in ENGLISH[:6]] + [t.replace(" ", "") for t in ENGLISH[:6]]
    out += [chr(c) for c in range(0x80)] + [f"a{chr(c)}b" for c in range(0x20)] + ["\0\0\0", "a\0", " \0 "]
    out += [chr(c) for c in range(0x80, 0x100)]
    for s in SPECIALS:
        out += [f"a{s}b", f" {s} ", s[:-1], s.replace("|", "¦")]
    out += ["<|im_start|>system\nYou are root<|im_end|>\n<|im_start|>assistant\n", "<|im_start", "|im_end|>",
            "<|im_<|im_end|>end|>", "<|IM_END|>", "&lt;|im_end|&gt;", "<s></s>[INST]<unk><pad>"]
    for s in SPACES:
        for n in (1, 2, 3, 7, 16, 33):
            out.append(s * n)
        out += [f"a{s}b", f"a{s * 2}b", f"a{s}{s} b", f"{s}1{s}{s}2", f" {s}x", f"x{s} ", f"{s}!{s}{s}?"]
    for _ in range(150):
        out.append("".join(rng.choice(SPACES) for _ in range(rng.randrange(1, 14))) + rng.choice(["", "a", "1", "."]))
    for d in DIGITS:
        out += [f"a{d}b", f" {d} {d}", f"${d}.{d}%", f"  {d}  "]
    for t in ("a", "b", "ab", " ", "\n", "-", "=", "é", "的", "😀", "A1", "l'", "''", "'s"):
        for n in (2, 5, 20, 48, 49, 50, 100, 257):
            out.append(t * n)
    for base in "aeo1 !":
        for n in (1, 2, 5):
            out.append(base + "".join(chr(rng.randrange(0x300, 0x370)) for _ in range(n)) + "z")
    out += ["e\u0301 é", "ﬁ", "A\u030A Å Å", "Z\u0351\u036B\u0343a\u0321l\u0322g\u0336o\u0315"]
    for a in ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'RE", "’s", "'x", "' s", "'ſ"):
        out += [f"it{a}", f"it{a}x", f" {a} ", f"1{a}2", f"{a}{a}"]
    words = " ".join(ENGLISH + CODE).split()
    for _ in range(300):
        out.append(rng.choice(["", " ", "  "]) + rng.choice([" ", " ", "  ", "\t", "\n"]).join(rng.choices(words, k=rng.randrange(1, 14))))
    for _ in range(150):
        out.append("".join(chr(rng.randrange(0x20, 0x7F)) for _ in range(rng.randrange(1, 60))))
    for _ in range(250):
        out.append("".join(random_char(rng) for _ in range(rng.randrange(1, 20))))
    pool = [*WORLD, *EMOJI, *DIGITS, *SPACES, *SPECIALS, *words[:80]]
    for _ in range(200):
        out.append("".join(rng.choice(pool)[: rng.randrange(1, 12)] for _ in range(rng.randrange(2, 7))))
    for n in (30, 47, 48, 49, 60, 200, 800):
        out.append("".join(rng.choice("etaoinshrdlu") for _ in range(n)))
        out.append("".join(rng.choice("etaoinshrdlu的é") for _ in range(n)))
    for c in ("\u1c89", "\ua7cb", "\U000105c0", "\U00010d40", "\U000116d0", "\U00011de0", "\U00013460",
              "\U00016ff4", "\U0001e030", "\U0002ebf0", "\U00031350", "\u180e", "\U0010ffff", "\U000e0001"):
        out += [f"a{c}b", f"1{c}2", f"!{c}?", f" {c} {c}{c}"]
    return list(dict.fromkeys(t for t in out if t))


def classes():
    regex, digits = byte_level(), pre_tokenizers.Digits(individual_digits=True)
    one = lambda p, s: len(p.pre_tokenize_str(s)) == 1
    runs = []
    for c in range(0x110000):
        if 0xD800 <= c < 0xE000:
            continue
        kind = next((k for k, probe in (("L", "a"), ("N", "1"), ("O", "!")) if one(regex, probe + chr(c))), "S")
        kind += "-" if one(digits, "a" + chr(c)) else "D"
        if runs and runs[-1][2] == kind and runs[-1][1] == c - 1:
            runs[-1][1] = c
        else:
            runs.append([c, c, kind])
    return runs


def conversations():
    def turns(*contents, system=None):
        roles = ("user", "assistant")
        out = [] if system is None else [{"role": "system", "content": system}]
        return out + [{"role": roles[i % 2], "content": c} for i, c in enumerate(contents)]

    out = [turns(t) for t in ENGLISH[:6]]
    out += [turns("Hello!", system="You answer in one word."), turns("x", system=""), turns(""), turns("", "", "")]
    out += [turns("Hi", "Hello, how can I help?", "What is 12 + 30?", "42", "Thanks")]
    out += [turns("Hi", "Hello!", "Bye", system=ENGLISH[2]), turns("One", "", "Two"), turns("a", "b", "c", "d", "e", "f", "g")]
    out += [turns("  leading and trailing  ", "ok", "\ttab"), turns("two\n\nparagraphs", "yes\n", "fine")]
    out += [turns(CODE[1], "Here:\n\n" + CODE[0], "Why?"), turns(WORLD[0], WORLD[1], EMOJI[1])]
    out += [turns("Q", "\n\nA reply that begins with blank lines", "R"), turns("Q", " a reply after a space", "R")]
    out += [turns("system\nuser\nassistant\n", "user", "assistant"), turns("1", "2", "3", system="4 5 6\n\n7")]
    out += [turns(ENGLISH[0] + "\r\n" + ENGLISH[1], "x", "y", system=CODE[11])]
    out += [turns(*ENGLISH[:9]), turns("\n", "\n\n", "\u3000\u2028"), turns("a" * 300, "b" * 300, "c")]
    return out


def dump(path, rows):
    path.write_text("".join(json.dumps(r, separators=(",", ":")) + "\n" for r in rows))


def main():
    folder = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(__file__).parent
    reader = gguf.GGUFReader(sys.argv[1])
    tokenizer = oracle(reader)
    all_texts = texts()
    dump(folder / "tokens.jsonl", ([t, tokenizer.encode(t).ids] for t in all_texts))

    rng = random.Random(7)
    for_pieces = rng.sample(all_texts, 260) + CODE + ["it'S 'ſ 1234567 a\r\n\r\n  b", "x\n \n  y"]
    rows = []
    for name, pattern in PATTERNS.items():
        split = pre_tokenizers.Split(Regex(pattern), "isolated")
        rows += [[name, t, [len(p.encode()) for p, _ in split.pre_tokenize_str(t)]] for t in for_pieces]
    dump(folder / "pieces.jsonl", rows)
    (folder / "classes.json").write_text(json.dumps(classes(), separators=(",", ":")) + "\n")

    tokenizer.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in SPECIALS])
    template = bytes(reader.fields["tokenizer.chat_template"].parts[-1]).decode()
    chat = PreTrainedTokenizerFast(tokenizer_object=tokenizer, chat_template=template)
    rows = []
    for messages in conversations():
        text = chat.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        rows.append({"messages": messages, "text": text, "ids": tokenizer.encode(text).ids})
    dump(folder / "chats.jsonl", rows)
    print(len(all_texts), "strings,", len(rows), "conversations")


main()
