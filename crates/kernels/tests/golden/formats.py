#!/usr/bin/env python3
"""Writes formats.bin, ggml's own conversions of all block formats.

    python formats.py [LIBGGML_BASE]

needs PyPI's numpy 2.4, gguf 0.19.0 and llama-cpp-python 0.3.36 (ggml 0.25.3), whose libggml-base.so is called directly;
LIBGGML_BASE names another build of it. Every dequantised value is compared with gguf's independent numpy code.

formats.bin is a sequence of sections: name (24 bytes, padded with zeros), size in bytes (u32), payload; little-endian.
  FORMAT.blocks    stored bytes: random ones, and edges of every field
  FORMAT.values    f32, what ggml's dequantize_row_* makes of them
  input            f32, values to quantise: Gaussian, heavy-tailed, constant, zero, sparse, tiny, large, ties
  FORMAT.stored    what ggml's quantize_row_*_ref makes of the input (formats with a plain rule only)
  gaussian, laplace  f32, values of unit variance
  FORMAT.mse       f64 × 2, mean squared error of quantize_row_*_ref on these two (k-quants only)
"""
import ctypes
import pathlib
import struct
import sys

import gguf
import numpy as np

HERE = pathlib.Path(__file__).parent
# name: (values in a block, bytes of a block, offsets of f16 fields)
BLOCKS = {
    "F32": (1, 4, []), "F16": (1, 2, []), "BF16": (1, 2, []),
    "Q8_0": (32, 34, [0]), "Q4_0": (32, 18, [0]), "Q4_1": (32, 20, [0, 2]), "Q5_0": (32, 22, [0]),
    "Q5_1": (32, 24, [0, 2]), "Q2_K": (256, 84, [80, 82]), "Q3_K": (256, 110, [108]), "Q4_K": (256, 144, [0, 2]),
    "Q5_K": (256, 176, [0, 2]), "Q6_K": (256, 210, [208]), "IQ4_NL": (32, 18, [0]), "MXFP4": (32, 17, []),
}
K_QUANTS = ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"]
# zeros of both signs, subnormals, ones, the largest, infinity, NaN
HALVES = [0x0000, 0x8000, 0x0001, 0x83FF, 0x3C00, 0xBC00, 0x7BFF, 0xFBFF, 0x7C00, 0x7E00]
EXPONENTS = [0, 1, 2, 3, 127, 128, 253, 254, 255]


def library():
    if len(sys.argv) > 1:
        return ctypes.CDLL(sys.argv[1])
    import llama_cpp
    return ctypes.CDLL(str(pathlib.Path(llama_cpp.__file__).parent / "lib" / "libggml-base.so"))


def dequantize(ggml, name, data):
    block, size, _ = BLOCKS[name]
    out = np.zeros(len(data) // size * block, np.float32)
    source, count = np.frombuffer(data, np.uint8).copy(), ctypes.c_int64(out.size)
    if name == "F32":
        return np.frombuffer(data, np.float32)
    function = {"F16": "ggml_fp16_to_fp32_row", "BF16": "ggml_bf16_to_fp32_row"}.get(name, "dequantize_row_" + low(name))
    getattr(ggml, function)(source.ctypes.data_as(ctypes.c_void_p), out.ctypes.data_as(ctypes.c_void_p), count)
    return out


def quantize(ggml, name, values):
    block, size, _ = BLOCKS[name]
    out = np.zeros(values.size // block * size, np.uint8)
    if name == "F32":
        return values.tobytes()
    function = {"F16": "ggml_fp32_to_fp16_row", "BF16": "ggml_fp32_to_bf16_row_ref"}.get(
        name, "quantize_row_" + low(name) + "_ref")
    values = np.ascontiguousarray(values, np.float32)
    getattr(ggml, function)(
        values.ctypes.data_as(ctypes.c_void_p), out.ctypes.data_as(ctypes.c_void_p), ctypes.c_int64(values.size))
    if name == "IQ4_NL":
        # ggml leaves the quants of an all-zero block undefined.
        for i in np.flatnonzero(np.abs(values.reshape(-1, 32)).max(axis=1) < 1e-15):
            out[i * size:(i + 1) * size] = 0
    return out.tobytes()


def low(name):
    return name.lower().replace("_k", "_K")


def blocks(name, rng):
    """Stored bytes: edges of every field first, random ones after them."""
    _, size, halves = BLOCKS[name]
    if name in ("F16", "BF16"):
        return np.concatenate([HALVES, rng.integers(0, 1 << 16, 200)]).astype(np.uint16).tobytes()
    if name == "F32":
        return rng.integers(0, 1 << 32, 64, np.uint32).tobytes()
    rows = []
    for i, fill in enumerate(EXPONENTS if name == "MXFP4" else HALVES):
        row = rng.integers(0, 256, size).astype(np.uint8)
        if i % 3 == 1:
            row[:] = 0xFF if i % 2 else 0x00
        if name == "MXFP4":
            row[0] = fill
        for j, at in enumerate(halves):
            # The minimum, where there is one, goes through the list in another order.
            value = fill if j == 0 else HALVES[(7 * i + 4) % len(HALVES)]
            row[at:at + 2] = [value & 255, value >> 8]
        rows.append(row)
    for _ in range(4 if name in K_QUANTS else 24):
        row = rng.integers(0, 256, size).astype(np.uint8)
        for at in halves:
            row[at:at + 2] = np.frombuffer(np.float16(rng.normal() * 0.01).tobytes(), np.uint8)
        rows.append(row)
    return np.concatenate(rows).tobytes()


def inputs(rng):
    normal = rng.normal(size=1024) * 0.05
    heavy = rng.standard_t(2, size=512) * 0.02
    sparse = np.where(rng.random(256) < 0.05, rng.normal(size=256), 0.0)
    constant = np.repeat(rng.normal(size=8), 32)
    ties = rng.integers(-16, 17, 256) / 16.0
    positive, negative = np.abs(rng.normal(size=128)), -np.abs(rng.normal(size=128))
    tiny, large = rng.normal(size=128) * 1e-30, rng.normal(size=128) * 1e4
    zeros = np.concatenate([np.zeros(64), -np.zeros(64)])
    faint, small = rng.normal(size=64) * 1e-6, rng.normal(size=64) * 1e-4
    parts = [normal, heavy, sparse, constant, ties, positive, negative, tiny, large, zeros, faint, small]
    values = np.concatenate(parts).astype(np.float32)
    assert values.size % 256 == 0
    return values


def main():
    ggml, rng = library(), np.random.default_rng(20261121)
    sections = []
    for name in BLOCKS:
        data = blocks(name, rng)
        values = dequantize(ggml, name, data)
        if name != "F32":
            kind = gguf.GGMLQuantizationType[name]
            with np.errstate(all="ignore"):
                other = gguf.quants.dequantize(np.frombuffer(data, np.uint8), kind).astype(np.float32).reshape(-1)
            same = (values.view(np.uint32) == other.view(np.uint32)) | (np.isnan(values) & np.isnan(other))
            if not same.all():
                print(f"{name}: gguf differs at {np.flatnonzero(~same)[:8]}: {values[~same][:8]} {other[~same][:8]}")
        sections += [(f"{name}.blocks", data), (f"{name}.values", values.tobytes())]
    values = inputs(rng)
    sections.append(("input", values.tobytes()))
    sections += [(f"{name}.stored", quantize(ggml, name, values)) for name in BLOCKS if name not in K_QUANTS]
    samples = {
        "gaussian": rng.normal(size=16 * 256).astype(np.float32),
        "laplace": rng.laplace(scale=0.5 ** 0.5, size=8 * 256).astype(np.float32),
    }
    sections += [(name, sample.tobytes()) for name, sample in samples.items()]
    for name in K_QUANTS:
        errors = []
        for sample in samples.values():
            back = dequantize(ggml, name, quantize(ggml, name, sample))
            errors.append(float(np.mean((back.astype(np.float64) - sample) ** 2)))
        print(name, errors)
        sections.append((f"{name}.mse", struct.pack("<2d", *errors)))
    with open(HERE / "formats.bin", "wb") as file:
        for name, payload in sections:
            file.write(struct.pack("<24sI", name.encode(), len(payload)) + payload)
    print((HERE / "formats.bin").stat().st_size, "bytes")


if __name__ == "__main__":
    main()
