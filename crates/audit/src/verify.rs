//! Reading a log: [`verify`] trusts nothing, [`show`] prints what is there.

use crate::chain::{Hash, chain, hex, open_line, sequence_of};
use crate::error::AuditError;
use crate::limits::LINE_BYTES_MAX;
use crate::log::{count_files, file_name, judge_end, read_head, read_key};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// What a verified log consists of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Log files.
    pub files: u32,
    /// Lines, headers and notes included; also the last sequence number.
    pub records: u64,
    /// Of those, written when the writer was interrupted and not yet sealed. 0 after a clean end.
    pub unsealed: u64,
    /// Records that the last writer could not store before it ended and that no gap record names yet; the next writer
    /// will add one. From the unsealed `lock` file: more than 0 is a loss, 0 is no proof of none.
    pub lost_at_end: u64,
    /// The last line's hash, hexadecimal: write it down elsewhere and the log cannot be rewritten even with its key.
    pub last_hash: String,
}

/// One line of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Which file.
    pub file: PathBuf,
    /// Line in it, from 1.
    pub line: u64,
    /// The JSON object, hash included, without the newline.
    pub text: String,
}

/// Checks the whole log: every line's hash, the order, the chain over all files, and the sealed end.
///
/// What it cannot see: a rewrite by somebody who has the `key` file. Keep [`Report::last_hash`] elsewhere for that.
///
/// # Errors
/// The first thing that is wrong, with file, line and sequence number.
pub fn verify(dir: &Path) -> Result<Report, AuditError> {
    let not_a_log = || AuditError::NotALog { dir: dir.to_owned() };
    if !dir.is_dir() || !dir.join("key").exists() {
        return Err(not_a_log());
    }
    let head = read_head(dir, &read_key(dir)?)?;
    let files = count_files(dir)?;
    let (mut count, mut hash) = (0u64, [0; 32]);
    let mut at_count = None;
    for number in 1..=files {
        let mut lines = Lines::open(dir.join(file_name(number)))?;
        let mut any = false;
        while let Some((line, bytes)) = lines.next_line()? {
            let at = Position { file: &lines.path, line, sequence: count + 1 };
            hash = check_line(&bytes, &hash, &at, (!any).then_some(number))?;
            count += 1;
            any = true;
            if count == head.count {
                at_count = Some(hash);
            }
        }
        if !any {
            return Err(AuditError::Torn { file: lines.path, line: 1, sequence: count + 1 });
        }
    }
    judge_end(dir, &head, count, &hash)?;
    if at_count.is_some_and(|found| found != head.hash) {
        return Err(AuditError::Rewritten { dir: dir.to_owned(), sequence: head.count });
    }
    let unsealed = if count == head.next_count { 0 } else { count - head.count };
    let lost_at_end = crate::lock::unstored(dir);
    Ok(Report { files, records: count, unsealed, lost_at_end, last_hash: hex(&hash) })
}

/// The lines of a log in order, unverified. Ends after the first error.
///
/// # Errors
/// [`AuditError::NotALog`], [`AuditError::FileMissing`], or what the system says.
pub fn show(dir: &Path) -> Result<impl Iterator<Item = Result<Line, AuditError>>, AuditError> {
    if !dir.is_dir() {
        return Err(AuditError::NotALog { dir: dir.to_owned() });
    }
    let files = count_files(dir)?;
    if files == 0 {
        return Err(AuditError::NotALog { dir: dir.to_owned() });
    }
    let dir = dir.to_owned();
    let (mut number, mut lines, mut failed) = (0, None::<Lines>, false);
    Ok(std::iter::from_fn(move || {
        while !failed {
            let next = match lines.as_mut() {
                Some(lines) => {
                    lines.next_line().map(|l| l.map(|(line, bytes)| (lines.path.clone(), line, bytes)))
                }
                None => Ok(None),
            };
            match next {
                Ok(Some((file, line, bytes))) => {
                    return Some(Ok(Line { file, line, text: String::from_utf8_lossy(&bytes).into_owned() }));
                }
                Ok(None) if number == files => return None,
                Ok(None) => {
                    number += 1;
                    match Lines::open(dir.join(file_name(number))) {
                        Ok(opened) => lines = Some(opened),
                        Err(error) => {
                            failed = true;
                            return Some(Err(error));
                        }
                    }
                }
                Err(error) => {
                    failed = true;
                    return Some(Err(error));
                }
            }
        }
        None
    }))
}

struct Position<'a> {
    file: &'a Path,
    line: u64,
    sequence: u64,
}

/// The line's hash, if it is the one that belongs here. `first_of` is the file's number for its first line.
fn check_line(
    line: &[u8],
    previous: &Hash,
    at: &Position<'_>,
    first_of: Option<u32>,
) -> Result<Hash, AuditError> {
    let tampered = |problem| AuditError::Tampered {
        file: at.file.to_owned(),
        line: at.line,
        sequence: at.sequence,
        problem,
    };
    let (body, found) = open_line(line).ok_or_else(|| tampered("this is not a record with a hash"))?;
    let sequence = sequence_of(body).ok_or_else(|| tampered("the record has no sequence number"))?;
    if sequence != at.sequence {
        return Err(tampered("another record stands in its place (deleted, inserted or moved)"));
    }
    if chain(previous, body) != found {
        return Err(tampered("the content or what came before it was changed"));
    }
    if let Some(number) = first_of {
        let names_itself = format!("\"file\":{number},\"previous\":\"{}\"", hex(previous));
        if !body.windows(names_itself.len()).any(|w| w == names_itself.as_bytes()) {
            return Err(tampered("the file does not begin with its header"));
        }
    }
    Ok(found)
}

/// Bounded lines of one file.
struct Lines {
    path: PathBuf,
    reader: BufReader<File>,
    line: u64,
}

impl Lines {
    fn open(path: PathBuf) -> Result<Self, AuditError> {
        let file = File::open(&path).map_err(|e| AuditError::io(&path, e))?;
        Ok(Self { path, reader: BufReader::new(file), line: 0 })
    }

    /// The next line without its newline.
    fn next_line(&mut self) -> Result<Option<(u64, Vec<u8>)>, AuditError> {
        let mut bytes = Vec::new();
        let mut bounded = self.reader.by_ref().take(LINE_BYTES_MAX as u64);
        bounded.read_until(b'\n', &mut bytes).map_err(|e| AuditError::io(&self.path, e))?;
        if bytes.is_empty() {
            return Ok(None);
        }
        self.line += 1;
        if bytes.pop_if(|b| *b == b'\n').is_none() {
            let sequence = sequence_of(&bytes).unwrap_or(0);
            return Err(AuditError::Torn { file: self.path.clone(), line: self.line, sequence });
        }
        Ok(Some((self.line, bytes)))
    }
}
