#!/usr/bin/env python3
"""Prunes a model by every kind to about the same size, and measures what is left: divergence, answers, and speed in turn with the source.

Every result is stored as Q8_0, as the source is, so that speeds compare. Calibration and test text come from the default model's generator with
different seeds. Speeds are medians of five runs in which the models take turns. With --model a model of random weights can be measured for
speed alone. Needs no packages.
"""
import argparse
import json
import pathlib
import re
import statistics
import subprocess
import tempfile

import texts

# Options of `model prune`, or the ratio of `model factorize`. About 30 % of the layers' parameters go in each.
KINDS = {
    "layers": ["--layers", "2"],
    "heads": ["--queries", "1", "--ffn", "0.29"],
    "channels": ["--ffn", "0.46"],
    "stream": ["--hidden", "0.25"],
    "layers and channels": ["--layers", "1", "--ffn", "0.21"],
    "channels, stream": ["--ffn", "0.21", "--hidden", "0.13"],
    "factors": ["--ratio", "0.7"],
}
RUNS = 5


def run(*command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stdout[-1000:]}{done.stderr[-2000:]}")
    return done.stdout


def parameters(ganglion, file):
    """Of the layers' matrices."""
    tensors = json.loads(run(ganglion, "model", "inspect", file, "--json"))["tensors"]
    inside = [t["shape"] for t in tensors if t["name"].startswith("blk.") and len(t["shape"]) == 2]
    return sum(shape[0] * shape[1] for shape in inside)


def speeds(arguments, files):
    """Prefill and decode of each file: medians of runs in turn."""
    found = {file: [] for file in files}
    for _ in range(RUNS):
        for file in files:
            measured = json.loads(run(arguments.ganglion, "model", "measure", file, "--speed", "-t", arguments.threads, "--json"))
            found[file].append((measured["prefill_tokens_per_s"], measured["decode_tokens_per_s"]))
    return {file: tuple(statistics.median(column) for column in zip(*runs)) for file, runs in found.items()}


def peer_perplexity(arguments, file, test):
    command = [arguments.peer / "llama-perplexity", "-m", file, "-f", test, "-c", 512, "-t", arguments.threads]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    found = re.search(r"Final estimate: PPL = ([0-9.]+)", done.stdout + done.stderr)
    return float(found.group(1)) if found else None


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ganglion", required=True, type=pathlib.Path, help="the program")
    parser.add_argument("--peer", type=pathlib.Path, help="llama.cpp's build/bin: its perplexity of each ordinary result beside ours")
    parser.add_argument("--model", default=pathlib.Path("models/nano/nano.gguf"), type=pathlib.Path)
    parser.add_argument("--suite", type=pathlib.Path, help="folder of suites; slow")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--options", action="append", default=[], metavar="NAME=OPTIONS", help="another kind: 'mine=--layers 9 --ffn 0.1'")
    parser.add_argument("--speed-only", action="store_true", help="for models of random weights")
    parser.add_argument("--calibration-bytes", type=int, default=240_000)
    parser.add_argument("--calibration-tokens", type=int, default=32_768)
    parser.add_argument("--test-bytes", type=int, default=24_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--name", default="prune", help="of the files written")
    parser.add_argument("--out", default=pathlib.Path("docs/bench"), type=pathlib.Path)
    arguments = parser.parse_args()
    kinds = {name: KINDS[name] for name in arguments.kinds}
    kinds.update((name, text.split()) for name, text in (option.split("=", 1) for option in arguments.options))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        calibration, test = folder / "calibration.txt", folder / "test.txt"
        calibration.write_text(texts.text(501, arguments.calibration_bytes))
        test.write_text(texts.text(502, arguments.test_bytes))
        model = [arguments.ganglion, "model"]
        files = {"the source": arguments.model}
        for name, options in kinds.items():
            pruned, file = folder / "pruned.gguf", folder / f"{name.replace(' ', '-').replace(',', '')}.gguf"
            command = "factorize" if "--ratio" in options else "prune"
            run(*model, command, arguments.model, pruned, *options, "--calibrate", calibration,
                "--calibrate-tokens", arguments.calibration_tokens, "-t", arguments.threads)
            run(*model, "quantize", pruned, file, "--type", "q8_0", "-t", arguments.threads)
            pruned.unlink()
            files[name] = file
        fast = speeds(arguments, list(files.values()))
        before = parameters(arguments.ganglion, arguments.model)
        for name, file in files.items():
            row = {"kind": name, "options": kinds.get(name, []), "layers_share": parameters(arguments.ganglion, file) / before}
            measure = [*model, "measure", file, "-t", arguments.threads, "--json"]
            if not arguments.speed_only:
                measure += ["--against", arguments.model, "--text", test]
                measure += ["--suite", arguments.suite] if arguments.suite else []
                found = json.loads(run(*measure))
                row.update((key, found[key]) for key in ["perplexity", "kl_mean", "top1_agreement", "suite_accuracy", "suites"])
                if arguments.peer and name != "factors":
                    row["llama_cpp_perplexity"] = peer_perplexity(arguments, file, test)
            row["size_bytes"] = file.stat().st_size
            row["prefill_tokens_per_s"], row["decode_tokens_per_s"] = fast[file]
            row["prefill_speed_up"] = fast[file][0] / fast[arguments.model][0]
            row["decode_speed_up"] = fast[file][1] / fast[arguments.model][1]
            rows.append(row)
    report(arguments, rows)


def report(arguments, rows):
    cell = lambda value, form: "–" if value is None else form.format(value)  # noqa: E731
    lines = [
        f"# Pruning {arguments.model.stem}, measured",
        "",
        f"Made by `bench/compress/prune.py` on {arguments.model}, {arguments.threads} threads. Every result is stored as Q8_0. Speeds are medians of {RUNS} "
        "runs in which the models take turns, and the factors are those to the source. KL in nats from the source on text of its generator.",
        "",
        "| kind | options | layers' parameters | bytes | KL, mean | same best token | right answers | prefill | decode | perplexity | llama.cpp's |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [row["kind"], f"`{' '.join(row['options'])}`" if row["options"] else "", f"{row['layers_share']:.1%}", f"{row['size_bytes']:,}"]
        cells += [cell(row.get("kl_mean"), "{:.4f}"), cell(row.get("top1_agreement"), "{:.1%}"), cell(row.get("suite_accuracy"), "{:.2%}")]
        cells += [f"{row['prefill_tokens_per_s']:,.0f}/s ({row['prefill_speed_up']:.2f}×)", f"{row['decode_tokens_per_s']:,.0f}/s ({row['decode_speed_up']:.2f}×)"]
        cells += [cell(row.get("perplexity"), "{:,.2f}"), cell(row.get("llama_cpp_perplexity"), "{:,.2f}")]
        lines.append("| " + " | ".join(cells) + " |")
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / f"{arguments.name}.md").write_text("\n".join(lines) + "\n")
    (arguments.out / f"{arguments.name}.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
