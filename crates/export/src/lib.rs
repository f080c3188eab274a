//! Models in the forms of other programs: ONNX graphs, and C99 for microcontrollers.
//!
//! # Data flow
//! ```text
//!                     ┌─ onnx: Decoder ─► Graph ─► OUT.onnx (and OUT.onnx.data)
//! Gguf ─► Anatomy ────┤
//!                     └─ c: Tables + runtime.c ─► OUT.c, OUT.h
//! ```
//! Both read the same [`ganglion_llm::Anatomy`] that the engine's loader reads, so that an architecture is described once. Hugging Face
//! folders are written by `ganglion_llm::convert`, which also reads them.
//!
//! # Example
//! ```no_run
//! use ganglion_export::{OnnxOptions, write_onnx};
//! let gguf = ganglion_gguf::Gguf::open("model.gguf")?;
//! let report = write_onnx(&gguf, "model.onnx".as_ref(), OnnxOptions::default(), &mut |_| ())?;
//! println!("{} bytes", report.size_bytes);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What it does not do
//! Nothing here runs while a plant is controlled. Tokenizers are not exported to ONNX and C: both take and give token ids. C has no
//! mixtures of experts.

mod c;
mod error;
pub mod limits;
mod matrix;
mod onnx;
mod output;

pub use c::{COptions, CReport, write_c};
pub use error::{ExportError, Result};
pub use onnx::{OnnxOptions, OnnxReport, write_onnx};

/// How far an export has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of weights written.
    pub done_bytes: u64,
    /// Bytes of all weights.
    pub total_bytes: u64,
}
