"""What the daemon holds in memory, and models that are more than the machine's."""

import errno
import json
import pathlib
import subprocess
import time
import unittest

from giants import make_folder, make_gguf
from harness import Daemon, ENGLISH, MODEL

FOLDER = pathlib.Path(__file__).resolve().parent / "hf_folder/model"
REST = 300_000_000  # bytes: the program, its libraries, its buffers, the store's pages
TEXT = (ENGLISH * 4)[:9000]  # a little over 2,000 tokens


def memory_of(daemon):
    """Bytes by kind, from smaps_rollup."""
    lines = pathlib.Path(f"/proc/{daemon.process.pid}/smaps_rollup").read_text().splitlines()[1:]
    return {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}


class ResidentSet(unittest.TestCase):
    def weights_kv_and_little_else(self, weights_of, *extra):
        """Weights are counted once, as the mode keeps them; KV by whole pages of 256 tokens."""
        daemon = Daemon(extra=extra)
        self.addCleanup(daemon.close)
        daemon.start()
        info = json.loads((daemon.mount / "models" / MODEL.stem / "info.json").read_text())
        state = daemon.make("s", template="raw", max_tokens=8, temperature=0)
        weights, token = weights_of(info), info["kv_bytes_per_token"]
        for moment in ("loaded", "fed", "asked"):
            if moment == "fed":
                daemon.run(state, "feed", TEXT)
            if moment == "asked":
                for n in range(4):
                    daemon.run(state, "ask", f"And then, said {n}", f"q{n}")
            facts = state / "state.json"  # from the first commit on
            tokens = json.loads(facts.read_text())["n_tokens"] if facts.exists() else 0
            pages = -(-tokens // 256)
            kv = pages * 256 * token
            memory = memory_of(daemon)
            said = (f"{moment}: resident {memory['Rss'] / 1e6:.0f} MB ({memory['Anonymous'] / 1e6:.0f} "
                    f"anonymous), weights {weights / 1e6:.0f}, KV {kv / 1e6:.0f}, "
                    f"rest {(memory['Rss'] - weights - kv) / 1e6:.0f}")
            print(said)
            self.assertLessEqual(memory["Rss"], weights + kv + REST, said)

    def test_is_the_file_the_kv_and_little_else(self):
        self.weights_kv_and_little_else(lambda info: MODEL.stat().st_size)

    def test_is_fp32_weights_and_kv_in_the_reference_mode(self):
        self.weights_kv_and_little_else(lambda info: 4 * info["parameters"], "--compute", "reference")


class Giants(unittest.TestCase):
    def setUp(self):
        self.daemon = Daemon()
        self.addCleanup(self.daemon.close)
        self.daemon.mount.mkdir(parents=True)
        self.models = self.daemon.directory / "models"
        self.models.mkdir()

    def refused_at_the_start(self, path):
        self.daemon.model = path
        begin = time.monotonic()
        done = subprocess.run(self.daemon.arguments(), capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 4, done.stderr)
        self.assertRegex(done.stderr, r"kvfsd: model .*" + path.name +
                         r": its weights take \d+\.\d GiB of memory, this machine has \d+\.\d GiB; use a ")
        self.assertLess(time.monotonic() - begin, 30, "its weights were read")

    def test_a_gguf_of_terabytes_is_refused_before_it_is_read(self):
        path = self.models / "giant.gguf"
        self.assertGreater(make_gguf(MODEL, path), 1e12)
        self.refused_at_the_start(path)

    def test_a_folder_of_a_terabyte_is_refused_before_it_is_read(self):
        path = self.models / "giant-folder"
        self.assertGreater(make_folder(FOLDER, path), 1e12)
        self.refused_at_the_start(path)

    def test_a_running_daemon_refuses_it_and_goes_on(self):
        make_gguf(MODEL, self.models / "giant.gguf")
        make_folder(FOLDER, self.models / "giant-folder")
        self.daemon.extra = ["--models", str(self.models)]
        self.daemon.start()
        small = self.daemon.make("small", template="raw", max_tokens=4, temperature=0)
        for name in ("giant", "giant-folder"):
            with self.assertRaises(OSError) as caught:
                (small / "params/model").write_text(name)
            self.assertEqual(caught.exception.errno, errno.EFBIG)
            said = self.daemon.kvfs("set", "small", f"model={name}", check=False)
            self.assertEqual(said.returncode, 1)
            self.assertRegex(said.stderr, r"GiB of memory, this machine has .*; use a smaller")
        self.daemon.run(small, "ask", "One, two,")
        self.assertIn(f"{MODEL.stem} (loaded)", self.daemon.counters()["models"])
        self.assertLess(memory_of(self.daemon)["Rss"], MODEL.stat().st_size + REST)

    def test_more_than_the_budget_is_refused_too(self):
        self.daemon.extra = ["--memory", "64M", "--kv-budget", "16M"]
        done = subprocess.run(self.daemon.arguments(), capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 4, done.stderr)
        self.assertRegex(done.stderr, r"kvfsd: load model .*: it takes \d+ MiB of memory and 16 MiB for "
                                      r"KV, the budget is 64 MiB; raise --memory")


if __name__ == "__main__":
    unittest.main()
