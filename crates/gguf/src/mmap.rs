//! The crate's only `unsafe`: mapping files read-only.
#![allow(unsafe_code)]

use std::fs::File;
use std::path::Path;

use crate::error::{GgufError, Result};

/// Maps a regular file read-only and private.
///
/// # Errors
/// [`GgufError::Io`] when the path is not a regular file, or cannot be opened or mapped.
pub(crate) fn map_file(path: &Path) -> Result<memmap2::Mmap> {
    let io = |action: &'static str| {
        move |source: std::io::Error| GgufError::Io { path: path.to_path_buf(), action, source }
    };
    // Asked before opening: opening a named pipe would wait for a writer.
    if !std::fs::metadata(path).map_err(io("open"))?.is_file() {
        let source = std::io::Error::new(std::io::ErrorKind::InvalidInput, "not a regular file");
        return Err(io("open")(source));
    }
    let file = File::open(path).map_err(io("open"))?;
    // SAFETY: the mapping is private and only read, so no Rust reference sees a write through it. What the type
    // system cannot exclude is another process that changes the file in place meanwhile: models are replaced by
    // renaming (as `GgufWriter::write_file` does), which leaves the mapped file untouched. A truncated file raises
    // SIGBUS, which ends the process; the guard treats that like any other end of the brain.
    unsafe { memmap2::Mmap::map(&file) }.map_err(io("map"))
}

/// A file mapped read-only: what is not GGUF but belongs to a model, such as repacked weights.
#[derive(Debug)]
pub struct MappedFile(memmap2::Mmap);

impl MappedFile {
    /// Maps a regular file.
    ///
    /// # Errors
    /// [`GgufError::Io`] when the path is not a regular file, or cannot be opened or mapped.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        map_file(path.as_ref()).map(Self)
    }
}

impl AsRef<[u8]> for MappedFile {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}
