//! Ways in and out: operator lines and scripts in, the plant's tags in, commands out.
//!
//! Data flow: [`lines`] and [`script`] turn text into [`Input`]; [`modbus::Driver`] polls tags into a [`modbus::TagSink`] and
//! writes what a [`modbus::CommandSource`] gives it; [`encode`] is the only place where engineering values become
//! registers and back.
//!
//! ```
//! use ganglion_io::encode::decode_register;
//!
//! assert_eq!(decode_register(205, 0.5), 102.5);
//! assert_eq!(decode_register(0xFFFF, 0.5), -0.5);
//! ```
//!
//! What it does not do: check limits or decide anything (the guard does), keep or retry a command that could not be
//! written, start threads or a runtime on its own account (except [`lines::spawn_lines`]), or print.

pub mod csv;
pub mod encode;
mod error;
pub mod limits;
pub mod lines;
pub mod modbus;
pub mod script;

pub use error::Error;
pub use lines::{Input, ModeWord};
pub use script::{Script, ScriptItem};
