//! Offline work on models. What there is so far: [`measure`], what a change of a model's weights costs.
//!
//! # Data flow
//! ```text
//! text ─Tokenizer─► tokens ─windows─► Session of the model ──────► log-probabilities ─► Measured
//!                                └──► Session of a reference ────────────┘
//! ```
//!
//! # What it does not do
//! Nothing here runs while a plant is controlled, and nothing changes a model yet.

mod error;
pub mod limits;
mod measure;

pub use error::{CompressError, Result};
pub use measure::{Divergence, Measured, Subject, Windows, measure};
