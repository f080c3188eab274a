//! The files of a model folder: JSON within bounds, tensors mapped.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use ganglion_gguf::MappedFile;
use ganglion_kernels::BlockFormat;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Map, Value};

use crate::error::{LlmError, Result};
use crate::limits;

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// The tensors of a folder, by name.
pub(super) struct Folder {
    path: PathBuf,
    files: Vec<(PathBuf, MappedFile)>,
    tensors: BTreeMap<String, Entry>,
}

struct Entry {
    file: usize,
    start: usize,
    end: usize,
    dtype: Dtype,
    shape: Vec<usize>,
}

/// One tensor as stored: row-major, plain numbers.
#[derive(Clone, Copy)]
pub(super) struct SourceTensor<'a> {
    pub(super) file: &'a Path,
    pub(super) format: BlockFormat,
    pub(super) bytes: &'a [u8],
}

fn malformed(file: &Path, reason: impl Into<String>) -> LlmError {
    LlmError::SourceFile { file: file.to_owned(), reason: reason.into() }
}

/// Reads a text file of at most `limit` bytes; `None` if there is none.
pub(super) fn read_text(file: &Path, limit: usize) -> Result<Option<String>> {
    let io = |action| move |error: std::io::Error| malformed(file, format!("cannot {action}: {error}"));
    // Asked before opening: opening a named pipe would wait for a writer.
    match std::fs::metadata(file) {
        Ok(metadata) if !metadata.is_file() => return Err(malformed(file, "is not a regular file")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        found => found.map_err(io("open"))?,
    };
    let mut text = String::new();
    let mut limited = std::fs::File::open(file).map_err(io("open"))?.take(limit as u64 + 1);
    limited.read_to_string(&mut text).map_err(io("read"))?;
    if text.len() > limit {
        return Err(malformed(file, format!("is longer than the limit of {limit} bytes")));
    }
    Ok(Some(text))
}

/// Reads a JSON object; `None` if there is no such file.
pub(super) fn read_object(file: &Path) -> Result<Option<Map<String, Value>>> {
    let Some(text) = read_text(file, limits::SOURCE_JSON_BYTES_MAX)? else { return Ok(None) };
    let map = serde_json::from_str(&text).map_err(|error| malformed(file, error.to_string()))?;
    Ok(Some(map))
}

impl Folder {
    /// Without any tensor: for a plan of a folder that is yet to be written.
    pub(super) fn empty() -> Self {
        Self { path: PathBuf::new(), files: Vec::new(), tensors: BTreeMap::new() }
    }

    pub(super) fn open(path: &Path) -> Result<Self> {
        let index = read_object(&path.join(INDEX))?;
        let names = match &index {
            Some(index) => shard_names(&path.join(INDEX), index)?,
            None => vec![SINGLE.to_owned()],
        };
        let mut folder = Self { path: path.to_owned(), files: Vec::new(), tensors: BTreeMap::new() };
        for name in names {
            let file = path.join(&name);
            if !file.is_file() {
                return Err(malformed(&file, missing_weights(path, index.is_some())));
            }
            folder.add(file)?;
        }
        if let Some(index) = &index {
            folder.check_index(index)?;
        }
        Ok(folder)
    }

    fn add(&mut self, file: PathBuf) -> Result<()> {
        let map = MappedFile::open(&file)?;
        let (header_bytes, header) = SafeTensors::read_metadata(map.as_ref())
            .map_err(|error| malformed(&file, format!("is no whole safetensors file: {error}")))?;
        let index = self.files.len();
        for (name, info) in header.tensors() {
            // The data follows the header and its length field.
            let place = |offset: usize| offset.checked_add(8)?.checked_add(header_bytes);
            let (start, end) = (place(info.data_offsets.0), place(info.data_offsets.1));
            let (Some(start), Some(end)) = (start, end.filter(|end| *end <= map.as_ref().len())) else {
                return Err(malformed(&file, format!("tensor {name} lies outside the file")));
            };
            let entry = Entry { file: index, start, end, dtype: info.dtype, shape: info.shape.clone() };
            if self.tensors.insert(name.clone(), entry).is_some() {
                return Err(malformed(&file, format!("tensor {name} is also in another file of the folder")));
            }
        }
        self.files.push((file, map));
        Ok(())
    }

    /// Each tensor that the index names is in the file that it names.
    fn check_index(&self, index: &Map<String, Value>) -> Result<()> {
        for (name, shard) in index.get("weight_map").and_then(Value::as_object).into_iter().flatten() {
            let found = self.tensors.get(name).map(|entry| &self.files[entry.file].0);
            if found.and_then(|file| file.file_name()) != shard.as_str().map(std::ffi::OsStr::new) {
                let reason = format!("tensor {name} is not in {shard}, where {INDEX} says it is");
                return Err(malformed(&self.path, reason));
            }
        }
        Ok(())
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// A tensor of an expected shape (outermost dimension first).
    pub(super) fn tensor(&self, name: &str, expected: &[usize]) -> Result<SourceTensor<'_>> {
        let Some(entry) = self.tensors.get(name) else {
            return Err(malformed(
                &self.path,
                format!("tensor {name} is missing, expected one of shape {expected:?}"),
            ));
        };
        let (file, map) = &self.files[entry.file];
        let format = match entry.dtype {
            Dtype::F32 => BlockFormat::F32,
            Dtype::F16 => BlockFormat::F16,
            Dtype::BF16 => BlockFormat::Bf16,
            other => {
                let reason = format!("tensor {name} is stored as {other:?}, expected F32, F16 or BF16");
                return Err(malformed(file, reason));
            }
        };
        if entry.shape != expected {
            let reason =
                format!("tensor {name} has shape {:?}, expected {expected:?} from config.json", entry.shape);
            return Err(malformed(file, reason));
        }
        Ok(SourceTensor { file, format, bytes: &map.as_ref()[entry.start..entry.end] })
    }
}

fn missing_weights(path: &Path, has_index: bool) -> String {
    if has_index {
        return format!("is missing, but {INDEX} names it; fetch the whole folder");
    }
    if path.join("pytorch_model.bin").is_file() || path.join("pytorch_model.bin.index.json").is_file() {
        let save = "save_pretrained(…, safe_serialization=True)";
        return format!(
            "is missing; pytorch_model.bin holds Python code and is not read, save it anew with {save}"
        );
    }
    format!("is missing, and so is {INDEX}; expected a folder as save_pretrained writes it")
}

/// The files that an index names: plain names, none outside the folder.
fn shard_names(file: &Path, index: &Map<String, Value>) -> Result<Vec<String>> {
    let Some(map) = index.get("weight_map").and_then(Value::as_object) else {
        return Err(malformed(
            file,
            "weight_map is absent, expected an object of tensor names to file names",
        ));
    };
    let mut names = Vec::new();
    for (tensor, shard) in map {
        let plain = shard.as_str().filter(|name| {
            let mut parts = Path::new(name).components();
            let one = matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None));
            one && !name.contains(['/', '\\', '\0']) && name.ends_with(".safetensors")
        });
        let Some(name) = plain else {
            let field = format!("weight_map.{tensor}");
            let expected = "the plain name of a .safetensors file in the same folder".to_owned();
            return Err(LlmError::SourceField {
                file: file.to_owned(),
                field,
                found: shard.to_string(),
                expected,
            });
        };
        names.push(name.to_owned());
    }
    names.sort_unstable();
    names.dedup();
    if names.is_empty() || names.len() > limits::SOURCE_SHARDS_MAX {
        let reason =
            format!("weight_map names {} files, expected 1 to {}", names.len(), limits::SOURCE_SHARDS_MAX);
        return Err(malformed(file, reason));
    }
    Ok(names)
}
