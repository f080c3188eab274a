//! The site file: the one place where a tag or a command is defined, and everything derived from it.
//!
//! ```text
//! site.toml ─► Site ─┬─► JSON Schema of the commands ─► grammar, API
//!                    ├─► prompt prefix, event text   ─► model
//!                    ├─► limits, rules, safe command ─► guard
//!                    └─► register and tag tables     ─► adapters, integrator
//! ```
//!
//! ```
//! use ganglion_site::{Command, Site};
//!
//! let text = r#"
//!     name = "lamp"
//!     [model]
//!     path = "lamp.gguf"
//!     [[command]]
//!     name = "dim"
//!     arguments = [{ name = "percent", integer = [0, 100], unit = "%" }]
//! "#;
//! let site = Site::parse(text, "site.toml".as_ref())?;
//! let command = Command::from_json(&site, r#"{"action":"dim","percent":30}"#)?;
//! assert_eq!(command.describe(&site), "dim percent=30 %");
//! assert_eq!(site.prompt_prefix(), "site lamp\ndo dim percent=0..100 %\n");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Also here: [`Event`] and [`Decision`], the two fixed-size messages between guard and brain.
//!
//! What this crate does not do: it opens no connection, reads no clock, loads no model, and does not decide whether a
//! command may act. [`Command::check`] says that a command is one of the site's; only the guard approves it.

pub mod command;
mod error;
pub mod frame;
mod json;
mod kept;
pub mod limits;
mod number;
mod parse;
mod prompt;
mod schema;
mod site;
mod tables;
mod tag;
mod units;
mod value;
mod wire;

pub use command::{
    ArgumentKind, ArgumentSpec, Command, CommandSpec, RegisterWrite, ShortText, Value, WriteSource,
    WriteTarget,
};
pub use error::{CommandError, FrameError, Problem, SiteError, TagValueError};
pub use frame::{
    BrainMessage, Decision, Epoch, Event, InlineText, Micros, Outcome, Progress, Reason, Sentence, TagValues,
    Timings,
};
pub use kept::{RecordKeep, RecordSpec, SwitchSpec, Variant};
pub use prompt::PROMPT_FORM;
pub use site::*;
pub use units::{UNITS, Unit, find_unit};
pub use wire::{DECISION_FRAME_BYTES, EVENT_FRAME_BYTES, PROGRESS_FRAME_BYTES, crc32};
