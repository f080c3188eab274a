//! Packed sparse weights: what a block of a tile stores is one stream, and masks say where it belongs.
//!
//! A block of 16 rows × 32 k stores 256 values: 4 lines of bytes, or 2 of nibbles (the lower one first). The line behind them holds
//! eight u64: bit `4·lane + j` of mask l says that the weight at k = 4l + j is stored. The stream has the values in the order of these
//! bits. So what becomes one register is a mask and the values from some place on: where an instruction expands bytes by a mask
//! (AVX-512 VBMI2), that is all; other sets go through eight places at a time with a table ([`PLACES`]).
//!
//! A mask line may say anything (packed weights may come from a file): wherever it leads, loads stay within the block.

use super::format::Quants;
use super::simd::Simd;
use crate::block::sparse::{STORED, mask, stored, zero_point};
use crate::limits::LANES;
use crate::matrix::Line;

/// Stored values of a block of a tile.
const STREAM: usize = LANES * STORED;
/// Registers that a block becomes.
const REGISTERS: usize = 8;

/// Lines of a block whose stored values have so many bits.
pub(crate) const fn lines(bits: u32) -> usize {
    STREAM * bits as usize / 8 / size_of::<Line>() + 1
}

/// For each mask of eight places the index of the value that each of them takes; above 127 where it takes none.
pub(super) static PLACES: [[u8; 8]; 256] = places();
/// What [`PLACES`] says of a place that takes no value.
const NO_PLACE: u8 = 0x80;

/// Ones of each mask: aarch64 counts them in vectors only.
#[cfg(target_arch = "aarch64")]
pub(super) static COUNTS: [u8; 256] = counts();

#[cfg(target_arch = "aarch64")]
const fn counts() -> [u8; 256] {
    let mut all = [0; 256];
    let mut mask = 0;
    while mask < 256 {
        all[mask] = (mask as u8).count_ones() as u8;
        mask += 1;
    }
    all
}

const fn places() -> [[u8; 8]; 256] {
    let mut all = [[NO_PLACE; 8]; 256];
    let mut mask = 0;
    while mask < 256 {
        let (mut place, mut next) = (0, 0);
        while place < 8 {
            if mask >> place & 1 == 1 {
                all[mask][place] = next;
                next += 1;
            }
            place += 1;
        }
        mask += 1;
    }
    all
}

/// What becomes one register of weights: a bit for each of its bytes, and where in the stream the first value is.
#[derive(Clone, Copy)]
pub(super) struct Window {
    pub(super) mask: u64,
    /// At most 256, less the ones of the mask.
    pub(super) first: usize,
}

/// The windows of all registers of a block.
#[inline(always)]
pub(super) fn windows(masks: &Line) -> [Window; REGISTERS] {
    let mut windows = [Window { mask: 0, first: 0 }; REGISTERS];
    let mut first = 0;
    for (window, bytes) in windows.iter_mut().zip(masks.0.as_chunks().0) {
        let mask = u64::from_le_bytes(*bytes);
        let count = mask.count_ones() as usize;
        *window = Window { mask, first: first.min(STREAM - count) };
        first += count;
    }
    windows
}

/// The stored weight of one lane at index `i` of a block.
pub(super) fn get(bits: u32, block: &[Line], lane: usize, i: usize) -> u8 {
    let (masks, stream) = block.split_last().expect("masks behind the stream");
    let Window { mask, first } = windows(masks)[i / 4];
    let bit = 4 * lane + i % 4;
    if mask >> bit & 1 == 0 {
        return zero_point(bits);
    }
    let place = first + (mask & ((1 << bit) - 1)).count_ones() as usize;
    let byte = |at: usize| stream[at / size_of::<Line>()].0[at % size_of::<Line>()];
    if bits == 8 { byte(place) } else { byte(place / 2) >> (place % 2 * 4) & 15 }
}

/// Packs one block of up to 16 rows, their stored forms; rows that are missing have no values. The lines are zero before.
pub(super) fn put(bits: u32, rows: &[&[u8]], block: &mut [Line]) {
    let (masks, stream) = block.split_last_mut().expect("masks behind the stream");
    let mut values: [_; LANES] = std::array::from_fn(|lane| match rows.get(lane) {
        Some(row) => (mask(row), stored(bits, row).into_iter()),
        None => (0, [0; STORED].into_iter()),
    });
    let mut place = 0;
    for (l, bytes) in masks.0.as_chunks_mut().0.iter_mut().enumerate() {
        let mut all = 0u64;
        for (lane, (mask, values)) in values.iter_mut().enumerate() {
            let four = *mask >> (4 * l) & 15;
            all |= u64::from(four) << (4 * lane);
            for value in values.take(four.count_ones() as usize) {
                let (byte, shift) = if bits == 8 { (place, 0) } else { (place / 2, place % 2 * 4) };
                stream[byte / size_of::<Line>()].0[byte % size_of::<Line>()] |= value << shift;
                place += 1;
            }
        }
        *bytes = all.to_le_bytes();
    }
}

macro_rules! sparse_quants {
    ($($(#[$meta:meta])* $name:ident: $lines:literal, $bits:literal, $expand:ident;)*) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy)]
        pub(crate) struct $name;
        const _: () = assert!(lines($bits) == $lines);
        impl Quants for $name {
            const DEAR: bool = true;
            const SPARSE: bool = true;
            type Block = [Line; $lines];

            #[inline(always)]
            fn blocks(lines: &[Line]) -> &[Self::Block] {
                lines.as_chunks().0
            }

            #[inline(always)]
            fn expand<S: Simd>(simd: S, block: &Self::Block, part: usize) -> [S::Int; REGISTERS] {
                simd.$expand(block, part)
            }
        }
    )*};
}

sparse_quants! {
    /// Half of the weights, as bytes.
    Sparse8: 5, 8, sparse8;
    /// Half of the weights, as nibbles.
    Sparse4: 3, 4, sparse4;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_of_any_kind_stay_within_the_block() {
        let mut state = 1u64;
        for _ in 0..500 {
            let masks: [u64; REGISTERS] = std::array::from_fn(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                // Nearly all ones, nearly none, and whatever lies between.
                let other = state.rotate_left(29);
                [state | other, state & other, state, u64::MAX][(state >> 61) as usize % 4]
            });
            let mut line = Line([0; 64]);
            line.0.copy_from_slice(masks.map(u64::to_le_bytes).as_flattened());
            for window in windows(&line) {
                assert!(window.first + window.mask.count_ones() as usize <= STREAM);
            }
            for bits in [4, 8] {
                let mut block = vec![Line([0xff; 64]); lines(bits)];
                *block.last_mut().unwrap() = line;
                for i in 0..512 {
                    get(bits, &block, i / 32, i % 32);
                }
            }
        }
    }
}
