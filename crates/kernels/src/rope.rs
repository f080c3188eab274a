//! Rotary position embedding (Su et al. 2021) from a table that is computed once, in double precision, with this
//! crate's own functions: the same bits on every platform.

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

/// Cosines and sines for every (position, pair).
#[derive(Debug)]
pub struct RopeTable {
    order: RopeOrder,
    pairs: usize,
    /// (positions, pairs): cosine, sine.
    table: Vec<(f32, f32)>,
}

impl RopeTable {
    /// Bytes of a table for `positions` and `dimensions` rotated values a head.
    pub fn size_bytes(positions: usize, dimensions: usize) -> usize {
        positions * (dimensions / 2) * size_of::<(f32, f32)>()
    }

    /// The angle of pair i at position p is `p · scale · base^(-2i / dimensions) / factors[i]`; `factors` (one per pair)
    /// may be empty.
    ///
    /// # Panics
    /// If `dimensions` is odd or zero, or `factors` is neither empty nor one per pair.
    pub fn new(
        order: RopeOrder,
        positions: usize,
        dimensions: usize,
        base: f32,
        scale: f32,
        factors: &[f32],
    ) -> Self {
        assert!(dimensions > 0 && dimensions.is_multiple_of(2), "pairs");
        let pairs = dimensions / 2;
        assert!(factors.is_empty() || factors.len() == pairs, "one factor a pair");
        let mut table = vec![(0.0, 0.0); positions * pairs];
        let ln_base = ln_f64(f64::from(base));
        for i in 0..pairs {
            let factor = factors.get(i).copied().map_or(1.0, f64::from);
            let frequency =
                exp_f64(-ln_base * (2 * i) as f64 / dimensions as f64) * f64::from(scale) / factor;
            for position in 0..positions {
                let (sin, cos) = sin_cos_f64(position as f64 * frequency);
                table[position * pairs + i] = (cos as f32, sin as f32);
            }
        }
        Self { order, pairs, table }
    }

    /// Rotates the first `dimensions` values of every head of `x`, a (tokens, heads, head_dim) array whose first token
    /// stands at `position`.
    ///
    /// # Panics
    /// If a shape disagrees or a position is outside the table.
    pub fn apply(&self, isa: Isa, pool: &Pool, x: &mut [f32], row: usize, head_dim: usize, position: usize) {
        assert!(head_dim >= 2 * self.pairs && row.is_multiple_of(head_dim), "whole heads");
        pool.for_each_row(x, row, &|token, heads| {
            let start = (position + token) * self.pairs;
            let angles = &self.table[start..start + self.pairs];
            match self.order {
                RopeOrder::Interleaved => rotate_neighbours(isa, heads, head_dim, angles),
                RopeOrder::Halves => rotate_halves(isa, heads, head_dim, angles),
            }
        });
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
    fn both_orders_rotate_by_the_same_angles() {
        let pool = Pool::new(1).unwrap();
        let (head_dim, pairs) = (10, 4);
        let table = |order| RopeTable::new(order, 8, pairs * 2, 10_000.0, 1.0, &[]);
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
}
