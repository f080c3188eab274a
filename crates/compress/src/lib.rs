//! Offline work on models: making them smaller (quantisation, pruning), and what that costs.
//!
//! # Data flow
//! ```text
//! Gguf ─Mix─► a type for each tensor ─┐
//! text ─Calibrator─► Statistics ──────┼─ quantize_file, layer by layer ─► OUT.part + OUT.journal ─► OUT
//! imatrix file ─► Statistics ─────────┘
//!
//! text ─Tokenizer─► tokens ─windows─► Session of the model ──────► log-probabilities ─► Measured
//!                                └──► Session of a reference ────────────┘
//! ```
//! The methods ([`Method`]) only choose quants and scales, or move factors between neighbouring tensors: what comes out is an
//! GGUF file of the same architecture.
//!
//! # What it does not do
//! Nothing here runs while a plant is controlled. No training.

mod calibrate;
mod error;
mod fold;
mod imatrix;
pub mod limits;
mod linalg;
mod measure;
mod methods;
mod mix;
mod output;
mod prune;
mod quantize;
mod ranges;
mod scatter;
mod statistics;

pub use calibrate::Calibrator;
pub use error::{CompressError, Result};
pub use imatrix::{Imatrix, read_imatrix, write_imatrix};
pub use measure::{Divergence, Measured, Subject, Windows, measure};
pub use methods::{MatrixRef, Method, Needs, quantize_matrix};
pub use mix::{FileType, Mix};
pub use prune::{PruneOptions, PruneReport, prune_file};
pub use quantize::{Knowledge, Progress, QuantizeOptions, QuantizeReport, quantize_file};
pub use ranges::{Magnitudes, Range};
pub use scatter::{Point, front, scatter};
pub use statistics::Statistics;
