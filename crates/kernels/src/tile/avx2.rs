//! 256-bit integer kernels: half a line (8 rows × 4 k) at a time, widened to i16 and joined by `vpmaddwd`.
//!
//! `vpmaddubsw` would be shorter but saturates for u8 weights; two products of 255 · 128 fit an i32 with ease.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::{Group, QuantKernels, QuantTiles, QuantTokens};
use crate::isa::Avx2;
use crate::limits::BLOCK;
use crate::matrix::{Lanes16, Line};

#[inline]
#[target_feature(enable = "avx2")]
fn load(line: &Line, half: usize) -> __m256i {
    let (halves, _) = line.0.as_chunks::<32>();
    // SAFETY: a half line is 32 bytes.
    unsafe { _mm256_loadu_si256(halves[half].as_ptr().cast()) }
}

/// Four activations in every lane, as i16: (k0, k2) and (k1, k3).
#[inline]
#[target_feature(enable = "avx2")]
fn broadcast(block: &[i8; BLOCK], at: usize) -> (__m256i, __m256i) {
    let b = block.as_chunks::<4>().0[at];
    let four = _mm256_set1_epi32(i32::from_ne_bytes(b.map(|v| v as u8)));
    (_mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(four)), _mm256_srai_epi16::<8>(four))
}

/// `sum + Σ weights · activations` in every lane; weights are u8.
#[inline]
#[target_feature(enable = "avx2")]
fn dot(sum: __m256i, weights: __m256i, (even, odd): (__m256i, __m256i)) -> __m256i {
    let low = _mm256_and_si256(weights, _mm256_set1_epi16(0xff));
    let high = _mm256_srli_epi16::<8>(weights);
    let pairs = _mm256_add_epi32(_mm256_madd_epi16(low, even), _mm256_madd_epi16(high, odd));
    _mm256_add_epi32(sum, pairs)
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn accumulate(acc: __m256, sum: __m256i, scales: &Lanes16, half: usize, token_scale: f32) -> __m256 {
    let (halves, _) = scales.0.as_chunks::<8>();
    // SAFETY: 8 halves are 16 bytes.
    let dw = _mm256_cvtph_ps(unsafe { _mm_loadu_si128(halves[half].as_ptr().cast()) });
    _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), _mm256_mul_ps(dw, _mm256_set1_ps(token_scale)), acc)
}

#[target_feature(enable = "avx2,fma,f16c")]
fn product<const FOUR: bool, const LINES: usize, const R: usize, const N: usize>(
    w: QuantTiles<'_>,
    a: QuantTokens<'_>,
    tile: usize,
    token: usize,
    out: &mut Group<R, N>,
) {
    let zero_point = if FOUR { 8 } else { 128 };
    let tokens: [_; N] = std::array::from_fn(|n| a.token(token + n));
    for (r, row_out) in out.iter_mut().enumerate() {
        let (lines, scales) = w.tile::<LINES>(tile + r);
        for half in 0..2 {
            let mut acc = [_mm256_setzero_ps(); N];
            for b in 0..w.blocks {
                let mut sums = tokens.map(|t| _mm256_set1_epi32(-zero_point * t.2[b]));
                for (l, line) in lines[b].iter().enumerate() {
                    let bytes = load(line, half);
                    if FOUR {
                        let nibbles = _mm256_set1_epi8(15);
                        let low = _mm256_and_si256(bytes, nibbles);
                        let high = _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), nibbles);
                        for n in 0..N {
                            let sum = dot(sums[n], low, broadcast(&tokens[n].0[b], 2 * l));
                            sums[n] = dot(sum, high, broadcast(&tokens[n].0[b], 2 * l + 1));
                        }
                    } else {
                        for n in 0..N {
                            sums[n] = dot(sums[n], bytes, broadcast(&tokens[n].0[b], l));
                        }
                    }
                }
                for n in 0..N {
                    acc[n] = accumulate(acc[n], sums[n], &scales[b], half, tokens[n].1[b]);
                }
            }
            for n in 0..N {
                let (halves, _) = row_out[n].as_chunks_mut::<8>();
                // SAFETY: 8 floats are 32 bytes.
                unsafe { _mm256_storeu_ps(halves[half].as_mut_ptr(), acc[n]) };
            }
        }
    }
}

impl QuantKernels for Avx2 {
    fn q8<const R: usize, const N: usize>(
        self,
        w: QuantTiles<'_>,
        a: QuantTokens<'_>,
        tile: usize,
        token: usize,
        out: &mut Group<R, N>,
    ) {
        // SAFETY: `self` proves the features.
        unsafe { product::<false, 8, R, N>(w, a, tile, token, out) }
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
        unsafe { product::<true, 4, R, N>(w, a, tile, token, out) }
    }
}
