#!/usr/bin/env python3
"""Many states, and many files in one: tests/bench/states.py [--states 100000] [--files 1000]

Makes them in a store of its own and times what people type: ls, ls -l, find, du. Wanted, of
100,000 states: ls < 0.5 s, ls -l < 2 s warm, find < 20 s, du right. Figures: docs/PERFORMANCE.md."""

import argparse
import os
import pathlib
import resource
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/blackbox"))
sys.dont_write_bytecode = True
from harness import Daemon  # noqa: E402


def used(daemon):
    """Seconds of CPU: the daemon's, and of the programs that have ended."""
    words = pathlib.Path(f"/proc/{daemon.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ((int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")
            + children.ru_utime + children.ru_stime)


def timed(daemon, what, command, where, times=2):
    """Wall time, and what the CPUs did for it: on a busy machine the second says more."""
    figures = []
    for _ in range(times):
        before, begin = used(daemon), time.monotonic()
        done = subprocess.run(command, shell=True, cwd=where, capture_output=True, text=True)
        figures.append((time.monotonic() - begin, used(daemon) - before))
        assert done.returncode == 0, done.stderr[-500:]
    shown = "   ".join(f"{wall:6.2f} s (CPU {cpu:5.2f})" for wall, cpu in figures)
    print(f"{what:22} {shown}   {done.stdout.strip()[-40:]}", flush=True)
    return done.stdout


def resident(daemon):
    for line in pathlib.Path(f"/proc/{daemon.process.pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) // 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--states", type=int, default=100_000)
    parser.add_argument("--files", type=int, default=1000)
    given = parser.parse_args()
    daemon = Daemon()
    try:
        daemon.start()
        states = daemon.states
        begin = time.monotonic()
        for i in range(given.states):
            os.mkdir(states / f"state-{i:06}")
        print(f"mkdir: {given.states / (time.monotonic() - begin):.0f} states a second")
        one = states / "state-000000"
        begin = time.monotonic()
        for i in range(given.files):
            (one / f"file-{i:04}").write_bytes(b"x" * 1000)
        print(f"new files of 1 kB: {given.files / (time.monotonic() - begin):.0f} a second")

        timed(daemon, f"ls, of {given.files} files", "ls | wc -l", one)
        timed(daemon, f"ls -l, of {given.files} files", "ls -l | wc -l", one, 3)
        timed(daemon, f"du, of {given.files} files", "du -s --apparent-size -B1 --exclude=params .", one)
        daemon.stop()
        daemon.start()
        timed(daemon, "ls", "ls | wc -l", states)
        timed(daemon, "ls -U", "ls -U | wc -l", states)
        timed(daemon, "ls -l", "ls -l | wc -l", states, 3)
        print(f"the daemon's own memory: {resident(daemon)} MiB")
        timed(daemon, "find", "find . | wc -l", states, 3)
        timed(daemon, "du", "du -s -B1 .", states)
        print(f"the daemon's own memory: {resident(daemon)} MiB")
    finally:
        daemon.close()


if __name__ == "__main__":
    main()
