//! Other formats to GGUF.

mod hf;
mod llama2c;

pub use ganglion_kernels::BlockFormat;
pub use hf::{FolderOptions, ModelFolder, Progress};
pub use llama2c::{Precision, llama2c};
