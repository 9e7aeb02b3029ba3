"""Nothing acknowledged is lost: kill -9 at random moments while feeding, asking, continuing, forking."""

import os
import random
import subprocess
import threading
import unittest

from harness import BIN, Daemon, ENGLISH, fingerprint

CYCLES = int(os.environ.get("KVFS_CRASH_CYCLES", "50"))


class Crashes(unittest.TestCase):
    def test_what_was_reported_done_is_there_after_every_kill(self):
        seed = int(os.environ.get("KVFS_CRASH_SEED", random.randrange(1 << 32)))
        print(f"KVFS_CRASH_SEED={seed}")
        rng = random.Random(seed)
        d = Daemon()
        self.addCleanup(d.close)
        done = {}     # state name → fingerprint when its job was reported done
        replies = {}  # (state, job) → text
        finished = 0  # kills that came after a job was reported done
        longest = 1.2  # s from start to kill; grows where the machine is too slow for any job
        for cycle in range(CYCLES):
            d.start()  # cleans up the mount that the kill left
            for name, want in done.items():
                self.assertEqual(want, fingerprint(d.states / name), f"cycle {cycle}: {name}")
            for (name, job), want in replies.items():
                self.assertEqual(want, (d.states / name / "replies" / job).read_text())
            stop = threading.Event()
            noted = self.noted
            killer = threading.Timer(rng.uniform(0.05, longest), lambda: (stop.set(), d.kill()))
            killer.start()
            try:
                self.work(d, rng, cycle, done, replies, stop)
            except (OSError, subprocess.CalledProcessError, TimeoutError, IndexError, AssertionError):
                if not stop.is_set():
                    raise
            killer.join()
            finished += self.noted > noted
            longest = 1.2 if self.noted > noted else min(longest * 1.5, 20)
            self.assertEqual(subprocess.run([BIN / "kvfsd", "--check", "--store", d.store],
                                            capture_output=True).returncode, 0, f"cycle {cycle}")
            for name in list(done)[:-6]:  # few enough to compare quickly
                done.pop(name)
                replies = {key: text for key, text in replies.items() if key[0] != name}
        self.assertGreater(finished, CYCLES // 5, "the kills came too early to show anything")

    def work(self, d, rng, cycle, done, replies, stop):
        for i in range(100):
            name = f"s{cycle}-{i}"
            state = d.make(name, template="raw", max_tokens=4, temperature=0)
            at = rng.randrange(len(ENGLISH) - 900)
            d.run(state, "feed", ENGLISH[at:at + rng.randrange(20, 900)])
            self.note(d, name, done, stop)
            d.run(state, "ask", " Then", "a")
            text = d.reply(state, "a")
            if not stop.is_set():
                replies[name, "a"] = text
            # From here a kill may find the state before or after the continue: its record is void.
            done.pop(name, None)
            d.run(state, "continue", " And", "c")
            self.note(d, name, done, stop)
            (state / "fork").mkdir()
            self.note(d, f"{name}/fork", done, stop)

    noted = 0  # jobs reported done, and remembered with what they made

    def note(self, d, name, done, stop):
        seen = fingerprint(d.states / name)
        if not stop.is_set():
            done[name] = seen
            self.noted += 1


if __name__ == "__main__":
    unittest.main()
