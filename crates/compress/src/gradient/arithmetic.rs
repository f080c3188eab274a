//! The few operations of a backward pass, in f32. `dy` stands for the gradient of the loss with respect to `y`.

use ganglion_kernels::{ActivationBuffer, BlockFormat, Input, Isa, Matrix, Pool, matmul};

use crate::error::Result;

/// Products on all threads.
pub(super) struct Arithmetic {
    pub(super) isa: Isa,
    pub(super) pool: Pool,
    /// Float weights read no int8 activations.
    none: ActivationBuffer,
}

impl Arithmetic {
    pub(super) fn new(threads: usize) -> Result<Self> {
        Ok(Self { isa: Isa::detect(), pool: Pool::new(threads)?, none: ActivationBuffer::new(0, 0) })
    }

    /// `x · Wᵀ`: (tokens, rows).
    pub(super) fn times(&self, x: &[f32], matrix: &Matrix) -> Vec<f32> {
        let mut out = vec![0.0; x.len() / matrix.k() * matrix.rows()];
        matmul(self.isa, &self.pool, &Input::new(x, &self.none), &mut [(matrix, &mut out)]);
        out
    }

    /// `a · bᵀ` of (m, k) and (n, k): (m, n).
    pub(super) fn product(&self, a: &[f32], b: &[f32], k: usize) -> Result<Vec<f32>> {
        Ok(self.times(a, &pack(b, k)?))
    }

    /// `aᵀ · b` of (k, m) and (k, n): (m, n).
    pub(super) fn product_of_columns(&self, a: &[f32], b: &[f32], k: usize) -> Result<Vec<f32>> {
        self.product(&transposed(a, a.len() / k), &transposed(b, b.len() / k), k)
    }
}

/// Rows of `k` values as a matrix of the kernels.
pub(super) fn pack(values: &[f32], k: usize) -> Result<Matrix> {
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    Ok(Matrix::pack("gradient", BlockFormat::F32, values.len() / k, k, &bytes)?)
}

/// (m, columns) as (columns, m).
pub(super) fn transposed(values: &[f32], columns: usize) -> Vec<f32> {
    let rows = values.len() / columns;
    let mut out = vec![0.0; values.len()];
    for (i, row) in values.chunks_exact(columns).enumerate() {
        for (j, value) in row.iter().enumerate() {
            out[j * rows + i] = *value;
        }
    }
    out
}

pub(super) fn add(sum: &mut [f32], values: &[f32]) {
    sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
}

/// The gradient of RMSNorm's input: `y = r·x·w` with `r = 1/√(mean x² + ε)`, so `dx = r·(w·dy − x·r²·mean(x·w·dy))`.
/// All are rows of `weight.len()`.
pub(super) fn rms_norm_back(x: &[f32], weight: &[f32], epsilon: f32, dy: &[f32]) -> Vec<f32> {
    let length = weight.len();
    let mut dx = vec![0.0; x.len()];
    let rows = x.chunks_exact(length).zip(dy.chunks_exact(length)).zip(dx.chunks_exact_mut(length));
    for ((x, dy), dx) in rows {
        let mean = |terms: f64| terms / length as f64;
        let square = mean(x.iter().map(|x| f64::from(*x).powi(2)).sum());
        let r = 1.0 / (square + f64::from(epsilon)).sqrt();
        let along: f64 = x
            .iter()
            .zip(weight)
            .zip(dy)
            .map(|((x, w), dy)| f64::from(*x) * f64::from(*w) * f64::from(*dy))
            .sum();
        let shared = (mean(along) * r * r) as f32;
        for (((dx, x), w), dy) in dx.iter_mut().zip(x).zip(weight).zip(dy) {
            *dx = r as f32 * (w * dy - x * shared);
        }
    }
    dx
}

/// `y = cap·tanh(x / cap)`: `dx = dy·(1 − (y / cap)²)`, in place.
pub(super) fn soft_cap_back(y: &[f32], cap: f32, dy: &mut [f32]) {
    dy.iter_mut().zip(y).for_each(|(dy, y)| *dy *= 1.0 - (y / cap).powi(2));
}

/// Softmax of a row in place.
pub(super) fn softmax(row: &mut [f32]) {
    let top = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    row.iter_mut().for_each(|v| *v = (*v - top).exp());
    let total: f64 = row.iter().map(|v| f64::from(*v)).sum();
    let inverse = (1.0 / total) as f32;
    row.iter_mut().for_each(|v| *v *= inverse);
}

/// `f(x)` and `f'(x)` of SiLU.
pub(super) fn silu(x: f32) -> (f32, f32) {
    let s = 1.0 / (1.0 + (-x).exp());
    (x * s, s * (1.0 + x * (1.0 - s)))
}

/// `f(x)` and `f'(x)` of GELU by tanh: `x·s(2u)`, `u = √(2/π)·(x + 0.044715·x³)`.
pub(super) fn gelu_tanh(x: f32) -> (f32, f32) {
    const ROOT: f32 = 0.797_884_6;
    const CUBIC: f32 = 0.044_715;
    let u = ROOT * (x + CUBIC * x * x * x);
    let slope = ROOT * (1.0 + 3.0 * CUBIC * x * x);
    let s = 1.0 / (1.0 + (-2.0 * u).exp());
    (x * s, s + x * s * (1.0 - s) * 2.0 * slope)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slopes_are_those_of_differences() {
        for function in [silu, gelu_tanh] {
            for i in -40..=40 {
                let x = i as f32 / 8.0;
                let step = 1e-2;
                let expected = (f64::from(function(x + step).0) - f64::from(function(x - step).0)) / 2e-2;
                assert!((f64::from(function(x).1) - expected).abs() < 1e-3, "at {x}");
            }
        }
    }

    #[test]
    fn products_are_those_of_the_definition() {
        let arithmetic = Arithmetic::new(2).unwrap();
        let a: Vec<f32> = (0..5 * 7).map(|i| (i % 11) as f32 - 4.0).collect();
        let b: Vec<f32> = (0..3 * 7).map(|i| (i % 5) as f32 - 2.0).collect();
        let expected: Vec<f32> =
            (0..5 * 3).map(|i| (0..7).map(|k| a[i / 3 * 7 + k] * b[i % 3 * 7 + k]).sum()).collect();
        assert_eq!(arithmetic.product(&a, &b, 7).unwrap(), expected);
        let columns = arithmetic.product_of_columns(&transposed(&a, 7), &transposed(&b, 7), 7).unwrap();
        assert_eq!(columns, expected);
    }
}
