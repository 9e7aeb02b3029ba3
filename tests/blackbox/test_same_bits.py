"""Same history, same bits: seen through the mount, by hash of every file a state shows."""

import json
import shutil
import unittest

import numpy as np

from harness import Daemon, DaemonTest, ENGLISH, fingerprint

WORDS = ENGLISH.split()


def english(first, count):
    return " " + " ".join(WORDS[first:first + count])


class SameBits(DaemonTest):
    def tokens(self, state):
        return np.load(state / "tokens.npy")

    def test_reading_in_parts_equals_reading_at_once(self):
        whole, parts = self.state("-whole", template="raw"), self.state("-parts", template="raw")
        first, second = english(0, 300), english(300, 100)
        self.daemon.run(whole, "feed", first + second)
        self.daemon.run(parts, "feed", first, "a")
        self.daemon.run(parts, "feed", second, "b")
        np.testing.assert_array_equal(self.tokens(whole), self.tokens(parts))
        self.assertEqual(fingerprint(whole), fingerprint(parts))

    def test_a_fork_continues_as_the_original_would(self):
        state = self.state(template="raw", temperature=0, max_tokens=48)
        self.daemon.run(state, "feed", english(0, 200))
        (state / "branch").mkdir()
        self.daemon.run(state / "branch", "continue", " The truth is", "c")
        self.daemon.run(state, "continue", " The truth is", "c")
        self.assertEqual(fingerprint(state), fingerprint(state / "branch"))
        self.assertEqual(self.daemon.reply(state, "c"), self.daemon.reply(state / "branch", "c"))

    def test_a_batch_of_four_equals_four_batches_of_one(self):
        prompts = [" It is a truth", " The moon was", " In the year 1850,", " def add(a, b):"]
        params = dict(template="raw", temperature=0.7, seed=11, max_tokens=40)
        alone, together = {}, []
        for i, prompt in enumerate(prompts):
            state = self.state(f"-alone{i}", **params)
            self.daemon.run(state, "continue", prompt)
            alone[i] = (fingerprint(state), self.daemon.reply(state))
        for i, prompt in enumerate(prompts):
            state = self.state(f"-together{i}", **params)
            together.append(state)
        for state, prompt in zip(together, prompts):
            (state / "continue" / "j").write_text(prompt)
        for i, state in enumerate(together):
            self.daemon.wait_done(state, "j")
            self.assertEqual(alone[i], (fingerprint(state), self.daemon.reply(state)), prompts[i])


class Resume(unittest.TestCase):
    def setUp(self):
        self.daemon = Daemon()
        self.addCleanup(self.daemon.close)
        self.daemon.start()

    def test_continuing_64_equals_32_then_kill_9_then_step_32(self):
        for name, params in {"greedy": dict(temperature=0),
                             "seeded": dict(temperature=0.9, top_p=0.95, seed=5)}.items():
            with self.subTest(name):
                d = self.daemon
                whole = d.make(f"{name}-whole", template="raw", max_tokens=64, **params)
                d.run(whole, "continue", english(0, 120))
                halves = d.make(f"{name}-halves", template="raw", max_tokens=32, **params)
                d.run(halves, "continue", english(0, 120))
                d.kill()
                d.start()
                before = d.counter("prefilled_tokens")
                job = d.step(halves, 32)
                self.assertLessEqual(d.counter("prefilled_tokens") - before, 1)
                self.assertEqual(fingerprint(whole), fingerprint(halves))
                self.assertEqual(d.reply(whole), d.reply(halves) + d.reply(halves, job))

    def test_after_a_restart_only_the_new_prompt_is_read(self):
        d = self.daemon
        state = d.make("manual", template="raw", temperature=0, max_tokens=8)
        d.run(state, "feed", english(0, 600))
        known = len(np.load(state / "tokens.npy"))
        self.assertGreater(known, 600)
        d.kill()
        d.start()
        self.assertEqual(d.counter("prefilled_tokens"), 0)
        d.run(state, "continue", " What is a truth?", "q")
        asked = len(np.load(state / "tokens.npy")) - known - 8
        self.assertEqual(d.counter("prefilled_tokens"), asked)
        self.assertEqual(d.counter("restored_tokens"), known)
        self.assertGreater(float(d.counters()["restore_mb_per_second"]), 0)

    def test_after_a_restart_an_ask_says_that_its_state_was_restored_and_its_question_read(self):
        d = self.daemon
        state = d.make("told", template="raw", temperature=0, max_tokens=8)
        d.run(state, "feed", english(0, 600))
        known = len(np.load(state / "tokens.npy"))
        d.run(state, "ask", " What is a truth?", "q")
        before = d.reply(state, "q")
        d.kill()
        d.start()
        line = d.run(state, "ask", " What is a truth?", "q2")
        self.assertEqual(d.reply(state, "q2"), before)
        job = next(job for job in json.loads(d.kvfs("show", "told", "--json").stdout)["jobs"]
                   if job["name"] == "q2")
        asked = job["prompt_tokens"]
        self.assertEqual(d.counter("prefilled_tokens"), asked)
        self.assertRegex(line, rf"^q2 done {known} restored \d+ ms, {asked} read \(0 known\) \d+ ms, "
                               r"8 generated \(length\) \d+ ms, [\d.]+ s$")
        self.assertEqual((job["restored_tokens"], job["recomputed_tokens"], job["known_tokens"],
                          job["prefilled_tokens"], job["generated_tokens"]), (known, 0, 0, asked, 8))
        times = job["milliseconds"]
        self.assertGreater(times["restore"], 0)
        self.assertEqual(times["recompute"], 0)
        self.assertLessEqual(times["restore"] + times["read"] + times["generate"],
                             job["seconds"] * 1000 + 5)
        line = d.run(state, "ask", " What is a truth?", "q3")  # now it is on the device
        self.assertTrue(line.startswith(f"q3 done {asked} read (0 known) "), line)

    def test_everything_is_there_after_an_orderly_stop(self):
        d = self.daemon
        state = d.make("kept", template="raw", temperature=0, max_tokens=8)
        d.run(state, "continue", english(0, 50))
        seen = fingerprint(state), d.reply(state)
        self.assertLess(d.stop(), 5)
        shutil.rmtree(d.socket.parent, ignore_errors=True)
        d.start()
        self.assertEqual(seen, (fingerprint(state), d.reply(state)))


if __name__ == "__main__":
    unittest.main()
