//! Singular values and factors of a matrix, weighed by what it reads.
//!
//! With the inputs' second moments `M = S·Sᵀ`, a difference D of weights changes the output by `‖D·S‖`, so that cutting singular values
//! of `W·S = U·Σ·Vᵀ` costs exactly the sum of their squares. Eigenvectors give them: those of `W·M·Wᵀ = U·Σ²·Uᵀ` for a matrix that is
//! wider than high, where `second·first = U_r·U_rᵀ·W`, else those of `Sᵀ·Wᵀ·W·S = V·Σ²·Vᵀ`, where it is `W·S·V_r·V_rᵀ·S⁻¹`. Neither
//! divides by a singular value. Each factor carries the root of the singular values, as in the paper, so that neighbours in a block of 32
//! are alike.

use crate::linalg::{Eigen, Square, cholesky, damped, eigen, solve_transposed, times_transposed, transposed};

/// Added to the diagonal of M, as a share of its mean: what no text shows still counts a little.
const DAMPING: f64 = 1e-6;
/// Least scale of a factor, as a share of the greatest: singular values of nothing carry no root.
const SCALE_MIN: f64 = 1e-6;

/// A matrix by its singular values.
pub(super) struct Whitened {
    rows: usize,
    columns: usize,
    /// (rows, columns)
    values: Vec<f64>,
    /// S, unless the matrix is wider than high.
    factor: Option<Square>,
    /// Of the smaller side.
    eigen: Eigen,
}

impl Whitened {
    /// Of a matrix that reads inputs of these second moments. `None` if these are not finite or cannot be factored.
    pub(super) fn new(values: &[f32], moments: &Square, threads: usize) -> Option<Self> {
        let columns = moments.size;
        let rows = values.len() / columns;
        let values: Vec<f64> = values.iter().map(|v| f64::from(*v)).collect();
        let (lower, _) = damped(moments, DAMPING, cholesky)?;
        // W·S, whose rows times each other are W·M·Wᵀ.
        let whitened = times_transposed(&values, &lower.transposed().values, columns, threads);
        let (side, factor) = if rows <= columns {
            (times_transposed(&whitened, &whitened, columns, threads), None)
        } else {
            let turned = transposed(&whitened, columns);
            (times_transposed(&turned, &turned, rows, threads), Some(lower))
        };
        let eigen = eigen(&Square { size: rows.min(columns), values: side })?;
        Some(Self { rows, columns, values, factor, eigen })
    }

    /// Squares of all singular values, the greatest first.
    pub(super) fn squares(&self) -> Vec<f64> {
        self.eigen.values.iter().map(|v| v.max(0.0)).collect()
    }

    /// `first`, (rank, columns), and `second`, (rows, rank).
    pub(super) fn factors(&self, rank: usize) -> (Vec<f32>, Vec<f32>) {
        let roots: Vec<f64> = self.squares().iter().take(rank).map(|square| square.powf(0.25)).collect();
        let least = roots.first().map_or(0.0, |greatest| greatest * SCALE_MIN).max(f64::MIN_POSITIVE);
        let roots: Vec<f64> = roots.into_iter().map(|root| root.max(least)).collect();
        let vectors = &self.eigen.vectors.values[..rank * self.eigen.vectors.size];
        // (rank, columns), and the columns of `second` as rows: (rank, rows).
        let (first, second) = match &self.factor {
            None => {
                let turned = transposed(&self.values, self.columns);
                let first = times_transposed(vectors, &turned, self.rows, 1);
                (scaled(&first, &roots, f64::recip), scaled(vectors, &roots, |root| root))
            }
            Some(lower) => {
                // v·S⁻¹ is the solution of Sᵀ·x = v, and S·v what W is multiplied with.
                let mut first = vectors.to_vec();
                first.chunks_exact_mut(self.columns).for_each(|row| solve_transposed(lower, row));
                let behind = times_transposed(vectors, &lower.values, self.columns, 1);
                let second = times_transposed(&behind, &self.values, self.columns, 1);
                (scaled(&first, &roots, |root| root), scaled(&second, &roots, f64::recip))
            }
        };
        let narrow = |values: Vec<f64>| values.into_iter().map(|v| v as f32).collect();
        (narrow(first), narrow(transposed(&second, self.rows)))
    }
}

/// Each row times the factor that its root gives.
fn scaled(rows: &[f64], roots: &[f64], factor: impl Fn(f64) -> f64) -> Vec<f64> {
    let columns = rows.len() / roots.len().max(1);
    rows.chunks_exact(columns.max(1))
        .zip(roots)
        .flat_map(|(row, root)| {
            let factor = factor(*root);
            row.iter().map(move |v| v * factor)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prune::golden::Golden;

    fn product(first: &[f32], second: &[f32], rank: usize) -> Vec<f64> {
        let wide = |values: &[f32]| values.iter().map(|v| f64::from(*v)).collect::<Vec<_>>();
        let columns = first.len() / rank;
        times_transposed(&wide(second), &transposed(&wide(first), columns), rank, 1)
    }

    /// `Σ ‖(a − b)·x‖²` over inputs of these moments.
    fn error(a: &[f64], b: &[f64], moments: &Square) -> f64 {
        let difference: Vec<f64> = a.iter().zip(b).map(|(a, b)| a - b).collect();
        let columns = moments.size;
        let outputs = times_transposed(&difference, &moments.values, columns, 1);
        outputs.iter().zip(&difference).map(|(a, b)| a * b).sum()
    }

    #[test]
    fn factors_and_singular_values_are_those_of_the_reference() {
        let golden = Golden::read();
        for (name, matrix, columns) in [("wide", "/w", golden.number("/columns")), ("tall", "/tall", 24)] {
            let moments = golden.moments(columns);
            let whitened = Whitened::new(&golden.floats(matrix), &moments, 2).unwrap();
            let expected = golden.numbers(&format!("/svd/{name}/values"));
            for (square, expected) in whitened.squares().iter().zip(&expected) {
                assert!((square.sqrt() / expected - 1.0).abs() < 1e-6, "{name}: {square}, not {expected}²");
            }
            let rank = golden.number(&format!("/svd/{name}/rank"));
            let (first, second) = whitened.factors(rank);
            assert_eq!(first.len(), rank * columns);
            let expected = golden.numbers(&format!("/svd/{name}/product"));
            let largest = expected.iter().fold(0.0f64, |a, b| a.max(b.abs()));
            for (found, expected) in product(&first, &second, rank).iter().zip(&expected) {
                assert!((found - expected).abs() < 1e-5 * largest, "{name}: {found}, not {expected}");
            }
        }
    }

    #[test]
    fn what_is_lost_is_the_sum_of_the_squares_that_were_cut() {
        let golden = Golden::read();
        for (matrix, columns) in [("/w", golden.number("/columns")), ("/tall", 24)] {
            let mut moments = golden.moments(columns);
            let values = golden.floats(matrix);
            let whitened = Whitened::new(&values, &moments, 1).unwrap();
            // The error by the moments that were factored.
            moments.add_diagonal(DAMPING * moments.mean_diagonal());
            let exact: Vec<f64> = values.iter().map(|v| f64::from(*v)).collect();
            let squares = whitened.squares();
            let all: f64 = squares.iter().sum();
            for rank in 1..=squares.len() {
                let (first, second) = whitened.factors(rank);
                let found = error(&product(&first, &second, rank), &exact, &moments);
                let expected: f64 = squares[rank..].iter().sum();
                assert!((found - expected).abs() < 1e-5 * all, "rank {rank}: {found}, not {expected}");
            }
            let (first, second) = whitened.factors(squares.len());
            let back = product(&first, &second, squares.len());
            let largest = exact.iter().fold(0.0f64, |a, b| a.max(b.abs()));
            let near = |(a, b): (&f64, &f64)| (a - b).abs() < 1e-4 * largest;
            assert!(back.iter().zip(&exact).all(near), "the full rank is the matrix");
        }
    }

    #[test]
    fn inputs_that_are_not_finite_have_no_factors() {
        let mut moments = Square::zeros(3);
        moments.set(1, 1, f64::NAN);
        assert!(Whitened::new(&[1.0; 6], &moments, 1).is_none());
        // No input at all: any factors will do, as long as they are numbers.
        let (first, second) = Whitened::new(&[1.0; 6], &Square::zeros(3), 1).unwrap().factors(2);
        assert!(first.iter().chain(&second).all(|v| v.is_finite()));
    }
}
