//! Recordings of a guard: every input of every cycle, and the cycles run again from there.
//!
//! ```text
//! guard's thread                          recorder's thread                        later, anywhere
//! Recorded<Port> ─► Tape ══ byte ring ══► Writer ─► record-000001.grec, …   ─────► Replay: Guard::cycle again,
//!   inputs, outputs, states                  └────► the last minutes ─ fault ─► fault-000001.grec   byte by byte
//! ```
//!
//! * [`Tape`] writes what [`Guard::cycle`](ganglion_guard::Guard::cycle) is given and what comes out of it, as differences to
//!   the cycle before, and every ten seconds the whole state. It never waits, allocates or locks; what finds no room is
//!   lost, counted, and followed by a state.
//! * [`Writer`] keeps files within a size (the oldest go), and the last minutes in memory for the case of a fault.
//! * [`replay`](replay()) runs the cycles again and compares every output bit for bit; states are compared too. With a
//!   [`Decides`], the brain's decisions as well. It stops at the first [`Difference`].
//! * Sentences are not kept unless asked for: stand-ins take their place, and the guard's part is replayed all the same.
//!
//! What it does not do: it is not tamper-evident (the audit log is), and it does not sign or encrypt.

mod error;
mod frame;
pub mod limits;
mod port;
mod reader;
mod replay;
mod store;
mod tape;
#[cfg(test)]
mod tests;
mod writer;

pub use error::RecordError;
pub use port::Recorded;
pub use reader::{Header, Recording, files};
pub use replay::{Again, Damage, Decides, Difference, ModelReport, Report, replay};
pub use tape::{Fault, Tape};
pub use writer::{About, Health, Options, Writer, fingerprint};
