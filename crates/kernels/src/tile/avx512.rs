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

/// The lines of one block, kept in registers while a group of tokens passes by.
#[inline]
#[target_feature(enable = "avx512f")]
fn lines<const LINES: usize>(block: &[Line; LINES]) -> [__m512i; LINES] {
    // SAFETY: a line is 64 bytes.
    std::array::from_fn(|l| unsafe { _mm512_loadu_si512(block[l].0.as_ptr().cast()) })
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
        for r in 0..R {
            let lines = lines::<8>(&weights[r].0[b]);
            let dw = weight_scales(&weights[r].1[b]);
            for n in 0..N {
                let (block, scale, sum) = (&tokens[n].0[b], tokens[n].1[b], tokens[n].2[b]);
                // Two chains, because one would wait for itself; integer sums may be split at will.
                let mut even = _mm512_set1_epi32(sum * -128);
                let mut odd = _mm512_setzero_si512();
                for l in 0..4 {
                    even = _mm512_dpbusd_epi32(even, lines[2 * l], broadcast(block, 2 * l));
                    odd = _mm512_dpbusd_epi32(odd, lines[2 * l + 1], broadcast(block, 2 * l + 1));
                }
                acc[r][n] = accumulate(acc[r][n], _mm512_add_epi32(even, odd), dw, scale);
            }
        }
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
        for r in 0..R {
            let lines = lines::<4>(&weights[r].0[b]);
            let low = lines.map(|line| _mm512_and_si512(line, nibbles));
            let high = lines.map(|line| _mm512_and_si512(_mm512_srli_epi16::<4>(line), nibbles));
            let dw = weight_scales(&weights[r].1[b]);
            for n in 0..N {
                let (block, scale, sum) = (&tokens[n].0[b], tokens[n].1[b], tokens[n].2[b]);
                let mut even = _mm512_set1_epi32(sum * -8);
                let mut odd = _mm512_setzero_si512();
                for l in 0..4 {
                    even = _mm512_dpbusd_epi32(even, low[l], broadcast(block, 2 * l));
                    odd = _mm512_dpbusd_epi32(odd, high[l], broadcast(block, 2 * l + 1));
                }
                acc[r][n] = accumulate(acc[r][n], _mm512_add_epi32(even, odd), dw, scale);
            }
        }
    }
    store(acc, out);
}

/// `fma(f32(sum), dw * da, acc)` in every lane.
#[inline]
#[target_feature(enable = "avx512f")]
fn accumulate(acc: __m512, sum: __m512i, weight_scales: __m512, token_scale: f32) -> __m512 {
    let scale = _mm512_mul_ps(weight_scales, _mm512_set1_ps(token_scale));
    _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), scale, acc)
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
