"""kvfs compare: full and pruned answers side by side, in a table, as JSON, as a picture, in a chat,
over HTTP; what is refused; and that nothing is left of it, whoever is killed."""

import http.client
import json
import math
import re
import signal
import socket
import subprocess
import unittest
import xml.dom.minidom

import numpy as np

from harness import BIN, Daemon, ENGLISH, fingerprint, wait_until

PYRAMID = "pyramid window=16 bottom=160 top=40 refresh=4 start=64"


class OverSocket(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("kvfsd")
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)


class Compare(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.daemon = Daemon()
        cls.addClassCleanup(cls.daemon.close)
        cls.daemon.start()
        cls.state = cls.daemon.make("s", template="raw", temperature=0, max_tokens=8)
        cls.daemon.run(cls.state, "feed", ENGLISH[:1600])
        cls.daemon.run(cls.state, "ask", " Then", "warm")
        cls.before = fingerprint(cls.state), cls.listing()

    @classmethod
    def listing(cls):
        d = cls.daemon
        return (sorted(p.name for p in d.states.iterdir()), (cls.state / "status").read_text(),
                sorted(p.name for p in (cls.state / "replies").iterdir()),
                d.counters()["bytes_logical"])

    def compare(self, *words, **options):
        return self.daemon.kvfs("compare", "s", *words, **options)

    def lines(self, *words, **options):
        out = self.compare(*words, "--json", **options).stdout
        return [json.loads(line) for line in out.splitlines()]

    def post(self, target, body):
        connection = OverSocket(self.daemon.socket)
        self.addCleanup(connection.close)
        connection.request("POST", target, json.dumps(body))
        return connection.getresponse()

    def held(self):
        return self.daemon.counter("kv_bytes_on_device")

    def expect_unchanged(self):
        self.assertEqual((fingerprint(self.state), self.listing()), self.before)

    def test_a_table_shows_every_method(self):
        said = self.compare("--prompt", " Then", "--max-tokens", "6", "--methods",
                            "tova keep=0.5,snapkv capacity=80 window=16", "--method", PYRAMID)
        self.assertRegex(said.stdout, r"^s: \d+ tokens, and \d+ of the prompt; on SmolLM2.*; pruned "
                                      r"before the prompt is read\n\n-- full\n   holds \d+\n")
        self.assertRegex(said.stdout, r"budgets 160 … 40, window 16, refresh 4, start 64; holds ")
        table = said.stdout.rsplit("\n\n", 1)[1].splitlines()
        self.assertEqual([line.split()[0] for line in table],
                         ["method", "full", "tova", "snapkv", "pyramid"])
        for line in table[1:]:
            self.assertRegex(line, r"^\w+ +[\d.]+ % +[\d.]+ .?B +([\d.]+ s +){4}[\d.]+ +[\d.e-]+ +"
                                   r"[\d.]+ +(-|token \d+)$")
        self.assertEqual(said.stderr, "")
        self.expect_unchanged()

    def test_json_has_the_numbers_by_token_and_layer(self):
        lines = self.lines("--prompt", " Then", "--methods", "full,knorm,keep_last n=99999", "--method",
                           PYRAMID)
        self.assertEqual([next(iter(line)) for line in lines],
                         ["comparison", "turn"] + ["result"] * 4 + ["turn_over", "done"])
        turn = lines[1]["turn"]
        full, knorm, all_of_it, pyramid = (line["result"] for line in lines[2:6])
        self.assertEqual(turn["methods"][:2], ["full", "knorm keep=0.5"])
        self.assertEqual(turn["state_tokens"], len(np.load(self.state / "tokens.npy")))
        self.assertEqual(self.daemon.reply(self.state, "warm"), full["text"])
        for result in (full, all_of_it):
            self.assertEqual(result["kl"], [0] * full["tokens"])
            self.assertEqual(result["perplexity"], full["perplexity"])
            self.assertEqual(result["text"], full["text"])
            self.assertNotIn("differs", result)
        for result in (knorm, pyramid):
            self.assertEqual(len(result["kl"]), full["tokens"])
            self.assertTrue(all(value >= 0 for value in result["kl"]))
            self.assertAlmostEqual(result["mean_kl"], math.fsum(result["kl"]) / full["tokens"], 5)
            self.assertGreater(result["mean_kl"], 0)
            self.assertGreater(result["perplexity"], 1)
            self.assertEqual(len(result["lengths"]), 30)
            self.assertAlmostEqual(result["retention"], result["kv_bytes"] / full["kv_bytes"])
        self.assertEqual((pyramid["budgets"][0], pyramid["budgets"][-1], pyramid["window"],
                          pyramid["refresh"], pyramid["start"]), (160, 40, 16, 4, 64))
        self.assertEqual(pyramid["refreshes"], 1)
        self.assertEqual(full["kv_bytes"], sum(full["lengths"]) * 3 * 2 * 64 * 2)

    def test_the_picture_is_svg_or_png(self):
        folder = self.daemon.directory
        self.compare("--prompt", " Then", "--max-tokens", "3", "--methods", "full,knorm", "--plot",
                     "p.svg", cwd=folder)
        svg = xml.dom.minidom.parse(str(folder / "p.svg"))
        words = [node.firstChild.data for node in svg.getElementsByTagName("text")]
        self.assertIn("knorm keep=0.5", words)
        self.assertIn("KL, nats", words)
        self.compare("--prompt", " Then", "--max-tokens", "3", "--methods", "full,knorm", "--plot",
                     "p.png", cwd=folder)
        self.assertEqual((folder / "p.png").read_bytes()[:8], b"\x89PNG\r\n\x1a\n")
        self.assertEqual(sorted(p.name for p in folder.glob("p.*")), ["p.png", "p.svg"])

    def test_a_chat_of_lines_keeps_each_history(self):
        lines = self.lines("--chat", "--methods", "knorm,keep_last n=99999", "--max-tokens", "5",
                           input=" Then\n\n And then\n", stdin=None)
        kinds = [next(iter(line)) for line in lines]
        self.assertEqual(kinds, ["comparison"] + (["turn"] + ["result"] * 3 + ["turn_over"]) * 2
                         + ["done"])
        first, second = (line["turn"] for line in lines if "turn" in line)
        results = [line["result"] for line in lines if "result" in line]
        self.assertEqual(second["state_tokens"], first["state_tokens"] + first["prompt_tokens"]
                         + results[0]["tokens"])
        self.assertEqual(results[5]["kl"], [0] * results[3]["tokens"])
        (self.state / "fork").mkdir()
        for turn, prompt in enumerate((" Then", " And then")):
            said = self.daemon.kvfs("continue", "s/fork", prompt, "--temperature", "0",
                                    "--max-tokens", "5").stdout
            self.assertEqual(said, results[3 * turn]["text"])
        (self.state / "fork").rmdir()
        shown = self.compare("--chat", "--methods", "knorm", "--max-tokens", "2",
                             input=" Then\n And\n", stdin=None).stdout
        self.assertEqual(shown.count("\nmethod "), 2)
        self.expect_unchanged()

    def test_what_is_wrong_is_said_in_a_sentence(self):
        for words, why in (
                (["--methods", "full,best"], "no such method"),
                (["--method", "snapkv capacity=10 window=20"], "window=20"),
                (["--method", "knorm keep=nan"], "keep=nan"),
                (["--methods", "full,,knorm"], "a method without words"),
                (["--temperature", "-3"], "temperature"),
                (["--model", "nobody"], "nobody"),
                (["--when", "later"], "not auto, before or after"),
                (["--prune", "knorm keep=5"], "name the methods"),
                (["--plot", "x.pdf"], "neither an .svg nor a .png")):
            done = self.compare("--prompt", "x", *words, check=False)
            self.assertEqual((done.returncode, done.stdout), (1, ""), words)
            self.assertRegex(done.stderr, r"^kvfs: .+: .+\n$")
            self.assertIn(why, done.stderr)
        self.assertIn("give --prompt TEXT, or --chat", self.compare(check=False).stderr)
        self.assertIn("it is empty", self.compare("--prompt", "\n", check=False).stderr)
        missing = self.daemon.kvfs("compare", "nobody", "--prompt", "x", check=False)
        self.assertIn("there is no state nobody", missing.stderr)
        self.expect_unchanged()

    def test_a_state_without_its_text_refuses_those_methods_alone(self):
        d = self.daemon
        rng = np.random.default_rng(1)
        halves = {f"{half}_{i}": rng.standard_normal((1, 3, 40, 64)).astype(np.float16)
                  for i in range(30) for half in ("key", "value")}
        np.savez_compressed(d.directory / "textless.npz", **halves)
        d.kvfs("import", str(d.directory / "textless.npz"), "textless")
        out = d.kvfs("compare", "textless", "--prompt", "x", "--methods", "h2o,knorm,tova",
                     "--max-tokens", "3").stdout
        (d.states / "textless").rmdir()
        self.assertEqual(len(re.findall("refused: prune by .*not all of them are known; take a method "
                                        "that needs no text: keep_last, knorm", out)), 2)
        self.assertRegex(out, r"\nh2o +refused\nknorm +[\d.]+ %.*\ntova +refused\n$")

    def test_over_http_results_come_method_by_method(self):
        answer = self.post("/v1/states/s/compare",
                           {"chat": True, "methods": ["keep_last n=30"], "progress": True,
                            "params": {"max_tokens": 4}})
        self.assertEqual((answer.status, answer.getheader("content-type")),
                         (200, "application/x-ndjson"))
        name = json.loads(answer.readline())["comparison"]
        turn = self.post(f"/v1/states/s/compare/{name}", {"prompt": " Then", "end": True})
        self.assertEqual(turn.status, 202)
        lines = [json.loads(line) for line in answer]
        told = [next(iter(line)) for line in lines if "progress" not in line]
        self.assertEqual(told, ["turn", "result", "result", "turn_over", "done"])
        gone = self.post(f"/v1/states/s/compare/{name}", {"prompt": " Then"})
        self.assertEqual(gone.status, 404)
        self.assertIn("none of that name is under way", gone.read().decode())
        refused = self.post("/v1/states/s/compare", {"prompt": "x", "methods": "full"})
        self.assertEqual(refused.status, 400)
        self.assertIn("not an array of strings", refused.read().decode())

    def test_a_client_that_is_killed_or_interrupted_leaves_nothing(self):
        held = self.held()
        for end, code in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, -signal.SIGINT)):
            chat = subprocess.Popen([str(BIN / "kvfs"), "--socket", str(self.daemon.socket),
                                     "compare", "s", "--chat", "--methods", "keep_last n=30"],
                                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            chat.stdin.write(" Then\n")
            chat.stdin.flush()
            while not chat.stdout.readline().startswith("keep_last"):
                pass
            self.assertGreater(self.held(), held)
            chat.send_signal(end)
            self.assertEqual(chat.wait(10), code)
            chat.stdin.close()
            chat.stdout.close()
            wait_until(lambda: self.held() == held, 20, "its caches are freed")
        busy = subprocess.Popen([str(BIN / "kvfs"), "--socket", str(self.daemon.socket), "compare",
                                 "s", "--prompt", " Then", "--max-tokens", "400", "--json"],
                                stdout=subprocess.PIPE, text=True)
        while "turn" not in busy.stdout.readline():
            pass
        busy.send_signal(signal.SIGINT)
        self.assertEqual(busy.wait(10), 130)
        busy.stdout.close()
        wait_until(lambda: self.held() == held, 20, "its caches are freed")
        self.expect_unchanged()


class Killed(unittest.TestCase):
    def test_a_daemon_that_is_killed_starts_again_without_it(self):
        d = Daemon()
        self.addCleanup(d.close)
        d.start()
        state = d.make("s", template="raw")
        d.run(state, "feed", ENGLISH[:800])
        before = fingerprint(state), (state / "status").read_text()
        files = sorted(p.name for p in d.store.iterdir())
        chat = subprocess.Popen([str(BIN / "kvfs"), "--socket", str(d.socket), "compare", "s",
                                 "--prompt", "x", "--max-tokens", "300", "--json"],
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        while "turn" not in chat.stdout.readline():
            pass
        d.kill()
        out, error = chat.communicate(timeout=20)
        self.assertEqual(chat.returncode, 1, out)
        self.assertRegex(error, r"^kvfs: daemon's answer: .+; see whether it still runs")
        d.start()
        self.assertEqual((fingerprint(state), (state / "status").read_text()), before)
        self.assertEqual(sorted(p.name for p in d.store.iterdir()), files)


if __name__ == "__main__":
    unittest.main()
