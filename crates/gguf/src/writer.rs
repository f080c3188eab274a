//! Writes GGUF v3 files.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{GgufError, Result};
use crate::header::{ALIGNMENT_EXPECTED, ALIGNMENT_KEY, MAGIC, VERSION, alignment_of};
use crate::limits;
use crate::tensor::TensorType;
use crate::value::{Array, Value};

/// Writes one tensor's data when its turn has come.
type Produce<'a> = Box<dyn FnOnce(&mut dyn Write) -> io::Result<()> + 'a>;

enum Data<'a> {
    Bytes(Cow<'a, [u8]>),
    Produced(Produce<'a>),
}

struct PendingTensor<'a> {
    name: String,
    shape: Vec<u64>,
    dtype: TensorType,
    size_bytes: u64,
    data: Data<'a>,
}

/// A file's header and the places of its tensors; what lies between them is padding of zeros.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileLayout {
    /// Everything in front of the tensor data.
    pub header: Vec<u8>,
    /// Byte ranges of the tensors from the start of the file, in the order in which they were added.
    pub tensors: Vec<std::ops::Range<u64>>,
    /// Length of the file.
    pub size_bytes: u64,
}

/// Collects metadata and tensors, in order, and writes them as one file.
///
/// Everything is checked when it is added, so that what is written can be read back by [`crate::Gguf`].
pub struct GgufWriter<'a> {
    metadata: Vec<(String, Value)>,
    tensors: Vec<PendingTensor<'a>>,
    keys: HashSet<String>,
    names: HashSet<String>,
    alignment_bytes: usize,
}

impl Default for GgufWriter<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a> GgufWriter<'a> {
    /// A file without metadata and tensors.
    pub fn new() -> Self {
        GgufWriter {
            metadata: Vec::new(),
            tensors: Vec::new(),
            keys: HashSet::new(),
            names: HashSet::new(),
            alignment_bytes: limits::ALIGNMENT_DEFAULT_BYTES,
        }
    }

    /// Appends a metadata entry. `general.alignment`, if given, also sets the alignment used.
    ///
    /// # Errors
    /// [`GgufError::Duplicate`], or [`GgufError::Unwritable`] when a limit is exceeded.
    pub fn metadata(&mut self, key: impl Into<String>, value: impl Into<Value>) -> Result<&mut Self> {
        let (key, value) = (key.into(), value.into());
        let check = || {
            if key.len() > limits::KEY_BYTES_MAX {
                return Err(format!("the key has more than {} bytes", limits::KEY_BYTES_MAX));
            }
            if self.metadata.len() == limits::METADATA_COUNT_MAX {
                return Err(format!("there are already {} entries", limits::METADATA_COUNT_MAX));
            }
            if key == ALIGNMENT_KEY && alignment_of(&value).is_none() {
                return Err(format!("it is {value}, expected {ALIGNMENT_EXPECTED}"));
            }
            check_value(&value)
        };
        check().map_err(|reason| GgufError::Unwritable {
            what: "metadata key",
            name: key.clone(),
            reason,
        })?;
        if !self.keys.insert(key.clone()) {
            return Err(GgufError::Duplicate { offset: 0, what: "metadata key", name: key });
        }
        if key == ALIGNMENT_KEY {
            self.alignment_bytes = alignment_of(&value).unwrap_or(self.alignment_bytes);
        }
        self.metadata.push((key, value));
        Ok(self)
    }

    /// Appends a tensor whose data is at hand. `shape` is innermost dimension first.
    ///
    /// # Errors
    /// [`GgufError::Duplicate`], or [`GgufError::Unwritable`] when name, shape or data length do not fit.
    pub fn tensor(
        &mut self,
        name: impl Into<String>,
        shape: &[u64],
        dtype: TensorType,
        bytes: impl Into<Cow<'a, [u8]>>,
    ) -> Result<&mut Self> {
        let (name, bytes) = (name.into(), bytes.into());
        let size_bytes = self.check_tensor(&name, shape, dtype)?;
        if bytes.len() as u64 != size_bytes {
            let reason = format!("{size_bytes} bytes of data expected, {} given", bytes.len());
            return Err(GgufError::Unwritable { what: "tensor", name, reason });
        }
        self.push_tensor(name, shape, dtype, size_bytes, Data::Bytes(bytes))
    }

    /// Appends a tensor whose data `produce` writes when the file is written; so one tensor at a time is in memory.
    ///
    /// # Errors
    /// As [`Self::tensor`]; a wrong data length shows when the file is written.
    pub fn tensor_with(
        &mut self,
        name: impl Into<String>,
        shape: &[u64],
        dtype: TensorType,
        produce: impl FnOnce(&mut dyn Write) -> io::Result<()> + 'a,
    ) -> Result<&mut Self> {
        let name = name.into();
        let size_bytes = self.check_tensor(&name, shape, dtype)?;
        self.push_tensor(name, shape, dtype, size_bytes, Data::Produced(Box::new(produce)))
    }

    fn check_tensor(&self, name: &str, shape: &[u64], dtype: TensorType) -> Result<u64> {
        let check = || {
            if name.len() > limits::TENSOR_NAME_WRITTEN_BYTES_MAX {
                return Err(format!(
                    "the name has more than {} bytes",
                    limits::TENSOR_NAME_WRITTEN_BYTES_MAX
                ));
            }
            if self.tensors.len() == limits::TENSOR_COUNT_MAX {
                return Err(format!("there are already {} tensors", limits::TENSOR_COUNT_MAX));
            }
            if shape.len() > limits::DIMENSION_COUNT_MAX {
                return Err(format!(
                    "shape {shape:?} has more than {} dimensions",
                    limits::DIMENSION_COUNT_MAX
                ));
            }
            dtype.size_bytes(shape).ok_or_else(|| {
                format!("shape {shape:?} is no whole number of blocks of {} {dtype}", dtype.block_size())
            })
        };
        check().map_err(|reason| GgufError::Unwritable { what: "tensor", name: name.to_owned(), reason })
    }

    fn push_tensor(
        &mut self,
        name: String,
        shape: &[u64],
        dtype: TensorType,
        size_bytes: u64,
        data: Data<'a>,
    ) -> Result<&mut Self> {
        if !self.names.insert(name.clone()) {
            return Err(GgufError::Duplicate { offset: 0, what: "tensor", name });
        }
        self.tensors.push(PendingTensor { name, shape: shape.to_vec(), dtype, size_bytes, data });
        Ok(self)
    }

    /// The bytes in front of the data section, padding included.
    fn header_bytes(&self) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&(self.tensors.len() as u64).to_le_bytes());
        out.extend_from_slice(&(self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            put_string(&mut out, key);
            put_value(&mut out, value);
        }
        let mut offset = 0u64;
        for tensor in &self.tensors {
            put_string(&mut out, &tensor.name);
            out.extend_from_slice(&(tensor.shape.len() as u32).to_le_bytes());
            for dimension in &tensor.shape {
                out.extend_from_slice(&dimension.to_le_bytes());
            }
            out.extend_from_slice(&tensor.dtype.id().to_le_bytes());
            out.extend_from_slice(&offset.to_le_bytes());
            let end = offset.checked_add(tensor.size_bytes);
            offset = end
                .and_then(|end| end.checked_next_multiple_of(self.alignment_bytes as u64))
                .ok_or_else(|| {
                    let reason = "the file would exceed 2^64 bytes".to_owned();
                    GgufError::Unwritable { what: "tensor", name: tensor.name.clone(), reason }
                })?;
        }
        if out.len() > limits::HEADER_BYTES_MAX {
            return Err(GgufError::LimitExceeded {
                offset: 0,
                field: "end of header".to_owned(),
                found: out.len() as u64,
                limit: limits::HEADER_BYTES_MAX as u64,
            });
        }
        if !self.tensors.is_empty() {
            out.resize(out.len().next_multiple_of(self.alignment_bytes), 0);
        }
        Ok(out)
    }

    /// The header, and where each tensor will lie, for a caller that writes the data itself and in any order. Data that was
    /// handed in is not looked at.
    ///
    /// # Errors
    /// [`GgufError::Unwritable`] or [`GgufError::LimitExceeded`] as [`Self::write_to`].
    pub fn layout(&self) -> Result<FileLayout> {
        let header = self.header_bytes()?;
        let mut end = header.len() as u64;
        let ranges = self.tensors.iter().map(|tensor| {
            let range = end..end + tensor.size_bytes;
            end = range.end.next_multiple_of(self.alignment_bytes as u64);
            range
        });
        let tensors = ranges.collect();
        Ok(FileLayout { header, tensors, size_bytes: end })
    }

    /// Writes the file to a stream.
    ///
    /// # Errors
    /// [`GgufError::Write`], or [`GgufError::Unwritable`] when a producer wrote too much or too little.
    pub fn write_to(self, out: &mut dyn Write) -> Result<()> {
        let io = |source| GgufError::Write { source };
        out.write_all(&self.header_bytes()?).map_err(io)?;
        let alignment_bytes = self.alignment_bytes as u64;
        for tensor in self.tensors {
            let mut exact = ExactWriter { out, remaining: tensor.size_bytes, overrun: false };
            let written = match tensor.data {
                Data::Bytes(bytes) => exact.write_all(&bytes),
                Data::Produced(produce) => produce(&mut exact),
            };
            if exact.overrun || (written.is_ok() && exact.remaining > 0) {
                let comparison = if exact.overrun { "more" } else { "fewer" };
                let reason = format!("its producer wrote {comparison} than {} bytes", tensor.size_bytes);
                return Err(GgufError::Unwritable { what: "tensor", name: tensor.name, reason });
            }
            written.map_err(io)?;
            // The data section starts aligned, so aligning sizes aligns offsets.
            let padding = tensor.size_bytes.next_multiple_of(alignment_bytes) - tensor.size_bytes;
            out.write_all(&vec![0; padding as usize]).map_err(io)?;
        }
        out.flush().map_err(io)
    }

    /// Writes the file so that `path` holds either what it held before or the complete new file: into a temporary
    /// file beside it, synced, then renamed.
    ///
    /// # Errors
    /// As [`Self::write_to`], with [`GgufError::Io`] naming the file; the temporary file is removed.
    pub fn write_file(self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let io = |action: &'static str| {
            move |source: io::Error| GgufError::Io { path: path.to_path_buf(), action, source }
        };
        let (temporary, file) = create_temporary(path).map_err(io("create a temporary file beside"))?;
        let mut out = BufWriter::new(file);
        let finish = (|| {
            self.write_to(&mut out).map_err(|error| match error {
                GgufError::Write { source } => io("write")(source),
                other => other,
            })?;
            out.get_ref().sync_all().map_err(io("sync"))?;
            std::fs::rename(&temporary, path).map_err(io("rename the temporary file to"))
        })();
        if finish.is_err() {
            // The first error is the one to report.
            let _ = std::fs::remove_file(&temporary);
            return finish;
        }
        // A rename is durable once its directory is; not every system lets a directory be synced.
        if let Ok(directory) = File::open(directory_of(path)) {
            let _ = directory.sync_all();
        }
        Ok(())
    }
}

/// Passes on exactly `remaining` bytes.
struct ExactWriter<'a> {
    out: &'a mut dyn Write,
    remaining: u64,
    overrun: bool,
}

impl Write for ExactWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() as u64 > self.remaining {
            self.overrun = true;
            return Err(io::Error::other("more data than the tensor holds"));
        }
        let written = self.out.write(bytes)?;
        self.remaining -= written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Creates a new file `.NAME.PID-N.tmp` beside `path`.
fn create_temporary(path: &Path) -> io::Result<(PathBuf, File)> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no file name"))?;
    let mut last = None;
    for _ in 0..limits::TEMPORARY_NAME_ATTEMPTS_MAX {
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let mut temporary = std::ffi::OsString::from(".");
        temporary.push(name);
        temporary.push(format!(".{}-{number}.tmp", std::process::id()));
        let temporary = directory_of(path).join(temporary);
        match OpenOptions::new().write(true).create_new(true).open(&temporary) {
            Ok(file) => return Ok((temporary, file)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => last = Some(error),
            Err(error) => return Err(error),
        }
    }
    Err(last.unwrap_or_else(|| io::Error::other("no free temporary name")))
}

/// Whether a value is within the limits the reader enforces.
fn check_value(value: &Value) -> std::result::Result<(), String> {
    match value {
        Value::String(string) => check_string(string),
        Value::Array(array) => check_array(array, 1),
        _ => Ok(()),
    }
}

fn check_string(string: &str) -> std::result::Result<(), String> {
    if string.len() > limits::STRING_BYTES_MAX {
        return Err(format!("a string has more than {} bytes", limits::STRING_BYTES_MAX));
    }
    Ok(())
}

fn check_array(array: &Array, depth: usize) -> std::result::Result<(), String> {
    if depth > limits::ARRAY_DEPTH_MAX {
        return Err(format!("arrays are nested deeper than {}", limits::ARRAY_DEPTH_MAX));
    }
    let count_max = match array {
        Array::Array(_) => limits::NESTED_ARRAY_COUNT_MAX,
        _ => limits::ARRAY_COUNT_MAX,
    };
    if array.len() > count_max {
        return Err(format!("an array has more than {count_max} elements"));
    }
    match array {
        Array::String(strings) => strings.iter().try_for_each(check_string),
        Array::Array(arrays) => arrays.iter().try_for_each(|array| check_array(array, depth + 1)),
        _ => Ok(()),
    }
}

fn put_string(out: &mut Vec<u8>, string: &str) {
    out.extend_from_slice(&(string.len() as u64).to_le_bytes());
    out.extend_from_slice(string.as_bytes());
}

fn put_value(out: &mut Vec<u8>, value: &Value) {
    out.extend_from_slice(&value.type_id().to_le_bytes());
    match value {
        Value::U8(v) => out.extend_from_slice(&v.to_le_bytes()),
        Value::I8(v) => out.extend_from_slice(&v.to_le_bytes()),
        Value::U16(v) => out.extend_from_slice(&v.to_le_bytes()),
        Value::I16(v) => out.extend_from_slice(&v.to_le_bytes()),
        Value::U32(v) => out.extend_from_slice(&v.to_le_bytes()),
        Value::I32(v) => out.extend_from_slice(&v.to_le_bytes()),
        Value::F32(v) => out.extend_from_slice(&v.to_le_bytes()),
        Value::Bool(v) => out.push(u8::from(*v)),
        Value::String(v) => put_string(out, v),
        Value::Array(v) => put_array(out, v),
        Value::U64(v) => out.extend_from_slice(&v.to_le_bytes()),
        Value::I64(v) => out.extend_from_slice(&v.to_le_bytes()),
        Value::F64(v) => out.extend_from_slice(&v.to_le_bytes()),
    }
}

fn put_array(out: &mut Vec<u8>, array: &Array) {
    fn put<T: Copy, const N: usize>(out: &mut Vec<u8>, values: &[T], encode: fn(T) -> [u8; N]) {
        out.reserve(values.len() * N);
        values.iter().for_each(|&value| out.extend_from_slice(&encode(value)));
    }
    out.extend_from_slice(&array.element_type_id().to_le_bytes());
    out.extend_from_slice(&(array.len() as u64).to_le_bytes());
    match array {
        Array::U8(v) => out.extend_from_slice(v),
        Array::I8(v) => put(out, v, i8::to_le_bytes),
        Array::U16(v) => put(out, v, u16::to_le_bytes),
        Array::I16(v) => put(out, v, i16::to_le_bytes),
        Array::U32(v) => put(out, v, u32::to_le_bytes),
        Array::I32(v) => put(out, v, i32::to_le_bytes),
        Array::F32(v) => put(out, v, f32::to_le_bytes),
        Array::Bool(v) => out.extend(v.iter().map(|&v| u8::from(v))),
        Array::String(v) => v.iter().for_each(|string| put_string(out, string)),
        Array::Array(v) => v.iter().for_each(|array| put_array(out, array)),
        Array::U64(v) => put(out, v, u64::to_le_bytes),
        Array::I64(v) => put(out, v, i64::to_le_bytes),
        Array::F64(v) => put(out, v, f64::to_le_bytes),
    }
}
