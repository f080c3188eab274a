//! The few file operations a log needs, behind one trait so that tests can make each of them fail.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A folder of a log.
pub(crate) trait Disk: Send {
    /// Appends to a file (made if missing) and makes the bytes durable.
    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()>;
    /// Cuts a file; a file cut to nothing is removed. A missing file is no error.
    fn cut(&mut self, name: &str, size_bytes: u64) -> io::Result<()>;
    /// Replaces a small file atomically and durably.
    fn replace(&mut self, name: &str, bytes: &[u8]) -> io::Result<()>;
}

/// The file system.
#[derive(Debug)]
pub(crate) struct FsDisk {
    dir: PathBuf,
    open: Option<(String, File)>,
}

impl FsDisk {
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), open: None }
    }

    fn sync_dir(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }
}

impl Disk for FsDisk {
    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut file = match self.open.take() {
            Some((open, file)) if open == name => file,
            _ => {
                let path = self.dir.join(name);
                let fresh = !path.exists();
                let file = OpenOptions::new().append(true).create(true).open(path)?;
                if fresh {
                    self.sync_dir()?;
                }
                file
            }
        };
        file.write_all(bytes)?;
        file.sync_data()?;
        self.open = Some((name.to_owned(), file));
        Ok(())
    }

    fn cut(&mut self, name: &str, size_bytes: u64) -> io::Result<()> {
        self.open = None;
        let path = self.dir.join(name);
        if !path.exists() {
            return Ok(());
        }
        if size_bytes == 0 {
            fs::remove_file(&path)?;
            return self.sync_dir();
        }
        let file = OpenOptions::new().write(true).open(path)?;
        file.set_len(size_bytes)?;
        file.sync_data()
    }

    fn replace(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let draft = self.dir.join(format!("{name}.new"));
        let mut file = File::create(&draft)?;
        file.write_all(bytes)?;
        file.sync_data()?;
        fs::rename(&draft, self.dir.join(name))?;
        self.sync_dir()
    }
}
