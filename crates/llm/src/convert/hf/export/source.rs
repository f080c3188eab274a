//! Rows of a file's matrices as floats, in whatever format they are stored, and in one factor or two.

use ganglion_gguf::{Gguf, OptionalExt};
use ganglion_kernels::{BlockFormat, dequantize_matrix};

use super::tensors::Piece;
use crate::error::Result;
use crate::format::block_format;
use crate::tensors::{FIRST, SECOND};

/// Where a file holds a matrix, a stack of them, or a vector.
#[derive(Debug, Clone)]
pub(super) enum Place {
    /// In the tensor of this name.
    Whole(String),
    /// As the product of two: the second of these times the first.
    Factors([String; 2]),
}

impl Place {
    /// The tensor `name`, or the factors of the matrix that it would be.
    pub(super) fn find(gguf: &Gguf, name: &str) -> Result<Option<Self>> {
        if gguf.tensor(name).optional()?.is_some() {
            return Ok(Some(Self::Whole(name.to_owned())));
        }
        let Some(matrix) = name.strip_suffix(".weight") else { return Ok(None) };
        let factors = [FIRST, SECOND].map(|end| format!("{matrix}{end}"));
        Ok(gguf.tensor(&factors[0]).optional()?.map(|_| Self::Factors(factors)))
    }

    pub(super) fn tensors(&self) -> impl Iterator<Item = &str> {
        let names = match self {
            Self::Whole(name) => std::slice::from_ref(name),
            Self::Factors(names) => names,
        };
        names.iter().map(String::as_str)
    }
}

/// A piece that is being read.
pub(super) enum Reader<'a> {
    /// Rows that are stored one by one.
    Rows { format: BlockFormat, columns: usize, row_bytes: usize, bytes: &'a [u8] },
    /// Values of rows that are not, (rows, columns).
    Values { columns: usize, values: Vec<f32> },
    /// Two factors, (rank, columns) and (rows, rank).
    Factors { columns: usize, first: Vec<f32>, second: Vec<f32> },
}

impl<'a> Reader<'a> {
    /// Of a vector each value is a row, and `columns` is 1.
    pub(super) fn open(gguf: &'a Gguf, piece: &Piece, columns: usize) -> Result<Self> {
        let names = match &piece.place {
            Place::Factors(names) => names,
            Place::Whole(name) => return Self::open_whole(gguf, piece, name, columns),
        };
        let [first, second] = names.each_ref().map(|name| values(gguf, name));
        let (first, mut second) = (first?, second?);
        second.drain(..piece.first * (first.len() / columns));
        Ok(Self::Factors { columns, first, second })
    }

    fn open_whole(gguf: &'a Gguf, piece: &Piece, name: &str, columns: usize) -> Result<Self> {
        let info = gguf.tensor(name)?;
        let (format, bytes) = (block_format(info)?, gguf.tensor_bytes(name)?);
        if format.block_rows() == 1 {
            let row_bytes = format.matrix_bytes(1, columns).unwrap_or(0);
            return Ok(Self::Rows { format, columns, row_bytes, bytes: &bytes[piece.first * row_bytes..] });
        }
        // Each matrix of a stack is one of its own, and its rows hang together.
        let rows = info.shape.get(1).map_or(1, |rows| *rows as usize);
        let matrix_bytes = format.matrix_bytes(rows, columns).unwrap_or(0);
        let matrices = piece.first / rows..(piece.first + piece.rows).div_ceil(rows);
        let mut all = vec![0.0; matrices.len() * rows * columns];
        let stored = bytes[matrices.start * matrix_bytes..].chunks_exact(matrix_bytes);
        for (bytes, values) in stored.zip(all.chunks_exact_mut(rows * columns)) {
            dequantize_matrix(format, columns, bytes, values)?;
        }
        all.drain(..piece.first % rows * columns);
        Ok(Self::Values { columns, values: all })
    }

    /// A row of the piece.
    pub(super) fn read(&self, row: usize, out: &mut [f32]) -> Result<()> {
        match self {
            Self::Rows { format, columns, row_bytes, bytes } => {
                dequantize_matrix(*format, *columns, &bytes[row * row_bytes..][..*row_bytes], out)?;
            }
            Self::Values { columns, values } => out.copy_from_slice(&values[row * columns..][..*columns]),
            Self::Factors { columns, first, second } => {
                let rank = first.len() / columns;
                let mut sums = vec![0.0f64; *columns];
                for (factor, values) in second[row * rank..][..rank].iter().zip(first.chunks_exact(*columns))
                {
                    let factor = f64::from(*factor);
                    sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += factor * f64::from(*value));
                }
                out.iter_mut().zip(sums).for_each(|(value, sum)| *value = sum as f32);
            }
        }
        Ok(())
    }
}

/// All values of a matrix.
fn values(gguf: &Gguf, name: &str) -> Result<Vec<f32>> {
    let info = gguf.tensor(name)?;
    let mut values = vec![0.0; info.element_count() as usize];
    dequantize_matrix(block_format(info)?, info.shape[0] as usize, gguf.tensor_bytes(name)?, &mut values)?;
    Ok(values)
}
