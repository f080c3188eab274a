//! What can go wrong before or while a plant serves.

use std::net::SocketAddr;
use std::path::PathBuf;

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No plant has that name.
    #[error("unknown plant `{found}`: expected `hvac`, `conveyor` or `inspection`")]
    UnknownKind {
        /// What was asked for.
        found: String,
    },
    /// Model time cannot run like that.
    #[error("speed {found} is out of range: expected above 0 and at most {max}")]
    Speed {
        /// What was asked for.
        found: f64,
        /// The largest allowed.
        max: f64,
    },
    /// A file of parts was given to a plant that has none.
    #[error("`{}` was given, but only the conveyor plays parts from a file", file.display())]
    CsvUnused {
        /// The file.
        file: PathBuf,
    },
    /// The parts cannot be read.
    #[error(transparent)]
    Csv(#[from] ganglion_io::Error),
    /// The file holds no part.
    #[error("{}: no parts after the header line", file.display())]
    NoParts {
        /// The file.
        file: PathBuf,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}; is another plant running there?")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
}
