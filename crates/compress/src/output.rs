//! A GGUF file that is written tensor by tensor, survives interruption, and appears under its name only when it is whole.
//!
//! Beside `OUT` lie `OUT.part`, the file itself with the tensors that are finished, and `OUT.journal`, a line of text for each of
//! them. A later run with the same source and options reads the journal, checks what it says, and goes on. Any difference
//! starts anew.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use ganglion_gguf::FileLayout;
use sha2::{Digest, Sha256};

use crate::error::{CompressError, Result};
use crate::limits::JOURNAL_LINE_BYTES_MAX;

/// First word of a journal; a change of what it means changes this.
const JOURNAL_FORM: &str = "ganglion-journal-1";

/// The file being written.
pub(crate) struct Output {
    path: PathBuf,
    layout: FileLayout,
    part: File,
    journal: File,
    /// Tensors that are finished.
    done: Vec<bool>,
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Output {
    /// Opens or continues. `key` stands for everything that the bytes depend on.
    ///
    /// # Errors
    /// [`CompressError::File`].
    pub(crate) fn open(path: &Path, layout: FileLayout, key: &str) -> Result<Self> {
        let (part_path, journal_path) = (beside(path, ".part"), beside(path, ".journal"));
        let io = |path: &Path, action| {
            let path = path.to_owned();
            move |source| CompressError::File { path, action, source }
        };
        let head = format!("{JOURNAL_FORM} {}", digest(&[key.as_bytes(), &layout.header].concat()));
        let finished = finished(&journal_path, &head);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut part = options.open(&part_path).map_err(io(&part_path, "open"))?;
        let mut done = vec![false; layout.tensors.len()];
        for (index, expected) in &finished {
            if let Some(range) = layout.tensors.get(*index) {
                let found = read(&mut part, range.clone()).map(|bytes| digest(&bytes));
                done[*index] = found.is_ok_and(|found| found == *expected);
            }
        }
        if !done.contains(&true) {
            part.set_len(0).map_err(io(&part_path, "empty"))?;
        }
        part.set_len(layout.size_bytes).map_err(io(&part_path, "reserve"))?;
        part.seek(SeekFrom::Start(0)).map_err(io(&part_path, "write"))?;
        part.write_all(&layout.header).map_err(io(&part_path, "write"))?;
        let mut journal = File::create(&journal_path).map_err(io(&journal_path, "create"))?;
        let mut text = format!("{head}\n");
        for (index, hash) in finished.iter().filter(|(index, _)| done.get(**index) == Some(&true)) {
            text.push_str(&format!("{index} {hash}\n"));
        }
        journal.write_all(text.as_bytes()).map_err(io(&journal_path, "write"))?;
        Ok(Self { path: path.to_owned(), layout, part, journal, done })
    }

    /// Whether a tensor is finished.
    pub(crate) fn is_done(&self, index: usize) -> bool {
        self.done[index]
    }

    /// The stored bytes of a finished tensor.
    ///
    /// # Errors
    /// [`CompressError::File`].
    pub(crate) fn read(&mut self, index: usize) -> Result<Vec<u8>> {
        let range = self.layout.tensors[index].clone();
        read(&mut self.part, range).map_err(|source| self.failed("read", source))
    }

    /// Stores a tensor and notes it.
    ///
    /// # Errors
    /// [`CompressError::File`].
    ///
    /// # Panics
    /// If the length is not the tensor's.
    pub(crate) fn write(&mut self, index: usize, bytes: &[u8]) -> Result<()> {
        let range = self.layout.tensors[index].clone();
        assert_eq!(bytes.len() as u64, range.end - range.start, "the bytes of tensor {index}");
        let line = format!("{index} {}\n", digest(bytes));
        let written = (|| {
            self.part.seek(SeekFrom::Start(range.start))?;
            self.part.write_all(bytes)?;
            // The journal never claims what the disk may not have: its hash would not fit then.
            self.journal.write_all(line.as_bytes())
        })();
        written.map_err(|source| self.failed("write", source))?;
        self.done[index] = true;
        Ok(())
    }

    /// Replaces bytes of the header.
    ///
    /// # Errors
    /// [`CompressError::File`].
    ///
    /// # Panics
    /// If they reach beyond it.
    pub(crate) fn write_header(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        assert!(at + bytes.len() as u64 <= self.layout.header.len() as u64, "inside the header");
        let written = self.part.seek(SeekFrom::Start(at)).and_then(|_| self.part.write_all(bytes));
        written.map_err(|source| self.failed("write", source))
    }

    /// Gives the whole file its name.
    ///
    /// # Errors
    /// [`CompressError::File`].
    ///
    /// # Panics
    /// If a tensor is missing.
    pub(crate) fn finish(self) -> Result<()> {
        assert!(!self.done.contains(&false), "every tensor is written");
        let synced = self.part.sync_all();
        synced.map_err(|source| self.failed("sync", source))?;
        std::fs::rename(beside(&self.path, ".part"), &self.path)
            .map_err(|source| self.failed("rename", source))?;
        // The file is whole; a journal that stays behind is started anew the next time.
        let _ = std::fs::remove_file(beside(&self.path, ".journal"));
        Ok(())
    }

    fn failed(&self, action: &'static str, source: std::io::Error) -> CompressError {
        CompressError::File { path: beside(&self.path, ".part"), action, source }
    }
}

fn read(file: &mut File, range: std::ops::Range<u64>) -> std::io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(range.start))?;
    let mut bytes = Vec::new();
    file.take(range.end - range.start).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Index and hash of each tensor in the journal, if it begins with `head`. A line cut off by an interruption ends it.
fn finished(path: &Path, head: &str) -> HashMap<usize, String> {
    let Ok(file) = File::open(path) else { return HashMap::new() };
    let mut lines = BufReader::new(file.take(u64::from(u32::MAX))).lines();
    if lines.next().and_then(|line| line.ok()).as_deref() != Some(head) {
        return HashMap::new();
    }
    let entry = |line: std::io::Result<String>| {
        let line = line.ok().filter(|line| line.len() <= JOURNAL_LINE_BYTES_MAX)?;
        let (index, hash) = line.split_once(' ')?;
        Some((index.parse().ok()?, hash.to_owned()))
    };
    lines.map_while(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ganglion_gguf::{Gguf, GgufWriter, TensorType};

    fn layout() -> FileLayout {
        let mut writer = GgufWriter::new();
        writer.metadata("general.architecture", "none").unwrap();
        for name in ["a", "b", "c"] {
            writer.tensor_with(name, &[5], TensorType::F32, |_| Ok(())).unwrap();
        }
        writer.layout().unwrap()
    }

    fn folder(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("ganglion-output-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    #[test]
    fn an_interrupted_file_goes_on_where_it_stopped() {
        let folder = folder("resume");
        let path = folder.join("out.gguf");
        let mut first = Output::open(&path, layout(), "key").unwrap();
        first.write(1, &[7; 20]).unwrap();
        first.write(0, &[6; 20]).unwrap();
        drop(first);
        assert!(!path.exists());

        let mut second = Output::open(&path, layout(), "key").unwrap();
        assert_eq!([0, 1, 2].map(|i| second.is_done(i)), [true, true, false]);
        assert_eq!(second.read(1).unwrap(), [7; 20]);
        second.write(2, &[8; 20]).unwrap();
        second.finish().unwrap();
        let gguf = Gguf::open(&path).unwrap();
        assert_eq!(["a", "b", "c"].map(|name| gguf.tensor_bytes(name).unwrap()[0]), [6, 7, 8]);
        let left: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["out.gguf"]);
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn other_options_or_damage_start_anew() {
        let folder = folder("anew");
        let path = folder.join("out.gguf");
        for key in ["one", "two"] {
            let mut output = Output::open(&path, layout(), key).unwrap();
            assert!(!output.is_done(0), "{key}");
            output.write(0, &[1; 20]).unwrap();
            output.write(1, &[2; 20]).unwrap();
        }
        let part = folder.join("out.gguf.part");
        let mut bytes = std::fs::read(&part).unwrap();
        let start = layout().tensors[0].start as usize;
        bytes[start] ^= 1;
        std::fs::write(&part, bytes).unwrap();
        let journal = folder.join("out.gguf.journal");
        let text = std::fs::read_to_string(&journal).unwrap();
        std::fs::write(&journal, &text[..text.len() - 1]).unwrap();
        let output = Output::open(&path, layout(), "two").unwrap();
        assert_eq!([0, 1].map(|i| output.is_done(i)), [false, true]);
        std::fs::remove_dir_all(folder).unwrap();
    }
}
