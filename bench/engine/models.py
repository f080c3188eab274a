#!/usr/bin/env python3
"""Write the benchmark's model files: random weights in real shapes, quantised with llama.cpp's `llama-quantize`.

Speed does not depend on the values, only on shapes and formats. The vocabulary is made up too: byte tokens and words that
nobody says, as many as the real model has.

usage: models.py --out DIR --quantize PATH/llama-quantize [--shapes 24m 164m 1100m] [--formats q8_0 q4_0 q4_k_m]

Needs PyPI: numpy, gguf. Files that exist are kept, so a second call makes only what is missing.
"""

import argparse
import dataclasses
import pathlib
import subprocess
import sys

FORMATS = ("q8_0", "q4_0", "q4_k_m")
SEED = 3
CONTEXT = 4096


@dataclasses.dataclass(frozen=True)
class Shape:
    """One model's lengths; `like` is the published model that has them."""

    like: str
    embedding: int
    layers: int
    heads: int
    kv_heads: int
    feed_forward: int
    vocab: int


SHAPES = {
    "24m": Shape("llama2.c stories15M", 288, 6, 6, 6, 768, 32000),
    "164m": Shape("SmolLM2-135M with an untied head", 576, 30, 9, 3, 1536, 50257),
    "1100m": Shape("TinyLlama-1.1B", 2048, 22, 32, 4, 5632, 32000),
}


def path(folder, shape, fmt):
    """Where the file of this shape and format lies: the only place that knows the naming."""
    return pathlib.Path(folder) / f"{shape}-{fmt}.gguf"


def vocabulary(writer, size):
    """A SentencePiece vocabulary with byte fallback: every text can be encoded, no word is in it."""
    import gguf

    kind = gguf.TokenType
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    types = [kind.UNKNOWN, kind.CONTROL, kind.CONTROL] + [kind.BYTE] * 256
    for index in range(len(tokens), size):
        tokens.append(f"\u2581w{index}")
        types.append(kind.NORMAL)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores([-float(index) for index in range(size)])
    writer.add_token_types([int(t) for t in types])
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_space_prefix(True)
    writer.add_add_bos_token(True)


def write_f16(shape, file):
    """The unquantised model of `shape`: F16 matrices, F32 norms."""
    import gguf
    import numpy as np

    writer = gguf.GGUFWriter(str(file), "llama")
    writer.add_name(f"random weights, {shape.like}")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(shape.embedding)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(shape.embedding // shape.heads)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(shape.vocab)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    vocabulary(writer, shape.vocab)

    random = np.random.default_rng(SEED)

    def matrix(rows, columns):
        values = random.standard_normal((rows, columns), dtype=np.float32)
        return (values * columns**-0.5).astype(np.float16)

    norm = np.ones(shape.embedding, np.float32)
    kv = shape.embedding // shape.heads * shape.kv_heads
    writer.add_tensor("token_embd.weight", matrix(shape.vocab, shape.embedding))
    for layer in range(shape.layers):
        for name, rows, columns in (
            ("attn_q", shape.embedding, shape.embedding),
            ("attn_k", kv, shape.embedding),
            ("attn_v", kv, shape.embedding),
            ("attn_output", shape.embedding, shape.embedding),
            ("ffn_gate", shape.feed_forward, shape.embedding),
            ("ffn_up", shape.feed_forward, shape.embedding),
            ("ffn_down", shape.embedding, shape.feed_forward),
        ):
            writer.add_tensor(f"blk.{layer}.{name}.weight", matrix(rows, columns))
        writer.add_tensor(f"blk.{layer}.attn_norm.weight", norm)
        writer.add_tensor(f"blk.{layer}.ffn_norm.weight", norm)
    writer.add_tensor("output_norm.weight", norm)
    writer.add_tensor("output.weight", matrix(shape.vocab, shape.embedding))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def make(folder, shape, formats, quantize):
    """Makes the missing files of one shape. The F16 file is removed when all others are there."""
    missing = [fmt for fmt in formats if not path(folder, shape, fmt).is_file()]
    if not missing:
        return
    source = path(folder, shape, "f16")
    if not source.is_file():
        # A half-written file must not be taken for a whole one.
        partial = source.with_suffix(".partial")
        write_f16(SHAPES[shape], partial)
        partial.rename(source)
    for fmt in missing:
        target = path(folder, shape, fmt)
        partial = target.with_suffix(".partial")
        command = [str(quantize), str(source), str(partial), fmt.upper()]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0:
            sys.exit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout[-2000:]}")
        partial.rename(target)
        print(f"{target}: {target.stat().st_size / 1e6:.1f} MB", flush=True)
    source.unlink()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", required=True, type=pathlib.Path, metavar="DIR")
    parser.add_argument("--quantize", required=True, type=pathlib.Path, metavar="llama-quantize")
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for shape in arguments.shapes:
        make(arguments.out, shape, arguments.formats, arguments.quantize)


if __name__ == "__main__":
    main()
