//! The little linear algebra that error feedback needs, in f64.

/// A square matrix, row by row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Square {
    pub(crate) size: usize,
    pub(crate) values: Vec<f64>,
}

impl Square {
    pub(crate) fn zeros(size: usize) -> Self {
        Self { size, values: vec![0.0; size * size] }
    }

    pub(crate) fn row(&self, i: usize) -> &[f64] {
        &self.values[i * self.size..(i + 1) * self.size]
    }

    fn row_mut(&mut self, i: usize) -> &mut [f64] {
        &mut self.values[i * self.size..(i + 1) * self.size]
    }

    pub(crate) fn at(&self, i: usize, j: usize) -> f64 {
        self.values[i * self.size + j]
    }

    pub(crate) fn set(&mut self, i: usize, j: usize, value: f64) {
        self.values[i * self.size + j] = value;
    }

    pub(crate) fn transpose(&mut self) {
        for i in 0..self.size {
            for j in 0..i {
                self.values.swap(i * self.size + j, j * self.size + i);
            }
        }
    }

    pub(crate) fn mean_diagonal(&self) -> f64 {
        (0..self.size).map(|i| self.at(i, i)).sum::<f64>() / self.size.max(1) as f64
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    const PARTS: usize = 8;
    let (a, a_rest) = a.as_chunks::<PARTS>();
    let (b, b_rest) = b.as_chunks::<PARTS>();
    let mut parts = [0.0; PARTS];
    for (a, b) in a.iter().zip(b) {
        for i in 0..PARTS {
            parts[i] += a[i] * b[i];
        }
    }
    parts.iter().sum::<f64>() + a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum::<f64>()
}

/// The lower triangle L of `matrix = L·Lᵀ` (Cholesky); `None` if it is not positive definite. The upper triangle of the
/// result is zero.
pub(crate) fn cholesky(matrix: &Square) -> Option<Square> {
    let size = matrix.size;
    let mut lower = Square::zeros(size);
    for i in 0..size {
        for j in 0..=i {
            let sum = matrix.at(i, j) - dot(&lower.row(i)[..j], &lower.row(j)[..j]);
            if i == j {
                if sum.is_nan() || sum <= 0.0 {
                    return None;
                }
                lower.set(i, i, sum.sqrt());
            } else {
                lower.set(i, j, sum / lower.at(j, j));
            }
        }
    }
    Some(lower)
}

/// The upper triangle U of `matrix⁻¹ = Uᵀ·U`; `None` if the matrix is not positive definite.
///
/// With the order of rows and columns reversed, `matrix = L·Lᵀ` becomes `R·Rᵀ` with R an upper triangle, whose inverse is U: the
/// inverse of the matrix itself is never formed.
pub(crate) fn inverse_factor(matrix: &Square) -> Option<Square> {
    let size = matrix.size;
    let mut reversed = Square::zeros(size);
    for i in 0..size {
        for j in 0..size {
            reversed.set(i, j, matrix.at(size - 1 - i, size - 1 - j));
        }
    }
    let lower = cholesky(&reversed)?;
    // The inverse of `lower`, column by column kept as rows, so that every sum runs along a row.
    let mut columns = Square::zeros(size);
    for j in 0..size {
        let column = columns.row_mut(j);
        column[j] = 1.0 / lower.at(j, j);
        for i in j + 1..size {
            column[i] = -dot(&lower.row(i)[j..i], &column[j..i]) / lower.at(i, i);
        }
    }
    let mut upper = Square::zeros(size);
    for i in 0..size {
        for j in i..size {
            upper.set(i, j, columns.at(size - 1 - j, size - 1 - i));
        }
    }
    Some(upper)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A positive definite matrix of numbers without a pattern.
    fn definite(size: usize) -> Square {
        let noise = |i: usize, j: usize| ((i * 37 + j * 101) % 97) as f64 / 97.0 - 0.5;
        let mut matrix = Square::zeros(size);
        for i in 0..size {
            for j in 0..size {
                let sum: f64 = (0..2 * size).map(|t| noise(i, t) * noise(j, t)).sum();
                matrix.set(i, j, sum + if i == j { 0.3 } else { 0.0 });
            }
        }
        matrix
    }

    #[test]
    fn factors_multiply_to_the_matrix_and_to_its_inverse() {
        for size in [1, 2, 7, 33] {
            let matrix = definite(size);
            let lower = cholesky(&matrix).unwrap();
            let upper = inverse_factor(&matrix).unwrap();
            for i in 0..size {
                for j in 0..size {
                    let product = dot(lower.row(i), lower.row(j));
                    assert!((product - matrix.at(i, j)).abs() < 1e-9, "L Lᵀ at {i}, {j} of {size}");
                    // (matrix · UᵀU)[i][j]
                    let identity: f64 = (0..size)
                        .map(|k| {
                            let inverse: f64 = (0..size).map(|t| upper.at(t, k) * upper.at(t, j)).sum();
                            matrix.at(i, k) * inverse
                        })
                        .sum();
                    assert!((identity - f64::from(i == j)).abs() < 1e-8, "inverse at {i}, {j} of {size}");
                    assert!(i <= j || upper.at(i, j) == 0.0);
                }
            }
        }
    }

    #[test]
    fn what_is_not_definite_has_no_factor() {
        let mut matrix = definite(5);
        matrix.set(3, 3, -1.0);
        assert_eq!(cholesky(&matrix), None);
        assert_eq!(inverse_factor(&matrix), None);
        matrix.set(3, 3, f64::NAN);
        assert_eq!(cholesky(&matrix), None);
    }
}
