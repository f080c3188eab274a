//! One decision: an event's text goes in, a typed command comes out before its deadline.
//!
//! ```text
//! Event ──prompt──► tokens ──llm──► logits of allowed rows ──grammar──► JSON ──validated twice──► Command
//!                     ▲ pinned prefix: the site's commands, tags and notes, evaluated once
//! ```
//!
//! ```no_run
//! # use ganglion_decide::{Decider, LoadedModel, Options};
//! # use ganglion_site::{Event, Site};
//! # fn f() -> Result<(), Box<dyn std::error::Error>> {
//! let site = std::sync::Arc::new(Site::load("examples/hvac".as_ref())?);
//! let gguf = ganglion_gguf::Gguf::open(&site.model.path)?;
//! let model = LoadedModel::new(&gguf, site.model.threads)?;
//! let mut decider = Decider::new(site.clone(), &model, Options::default())?;
//! let start = std::time::Instant::now();
//! let decision = decider.decide(&Event::new(1, 80_000), &mut || start.elapsed().as_micros() as u64);
//! # Ok(()) }
//! ```
//!
//! Where the site's commands are bounded (no text arguments), a decision allocates nothing: masks are looked up in the
//! grammar's automaton, and the finished command is read a second time by code of its own.
//!
//! It never actuates and knows no limits beyond the schema: what may happen is the guard's to say.

pub mod calibrate;
mod choice;
mod cost;
mod decider;
mod declined;
mod doubt;
mod error;
mod exchange;
mod guess;
mod join;
pub mod limits;
mod loaded;
mod memo;
mod prompt;
mod reader;
mod slot;
pub mod suite;
mod windows;

pub use choice::Confidence;
pub use decider::{Decider, Options};
pub use declined::ran_out_of_time;
pub use error::{DecideError, Result};
pub use exchange::Exchange;
pub use ganglion_llm::MemoryPlan;
pub use join::{Join, Joined};
pub use loaded::{LoadedModel, check_fit, memory_plan};
pub use prompt::Prompt;
pub use windows::{Window, Windows};
