//! Zeros in the matrices of layers: a share of all weights, or so many of every few in a row.
//!
//! The result has the shapes and the size that it had, and the engine multiplies zeros like any other weight. With 2:4 or 16:32 it can then
//! be quantised to SPARSE8 or SPARSE4, which leave the zeros out: that is smaller, and quicker where memory is what takes time.

use std::path::Path;

use ganglion_gguf::{Gguf, GgufWriter};
use ganglion_kernels::{BlockFormat, Matrix, dequantize, quantize};
use ganglion_llm::{Config, Model, ModelOptions, Reader, block_format, tensor_type};

use super::plan::{part_of, values_of};
use super::sparsegpt::SparseGpt;
use super::wanda;
use crate::calibrate::Calibrator;
use crate::error::{CompressError, Result};
use crate::measure::Windows;
use crate::methods::Needs;
use crate::mix::{is_prunable, layer_part};
use crate::output::Output;
use crate::statistics::Statistics;

/// How many weights become zeros.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pattern {
    /// A share of each matrix, 0 to 1.
    Share(f64),
    /// All but `kept` of each `of` in a row: 2:4.
    Groups {
        /// Weights that stay.
        kept: usize,
        /// Of how many.
        of: usize,
    },
}

impl Pattern {
    /// Reads `0.5`, `2:4` or `16:32`.
    pub fn from_name(name: &str) -> Option<Self> {
        match name.split_once(':') {
            None => name.parse().ok().filter(|share| (0.0..1.0).contains(share)).map(Self::Share),
            Some((kept, of)) => {
                let (kept, of) = (kept.parse().ok()?, of.parse().ok()?);
                (0 < kept && kept < of && of <= 64).then_some(Self::Groups { kept, of })
            }
        }
    }

    /// Whether every 32 values have 16 zeros or more: what SPARSE8 and SPARSE4 can store.
    pub fn halves_blocks(self) -> bool {
        matches!(self, Self::Groups { kept, of } if 2 * kept <= of && 32 % of == 0)
    }

    /// Values that are looked at together, of a row of `columns`.
    pub(super) fn group(self, columns: usize) -> usize {
        match self {
            Self::Share(_) => columns,
            Self::Groups { of, .. } => of,
        }
    }

    /// Zeros among `count` values.
    pub(super) fn zeros(self, count: usize) -> usize {
        match self {
            Self::Share(share) => (share * count as f64).floor() as usize,
            Self::Groups { kept, of } => count / of * (of - kept),
        }
    }
}

/// Which weights become zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SparseMethod {
    /// The smallest.
    Magnitude,
    /// Those of least `|w| · ‖x‖₂` in each row (Wanda, Sun et al. 2023).
    Wanda,
    /// Those of least error when the columns behind make up for it, and these do (SparseGPT, Frantar and Alistarh 2023).
    SparseGpt,
}

impl SparseMethod {
    /// Every method.
    pub const ALL: [Self; 3] = [Self::Magnitude, Self::Wanda, Self::SparseGpt];

    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Magnitude => "magnitude",
            Self::Wanda => "wanda",
            Self::SparseGpt => "sparsegpt",
        }
    }

    /// The method of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.name() == name)
    }
}

/// What to make of a model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SparseOptions {
    /// How many zeros.
    pub pattern: Pattern,
    /// Which.
    pub method: SparseMethod,
    /// Threads.
    pub threads: usize,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct SparseReport {
    /// Matrices with zeros.
    pub matrices: usize,
    /// Zeros among their weights, and all weights of them.
    pub zeros: (u64, u64),
    /// Bytes of the file.
    pub size_bytes: u64,
}

/// Makes `values`, whole rows of as many columns as the statistics have, sparse.
///
/// # Errors
/// [`CompressError::Moments`] with the tensor's `name` if SparseGPT cannot factor the second moments.
pub(super) fn sparsify(
    name: &str,
    options: SparseOptions,
    values: &mut [f32],
    statistics: &Statistics,
) -> Result<()> {
    let columns = statistics.columns();
    match options.method {
        SparseMethod::Magnitude => {
            let size = |w: f32, _| f64::from(w.abs());
            // The usual baseline compares all weights of a matrix.
            let together = if let Pattern::Share(_) = options.pattern { values.len() } else { columns };
            wanda::clear(values, together, options.pattern, &size);
        }
        SparseMethod::Wanda => {
            let norms: Vec<f64> = statistics.sum_squares.iter().map(|sum| sum.sqrt()).collect();
            wanda::clear(values, columns, options.pattern, &|w, j| f64::from(w.abs()) * norms[j]);
        }
        SparseMethod::SparseGpt => {
            let failed = || CompressError::Moments { tensor: name.to_owned() };
            let moments = statistics.second_moments.as_ref().ok_or_else(failed)?;
            let solver = SparseGpt::new(moments).ok_or_else(failed)?;
            solver.sparsify(values, options.pattern, options.threads);
        }
    }
    Ok(())
}

/// Writes a model with zeros to `path`, which holds what it held until the new file is whole; interrupted, a later call goes on.
/// `progress` is told of layers: done, of all.
///
/// # Errors
/// A text that leads to values that are not finite; [`CompressError::Prune`] for groups that rows do not consist of; a failure
/// of the disk.
pub fn sparsify_file(
    source: &Gguf,
    path: &Path,
    options: SparseOptions,
    windows: &Windows,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<SparseReport> {
    let config = Config::from_header(source.header())?;
    let formats = formats(source, options.pattern)?;
    let mut writer = GgufWriter::new();
    for (key, value) in source.metadata().filter(|(key, _)| *key != Config::ACTIVATION_SCALES) {
        writer.metadata(key, value.clone())?;
    }
    for (info, (format, _)) in source.tensors().iter().zip(&formats) {
        writer.tensor_with(info.name.clone(), &info.shape, tensor_type(*format), |_| Ok(()))?;
    }
    let layout = writer.layout()?;
    let size_bytes = layout.size_bytes;
    let key = format!("{options:?} {:?} {:?}", source.modified(), windows.iter().collect::<Vec<_>>());
    let mut output = Output::open(path, layout, &key)?;
    let model = Model::load(source, ModelOptions { threads: options.threads, ..ModelOptions::default() })?;
    let mut calibrator = Calibrator::new(model, windows)?;
    let mut report = SparseReport { matrices: 0, zeros: (0, 0), size_bytes };
    for (index, (info, (_, chosen))) in source.tensors().iter().zip(&formats).enumerate() {
        if !chosen && !output.is_done(index) {
            output.write(index, source.tensor_bytes(&info.name)?)?;
        }
    }
    for layer in 0..config.layer_count {
        let of = |index: &usize| {
            let part = layer_part(&source.tensors()[*index].name);
            formats[*index].1 && part.is_some_and(|(of, _)| of == layer)
        };
        let indices: Vec<usize> = (0..formats.len()).filter(of).collect();
        let done = indices.iter().all(|index| output.is_done(*index));
        let statistics = if done { None } else { Some(calibrator.statistics(Needs::Moments)?) };
        let mut replaced = Vec::new();
        for index in indices {
            let (info, format) = (&source.tensors()[index], formats[index].0);
            let part = part_of(&info.name);
            let known =
                statistics.as_ref().zip(Reader::of_tensor(part)).and_then(|(all, reader)| all.get(&reader));
            let bytes = match known.filter(|_| !output.is_done(index)) {
                None => output.read(index)?,
                Some(statistics) => {
                    let mut values = values_of(source, info)?;
                    sparsify(&info.name, options, &mut values, statistics)?;
                    let mut bytes = vec![0; format.size_bytes(values.len()).unwrap_or(0)];
                    quantize(format, &values, &mut bytes)?;
                    output.write(index, &bytes)?;
                    bytes
                }
            };
            let (columns, rows) = (info.shape[0] as usize, info.shape[1] as usize);
            let mut stored = vec![0.0; rows * columns];
            dequantize(format, &bytes, &mut stored)?;
            report.matrices += 1;
            report.zeros.0 += stored.iter().filter(|v| **v == 0.0).count() as u64;
            report.zeros.1 += stored.len() as u64;
            replaced.push((part.to_owned(), Matrix::pack(&info.name, format, rows, columns, &bytes)?));
        }
        calibrator.advance(replaced)?;
        progress(layer + 1, config.layer_count);
    }
    output.finish()?;
    Ok(report)
}

/// The stored format of each tensor, and whether it is made sparse.
fn formats(source: &Gguf, pattern: Pattern) -> Result<Vec<(BlockFormat, bool)>> {
    let format = |info: &ganglion_gguf::TensorInfo| {
        let chosen = is_prunable(info);
        let columns = info.shape[0] as usize;
        let group = pattern.group(columns);
        if chosen && !columns.is_multiple_of(group) {
            let reason = format!("rows of {} have {columns} values, no whole groups of {group}", info.name);
            return Err(CompressError::Prune { reason });
        }
        let stored = block_format(info)?;
        // New values: not quantised a second time here.
        Ok((if chosen && stored.is_quantized() { BlockFormat::F16 } else { stored }, chosen))
    };
    source.tensors().iter().map(format).collect()
}
