//! docs
#![allow(clippy::result_large_err, reason = "reasons are inline: the cycle has no heap to box them")]

mod approved;
mod brain;
mod breaker;
mod channels;
mod envelope;
mod error;
mod guard;
pub mod limits;
mod mode;
mod modes;
mod registers;
mod rt;
mod runner;
mod sense;
mod status;
mod supervisor;
mod tags;
mod text;

pub use approved::Approved;
pub use breaker::{Breaker, BreakerState};
pub use channels::{Channels, Outside, Signals};
pub use envelope::Checked;
pub use error::GuardError;
pub use ganglion_audit::{Record, RecordKind, Source, Verdict};
pub use guard::Guard;
pub use mode::{Mode, ModeEvent};
pub use registers::{RawWrite, RawWrites, register_writes};
pub use rt::{RtStatus, go_real_time, monotonic_us};
pub use runner::{LoopStats, Port, Runner};
pub use status::*;
pub use supervisor::{BrainChannel, Supervisor};
pub use tags::{Quality, TagSample, TagTable};
