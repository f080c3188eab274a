//! Files of a recording, back into frames. They may come from anywhere: every size is compared with what is left.

use crate::error::RecordError;
use crate::frame::Kind;
use crate::limits::BLOCK_BYTES_MAX;
use crate::writer::{FORMAT, MAGIC, is_recording, number_of};
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
    /// Nothing was actuated.
    pub dry_run: bool,
    /// Sentences are in it.
    pub keep_text: bool,
    /// What the flight recorder was written down for; `None` in a recording.
    pub fault: Option<String>,
    /// Wall-clock time of the file's beginning, milliseconds since 1970.
    pub wall_ms: u64,
}

/// One file.
#[derive(Debug)]
pub struct Recording {
    path: PathBuf,
    header: Header,
    bytes: Vec<u8>,
    /// End of the header.
    start: usize,
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
    found.sort();
    let of = |prefix: &str| -> Vec<PathBuf> {
        found.iter().filter(|name| number_of(name, prefix).is_some()).map(|name| path.join(name)).collect()
    };
    let chosen = Some(of("record")).filter(|files| !files.is_empty()).unwrap_or_else(|| of("fault"));
    if chosen.is_empty() {
        return Err(RecordError::Empty { path: path.to_owned() });
    }
    Ok(chosen)
}

impl Recording {
    /// Reads a file and its header.
    ///
    /// # Errors
    /// [`RecordError::Io`]; [`RecordError::Broken`] for what is no recording; [`RecordError::Version`].
    pub fn open(path: &Path) -> Result<Self, RecordError> {
        let bytes =
            std::fs::read(path).map_err(|source| RecordError::Io { path: path.to_owned(), source })?;
        let broken = |what: &str| RecordError::Broken { path: path.to_owned(), offset: 0, what: what.into() };
        if !bytes.starts_with(MAGIC) {
            return Err(broken("it does not begin with GANGREC1: no recording"));
        }
        let (content, start) = block_at(&bytes, MAGIC.len()).ok_or_else(|| broken("no whole header"))?;
        let json: serde_json::Value =
            serde_json::from_slice(content).map_err(|_| broken("a header that is no JSON object"))?;
        let found = json["format"].as_u64().and_then(|format| u16::try_from(format).ok()).unwrap_or(0);
        if found != FORMAT {
            return Err(RecordError::Version { path: path.to_owned(), found, expected: FORMAT });
        }
        let text = |key: &str| json[key].as_str().unwrap_or_default().to_owned();
        let models = json["models"].as_array().map(Vec::as_slice).unwrap_or_default();
        let header = Header {
            program: text("program"),
            site_file: text("site_file").into(),
            models: models.iter().filter_map(|m| m.as_str().map(str::to_owned)).collect(),
            dry_run: json["dry_run"] == true,
            keep_text: json["keep_text"] == true,
            fault: json["fault"].as_str().map(str::to_owned),
            wall_ms: json["wall_ms"].as_u64().unwrap_or(0),
        };
        Ok(Self { path: path.to_owned(), header, bytes, start })
    }

    /// What the file says about itself.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All frames that are whole, and whether something torn follows: the writer was interrupted there.
    pub(crate) fn frames(&self) -> (Vec<(Kind, &[u8])>, Option<u64>) {
        let mut frames = Vec::new();
        let mut at = self.start;
        while at < self.bytes.len() {
            let Some((mut content, end)) = block_at(&self.bytes, at) else {
                return (frames, Some(at as u64));
            };
            while let Some((size, rest)) = content.split_first_chunk::<4>() {
                let frame = rest.split_at_checked(u32::from_le_bytes(*size) as usize);
                let parts = frame.and_then(|(frame, after)| {
                    let (kind, body) = frame.split_first()?;
                    Some(((Kind::of(*kind)?, body), after))
                });
                let Some((frame, after)) = parts else { return (frames, Some(at as u64)) };
                frames.push(frame);
                content = after;
            }
            at = end;
        }
        (frames, None)
    }
}

/// The content of the block at `at`, and where the next one begins; `None` when it is not whole.
fn block_at(bytes: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let (size, rest) = bytes.get(at..)?.split_first_chunk::<4>()?;
    let (crc, rest) = rest.split_first_chunk::<4>()?;
    let size = u32::from_le_bytes(*size) as usize;
    let content = rest.get(..size).filter(|_| size <= BLOCK_BYTES_MAX)?;
    (ganglion_site::crc32(content) == u32::from_le_bytes(*crc)).then_some((content, at + 8 + size))
}
