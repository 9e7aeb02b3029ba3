"""kvfs events: what happens, as JSON lines."""

import json
import queue
import signal
import subprocess
import threading
import unittest

from harness import BIN, Daemon


class Events(unittest.TestCase):
    def setUp(self):
        self.daemon = Daemon()
        self.addCleanup(self.daemon.close)
        self.daemon.start()

    def listen(self, *words):
        process = subprocess.Popen([BIN / "kvfs", "--socket", self.daemon.socket, "events", *words],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        lines = queue.Queue()
        threading.Thread(target=lambda: [lines.put(json.loads(line)) for line in process.stdout],
                         daemon=True).start()
        self.assertEqual(lines.get(timeout=20), {"event": "ready"})
        return process, lines

    def until(self, lines, event, **facts):
        """The first such event; those before it."""
        before = []
        while True:
            line = lines.get(timeout=60)
            if line["event"] == event and facts.items() <= line.items():
                return line, before
            before.append(line)

    def test_a_life_is_told(self):
        process, lines = self.listen()
        state = self.daemon.make("a", max_tokens=3, temperature=0)
        self.until(lines, "created", state="a")
        self.until(lines, "changed", state="a")
        self.daemon.run(state, "feed", "Some text.", "f")
        advanced, before = self.until(lines, "advanced", state="a")
        seen = [line["job"]["status"] for line in before if line["event"] == "job"]
        self.assertIn(seen[0], ("queued", "running"))
        self.assertNotIn("done", seen)
        done, _ = self.until(lines, "job", state="a")
        self.assertEqual((done["job"]["name"], done["job"]["kind"], done["job"]["status"]),
                         ("f", "feed", "done"))
        self.assertRegex(done["at"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")
        (state / "b").mkdir()
        self.until(lines, "created", state="a/b")
        (state / ".snap/v1").mkdir()
        self.until(lines, "created", state="a@v1")
        (state / "notes").write_text("mine")
        self.until(lines, "file-created", state="a", file="notes")
        (state / "notes").unlink()
        self.until(lines, "file-removed", state="a", file="notes")
        (state / "b").rename(self.daemon.states / "c")
        self.until(lines, "renamed", state="c", before="a/b")
        (self.daemon.states / "c").rmdir()
        self.until(lines, "removed", state="c")
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(timeout=20), 0)

    def test_each_refresh_of_a_pruned_reply_is_told(self):
        _, lines = self.listen()
        state = self.daemon.make("a", template="raw", temperature=0, max_tokens=12,
                                 prune="pyramid window=8 bottom=64 top=24 refresh=5 start=8")
        self.daemon.run(state, "continue", "Some text to begin with. " * 20, "c")
        told, _ = self.until(lines, "refreshed", state="a")
        refresh = told["refresh"]
        self.assertEqual((told["job"], refresh["step"]), ("c", 5))
        self.assertEqual(len(refresh["lengths"]), 30)
        self.assertEqual(len(refresh["before"]), 30)
        self.assertGreater(refresh["before"][0], refresh["lengths"][29])
        self.assertEqual(refresh["top_budget"], 24)
        self.assertGreater(refresh["kv_bytes"], 0)
        self.assertIn(f'c {refresh["line"]}\n', (state / "status").read_text())
        told, _ = self.until(lines, "refreshed")
        self.assertEqual(told["refresh"]["step"], 10)

    def test_of_one_state_alone_until_the_daemon_ends(self):
        self.daemon.make("a"), self.daemon.make("ab")
        process, lines = self.listen("a")
        (self.daemon.states / "ab/inside").mkdir()
        (self.daemon.states / "a/inside").mkdir()
        self.assertEqual(lines.get(timeout=20)["state"], "a/inside")
        self.assertEqual(self.daemon.kvfs("events", "none", check=False).returncode, 1)
        self.assertLess(self.daemon.stop(), 5)
        self.assertIsNotNone(process.wait(timeout=20))


if __name__ == "__main__":
    unittest.main()
