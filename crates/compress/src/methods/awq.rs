//! Factors that move between what writes an activation and what reads it, chosen so that quantisation hurts less.
//!
//! Multiplying a column of weights by s and dividing its input by s changes nothing until the weights are rounded. The
//! division is folded into the norm or the matrix before, so the result is an ordinary model of the same architecture.

use std::collections::HashMap;

use ganglion_kernels::{BlockCode, BlockFormat};

use super::MatrixRef;
use crate::error::Result;
use crate::statistics::Statistics;

/// Exponents tried: 0, 0.05, … 0.95.
const EXPONENTS: usize = 20;
/// Rows that judge an exponent; more change the choice no more.
const JUDGING_ROWS_MAX: usize = 256;
/// Smallest factor before they are normalised.
const FACTOR_MIN: f32 = 1e-4;
/// SmoothQuant's α: half of the difficulty stays with the activations.
const ALPHA: f32 = 0.5;
/// Below this a maximum counts as absent.
const MAGNITUDE_MIN: f32 = 1e-5;

/// What tensors are multiplied by before they are quantised.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Folding {
    /// By name: a factor for each row, and one for each column. A vector's values are columns.
    pub(crate) rows: HashMap<String, Vec<f32>>,
    pub(crate) columns: HashMap<String, Vec<f32>>,
}

impl Folding {
    /// Multiplies a tensor of whole rows.
    pub(crate) fn apply(&self, name: &str, values: &mut [f32], columns: usize) {
        if let Some(factors) = self.columns.get(name) {
            for row in values.chunks_exact_mut(columns) {
                row.iter_mut().zip(factors).for_each(|(v, f)| *v *= f);
            }
        }
        if let Some(factors) = self.rows.get(name) {
            for (row, f) in values.chunks_exact_mut(columns).zip(factors) {
                row.iter_mut().for_each(|v| *v *= f);
            }
        }
    }

    /// Takes [`Folding::apply`] back: what the quantised tensor stands for in the original model.
    pub(crate) fn undo(&self, name: &str, values: &mut [f32], columns: usize) {
        let inverse = |factors: &Vec<f32>| factors.iter().map(|f| 1.0 / f).collect::<Vec<_>>();
        if let Some(factors) = self.columns.get(name).map(inverse) {
            for row in values.chunks_exact_mut(columns) {
                row.iter_mut().zip(&factors).for_each(|(v, f)| *v *= f);
            }
        }
        if let Some(factors) = self.rows.get(name).map(inverse) {
            for (row, f) in values.chunks_exact_mut(columns).zip(&factors) {
                row.iter_mut().for_each(|v| *v *= f);
            }
        }
    }
}

/// AWQ's factors for the inputs of `readers`: powers of the mean magnitudes, the power of least output error. `shared` says which
/// columns must have one factor: column j belongs to group `shared(j)` of `groups`.
///
/// # Errors
/// If a value cannot be stored.
pub(crate) fn fold_awq(
    format: BlockFormat,
    readers: &[MatrixRef<'_>],
    statistics: &Statistics,
    groups: usize,
    shared: &dyn Fn(usize) -> usize,
) -> Result<Vec<f32>> {
    let magnitudes = grouped(&statistics.mean_magnitudes(), groups, shared, |a, b| a + b);
    let importance = statistics.importance();
    let mut best = (f64::INFINITY, vec![1.0; groups]);
    for step in 0..EXPONENTS {
        let exponent = step as f32 / EXPONENTS as f32;
        let factors = powers(&magnitudes, exponent);
        let wide: Vec<f32> = (0..statistics.columns()).map(|j| factors[shared(j)]).collect();
        let error = judged(format, readers, statistics, &importance, &wide)?;
        if error < best.0 {
            best = (error, factors);
        }
    }
    Ok(best.1)
}

/// SmoothQuant's factors: `max|X|^−α · max|W|^(1−α)` divided out, as powers of the two maxima.
pub(crate) fn fold_smooth(
    readers: &[MatrixRef<'_>],
    statistics: &Statistics,
    groups: usize,
    shared: &dyn Fn(usize) -> usize,
) -> Vec<f32> {
    let mut weights = vec![0.0f32; statistics.columns()];
    for row in readers.iter().flat_map(|matrix| matrix.values.chunks_exact(matrix.columns)) {
        weights.iter_mut().zip(row).for_each(|(m, v)| *m = m.max(v.abs()));
    }
    let inputs = grouped(&statistics.max_magnitudes, groups, shared, f32::max);
    let weights = grouped(&weights, groups, shared, f32::max);
    let factor = |(x, w): (&f32, &f32)| {
        if *x < MAGNITUDE_MIN || *w < MAGNITUDE_MIN { 1.0 } else { x.powf(ALPHA) / w.powf(1.0 - ALPHA) }
    };
    normalised(inputs.iter().zip(&weights).map(factor).collect())
}

/// `m^exponent`, normalised.
pub(super) fn powers(magnitudes: &[f32], exponent: f32) -> Vec<f32> {
    normalised(magnitudes.iter().map(|m| m.powf(exponent).max(FACTOR_MIN)).collect())
}

fn grouped(
    values: &[f32],
    groups: usize,
    shared: &dyn Fn(usize) -> usize,
    join: impl Fn(f32, f32) -> f32,
) -> Vec<f32> {
    let mut joined = vec![0.0; groups];
    for (j, value) in values.iter().enumerate() {
        let group = shared(j);
        joined[group] = join(joined[group], *value);
    }
    joined
}

/// Divided by the geometric middle of the largest and the smallest.
fn normalised(mut factors: Vec<f32>) -> Vec<f32> {
    let (low, high) = factors.iter().fold((f32::MAX, f32::MIN), |(low, high), v| (low.min(*v), high.max(*v)));
    let middle = (low * high).sqrt();
    factors.iter_mut().for_each(|f| *f /= middle);
    factors
}

/// The output error of a sample of rows when their columns are multiplied by `factors` for rounding.
fn judged(
    format: BlockFormat,
    readers: &[MatrixRef<'_>],
    statistics: &Statistics,
    importance: &[f32],
    factors: &[f32],
) -> Result<f64> {
    let block = format.block();
    let weights: Vec<f32> = importance.iter().zip(factors).map(|(w, f)| w / (f * f)).collect();
    let rows: usize = readers.iter().map(MatrixRef::rows).sum();
    let stride = rows.div_ceil(JUDGING_ROWS_MAX).max(1);
    let all = readers.iter().flat_map(|matrix| matrix.values.chunks_exact(matrix.columns));
    let mut error = 0.0;
    for row in all.step_by(stride) {
        let scaled: Vec<f32> = row.iter().zip(factors).map(|(v, f)| v * f).collect();
        let mut difference = Vec::with_capacity(row.len());
        for (first, x) in scaled.chunks_exact(block).enumerate().map(|(i, x)| (i * block, x)) {
            let code = BlockCode::fit(format, x, Some(&weights[first..first + block]))?;
            let rounded = (0..block).map(|i| code.value(i, code.quant(i)) / factors[first + i]);
            difference.extend(rounded.zip(&row[first..]).map(|(rounded, v)| rounded - v));
        }
        error += statistics.output_error(&difference);
    }
    Ok(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folding_comes_back() {
        let mut folding = Folding::default();
        folding.columns.insert("w".into(), vec![2.0, 0.5, 4.0]);
        folding.rows.insert("w".into(), vec![8.0, 0.25]);
        let original = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        let mut values = original;
        folding.apply("w", &mut values, 3);
        assert_eq!(values, [16.0, 8.0, 96.0, 2.0, 0.625, 6.0]);
        folding.undo("w", &mut values, 3);
        assert_eq!(values, original);
        folding.apply("other", &mut values, 3);
        assert_eq!(values, original);
    }

    #[test]
    fn channels_that_matter_get_larger_factors_and_less_error() {
        let columns = 64;
        let noise = |i: usize| ((i * 7919 + 13) % 997) as f32 / 997.0 - 0.5;
        let mut statistics = Statistics::new(columns, true);
        let x: Vec<f32> =
            (0..columns * 40).map(|i| noise(i) * if i % columns == 5 { 30.0 } else { 0.3 }).collect();
        statistics.add(&x, 1);
        let values: Vec<f32> = (0..columns * 16).map(|i| noise(i * 3 + 1)).collect();
        let reader = MatrixRef { values: &values, columns };
        let factors = fold_awq(BlockFormat::Q4_0, &[reader], &statistics, columns, &|j| j).unwrap();
        assert!(factors.iter().enumerate().all(|(j, f)| j == 5 || *f < factors[5]), "{factors:?}");
        let importance = statistics.importance();
        let error = |factors: &[f32]| {
            judged(BlockFormat::Q4_0, &[reader], &statistics, &importance, factors).unwrap()
        };
        assert!(error(&factors) < error(&vec![1.0; columns]));
    }
}
