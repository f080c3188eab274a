//! The one error type of the crate.

use std::path::PathBuf;

/// `Result` with this crate's error.
pub type Result<T, E = ExportError> = std::result::Result<T, E>;

/// Why a model cannot be exported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// Reading the model.
    #[error(transparent)]
    Llm(#[from] ganglion_llm::LlmError),
    /// Its file.
    #[error(transparent)]
    Gguf(#[from] ganglion_gguf::GgufError),
    /// Its weights.
    #[error(transparent)]
    Kernel(#[from] ganglion_kernels::KernelError),
    /// A file that is being written.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file under a name that follows from the given one, and that no export has written.
    #[error("{} is there already, and not of an earlier export; give the C file another name", path.display())]
    Occupied {
        /// Which one.
        path: PathBuf,
    },
    /// A model that the form cannot hold.
    #[error("{form} cannot hold this {architecture} model: {what} is {found}, expected {expected}")]
    Unsupported {
        /// Name of the form.
        form: &'static str,
        /// `general.architecture`.
        architecture: &'static str,
        /// What the model has.
        what: &'static str,
        /// What it is.
        found: String,
        /// What would do.
        expected: String,
    },
    /// A weight that the wanted type cannot hold.
    #[error("tensor {tensor} holds {found}, expected {expected}")]
    Value {
        /// Name.
        tensor: String,
        /// The value.
        found: f32,
        /// What would do.
        expected: &'static str,
    },
    /// A type of weights that the form has not got.
    #[error("weights as {found}: {form} holds them as {expected}")]
    WeightType {
        /// Name of the form.
        form: &'static str,
        /// Name of the type.
        found: &'static str,
        /// Names of those that it has.
        expected: &'static str,
    },
    /// A context that the model was not made for.
    #[error("a context of {found} tokens: the model has positions for 1 to {max}")]
    Context {
        /// Tokens asked for.
        found: usize,
        /// Most.
        max: usize,
    },
}
