#!/usr/bin/env python3
"""Trains small tokenizers of every kind into ../tokenizers, and hashes what they make of 10,000 texts.

    make_tokenizers.py        (needs tokenizers 0.23 and sentencepiece 0.2)

The texts are made from a seed, here and in tokenizer_kinds_test.cpp alike; texts.json is their stock.
hashes.json has, for each kind, an FNV-1a over the ids of every hundred texts, so that a difference
can be found.
"""
import base64
import io
import json
from pathlib import Path

import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

HERE = Path(__file__).parent
ROOT = HERE.parents[3]
OUT = HERE.parent / "tokenizers"
ENGLISH = (ROOT / "tests/data/english.txt").read_text()
CODE = """for (std::size_t i = 0; i < count; ++i) {
    if (values[i] != nullptr && values[i]->size() > 16) total += sizeof(double);  // padded
}
def main(argv=None):
\treturn {"key": [1, 2.5, None], 'it''s': True} if argv else print("done\\n")
SELECT name, COUNT(*) FROM users WHERE id IN (1, 22, 333) GROUP BY name;
"""
WORLD = """今日はとても良い天気ですね。散歩に行きましょう! 我们明天早上九点在图书馆门口见面,不要迟到。
안녕하세요, 오늘 회의는 오후 세 시에 시작합니다. Сегодня ночью в городе выпал первый снег.
Το πλοίο φεύγει στις οκτώ το πρωί. القطار يغادر المحطة في الساعة السابعة صباحًا. आज मौसम बहुत अच्छा है
Žluťoučký kůň; Łódź, Győr, Þór, Ægir, ß. ﬁn ｆｕｌｌ １２３ ①② Å Ĳ
😀😃😄 👩‍👩‍👧‍👦 🏳️‍🌈 🇯🇵🇩🇪 👍🏽 ❤️
"""
MARKERS = ["<|im_start|>", "<|im_end|>", "<s>", "</s>", "<unk>", "<tool>", "<pad>", "[MASK]"]
SPACES = [" ", "  ", "   ", "\n", "\t", "\r\n", "\n\n", "\u00a0", "\u3000", "\u2003", "\u200b", "▁", "▁▁"]
RANGES = [(0x20, 0x7E), (0xA1, 0x17F), (0x370, 0x3FF), (0x400, 0x45F), (0x5D0, 0x5EA), (0x621, 0x64A), (0x905, 0x939),
          (0xE01, 0xE2E), (0x300, 0x30F), (0x1100, 0x1112), (0xAC00, 0xD7A3), (0x3041, 0x30FA), (0x4E00, 0x9FA5),
          (0x1F300, 0x1F64F), (0x2190, 0x21FF), (0xFF01, 0xFF5E), (0xE000, 0xE0FF), (0x20000, 0x2A6D6), (0x1, 0x1F)]
CORPUS = [*ENGLISH.split("\n"), *CODE.split("\n"), *WORLD.split("\n")] * 2


class Dice:
    def __init__(self, seed):
        self.state = seed

    def roll(self, sides):
        x = self.state
        x ^= x << 13 & 0xFFFFFFFFFFFFFFFF
        x ^= x >> 7
        x ^= x << 17 & 0xFFFFFFFFFFFFFFFF
        self.state = x
        return (x >> 11) % sides


def texts(stock):
    dice = Dice(88172645463325252)
    for i in range(10000):
        if i % 10 == 9:
            yield bytes(dice.roll(256) for _ in range(1 + dice.roll(40))).decode("utf-8", "replace")
            continue
        out = ""
        for _ in range(1 + dice.roll(12)):
            kind = dice.roll(10)
            if kind < 5:
                out += stock["words"][dice.roll(len(stock["words"]))] + " "
            elif kind == 5:
                out += stock["markers"][dice.roll(len(stock["markers"]))]
            elif kind == 6:
                out += stock["spaces"][dice.roll(len(stock["spaces"]))]
            elif kind == 7:
                low, high = stock["ranges"][dice.roll(len(stock["ranges"]))]
                out += "".join(chr(low + dice.roll(high - low + 1)) for _ in range(1 + dice.roll(5)))
            elif kind == 8:
                out += str(dice.roll(100000))
            else:
                out += stock["words"][dice.roll(len(stock["words"]))][:1] * (1 + dice.roll(60))
        yield out


def hashes(encode, stock):
    out, state = [], 0xCBF29CE484222325
    for i, text in enumerate(texts(stock)):
        for number in [*encode(text), 0xFFFFFFFF]:
            for byte in number.to_bytes(4, "little"):
                state = (state ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
        if i % 100 == 99:
            out.append(f"{state:016x}")
    return out


def special(*contents, **rules):
    return [AddedToken(c, special=True, normalized=False, **rules) for c in contents]


def byte_level():
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator(CORPUS, trainers.BpeTrainer(
        vocab_size=900, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=special("<|im_start|>", "<|im_end|>"),
        show_progress=False))
    t.add_tokens([AddedToken("<tool>", normalized=False, lstrip=True, rstrip=True), AddedToken("[MASK]", single_word=True, normalized=False)])
    return t


def split_nfc():
    t = Tokenizer(models.BPE(ignore_merges=True))
    t.normalizer = normalizers.NFC()
    pattern = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
               r"|\s*[\r\n]+|\s+(?!\S)|\s+")
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(pattern), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator(CORPUS, trainers.BpeTrainer(
        vocab_size=900, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=special("<s>", "</s>"), show_progress=False))
    t.add_tokens(["<tool>"])
    t.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False), processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", t.token_to_id("<s>"))])])
    return t


BYTES = [f"<0x{b:02X}>" for b in range(256)]


def llama_like():
    t = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    t.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    t.train_from_iterator([s for s in CORPUS if s.isascii()], trainers.BpeTrainer(
        vocab_size=800, special_tokens=special("<unk>", "<s>", "</s>") + BYTES, show_progress=False))
    made = json.loads(t.to_str())
    made["added_tokens"] = [a for a in made["added_tokens"] if not a["content"].startswith("<0x")]
    made["normalizer"] = {"type": "Sequence", "normalizers": [
        {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]}
    made["pre_tokenizer"] = None
    made["decoder"] = {"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}
    return Tokenizer.from_str(json.dumps(made))


def words_unk():
    t = Tokenizer(models.BPE(unk_token="<unk>"))
    t.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase(), normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")])
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Whitespace(), pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.Punctuation()])
    t.train_from_iterator([s for s in CORPUS if s.isascii()], trainers.BpeTrainer(vocab_size=500, special_tokens=special("<unk>"), show_progress=False))
    t.add_tokens(["<tool>"])
    return t


def unigram(charsmap):
    t = Tokenizer(models.Unigram())
    t.normalizer = normalizers.Sequence([normalizers.Precompiled(charsmap), normalizers.Replace(Regex(" {2,}"), " ")])
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")])
    t.decoder = decoders.Metaspace()
    t.train_from_iterator(CORPUS, trainers.UnigramTrainer(vocab_size=700, unk_token="<unk>", special_tokens=special("<unk>", "<s>", "</s>", "<pad>"), show_progress=False))
    return t


def unigram_first():
    t = Tokenizer(models.Unigram())
    t.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    t.decoder = decoders.Metaspace()
    t.train_from_iterator(CORPUS, trainers.UnigramTrainer(vocab_size=500, unk_token="<unk>", special_tokens=special("<unk>", "</s>"), show_progress=False))
    return t


def sentencepieces():
    rules = "\n".join(["FF41\t61", "FB01\t66 69", "A0\t20", "3000\t20", "2160\t49", "41 30A\tC5", "2460\t31", "200B\t"]) + "\n"
    (OUT / "rules.tsv").write_text(rules)
    common = dict(sentence_iterator=None, minloglevel=2, num_threads=1)
    for name, options in {
        "spm_bpe": dict(model_type="bpe", vocab_size=900, byte_fallback=True, normalization_rule_name="identity",
                        remove_extra_whitespaces=False, character_coverage=0.98),
        "spm_bpe_unk": dict(model_type="bpe", vocab_size=500, normalization_rule_name="identity", character_coverage=0.98),
        "spm_unigram": dict(model_type="unigram", vocab_size=600, byte_fallback=False, normalization_rule_tsv=str(OUT / "rules.tsv"),
                            character_coverage=0.985),
    }.items():
        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(**{**common, **options, "sentence_iterator": iter(s for s in CORPUS if s.strip())},
                                                 model_writer=model)
        folder = OUT / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "tokenizer.model").write_bytes(model.getvalue())
    (OUT / "rules.tsv").unlink()


def charsmap_of(model):
    """normalizer_spec.precompiled_charsmap, by hand: field 3, then field 2."""
    def fields(data):
        at = 0
        def varint():
            nonlocal at
            value = shift = 0
            while True:
                byte = data[at]
                at += 1
                value |= (byte & 0x7F) << shift
                shift += 7
                if byte < 0x80:
                    return value
        while at < len(data):
            key = varint()
            if key & 7 == 0:
                yield key >> 3, varint()
            elif key & 7 == 2:
                size = varint()
                yield key >> 3, data[at:at + size]
                at += size
            else:
                at += 4
    spec = next(v for k, v in fields(model) if k == 3)
    return next(v for k, v in fields(spec) if k == 2)


def main():
    OUT.mkdir(exist_ok=True)
    stock = {"words": list(dict.fromkeys((ENGLISH + CODE + WORLD).split()))[:900], "markers": MARKERS, "spaces": SPACES, "ranges": RANGES}
    (HERE / "texts.json").write_text(json.dumps(stock, ensure_ascii=False, separators=(",", ":")) + "\n")
    sentencepieces()
    charsmap = charsmap_of((OUT / "spm_unigram/tokenizer.model").read_bytes())
    out = {}
    for name, made in {"byte_level": byte_level(), "split_nfc": split_nfc(), "llama_like": llama_like(), "words_unk": words_unk(),
                       "unigram": unigram(charsmap), "unigram_first": unigram_first()}.items():
        folder = OUT / name
        folder.mkdir(parents=True, exist_ok=True)
        made.save(str(folder / "tokenizer.json"), pretty=False)
        loaded = Tokenizer.from_file(str(folder / "tokenizer.json"))
        out[name] = hashes(lambda text: loaded.encode(text, add_special_tokens=False).ids, stock)
    for name in ("spm_bpe", "spm_bpe_unk", "spm_unigram"):
        processor = sentencepiece.SentencePieceProcessor(model_file=str(OUT / name / "tokenizer.model"))
        out[name] = hashes(lambda text: processor.encode(text), stock)
    (HERE / "hashes.json").write_text(json.dumps(out, separators=(",", ":")) + "\n")


main()
