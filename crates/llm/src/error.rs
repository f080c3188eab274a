//! The one error type of the crate.

use std::path::PathBuf;

use ganglion_gguf::GgufError;
use ganglion_kernels::KernelError;

/// `Result` with this crate's error.
pub type Result<T, E = LlmError> = std::result::Result<T, E>;

/// Why a model cannot be loaded, evaluated or converted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LlmError {
    /// The file itself.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// Weights or threads.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// Packed weights could not be kept on disk.
    #[error("packed weights {}: {source}; free the disk or choose another folder with XDG_CACHE_HOME", path.display())]
    PackedFile {
        /// The file.
        path: std::path::PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// An architecture this crate has no code for.
    #[error("general.architecture is \"{found}\"; this build runs {known}")]
    Architecture {
        /// Name found.
        found: String,
        /// Names of those that run.
        known: String,
    },
    /// A metadata value that no model can have, or that asks for something not supported.
    #[error("{key} is {found}, expected {expected}")]
    Hyperparameter {
        /// Metadata key.
        key: String,
        /// Value found.
        found: String,
        /// What would be accepted.
        expected: String,
    },
    /// A tensor that the model needs is not in the file.
    #[error("tensor {tensor} is missing, expected one of shape {expected:?}")]
    MissingTensor {
        /// Name.
        tensor: String,
        /// Shape, innermost dimension first.
        expected: Vec<u64>,
    },
    /// A tensor that this crate would have to ignore, which would give wrong answers.
    #[error("tensor {tensor} has no place in a {architecture} model; convert the model without it")]
    UnexpectedTensor {
        /// Name.
        tensor: String,
        /// Architecture of the file.
        architecture: &'static str,
    },
    /// A tensor of the wrong shape.
    #[error("tensor {tensor} has shape {found:?}, expected {expected:?} (innermost dimension first)")]
    TensorShape {
        /// Name.
        tensor: String,
        /// Shape found.
        found: Vec<u64>,
        /// Shape that the metadata implies.
        expected: Vec<u64>,
    },
    /// A tensor in a format without kernels.
    #[error("tensor {tensor} is stored as {found}, expected {expected}; requantise the model")]
    TensorType {
        /// Name.
        tensor: String,
        /// Type found.
        found: &'static str,
        /// Types accepted.
        expected: &'static str,
    },
    /// An option outside its range.
    #[error("{option} is {found}; give 1 to {max}")]
    Option {
        /// Name of the option.
        option: &'static str,
        /// Value found.
        found: usize,
        /// Largest value.
        max: usize,
    },
    /// A ring whose sinks leave no room for anything else.
    #[error("{found} sinks in a context of {context_tokens} tokens; give fewer sinks than that")]
    Sinks {
        /// Sinks asked for.
        found: usize,
        /// Positions of the session.
        context_tokens: usize,
    },
    /// A sampling option outside its range.
    #[error("{option} is {found}; give {expected}")]
    Sampling {
        /// Name of the option.
        option: &'static str,
        /// Value found.
        found: String,
        /// What would be accepted.
        expected: &'static str,
    },
    /// A saved KV cache cannot be written or read.
    #[error("cannot {action} the saved KV cache: {source}")]
    KvFileIo {
        /// What was attempted.
        action: &'static str,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// A saved KV cache that is damaged, or of another model or session.
    #[error("saved KV cache: {field} is {found}, expected {expected}")]
    KvFile {
        /// What does not fit.
        field: &'static str,
        /// Value found.
        found: String,
        /// What this session needs.
        expected: String,
    },
    /// A session that has forgotten tokens cannot be saved, nor cut to where it would need them.
    #[error("{length} of {position} tokens: the ring has forgotten some that the last of these sees")]
    Forgotten {
        /// Length asked for.
        length: usize,
        /// Tokens evaluated.
        position: usize,
    },
    /// The tokens do not fit behind what the session already holds.
    #[error("{tokens} more tokens do not fit: {position} of {context_tokens} positions are in use")]
    ContextFull {
        /// Positions in use.
        position: usize,
        /// Tokens to be added.
        tokens: usize,
        /// Positions of the session.
        context_tokens: usize,
    },
    /// A token id beyond the vocabulary.
    #[error("token {token} is outside the vocabulary of {vocab_size}")]
    Token {
        /// Id found.
        token: u32,
        /// Size of the vocabulary.
        vocab_size: usize,
    },
    /// A session cannot be cut to more than it holds.
    #[error("cannot keep {length} tokens: the session holds {position}")]
    Truncate {
        /// Length asked for.
        length: usize,
        /// Tokens held.
        position: usize,
    },
    /// The caller's deadline passed, or it cancelled. The session holds `position` tokens and remains usable.
    #[error("stopped by its deadline with {position} tokens evaluated")]
    Expired {
        /// Tokens held.
        position: usize,
    },
    /// Logits were asked for a token that the last evaluation did not cover.
    #[error(
        "no hidden state {index}: the last evaluation left {available}; evaluate at least one token first"
    )]
    NoHiddenState {
        /// Index asked for.
        index: usize,
        /// States held.
        available: usize,
    },
    /// The output buffer does not match what is asked for.
    #[error("the output holds {found} values, expected {expected}")]
    OutputLength {
        /// Length found.
        found: usize,
        /// Length needed.
        expected: usize,
    },
    /// The model computed a NaN: its weights are damaged, and no answer of it can be used.
    #[error("the model produced a value that is not a number at position {position}; check its file")]
    NotANumber {
        /// Tokens held.
        position: usize,
    },
    /// A llama2.c file that is not one.
    #[error("{part} at byte {offset}: {reason}")]
    Llama2c {
        /// Which part of which file.
        part: &'static str,
        /// Byte offset in that file.
        offset: usize,
        /// What is wrong.
        reason: String,
    },
    /// A model that a Hugging Face folder cannot hold.
    #[error("not as a Hugging Face folder: {reason}")]
    Export {
        /// Why.
        reason: String,
    },
    /// A file of a Hugging Face folder that cannot be read, or whose content is wrong.
    #[error("{}: {reason}", file.display())]
    SourceFile {
        /// The file, or the folder where a file is missing.
        file: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A field of a JSON file in a Hugging Face folder.
    #[error("{}: {field} is {found}, expected {expected}", file.display())]
    SourceField {
        /// The file.
        file: PathBuf,
        /// The field, with the names of those around it.
        field: String,
        /// Value found.
        found: String,
        /// What would be accepted.
        expected: String,
    },
}
