//! A short hash for tables whose keys come from the vocabulary.
//!
//! The standard hash resists chosen keys; here the keys are fixed when the model is loaded and only looked up
//! afterwards, so speed is what matters. Multiply-and-rotate per 8 bytes, after Firefox's FxHash.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A map with the short hash.
pub(crate) type FastMap<K, V> = HashMap<K, V, BuildHasherDefault<FastHasher>>;

#[derive(Default)]
pub(crate) struct FastHasher(u64);

impl FastHasher {
    fn add(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

impl Hasher for FastHasher {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        words.iter().for_each(|word| self.add(u64::from_le_bytes(*word)));
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.add(u64::from_le_bytes(last));
    }

    fn write_u64(&mut self, word: u64) {
        self.add(word);
    }

    fn write_usize(&mut self, word: usize) {
        self.add(word as u64);
    }

    fn finish(&self) -> u64 {
        // The high bits are the well-mixed ones, and the table's index is taken from the low ones.
        self.0.rotate_left(26)
    }
}
