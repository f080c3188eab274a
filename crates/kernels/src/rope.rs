//! Rotary position embedding (Su et al. 2021) from a table that is computed once, in double precision, with this
//! crate's own functions: the same bits on every platform.

use std::ops::Range;

use crate::isa::{Isa, multiversion};
use crate::math::{exp_f64, ln_f64, sin_cos_f64};
use crate::pool::Pool;

/// Which two values form the pair that is rotated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RopeOrder {
    /// Neighbours (2i, 2i + 1): GGUF files of the llama architecture, llama2.c.
    Interleaved,
    /// (i, i + half): GPT-NeoX and its heirs.
    Halves,
}

/// How a model trained on short texts reads positions beyond them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// Positions divided by a factor (Chen et al. 2023).
    Linear {
        /// Above 1 for longer texts.
        factor: f32,
    },
    /// The base multiplied by `alpha^(d / (d - 2))`: NTK-aware scaling.
    Ntk {
        /// Above 1 for longer texts.
        alpha: f32,
    },
    /// Slow pairs divided by a factor, fast ones left alone, a ramp between (YaRN, Peng et al. 2023).
    Yarn {
        /// Above 1 for longer texts.
        factor: f32,
        /// Positions the model was first trained on.
        original_positions: usize,
        /// Turns over those positions above which a pair is left alone; 32 in the paper.
        beta_fast: f32,
        /// Turns below which it is divided fully; 1 in the paper.
        beta_slow: f32,
    },
}

/// A rotary embedding: everything that decides an angle.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rotation {
    /// The pairs.
    pub order: RopeOrder,
    /// Rotated values of one head; even.
    pub dimensions: usize,
    /// The base of the frequencies, usually 10,000.
    pub base: f32,
    /// How positions are stretched.
    pub scaling: RopeScaling,
    /// Factor on both cosine and sine, 1 unless the scaling asks for more (YaRN's and LongRoPE's attention factor).
    pub magnitude: f32,
}

impl Rotation {
    /// The plain embedding of Su et al.
    pub fn plain(order: RopeOrder, dimensions: usize, base: f32) -> Self {
        Self { order, dimensions, base, scaling: RopeScaling::None, magnitude: 1.0 }
    }

    /// Radians a position of pair `i`.
    fn frequency(&self, i: usize) -> f64 {
        let (pairs, d) = (i as f64, self.dimensions as f64);
        let ln_base = ln_f64(f64::from(self.base));
        let plain = |ln_base: f64| exp_f64(-ln_base * 2.0 * pairs / d);
        match self.scaling {
            RopeScaling::None => plain(ln_base),
            RopeScaling::Linear { factor } => plain(ln_base) / f64::from(factor),
            // One pair has the frequency 1 whatever the base.
            RopeScaling::Ntk { .. } if self.dimensions == 2 => plain(ln_base),
            RopeScaling::Ntk { alpha } => plain(ln_base + ln_f64(f64::from(alpha)) * d / (d - 2.0)),
            RopeScaling::Yarn { factor, original_positions, beta_fast, beta_slow } => {
                // The pair that turns `beta` times over the original positions.
                let pair = |beta: f32| {
                    let length = original_positions as f64 / (f64::from(beta) * std::f64::consts::TAU);
                    d * ln_f64(length) / (2.0 * ln_base)
                };
                let first = pair(beta_fast).floor().max(0.0);
                let last = pair(beta_slow).ceil().min(d - 1.0);
                let ramp = ((pairs - first) / (last - first).max(0.001)).clamp(0.0, 1.0);
                plain(ln_base) * ((1.0 - ramp) + ramp / f64::from(factor))
            }
        }
    }
}

/// Cosines and sines for every (position, pair).
#[derive(Debug)]
pub struct RopeTable {
    order: RopeOrder,
    pairs: usize,
    /// Radians a position of each pair.
    frequencies: Vec<f64>,
    /// Factor on cosine and sine.
    magnitude: f64,
    /// (positions, pairs): cosine, sine. Position p has row `p mod positions`.
    table: Vec<(f32, f32)>,
    /// Whether rows of other positions than the first were computed.
    moved: bool,
}

impl RopeTable {
    /// Bytes of a table for `positions` and `dimensions` rotated values a head.
    pub fn size_bytes(positions: usize, dimensions: usize) -> usize {
        positions * (dimensions / 2) * size_of::<(f32, f32)>()
    }

    /// The angle of pair i at position p is p times the rotation's frequency, `base^(-2i / dimensions)` if nothing is
    /// scaled, divided by `factors[i]` (Llama 3, LongRoPE); `factors` (one per pair) may be empty.
    ///
    /// # Panics
    /// If `dimensions` is odd or zero, or `factors` is neither empty nor one per pair.
    pub fn new(rotation: &Rotation, positions: usize, factors: &[f32]) -> Self {
        let dimensions = rotation.dimensions;
        assert!(dimensions > 0 && dimensions.is_multiple_of(2), "pairs");
        let pairs = dimensions / 2;
        assert!(factors.is_empty() || factors.len() == pairs, "one factor a pair");
        let frequency = |i: usize| rotation.frequency(i) / factors.get(i).copied().map_or(1.0, f64::from);
        let mut table = Self {
            order: rotation.order,
            pairs,
            frequencies: (0..pairs).map(frequency).collect(),
            magnitude: f64::from(rotation.magnitude),
            table: vec![(0.0, 0.0); positions * pairs],
            moved: false,
        };
        for position in 0..positions {
            table.compute(position);
        }
        table
    }

    fn compute(&mut self, position: usize) {
        let row = self.row(position);
        for (entry, frequency) in self.table[row].iter_mut().zip(&self.frequencies) {
            let (sin, cos) = sin_cos_f64(position as f64 * frequency);
            *entry = ((cos * self.magnitude) as f32, (sin * self.magnitude) as f32);
        }
    }

    /// Cosine and sine of every pair at a position.
    ///
    /// # Panics
    /// If the table has no row of this position.
    pub fn angles(&self, position: usize) -> &[(f32, f32)] {
        assert!(self.moved || (position + 1) * self.pairs <= self.table.len(), "outside the table");
        &self.table[self.row(position)]
    }

    fn row(&self, position: usize) -> Range<usize> {
        let first = position * self.pairs % self.table.len();
        first..first + self.pairs
    }

    /// Makes sure that the table has the rows of these positions, which must not be more than it was made for: a
    /// session that goes on for ever moves its table along.
    ///
    /// # Panics
    /// If there are more positions than rows.
    pub fn cover(&mut self, positions: Range<usize>) {
        assert!(positions.len() * self.pairs <= self.table.len(), "more positions than rows");
        if self.moved || positions.end * self.pairs > self.table.len() {
            self.moved = true;
            positions.for_each(|position| self.compute(position));
        }
    }

    /// Rotates the first `dimensions` values of every head of `x`, a (tokens, heads, head_dim) array whose first token
    /// stands at `position`.
    ///
    /// # Panics
    /// If a shape disagrees or there are more tokens than rows.
    pub fn apply(&self, isa: Isa, pool: &Pool, x: &mut [f32], row: usize, head_dim: usize, position: usize) {
        self.check(x, row, head_dim, position);
        pool.for_each_row(x, row, &|token, heads| {
            let angles = &self.table[self.row(position + token)];
            match self.order {
                RopeOrder::Interleaved => rotate_neighbours(isa, heads, head_dim, angles),
                RopeOrder::Halves => rotate_halves(isa, heads, head_dim, angles),
            }
        });
    }

    /// The transpose of [`RopeTable::apply`]: what takes gradients back through it. For offline work; not fast.
    ///
    /// # Panics
    /// As there.
    pub fn apply_transposed(&self, x: &mut [f32], row: usize, head_dim: usize, position: usize) {
        self.check(x, row, head_dim, position);
        for (token, heads) in x.chunks_exact_mut(row).enumerate() {
            let angles = &self.table[self.row(position + token)];
            for head in heads.chunks_exact_mut(head_dim) {
                for (i, (cos, sin)) in angles.iter().enumerate() {
                    let (a, b) = match self.order {
                        RopeOrder::Interleaved => (2 * i, 2 * i + 1),
                        RopeOrder::Halves => (i, i + self.pairs),
                    };
                    (head[a], head[b]) = rotate(head[a], head[b], (*cos, -*sin));
                }
            }
        }
    }

    fn check(&self, x: &[f32], row: usize, head_dim: usize, position: usize) {
        assert!(head_dim >= 2 * self.pairs && row.is_multiple_of(head_dim), "whole heads");
        let end = position + x.len() / row;
        assert!(self.moved || end * self.pairs <= self.table.len(), "outside the table");
    }
}

/// The rotation, each product sum with one fused step.
#[inline(always)]
fn rotate(a: f32, b: f32, (cos, sin): (f32, f32)) -> (f32, f32) {
    (a.mul_add(cos, -(b * sin)), a.mul_add(sin, b * cos))
}

multiversion! {
    fn rotate_neighbours(isa, heads: &mut [f32], head_dim: usize, angles: &[(f32, f32)]) {
        for head in heads.chunks_exact_mut(head_dim) {
            for (pair, angle) in head.as_chunks_mut::<2>().0.iter_mut().zip(angles) {
                (pair[0], pair[1]) = rotate(pair[0], pair[1], *angle);
            }
        }
    }
}

multiversion! {
    fn rotate_halves(isa, heads: &mut [f32], head_dim: usize, angles: &[(f32, f32)]) {
        for head in heads.chunks_exact_mut(head_dim) {
            let (first, second) = head.split_at_mut(angles.len());
            for ((a, b), angle) in first.iter_mut().zip(second).zip(angles) {
                (*a, *b) = rotate(*a, *b, *angle);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_moves_has_the_rows_of_a_long_one() {
        let table =
            |positions| RopeTable::new(&Rotation::plain(RopeOrder::Halves, 8, 10_000.0), positions, &[]);
        let long = table(500);
        let mut short = table(10);
        for first in [0, 5, 8, 100, 491, 3, 0] {
            short.cover(first..first + 9);
            for position in first..first + 9 {
                assert_eq!(short.table[short.row(position)], long.table[long.row(position)]);
            }
        }
    }

    #[test]
    fn both_orders_rotate_by_the_same_angles() {
        let pool = Pool::new(1).unwrap();
        let (head_dim, pairs) = (10, 4);
        let table = |order| RopeTable::new(&Rotation::plain(order, pairs * 2, 10_000.0), 8, &[]);
        let source: Vec<f32> = (0..20).map(|i| i as f32 - 7.0).collect();
        let mut neighbours = source.clone();
        table(RopeOrder::Interleaved).apply(Isa::detect(), &pool, &mut neighbours, 20, head_dim, 5);
        let mut halves = source.clone();
        table(RopeOrder::Halves).apply(Isa::detect(), &pool, &mut halves, 20, head_dim, 5);
        for head in 0..2 {
            for i in 0..pairs {
                let angle = 5.0 * 10_000f64.powf(-(2.0 * i as f64) / (2 * pairs) as f64);
                let check = |values: &[f32], at: usize, step: usize| {
                    let (a, b) = (f64::from(source[at]), f64::from(source[at + step]));
                    assert!((f64::from(values[at]) - (a * angle.cos() - b * angle.sin())).abs() < 1e-5);
                    assert!(
                        (f64::from(values[at + step]) - (a * angle.sin() + b * angle.cos())).abs() < 1e-5
                    );
                };
                check(&neighbours, head * head_dim + 2 * i, 1);
                check(&halves, head * head_dim + i, pairs);
            }
            for rest in head * head_dim + 2 * pairs..(head + 1) * head_dim {
                assert_eq!(neighbours[rest], source[rest]);
                assert_eq!(halves[rest], source[rest]);
            }
        }
    }

    #[test]
    fn the_transpose_takes_a_rotation_back() {
        let pool = Pool::new(1).unwrap();
        for order in [RopeOrder::Interleaved, RopeOrder::Halves] {
            let magnitude = 1.5;
            let table =
                RopeTable::new(&Rotation { magnitude, ..Rotation::plain(order, 6, 10_000.0) }, 8, &[]);
            let source: Vec<f32> = (0..32).map(|i| i as f32 - 7.0).collect();
            let mut x = source.clone();
            table.apply(Isa::detect(), &pool, &mut x, 16, 8, 3);
            assert_ne!(x, source);
            table.apply_transposed(&mut x, 16, 8, 3);
            for (i, (found, value)) in x.iter().zip(&source).enumerate() {
                let factor = if i % 8 < 6 { magnitude * magnitude } else { 1.0 };
                assert!((found - factor * value).abs() < 1e-4, "{i}: {found}");
            }
        }
    }

    /// Angle of one pair at position 100, by the table.
    fn angle(rotation: &Rotation, factors: &[f32], pair: usize) -> (f64, f64) {
        let (cos, sin) = RopeTable::new(rotation, 101, factors).table[100 * rotation.dimensions / 2 + pair];
        (f64::from(cos), f64::from(sin))
    }

    fn check(rotation: &Rotation, factors: &[f32], pair: usize, angle: f64) {
        let (cos, sin) = self::angle(rotation, factors, pair);
        let m = f64::from(rotation.magnitude);
        assert!((cos - m * angle.cos()).abs() < 1e-6 && (sin - m * angle.sin()).abs() < 1e-6, "{rotation:?}");
    }

    #[test]
    fn scalings_follow_their_formulas() {
        let plain = Rotation::plain(RopeOrder::Halves, 64, 10_000.0);
        for pair in 0..32 {
            let frequency = 10_000f64.powf(-(pair as f64) / 32.0);
            check(&plain, &[], pair, 100.0 * frequency);
            let linear = Rotation { scaling: RopeScaling::Linear { factor: 4.0 }, ..plain };
            check(&linear, &[], pair, 25.0 * frequency);
            let ntk = Rotation { scaling: RopeScaling::Ntk { alpha: 8.0 }, ..plain };
            let base = 10_000.0 * 8f64.powf(64.0 / 62.0);
            check(&ntk, &[], pair, 100.0 * base.powf(-(pair as f64) / 32.0));
            let factors: Vec<f32> = (0..32).map(|i| 1.0 + i as f32).collect();
            check(&plain, &factors, pair, 100.0 * frequency / (1.0 + pair as f64));
        }
    }

    #[test]
    fn yarn_leaves_fast_pairs_and_divides_slow_ones() {
        let scaling =
            RopeScaling::Yarn { factor: 4.0, original_positions: 2048, beta_fast: 32.0, beta_slow: 1.0 };
        let magnitude = 0.1 * 4f32.ln() + 1.0;
        let yarn = Rotation { scaling, magnitude, ..Rotation::plain(RopeOrder::Halves, 64, 10_000.0) };
        // 32 turns over 2048 positions: pair 8.05; one turn: pair 20.1.
        for pair in 0..32 {
            let ramp = ((pair as f64 - 8.0) / (21.0 - 8.0)).clamp(0.0, 1.0);
            let frequency = 10_000f64.powf(-(pair as f64) / 32.0) * (1.0 - ramp + ramp / 4.0);
            check(&yarn, &[], pair, 100.0 * frequency);
        }
    }
}
