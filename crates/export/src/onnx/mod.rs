//! Decoders as ONNX graphs, with the inputs and outputs that Hugging Face's Optimum gives them.
//!
//! | name | type | shape |
//! |---|---|---|
//! | `input_ids`, `position_ids` | int64 | (batch_size, sequence_length) |
//! | `attention_mask` | int64 | (batch_size, past_sequence_length + sequence_length) |
//! | `past_key_values.N.key`, `.value` | f32 | (batch_size, kv heads, past_sequence_length, head_dim) |
//! | `logits` | f32 | (batch_size, sequence_length, vocabulary) |
//! | `present.N.key`, `.value` | f32 | (batch_size, kv heads, past_sequence_length + sequence_length, head_dim) |
//!
//! All arithmetic is f32. The operators are those of opset 21; weights of 8 and 4 bits need ONNX Runtime's `MatMulNBits`. Pairs of
//! rotary values are always half a head apart, as in Hugging Face's folders: rows of files with neighbouring pairs change places.

mod attention;
mod decoder;
mod experts;
mod graph;
mod proto;
mod weights;

use std::path::Path;

use ganglion_gguf::Gguf;
use ganglion_kernels::BlockFormat;
use ganglion_llm::Anatomy;

use crate::Progress;
use crate::error::{ExportError, Result};
use crate::limits::ONNX_POSITIONS_MAX;

const FORM: &str = "ONNX";

/// How to write a graph.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OnnxOptions {
    /// Type of the matrices: F32, F16, Q8_0 or Q4_0. Without one, each of these types and I8_ROW stays, and the others become F32: the
    /// same values. Rows that are no whole blocks are stored as F16 instead of Q8_0 and Q4_0. Routers stay as they are.
    pub format: Option<BlockFormat>,
    /// Positions that the graph can rotate; without one, the model's context.
    pub context_tokens: Option<usize>,
    /// Weights in a file beside the graph, whatever their size.
    pub external_data: bool,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnnxReport {
    /// Bytes of the graph, and of the weights beside it.
    pub size_bytes: u64,
    /// Number of matrices of each type.
    pub types: Vec<(&'static str, usize)>,
}

/// Writes `path`, and `path` with `.data` behind it if the weights are too large for one file of this form.
///
/// # Errors
/// [`ExportError::WeightType`], [`ExportError::Context`], and whatever the
/// file lacks or the disk refuses.
pub fn write_onnx(
    gguf: &Gguf,
    path: &Path,
    options: OnnxOptions,
    progress: &mut dyn FnMut(Progress),
) -> Result<OnnxReport> {
    let anatomy = Anatomy::read(gguf)?;
    let config = &anatomy.config;
    if let Some(format) = options.format
        && !matches!(format, BlockFormat::F32 | BlockFormat::F16 | BlockFormat::Q8_0 | BlockFormat::Q4_0)
    {
        let expected = "F32, F16, Q8_0 or Q4_0";
        return Err(ExportError::WeightType { form: FORM, found: format.name(), expected });
    }
    let max = config.positions_max().min(ONNX_POSITIONS_MAX);
    let context = options.context_tokens.unwrap_or(config.context_length.min(max));
    if context == 0 || context > max {
        return Err(ExportError::Context { found: context, max });
    }
    let (graph, types) = decoder::build(gguf, &anatomy, options.format, context)?;
    let size_bytes = graph.write(path, options.external_data, progress)?;
    Ok(OnnxReport { size_bytes, types })
}
