//! The site file: the one place where a tag or a command is defined, and everything derived from it.

pub mod command;
pub mod frame;
pub mod limits;
mod site;

pub use command::{
    ArgumentKind, ArgumentSpec, Command, CommandSpec, RegisterWrite, ShortText, Value, WriteSource,
    WriteTarget,
};
pub use frame::{Decision, Epoch, Event, InlineText, Micros, Outcome, Reason, Sentence, Timings};
pub use site::*;
