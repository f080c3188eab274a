//! The log as its one writer sees it: open, append a batch, rotate, seal.

use crate::chain::{Hash, Head, Key, digest, hex, open_line, seal_line, sequence_of};
use crate::disk::Disk;
use crate::error::AuditError;
use crate::limits::FILES_MAX;
use crate::record::Record;
use crate::render::{Header, Note, header_body, note_body, record_body};
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// One thing to be written.
#[derive(Debug, Clone)]
pub(crate) enum Entry {
    // Boxed because a record is a hundred times a note.
    Record(Box<Record>),
    Note(Note),
}

/// An open log.
pub(crate) struct Log<D> {
    disk: D,
    key: Key,
    header: Header,
    file_bytes_max: u64,
    file: u32,
    size_bytes: u64,
    count: u64,
    hash: Hash,
    /// A failed append may have left bytes behind.
    dirty: Option<(u32, u64)>,
}

/// The name of log file `number`.
pub(crate) fn file_name(number: u32) -> String {
    format!("audit-{number:06}.jsonl")
}

impl<D: Disk> Log<D> {
    /// Opens or begins the log in `dir`; each opening begins a new file. The notes say what the last run left undone.
    pub fn open(
        dir: &Path,
        mut disk: D,
        header: Header,
        file_bytes_max: u64,
    ) -> Result<(Self, Vec<Note>), AuditError> {
        let key = open_key(dir)?;
        let files = count_files(dir)?;
        let head_path = dir.join("head");
        if files == 0 && !head_path.exists() {
            let head = Head::sealed(0, [0; 32]).render(&key);
            disk.replace("head", head.as_bytes()).map_err(|e| AuditError::io(&head_path, e))?;
        }
        let head = read_head(dir, &key)?;
        let mut notes = Vec::new();
        let (mut file, mut end) = (files, None);
        while file > 0 && end.is_none() {
            let tail = read_tail(&dir.join(file_name(file)))?;
            if !tail.torn.is_empty() {
                notes.push(set_aside(dir, &mut disk, file, &tail)?);
            }
            match tail.end {
                Some(found) => end = Some(found),
                // Nothing whole in it: the number is used again.
                None => {
                    disk.cut(&file_name(file), 0)
                        .map_err(|e| AuditError::io(dir.join(file_name(file)), e))?;
                    file -= 1;
                }
            }
        }
        let (count, hash) = end.unwrap_or((0, [0; 32]));
        judge_end(dir, &head, count, &hash)?;
        if count < head.next_count {
            notes.push(Note::Interrupted { kept: count, announced: head.next_count });
        }
        Ok((
            Self { disk, key, header, file_bytes_max, file, size_bytes: u64::MAX, count, hash, dirty: None },
            notes,
        ))
    }

    /// Records written so far, header and notes included.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Appends all entries durably or none. `Ok(Some(error))`: they are in, but the head still only announces them.
    pub fn append(&mut self, entries: &[Entry], wall_ms: u64) -> io::Result<Option<io::Error>> {
        if let Some((file, size_bytes)) = self.dirty {
            self.disk.cut(&file_name(file), size_bytes)?;
            self.dirty = None;
        }
        let rotate = self.size_bytes >= self.file_bytes_max;
        let file = if rotate { self.file.saturating_add(1) } else { self.file };
        if file > FILES_MAX {
            return Err(io::Error::other("the log has too many files; begin a new folder"));
        }
        let (mut bytes, mut count, mut hash) = (String::new(), self.count, self.hash);
        let mut put = |body: &dyn Fn(u64, &Hash) -> String| {
            let (line, next) = seal_line(&hash, &body(count + 1, &hash));
            bytes.push_str(&line);
            (count, hash) = (count + 1, next);
        };
        if rotate {
            put(&|sequence, hash| header_body(sequence, wall_ms, file, &hex(hash), &self.header));
        }
        for entry in entries {
            match entry {
                Entry::Record(record) => {
                    put(&|sequence, _| record_body(sequence, wall_ms, record, &self.header.site, &self.key));
                }
                Entry::Note(note) => put(&|sequence, _| note_body(sequence, wall_ms, note)),
            }
        }
        let announced = Head { count: self.count, hash: self.hash, next_count: count, next_hash: hash };
        self.disk.replace("head", announced.render(&self.key).as_bytes())?;
        if let Err(error) = self.disk.append(&file_name(file), bytes.as_bytes()) {
            let kept = if rotate { 0 } else { self.size_bytes };
            if self.disk.cut(&file_name(file), kept).is_err() {
                self.dirty = Some((file, kept));
            }
            return Err(error);
        }
        let old_size = if rotate { 0 } else { self.size_bytes };
        (self.file, self.size_bytes) = (file, old_size + bytes.len() as u64);
        (self.count, self.hash) = (count, hash);
        let sealed = Head::sealed(count, hash).render(&self.key);
        Ok(self.disk.replace("head", sealed.as_bytes()).err())
    }

    /// Writes the head again after its last replacement failed.
    pub fn seal(&mut self) -> io::Result<()> {
        self.disk.replace("head", Head::sealed(self.count, self.hash).render(&self.key).as_bytes())
    }
}

/// Compares the found end with the one the head vouches for.
pub(crate) fn judge_end(dir: &Path, head: &Head, count: u64, hash: &Hash) -> Result<(), AuditError> {
    let dir = dir.to_owned();
    if count > head.next_count {
        return Err(AuditError::Extended { dir, found: count, expected: head.next_count });
    }
    if count < head.count {
        return Err(AuditError::Truncated { dir, found: count, expected: head.count });
    }
    let at_start = count == head.count && *hash != head.hash;
    let at_end = count == head.next_count && *hash != head.next_hash;
    if at_start || at_end {
        return Err(AuditError::Rewritten { dir, sequence: count });
    }
    Ok(())
}

/// How many files there are, without a hole.
pub(crate) fn count_files(dir: &Path) -> Result<u32, AuditError> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(dir).map_err(|e| AuditError::io(dir, e))? {
        let name = entry.map_err(|e| AuditError::io(dir, e))?.file_name();
        let digits = name.to_str().and_then(|n| n.strip_prefix("audit-")?.strip_suffix(".jsonl"));
        if let Some(number) = digits.filter(|d| d.len() == 6).and_then(|d| d.parse::<u32>().ok()) {
            numbers.push(number);
        }
    }
    numbers.sort_unstable();
    for (expected, found) in (1u32..).zip(&numbers) {
        if expected != *found {
            return Err(AuditError::FileMissing { dir: dir.to_owned(), missing: expected });
        }
    }
    Ok(u32::try_from(numbers.len()).unwrap_or(FILES_MAX))
}

/// Reads the key, or makes one that only its owner can read.
fn open_key(dir: &Path) -> Result<Key, AuditError> {
    fs::create_dir_all(dir).map_err(|e| AuditError::io(dir, e))?;
    let path = dir.join("key");
    if !path.exists() {
        let mut secret = [0; 32];
        let random = Path::new("/dev/urandom");
        let mut source = fs::File::open(random).map_err(|e| AuditError::io(random, e))?;
        source.read_exact(&mut secret).map_err(|e| AuditError::io(random, e))?;
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(|e| AuditError::io(&path, e))?;
        let text = format!("{}\n", hex(&secret));
        io::Write::write_all(&mut file, text.as_bytes())
            .and_then(|()| file.sync_all())
            .map_err(|e| AuditError::io(&path, e))?;
    }
    read_key(dir)
}

pub(crate) fn read_key(dir: &Path) -> Result<Key, AuditError> {
    let path = dir.join("key");
    Key::parse(&read_small(&path)?).ok_or(AuditError::BadKey { path })
}

pub(crate) fn read_head(dir: &Path, key: &Key) -> Result<Head, AuditError> {
    let path = dir.join("head");
    if !path.exists() {
        return Err(AuditError::BadHead { path, problem: "is missing" });
    }
    Head::parse(&read_small(&path)?, key)
        .ok_or(AuditError::BadHead { path, problem: "is not sealed with this log's key" })
}

fn read_small(path: &Path) -> Result<Vec<u8>, AuditError> {
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(|e| AuditError::io(path, e))?;
    file.take(4096).read_to_end(&mut bytes).map_err(|e| AuditError::io(path, e))?;
    Ok(bytes)
}

/// The end of one file.
struct Tail {
    end: Option<(u64, Hash)>,
    whole_bytes: u64,
    torn: Vec<u8>,
}

fn read_tail(path: &PathBuf) -> Result<Tail, AuditError> {
    let bytes = fs::read(path).map_err(|e| AuditError::io(path, e))?;
    let whole = bytes.iter().rposition(|&b| b == b'\n').map_or(0, |i| i + 1);
    let (kept, torn) = bytes.split_at(whole);
    let last = kept.strip_suffix(b"\n").map(|k| k.rsplit(|&b| b == b'\n').next().unwrap_or(k));
    let end = last.map(|line| {
        let opened = open_line(line).and_then(|(body, hash)| Some((sequence_of(body)?, hash)));
        opened.ok_or_else(|| AuditError::Tampered {
            file: path.clone(),
            line: kept.iter().filter(|&&b| b == b'\n').count() as u64,
            sequence: 0,
            problem: "the last line is not a record",
        })
    });
    Ok(Tail { end: end.transpose()?, whole_bytes: whole as u64, torn: torn.to_vec() })
}

/// Moves an unfinished last line into a file of its own.
fn set_aside<D: Disk>(dir: &Path, disk: &mut D, file: u32, tail: &Tail) -> Result<Note, AuditError> {
    let sha256 = hex(&digest(&tail.torn));
    let name = format!("torn-{file:06}-{}", &sha256[..8]);
    let (log, aside) = (dir.join(file_name(file)), dir.join(&name));
    disk.replace(&name, &tail.torn).map_err(|e| AuditError::io(aside, e))?;
    disk.cut(&file_name(file), tail.whole_bytes).map_err(|e| AuditError::io(log, e))?;
    Ok(Note::Torn { file: name, size_bytes: tail.torn.len(), sha256 })
}
