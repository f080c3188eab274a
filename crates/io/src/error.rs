//! What can go wrong on the way in or out.

use std::path::PathBuf;

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// `NAME=VALUE` is not of that form.
    #[error("`{found}`: expected NAME=VALUE, for example {example}")]
    TagForm {
        /// What was given.
        found: String,
        /// A valid one.
        example: String,
    },
    /// No tag has that name.
    #[error("unknown tag `{found}`: the site has {expected}")]
    UnknownTag {
        /// What was given.
        found: String,
        /// The names there are.
        expected: String,
    },
    /// The value is not one this tag can take.
    #[error("tag `{tag}`: found `{found}`, expected {expected}")]
    TagValue {
        /// The tag.
        tag: String,
        /// What was given.
        found: String,
        /// Type, unit and range.
        expected: String,
    },
    /// A file that cannot be read.
    #[error("cannot read {}: {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file beyond a limit.
    #[error("{}: {found} {what}, at most {max} are allowed", file.display())]
    TooMuch {
        /// The file.
        file: PathBuf,
        /// What there is too much of.
        what: &'static str,
        /// How much there is.
        found: u64,
        /// The limit.
        max: u64,
    },
    /// A line of a script or CSV file.
    #[error("{}:{line}: {reason}", file.display())]
    Line {
        /// The file.
        file: PathBuf,
        /// Counted from 1.
        line: u64,
        /// What is wrong and what was expected.
        reason: String,
    },
    /// The site has no plant to drive.
    #[error("site `{site}` has no [plant] section, so there is nothing to drive")]
    NoPlant {
        /// The site's name.
        site: String,
    },
}
