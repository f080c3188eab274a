//! An abort outlives the process: a file beside the audit log from Abort to Clear, so that no restart undoes it.

use anyhow::{Context, Result, bail};
use ganglion_guard::{Mode, Status};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The file's name.
const NAME: &str = "latched";
/// Of the file, for people, are so many bytes taken.
const TEXT_BYTES_MAX: usize = 200;

/// The file, kept in step with the mode.
pub struct Latch {
    /// `None` in a dry run: it aborts nothing.
    file: Option<PathBuf>,
    left_behind: Option<String>,
    /// This run is aborted, and the file says so.
    held: bool,
    failing: bool,
}

impl Latch {
    /// Looks whether a run before was aborted.
    ///
    /// # Errors
    /// The file is there or may be there, and cannot be read: as long as nobody knows, nothing starts.
    pub fn open(audit: &Path, dry_run: bool) -> Result<Self> {
        let file = Some(audit.join(NAME)).filter(|_| !dry_run);
        let left_behind = match file.as_ref().map(fs::read) {
            None => None,
            Some(Ok(bytes)) => {
                let text = String::from_utf8_lossy(bytes.get(..TEXT_BYTES_MAX).unwrap_or(&bytes));
                Some(text.lines().next().unwrap_or_default().to_owned())
            }
            Some(Err(error)) if error.kind() == io::ErrorKind::NotFound => None,
            Some(Err(error)) => bail!(
                "{}: {error}; it says whether the run before was aborted, and has to be readable",
                audit.join(NAME).display()
            ),
        };
        Ok(Self { file, left_behind, held: false, failing: false })
    }

    /// Why a run before was aborted, if nobody has cleared it since.
    pub fn left_behind(&self) -> Option<&str> {
        self.left_behind.as_deref()
    }

    /// Writes or removes the file when the mode asks for it; tried again at the next look when that fails. The first failure
    /// of several is given back.
    pub fn follow(&mut self, status: &Status) -> Option<String> {
        let file = self.file.as_ref()?;
        let aborted = matches!(status.mode, Mode::Aborting | Mode::Aborted | Mode::Clearing);
        if aborted == self.held {
            return None;
        }
        let done = match aborted {
            true => write(file, status.severity.as_str()),
            false => remove(file),
        };
        match done.with_context(|| file.display().to_string()) {
            Ok(()) => {
                (self.held, self.failing) = (aborted, false);
                None
            }
            Err(error) => (!std::mem::replace(&mut self.failing, true)).then(|| format!("{error:#}")),
        }
    }
}

/// Whole or not at all, and on the disk.
fn write(file: &Path, why: &str) -> io::Result<()> {
    let draft = file.with_extension("part");
    let mut out = File::create(&draft)?;
    writeln!(out, "{why}")?;
    out.sync_all()?;
    fs::rename(&draft, file)?;
    sync_folder(file)
}

fn remove(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => sync_folder(file),
    }
}

fn sync_folder(file: &Path) -> io::Result<()> {
    file.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ganglion_guard::Guard;
    use ganglion_site::Site;

    fn status(mode: Mode) -> Status {
        let text = "name = \"s\"\n[model]\npath = \"m.gguf\"\n[[command]]\nname = \"stop\"\n";
        let site = Site::parse(text, Path::new("site.toml")).unwrap();
        Status { mode, ..*Guard::new(&site).unwrap().status() }
    }

    #[test]
    fn an_abort_is_kept_until_it_is_cleared() {
        let folder = std::env::temp_dir().join(format!("ganglion-latch-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let left_behind = || Latch::open(&folder, false).unwrap().left_behind;
        let mut latch = Latch::open(&folder, false).unwrap();
        for mode in [Mode::Stopped, Mode::Execute, Mode::Aborting, Mode::Aborted] {
            assert_eq!(latch.follow(&status(mode)), None);
            assert_eq!(left_behind().is_some(), mode == Mode::Aborting || mode == Mode::Aborted, "{mode:?}");
        }
        // The next run: nothing but a Clear of its own takes the file away.
        let mut latch = Latch::open(&folder, false).unwrap();
        latch.follow(&status(Mode::Stopped));
        assert_eq!(left_behind().as_deref(), Some("nominal"), "the severity of these statuses");
        for mode in [Mode::Aborting, Mode::Aborted, Mode::Clearing, Mode::Stopped] {
            assert_eq!(latch.follow(&status(mode)), None);
        }
        assert_eq!(left_behind(), None);
        let mut dry = Latch::open(&folder, true).unwrap();
        dry.follow(&status(Mode::Aborted));
        assert_eq!(left_behind(), None, "a dry run aborts nothing");
        // What cannot be read may be a latch.
        fs::create_dir(folder.join(NAME)).unwrap();
        assert!(Latch::open(&folder, false).is_err());
        let mut latch =
            Latch { file: Some(folder.join(NAME)), left_behind: None, held: false, failing: false };
        assert!(latch.follow(&status(Mode::Aborted)).unwrap().contains("latched"));
        assert_eq!(latch.follow(&status(Mode::Aborted)), None, "said once, tried again");
        fs::remove_dir_all(&folder).unwrap();
    }
}
