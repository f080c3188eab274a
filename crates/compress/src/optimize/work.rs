//! What an optimisation has found so far, in a folder: numbers in a journal, quantised matrices as files.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use ganglion_kernels::BlockFormat;

use crate::error::{CompressError, Result};

/// First word of a journal; a change of what it means changes this.
const FORM: &str = "ganglion-optimize-1";

/// A number that takes long to find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Number {
    Sensitivity,
    Divergence,
}

impl Number {
    fn word(self) -> &'static str {
        match self {
            Self::Sensitivity => "sensitivity",
            Self::Divergence => "divergence",
        }
    }
}

pub(super) struct Work {
    folder: PathBuf,
    journal: File,
    numbers: HashMap<String, f64>,
}

impl Work {
    /// Goes on in a folder of the same key; another one is emptied.
    pub(super) fn open(folder: &Path, key: &str) -> Result<Self> {
        let io = |action| {
            let path = folder.to_owned();
            move |source| CompressError::File { path, action, source }
        };
        let path = folder.join("journal");
        let head = format!("{FORM} {}", key.replace('\n', " "));
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let mut lines = text.lines();
        let goes_on = lines.next() == Some(head.as_str());
        if !goes_on && folder.exists() {
            std::fs::remove_dir_all(folder).map_err(io("empty"))?;
        }
        std::fs::create_dir_all(folder).map_err(io("create"))?;
        let numbers = lines.filter(|_| goes_on).filter_map(|line| {
            // A line that was cut off has no end mark.
            let (name, value) = line.strip_suffix(" .")?.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        });
        let numbers = numbers.collect();
        let mut journal = OpenOptions::new().create(true).append(true).open(&path).map_err(io("open"))?;
        if !goes_on {
            writeln!(journal, "{head}").map_err(io("write"))?;
        } else if !text.ends_with('\n') {
            writeln!(journal).map_err(io("write"))?;
        }
        Ok(Self { folder: folder.to_owned(), journal, numbers })
    }

    pub(super) fn number(&self, what: Number, tensor: &str, format: BlockFormat) -> Option<f64> {
        self.numbers.get(&name(what, tensor, format)).copied()
    }

    pub(super) fn note(&mut self, what: Number, tensor: &str, format: BlockFormat, value: f64) -> Result<()> {
        let name = name(what, tensor, format);
        let path = self.folder.join("journal");
        writeln!(self.journal, "{name} {value} .").map_err(|source| CompressError::File {
            path,
            action: "write",
            source,
        })?;
        self.numbers.insert(name, value);
        Ok(())
    }

    /// Where a file of this run lies.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn matrix(&self, tensor: &str, format: BlockFormat) -> PathBuf {
        self.file(&format!("{tensor}.{format}"))
    }

    pub(super) fn has_matrix(&self, tensor: &str, format: BlockFormat) -> bool {
        self.matrix(tensor, format).exists()
    }

    pub(super) fn read_matrix(&self, tensor: &str, format: BlockFormat) -> Result<Vec<u8>> {
        let path = self.matrix(tensor, format);
        std::fs::read(&path).map_err(|source| CompressError::File { path, action: "read", source })
    }

    pub(super) fn write_matrix(&self, tensor: &str, format: BlockFormat, bytes: &[u8]) -> Result<()> {
        let path = self.matrix(tensor, format);
        let part = self.file("part");
        let written = std::fs::write(&part, bytes).and_then(|()| std::fs::rename(&part, &path));
        written.map_err(|source| CompressError::File { path, action: "write", source })
    }
}

fn name(what: Number, tensor: &str, format: BlockFormat) -> String {
    format!("{} {tensor} {format}", what.word())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_is_found_again_and_another_key_starts_anew() {
        let folder = std::env::temp_dir().join(format!("ganglion-work-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        let q4 = BlockFormat::Q4_0;
        let mut work = Work::open(&folder, "a\nb").unwrap();
        work.note(Number::Divergence, "x", q4, 0.25).unwrap();
        work.note(Number::Sensitivity, "x", q4, 1e-9).unwrap();
        work.write_matrix("x", q4, &[1, 2]).unwrap();
        // The power fails in the middle of a line.
        write!(work.journal, "divergence y Q4_0 0.7").unwrap();
        let mut work = Work::open(&folder, "a\nb").unwrap();
        assert_eq!(work.number(Number::Divergence, "x", q4), Some(0.25));
        assert_eq!(work.number(Number::Sensitivity, "x", q4), Some(1e-9));
        assert_eq!(work.number(Number::Divergence, "y", q4), None);
        assert_eq!(work.read_matrix("x", q4).unwrap(), [1, 2]);
        work.note(Number::Divergence, "y", q4, 0.5).unwrap();
        assert_eq!(Work::open(&folder, "a\nb").unwrap().number(Number::Divergence, "y", q4), Some(0.5));
        let work = Work::open(&folder, "other").unwrap();
        assert!(!work.has_matrix("x", q4) && work.number(Number::Divergence, "x", q4).is_none());
        std::fs::remove_dir_all(folder).unwrap();
    }
}
