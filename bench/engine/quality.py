#!/usr/bin/env python3
"""Perplexity and divergence from F32 for every block format, by ganglion and by llama.cpp on the same files.

Quantises a model with llama-quantize, lets both programs read the same text, and writes a table.
"""
import argparse
import json
import pathlib
import re
import subprocess
import tempfile

FORMATS = ["Q8_0", "Q6_K", "Q5_K", "Q5_1", "Q5_0", "Q4_K", "Q4_1", "Q4_0", "IQ4_NL", "Q3_K", "Q2_K"]
# llama-quantize names mixtures for some; --pure makes them plain.
MIXTURE = {"Q5_K": "Q5_K_M", "Q4_K": "Q4_K_M", "Q3_K": "Q3_K_M"}


def run(*command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{command[0]} ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout + done.stderr


def run_until(pattern, *command, tries=6):
    """llama-perplexity now and then ends without the last lines of its log."""
    for _ in range(tries):
        text = run(*command)
        if re.search(pattern, text):
            break
    return text


def number(pattern, text):
    found = re.search(pattern, text)
    if not found:
        raise SystemExit(f"no {pattern!r} in:\n{text[-2000:]}")
    return float(found.group(1))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ganglion", required=True, type=pathlib.Path, help="the program")
    parser.add_argument("--peer", required=True, type=pathlib.Path, help="llama.cpp's build/bin")
    parser.add_argument("--model", default="models/nano/nano.gguf", type=pathlib.Path)
    parser.add_argument("--text", required=True, type=pathlib.Path, help="text file")
    parser.add_argument("--bytes", type=int, default=40_000, help="of the text, from its beginning")
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--out", default="docs/bench", type=pathlib.Path)
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        text = folder / "text.txt"
        text.write_bytes(arguments.text.read_bytes()[: arguments.bytes].decode(errors="ignore").encode())
        exact = folder / "f32.gguf"
        quantize = arguments.peer / "llama-quantize"
        run(quantize, "--allow-requantize", arguments.model, exact, "F32", 2)
        perplexity = [arguments.peer / "llama-perplexity", "-f", text, "-c", arguments.context, "-t", 2]
        base = folder / "logits.bin"
        final = r"PPL = ([0-9.]+)"
        peer_f32 = number(final, run_until(final, *perplexity, "-m", exact, "--kl-divergence-base", base))

        def ours(file):
            measure = [arguments.ganglion, "model", "measure", file, "--against", exact, "--text", text]
            return json.loads(run(*measure, "-c", arguments.context, "-t", 2, "--json").splitlines()[0])

        found = ours(exact)
        rows.append({"format": "F32", "ganglion": found["perplexity"], "llama_cpp": peer_f32})
        for name in FORMATS:
            file = folder / f"{name}.gguf"
            run(quantize, "--pure", exact, file, MIXTURE.get(name, name), 2)
            found = ours(file)
            command = [*perplexity, "-m", file, "--kl-divergence-base", base, "--kl-divergence"]
            peer = run_until(r"Same top p:", *command)
            rows.append({
                "format": name,
                "ganglion": found["perplexity"],
                "llama_cpp": number(r"Mean PPL\(Q\)\s*:\s*([0-9.]+)", peer),
                "ganglion_kl": found["kl_mean"],
                "llama_cpp_kl": number(r"Mean\s+KLD:\s*([0-9.]+)", peer),
                "llama_cpp_kl_error": number(r"Mean\s+KLD:\s*[0-9.]+\s*±\s*([0-9.]+)", peer),
                "ganglion_top1": found["top1_agreement"],
                "llama_cpp_top1": number(r"Same top p:\s*([0-9.]+)", peer) / 100,
            })
            print(rows[-1], flush=True)
            file.unlink()
    name = arguments.text.name
    head = [
        "# Quality of the formats, measured",
        "",
        f"Made by `bench/engine/quality.py --ganglion PROGRAM --peer DIR --text {name}` on {arguments.model}: the first "
        f"{arguments.bytes:,} bytes of {name} in windows of {arguments.context} tokens, files quantised by llama-quantize, KL to the F32 file "
        "in nats. The model is a specialist for commands: its perplexity on other text says nothing, the differences do.",
        "",
        "| format | perplexity, ganglion | llama.cpp | KL to F32, ganglion | llama.cpp | same best token, ganglion | llama.cpp |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [row["format"], f"{row['ganglion']:,.1f}", f"{row['llama_cpp']:,.1f}"]
        if "ganglion_kl" in row:
            error = f"{row['llama_cpp_kl']:.5f} ± {row['llama_cpp_kl_error']:.5f}"
            cells += [f"{row['ganglion_kl']:.5f}", error, f"{row['ganglion_top1']:.1%}", f"{row['llama_cpp_top1']:.1%}"]
        else:
            cells += ["–"] * 4
        head.append("| " + " | ".join(cells) + " |")
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "quality.md").write_text("\n".join(head) + "\n")
    (arguments.out / "quality.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
