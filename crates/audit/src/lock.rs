//! The `lock` file: one writer per folder, and what the last one could not store.
//!
//! Twenty decimal digits and a newline, always: the number of records that the last writer had to give up at its end. The
//! place is taken while the disk has room and overwritten in place when it has none, so that even a full disk cannot hide
//! a loss. It is a hint to the next writer, which turns it into a `gap` record of the chain; it is not sealed itself.

use crate::error::AuditError;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

const NAME: &str = "lock";
const BYTES: usize = 21;

/// The lock, held until it is dropped; the system frees it when the process dies.
#[derive(Debug)]
pub(crate) struct Lock(File);

impl Lock {
    /// Takes the folder for this writer.
    ///
    /// # Errors
    /// [`AuditError::InUse`], or what the system says.
    pub fn take(dir: &Path) -> Result<Self, AuditError> {
        let path = dir.join(NAME);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(&path).map_err(|e| AuditError::io(&path, e))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(AuditError::InUse { dir: dir.to_owned() }),
            Err(TryLockError::Error(error)) => return Err(AuditError::io(path, error)),
        }
        let lock = Self(file);
        if read(&lock.0).is_none() {
            // Without room for it a loss at the end is only reported by `Writer::close`.
            let _ = lock.set_unstored(0);
        }
        Ok(lock)
    }

    /// Records that the last writer had to give up.
    pub fn unstored(&self) -> u64 {
        read(&self.0).unwrap_or(0)
    }

    /// Leaves that number for the next writer.
    pub fn set_unstored(&self, count: u64) -> io::Result<()> {
        self.0.write_all_at(format!("{count:020}\n").as_bytes(), 0)?;
        self.0.sync_data()
    }
}

/// The number in the folder's lock file, without taking the lock; 0 when there is none.
pub(crate) fn unstored(dir: &Path) -> u64 {
    File::open(dir.join(NAME)).ok().and_then(|file| read(&file)).unwrap_or(0)
}

fn read(file: &File) -> Option<u64> {
    let mut bytes = [0; BYTES];
    file.read_exact_at(&mut bytes, 0).ok()?;
    std::str::from_utf8(bytes.strip_suffix(b"\n")?).ok()?.parse().ok()
}
