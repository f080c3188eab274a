#!/usr/bin/env python3
"""Quantises a model by every method and by llama-quantize, measures all of them in the same way, and writes a table.

Calibration and test text come from the default model's generator with different seeds. All files of one mixture have the same types,
so they compare at equal bits. Needs no packages.
"""
import argparse
import json
import pathlib
import subprocess
import tempfile
import time

import texts

MIXTURES = ["q8_0", "q4_k_m", "q3_k_m", "q2_k"]
METHODS = ["rtn", "imatrix", "gptq", "awq", "smoothquant", "hqq", "autoround"]
NO_DATA = {"rtn", "hqq"}


def run(*command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stdout[-1000:]}{done.stderr[-2000:]}")
    return done.stdout


def timed(*command):
    start = time.monotonic()
    run(*command)
    return time.monotonic() - start


def row(cells):
    return "| " + " | ".join(cells) + " |"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ganglion", required=True, type=pathlib.Path, help="the program")
    parser.add_argument("--peer", type=pathlib.Path, help="llama.cpp's build/bin")
    parser.add_argument("--model", default=pathlib.Path("models/nano/nano.gguf"), type=pathlib.Path)
    parser.add_argument("--suite", type=pathlib.Path, help="folder of suites; slow")
    parser.add_argument("--mixtures", nargs="+", default=MIXTURES)
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--calibration-bytes", type=int, default=120_000)
    parser.add_argument("--test-bytes", type=int, default=24_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", default=pathlib.Path("docs/bench"), type=pathlib.Path)
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        calibration, test = folder / "calibration.txt", folder / "test.txt"
        calibration.write_text(texts.text(501, arguments.calibration_bytes))
        test.write_text(texts.text(502, arguments.test_bytes))
        exact, files, seconds = folder / "f32.gguf", [], {}
        quantize = [arguments.ganglion, "model", "quantize"]
        run(*quantize, arguments.model, exact, "--type", "f32")
        for mixture in arguments.mixtures:
            for method in arguments.methods:
                file = folder / f"{mixture}-{method}.gguf"
                text = [] if method in NO_DATA else ["--calibrate", calibration]
                options = ["--type", mixture, "--method", method, "-t", arguments.threads, *text]
                seconds[file] = timed(*quantize, arguments.model, file, *options)
                files.append(file)
            if arguments.peer:
                matrix, file = folder / "matrix.gguf", folder / f"{mixture}-llama.cpp.gguf"
                if not matrix.exists():
                    run(arguments.peer / "llama-imatrix", "-m", exact, "-f", calibration, "-o", matrix, "-t", arguments.threads)
                command = [arguments.peer / "llama-quantize", "--imatrix", matrix, exact, file, mixture.upper(), arguments.threads]
                seconds[file] = timed(*command)
                files.append(file)
        arguments.out.mkdir(parents=True, exist_ok=True)
        measure = [arguments.ganglion, "model", "measure", *files, "--against", exact, "--text", test, "-t", arguments.threads, "--json"]
        measure += ["--svg", arguments.out / "compress.svg"]
        if arguments.suite:
            measure += ["--suite", arguments.suite]
        for found in json.loads(run(*measure)):
            file = pathlib.Path(found["model"])
            mixture, method = file.stem.split("-", 1)
            rows.append({"mixture": mixture, "method": method, "seconds": seconds[file], **found, "model": file.stem, "against": "f32"})
    report(arguments, rows)


def report(arguments, rows):
    head = ["mixture", "method", "bits a weight", "bytes", "KL, mean", "KL, 99 %", "same best token"]
    lines = [
        "# Quantisation, measured",
        "",
        f"Made by `bench/compress/run.py` on {arguments.model}: {arguments.calibration_bytes:,} bytes of calibration and {arguments.test_bytes:,} bytes of "
        "other test text, both from the model's generator; KL in nats from the model in F32, in windows of 512 tokens. The files of one "
        "mixture hold the same types. `llama.cpp` is llama-quantize with an importance matrix that llama-imatrix made of the same text. "
        "The model was trained on answers only: what it predicts within prompts was never trained, and most of this KL is about that.",
        "",
    ]
    if rows and rows[0]["suite_accuracy"] is not None:
        head.append("right answers")
    lines += [row(head), row(["---"] * len(head))]
    for found in rows:
        cells = [found["mixture"], found["method"], f"{found['bits_per_weight']:.2f}", f"{found['size_bytes']:,}"]
        cells += [f"{found['kl_mean']:.5f}", f"{found['kl_p99']:.4f}", f"{found['top1_agreement']:.1%}"]
        if found["suite_accuracy"] is not None:
            cells.append(f"{found['suite_accuracy']:.2%}")
        lines.append(row(cells))
    (arguments.out / "compress.md").write_text("\n".join(lines) + "\n")
    (arguments.out / "compress.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
