"""What clients see of generation: log probabilities, biases, penalties, stop strings, and whole
conversations that are sent again."""

import http.client
import json
import math
import socket
import unittest
import urllib.parse

from harness import Daemon


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost")
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)


class Generation(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.daemon = Daemon(no_mount=True)
        cls.addClassCleanup(cls.daemon.close)
        cls.daemon.start()

    def post(self, state, verb, **body):
        """All lines of a job's stream; an error's body as the only one."""
        connection = UnixConnection(self.daemon.socket)
        connection.request("POST", f"/v1/states/{urllib.parse.quote(state, safe='')}/{verb}",
                           json.dumps(body), {"Content-Type": "application/json"})
        lines = connection.getresponse().read().decode().splitlines()
        connection.close()
        return [json.loads(line) for line in lines]

    def state(self, **params):
        name = self._testMethodName.removeprefix("test_")
        words = [word for key, value in params.items() for word in ("--param", f"{key}={value}")]
        self.daemon.kvfs("new", name, *words)
        return name

    def prefilled(self):
        return int(json.loads(self.daemon.kvfs("status", "--json").stdout)["prefilled_tokens"])

    @staticmethod
    def text(lines):
        return "".join(line.get("text", "") for line in lines)

    def test_log_probabilities_come_as_openai_has_them(self):
        state = self.state(temperature=0, max_tokens=12)
        plain = self.post(state, "ask", prompt="Name a colour.")
        self.assertFalse(any("logprobs" in line for line in plain))
        told = self.daemon.kvfs("ask", state, "Name a colour.", "--json", "--logprobs", "3").stdout
        lines = [json.loads(line) for line in told.splitlines()]
        self.assertEqual(self.text(lines), self.text(plain))
        tokens = [token for line in lines for token in line.get("logprobs", {}).get("content", [])]
        self.assertEqual(len(tokens), lines[-1]["done"]["generated_tokens"])
        shown = b"".join(bytes(token["bytes"]) for token in tokens)
        self.assertEqual(shown.decode().removesuffix("<|im_end|>"), self.text(plain))
        for token in tokens:
            self.assertEqual(len(token["top_logprobs"]), 3)
            self.assertEqual(token["id"], token["top_logprobs"][0]["id"])  # greedy
            chances = [math.exp(other["logprob"]) for other in token["top_logprobs"]]
            self.assertEqual(chances, sorted(chances, reverse=True))
            self.assertLess(sum(chances), 1.0001)

    def test_a_forbidden_token_is_not_said_and_one_of_another_vocabulary_is_refused(self):
        state = self.state(temperature=0, max_tokens=1, logprobs=1)
        said = self.post(state, "ask", prompt="Say yes.")[1]["logprobs"]["content"][0]["id"]
        other = self.post(state, "ask", prompt="Say yes.", params={"logit_bias": {str(said): -100}})
        self.assertNotEqual(other[1]["logprobs"]["content"][0]["id"], said)
        refused = self.post(state, "ask", prompt="Say yes.", params={"logit_bias": {"49152": 1}})
        self.assertEqual(refused[0]["error"]["way_out"], "give ids from 0 to 49151")
        for params in ({"presence_penalty": 3}, {"typical": 0}, {"logprobs": 21}):
            self.assertIn("error", self.post(state, "ask", prompt="Say yes.", params=params)[0])

    def test_a_conversation_sent_again_prefills_only_its_new_turn(self):
        messages = [{"role": "system", "content": "You are a pirate who likes long tales."}]
        state = self.state(max_tokens=30)
        self.post(state, "feed", prompt=messages[0]["content"])
        for seed, question in enumerate(["Who are you?", "Where is the gold?"]):
            said = self.post(state, "continue", prompt=question,
                             params={"seed": seed, "temperature": 1, "top_k": 40})
            messages += [{"role": "user", "content": question},
                         {"role": "assistant", "content": self.text(said)}]
        messages.append({"role": "user", "content": "Tell me more."})
        ask = dict(temperature=0, max_tokens=8)
        before = self.prefilled()
        alone = self.post(state, "ask", prompt="Tell me more.", params=ask)
        turn = self.prefilled() - before
        self.assertEqual(turn, alone[-1]["done"]["prompt_tokens"])
        self.daemon.kvfs("new", "elsewhere")
        for name in (state, "elsewhere"):
            before = self.prefilled()
            whole = self.post(name, "ask", messages=messages, params=ask)
            self.assertEqual(self.text(whole), self.text(alone))
            self.assertEqual(self.prefilled() - before, turn)
        refused = self.post(state, "ask", messages=messages[1:], params=ask)
        self.assertIn("does not begin so", refused[0]["error"]["why"])
        self.assertIn("error", self.post(state, "ask", messages=messages, prompt="both")[0])
        self.assertIn("error", self.post(state, "feed", messages=messages)[0])


if __name__ == "__main__":
    unittest.main()
