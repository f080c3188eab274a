#!/usr/bin/env python3
"""Compares this program's quantisers with the reference tools of the same methods at the same bits, on the same model and text, in one table.

GPTQ and AWQ by llmcompressor, AutoRound by auto-round, HQQ by hqq, NF4 by bitsandbytes; llama-quantize with --peer. All run on the CPU:

    python3 -m venv venv && venv/bin/pip install -r bench/compress/reference-requirements.txt
    venv/bin/python bench/compress/reference.py --ganglion target/release/ganglion

The tools leave the embedding and the output matrix alone. So does this program here, and only the matrices that are quantised count in the
bits a weight. With --keep DIR what exists there is not made again.
"""
import argparse
import json
import pathlib
import time

import texts
from common import run, workplace

WINDOW_TOKENS = 512
# KL of transformers and of this program may differ by this share, and by this much near zero.
AGREEMENT, AGREEMENT_LEAST = 0.01, 1e-4
# Bits, values of a group, whether groups are symmetric: as the tools name them.
FORMS = [(4, 32, True), (4, 128, False), (3, 32, False), (3, 128, False), (2, 32, False), (2, 128, False)]
HQQ_FORMS = [(4, 32), (4, 64), (3, 32), (3, 64), (2, 32), (2, 64)]
# This program's types of each number of bits, with the methods that it has for them.
OWN = {
    4: {
        "q4_0": "rtn gptq awq autoround",
        "q4_1": "hqq gptq",
        "q4_k": "imatrix gptq",
        "nf4": "rtn gptq",
        "t4": "trellis",
    },
    3: {"q3_k": "imatrix gptq awq autoround", "t3": "trellis"},
    2: {"q2_k": "imatrix gptq awq autoround hqq", "t2": "trellis"},
}
NO_DATA = {"rtn", "hqq"}
PEER_TYPES = {4: ["q4_0", "q4_k"], 3: ["q3_k"], 2: ["q2_k"]}


class Windows:
    """A text's token windows: each begins with the same token, a few are spread over the text (as `--calibrate-tokens` does)."""

    def __init__(self, tokenizer, text, tokens_max=None):
        ids = tokenizer(text)["input_ids"]
        count = len(ids) // WINDOW_TOKENS
        chosen = range(count)
        if tokens_max and tokens_max // WINDOW_TOKENS < count:
            wanted = tokens_max // WINDOW_TOKENS
            chosen = [i * count // wanted for i in range(wanted)]
        self.rows = [ids[:1] + ids[i * WINDOW_TOKENS + 1 : (i + 1) * WINDOW_TOKENS] for i in chosen]


def linears(model):
    """The matrices that are quantised: all but embedding and head."""
    import torch

    return {name: part for name, part in model.named_modules() if isinstance(part, torch.nn.Linear) and name != "lm_head"}


def llmcompressor(model, windows, form, method):
    import datasets
    import torch
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from compressed_tensors.quantization.lifecycle.forward import fake_quantize
    from llmcompressor import oneshot
    from llmcompressor.modifiers.quantization import GPTQModifier, QuantizationModifier
    from llmcompressor.modifiers.transform.awq import AWQModifier

    # AWQModifier pins memory for an accelerator whether there is one or not.
    torch.Tensor.pin_memory = lambda tensor, *_: tensor
    bits, group, symmetric = form
    weights = QuantizationArgs(num_bits=bits, type="int", symmetric=symmetric, strategy="group", group_size=group)
    groups = {"config_groups": {"all": QuantizationScheme(targets=["Linear"], weights=weights)}, "ignore": ["lm_head"]}
    recipe = {"gptq": lambda: [GPTQModifier(**groups)], "awq": lambda: [AWQModifier(), QuantizationModifier(**groups)]}
    rows = windows.rows
    data = datasets.Dataset.from_dict({"input_ids": rows, "attention_mask": [[1] * WINDOW_TOKENS] * len(rows)})
    options = {"max_seq_length": WINDOW_TOKENS, "num_calibration_samples": len(rows), "shuffle_calibration_samples": False}
    oneshot(model=model, dataset=data, recipe=recipe[method](), batch_size=8, **options)
    for part in linears(model).values():
        part.weight.data = fake_quantize(part.weight.data, part.weight_scale, getattr(part, "weight_zero_point", None), weights)
    return model, bits + (16 + (0 if symmetric else bits)) / group


def autoround(model, windows, form, tokenizer):
    import torch
    from auto_round import AutoRound

    bits, group, symmetric = form
    data = [torch.tensor([row]) for row in windows.rows]
    sizes = {"bits": bits, "group_size": group, "sym": symmetric, "nsamples": len(data), "seqlen": WINDOW_TOKENS}
    rounding = AutoRound(model, tokenizer, dataset=data, device_map="cpu", amp=False, enable_torch_compile=False, **sizes)
    model, _ = rounding.quantize()
    return model, bits + (16 + (0 if symmetric else bits)) / group


def hqq(model, form):
    from hqq.core.quantize import Quantizer

    bits, group = form
    for part in linears(model).values():
        options = {"nbits": bits, "group_size": group, "axis": 1, "device": "cpu", "bitpack": False}
        quants, meta = Quantizer.quantize(part.weight.data, **options)
        part.weight.data = Quantizer.dequantize(quants.float(), {**meta, "compute_dtype": part.weight.dtype})
    return model, bits + 32 / group


def nf4(model):
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    for part in linears(model).values():
        stored = quantize_4bit(part.weight.data, blocksize=64, quant_type="nf4", compress_statistics=True)
        part.weight.data = dequantize_4bit(*stored).to(part.weight.dtype)
    return model, 4 + 8 / 64 + 32 / (64 * 256)


def form_name(form):
    bits, group, *symmetric = form
    return f"int{bits} g{group}" + ("" if not symmetric else " symmetric" if symmetric[0] else " asymmetric")


def tool_variants(tokenizer):
    """(bits, program, method, form, job of a model and the calibration windows)."""
    for form in FORMS:
        for method in ["gptq", "awq"]:
            yield form[0], "llmcompressor", method, form_name(form), lambda m, w, f=form, k=method: llmcompressor(m, w, f, k)
    for form in FORMS:
        yield form[0], "auto-round", "autoround", form_name(form), lambda m, w, f=form: autoround(m, w, f, tokenizer)
    for form in HQQ_FORMS:
        yield form[0], "hqq", "hqq", form_name(form), lambda m, w, f=form: hqq(m, f)
    yield 4, "bitsandbytes", "rtn", "nf4 g64", lambda m, w: nf4(m)


class Bench:
    def __init__(self, arguments, folder):
        import torch
        from transformers import AutoTokenizer

        torch.set_num_threads(arguments.threads)
        self.arguments, self.folder, self.rows, self.failed = arguments, folder, [], []
        self.ganglion = [arguments.ganglion, "model"]
        self.exact, self.plain = folder / "f32.gguf", folder / "f32"
        self.calibration, self.test = folder / "calibration.txt", folder / "test.txt"
        self.calibration.write_text(texts.text(501, arguments.calibration_bytes))
        self.test.write_text(texts.text(502, arguments.test_bytes))
        if not self.exact.exists():
            run(*self.ganglion, "quantize", arguments.model, self.exact, "--type", "f32")
        if not self.plain.exists():
            run(*self.ganglion, "export", self.exact, self.plain, "--dtype", "f32")
        self.tokenizer = AutoTokenizer.from_pretrained(self.plain)
        self.windows = Windows(self.tokenizer, self.calibration.read_text(), arguments.calibration_tokens)

    def load(self, folder):
        import torch
        from transformers import AutoModelForCausalLM

        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def logits(self, model):
        """Log-probabilities where the second halves of the test's windows are predicted: (tokens, vocabulary)."""
        import torch

        with torch.no_grad():
            windows = Windows(self.tokenizer, self.test.read_text()).rows
            found = [model(torch.tensor([row])).logits[0, WINDOW_TOKENS // 2 : -1].float().log_softmax(-1) for row in windows]
        return torch.cat(found)

    def add(self, bits, program, method, form, make):
        """Makes `FOLDER/NAME.gguf` by `make(file)`, which gives the bits of a weight and more; both stay in a file beside it."""
        name = "-".join([program, method, form]).replace(" ", "-")
        file, facts = self.folder / f"{name}.gguf", self.folder / f"{name}.json"
        if not (file.exists() and facts.exists()):
            print(name, flush=True)
            start = time.monotonic()
            found = make(file)
            found["seconds"] = round(time.monotonic() - start, 1)
            facts.write_text(json.dumps(found))
        row = {"bits": bits, "program": program, "method": method, "form": form, **json.loads(facts.read_text())}
        self.rows.append((file, row))

    def add_tool(self, bits, program, method, form, job):
        import torch

        def make(file):
            torch.manual_seed(0)
            model, weight_bits = job(self.load(self.plain), self.windows)
            exact, dense = self.load(self.plain), self.load(self.plain)
            names = exact.state_dict().keys()
            exact.load_state_dict({key: value.float() for key, value in model.state_dict().items() if key in names})
            parts = linears(exact)
            changed = sum(not torch.equal(part.weight, parts[key].weight) for key, part in linears(dense).items())
            assert changed == len(parts), f"{changed} of {len(parts)} matrices were quantised"
            folder = file.with_suffix("")
            exact.save_pretrained(folder)
            for part in ["tokenizer.json", "tokenizer_config.json"]:
                (folder / part).write_bytes((self.plain / part).read_bytes())
            run(*self.ganglion, "quantize", folder, file, "--type", "f32")
            ours, theirs = self.logits(dense), self.logits(exact)
            divergence = (ours.exp() * (ours - theirs)).sum(-1).mean().item()
            (folder / "model.safetensors").unlink()
            return {"quantised_bits_per_weight": weight_bits, "kl_mean_transformers": divergence}

        try:
            self.add(bits, program, method, form, make)
        except Exception as error:  # noqa: BLE001: whatever a tool may raise, the others have their turn
            print(f"{program} {method} {form}: {error!r}", flush=True)
            self.failed.append(f"{program} {method} {form} ({type(error).__name__})")

    def add_own(self, bits, form, method):
        def make(file):
            text = [] if method in NO_DATA else ["--calibrate", self.calibration, "--calibrate-tokens", self.arguments.calibration_tokens]
            left = ["--tensor-type", "token_embd=f32", "--tensor-type", "output.weight=f32", "--tensor-type", f"attn_output={form}"]
            options = ["--type", form, "--pure", *left, "--method", method, "-t", self.arguments.threads]
            run(*self.ganglion, "quantize", self.exact, file, *options, *text)
            return {"quantised_bits_per_weight": self.stored_bits(file)}

        self.add(bits, "ganglion", method, form.upper(), make)

    def add_peer(self, bits, form):
        def make(file):
            matrix = self.folder / "matrix.imatrix"
            if not matrix.exists():
                run(self.arguments.peer / "llama-imatrix", "-m", self.exact, "-f", self.calibration, "-o", matrix, "-t", self.arguments.threads)
            left = ["--token-embedding-type", "f32", "--output-tensor-type", "f32", "--pure"]
            run(self.arguments.peer / "llama-quantize", "--imatrix", matrix, *left, self.exact, file, form.upper(), self.arguments.threads)
            return {"quantised_bits_per_weight": self.stored_bits(file)}

        self.add(bits, "llama.cpp", "imatrix", form.upper(), make)

    def stored_bits(self, file):
        """Bits of a weight over the matrices of the layers, from the file's header."""
        header = json.loads(run(*self.ganglion, "inspect", file, "--json"))
        found = [tensor for tensor in header["tensors"] if tensor["name"].startswith("blk.") and len(tensor["shape"]) == 2]
        bits = sum(tensor["size_bytes"] * 8 for tensor in found)
        return bits / sum(tensor["shape"][0] * tensor["shape"][1] for tensor in found)

    def measure(self):
        files = [file for file, _ in self.rows]
        command = [*self.ganglion, "measure", *files, "--against", self.exact, "--text", self.test, "--kv", "f32", "-t", self.arguments.threads]
        found = json.loads(run(*command, "--json"))
        for measured, (_, row) in zip(found if isinstance(found, list) else [found], self.rows):
            row.update({key: measured[key] for key in ["kl_mean", "kl_p99", "top1_agreement", "perplexity"]})
            other = row.get("kl_mean_transformers")
            if other is not None and abs(other - row["kl_mean"]) > max(AGREEMENT * other, AGREEMENT_LEAST):
                raise SystemExit(f"{row}: transformers and this program disagree about the same weights")
        return [row for _, row in self.rows]


def report(arguments, rows, failed):
    checked = [row for row in rows if row.get("kl_mean_transformers")]
    apart = max((abs(row["kl_mean_transformers"] / row["kl_mean"] - 1) for row in checked), default=0)
    lines = [
        "# Compression against reference tools",
        "",
        f"Made by `bench/compress/reference.py` on {arguments.model}, with the versions of `bench/compress/reference-requirements.txt`. Every "
        f"method that needs data reads the same {arguments.calibration_tokens:,} tokens (windows of {WINDOW_TOKENS}). The tools leave the "
        "embedding and the output matrix alone, so all programs do here (F32), and bits a weight count what the matrices of the layers take: "
        "quants, scales and zero points, scales at 16 bits. KL in nats from the model in F32, over the second halves of windows of "
        f"{WINDOW_TOKENS} tokens of other text. The tools' weights are measured dequantised, by this program; transformers, which reads them from "
        f"the same folder, finds the same KL ({apart:.2%} apart at most).",
    ]
    if failed:
        lines += ["", f"Did not run here: {', '.join(failed)}."]
    columns = [("bits a weight", "quantised_bits_per_weight", "{:.3f}"), ("KL, mean", "kl_mean", "{:.5f}"), ("KL, 99 %", "kl_p99", "{:.3f}")]
    columns += [("same best token", "top1_agreement", "{:.1%}"), ("perplexity", "perplexity", "{:.0f}"), ("seconds to make", "seconds", "{:.0f}")]
    for bits in sorted({row["bits"] for row in rows}, reverse=True):
        lines += ["", f"## {bits} bits", "", "| " + " | ".join(["program", "method", "form"] + [title for title, *_ in columns]) + " |"]
        lines.append("| " + " | ".join(["---"] * (3 + len(columns))) + " |")
        for row in sorted((row for row in rows if row["bits"] == bits), key=lambda row: row["kl_mean"]):
            name = "**ganglion**" if row["program"] == "ganglion" else row["program"]
            lines.append("| " + " | ".join([name, row["method"], row["form"]] + [form.format(row[key]) for _, key, form in columns]) + " |")
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "compress-reference.md").write_text("\n".join(lines) + "\n")
    (arguments.out / "compress-reference.json").write_text(json.dumps(rows, indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ganglion", required=True, type=pathlib.Path, help="the program")
    parser.add_argument("--peer", type=pathlib.Path, help="llama.cpp's build/bin")
    parser.add_argument("--model", default=pathlib.Path("models/nano/nano.gguf"), type=pathlib.Path)
    parser.add_argument("--bits", nargs="*", type=int, default=[4, 3, 2])
    parser.add_argument("--programs", nargs="*", help="of llmcompressor, auto-round, hqq, bitsandbytes; default all")
    parser.add_argument("--methods", nargs="*", help="of all programs; default all")
    parser.add_argument("--forms", nargs="*", help='of the tools, as the table names them ("int4 g32 symmetric"); default all')
    parser.add_argument("--calibration-bytes", type=int, default=120_000)
    parser.add_argument("--calibration-tokens", type=int, default=16_384)
    parser.add_argument("--test-bytes", type=int, default=24_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--keep", type=pathlib.Path, help="folder for the variants, which else go when all is done")
    parser.add_argument("--out", default=pathlib.Path("docs/bench"), type=pathlib.Path)
    arguments = parser.parse_args()
    with workplace(arguments.keep) as folder:
        compare(arguments, folder)


def compare(arguments, folder):
    bench = Bench(arguments, folder)
    for bits, program, method, form, job in tool_variants(bench.tokenizer):
        wanted = method in (arguments.methods or [method]) and bits in arguments.bits and program in (arguments.programs or [program]) and form in (arguments.forms or [form])
        if wanted:
            bench.add_tool(bits, program, method, form, job)
    for bits in arguments.bits:
        for form, methods in OWN[bits].items():
            for method in (method for method in methods.split() if method in (arguments.methods or [method])):
                bench.add_own(bits, form, method)
        for form in PEER_TYPES[bits] if arguments.peer else []:
            bench.add_peer(bits, form)
    report(arguments, bench.measure(), bench.failed)


if __name__ == "__main__":
    main()
