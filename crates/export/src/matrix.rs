//! Weights out of a file: rows as floats or blocks, in the order that an export wants.

use ganglion_gguf::Gguf;
use ganglion_kernels::{BlockFormat, dequantize, quantize};
use ganglion_llm::{MatrixPart, block_format};

use crate::error::{ExportError, Result};

/// Values of a quantised block.
pub(crate) const BLOCK: usize = 32;
/// Bytes of the scale that a block of Q8_0 or Q4_0 begins with.
pub(crate) const SCALE_BYTES: usize = 2;
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

/// Refuses types whose rows cannot be read one by one.
pub(crate) fn check_types(gguf: &Gguf, form: &'static str, architecture: &'static str) -> Result<()> {
    for info in gguf.tensors() {
        let format = block_format(info)?;
        if !format.is_blockwise() {
            return Err(ExportError::Unsupported {
                form,
                architecture,
                what: "the type of a matrix",
                found: format.name().to_owned(),
                expected: "one of GGUF's; export the model that was quantised".to_owned(),
            });
        }
    }
    Ok(())
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

    fn bytes(&self, row: usize) -> Result<&'a [u8]> {
        let size = self.part.format.size_bytes(self.part.k).unwrap_or(0);
        Ok(&self.part.bytes(self.gguf)?[self.order.source(row) * size..][..size])
    }

    /// One row, (k).
    pub(crate) fn values(&self, row: usize, out: &mut [f32]) -> Result<()> {
        Ok(dequantize(self.part.format, self.bytes(row)?, out)?)
    }

    /// One row in another type; as it is stored, if that is the type.
    pub(crate) fn stored(&self, row: usize, format: BlockFormat, out: &mut Vec<u8>) -> Result<()> {
        out.clear();
        if format == self.part.format {
            out.extend_from_slice(self.bytes(row)?);
            return Ok(());
        }
        let mut values = vec![0.0; self.part.k];
        self.values(row, &mut values)?;
        if format == BlockFormat::F16 {
            check_half(&self.part.tensor, &values)?;
        }
        out.resize(format.size_bytes(self.part.k).unwrap_or(0), 0);
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
