//! Float weights: four partial sums per output (`k mod 4`), joined as `(p0 + p1) + (p2 + p3)`.
//!
//! One body for all instruction sets and formats: a tile's 16 rows of one k lie side by side, so the plain loop
//! over lanes is the vector loop. Formats with a scale for each row are multiplied by it at the end.

use std::ops::Range;

use super::layout::Record;
use super::{Target, Tiles};
use crate::block::BlockFormat;
use crate::isa::{Isa, multiversion};
use crate::limits::LANES;
use crate::math::{bf16_to_f32, f16_to_f32};
use crate::matrix::{Lanes8, Lanes16, Lanes32};

/// Partial sums of one output, and k values a step.
const PARTS: usize = 4;

/// # Safety
/// As [`super::drive`].
#[allow(unsafe_code)]
pub(super) unsafe fn drive(
    isa: Isa,
    w: &Tiles<'_>,
    x: &[f32],
    tokens: usize,
    range: Range<usize>,
    target: Target<'_>,
) {
    let k = w.k;
    for tile in range {
        let lanes = tile * k..(tile + 1) * k;
        let mut token = 0;
        while token < tokens {
            let count = if tokens - token >= 4 { 4 } else { 1 };
            let x = &x[token * k..(token + count) * k];
            let mut out = [[0.0; LANES]; 4];
            let out = &mut out[..count];
            match w.format {
                BlockFormat::F32 => f32_tile(isa, &Lanes32::view(w.lines)[lanes.clone()], x, out),
                BlockFormat::F16 => half_tile(isa, &Lanes16::view(w.lines)[lanes.clone()], x, out),
                BlockFormat::Bf16 => bf16_tile(isa, &Lanes16::view(w.lines)[lanes.clone()], x, out),
                BlockFormat::F8_E4M3 => {
                    half_tile(isa, &Lanes8::view(w.lines)[lanes.clone()], x, out);
                    let scales = &Lanes32::view(w.lines)[w.quant_lines + tile];
                    for values in out.iter_mut() {
                        values.iter_mut().zip(&scales.0).for_each(|(value, scale)| *value *= F8_HALF * scale);
                    }
                }
                _ => unreachable!("quantised tiles have their own kernels"),
            }
            for (n, values) in out.iter().enumerate() {
                // SAFETY: this function's contract.
                unsafe { target.put(tile, token + n, values) };
            }
            token += count;
        }
    }
}

/// N tokens × one tile; `get` widens the 16 weights of one k.
#[inline(always)]
fn tile_product<const N: usize, W>(
    weights: &[W],
    x: &[f32],
    out: &mut [[f32; LANES]],
    get: impl Fn(&W) -> [f32; LANES],
) {
    let k = weights.len();
    let tokens: [&[f32]; N] = std::array::from_fn(|n| &x[n * k..(n + 1) * k]);
    let mut parts = [[[0.0f32; LANES]; PARTS]; N];
    let whole = k / PARTS * PARTS;
    for start in (0..whole).step_by(PARTS) {
        for part in 0..PARTS {
            let w = get(&weights[start + part]);
            for n in 0..N {
                let value = tokens[n][start + part];
                for lane in 0..LANES {
                    parts[n][part][lane] = w[lane].mul_add(value, parts[n][part][lane]);
                }
            }
        }
    }
    for i in whole..k {
        let w = get(&weights[i]);
        for n in 0..N {
            for lane in 0..LANES {
                parts[n][i - whole][lane] = w[lane].mul_add(tokens[n][i], parts[n][i - whole][lane]);
            }
        }
    }
    for (output, p) in out.iter_mut().zip(&parts) {
        for lane in 0..LANES {
            output[lane] = (p[0][lane] + p[1][lane]) + (p[2][lane] + p[3][lane]);
        }
    }
}

#[inline(always)]
fn any_count<W>(weights: &[W], x: &[f32], out: &mut [[f32; LANES]], get: impl Fn(&W) -> [f32; LANES]) {
    if out.len() == 4 {
        tile_product::<4, W>(weights, x, out, get);
    } else {
        tile_product::<1, W>(weights, x, out, get);
    }
}

multiversion! {
    fn f32_tile(isa, weights: &[Lanes32], x: &[f32], out: &mut [[f32; LANES]]) {
        any_count(weights, x, out, |w| w.0);
    }
}
multiversion! {
    fn bf16_tile(isa, weights: &[Lanes16], x: &[f32], out: &mut [[f32; LANES]]) {
        any_count(weights, x, out, |w| w.0.map(bf16_to_f32));
    }
}

/// What an E4M3 is to the half with its exponent and mantissa: the biases are 7 and 15. A row with a NaN has one for a scale.
const F8_HALF: f32 = 256.0;

/// Weights of one k that are halves, or are written as such.
trait Halves {
    fn halves(&self) -> [u16; LANES];
}

impl Halves for Lanes16 {
    #[inline(always)]
    fn halves(&self) -> [u16; LANES] {
        self.0
    }
}

impl Halves for Lanes8 {
    #[inline(always)]
    fn halves(&self) -> [u16; LANES] {
        // A loop: `map` is not always inlined, and what is not lacks the features of the set.
        let mut halves = [0; LANES];
        for (half, byte) in halves.iter_mut().zip(self.0) {
            *half = u16::from(byte & 0x7f) << 7 | u16::from(byte & 0x80) << 8;
        }
        halves
    }
}

/// Halves are widened by instructions where there are some: the plain conversion does not vectorise. Both are exact.
fn half_tile<W: Halves>(isa: Isa, weights: &[W], x: &[f32], out: &mut [[f32; LANES]]) {
    match isa {
        #[cfg(target_arch = "x86_64")]
        #[allow(unsafe_code)]
        // SAFETY: the token proves the features.
        Isa::Avx2(_) | Isa::AvxVnni(_) => unsafe { half::avx2(weights, x, out) },
        #[cfg(target_arch = "x86_64")]
        #[allow(unsafe_code)]
        // SAFETY: the token proves the features.
        Isa::Avx512(_) => unsafe { half::avx512(weights, x, out) },
        #[cfg(target_arch = "aarch64")]
        Isa::Neon(_) | Isa::NeonDot(_) | Isa::NeonI8mm(_) => {
            any_count(weights, x, out, |w| super::neon::widen_lanes(&w.halves()));
        }
        _ => any_count(weights, x, out, |w| w.halves().map(f16_to_f32)),
    }
}

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
mod half {
    use std::arch::x86_64::*;

    use super::{Halves, LANES, any_count};

    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn avx2<W: Halves>(weights: &[W], x: &[f32], out: &mut [[f32; LANES]]) {
        any_count(weights, x, out, |w| {
            let mut wide = [0.0f32; LANES];
            let narrow = w.halves();
            let (narrow, _) = narrow.as_chunks::<8>();
            let (halves, _) = wide.as_chunks_mut::<8>();
            for (half, narrow) in halves.iter_mut().zip(narrow) {
                // SAFETY: 8 halves are 16 bytes, 8 floats 32.
                unsafe {
                    let eight = _mm_loadu_si128(narrow.as_ptr().cast());
                    _mm256_storeu_ps(half.as_mut_ptr(), _mm256_cvtph_ps(eight));
                }
            }
            wide
        });
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    pub(super) fn avx512<W: Halves>(weights: &[W], x: &[f32], out: &mut [[f32; LANES]]) {
        any_count(weights, x, out, |w| {
            let mut wide = [0.0f32; LANES];
            // SAFETY: 16 halves are 32 bytes, 16 floats 64.
            unsafe {
                let sixteen = _mm256_loadu_si256(w.halves().as_ptr().cast());
                _mm512_storeu_ps(wide.as_mut_ptr(), _mm512_cvtph_ps(sixteen));
            }
            wide
        });
    }
}
