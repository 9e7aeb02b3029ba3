"""Snapshots, the way back, users' own files: through a real mount, as root and as somebody else."""

import os
import pathlib
import subprocess
import tempfile
import unittest

from harness import Daemon, DaemonTest, ENGLISH, fingerprint


def sh(script, cwd, **options):
    options.setdefault("timeout", 120)
    return subprocess.run(["bash", "-c", "set -euo pipefail\n" + script], cwd=cwd, text=True,
                          capture_output=True, **options)


class Snapshots(DaemonTest):
    def test_a_snapshot_outlives_what_came_after_and_the_daemon(self):
        state = self.state(temperature=0, max_tokens=4)
        self.daemon.run(state, "feed", ENGLISH[:400])
        then = fingerprint(state)
        (state / ".snap" / "v1").mkdir()
        self.daemon.run(state, "continue", "And?")
        self.assertNotEqual(fingerprint(state), then)
        self.assertEqual(fingerprint(state / ".snap" / "v1"), then)
        self.daemon.kill()
        self.daemon.start()
        self.assertEqual(fingerprint(state / ".snap" / "v1"), then)
        self.assertNotIn(".snap", os.listdir(state))
        (state / "ctl").write_text("rollback @v1\n")
        self.assertEqual(fingerprint(state), then)

    def test_a_state_that_went_back_goes_on_as_if_it_had_never_gone(self):
        state = self.state(template="raw", temperature=0, max_tokens=8)
        self.daemon.run(state, "feed", ENGLISH[:1500], "a")
        then = fingerprint(state)
        tokens = int(len((state / "tokens.npy").read_bytes()) - 128) // 4
        self.daemon.run(state, "feed", ENGLISH[1500:2500], "b")
        (state / "ctl").write_text(f"rollback {tokens}\n")
        self.assertEqual(fingerprint(state), then)

    def test_the_command_line_does_the_same(self):
        d, name = self.daemon, "line"
        d.kvfs("new", name, "--param", "temperature=0", "--param", "max_tokens=4")
        d.kvfs("feed", name, "-", input="The password is swordfish.", stdin=None)
        d.kvfs("snap", name, "before")
        then = fingerprint(d.states / name)
        d.kvfs("continue", name, "What is it?")
        self.assertIn("@before", d.kvfs("log", name).stdout)
        d.kvfs("fork", name + "@before", name + "-fork")
        self.assertEqual(fingerprint(d.states / (name + "-fork")), then)
        d.kvfs("rollback", name, "@before")
        self.assertEqual(fingerprint(d.states / name), then)
        self.assertEqual(d.kvfs("rm", name, check=False).returncode, 1)
        d.kvfs("snap", "--drop", name, "before")
        (d.states / name / "child").mkdir()
        self.assertIn("  child", d.kvfs("tree").stdout)
        d.kvfs("rm", "-r", name)

    def test_files_of_users_are_kept_through_a_crash(self):
        state = self.state()
        done = sh("""head -c 3000000 /dev/urandom > paper.pdf; sha256sum paper.pdf > sum
            echo note > 'a note'; ln -s paper.pdf link; sync paper.pdf sum""", state)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.daemon.kill()
        self.daemon.start()
        done = sh("""sha256sum -c sum; cat 'a note'; cmp link paper.pdf; mkdir fork
            cd fork; sha256sum -c sum; rm link paper.pdf sum 'a note'""", state)
        self.assertEqual(done.returncode, 0, done.stderr + done.stdout)
        done = sh(f"rm -r {state.name}", self.daemon.states)
        self.assertEqual(done.returncode, 0, done.stderr)


class AsSomebodyElse(unittest.TestCase):
    """The daemon is root's; who uses it is not."""

    @classmethod
    def setUpClass(cls):
        directory = pathlib.Path(tempfile.mkdtemp(prefix="kvfs-test-"))
        directory.chmod(0o755)
        cls.daemon = Daemon(directory, extra=["-o", "allow_other"])
        cls.addClassCleanup(cls.daemon.close)
        cls.daemon.start()

    def sh(self, script, user=65534):
        return subprocess.run(["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups",
                               "bash", "-c", "set -euo pipefail\n" + script],
                              cwd=self.daemon.states, text=True, capture_output=True, timeout=120)

    def test_a_user_has_snapshots_and_files_of_their_own(self):
        done = self.sh("""mkdir mine; echo hello > mine/note; echo more >> mine/note
            mkdir mine/.snap/v1; echo other > mine/note; cat mine/.snap/v1/note
            mv mine/note mine/renamed; stat -c '%a %u' mine/renamed; rmdir mine/.snap/v1""")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stdout, "hello\nmore\n644 65534\n")
        other = self.sh("cat mine/renamed", user=65533)
        self.assertIn("Permission denied", other.stderr)
        self.assertNotEqual(self.sh("rmdir mine", user=65533).returncode, 0)
        self.assertEqual(self.sh("rm -r mine").returncode, 0)


if __name__ == "__main__":
    unittest.main()
