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


def error(h, weights, stays):
    """What is left when the columns that stay are solved anew for the output of all."""
    solved = np.zeros_like(weights)
    solved[:, stays] = weights @ h[:, stays] @ np.linalg.inv(h[np.ix_(stays, stays)])
    return np.trace((weights - solved) @ h @ (weights - solved).T)


def damped(second):
    return second + 0.01 * np.mean(np.diag(second)) * np.eye(len(second))


def fewest(cost, groups, count, may_go=lambda gone, group: True):
    """Groups that stay when one after the other goes, that of least cost."""
    gone = []
    for _ in range(count):
        candidates = [g for g in range(len(groups)) if g not in gone and may_go(gone, g)]
        gone.append(min(candidates, key=lambda g: cost(gone + [g])))
    return [g for g in range(len(groups)) if g not in gone]


def heads(by, kv_heads=5, group=4, dim=7, fewer=1, fewer_queries=1):
    """Query values that stay: whole key/value heads go first, then as many queries of each of the others."""
    columns = np.arange(COLUMNS)
    blocks = columns.reshape(kv_heads, group * dim)

    def cost(chosen, of):
        h, weights = moments[np.ix_(chosen, chosen)], w[:, chosen].astype(np.float64)
        if by == "activation":
            added = np.diag(h) * (weights**2).sum(axis=0)
            return lambda gone: sum(added[of[g]].sum() for g in gone)
        return lambda gone: error(damped(h), weights, np.setdiff1d(np.arange(len(chosen)), np.concatenate([of[g] for g in gone])))

    kept = fewest(cost(columns, blocks), blocks, fewer)
    chosen = blocks[kept].ravel()
    singles = np.arange(len(chosen)).reshape(-1, dim)
    may_go = lambda gone, g: sum(other // group == g // group for other in gone) < fewer_queries  # noqa: E731
    stays = fewest(cost(chosen, singles), singles, fewer_queries * len(kept), may_go)
    return {"key_heads": kept, "queries": numbers(chosen[singles[stays].ravel()])}


def by_activation(count):
    """Columns that stay when those go that add least to the output."""
    order = np.argsort(np.diag(moments) * (w.astype(np.float64) ** 2).sum(axis=0), kind="stable")
    return sorted(int(j) for j in order[count:])


def influence(width=8, tokens=30):
    """Block influence of a layer, from the streams before and after it."""
    before = np.round(rng.normal(size=(tokens, width)), 2)
    after = np.round(before + 0.4 * rng.normal(size=(tokens, width)), 2)
    cosines = (before * after).sum(axis=1) / np.linalg.norm(before, axis=1) / np.linalg.norm(after, axis=1)
    return {"width": width, "before": numbers(before), "after": numbers(after), "value": float(1 - cosines.mean())}


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
    "activation": by_activation(50),
    "heads": {by: heads(by) for by in ["reconstruction", "activation"]},
    "influence": influence(),
}, open(sys.argv[1], "w"))
