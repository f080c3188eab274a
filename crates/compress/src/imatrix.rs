//! Importance matrices in llama.cpp's GGUF form: `NAME.in_sum2`, Σ x² of each column, and `NAME.counts`, rows seen.

use std::collections::HashMap;
use std::path::Path;

use ganglion_gguf::{Gguf, GgufWriter, OptionalExt, TensorType};

use crate::error::{CompressError, Result};
use crate::statistics::Statistics;

const KIND: &str = "imatrix";
const SUMS: &str = ".in_sum2";
const COUNTS: &str = ".counts";

/// Statistics by the name of the tensor that reads.
pub type Imatrix = HashMap<String, Statistics>;

/// Reads a file as `llama-imatrix` writes it. Sums of several experts are added up.
///
/// # Errors
/// [`CompressError::Imatrix`] if it is none, or does not fit together.
pub fn read_imatrix(path: &Path) -> Result<Imatrix> {
    let gguf = Gguf::open(path)?;
    let refuse = |reason: String| CompressError::Imatrix { path: path.to_owned(), reason };
    let kind = gguf.get_str("general.type").optional()?.unwrap_or_default();
    if kind != KIND {
        return Err(refuse(format!("general.type is {kind:?}, expected {KIND:?}")));
    }
    let floats = |name: &str| -> Result<Vec<f32>> {
        let info = gguf.tensor(name)?;
        if info.dtype != TensorType::F32 {
            return Err(refuse(format!("{name} is {}, expected F32", info.dtype)));
        }
        Ok(gguf.tensor_bytes(name)?.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
    };
    let mut found = Imatrix::new();
    for info in gguf.tensors() {
        let Some(name) = info.name.strip_suffix(SUMS) else { continue };
        let (sums, counts) = (floats(&info.name)?, floats(&format!("{name}{COUNTS}"))?);
        let columns = info.shape.first().map_or(0, |n| *n as usize);
        if columns == 0 || sums.len() != columns * counts.len() {
            let reason =
                format!("{name} has {} sums of {columns} columns for {} counts", sums.len(), counts.len());
            return Err(refuse(reason));
        }
        if let Some(bad) = sums.iter().chain(&counts).find(|v| !v.is_finite() || **v < 0.0) {
            return Err(refuse(format!("{name} holds {bad}, expected finite numbers of at least 0")));
        }
        let mut statistics = Statistics::new(columns, false);
        for row in sums.chunks_exact(columns) {
            statistics.sum_squares.iter_mut().zip(row).for_each(|(sum, v)| *sum += f64::from(*v));
        }
        statistics.count = counts.iter().map(|v| *v as u64).sum();
        found.insert(name.to_owned(), statistics);
    }
    Ok(found)
}

/// Writes what `llama-quantize --imatrix` reads: sums by tensor, of a text cut into `chunks` windows of `chunk_tokens`.
///
/// # Errors
/// If the file cannot be written.
pub fn write_imatrix(
    path: &Path,
    imatrix: &Imatrix,
    dataset: &str,
    chunks: usize,
    chunk_tokens: usize,
) -> Result<()> {
    let mut writer = GgufWriter::new();
    writer.metadata("general.type", KIND)?;
    writer.metadata("imatrix.datasets", &[dataset][..])?;
    writer.metadata("imatrix.chunk_count", chunks as u32)?;
    writer.metadata("imatrix.chunk_size", chunk_tokens as u32)?;
    let mut names: Vec<_> = imatrix.keys().collect();
    names.sort();
    for name in names {
        let statistics = &imatrix[name];
        let bytes: Vec<u8> =
            statistics.sum_squares.iter().flat_map(|sum| (*sum as f32).to_le_bytes()).collect();
        writer.tensor(format!("{name}{SUMS}"), &[statistics.columns() as u64, 1], TensorType::F32, bytes)?;
        let count = (statistics.count as f32).to_le_bytes().to_vec();
        writer.tensor(format!("{name}{COUNTS}"), &[1, 1], TensorType::F32, count)?;
    }
    Ok(writer.write_file(path)?)
}
