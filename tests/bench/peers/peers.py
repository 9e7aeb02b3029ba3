"""llama.cpp, transformers and kvfs on one machine, one model file, two threads, in one run.

    python tests/bench/peers/peers.py --prepare      builds and installs the peers into build/peers
    python tests/bench/peers/peers.py [--rounds N] [--json FILE]

Prints the table of docs/PERFORMANCE.md. Each round measures every peer once, each round another one
first, since other guests of a machine come and go; the best and the median of the rounds are given.
kvfs must be built (scripts/build); KVFS_BIN and KVFS_MODEL name other programs and another file.
KVFS_PEERS_PYTHON names a Python with torch, transformers, gguf and accelerate to use instead of
build/peers/venv, KVFS_LLAMA_SDIST an sdist of llama-cpp-python that lies here already.
"""

import argparse
import contextlib
import datetime
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[0]), str(HERE.parents[1] / "blackbox")]
from bench import DOCUMENT, cpu_name  # noqa: E402
from harness import MODEL, ROOT  # noqa: E402
from kvfs_peer import Kvfs  # noqa: E402
from llama_cpp_peer import LlamaCpp  # noqa: E402
from transformers_peer import Transformers  # noqa: E402

CONTEXT = 2048
QUESTION = " What does the sailor want to see at sea?"  # ten tokens, checked before the first round

# key, what it is, whether more is better, what is wanted of kvfs
ROWS = [
    ("prefill", "prefill of 2,048 tokens, tok/s", True, "2.6 × llama.cpp, 1 × transformers"),
    ("decode_empty", "decode on an empty context, tok/s", True, "1.2 × llama.cpp"),
    ("decode", "decode at 2,048 tokens, tok/s", True, "1.6 × llama.cpp"),
    ("first_token", "first token of a ten-token question to a saved state of 2,048 tokens, ms",
     False, "40 ms, 2 × llama.cpp"),
    ("branches", "8 branches of 2,048 tokens decoded together, tok/s", True, ""),
    ("branch_gain", "… against one alone", True, "3 ×"),
]


def write(number):
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


class Figures:
    """What the rounds gave one peer, by row."""

    def __init__(self):
        self.rounds = []

    def values(self, key):
        given = [figures[key] for figures in self.rounds if key in figures]
        return [one for some in given for one in (some if isinstance(some, list) else [some])]

    def best(self, key):
        if key == "branch_gain":  # of the bests: a quotient of single runs would choose the noise
            both = self.best("branches"), self.best("decode")
            return both[0] / both[1] if all(both) else None
        more_is_better = next(row[2] for row in ROWS if row[0] == key)
        return (max if more_is_better else min)(self.values(key), default=None)

    def cell(self, key):
        best = self.best(key)
        if best is None:
            return "—"
        values = self.values(key)
        return write(best) + (f" ({write(statistics.median(values))})" if values else "")


def gain(key, ours, theirs):
    """How many times better ours is."""
    if ours is None or theirs is None:
        return "—"
    more_is_better = next(row[2] for row in ROWS if row[0] == key)
    return f"{ours / theirs if more_is_better else theirs / ours:.2f} ×"


def table(figures):
    names = list(figures)
    others = [name for name in names if name.startswith("transformers")]
    yield ["best (median)", *names, "kvfs to llama.cpp", "kvfs to transformers", "wanted"]
    for key, label, more_is_better, wanted in ROWS:
        ours = figures["kvfs"].best(key)
        rivals = [v for v in (figures[name].best(key) for name in others) if v is not None]
        rival = (max if more_is_better else min)(rivals, default=None)
        ratios = ["", ""] if key == "branch_gain" else [
            gain(key, ours, figures["llama.cpp"].best(key)), gain(key, ours, rival)]
        yield [label, *(figures[name].cell(key) for name in names), *ratios, wanted]


def print_table(rows):
    head, *rest = rows
    print("| " + " | ".join(head) + " |")
    print("|" + "---|" * len(head))
    for row in rest:
        print("| " + " | ".join(row) + " |")


def prepare():
    LlamaCpp.build()
    Transformers.install()


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepare", action="store_true", help="build and install the peers, no more")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--without", action="append", default=[], choices=["transformers"],
                        help="leave this peer out")
    parser.add_argument("--json", metavar="FILE", help="write every round's figures there")
    options = parser.parse_args()
    if options.prepare:
        return prepare()
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kvfs-peers-")))
        llama = stack.enter_context(LlamaCpp(MODEL, options.threads, folder))
        text, ids = llama.cut(DOCUMENT, CONTEXT)
        question = llama.tokenize(QUESTION)
        assert len(question) == 10, f"the question has {len(question)} tokens"
        kvfs = stack.enter_context(Kvfs(MODEL, options.threads, text, QUESTION))
        llama.save(ids, question)
        runs = {"llama.cpp": llama.measure}
        versions = [llama.version()]
        if "transformers" not in options.without:
            transformers = stack.enter_context(
                Transformers(MODEL, options.threads, folder, ids, question))
            runs["transformers bf16"] = lambda: transformers.measure("bfloat16")
            runs["transformers fp32"] = lambda: transformers.measure("float32")
            versions.append(transformers.version())
        runs["kvfs"] = kvfs.measure
        figures = {name: Figures() for name in runs}
        for turn in range(options.rounds):
            order = list(runs)
            for name in order[turn % len(order):] + order[:turn % len(order)]:
                figures[name].rounds.append(runs[name]())
                print(f"round {turn + 1}, {name}: {figures[name].rounds[-1]}", file=sys.stderr)
        versions.append("kvfs " + subprocess.run(
            ["git", "-C", str(ROOT), "describe", "--always", "--dirty"], capture_output=True,
            text=True).stdout.strip())
    free = [100 * share for share in figures["kvfs"].values("free")]
    print(f"{datetime.date.today()}, {cpu_name()}, {os.cpu_count()} cores, {options.threads} threads, "
          f"{MODEL.name}, {options.rounds} rounds; {'; '.join(versions)}. "
          f"Of the cores {min(free):.0f} to {max(free):.0f} % were free.\n")
    print_table(table(figures))
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(
            {name: of.rounds for name, of in figures.items()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
