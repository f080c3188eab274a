//! A whole GGUF file: header plus tensor data.

use std::ops::Deref;
use std::path::Path;
use std::time::SystemTime;

use sha2::{Digest, Sha256};

use crate::error::{GgufError, Result};
use crate::header::Header;
use crate::mmap;

enum Source {
    Mapped(memmap2::Mmap),
    Owned(Vec<u8>),
}

/// A parsed GGUF file. Metadata getters are those of [`Header`], to which this dereferences.
pub struct Gguf {
    header: Header,
    source: Source,
    modified: Option<SystemTime>,
}

impl Gguf {
    /// Maps a file read-only and parses its header. Tensor data is paged in when it is first touched.
    ///
    /// # Errors
    /// [`GgufError::Io`] when the file cannot be mapped, [`GgufError::InFile`] when it is malformed.
    pub fn open(path: impl AsRef<Path>) -> Result<Gguf> {
        let path = path.as_ref();
        let source = mmap::map_file(path)?;
        let header = Header::parse(&source)
            .map_err(|cause| GgufError::InFile { path: path.to_path_buf(), cause: Box::new(cause) })?;
        let modified = std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
        Ok(Gguf { header, source: Source::Mapped(source), modified })
    }

    /// Parses a file held in memory. To parse borrowed bytes without keeping them, see [`Header::parse`].
    ///
    /// # Errors
    /// As [`Header::parse`].
    pub fn parse(bytes: impl Into<Vec<u8>>) -> Result<Gguf> {
        let bytes = bytes.into();
        let header = Header::parse(&bytes)?;
        Ok(Gguf { header, source: Source::Owned(bytes), modified: None })
    }

    /// Metadata and tensor directory.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The whole file.
    pub fn bytes(&self) -> &[u8] {
        match &self.source {
            Source::Mapped(map) => map,
            Source::Owned(bytes) => bytes,
        }
    }

    /// Raw data of a tensor, in the format its [`crate::TensorInfo`] states. Aligned in the file to
    /// [`Header::alignment_bytes`]; in memory only if the file is mapped.
    ///
    /// # Errors
    /// [`GgufError::MissingTensor`].
    pub fn tensor_bytes(&self, name: &str) -> Result<&[u8]> {
        let tensor = self.header.tensor(name)?;
        // `Header::parse` has checked the range against these very bytes.
        let start = tensor.offset as usize;
        Ok(&self.bytes()[start..start + tensor.size_bytes as usize])
    }

    /// When the file was last written, if it is one and the system says so.
    pub fn modified(&self) -> Option<SystemTime> {
        self.modified
    }

    /// Content id: SHA-256 over the whole file as 64 lower-case hex digits. Computed anew at each call.
    pub fn sha256(&self) -> String {
        let digest = Sha256::digest(self.bytes());
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl Deref for Gguf {
    type Target = Header;

    fn deref(&self) -> &Header {
        &self.header
    }
}

impl std::fmt::Debug for Gguf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gguf")
            .field("size_bytes", &self.bytes().len())
            .field("metadata_count", &self.metadata().len())
            .field("tensor_count", &self.tensors().len())
            .finish()
    }
}
