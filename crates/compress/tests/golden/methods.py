#!/usr/bin/env python3
"""Golden values for the quantisers: straightforward float64 references on small matrices.

usage: methods.py OUT.json        (needs PyPI: numpy)

Grids are given: a scale for each 32 values, 4 bits around 8 (Q4_0), so that only the method itself is compared.
"""
import json
import sys

import numpy as np

rng = np.random.default_rng(20)
ROWS, COLUMNS, TOKENS, GROUP = 6, 64, 160, 32

# Inputs whose columns depend on each other and differ in size.
mixing = rng.normal(size=(COLUMNS, COLUMNS)) * 0.25 + np.eye(COLUMNS)
x = np.round(rng.normal(size=(TOKENS, COLUMNS)) @ mixing * np.exp(rng.normal(size=COLUMNS) * 0.7), 2).astype(np.float32)
w = np.round(rng.normal(size=(ROWS, COLUMNS)) * 0.1, 4).astype(np.float32)
# Scales as halves, so that both sides have the same.
scales = (np.abs(w).reshape(ROWS, -1, GROUP).max(axis=2) / 7.5).astype(np.float16)
scale_of = np.repeat(scales.astype(np.float64), GROUP, axis=1)


def nearest(value, scale):
    return np.clip(np.round(value / scale), -8, 7)


def moments():
    h = x.astype(np.float64).T @ x.astype(np.float64)
    return h / np.mean(np.diag(h))


def gptq(order):
    h = moments()[np.ix_(order, order)] + 0.01 * np.eye(COLUMNS)
    upper = np.linalg.cholesky(np.linalg.inv(h)).T
    weights, scale = w.astype(np.float64)[:, order].copy(), scale_of[:, order]
    quants = np.zeros((ROWS, COLUMNS))
    for i in range(COLUMNS):
        quants[:, i] = nearest(weights[:, i], scale[:, i])
        error = (weights[:, i] - quants[:, i] * scale[:, i]) / upper[i, i]
        weights[:, i:] -= np.outer(error, upper[i, i:])
    back = np.empty_like(quants)
    back[:, order] = quants
    return back


def output_error(quants):
    difference = quants * scale_of - w
    return np.einsum("ri,ij,rj->r", difference, moments(), difference)


def descent(quants, passes=8):
    h, quants = moments(), quants.copy()
    for r in range(ROWS):
        for _ in range(passes):
            before = quants[r].copy()
            for j in range(COLUMNS):
                residual = w[r] - quants[r] * scale_of[r]
                target = quants[r, j] * scale_of[r, j] + h[j] @ residual / h[j, j]
                quants[r, j] = nearest(target, scale_of[r, j])
            if (before == quants[r]).all():
                break
    return quants


def hqq(group, quant_max, p=0.7, kappa=1.01, turns=10):
    """Scale and zero point of least squared error on the way."""
    low, high = group.min(), group.max()
    best, least = None, np.inf
    for start in [1.0, 0.85]:
        scale, beta = start * (high - low) / quant_max, 10.0
        zero = quant_max / 2 - (low + high) / 2 / scale
        for turn in range(turns + 1):
            q = np.clip(np.round(group / scale + zero), 0, quant_max)
            e = group - scale * (q - zero)
            if (found := (e**2).sum()) < least:
                best, least = (scale, zero), found
            size = np.abs(e)
            shrunk = np.sign(e) * np.maximum(size - np.where(size > 0, size, 1) ** (p - 1) / beta, 0)
            scale, offset = np.polyfit(q, group - shrunk, 1)
            zero, beta = -offset / scale, beta * kappa
    return {"quant_max": quant_max, "scale": float(best[0]), "zero": float(best[1])}


def autoround(turns=200):
    """Least output errors met by signed gradient descent on a rounding shift."""
    h, shift = moments(), np.zeros((ROWS, COLUMNS))
    least = np.full(ROWS, np.inf)
    for turn in range(turns):
        quants = nearest(w + shift * scale_of, scale_of)
        difference = quants * scale_of - w
        gradient = difference @ h
        least = np.minimum(least, np.einsum("ri,ri->r", gradient, difference))
        shift = np.clip(shift - (1 - turn / turns) / turns * np.sign(gradient * scale_of), -0.5, 0.5)
    return least


def smooth(alpha=0.5):
    s = np.abs(x).max(axis=0).astype(np.float64) ** alpha / np.abs(w).max(axis=0).astype(np.float64) ** (1 - alpha)
    return s / np.sqrt(s.max() * s.min())


def awq_factors(exponent=0.45):
    s = np.maximum(np.abs(x).astype(np.float64).mean(axis=0) ** exponent, 1e-4)
    return s / np.sqrt(s.max() * s.min())


def best_weighed_error(values, weights):
    """Least error of one scale for 4 bits around 8, by trying very many."""
    extreme = np.abs(values).max()
    tried = np.concatenate([np.linspace(0.3, 1.6, 6001), -np.linspace(0.3, 1.6, 6001)]) * extreme / 8
    q = np.clip(np.round(values[None] / tried[:, None]), -8, 7)
    return float((weights * (q * tried[:, None] - values) ** 2).sum(axis=1).min())


importance = np.diag(moments())
order = sorted(range(COLUMNS), key=lambda i: (-np.float32(importance[i]), i))
natural, ordered = gptq(list(range(COLUMNS))), gptq(order)
plain = nearest(w, scale_of)
groups = [np.round(np.exp(rng.normal(size=GROUP)) * 2 - 1, 4) for _ in range(6)]
blocks = [(np.round(rng.normal(size=GROUP), 4), np.round(rng.exponential(size=GROUP), 4)) for _ in range(12)]


def numbers(array):
    return [float(f"{float(v):.8g}") for v in np.asarray(array).ravel()]


def quants(array):
    return [int(v) + 8 for v in array.ravel()]


json.dump({
    "columns": COLUMNS,
    "x": numbers(x),
    "w": numbers(w),
    "scales": numbers(scales),
    "natural": quants(natural),
    "ordered": quants(ordered),
    "descent": quants(descent(plain)),
    "errors": {name: numbers(output_error(q)) for name, q in [("plain", plain), ("natural", natural), ("ordered", ordered), ("descent", descent(plain))]},
    "autoround": numbers(autoround()),
    "hqq": [{"group": numbers(np.float32(g)), **hqq(np.float32(g).astype(np.float64), most)} for g in groups for most in [15, 3]],
    "smooth": numbers(smooth()),
    "awq": numbers(awq_factors()),
    "weighed": [{"values": numbers(np.float32(v)), "weights": numbers(np.float32(k)), "error": best_weighed_error(np.float32(v), np.float32(k))} for v, k in blocks],
}, open(sys.argv[1], "w"))
