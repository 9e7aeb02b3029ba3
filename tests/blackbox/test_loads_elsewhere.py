"""kv/*.safetensors and tokens.npy are what other programs expect."""

import json
import unittest

import numpy as np
from safetensors import safe_open

from harness import DaemonTest, ENGLISH


class LoadsElsewhere(DaemonTest):
    def test_safetensors_and_numpy_read_what_state_json_promises(self):
        state = self.state(template="raw")
        self.daemon.run(state, "feed", ENGLISH[:2500])
        facts = json.loads((state / "state.json").read_text())
        tokens = np.load(state / "tokens.npy")
        self.assertEqual(tokens.dtype, np.int32)
        self.assertEqual(len(tokens), facts["n_tokens"])
        self.assertGreater(facts["n_tokens"], 256, "more than one block, or the test shows little")
        self.assertEqual(len(facts["layers"]), 30)
        self.assertEqual(sorted(p.name for p in (state / "kv").iterdir()),
                         [f"layer-{i:03}.safetensors" for i in range(30)])
        for i, layer in enumerate(facts["layers"]):
            self.assertEqual(layer["length"], facts["n_tokens"])
            with safe_open(state / f"kv/layer-{i:03}.safetensors", framework="numpy") as f:
                self.assertEqual(set(f.keys()), {"key", "value", "positions"})
                shape = [1, 3, facts["n_tokens"], 64]
                self.assertEqual(f.get_slice("key").get_shape(), shape)
                self.assertEqual(f.get_slice("value").get_shape(), shape)
                self.assertEqual(f.get_slice("key").get_dtype(), facts["dtype"])
                np.testing.assert_array_equal(f.get_tensor("positions"),
                                              np.arange(facts["n_tokens"]))

    def test_a_read_at_any_offset_equals_the_whole(self):
        state = self.state(template="raw")
        self.daemon.run(state, "feed", ENGLISH[:2500])
        path = state / "kv/layer-007.safetensors"
        whole = path.read_bytes()
        self.assertEqual(path.stat().st_size, len(whole))
        rng = np.random.default_rng(1)
        with open(path, "rb", buffering=0) as f:
            for offset, length in zip(rng.integers(0, len(whole), 60), rng.integers(1, 70000, 60)):
                f.seek(offset)
                self.assertEqual(f.read(length), whole[offset:offset + length])


if __name__ == "__main__":
    unittest.main()
