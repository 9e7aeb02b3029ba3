"""A daemon of one's own for black-box tests: started on a temporary store and mount, killed and
started again at will, always cleaned up. Nothing here knows the code: only flags, files, verbs."""

import contextlib
import hashlib
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("KVFS_BIN", ROOT / "build/release/bin"))
MODEL = pathlib.Path(
    os.environ.get("KVFS_MODEL", ROOT / "build/deps/models/SmolLM2-135M-Instruct.Q4_1.gguf"))
DEVICE = os.environ.get("KVFS_DEVICE", "cpu")
ENGLISH = (ROOT / "tests/data/english.txt").read_text()


def wait_until(condition, seconds=60, what="condition"):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.02)
    raise TimeoutError(f"{what}: not within {seconds} s")


class Daemon:
    def __init__(self, directory=None, extra=(), no_mount=False, model=MODEL):
        self.directory = pathlib.Path(directory or tempfile.mkdtemp(prefix="kvfs-test-"))
        self.store = self.directory / "store"
        self.mount = self.directory / "mount"
        self.socket = self.directory / "socket" / "kvfs.sock"
        self.log = self.directory / "kvfsd.log"
        self.extra = list(extra)
        self.no_mount = no_mount
        self.model = model
        self.process = None

    @property
    def states(self):
        return self.mount / "states"

    def arguments(self):
        mount = ["--no-mount"] if self.no_mount else ["--mount", str(self.mount)]
        return [str(BIN / "kvfsd"), "--foreground", "--store", str(self.store),
                "--socket", str(self.socket), "--model", str(self.model), "--device", DEVICE,
                *mount, *self.extra]

    def start(self, seconds=60):
        with contextlib.suppress(OSError):  # a mount left by kill -9 answers "not connected"
            self.mount.mkdir(parents=True, exist_ok=True)
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(self.arguments(), stdout=log, stderr=log,
                                            stdin=subprocess.DEVNULL)

        def answers():
            if self.process.poll() is not None:
                raise RuntimeError(f"kvfsd ended with {self.process.returncode}:\n"
                                   + self.log.read_text()[-4000:])
            return self.kvfs("status", check=False).returncode == 0

        wait_until(answers, seconds, "kvfsd answers")
        return self

    def kill(self):
        """kill -9, as a crash would."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self):
        """SIGTERM; returns the seconds it took."""
        begin = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=20)
        return time.monotonic() - begin

    def close(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        subprocess.run(["fusermount3", "-u", "-z", str(self.mount)], stderr=subprocess.DEVNULL)
        shutil.rmtree(self.directory, ignore_errors=True)

    def kvfs(self, *words, check=True, **options):
        options.setdefault("stdin", subprocess.DEVNULL)
        return subprocess.run([str(BIN / "kvfs"), "--socket", str(self.socket), *words],
                              check=check, capture_output=True, text=True, **options)

    # --- the mount ------------------------------------------------------------------------------
    def make(self, name, **params):
        state = self.states / name
        state.mkdir()
        for key, value in params.items():
            (state / "params" / key).write_text(f"{value}\n")
        return state

    def status_of(self, state, job):
        for line in (state / "status").read_text().splitlines():
            if line.split()[0] == job:
                return line
        return ""

    def wait_done(self, state, job, seconds=120):
        def finished():
            line = self.status_of(state, job)
            words = line.split()
            return line if len(words) > 1 and words[1].rstrip(":") in ("done", "error") else None
        return wait_until(finished, seconds, f"{state.name}/{job} done")

    def run(self, state, area, text, job="j"):
        """Submits text and waits; returns the status line, which must say done."""
        (state / area / job).write_text(text)
        line = self.wait_done(state, job)
        assert line.split()[1] == "done", line
        return line

    def reply(self, state, job="j"):
        return (state / "replies" / job).read_text()

    def step(self, state, count):
        before = (state / "status").read_text().splitlines()
        (state / "ctl").write_text(f"step {count}\n")
        newest = (state / "status").read_text().splitlines()[0]
        assert newest not in before, newest
        job = newest.split()[0]
        line = self.wait_done(state, job)
        assert line.split()[1] == "done", line
        return job

    def counters(self):
        return dict(line.split(" ", 1) for line in (self.mount / "status").read_text().splitlines()
                    if " " in line)

    def counter(self, name):
        return int(self.counters()[name])


def fingerprint(state):
    """Hashes of everything that a state knows: every file of kv/, text, tokens and state.json."""
    names = ["text", "tokens.npy", "state.json"] + sorted(
        f"kv/{p.name}" for p in (state / "kv").iterdir())
    return {name: hashlib.sha256((state / name).read_bytes()).hexdigest() for name in names}


class DaemonTest(unittest.TestCase):
    """One daemon for the class, a fresh state name for each test."""

    EXTRA = ()

    @classmethod
    def setUpClass(cls):
        cls.daemon = Daemon(extra=cls.EXTRA)
        cls.addClassCleanup(cls.daemon.close)
        cls.daemon.start()

    def state(self, suffix="", **params):
        return self.daemon.make(self._testMethodName.removeprefix("test_")[:200] + suffix, **params)
