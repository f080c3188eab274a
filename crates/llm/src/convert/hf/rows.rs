//! How rows of a target tensor come from its source.

use std::io::Write;

use ganglion_kernels::{BlockFormat, dequantize, quantize};

use super::folder::SourceTensor;
use crate::error::{LlmError, Result};
use crate::limits;

/// The largest number of a half.
pub(super) const HALF_MAX: f32 = 65504.0;

/// Which source row a target row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// The same.
    Same,
    /// Rotary pairs from halves (value i with i + d/2, as the source's rotary function takes them) to neighbours (2i
    /// with 2i + 1, as GGUF's `llama` does), in each of `heads` heads.
    PairsToNeighbours { heads: usize },
    /// Query, key and value of one head after the other to all queries, all keys, all values.
    HeadsToKinds { heads: usize },
    /// The source is (input, output), as the Conv1D of GPT-2 is.
    Transposed,
}

impl Order {
    /// Rows of a target and values of each, from the shape of its source.
    pub(super) fn rows_and_columns(self, shape: &[usize]) -> (usize, usize) {
        match (self, shape) {
            (Self::Transposed, [columns, rows]) => (*rows, *columns),
            (_, [rows, columns]) => (*rows, *columns),
            // A vector whose values change places is a column.
            (Self::Same, _) => (1, shape.iter().product()),
            _ => (shape.iter().product(), 1),
        }
    }

    /// The source row of target row `row` out of `rows`.
    pub(super) fn source_row(self, row: usize, rows: usize) -> usize {
        match self {
            Self::Same | Self::Transposed => row,
            Self::PairsToNeighbours { heads } => {
                let head_dim = rows / heads;
                let (head, within) = (row / head_dim, row % head_dim);
                head * head_dim + within % 2 * (head_dim / 2) + within / 2
            }
            Self::HeadsToKinds { heads } => {
                let head_dim = rows / heads / 3;
                let (kind, head, within) = (row / (heads * head_dim), row / head_dim % heads, row % head_dim);
                (head * 3 + kind) * head_dim + within
            }
        }
    }
}

/// One tensor, or several equal ones stacked, as rows of f32.
pub(super) struct Rows<'a> {
    pub(super) name: &'a str,
    pub(super) parts: Vec<SourceTensor<'a>>,
    /// Target rows of one part.
    pub(super) rows: usize,
    /// Values of a row.
    pub(super) columns: usize,
    pub(super) order: Order,
    /// Added to each value.
    pub(super) offset: f32,
}

impl Rows<'_> {
    /// Writes all rows in `format`, a bounded number at a time.
    pub(super) fn write(&self, format: BlockFormat, out: &mut dyn Write) -> std::io::Result<Result<()>> {
        let batch = (limits::CONVERT_VALUES_AT_ONCE / self.columns).clamp(1, self.rows);
        let mut values = vec![0.0; batch * self.columns];
        let mut bytes = Vec::new();
        for part in &self.parts {
            for first in (0..self.rows).step_by(batch) {
                let count = batch.min(self.rows - first);
                let values = &mut values[..count * self.columns];
                for (row, values) in (first..).zip(values.chunks_exact_mut(self.columns)) {
                    if let Err(error) = self.read_row(part, row, values) {
                        return Ok(Err(error));
                    }
                }
                // Whole rows are whole blocks: the caller chose the format so.
                bytes.resize(format.size_bytes(values.len()).unwrap_or(0), 0);
                if let Err(error) = self.check(part, format, values) {
                    return Ok(Err(error));
                }
                if let Err(error) = quantize(format, values, &mut bytes) {
                    return Ok(Err(error.into()));
                }
                out.write_all(&bytes)?;
            }
        }
        Ok(Ok(()))
    }

    fn read_row(&self, part: &SourceTensor<'_>, row: usize, values: &mut [f32]) -> Result<()> {
        let size = part.format.block_bytes();
        if self.order == Order::Transposed {
            for (column, value) in values.iter_mut().enumerate() {
                let at = (column * self.rows + row) * size;
                dequantize(part.format, &part.bytes[at..at + size], std::slice::from_mut(value))?;
            }
        } else {
            let row_bytes = self.columns * size;
            let at = self.order.source_row(row, self.rows) * row_bytes;
            dequantize(part.format, &part.bytes[at..at + row_bytes], values)?;
        }
        if self.offset != 0.0 {
            values.iter_mut().for_each(|value| *value += self.offset);
        }
        Ok(())
    }

    /// A value that the target type cannot hold would spoil every answer silently.
    fn check(&self, part: &SourceTensor<'_>, format: BlockFormat, values: &[f32]) -> Result<()> {
        let largest = if format == BlockFormat::F16 { HALF_MAX } else { f32::MAX };
        let Some(found) = values.iter().find(|value| value.is_nan() || value.abs() > largest) else {
            return Ok(());
        };
        let reason = if found.is_finite() {
            format!("tensor {} holds {found}, more than F16 can; choose bf16 or f32", self.name)
        } else {
            format!("tensor {} holds {found}; the file is damaged, fetch it again", self.name)
        };
        Err(LlmError::SourceFile { file: part.file.to_owned(), reason })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_permutations_with_known_values() {
        let rows = |order: Order, rows| (0..rows).map(|row| order.source_row(row, rows)).collect::<Vec<_>>();
        assert_eq!(rows(Order::PairsToNeighbours { heads: 2 }, 8), [0, 2, 1, 3, 4, 6, 5, 7]);
        assert_eq!(rows(Order::PairsToNeighbours { heads: 1 }, 6), [0, 3, 1, 4, 2, 5]);
        // Two heads of one value: q0 k0 v0 q1 k1 v1 → q0 q1 k0 k1 v0 v1.
        assert_eq!(rows(Order::HeadsToKinds { heads: 2 }, 6), [0, 3, 1, 4, 2, 5]);
        assert_eq!(rows(Order::HeadsToKinds { heads: 2 }, 12), [0, 1, 6, 7, 2, 3, 8, 9, 4, 5, 10, 11]);
    }
}
