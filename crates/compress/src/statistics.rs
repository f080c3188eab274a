//! What calibration keeps of the activations that a matrix reads.

use crate::linalg::Square;

/// Sums over all rows `x` (one a token) that a matrix of `columns` inputs has read.
#[derive(Debug, Clone, PartialEq)]
pub struct Statistics {
    /// Σ x² for each column: the importance matrix.
    pub sum_squares: Vec<f64>,
    /// Σ |x| for each column.
    pub sum_magnitudes: Vec<f64>,
    /// max |x| of each column.
    pub max_magnitudes: Vec<f32>,
    /// Rows seen.
    pub count: u64,
    /// Σ x·xᵀ, if it is kept.
    pub(crate) second_moments: Option<Square>,
}

/// Rows of the second moments that are summed together, so that a row of activations is read once for all of them.
const ROWS_AT_ONCE: usize = 8;

impl Statistics {
    /// Nothing seen yet.
    pub fn new(columns: usize, second_moments: bool) -> Self {
        Self {
            sum_squares: vec![0.0; columns],
            sum_magnitudes: vec![0.0; columns],
            max_magnitudes: vec![0.0; columns],
            count: 0,
            second_moments: second_moments.then(|| Square::zeros(columns)),
        }
    }

    /// Inputs of the matrix.
    pub fn columns(&self) -> usize {
        self.sum_squares.len()
    }

    /// Mean x² of each column.
    pub fn importance(&self) -> Vec<f32> {
        self.sum_squares.iter().map(|sum| (sum / self.count.max(1) as f64) as f32).collect()
    }

    /// Mean |x| of each column.
    pub fn mean_magnitudes(&self) -> Vec<f32> {
        self.sum_magnitudes.iter().map(|sum| (sum / self.count.max(1) as f64) as f32).collect()
    }

    /// Adds rows: `x` is (tokens, columns).
    ///
    /// # Panics
    /// If it is not whole rows.
    pub fn add(&mut self, x: &[f32], threads: usize) {
        let columns = self.columns();
        assert!(x.len().is_multiple_of(columns), "whole rows");
        for row in x.chunks_exact(columns) {
            for (j, value) in row.iter().enumerate() {
                let wide = f64::from(*value);
                self.sum_squares[j] += wide * wide;
                self.sum_magnitudes[j] += wide.abs();
                self.max_magnitudes[j] = self.max_magnitudes[j].max(value.abs());
            }
        }
        self.count += (x.len() / columns) as u64;
        if let Some(moments) = &mut self.second_moments {
            add_outer(&mut moments.values, (x, columns), (x, columns), threads);
        }
    }

    /// As if every column j of the activations had been multiplied by `factors[j]`.
    pub fn scaled(&self, factors: &[f32]) -> Self {
        let mut scaled = self.clone();
        for (j, factor) in factors.iter().enumerate() {
            let wide = f64::from(*factor);
            scaled.sum_squares[j] *= wide * wide;
            scaled.sum_magnitudes[j] *= wide.abs();
            scaled.max_magnitudes[j] *= factor.abs();
        }
        if let Some(moments) = &mut scaled.second_moments {
            for (row, a) in moments.values.chunks_exact_mut(factors.len()).zip(factors) {
                for (value, b) in row.iter_mut().zip(factors) {
                    *value *= f64::from(*a) * f64::from(*b);
                }
            }
        }
        scaled
    }

    /// Σ over rows of `(e·x)²` for a difference `e` of weights: what the difference does to the output. Without second
    /// moments, as if the columns were independent.
    pub fn output_error(&self, difference: &[f32]) -> f64 {
        match &self.second_moments {
            None => difference.iter().zip(&self.sum_squares).map(|(e, s)| f64::from(*e).powi(2) * s).sum(),
            Some(moments) => {
                let row = |i: usize| -> f64 {
                    moments.row(i).iter().zip(difference).map(|(m, e)| m * f64::from(*e)).sum()
                };
                difference
                    .iter()
                    .enumerate()
                    .filter(|(_, e)| **e != 0.0)
                    .map(|(i, e)| f64::from(*e) * row(i))
                    .sum()
            }
        }
    }
}

/// Adds `Σ left·rightᵀ` over tokens: values and their number for each token on both sides; `sums` is (left columns, right columns).
pub(crate) fn add_outer(sums: &mut [f64], left: (&[f32], usize), right: (&[f32], usize), threads: usize) {
    let rows = left.1.div_ceil(threads.max(1)).next_multiple_of(ROWS_AT_ONCE);
    std::thread::scope(|scope| {
        for (share, sums) in sums.chunks_mut(rows * right.1).enumerate() {
            scope.spawn(move || add_rows(sums, share * rows, left, right));
        }
    });
}

/// Adds to some rows of the sums, the first being row `first`.
fn add_rows(sums: &mut [f64], first: usize, left: (&[f32], usize), right: (&[f32], usize)) {
    let (left, (right, columns)) = (left.0.chunks_exact(left.1), right);
    let mut parts = vec![0.0f32; ROWS_AT_ONCE * columns];
    for (group, rows) in sums.chunks_mut(ROWS_AT_ONCE * columns).enumerate() {
        let first = first + group * ROWS_AT_ONCE;
        let count = rows.len() / columns;
        parts.fill(0.0);
        for (left, right) in left.clone().zip(right.chunks_exact(columns)) {
            for (i, parts) in parts.chunks_exact_mut(columns).take(count).enumerate() {
                let factor = left[first + i];
                for (part, value) in parts.iter_mut().zip(right) {
                    *part += factor * value;
                }
            }
        }
        for (sum, part) in rows.iter_mut().zip(&parts) {
            *sum += f64::from(*part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<f32> {
        (0..6 * 11).map(|i| ((i * 29) % 23) as f32 / 7.0 - 1.5).collect()
    }

    #[test]
    fn moments_are_those_of_the_definition_for_any_thread_count() {
        let x = rows();
        for threads in 1..=3 {
            let mut found = Statistics::new(11, true);
            found.add(&x[..22], threads);
            found.add(&x[22..], threads);
            assert_eq!(found.count, 6);
            let moments = found.second_moments.as_ref().unwrap();
            for i in 0..11 {
                for j in 0..11 {
                    let expected: f32 = x.chunks_exact(11).map(|row| row[i] * row[j]).sum();
                    assert!((moments.at(i, j) - f64::from(expected)).abs() < 1e-4, "{i}, {j}");
                }
                assert!((moments.at(i, i) - found.sum_squares[i]).abs() < 1e-4);
            }
        }
    }

    #[test]
    fn the_error_of_an_output_is_what_the_rows_say() {
        let x = rows();
        let mut found = Statistics::new(11, true);
        found.add(&x, 1);
        let e: Vec<f32> = (0..11).map(|i| (i % 4) as f32 * 0.3 - 0.2).collect();
        let output = |row: &[f32]| row.iter().zip(&e).map(|(x, e)| x * e).sum::<f32>();
        let expected: f32 = x.chunks_exact(11).map(|row| output(row).powi(2)).sum();
        assert!((found.output_error(&e) - f64::from(expected)).abs() < 1e-3);
        let factors: Vec<f32> = (0..11).map(|i| 0.5 + i as f32 / 10.0).collect();
        let divided: Vec<f32> = e.iter().zip(&factors).map(|(e, f)| e / f).collect();
        assert!((found.scaled(&factors).output_error(&divided) - f64::from(expected)).abs() < 1e-3);
    }
}
