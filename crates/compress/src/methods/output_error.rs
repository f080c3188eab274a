//! What a row's rounding does to the output, and coordinate descent on it.

use ganglion_kernels::BlockCode;

use crate::linalg::Square;

/// Passes of coordinate descent over a row, at most.
const DESCENT_PASSES: usize = 8;

/// The squared output error `e·H·e` of a row whose weights err by e; H the second moments of what it reads, their mean diagonal 1.
pub(super) struct OutputError {
    columns: usize,
    /// (columns, columns)
    moments: Vec<f32>,
    /// The diagonal of H: how much a column's error counts by itself.
    importance: Vec<f32>,
}

/// Second moments over their mean diagonal; `None` if they are no numbers. A column that no input ever used counts as much as the mean.
pub(super) fn normalised(mut moments: Square) -> Option<Square> {
    let mean = moments.mean_diagonal();
    if !mean.is_finite() {
        return None;
    }
    let scale = if mean > 0.0 { 1.0 / mean } else { 0.0 };
    moments.values.iter_mut().for_each(|v| *v *= scale);
    for i in 0..moments.size {
        if moments.at(i, i) == 0.0 {
            moments.set(i, i, 1.0);
        }
    }
    Some(moments)
}

impl OutputError {
    /// For normalised second moments.
    pub(super) fn new(moments: &Square) -> Self {
        let columns = moments.size;
        Self {
            columns,
            moments: moments.values.iter().map(|v| *v as f32).collect(),
            importance: (0..columns).map(|i| moments.at(i, i) as f32).collect(),
        }
    }

    pub(super) fn columns(&self) -> usize {
        self.columns
    }

    pub(super) fn importance(&self) -> &[f32] {
        &self.importance
    }

    /// Of a row and its codes.
    pub(super) fn of(&self, row: &[f32], codes: &[BlockCode]) -> f64 {
        let difference = self.difference(row, codes);
        let mut pull = vec![0.0; self.columns];
        self.pull(&difference, &mut pull)
    }

    /// `H·e` of a difference; the error comes back.
    pub(super) fn pull(&self, difference: &[f32], pull: &mut [f32]) -> f64 {
        pull.fill(0.0);
        for (moments, e) in self.moments.chunks_exact(self.columns).zip(difference) {
            if *e != 0.0 {
                pull.iter_mut().zip(moments).for_each(|(p, m)| *p += e * m);
            }
        }
        difference.iter().zip(pull).map(|(e, p)| f64::from(*e) * f64::from(*p)).sum()
    }

    /// What a row is more than its codes.
    fn difference(&self, row: &[f32], codes: &[BlockCode]) -> Vec<f32> {
        let block = self.columns / codes.len();
        let value = |(i, x): (usize, &f32)| {
            let code = &codes[i / block];
            x - code.value(i % block, code.quant(i % block))
        };
        row.iter().enumerate().map(value).collect()
    }

    /// Coordinate descent (QuantEase, Behdin et al. 2023): a column's best value with all others fixed is its own plus `(H·e)_j / H_jj`.
    pub(super) fn descend(&self, row: &[f32], codes: &mut [BlockCode]) {
        let block = self.columns / codes.len();
        let mut pull = vec![0.0; self.columns];
        self.pull(&self.difference(row, codes), &mut pull);
        for _ in 0..DESCENT_PASSES {
            let mut changed = false;
            for j in 0..self.columns {
                let (code, place) = (&mut codes[j / block], j % block);
                let (old, weight) = (code.quant(place), self.importance[j]);
                let value = code.value(place, old);
                let new = code.nearest(place, value + pull[j] / weight);
                let step = code.value(place, new) - value;
                // Moving by `step` changes the error by step·(step·H_jj − 2·pull_j).
                if new == old || step * (step * weight - 2.0 * pull[j]) >= 0.0 {
                    continue;
                }
                code.set(place, new);
                changed = true;
                let moments = &self.moments[j * self.columns..(j + 1) * self.columns];
                pull.iter_mut().zip(moments).for_each(|(p, m)| *p -= step * m);
            }
            if !changed {
                break;
            }
        }
    }
}
