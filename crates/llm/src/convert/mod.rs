//! Other formats to GGUF.

mod llama2c;

pub use llama2c::{Precision, llama2c};
