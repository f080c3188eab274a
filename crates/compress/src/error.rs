//! The one error type of the crate.

/// `Result` with this crate's error.
pub type Result<T, E = CompressError> = std::result::Result<T, E>;

/// Why a model cannot be measured or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompressError {
    /// Loading or evaluating.
    #[error(transparent)]
    Llm(#[from] ganglion_llm::LlmError),
    /// A model file.
    #[error(transparent)]
    Gguf(#[from] ganglion_gguf::GgufError),
    /// A value that a format cannot hold.
    #[error(transparent)]
    Kernel(#[from] ganglion_kernels::KernelError),
    /// What went wrong, and with which tensor.
    #[error("tensor {tensor}: {cause}")]
    Tensor {
        /// Its name.
        tensor: String,
        /// What went wrong.
        cause: Box<CompressError>,
    },
    /// A file that is being written.
    #[error("cannot {action} {}: {source}{}", path.display(), room(source))]
    File {
        /// Which one.
        path: std::path::PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system says.
        source: std::io::Error,
    },
    /// An importance matrix that cannot be used.
    #[error("importance matrix {}: {reason}; make one with --save-imatrix or llama-imatrix", path.display())]
    Imatrix {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A model or a wish that pruning cannot meet.
    #[error("cannot prune this model: {reason}")]
    Prune {
        /// Why.
        reason: String,
    },
    /// A model or a wish that factoring cannot meet.
    #[error("cannot factor this model: {reason}")]
    Factorize {
        /// Why.
        reason: String,
    },
    /// A model without a backward pass, or passes that do not fit together.
    #[error("no gradients: {reason}")]
    Gradient {
        /// Why.
        reason: String,
    },
    /// A budget that nothing meets, or a wish that cannot be followed.
    #[error("{reason}")]
    Budget {
        /// What is missing, how near it came, and what would do.
        reason: String,
    },
    /// A budget that asks for nothing.
    #[error(
        "the source meets every limit as it is: lower --size, --memory or --latency-ms, or ask for the smallest file within a divergence \
         (--max-kl 0.02)"
    )]
    Unchanged,
    /// Activations from which no error can be fed back.
    #[error(
        "{tensor}: the second moments of its inputs cannot be factored; the calibration text leads to values that are not finite, take another one"
    )]
    Moments {
        /// Whose inputs.
        tensor: String,
    },
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

/// What to do where a disk is full.
fn room(source: &std::io::Error) -> &'static str {
    match source.kind() {
        std::io::ErrorKind::StorageFull => {
            "; what is done stays beside the result: make room, and call again in the same way"
        }
        _ => "",
    }
}
