"""Bad input is refused early, in words, with the way out, and changes nothing."""

import errno
import os
import pathlib
import shutil
import struct
import subprocess
import tempfile
import unittest

from harness import BIN, Daemon, DaemonTest, ENGLISH, MODEL, fingerprint, wait_until


class RefusedPrompts(DaemonTest):
    def setUp(self):
        self.kept = self.state(template="raw", max_tokens=4, temperature=0)
        self.daemon.run(self.kept, "feed", "What is here must stay.")
        self.before = fingerprint(self.kept)
        self.addCleanup(lambda: self.assertEqual(self.before, fingerprint(self.kept)))

    def refused(self, want, write, job="bad"):
        """write(path) must fail with errno want, and status must say why and the way out."""
        with self.assertRaises(OSError) as caught:
            write(self.kept / "continue" / job)
        self.assertEqual(errno.errorcode[caught.exception.errno], errno.errorcode[want])
        line = wait_until(lambda: self.daemon.status_of(self.kept, job), 10, "a line in status")
        what = line.split(" ", 2)
        self.assertEqual(what[1].rstrip(":"), "error", line)
        self.assertRegex(line, r": .+; .+", "what: why; what to do")
        return line

    def test_an_empty_prompt(self):
        self.refused(errno.EINVAL, lambda p: p.write_text("\n"))

    def test_not_utf_8(self):
        self.assertIn("UTF-8", self.refused(errno.EINVAL, lambda p: p.write_bytes(b"ab\xff\xfe cd")))

    def test_longer_than_the_context(self):
        self.assertRegex(self.refused(
            errno.EFBIG, lambda p: p.write_text(ENGLISH * 12)), r"and the state leaves room for 8,1\d\d")

    def test_a_hundred_megabytes(self):
        def write(path):
            with open(path, "wb", buffering=0) as f:
                for _ in range(100):
                    f.write(b"word " * 209715)
        self.refused(errno.EFBIG, write)


class RefusedParameters(DaemonTest):
    def test_an_unknown_parameter(self):
        state = self.state()
        with self.assertRaises(OSError):
            (state / "params" / "temprature").write_text("1\n")
        bad = self.daemon.kvfs("set", state.name, "temprature=1", check=False)
        self.assertEqual(bad.returncode, 1)
        self.assertRegex(bad.stderr, r"^kvfs: .+: .+; .+")

    def test_a_value_out_of_range_leaves_the_old_one(self):
        state = self.state(temperature=0.5)
        for name, value in [("temperature", "-1"), ("temperature", "hot"), ("top_p", "1.5"),
                            ("max_tokens", "0"), ("min_p", "nan"), ("template", "poem"),
                            ("model", "no-such-model")]:
            with self.subTest(name=name, value=value):
                before = (state / "params" / name).read_text()
                with self.assertRaises(OSError) as caught:
                    (state / "params" / name).write_text(value + "\n")
                self.assertIn(caught.exception.errno, (errno.EINVAL, errno.ENOENT))
                self.assertEqual((state / "params" / name).read_text(), before)

    def test_an_unknown_command_to_ctl(self):
        state = self.state()
        for line in ("dance\n", "step\n", "step -3\n", "cancel nobody\n", "step 1\n"):
            with self.assertRaises(OSError, msg=line):
                (state / "ctl").write_text(line)
        self.assertEqual((state / "ctl").read_text(), "")


class RefusedStarts(unittest.TestCase):
    def setUp(self):
        self.daemon = Daemon()
        self.addCleanup(self.daemon.close)
        self.daemon.mount.mkdir(parents=True)

    def refused(self, code, *pattern, arguments=None):
        done = subprocess.run(arguments or self.daemon.arguments(), capture_output=True, text=True,
                              timeout=60)
        self.assertEqual(done.returncode, code, done.stderr)
        said = [l for l in done.stderr.splitlines() if l.startswith("kvfsd: ")]
        self.assertTrue(said, done.stderr)
        self.assertRegex(said[-1], r"^kvfsd: .+: .+; .+")
        for part in pattern:
            self.assertIn(part, said[-1])

    def with_model(self, path):
        arguments = self.daemon.arguments()
        arguments[arguments.index("--model") + 1] = str(path)
        return arguments

    def test_a_model_file_that_is_missing(self):
        self.refused(4, "nowhere.gguf", arguments=self.with_model("/tmp/nowhere.gguf"))

    def test_a_model_file_that_is_truncated(self):
        cut = self.daemon.directory / "cut.gguf"
        with open(MODEL, "rb") as f:
            cut.write_bytes(f.read(40 << 20))
        self.refused(4, "cut.gguf", arguments=self.with_model(cut))

    def test_a_model_of_an_unknown_family(self):
        other = self.daemon.directory / "other.gguf"
        data = bytearray(MODEL.read_bytes())
        at = data.index(b"general.architecture") + len("general.architecture") + 4
        size, = struct.unpack_from("<Q", data, at)
        self.assertEqual(data[at + 8:at + 8 + size], b"llama")
        data[at + 8:at + 8 + size] = b"wooly"
        other.write_bytes(data)
        self.refused(4, "wooly", "llama", arguments=self.with_model(other))

    def test_a_store_in_use_by_another_daemon(self):
        self.daemon.start()
        arguments = self.daemon.arguments()
        other = self.daemon.directory / "mount2"
        other.mkdir()
        arguments[arguments.index("--mount") + 1] = str(other)
        arguments[arguments.index("--socket") + 1] = str(self.daemon.directory / "other.sock")
        self.refused(3, "another daemon uses it", arguments=arguments)

    def test_a_mount_point_that_is_busy_or_not_empty(self):
        (self.daemon.mount / "file").write_text("in the way")
        self.refused(5, "not empty")
        (self.daemon.mount / "file").unlink()
        self.daemon.start()
        arguments = self.daemon.arguments()
        arguments[arguments.index("--store") + 1] = str(self.daemon.directory / "store2")
        arguments[arguments.index("--socket") + 1] = str(self.daemon.directory / "other.sock")
        self.refused(5, str(self.daemon.mount), arguments=arguments)

    def test_unknown_flags_and_values_are_usage_errors(self):
        for extra in (["--frobnicate"], ["--device", "abacus"], ["--compute", "slow"]):
            done = subprocess.run([*self.daemon.arguments(), *extra], capture_output=True, text=True)
            self.assertEqual(done.returncode, 2, done.stderr)

    def test_without_dev_fuse_the_way_out_is_no_mount(self):
        # A private mount namespace in which /dev/fuse is an ordinary empty file.
        empty = self.daemon.directory / "empty"
        empty.write_text("")
        hide = ["unshare", "-m", "sh", "-c", f'mount --bind {empty} /dev/fuse && exec "$@"', "sh"]
        self.refused(5, "--no-mount", arguments=[*hide, *self.daemon.arguments()])

    def test_no_mount_serves_the_socket_alone(self):
        alone = Daemon(no_mount=True)
        self.addCleanup(alone.close)
        alone.start()
        alone.kvfs("new", "s", "--param", "max_tokens=4")
        self.assertTrue(alone.kvfs("ask", "s", "Hello").stdout)
        self.assertFalse(any(alone.mount.iterdir()))

    def test_a_damaged_store_is_found_by_check(self):
        d = self.daemon.start()
        d.run(d.make("s", template="raw"), "feed", ENGLISH[:1500])
        d.stop()
        check = [BIN / "kvfsd", "--check", "--store", d.store]
        self.assertEqual(subprocess.run(check, capture_output=True).returncode, 0)
        data = max(d.store.rglob("data.mdb"), key=lambda p: p.stat().st_size)
        raw = bytearray(data.read_bytes())
        middle = len(raw) * 2 // 3 // 4096 * 4096 + 2000  # inside some chunk's overflow pages
        raw[middle:middle + 64] = bytes(b ^ 0xFF for b in raw[middle:middle + 64])
        data.write_bytes(raw)
        done = subprocess.run(check, capture_output=True, text=True)
        self.assertEqual(done.returncode, 3, done.stdout + done.stderr)


if __name__ == "__main__":
    unittest.main()
