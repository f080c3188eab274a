//! The crate's only `unsafe`: mapping files read-only, and a temporary file to be written.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

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

/// Memory whose content the system may keep in a file instead of RAM: a mapped file without a name, of zeros at first. It
/// is gone when the value is dropped, or the process ends.
#[derive(Debug)]
pub struct TemporaryMap {
    map: memmap2::MmapMut,
}

/// Zeros written at a time.
static ZEROS: [u8; 1 << 16] = [0; 1 << 16];

impl TemporaryMap {
    /// Creates, fills and maps a file in `folder`. Its space on disk is taken now, so that no later write finds the disk
    /// full.
    ///
    /// # Errors
    /// [`GgufError::Io`] when the file cannot be created, written or mapped.
    pub fn new(folder: &Path, size_bytes: usize) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!(".ganglion-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = folder.join(name);
        let io = |action: &'static str| {
            let path = &path;
            move |source: std::io::Error| GgufError::Io { path: path.clone(), action, source }
        };
        // `create_new` refuses whatever stands there already, a link too.
        let mut file =
            OpenOptions::new().read(true).write(true).create_new(true).open(&path).map_err(io("create"))?;
        std::fs::remove_file(&path).map_err(io("remove"))?;
        let mut left = size_bytes;
        while left > 0 {
            let part = left.min(ZEROS.len());
            file.write_all(&ZEROS[..part]).map_err(io("write"))?;
            left -= part;
        }
        // SAFETY: the file has no name any more and was created by this call: nobody else can open or shorten it.
        let map = unsafe { memmap2::MmapOptions::new().len(size_bytes).map_mut(&file) }.map_err(io("map"))?;
        Ok(Self { map })
    }
}

impl std::ops::Deref for TemporaryMap {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map
    }
}

impl std::ops::DerefMut for TemporaryMap {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.map
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temporary_map_is_zero_private_and_leaves_nothing_behind() {
        let folder = std::env::temp_dir().join(format!("ganglion-map-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let mut one = TemporaryMap::new(&folder, 200_000).unwrap();
        let two = TemporaryMap::new(&folder, 10).unwrap();
        assert!(one.iter().chain(two.iter()).all(|byte| *byte == 0));
        assert_eq!((one.len(), two.len()), (200_000, 10));
        one[199_999] = 7;
        assert_eq!((one[199_999], two[9]), (7, 0));
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
        std::fs::remove_dir(&folder).unwrap();
        let error = TemporaryMap::new(&folder, 10).unwrap_err();
        assert!(matches!(error, GgufError::Io { action: "create", .. }), "{error}");
    }
}
