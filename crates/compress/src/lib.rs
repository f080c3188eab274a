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
//!
//! text ─windows─► both models, layer by layer ─► prune_file: fewer layers, heads, channels, values of the stream
//!            └──► Calibrator ─► sparsify_file: zeros; factorize_file: two factors for a matrix
//! ```
//! The methods ([`Method`]) only choose quants and scales, or move factors between neighbouring tensors: what comes out is an
//! ordinary GGUF file of the same architecture, and of pruning a smaller one. Only factors and the types of our own are for this engine alone.
//!
//! # What it does not do
//! Nothing here runs while a plant is controlled. No training.

mod calibrate;
mod device;
mod error;
mod factorize;
mod fold;
mod gradient;
mod imatrix;
pub mod limits;
mod linalg;
mod measure;
mod methods;
mod mix;
mod optimize;
mod output;
mod prune;
mod quantize;
mod ranges;
mod scatter;
mod statistics;

pub use calibrate::Calibrator;
pub use device::{Device, LayerTime, ProductTime};
pub use error::{CompressError, Result};
pub use factorize::{FactorizeOptions, FactorizeReport, FactorizedMatrix, factorize_file};
pub use gradient::{Gradients, Loss, MatrixGradient, Outputs};
pub use imatrix::{Imatrix, read_imatrix, write_imatrix};
pub use measure::{Divergence, Measured, Subject, Windows, measure};
pub use methods::{MatrixRef, Method, Needs, quantize_matrix};
pub use mix::{FileType, Mix};
pub use optimize::{
    Alternative, Budget, FrontPoint, Goal, OptimizeOptions, OptimizeReport, Reshape, ReshapeTried, Stage,
    TensorChoice, TokenWeight, Verdict, Workload, optimize_file,
};
pub use prune::{
    Importance, Pattern, PruneOptions, PruneReport, SparseMethod, SparseOptions, SparseReport, prune_file,
    sparsify_file,
};
pub use quantize::{Knowledge, Progress, QuantizeOptions, QuantizeReport, quantize_file};
pub use ranges::{Magnitudes, Range};
pub use scatter::{Point, front, scatter};
pub use statistics::Statistics;
