//! The one error type of the crate.

use crate::BlockFormat;

/// What packing or converting weights can refuse.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// The number of values does not divide into whole blocks.
    #[error(
        "{name}: {count} values in a row, but {format} needs a multiple of {block}; use F16 for this tensor"
    )]
    PartialBlock {
        /// Tensor, or the operation.
        name: String,
        /// Values found.
        count: usize,
        /// Format asked for.
        format: BlockFormat,
        /// Block length of the format.
        block: usize,
    },
    /// Byte length and shape disagree.
    #[error("{name}: {found} bytes, but its shape needs {expected}; the file is damaged or truncated")]
    ByteLength {
        /// Tensor, or the operation.
        name: String,
        /// Bytes found.
        found: usize,
        /// Bytes the shape needs.
        expected: usize,
    },
    /// A side of a matrix is zero or beyond the limit.
    #[error("{name}: shape {rows} x {k} is outside 1..={max} a side")]
    Shape {
        /// Tensor.
        name: String,
        /// Rows found.
        rows: usize,
        /// Row length found.
        k: usize,
        /// Largest side.
        max: usize,
    },
    /// A weight that is no number.
    #[error("value {index} to quantise is {found}, but weights must be finite; the source is damaged")]
    NotFinite {
        /// Place among the values.
        index: usize,
        /// Value found.
        found: String,
    },
    /// A weight beyond the range of a format.
    #[error("value {index} to quantise is {found}, too large for {format}; use BF16 or F32 for this tensor")]
    TooLarge {
        /// Place among the values.
        index: usize,
        /// Value found.
        found: String,
        /// Format asked for.
        format: BlockFormat,
    },
    /// A block for a sparse format that is not sparse.
    #[error(
        "a block of 32 has {found} values that are not zero, but {format} stores 16: prune the model first (--sparsity 2:4 or 16:32), or store this tensor as Q8_0"
    )]
    Dense {
        /// Values found that are not zero.
        found: usize,
        /// Format asked for.
        format: BlockFormat,
    },
    /// A block of a sparse format whose mask is none.
    #[error(
        "{name}: block {block} says that it stores {found} of its 32 values, expected {expected}; the file is damaged"
    )]
    Mask {
        /// Tensor, or the operation.
        name: String,
        /// Place of the block.
        block: usize,
        /// Values found.
        found: usize,
        /// Values that a block stores.
        expected: usize,
    },
    /// A thread count that cannot be used.
    #[error("{found} threads asked for; give 1 to {max}")]
    Threads {
        /// Count found.
        found: usize,
        /// Largest count.
        max: usize,
    },
    /// The system refused a worker thread.
    #[error("a worker thread did not start ({reason}); lower the thread count")]
    Spawn {
        /// The system's message.
        reason: String,
    },
}
