//! The best symbols for a tile of a trellis format: Viterbi's algorithm (Forney 1973) over all 2^16 states.
//!
//! States that share their upper bits are a group: they have the same predecessors' end, so the least cost of each of the
//! `2^(16 − K)` groups is all that one step hands to the next. For the ring a first walk over its seam finds the state there, and
//! the walk around begins and ends in its group (as in QTIP); a later search of the same tile holds the ring where the seam was not.

use super::BlockFormat;
use super::code::too_large;
use super::trellis::{
    self, BLOCK_TILES, CODE_DEVIATION, STATES, TILE, TILE_VALUES, code, codes, put_symbols, rows, state,
    symbol_of, tile_bytes,
};
use crate::error::KernelError;
use crate::isa::{Isa, multiversion};

/// Symbols on either side of the seam that the first walk covers: three times what a state remembers at two bits.
const SEAM: usize = 24;
/// Deviation of the codes for values of deviation 1, by bits: what is lost to the error is missing in what is stored.
const SHARES: [f32; 3] = [0.965, 0.99, 1.0];
/// Groups that are worked on at once.
const LANES: usize = 16;

/// Finds symbols: the tables and the memory of the walk, for one thread.
#[derive(Debug)]
pub struct TrellisSearch {
    bits: u32,
    isa: Isa,
    /// Code of each state.
    codes: Vec<f32>,
    /// Least costs by group, before and after a step.
    costs: [Vec<f32>; 2],
    /// The upper bits of the best state, by step and group.
    choices: Vec<u8>,
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
        let groups = STATES >> bits;
        Some(Self {
            bits,
            isa,
            codes: (0..STATES).map(|state| f32::from(code(state as u16))).collect(),
            costs: [vec![0.0; groups], vec![0.0; groups]],
            choices: vec![0; TILE_VALUES * groups],
        })
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
        let mut seam = [(0.0, 0.0); 2 * SEAM];
        for (i, value) in seam.iter_mut().enumerate() {
            *value = wanted[(TILE_VALUES + i - SEAM) % TILE_VALUES];
        }
        let mut states = [0u16; 2 * SEAM];
        self.walk(&seam, None, &mut states);
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
        mut wanted: [(f32, f32); TILE_VALUES],
        state: u16,
        held: usize,
        block: &mut [u8],
        index: usize,
    ) -> [[i8; TILE]; TILE] {
        wanted.rotate_left(held * TILE);
        let mut states = [0u16; TILE_VALUES];
        self.walk(&wanted, Some(usize::from(state) & ((STATES >> self.bits) - 1)), &mut states);
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

    /// The states of least cost for (root of the weight, that times the target) of each step, beginning and ending in `group`, if there is
    /// one.
    fn walk(&mut self, targets: &[(f32, f32)], group: Option<usize>, states: &mut [u16]) {
        let groups = STATES >> self.bits;
        match group {
            None => self.costs[0].fill(0.0),
            Some(group) => {
                self.costs[0].fill(f32::INFINITY);
                self.costs[0][group] = 0.0;
            }
        }
        for (target, choices) in targets.iter().zip(self.choices.chunks_exact_mut(groups)) {
            let [from, to] = &mut self.costs;
            step(self.isa, self.bits, *target, &self.codes, from, to, choices);
            self.costs.swap(0, 1);
        }
        let least = || {
            let costs = self.costs[0].iter().enumerate();
            costs.min_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(index, _)| index)
        };
        let mut group = group.unwrap_or_else(least);
        for (state, choices) in states.iter_mut().zip(self.choices.chunks_exact(groups)).rev() {
            *state = (usize::from(choices[group]) * groups + group) as u16;
            group = usize::from(*state) >> self.bits;
        }
    }
}

/// Root of the weight, and that times the target, of each symbol of the ring.
fn wanted(target: &[[f32; TILE]; TILE], weights: &[f32; TILE]) -> [(f32, f32); TILE_VALUES] {
    let mut wanted = [(0.0, 0.0); TILE_VALUES];
    for (r, row) in target.iter().enumerate() {
        for c in 0..TILE {
            let root = weights[c].sqrt();
            wanted[r * TILE + symbol_of(c)] = (root, root * row[c]);
        }
    }
    wanted
}

multiversion! {
    /// One step: the least cost of each group of next states, and the upper bits of the state that has it.
    fn step(
        isa, bits: u32, target: (f32, f32), codes: &[f32], from: &[f32], to: &mut [f32], choices: &mut [u8],
    ) {
        match bits {
            2 => step_of::<2>(target, codes, from, to, choices),
            3 => step_of::<3>(target, codes, from, to, choices),
            _ => step_of::<4>(target, codes, from, to, choices),
        }
    }
}

/// A state is `upper · groups + group`, and follows on the group `state >> K`.
#[inline(always)]
fn step_of<const K: usize>(
    (root, target): (f32, f32),
    codes: &[f32],
    from: &[f32],
    to: &mut [f32],
    choices: &mut [u8],
) {
    let groups = STATES >> K;
    let (from, codes) = (&from[..groups], &codes[..STATES]);
    let to = to[..groups].as_chunks_mut::<LANES>().0;
    let choices = choices[..groups].as_chunks_mut::<LANES>().0;
    for (chunk, (to, choices)) in to.iter_mut().zip(choices).enumerate() {
        let mut best = [f32::INFINITY; LANES];
        let mut choice = [0u32; LANES];
        for upper in 0..1 << K {
            let state = upper * groups + chunk * LANES;
            let codes: &[f32; LANES] = codes[state..state + LANES].try_into().expect("a chunk");
            let before = &from[state >> K..(state >> K) + (LANES >> K)];
            for lane in 0..LANES {
                let distance = codes[lane].mul_add(-root, target);
                let cost = distance.mul_add(distance, before[lane >> K]);
                let better = cost < best[lane];
                best[lane] = if better { cost } else { best[lane] };
                choice[lane] = if better { upper as u32 } else { choice[lane] };
            }
        }
        *to = best;
        *choices = choice.map(|c| c as u8);
    }
}
