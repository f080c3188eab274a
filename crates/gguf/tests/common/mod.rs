//! Helpers shared by the behaviour tests.
#![allow(dead_code)] // each test binary uses its own part

use std::path::PathBuf;

use ganglion_gguf::{Array, GgufWriter, TensorType, Value};

/// The folder of shared test data, or `None` after a visible line that says so.
pub fn shared() -> Option<PathBuf> {
    let is_shared = |path: &PathBuf| path.join("design.md").is_file();
    let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let beside = manifest.ancestors().flat_map(|dir| [dir.join("shared"), dir.join("../shared")]);
    let found =
        std::env::var_os("GANGLION_SHARED").map(PathBuf::from).into_iter().chain(beside).find(is_shared);
    if found.is_none() {
        eprintln!("skipped: no folder of shared test data (set GANGLION_SHARED)");
    }
    found
}

/// A small file with every value type, nested arrays and three tensors.
pub fn sample() -> Vec<u8> {
    let mut writer = GgufWriter::new();
    for (key, value) in every_value() {
        writer.metadata(key, value).unwrap();
    }
    writer.tensor("a", &[3, 2], TensorType::F32, vec![1u8; 24]).unwrap();
    writer.tensor("blk.0.b", &[32], TensorType::Q8_0, vec![2u8; 34]).unwrap();
    writer.tensor_with("c", &[], TensorType::F16, |out| out.write_all(&[3, 3])).unwrap();
    let mut bytes = Vec::new();
    writer.write_to(&mut bytes).unwrap();
    bytes
}

/// One value of each type, and arrays of arrays.
pub fn every_value() -> Vec<(&'static str, Value)> {
    let nested = Array::Array(vec![Array::U8(vec![1]), Array::Array(vec![Array::Bool(vec![true, false])])]);
    vec![
        ("u8", 200u8.into()),
        ("i8", (-100i8).into()),
        ("u16", 60_000u16.into()),
        ("i16", (-30_000i16).into()),
        ("u32", 4_000_000_000u32.into()),
        ("i32", (-2_000_000_000i32).into()),
        ("f32", 1.5f32.into()),
        ("bool", true.into()),
        ("string", "grüße".into()),
        ("u64", u64::MAX.into()),
        ("i64", i64::MIN.into()),
        ("f64", (-0.1f64).into()),
        ("strings", Value::from(["", "▁a", "b"].as_slice())),
        ("floats", vec![0.5f32, -1.0].into()),
        ("ints", vec![1i32, 2, 3].into()),
        ("nested", nested.into()),
        ("empty", Array::F64(Vec::new()).into()),
    ]
}

/// Marsaglia's xorshift64: small, seeded, the same everywhere.
pub struct Xorshift(pub u64);

impl Xorshift {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }
}
