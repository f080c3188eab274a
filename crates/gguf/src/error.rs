//! The crate's one error type.

use std::path::PathBuf;

/// Shorthand for results of this crate.
pub type Result<T, E = GgufError> = std::result::Result<T, E>;

/// What can be wrong with a GGUF file, or with a request to read or write one.
///
/// Offsets are in bytes from the start of the file; `field` says what was being read there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GgufError {
    /// Opening, mapping, writing or renaming a file failed.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was attempted: `open`, `map`, `write`, …
        action: &'static str,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// A stream that has no path could not be written.
    #[error("cannot write GGUF: {source}")]
    Write {
        /// The stream's reason.
        #[source]
        source: std::io::Error,
    },
    /// The content of a file is wrong; `cause` says how.
    #[error("{}: {cause}", path.display())]
    InFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it; never another `InFile`.
        cause: Box<GgufError>,
    },
    /// The file ends inside a field.
    #[error(
        "offset {offset}: {field} needs {needed_bytes} bytes but the file has {remaining_bytes} left; \
         the file is truncated or corrupt, fetch it again"
    )]
    Truncated {
        /// Where the field starts.
        offset: u64,
        /// What was being read.
        field: String,
        /// Bytes the field needs, at least.
        needed_bytes: u64,
        /// Bytes the file still has at `offset`.
        remaining_bytes: u64,
    },
    /// A count, length or depth is beyond what [`crate::limits`] allows.
    #[error("offset {offset}: {field} is {found}, more than the limit of {limit}")]
    LimitExceeded {
        /// Where the count or length is stored.
        offset: u64,
        /// What was being read.
        field: String,
        /// The value found.
        found: u64,
        /// The largest value accepted.
        limit: u64,
    },
    /// A field holds something the format does not allow.
    #[error("offset {offset}: {field} is {found}, expected {expected}")]
    InvalidField {
        /// Where the field is stored.
        offset: u64,
        /// What was being read.
        field: String,
        /// The value found.
        found: String,
        /// What would have been accepted.
        expected: String,
    },
    /// A tensor has a type id that this crate does not know.
    #[error("offset {offset}: tensor `{tensor}` has unknown type id {id}; convert the model to a known type")]
    UnknownTensorType {
        /// Where the type id is stored.
        offset: u64,
        /// The tensor's name.
        tensor: String,
        /// The id found.
        id: u32,
    },
    /// A metadata key or tensor name occurs twice.
    #[error("offset {offset}: {what} `{name}` occurs a second time")]
    Duplicate {
        /// Where the second one is stored; 0 when it was given to a writer.
        offset: u64,
        /// `metadata key` or `tensor`.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A metadata key that was asked for is absent.
    #[error("metadata key `{key}` is missing; the model file lacks what its architecture needs")]
    MissingKey {
        /// The key.
        key: String,
    },
    /// A metadata value has another type than was asked for.
    #[error("metadata key `{key}` holds {found}, expected {expected}")]
    WrongType {
        /// The key.
        key: String,
        /// The type (and, for numbers, the value) found.
        found: String,
        /// The type asked for.
        expected: &'static str,
    },
    /// A tensor that was asked for is absent.
    #[error("tensor `{name}` is missing; the model file lacks what its architecture needs")]
    MissingTensor {
        /// The tensor's name.
        name: String,
    },
    /// A key, value or tensor given to a writer cannot be stored.
    #[error("cannot write {what} `{name}`: {reason}")]
    Unwritable {
        /// `metadata key` or `tensor`.
        what: &'static str,
        /// Its name.
        name: String,
        /// Why not.
        reason: String,
    },
}

/// Turns "missing" into `None`, for keys and tensors that a model may leave out.
pub trait OptionalExt<T> {
    /// `Ok(None)` for [`GgufError::MissingKey`] and [`GgufError::MissingTensor`].
    ///
    /// # Errors
    /// Every other error is passed through.
    fn optional(self) -> Result<Option<T>>;
}

impl<T> OptionalExt<T> for Result<T> {
    fn optional(self) -> Result<Option<T>> {
        match self {
            Ok(value) => Ok(Some(value)),
            Err(GgufError::MissingKey { .. } | GgufError::MissingTensor { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
