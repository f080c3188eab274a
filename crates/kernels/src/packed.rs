//! The bytes of a packed matrix: owned, or a part of something that stays mapped.
#![allow(unsafe_code)]

use std::fmt;
use std::sync::Arc;

use crate::matrix::Line;

/// Immutable bytes, aligned to a cache line.
pub struct PackedBytes(Store);

/// What packed bytes may be part of: a mapped file.
type Source = Arc<dyn AsRef<[u8]> + Send + Sync>;

enum Store {
    Owned(Vec<Line>),
    Mapped { source: Source, first: usize, count: usize },
}

impl PackedBytes {
    /// Bytes of one line, and the alignment of everything packed.
    pub const ALIGNMENT: usize = size_of::<Line>();

    /// The bytes `first..first + count` of `source`, which must not change while this lives; `None` if they are outside, not
    /// whole lines, or not aligned to [`PackedBytes::ALIGNMENT`] in memory.
    pub fn mapped(source: Source, first: usize, count: usize) -> Option<Self> {
        let bytes = (*source).as_ref().get(first..first.checked_add(count)?)?;
        let whole =
            count.is_multiple_of(Self::ALIGNMENT) && bytes.as_ptr().addr().is_multiple_of(Self::ALIGNMENT);
        whole.then(|| Self(Store::Mapped { source, first, count }))
    }

    pub(crate) fn owned(lines: Vec<Line>) -> Self {
        Self(Store::Owned(lines))
    }

    /// All of them.
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Store::Owned(lines) => bytes_of(lines),
            Store::Mapped { source, first, count } => &(**source).as_ref()[*first..*first + *count],
        }
    }

    /// Whether they lie in a mapping, not on the heap.
    pub fn is_mapped(&self) -> bool {
        matches!(self.0, Store::Mapped { .. })
    }

    #[inline]
    pub(crate) fn lines(&self) -> &[Line] {
        match &self.0 {
            Store::Owned(lines) => lines,
            Store::Mapped { .. } => {
                // SAFETY: a line is 64 plain bytes; any bytes are a value of it.
                let (head, lines, tail) = unsafe { self.as_bytes().align_to::<Line>() };
                assert!(head.is_empty() && tail.is_empty(), "the source has moved its bytes");
                lines
            }
        }
    }
}

fn bytes_of(lines: &[Line]) -> &[u8] {
    // SAFETY: a line is 64 plain bytes.
    unsafe { std::slice::from_raw_parts(lines.as_ptr().cast(), size_of_val(lines)) }
}

/// Zeroed bytes as lines, in place.
pub(crate) fn lines_of(bytes: &mut [u8]) -> Option<&mut [Line]> {
    // SAFETY: a line is 64 plain bytes; any bytes are a value of it and any value of it is bytes.
    let (head, lines, tail) = unsafe { bytes.align_to_mut::<Line>() };
    (head.is_empty() && tail.is_empty()).then_some(lines)
}

impl fmt::Debug for PackedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_mapped() { "mapped" } else { "owned" };
        write!(f, "PackedBytes({kind}, {} bytes)", self.as_bytes().len())
    }
}
