#!/usr/bin/env python3
"""Writes the golden files of the llama decoder.

    python make.py [STORIES.gguf]

needs PyPI's numpy, gguf and llama-cpp-python (0.3.36 made the committed files). It writes, beside itself,
  tiny-{f32,f16,q8_0,q4_0}.gguf   random llama models: GQA, a head dimension of its own, a separate head
  tiny.json                       their final logits by the reference below, and by llama.cpp
and, given the llama2.c model converted by this crate (see tests/llama2c.rs), stories.json with llama.cpp's logits.

The reference is float64 throughout, on the dequantised weights. For Q8_0 and Q4_0 it rounds the activations of every
product to int8 per block of 32, scale amax / 127, half to even, as ganglion-kernels defines.
"""
import json
import pathlib
import sys

import gguf
import numpy as np

HERE = pathlib.Path(__file__).parent
EMBED, LAYERS, HEADS, KV_HEADS, HEAD_DIM, FFN, VOCAB, CONTEXT = 32, 2, 4, 2, 16, 64, 64, 64
EPS, BASE = 1e-5, 10000.0
TOKENS = [1, 17, 42, 5, 63, 9, 9, 30, 11, 58, 3, 24, 40, 7, 19, 33, 2, 50, 61, 12]
TYPES = {
    "f32": gguf.GGMLQuantizationType.F32,
    "f16": gguf.GGMLQuantizationType.F16,
    "q8_0": gguf.GGMLQuantizationType.Q8_0,
    "q4_0": gguf.GGMLQuantizationType.Q4_0,
}


def shapes():
    """(name, (rows, k)) of every matrix; (name, (length,)) of every norm."""
    yield "token_embd.weight", (VOCAB, EMBED)
    yield "output_norm.weight", (EMBED,)
    yield "output.weight", (VOCAB, EMBED)
    for i in range(LAYERS):
        for part, shape in {
            "attn_norm": (EMBED,), "attn_q": (HEADS * HEAD_DIM, EMBED), "attn_k": (KV_HEADS * HEAD_DIM, EMBED),
            "attn_v": (KV_HEADS * HEAD_DIM, EMBED), "attn_output": (EMBED, HEADS * HEAD_DIM), "ffn_norm": (EMBED,),
            "ffn_gate": (FFN, EMBED), "ffn_up": (FFN, EMBED), "ffn_down": (EMBED, FFN),
        }.items():
            yield f"blk.{i}.{part}.weight", shape


def write(path, kind):
    """Writes a model and returns its weights as they read back."""
    rng = np.random.default_rng(2)
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(EMBED)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_key_length(HEAD_DIM)
    writer.add_value_length(HEAD_DIM)
    writer.add_rope_dimension_count(HEAD_DIM)
    writer.add_rope_freq_base(BASE)
    writer.add_layer_norm_rms_eps(EPS)
    writer.add_vocab_size(VOCAB)
    # A vocabulary only because llama.cpp wants one.
    writer.add_tokenizer_model("llama")
    writer.add_token_list(["<unk>", "<s>", "</s>", "<0x0A>"] + [chr(0x100 + i) for i in range(VOCAB - 4)])
    writer.add_token_scores([0.0] * VOCAB)
    writer.add_token_types([2, 3, 3, 6] + [1] * (VOCAB - 4))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    weights = {}
    for name, shape in shapes():
        if len(shape) == 1:
            data = (1.0 + 0.2 * rng.standard_normal(shape)).astype(np.float32)
            writer.add_tensor(name, data)
            weights[name] = data.astype(np.float64)
            continue
        data = (rng.standard_normal(shape) * shape[1] ** -0.5 * 1.5).astype(np.float32)
        stored = gguf.quants.quantize(data, TYPES[kind])
        writer.add_tensor(name, stored, raw_dtype=TYPES[kind])
        weights[name] = gguf.quants.dequantize(stored, TYPES[kind]).astype(np.float64)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return weights


def reference(weights, quantised):
    """Logits after every token, (tokens, VOCAB)."""
    def product(x, name):
        if quantised:
            blocks = x.reshape(len(x), -1, 32)
            scale = np.abs(blocks).max(axis=2, keepdims=True) / 127.0
            safe = np.where(scale == 0, 1.0, scale)
            x = (np.rint(blocks / safe) * scale).reshape(x.shape)
        return x @ weights[name].T

    def norm(x, name):
        return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + EPS) * weights[name]

    count = len(TOKENS)
    angles = np.arange(count)[:, None] * BASE ** (-np.arange(0, HEAD_DIM, 2) / HEAD_DIM)[None, :]
    cos, sin = np.cos(angles)[:, None, :], np.sin(angles)[:, None, :]

    def rotate(x):
        even, odd = x[..., 0::2], x[..., 1::2]
        out = np.empty_like(x)
        out[..., 0::2] = even * cos - odd * sin
        out[..., 1::2] = even * sin + odd * cos
        return out

    x = weights["token_embd.weight"][TOKENS]
    for i in range(LAYERS):
        h = norm(x, f"blk.{i}.attn_norm.weight")
        q = rotate(product(h, f"blk.{i}.attn_q.weight").reshape(count, HEADS, HEAD_DIM))
        k = rotate(product(h, f"blk.{i}.attn_k.weight").reshape(count, KV_HEADS, HEAD_DIM))
        v = product(h, f"blk.{i}.attn_v.weight").reshape(count, KV_HEADS, HEAD_DIM)
        out = np.zeros((count, HEADS, HEAD_DIM))
        for head in range(HEADS):
            kv = head // (HEADS // KV_HEADS)
            scores = q[:, head] @ k[:, kv].T / np.sqrt(HEAD_DIM)
            scores[np.triu_indices(count, 1)] = -np.inf
            p = np.exp(scores - scores.max(axis=1, keepdims=True))
            out[:, head] = p / p.sum(axis=1, keepdims=True) @ v[:, kv]
        x = x + product(out.reshape(count, -1), f"blk.{i}.attn_output.weight")
        h = norm(x, f"blk.{i}.ffn_norm.weight")
        gate = product(h, f"blk.{i}.ffn_gate.weight")
        up = product(h, f"blk.{i}.ffn_up.weight")
        x = x + product(gate / (1 + np.exp(-gate)) * up, f"blk.{i}.ffn_down.weight")
    return product(norm(x, "output_norm.weight"), "output.weight")


def llama_cpp_logits(path, tokens):
    import llama_cpp
    default = llama_cpp.llama_model_default_params()
    default.use_extra_bufts = False  # its AMX buffers crash on matrices this small
    llama_cpp.llama_cpp.llama_model_default_params = lambda: default
    llm = llama_cpp.Llama(str(path), n_ctx=512, n_batch=512, n_threads=1, n_gpu_layers=0, logits_all=True,
                          type_k=0, type_v=0, flash_attn=False, verbose=False)
    llm.eval(tokens)
    return llm.scores[:len(tokens)].astype(np.float64)


def rounded(logits):
    return [float(f"{v:.7g}") for v in logits]


def main():
    golden = {"tokens": TOKENS, "models": {}}
    for kind in TYPES:
        path = HERE / f"tiny-{kind}.gguf"
        weights = write(path, kind)
        ours = reference(weights, kind.startswith("q"))
        theirs = llama_cpp_logits(path, TOKENS)
        print(kind, "largest logit", np.abs(ours).max(), "reference against llama.cpp", np.abs(ours - theirs).max())
        golden["models"][kind] = {"reference": rounded(ours[-1]), "llama_cpp": rounded(theirs[-1])}
    (HERE / "tiny.json").write_text(json.dumps(golden, indent=1) + "\n")
    if len(sys.argv) > 1:
        tokens = [1, 403, 407, 261, 378, 432, 383, 286, 261, 410, 419, 421, 300, 45, 98, 511]
        logits = llama_cpp_logits(sys.argv[1], tokens)
        story = {"tokens": tokens, "last": rounded(logits[-1]), "argmax": [int(i) for i in logits.argmax(axis=1)]}
        (HERE / "stories.json").write_text(json.dumps(story, indent=1) + "\n")


if __name__ == "__main__":
    main()
