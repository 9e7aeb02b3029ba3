"""Takes a state's files into transformers and goes on there: the same tokens as kvfs gives.

Needs torch, transformers, gguf, numpy and safetensors (not what the tests install), a built kvfsd and
the embedded model. Prints one line a prompt; exits 1 when a token differs.

    python tests/interop/continue_in_transformers.py [reference|fast]

In the reference mode every token must be equal. In the fast mode (int8 products, bf16 KV) the line
says how many of the 32 agree before the first difference: other arithmetic may break a tie elsewhere.
"""

import pathlib
import sys

import numpy as np
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, DynamicCache

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "blackbox"))
from harness import ENGLISH, MODEL, Daemon  # noqa: E402

PROMPTS = ["The capital of France is", ENGLISH[:1800], "def fibonacci(n):\n", "Once upon a time"]
NEW = 32


def continue_in_transformers(model, state):
    """Greedy tokens from the state's KV; its last token is run again to get its logits."""
    ids = torch.from_numpy(np.load(state / "tokens.npy").astype(np.int64))
    layers = sorted((state / "kv").iterdir())
    cache = DynamicCache()
    for i, path in enumerate(layers):
        kv = load_file(path)
        cache.update(kv["key"][:, :, :-1].to(model.dtype), kv["value"][:, :, :-1].to(model.dtype), i)
    token, out = ids[-1:].view(1, 1), []
    for _ in range(NEW):
        logits = model(input_ids=token, past_key_values=cache, use_cache=True).logits
        token = logits[:, -1].argmax(-1, keepdim=True)
        out.append(int(token))
    return out


def main():
    compute = sys.argv[1] if len(sys.argv) > 1 else "reference"
    model = AutoModelForCausalLM.from_pretrained(MODEL.parent, gguf_file=MODEL.name,
                                                 dtype=torch.float32).eval()
    daemon = Daemon(extra=["--compute", compute])
    differ = False
    try:
        daemon.start(120)
        for i, prompt in enumerate(PROMPTS):
            state = daemon.make(f"p{i}", template="raw", temperature=0, max_tokens=NEW)
            daemon.run(state, "feed", prompt)
            with torch.no_grad():
                theirs = continue_in_transformers(model, state)
            before = len(np.load(state / "tokens.npy"))
            daemon.step(state, NEW)
            ours = np.load(state / "tokens.npy")[before:].tolist()
            theirs = theirs[:len(ours)]  # ours ends at an end token
            same = next((k for k, (a, b) in enumerate(zip(ours, theirs)) if a != b), len(ours))
            print(f"{compute}: prompt of {before} tokens: {same} of {len(ours)} tokens the same")
            differ |= same < len(ours)
    finally:
        daemon.close()
    return 1 if differ and compute == "reference" else 0


if __name__ == "__main__":
    sys.exit(main())
