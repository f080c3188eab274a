//! Files that appear under their name when they are whole.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::error::{ExportError, Result};

/// A file being written beside its name.
pub(crate) struct Output {
    path: PathBuf,
    part: PathBuf,
    out: BufWriter<File>,
    written: u64,
}

/// The path with another ending behind it.
pub(crate) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

impl Output {
    pub(crate) fn create(path: &Path) -> Result<Self> {
        if path.is_dir() {
            return Err(failed(path, "replace", std::io::ErrorKind::IsADirectory.into()));
        }
        let part = beside(path, ".part");
        let file = File::create(&part).map_err(|source| ExportError::File {
            path: part.clone(),
            action: "create",
            source,
        })?;
        Ok(Self { path: path.to_owned(), part, out: BufWriter::new(file), written: 0 })
    }

    /// Bytes so far.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.written += bytes.len() as u64;
        self.out.write_all(bytes).map_err(|source| failed(&self.part, "write", source))
    }

    /// Zeros up to a multiple of `alignment`.
    pub(crate) fn align(&mut self, alignment: u64) -> Result<()> {
        let missing = self.written.next_multiple_of(alignment) - self.written;
        self.write(&vec![0; missing as usize])
    }

    /// Gives the file its name.
    pub(crate) fn finish(mut self) -> Result<()> {
        self.out.flush().map_err(|source| failed(&self.part, "write", source))?;
        self.out.get_ref().sync_all().map_err(|source| failed(&self.part, "sync", source))?;
        std::fs::rename(&self.part, &self.path).map_err(|source| failed(&self.part, "rename", source))
    }
}

/// Removes a file of an earlier export.
pub(crate) fn remove_if_there(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(failed(path, "remove", source)),
        _ => Ok(()),
    }
}

fn failed(path: &Path, action: &'static str, source: std::io::Error) -> ExportError {
    ExportError::File { path: path.to_owned(), action, source }
}

impl Drop for Output {
    /// What was not finished is of no use: it is soon made again.
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.part);
    }
}
