//! Helpers shared by the behaviour tests.
#![allow(dead_code)] // each test binary uses its own part

use std::path::PathBuf;

use ganglion_gguf::{Gguf, GgufWriter, StringArray};
use ganglion_tokenizer::{EncodeOptions, Tokenizer};

/// Encodes literally, without BOS.
pub const PLAIN: EncodeOptions = EncodeOptions { add_bos: false, parse_special: false };
/// Encodes with special tokens parsed, without BOS.
pub const PARSED: EncodeOptions = EncodeOptions { add_bos: false, parse_special: true };

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

/// One of the vocabularies of the shared data.
pub fn vocabulary(name: &str) -> Option<Tokenizer> {
    let path = shared()?.join(format!("data/vocab/ggml-vocab-{name}.gguf"));
    Some(Tokenizer::from_gguf(&Gguf::open(path).unwrap()).unwrap())
}

/// The printable character of GPT-2's byte-level alphabet for a byte.
pub fn char_of_byte(byte: u8) -> char {
    let is_printable = |byte: &u8| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    if is_printable(&byte) {
        return char::from(byte);
    }
    let earlier = (0..byte).filter(|byte| !is_printable(byte)).count() as u32;
    char::from_u32(0x100 + earlier).unwrap()
}

/// A vocabulary file of arrays in the making.
pub struct Draft {
    pub model: &'static str,
    pub pre: &'static str,
    pub tokens: Vec<String>,
    pub types: Vec<i32>,
    pub scores: Vec<f32>,
    pub merges: Vec<String>,
    pub extra: Vec<(&'static str, ganglion_gguf::Value)>,
}

impl Draft {
    /// Byte-level BPE: all bytes, "he", "ll", "hell", " he", and a control and a user-defined token.
    pub fn bpe() -> Draft {
        let mut tokens: Vec<String> = (0..=255).map(|byte| char_of_byte(byte).to_string()).collect();
        tokens.extend(["he", "ll", "hell", "Ġhe", "<|end|>", "::x::"].map(str::to_owned));
        let mut types = vec![1; tokens.len()];
        types[260] = 3;
        types[261] = 4;
        let merges = ["h e", "l l", "he ll", "Ġ he"].map(str::to_owned).to_vec();
        let scores = Vec::new();
        Draft { model: "gpt2", pre: "gpt-2", tokens, types, scores, merges, extra: Vec::new() }
    }

    /// SPM: unknown, BOS, EOS, all bytes, and a few words.
    pub fn spm() -> Draft {
        let mut tokens = ["<unk>", "<s>", "</s>"].map(str::to_owned).to_vec();
        tokens.extend((0..=255).map(|byte| format!("<0x{byte:02X}>")));
        tokens.extend(["▁", "h", "e", "l", "he", "ll", "hell", "▁he", "▁hell"].map(str::to_owned));
        let mut types = vec![2, 3, 3];
        types.extend([6; 256]);
        types.extend([1; 9]);
        let mut scores = vec![0.0; 259];
        scores.extend([-20.0, -21.0, -22.0, -23.0, -1.0, -2.0, -3.0, -4.0, -5.0]);
        Draft { model: "llama", pre: "default", tokens, types, scores, merges: Vec::new(), extra: Vec::new() }
    }

    pub fn gguf(&self) -> Gguf {
        let mut writer = GgufWriter::new();
        writer.metadata("tokenizer.ggml.model", self.model).unwrap();
        writer.metadata("tokenizer.ggml.pre", self.pre).unwrap();
        writer.metadata("tokenizer.ggml.tokens", self.tokens.clone()).unwrap();
        writer.metadata("tokenizer.ggml.token_type", self.types.clone()).unwrap();
        if self.model == "llama" {
            writer.metadata("tokenizer.ggml.scores", self.scores.clone()).unwrap();
        } else {
            let merges: StringArray = self.merges.iter().collect();
            writer.metadata("tokenizer.ggml.merges", merges).unwrap();
        }
        for (key, value) in &self.extra {
            writer.metadata(*key, value.clone()).unwrap();
        }
        let mut bytes = Vec::new();
        writer.write_to(&mut bytes).unwrap();
        Gguf::parse(bytes).unwrap()
    }

    pub fn tokenizer(&self) -> Tokenizer {
        Tokenizer::from_gguf(&self.gguf()).unwrap()
    }

    #[track_caller]
    pub fn refused(&self, expected: &str) {
        let error = Tokenizer::from_gguf(&self.gguf()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
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

    /// Text that mixes words, whitespace, digits, punctuation and characters from all over Unicode.
    pub fn text(&mut self, part_count_max: usize) -> String {
        const PARTS: &[&str] = &[
            "hello",
            " world",
            "  ",
            "\n",
            "\r\n",
            "\t",
            "'ll",
            "'RE",
            "123",
            "4",
            " 56",
            "!",
            "...",
            "<s>",
            "</s>",
            "<|im_end|>",
            "▁",
            "ß",
            "漢字",
            "\u{3000}",
            "🦙",
            "\u{200d}",
            "e\u{301}",
            "<0x0A>",
            "\0",
            "Ġ",
            "ø",
        ];
        let mut text = String::new();
        for _ in 0..self.below(part_count_max + 1) {
            match self.below(3) {
                0 => text.extend(char::from_u32((self.next() % 0x11_0000) as u32)),
                _ => text.push_str(PARTS[self.below(PARTS.len())]),
            }
        }
        text
    }
}
