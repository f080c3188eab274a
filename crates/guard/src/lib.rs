//! docs
#![allow(clippy::result_large_err, reason = "reasons are inline: the cycle has no heap to box them")]

mod approved;
mod brain;
mod breaker;
mod envelope;
mod error;
mod guard;
pub mod limits;
mod mode;
mod modes;
mod registers;
mod sense;
mod status;
mod tags;
mod text;

pub use approved::Approved;
pub use breaker::{Breaker, BreakerState};
pub use envelope::Checked;
pub use error::GuardError;
pub use ganglion_audit::{Record, RecordKind, Source, Verdict};
pub use guard::Guard;
pub use mode::{Mode, ModeEvent};
pub use registers::{RawWrite, RawWrites, register_writes};
pub use status::*;
pub use tags::{Quality, TagSample, TagTable};
