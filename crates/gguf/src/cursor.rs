//! A bounds-checked reading position over a file's bytes.

use crate::error::{GgufError, Result};
use crate::limits;
use crate::value::{Array, StringArray, Value, id};

/// Reads little-endian fields; every read is checked against the bytes left before anything is allocated.
pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
    position: usize,
    /// What is being read, for messages: "metadata key `general.name`".
    context: String,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Cursor { bytes, position: 0, context: String::from("header") }
    }

    pub(crate) fn position(&self) -> usize {
        self.position
    }

    pub(crate) fn set_context(&mut self, context: String) {
        self.context = context;
    }

    fn describe(&self, field: &str) -> String {
        format!("{field} of {}", self.context)
    }

    fn remaining(&self) -> usize {
        self.bytes.len() - self.position
    }

    /// Fails unless `needed_bytes` are left.
    fn require(&self, needed_bytes: usize, field: &str) -> Result<()> {
        let remaining_bytes = self.remaining();
        if needed_bytes > remaining_bytes {
            return Err(GgufError::Truncated {
                offset: self.position as u64,
                field: self.describe(field),
                needed_bytes: needed_bytes as u64,
                remaining_bytes: remaining_bytes as u64,
            });
        }
        let header_bytes = self.position + needed_bytes;
        if header_bytes > limits::HEADER_BYTES_MAX {
            return Err(self.limit(self.position, "end", header_bytes as u64, limits::HEADER_BYTES_MAX));
        }
        Ok(())
    }

    fn limit(&self, offset: usize, field: &str, found: u64, limit: usize) -> GgufError {
        GgufError::LimitExceeded {
            offset: offset as u64,
            field: self.describe(field),
            found,
            limit: limit as u64,
        }
    }

    /// An [`GgufError::InvalidField`] for the field at `offset`.
    pub(crate) fn invalid(
        &self,
        offset: usize,
        field: &str,
        found: impl ToString,
        expected: impl ToString,
    ) -> GgufError {
        GgufError::InvalidField {
            offset: offset as u64,
            field: self.describe(field),
            found: found.to_string(),
            expected: expected.to_string(),
        }
    }

    pub(crate) fn take(&mut self, count: usize, field: &str) -> Result<&'a [u8]> {
        self.require(count, field)?;
        let taken = &self.bytes[self.position..self.position + count];
        self.position += count;
        Ok(taken)
    }

    fn take_array<const N: usize>(&mut self, field: &str) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N, field)?);
        Ok(array)
    }

    pub(crate) fn u32(&mut self, field: &str) -> Result<u32> {
        Ok(u32::from_le_bytes(self.take_array(field)?))
    }

    pub(crate) fn u64(&mut self, field: &str) -> Result<u64> {
        Ok(u64::from_le_bytes(self.take_array(field)?))
    }

    /// Reads a count of things of at least `element_bytes_min` bytes each, and checks that they can be there.
    pub(crate) fn count(&mut self, field: &str, limit: usize, element_bytes_min: usize) -> Result<usize> {
        let offset = self.position;
        let found = self.u64(field)?;
        let count = usize::try_from(found)
            .ok()
            .filter(|&count| count <= limit)
            .ok_or_else(|| self.limit(offset, field, found, limit))?;
        // The limits keep this product far below usize::MAX.
        self.require(count * element_bytes_min, field)?;
        Ok(count)
    }

    /// Reads a length-prefixed UTF-8 string.
    pub(crate) fn string(&mut self, field: &str, bytes_max: usize) -> Result<&'a str> {
        let offset = self.position;
        let length = self.count(field, bytes_max, 1)?;
        let bytes = self.take(length, field)?;
        std::str::from_utf8(bytes).map_err(|error| {
            let at = offset + 8 + error.valid_up_to();
            self.invalid(at, field, "not UTF-8", "UTF-8 text")
        })
    }

    fn bool(&mut self, field: &str) -> Result<bool> {
        let offset = self.position;
        match self.take(1, field)?[0] {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(self.invalid(offset, field, format!("bool byte {other}"), "0 or 1")),
        }
    }

    /// Reads a value's type id and the value.
    pub(crate) fn value(&mut self) -> Result<Value> {
        const FIELD: &str = "value";
        let offset = self.position;
        Ok(match self.u32("value type")? {
            id::U8 => Value::U8(u8::from_le_bytes(self.take_array(FIELD)?)),
            id::I8 => Value::I8(i8::from_le_bytes(self.take_array(FIELD)?)),
            id::U16 => Value::U16(u16::from_le_bytes(self.take_array(FIELD)?)),
            id::I16 => Value::I16(i16::from_le_bytes(self.take_array(FIELD)?)),
            id::U32 => Value::U32(self.u32(FIELD)?),
            id::I32 => Value::I32(i32::from_le_bytes(self.take_array(FIELD)?)),
            id::F32 => Value::F32(f32::from_le_bytes(self.take_array(FIELD)?)),
            id::BOOL => Value::Bool(self.bool(FIELD)?),
            id::STRING => Value::String(self.string("string value", limits::STRING_BYTES_MAX)?.to_owned()),
            id::ARRAY => Value::Array(self.array(1)?),
            id::U64 => Value::U64(self.u64(FIELD)?),
            id::I64 => Value::I64(i64::from_le_bytes(self.take_array(FIELD)?)),
            id::F64 => Value::F64(f64::from_le_bytes(self.take_array(FIELD)?)),
            other => return Err(self.invalid(offset, "value type", other, "a type id of 0 to 12")),
        })
    }

    /// Reads `count` numbers of `N` bytes.
    fn numbers<const N: usize, T>(&mut self, decode: fn([u8; N]) -> T) -> Result<Vec<T>> {
        let count = self.count("array length", limits::ARRAY_COUNT_MAX, N)?;
        let (chunks, _) = self.take(count * N, "array")?.as_chunks::<N>();
        Ok(chunks.iter().map(|chunk| decode(*chunk)).collect())
    }

    fn array(&mut self, depth: usize) -> Result<Array> {
        let offset = self.position;
        if depth > limits::ARRAY_DEPTH_MAX {
            return Err(self.limit(offset, "array depth", depth as u64, limits::ARRAY_DEPTH_MAX));
        }
        Ok(match self.u32("array element type")? {
            id::U8 => Array::U8(self.numbers(u8::from_le_bytes)?),
            id::I8 => Array::I8(self.numbers(i8::from_le_bytes)?),
            id::U16 => Array::U16(self.numbers(u16::from_le_bytes)?),
            id::I16 => Array::I16(self.numbers(i16::from_le_bytes)?),
            id::U32 => Array::U32(self.numbers(u32::from_le_bytes)?),
            id::I32 => Array::I32(self.numbers(i32::from_le_bytes)?),
            id::F32 => Array::F32(self.numbers(f32::from_le_bytes)?),
            id::BOOL => {
                let count = self.count("array length", limits::ARRAY_COUNT_MAX, 1)?;
                Array::Bool((0..count).map(|_| self.bool("array element")).collect::<Result<_>>()?)
            }
            id::STRING => Array::String(self.strings()?),
            id::ARRAY => {
                // An array is at least its type id and its length.
                let count = self.count("array length", limits::NESTED_ARRAY_COUNT_MAX, 4 + 8)?;
                Array::Array((0..count).map(|_| self.array(depth + 1)).collect::<Result<_>>()?)
            }
            id::U64 => Array::U64(self.numbers(u64::from_le_bytes)?),
            id::I64 => Array::I64(self.numbers(i64::from_le_bytes)?),
            id::F64 => Array::F64(self.numbers(f64::from_le_bytes)?),
            other => return Err(self.invalid(offset, "array element type", other, "a type id of 0 to 12")),
        })
    }

    fn strings(&mut self) -> Result<StringArray> {
        let count = self.count("array length", limits::ARRAY_COUNT_MAX, 8)?;
        let mut strings = StringArray::new();
        for _ in 0..count {
            strings.push(self.string("array element", limits::STRING_BYTES_MAX)?);
        }
        strings.shrink_to_fit();
        Ok(strings)
    }
}
