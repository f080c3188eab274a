"""Weights between the network's names and GGUF's, both ways."""
import gguf
import numpy as np


def interleave(rows, heads):
    """Rotary pairs (i, i + D/2) of training become (2i, 2i + 1) of GGUF's llama layout."""
    return rows.reshape(heads, 2, rows.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(rows.shape)


def separate(rows, heads):
    """The inverse of `interleave`."""
    return rows.reshape(heads, rows.shape[0] // heads // 2, 2, -1).swapaxes(1, 2).reshape(rows.shape)


def to_gguf(weights, shape):
    """(name, float32 array) pairs in GGUF's order and layout from a state dict of arrays."""
    kv = shape["kv_heads"] * (shape["hidden"] // shape["heads"])
    yield "token_embd.weight", weights["embed.weight"]
    for i in range(shape["layers"]):
        old, new = f"layers.{i}.", f"blk.{i}."
        q, k, v = np.split(weights[old + "qkv.weight"], [shape["hidden"], shape["hidden"] + kv])
        gate, up = np.split(weights[old + "gate_up.weight"], 2)
        yield new + "attn_norm.weight", weights[old + "attn_norm.weight"]
        yield new + "attn_q.weight", interleave(q, shape["heads"])
        yield new + "attn_k.weight", interleave(k, shape["kv_heads"])
        yield new + "attn_v.weight", v
        yield new + "attn_output.weight", weights[old + "out.weight"]
        yield new + "ffn_norm.weight", weights[old + "ffn_norm.weight"]
        yield new + "ffn_gate.weight", gate
        yield new + "ffn_up.weight", up
        yield new + "ffn_down.weight", weights[old + "down.weight"]
    yield "output_norm.weight", weights["norm.weight"]
    yield "output.weight", weights["head.weight"]


def from_gguf(file, shape):
    """A state dict of float32 arrays from a file that `export.py` wrote."""
    found = {t.name: gguf.quants.dequantize(t.data, t.tensor_type).astype(np.float32) for t in gguf.GGUFReader(file).tensors}
    out = {"embed.weight": found["token_embd.weight"], "norm.weight": found["output_norm.weight"], "head.weight": found["output.weight"]}
    for i in range(shape["layers"]):
        new, old = f"layers.{i}.", f"blk.{i}."
        q, k = separate(found[old + "attn_q.weight"], shape["heads"]), separate(found[old + "attn_k.weight"], shape["kv_heads"])
        out[new + "qkv.weight"] = np.concatenate((q, k, found[old + "attn_v.weight"]))
        out[new + "gate_up.weight"] = np.concatenate((found[old + "ffn_gate.weight"], found[old + "ffn_up.weight"]))
        for ours, theirs in (("attn_norm", "attn_norm"), ("out", "attn_output"), ("ffn_norm", "ffn_norm"), ("down", "ffn_down")):
            out[f"{new}{ours}.weight"] = found[f"{old}{theirs}.weight"]
    return out
