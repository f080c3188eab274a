//! The one integer kernel: a tile of 16 rows times N tokens, for every instruction set and format.

use std::ops::Range;

use super::Job;
use super::format::{Format, Quants, Scales};
use super::simd::Simd;
use crate::activation::{Block, BlockMeta, GROUP, QuantTokens};
use crate::limits::{BLOCK, LANES};
use crate::matrix::{Lanes32, Line};

/// Groups of the largest N.
const GROUPS_MAX: usize = 3;
/// Largest N below a group.
const SINGLES_MAX: usize = 2;

/// The body once for each `n` below 12: a loop over accumulators would keep them in memory.
macro_rules! unroll {
    ($n:ident => $body:expr) => {
        unroll!(@ $n $body, 0 1 2 3 4 5 6 7 8 9 10 11)
    };
    (@ $n:ident $body:expr, $($i:literal)*) => {
        $({
            #[allow(non_upper_case_globals)]
            const $n: usize = $i;
            $body
        })*
    };
}

/// Some blocks of a tile, one after the other.
#[derive(Clone, Copy)]
pub(super) struct Strip<'a, Q: Quants> {
    pub(super) tile: usize,
    /// Place of the first block in the row. Sums go on from what the target holds, unless it is the first of all.
    pub(super) first: usize,
    pub(super) quants: &'a [Q::Block],
}

/// Tokens `token..token + N` times the rows of a strip.
///
/// Weights are unsigned (for most sets), so every integer sum starts at `-zero_point · Σ activations`: the correction costs nothing. The two
/// halves of a block are separate chains: some formats scale them apart, and one chain would wait for itself.
#[inline(always)]
pub(super) fn product<S: Simd, F: Format, const N: usize>(
    simd: S,
    job: &Job<'_>,
    strip: Strip<'_, F::Quants>,
    token: usize,
) {
    let Job { w, a, .. } = job;
    let Strip { tile, first, quants } = strip;
    let scales = w.scales.tile::<<F::Scales as Scales>::Record>(tile);
    let range = first..first + quants.len();
    let (groups, singles) = (groups::<N>(a, token, &range), singles::<N>(a, token, &range));
    let token_block = |b: usize, n: usize| {
        if N >= GROUP { &groups[n / GROUP][b][n % GROUP] } else { &singles[n].0[b * singles[n].1] }
    };
    for part in 0..LANES / S::WIDTH {
        let mut acc = [simd.zero(); N];
        let mut whole = [[simd.int(0); 2]; N];
        if first > 0 {
            for (n, acc) in acc.iter_mut().enumerate() {
                *acc = loaded(simd, job, (tile, token + n), part);
            }
        }
        for (b, block) in quants.iter().enumerate() {
            let mut weights = <F::Quants as Quants>::expand(simd, block, part);
            if signed::<S, F>() {
                weights = weights.map(|w| simd.xor(w, simd.byte(0x80)));
            }
            if <F::Scales as Scales>::WHOLE {
                unroll!(n => if n < N && !(S::PAIRS && N > 1) {
                    dot_on::<S, N>(simd, &weights, token_block(b, n), &mut whole[n]);
                });
                unroll!(n => if n + 1 < N && n & 1 == 0 && S::PAIRS {
                    let sums = dot_two(simd, &weights, [token_block(b, n), token_block(b, n + 1)]);
                    for i in 0..2 {
                        whole[n + i] = [0, 1].map(|half| simd.add(whole[n + i][half], sums[half][i]));
                    }
                });
                continue;
            }
            let scales = <F::Scales as Scales>::load(simd, scales, first + b, part);
            unroll!(n => if n < N && !(S::PAIRS && N > 1) {
                let block = token_block(b, n);
                let sums = dot::<S, F>(simd, &weights, block);
                acc[n] = <F::Scales as Scales>::join(simd, scales, sums, &block.meta, acc[n]);
            });
            unroll!(n => if n + 1 < N && n & 1 == 0 && S::PAIRS {
                let pair = [token_block(b, n), token_block(b, n + 1)];
                let sums = dot_two(simd, &weights, pair);
                for i in 0..2 {
                    let (first, second) = start::<S, F>(simd, &pair[i].meta);
                    let sums = (simd.add(first, sums[0][i]), simd.add(second, sums[1][i]));
                    acc[n + i] = <F::Scales as Scales>::join(simd, scales, sums, &pair[i].meta, acc[n + i]);
                }
            });
        }
        if <F::Scales as Scales>::WHOLE {
            let scales = <F::Scales as Scales>::load(simd, scales, first, part);
            unroll!(n => if n < N {
                let meta = &token_block(quants.len() - 1, n).meta;
                let (first, second) = start::<S, F>(simd, meta);
                let sums = (simd.add(first, whole[n][0]), simd.add(second, whole[n][1]));
                acc[n] = <F::Scales as Scales>::join(simd, scales, sums, meta, acc[n]);
            });
        }
        for (n, acc) in acc.into_iter().enumerate() {
            put(simd, job, (tile, token + n), part, acc);
        }
    }
}

/// The blocks of `range` of N tokens from `token` on: groups side by side.
#[inline(always)]
fn groups<'a, const N: usize>(
    a: &QuantTokens<'a>,
    token: usize,
    range: &Range<usize>,
) -> [&'a [[Block; GROUP]]; GROUPS_MAX] {
    std::array::from_fn(|i| {
        if i * GROUP < N && N >= GROUP { &a.group(token + i * GROUP)[range.clone()] } else { &[] }
    })
}

/// The same for fewer tokens than a group has: single ones with whatever lies between their blocks, every how many.
#[inline(always)]
fn singles<'a, const N: usize>(
    a: &QuantTokens<'a>,
    token: usize,
    range: &Range<usize>,
) -> [(&'a [Block], usize); SINGLES_MAX] {
    std::array::from_fn(|n| {
        if n < N && N < GROUP {
            let (blocks, stride) = a.token(token + n);
            (&blocks[range.start * stride..], stride)
        } else {
            (&[][..], 1)
        }
    })
}

/// Stores a part of a tile for one token.
#[inline(always)]
fn put<S: Simd>(simd: S, job: &Job<'_>, (tile, token): (usize, usize), part: usize, acc: S::Float) {
    #[allow(unsafe_code)]
    // SAFETY: nobody else computes the tiles of this job.
    let out = unsafe { job.target.part(tile, token) };
    if let Ok(out) = <&mut [f32; LANES]>::try_from(&mut *out) {
        simd.store(acc, out, part);
        return;
    }
    let mut values = [0.0; LANES];
    simd.store(acc, &mut values, part);
    let end = out.len().min((part + 1) * S::WIDTH);
    let lanes = (part * S::WIDTH).min(end)..end;
    out[lanes.clone()].copy_from_slice(&values[lanes]);
}

/// What the target holds of a tile for one token.
#[inline(always)]
fn loaded<S: Simd>(simd: S, job: &Job<'_>, (tile, token): (usize, usize), part: usize) -> S::Float {
    let mut lanes = Lanes32([0.0; LANES]);
    #[allow(unsafe_code)]
    // SAFETY: nobody else computes the tiles of this job.
    let held = unsafe { job.target.part(tile, token) };
    lanes.0[..held.len()].copy_from_slice(held);
    simd.singles(&lanes, part)
}

/// The blocks of a strip as lines of bytes, for [`super::format::Expanded`].
#[inline(always)]
pub(super) fn expand<S: Simd, F: Format>(simd: S, strip: Strip<'_, F::Quants>, out: &mut [[Line; 8]]) {
    for (block, lines) in strip.quants.iter().zip(out) {
        for part in 0..LANES / S::WIDTH {
            let weights = <F::Quants as Quants>::expand(simd, block, part);
            for l in 0..8 {
                simd.store_line(weights[l], &mut lines[l], part);
            }
        }
    }
}

/// Whether weights that use all eight bits are to be shifted into i8, where they need no zero point any more.
const fn signed<S: Simd, F: Format>() -> bool {
    S::SIGNED && matches!(F::ZERO_POINT, Some(7))
}

/// Where the integer sums of the two halves of a block start.
#[inline(always)]
fn start<S: Simd, F: Format>(simd: S, meta: &BlockMeta) -> (S::Int, S::Int) {
    match F::ZERO_POINT {
        Some(_) if signed::<S, F>() => (simd.int(0), simd.int(0)),
        Some(shift) if <F::Scales as Scales>::HALVES => {
            let second = meta.sum_negated - meta.first_negated;
            (simd.int_shifted(meta.first_negated, shift), simd.int_shifted(second, shift))
        }
        Some(shift) => (simd.int_shifted(meta.sum_negated, shift), simd.int(0)),
        None => (simd.int(0), simd.int(0)),
    }
}

/// The integer sums of the two halves of a block for one token.
#[inline(always)]
fn dot<S: Simd, F: Format>(simd: S, weights: &[S::Int; 8], block: &Block) -> (S::Int, S::Int) {
    let (mut first, mut second) = start::<S, F>(simd, &block.meta);
    let (fours, _) = block.values.as_chunks::<4>();
    for l in 0..4 {
        first = simd.dot(first, weights[l], simd.four(&fours[l]));
        second = simd.dot(second, weights[l + 4], simd.four(&fours[l + 4]));
    }
    (first, second)
}

/// The products of a block on top of sums that go on through the strip: one chain for each of many tokens, which have registers for no
/// more; two for few, which would wait for it.
#[inline(always)]
fn dot_on<S: Simd, const N: usize>(simd: S, weights: &[S::Int; 8], block: &Block, sums: &mut [S::Int; 2]) {
    let (fours, _) = block.values.as_chunks::<4>();
    for l in 0..8 {
        let chain = if N < GROUP { l % 2 } else { 0 };
        sums[chain] = simd.dot(sums[chain], weights[l], simd.four(&fours[l]));
    }
}

/// The integer sums of the two halves of a block (first index) for two tokens, from zero.
#[inline(always)]
fn dot_two<S: Simd>(simd: S, weights: &[S::Int; 8], tokens: [&Block; 2]) -> [[S::Int; 2]; 2] {
    let halves = tokens.map(|block| block.values.as_chunks::<{ BLOCK / 2 }>().0);
    [0, 1].map(|half| simd.dot_two(weights, half, halves.map(|values| &values[half])))
}

/// Sums in flight of [`dots`]: each takes part in one product every few cycles, and up to two products begin in each.
const DOT_CHAINS: usize = 12;

/// Multiply-adds of one round of [`dots`].
pub(super) const fn dot_macs<S: Simd>() -> u64 {
    (DOT_CHAINS * S::WIDTH * 4) as u64
}

/// Dot products in registers, with nothing to load but one factor a round: the most that the set can do. Every weight is 1 and
/// every activation 2; the result is the sum of all products, as long as no lane overflows.
#[inline(always)]
pub(super) fn dots<S: Simd>(simd: S, rounds: u64) -> u64 {
    let weights = simd.line(&std::hint::black_box(Line([1; 64])), 0);
    let mut activations = [2i8; 4];
    let mut sums = [simd.int(0); DOT_CHAINS];
    for _ in 0..rounds {
        // The compiler must not know that the factors stay the same.
        activations = std::hint::black_box(activations);
        let four = simd.four(&activations);
        for sum in &mut sums {
            *sum = simd.dot(*sum, weights, four);
        }
    }
    let mut lanes = [0.0; LANES];
    let mut total = 0.0;
    for sum in sums {
        simd.store(simd.to_float(sum), &mut lanes, 0);
        total += lanes[..S::WIDTH].iter().sum::<f32>();
    }
    total as u64
}
