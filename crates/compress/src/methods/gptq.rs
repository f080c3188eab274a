//! GPTQ on the grids of block formats, and coordinate descent after it.
//!
//! GPTQ (Frantar et al. 2022) rounds a row column by column and moves the columns that are still free so that they make
//! up for the error: `w[j..] −= (w_i − q_i) / U_ii · U[i, j..]` with `H⁻¹ = UᵀU`, H the second moments of the inputs. Two
//! passes are tried for each row: in the order of descending H_ii with all scales chosen beforehand (act-order, static
//! groups), and in natural order with a block's scales chosen when it is reached, from weights that errors before it have
//! already moved. The better one is kept, or plain rounding if that should be better still, and improved by coordinate
//! descent: each quant moves to where the output's error is least while the others stay. In a sparse format
//! zeros stay zeros through all of it.

use std::borrow::Cow;

use ganglion_kernels::{BlockCode, BlockFormat};

use super::MatrixRef;
use super::output_error::{OutputError, normalised};
use crate::error::{CompressError, Result};
use crate::linalg::{Square, inverse_factor};
use crate::statistics::Statistics;

/// Added to the diagonal of H, as a share of its mean.
const DAMPING: f64 = 0.01;
/// Factor by which damping grows until H can be factored, and how often.
const DAMPING_GROWTH: f64 = 10.0;
const DAMPING_TRIES: usize = 6;
/// Columns whose errors are collected before they reach the columns behind: whole blocks of any format.
const LAZY_COLUMNS: usize = 256;
/// Rows that share a read of H's factor.
const ROWS_AT_ONCE: usize = 16;
/// H and its factors for one matrix: what all rows share.
pub(crate) struct Solver {
    output: OutputError,
    natural: Pass,
    by_importance: Pass,
}

/// An order of columns, and the factor of H⁻¹ in this order.
struct Pass {
    order: Vec<usize>,
    factor: Vec<f32>,
    /// `1 / U_ii²` by column: how much a column's error counts when those behind make up for it.
    weights: Vec<f32>,
}

impl Pass {
    fn new(moments: &Square, order: Vec<usize>) -> Option<Self> {
        let size = moments.size;
        let mut ordered = Square::zeros(size);
        for (i, a) in order.iter().enumerate() {
            for (j, b) in order.iter().enumerate() {
                ordered.set(i, j, moments.at(*a, *b));
            }
        }
        let factor = inverse_factor(&ordered)?;
        let mut weights = vec![0.0; size];
        for (i, column) in order.iter().enumerate() {
            weights[*column] = (1.0 / factor.at(i, i).powi(2)) as f32;
        }
        Some(Self { order, factor: factor.values.iter().map(|v| *v as f32).collect(), weights })
    }
}

/// What `factor` makes of normalised second moments with the least damping that it needs.
pub(super) fn with_damping<T>(moments: &Square, factor: &dyn Fn(&Square) -> Option<T>) -> Option<T> {
    let mut damping = DAMPING;
    for _ in 0..DAMPING_TRIES {
        let mut damped = moments.clone();
        for i in 0..moments.size {
            damped.set(i, i, moments.at(i, i) + damping);
        }
        if let Some(found) = factor(&damped) {
            return Some(found);
        }
        damping *= DAMPING_GROWTH;
    }
    None
}

/// What a block's scales are chosen for: the weights as errors before it have moved them. Of a sparse format, those that were zero stay
/// zero; what errors moved them by is an error in turn, which the columns behind make up for.
fn kept<'a>(format: BlockFormat, moved: &'a [f32], before: &[f32]) -> Cow<'a, [f32]> {
    if format.sparse_bits().is_none() {
        return Cow::Borrowed(moved);
    }
    Cow::Owned(moved.iter().zip(before).map(|(moved, x)| if *x == 0.0 { 0.0 } else { *moved }).collect())
}

/// The chosen blocks of a row, and what they do to the output.
struct Row {
    codes: Vec<BlockCode>,
    error: f64,
}

impl Solver {
    /// Factors the second moments.
    ///
    /// # Errors
    /// [`CompressError::Moments`] if they cannot be factored.
    pub(crate) fn new(statistics: &Statistics, tensor: &str) -> Result<Self> {
        let failed = || CompressError::Moments { tensor: tensor.to_owned() };
        let moments = statistics.second_moments.clone().and_then(normalised).ok_or_else(failed)?;
        let columns = moments.size;
        let output = OutputError::new(&moments);
        let importance = output.importance();
        let mut by_importance: Vec<usize> = (0..columns).collect();
        by_importance.sort_by(|a, b| importance[*b].total_cmp(&importance[*a]).then(a.cmp(b)));
        let passes = |damped: &Square| {
            let natural = Pass::new(damped, (0..columns).collect())?;
            Some((natural, Pass::new(damped, by_importance.clone())?))
        };
        let (natural, by_importance) = with_damping(&moments, &passes).ok_or_else(failed)?;
        Ok(Self { output, natural, by_importance })
    }

    /// Quantises whole rows; `out` is their stored form.
    ///
    /// # Errors
    /// If a value cannot be stored.
    pub(crate) fn quantize(&self, format: BlockFormat, matrix: MatrixRef<'_>, out: &mut [u8]) -> Result<()> {
        let row_bytes = out.len() / matrix.rows().max(1);
        let columns = self.output.columns();
        let groups = matrix.values.chunks(ROWS_AT_ONCE * columns);
        for (values, out) in groups.zip(out.chunks_mut(ROWS_AT_ONCE * row_bytes)) {
            let plain = self.plain(format, values)?;
            let natural = self.feed_back(format, values, &self.natural, None)?;
            let fixed =
                values.chunks(columns).map(|row| self.fitted(format, row, &self.by_importance.weights));
            let fixed = fixed.collect::<Result<Vec<_>>>()?;
            let ordered = self.feed_back(format, values, &self.by_importance, Some(fixed))?;
            let candidates = plain.into_iter().zip(natural).zip(ordered);
            let rows = candidates.zip(values.chunks(columns)).zip(out.chunks_mut(row_bytes));
            for ((((plain, natural), ordered), row), out) in rows {
                let better = |a: Row, b: Row| if b.error < a.error { b } else { a };
                let mut codes = better(better(natural, ordered), plain).codes;
                self.output.descend(row, &mut codes);
                for (code, out) in codes.iter().zip(out.chunks_exact_mut(format.block_bytes())) {
                    code.write(out);
                }
            }
        }
        Ok(())
    }

    fn fitted(&self, format: BlockFormat, row: &[f32], weights: &[f32]) -> Result<Vec<BlockCode>> {
        let blocks = row.chunks_exact(format.block()).zip(weights.chunks_exact(format.block()));
        Ok(blocks.map(|(x, w)| BlockCode::fit(format, x, Some(w))).collect::<Result<_, _>>()?)
    }

    /// Every value to its nearest.
    fn plain(&self, format: BlockFormat, values: &[f32]) -> Result<Vec<Row>> {
        let rows = values.chunks(self.output.columns()).map(|row| {
            let codes = self.fitted(format, row, self.output.importance())?;
            Ok(Row { error: self.output.of(row, &codes), codes })
        });
        rows.collect()
    }

    /// GPTQ for a few rows. Without `fixed` a block's scales are chosen when its first column is reached.
    fn feed_back(
        &self,
        format: BlockFormat,
        values: &[f32],
        pass: &Pass,
        fixed: Option<Vec<Vec<BlockCode>>>,
    ) -> Result<Vec<Row>> {
        let (columns, block) = (self.output.columns(), format.block());
        let rows = values.len() / columns;
        let choose = fixed.is_none();
        let mut codes = fixed.unwrap_or_else(|| vec![Vec::new(); rows]);
        // The weights in the order of the pass, moved as it goes on.
        let mut moved = vec![0.0f32; values.len()];
        for (moved, row) in moved.chunks_exact_mut(columns).zip(values.chunks_exact(columns)) {
            pass.order.iter().zip(moved).for_each(|(column, moved)| *moved = row[*column]);
        }
        let mut errors = vec![0.0f32; rows * LAZY_COLUMNS];
        for first in (0..columns).step_by(LAZY_COLUMNS) {
            let last = (first + LAZY_COLUMNS).min(columns);
            for (row, codes) in codes.iter_mut().enumerate() {
                let moved = &mut moved[row * columns..(row + 1) * columns];
                let errors = &mut errors[row * LAZY_COLUMNS..(row + 1) * LAZY_COLUMNS];
                for i in first..last {
                    let column = pass.order[i];
                    if choose && column.is_multiple_of(block) {
                        let weights = &pass.weights[column..column + block];
                        let at = row * columns + column;
                        let x = kept(format, &moved[i..i + block], &values[at..at + block]);
                        codes.push(BlockCode::fit(format, &x, Some(weights))?);
                    }
                    let (code, place) = (&mut codes[column / block], column % block);
                    let quant = code.nearest(place, moved[i]);
                    code.set(place, quant);
                    let factor = &pass.factor[i * columns..(i + 1) * columns];
                    let error = (moved[i] - code.value(place, quant)) / factor[i];
                    errors[i - first] = error;
                    for (moved, u) in moved[i + 1..last].iter_mut().zip(&factor[i + 1..last]) {
                        *moved -= error * u;
                    }
                }
            }
            for i in first..last {
                let factor = &pass.factor[i * columns..(i + 1) * columns];
                for row in 0..rows {
                    let error = errors[row * LAZY_COLUMNS + i - first];
                    let moved = &mut moved[row * columns + last..(row + 1) * columns];
                    for (moved, u) in moved.iter_mut().zip(&factor[last..]) {
                        *moved -= error * u;
                    }
                }
            }
        }
        let finished = codes.into_iter().zip(values.chunks_exact(columns));
        Ok(finished.map(|(codes, row)| Row { error: self.output.of(row, &codes), codes }).collect())
    }
}

/// What tests compare with a reference.
#[cfg(test)]
impl Solver {
    /// GPTQ with all scales given, and each row's error.
    pub(super) fn with_scales(
        &self,
        format: BlockFormat,
        values: &[f32],
        codes: Vec<Vec<BlockCode>>,
        by_importance: bool,
    ) -> Result<Vec<(Vec<BlockCode>, f64)>> {
        let pass = if by_importance { &self.by_importance } else { &self.natural };
        let rows = self.feed_back(format, values, pass, Some(codes))?;
        Ok(rows.into_iter().map(|row| (row.codes, row.error)).collect())
    }
}
