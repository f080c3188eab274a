//! Commands: what a site allows ([`CommandSpec`]) and one concrete instance ([`Command`]).

use crate::frame::InlineText;
use crate::limits::{ARGUMENTS_MAX, TEXT_ARGUMENT_BYTES_MAX};

/// A verb with typed arguments, in order of criticality.
#[derive(Debug, Clone, PartialEq)]
pub struct CommandSpec {
    /// The `action` discriminator.
    pub name: String,
    /// What it does, in a few words; part of the prompt.
    pub about: String,
    /// At most [`ARGUMENTS_MAX`], most critical first.
    pub arguments: Vec<ArgumentSpec>,
    /// Modbus writes that carry the command out; empty for `none`.
    pub writes: Vec<RegisterWrite>,
    /// Index of a command without arguments that goes out as soon as this one's name is decided, while its arguments still
    /// are.
    pub announce: Option<u16>,
}

/// One argument of a command.
#[derive(Debug, Clone, PartialEq)]
pub struct ArgumentSpec {
    /// Its key in the command's JSON.
    pub name: String,
    /// What values it takes.
    pub kind: ArgumentKind,
    /// Unit symbol as printed (for example `C`, `m/s`, `%`), or empty.
    pub unit: String,
    /// What stands in for it when the deadline comes before the model has decided it. An argument without one is critical:
    /// undecided, it leaves no command.
    pub default: Option<Value>,
}

/// The type and range of an argument.
#[derive(Debug, Clone, PartialEq)]
pub enum ArgumentKind {
    /// One of the listed names.
    Enum(Vec<String>),
    /// A whole number, bounds included.
    Integer {
        /// Smallest value.
        lo: i64,
        /// Largest value.
        hi: i64,
    },
    /// A multiple of `step`, bounds included.
    Number {
        /// Smallest value.
        lo: f64,
        /// Largest value.
        hi: f64,
        /// A power of ten or its half (1, 0.5, 0.1, 0.05, …).
        step: f64,
    },
    /// `true` or `false`.
    Bool,
    /// UTF-8 text of at most `bytes_max` bytes (≤ [`TEXT_ARGUMENT_BYTES_MAX`]).
    Text {
        /// Longest value.
        bytes_max: usize,
    },
}

/// Where a command's value goes: one Modbus holding register or coil.
#[derive(Debug, Clone, PartialEq)]
pub struct RegisterWrite {
    /// Holding register or coil.
    pub target: WriteTarget,
    /// Zero-based protocol address.
    pub address: u16,
    /// Index of an enum argument whose choice index is added to `address`.
    pub select: Option<usize>,
    /// What is written.
    pub source: WriteSource,
}

/// Modbus table that a write goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteTarget {
    /// 16-bit register (function 6 or 16).
    Holding,
    /// One bit (function 5).
    Coil,
}

/// The value of a register write.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum WriteSource {
    /// Always this raw value.
    Constant(u16),
    /// An argument: enum index, integer, bool, or number; raw = round(value / scale), two's complement where negative.
    Argument {
        /// Which argument.
        index: usize,
        /// Engineering units per register count.
        scale: f64,
    },
}

/// A concrete command: indices into the site's tables, fixed size, no heap. Says nothing about whether it is allowed.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Command {
    /// Index into [`Site::commands`](crate::Site::commands).
    pub verb: u16,
    /// One value per argument of the verb; the rest is [`Value::Absent`].
    pub values: [Value; ARGUMENTS_MAX],
}

/// One argument value.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub enum Value {
    /// No argument at this place.
    Absent,
    /// Index into the choices.
    Choice(u16),
    /// A whole number.
    Integer(i64),
    /// A real number in the argument's unit.
    Number(f64),
    /// A truth value.
    Bool(bool),
    /// Bounded text.
    Text(ShortText),
}

/// Text argument, stored inline.
pub type ShortText = InlineText<TEXT_ARGUMENT_BYTES_MAX>;
