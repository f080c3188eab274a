//! Packed weights kept on disk between runs, so that a model is repacked once and mapped ever after.
//!
//! # Format (little-endian)
//! | bytes | what |
//! |---|---|
//! | 0..8 | magic `GNGPACK` and a zero |
//! | 8..12 | version of this format and of the kernels' layout, [`VERSION`] |
//! | 12..20 | bytes of the payload |
//! | 20..52 | key of the model file: SHA-256 over its header, length, time of change, and samples of every tensor |
//! | 52..4096 | zeros |
//! | 4096.. | the matrices, in the order in which the model is read, each a multiple of 64 bytes |
//!
//! A file is written under another name, synced, and renamed: under its own name it is whole. It is named after its key, so a
//! changed model never finds the file of its predecessor. It says nothing that the model file does not say, and can be deleted at any
//! time.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use ganglion_gguf::{Gguf, MappedFile};
use ganglion_kernels::{Matrix, PackedBytes, Pool};
use sha2::{Digest, Sha256};

use crate::error::{LlmError, Result};
use crate::limits::PACKED_FILE_BYTES_MIN;
use crate::parts::{MatrixPart, pack_all};
use crate::prefix_file::PrefixFile;

/// To be raised with every change of this format or of the layout of any block format.
const VERSION: u32 = 1;
const MAGIC: [u8; 8] = *b"GNGPACK\0";
/// Where the payload begins: a page, so that matrices are aligned in memory.
const HEADER_BYTES: usize = 4096;
/// Bytes and number of the samples that a key takes of each tensor.
const SAMPLE_BYTES: usize = 64;
const SAMPLES: usize = 8;

/// A folder of packed weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackedFolder {
    folder: PathBuf,
    bytes_min: usize,
}

/// How the weights came into memory.
#[derive(Debug)]
pub enum Loaded {
    /// Packed into memory of this process; with an error if they should have been kept in a file.
    Packed(Option<LlmError>),
    /// Packed into a file, which is mapped.
    Written,
    /// Mapped from a file that an earlier run has written.
    Mapped,
}

impl PackedFolder {
    /// The folder, which need not exist yet.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), bytes_min: PACKED_FILE_BYTES_MIN }
    }

    /// Keeps packed weights of no fewer than `bytes`, [`PACKED_FILE_BYTES_MIN`] by default.
    pub fn from_size(self, bytes: usize) -> Self {
        Self { bytes_min: bytes, ..self }
    }

    pub(crate) fn keeps(&self, bytes: usize) -> bool {
        bytes >= self.bytes_min
    }

    /// The file that holds, or would hold, the packed weights of `gguf`.
    pub fn file(&self, gguf: &Gguf) -> PathBuf {
        let name: String = key(gguf).iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        self.folder.join(format!("{name}.packed"))
    }

    /// Where evaluated prefixes of `gguf` are kept, if it is of the size that this folder is for.
    pub fn prefix_file(&self, gguf: &Gguf) -> Option<PrefixFile> {
        let weights: usize = gguf.tensors().iter().map(|tensor| tensor.size_bytes as usize).sum();
        let name = || key(gguf).iter().map(|byte| format!("{byte:02x}")).collect();
        self.keeps(weights).then(|| PrefixFile::new(&self.folder, name()))
    }

    /// Maps the packed weights of `gguf`, after writing them if there are none.
    pub(crate) fn open(&self, pool: &Pool, gguf: &Gguf, parts: &[MatrixPart]) -> Result<(Mapped, Loaded)> {
        let path = self.file(gguf);
        let header = header(&key(gguf), parts);
        if let Ok(file) = MappedFile::open(&path)
            && Mapped::fits(&file, &header, parts)
        {
            return Ok((Mapped { file: Arc::new(file), path }, Loaded::Mapped));
        }
        let failed = |source: io::Error| LlmError::PackedFile { path: path.clone(), source };
        self.write(&path, &header, pool, gguf, parts)?;
        let file = MappedFile::open(&path)?;
        if !Mapped::fits(&file, &header, parts) {
            return Err(failed(io::Error::other("it was replaced while it was opened")));
        }
        Ok((Mapped { file: Arc::new(file), path }, Loaded::Written))
    }

    fn write(
        &self,
        path: &Path,
        header: &[u8],
        pool: &Pool,
        gguf: &Gguf,
        parts: &[MatrixPart],
    ) -> Result<()> {
        let failed = |source: io::Error| LlmError::PackedFile { path: path.to_path_buf(), source };
        fs::create_dir_all(&self.folder).map_err(failed)?;
        // Two processes may write the same file at once: each under a name of its own.
        let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
        let file = File::create(&temporary).map_err(failed)?;
        let written = pack_all(pool, gguf, parts, &|index, matrix| {
            let at = HEADER_BYTES + parts[index].packed.start;
            file.write_all_at(matrix.packed().as_bytes(), at as u64).map_err(failed)
        })
        .and_then(|()| file.write_all_at(header, 0).and_then(|()| file.sync_all()).map_err(failed))
        .and_then(|()| fs::rename(&temporary, path).map_err(failed));
        if written.is_err() {
            // What cannot be removed is left over: the name says that it is temporary.
            let _ = fs::remove_file(&temporary);
        }
        written
    }
}

/// A mapped file of packed weights.
pub(crate) struct Mapped {
    file: Arc<MappedFile>,
    path: PathBuf,
}

impl Mapped {
    fn fits(file: &MappedFile, header: &[u8], parts: &[MatrixPart]) -> bool {
        let bytes = file.as_ref();
        bytes.starts_with(header) && bytes.len() == HEADER_BYTES + payload(parts)
    }

    /// All matrices, in the order of `parts`.
    pub(crate) fn matrices(&self, parts: &[MatrixPart]) -> Result<Vec<Matrix>> {
        parts.iter().map(|part| self.matrix(part)).collect()
    }

    fn matrix(&self, part: &MatrixPart) -> Result<Matrix> {
        let (first, count) = (HEADER_BYTES + part.packed.start, part.packed.len());
        let source: Arc<dyn AsRef<[u8]> + Send + Sync> = self.file.clone();
        match PackedBytes::mapped(source, first, count) {
            Some(packed) => part.over(packed),
            None => {
                let source = io::Error::new(io::ErrorKind::InvalidData, "shorter than its header says");
                Err(LlmError::PackedFile { path: self.path.clone(), source })
            }
        }
    }
}

fn payload(parts: &[MatrixPart]) -> usize {
    parts.last().map_or(0, |part| part.packed.end)
}

fn header(key: &[u8; 32], parts: &[MatrixPart]) -> Vec<u8> {
    let mut header = Vec::with_capacity(HEADER_BYTES);
    header.extend(MAGIC);
    header.extend(VERSION.to_le_bytes());
    header.extend((payload(parts) as u64).to_le_bytes());
    header.extend(key);
    header.resize(HEADER_BYTES, 0);
    header
}

/// What tells one model file from another without reading all of it.
fn key(gguf: &Gguf) -> [u8; 32] {
    let bytes = gguf.bytes();
    let mut hash = Sha256::new();
    hash.update(VERSION.to_le_bytes());
    hash.update((bytes.len() as u64).to_le_bytes());
    let modified = gguf.modified().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    hash.update(modified.map_or(0, |time| time.as_nanos()).to_le_bytes());
    hash.update(&bytes[..(gguf.header().data_offset() as usize).min(bytes.len())]);
    for info in gguf.header().tensors() {
        let Ok(tensor) = gguf.tensor_bytes(&info.name) else { continue };
        for sample in 0..SAMPLES {
            let at = tensor.len().saturating_sub(SAMPLE_BYTES) * sample / (SAMPLES - 1);
            hash.update(&tensor[at..(at + SAMPLE_BYTES).min(tensor.len())]);
        }
    }
    hash.finalize().into()
}
