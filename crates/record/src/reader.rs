//! Files of a recording, back into frames, block by block. They may come from anywhere: every size is compared with what is
//! left.

use crate::error::RecordError;
use crate::frame::Kind;
use crate::limits::{BLOCK_BYTES_MAX, HEADER_BYTES_MAX};
use crate::writer::{FORMAT, MAGIC, is_recording, number_of};
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// What a file says about itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Header {
    /// Version of the program that wrote it.
    pub program: String,
    /// The site file's path there.
    pub site_file: PathBuf,
    /// SHA-256 of the model files, by variant.
    pub models: Vec<String>,
    /// Which run it is of; files of one run go on from each other.
    pub run: String,
    /// Nothing was actuated.
    pub dry_run: bool,
    /// Sentences are in it.
    pub keep_text: bool,
    /// What the flight recorder was written down for; `None` in a recording.
    pub fault: Option<String>,
    /// Wall-clock time of the file's beginning, milliseconds since 1970.
    pub wall_ms: u64,
}

/// One file, of which the header has been read.
#[derive(Debug)]
pub struct Recording {
    path: PathBuf,
    header: Header,
    /// End of the header.
    start: u64,
}

/// What a file holds behind its header, piece by piece.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Frames.
    Block(Vec<u8>),
    /// Bytes that are not what was written.
    Damaged(&'static str),
    /// The file ends within a block.
    Torn,
}

/// The pieces of a file, and where in it they begin.
#[derive(Debug)]
pub(crate) struct Pieces<'f> {
    path: &'f Path,
    file: BufReader<File>,
    at: u64,
    size: u64,
}

/// The files of a recording in order: a file itself, or a folder's recording. The folder's fault files are read only when
/// named, and are all that is read when there is nothing else.
///
/// # Errors
/// [`RecordError::Io`], [`RecordError::Empty`].
pub fn files(path: &Path) -> Result<Vec<PathBuf>, RecordError> {
    let failed = |source| RecordError::Io { path: path.to_owned(), source };
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        found.extend(name.into_string().ok().filter(|name| is_recording(Path::new(name))));
    }
    let of = |prefix: &str| -> Vec<PathBuf> {
        let numbered = found.iter().filter_map(|name| Some((number_of(name, prefix)?, name)));
        let mut numbered: Vec<_> = numbered.collect();
        numbered.sort();
        numbered.into_iter().map(|(_, name)| path.join(name)).collect()
    };
    let chosen = Some(of("record")).filter(|files| !files.is_empty()).unwrap_or_else(|| of("fault"));
    if chosen.is_empty() {
        return Err(RecordError::Empty { path: path.to_owned() });
    }
    Ok(chosen)
}

impl Recording {
    /// Reads a file's header.
    ///
    /// # Errors
    /// [`RecordError::Io`]; [`RecordError::Broken`] for what is no recording; [`RecordError::Unbegun`] for a file that ends
    /// within its header; [`RecordError::Version`].
    pub fn open(path: &Path) -> Result<Self, RecordError> {
        let failed = |source| RecordError::Io { path: path.to_owned(), source };
        let broken = |what: &str| RecordError::Broken { path: path.to_owned(), offset: 0, what: what.into() };
        let unbegun = || RecordError::Unbegun { path: path.to_owned() };
        let file = File::open(path).map_err(failed)?;
        let mut begin = Vec::new();
        let most = MAGIC.len() + 8 + HEADER_BYTES_MAX;
        file.take(most as u64).read_to_end(&mut begin).map_err(failed)?;
        let (magic, rest) = begin.split_at(begin.len().min(MAGIC.len()));
        if !MAGIC.starts_with(magic) {
            return Err(broken("it does not begin with GANGREC1: no recording"));
        }
        let (size, rest) = rest.split_first_chunk::<4>().ok_or_else(unbegun)?;
        let (crc, rest) = rest.split_first_chunk::<4>().ok_or_else(unbegun)?;
        let size = u32::from_le_bytes(*size) as usize;
        if size > HEADER_BYTES_MAX {
            return Err(broken("a header that is larger than any"));
        }
        let content = rest.get(..size).ok_or_else(unbegun)?;
        if ganglion_site::crc32(content) != u32::from_le_bytes(*crc) {
            return Err(broken("a header whose checksum is wrong: the file was changed or damaged"));
        }
        let header = header(path, content)?;
        Ok(Self { path: path.to_owned(), header, start: (MAGIC.len() + 8 + size) as u64 })
    }

    /// What the file says about itself.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What follows the header, read block by block.
    pub(crate) fn pieces(&self) -> Result<Pieces<'_>, RecordError> {
        let open = || -> io::Result<Pieces<'_>> {
            let mut file = File::open(&self.path)?;
            let size = file.metadata()?.len();
            file.seek(SeekFrom::Start(self.start))?;
            Ok(Pieces { path: &self.path, file: BufReader::new(file), at: self.start, size })
        };
        open().map_err(|source| RecordError::Io { path: self.path.clone(), source })
    }
}

fn header(path: &Path, content: &[u8]) -> Result<Header, RecordError> {
    let json: serde_json::Value = serde_json::from_slice(content).map_err(|_| RecordError::Broken {
        path: path.to_owned(),
        offset: 0,
        what: "a header that is no JSON object".into(),
    })?;
    let text = |key: &str| json[key].as_str().unwrap_or_default().to_owned();
    let found = json["format"].as_u64().and_then(|format| u16::try_from(format).ok()).unwrap_or(0);
    if found != FORMAT {
        let program = text("program");
        return Err(RecordError::Version { path: path.to_owned(), found, expected: FORMAT, program });
    }
    let models = json["models"].as_array().map(Vec::as_slice).unwrap_or_default();
    Ok(Header {
        program: text("program"),
        site_file: text("site_file").into(),
        models: models.iter().filter_map(|m| m.as_str().map(str::to_owned)).collect(),
        run: text("run"),
        dry_run: json["dry_run"] == true,
        keep_text: json["keep_text"] == true,
        fault: json["fault"].as_str().map(str::to_owned),
        wall_ms: json["wall_ms"].as_u64().unwrap_or(0),
    })
}

impl Pieces<'_> {
    /// The next piece and its offset; `None` at the end. Nothing follows what makes the next block's place unknown.
    pub fn next(&mut self) -> Result<Option<(u64, Piece)>, RecordError> {
        let at = self.at;
        let left = self.size.saturating_sub(at);
        if left == 0 {
            return Ok(None);
        }
        match self.read(left) {
            Ok((piece, end)) => {
                self.at = end;
                Ok(Some((at, piece)))
            }
            // It has become shorter while it was read.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                self.at = self.size;
                Ok(Some((at, Piece::Torn)))
            }
            Err(source) => Err(RecordError::Io { path: self.path.to_owned(), source }),
        }
    }

    /// The piece at the reader's place, of which `left` bytes are there, and where to go on.
    fn read(&mut self, left: u64) -> io::Result<(Piece, u64)> {
        let (here, end) = (self.at, self.size);
        let mut word = || -> io::Result<u32> {
            let mut bytes = [0; 4];
            self.file.read_exact(&mut bytes)?;
            Ok(u32::from_le_bytes(bytes))
        };
        let Some(left) = left.checked_sub(12) else { return Ok((Piece::Torn, end)) };
        let (size, crc, head_crc) = (word()?, word()?, word()?);
        if head_crc != head_checksum(size, crc) || size as usize > BLOCK_BYTES_MAX {
            return Ok((Piece::Damaged("a block's size; what follows cannot be found"), end));
        }
        if u64::from(size) > left {
            return Ok((Piece::Torn, end));
        }
        let mut content = vec![0; size as usize];
        self.file.read_exact(&mut content)?;
        let whole = ganglion_site::crc32(&content) == crc;
        let piece = if whole { Piece::Block(content) } else { Piece::Damaged("a block's content") };
        Ok((piece, here + 12 + u64::from(size)))
    }
}

/// Of a block's size and of its content's checksum.
pub(crate) fn head_checksum(size: u32, crc: u32) -> u32 {
    ganglion_site::crc32(&[size.to_le_bytes(), crc.to_le_bytes()].concat())
}

/// A frame of a block and what follows it; `None` for what is none.
pub(crate) fn first_frame(content: &[u8]) -> Option<((Kind, &[u8]), &[u8])> {
    let (size, rest) = content.split_first_chunk::<4>()?;
    let (frame, after) = rest.split_at_checked(u32::from_le_bytes(*size) as usize)?;
    let (kind, body) = frame.split_first()?;
    Some(((Kind::of(*kind)?, body), after))
}
