"""The figures of docs/PERFORMANCE.md, as a table and as JSON: scripts/bench [--json FILE] [--quick].

Engine figures come from bench_model (no daemon in between), first tokens from outside, through the
mount: both the best of five runs, since other guests of a machine only ever take away. The rest is
timed once, on a fresh daemon and store.
"""

import argparse
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "blackbox"))
from harness import BIN, DEVICE, ENGLISH, MODEL, Daemon  # noqa: E402

DOCUMENT = ENGLISH * 4
RUNS = 5


def cpu_name():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def timed(action):
    begin = time.perf_counter()
    value = action()
    return time.perf_counter() - begin, value


def first_token(state, prompt, job):
    """Seconds from the close of the prompt's file to the first byte of its reply."""
    begin = time.perf_counter()
    (state / "ask" / job).write_text(prompt)
    with open(state / "replies" / job, "rb", buffering=0) as f:
        f.read(1)
        seconds = time.perf_counter() - begin
    return seconds


def feed_to(daemon, name, tokens):
    """A state of a little more than `tokens` tokens."""
    state = daemon.make(name, template="raw", temperature=0, max_tokens=8)
    text = DOCUMENT[:int(tokens * 4.6)]
    seconds, _ = timed(lambda: daemon.run(state, "feed", text))
    return state, ((state / "tokens.npy").stat().st_size - 128) // 4, seconds


def through_the_mount(rows):
    d = Daemon()
    try:
        rows["daemon start, s"] = timed(d.start)[0]
        state, n, seconds = feed_to(d, "doc", 2048)
        kv = sum(p.stat().st_size for p in (state / "kv").iterdir())
        rows["feed through the mount, tokens"] = n
        rows["feed through the mount, tok/s"] = n / seconds
        rows["KV bytes per token, decoded"] = kv / n
        rows["stored bytes per token"] = d.counter("bytes_stored") / n
        rows["compression of KV"] = d.counter("bytes_unique") / d.counter("bytes_stored")
        question = " What is the text about? Answer:"
        hot, saved = [], []
        for i in range(RUNS):
            hot.append(first_token(state, question, f"hot{i}"))
            d.wait_done(state, f"hot{i}")
        for i in range(RUNS):
            d.stop()
            d.start()
            restored = d.counter("restored_tokens")
            saved.append(first_token(state, question, f"saved{i}"))
            d.wait_done(state, f"saved{i}")
            rows["tokens restored for a question"] = d.counter("restored_tokens") - restored
        rows["first token, state on the device, ms"] = 1e3 * min(hot)
        rows["first token from a saved state, ms"] = 1e3 * min(saved)
        rows["… the median of its runs, ms"] = 1e3 * statistics.median(saved)
        cold = d.make("cold", template="raw", temperature=0, max_tokens=8)
        text = " Entirely new words come first." + DOCUMENT[:int(n * 4.5)]
        rows["first token cold (same length read anew), ms"] = 1e3 * first_token(
            cold, text + question, "cold")
        d.wait_done(cold, "cold")
        rows["first word from an empty state, ms"] = 1e3 * first_token(
            d.make("empty", template="raw", temperature=0, max_tokens=8), question, "e")
    finally:
        d.close()


def listing(rows, count):
    d = Daemon()
    try:
        d.start()
        many = d.states
        rows[f"mkdir of {count} states, s"] = timed(
            lambda: [os.mkdir(many / f"s{i:05}") for i in range(count)])[0]
        for name, command in {"ls": ["ls"], "ls -l": ["ls", "-l"]}.items():
            run = lambda: subprocess.run([*command, many], stdout=subprocess.DEVNULL, check=True)
            rows[f"{name} of {count} states, first, s"] = timed(run)[0]
            rows[f"{name} of {count} states, again, s"] = timed(run)[0]
    finally:
        d.close()


def program(name, *arguments):
    done = subprocess.run([BIN / name, *arguments], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"bench: {name}: {done.stderr.strip() or done.returncode}")
    return json.loads(done.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", metavar="FILE", help="write the figures there too")
    parser.add_argument("--quick", action="store_true", help="1,000 states instead of 10,000")
    options = parser.parse_args()
    rows = {}
    for compute in ("fast", "reference"):
        runs = [program("bench_model", str(MODEL), compute) for _ in range(RUNS)]
        for name in runs[0]:
            best = min if name.endswith(("s", "ms")) and not name.endswith("/s") else max
            rows[f"{compute}: {name}"] = best(run[name] for run in runs)
    for row in program("bench_store", "--benchmark_format=json",
                       "--benchmark_min_time=1")["benchmarks"]:
        if "bytes_per_second" in row:
            rows[f"{row['name']}, MB/s"] = row["bytes_per_second"] / 1e6
    through_the_mount(rows)
    listing(rows, 1000 if options.quick else 10000)
    facts = {"date": time.strftime("%Y-%m-%d"), "cpu": cpu_name(), "cores": os.cpu_count(),
             "device": DEVICE, "model": MODEL.name, "figures": rows}
    print(f"{facts['date']}, {facts['cpu']}, {facts['cores']} cores, {facts['model']}\n")
    width = max(map(len, rows))
    print(f"| {'what'.ljust(width)} | figure |\n|-{'-' * width}-|-------:|")
    for name, value in rows.items():
        text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
        print(f"| {name.ljust(width)} | {text} |")
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
