//! Everything in front of the tensor data: metadata and tensor directory.

use std::collections::HashMap;

use crate::cursor::Cursor;
use crate::error::{GgufError, Result};
use crate::limits;
use crate::tensor::{TensorInfo, TensorType};
use crate::value::{Array, StringArray, Value};

/// The four bytes a GGUF file starts with.
pub(crate) const MAGIC: &[u8; 4] = b"GGUF";
/// The version read and written.
pub(crate) const VERSION: u32 = 3;
/// Key of the alignment of tensor data.
pub(crate) const ALIGNMENT_KEY: &str = "general.alignment";

/// Metadata in the file's order, tensor directory, and where tensor data starts.
#[derive(Clone, Debug)]
pub struct Header {
    metadata: Vec<(String, Value)>,
    metadata_index: HashMap<String, usize>,
    tensors: Vec<TensorInfo>,
    tensor_index: HashMap<String, usize>,
    alignment_bytes: usize,
    data_offset: u64,
}

impl Header {
    /// Parses the header of a complete file, and checks that every tensor lies inside it.
    ///
    /// # Errors
    /// A [`GgufError`] that names byte offset and field. Memory used is bounded by a small multiple of
    /// `bytes.len()`, whatever the lengths in the file claim.
    pub fn parse(bytes: &[u8]) -> Result<Header> {
        Self::parse_start(bytes, bytes.len() as u64)
    }

    /// As [`Header::parse`], of a file of `size_bytes` whose beginning `bytes` holds at least the header.
    ///
    /// # Errors
    /// As [`Header::parse`].
    pub fn parse_start(bytes: &[u8], size_bytes: u64) -> Result<Header> {
        let mut cursor = Cursor::new(bytes);
        read_magic_and_version(&mut cursor)?;
        // Smallest tensor entry: empty name, no dimensions, type id, offset.
        let tensor_count = cursor.count("tensor count", limits::TENSOR_COUNT_MAX, 8 + 4 + 4 + 8)?;
        // Smallest metadata entry: empty key, type id, one byte.
        let metadata_count = cursor.count("metadata count", limits::METADATA_COUNT_MAX, 8 + 4 + 1)?;

        let mut header = Header {
            metadata: Vec::with_capacity(metadata_count),
            metadata_index: HashMap::with_capacity(metadata_count),
            tensors: Vec::with_capacity(tensor_count),
            tensor_index: HashMap::with_capacity(tensor_count),
            alignment_bytes: limits::ALIGNMENT_DEFAULT_BYTES,
            data_offset: 0,
        };
        for index in 0..metadata_count {
            header.read_metadata(&mut cursor, index)?;
        }
        for index in 0..tensor_count {
            header.read_tensor(&mut cursor, index)?;
        }
        header.data_offset = cursor.position().next_multiple_of(header.alignment_bytes) as u64;
        header.place_tensors(size_bytes)?;
        Ok(header)
    }

    fn read_metadata(&mut self, cursor: &mut Cursor<'_>, index: usize) -> Result<()> {
        cursor.set_context(format!("metadata entry {index}"));
        let offset = cursor.position();
        let key = cursor.string("key", limits::KEY_BYTES_MAX)?;
        cursor.set_context(format!("metadata key `{key}`"));
        let value_offset = cursor.position();
        let value = cursor.value()?;
        if key == ALIGNMENT_KEY {
            self.alignment_bytes = alignment_of(&value)
                .ok_or_else(|| cursor.invalid(value_offset, "value", &value, ALIGNMENT_EXPECTED))?;
        }
        if self.metadata_index.insert(key.to_owned(), index).is_some() {
            return Err(GgufError::Duplicate {
                offset: offset as u64,
                what: "metadata key",
                name: key.to_owned(),
            });
        }
        self.metadata.push((key.to_owned(), value));
        Ok(())
    }

    /// Reads one directory entry; `offset` stays relative to the data section until [`Self::place_tensors`].
    fn read_tensor(&mut self, cursor: &mut Cursor<'_>, index: usize) -> Result<()> {
        cursor.set_context(format!("tensor {index}"));
        let entry_offset = cursor.position();
        let name = cursor.string("name", limits::TENSOR_NAME_BYTES_MAX)?;
        cursor.set_context(format!("tensor `{name}`"));

        let offset = cursor.position();
        let dimension_count = cursor.u32("dimension count")? as usize;
        if dimension_count > limits::DIMENSION_COUNT_MAX {
            let expected = format!("at most {}", limits::DIMENSION_COUNT_MAX);
            return Err(cursor.invalid(offset, "dimension count", dimension_count, expected));
        }
        let shape_offset = cursor.position();
        let shape = (0..dimension_count).map(|_| cursor.u64("dimension")).collect::<Result<Vec<_>>>()?;

        let type_offset = cursor.position();
        let type_id = cursor.u32("type id")?;
        let dtype = TensorType::from_id(type_id).ok_or_else(|| GgufError::UnknownTensorType {
            offset: type_offset as u64,
            tensor: name.to_owned(),
            id: type_id,
        })?;
        let size_bytes = dtype.size_bytes(&shape).ok_or_else(|| {
            let expected = format!(
                "dimensions of at least 1, the first a multiple of {}, in all below 2^64 bytes of {dtype}",
                dtype.block_size()
            );
            cursor.invalid(shape_offset, "shape", format!("{shape:?}"), expected)
        })?;

        let offset_offset = cursor.position();
        let offset = cursor.u64("data offset")?;
        if offset % self.alignment_bytes as u64 != 0 {
            let expected = format!("a multiple of {ALIGNMENT_KEY}, {}", self.alignment_bytes);
            return Err(cursor.invalid(offset_offset, "data offset", offset, expected));
        }
        if self.tensor_index.insert(name.to_owned(), index).is_some() {
            return Err(GgufError::Duplicate {
                offset: entry_offset as u64,
                what: "tensor",
                name: name.to_owned(),
            });
        }
        self.tensors.push(TensorInfo { name: name.to_owned(), shape, dtype, offset, size_bytes });
        Ok(())
    }

    /// Makes offsets absolute, and checks that every tensor lies in the file.
    fn place_tensors(&mut self, file_bytes: u64) -> Result<()> {
        for tensor in &mut self.tensors {
            let start = self.data_offset.checked_add(tensor.offset);
            let end = start.and_then(|start| start.checked_add(tensor.size_bytes));
            match (start, end) {
                (Some(start), Some(end)) if end <= file_bytes => tensor.offset = start,
                _ => {
                    let start = start.unwrap_or(u64::MAX);
                    return Err(GgufError::Truncated {
                        offset: start,
                        field: format!("data of tensor `{}`", tensor.name),
                        needed_bytes: tensor.size_bytes,
                        remaining_bytes: file_bytes.saturating_sub(start),
                    });
                }
            }
        }
        Ok(())
    }

    /// Metadata in the file's order.
    pub fn metadata(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.metadata.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// Tensor directory in the file's order.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The directory entry of a tensor.
    ///
    /// # Errors
    /// [`GgufError::MissingTensor`].
    pub fn tensor(&self, name: &str) -> Result<&TensorInfo> {
        let index =
            self.tensor_index.get(name).ok_or_else(|| GgufError::MissingTensor { name: name.to_owned() })?;
        Ok(&self.tensors[*index])
    }

    /// Alignment of tensor data in bytes.
    pub fn alignment_bytes(&self) -> usize {
        self.alignment_bytes
    }

    /// Start of the data section in bytes from the start of the file; beyond its end in a file without tensors.
    pub fn data_offset(&self) -> u64 {
        self.data_offset
    }

    /// The value of a metadata key, if present.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.metadata_index.get(key).map(|&index| &self.metadata[index].1)
    }

    fn require(&self, key: &str) -> Result<&Value> {
        self.get(key).ok_or_else(|| GgufError::MissingKey { key: key.to_owned() })
    }

    fn integer<T: TryFrom<i128>>(&self, key: &str, expected: &'static str) -> Result<T> {
        let value = self.require(key)?;
        let fits = value.as_integer().and_then(|integer| T::try_from(integer).ok());
        fits.ok_or_else(|| wrong_type(key, value, expected))
    }

    fn array(&self, key: &str, expected: &'static str) -> Result<&Array> {
        match self.require(key)? {
            Value::Array(array) => Ok(array),
            other => Err(wrong_type(key, other, expected)),
        }
    }

    /// An integer of any stored width that fits `u32`.
    ///
    /// # Errors
    /// [`GgufError::MissingKey`] (see [`crate::OptionalExt`]) or [`GgufError::WrongType`]; so for all getters.
    pub fn get_u32(&self, key: &str) -> Result<u32> {
        self.integer(key, "an integer of 0 to 4294967295")
    }

    /// An integer of any stored width that fits `i32`.
    ///
    /// # Errors
    /// As [`Self::get_u32`].
    pub fn get_i32(&self, key: &str) -> Result<i32> {
        self.integer(key, "an integer of -2147483648 to 2147483647")
    }

    /// An integer of any stored width that fits `u64`.
    ///
    /// # Errors
    /// As [`Self::get_u32`].
    pub fn get_u64(&self, key: &str) -> Result<u64> {
        self.integer(key, "an integer of 0 to 18446744073709551615")
    }

    /// A number stored as `f32` or `f64`; the latter is rounded.
    ///
    /// # Errors
    /// As [`Self::get_u32`].
    pub fn get_f32(&self, key: &str) -> Result<f32> {
        match self.require(key)? {
            Value::F32(value) => Ok(*value),
            Value::F64(value) => Ok(*value as f32),
            other => Err(wrong_type(key, other, "a floating-point number")),
        }
    }

    /// A bool.
    ///
    /// # Errors
    /// As [`Self::get_u32`].
    pub fn get_bool(&self, key: &str) -> Result<bool> {
        match self.require(key)? {
            Value::Bool(value) => Ok(*value),
            other => Err(wrong_type(key, other, "a bool")),
        }
    }

    /// A string.
    ///
    /// # Errors
    /// As [`Self::get_u32`].
    pub fn get_str(&self, key: &str) -> Result<&str> {
        match self.require(key)? {
            Value::String(value) => Ok(value),
            other => Err(wrong_type(key, other, "a string")),
        }
    }

    /// An array of strings.
    ///
    /// # Errors
    /// As [`Self::get_u32`].
    pub fn get_str_array(&self, key: &str) -> Result<&StringArray> {
        const EXPECTED: &str = "an array of strings";
        match self.array(key, EXPECTED)? {
            Array::String(strings) => Ok(strings),
            other => Err(wrong_array_type(key, other, EXPECTED)),
        }
    }

    /// An array of `f32`.
    ///
    /// # Errors
    /// As [`Self::get_u32`].
    pub fn get_f32_array(&self, key: &str) -> Result<&[f32]> {
        const EXPECTED: &str = "an array of f32";
        match self.array(key, EXPECTED)? {
            Array::F32(values) => Ok(values),
            other => Err(wrong_array_type(key, other, EXPECTED)),
        }
    }

    /// An array of integers of any stored width that all fit `u32`.
    ///
    /// # Errors
    /// As [`Self::get_u32`].
    pub fn get_u32_array(&self, key: &str) -> Result<Vec<u32>> {
        const EXPECTED: &str = "an array of integers of 0 to 4294967295";
        let array = self.array(key, EXPECTED)?;
        array.to_integers().ok_or_else(|| wrong_array_type(key, array, EXPECTED))
    }

    /// An array of integers of any stored width that all fit `i32`.
    ///
    /// # Errors
    /// As [`Self::get_u32`].
    pub fn get_i32_array(&self, key: &str) -> Result<Vec<i32>> {
        const EXPECTED: &str = "an array of integers of -2147483648 to 2147483647";
        let array = self.array(key, EXPECTED)?;
        array.to_integers().ok_or_else(|| wrong_array_type(key, array, EXPECTED))
    }
}

/// What a `general.alignment` has to be, for messages.
pub(crate) const ALIGNMENT_EXPECTED: &str = "a u32 power of two of 8 to 65536";

/// The alignment a metadata value stands for, if it is a valid one.
pub(crate) fn alignment_of(value: &Value) -> Option<usize> {
    let Value::U32(bytes) = value else { return None };
    let bytes = *bytes as usize;
    let in_range = (limits::ALIGNMENT_BYTES_MIN..=limits::ALIGNMENT_BYTES_MAX).contains(&bytes);
    (in_range && bytes.is_power_of_two()).then_some(bytes)
}

fn read_magic_and_version(cursor: &mut Cursor<'_>) -> Result<()> {
    let magic = cursor.take(MAGIC.len(), "magic")?;
    if magic != MAGIC {
        let found = format!("{:?}", magic.escape_ascii().to_string());
        return Err(cursor.invalid(0, "magic", found, "\"GGUF\"; this is not a GGUF file"));
    }
    let version = cursor.u32("version")?;
    if version == VERSION.swap_bytes() {
        return Err(cursor.invalid(4, "version", "3 in big-endian order", "a little-endian file"));
    }
    if version != VERSION {
        return Err(cursor.invalid(4, "version", version, "3; convert the model again with current tools"));
    }
    Ok(())
}

fn wrong_type(key: &str, found: &Value, expected: &'static str) -> GgufError {
    GgufError::WrongType { key: key.to_owned(), found: found.to_string(), expected }
}

fn wrong_array_type(key: &str, found: &Array, expected: &'static str) -> GgufError {
    let found = format!("an array of {} {}", found.len(), found.element_type_name());
    GgufError::WrongType { key: key.to_owned(), found, expected }
}
