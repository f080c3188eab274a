#!/usr/bin/env python3
"""Times `ganglion model quantize` and llama-quantize on one model, in turn, and writes the medians.

The source is stored as F16 first, so that both read the same bytes; both round to nearest without a calibration text. A file of random weights
in a real shape will do: time does not depend on what the weights are. Needs no packages, an idle machine, and room for three files.
"""
import argparse
import json
import pathlib
import statistics
import tempfile
import time

from common import run


def seconds(*command):
    start = time.monotonic()
    run(*command)
    return time.monotonic() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ganglion", required=True, type=pathlib.Path, help="the program")
    parser.add_argument("--peer", required=True, type=pathlib.Path, help="llama.cpp's build/bin")
    parser.add_argument("--model", required=True, type=pathlib.Path, help="GGUF file")
    parser.add_argument("--types", nargs="+", default=["q4_k_m"])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--scratch", type=pathlib.Path, help="folder for the files, which go when all is done")
    parser.add_argument("--out", default=pathlib.Path("docs/bench/compress-seconds.json"), type=pathlib.Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as folder:
        source, ours, theirs = (pathlib.Path(folder) / name for name in ["f16.gguf", "ours.gguf", "theirs.gguf"])
        quantize = [arguments.ganglion, "model", "quantize"]
        seconds(*quantize, arguments.model, source, "--type", "f16")
        rows = []
        for kind in arguments.types:
            runs = []
            for _ in range(arguments.runs):
                ours.unlink(missing_ok=True)
                mine = seconds(*quantize, source, ours, "--type", kind, "--method", "rtn", "-t", arguments.threads)
                peer = seconds(arguments.peer / "llama-quantize", source, theirs, kind.upper(), arguments.threads)
                runs.append((mine, peer))
                print(f"{kind}: {mine:.1f} s, llama-quantize {peer:.1f} s", flush=True)
            mine, peer = (statistics.median(column) for column in zip(*runs))
            rows.append({
                "model": arguments.model.stem, "type": kind, "threads": arguments.threads, "runs": arguments.runs, "seconds": round(mine, 2),
                "llama_quantize_seconds": round(peer, 2), "ratio": round(statistics.median(a / b for a, b in runs), 3),
                "bytes": ours.stat().st_size, "llama_quantize_bytes": theirs.stat().st_size,
            })
            arguments.out.write_text(json.dumps(rows, indent=1) + "\n")
    print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
