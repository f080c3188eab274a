#!/usr/bin/env python3
"""Takes every folder of tests/golden/hf to GGUF and back with the program, loads what came out with transformers, and says how far
its logits are from those that make_hf.py wrote down.

    pip install torch transformers
    python3 check_export.py target/release/ganglion

Classes that the installed transformers does not know are named and passed over. Ends with 1 if a difference is above 1e-4 of the
logits' standard deviation.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import torch
from transformers import AutoModelForCausalLM

TOLERANCE = 1e-4


def logits_of(case):
    expected = json.loads((case / "expected.json").read_text())
    values = np.fromfile(case / "expected.bin", "<f4")
    hidden = expected["layer_count"] * len(expected["tokens"]) * expected["embedding_length"]
    return expected["tokens"], values[hidden:].reshape(-1, expected["vocab_size"])


def main():
    program, worst = sys.argv[1], 0.0
    cases = sorted((pathlib.Path(__file__).parent / "hf").iterdir())
    with tempfile.TemporaryDirectory() as scratch:
        for case in cases:
            gguf, folder = f"{scratch}/{case.name}.gguf", f"{scratch}/{case.name}"
            for action in (["convert", case, gguf], ["export", gguf, folder]):
                command = [program, "model", *map(str, action), "--no-tokenizer"]
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            tokens, expected = logits_of(case)
            try:
                model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", torch_dtype=torch.float32)
            # Whatever a class raises for what it does not know.
            except Exception as error:
                print(f"{case.name:16} not loaded: {' '.join(str(error).split())[:160]}")
                continue
            with torch.no_grad():
                found = model(torch.tensor([tokens])).logits[0].numpy()
            share = float(np.abs(found - expected).max() / expected.std())
            worst = max(worst, share)
            print(f"{case.name:16} {type(model).__name__:24} largest difference {share:.1e} of the spread")
    sys.exit(worst > TOLERANCE)


main()
