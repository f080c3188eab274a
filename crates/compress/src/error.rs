//! The one error type of the crate.

/// `Result` with this crate's error.
pub type Result<T, E = CompressError> = std::result::Result<T, E>;

/// Why a model cannot be measured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompressError {
    /// Loading or evaluating.
    #[error(transparent)]
    Llm(#[from] ganglion_llm::LlmError),
    /// The vocabulary.
    #[error(transparent)]
    Tokenizer(#[from] ganglion_tokenizer::TokenizerError),
    /// Not one window of text.
    #[error("the text has {found} tokens, a window needs {needed}; give more text or a smaller --context")]
    ShortText {
        /// Tokens of the text.
        found: usize,
        /// Tokens of a window.
        needed: usize,
    },
    /// A window that leaves nothing to score.
    #[error("a window of {found} tokens is too short; give {min} or more")]
    ShortWindow {
        /// Tokens asked for.
        found: usize,
        /// Fewest.
        min: usize,
    },
    /// Logits of two models that do not speak of the same tokens.
    #[error("the model has {found} tokens, the reference {expected}; compare models of one vocabulary")]
    Vocabulary {
        /// Tokens of the model.
        found: usize,
        /// Tokens of the reference.
        expected: usize,
    },
}
