"""Equal content is kept once."""

import unittest

from harness import Daemon, ENGLISH

DOCUMENT = (ENGLISH * 4)[:9000]  # a little over 2,000 tokens


class Dedup(unittest.TestCase):
    def setUp(self):
        self.daemon = Daemon()
        self.addCleanup(self.daemon.close)
        self.daemon.start()

    def test_ten_states_of_one_document_hold_its_chunks_once_and_a_fork_adds_none(self):
        d = self.daemon
        first = d.make("first", template="raw")
        d.run(first, "feed", DOCUMENT)
        tokens = int((first / "tokens.npy").stat().st_size - 128) // 4
        self.assertGreaterEqual(tokens, 1900)
        one = {k: d.counter(k) for k in ("bytes_logical", "bytes_unique", "bytes_stored")}
        self.assertGreater(one["bytes_unique"], 0)
        self.assertLess(one["bytes_stored"], one["bytes_unique"])
        for i in range(9):
            d.run(d.make(f"again{i}", template="raw"), "feed", DOCUMENT)
        self.assertEqual(d.counter("bytes_unique"), one["bytes_unique"])
        self.assertEqual(d.counter("bytes_stored"), one["bytes_stored"])
        self.assertEqual(d.counter("bytes_logical"), 10 * one["bytes_logical"])
        (first / "branch").mkdir()
        self.assertEqual(d.counter("bytes_stored"), one["bytes_stored"])
        self.assertEqual(d.counter("bytes_logical"), 11 * one["bytes_logical"])
        self.assertGreaterEqual(float(d.counters()["dedup_ratio"]), 10.9)

    def test_the_known_prefix_is_not_read_again(self):
        d = self.daemon
        d.run(d.make("one", template="raw"), "feed", DOCUMENT)
        before = d.counter("prefilled_tokens")
        d.run(d.make("two", template="raw"), "feed", DOCUMENT)
        self.assertLess(d.counter("prefilled_tokens") - before, 256)
        self.assertGreaterEqual(d.counter("prefix_hit_tokens"), 1792)

    def test_removing_states_gives_their_bytes_back(self):
        d = self.daemon
        for name in ("one", "two"):
            d.run(d.make(name, template="raw"), "feed", DOCUMENT)
        stored = d.counter("bytes_stored")
        (d.states / "one").rmdir()
        self.assertEqual(d.counter("bytes_stored"), stored, "two still holds every chunk")
        (d.states / "two").rmdir()
        from harness import wait_until
        wait_until(lambda: d.counter("bytes_stored") == 0, 30, "the collector frees all")


if __name__ == "__main__":
    unittest.main()
