//! Malformed files: an error that names offset and field; never a panic, never a huge allocation.

mod common;

use common::{Xorshift, sample};
use ganglion_gguf::{Gguf, GgufError, Header, limits};

/// Assembles a file by hand, field by field.
#[derive(Default, Clone)]
struct Raw(Vec<u8>);

impl Raw {
    fn file(tensor_count: u64, metadata_count: u64) -> Raw {
        Raw(b"GGUF".to_vec()).u32(3).u64(tensor_count).u64(metadata_count)
    }
    fn u32(mut self, value: u32) -> Raw {
        self.0.extend(value.to_le_bytes());
        self
    }
    fn u64(mut self, value: u64) -> Raw {
        self.0.extend(value.to_le_bytes());
        self
    }
    fn text(mut self, text: &[u8]) -> Raw {
        self = self.u64(text.len() as u64);
        self.0.extend(text);
        self
    }
    fn pad(mut self, count: usize) -> Raw {
        self.0.resize(self.0.len() + count, 0);
        self
    }
    #[track_caller]
    fn check(self, expected: &str) {
        let error = Header::parse(&self.0).expect_err(expected).to_string();
        assert_eq!(error, expected);
    }
}

#[test]
fn messages_name_offset_and_field() {
    Raw(b"GGML....".to_vec())
        .check("offset 0: magic of header is \"GGML\", expected \"GGUF\"; this is not a GGUF file");
    Raw(b"GGUF\0\0\0\x03".to_vec())
        .check("offset 4: version of header is 3 in big-endian order, expected a little-endian file");
    Raw(b"GGUF\x02\0\0\0".to_vec())
        .check("offset 4: version of header is 2, expected 3; convert the model again with current tools");
    Raw::file(u64::MAX, 0)
        .check("offset 8: tensor count of header is 18446744073709551615, more than the limit of 131072");
    Raw::file(0, 1000).check(
        "offset 24: metadata count of header needs 13000 bytes but the file has 0 left; the file is truncated or \
         corrupt, fetch it again",
    );
    Raw::file(0, 1)
        .text(b"k")
        .u32(99)
        .pad(8)
        .check("offset 33: value type of metadata key `k` is 99, expected a type id of 0 to 12");
    let mut raw = Raw::file(0, 1).text(b"k").u32(7).pad(1);
    *raw.0.last_mut().unwrap() = 2;
    raw.check("offset 37: value of metadata key `k` is bool byte 2, expected 0 or 1");
    Raw::file(0, 1)
        .text(b"k\xff")
        .u32(0)
        .pad(1)
        .check("offset 33: key of metadata entry 0 is not UTF-8, expected UTF-8 text");
    Raw::file(0, 2)
        .text(b"k")
        .u32(0)
        .pad(1)
        .text(b"k")
        .u32(0)
        .pad(1)
        .check("offset 38: metadata key `k` occurs a second time");
    Raw::file(0, 1).text(b"general.alignment").u32(4).u32(33).check(
        "offset 49: value of metadata key `general.alignment` is u32 33, expected a u32 power of two of 8 to 65536",
    );
}

#[test]
fn arrays_are_bounded() {
    let array =
        |element_type: u32, count: u64| Raw::file(0, 1).text(b"k").u32(9).u32(element_type).u64(count);
    for (element_type, element_bytes) in [(0, 1), (6, 4), (7, 1), (8, 8), (12, 8)] {
        let count = 1u64 << 24;
        let error = Header::parse(&array(element_type, count).0).unwrap_err();
        assert!(
            matches!(error, GgufError::Truncated { needed_bytes, .. } if needed_bytes == count * element_bytes),
            "{error}"
        );
        let error = Header::parse(&array(element_type, count + 1).0).unwrap_err();
        assert!(matches!(error, GgufError::LimitExceeded { .. }), "{error}");
    }
    array(9, 65_537)
        .check("offset 41: array length of metadata key `k` is 65537, more than the limit of 65536");
    // Arrays of one array of one array …
    let mut raw = Raw::file(0, 1).text(b"k").u32(9);
    for _ in 0..limits::ARRAY_DEPTH_MAX {
        raw = raw.u32(9).u64(1);
    }
    raw.pad(12).check("offset 85: array depth of metadata key `k` is 5, more than the limit of 4");
    Raw::file(0, 1).text(b"k").u32(8).u64(u64::MAX).check(
        "offset 37: string value of metadata key `k` is 18446744073709551615, more than the limit of 16777216",
    );
}

#[test]
fn tensors_lie_in_the_file() {
    let tensor = |dtype: u32, dimension: u64, offset: u64| {
        Raw::file(1, 0).text(b"t").u32(1).u64(dimension).u32(dtype).u64(offset)
    };
    // The directory ends at 57, so the data section starts at 64.
    assert!(Header::parse(&tensor(0, 4, 0).pad(7 + 16).0).is_ok());
    tensor(0, 4, 0).pad(7 + 15).check(
        "offset 64: data of tensor `t` needs 16 bytes but the file has 15 left; the file is truncated or corrupt, \
         fetch it again",
    );
    tensor(0, 4, u64::MAX - 31).check(
        "offset 18446744073709551615: data of tensor `t` needs 16 bytes but the file has 0 left; the file is \
         truncated or corrupt, fetch it again",
    );
    tensor(0, 4, 8)
        .check("offset 49: data offset of tensor `t` is 8, expected a multiple of general.alignment, 32");
    tensor(4, 4, 0).check("offset 45: tensor `t` has unknown type id 4; convert the model to a known type");
    tensor(8, 33, 0).check(
        "offset 37: shape of tensor `t` is [33], expected dimensions of at least 1, the first a multiple of 32, in \
         all below 2^64 bytes of Q8_0",
    );
    assert!(Header::parse(&tensor(0, u64::MAX, 0).0).is_err());
    Raw::file(1, 0)
        .text(b"t")
        .u32(5)
        .pad(64)
        .check("offset 33: dimension count of tensor `t` is 5, expected at most 4");
    Raw::file(2, 0)
        .text(b"t")
        .u32(0)
        .u32(0)
        .u64(0)
        .text(b"t")
        .u32(0)
        .u32(0)
        .u64(0)
        .pad(64)
        .check("offset 49: tensor `t` occurs a second time");
}

#[test]
fn every_truncation_is_an_error() {
    let bytes = sample();
    assert!(Gguf::parse(bytes.as_slice()).is_ok());
    let data_end = Gguf::parse(bytes.as_slice()).unwrap();
    let last = data_end.tensors().last().unwrap();
    let data_end = (last.offset + last.size_bytes) as usize;
    for length in 0..data_end {
        let error = Gguf::parse(&bytes[..length]).expect_err("truncated");
        assert!(matches!(error, GgufError::Truncated { .. }), "{length}: {error}");
    }
}

/// Peak resident memory of this process in KiB, where the system tells.
fn peak_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[test]
fn random_and_mutated_files_never_panic() {
    let mut random = Xorshift(0x9E37_79B9_7F4A_7C15);
    let before = peak_kib();
    for _ in 0..10_000 {
        let length = random.below(300);
        let mut bytes = random.bytes(length);
        let _ = Gguf::parse(bytes.as_slice());
        // The same behind a valid start with small counts, so that the parser goes further.
        let mut start = Raw::file(random.next() % 3, random.next() % 3).0;
        start.append(&mut bytes);
        let _ = Gguf::parse(start);
    }
    let valid = sample();
    let mut accepted = 0;
    for _ in 0..20_000 {
        let mut bytes = valid.clone();
        for _ in 0..=random.below(4) {
            let at = random.below(bytes.len());
            match random.below(4) {
                0 => bytes[at] ^= 1 << random.below(8),
                1 => bytes[at] = random.next() as u8,
                2 => bytes[at..].iter_mut().take(8).for_each(|byte| *byte = 0xff),
                _ => bytes.truncate(at.max(1)),
            }
        }
        if let Ok(gguf) = Gguf::parse(bytes) {
            accepted += 1;
            for tensor in gguf.tensors() {
                let data = gguf.tensor_bytes(&tensor.name).unwrap();
                assert_eq!(data.len() as u64, tensor.size_bytes);
            }
        }
    }
    // Flips inside values and data are harmless, so the loop above is not all errors.
    assert!(accepted > 100, "{accepted}");
    if let (Some(before), Some(after)) = (before, peak_kib()) {
        assert!(after - before < 64 << 10, "peak memory grew from {before} to {after} KiB");
    }
}

#[test]
fn every_bit_flip_gives_a_verdict() {
    let valid = sample();
    for bit in 0..valid.len() * 8 {
        let mut bytes = valid.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let _ = Gguf::parse(bytes);
    }
}
