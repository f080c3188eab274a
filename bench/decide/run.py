#!/usr/bin/env python3
"""Measure event to command against a llama-server on the same files, in turn, and write down what came out.

usage: run.py --ganglion PROGRAM --peer DIR --models DIR

Needs Python 3.9; the first run, which gives the 164m models a real vocabulary, also PyPI's numpy and gguf. README.md beside
this file says what is measured and how.
"""

import argparse
import contextlib
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
sys.path.insert(0, str(HERE.parent / "engine"))
import machine  # noqa: E402
import models  # noqa: E402

import tables  # noqa: E402

SHAPE = "164m"
CONTEXT = 1024
START_S_MAX = 120
RUN_S_MAX = 1800


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--ganglion", required=True, type=pathlib.Path, help="the program, built with --release")
    parser.add_argument("--peer", required=True, type=pathlib.Path, help="llama.cpp's build/bin, with llama-server")
    parser.add_argument("--models", required=True, type=pathlib.Path, help="folder of the files that bench/engine/models.py makes")
    parser.add_argument("--out", type=pathlib.Path, default=REPOSITORY / "docs" / "bench", help="for decide*.{json,md,hgrm,svg}")
    parser.add_argument("--formats", nargs="*", choices=models.FORMATS, default=["q8_0", "q4_0"], help=f"of the {SHAPE} shape")
    parser.add_argument("--large-vocabulary", type=pathlib.Path, help="GGUF; by default llama.cpp's models/ggml-vocab-qwen2.gguf")
    parser.add_argument("--share", type=float, default=1.0, help="of the counts, for a trial")
    return parser.parse_args()


def tool(program, *command):
    """What a program of ours prints as its last line, as JSON."""
    command = [str(program), *map(str, command), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_S_MAX)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def with_vocabulary(given, fmt):
    """The model file of this format with GPT-2's vocabulary, made if it is not there."""
    source = models.path(given.models, SHAPE, fmt)
    target = source.with_name(f"{SHAPE}-gpt2-{fmt}.gguf")
    if not target.is_file():
        vocabulary = given.peer.resolve().parents[1] / "models" / "ggml-vocab-gpt-2.gguf"
        subprocess.run([sys.executable, str(HERE / "model.py"), str(source), str(vocabulary), str(target)], check=True)
    return target


@contextlib.contextmanager
def server(given, model):
    """A llama-server with one slot, as many threads as processors, and no cache beside the slot's own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    threads = str(os.cpu_count())
    command = [given.peer / "llama-server", "-m", model, "--host", "127.0.0.1", "--port", port, "-c", CONTEXT]
    command += ["-np", 1, "-t", threads, "-tb", threads, "-cram", 0]
    environment = dict(os.environ, LD_LIBRARY_PATH=str(given.peer))
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen([str(part) for part in command], stdout=log, stderr=log, env=environment)
        try:
            url = f"http://127.0.0.1:{port}"
            wait(process, url, log)
            yield url
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait(process, url, log):
    end = time.monotonic() + START_S_MAX
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(url + "/health", timeout=2) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    log.seek(0)
    sys.exit(f"llama-server did not start:\n{log.read()[-2000:].decode(errors='replace')}")


def main():
    given = arguments()
    given.ganglion, given.peer = given.ganglion.resolve(), given.peer.resolve()
    given.out.mkdir(parents=True, exist_ok=True)
    version = subprocess.run([str(given.ganglion), "--version"], capture_output=True, text=True, check=True).stdout.strip()
    results = {
        "command": "bench/decide/run.py --ganglion PROGRAM --peer DIR --models DIR",
        "environment": machine.environment(version),
        "cases": {},
        "masks": [],
    }
    few = lambda count: max(4, int(count * given.share))
    cases = [("nano", REPOSITORY / "models" / "nano" / "nano.gguf", 4000, 200, 40)]
    cases += [(f"{SHAPE}-{fmt}", with_vocabulary(given, fmt), 500, 60, 10) for fmt in given.formats]
    site = HERE / "site"
    for name, model, count, peer_count, cold_count in cases:
        with server(given, model) as url:
            command = ["bench", "decide", site, "--model", model, "-n", few(count), "--no-memo", "--peer", url]
            command += ["--peer-count", few(peer_count), "--cold-count", few(cold_count)]
            results["cases"][name] = tool(given.ganglion, *command, "--out", given.out / f"decide-{name}")
        # The big table has these figures.
        for ending in ("json", "md"):
            (given.out / f"decide-{name}.{ending}").unlink()
        results["cases"][name]["peer"].pop("url")
        print(f"{name}: done", flush=True)
    # More than there are sentences.
    results["repeats"] = tool(given.ganglion, "bench", "decide", site, "-n", max(2000, few(10000)))
    large = given.large_vocabulary or given.peer.parents[1] / "models" / "ggml-vocab-qwen2.gguf"
    for folder in [site, *sorted(path.parent for path in (REPOSITORY / "examples").glob("*/site.toml"))]:
        for vocabulary in ([], ["--vocabulary", large]):
            results["masks"].append(tool(given.ganglion, "bench", "masks", folder, "-n", few(1_000_000), *vocabulary))
    (given.out / "decide.json").write_text(json.dumps(results, indent=1) + "\n")
    (given.out / "decide.md").write_text(tables.markdown(results))
    print(f"wrote {given.out / 'decide.md'}")


if __name__ == "__main__":
    main()
