//! Products of 16-row tiles with groups of tokens, and the loop that covers a matrix with them.
//!
//! A kernel computes R tiles × N tokens at once. R and N decide what shares registers and caches; the order of
//! operations inside one output never depends on them.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod float;
mod scalar;

use std::ops::Range;

use crate::activation::{ActivationBuffer, Input};
use crate::isa::Isa;
use crate::limits::{BLOCK, LANES, TOKENS_IN_FLIGHT};
use crate::matrix::{Lanes16, Line, Storage};

/// A packed matrix as kernels see it.
pub(crate) struct Tiles<'a> {
    pub(crate) k: usize,
    pub(crate) storage: &'a Storage,
}

/// Quantised weights: 8 (Q8_0) or 4 (Q4_0) lines a block.
#[derive(Clone, Copy)]
pub(crate) struct QuantTiles<'a> {
    pub(crate) blocks: usize,
    pub(crate) quants: &'a [Line],
    pub(crate) scales: &'a [Lanes16],
}

impl<'a> QuantTiles<'a> {
    /// Lines and scales of one tile: (blocks × LINES) and (blocks).
    #[inline(always)]
    fn tile<const LINES: usize>(&self, tile: usize) -> (&'a [[Line; LINES]], &'a [Lanes16]) {
        let blocks = tile * self.blocks..(tile + 1) * self.blocks;
        (&self.quants.as_chunks::<LINES>().0[blocks.clone()], &self.scales[blocks])
    }
}

/// Int8 activations as kernels see them.
#[derive(Clone, Copy)]
pub(crate) struct QuantTokens<'a> {
    blocks: usize,
    values: &'a [[i8; BLOCK]],
    scales: &'a [f32],
    sums: &'a [i32],
}

impl<'a> QuantTokens<'a> {
    fn new(buffer: &'a ActivationBuffer, k: usize) -> Self {
        Self {
            blocks: k / BLOCK,
            values: buffer.values.as_chunks::<BLOCK>().0,
            scales: &buffer.scales,
            sums: &buffer.sums,
        }
    }

    /// Values, scales and sums of one token, each (blocks).
    #[inline(always)]
    fn token(&self, token: usize) -> (&'a [[i8; BLOCK]], &'a [f32], &'a [i32]) {
        let range = token * self.blocks..(token + 1) * self.blocks;
        (&self.values[range.clone()], &self.scales[range.clone()], &self.sums[range])
    }
}

/// Results of R tiles × N tokens.
pub(crate) type Group<const R: usize, const N: usize> = [[[f32; LANES]; N]; R];

/// The integer kernels of one instruction set. `tile` and `token` are the first of their groups.
pub(crate) trait QuantKernels: Copy {
    fn q8<const R: usize, const N: usize>(
        self,
        w: QuantTiles<'_>,
        a: QuantTokens<'_>,
        tile: usize,
        token: usize,
        out: &mut Group<R, N>,
    );
    fn q4<const R: usize, const N: usize>(
        self,
        w: QuantTiles<'_>,
        a: QuantTokens<'_>,
        tile: usize,
        token: usize,
        out: &mut Group<R, N>,
    );
}

/// Takes (tile, token, its 16 values).
pub(crate) type Sink<'s> = &'s mut dyn FnMut(usize, usize, &[f32; LANES]);

/// Computes the tiles of `range` for all tokens of the input and hands each result to `sink`.
pub(crate) fn drive(isa: Isa, w: &Tiles<'_>, input: &Input<'_>, range: Range<usize>, sink: Sink<'_>) {
    let tokens = input.values.len() / w.k;
    match w.storage {
        Storage::Q8 { quants, scales } => {
            let w8 = QuantTiles { blocks: w.k / BLOCK, quants, scales };
            drive_quant::<false>(isa, w8, QuantTokens::new(input.quantised, w.k), tokens, range, sink);
        }
        Storage::Q4 { quants, scales } => {
            let w4 = QuantTiles { blocks: w.k / BLOCK, quants, scales };
            drive_quant::<true>(isa, w4, QuantTokens::new(input.quantised, w.k), tokens, range, sink);
        }
        Storage::F32(_) | Storage::F16(_) | Storage::Bf16(_) => {
            float::drive(isa, w, input.values, tokens, range, sink);
        }
    }
}

fn drive_quant<const FOUR: bool>(
    isa: Isa,
    w: QuantTiles<'_>,
    a: QuantTokens<'_>,
    tokens: usize,
    range: Range<usize>,
    sink: Sink<'_>,
) {
    match isa {
        Isa::Scalar => cover::<_, FOUR>(scalar::Scalar, w, a, tokens, range, sink),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2(token) => cover::<_, FOUR>(token, w, a, tokens, range, sink),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512(token) => cover::<_, FOUR>(token, w, a, tokens, range, sink),
        #[cfg(not(target_arch = "x86_64"))]
        _ => cover::<_, FOUR>(scalar::Scalar, w, a, tokens, range, sink),
    }
}

/// Few tokens: several tiles at once hide the latency. Many tokens: one tile stays in registers for a group of them.
fn cover<K: QuantKernels, const FOUR: bool>(
    kernels: K,
    w: QuantTiles<'_>,
    a: QuantTokens<'_>,
    tokens: usize,
    range: Range<usize>,
    sink: Sink<'_>,
) {
    let mut tile = range.start;
    while tile < range.end {
        let wide = tokens <= 3 && range.end - tile >= 4;
        let mut token = 0;
        while token < tokens {
            let left = tokens - token;
            token += match (wide, left) {
                (true, 1) => group::<K, FOUR, 4, 1>(kernels, w, a, tile, token, sink),
                (true, _) => group::<K, FOUR, 4, 2>(kernels, w, a, tile, token, sink),
                (false, TOKENS_IN_FLIGHT..) => {
                    group::<K, FOUR, 1, TOKENS_IN_FLIGHT>(kernels, w, a, tile, token, sink)
                }
                (false, 8..) => group::<K, FOUR, 1, 8>(kernels, w, a, tile, token, sink),
                (false, 4..) => group::<K, FOUR, 1, 4>(kernels, w, a, tile, token, sink),
                (false, 2..) => group::<K, FOUR, 1, 2>(kernels, w, a, tile, token, sink),
                (false, _) => group::<K, FOUR, 1, 1>(kernels, w, a, tile, token, sink),
            };
        }
        tile += if wide { 4 } else { 1 };
    }
}

fn group<K: QuantKernels, const FOUR: bool, const R: usize, const N: usize>(
    kernels: K,
    w: QuantTiles<'_>,
    a: QuantTokens<'_>,
    tile: usize,
    token: usize,
    sink: Sink<'_>,
) -> usize {
    let mut out = [[[0.0; LANES]; N]; R];
    if FOUR {
        kernels.q4::<R, N>(w, a, tile, token, &mut out);
    } else {
        kernels.q8::<R, N>(w, a, tile, token, &mut out);
    }
    for (r, tokens) in out.iter().enumerate() {
        for (n, values) in tokens.iter().enumerate() {
            sink(tile + r, token + n, values);
        }
    }
    N
}
