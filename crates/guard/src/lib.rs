//! The safety layer: code without a model that decides whether a command may reach the plant.
//!
//! ```text
//! tags, link ─┐                                              ┌─► Actuation { Approved<Command> } ─► driver
//! event ──────┤   Guard::cycle(now, input)                   ├─► event to the brain (epoch, deadline)
//! decision ───┼─► modes → brain watch → answers → events ────┼─► kill and restart the brain
//! operator ───┤   → deadline → rule controller → safe        ├─► records for the audit log
//! brain alive ┘                                              └─► status, heartbeat
//! ```
//!
//! * [`Guard`] is pure: time is an argument, a cycle never waits, allocates, locks or panics, equal inputs give equal
//!   outputs. [`Runner`] is the loop around it, [`Port`] its hands, [`Channels`] the real ones, [`Supervisor`] the thread
//!   that keeps a brain running.
//! * An event goes to the brain only in Execute, with a closed breaker, a ready brain and usable prompt tags. An answer in
//!   time is judged: form, mode, link, tags, limits, rates, register encoding. No answer at the deadline: the rule
//!   controller's command goes out in that very cycle, or the safe command.
//! * A deadline runs from the cycle that takes the event up. The brain is told a slightly earlier one, and the guard looks
//!   for the last time 1 ms before it, so that the command leaves before the deadline and not after.
//! * While the brain does not count (lost, loading, breaker not closed) the rule controller is the only writer: its command
//!   is judged anew each cycle and sent when it changes. A half-open breaker asks in shadow; with no events to shadow it
//!   asks a question of its own (empty sentence, `dry_run`).
//! * A brain with nothing to do sends a [`Decision`](ganglion_site::Decision) with epoch 0 at least every quarter of
//!   `brain_timeout_ms`, the first one when its model is loaded. Silence beyond the timeout kills it.
//! * A restarted guard is Stopped. A lost link holds; Execute resumes when the link is back and the device's watchdog armed.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use ganglion_guard::{Guard, Verdict};
//! use ganglion_site::{Command, Site};
//! let text = r#"
//! name = "lamp"
//! [model]
//! path = "nano.gguf"
//! [guard]
//! safe = { action = "dim", percent = 0 }
//! [[command]]
//! name = "dim"
//! about = "brightness"
//! arguments = [{ name = "percent", integer = [0, 100], unit = "%" }]
//! [[limit]]
//! on = "dim.percent"
//! hi = 80
//! "#;
//! let site = Site::parse(text, std::path::Path::new("site.toml"))?;
//! let guard = Guard::new(&site)?;
//! let checked = guard.check(&Command::from_json(&site, r#"{"action":"dim","percent":90}"#)?, &[]);
//! assert_eq!(checked.verdict, Verdict::Rejected);
//! assert_eq!(checked.reason.as_str(), "dim.percent 90 % is above its limit 80 %");
//! # Ok(())
//! # }
//! ```
//!
//! What it does not do: it holds no model, no async runtime and no socket to the plant; it is not the emergency stop
//! (that is an input to it), and it claims no SIL or PL. See `docs/safety.md`.
#![allow(clippy::result_large_err, reason = "reasons are inline: the cycle has no heap to box them")]

mod announce;
mod answers;
mod approved;
mod brain;
mod breaker;
mod bucket;
mod channels;
mod condition;
mod envelope;
mod error;
#[cfg(test)]
mod exhaustive;
mod governor;
mod guard;
mod host;
mod lease;
pub mod limits;
mod mode;
mod modes;
mod operator;
mod outputs;
mod pending;
mod pi;
mod policy;
mod registers;
mod replica;
mod rt;
mod rules;
mod runner;
mod sense;
mod status;
mod supervisor;
mod tags;
mod text;
mod triggers;
mod wake;

pub use approved::Approved;
pub use breaker::{Breaker, BreakerState};
pub use channels::{Channels, Outside, Signals};
pub use envelope::Checked;
pub use error::GuardError;
pub use ganglion_audit::{Record, RecordKind, Source, Verdict};
pub use governor::{Governor, Switch};
pub use guard::{Guard, refused_for_now};
pub use host::{Host, HostReading, SysHost};
pub use mode::{Mode, ModeEvent};
pub use operator::{OperatorQueue, OperatorQueueFull};
pub use policy::{Fingerprint, News, Notice, Policy};
pub use registers::{RawWrite, RawWrites, register_writes};
pub use replica::{Actuated, Replica, Seen, stand_in};
pub use rt::{RtStatus, die_with_parent, go_real_time, lock_memory, monotonic_us};
pub use runner::{LoopStats, Port, Runner};
pub use status::*;
pub use supervisor::{BrainChannel, Supervisor};
pub use tags::{Quality, TagSample, TagTable};
pub use wake::{WakeUps, measure_wake_ups};
