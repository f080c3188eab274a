//! What a format has to offer: how a block of its weights becomes bytes, and how its scales enter the sum.

use std::marker::PhantomData;

use super::layout::{HalfMin, Lone, Record, Sub16, Sub16Min, Sub32};
use super::simd::Simd;
use super::sparse::{Sparse4, Sparse8};
use crate::activation::BlockMeta;
use crate::block::trellis::FACTORS;
use crate::block::{FP4_DOUBLED, IQ4_NL, NF4};
use crate::limits::SUPER_BLOCKS;
use crate::matrix::{Lanes16, Lanes32, Line};

/// Weights of one width. `expand` gives byte j of lane r in register l as the weight of row r at k = 4l + j.
pub(crate) trait Quants: Copy {
    /// Whether `expand` takes so long that it is worth keeping what it gives for many tokens.
    const DEAR: bool;
    /// Whether `expand` is [`Simd::sparse8`] or [`Simd::sparse4`], which AVX-512 has more instructions for.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    const SPARSE: bool = false;
    /// The lines of a block.
    type Block: Copy + 'static;

    fn blocks(lines: &[Line]) -> &[Self::Block];
    fn expand<S: Simd>(simd: S, block: &Self::Block, part: usize) -> [S::Int; 8];
}

macro_rules! quants {
    (dear: $dear:literal; $($(#[$meta:meta])* $name:ident: $lines:literal, |$simd:ident, $block:ident, $part:ident| $body:expr;)*) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy)]
        pub(crate) struct $name;
        impl Quants for $name {
            const DEAR: bool = $dear;
            type Block = [Line; $lines];

            #[inline(always)]
            fn blocks(lines: &[Line]) -> &[Self::Block] {
                lines.as_chunks().0
            }

            #[inline(always)]
            fn expand<S: Simd>($simd: S, $block: &Self::Block, $part: usize) -> [S::Int; 8] {
                $body
            }
        }
    )*};
}

quants! {
    dear: false;
    Eight: 8, |simd, block, part| {
        let mut out = [simd.int(0); 8];
        for l in 0..8 {
            out[l] = simd.line(&block[l], part);
        }
        out
    };
    Four: 4, |simd, block, part| nibbles(simd, block, part);
    /// A 4-bit and a 1-bit plane.
    Five: 5, |simd, block, part| {
        let mut out = nibbles(simd, block.first_chunk().expect("4 of 5"), part);
        let (bits, sixteen) = (simd.line(&block[4], part), simd.byte(16));
        for l in 0..8u32 {
            let bit = if l < 4 { simd.shift_left(bits, 4 - l) } else { simd.shift_right(bits, l - 4) };
            out[l as usize] = simd.or(out[l as usize], simd.and(bit, sixteen));
        }
        out
    };
    /// A 4-bit and a 2-bit plane.
    Six: 6, |simd, block, part| {
        let mut out = nibbles(simd, block.first_chunk().expect("4 of 6"), part);
        let mask = simd.byte(0x30);
        for h in 0..2 {
            let pairs = simd.line(&block[4 + h], part);
            for t in 0..4u32 {
                let l = 4 * h + t as usize;
                let pair = if t < 2 { simd.shift_left(pairs, 4 - 2 * t) } else { simd.shift_right(pairs, 2 * t - 4) };
                out[l] = simd.or(out[l], simd.and(pair, mask));
            }
        }
        out
    };
    Two: 2, |simd, block, part| pairs(simd, block, part);
    /// A 2-bit and a 1-bit plane.
    Three: 3, |simd, block, part| {
        let mut out = pairs(simd, block.first_chunk().expect("2 of 3"), part);
        let (bits, four) = (simd.line(&block[2], part), simd.byte(4));
        for l in 0..8u32 {
            let bit = if l < 2 { simd.shift_left(bits, 2 - l) } else { simd.shift_right(bits, l - 2) };
            out[l as usize] = simd.or(out[l as usize], simd.and(bit, four));
        }
        out
    };
    /// Indices into [`IQ4_NL`].
    CodeBook: 4, |simd, block, part| look_up(simd, block, part, &offset(&IQ4_NL));
    /// Indices into [`FP4_DOUBLED`].
    Mx: 4, |simd, block, part| look_up(simd, block, part, &offset(&FP4_DOUBLED));
    /// Indices into [`NF4`].
    Normal: 4, |simd, block, part| look_up(simd, block, part, &offset(&NF4));
}

quants! {
    dear: true;
    Trellis2: 2, |simd, block, part| side_by_side(tile2(simd, &block[0], part), tile2(simd, &block[1], part));
    Trellis3: 3, |simd, block, part| {
        let (low, before) = (simd.line(&block[2], part), simd.lines_before(&block[2], part));
        side_by_side(
            tile3(simd, simd.line(&block[0], part), (low, simd.words_left(before, 16))),
            tile3(simd, simd.line(&block[1], part), (simd.words_right(low, 16), before)),
        )
    };
    Trellis4: 4, |simd, block, part| {
        side_by_side(tile4(simd, &block[0], &block[1], part), tile4(simd, &block[2], &block[3], part))
    };
}

// No closures from here on: they would be functions of their own where they are large, without the features of the set.

/// A tile whose line has the rows' integers.
#[inline(always)]
fn tile2<S: Simd>(simd: S, line: &Line, part: usize) -> [S::Int; 4] {
    let (row, before) = (simd.line(line, part), simd.lines_before(line, part));
    codes::<S, 2>(simd, [row, middle(simd, before, row), row, row])
}

/// A tile by the upper 32 bits of the rows' integers, and the lower 16: in the lower halves those of the rows, in the upper halves those
/// of the rows before.
#[inline(always)]
fn tile3<S: Simd>(simd: S, upper: S::Int, (low, low_before): (S::Int, S::Int)) -> [S::Int; 4] {
    let last = simd.low_halves(low, simd.words_left(upper, 16));
    let first = simd.low_halves(simd.words_right(upper, 16), low_before);
    codes::<S, 3>(simd, [last, upper, first, first])
}

/// A tile whose lines have the upper and the lower halves of the rows' integers.
#[inline(always)]
fn tile4<S: Simd>(simd: S, upper: &Line, lower: &Line, part: usize) -> [S::Int; 4] {
    let before = simd.lines_before(lower, part);
    let (upper, lower) = (simd.line(upper, part), simd.line(lower, part));
    codes::<S, 4>(simd, [lower, middle(simd, upper, lower), upper, middle(simd, before, upper)])
}

/// The middle half of two words, the first above the second.
#[inline(always)]
fn middle<S: Simd>(simd: S, upper: S::Int, lower: S::Int) -> S::Int {
    simd.low_halves(simd.words_right(lower, 16), simd.words_left(upper, 16))
}

#[inline(always)]
fn side_by_side<T: Copy>(a: [T; 4], b: [T; 4]) -> [T; 8] {
    [a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3]]
}

/// The codes of a tile of a trellis with K bits, as bytes with zero point 128. `words[w]` is bits 16w to 16w + 31 of each row's ring,
/// counted from the row's end.
#[inline(always)]
fn codes<S: Simd, const K: u32>(simd: S, words: [S::Int; 4]) -> [S::Int; 4] {
    [
        four::<S, K>(simd, words, 0),
        four::<S, K>(simd, words, 1),
        four::<S, K>(simd, words, 2),
        four::<S, K>(simd, words, 3),
    ]
}

#[inline(always)]
fn four<S: Simd, const K: u32>(simd: S, words: [S::Int; 4], t: u32) -> S::Int {
    let a = means(simd, states::<S, K>(simd, words, 2 * t));
    let b = means(simd, states::<S, K>(simd, words, 2 * t + 1));
    let lower = simd.even_bytes(a, simd.words_left(b, 8));
    let upper = simd.even_bytes(simd.words_right(a, 8), b);
    simd.mean_bytes(lower, upper)
}

/// The states of symbols 15 − n and 7 − n of every row, in the lower and the upper half of its lane.
#[inline(always)]
fn states<S: Simd, const K: u32>(simd: S, words: [S::Int; 4], n: u32) -> S::Int {
    let (low, high) = (K * n, K * (n + 8));
    simd.low_halves(
        simd.words_right(words[low as usize / 16], low % 16),
        simd.words_left(words[high as usize / 16], 16 - high % 16),
    )
}

/// The means of the two products' lower and upper bytes.
#[inline(always)]
fn means<S: Simd>(simd: S, states: S::Int) -> S::Int {
    simd.mean_bytes(simd.multiply_halves(states, FACTORS[0]), simd.multiply_halves(states, FACTORS[1]))
}

#[inline(always)]
fn nibbles<S: Simd>(simd: S, block: &[Line; 4], part: usize) -> [S::Int; 8] {
    let mask = simd.byte(15);
    let mut out = [mask; 8];
    for l in 0..4 {
        let bytes = simd.line(&block[l], part);
        out[2 * l] = simd.and(bytes, mask);
        out[2 * l + 1] = simd.and(simd.shift_right(bytes, 4), mask);
    }
    out
}

#[inline(always)]
fn pairs<S: Simd>(simd: S, block: &[Line; 2], part: usize) -> [S::Int; 8] {
    let mask = simd.byte(3);
    let mut out = [mask; 8];
    for h in 0..2 {
        let bytes = simd.line(&block[h], part);
        for t in 0..4 {
            out[4 * h + t] = simd.and(simd.shift_right(bytes, 2 * t as u32), mask);
        }
    }
    out
}

#[inline(always)]
fn look_up<S: Simd>(simd: S, block: &[Line; 4], part: usize, table: &[u8; 16]) -> [S::Int; 8] {
    let mut out = nibbles(simd, block, part);
    for weights in &mut out {
        *weights = simd.look_up(table, *weights);
    }
    out
}

/// A signed code book as unsigned bytes with zero point 128.
const fn offset(values: &[i8; 16]) -> [u8; 16] {
    let mut out = [0; 16];
    let mut i = 0;
    while i < 16 {
        out[i] = (values[i] as u8) ^ 0x80;
        i += 1;
    }
    out
}

/// The scales of a block of one tile, and how a block's integer sums join the float sum.
pub(crate) trait Scales {
    type Record: Record + 'static;
    /// Whether the halves of a block are scaled apart.
    const HALVES: bool;
    /// Whether all blocks of a strip are scaled alike. Their integer sums are then joined once, with the activations' sums of the last
    /// block, which are those of the whole strip.
    const WHOLE: bool = false;
    /// What is loaded once a block, for all tokens.
    type Loaded<S: Simd>: Copy;

    fn load<S: Simd>(simd: S, records: &[Self::Record], block: usize, part: usize) -> Self::Loaded<S>;
    /// `first` and `second`: integer sums over k 0–15 and 16–31 of the block.
    fn join<S: Simd>(
        simd: S,
        scales: Self::Loaded<S>,
        sums: (S::Int, S::Int),
        meta: &BlockMeta,
        acc: S::Float,
    ) -> S::Float;
}

/// `acc + f32(sum) · (d · da)`, the product of the scales rounded first.
#[inline(always)]
fn scaled<S: Simd>(simd: S, sum: S::Int, d: S::Float, meta: &BlockMeta, acc: S::Float) -> S::Float {
    simd.fused(simd.to_float(sum), simd.times(d, simd.float(meta.scale)), acc)
}

/// [`scaled`], then `m · (da · Σ activations)` on top.
#[inline(always)]
fn scaled_with_minimum<S: Simd>(
    simd: S,
    sum: S::Int,
    (d, m): (S::Float, S::Float),
    meta: &BlockMeta,
    acc: S::Float,
) -> S::Float {
    simd.fused(m, simd.float(meta.weighted), scaled(simd, sum, d, meta, acc))
}

/// One d a block: f16, or bf16.
pub(crate) struct Single<const BRAIN: bool>;

impl<const BRAIN: bool> Scales for Single<BRAIN> {
    type Record = Lanes16;
    const HALVES: bool = false;
    type Loaded<S: Simd> = S::Float;

    #[inline(always)]
    fn load<S: Simd>(simd: S, records: &[Lanes16], block: usize, part: usize) -> S::Float {
        if BRAIN { simd.brains(&records[block], part) } else { simd.halves(&records[block], part) }
    }

    #[inline(always)]
    fn join<S: Simd>(
        simd: S,
        d: S::Float,
        sums: (S::Int, S::Int),
        meta: &BlockMeta,
        acc: S::Float,
    ) -> S::Float {
        scaled(simd, simd.add(sums.0, sums.1), d, meta, acc)
    }
}

/// One d for all rows of a tile.
impl Scales for Lone {
    type Record = Self;
    const HALVES: bool = false;
    type Loaded<S: Simd> = S::Float;

    #[inline(always)]
    fn load<S: Simd>(simd: S, records: &[Self], block: usize, _part: usize) -> S::Float {
        simd.float(records[block].0)
    }

    #[inline(always)]
    fn join<S: Simd>(
        simd: S,
        d: S::Float,
        sums: (S::Int, S::Int),
        meta: &BlockMeta,
        acc: S::Float,
    ) -> S::Float {
        scaled(simd, simd.add(sums.0, sums.1), d, meta, acc)
    }
}

/// One d a row.
pub(crate) struct WholeRow;

impl Scales for WholeRow {
    type Record = Lanes32;
    const HALVES: bool = false;
    const WHOLE: bool = true;
    type Loaded<S: Simd> = S::Float;

    #[inline(always)]
    fn load<S: Simd>(simd: S, records: &[Lanes32], _block: usize, part: usize) -> S::Float {
        simd.singles(&records[0], part)
    }

    #[inline(always)]
    fn join<S: Simd>(
        simd: S,
        d: S::Float,
        sums: (S::Int, S::Int),
        meta: &BlockMeta,
        acc: S::Float,
    ) -> S::Float {
        scaled(simd, simd.add(sums.0, sums.1), d, meta, acc)
    }
}

type Half = Single<false>;
type Brain = Single<true>;

impl Scales for HalfMin {
    type Record = Self;
    const HALVES: bool = false;
    /// d and m.
    type Loaded<S: Simd> = (S::Float, S::Float);

    #[inline(always)]
    fn load<S: Simd>(simd: S, records: &[Self], block: usize, part: usize) -> Self::Loaded<S> {
        let record = &records[block];
        (simd.halves(&record.d, part), simd.halves(&record.m, part))
    }

    #[inline(always)]
    fn join<S: Simd>(
        simd: S,
        scales: Self::Loaded<S>,
        sums: (S::Int, S::Int),
        meta: &BlockMeta,
        acc: S::Float,
    ) -> S::Float {
        scaled_with_minimum(simd, simd.add(sums.0, sums.1), scales, meta, acc)
    }
}

impl Scales for Sub32 {
    type Record = Self;
    const HALVES: bool = false;
    /// `d · scale` and `-dmin · min`; both products are exact.
    type Loaded<S: Simd> = (S::Float, S::Float);

    #[inline(always)]
    fn load<S: Simd>(simd: S, records: &[Self], block: usize, part: usize) -> Self::Loaded<S> {
        let (record, sub) = (&records[block / SUPER_BLOCKS], block % SUPER_BLOCKS);
        let scale = simd.to_float(simd.bytes(&record.scales[sub], part));
        let min = simd.sub(simd.int(0), simd.bytes(&record.mins[sub], part));
        (
            simd.times(simd.halves(&record.d, part), scale),
            simd.times(simd.halves(&record.m, part), simd.to_float(min)),
        )
    }

    #[inline(always)]
    fn join<S: Simd>(
        simd: S,
        scales: Self::Loaded<S>,
        sums: (S::Int, S::Int),
        meta: &BlockMeta,
        acc: S::Float,
    ) -> S::Float {
        scaled_with_minimum(simd, simd.add(sums.0, sums.1), scales, meta, acc)
    }
}

impl Scales for Sub16 {
    type Record = Self;
    const HALVES: bool = true;
    /// d, and the factors of the halves.
    type Loaded<S: Simd> = (S::Float, S::Int, S::Int);

    #[inline(always)]
    fn load<S: Simd>(simd: S, records: &[Self], block: usize, part: usize) -> Self::Loaded<S> {
        let (record, sub) = (&records[block / SUPER_BLOCKS], block % SUPER_BLOCKS);
        (
            simd.halves(&record.d, part),
            simd.signed_bytes(&record.scales[2 * sub], part),
            simd.signed_bytes(&record.scales[2 * sub + 1], part),
        )
    }

    #[inline(always)]
    fn join<S: Simd>(
        simd: S,
        (d, first, second): Self::Loaded<S>,
        sums: (S::Int, S::Int),
        meta: &BlockMeta,
        acc: S::Float,
    ) -> S::Float {
        let sum = simd.add(simd.mul(sums.0, first), simd.mul(sums.1, second));
        scaled(simd, sum, d, meta, acc)
    }
}

impl Scales for Sub16Min {
    type Record = Self;
    const HALVES: bool = true;
    /// d, dmin, the factors of the halves, the negated minima of the halves.
    type Loaded<S: Simd> = (S::Float, S::Float, [S::Int; 2], [S::Int; 2]);

    #[inline(always)]
    fn load<S: Simd>(simd: S, records: &[Self], block: usize, part: usize) -> Self::Loaded<S> {
        let (record, sub) = (&records[block / SUPER_BLOCKS], block % SUPER_BLOCKS);
        let mask = simd.byte(15);
        let first = simd.bytes(&record.scales[2 * sub], part);
        let second = simd.bytes(&record.scales[2 * sub + 1], part);
        (
            simd.halves(&record.d, part),
            simd.halves(&record.m, part),
            [simd.and(first, mask), simd.and(second, mask)],
            [simd.and(simd.shift_right(first, 4), mask), simd.and(simd.shift_right(second, 4), mask)],
        )
    }

    #[inline(always)]
    fn join<S: Simd>(
        simd: S,
        (d, m, factors, minima): Self::Loaded<S>,
        sums: (S::Int, S::Int),
        meta: &BlockMeta,
        acc: S::Float,
    ) -> S::Float {
        let sum = simd.add(simd.mul(sums.0, factors[0]), simd.mul(sums.1, factors[1]));
        let acc = scaled(simd, sum, d, meta, acc);
        let first = simd.int(meta.first_negated);
        let second = simd.int(meta.sum_negated - meta.first_negated);
        let sum = simd.add(simd.mul(first, minima[0]), simd.mul(second, minima[1]));
        scaled(simd, sum, m, meta, acc)
    }
}

/// A format: its weights, its scales, and the power of two that is subtracted from its weights.
pub(crate) trait Format {
    type Quants: Quants;
    type Scales: Scales;
    /// log2 of the zero point of the expanded weights; `None` if they have none.
    const ZERO_POINT: Option<u32>;
}

macro_rules! formats {
    ($($name:ident: $quants:ty, $scales:ty, $zero_point:expr;)*) => {$(
        #[allow(non_camel_case_types, clippy::upper_case_acronyms)] // ggml's names
        pub(crate) struct $name;
        impl Format for $name {
            type Quants = $quants;
            type Scales = $scales;
            const ZERO_POINT: Option<u32> = $zero_point;
        }
    )*};
}

formats! {
    Q8_0: Eight, Half, Some(7);
    Q4_0: Four, Half, Some(3);
    Q4_1: Four, HalfMin, None;
    Q5_0: Five, Half, Some(4);
    Q5_1: Five, HalfMin, None;
    Q2_K: Two, Sub16Min, None;
    Q3_K: Three, Sub16, Some(2);
    Q4_K: Four, Sub32, None;
    Q5_K: Five, Sub32, None;
    Q6_K: Six, Sub16, Some(5);
    Iq4Nl: CodeBook, Half, Some(7);
    Mxfp4: Mx, Brain, Some(7);
    Nf4: Normal, Sub16, Some(7);
    I8Row: Eight, WholeRow, Some(7);
    T2: Trellis2, Lone, Some(7);
    T3: Trellis3, Lone, Some(7);
    T4: Trellis4, Lone, Some(7);
    SPARSE8: Sparse8, Half, Some(7);
    SPARSE4: Sparse4, Half, Some(3);
}

/// A format whose weights were expanded before.
pub(crate) struct Expanded<F>(PhantomData<F>);

impl<F: Format> Format for Expanded<F> {
    type Quants = Eight;
    type Scales = F::Scales;
    const ZERO_POINT: Option<u32> = F::ZERO_POINT;
}
