"""A Hugging Face folder, with its own tokenizer and chat template: the words are transformers'.

hf_folder/make_folder.py made the folder and wrote down what transformers answers, make_caches.py what its
users save."""

import json
import pathlib
import shutil
import subprocess
import unittest

import numpy as np

from harness import Daemon

HERE = pathlib.Path(__file__).resolve().parent / "hf_folder"
GOLDEN = json.loads((HERE / "golden.json").read_text())


class HuggingFaceFolder(unittest.TestCase):
    def conversations(self, *extra):
        daemon = Daemon(extra=extra, model=HERE / "model")
        self.addCleanup(daemon.close)
        daemon.start()
        for number, golden in enumerate(GOLDEN):
            with self.subTest(conversation=number):
                state = daemon.make(f"c{number}", temperature=0, max_tokens=80)
                if golden["system"]:
                    daemon.run(state, "feed", golden["system"], "system")
                for turn, question in enumerate(golden["questions"]):
                    daemon.run(state, "ask", question + "\n", f"ask{turn}")
                    self.assertEqual(daemon.reply(state, f"ask{turn}"), golden["replies"][turn])
                    daemon.stop()
                    daemon.start()
                    daemon.run(state, "continue", question + "\n", f"q{turn}")
                    self.assertEqual(daemon.reply(state, f"q{turn}"), golden["replies"][turn])
                self.assertEqual(np.load(state / "tokens.npy").tolist(), golden["ids"])

    def test_answers_in_the_words_of_transformers(self):
        self.conversations()

    def test_answers_so_in_the_reference_mode_too(self):
        self.conversations("--compute", "reference")

    def test_caches_that_transformers_saved_go_on_in_its_words(self):
        daemon = Daemon(extra=["--compute", "reference"], model=HERE / "model")
        self.addCleanup(daemon.close)
        daemon.start()
        ids = GOLDEN[-1]["ids"]
        for file in sorted((HERE / "caches").iterdir()):
            with self.subTest(file=file.name):
                shutil.copyfile(file, daemon.mount / "bundles" / file.name)
                state = daemon.states / file.name.split(".")[0]
                (state / "params/temperature").write_text("0\n")
                before = np.load(state / "tokens.npy").tolist()
                self.assertEqual(before, ids[:len(before)])
                self.assertLess(len(before), len(ids))
                self.assertIn('"imported"', (state / "state.json").read_text())
                daemon.step(state, len(ids) - len(before))
                self.assertEqual(np.load(state / "tokens.npy").tolist(), ids)

    def test_a_tokenizer_of_another_model_is_refused(self):
        daemon = Daemon(model=HERE / "model")
        self.addCleanup(daemon.close)
        other = daemon.directory / "other"
        shutil.copytree(HERE / "model", other)
        tokenizer = json.loads((other / "tokenizer.json").read_text())
        tokenizer["model"]["vocab"]["zzzz"] = 385
        (other / "tokenizer.json").write_text(json.dumps(tokenizer))
        daemon.model = other
        daemon.mount.mkdir(parents=True)
        done = subprocess.run(daemon.arguments(), capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 4, done.stderr)
        for part in ("other/tokenizer.json: model.vocab", "zzzz", "385", "384 rows"):
            self.assertIn(part, done.stderr)


if __name__ == "__main__":
    unittest.main()
