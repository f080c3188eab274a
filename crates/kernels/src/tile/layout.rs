//! How quantised weights lie in memory: tiles of 16 rows, blocks of 32 k, bit planes of 64-byte lines, and one plane of
//! scales behind them.
//!
//! | bits | lines a block | byte `4·lane + j` of a line holds |
//! |---|---|---|
//! | 8 | 8 | line l: k = 4l + j |
//! | 4 | 4 | line l: low nibble k = 8l + j, high nibble k = 8l + 4 + j |
//! | 2 | 2 | line h: bits 2t, 2t + 1 of k = 16h + 4t + j |
//! | 1 | 1 | bit l of k = 4l + j |
//!
//! A trellis format has its tiles in place of weights: the integers of 16 rows, one a lane, of which T3 keeps the lower 16 bits of
//! both tiles of a block in a third line, and T4 the upper and the lower half in a line each.
//!
//! A sparse format has a stream of what it stores in place of planes: `sparse.rs`.
//!
//! 5-bit weights are a 4-bit and a 1-bit plane, 6-bit ones 4 and 2, 3-bit ones 2 and 1. All are unsigned: what ggml stores,
//! with the sign of Q8_0 flipped. So the same expansion serves every format of the same width.
//!
//! Scales follow the quants of the whole matrix, one record for each (tile, block) or (tile, super-block of 8 blocks). Sub-block
//! scales are unpacked to bytes, which costs 2.8 % of a Q4_K tensor and saves shifting them out in every product.

use super::sparse;
use crate::block::trellis::{self, TILE, symbol_of};
use crate::block::{BlockFormat, FP4_DOUBLED, IQ4_NL, NF4};
use crate::limits::{BLOCK, LANES, SUPER_BLOCKS};
use crate::math::{bf16_to_f32, f16_to_f32};
use crate::matrix::{Lanes8, Lanes16, Lanes32, Line};

/// Width of the stored weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bits {
    Two,
    Three,
    Four,
    Five,
    Six,
    Eight,
    /// Two tiles of a trellis with 2, 3 or 4 bits a symbol.
    Trellis(u32),
    /// 16 of 32 values, of 4 or 8 bits.
    Sparse(u32),
}

impl Bits {
    pub(crate) const fn lines(self) -> usize {
        match self {
            Self::Two => 2,
            Self::Three => 3,
            Self::Four => 4,
            Self::Five => 5,
            Self::Six => 6,
            Self::Eight => 8,
            Self::Trellis(bits) => bits as usize,
            Self::Sparse(bits) => sparse::lines(bits),
        }
    }

    /// The weight of one lane at index `i` of a block.
    fn get(self, lines: &[Line], lane: usize, i: usize) -> u8 {
        let at = lane * 4 + i % 4;
        let four = || (lines[i / 8].0[at] >> (i % 8 / 4 * 4)) & 15;
        let two = |first: usize| (lines[first + i / 16].0[at] >> (i % 16 / 4 * 2)) & 3;
        let one = |line: usize| (lines[line].0[at] >> (i / 4)) & 1;
        match self {
            Self::Eight => lines[i / 4].0[at],
            Self::Four => four(),
            Self::Five => four() | one(4) << 4,
            Self::Six => four() | two(4) << 4,
            Self::Two => two(0),
            Self::Three => two(0) | one(2) << 2,
            Self::Trellis(bits) => {
                let before = trellis_row(bits, lines, i / TILE, (lane + LANES - 1) % LANES);
                let row = trellis_row(bits, lines, i / TILE, lane);
                let state = trellis::state(bits, before, row, symbol_of(i % TILE));
                trellis::code(state) as u8 ^ 0x80
            }
            Self::Sparse(bits) => sparse::get(bits, lines, lane, i),
        }
    }

    /// Puts the weights of one lane where [`Bits::get`] finds them.
    fn put(self, lines: &mut [Line], lane: usize, weights: &[u8; BLOCK]) {
        // Four weights at a time; no shift below carries a bit into the next byte.
        let four = |first: usize| u32::from_le_bytes(std::array::from_fn(|j| weights[first + j]));
        let mut set = |line: usize, word: u32| {
            lines[line].0[4 * lane..4 * lane + 4].copy_from_slice(&word.to_le_bytes());
        };
        let nibbles = |l: usize| (four(8 * l) & 0x0f0f_0f0f) | (four(8 * l + 4) & 0x0f0f_0f0f) << 4;
        let pairs = |h: usize, shift: u32| {
            (0..4).fold(0, |word, t| word | (four(16 * h + 4 * t) >> shift & 0x0303_0303) << (2 * t))
        };
        let ones = |shift: u32| (0..8).fold(0, |word, l| word | (four(4 * l) >> shift & 0x0101_0101) << l);
        match self {
            Self::Eight => (0..8).for_each(|l| set(l, four(4 * l))),
            Self::Two => (0..2).for_each(|h| set(h, pairs(h, 0))),
            Self::Three => {
                (0..2).for_each(|h| set(h, pairs(h, 0)));
                set(2, ones(2));
            }
            Self::Four => (0..4).for_each(|l| set(l, nibbles(l))),
            Self::Five => {
                (0..4).for_each(|l| set(l, nibbles(l)));
                set(4, ones(4));
            }
            Self::Six => {
                (0..4).for_each(|l| set(l, nibbles(l)));
                (0..2).for_each(|h| set(4 + h, pairs(h, 4)));
            }
            Self::Trellis(_) | Self::Sparse(_) => unreachable!("16 rows at once"),
        }
    }
}

/// The integer of a row of tile `tile` of a block.
fn trellis_row(bits: u32, lines: &[Line], tile: usize, lane: usize) -> u64 {
    let word = |line: usize| {
        let word = lines[line].0.as_chunks::<4>().0[lane];
        u64::from(u32::from_le_bytes(word))
    };
    match bits {
        2 => word(tile),
        3 => word(tile) << 16 | (word(2) >> (16 * tile) & 0xffff),
        _ => word(2 * tile) << 32 | word(2 * tile + 1),
    }
}

/// Puts the tiles of a block of 16 rows where [`trellis_row`] finds them.
pub(crate) fn put_trellis(bits: u32, lines: &mut [Line], tiles: &[u8]) {
    for (tile, source) in tiles.chunks_exact(trellis::tile_bytes(bits)).enumerate() {
        for (lane, row) in trellis::rows(bits, source).into_iter().enumerate() {
            let mut put = |line: usize, at: usize, bytes: &[u8]| {
                lines[line].0[4 * lane + at..4 * lane + at + bytes.len()].copy_from_slice(bytes);
            };
            match bits {
                2 => put(tile, 0, &(row as u32).to_le_bytes()),
                3 => {
                    put(tile, 0, &((row >> 16) as u32).to_le_bytes());
                    put(2, 2 * tile, &(row as u16).to_le_bytes());
                }
                _ => {
                    put(2 * tile, 0, &((row >> 32) as u32).to_le_bytes());
                    put(2 * tile + 1, 0, &(row as u32).to_le_bytes());
                }
            }
        }
    }
}

/// Which scales a format has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ScaleKind {
    /// f16 d a block.
    Half,
    /// bf16 d a block: MXFP4's power of two, which it holds exactly.
    Brain,
    /// f16 d and m a block.
    HalfMin,
    /// [`Sub32`] a super-block.
    Sub32,
    /// [`Sub16`] a super-block.
    Sub16,
    /// [`Sub16Min`] a super-block.
    Sub16Min,
    /// [`Lone`] a block, for all rows of a tile.
    Lone,
    /// [`Lanes32`] for a whole row.
    Row,
}

/// d and m of one block.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct HalfMin {
    pub(crate) d: Lanes16,
    pub(crate) m: Lanes16,
}

/// Q4_K, Q5_K: one 6-bit scale and minimum for 32 values.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Sub32 {
    pub(crate) d: Lanes16,
    pub(crate) m: Lanes16,
    pub(crate) scales: [[u8; LANES]; SUPER_BLOCKS],
    pub(crate) mins: [[u8; LANES]; SUPER_BLOCKS],
}

/// Q6_K, Q3_K: one signed scale for 16 values.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(32))]
pub(crate) struct Sub16 {
    pub(crate) d: Lanes16,
    pub(crate) scales: [[i8; LANES]; 2 * SUPER_BLOCKS],
}

/// Q2_K: a 4-bit scale (low nibble) and minimum (high nibble) for 16 values.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Sub16Min {
    pub(crate) d: Lanes16,
    pub(crate) m: Lanes16,
    pub(crate) scales: [[u8; LANES]; 2 * SUPER_BLOCKS],
}

/// One scale for all rows of a tile.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct Lone(pub(crate) f32);

impl ScaleKind {
    /// Bytes of one record, and the blocks it serves, of the `blocks` that a row has.
    const fn record(self, blocks: usize) -> (usize, usize) {
        match self {
            Self::Lone => (size_of::<Lone>(), 1),
            Self::Row => (size_of::<Lanes32>(), blocks),
            Self::Half | Self::Brain => (size_of::<Lanes16>(), 1),
            Self::HalfMin => (size_of::<HalfMin>(), 1),
            Self::Sub32 => (size_of::<Sub32>(), SUPER_BLOCKS),
            Self::Sub16 => (size_of::<Sub16>(), SUPER_BLOCKS),
            Self::Sub16Min => (size_of::<Sub16Min>(), SUPER_BLOCKS),
        }
    }
}

/// The packed form of one quantised format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) bits: Bits,
    pub(crate) scales: ScaleKind,
    /// What is subtracted from a stored weight; a power of two or zero.
    pub(crate) zero_point: u8,
    /// The values that weights index; no zero point then.
    pub(crate) table: Option<&'static [i8; 16]>,
}

impl Layout {
    /// `None` for plain floats.
    pub(crate) const fn of(format: BlockFormat) -> Option<Self> {
        let (bits, scales, zero_point, table) = match format {
            BlockFormat::F32 | BlockFormat::F16 | BlockFormat::Bf16 | BlockFormat::F8_E4M3 => return None,
            BlockFormat::NF4 => (Bits::Four, ScaleKind::Sub16, 0, Some(&NF4)),
            BlockFormat::I8_ROW => (Bits::Eight, ScaleKind::Row, 128, None),
            BlockFormat::T2 => (Bits::Trellis(2), ScaleKind::Lone, 128, None),
            BlockFormat::T3 => (Bits::Trellis(3), ScaleKind::Lone, 128, None),
            BlockFormat::T4 => (Bits::Trellis(4), ScaleKind::Lone, 128, None),
            BlockFormat::SPARSE8 => (Bits::Sparse(8), ScaleKind::Half, 128, None),
            BlockFormat::SPARSE4 => (Bits::Sparse(4), ScaleKind::Half, 8, None),
            BlockFormat::Q8_0 => (Bits::Eight, ScaleKind::Half, 128, None),
            BlockFormat::Q4_0 => (Bits::Four, ScaleKind::Half, 8, None),
            BlockFormat::Q4_1 => (Bits::Four, ScaleKind::HalfMin, 0, None),
            BlockFormat::Q5_0 => (Bits::Five, ScaleKind::Half, 16, None),
            BlockFormat::Q5_1 => (Bits::Five, ScaleKind::HalfMin, 0, None),
            BlockFormat::Q2_K => (Bits::Two, ScaleKind::Sub16Min, 0, None),
            BlockFormat::Q3_K => (Bits::Three, ScaleKind::Sub16, 4, None),
            BlockFormat::Q4_K => (Bits::Four, ScaleKind::Sub32, 0, None),
            BlockFormat::Q5_K => (Bits::Five, ScaleKind::Sub32, 0, None),
            BlockFormat::Q6_K => (Bits::Six, ScaleKind::Sub16, 32, None),
            BlockFormat::IQ4_NL => (Bits::Four, ScaleKind::Half, 0, Some(&IQ4_NL)),
            BlockFormat::MXFP4 => (Bits::Four, ScaleKind::Brain, 0, Some(&FP4_DOUBLED)),
        };
        Some(Self { bits, scales, zero_point, table })
    }

    /// 64-byte lines of the quants of `tiles` tiles of `blocks` blocks.
    pub(crate) const fn quant_lines(&self, tiles: usize, blocks: usize) -> usize {
        tiles * blocks * self.bits.lines()
    }

    /// 64-byte lines of their scales.
    pub(crate) const fn scale_lines(&self, tiles: usize, blocks: usize) -> usize {
        let (bytes, served) = self.scales.record(blocks);
        (tiles * (blocks / served) * bytes).div_ceil(size_of::<Line>())
    }

    /// The signed weight of one lane at index `i` of a block: the reference of every expansion.
    pub(crate) fn weight(&self, block: &[Line], lane: usize, i: usize) -> i32 {
        let stored = self.bits.get(block, lane, i);
        match self.table {
            Some(table) => i32::from(table[usize::from(stored)]),
            None => i32::from(stored) - i32::from(self.zero_point),
        }
    }

    pub(crate) fn put(&self, block: &mut [Line], lane: usize, stored: &[u8; BLOCK]) {
        self.bits.put(block, lane, stored);
    }
}

/// The scales of one block in one lane, as the reference reads them. Value = `d · sub[half] · weight - m[half]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct LaneScales {
    pub(crate) d: f32,
    /// Integer factors of the halves of a block; `None` where d is the whole scale.
    pub(crate) sub: Option<[i32; 2]>,
    /// Factor of the minimum, and its integer parts for the halves.
    pub(crate) min: Option<(f32, [i32; 2])>,
}

/// One plane of scales, as its records.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ScalePlane<'a> {
    kind: ScaleKind,
    /// Records of a tile.
    per_tile: usize,
    lines: &'a [Line],
}

impl<'a> ScalePlane<'a> {
    pub(crate) fn new(kind: ScaleKind, blocks: usize, lines: &'a [Line]) -> Self {
        Self { kind, per_tile: blocks / kind.record(blocks).1, lines }
    }

    /// The records of one tile.
    ///
    /// # Panics
    /// If `T` is not the record of this kind.
    #[inline(always)]
    pub(crate) fn tile<T: Record>(&self, tile: usize) -> &'a [T] {
        assert!(T::KINDS.contains(&self.kind), "the record of another kind");
        &T::view(self.lines)[tile * self.per_tile..(tile + 1) * self.per_tile]
    }

    /// The scales of one lane.
    pub(crate) fn lane(&self, tile: usize, block: usize, lane: usize) -> LaneScales {
        let (sub, at) = (block % SUPER_BLOCKS, block / SUPER_BLOCKS);
        let both = |s: [u8; 2]| s.map(i32::from);
        match self.kind {
            ScaleKind::Half => {
                let d = f16_to_f32(self.tile::<Lanes16>(tile)[block].0[lane]);
                LaneScales { d, sub: None, min: None }
            }
            ScaleKind::Brain => {
                let d = bf16_to_f32(self.tile::<Lanes16>(tile)[block].0[lane]);
                LaneScales { d, sub: None, min: None }
            }
            ScaleKind::Lone => LaneScales { d: self.tile::<Lone>(tile)[block].0, sub: None, min: None },
            ScaleKind::Row => LaneScales { d: self.tile::<Lanes32>(tile)[0].0[lane], sub: None, min: None },
            ScaleKind::HalfMin => {
                let r = &self.tile::<HalfMin>(tile)[block];
                let min = Some((-f16_to_f32(r.m.0[lane]), [1, 1]));
                LaneScales { d: f16_to_f32(r.d.0[lane]), sub: None, min }
            }
            ScaleKind::Sub32 => {
                let r = &self.tile::<Sub32>(tile)[at];
                let min = Some((f16_to_f32(r.m.0[lane]), both([r.mins[sub][lane]; 2])));
                LaneScales { d: f16_to_f32(r.d.0[lane]), sub: Some(both([r.scales[sub][lane]; 2])), min }
            }
            ScaleKind::Sub16 => {
                let r = &self.tile::<Sub16>(tile)[at];
                let factors = [r.scales[2 * sub][lane], r.scales[2 * sub + 1][lane]].map(i32::from);
                LaneScales { d: f16_to_f32(r.d.0[lane]), sub: Some(factors), min: None }
            }
            ScaleKind::Sub16Min => {
                let r = &self.tile::<Sub16Min>(tile)[at];
                let pair = [r.scales[2 * sub][lane], r.scales[2 * sub + 1][lane]];
                let min = Some((f16_to_f32(r.m.0[lane]), both(pair.map(|s| s >> 4))));
                LaneScales { d: f16_to_f32(r.d.0[lane]), sub: Some(both(pair.map(|s| s & 15))), min }
            }
        }
    }
}

/// Records that lines can be read as: plain numbers without padding, so that any bytes are a value of them.
#[allow(unsafe_code)]
mod record {
    use super::*;

    pub(crate) trait Record: Copy {
        const KINDS: &'static [ScaleKind];

        /// The lines as records; a rest that is no whole record is left out.
        fn view(lines: &[Line]) -> &[Self];
        fn view_mut(lines: &mut [Line]) -> &mut [Self];
    }

    macro_rules! records {
        ($($name:ty: $($kind:ident)|*;)*) => {$(
            const _: () = assert!(align_of::<$name>() <= align_of::<Line>());
            impl Record for $name {
                const KINDS: &'static [ScaleKind] = &[$(ScaleKind::$kind),*];

                #[inline(always)]
                fn view(lines: &[Line]) -> &[Self] {
                    let count = size_of_val(lines) / size_of::<Self>();
                    // SAFETY: integers only and without padding, less strictly aligned than a line, and in bounds.
                    unsafe { std::slice::from_raw_parts(lines.as_ptr().cast(), count) }
                }

                fn view_mut(lines: &mut [Line]) -> &mut [Self] {
                    let count = size_of_val(lines) / size_of::<Self>();
                    // SAFETY: as in `view`, and every value of it is valid bytes of a line.
                    unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), count) }
                }
            }
        )*};
    }
    records! {
        Lanes16: Half | Brain;
        Lanes8: ;
        Lanes32: Row;
        Lone: Lone;
        HalfMin: HalfMin;
        Sub32: Sub32;
        Sub16: Sub16;
        Sub16Min: Sub16Min;
    }
}
pub(crate) use record::Record;

const _: () = assert!(size_of::<HalfMin>() == 64 && size_of::<Sub32>() == 320);
const _: () = assert!(size_of::<Sub16>() == 288 && size_of::<Sub16Min>() == 320);
const _: () = assert!(BLOCK * SUPER_BLOCKS == 256);
