#!/usr/bin/env python3
"""Golden gradients of the tiny llama model, by complex steps in double precision.

usage: gradient.py OUT.json        (needs PyPI: numpy, gguf)

The forward pass is written down once, for complex numbers. With a weight moved by i·h the imaginary part of the loss over h is its
derivative, exact to rounding for h = 1e-30: nothing here knows how to go back through a layer.
"""
import json
import pathlib
import sys

import gguf
import numpy as np

MODEL = pathlib.Path(__file__).resolve().parents[3] / "llm/tests/golden/tiny-f32.gguf"
LAYERS, HEADS, KV_HEADS, HEAD_DIM, EPS, BASE = 2, 4, 2, 16, 1e-5, 10000.0
TOKENS = [1, 17, 42, 5, 63, 9, 9, 30, 11, 58, 3, 24, 40, 7, 19, 33, 2, 50, 61, 12, 4, 8, 15, 16, 23, 42, 1, 1, 2, 3, 5, 8]
WINDOW, STEP = 16, 1e-30

reader = gguf.GGUFReader(str(MODEL))
weights = {t.name: np.array(t.data, dtype=np.float64).reshape([int(n) for n in reversed(t.shape)]) for t in reader.tensors}


def norm(x, w):
    return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + EPS) * w


def rotate(x):
    """Neighbours turn by position · base^(-2i / dim); x is (tokens, heads, dim)."""
    angles = np.arange(len(x))[:, None] * BASE ** (-2 * np.arange(HEAD_DIM // 2) / HEAD_DIM)
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
    out = np.empty_like(x)
    out[..., 0::2] = x[..., 0::2] * cos - x[..., 1::2] * sin
    out[..., 1::2] = x[..., 0::2] * sin + x[..., 1::2] * cos
    return out


def softmax(x):
    e = np.exp(x - x.real.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def logits(w, tokens):
    x = w["token_embd.weight"][tokens].astype(complex)
    hidden = np.triu(np.full((len(tokens), len(tokens)), True), 1)
    for i in range(LAYERS):
        part = lambda name: w[f"blk.{i}.{name}.weight"]
        n = norm(x, part("attn_norm"))
        q = rotate((n @ part("attn_q").T).reshape(len(x), HEADS, HEAD_DIM))
        k = rotate((n @ part("attn_k").T).reshape(len(x), KV_HEADS, HEAD_DIM))
        v = (n @ part("attn_v").T).reshape(len(x), KV_HEADS, HEAD_DIM)
        heads = []
        for h in range(HEADS):
            g = h // (HEADS // KV_HEADS)
            scores = q[:, h] @ k[:, g].T / np.sqrt(HEAD_DIM)
            heads.append(softmax(np.where(hidden, -np.inf, scores)) @ v[:, g])
        x = x + np.concatenate(heads, axis=1) @ part("attn_output").T
        n = norm(x, part("ffn_norm"))
        gate = n @ part("ffn_gate").T
        x = x + (gate / (1 + np.exp(-gate)) * (n @ part("ffn_up").T)) @ part("ffn_down").T
    return norm(x, w["output_norm.weight"]) @ w["output.weight"].T


def log_probabilities(w, tokens):
    """Of the tokens behind each scored position, the second half of the window."""
    l = logits(w, tokens)[WINDOW // 2 : WINDOW - 1]
    l = l - l.real.max(axis=1, keepdims=True)
    return l - np.log(np.exp(l).sum(axis=1, keepdims=True))


def windows():
    return [TOKENS[i : i + WINDOW] for i in range(0, len(TOKENS), WINDOW)]


def text_loss(w):
    found = [log_probabilities(w, t)[np.arange(WINDOW // 2 - 1), t[WINDOW // 2 + 1 :]] for t in windows()]
    return -np.concatenate(found).mean()


def divergence(w):
    """From the model whose output matrix is larger by a tenth."""
    reference = dict(weights, **{"output.weight": weights["output.weight"] * 1.1})
    total = []
    for t in windows():
        p, q = log_probabilities(reference, t), log_probabilities(w, t)
        total.append((np.exp(p) * (p - q)).sum(axis=1))
    return np.concatenate(total).mean()


def direction(shape, seed):
    """Numbers without a pattern that the test can make too."""
    i = np.arange(np.prod(shape), dtype=np.int64)
    return (((i * 7919 + seed * 104729 + 13) % 997) / 997 - 0.5).reshape(shape)


def derivative(loss, name, along):
    moved = dict(weights, **{name: weights[name] + 1j * STEP * along})
    return float(loss(moved).imag / STEP)


golden = {"window": WINDOW, "tokens": TOKENS}
for key, loss in [("text", text_loss), ("reference", divergence)]:
    golden[key] = {"loss": float(loss(weights).real)}
    for name, w in weights.items():
        if w.ndim == 2:
            golden[key][name] = [derivative(loss, name, direction(w.shape, seed)) for seed in range(3)]
json.dump(golden, open(sys.argv[1], "w"), indent=1)
