//! What can be wrong with a site file, a command, or a frame.

use std::fmt;
use std::path::PathBuf;

/// One thing that is wrong in a site file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// One-based line of the file.
    pub line: usize,
    /// Where in the file's own terms, for example `command set_fan, argument percent`.
    pub field: String,
    /// What stands there.
    pub found: String,
    /// What should stand there.
    pub expected: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: expected {}, found {}", self.line, self.field, self.expected, self.found)
    }
}

/// Why a site was not loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SiteError {
    /// The file could not be read at all.
    #[error("{}: cannot read the site file: {source}; give a folder with site.toml or the file itself", file.display())]
    Read {
        /// What was tried.
        file: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The file was read and is wrong; every problem found is listed, by line.
    #[error("{}", lines_of(file, problems))]
    Invalid {
        /// The file as it was named to us.
        file: PathBuf,
        /// At least one, at most [`PROBLEMS_MAX`](crate::limits::PROBLEMS_MAX).
        problems: Vec<Problem>,
    },
}

impl SiteError {
    /// The problems of an invalid file; empty when it could not be read.
    pub fn problems(&self) -> &[Problem] {
        match self {
            Self::Invalid { problems, .. } => problems,
            Self::Read { .. } => &[],
        }
    }
}

fn lines_of(file: &std::path::Path, problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(|problem| format!("{}:{problem}", file.display())).collect();
    lines.join("\n")
}

/// Why bytes or values are not a command of the site.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// Not JSON, or not a JSON object.
    #[error("expected one JSON object with an \"action\", found something else: {reason}")]
    Syntax {
        /// The JSON parser's words.
        reason: String,
    },
    /// No `action` field.
    #[error("expected the field \"action\", found none")]
    MissingAction,
    /// `action` names no command of the site.
    #[error("expected a command of the site, found action {found}")]
    UnknownAction {
        /// The name or index found.
        found: String,
    },
    /// A field that the command does not have.
    #[error("command {command} has no argument {field}")]
    UnknownField {
        /// The command.
        command: String,
        /// The field's name.
        field: String,
    },
    /// A field given more than once.
    #[error("field {field} is given twice")]
    DuplicateField {
        /// The field's name.
        field: String,
    },
    /// An argument that is not there.
    #[error("command {command} needs argument {field}: expected {expected}, found nothing")]
    MissingField {
        /// The command.
        command: String,
        /// The argument's name.
        field: String,
        /// What it takes.
        expected: String,
    },
    /// A value of another type.
    #[error("argument {field}: expected {expected}, found {found}")]
    WrongType {
        /// The argument's name.
        field: String,
        /// What it takes.
        expected: String,
        /// What was there.
        found: String,
    },
    /// A name that is not among the choices.
    #[error("argument {field}: expected {expected}, found {found}")]
    UnknownChoice {
        /// The argument's name.
        field: String,
        /// The choices.
        expected: String,
        /// What was there.
        found: String,
    },
    /// A number outside the range, or a text that is too long.
    #[error("argument {field}: expected {expected}, found {found}")]
    OutOfRange {
        /// The argument's name.
        field: String,
        /// The range.
        expected: String,
        /// What was there.
        found: String,
    },
    /// A number between two steps.
    #[error("argument {field}: expected a multiple of {step}, found {found}")]
    NotAMultiple {
        /// The argument's name.
        field: String,
        /// The step.
        step: String,
        /// What was there.
        found: String,
    },
    /// NaN or an infinity.
    #[error("argument {field}: expected a finite number, found {found}")]
    NotFinite {
        /// The argument's name.
        field: String,
        /// What was there.
        found: String,
    },
    /// A value at a place where the command has no argument.
    #[error("command {command} takes {expected} arguments, found a value at place {index}")]
    Surplus {
        /// The command.
        command: String,
        /// How many arguments it has.
        expected: usize,
        /// Zero-based place of the value.
        index: usize,
    },
}

/// Why a text is not a value of a tag.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("tag {tag}: expected {expected}, found {found}")]
pub struct TagValueError {
    /// The tag.
    pub tag: String,
    /// What it takes.
    pub expected: String,
    /// What was there.
    pub found: String,
}

/// Why bytes are not a frame. No heap: frames are decoded on the guard's cycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// Not the frame's fixed size.
    #[error("frame: expected {expected} bytes, found {found}")]
    Size {
        /// The frame's size.
        expected: usize,
        /// What came.
        found: usize,
    },
    /// Another magic number: not this kind of frame.
    #[error("frame: expected magic {expected:#010x}, found {found:#010x}")]
    Magic {
        /// The kind's magic.
        expected: u32,
        /// What came.
        found: u32,
    },
    /// Guard and brain are of different builds.
    #[error("frame: expected version {expected}, found {found}; guard and brain must be the same binary")]
    Version {
        /// This build's version.
        expected: u16,
        /// What came.
        found: u16,
    },
    /// Bytes changed on the way.
    #[error("frame: expected checksum {expected:#010x}, found {found:#010x}")]
    Checksum {
        /// Over the bytes that came.
        expected: u32,
        /// What the frame says.
        found: u32,
    },
    /// A field with a value it cannot have.
    #[error("frame: field {field} at byte {offset} holds a value it cannot have")]
    Field {
        /// Which.
        field: &'static str,
        /// Where it starts.
        offset: usize,
    },
}
