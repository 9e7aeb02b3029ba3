"""kvfs: bench_model for the engine's rows; the question goes through a mount, to a daemon that was
started anew, so that nothing of the state is in its memory."""

import json
import subprocess
import time

from bench import first_token
from harness import BIN, Daemon


class Kvfs:
    def __init__(self, model, threads, text, question):
        self.question = question
        self.bench = [str(BIN / "bench_model"), str(model), "fast", str(threads)]
        self.daemon = Daemon(extra=["--threads", str(threads)])
        self.asked = 0
        self.daemon.start()
        self.state = self.daemon.make("saved", template="raw", temperature=0, max_tokens=1)
        self.daemon.run(self.state, "feed", text)
        self.tokens = (self.state / "tokens.npy").stat().st_size // 4 - 32  # a header of 128 bytes
        assert self.tokens == 2048, f"the state has {self.tokens} tokens"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.daemon.close()

    def first_token(self):
        """Milliseconds from the question's close to the first byte of its reply, after a restart."""
        self.daemon.stop()
        self.daemon.start()
        time.sleep(0.3)  # what a start still does in the background is not the question's
        restored = self.daemon.counter("restored_tokens")
        job = f"q{self.asked}"
        self.asked += 1
        seconds = first_token(self.state, self.question, job)
        self.daemon.wait_done(self.state, job)
        restored = self.daemon.counter("restored_tokens") - restored
        assert restored > 0, "nothing was restored: the state was in memory"
        return 1e3 * seconds

    def measure(self):
        done = subprocess.run(self.bench, check=True, capture_output=True, text=True)
        engine = json.loads(done.stdout)
        return {"prefill": engine["prefill of 2048, tok/s"],
                "decode_empty": engine["decode at 0, tok/s"],
                "decode": engine["decode at 2048, tok/s"],
                "branches": engine["8 forks at 2048, tok/s"],
                "free": engine["share of the cores that was free"],
                "first_token": [self.first_token() for _ in range(3)]}
