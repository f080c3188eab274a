//! The little linear algebra that error feedback, pruning and factoring need, in f64.

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

    pub(crate) fn row_mut(&mut self, i: usize) -> &mut [f64] {
        &mut self.values[i * self.size..(i + 1) * self.size]
    }

    pub(crate) fn at(&self, i: usize, j: usize) -> f64 {
        self.values[i * self.size + j]
    }

    pub(crate) fn set(&mut self, i: usize, j: usize, value: f64) {
        self.values[i * self.size + j] = value;
    }

    /// Adds `value` to the diagonal.
    pub(crate) fn add_diagonal(&mut self, value: f64) {
        for i in 0..self.size {
            self.values[i * self.size + i] += value;
        }
    }

    /// The rows and columns of these indices.
    pub(crate) fn select(&self, indices: &[usize]) -> Self {
        let values = indices.iter().flat_map(|i| indices.iter().map(|j| self.at(*i, *j))).collect();
        Self { size: indices.len(), values }
    }

    pub(crate) fn transposed(&self) -> Self {
        Self { size: self.size, values: transposed(&self.values, self.size) }
    }

    pub(crate) fn mean_diagonal(&self) -> f64 {
        (0..self.size).map(|i| self.at(i, i)).sum::<f64>() / self.size.max(1) as f64
    }
}

pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
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

/// A matrix of rows of `columns`, with rows and columns exchanged.
pub(crate) fn transposed<T: Copy>(values: &[T], columns: usize) -> Vec<T> {
    (0..columns).flat_map(|j| values.iter().skip(j).step_by(columns).copied()).collect()
}

/// `a · bᵀ` for rows of `columns`: (rows of a, rows of b).
pub(crate) fn times_transposed(a: &[f64], b: &[f64], columns: usize, threads: usize) -> Vec<f64> {
    let (rows, width) = (a.len() / columns, b.len() / columns);
    let mut out = vec![0.0; rows * width];
    let share = rows.div_ceil(threads.max(1)).max(1);
    std::thread::scope(|scope| {
        for (a, out) in a.chunks(share * columns).zip(out.chunks_mut((share * width).max(1))) {
            scope.spawn(move || {
                for (a, out) in a.chunks_exact(columns).zip(out.chunks_exact_mut(width)) {
                    out.iter_mut().zip(b.chunks_exact(columns)).for_each(|(out, b)| *out = dot(a, b));
                }
            });
        }
    });
    out
}

/// `x` of `L·Lᵀ·x = b`, in place of b.
pub(crate) fn solve(lower: &Square, b: &mut [f64]) {
    for i in 0..lower.size {
        b[i] = (b[i] - dot(&lower.row(i)[..i], &b[..i])) / lower.at(i, i);
    }
    solve_transposed(lower, b);
}

/// `x` of `Lᵀ·x = b`, in place of b.
pub(crate) fn solve_transposed(lower: &Square, b: &mut [f64]) {
    for i in (0..lower.size).rev() {
        let (before, rest) = b.split_at_mut(i);
        rest[0] /= lower.at(i, i);
        before.iter_mut().zip(lower.row(i)).for_each(|(b, l)| *b -= l * rest[0]);
    }
}

/// Factor by which damping grows until a matrix can be factored, and how often.
const DAMPING_GROWTH: f64 = 10.0;
const DAMPING_TRIES: usize = 6;

/// `factor` of `matrix + damping · mean of its diagonal`, with more damping where that is not positive definite; and the damping
/// that was added. A diagonal of nothing counts as 1.
pub(crate) fn damped<T>(
    matrix: &Square,
    damping: f64,
    factor: impl Fn(&Square) -> Option<T>,
) -> Option<(T, f64)> {
    let mean = matrix.mean_diagonal();
    if !mean.is_finite() {
        return None;
    }
    let mut added = damping * if mean > 0.0 { mean } else { 1.0 };
    for _ in 0..DAMPING_TRIES {
        let mut tried = matrix.clone();
        tried.add_diagonal(added);
        if let Some(found) = factor(&tried) {
            return Some((found, added));
        }
        added *= DAMPING_GROWTH;
    }
    None
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

/// Eigenvalues in descending order, and an eigenvector of each as a row.
#[derive(Debug, Clone)]
pub(crate) struct Eigen {
    pub(crate) values: Vec<f64>,
    pub(crate) vectors: Square,
}

/// Turns of the QL iteration for one eigenvalue, at most; two are usual.
const QL_TURNS_MAX: usize = 64;

/// Eigenvalues and eigenvectors of a symmetric matrix: Householder's reduction to three diagonals, then QL with implicit shifts
/// (Golub and Van Loan, Matrix Computations, 8.3). `None` if values are not finite.
pub(crate) fn eigen(matrix: &Square) -> Option<Eigen> {
    let size = matrix.size;
    if matrix.values.iter().any(|v| !v.is_finite()) {
        return None;
    }
    let (mut diagonal, mut beside, mut vectors) = tridiagonal(matrix.clone());
    ql(&mut diagonal, &mut beside, &mut vectors)?;
    let mut order: Vec<usize> = (0..size).collect();
    order.sort_by(|a, b| diagonal[*b].total_cmp(&diagonal[*a]));
    let values = order.iter().map(|i| diagonal[*i]).collect();
    let rows = order.iter().flat_map(|i| vectors.row(*i).iter().copied()).collect();
    Some(Eigen { values, vectors: Square { size, values: rows } })
}

/// Diagonal, subdiagonal (its last value is nothing) and the transformation with `transformation · matrix · transformationᵀ =` the
/// three diagonals.
fn tridiagonal(mut a: Square) -> (Vec<f64>, Vec<f64>, Square) {
    let size = a.size;
    let mut beside = vec![0.0; size];
    let mut factors = vec![0.0; size];
    for k in 0..size.saturating_sub(1) {
        let mut v = a.row(k)[k + 1..].to_vec();
        let norm = dot(&v, &v).sqrt();
        let target = if v[0] > 0.0 { -norm } else { norm };
        beside[k] = target;
        v[0] -= target;
        let square = dot(&v, &v);
        if square == 0.0 {
            continue;
        }
        let factor = 2.0 / square;
        let product: Vec<f64> = (k + 1..size).map(|i| factor * dot(&a.row(i)[k + 1..], &v)).collect();
        let half = factor / 2.0 * dot(&v, &product);
        let w: Vec<f64> = product.iter().zip(&v).map(|(p, v)| p - half * v).collect();
        for (i, (v_i, w_i)) in v.iter().zip(&w).enumerate() {
            let row = &mut a.row_mut(k + 1 + i)[k + 1..];
            row.iter_mut().zip(v.iter().zip(&w)).for_each(|(a, (v, w))| *a -= v_i * w + w_i * v);
        }
        a.row_mut(k)[k + 1..].copy_from_slice(&v);
        factors[k] = factor;
    }
    let diagonal = (0..size).map(|i| a.at(i, i)).collect();
    let mut q = Square::zeros(size);
    q.add_diagonal(1.0);
    for k in (0..size.saturating_sub(1)).rev().filter(|k| factors[*k] != 0.0) {
        let v = &a.row(k)[k + 1..];
        let mut sums = vec![0.0; size - k - 1];
        for (i, v) in v.iter().enumerate() {
            sums.iter_mut().zip(&q.row(k + 1 + i)[k + 1..]).for_each(|(sum, q)| *sum += v * q);
        }
        for (i, v) in v.iter().enumerate() {
            let row = &mut q.row_mut(k + 1 + i)[k + 1..];
            row.iter_mut().zip(&sums).for_each(|(q, sum)| *q -= factors[k] * v * sum);
        }
    }
    (diagonal, beside, q.transposed())
}

/// Makes the diagonal the eigenvalues; the rows of `vectors` turn along.
fn ql(d: &mut [f64], e: &mut [f64], vectors: &mut Square) -> Option<()> {
    let size = d.len();
    for l in 0..size {
        for turn in 0.. {
            let small = |m: &usize| e[*m].abs() <= f64::EPSILON * (d[*m].abs() + d[*m + 1].abs());
            let m = (l..size - 1).find(small).unwrap_or(size - 1);
            if m == l {
                break;
            }
            if turn == QL_TURNS_MAX {
                return None;
            }
            let shift = (d[l + 1] - d[l]) / (2.0 * e[l]);
            let mut g = d[m] - d[l] + e[l] / (shift + shift.hypot(1.0).copysign(shift));
            let (mut sine, mut cosine, mut p) = (1.0, 1.0, 0.0);
            let mut split = false;
            for i in (l..m).rev() {
                let (f, b) = (sine * e[i], cosine * e[i]);
                let r = f.hypot(g);
                e[i + 1] = r;
                if r == 0.0 {
                    d[i + 1] -= p;
                    e[m] = 0.0;
                    split = true;
                    break;
                }
                (sine, cosine) = (f / r, g / r);
                g = d[i + 1] - p;
                let r = (d[i] - g) * sine + 2.0 * cosine * b;
                p = sine * r;
                d[i + 1] = g + p;
                g = cosine * r - b;
                rotate(vectors, i, sine, cosine);
            }
            if !split {
                d[l] -= p;
                e[l] = g;
                e[m] = 0.0;
            }
        }
    }
    Some(())
}

/// Rotates the rows i and i + 1 in their plane.
fn rotate(vectors: &mut Square, i: usize, sine: f64, cosine: f64) {
    let size = vectors.size;
    let (before, after) = vectors.values.split_at_mut((i + 1) * size);
    for (a, b) in before[i * size..].iter_mut().zip(&mut after[..size]) {
        let f = *b;
        *b = sine * *a + cosine * f;
        *a = cosine * *a - sine * f;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eigenvectors_turn_the_matrix_into_its_eigenvalues() {
        for size in [1, 2, 3, 8, 61] {
            let mut matrix = definite(size);
            if size == 8 {
                // Rows of nothing, and equal eigenvalues.
                matrix = Square::zeros(size);
                (0..4).for_each(|i| matrix.set(i, i, 2.0));
            }
            let Eigen { values, vectors } = eigen(&matrix).unwrap();
            assert!(values.is_sorted_by(|a, b| a >= b));
            let back = times_transposed(&matrix.values, &vectors.values, size, 2);
            for i in 0..size {
                for j in 0..size {
                    let found = dot(vectors.row(i), vectors.row(j));
                    assert!((found - f64::from(i == j)).abs() < 1e-12, "{i}, {j} of {size}: {found}");
                    let scaled = values[j] * vectors.at(j, i);
                    assert!((back[i * size + j] - scaled).abs() < 1e-9, "{i}, {j} of {size}");
                }
            }
        }
        let mut bad = definite(3);
        bad.set(1, 1, f64::NAN);
        assert!(eigen(&bad).is_none());
    }

    #[test]
    fn a_solution_multiplies_back() {
        let matrix = definite(19);
        let (lower, added) = damped(&matrix, 0.0, cholesky).unwrap();
        assert_eq!(added, 0.0);
        let b: Vec<f64> = (0..19).map(|i| f64::from(i) - 7.0).collect();
        let mut x = b.clone();
        solve(&lower, &mut x);
        let back = times_transposed(&matrix.values, &x, 19, 1);
        assert!(back.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-8), "{back:?}");
        let (_, added) = damped(&Square::zeros(4), 0.01, cholesky).unwrap();
        assert_eq!(added, 0.01);
    }

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
