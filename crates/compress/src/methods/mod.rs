//! The quantisers: from a matrix of f32, and what is known of its inputs, to stored blocks.

mod awq;
#[cfg(test)]
mod golden;
mod gptq;
mod hqq;
mod output_error;
mod rounding;
mod trellis;

use ganglion_kernels::{BlockCode, BlockFormat, quantize_rows};

pub(crate) use awq::{Folding, fold_awq, fold_smooth};

use crate::error::Result;
use crate::statistics::Statistics;

/// How values become quants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Round to nearest, with searched scales: large values weigh more.
    Rtn,
    /// The same, each column's error also weighed by the mean square of its inputs.
    Imatrix,
    /// Error feedback and coordinate descent.
    Gptq,
    /// Activation-aware scales folded into what comes before, then as [`Method::Imatrix`] (Lin et al. 2023).
    Awq,
    /// Scales that even out activations and weights, folded likewise, then as [`Method::Rtn`] (SmoothQuant, Xiao et al.
    /// 2022).
    SmoothQuant,
    /// Half-quadratic choice of zero points; needs no data.
    Hqq,
    /// Learned rounding by signed gradient descent.
    AutoRound,
    /// Rotation and error feedback by blocks for the trellis formats; as [`Method::Gptq`] for all others.
    Trellis,
}

impl Method {
    /// Every method.
    pub const ALL: [Self; 8] = [
        Self::Rtn,
        Self::Imatrix,
        Self::Gptq,
        Self::Awq,
        Self::SmoothQuant,
        Self::Hqq,
        Self::AutoRound,
        Self::Trellis,
    ];

    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rtn => "rtn",
            Self::Imatrix => "imatrix",
            Self::Gptq => "gptq",
            Self::Awq => "awq",
            Self::SmoothQuant => "smoothquant",
            Self::Hqq => "hqq",
            Self::AutoRound => "autoround",
            Self::Trellis => "trellis",
        }
    }

    /// The method of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.name() == name)
    }

    /// What it must know of a matrix's inputs.
    pub const fn needs(self) -> Needs {
        match self {
            Self::Rtn | Self::Hqq => Needs::Nothing,
            Self::Imatrix => Needs::Squares,
            Self::SmoothQuant => Needs::Calibration,
            Self::Gptq | Self::Awq | Self::AutoRound | Self::Trellis => Needs::Moments,
        }
    }
}

/// What a method must know of the inputs of matrices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Needs {
    /// Nothing.
    Nothing,
    /// Their mean squares: a calibration text, or an importance matrix from a file.
    Squares,
    /// Their magnitudes: a calibration text.
    Calibration,
    /// Their second moments: a calibration text, and more memory.
    Moments,
}

/// A matrix of whole rows.
#[derive(Debug, Clone, Copy)]
pub struct MatrixRef<'a> {
    /// (rows, columns)
    pub values: &'a [f32],
    /// Values of a row.
    pub columns: usize,
}

impl MatrixRef<'_> {
    pub(crate) fn rows(&self) -> usize {
        self.values.len() / self.columns
    }
}

/// Quantises the matrix `name`: `out` is its stored form. Plain floats are stored as they are, and rows with one scale are rounded to
/// nearest, whatever the method. A trellis is searched with error feedback wherever there are second moments. A matrix whose inputs are
/// not known is rounded to nearest.
///
/// # Errors
/// If a value cannot be stored, or the second moments cannot be factored.
///
/// # Panics
/// If `out` is not of the stored size, or the statistics are of another width.
pub fn quantize_matrix(
    name: &str,
    (method, format): (Method, BlockFormat),
    matrix: MatrixRef<'_>,
    statistics: Option<&Statistics>,
    threads: usize,
    out: &mut [u8],
) -> Result<()> {
    let MatrixRef { values, columns } = matrix;
    assert_eq!(Some(out.len()), format.matrix_bytes(matrix.rows(), columns), "the stored size");
    assert!(statistics.is_none_or(|s| s.columns() == columns), "statistics of these columns");
    if format.row_bytes() > 0 {
        return Ok(quantize_rows(format, columns, values, out)?);
    }
    if format.trellis_bits().is_some() {
        return trellis::quantize(name, format, matrix, statistics, threads, out);
    }
    if !format.is_quantized() {
        return Ok(ganglion_kernels::quantize(format, values, out)?);
    }
    let importance = statistics.filter(|_| method.needs() >= Needs::Squares).map(Statistics::importance);
    let importance = importance.filter(|_| method != Method::SmoothQuant);
    let importance = importance.as_deref();
    match (method, statistics) {
        (Method::Gptq | Method::Trellis, Some(statistics)) if statistics.second_moments.is_some() => {
            let solver = gptq::Solver::new(statistics, name)?;
            by_rows(matrix, threads, out, &|matrix, out| solver.quantize(format, matrix, out))
        }
        (Method::AutoRound, Some(statistics)) if statistics.second_moments.is_some() => {
            let rounding = rounding::Rounding::new(statistics, name)?;
            by_rows(matrix, threads, out, &|matrix, out| rounding.quantize(format, matrix, out))
        }
        (Method::Hqq, _) if format.has_mins() => {
            by_rows(matrix, threads, out, &|matrix, out| hqq::quantize(format, matrix, out))
        }
        _ => by_rows(matrix, threads, out, &|matrix, out| nearest(format, matrix, importance, out)),
    }
}

/// Every value to its nearest, with the scales of least weighed error.
///
/// Large values weigh more, by llama.cpp's rules for k-quants with and without an importance matrix: least squares alone shrinks a
/// matrix, and what shrinks in every layer moves the answer further than the error it saves (an embedding most of all).
fn nearest(
    format: BlockFormat,
    matrix: MatrixRef<'_>,
    importance: Option<&[f32]>,
    out: &mut [u8],
) -> Result<()> {
    let block = format.block();
    let blocks = matrix.values.chunks_exact(block).zip(out.chunks_exact_mut(format.block_bytes()));
    let mut weights = vec![0.0; block];
    for (index, (x, out)) in blocks.enumerate() {
        let column = index * block % matrix.columns;
        let square = x.iter().map(|v| v * v).sum::<f32>() / block as f32;
        for (i, (weight, v)) in weights.iter_mut().zip(x).enumerate() {
            *weight = match importance {
                Some(all) => all[column + i] * (2.0 * square + v * v).sqrt(),
                None if format.quant_max() <= 3 => v.abs(),
                None if format.quant_max() <= 7 => v * v,
                None => square.sqrt() + v.abs(),
            };
        }
        BlockCode::fit(format, x, Some(&weights))?.write(out);
    }
    Ok(())
}

/// Runs `job` on shares of the rows, one a thread.
fn by_rows(
    matrix: MatrixRef<'_>,
    threads: usize,
    out: &mut [u8],
    job: &(dyn Fn(MatrixRef<'_>, &mut [u8]) -> Result<()> + Sync),
) -> Result<()> {
    let rows = matrix.rows();
    let share = rows.div_ceil(threads.max(1)).max(1);
    let row_bytes = out.len() / rows.max(1);
    let columns = matrix.columns;
    std::thread::scope(|scope| {
        let parts = matrix.values.chunks(share * columns).zip(out.chunks_mut((share * row_bytes).max(1)));
        let workers: Vec<_> =
            parts.map(|(values, out)| scope.spawn(move || job(MatrixRef { values, columns }, out))).collect();
        // A panic of a worker is a broken invariant: it goes on.
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().unwrap_or_else(|e| std::panic::resume_unwind(e)))
    })
}
