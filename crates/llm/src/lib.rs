//! Decoders over GGUF, dense and sparse: from token ids to logits.
//!
//! # Data flow
//! ```text
//! Gguf ─Model::memory_plan─► MemoryPlan           (before anything is loaded)
//! Gguf ─Model::load────────► Model ─Session::new─► Session
//! tokens ─prefill / step──► hidden states ─logits_rows / logits_all─► f32 logits
//!                truncate(pinned prefix) ◄─ next event
//! ```
//! Logits are the same bits for any thread count, batch size, instruction set and cache state
//! (`ganglion_kernels` says how); `tests/determinism.rs` shows it.
//!
//! # Example
//! ```no_run
//! use ganglion_llm::{Model, ModelOptions, Session, SessionOptions};
//! use std::sync::Arc;
//! let gguf = ganglion_gguf::Gguf::open("model.gguf")?;
//! let options = SessionOptions::new(1024);
//! println!("{} bytes", Model::memory_plan(&gguf, &options, 2)?.total_bytes());
//! let model = Arc::new(Model::load(&gguf, ModelOptions::default())?);
//! let mut session = Session::new(model, options)?;
//! session.prefill(&[1, 15, 27], &mut || false)?; // the pinned prefix
//! let prefix = session.position();
//! for event in [[40, 41], [50, 51]] {
//!     session.truncate(prefix)?;
//!     session.prefill(&event, &mut || false)?;
//!     let mut logits = [0.0; 2];
//!     session.logits_rows(&[7, 9], &mut logits)?;
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What it does not do
//! It has no clock (deadlines are callbacks), masks nothing, and draws no random number in an evaluation: [`Sampler`] is for
//! free text only. It runs the GGUF architectures listed in `arch/`; another one is refused with their names. No encoders, no
//! images, no Mixtral (experts in a `llama` file), no state-space layers.

mod anatomy;
mod arch;
mod blocks;
mod config;
pub mod convert;
mod error;
mod format;
mod generate;
mod kv_file;
pub mod limits;
mod model;
mod packed_file;
mod parts;
mod plan;
mod prefix_file;
mod profile;
mod sampling;
mod sequence;
mod session;
mod tensors;

pub use anatomy::Anatomy;
pub use arch::{
    Biases, Design, Gate, Head, LocalRope, Mixture, NormKind, NormPlace, Positions, Presence, QueryKeyNorm,
    Residual, Windows,
};
pub use blocks::{Reader, Tap};
pub use config::{Config, ExpertConfig, LayerSpec};
pub use error::{LlmError, Result};
pub use format::{block_format, tensor_type};
pub use generate::{Ending, encode_prompt, generate, generate_greedy, generate_text};
pub use model::{Model, ModelOptions};
pub use packed_file::{Loaded, PackedFolder};
pub use parts::MatrixPart;
pub use plan::MemoryPlan;
pub use prefix_file::PrefixFile;
pub use profile::{Clock, OperationTotal, Profiler, Span, Work};
pub use sampling::{Sampler, SamplingOptions};
pub use session::{Overflow, Part, Session, SessionOptions};
pub use tensors::{
    Attention, Dense, Experts, FeedForward, Layer, Linear, Norm, RopeFactors, SharedExpert, Weights,
};
pub use tensors::{FACTORED, FIRST, SECOND};

pub use ganglion_kernels::KvType;

pub use ganglion_tokenizer::TokenId;
