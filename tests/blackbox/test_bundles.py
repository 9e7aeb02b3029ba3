"""States as files: out by the command line and by the mount, and back in, without a mount too."""

import errno
import gzip
import hashlib
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time
import unittest

import numpy as np

from harness import BIN, Daemon, DaemonTest, ENGLISH, fingerprint, wait_until

CACHES = pathlib.Path(__file__).resolve().parents[1] / "codec/container/caches"


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Bundles(DaemonTest):
    def same_and_goes_on_the_same(self, state, name):
        d = self.daemon
        self.assertEqual(fingerprint(d.states / name), fingerprint(state), name)
        for one in (state, d.states / name):
            on = d.make(f"{one.name}/on", template="raw", temperature=0, max_tokens=8)
            d.run(on, "continue", "And so")
        self.assertEqual(fingerprint(state / "on"), fingerprint(d.states / name / "on"), name)
        (state / "on").rmdir()
        (d.states / name / "on").rmdir()

    def test_out_and_in_by_the_command_line_in_every_form(self):
        d, folder = self.daemon, self.daemon.directory
        state = self.state(template="raw", temperature=0, max_tokens=8)
        d.run(state, "feed", ENGLISH[:2500])
        for suffix in ("pt", "safetensors", "pkl", "pkl.gz", "npz", "kvfs"):
            file = folder / f"b.{suffix}"
            said = json.loads(d.kvfs("export", state.name, str(file), "--json").stdout)
            self.assertEqual(said["bytes"], file.stat().st_size)
            if suffix not in ("pkl.gz", "kvfs"):  # which has parameters too
                self.assertEqual(sha256(file),
                                 sha256(d.mount / "bundles" / f"{state.name}.{suffix}"))
            name = "in-" + suffix.replace(".", "-")
            facts = json.loads(d.kvfs("import", str(file), name, "--json").stdout)
            self.assertEqual(facts["path"], name)
            self.same_and_goes_on_the_same(state, name)
        d.kvfs("import", str(folder / "b.pt"))
        self.assertEqual(fingerprint(d.states / "b"), fingerprint(state))
        self.assertEqual((d.states / "in-kvfs/params/max_tokens").read_text(), "8\n")
        again = d.directory / "again.kvfs"
        d.kvfs("export", "in-kvfs", str(again))
        self.assertEqual(sha256(again), sha256(folder / "b.kvfs"))
        with gzip.open(folder / "b.pkl.gz") as unzipped:
            self.assertEqual(unzipped.read(), (folder / "b.pkl").read_bytes())

    def test_pruned_states_come_back_word_for_word(self):
        d, folder = self.daemon, self.daemon.directory
        whole = self.state(template="raw", temperature=0, max_tokens=8)
        d.run(whole, "feed", ENGLISH[:2500])
        forms = ("pt", "safetensors", "pkl", "npz", "kvfs")
        for policy, fitting in (("pyramid window=32 bottom=160 top=48", forms),
                                ("knorm keep=0.25", forms),
                                ("random keep=0.3", forms),
                                ("adakv capacity=120 window=32", ("safetensors", "kvfs"))):
            state = whole / policy.split()[0]
            state.mkdir()
            d.kvfs("prune", f"{whole.name}/{state.name}", *policy.split())
            for form in forms:
                file = folder / f"p.{form}"
                done = d.kvfs("export", f"{whole.name}/{state.name}", str(file), check=False)
                if form not in fitting:
                    self.assertIn("take its .safetensors or .kvfs", done.stderr, policy)
                    with self.assertRaises(OSError) as raised:
                        (d.mount / f"bundles/{whole.name}/{state.name}.{form}").stat()
                    self.assertEqual(raised.exception.errno, errno.EOPNOTSUPP)
                    continue
                self.assertEqual(done.returncode, 0, done.stderr)
                name = f"{state.name}-{form}"
                d.kvfs("import", str(file), name)
                self.assertEqual(fingerprint(d.states / name), fingerprint(state), (policy, form))
                for one in (state, d.states / name):
                    on = str(one.relative_to(d.states) / "on")
                    d.run(d.make(on, template="raw", temperature=0, max_tokens=8),
                          "continue", "And so")
                self.assertEqual(fingerprint(state / "on"), fingerprint(d.states / name / "on"))
                (state / "on").rmdir()

    def test_an_archive_takes_files_and_snapshots_along(self):
        d, file = self.daemon, self.daemon.directory / "full.kvfs"
        state = self.state(template="raw", temperature=0, max_tokens=8)
        d.run(state, "feed", ENGLISH[:700], "a")
        (state / "note.txt").write_text("first")
        (state / ".snap/v1").mkdir()
        then = fingerprint(state)
        d.run(state, "feed", ENGLISH[700:1500], "b")
        (state / "note.txt").write_text("second")
        os.truncate(state / "note.txt", 50_000_000)
        os.symlink("note.txt", state / "link")
        (state / "params/seed").write_text("7\n")
        d.kvfs("export", state.name, str(file), "--files", "--snapshots")
        self.assertLess(file.stat().st_size, 45_000_000)  # a hole is none in it
        d.kvfs("import", str(file), "full")
        full = d.states / "full"
        self.assertEqual(fingerprint(full), fingerprint(state))
        self.assertEqual(fingerprint(full / ".snap/v1"), then)
        self.assertEqual((full / ".snap/v1/note.txt").read_text(), "first")
        self.assertEqual(sha256(full / "note.txt"), sha256(state / "note.txt"))
        self.assertEqual(os.readlink(full / "link"), "note.txt")
        self.assertEqual((full / "params/seed").read_text(), "7\n")
        over = d.kvfs("import", str(file), "full", check=False)
        self.assertIn("it holds files or snapshots", over.stderr)
        d.kvfs("export", state.name, str(file))  # without them it replaces what is there
        (full / "params/seed").write_text("9\n")
        d.kvfs("import", str(file), "full")
        self.assertEqual((full / "params/seed").read_text(), "7\n")
        self.assertEqual((full / "note.txt").stat().st_size, 50_000_000)
        pt = d.kvfs("export", state.name, "x.pt", "--files", check=False, cwd=d.directory)
        self.assertIn("it holds neither files nor snapshots", pt.stderr)

    def test_damaged_archives_are_refused(self):
        d, file = self.daemon, self.daemon.directory / "d.kvfs"
        state = self.state(template="raw", temperature=0, max_tokens=8)
        d.run(state, "feed", ENGLISH[:700])
        d.kvfs("export", state.name, str(file))
        good = file.read_bytes()
        for bad, why in ((good[:-1], "it is cut short"),
                         (good[:20], "it is cut short"),
                         (good + b"x", "1 bytes follow"),
                         (good[:100] + bytes([good[100] ^ 1]) + good[101:], "its table is damaged"),
                         (good[:-100] + bytes([good[-100] ^ 1]) + good[-99:], "others than were exported"),
                         (good[:8] + b"\x09" + good[9:], "format 9")):
            file.write_bytes(bad)
            done = d.kvfs("import", str(file), "d", check=False)
            self.assertEqual(done.returncode, 1)
            self.assertIn(why, done.stderr)
        self.assertFalse((d.states / "d").exists())

    def test_python_copies_every_form_in(self):
        d, bundles = self.daemon, self.daemon.mount / "bundles"
        state = self.state(template="raw", temperature=0, max_tokens=8)
        d.run(state, "feed", ENGLISH[:700])
        for form in ("pt", "safetensors", "pkl", "npz", "kvfs"):
            outside = d.directory / f"c.{form}"
            shutil.copy2(bundles / f"{state.name}.{form}", outside)  # data, then mode and times
            self.assertEqual(outside.stat().st_mtime_ns, (state / "text").stat().st_mtime_ns)
            shutil.copy2(outside, bundles / f"py-{form}.{form}")
            self.assertEqual(fingerprint(d.states / f"py-{form}"), fingerprint(state))
        listed = sorted(p.name for p in bundles.glob("py-npz*"))
        self.assertEqual(listed, ["py-npz.pt", "py-npz.safetensors"])
        arrays = np.load(bundles / f"{state.name}.npz")
        self.assertEqual(arrays["input_ids"][0].tolist(), np.load(state / "tokens.npy").tolist())
        self.assertEqual(arrays["key_29"].shape, (1, 3, len(arrays["input_ids"][0]), 64))

    def test_what_is_refused_says_why(self):
        d = self.daemon
        for words, why in ((["import", str(CACHES / "evil.pt"), "x"], "opcode REDUCE calls posix.system"),
                           (["import", str(CACHES / "tuple_fp32.pt"), "x"], "30 layers of 3 heads"),
                           (["import", str(CACHES / "make.py"), "x"], "no suffix that is known"),
                           (["import", "missing.pt"], "No such file"),
                           (["export", "missing", "x.pt"], "there is no state missing"),
                           (["export", "missing", "x.doc"], "use .pt, .safetensors, .pkl, .pkl.gz, .npz or .kvfs")):
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


    def test_uploads_that_end_early_leave_nothing(self):
        d = self.daemon
        state = d.make("s", template="raw", temperature=0, max_tokens=4)
        d.run(state, "feed", ENGLISH[:1500])
        d.kvfs("export", "s", str(d.directory / "s.pt"))
        body = (d.directory / "s.pt").read_bytes()

        def begin(part):
            client = socket.socket(socket.AF_UNIX)
            client.connect(str(d.socket))
            client.sendall(b"POST /v1/states/t/import HTTP/1.1\r\nHost: kvfsd\r\n"
                           b"Content-Length: %d\r\n\r\n" % len(body) + part)
            return client

        begin(body[:700_000]).close()  # broken off
        with begin(body[:700_000]) as client:  # SIGTERM meanwhile
            time.sleep(0.3)
            self.assertLess(d.stop(), 5)
            self.assertEqual(client.recv(1000), b"")
        d.start()
        with begin(body[:700_000]):  # kill -9
            time.sleep(0.3)
            d.kill()
        d.start()
        self.assertEqual([p.name for p in d.states.iterdir()], ["s"])
        self.assertEqual([p.name for p in d.store.glob("incoming*")], [])
        with begin(body) as client:
            self.assertIn(b" 201 ", client.recv(100))
        self.assertEqual(fingerprint(d.states / "t"), fingerprint(state))

    def test_an_import_that_the_daemon_ends_in_is_given_up(self):
        d = self.daemon
        count, rng = 6000, np.random.default_rng(1)  # 140 MB: seconds of work
        tensors = rng.standard_normal((1, 3, count, 64), np.float32).astype(np.float16)
        file = d.directory / "large.npz"
        np.savez(file, input_ids=np.arange(count)[None], **{
            f"{half}_{i}": np.roll(tensors, i, 2) for i in range(30) for half in ("key", "value")})

        for end in (d.stop, d.kill):
            wait_until(lambda: d.counter("bytes_stored") == 0, 30, "nothing is left")
            with subprocess.Popen([BIN / "kvfs", "--socket", d.socket, "import", file, "x"],
                                  stderr=subprocess.PIPE, text=True) as importing:
                wait_until(lambda: d.counter("bytes_stored") > 8_000_000, 60, "it is being stored")
                seconds = end()
                if seconds is not None:
                    self.assertLess(seconds, 5)
                importing.wait(10)
                self.assertEqual(importing.returncode, 1)
            check = subprocess.run([*d.arguments(), "--check"], capture_output=True, text=True)
            self.assertEqual(check.returncode, 0, check.stdout + check.stderr)
            d.start()
            self.assertEqual(list(d.states.iterdir()), [])
        d.kvfs("import", str(file), "x")
        self.assertEqual(len(np.load(d.states / "x/tokens.npy")), count)


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
