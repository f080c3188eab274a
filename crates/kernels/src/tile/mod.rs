//! Products of 16-row tiles with groups of tokens, and the loop that covers a matrix with them.
//!
//! One kernel (`kernel.rs`) serves every instruction set (`simd.rs`: the operations it may use; one file for each set) and every
//! format (`format.rs`); `scalar.rs` is the reference of them all. How many tokens a kernel takes at once decides what shares
//! registers and caches; the order of operations inside one output never depends on it.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod float;
mod format;
mod kernel;
pub(crate) mod layout;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;
pub(crate) mod pack;
mod scalar;
mod simd;
mod sparse;

use std::ops::Range;

use self::format::{Expanded, Format, Quants, Scales};
use self::kernel::Strip;
use self::layout::{Layout, ScalePlane};
use self::simd::Simd;
use crate::activation::{Input, QuantTokens};
use crate::block::BlockFormat;
use crate::isa::Isa;
use crate::limits::{BLOCK, EXPANDED_BLOCKS, LANES, WHOLE_SUM_BLOCKS};
use crate::matrix::Line;
use crate::shared::SharedSlice;

/// A packed matrix as kernels see it.
#[derive(Clone, Copy)]
pub(crate) struct Tiles<'a> {
    pub(crate) format: BlockFormat,
    pub(crate) k: usize,
    pub(crate) lines: &'a [Line],
    /// Lines of the quants; the scales follow.
    pub(crate) quant_lines: usize,
}

/// Quantised weights, as `layout.rs` says.
#[derive(Clone, Copy)]
pub(crate) struct QuantTiles<'a> {
    blocks: usize,
    quants: &'a [Line],
    scales: ScalePlane<'a>,
}

impl<'a> QuantTiles<'a> {
    pub(crate) fn new(layout: &Layout, tiles: &Tiles<'a>) -> Self {
        let blocks = tiles.k / BLOCK;
        let (quants, scales) = tiles.lines.split_at(tiles.quant_lines);
        Self { blocks, quants, scales: ScalePlane::new(layout.scales, blocks, scales) }
    }

    /// The blocks of one row from `first` on as f32: the values of [`crate::dequantize`], bit for bit; of trellis formats, those before
    /// the rotation back.
    pub(crate) fn dequantize_row(&self, layout: &Layout, row: usize, first: usize, out: &mut [f32]) {
        let (tile, lane, lines) = (row / LANES, row % LANES, layout.bits.lines());
        for (block, values) in out.as_chunks_mut::<BLOCK>().0.iter_mut().enumerate() {
            let block = first + block;
            let quants = &self.quants[(tile * self.blocks + block) * lines..][..lines];
            let scales = self.scales.lane(tile, block, lane);
            for (i, value) in values.iter_mut().enumerate() {
                let half = i / (BLOCK / 2);
                let d = scales.sub.map_or(scales.d, |sub| scales.d * sub[half] as f32);
                let product = d * layout.weight(quants, lane, i) as f32;
                *value = scales.min.map_or(product, |(m, parts)| product - m * parts[half] as f32);
            }
        }
    }
}

/// The kernel compiled for one instruction set.
trait Kernels: Simd {
    /// Tokens `token..token + N` of the job times the rows of a strip.
    fn product<F: Format, const N: usize>(self, job: &Job<'_>, strip: Strip<'_, F::Quants>, token: usize);

    /// [`kernel::expand`].
    fn expand<F: Format>(self, strip: Strip<'_, F::Quants>, out: &mut [[Line; 8]]);

    /// [`kernel::dots`].
    fn dots(self, rounds: u64) -> u64;
}

/// [`Kernels`] of a set whose features are the same for every format.
macro_rules! kernels {
    ($token:ty, $features:literal) => {
        impl $crate::tile::Kernels for $token {
            fn product<F: Format, const N: usize>(
                self,
                job: &Job<'_>,
                strip: Strip<'_, F::Quants>,
                token: usize,
            ) {
                #[target_feature(enable = $features)]
                fn inner<F: Format, const N: usize>(
                    simd: $token,
                    job: &Job<'_>,
                    strip: Strip<'_, F::Quants>,
                    token: usize,
                ) {
                    kernel::product::<$token, F, N>(simd, job, strip, token);
                }
                // SAFETY: `self` proves the features.
                unsafe { inner::<F, N>(self, job, strip, token) }
            }

            fn expand<F: Format>(self, strip: Strip<'_, F::Quants>, out: &mut [[Line; 8]]) {
                #[target_feature(enable = $features)]
                fn inner<F: Format>(simd: $token, strip: Strip<'_, F::Quants>, out: &mut [[Line; 8]]) {
                    kernel::expand::<$token, F>(simd, strip, out);
                }
                // SAFETY: `self` proves the features.
                unsafe { inner::<F>(self, strip, out) }
            }

            fn dots(self, rounds: u64) -> u64 {
                #[target_feature(enable = $features)]
                fn inner(simd: $token, rounds: u64) -> u64 {
                    kernel::dots(simd, rounds)
                }
                // SAFETY: `self` proves the features.
                unsafe { inner(self, rounds) }
            }
        }
    };
}
use kernels;

/// `rounds` rounds of dot products in registers: their sum, and the multiply-adds of one round.
pub(crate) fn dots(isa: Isa, rounds: u64) -> (u64, u64) {
    fn run<K: Kernels>(simd: K, rounds: u64) -> (u64, u64) {
        (simd.dots(rounds), kernel::dot_macs::<K>())
    }
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2(simd) => run(simd, rounds),
        #[cfg(target_arch = "x86_64")]
        Isa::AvxVnni(simd) => run(simd, rounds),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512(simd) => run(simd, rounds),
        #[cfg(target_arch = "aarch64")]
        Isa::Neon(simd) => run(simd, rounds),
        #[cfg(target_arch = "aarch64")]
        Isa::NeonDot(simd) => run(simd, rounds),
        #[cfg(target_arch = "aarch64")]
        Isa::NeonI8mm(simd) => run(simd, rounds),
        _ => scalar::dots(rounds),
    }
}

/// Where results go: a (tokens, stride) array that holds the rows from `first_row` on.
#[derive(Clone, Copy)]
pub(crate) struct Target<'a> {
    pub(crate) out: SharedSlice<'a, f32>,
    pub(crate) stride: usize,
    pub(crate) first_row: usize,
    /// Rows of the matrix; those that a tile has beyond are dropped.
    pub(crate) rows: usize,
}

impl Target<'_> {
    /// Where the valid rows of a tile go for one token.
    ///
    /// # Safety
    /// No other thread may hold a part of the same tile and token.
    #[inline(always)]
    #[allow(unsafe_code, clippy::mut_from_ref)]
    pub(crate) unsafe fn part(&self, tile: usize, token: usize) -> &mut [f32] {
        let row = tile * LANES;
        let valid = LANES.min(self.rows - row);
        // SAFETY: this function's contract.
        unsafe { self.out.part(token * self.stride + row - self.first_row, valid) }
    }

    /// Stores what one lane after the other holds.
    ///
    /// # Safety
    /// As [`Target::part`].
    #[inline(always)]
    #[allow(unsafe_code)]
    pub(crate) unsafe fn put(&self, tile: usize, token: usize, values: &[f32; LANES]) {
        // SAFETY: this function's contract.
        let part = unsafe { self.part(tile, token) };
        part.copy_from_slice(&values[..part.len()]);
    }
}

/// What one call computes: the tiles of `range` for `tokens` tokens. No other call may compute any of them at the same time.
struct Job<'a> {
    w: QuantTiles<'a>,
    a: QuantTokens<'a>,
    tokens: usize,
    range: Range<usize>,
    target: Target<'a>,
}

/// Computes the tiles of `range` for all tokens of the input.
///
/// # Safety
/// No other thread may write these tiles of the target.
#[allow(unsafe_code)]
pub(crate) unsafe fn drive(
    isa: Isa,
    w: &Tiles<'_>,
    input: &Input<'_>,
    range: Range<usize>,
    target: Target<'_>,
) {
    let tokens = input.values.len() / w.k;
    let Some(layout) = Layout::of(w.format) else {
        // SAFETY: this function's contract.
        return unsafe { float::drive(isa, w, input.values, tokens, range, target) };
    };
    let a = input.quantised.tokens(w.format.form());
    let job = Job { w: QuantTiles::new(&layout, w), a, tokens, range, target };
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2(simd) => by_format(simd, w.format, &job),
        #[cfg(target_arch = "x86_64")]
        Isa::AvxVnni(simd) => by_format(simd, w.format, &job),
        #[cfg(target_arch = "x86_64")]
        // Without instructions that expand, a wider register is none: eight places at a time.
        Isa::Avx512(simd) if w.format.sparse_bits().is_some() && !simd.expands() => {
            by_format(simd.narrow(), w.format, &job);
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512(simd) => by_format(simd, w.format, &job),
        #[cfg(target_arch = "aarch64")]
        Isa::Neon(simd) => by_format(simd, w.format, &job),
        #[cfg(target_arch = "aarch64")]
        Isa::NeonDot(simd) => by_format(simd, w.format, &job),
        #[cfg(target_arch = "aarch64")]
        Isa::NeonI8mm(simd) => by_format(simd, w.format, &job),
        _ => cover_scalar(&layout, &job),
    }
}

fn cover_scalar(layout: &Layout, job: &Job<'_>) {
    for tile in job.range.clone() {
        for token in 0..job.tokens {
            scalar::product(layout, job, tile, token);
        }
    }
}

fn by_format<K: Kernels>(simd: K, format: BlockFormat, job: &Job<'_>) {
    match format {
        BlockFormat::F32 | BlockFormat::F16 | BlockFormat::Bf16 | BlockFormat::F8_E4M3 => {
            unreachable!("floats have their own kernels")
        }
        BlockFormat::Q8_0 => cover::<K, format::Q8_0>(simd, job),
        BlockFormat::Q4_0 => cover::<K, format::Q4_0>(simd, job),
        BlockFormat::Q4_1 => cover::<K, format::Q4_1>(simd, job),
        BlockFormat::Q5_0 => cover::<K, format::Q5_0>(simd, job),
        BlockFormat::Q5_1 => cover::<K, format::Q5_1>(simd, job),
        BlockFormat::Q2_K => cover::<K, format::Q2_K>(simd, job),
        BlockFormat::Q3_K => cover::<K, format::Q3_K>(simd, job),
        BlockFormat::Q4_K => cover::<K, format::Q4_K>(simd, job),
        BlockFormat::Q5_K => cover::<K, format::Q5_K>(simd, job),
        BlockFormat::Q6_K => cover::<K, format::Q6_K>(simd, job),
        BlockFormat::IQ4_NL => cover::<K, format::Iq4Nl>(simd, job),
        BlockFormat::MXFP4 => cover::<K, format::Mxfp4>(simd, job),
        BlockFormat::NF4 => cover::<K, format::Nf4>(simd, job),
        BlockFormat::I8_ROW => cover::<K, format::I8Row>(simd, job),
        BlockFormat::T2 => cover::<K, format::T2>(simd, job),
        BlockFormat::T3 => cover::<K, format::T3>(simd, job),
        BlockFormat::T4 => cover::<K, format::T4>(simd, job),
        BlockFormat::SPARSE8 => cover::<K, format::SPARSE8>(simd, job),
        BlockFormat::SPARSE4 => cover::<K, format::SPARSE4>(simd, job),
    }
}

/// Covers all tiles of a job. Weights that take long to expand are expanded once, if more than one group of tokens meets them.
fn cover<K: Kernels, F: Format>(simd: K, job: &Job<'_>) {
    let blocks = job.w.blocks;
    let quants =
        |tile: usize| &<F::Quants as Quants>::blocks(job.w.quants)[tile * blocks..(tile + 1) * blocks];
    if !F::Quants::DEAR || job.tokens <= K::TOKENS {
        let most = if <F::Scales as Scales>::WHOLE { WHOLE_SUM_BLOCKS } else { blocks };
        for tile in job.range.clone() {
            for (index, quants) in quants(tile).chunks(most).enumerate() {
                groups::<K, F>(simd, job, Strip { tile, first: index * most, quants });
            }
        }
        return;
    }
    let mut lines = [[Line([0; 64]); 8]; EXPANDED_BLOCKS];
    for tile in job.range.clone() {
        for (index, quants) in quants(tile).chunks(EXPANDED_BLOCKS).enumerate() {
            let (first, lines) = (index * EXPANDED_BLOCKS, &mut lines[..quants.len()]);
            simd.expand::<F>(Strip { tile, first, quants }, lines);
            groups::<K, Expanded<F>>(simd, job, Strip { tile, first, quants: lines });
        }
    }
}

/// A strip stays in the nearest cache while the tokens pass by in groups; twelve tokens start at a multiple of four, two at an even one,
/// so that none of them straddles more groups of activations than it has to.
fn groups<K: Kernels, F: Format>(simd: K, job: &Job<'_>, strip: Strip<'_, F::Quants>) {
    let mut token = 0;
    while token < job.tokens {
        token += match job.tokens - token {
            12.. if K::TOKENS >= 12 => group::<K, F, 12>(simd, job, strip, token),
            4.. => group::<K, F, 4>(simd, job, strip, token),
            2.. => group::<K, F, 2>(simd, job, strip, token),
            _ => group::<K, F, 1>(simd, job, strip, token),
        };
    }
}

fn group<K: Kernels, F: Format, const N: usize>(
    simd: K,
    job: &Job<'_>,
    strip: Strip<'_, F::Quants>,
    token: usize,
) -> usize {
    simd.product::<F, N>(job, strip, token);
    N
}
