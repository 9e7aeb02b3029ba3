"""Spools with more than one hand in them: many writers, writes that failed, prompts in pieces."""

import errno
import os
import subprocess
import unittest

from harness import DaemonTest, ENGLISH, wait_until


class Spools(DaemonTest):
    def test_many_writers_at_once_each_get_their_own(self):
        d = self.daemon
        state = self.state(template="raw", temperature=0, max_tokens=2)
        d.run(state, "feed", ENGLISH[:200])
        before = (state / "tokens.npy").read_bytes()
        # Each leaves its prompts by another way.
        ways = ("printf %s \"$P\" > ask/$N", "printf %s \"$P\" > ask/.$N; mv ask/.$N ask/$N",
                "printf %s \"${P%??}\" > ask/$N.tmp; printf %s \"${P: -2}\" >> ask/$N.tmp; mv ask/$N.tmp ask/$N",
                "printf %s \"$P\" | dd of=ask/$N bs=3 status=none")
        writers = [subprocess.Popen(
            ["bash", "-c", f"for i in 1 2 3; do P='Number {w} of '$i' is'; N=w{w}-$i; {way}; "
             "cat replies/$N > /dev/null || exit 1; done"], cwd=state)
            for w, way in enumerate(ways)]
        for writer in writers:
            self.assertEqual(writer.wait(120), 0)
        jobs = [f"w{w}-{i}" for w in range(len(ways)) for i in (1, 2, 3)]
        for job in jobs:
            self.assertEqual(d.wait_done(state, job).split()[1], "done")
        again = self.state("-alone", template="raw", temperature=0, max_tokens=2)
        d.run(again, "feed", ENGLISH[:200])
        for w in range(len(ways)):
            d.run(again, "ask", f"Number {w} of 2 is", f"w{w}")
            self.assertEqual(d.reply(state, f"w{w}-2"), d.reply(again, f"w{w}"))
        self.assertEqual((state / "tokens.npy").read_bytes(), before)
        self.assertEqual(list((state / "ask").iterdir()), [])

    def test_a_handle_whose_write_failed_submits_nothing(self):
        state = self.state(template="raw", temperature=0, max_tokens=2)
        fd = os.open(state / "ask/q", os.O_WRONLY | os.O_CREAT, 0o600)
        self.assertEqual(os.write(fd, b"What is"), 7)
        with self.assertRaises(OSError) as raised:
            os.pwrite(fd, b"x", 1 << 40)
        self.assertEqual(raised.exception.errno, errno.EFBIG)
        with self.assertRaises(OSError):  # it says so again
            os.close(fd)
        wait_until(lambda: self.daemon.status_of(state, "q").startswith("q error: "), 10, "a line")
        wait_until(lambda: not (state / "ask/q").exists(), 10, "it is gone")
        self.daemon.run(state, "ask", "What is it?", "q")  # and the name is free again

    def test_a_prompt_in_pieces_by_append(self):
        state = self.state(template="raw", temperature=0, max_tokens=2)
        fds = [os.open(state / "feed/p", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
               for _ in range(4)]
        for turn in range(5):
            for i, fd in enumerate(fds):
                os.write(fd, f"{turn}.{i} ".encode())
        for fd in fds:
            os.close(fd)
        self.daemon.wait_done(state, "p")
        self.assertTrue((state / "text").read_text().endswith(
            "".join(f"{turn}.{i} " for turn in range(5) for i in range(4))))


if __name__ == "__main__":
    unittest.main()
