//! The trellis formats T2, T3 and T4: 2, 3 and 4 bits a weight, after QTIP (Tseng et al. 2024).
//!
//! # What is stored
//! Of a matrix W, `W' = R_out · W · R_inᵀ` is stored ([`crate::rotate`]), in blocks of 16 rows × 32 columns, those of 16 rows one
//! after the other. A block is a scale d (f16) and two tiles of 16 × 16. A tile has 256 symbols of K bits: row r is an integer of
//! 16·K bits, little-endian, the row's first symbol in its highest bits. The rows one after the other are one ring of 256·K bits.
//!
//! # What it stands for
//! The state of a symbol is the 16 bits of the ring that end with it, so a symbol takes part in the values of those behind it (a
//! bit-shift trellis, tail-biting). A value is `d · code(state)`, and `code` is computed: the mean of the four bytes of
//! two products modulo 2^16, which is nearly Gaussian. Column c of a tile belongs to the symbol [`symbol_of`] of its row: then
//! kernels extract the states of a register with two shifts.

use super::{Overflow, to_f16};
use crate::isa::Isa;
use crate::limits::LANES;
use crate::math::f16_to_f32;
use crate::rotation::{Side, rotate_back, rotate_columns_back, rotation_width};

/// Rows and columns of a tile.
pub(crate) const TILE: usize = 16;
/// Values of a tile.
pub(crate) const TILE_VALUES: usize = TILE * TILE;
/// Bits of a state.
pub(crate) const STATE_BITS: u32 = 16;
/// States of the trellis.
pub(crate) const STATES: usize = 1 << STATE_BITS;
/// The factors of the code, chosen among random odd numbers for the least error on Gaussian values at 2 to 4 bits.
pub(crate) const FACTORS: [u16; 2] = [50933, 6297];
/// Tiles of a block.
pub(crate) const BLOCK_TILES: usize = 2;
/// Root of the mean square of all codes.
pub(crate) const CODE_DEVIATION: f32 = 36.96;

const _: () = assert!(TILE == LANES);

/// Bytes of a tile.
pub(crate) const fn tile_bytes(bits: u32) -> usize {
    TILE_VALUES / 8 * bits as usize
}

/// The code of a state.
pub(crate) const fn code(state: u16) -> i8 {
    const fn mean(a: u16, b: u16) -> u16 {
        (a + b + 1) >> 1
    }
    let (x, y) = (state.wrapping_mul(FACTORS[0]), state.wrapping_mul(FACTORS[1]));
    let (low, high) = (mean(x & 255, y & 255), mean(x >> 8, y >> 8));
    (mean(low, high) as i16 - 128) as i8
}

/// Which symbol of a row is that of column `column` of a tile.
pub(crate) const fn symbol_of(column: usize) -> usize {
    [15, 14, 7, 6][column % 4] - 2 * (column / 4)
}

/// The state of symbol `symbol` in a row of `bits`-bit symbols, after the row `before` on the ring.
pub(crate) fn state(bits: u32, before: u64, row: u64, symbol: usize) -> u16 {
    let ring = u128::from(before as u16) << (16 * bits) | u128::from(row);
    (ring >> (bits as usize * (TILE - 1 - symbol))) as u16
}

/// The rows of a tile as integers.
pub(crate) fn rows(bits: u32, tile: &[u8]) -> [u64; TILE] {
    let bytes = tile_bytes(bits) / TILE;
    std::array::from_fn(|r| {
        let mut word = [0; 8];
        word[..bytes].copy_from_slice(&tile[r * bytes..(r + 1) * bytes]);
        u64::from_le_bytes(word)
    })
}

/// The codes of a tile: (rows, columns).
pub(crate) fn codes(bits: u32, tile: &[u8]) -> [[i8; TILE]; TILE] {
    let rows = rows(bits, tile);
    std::array::from_fn(|r| {
        let before = rows[(r + TILE - 1) % TILE];
        std::array::from_fn(|c| code(state(bits, before, rows[r], symbol_of(c))))
    })
}

/// Stores symbols in the order of the ring.
pub(crate) fn put_symbols(bits: u32, symbols: &[u8; TILE_VALUES], tile: &mut [u8]) {
    let bytes = tile_bytes(bits) / TILE;
    for (symbols, out) in symbols.as_chunks::<TILE>().0.iter().zip(tile.chunks_exact_mut(bytes)) {
        let word = symbols.iter().fold(0u64, |word, symbol| word << bits | u64::from(*symbol));
        out.copy_from_slice(&word.to_le_bytes()[..bytes]);
    }
}

/// The values of a block, 16 rows of 32 columns, before rotation.
pub(crate) fn values(bits: u32, block: &[u8]) -> [[f32; BLOCK_TILES * TILE]; TILE] {
    let d = scale(block);
    let (first, second) = block[2..].split_at(tile_bytes(bits));
    let tiles = [codes(bits, first), codes(bits, second)];
    std::array::from_fn(|r| std::array::from_fn(|c| d * f32::from(tiles[c / TILE][r][c % TILE])))
}

/// A matrix of whole blocks and rows of `columns` values, rotated back.
pub(super) fn dequantize(bits: u32, block_bytes: usize, columns: usize, bytes: &[u8], out: &mut [f32]) {
    const WIDTH: usize = BLOCK_TILES * TILE;
    let strips = bytes.chunks_exact(columns / WIDTH * block_bytes).zip(out.chunks_exact_mut(TILE * columns));
    for (strip, rows) in strips {
        for (b, block) in strip.chunks_exact(block_bytes).enumerate() {
            for (row, values) in rows.chunks_exact_mut(columns).zip(values(bits, block)) {
                row[b * WIDTH..(b + 1) * WIDTH].copy_from_slice(&values);
            }
        }
    }
    let rows = out.len() / columns;
    rotate_columns_back(Side::Output, out, columns, rotation_width(rows));
    rotate_back(Isa::detect(), Side::Input, out, rotation_width(columns));
}

/// The scale of a block.
pub(crate) fn scale(block: &[u8]) -> f32 {
    f16_to_f32(u16::from_le_bytes([block[0], block[1]]))
}

/// Stores the scale of a block; what is stored.
pub(super) fn put_scale(scale: f32, block: &mut [u8]) -> Result<f32, Overflow> {
    let half = to_f16(scale)?;
    block[..2].copy_from_slice(&half.to_le_bytes());
    Ok(f16_to_f32(half))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_centred_and_as_wide_as_said() {
        let all: Vec<f64> = (0..STATES).map(|s| f64::from(code(s as u16))).collect();
        let mean = all.iter().sum::<f64>() / STATES as f64;
        let square = all.iter().map(|v| v * v).sum::<f64>() / STATES as f64;
        assert!(mean.abs() < 0.5, "{mean}");
        assert!((square.sqrt() - f64::from(CODE_DEVIATION)).abs() < 0.1, "{}", square.sqrt());
    }

    #[test]
    fn each_column_has_a_symbol_of_its_own() {
        let mut seen = [false; TILE];
        (0..TILE).for_each(|c| seen[symbol_of(c)] = true);
        assert_eq!(seen, [true; TILE]);
    }

    #[test]
    fn states_are_the_last_sixteen_bits_of_the_ring() {
        for bits in 2..=4 {
            let symbols: [u8; TILE_VALUES] =
                std::array::from_fn(|i| (i * 37 % 101) as u8 & ((1 << bits) - 1));
            let mut tile = vec![0; tile_bytes(bits)];
            put_symbols(bits, &symbols, &mut tile);
            let found = codes(bits, &tile);
            let mut state = 0u16;
            // Once around for the history, once more for the values.
            for turn in 0..2 {
                for (i, symbol) in symbols.iter().enumerate() {
                    state = state << bits | u16::from(*symbol);
                    let (r, column) = (i / TILE, (0..TILE).find(|c| symbol_of(*c) == i % TILE).unwrap());
                    assert!(turn == 0 || found[r][column] == code(state), "{bits} bits, symbol {i}");
                }
            }
        }
    }
}
