//! Trellis formats (QTIP, Tseng et al. 2024): a rotated matrix, tile by tile, with error feedback.
//!
//! The matrix and the second moments of its inputs are rotated as the format says. Then blocks of 16 columns are quantised from left to
//! right; what a block errs is made up for by those behind it: with `H⁻¹ = UᵀU`, `W_J −= E · U_BB⁻¹ U_BJ` (block LDL). Afterwards every
//! tile is searched again for the place where the output's error is least while all others stay, `E_J · H_JB · H_BB⁻¹` away from the
//! matrix itself, and kept where that is better. Without second moments every tile is searched once, by itself.

use ganglion_kernels::{BlockFormat, Isa, Side, TrellisSearch, rotate, rotate_columns, rotation_width};

use super::MatrixRef;
use super::gptq::with_damping;
use super::output_error::normalised;
use crate::error::{CompressError, Result};
use crate::linalg::{Square, inverse_factor};
use crate::statistics::Statistics;

const ROWS: usize = TrellisSearch::ROWS;
const COLUMNS: usize = TrellisSearch::COLUMNS;
const BLOCK: usize = COLUMNS * TrellisSearch::TILES;
/// Rows whose place on the ring each search of every tile after the first one holds: first the one furthest from the first search's seam.
/// Each takes far less off the output's error than the one before.
const HELD_ROWS: [usize; 2] = [ROWS / 2, 0];

type Tile = [[f32; COLUMNS]; ROWS];

/// What all rows of a matrix share.
struct Feedback {
    columns: usize,
    /// Rotated second moments, mean diagonal 1: (columns, columns).
    moments: Vec<f32>,
    /// By block of columns: `U_BB⁻¹ · U_BJ`, (COLUMNS, columns).
    forward: Vec<f32>,
    /// By block of columns: `H_BB⁻¹`, (COLUMNS, COLUMNS).
    inverse: Vec<f32>,
    /// How much a column's error counts when those behind it make up for it.
    weights: Vec<f32>,
}

/// Quantises a matrix whose sides the format can hold; `out` is its stored form.
///
/// # Errors
/// [`CompressError::Moments`], or a value that cannot be stored.
pub(super) fn quantize(
    name: &str,
    format: BlockFormat,
    matrix: MatrixRef<'_>,
    statistics: Option<&Statistics>,
    threads: usize,
    out: &mut [u8],
) -> Result<()> {
    let (columns, isa) = (matrix.columns, Isa::detect());
    let mut values = matrix.values.to_vec();
    rotate_columns(Side::Output, &mut values, columns, rotation_width(matrix.rows()));
    rotate(isa, Side::Input, &mut values, rotation_width(columns));
    let moments = statistics.and_then(|statistics| statistics.second_moments.as_ref());
    let feedback = moments.map(|moments| Feedback::new(moments, name)).transpose()?;
    let strips = matrix.rows() / ROWS;
    let share = strips.div_ceil(threads.max(1)).max(1);
    let strip_bytes = out.len() / strips;
    let work = |values: &[f32], out: &mut [u8]| -> Result<()> {
        let search = TrellisSearch::new(isa, format).unwrap_or_else(|| unreachable!("a trellis format"));
        let mut strip = Strip { search, columns, feedback: feedback.as_ref(), format };
        let mut strips = values.chunks_exact(ROWS * columns).zip(out.chunks_exact_mut(strip_bytes));
        strips.try_for_each(|(values, out)| strip.quantize(values, out))
    };
    let work = &work;
    std::thread::scope(|scope| {
        let parts = values.chunks(share * ROWS * columns).zip(out.chunks_mut(share * strip_bytes));
        let workers: Vec<_> = parts.map(|(values, out)| scope.spawn(move || work(values, out))).collect();
        // A panic of a worker is a broken invariant: it goes on.
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().unwrap_or_else(|e| std::panic::resume_unwind(e)))
    })
}

impl Feedback {
    fn new(moments: &Square, name: &str) -> Result<Self> {
        let failed = || CompressError::Moments { tensor: name.to_owned() };
        let columns = moments.size;
        let width = rotation_width(columns);
        let mut rotated = moments.clone();
        rotate_columns(Side::Input, &mut rotated.values, columns, width);
        // The rows of what is now R·H are the columns of H·Rᵀ.
        rotated = rotated.transposed();
        rotate_columns(Side::Input, &mut rotated.values, columns, width);
        let exact = normalised(rotated).ok_or_else(failed)?;
        let factor = with_damping(&exact, &inverse_factor).ok_or_else(failed)?;
        let blocks = columns / COLUMNS;
        let mut forward = vec![0.0; blocks * COLUMNS * columns];
        let mut inverse = Vec::with_capacity(blocks * COLUMNS * COLUMNS);
        let mut weights = Vec::with_capacity(columns);
        for block in 0..blocks {
            let first = block * COLUMNS;
            let upper = inverse_triangle(&factor, first);
            let forward = &mut forward[first * columns..(first + COLUMNS) * columns];
            for (i, out) in forward.chunks_exact_mut(columns).enumerate() {
                for (j, out) in out.iter_mut().enumerate().skip(first + COLUMNS) {
                    *out = (i..COLUMNS).map(|t| upper[i][t] * factor.at(first + t, j)).sum::<f64>() as f32;
                }
            }
            // The diagonal of (U_BBᵀ · U_BB)⁻¹.
            weights.extend(upper.map(|row| row.iter().map(|v| v * v).sum::<f64>() as f32));
            inverse.extend(inverse_block(&exact, first).ok_or_else(failed)?);
        }
        let moments = exact.values.iter().map(|v| *v as f32).collect();
        Ok(Self { columns, moments, forward, inverse, weights })
    }
}

/// The inverse of a block on the diagonal of an upper triangle.
fn inverse_triangle(upper: &Square, first: usize) -> [[f64; COLUMNS]; COLUMNS] {
    let mut by_column = [[0.0; COLUMNS]; COLUMNS];
    for (j, column) in by_column.iter_mut().enumerate() {
        column[j] = 1.0 / upper.at(first + j, first + j);
        for i in (0..j).rev() {
            let sum: f64 = (i + 1..=j).map(|t| upper.at(first + i, first + t) * column[t]).sum();
            column[i] = -sum / upper.at(first + i, first + i);
        }
    }
    std::array::from_fn(|i| std::array::from_fn(|j| by_column[j][i]))
}

/// The inverse of a block on the diagonal of second moments, (COLUMNS, COLUMNS).
fn inverse_block(moments: &Square, first: usize) -> Option<Vec<f32>> {
    let mut block = Square::zeros(COLUMNS);
    for i in 0..COLUMNS {
        for j in 0..COLUMNS {
            block.set(i, j, moments.at(first + i, first + j));
        }
    }
    let upper = with_damping(&block, &inverse_factor)?;
    let product = |i: usize, j: usize| (0..COLUMNS).map(|t| upper.at(t, i) * upper.at(t, j)).sum::<f64>();
    Some((0..COLUMNS * COLUMNS).map(|at| product(at / COLUMNS, at % COLUMNS) as f32).collect())
}

/// Quantises 16 rows after the other.
struct Strip<'a> {
    search: TrellisSearch,
    columns: usize,
    feedback: Option<&'a Feedback>,
    format: BlockFormat,
}

impl Strip<'_> {
    /// `values` is (ROWS, columns), rotated; `out` its blocks.
    fn quantize(&mut self, values: &[f32], out: &mut [u8]) -> Result<()> {
        let columns = self.columns;
        let block_bytes = self.format.block_bytes();
        let mut wanted = values.to_vec();
        // What has been stored, and its error.
        let mut errors = vec![0.0f32; values.len()];
        let mut scales = vec![0.0f32; columns / BLOCK];
        for block in 0..columns / BLOCK {
            let stored = &mut out[block * block_bytes..(block + 1) * block_bytes];
            let here = block * BLOCK..(block + 1) * BLOCK;
            let squares = wanted.chunks_exact(columns).flat_map(|row| &row[here.clone()]).map(|v| v * v);
            let square = squares.sum::<f32>() / (ROWS * BLOCK) as f32;
            scales[block] = self.search.put_scale(square, stored)?;
            for tile in 0..TrellisSearch::TILES {
                let first = here.start + tile * COLUMNS;
                let weights = self.feedback.map(|feedback| &feedback.weights[first..first + COLUMNS]);
                let target = cut(&wanted, columns, first);
                let found = self.put(&target, weights, scales[block], (stored, tile), None);
                paste(&difference(&cut(values, columns, first), &found), columns, first, &mut errors);
                if let Some(feedback) = self.feedback {
                    feedback.feed(&difference(&target, &found), first, &mut wanted);
                }
            }
        }
        if let Some(feedback) = self.feedback {
            for held in HELD_ROWS {
                self.search_again(feedback, (values, &scales), held, &mut errors, out);
            }
        }
        Ok(())
    }

    /// Stores the tile nearest to `target`, of those that keep the place `held` of its ring; what it stands for.
    fn put(
        &mut self,
        target: &Tile,
        weights: Option<&[f32]>,
        scale: f32,
        (stored, tile): (&mut [u8], usize),
        held: Option<usize>,
    ) -> Tile {
        let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
        let weights = weights.map_or([1.0; COLUMNS], |weights| std::array::from_fn(|c| weights[c]));
        let in_units = target.map(|row| row.map(|v| v * inverse));
        let codes = match held {
            None => self.search.put_tile(&in_units, &weights, stored, tile),
            Some(held) => self.search.put_tile_again(&in_units, &weights, stored, tile, held),
        };
        codes.map(|row| row.map(|code| f32::from(code) * scale))
    }

    /// Searches every tile again, the others being what they are.
    fn search_again(
        &mut self,
        feedback: &Feedback,
        (values, scales): (&[f32], &[f32]),
        held: usize,
        errors: &mut [f32],
        out: &mut [u8],
    ) {
        let columns = self.columns;
        let block_bytes = self.format.block_bytes();
        let mut pull = feedback.pull(errors);
        for (index, scale) in
            (0..columns / COLUMNS).map(|index| (index, scales[index / TrellisSearch::TILES]))
        {
            let (block, tile, first) =
                (index / TrellisSearch::TILES, index % TrellisSearch::TILES, index * COLUMNS);
            let stored = &mut out[block * block_bytes..(block + 1) * block_bytes];
            let (value, old) = (cut(values, columns, first), cut(errors, columns, first));
            // What the other columns' errors ask of this block.
            let own = feedback.times_block(&old, first);
            let rest = difference(&cut(&pull, columns, first), &own);
            let target = sum(&value, &feedback.times_inverse(&rest, first));
            let weights: [f32; COLUMNS] =
                std::array::from_fn(|c| feedback.moments[(first + c) * columns + first + c]);
            let before = stored.to_vec();
            let new =
                difference(&value, &self.put(&target, Some(&weights), scale, (stored, tile), Some(held)));
            let step = difference(&new, &old);
            // (old + step)·H·(old + step) − old·H·old = 2·step·pull + step·H_BB·step
            let pulled = cut(&pull, columns, first);
            let change = 2.0 * dot(&step, &pulled) + dot(&step, &feedback.times_block(&step, first));
            if change >= 0.0 {
                stored.copy_from_slice(&before);
                continue;
            }
            paste(&new, columns, first, errors);
            for (row, step) in pull.chunks_exact_mut(columns).zip(&step) {
                for (c, step) in step.iter().enumerate() {
                    let moments = &feedback.moments[(first + c) * columns..(first + c + 1) * columns];
                    row.iter_mut().zip(moments).for_each(|(p, m)| *p += step * m);
                }
            }
        }
    }
}

impl Feedback {
    /// Moves the columns behind the block at `first` so that they make up for its error.
    fn feed(&self, error: &Tile, first: usize, wanted: &mut [f32]) {
        let columns = self.columns;
        let behind = first + COLUMNS;
        for (row, error) in wanted.chunks_exact_mut(columns).zip(error) {
            for (i, error) in error.iter().enumerate() {
                let factors = &self.forward[(first + i) * columns + behind..(first + i + 1) * columns];
                row[behind..].iter_mut().zip(factors).for_each(|(w, f)| *w -= error * f);
            }
        }
    }

    /// `E·H` of whole rows.
    fn pull(&self, errors: &[f32]) -> Vec<f32> {
        let mut pull = vec![0.0; errors.len()];
        for (pull, errors) in pull.chunks_exact_mut(self.columns).zip(errors.chunks_exact(self.columns)) {
            for (moments, error) in self.moments.chunks_exact(self.columns).zip(errors) {
                pull.iter_mut().zip(moments).for_each(|(p, m)| *p += error * m);
            }
        }
        pull
    }

    fn times_block(&self, tile: &Tile, first: usize) -> Tile {
        let at = |i: usize, j: usize| self.moments[(first + i) * self.columns + first + j];
        times(tile, &at)
    }

    fn times_inverse(&self, tile: &Tile, first: usize) -> Tile {
        let at = |i: usize, j: usize| self.inverse[(first + i) * COLUMNS + j];
        times(tile, &at)
    }
}

fn times(tile: &Tile, at: &dyn Fn(usize, usize) -> f32) -> Tile {
    tile.map(|row| std::array::from_fn(|j| row.iter().enumerate().map(|(i, v)| v * at(i, j)).sum()))
}

/// A tile of whole rows.
fn cut(values: &[f32], columns: usize, first: usize) -> Tile {
    std::array::from_fn(|r| std::array::from_fn(|c| values[r * columns + first + c]))
}

fn paste(tile: &Tile, columns: usize, first: usize, values: &mut [f32]) {
    for (row, tile) in values.chunks_exact_mut(columns).zip(tile) {
        row[first..first + COLUMNS].copy_from_slice(tile);
    }
}

fn difference(a: &Tile, b: &Tile) -> Tile {
    std::array::from_fn(|r| std::array::from_fn(|c| a[r][c] - b[r][c]))
}

fn sum(a: &Tile, b: &Tile) -> Tile {
    std::array::from_fn(|r| std::array::from_fn(|c| a[r][c] + b[r][c]))
}

fn dot(a: &Tile, b: &Tile) -> f64 {
    let rows = a.iter().flatten().zip(b.iter().flatten());
    rows.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}
