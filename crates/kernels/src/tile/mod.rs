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
pub(crate) mod pack;
mod scalar;
mod simd;

use std::ops::Range;

use self::format::Format;
use self::kernel::Group;
use self::layout::{Layout, ScalePlane};
use self::simd::Simd;
use crate::activation::{ActivationBuffer, BlockMeta, Input};
use crate::block::BlockFormat;
use crate::isa::Isa;
use crate::limits::{BLOCK, LANES};
use crate::matrix::Line;

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

    /// One row as f32, (k): the values of [`crate::dequantize`], bit for bit.
    pub(crate) fn dequantize_row(&self, layout: &Layout, row: usize, out: &mut [f32]) {
        let (tile, lane, lines) = (row / LANES, row % LANES, layout.bits.lines());
        for (block, values) in out.as_chunks_mut::<BLOCK>().0.iter_mut().enumerate() {
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

/// Int8 activations as kernels see them.
#[derive(Clone, Copy)]
pub(crate) struct QuantTokens<'a> {
    blocks: usize,
    values: &'a [[i8; BLOCK]],
    meta: &'a [BlockMeta],
}

impl<'a> QuantTokens<'a> {
    fn new(buffer: &'a ActivationBuffer, k: usize) -> Self {
        Self { blocks: k / BLOCK, values: buffer.values.as_chunks::<BLOCK>().0, meta: &buffer.meta }
    }

    /// Values and what belongs to them, each (blocks).
    #[inline(always)]
    fn token(&self, token: usize) -> (&'a [[i8; BLOCK]], &'a [BlockMeta]) {
        let range = token * self.blocks..(token + 1) * self.blocks;
        (&self.values[range.clone()], &self.meta[range])
    }
}

/// The kernel compiled for one instruction set.
pub(crate) trait Kernels: Simd {
    fn product<F: Format, const N: usize>(
        self,
        w: QuantTiles<'_>,
        a: QuantTokens<'_>,
        tile: usize,
        token: usize,
        out: &mut Group<N>,
    );
}

/// Takes (tile, token, its 16 values).
pub(crate) type Sink<'s> = &'s mut dyn FnMut(usize, usize, &[f32; LANES]);

/// What one call computes: the tiles of `range` for `tokens` tokens.
struct Job<'a> {
    w: QuantTiles<'a>,
    a: QuantTokens<'a>,
    tokens: usize,
    range: Range<usize>,
}

/// Computes the tiles of `range` for all tokens of the input and hands each result to `sink`.
pub(crate) fn drive(isa: Isa, w: &Tiles<'_>, input: &Input<'_>, range: Range<usize>, sink: Sink<'_>) {
    let tokens = input.values.len() / w.k;
    let Some(layout) = Layout::of(w.format) else {
        return float::drive(isa, w, input.values, tokens, range, sink);
    };
    let a = QuantTokens::new(input.quantised, w.k);
    let job = Job { w: QuantTiles::new(&layout, w), a, tokens, range };
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2(simd) => by_format(simd, w.format, &job, sink),
        #[cfg(target_arch = "x86_64")]
        Isa::AvxVnni(simd) => by_format(simd, w.format, &job, sink),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512(simd) => by_format(simd, w.format, &job, sink),
        _ => cover_scalar(&layout, &job, sink),
    }
}

fn cover_scalar(layout: &Layout, job: &Job<'_>, sink: Sink<'_>) {
    for tile in job.range.clone() {
        for token in 0..job.tokens {
            let mut out = [[0.0; LANES]; 1];
            scalar::product::<1>(layout, job.w, job.a, tile, token, &mut out);
            sink(tile, token, &out[0]);
        }
    }
}

fn by_format<K: Kernels>(simd: K, format: BlockFormat, job: &Job<'_>, sink: Sink<'_>) {
    match format {
        BlockFormat::F32 | BlockFormat::F16 | BlockFormat::Bf16 => {
            unreachable!("floats have their own kernels")
        }
        BlockFormat::Q8_0 => cover::<K, format::Q8_0>(simd, job, sink),
        BlockFormat::Q4_0 => cover::<K, format::Q4_0>(simd, job, sink),
        BlockFormat::Q4_1 => cover::<K, format::Q4_1>(simd, job, sink),
        BlockFormat::Q5_0 => cover::<K, format::Q5_0>(simd, job, sink),
        BlockFormat::Q5_1 => cover::<K, format::Q5_1>(simd, job, sink),
        BlockFormat::Q2_K => cover::<K, format::Q2_K>(simd, job, sink),
        BlockFormat::Q3_K => cover::<K, format::Q3_K>(simd, job, sink),
        BlockFormat::Q4_K => cover::<K, format::Q4_K>(simd, job, sink),
        BlockFormat::Q5_K => cover::<K, format::Q5_K>(simd, job, sink),
        BlockFormat::Q6_K => cover::<K, format::Q6_K>(simd, job, sink),
        BlockFormat::IQ4_NL => cover::<K, format::Iq4Nl>(simd, job, sink),
        BlockFormat::MXFP4 => cover::<K, format::Mxfp4>(simd, job, sink),
    }
}

/// A tile stays in the nearest cache while the tokens pass by in groups.
fn cover<K: Kernels, F: Format>(simd: K, job: &Job<'_>, sink: Sink<'_>) {
    for tile in job.range.clone() {
        let mut token = 0;
        while token < job.tokens {
            token += match job.tokens - token {
                12.. if K::TOKENS >= 12 => group::<K, F, 12>(simd, job, tile, token, sink),
                4.. => group::<K, F, 4>(simd, job, tile, token, sink),
                2.. => group::<K, F, 2>(simd, job, tile, token, sink),
                _ => group::<K, F, 1>(simd, job, tile, token, sink),
            };
        }
    }
}

fn group<K: Kernels, F: Format, const N: usize>(
    simd: K,
    job: &Job<'_>,
    tile: usize,
    token: usize,
    sink: Sink<'_>,
) -> usize {
    let mut out = [[0.0; LANES]; N];
    simd.product::<F, N>(job.w, job.a, tile, token, &mut out);
    for (n, values) in out.iter().enumerate() {
        sink(tile, token + n, values);
    }
    N
}
