"""A copy is a state: by cp, rsync and tar, out and back in, as root and as somebody else."""

import os
import pathlib
import signal
import subprocess
import tempfile
import time
import unittest

from harness import Daemon, ENGLISH, fingerprint, wait_until


class Copies(unittest.TestCase):
    """The daemon is root's; copies are made by root and by somebody else."""

    @classmethod
    def setUpClass(cls):
        directory = pathlib.Path(tempfile.mkdtemp(prefix="kvfs-test-"))
        directory.chmod(0o755)
        cls.daemon = Daemon(directory, extra=["-o", "allow_other"])
        cls.addClassCleanup(cls.daemon.close)
        cls.daemon.start()

    def sh(self, script, user):
        return subprocess.run(["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups",
                               "bash", "-c", "set -euo pipefail\n" + script],
                              cwd=self.daemon.states, text=True, capture_output=True, timeout=300)

    def must(self, script, user):
        done = self.sh(script, user)
        self.assertEqual(done.returncode, 0, script + "\n" + done.stdout + done.stderr)
        return done.stdout

    def check(self, user):
        home, me = pathlib.Path(tempfile.mkdtemp(prefix="kvfs-out-")), f"of-{user}"
        os.chown(home, user, user)
        self.addCleanup(subprocess.run, ["rm", "-rf", str(home)])
        paper = home / "paper"
        paper.write_text(ENGLISH[:1200])
        self.must(f"""mkdir {me}; cd {me}; echo 0 > params/temperature; echo 6 > params/max_tokens
            cp {paper} feed/p; while ! grep -q '^p done' status; do sleep 0.1; done
            echo 'What is it about?' > ask/q; cat replies/q > /dev/null""", user)
        state, d = self.daemon.states / me, self.daemon
        self.daemon.wait_done(state, "q")
        then = fingerprint(state)

        def same(name):
            self.assertEqual(fingerprint(d.states / name), then, name)
            self.assertNotIn("incomplete", (d.states / name / "status").read_text())

        self.must(f"cp -r {me} {me}-cp; cp -a {me} {me}-cpa", user)
        same(f"{me}-cp"), same(f"{me}-cpa")
        self.must(f"cp -a {me} {home}/a; cp -r {home}/a {me}-back", user)
        same(f"{me}-back")
        self.must(f"rsync -a {me}/ {home}/r/; rsync -a {home}/r/ {me}-rsync/", user)
        same(f"{me}-rsync")
        moved = self.must(f"rsync -ai {home}/r/ {me}-rsync/", user)
        self.assertFalse([line for line in moved.splitlines() if line[1:2] == "f"], moved)
        self.must(f"""mkdir {me}-tar
            tar cf - {me} | tar xf - -C {me}-tar --strip-components=1""", user)
        same(f"{me}-tar")
        # Over a state that is another, by cp and by rsync.
        self.must(f"""mkdir {me}-other; echo hello > {me}-other/feed/x
            while ! grep -q '^x done' {me}-other/status; do sleep 0.1; done
            cp -r {me}-other {me}-other2
            cp -r {home}/a/. {me}-other/; rsync -a {home}/r/ {me}-other2/""", user)
        same(f"{me}-other"), same(f"{me}-other2")
        # It goes on as the original does.
        for name in (me, f"{me}-rsync", f"{me}-back"):
            self.must(f"echo 'Go on.' > {name}/continue/c", user)
            d.wait_done(d.states / name, "c")
        then = fingerprint(state)
        same(f"{me}-rsync"), same(f"{me}-back")

    def test_round_trips_as_root(self):
        self.check(0)

    def test_round_trips_as_somebody_else(self):
        self.check(65534)

    def test_a_copy_that_was_interrupted_goes_on_where_it_was(self):
        d = self.daemon
        source = d.make("long", template="raw", max_tokens=4)
        d.run(source, "feed", ENGLISH[:3000])
        out = d.directory / "out"
        subprocess.run(["cp", "-a", source, out], check=True)
        rsync = subprocess.Popen(["rsync", "-a", "--partial", "--bwlimit=2000", f"{out}/",
                                  f"{d.states}/resumed/"], stderr=subprocess.DEVNULL)
        wait_until(lambda: len(list(d.states.glob("resumed/kv/layer-*"))) >= 3, 60, "some layers")
        rsync.send_signal(signal.SIGKILL)
        rsync.wait()
        self.assertIn("incomplete: waiting for", (d.states / "resumed/status").read_text())
        d.kill()
        d.start()
        self.assertIn("incomplete: waiting for", (d.states / "resumed/status").read_text())
        with self.assertRaises(OSError):
            (d.states / "resumed/ask/q").write_text("Now?")
        subprocess.run(["rsync", "-a", f"{out}/", f"{d.states}/resumed/"], check=True)
        self.assertEqual(fingerprint(d.states / "resumed"), fingerprint(source))

    def test_true_tokens_with_false_tensors_never_answer_for_another(self):
        d = self.daemon
        source = d.make("true", template="raw", max_tokens=4, temperature=0)
        d.run(source, "feed", ENGLISH[:1200])
        out = d.directory / "false"
        subprocess.run(["cp", "-r", source, out], check=True)
        json = (out / "state.json").read_text()
        (out / "state.json").write_text(
            "\n".join(line for line in json.splitlines() if '"root"' not in line)
            .replace("},\n}", "}\n}"))
        layer = out / "kv/layer-003.safetensors"
        bytes_ = bytearray(layer.read_bytes())
        bytes_[-200000:-100000] = bytes(100000)
        layer.write_bytes(bytes_)
        other = Daemon()  # one that has never read the text
        self.addCleanup(other.close)
        other.start()
        subprocess.run(["cp", "-r", out, other.states / "false"], check=True)
        self.assertIn('"edited"', (other.states / "false/state.json").read_text())
        again = other.make("again", template="raw")
        other.run(again, "feed", ENGLISH[:1200])
        self.assertEqual(other.counter("prefix_hit_tokens"), 0)
        self.assertEqual(fingerprint(again), fingerprint(source))

    def test_a_copy_within_the_mount_takes_milliseconds(self):
        d = self.daemon
        source = d.make("quick", template="raw", max_tokens=4)
        d.run(source, "feed", ENGLISH[:3000])
        stored = d.counter("bytes_stored")
        begin = time.monotonic()
        subprocess.run(["cp", "-r", source, d.states / "quick-copy"], check=True)
        seconds = time.monotonic() - begin
        self.assertEqual(fingerprint(d.states / "quick-copy"), fingerprint(source))
        self.assertEqual(d.counter("bytes_stored"), stored)
        self.assertLess(seconds, 10)  # not a measurement: that no tensor is read shows above
        print(f"cp -r within the mount: {seconds * 1000:.0f} ms")


if __name__ == "__main__":
    unittest.main()
