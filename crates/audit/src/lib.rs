//! The audit log: one tamper-evident record per decision, written off the loop's thread.
//!
//! ```text
//! guard ── Record (fixed size) ──► Sink ══ ring ══► Writer's thread ── JSON line + hash ──► audit-000001.jsonl, …
//!                                                          └── count + hash, sealed with the key ──► head
//! ```
//!
//! * The guard's side, [`Sink::push`], never waits or allocates. A full queue loses the newest record, counts it, and a
//!   `gap` record says how many.
//! * Lines form a hash chain over all files; `head` vouches for the chain's end, so that edited, deleted, inserted,
//!   reordered and cut-off records are found by [`verify`]. The byte format is described in `chain.rs`.
//! * The operator's text is stored as HMAC-SHA256 under the log's own `key` file (mode 0600): short commands cannot be
//!   guessed from it, and deleting the key forgets them all.
//! * A commit that fails (disk full) is kept and tried again; [`Health::failing`] says so meanwhile. What is still not
//!   stored at the end is counted in the `lock` file, and the next writer makes a `gap` record of it.
//! * A folder has one writer at a time: it holds the `lock` file. [`verify`] and [`show`] take no lock.
//!
//! ```no_run
//! # fn main() -> Result<(), ganglion_audit::AuditError> {
//! let dir = std::path::Path::new("audit");
//! let report = ganglion_audit::verify(dir)?;
//! println!("{} records in {} files, last hash {}", report.records, report.files, report.last_hash);
//! for line in ganglion_audit::show(dir)? {
//!     println!("{}", line?.text);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! What it does not do: it does not delete old files, does not sign with a public key, and cannot stop somebody who holds
//! the `key` from rewriting everything; keep the last hash elsewhere for that.

mod chain;
mod disk;
mod error;
pub mod limits;
mod lock;
mod log;
mod record;
mod render;
mod verify;
mod writer;

pub use error::AuditError;
pub use record::{Record, RecordKind, Source, Verdict};
pub use render::Header;
pub use verify::{Line, Report, show, verify};
pub use writer::{Health, Options, Sink, Writer};
