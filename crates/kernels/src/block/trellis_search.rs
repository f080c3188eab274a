//! The best symbols for a tile of a trellis format.
//!
//! For the ring a first walk over its seam finds the state there, and the walk around begins and ends in its group (as in QTIP); a later
//! search of the same tile holds the ring where the seam was not.

use super::BlockFormat;
use super::code::too_large;
use super::trellis::{
    self, BLOCK_TILES, CODE_DEVIATION, STATES, TILE, TILE_VALUES, codes, put_symbols, rows, state, symbol_of,
    tile_bytes,
};
use super::trellis_walk::{Walk, Wanted};
use crate::error::KernelError;
use crate::isa::Isa;

/// Symbols on either side of the seam that the first walk covers: three times what a state remembers at two bits.
const SEAM: usize = 24;
/// Deviation of the codes for values of deviation 1, by bits: what is lost to the error is missing in what is stored.
const SHARES: [f32; 3] = [0.965, 0.99, 1.0];

/// Finds symbols: the tables and the memory of the walk, for one thread.
#[derive(Debug)]
pub struct TrellisSearch {
    bits: u32,
    walk: Walk,
}

impl BlockFormat {
    /// Bits of a symbol, if it is a trellis format.
    pub const fn trellis_bits(self) -> Option<u32> {
        match self {
            Self::T2 => Some(2),
            Self::T3 => Some(3),
            Self::T4 => Some(4),
            _ => None,
        }
    }
}

impl TrellisSearch {
    /// Rows of a block.
    pub const ROWS: usize = TILE;
    /// Columns of a tile.
    pub const COLUMNS: usize = TILE;
    /// Tiles of a block, side by side.
    pub const TILES: usize = BLOCK_TILES;

    /// Tables for a trellis format; `None` for any other one.
    pub fn new(isa: Isa, format: BlockFormat) -> Option<Self> {
        let bits = format.trellis_bits()?;
        Some(Self { bits, walk: Walk::new(isa, bits) })
    }

    /// Sets the scale of a block for values whose mean square is `square`; what is stored.
    ///
    /// # Errors
    /// [`KernelError::TooLarge`], with the root of `square`.
    pub fn put_scale(&self, square: f32, block: &mut [u8]) -> Result<f32, KernelError> {
        let root = square.sqrt();
        let scale = root / (CODE_DEVIATION * SHARES[self.bits as usize - 2]);
        trellis::put_scale(scale, block).map_err(|_| too_large(self.format(), &[root]))
    }

    /// Finds and stores the symbols of tile `index` of a block: those of least `Σ weights[c] · (target[r][c] − code)²`. What they stand
    /// for comes back: the codes, to be multiplied by the block's scale. Targets are in units of the codes.
    ///
    /// # Panics
    /// If there is no such tile in a block.
    pub fn put_tile(
        &mut self,
        target: &[[f32; TILE]; TILE],
        weights: &[f32; TILE],
        block: &mut [u8],
        index: usize,
    ) -> [[i8; TILE]; TILE] {
        let wanted = wanted(target, weights);
        let mut seam = [Wanted::default(); 2 * SEAM];
        for (i, value) in seam.iter_mut().enumerate() {
            *value = wanted[(TILE_VALUES + i - SEAM) % TILE_VALUES];
        }
        let mut states = [0u16; 2 * SEAM];
        self.walk.find(&seam, None, &mut states);
        self.put_ring(wanted, states[SEAM - 1], 0, block, index)
    }

    /// As [`TrellisSearch::put_tile`] for a tile that has been stored: the state before row `held` of its ring stays what it is, which
    /// saves the walk over a seam.
    ///
    /// # Panics
    /// If there is no such tile in a block, or no such row.
    pub fn put_tile_again(
        &mut self,
        target: &[[f32; TILE]; TILE],
        weights: &[f32; TILE],
        block: &mut [u8],
        index: usize,
        held: usize,
    ) -> [[i8; TILE]; TILE] {
        assert!(held < TILE, "row {held} of {TILE}");
        let bytes = tile_bytes(self.bits);
        let rows = rows(self.bits, &block[2 + index * bytes..2 + (index + 1) * bytes]);
        let before = |row: usize| rows[(held + TILE - row) % TILE];
        let state = state(self.bits, before(2), before(1), TILE - 1);
        self.put_ring(wanted(target, weights), state, held, block, index)
    }

    /// Walks around the ring from row `held` on, which follows on `state`, and stores what was found.
    fn put_ring(
        &mut self,
        mut wanted: [Wanted; TILE_VALUES],
        state: u16,
        held: usize,
        block: &mut [u8],
        index: usize,
    ) -> [[i8; TILE]; TILE] {
        wanted.rotate_left(held * TILE);
        let mut states = [0u16; TILE_VALUES];
        self.walk.find(&wanted, Some(usize::from(state) & ((STATES >> self.bits) - 1)), &mut states);
        states.rotate_right(held * TILE);
        let symbols = states.map(|state| state as u8 & ((1 << self.bits) - 1));
        let bytes = tile_bytes(self.bits);
        let tile = &mut block[2 + index * bytes..2 + (index + 1) * bytes];
        put_symbols(self.bits, &symbols, tile);
        codes(self.bits, tile)
    }

    fn format(&self) -> BlockFormat {
        [BlockFormat::T2, BlockFormat::T3, BlockFormat::T4][self.bits as usize - 2]
    }
}

/// What each symbol of the ring should stand for.
fn wanted(target: &[[f32; TILE]; TILE], weights: &[f32; TILE]) -> [Wanted; TILE_VALUES] {
    let mut wanted = [Wanted::default(); TILE_VALUES];
    for (r, row) in target.iter().enumerate() {
        for c in 0..TILE {
            wanted[r * TILE + symbol_of(c)] = Wanted { target: row[c], weight: weights[c] };
        }
    }
    wanted
}
