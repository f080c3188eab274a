"""Runs exported graphs in ONNX Runtime and says how far their logits are from those given.

Each argument is a folder with model.onnx, case.json ({"tokens", "vocab", "layers", "kv_heads", "head_dim", "steps"}) and logits.bin
(f32, (tokens, vocab)). Prints one line of JSON for each: "error" is the largest difference over all positions, taken once as a whole
prompt, once with the last tokens one by one over the keys and values of those before, and once as the padded one of two sequences;
"spread" the standard deviation of the logits; "chosen" the greedy tokens behind the prompt; "inputs" and "outputs" the names.
"""

import json
import pathlib
import sys

import numpy as np
import onnxruntime

BEHIND = 3
PADDING = 5


class Model:
    def __init__(self, folder, case):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )
        self.case = case

    def past(self, batch):
        empty = np.zeros((batch, self.case["kv_heads"], 0, self.case["head_dim"]), np.float32)
        return [empty] * (2 * self.case["layers"])

    def run(self, tokens, mask, positions, past):
        feeds = {
            "input_ids": np.asarray(tokens, np.int64),
            "attention_mask": np.asarray(mask, np.int64),
            "position_ids": np.asarray(positions, np.int64),
        }
        names = [f"past_key_values.{i}.{kind}" for i in range(self.case["layers"]) for kind in ("key", "value")]
        feeds.update(zip(names, past))
        outputs = ["logits"] + [name.replace("past_key_values", "present") for name in names]
        found = self.session.run(outputs, feeds)
        return found[0], found[1:]


def check(folder):
    case = json.loads((folder / "case.json").read_text())
    tokens = case["tokens"]
    count = len(tokens)
    expected = np.fromfile(folder / "logits.bin", np.float32).reshape(count, case["vocab"])
    model = Model(folder, case)

    whole, past = model.run([tokens], np.ones((1, count)), [range(count)], model.past(1))
    error = np.abs(whole[0] - expected).max()

    first = count - BEHIND
    found, parts = model.run([tokens[:first]], np.ones((1, first)), [range(first)], model.past(1))
    rows = [found[0]]
    for at in range(first, count):
        found, parts = model.run([[tokens[at]]], np.ones((1, at + 1)), [[at]], parts)
        rows.append(found[0])
    error = max(error, np.abs(np.concatenate(rows) - expected).max())

    short = count - PADDING
    padded = [0] * PADDING + tokens[:short]
    mask = [[1] * count, [0] * PADDING + [1] * short]
    positions = [list(range(count)), [0] * PADDING + list(range(short))]
    both, _ = model.run([tokens, padded], mask, positions, model.past(2))
    error = max(error, np.abs(both[0] - expected).max(), np.abs(both[1, PADDING:] - expected[:short]).max())

    chosen, logits = [], whole[0, -1]
    for at in range(count, count + case["steps"]):
        chosen.append(int(logits.argmax()))
        found, past = model.run([[chosen[-1]]], np.ones((1, at + 1)), [[at]], past)
        logits = found[0, -1]
    return {
        "error": float(error),
        "spread": float(expected.std()),
        "chosen": chosen,
        "inputs": [value.name for value in model.session.get_inputs()],
        "outputs": [value.name for value in model.session.get_outputs()],
    }


for argument in sys.argv[1:]:
    print(json.dumps(check(pathlib.Path(argument))), flush=True)
