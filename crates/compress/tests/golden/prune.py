#!/usr/bin/env python3
"""Golden values for pruning and factoring: straightforward float64 references on small matrices.

usage: prune.py OUT.json        (needs PyPI: numpy)
"""
import json
import sys

import numpy as np

rng = np.random.default_rng(28)
ROWS, COLUMNS, TOKENS = 6, 140, 220

# Inputs whose columns depend on each other and differ in size.
mixing = rng.normal(size=(COLUMNS, COLUMNS)) * 0.2 + np.eye(COLUMNS)
x = np.round(rng.normal(size=(TOKENS, COLUMNS)) @ mixing * np.exp(rng.normal(size=COLUMNS) * 0.7), 1).astype(np.float32)
w = np.round(rng.normal(size=(ROWS, COLUMNS)) * 0.1, 4).astype(np.float32)
tall = np.round(rng.normal(size=(60, 24)) * 0.1, 4).astype(np.float32)
moments = x.astype(np.float64).T @ x.astype(np.float64)


def wanda(share=None, kept=None, of=None):
    """Which weights stay."""
    score = np.abs(w.astype(np.float64)) * np.sqrt(np.diag(moments))
    mask = np.zeros(w.shape, bool)
    for row in range(ROWS):
        if share is not None:
            mask[row, np.argsort(score[row], kind="stable")[: int(COLUMNS * share)]] = True
            continue
        for first in range(0, COLUMNS, of):
            group = np.argsort(score[row, first : first + of], kind="stable")[: of - kept]
            mask[row, first + group] = True
    return "".join("0" if gone else "1" for gone in mask.ravel())


def sparsegpt(share=None, kept=None, of=None, block=128):
    """As the authors' code goes through a matrix, in float64."""
    h = moments + 0.01 * np.mean(np.diag(moments)) * np.eye(COLUMNS)
    upper = np.linalg.cholesky(np.linalg.inv(h)).T
    weights = w.astype(np.float64).copy()
    for first in range(0, COLUMNS, block):
        last = min(first + block, COLUMNS)
        part, corner = weights[:, first:last].copy(), upper[first:last, first:last]
        errors = np.zeros_like(part)
        if share is not None:
            cost = part**2 / np.diag(corner) ** 2
            order = np.argsort(cost, axis=None, kind="stable")
            mask = np.zeros(part.size, bool)
            mask[order[: int(part.size * share)]] = True
            mask = mask.reshape(part.shape)
        else:
            mask = np.zeros(part.shape, bool)
        for i in range(last - first):
            if share is None and i % of == 0:
                cost = part[:, i : i + of] ** 2 / np.diag(corner)[i : i + of] ** 2
                chosen = np.argsort(cost, axis=1, kind="stable")[:, : of - kept]
                for row in range(ROWS):
                    mask[row, i + chosen[row]] = True
            value = np.where(mask[:, i], 0, part[:, i])
            error = (part[:, i] - value) / corner[i, i]
            part[:, i:] -= np.outer(error, corner[i, i:])
            part[:, i] = value
            errors[:, i] = error
        weights[:, first:last] = part
        weights[:, last:] -= errors @ upper[first:last, last:]
    return weights


def svd_llm(matrix, second, rank):
    """The product of the two factors, and all singular values of the whitened matrix."""
    s = np.linalg.cholesky(second)
    u, values, vt = np.linalg.svd(matrix.astype(np.float64) @ s, full_matrices=False)
    root = np.sqrt(values[:rank])
    return (u[:, :rank] * root) @ (root[:, None] * (vt[:rank] @ np.linalg.inv(s))), values


def slice_gpt(streams=3, width=16, kept=12):
    """Inputs of norms, their principal axes, and what a matrix that reads a norm becomes: first to all axes, then with the last cut."""
    turn = rng.normal(size=(width, width))
    inputs = np.round(rng.normal(size=(streams, 50, width)) @ turn, 2)
    weight = np.round(1 + 0.3 * rng.normal(size=width), 2)
    matrix = np.round(rng.normal(size=(6, width)), 2)
    normed = inputs / np.sqrt((inputs**2).mean(axis=2, keepdims=True))
    values, vectors = np.linalg.eigh(np.einsum("sti,stj->ij", normed, normed))
    axes = vectors[:, ::-1]
    turned = (matrix * weight) @ axes
    stream = inputs[0, 0] @ axes
    cut = stream[:kept]
    # The norm of fewer values: what was cut counts as zeros among as many as there were.
    narrow = cut / np.sqrt((cut**2).mean()) * np.sqrt(width / kept)
    whole = stream / np.sqrt((stream**2).mean())
    expected = (normed[0, 0] * weight) @ matrix.T
    assert np.allclose(whole @ turned.T, expected)
    return {
        "width": width, "kept": kept, "inputs": numbers(inputs), "normed": numbers(normed), "weight": numbers(weight), "matrix": numbers(matrix),
        "values": numbers(values[::-1]), "turned_squares": numbers((turned**2).sum(axis=0)), "whole": numbers(expected), "cut": numbers(narrow @ turned[:, :kept].T),
    }


def obs(count):
    """Columns that stay when one after the other goes, that of least error when the rest is solved anew (OBS)."""
    h = moments + 0.01 * np.mean(np.diag(moments)) * np.eye(COLUMNS)
    gone = []
    for _ in range(count):
        stays = [j for j in range(COLUMNS) if j not in gone]
        inverse = np.linalg.inv(h[np.ix_(stays, stays)])
        solved = w.astype(np.float64) @ h[:, stays] @ inverse
        errors = (solved**2).sum(axis=0) / np.diag(inverse)
        gone.append(stays[int(np.argmin(errors))])
    return [j for j in range(COLUMNS) if j not in gone]


def numbers(array):
    return [float(f"{float(v):.8g}") for v in np.asarray(array).ravel()]


small = x[:, :24].astype(np.float64)
wide_product, wide_values = svd_llm(w, moments + 1e-6 * np.mean(np.diag(moments)) * np.eye(COLUMNS), 5)
tall_moments = small.T @ small
tall_product, tall_values = svd_llm(tall, tall_moments + 1e-6 * np.mean(np.diag(tall_moments)) * np.eye(24), 9)
json.dump({
    "columns": COLUMNS,
    "x": numbers(x),
    "w": numbers(w),
    "tall": numbers(tall),
    "wanda": {"half": wanda(share=0.5), "2:4": wanda(kept=2, of=4)},
    "sparsegpt": {"half": numbers(sparsegpt(share=0.5)), "2:4": numbers(sparsegpt(kept=2, of=4))},
    "svd": {
        "wide": {"rank": 5, "product": numbers(wide_product), "values": numbers(wide_values)},
        "tall": {"rank": 9, "product": numbers(tall_product), "values": numbers(tall_values)},
    },
    "slice": slice_gpt(),
    "obs": obs(20),
}, open(sys.argv[1], "w"))
