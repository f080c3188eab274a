//! What can be wrong with a log.

use std::path::PathBuf;

/// Errors of reading, writing and verifying a log.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuditError {
    /// The system refused a file operation.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// There is no log here.
    #[error("{}: no audit log here (expected audit-000001.jsonl, head and key)", dir.display())]
    NotALog {
        /// The folder.
        dir: PathBuf,
    },
    /// The key file is not one.
    #[error("{}: not a key (expected 64 lower-case hexadecimal digits); restore it from a backup", path.display())]
    BadKey {
        /// Which file.
        path: PathBuf,
    },
    /// The head is missing, malformed or not sealed with this log's key.
    #[error("{}: the head {problem}; the log's end cannot be trusted", path.display())]
    BadHead {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A log file is missing between others.
    #[error("{}: file {missing:06} is missing", dir.display())]
    FileMissing {
        /// The folder.
        dir: PathBuf,
        /// Its number.
        missing: u32,
    },
    /// A record is not what was written, or not where it was written.
    #[error("{}:{line}: record {sequence}: {problem}", file.display())]
    Tampered {
        /// Which file.
        file: PathBuf,
        /// Line, from 1.
        line: u64,
        /// The sequence number expected there.
        sequence: u64,
        /// What is wrong.
        problem: &'static str,
    },
    /// The last line was not finished: a crash, or a cut.
    #[error("{}:{line}: record {sequence} is cut short; opening the log for writing sets it aside", file.display())]
    Torn {
        /// Which file.
        file: PathBuf,
        /// Line, from 1.
        line: u64,
        /// The sequence number expected there.
        sequence: u64,
    },
    /// Records at the end are gone.
    #[error("{}: the log ends at record {found}, its head says {expected}: records were removed", dir.display())]
    Truncated {
        /// The folder.
        dir: PathBuf,
        /// Records found.
        found: u64,
        /// Records the head vouches for.
        expected: u64,
    },
    /// Records at the end were never written by this log's writer.
    #[error("{}: the log ends at record {found}, its head says {expected}: records were added", dir.display())]
    Extended {
        /// The folder.
        dir: PathBuf,
        /// Records found.
        found: u64,
        /// Records the head vouches for.
        expected: u64,
    },
    /// The end of the chain is another one than the head vouches for.
    #[error("{}: record {sequence} is not the one the head vouches for: the log was rewritten", dir.display())]
    Rewritten {
        /// The folder.
        dir: PathBuf,
        /// Which record.
        sequence: u64,
    },
    /// Another writer holds the log.
    #[error(
        "{}: this audit log is in use by another process; stop that one, or give this one a folder of its own",
        dir.display()
    )]
    InUse {
        /// The folder.
        dir: PathBuf,
    },
    /// The writer ended with records it could not store.
    #[error("{}: {lost} records could not be written", dir.display())]
    Lost {
        /// The folder.
        dir: PathBuf,
        /// How many.
        lost: u64,
    },
}

impl AuditError {
    pub(crate) fn io(path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self::Io { path: path.into(), source }
    }
}
