//! The crate's one error type.

use ganglion_gguf::GgufError;

/// Shorthand for results of this crate.
pub type Result<T, E = TokenizerError> = std::result::Result<T, E>;

/// What can be wrong with a vocabulary or a chat template.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// A metadata key is missing or of another type.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// `tokenizer.ggml.model` names an algorithm that this crate does not know.
    #[error("tokenizer.ggml.model is `{found}`, supported are `llama` (SPM) and `gpt2` (byte-level BPE)")]
    UnsupportedModel {
        /// The name found.
        found: String,
    },
    /// `tokenizer.ggml.pre` names a pre-tokenizer that this crate does not know.
    #[error("tokenizer.ggml.pre is `{found}`, supported are {supported}")]
    UnsupportedPreTokenizer {
        /// The name found.
        found: String,
        /// The names known, separated by commas.
        supported: String,
    },
    /// An array has another length than the vocabulary.
    #[error("{key} has {found} elements, expected one for each of the {expected} tokens")]
    LengthMismatch {
        /// The metadata key.
        key: &'static str,
        /// Its length.
        found: usize,
        /// The size of the vocabulary.
        expected: usize,
    },
    /// There are more of something than [`crate::limits`] allows.
    #[error("{what} is {found}, more than the limit of {limit}")]
    LimitExceeded {
        /// What was counted.
        what: &'static str,
        /// How many there are.
        found: usize,
        /// How many are accepted.
        limit: usize,
    },
    /// A metadata key holds a token id outside the vocabulary.
    #[error("{key} is {found}, expected a token id below {vocabulary_size}")]
    InvalidTokenId {
        /// The metadata key.
        key: &'static str,
        /// The id found.
        found: u32,
        /// The size of the vocabulary.
        vocabulary_size: usize,
    },
    /// A token's type, score or text is not valid.
    #[error("token {index} (`{text}`) has {reason}")]
    InvalidToken {
        /// The token's id.
        index: usize,
        /// Its text in the file.
        text: String,
        /// What is wrong.
        reason: String,
    },
    /// A merge rule cannot be used.
    #[error("merge {index} (`{merge}`) {reason}")]
    InvalidMerge {
        /// Position in `tokenizer.ggml.merges`.
        index: usize,
        /// The rule as stored.
        merge: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// No token spells a printable ASCII character, and there is no unknown token.
    #[error("no token spells byte 0x{byte:02X} and there is no unknown token; the vocabulary is incomplete")]
    MissingByte {
        /// The byte.
        byte: u8,
    },
    /// A chat template cannot be parsed, or refuses the messages.
    #[error("cannot {action} the chat template: {reason}")]
    Template {
        /// `parse` or `render`.
        action: &'static str,
        /// The template engine's reason, with the line.
        reason: String,
    },
}
