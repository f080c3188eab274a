//! A vocabulary file, then any bytes through it: `cargo +nightly fuzz run tokenizer`
//!
//! The input is a file's length (4 bytes, little-endian), the file, and the bytes to encode.
#![no_main]

use ganglion_gguf::Gguf;
use ganglion_tokenizer::{EncodeOptions, Model, Tokenizer};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((length, rest)) = input.split_first_chunk::<4>() else { return };
    let (file, bytes) = rest.split_at(rest.len().min(u32::from_le_bytes(*length) as usize));
    let Ok(tokenizer) =
        Gguf::parse(file).map_err(drop).and_then(|gguf| Tokenizer::from_gguf(&gguf).map_err(drop))
    else {
        return;
    };
    let ids = tokenizer.encode_bytes(bytes, EncodeOptions::default());
    tokenizer.decode(&ids);
    if tokenizer.model() == Model::Bpe && tokenizer.missing_byte(bytes).is_none() {
        assert_eq!(tokenizer.decode_bytes(&ids), bytes);
    }
    tokenizer.encode_bytes(bytes, EncodeOptions { add_bos: true, parse_special: true });
});
