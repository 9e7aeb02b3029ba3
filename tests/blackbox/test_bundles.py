"""States as files: out by the command line and by the mount, and back in, without a mount too."""

import hashlib
import json
import pathlib
import shutil
import signal
import subprocess
import time
import unittest

import numpy as np

from harness import Daemon, DaemonTest, ENGLISH, fingerprint

CACHES = pathlib.Path(__file__).resolve().parents[1] / "codec/container/caches"


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Bundles(DaemonTest):
    def test_out_and_in_by_the_command_line(self):
        d, folder = self.daemon, self.daemon.directory
        state = self.state(template="raw", temperature=0, max_tokens=8)
        d.run(state, "feed", ENGLISH[:2500])
        for suffix in ("pt", "safetensors"):
            file = folder / f"b.{suffix}"
            said = json.loads(d.kvfs("export", state.name, str(file), "--json").stdout)
            self.assertEqual(said["bytes"], file.stat().st_size)
            self.assertEqual(sha256(file), sha256(d.mount / "bundles" / f"{state.name}.{suffix}"))
            facts = json.loads(d.kvfs("import", str(file), f"in-{suffix}", "--json").stdout)
            self.assertEqual(facts["path"], f"in-{suffix}")
            self.assertEqual(fingerprint(d.states / f"in-{suffix}"), fingerprint(state))
            for one in (state, d.states / f"in-{suffix}"):
                on = d.make(f"{one.name}/on", template="raw", temperature=0, max_tokens=8)
                d.run(on, "continue", "And so")
            self.assertEqual(fingerprint(state / "on"), fingerprint(d.states / f"in-{suffix}/on"))
            (state / "on").rmdir()
        d.kvfs("import", str(folder / "b.pt"))
        self.assertEqual(fingerprint(d.states / "b"), fingerprint(state))

    def test_what_is_refused_says_why(self):
        d = self.daemon
        for words, why in ((["import", str(CACHES / "evil.pt"), "x"], "opcode REDUCE calls posix.system"),
                           (["import", str(CACHES / "tuple_fp32.pt"), "x"], "30 layers of 3 heads"),
                           (["import", str(CACHES / "make.py"), "x"], "no suffix that is known"),
                           (["import", "missing.pt"], "No such file"),
                           (["export", "missing", "x.pt"], "there is no state missing"),
                           (["export", "missing", "x.doc"], "use .pt or .safetensors")):
            done = d.kvfs(*words, check=False, cwd=d.directory)
            self.assertEqual(done.returncode, 1)
            self.assertIn(why, done.stderr)
        self.assertFalse((d.states / "x").exists())
        self.assertFalse(list(d.directory.glob("x.*")))

    def test_zeros_with_true_tokens_never_answer_for_others(self):
        d = self.daemon
        text = "\n" + ENGLISH[2500:5000]
        state = self.state(template="raw", temperature=0, max_tokens=8)
        d.run(state, "feed", "Something else.", "a")
        first = len(np.load(state / "tokens.npy"))
        d.run(state, "feed", text, "b")
        tokens = np.load(state / "tokens.npy")[first:]  # none of them read at these positions yet
        zeros = np.zeros((1, 3, len(tokens), 64), np.float16)
        np.savez_compressed(d.directory / "zeros.npz", input_ids=tokens[None].astype(np.int64),
                            **{f"{half}_{i}": zeros for i in range(30) for half in ("key", "value")})
        shutil.copyfile(d.directory / "zeros.npz", d.mount / "bundles/zeros.npz")
        self.assertEqual((d.states / "zeros/text").read_text(), text)
        before = d.counter("prefix_hit_tokens")
        other = self.state("2", template="raw", temperature=0, max_tokens=8)
        d.run(other, "feed", text)
        self.assertEqual(np.load(other / "tokens.npy").tolist(), tokens.tolist())
        self.assertEqual(d.counter("prefix_hit_tokens"), before)


class Crash(unittest.TestCase):
    def setUp(self):
        self.daemon = Daemon()
        self.addCleanup(self.daemon.close)
        self.daemon.start()

    def test_a_copy_that_is_cut_short_by_a_crash_leaves_nothing(self):
        d = self.daemon
        state = d.make("s", template="raw", temperature=0, max_tokens=4)
        d.run(state, "feed", ENGLISH[:1500])
        d.kvfs("export", "s", str(d.directory / "s.pt"))
        whole = fingerprint(state)
        script = f"{{ head -c 500000; sleep 30; }} < {d.directory}/s.pt > {d.mount}/bundles/t.pt"
        with subprocess.Popen(["bash", "-c", script], stderr=subprocess.DEVNULL,
                              start_new_session=True) as writer:
            time.sleep(0.5)
            d.kill()
            subprocess.run(["fusermount3", "-u", "-z", str(d.mount)], stderr=subprocess.DEVNULL)
            writer.send_signal(signal.SIGKILL)
        d.start()
        self.assertEqual(sorted(p.name for p in (d.mount / "bundles").iterdir()),
                         ["s.pt", "s.safetensors"])
        self.assertEqual([p.name for p in d.store.glob("incoming*")], [])
        shutil.copyfile(d.directory / "s.pt", d.mount / "bundles/t.pt")
        self.assertEqual(fingerprint(d.states / "t"), whole)


class WithoutMount(unittest.TestCase):
    def test_the_socket_alone_suffices(self):
        d = Daemon(no_mount=True)
        self.addCleanup(d.close)
        d.start()
        d.kvfs("new", "a", "--param", "temperature=0", "--param", "max_tokens=6")
        d.kvfs("feed", "a", "-", input=ENGLISH[:600], stdin=None)
        d.kvfs("export", "a", "a.pt", cwd=d.directory)
        d.kvfs("import", "a.pt", "a/b", cwd=d.directory)
        self.assertEqual(json.loads(d.kvfs("show", "a", "--json").stdout)["state"],
                         json.loads(d.kvfs("show", "a/b", "--json").stdout)["state"])
        d.kvfs("snap", "a", "v1")
        d.kvfs("export", "a@v1", "b.pt", cwd=d.directory)
        self.assertEqual(sha256(d.directory / "a.pt"), sha256(d.directory / "b.pt"))
