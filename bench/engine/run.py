#!/usr/bin/env python3
"""Measure ganglion's engine against llama.cpp (and mistral.rs) on the same files, in turn, and write down what came out.

usage: run.py --ganglion PROGRAM --peer DIR --models DIR [--mistral PYTHON] [--parts throughput startup memory latency]

Needs Python 3.9 and its standard library. README.md beside this file says what is measured and how.
"""

import argparse
import json
import os
import pathlib
import shutil
import tempfile

import machine
import models
import report
from programs import Ganglion, LlamaCpp, MistralRs, NotRun

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
CONTEXT = 512


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--ganglion", required=True, type=pathlib.Path, help="the program, built with --release")
    parser.add_argument("--peer", required=True, type=pathlib.Path, help="llama.cpp's build/bin, with llama-bench")
    parser.add_argument("--mistral", type=pathlib.Path, help="a Python that has mistralrs; left out without")
    parser.add_argument("--models", required=True, type=pathlib.Path, help="folder of the files that models.py makes")
    parser.add_argument("--out", type=pathlib.Path, default=REPOSITORY / "docs" / "bench", help="for engine.{json,md}")
    parser.add_argument("--parts", nargs="+", choices=report.PARTS, default=list(report.PARTS))
    parser.add_argument("--shapes", nargs="+", choices=models.SHAPES, default=list(models.SHAPES))
    parser.add_argument("--formats", nargs="+", choices=models.FORMATS, default=list(models.FORMATS))
    parser.add_argument("--mistral-shapes", nargs="*", choices=models.SHAPES, default=["1100m"])
    parser.add_argument("--latency-shapes", nargs="+", choices=models.SHAPES, default=["24m", "164m"])
    parser.add_argument("--latency-formats", nargs="+", choices=models.FORMATS, default=["q4_0"])
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--repeat", type=int, default=3, help="repetitions inside each run")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompt", type=int, default=256)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--latency-tokens", type=int, default=20000)
    parser.add_argument("--keep", action="store_true", help="keep the rows of an earlier run that this one does not make")
    return parser.parse_args()


class Comparison:
    def __init__(self, given):
        self.given = given
        self.ganglion = Ganglion(given.ganglion.resolve(), given.threads)
        self.llama = LlamaCpp(given.peer, given.threads)
        self.mistral = MistralRs(given.mistral, given.threads) if given.mistral else None
        self.file = given.out / "engine.json"
        self.results = {"parts": {}}
        if given.keep and self.file.is_file():
            self.results = json.loads(self.file.read_text())
        keys = ("threads", "prompt", "tokens", "pairs", "repeat", "latency_tokens")
        command = "bench/engine/run.py --ganglion PROGRAM --peer DIR --models DIR"
        command += " --mistral PYTHON" if self.mistral else ""
        self.results["settings"] = {"command": command, "context": CONTEXT, **{key: getattr(given, key) for key in keys}}
        self.results["environment"] = machine.environment(self.ganglion.version())

    def put(self, part, name, row):
        """Keeps a row and writes everything so far: a run that is cut off loses one row."""
        self.results["parts"].setdefault(part, {})[name] = row
        self.results["environment"]["llama.cpp"] = self.llama.build
        if self.mistral:
            self.results["environment"]["mistral.rs"] = self.mistral.build
        self.given.out.mkdir(parents=True, exist_ok=True)
        self.file.write_text(json.dumps(self.results, indent=1) + "\n")
        self.file.with_suffix(".md").write_text(report.markdown(self.results))
        why = report.reason(row)
        print(f"{part} {name}: {why or 'done'}", flush=True)

    def files(self, shapes, formats):
        """Name, shape, format and path of every file asked for."""
        for shape in shapes:
            for fmt in formats:
                yield f"{shape} {fmt.upper()}", shape, fmt, models.path(self.given.models, shape, fmt)

    def throughput(self):
        given = self.given
        for name, shape, fmt, path in self.files(given.shapes, given.formats):
            programs = [self.ganglion, self.llama]
            if self.mistral and shape in given.mistral_shapes:
                programs.append(self.mistral)
            row = {"shape": shape, "format": fmt, "pairs": [], "not_run": {}}
            for _ in range(given.pairs):
                pair = {}
                for program in programs:
                    if program.name in row["not_run"]:
                        continue
                    try:
                        pair[program.name] = program.throughput(path, given.prompt, given.tokens, given.repeat)
                    except NotRun as why:
                        row["not_run"][program.name] = str(why)
                row["pairs"].append(pair)
            for pair in row["pairs"]:
                pair.get("ganglion", {}).pop("model", None)
            self.put("throughput", name, row)

    def startup(self):
        for name, shape, fmt, path in self.files(["1100m"], self.given.formats):
            row = {"pairs": [], "not_run": {}}
            try:
                self.ganglion.bench(path, "-p", 1, "-n", 1, "--repeat", 1)  # the page cache is warm from here on
                for _ in range(self.given.pairs):
                    with Fresh(path) as fresh:
                        pair = {
                            key: self.ganglion.startup(fresh.model, CONTEXT, fresh.env)
                            for key in ("without_cache", "with_cache")
                        }
                    pair["llama.cpp"] = self.llama.startup(path, CONTEXT)
                    for figures in pair.values():
                        figures.pop("model", None)
                    row["pairs"].append(pair)
            except NotRun as why:
                row["not_run"]["either"] = str(why)
            self.put("startup", name, row)

    def memory(self):
        given = self.given
        for name, _, _, path in self.files(["1100m"], given.formats):
            row = {"not_run": {}}
            with Fresh(path) as fresh:
                try:
                    self.ganglion.startup(fresh.model, CONTEXT, fresh.env)  # leaves the cache of repacked weights
                    ours = self.ganglion.memory(fresh.model, given.prompt, given.tokens, CONTEXT, fresh.env)
                    ours.pop("model")
                    row["ganglion"] = ours
                except NotRun as why:
                    row["not_run"]["ganglion"] = str(why)
            try:
                row["llama.cpp"] = self.llama.memory(path, given.tokens, CONTEXT)
            except NotRun as why:
                row["not_run"]["llama.cpp"] = str(why)
            self.put("memory", name, row)

    def latency(self):
        given = self.given
        for name, _, _, path in self.files(given.latency_shapes, given.latency_formats):
            row = {"pairs": [], "not_run": {}}
            try:
                row["pairs"].append(
                    {
                        "ganglion": self.ganglion.latency(path, given.tokens, given.latency_tokens),
                        "llama.cpp": self.llama.latency(path, given.tokens, given.latency_tokens),
                    }
                )
                row["pairs"][0]["ganglion"].pop("model")
            except NotRun as why:
                row["not_run"]["either"] = str(why)
            self.put("latency", name, row)


class Fresh:
    """A folder where ganglion finds the model, but no cache of repacked weights: neither beside it nor in the user's cache."""

    def __init__(self, path):
        self.path = path

    def __enter__(self):
        # On the model's own file system, so that the link costs no copy.
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="ganglion-bench-", dir=self.path.parent))
        self.model = self.folder / self.path.name
        if self.path.is_file():
            os.link(self.path, self.model)
        self.env = {"XDG_CACHE_HOME": str(self.folder / "cache")}
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.folder)


def main():
    given = arguments()
    comparison = Comparison(given)
    for part in given.parts:
        getattr(comparison, part)()
    print(comparison.file.with_suffix(".md"))


if __name__ == "__main__":
    main()
