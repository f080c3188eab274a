//! SparseGPT (Frantar and Alistarh 2023): a weight becomes zero, and the columns behind it make up for it.
//!
//! With `H⁻¹ = UᵀU` of the damped second moments, clearing column i of a row costs `w²/U_ii²` and moves the row by `−w/U_ii · U[i, i..]`.
//! Which weights go is chosen for 128 columns at once over all rows, or for each group when it is reached.

use super::eliminate::DAMPING;
use super::sparse::Pattern;
use super::wanda::least;
use crate::linalg::{Square, damped, inverse_factor};

/// Columns whose weights are compared, and whose errors are collected before they reach the columns behind.
const BLOCK: usize = 128;

/// The factor of the moments that all rows share.
pub(super) struct SparseGpt {
    upper: Square,
}

impl SparseGpt {
    /// `None` if the moments cannot be factored.
    pub(super) fn new(moments: &Square) -> Option<Self> {
        let mut moments = moments.clone();
        let mean = moments.mean_diagonal();
        for i in 0..moments.size {
            // A column that no input ever used.
            if moments.at(i, i) == 0.0 {
                moments.set(i, i, mean);
            }
        }
        damped(&moments, DAMPING, inverse_factor).map(|(upper, _)| Self { upper })
    }

    /// Makes whole rows sparse.
    pub(super) fn sparsify(&self, values: &mut [f32], pattern: Pattern, threads: usize) {
        let columns = self.upper.size;
        let mut rows: Vec<f64> = values.iter().map(|v| f64::from(*v)).collect();
        let share = (values.len() / columns).div_ceil(threads.max(1)).max(1) * columns;
        let mut first = 0;
        while first < columns {
            let group = pattern.group(BLOCK);
            let last = (first + BLOCK.next_multiple_of(group)).min(columns);
            let chosen = match pattern {
                Pattern::Share(_) => Some(self.choose(&rows, first..last, pattern)),
                Pattern::Groups { .. } => None,
            };
            std::thread::scope(|scope| {
                for (index, rows) in rows.chunks_mut(share).enumerate() {
                    let chosen = chosen.as_ref();
                    scope.spawn(move || {
                        for (i, row) in rows.chunks_exact_mut(columns).enumerate() {
                            let at = (index * share / columns + i) * (last - first);
                            let chosen = chosen.map(|all| &all[at..at + last - first]);
                            self.clear(row, first..last, pattern, chosen);
                        }
                    });
                }
            });
            first = last;
        }
        values.iter_mut().zip(&rows).for_each(|(v, row)| *v = *row as f32);
    }

    fn cost(&self, weight: f64, column: usize) -> f64 {
        (weight / self.upper.at(column, column)).powi(2)
    }

    /// The weights of least cost among some columns of all rows: (rows, columns of the block).
    fn choose(&self, rows: &[f64], block: std::ops::Range<usize>, pattern: Pattern) -> Vec<bool> {
        let mut costs = Vec::new();
        for row in rows.chunks_exact(self.upper.size) {
            costs.extend(block.clone().map(|j| self.cost(row[j], j)));
        }
        let mut chosen = vec![false; costs.len()];
        least(&costs, pattern.zeros(costs.len())).into_iter().for_each(|place| chosen[place] = true);
        chosen
    }

    /// Clears the chosen weights of a row's block; without a choice, those of least cost of each group.
    fn clear(
        &self,
        row: &mut [f64],
        block: std::ops::Range<usize>,
        pattern: Pattern,
        chosen: Option<&[bool]>,
    ) {
        let mut errors = vec![0.0; block.len()];
        let group = pattern.group(block.len());
        let mut cleared = chosen.map_or_else(|| vec![false; block.len()], <[bool]>::to_vec);
        for j in block.clone() {
            let i = j - block.start;
            if chosen.is_none() && i.is_multiple_of(group) {
                let costs: Vec<f64> = (j..j + group).map(|j| self.cost(row[j], j)).collect();
                least(&costs, pattern.zeros(group)).into_iter().for_each(|place| cleared[i + place] = true);
            }
            if cleared[i] {
                let error = row[j] / self.upper.at(j, j);
                errors[i] = error;
                let factors = &self.upper.row(j)[j..block.end];
                row[j..block.end].iter_mut().zip(factors).for_each(|(w, u)| *w -= error * u);
                row[j] = 0.0;
            }
        }
        let (_, behind) = row.split_at_mut(block.end);
        for (i, error) in errors.iter().enumerate().filter(|(_, error)| **error != 0.0) {
            let factors = &self.upper.row(block.start + i)[block.end..];
            behind.iter_mut().zip(factors).for_each(|(w, u)| *w -= error * u);
        }
    }
}
