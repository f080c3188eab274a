//! Text to tokens and back, from the vocabulary in a GGUF file; and chat templates.
//!
//! Data flow of encoding: special tokens are cut out of the text, what lies between is split into pieces by the
//! vocabulary's pre-tokenizer (byte-level BPE) or taken whole (SPM), and within a piece the best pair of neighbours
//! is merged until none is left. Decoding concatenates the tokens' bytes; [`Detokenizer`] does so for a stream,
//! without ever splitting a UTF-8 character.
//!
//! Tokens are identical to llama.cpp's for the vocabularies in the tests, with these exceptions on purpose: text
//! that spells a control token never merges into it, overlapping special tokens are found leftmost first, and a
//! literal `▁` is not taken for a space (so that decoding gives back what was encoded).
//!
//! ```no_run
//! use ganglion_gguf::Gguf;
//! use ganglion_tokenizer::{EncodeOptions, Tokenizer};
//!
//! let tokenizer = Tokenizer::from_gguf(&Gguf::open("model.gguf")?)?;
//! let ids = tokenizer.encode("set the office to 21 degrees", EncodeOptions::default());
//! assert_eq!(tokenizer.decode(&ids), "set the office to 21 degrees");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What it does not do: train vocabularies; WordPiece, unigram or RWKV vocabularies; read `tokenizer.json`; bound
//! the memory that a template's own string operations take (templates come with the model, not from outside).

mod bpe;
mod detokenizer;
mod error;
mod hash;
pub mod limits;
mod merge;
mod pretokenizer;
mod special;
mod spm;
mod template;
mod time;
mod tokenizer;
mod unicode;
mod vocabulary;

pub use detokenizer::Detokenizer;
pub use error::{Result, TokenizerError};
pub use template::{ChatTemplate, Message, RenderOptions};
pub use tokenizer::{EncodeOptions, EncodeScratch, Model, TokenId, TokenKind, Tokenizer};
