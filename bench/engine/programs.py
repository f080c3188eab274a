"""The programs that are measured: each call runs one process and returns figures, or raises NotRun with the reason."""

import json
import os
import pathlib
import re
import statistics
import subprocess
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
# Nothing here takes so long; a program that hangs must not hang the whole comparison.
TIMEOUT_S = 3600


class NotRun(Exception):
    """The program did not give figures; the message says why."""


def run(command, env=None):
    """Standard output of a program that ends well. Reasons in NotRun hold no paths: they go into committed files."""
    environment = dict(os.environ, **(env or {}))
    command = [str(part) for part in command]
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotRun(without_folders(str(error))) from error
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no message"]
        # Programs say what is wrong first and where they were last.
        said = next((line for line in lines if "error" in line.lower()), lines[-1])
        raise NotRun(f"exit code {done.returncode}: {without_folders(said.strip())}")
    return done.stdout


def without_folders(text):
    """The text with paths cut down to their file names."""
    return re.sub(r"(?:/[^\s/:'\"]+)+/", "", text)


def last_object(text):
    """The JSON object in the last line that holds one."""
    for line in reversed(text.splitlines()):
        if line.startswith("{"):
            return json.loads(line)
    raise NotRun("no JSON object in its output")


class Ganglion:
    name = "ganglion"

    def __init__(self, program, threads):
        self.program, self.threads = program, threads

    def version(self):
        return run([self.program, "--version"]).strip()

    def bench(self, model, *arguments, env=None):
        command = [self.program, "bench", "engine", model, "-t", self.threads, "--json", *arguments]
        return last_object(run(command, env))

    def throughput(self, model, prompt, tokens, repeat):
        return self.bench(model, "-p", prompt, "-n", tokens, "--repeat", repeat)

    def latency(self, model, tokens, total):
        return self.bench(model, "-p", 1, "-n", tokens, "--repeat", 1, "--latency-tokens", total)

    def startup(self, model, context, env):
        return self.bench(model, "-p", 1, "-n", 1, "--repeat", 1, "-c", context, env=env)

    def memory(self, model, prompt, tokens, context, env):
        # Short passes, as sites use them: wide ones are faster and take more room for activations.
        more = ("-p", prompt, "-n", tokens, "-b", 64, "--repeat", 1, "-c", context)
        return self.bench(model, *more, env=env)


class LlamaCpp:
    name = "llama.cpp"

    def __init__(self, folder, threads):
        """`folder` holds llama-bench and the libraries, inside llama.cpp's source tree (…/build/bin)."""
        self.folder, self.threads = pathlib.Path(folder).resolve(), threads
        self.build = "unknown"
        self.scratch = tempfile.TemporaryDirectory(prefix="ganglion-bench-")
        self.latency_program = None

    def throughput(self, model, prompt, tokens, repeat):
        command = [self.folder / "llama-bench", "-m", model, "-p", prompt, "-n", tokens]
        tests = json.loads(run([*command, "-t", self.threads, "-r", repeat, "-o", "json"]))
        self.build = f"{tests[0]['build_number']} ({tests[0]['build_commit']})"
        prefill = next(test["samples_ts"] for test in tests if test["n_gen"] == 0)
        decode = next(test["samples_ts"] for test in tests if test["n_prompt"] == 0)
        return medians(prefill, decode)

    def stepper(self):
        """peer_latency.c, compiled once against this build."""
        if self.latency_program is None:
            source = self.folder.parent.parent
            program = pathlib.Path(self.scratch.name) / "peer_latency"
            link = [f"-L{self.folder}", "-lllama", "-lggml", "-lggml-base", f"-Wl,-rpath,{self.folder}"]
            include = [f"-I{source / 'include'}", f"-I{source / 'ggml' / 'include'}"]
            run(["cc", "-O2", "-std=c11", *include, HERE / "peer_latency.c", "-o", program, *link])
            self.latency_program = program
        return self.latency_program

    def latency(self, model, tokens, total):
        return last_object(run([self.stepper(), model, self.threads, tokens, tokens, total]))

    def startup(self, model, context):
        return last_object(run([self.stepper(), model, self.threads, context, 1, 1]))

    def memory(self, model, tokens, context):
        return last_object(run([self.stepper(), model, self.threads, context, tokens, tokens]))


class MistralRs:
    name = "mistral.rs"

    def __init__(self, python, threads):
        """`python` is an interpreter that has PyPI's mistralrs."""
        self.python, self.threads = python, threads
        self.build = "unknown"

    def throughput(self, model, prompt, tokens, repeat):
        command = [self.python, HERE / "mistral_bench.py", model, self.threads, prompt, tokens, repeat]
        report = last_object(run(command))
        self.build = report["version"]
        return medians(report["prefill_runs_tokens_per_s"], report["decode_runs_tokens_per_s"])


def medians(prefill, decode):
    return {
        "prefill_tokens_per_s": statistics.median(prefill),
        "decode_tokens_per_s": statistics.median(decode),
    }
