"""llama.cpp: its own benchmarks, and its server's saved slots for the question to a saved state."""

import json
import os
import pathlib
import socket
import subprocess
import sys
import tarfile
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[3]
FOLDER = ROOT / "build/peers/llama.cpp"
SDIST = "llama_cpp_python-0.3.36"
TARGETS = ["llama-bench", "llama-batched-bench", "llama-server"]


def run(*command, **options):
    return subprocess.run([str(word) for word in command], check=True, text=True, **options)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class LlamaCpp:
    @staticmethod
    def build():
        """From the sdist of llama-cpp-python, natively; minutes."""
        FOLDER.mkdir(parents=True, exist_ok=True)
        source = FOLDER / SDIST / "vendor/llama.cpp"
        if not source.exists():
            sdist = os.environ.get("KVFS_LLAMA_SDIST")
            if not sdist:
                run(sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", ":all:",
                    "--dest", FOLDER, SDIST.replace("_", "-").replace("python-", "python=="))
                sdist = FOLDER / f"{SDIST}.tar.gz"
            with tarfile.open(sdist) as archive:
                archive.extractall(FOLDER, filter="data")
        run("cmake", "-S", source, "-B", FOLDER / "build", "-G", "Ninja",
            "-DCMAKE_BUILD_TYPE=Release", "-DLLAMA_CURL=OFF", "-DLLAMA_BUILD_TESTS=OFF",
            "-DLLAMA_BUILD_EXAMPLES=OFF")
        run("cmake", "--build", FOLDER / "build", "--parallel", os.cpu_count(), "--target", *TARGETS)

    def __init__(self, model, threads, folder):
        self.bin = FOLDER / "build/bin"
        if not (self.bin / "llama-bench").exists():
            sys.exit("peers: llama.cpp is not built: run peers.py --prepare")
        self.common = ["-m", str(model), "-t", str(threads)]
        self.url = f"http://127.0.0.1:{free_port()}"
        self.log = open(folder / "llama-server.log", "w")
        self.server = subprocess.Popen(
            [self.bin / "llama-server", *self.common, "--port", self.url.rsplit(":", 1)[1],
             "--slot-save-path", folder, "-np", "1", "-c", "4096"],
            stdout=self.log, stderr=self.log)

    def __enter__(self):
        for _ in range(300):
            try:
                if self.call("/health")["status"] == "ok":
                    return self
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.1)
        raise TimeoutError("llama-server does not answer: " + self.log.name)

    def __exit__(self, *_):
        self.server.terminate()
        self.server.wait(20)

    def call(self, path, body=None):
        request = urllib.request.Request(
            self.url + path, None if body is None else json.dumps(body).encode(),
            {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=300) as reply:
            return json.load(reply)

    def version(self):
        return SDIST.replace("_", "-")

    def tokenize(self, text):
        return self.call("/tokenize", {"content": text})["tokens"]

    def cut(self, text, count):
        """The beginning of a text that has so many tokens, and their ids."""
        ids = self.tokenize(text)[:count]
        text = self.call("/detokenize", {"tokens": ids})["content"]
        assert len(ids) == count and self.tokenize(text) == ids
        return text, ids

    def complete(self, ids):
        """Reads ids as a prompt up to the first token; how many had to be read."""
        reply = self.call("/completion", {"prompt": ids, "n_predict": 1, "cache_prompt": True,
                                          "temperature": 0})
        return reply["timings"]["prompt_n"]

    def save(self, ids, question):
        self.ids, self.question = ids, question
        self.complete(ids)
        self.call("/slots/0?action=save", {"filename": "state"})

    def first_token(self):
        """Milliseconds: restore the slot, read the question, give a token."""
        self.complete(self.question)  # something else is in the slot
        begin = time.perf_counter()
        self.call("/slots/0?action=restore", {"filename": "state"})
        read = self.complete(self.ids + self.question)
        seconds = time.perf_counter() - begin
        assert read <= len(self.question) + 1, f"{read} tokens read, the slot was of no use"
        return 1e3 * seconds

    def bench(self, *options):
        """Tokens a second of each of llama-bench's tests."""
        done = run(self.bin / "llama-bench", *self.common, "-r", "1", "-o", "json", *options,
                   capture_output=True)
        return [test["avg_ts"] for test in json.loads(done.stdout)]

    def branches(self, count=8, tokens=16):
        done = run(self.bin / "llama-batched-bench", *self.common, "-c", "4096", "-npp", "2048", "-ntg",
                   tokens, "-npl", count, "-pps", "-kvu", "--output-format", "jsonl",
                   stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
        return json.loads(lines[-1])["speed_tg"]

    def measure(self):
        prefill, empty = self.bench("-p", "2048", "-n", "64")
        decode, = self.bench("-p", "0", "-n", "64", "-d", "2048")
        return {"prefill": prefill, "decode_empty": empty, "decode": decode,
                "first_token": [self.first_token() for _ in range(3)],
                "branches": self.branches()}
