//! What can be wrong with a recording.

use std::path::PathBuf;

/// Errors of writing and reading recordings. A replay that comes out differently is no error but a
/// [`Difference`](crate::Difference).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The file system refused something.
    #[error("{}: {source}", path.display())]
    Io {
        /// File or folder.
        path: PathBuf,
        /// The system's word for it.
        source: std::io::Error,
    },
    /// Nothing can be recorded there.
    #[error(
        "cannot record in {}: {source}; expected a folder that can be written: see --record, and `folder` in [record]",
        path.display()
    )]
    Unusable {
        /// The folder.
        path: PathBuf,
        /// The system's word for it.
        source: std::io::Error,
    },
    /// Bytes that are no recording.
    #[error("{} at byte {offset}: {what}", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// What is wrong there.
        what: String,
    },
    /// A file that ends before its first cycle.
    #[error("{}: it ends within its header: the writer was interrupted before the first cycle", path.display())]
    Unbegun {
        /// The file.
        path: PathBuf,
    },
    /// A folder without a recording.
    #[error("{}: no recording there; expected files named record-000001.grec or fault-000001.grec", path.display())]
    Empty {
        /// The folder.
        path: PathBuf,
    },
    /// The site of a recording cannot be used any more.
    #[error("{}: its site: {source}", path.display())]
    Site {
        /// The recording.
        path: PathBuf,
        /// What the site's reader says.
        source: ganglion_site::SiteError,
    },
    /// A recorded state that no guard of this version can take up.
    #[error("{}: {source}", path.display())]
    Guard {
        /// The recording.
        path: PathBuf,
        /// What the guard says.
        source: ganglion_guard::GuardError,
    },
    /// The recording was made by a version that decides differently.
    #[error(
        "{}: written in version {found} of the format by Ganglion {program}; this program reads version {expected}: replay it \
         with the program that wrote it",
        path.display()
    )]
    Version {
        /// The recording.
        path: PathBuf,
        /// As read.
        found: u16,
        /// As known.
        expected: u16,
        /// Version of the program that wrote it.
        program: String,
    },
}
