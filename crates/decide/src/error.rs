//! Why a decider cannot be built, or a suite not be run.

use std::path::PathBuf;

/// Errors of this crate. An event that cannot be answered is no error: its [`Decision`](ganglion_site::Decision) says why.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecideError {
    /// The model file.
    #[error(transparent)]
    Gguf(#[from] ganglion_gguf::GgufError),
    /// Its vocabulary or chat template.
    #[error(transparent)]
    Tokenizer(#[from] ganglion_tokenizer::TokenizerError),
    /// Its weights.
    #[error(transparent)]
    Llm(#[from] ganglion_llm::LlmError),
    /// The site's schema.
    #[error(transparent)]
    Grammar(#[from] ganglion_grammar::GrammarError),
    /// The static prefix leaves no room for an event and a command.
    #[error(
        "the site's prompt prefix takes {prefix_tokens} of model.context_tokens = {context_tokens}; \
         an event and its command need {needed_tokens} more: raise context_tokens or shorten the site's texts"
    )]
    PrefixTooLong {
        /// Tokens of the prefix.
        prefix_tokens: usize,
        /// The site's context.
        context_tokens: usize,
        /// What must be left.
        needed_tokens: usize,
    },
    /// The site wants more positions than the model was made for.
    #[error("model.context_tokens = {context_tokens}, but the model's context length is {model_tokens}")]
    ContextBeyondModel {
        /// The site's context.
        context_tokens: usize,
        /// The model's.
        model_tokens: usize,
    },
    /// A chat template that moves the user's text before the system's, so that no prefix is static.
    #[error("the model's chat template does not keep the system text in front of the user's")]
    TemplateNotStatic,
    /// An evaluation suite.
    #[error("{}:{line}: {problem}", file.display())]
    Suite {
        /// The suite's file.
        file: PathBuf,
        /// One-based line.
        line: usize,
        /// What is wrong there.
        problem: String,
    },
    /// Reading a suite.
    #[error("cannot read {}: {source}", file.display())]
    Read {
        /// The file or folder.
        file: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
}

/// Result with [`DecideError`].
pub type Result<T> = std::result::Result<T, DecideError>;
