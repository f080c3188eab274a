//! Every bound of the crate.

/// Most tokens in a vocabulary.
pub const VOCABULARY_COUNT_MAX: usize = 1 << 22;
/// Most merges of a byte-pair vocabulary.
pub const MERGE_COUNT_MAX: usize = 1 << 22;
/// Longest stretch of bytes merged as one piece; longer ones are cut. Bounds the working memory of an encode;
/// no word comes near it.
pub const PIECE_BYTES_MAX: usize = 1 << 20;
/// Longest chat template source, in bytes.
pub const TEMPLATE_BYTES_MAX: usize = 1 << 20;
/// Longest rendered chat, in bytes.
pub const RENDERED_BYTES_MAX: usize = 4 << 20;
/// Template instructions executed per render, at most; ends endless loops.
pub const TEMPLATE_FUEL_MAX: u64 = 1_000_000;
/// Most messages in one chat.
pub const MESSAGE_COUNT_MAX: usize = 4096;
/// Longest text that `strftime_now` yields, in bytes.
pub const TIME_TEXT_BYTES_MAX: usize = 256;

// Symbols and candidates are indexed with u32, with the largest value meaning "none".
const _: () = assert!(PIECE_BYTES_MAX < u32::MAX as usize);
const _: () = assert!(VOCABULARY_COUNT_MAX < u32::MAX as usize);
const _: () = assert!(MERGE_COUNT_MAX < u32::MAX as usize);
