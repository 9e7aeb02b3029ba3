"""What people do at a prompt: cat, head, tail, cp, grep, find, editors, Ctrl-C."""

import os
import signal
import subprocess
import time
import unittest

from harness import DaemonTest, ENGLISH, wait_until


def sh(script, cwd, **options):
    options.setdefault("timeout", 120)
    return subprocess.run(["bash", "-c", "set -euo pipefail\n" + script], cwd=cwd, text=True,
                          capture_output=True, **options)


class ShellLife(DaemonTest):
    def test_the_tour_of_the_contract(self):
        paper = self.daemon.directory / "paper.txt"
        paper.write_text(ENGLISH[:1500])
        done = sh(f"""mkdir quantum && cp {paper} quantum/feed/
            echo 20 > quantum/params/max_tokens; echo 0 > quantum/params/temperature
            echo 'What is a qubit?' > quantum/ask/q1 && cat quantum/replies/q1
            echo; mkdir quantum/branch; rmdir quantum/branch; ls quantum""", self.daemon.states)
        self.assertEqual(done.returncode, 0, done.stderr)
        for name in ("state.json", "text", "tokens.npy", "kv", "params", "feed", "continue", "ask",
                     "replies", "status", "ctl"):
            self.assertIn(name, done.stdout.split())
        self.assertGreater(len(done.stdout), 60)

    def test_sizes_are_exact_and_every_tool_reads_the_tree(self):
        state = self.state(temperature=0, max_tokens=12)
        self.daemon.run(state, "continue", "Name a colour.")
        done = sh("""
            for f in text tokens.npy state.json kv/layer-000.safetensors kv/layer-029.safetensors \\
                     status params/temperature replies/j; do
                [ $(wc -c < $f) = $(stat -c %s $f) ] || { echo "$f lies about its size"; exit 1; }
            done
            head -c 5 text | wc -c; tail -c 5 text | wc -c
            find . -type f | wc -l; grep -rl colour . | sort; du -s . > /dev/null; ls -laR > /dev/null
            cp text /tmp/kvfs-copy.$$ && cmp text /tmp/kvfs-copy.$$ && rm /tmp/kvfs-copy.$$""", state)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        lines = done.stdout.split()
        self.assertEqual(lines[:2], ["5", "5"])
        self.assertGreater(int(lines[2]), 40)
        self.assertIn("./text", lines)

    def test_two_readers_of_one_growing_reply_see_the_same(self):
        state = self.state(temperature=0, max_tokens=80)
        (state / "ask" / "long").write_text("Tell me a story about a ship.")
        readers = [subprocess.Popen(["cat", state / "replies/long"], stdout=subprocess.PIPE)
                   for _ in range(2)]
        texts = [reader.communicate(timeout=120)[0] for reader in readers]
        self.assertEqual(texts[0], texts[1])
        self.assertGreater(len(texts[0]), 40)
        self.assertEqual(self.daemon.reply(state, "long").encode(), texts[0])

    def test_a_reply_streams_while_it_is_generated(self):
        state = self.state(temperature=0, max_tokens=200)
        (state / "ask" / "long").write_text("Tell me a long story about a ship.")
        with open(state / "replies/long", "rb", buffering=0) as f:
            first = f.read(4096)
            self.assertTrue(first)
            self.assertNotIn(" done", self.daemon.status_of(state, "long"))
            total = first
            while piece := f.read(4096):
                total += piece
        self.assertGreater(len(total), len(first))
        self.daemon.wait_done(state, "long")

    def test_tail_f_follows_a_reply(self):
        state = self.state(temperature=0, max_tokens=60)
        (state / "ask" / "t").write_text("Count to thirty.")
        tail = subprocess.Popen(["timeout", "60", "tail", "-n", "+1", "-f", state / "replies/t"],
                                stdout=subprocess.PIPE, start_new_session=True)
        self.daemon.wait_done(state, "t")
        want = self.daemon.reply(state, "t").encode()
        got = b""
        deadline = time.monotonic() + 30
        while len(got) < len(want) and time.monotonic() < deadline:
            got += os.read(tail.stdout.fileno(), 4096)
        os.killpg(tail.pid, signal.SIGKILL)  # timeout's child too
        tail.wait()
        tail.stdout.close()
        self.assertEqual(got, want)

    def test_ctrl_c_in_a_waiting_cat_returns_at_once(self):
        state = self.state(temperature=0, max_tokens=400)
        (state / "ask" / "slow").write_text("Tell me everything you know about whales, at length.")
        cat = subprocess.Popen(["cat", state / "replies/slow"], stdout=subprocess.PIPE)
        cat.stdout.read(1)  # it runs, and waits for more
        begin = time.monotonic()
        cat.send_signal(signal.SIGINT)
        cat.wait(timeout=5)
        self.assertLess(time.monotonic() - begin, 1)
        cat.stdout.close()
        self.assertEqual(cat.returncode, -signal.SIGINT)
        os.unlink(state / "ask" / "slow")  # cancels
        wait_until(lambda: "cancel" in self.daemon.status_of(state, "slow"), 20, "canceled")

    def test_an_editor_that_writes_through_a_temporary_name(self):
        state = self.state(temperature=0, max_tokens=5)
        done = sh("""echo 'Say hi' > ask/.q.swp; echo 'Say hi' > ask/q~; echo 'Say hi' > ask/4.tmp
            mv ask/4.tmp ask/q""", state)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.daemon.wait_done(state, "q")
        self.assertTrue(self.daemon.reply(state, "q"))
        self.assertEqual(len((state / "status").read_text().splitlines()), 1,
                         "scratch names start nothing")

    def test_fresh_text_is_seen_the_moment_done_is_said(self):
        state = self.state(temperature=0, max_tokens=3, template="raw")
        for i in range(6):
            before = (state / "text").read_text() if i else ""
            with open(state / "text") if i else open(os.devnull) as old:
                self.daemon.run(state, "continue", f" Number {i} is", f"c{i}")
                self.assertEqual(old.read(), before, "an open file keeps its version")
            now = (state / "text").read_text()
            self.assertTrue(now.startswith(before) and len(now) > len(before))
            self.assertEqual(len(now.encode()), (state / "text").stat().st_size)

    def test_rm_r_and_rename(self):
        state = self.state(temperature=0, max_tokens=3)
        self.daemon.run(state, "continue", "Hello")
        text = (state / "text").read_text()
        moved = self.daemon.states / "moved-elsewhere"
        state.rename(moved)
        self.assertEqual((moved / "text").read_text(), text)
        (moved / "child").mkdir()
        with self.assertRaises(OSError):
            moved.rmdir()
        done = sh("rm -r moved-elsewhere", self.daemon.states)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertFalse(moved.exists())

    def test_the_command_line_does_the_same(self):
        name = "from-the-command-line"
        d = self.daemon
        d.kvfs("new", name, "--param", "temperature=0", "--param", "max_tokens=12")
        d.kvfs("feed", name, "-", input="The password is swordfish.", stdin=None)
        asked = d.kvfs("ask", name, "What is the password?").stdout
        self.assertTrue(asked.strip())
        again = d.kvfs("ask", name, "What is the password?").stdout
        self.assertEqual(asked, again)
        d.kvfs("fork", name, name + "-2")
        said = d.kvfs("continue", name, "What is the password?").stdout
        self.assertEqual(said.strip(), asked.strip())
        d.kvfs("step", name, "-n", "3")
        self.assertIn(name, d.kvfs("ls").stdout)
        self.assertIn("tokens", d.kvfs("show", name).stdout)
        self.assertIn("SmolLM2", d.kvfs("models").stdout)
        d.kvfs("set", name, "temperature=0.5")
        self.assertEqual((d.states / name / "params/temperature").read_text().strip(), "0.5")
        d.kvfs("rm", name)
        self.assertFalse((d.states / name).exists())
        self.assertTrue((d.states / (name + "-2")).exists())


if __name__ == "__main__":
    unittest.main()
