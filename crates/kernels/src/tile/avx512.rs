//! 512-bit integer kernels: one `vpdpbusd` multiplies a line (16 rows × 4 k) with four activations.
//!
//! Weights are unsigned (`q + zero point`), so every sum starts at `-zero_point · Σ activations`: the correction
//! costs nothing, and the instruction does not saturate.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::{Group, QuantKernels, QuantTiles, QuantTokens};
use crate::isa::Avx512;
use crate::limits::{BLOCK, LANES};
use crate::matrix::{Lanes16, Line};

#[inline]
#[target_feature(enable = "avx512f")]
fn load(line: &Line) -> __m512i {
    // SAFETY: a line is 64 bytes.
    unsafe { _mm512_loadu_si512(line.0.as_ptr().cast()) }
}

/// Four activations, in every lane.
#[inline]
#[target_feature(enable = "avx512f")]
fn broadcast(block: &[i8; BLOCK], at: usize) -> __m512i {
    let b = block.as_chunks::<4>().0[at];
    _mm512_set1_epi32(i32::from_ne_bytes(b.map(|v| v as u8)))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn weight_scales(scales: &Lanes16) -> __m512 {
    // SAFETY: 16 halves are 32 bytes.
    _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(scales.0.as_ptr().cast()) })
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store<const R: usize, const N: usize>(acc: [[__m512; N]; R], out: &mut Group<R, N>) {
    for r in 0..R {
        for n in 0..N {
            let lanes: &mut [f32; LANES] = &mut out[r][n];
            // SAFETY: 16 floats are 64 bytes.
            unsafe { _mm512_storeu_ps(lanes.as_mut_ptr(), acc[r][n]) };
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn q8<const R: usize, const N: usize>(
    w: QuantTiles<'_>,
    a: QuantTokens<'_>,
    tile: usize,
    token: usize,
    out: &mut Group<R, N>,
) {
    let weights: [_; R] = std::array::from_fn(|r| w.tile::<8>(tile + r));
    let tokens: [_; N] = std::array::from_fn(|n| a.token(token + n));
    let mut acc = [[_mm512_setzero_ps(); N]; R];
    for b in 0..w.blocks {
        let mut sums = [[_mm512_setzero_si512(); N]; R];
        for n in 0..N {
            let start = _mm512_set1_epi32(tokens[n].2[b] * -128);
            for row in &mut sums {
                row[n] = start;
            }
        }
        for l in 0..8 {
            for r in 0..R {
                let line = load(&weights[r].0[b][l]);
                for n in 0..N {
                    sums[r][n] = _mm512_dpbusd_epi32(sums[r][n], line, broadcast(&tokens[n].0[b], l));
                }
            }
        }
        accumulate(&mut acc, &sums, &weights.map(|x| &x.1[b]), &tokens.map(|x| x.1[b]));
    }
    store(acc, out);
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn q4<const R: usize, const N: usize>(
    w: QuantTiles<'_>,
    a: QuantTokens<'_>,
    tile: usize,
    token: usize,
    out: &mut Group<R, N>,
) {
    let weights: [_; R] = std::array::from_fn(|r| w.tile::<4>(tile + r));
    let tokens: [_; N] = std::array::from_fn(|n| a.token(token + n));
    let mut acc = [[_mm512_setzero_ps(); N]; R];
    let nibbles = _mm512_set1_epi8(15);
    for b in 0..w.blocks {
        let mut sums = [[_mm512_setzero_si512(); N]; R];
        for n in 0..N {
            let start = _mm512_set1_epi32(tokens[n].2[b] * -8);
            for row in &mut sums {
                row[n] = start;
            }
        }
        for l in 0..4 {
            for r in 0..R {
                let line = load(&weights[r].0[b][l]);
                let low = _mm512_and_si512(line, nibbles);
                let high = _mm512_and_si512(_mm512_srli_epi16::<4>(line), nibbles);
                for n in 0..N {
                    let sum = _mm512_dpbusd_epi32(sums[r][n], low, broadcast(&tokens[n].0[b], 2 * l));
                    sums[r][n] = _mm512_dpbusd_epi32(sum, high, broadcast(&tokens[n].0[b], 2 * l + 1));
                }
            }
        }
        accumulate(&mut acc, &sums, &weights.map(|x| &x.1[b]), &tokens.map(|x| x.1[b]));
    }
    store(acc, out);
}

/// `acc = fma(f32(sum), dw * da, acc)` in every lane.
#[inline]
#[target_feature(enable = "avx512f")]
fn accumulate<const R: usize, const N: usize>(
    acc: &mut [[__m512; N]; R],
    sums: &[[__m512i; N]; R],
    scales: &[&Lanes16; R],
    token_scales: &[f32; N],
) {
    for r in 0..R {
        let dw = weight_scales(scales[r]);
        for n in 0..N {
            let scale = _mm512_mul_ps(dw, _mm512_set1_ps(token_scales[n]));
            acc[r][n] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[r][n]), scale, acc[r][n]);
        }
    }
}

impl QuantKernels for Avx512 {
    fn q8<const R: usize, const N: usize>(
        self,
        w: QuantTiles<'_>,
        a: QuantTokens<'_>,
        tile: usize,
        token: usize,
        out: &mut Group<R, N>,
    ) {
        // SAFETY: `self` proves the features.
        unsafe { q8::<R, N>(w, a, tile, token, out) }
    }

    fn q4<const R: usize, const N: usize>(
        self,
        w: QuantTiles<'_>,
        a: QuantTokens<'_>,
        tile: usize,
        token: usize,
        out: &mut Group<R, N>,
    ) {
        // SAFETY: `self` proves the features.
        unsafe { q4::<R, N>(w, a, tile, token, out) }
    }
}
