#!/usr/bin/env python3
"""Makes variants of a model by every method, by llama-quantize and by the optimiser, measures all of them in the same way, and writes a table.

Calibration and test text come from the default model's generator with different seeds. All files of one mixture have the same types,
so they compare at equal bits. Files made elsewhere come in with --also. With --keep DIR what exists there is neither made nor measured again. Needs no
packages.
"""
import argparse
import json
import pathlib
import time

import texts
from common import run, workplace

MIXTURES = ["q8_0", "q4_k_m", "q3_k_m", "q2_k"]
METHODS = ["rtn", "imatrix", "gptq", "awq", "smoothquant", "hqq", "autoround"]
NO_DATA = {"rtn", "hqq"}
# Name: arguments of `ganglion model`, of one call or two. {model}, {step}, {out}, {text} are paths, {half} is half the bytes of the mixture q8_0.
MORE = {
    "optimize-half": "optimize {model} {out} --calibrate {text} --size {half}",
    "optimize-half-no-pruning": "optimize {model} {out} --calibrate {text} --size {half} --prune none",
    "optimize-half-all-tokens": "optimize {model} {out} --calibrate {text} --size {half} --all-tokens",
    "optimize-kl0.02": "optimize {model} {out} --calibrate {text} --max-kl 0.02 --all-tokens",
    "prune-1-layer": "prune {model} {out} --layers 1 --calibrate {text}",
    "prune-30%": "prune {model} {out} --ffn 0.3 --calibrate {text}",
    "t4-rtn": "quantize {model} {out} --type t4 --method rtn",
    "t4-trellis": "quantize {model} {out} --type t4 --method trellis --calibrate {text}",
    "t3-trellis": "quantize {model} {out} --type t3 --method trellis --calibrate {text}",
    "t3_m-trellis": "quantize {model} {out} --type t3_m --method trellis --calibrate {text}",
    "t2-trellis": "quantize {model} {out} --type t2 --method trellis --calibrate {text}",
    "t2_m-trellis": "quantize {model} {out} --type t2_m --method trellis --calibrate {text}",
    "sparse8-2:4": "prune {model} {step} --sparsity 2:4 --calibrate {text} && quantize {step} {out} --type sparse8 --method gptq --calibrate {text}",
    "sparse8-16:32": "prune {model} {step} --sparsity 16:32 --calibrate {text} && quantize {step} {out} --type sparse8 --method gptq --calibrate {text}",
    "sparse8-16:32-wanda": "prune {model} {step} --sparsity 16:32 --method wanda --calibrate {text} && quantize {step} {out} --type sparse8",
    "sparse4-16:32": "prune {model} {step} --sparsity 16:32 --calibrate {text} && quantize {step} {out} --type sparse4 --method gptq --calibrate {text}",
    "nf4-gptq": "quantize {model} {out} --type nf4 --method gptq --calibrate {text}",
    "fp8": "quantize {model} {out} --type fp8 --method rtn",
    "int8-dynamic": "quantize {model} {out} --type int8 --method smoothquant --calibrate {text}",
    "int8-static": "quantize {model} {out} --type int8 --method smoothquant --activations mse --calibrate {text}",
}


class Variants:
    """Files in a folder, with the seconds that each took."""

    def __init__(self, folder):
        self.folder, self.files, self.seconds = folder, [], {}
        self.times = folder / "seconds.json"
        if self.times.exists():
            self.seconds = json.loads(self.times.read_text())

    def make(self, name, *commands):
        """Makes the file `name` by commands in which `None` stands for its path."""
        file = self.folder / f"{name}.gguf"
        if not file.exists():
            print(name, flush=True)
            start = time.monotonic()
            for command in commands:
                run(*(file if part is None else part for part in command))
            self.seconds[name] = round(time.monotonic() - start, 2)
            self.times.write_text(json.dumps(self.seconds))
        self.files.append(file)


def row(cells):
    return "| " + " | ".join(cells) + " |"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ganglion", required=True, type=pathlib.Path, help="the program")
    parser.add_argument("--peer", type=pathlib.Path, help="llama.cpp's build/bin")
    parser.add_argument("--model", default=pathlib.Path("models/nano/nano.gguf"), type=pathlib.Path)
    parser.add_argument("--suite", type=pathlib.Path, help="folder of suites; slow")
    parser.add_argument("--mixtures", nargs="*", default=MIXTURES)
    parser.add_argument("--methods", nargs="*", default=METHODS)
    parser.add_argument("--more", nargs="*", default=list(MORE), help=f"of {', '.join(MORE)}".replace("%", "%%"))
    parser.add_argument("--also", nargs="*", default=[], type=pathlib.Path, help="files of other tools or other runs")
    parser.add_argument("--speed", action="store_true", help="tokens a second, on an idle machine")
    parser.add_argument("--calibration-bytes", type=int, default=120_000)
    parser.add_argument("--test-bytes", type=int, default=24_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--keep", type=pathlib.Path, help="folder for the variants, which else go when all is done")
    parser.add_argument("--out", default=pathlib.Path("docs/bench"), type=pathlib.Path)
    arguments = parser.parse_args()
    with workplace(arguments.keep) as folder:
        measure(arguments, folder)


def measure(arguments, folder):
    calibration, test, exact = folder / "calibration.txt", folder / "test.txt", folder / "f32.gguf"
    calibration.write_text(texts.text(501, arguments.calibration_bytes))
    test.write_text(texts.text(502, arguments.test_bytes))
    threads = ["-t", arguments.threads]
    quantize = [arguments.ganglion, "model", "quantize"]
    if not exact.exists():
        run(*quantize, arguments.model, exact, "--type", "f32")
    variants = Variants(folder)
    for mixture in arguments.mixtures:
        for method in arguments.methods:
            text = [] if method in NO_DATA else ["--calibrate", calibration]
            variants.make(f"{mixture}-{method}", [*quantize, arguments.model, None, "--type", mixture, "--method", method, *threads, *text])
        if arguments.peer:
            matrix = folder / "matrix.imatrix"
            if not matrix.exists():
                run(arguments.peer / "llama-imatrix", "-m", exact, "-f", calibration, "-o", matrix, *threads)
            peer = [arguments.peer / "llama-quantize", "--imatrix", matrix, exact, None, mixture.upper(), arguments.threads]
            variants.make(f"{mixture}-llama.cpp", peer)
    for name in arguments.more:
        half = half_of_q8(arguments, folder)
        places = {"model": arguments.model, "step": folder / "step.gguf", "out": None, "text": calibration, "half": half}
        calls = [[places[part[1:-1]] if part.startswith("{") else part for part in call.split()] for call in MORE[name].split(" && ")]
        variants.make(name, *([arguments.ganglion, "model", *call, *threads] for call in calls))
    (folder / "step.gguf").unlink(missing_ok=True)
    variants.files += arguments.also
    arguments.out.mkdir(parents=True, exist_ok=True)
    reports = [measured(arguments, file, exact, test) for file in variants.files]
    svg = arguments.out / "compress.svg"
    found = json.loads(run(arguments.ganglion, "model", "measure", *reports, "--svg", svg, "--json"))
    rows = [found] if isinstance(found, dict) else found
    for one in rows:
        name = pathlib.Path(one["model"]).stem
        one.update({"model": name, "against": "f32", "seconds": variants.seconds.get(name)})
    report(arguments, rows)


def measured(arguments, file, exact, test):
    """The report of a variant, measured anew if the file changed since or figures are missing."""
    report = file.with_suffix(".json")
    wanted = ["suite_accuracy"] if arguments.suite else []
    wanted += ["decode_tokens_per_s"] if arguments.speed else []
    if report.exists() and report.stat().st_mtime > file.stat().st_mtime:
        found = json.loads(report.read_text())
        if all(found.get(key) is not None for key in wanted):
            return report
    print(f"measuring {file.stem}", flush=True)
    command = [arguments.ganglion, "model", "measure", file, "--against", exact, "--text", test, "-t", arguments.threads, "--json"]
    command += ["--suite", arguments.suite] if arguments.suite else []
    command += ["--speed"] if arguments.speed else []
    report.write_text(run(*command))
    return report


def half_of_q8(arguments, folder):
    """Half the bytes of the model in Q8_0."""
    eight = folder / "q8_0-rtn.gguf"
    if not eight.exists():
        run(arguments.ganglion, "model", "quantize", arguments.model, eight, "--type", "q8_0", "--method", "rtn")
    return eight.stat().st_size // 2


def on_front(rows):
    """The variants that nothing beats in bytes without losing accuracy (of suites, else divergence)."""
    def loss(found):
        return -found["suite_accuracy"] if found["suite_accuracy"] is not None else found["kl_mean"]

    best, front = float("inf"), set()
    for found in sorted(rows, key=lambda found: (found["size_bytes"], loss(found))):
        if loss(found) < best:
            best = loss(found)
            front.add(found["model"])
    return front


def report(arguments, rows):
    lines = [
        "# Compression, measured",
        "",
        f"Made by `bench/compress/run.py` on {arguments.model}: {arguments.calibration_bytes:,} bytes of calibration and {arguments.test_bytes:,} bytes of "
        "other test text, both from the model's generator; KL in nats from the model in F32, in windows of 512 tokens. The files of one "
        "mixture hold the same types. `llama.cpp` is llama-quantize with an importance matrix that llama-imatrix made of the same text. "
        "The model was trained on answers only: what it predicts within prompts was never trained, and most of this KL is about that. "
        "The optimiser therefore weighs each token by how probable the source finds it. Seconds to make are those of one run, whatever else the machine did. Variants marked * are on the front: nothing smaller is as good.",
        "",
        "![all variants](compress.svg)",
        "",
    ]
    columns = [
        ("bits a weight", "bits_per_weight", "{:.2f}"),
        ("bytes", "size_bytes", "{:,}"),
        ("memory plan", "memory_bytes", "{:,}"),
        ("resident", "resident_bytes", "{:,}"),
        ("KL, mean", "kl_mean", "{:.5f}"),
        ("KL, 99 %", "kl_p99", "{:.4f}"),
        ("same best token", "top1_agreement", "{:.1%}"),
        ("perplexity", "perplexity", "{:.0f}"),
        ("bits a byte", "bits_per_byte", "{:.3f}"),
        ("right answers", "suite_accuracy", "{:.2%}"),
        ("prefill/s", "prefill_tokens_per_s", "{:,.0f}"),
        ("decode/s", "decode_tokens_per_s", "{:,.0f}"),
        ("seconds to make", "seconds", "{:.1f}"),
    ]
    columns = [column for column in columns if any(found.get(column[1]) is not None for found in rows)]
    front = on_front(rows)
    lines += [row(["variant"] + [title for title, *_ in columns]), row(["---"] * (len(columns) + 1))]
    for found in rows:
        cells = [found["model"] + (" *" if found["model"] in front else "")]
        cells += ["–" if found.get(key) is None else form.format(found[key]) for _, key, form in columns]
        lines.append(row(cells))
    (arguments.out / "compress.md").write_text("\n".join(lines) + "\n")
    (arguments.out / "compress.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
