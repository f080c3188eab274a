#!/usr/bin/env python3
"""Tokens a second of one model in every type, in turn, with the factor to Q8_0. A file of random weights in a real shape will do.

Every file is rounded to nearest; the sparse types take a copy of which half is pruned by magnitude. Speeds are medians of runs in which the
types take turns. Needs no packages, and an idle machine. With --keep DIR what exists there is not made again.
"""
import argparse
import json
import os
import pathlib
import statistics
import tempfile

import texts
from common import run, workplace

TYPES = ["q8_0", "q4_k_m", "q4_0", "q3_k_m", "q2_k", "int8", "fp8", "nf4", "t4", "t3", "t2", "sparse8", "sparse4"]


def make(arguments, folder):
    """A file of each type."""
    model = [arguments.ganglion, "model"]
    files = {}
    for kind in arguments.types:
        source, file = arguments.model, folder / f"{arguments.model.stem}-{kind}.gguf"
        if not file.exists():
            print(file.stem, flush=True)
            if kind.startswith("sparse"):
                source, text = folder / f"{arguments.model.stem}-half.gguf", folder / "text.txt"
                text.write_text(texts.text(501, 20_000))
                if not source.exists():
                    sparse = ["--sparsity", "16:32", "--method", "magnitude", "--calibrate-tokens", "128", "-c", "64"]
                    run(*model, "prune", arguments.model, source, "--calibrate", text, *sparse)
            run(*model, "quantize", source, file, "--type", kind, "--method", "rtn")
        files[kind] = file
    return files


def measure(arguments, files):
    rows = []
    for threads in arguments.threads:
        found = {kind: [] for kind in files}
        for _ in range(arguments.runs):
            for kind, file in files.items():
                report = json.loads(run(arguments.ganglion, "bench", "engine", file, "-p", 256, "-n", 64, "-t", threads, "--repeat", 1, "--json"))
                found[kind].append((report["prefill_tokens_per_s"], report["decode_tokens_per_s"]))
        median = {kind: tuple(statistics.median(column) for column in zip(*runs)) for kind, runs in found.items()}
        first = median[next(iter(median))]
        for kind, (prefill, decode) in median.items():
            row = {"type": kind, "threads": threads, "bytes": files[kind].stat().st_size}
            row.update({"prefill_tokens_per_s": prefill, "decode_tokens_per_s": decode})
            row.update({"prefill_factor": prefill / first[0], "decode_factor": decode / first[1]})
            rows.append(row)
    return rows


def report(arguments, rows):
    lines = [
        f"# Speed of {arguments.model.stem} by type",
        "",
        f"Made by `bench/compress/speed.py`: 256 tokens at once, then 64 one by one; medians of {arguments.runs} runs in which the types take "
        f"turns, and factors to {rows[0]['type'].upper()}. The sparse types hold 16 of each 32 values.",
        "",
        "| type | threads | bytes | prefill | decode |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        prefill, decode = (f"{row[f'{key}_tokens_per_s']:,.0f}/s ({row[f'{key}_factor']:.2f}×)" for key in ["prefill", "decode"])
        lines.append(f"| {row['type']} | {row['threads']} | {row['bytes']:,} | {prefill} | {decode} |")
    arguments.out.mkdir(parents=True, exist_ok=True)
    name = f"compress-speed-{arguments.model.stem.split('-')[0]}"
    (arguments.out / f"{name}.md").write_text("\n".join(lines) + "\n")
    (arguments.out / f"{name}.json").write_text(json.dumps(rows, indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ganglion", required=True, type=pathlib.Path, help="the program")
    parser.add_argument("--model", required=True, type=pathlib.Path, help="GGUF file")
    parser.add_argument("--types", nargs="+", default=TYPES)
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--keep", type=pathlib.Path, help="folder for the files, which else go when all is done")
    parser.add_argument("--make-only", action="store_true", help="with --keep: measure another time")
    parser.add_argument("--out", default=pathlib.Path("docs/bench"), type=pathlib.Path)
    arguments = parser.parse_args()
    with workplace(arguments.keep) as folder:
        files = make(arguments, folder)
        if arguments.make_only:
            return
        # Packed weights that have lain in a cache for long are read at other speeds than new ones.
        with tempfile.TemporaryDirectory() as cache:
            os.environ["XDG_CACHE_HOME"] = cache
            report(arguments, measure(arguments, files))


if __name__ == "__main__":
    main()
