#!/usr/bin/env python3
"""Prunes a model by every kind to about the same size, and measures what is left: divergence, answers, and speed in turn with the source.

Every result is stored as Q8_0, as the source is, so that speeds compare. Calibration and test text come from the default model's generator with
different seeds. Speeds are medians of several runs in which the models take turns. With --keep DIR neither a file nor a figure that is there
is made again, so that an interrupted run goes on, and speeds can be measured (--speed-only) when the machine is idle. With --model a model of
random weights can be measured for speed alone. Needs no packages.
"""
import argparse
import json
import pathlib
import re
import statistics
import subprocess
import time

import texts
from common import run, workplace

# Options of `model prune`, or the ratio of `model factorize`. About 30 % of the layers' parameters go in each but the last ones, where half of them are zeros.
KINDS = {
    "layers": "--layers 2",
    "layer and channels": "--layers 1 --ffn 0.25",
    "channels": "--ffn 0.46",
    "channels by activation": "--ffn 0.46 --importance activation",
    "channels by Taylor": "--ffn 0.46 --importance taylor",
    "heads and channels": "--queries 1 --ffn 0.29",
    "stream": "--hidden 0.25",
    "channels and stream": "--ffn 0.21 --hidden 0.13",
    "factors": "--ratio 0.7",
    "2:4 by SparseGPT": "--sparsity 2:4",
    "2:4 by Wanda": "--sparsity 2:4 --method wanda",
}
QUALITY = ["perplexity", "kl_mean", "top1_agreement", "suite_accuracy", "suites"]


class Kept:
    """Figures of a folder's files, on disk as soon as they are known. A figure counts as long as what it was made of is the same."""

    def __init__(self, folder):
        self.path = folder / "figures.json"
        self.all = json.loads(self.path.read_text()) if self.path.exists() else {}

    def get(self, name, made_of, find):
        known = self.all.get(name)
        if known is None or known["made_of"] != made_of:
            known = {"made_of": made_of, "found": find()}
            self.all[name] = known
            part = self.path.with_suffix(".part")
            part.write_text(json.dumps(self.all, indent=1))
            part.replace(self.path)
        return known["found"]


def identity(file):
    return [str(file), file.stat().st_size, int(file.stat().st_mtime)]


def parameters(ganglion, file):
    """Of the layers' matrices."""
    tensors = json.loads(run(ganglion, "model", "inspect", file, "--json"))["tensors"]
    inside = [t["shape"] for t in tensors if t["name"].startswith("blk.") and len(t["shape"]) == 2]
    return sum(shape[0] * shape[1] for shape in inside)


def make(arguments, folder, kept, name, options):
    """The file of a kind, made if it is not there."""
    slug = re.sub(r"[^A-Za-z0-9]+", "-", f"{arguments.model.stem} {name}").strip("-").lower()
    pruned, file = folder / f"{slug}-unquantised.gguf", folder / f"{slug}.gguf"
    made_of = [identity(arguments.model), options, arguments.calibration_bytes, arguments.calibration_tokens]

    def prune():
        file.unlink(missing_ok=True)
        start = time.monotonic()
        command = "factorize" if "--ratio" in options else "prune"
        run(arguments.ganglion, "model", command, arguments.model, pruned, *options.split(), "--calibrate", folder / "calibration.txt",
            "--calibrate-tokens", arguments.calibration_tokens, "-t", arguments.threads)
        seconds = round(time.monotonic() - start, 1)
        run(arguments.ganglion, "model", "quantize", pruned, file, "--type", "q8_0", "-t", arguments.threads)
        pruned.unlink()
        return seconds

    made = f"made {file.name}"
    if not file.exists():
        kept.all.pop(made, None)
    return file, kept.get(made, made_of, prune)


def quality(arguments, folder, kept, name, file, options):
    """Divergence from the source and answers of a file, and llama.cpp's perplexity of it where it can run it."""

    def measure():
        command = [arguments.ganglion, "model", "measure", file, "-t", arguments.threads, "--json", "--against", arguments.model, "--text", folder / "test.txt"]
        found = json.loads(run(*command, *(["--suite", arguments.suite] if arguments.suite else [])))
        found = {key: found[key] for key in QUALITY}
        if arguments.peer and "--ratio" not in options:
            found["llama_cpp_perplexity"] = peer_perplexity(arguments, file, folder / "test.txt")
        return found

    made_of = [identity(file), str(arguments.suite), arguments.test_bytes, str(arguments.peer)]
    return kept.get(f"quality of {name}", made_of, measure)


def peer_perplexity(arguments, file, test):
    command = [arguments.peer / "llama-perplexity", "-m", file, "-f", test, "-c", 512, "-t", arguments.threads]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    found = re.search(r"Final estimate: PPL = ([0-9.]+)", done.stdout + done.stderr)
    return float(found.group(1)) if found else None


def speeds(arguments, files):
    """Prefill and decode of each file: medians of runs in turn."""
    found = {file: [] for file in files}
    for turn in range(arguments.runs):
        print(f"speeds, {turn + 1} of {arguments.runs}", flush=True)
        for file in files:
            measured = json.loads(run(arguments.ganglion, "model", "measure", file, "--speed", "-t", arguments.threads, "--json"))
            found[file].append((measured["prefill_tokens_per_s"], measured["decode_tokens_per_s"]))
    return {file: tuple(statistics.median(column) for column in zip(*runs)) for file, runs in found.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ganglion", required=True, type=pathlib.Path, help="the program")
    parser.add_argument("--peer", type=pathlib.Path, help="llama.cpp's build/bin: its perplexity of each ordinary result beside ours")
    parser.add_argument("--model", default=pathlib.Path("models/nano/nano.gguf"), type=pathlib.Path)
    parser.add_argument("--suite", type=pathlib.Path, help="folder of suites; slow")
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--options", action="append", default=[], metavar="NAME=OPTIONS", help="another kind: 'mine=--layers 9 --ffn 0.1'")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--speed-only", action="store_true", help="measure no quality: for models of random weights; what --keep has of it is reported")
    what.add_argument("--no-speed", action="store_true", help="measure no speed: the machine is not idle")
    parser.add_argument("--runs", type=int, default=5, help="of each speed")
    parser.add_argument("--calibration-bytes", type=int, default=240_000)
    parser.add_argument("--calibration-tokens", type=int, default=65_536)
    parser.add_argument("--test-bytes", type=int, default=24_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--keep", type=pathlib.Path, help="folder for files and figures, which else go when all is done")
    parser.add_argument("--name", default="prune", help="of the files written")
    parser.add_argument("--out", default=pathlib.Path("docs/bench"), type=pathlib.Path)
    arguments = parser.parse_args()
    for option in arguments.options:
        if "=" not in option:
            parser.error(f"--options {option}: expected NAME=OPTIONS")
    with workplace(arguments.keep) as folder:
        measure(arguments, folder)


def measure(arguments, folder):
    kinds = {name: KINDS[name] for name in arguments.kinds}
    kinds.update(option.split("=", 1) for option in arguments.options)
    (folder / "calibration.txt").write_text(texts.text(501, arguments.calibration_bytes))
    (folder / "test.txt").write_text(texts.text(502, arguments.test_bytes))
    kept, before = Kept(folder), parameters(arguments.ganglion, arguments.model)
    rows, files = [], []
    for name, options in {"the source": "", **kinds}.items():
        print(name, flush=True)
        file, seconds = make(arguments, folder, kept, name, options) if options else (arguments.model, None)
        row = {"kind": name, "options": options, "layers_share": parameters(arguments.ganglion, file) / before, "size_bytes": file.stat().st_size, "seconds": seconds}
        if not arguments.speed_only:
            row.update(quality(arguments, folder, kept, name, file, options))
        else:
            known = kept.all.get(f"quality of {name}")
            row.update(known["found"] if known and known["made_of"][0] == identity(file) else {})
        rows.append(row)
        files.append(file)
    if not arguments.no_speed:
        fast = speeds(arguments, files)
        for row, file in zip(rows, files):
            row["prefill_tokens_per_s"], row["decode_tokens_per_s"] = fast[file]
            row["prefill_speed_up"], row["decode_speed_up"] = (own / source for own, source in zip(fast[file], fast[files[0]]))
    report(arguments, rows)


def report(arguments, rows):
    columns = [
        ("options", lambda row: f"`{row['options']}`" if row["options"] else ""),
        ("layers' parameters", lambda row: f"{row['layers_share']:.1%}"),
        ("bytes", lambda row: f"{row['size_bytes']:,}"),
        ("KL, mean", lambda row: f"{row['kl_mean']:.4f}"),
        ("same best token", lambda row: f"{row['top1_agreement']:.1%}"),
        ("right answers", lambda row: f"{row['suite_accuracy']:.2%}"),
        ("on recombined", lambda row: f"{row['suites']['recombined']:.2%}"),
        ("prefill", lambda row: f"{row['prefill_tokens_per_s']:,.0f}/s ({row['prefill_speed_up']:.2f}×)"),
        ("decode", lambda row: f"{row['decode_tokens_per_s']:,.0f}/s ({row['decode_speed_up']:.2f}×)"),
        ("perplexity", lambda row: f"{row['perplexity']:,.2f}"),
        ("llama.cpp's", lambda row: f"{row['llama_cpp_perplexity']:,.2f}"),
        ("seconds to make", lambda row: f"{row['seconds']:.1f}"),
    ]

    def cell(form, row):
        try:
            return form(row)
        except (KeyError, TypeError):
            return "–"

    known = [(title, form) for title, form in columns if any(cell(form, row) != "–" for row in rows)]
    lines = [
        f"# Pruning {arguments.model.stem}, measured",
        "",
        f"Made by `bench/compress/prune.py` on {arguments.model}, {arguments.threads} threads. Every result is stored as Q8_0. Speeds are medians of "
        f"{arguments.runs} runs in which the models take turns, and the factors are those to the source. KL in nats from the source on text of its generator.",
        "",
        "| kind | " + " | ".join(title for title, _ in known) + " |",
        "|---" * (len(known) + 1) + "|",
    ]
    lines += ["| " + " | ".join([row["kind"]] + [cell(form, row) for _, form in known]) + " |" for row in rows]
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / f"{arguments.name}.md").write_text("\n".join(lines) + "\n")
    (arguments.out / f"{arguments.name}.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
