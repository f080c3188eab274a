//! The matrices of a model in a fixed order, and their packing on all threads.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};

use ganglion_gguf::{Gguf, Header};
use ganglion_kernels::{BlockFormat, Matrix, PackedBytes, Pool, dequantize_matrix, rotation_width};

use crate::config::Config;
use crate::error::{LlmError, Result};
use crate::format::block_format;
use crate::tensors::{Source, Wanted, Weights};

/// One matrix of the model: a tensor, or some of its rows.
#[derive(Debug, Clone, PartialEq)]
pub struct MatrixPart {
    /// Name of the tensor.
    pub tensor: String,
    /// How it is stored.
    pub format: BlockFormat,
    /// Output rows.
    pub rows: usize,
    /// Values of a row.
    pub k: usize,
    /// Where its rows are among the bytes of the tensor.
    source: Range<usize>,
    /// Where it is among the packed bytes of all parts.
    pub(crate) packed: Range<usize>,
    input_scale: Option<f32>,
}

impl MatrixPart {
    /// Its rows as the file stores them.
    ///
    /// # Errors
    /// [`ganglion_gguf::GgufError`] if the file is not the one that the part was listed from.
    pub fn bytes<'a>(&self, gguf: &'a Gguf) -> Result<&'a [u8]> {
        Ok(&gguf.tensor_bytes(&self.tensor)?[self.source.clone()])
    }

    /// All its values, (rows, k).
    ///
    /// # Errors
    /// As [`Self::bytes`].
    pub fn values(&self, gguf: &Gguf) -> Result<Vec<f32>> {
        let mut values = vec![0.0; self.rows * self.k];
        dequantize_matrix(self.format, self.k, self.bytes(gguf)?, &mut values)?;
        Ok(values)
    }

    /// Its weights in the kernels' layout.
    pub(crate) fn pack(&self, gguf: &Gguf) -> Result<Matrix> {
        let matrix = Matrix::pack(&self.tensor, self.format, self.rows, self.k, self.bytes(gguf)?)?;
        Ok(matrix.with_input_scale(self.input_scale))
    }

    /// A matrix over weights that were packed before.
    pub(crate) fn over(&self, packed: PackedBytes) -> Result<Matrix> {
        let matrix = Matrix::from_packed(&self.tensor, self.format, self.rows, self.k, packed)?;
        Ok(matrix.with_input_scale(self.input_scale))
    }
}

/// Lists the parts in the order in which [`Weights::read`] asks for them.
struct Lister<'a> {
    header: &'a Header,
    config: &'a Config,
    parts: Vec<MatrixPart>,
}

impl Source for Lister<'_> {
    type Matrix = ();
    type Vector = ();

    fn header(&self) -> &Header {
        self.header
    }

    fn matrices(&mut self, tensor: &Wanted, rows: &[usize]) -> Result<Option<Vec<()>>> {
        let Some(info) = tensor.find(self.header)? else { return Ok(None) };
        let (format, k) = (block_format(info)?, info.shape[0] as usize);
        let (mut first, mut packed) = (0, self.parts.last().map_or(0, |part| part.packed.end));
        // The rows of a part are rotated by themselves.
        let width = |rows: usize| rotation_width(rows);
        let whole = info.shape.get(1).map_or(1, |rows| *rows as usize);
        if format.trellis_bits().is_some() && rows.iter().any(|rows| width(*rows) != width(whole)) {
            let expected = "another type: its parts are not whole rotations";
            return Err(LlmError::TensorType {
                tensor: info.name.clone(),
                found: info.dtype.name(),
                expected,
            });
        }
        for rows in rows {
            // `check_tensors` has found all sizes in bounds.
            let bytes = format.matrix_bytes(*rows, k).unwrap_or(0);
            let length = Matrix::packed_bytes(format, *rows, k).unwrap_or(0);
            self.parts.push(MatrixPart {
                tensor: tensor.name.clone(),
                format,
                rows: *rows,
                k,
                source: first..first + bytes,
                packed: packed..packed + length,
                input_scale: self.config.activation_scale(&tensor.name),
            });
            (first, packed) = (first + bytes, packed + length);
        }
        Ok(Some(vec![(); rows.len()]))
    }

    fn vectors(&mut self, tensor: &Wanted, lengths: &[usize]) -> Result<Option<Vec<()>>> {
        Ok(tensor.find(self.header)?.map(|_| vec![(); lengths.len()]))
    }
}

/// Every matrix of a file that [`crate::tensors::check_tensors`] has accepted.
pub(crate) fn list(header: &Header, config: &Config) -> Result<Vec<MatrixPart>> {
    let mut lister = Lister { header, config, parts: Vec::new() };
    Weights::read(&mut lister, config)?;
    Ok(lister.parts)
}

/// Packs all parts, a part at a time on each thread, and hands each to `take` with its index.
///
/// # Errors
/// The first that any part or `take` met.
pub(crate) fn pack_all(
    pool: &Pool,
    gguf: &Gguf,
    parts: &[MatrixPart],
    take: &(dyn Fn(usize, Matrix) -> Result<()> + Sync),
) -> Result<()> {
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(None));
    pool.run(&|_| {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(part) = parts.get(index) else { return };
            if let Err(error) = part.pack(gguf).and_then(|matrix| take(index, matrix)) {
                next.store(parts.len(), Ordering::Relaxed);
                failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get_or_insert(error);
            }
        }
    });
    failed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).map_or(Ok(()), Err)
}

/// All parts in memory of this process.
pub(crate) fn pack_into_memory(pool: &Pool, gguf: &Gguf, parts: &[MatrixPart]) -> Result<Vec<Matrix>> {
    let packed: Vec<OnceLock<Matrix>> = parts.iter().map(|_| OnceLock::new()).collect();
    pack_all(pool, gguf, parts, &|index, matrix| {
        let fresh = packed[index].set(matrix).is_ok();
        debug_assert!(fresh, "every index is taken once");
        Ok(())
    })?;
    Ok(packed.into_iter().filter_map(OnceLock::into_inner).collect())
}
