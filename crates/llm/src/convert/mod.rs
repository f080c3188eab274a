//! Other formats to GGUF, and back to Hugging Face folders.

mod hf;
mod llama2c;

pub use ganglion_kernels::BlockFormat;
pub use hf::{ExportOptions, FolderExport, FolderOptions, ModelFolder, Progress};
pub use llama2c::{Precision, llama2c};
