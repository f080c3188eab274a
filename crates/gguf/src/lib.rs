//! Reads and writes GGUF v3, the one-file format of llama.cpp for models and vocabularies.
//!
//! Data flow: a path is mapped read-only ([`Gguf::open`]), its header parsed into ordered metadata and a tensor
//! directory ([`Header`]), and tensor data handed out as slices of the mapping ([`Gguf::tensor_bytes`]). The other
//! way, [`GgufWriter`] collects metadata and tensors and replaces the file in one step.
//!
//! A file is untrusted: every length is bounded ([`limits`]) and checked against the bytes left before memory is
//! taken, and what is wrong comes back as a [`GgufError`] that names the byte offset and the field.
//!
//! ```
//! use ganglion_gguf::{Gguf, GgufWriter, TensorType};
//!
//! let mut writer = GgufWriter::new();
//! writer.metadata("general.architecture", "llama")?.metadata("llama.block_count", 2u32)?;
//! writer.tensor("output_norm.weight", &[2], TensorType::F32, vec![0u8; 8])?;
//! let mut bytes = Vec::new();
//! writer.write_to(&mut bytes)?;
//!
//! let gguf = Gguf::parse(bytes)?;
//! assert_eq!(gguf.get_u32("llama.block_count")?, 2);
//! assert_eq!(gguf.tensor_bytes("output_norm.weight")?.len(), 8);
//! # Ok::<(), ganglion_gguf::GgufError>(())
//! ```
//!
//! What it does not do: interpret tensors or quantise (see `ganglion-kernels`), read older versions, big-endian
//! files or models split over several files.
//!
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

mod cursor;
mod error;
mod file;
mod header;
pub mod limits;
mod mmap;
mod tensor;
mod value;
mod writer;

pub use error::{GgufError, OptionalExt, Result};
pub use file::Gguf;
pub use header::Header;
pub use mmap::{MappedFile, TemporaryMap};
pub use tensor::{TensorInfo, TensorType};
pub use value::{Array, StringArray, Value};
pub use writer::{FileLayout, GgufWriter};
