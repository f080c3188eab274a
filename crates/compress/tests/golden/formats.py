#!/usr/bin/env python3
"""Golden values for the formats of ADR 0026: straightforward float64 references on small matrices.

usage: formats.py OUT.json        (needs PyPI: numpy)
"""
import json
import sys

import numpy as np

MASK = (1 << 64) - 1
rng = np.random.default_rng(26)


def signs(state):
    """Bits of splitmix64."""
    out = []
    for _ in range(128):
        state = (state + 0x9E3779B97F4A7C15) & MASK
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        out.append(-1.0 if (z ^ (z >> 31)) >> 63 else 1.0)
    return np.array(out)


def rotation(side, length):
    """The matrix R of a vector of this length."""
    width = min(128, length & -length)
    hadamard = np.array([[(-1.0) ** bin(i & j).count("1") for j in range(width)] for i in range(width)]) / np.sqrt(width)
    block = hadamard * signs(side)[:width]
    return np.kron(np.eye(length // width), block)


states = np.arange(65536, dtype=np.uint32)


def code():
    x, y = states * 50933 & 0xFFFF, states * 6297 & 0xFFFF
    low, high = ((x & 255) + (y & 255) + 1) >> 1, ((x >> 8) + (y >> 8) + 1) >> 1
    return ((low + high + 1) >> 1).astype(np.float64) - 128


CODE = code()
# Column of a tile to symbol of its row.
SYMBOL = [[15, 14, 7, 6][c % 4] - 2 * (c // 4) for c in range(16)]


def walk(bits, targets, group):
    """The states of least squared distance; beginning and ending in a group of equal lower bits, if there is one."""
    groups = 65536 >> bits
    cost = np.zeros(groups) if group is None else np.where(np.arange(groups) == group, 0.0, np.inf)
    choices = []
    for target in targets:
        # A state follows on the group that its upper bits are.
        total = (cost[states >> bits] + (target - CODE) ** 2).reshape(1 << bits, groups)
        choices.append(total.argmin(axis=0))
        cost = total.min(axis=0)
    group = int(cost.argmin()) if group is None else group
    found = []
    for choice in reversed(choices):
        state = int(choice[group]) * groups + group
        found.append(state)
        group = state >> bits
    return found[::-1]


def tile(bits, target):
    """(values, bytes) of a 16 x 16 tile in units of the codes."""
    ring = np.empty(256)
    for r in range(16):
        for c in range(16):
            ring[16 * r + SYMBOL[c]] = target[r, c]
    seam = walk(bits, np.concatenate([ring[-24:], ring[:24]]), None)
    found = walk(bits, ring, seam[23] & ((65536 >> bits) - 1))
    values = np.array([[CODE[found[16 * r + SYMBOL[c]]] for c in range(16)] for r in range(16)])
    stored = b""
    for r in range(16):
        word = 0
        for state in found[16 * r:16 * r + 16]:
            word = word << bits | state & ((1 << bits) - 1)
        stored += word.to_bytes(2 * bits, "little")
    return values, stored


def trellis(bits, w):
    rows, columns = w.shape
    left, right = rotation(2, rows), rotation(1, columns)
    turned, out, stored = left @ w @ right.T, np.empty_like(w), b""
    for r in range(0, rows, 16):
        for c in range(0, columns, 32):
            block = turned[r:r + 16, c:c + 32]
            scale = np.float16(np.sqrt((block ** 2).mean()) / 37)
            tiles = [tile(bits, block[:, at:at + 16] / float(scale)) for at in (0, 16)]
            out[r:r + 16, c:c + 32] = float(scale) * np.hstack([values for values, _ in tiles])
            stored += scale.tobytes() + b"".join(bytes for _, bytes in tiles)
    return left.T @ out @ right, stored


# Quantiles of a normal distribution as published with QLoRA, in 127ths.
NF4 = np.round(127 * np.array([
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0]))


def nf4(w):
    stored, out = b"", np.empty_like(w)
    for r, row in enumerate(w):
        for at in range(0, len(row), 256):
            groups = row[at:at + 256].reshape(4, 64)
            widest = np.abs(groups).max(axis=1) / 127
            d = np.float16(widest.max() / 127)
            if float(d) * 127 < widest.max():
                d = np.nextafter(d, np.float16(np.inf))
            scales = np.round(widest / float(d))
            quants = np.abs(groups[:, :, None] / (float(d) * scales)[:, None, None] - NF4).argmin(axis=2)
            out[r, at:at + 256] = (float(d) * scales[:, None] * NF4[quants]).ravel()
            nibbles = quants[:, :32] | quants[:, 32:] << 4
            stored += d.tobytes() + scales.astype(np.int8).tobytes() + nibbles.astype(np.uint8).tobytes()
    return out, stored


E4M3 = np.array([(m / 8 * 2.0 ** -6 if e == 0 else (1 + m / 8) * 2.0 ** (e - 7)) for e in range(16) for m in range(8)][:127])


def rows(w, kind):
    stored, out = b"", np.empty_like(w)
    for r, row in enumerate(w):
        d = np.float32(np.abs(row).max() / (127 if kind == "i8_row" else 448))
        x = row / float(d)
        if kind == "i8_row":
            quants = np.round(x)
            out[r], bytes = float(d) * quants, quants.astype(np.int8).tobytes()
        else:
            quants = np.abs(np.abs(x)[:, None] - E4M3).argmin(axis=1)
            out[r] = float(d) * np.sign(x) * E4M3[quants]
            bytes = (quants | np.where(x < 0, 128, 0)).astype(np.uint8).tobytes()
        stored += d.tobytes() + bytes
    return out, stored


def pruned(w):
    """The 16 of largest magnitude of every 32."""
    blocks = w.reshape(-1, 32).copy()
    for block in blocks:
        block[np.argsort(-np.abs(block), kind="stable")[16:]] = 0
    return blocks.reshape(w.shape)


def sparse(w, kind):
    """Half of every 32 values, with a mask that says which."""
    stored, out = b"", np.empty_like(w)
    for index, block in enumerate(w.reshape(-1, 32)):
        kept = [i for i in range(32) if block[i] != 0]
        fill = [i for i in range(32) if block[i] == 0]
        places = sorted(kept + fill[:16 - len(kept)])
        extreme = block[np.abs(block).argmax()]
        mask = sum(1 << place for place in places)
        if kind == "sparse8":
            d = abs(extreme) / 127
            quants = np.round(block[places] / d).astype(np.int8)
            bytes, zero = quants.tobytes(), 0
        else:
            d, zero = extreme / -8, 8
            quants = np.clip(np.floor(block[places] / d + 8.5), 0, 15).astype(np.uint8)
            bytes = (quants[0::2] | quants[1::2] << 4).tobytes()
        values = np.zeros(32)
        values[places] = float(np.float16(d)) * (quants.astype(np.float64) - zero)
        out.reshape(-1, 32)[index] = values
        stored += np.float16(d).tobytes() + mask.to_bytes(4, "little") + bytes
    return out, stored


def numbers(array):
    return [float(f"{float(v):.7g}") for v in np.asarray(array).ravel()]




w = (rng.normal(size=(32, 64)) * np.exp(rng.normal(size=(1, 64)) * 0.5) * 0.05).astype(np.float32).astype(np.float64)
wide = (rng.normal(size=(3, 256)) * 0.1).astype(np.float32).astype(np.float64)
found = {f"t{bits}": trellis(bits, w) for bits in (2, 3, 4)}
half = pruned(wide)
# A block with fewer values than it could store, and one with none but one.
half[0, :31], half[0, 30], half[1, 32:64], half[1, 40] = 0, -0.07, 0, 0.05
found |= {kind: sparse(half, kind) for kind in ("sparse8", "sparse4")}
found |= {"nf4": nf4(wide), "i8_row": rows(wide, "i8_row"), "f8_e4m3": rows(wide, "f8_e4m3")}
json.dump({
    "square": numbers(w),
    "wide": numbers(wide),
    "half": numbers(half),
    "formats": {name: {"values": numbers(values), "bytes": stored.hex()} for name, (values, stored) in found.items()},
}, open(sys.argv[1], "w"))
