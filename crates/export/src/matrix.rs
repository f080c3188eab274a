//! Weights out of a file: rows as floats or blocks, in the order that an export wants.

use ganglion_gguf::Gguf;
use ganglion_kernels::{BlockFormat, dequantize, dequantize_matrix, quantize};
use ganglion_llm::MatrixPart;

use crate::error::{ExportError, Result};

/// Values of a quantised block.
pub(crate) const BLOCK: usize = 32;
/// Bytes of the scale that a block of Q8_0 or Q4_0 begins with.
const SCALE_BYTES: usize = 2;
/// The largest number of a half.
const HALF_MAX: f32 = 65504.0;

/// Which row of the file a row of the export is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RowOrder {
    /// The same.
    Same,
    /// The first `rotated` of every `head_dim` rows go from neighbours (2i with 2i + 1) to halves (i with i + rotated / 2).
    NeighboursToHalves { head_dim: usize, rotated: usize },
}

impl RowOrder {
    pub(crate) fn source(self, row: usize) -> usize {
        match self {
            Self::Same => row,
            Self::NeighboursToHalves { head_dim, rotated } => {
                let (first, within) = (row / head_dim * head_dim, row % head_dim);
                let pairs = rotated / 2;
                first
                    + match within {
                        _ if within < pairs => 2 * within,
                        _ if within < rotated => 2 * (within - pairs) + 1,
                        _ => within,
                    }
            }
        }
    }

    /// A vector with one value a row.
    pub(crate) fn vector(self, values: &[f32]) -> Vec<f32> {
        (0..values.len()).map(|row| values[self.source(row)]).collect()
    }
}

/// A matrix of a model, and how its rows are ordered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rows<'a> {
    pub(crate) gguf: &'a Gguf,
    pub(crate) part: &'a MatrixPart,
    pub(crate) order: RowOrder,
}

impl<'a> Rows<'a> {
    pub(crate) fn new(gguf: &'a Gguf, part: &'a MatrixPart, order: RowOrder) -> Self {
        Self { gguf, part, order }
    }

    /// A way to its rows; one in a type that rotates rows among each other is dequantised here.
    pub(crate) fn open(self) -> Result<Reader<'a>> {
        let MatrixPart { format, k, .. } = *self.part;
        let by_row = format.block_rows() == 1;
        let row_bytes = format.matrix_bytes(1, k).filter(|_| by_row).unwrap_or(0);
        let values = if by_row { Vec::new() } else { self.part.values(self.gguf)? };
        Ok(Reader { rows: self, bytes: self.part.bytes(self.gguf)?, row_bytes, values })
    }
}

/// A matrix that is being read, row by row of the export.
pub(crate) struct Reader<'a> {
    rows: Rows<'a>,
    bytes: &'a [u8],
    /// Bytes of a row; 0: rows are not stored one by one.
    row_bytes: usize,
    /// All values, where rows are not stored one by one.
    values: Vec<f32>,
}

impl Reader<'_> {
    /// One row as the file stores it.
    ///
    /// # Panics
    /// If rows of its type are not stored one by one.
    pub(crate) fn bytes(&self, row: usize) -> &[u8] {
        assert!(self.row_bytes > 0, "rows are stored one by one");
        &self.bytes[self.rows.order.source(row) * self.row_bytes..][..self.row_bytes]
    }

    /// One row, (k).
    pub(crate) fn values(&self, row: usize, out: &mut [f32]) -> Result<()> {
        let MatrixPart { format, k, .. } = *self.rows.part;
        if self.row_bytes == 0 {
            out.copy_from_slice(&self.values[self.rows.order.source(row) * k..][..k]);
            return Ok(());
        }
        Ok(dequantize_matrix(format, k, self.bytes(row), out)?)
    }

    /// One row in another type; as it is stored, if that is the type.
    pub(crate) fn stored(&self, row: usize, format: BlockFormat, out: &mut Vec<u8>) -> Result<()> {
        let MatrixPart { tensor, k, .. } = self.rows.part;
        out.clear();
        if format == self.rows.part.format {
            out.extend_from_slice(self.bytes(row));
            return Ok(());
        }
        let mut values = vec![0.0; *k];
        self.values(row, &mut values)?;
        if format == BlockFormat::F16 {
            check_half(tensor, &values)?;
        }
        out.resize(format.size_bytes(*k).unwrap_or(0), 0);
        Ok(quantize(format, &values, out)?)
    }
}

fn check_half(tensor: &str, values: &[f32]) -> Result<()> {
    match values.iter().find(|value| value.abs() > HALF_MAX) {
        Some(found) => {
            let expected = "at most 65504 for f16; choose f32";
            Err(ExportError::Value { tensor: tensor.to_owned(), found: *found, expected })
        }
        None => Ok(()),
    }
}

/// The scale of a stored block of Q8_0 or Q4_0, as the half that it is, and its quants.
pub(crate) fn block_parts(block: &[u8]) -> (u16, &[u8]) {
    let (scale, quants) = block.split_at(SCALE_BYTES);
    (u16::from_le_bytes([scale[0], scale[1]]), quants)
}

/// The scale in front of a stored row of I8_ROW, and its quants.
pub(crate) fn row_parts(row: &[u8]) -> (f32, &[u8]) {
    let (scale, quants) = row.split_at(BlockFormat::I8_ROW.row_bytes());
    (f32::from_le_bytes([scale[0], scale[1], scale[2], scale[3]]), quants)
}

/// A half as a float.
pub(crate) fn half_to_f32(half: u16) -> Result<f32> {
    let mut out = [0.0];
    dequantize(BlockFormat::F16, &half.to_le_bytes(), &mut out)?;
    Ok(out[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_become_halves_within_each_head() {
        let rows = |order: RowOrder, count| (0..count).map(|row| order.source(row)).collect::<Vec<_>>();
        let order = RowOrder::NeighboursToHalves { head_dim: 4, rotated: 4 };
        assert_eq!(rows(order, 8), [0, 2, 1, 3, 4, 6, 5, 7]);
        let partial = RowOrder::NeighboursToHalves { head_dim: 6, rotated: 4 };
        assert_eq!(rows(partial, 12), [0, 2, 1, 3, 4, 5, 6, 8, 7, 9, 10, 11]);
        assert_eq!(order.vector(&[1.0, 2.0, 3.0, 4.0]), [1.0, 3.0, 2.0, 4.0]);
    }
}
