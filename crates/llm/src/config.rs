//! Hyperparameters of a llama model, read from GGUF metadata and bounded.

use ganglion_gguf::{Header, OptionalExt};

use crate::error::{LlmError, Result};
use crate::limits;

/// Hyperparameters of a decoder; lengths in values, counts as said.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// `block_count`: decoder layers.
    pub layer_count: usize,
    /// `embedding_length`: values of a hidden state.
    pub embedding_length: usize,
    /// `feed_forward_length`.
    pub feed_forward_length: usize,
    /// `attention.head_count`.
    pub head_count: usize,
    /// `attention.head_count_kv`.
    pub head_count_kv: usize,
    /// `attention.key_length`: values of one head.
    pub head_dim: usize,
    /// `rope.dimension_count`: rotated values of one head.
    pub rope_dimension_count: usize,
    /// `rope.freq_base`.
    pub rope_freq_base: f32,
    /// Factor on positions: 1, or 1 / `rope.scaling.factor` for linear scaling.
    pub rope_position_scale: f32,
    /// `attention.layer_norm_rms_epsilon`.
    pub rms_epsilon: f32,
    /// `context_length`: tokens the model was trained for.
    pub context_length: usize,
    /// Rows of the token embedding.
    pub vocab_size: usize,
}

fn refuse(key: &str, found: impl ToString, expected: impl Into<String>) -> LlmError {
    LlmError::Hyperparameter { key: key.to_owned(), found: found.to_string(), expected: expected.into() }
}

fn bounded(key: &str, found: u32, max: usize) -> Result<usize> {
    let value = found as usize;
    if value == 0 || value > max {
        return Err(refuse(key, found, format!("1 to {max}")));
    }
    Ok(value)
}

fn count(header: &Header, key: &str, max: usize) -> Result<usize> {
    bounded(key, header.get_u32(key)?, max)
}

fn count_or(header: &Header, key: &str, max: usize, default: usize) -> Result<usize> {
    header.get_u32(key).optional()?.map_or(Ok(default), |found| bounded(key, found, max))
}

fn positive(key: &str, value: f32) -> Result<f32> {
    if value.is_finite() && value > 0.0 { Ok(value) } else { Err(refuse(key, value, "a positive number")) }
}

impl Config {
    /// Reads and checks the hyperparameters of a `llama` file.
    ///
    /// # Errors
    /// A missing or impossible value, another architecture, or a feature without code (experts, YaRN scaling,
    /// different key and value lengths).
    pub fn from_header(header: &Header) -> Result<Self> {
        let architecture = header.get_str("general.architecture")?;
        if architecture != "llama" {
            return Err(LlmError::Architecture { found: architecture.to_owned() });
        }
        let embedding_length = count(header, "llama.embedding_length", limits::EMBEDDING_MAX)?;
        let head_count = count(header, "llama.attention.head_count", limits::HEADS_MAX)?;
        let key = "llama.attention.head_count_kv";
        let head_count_kv = count_or(header, key, limits::HEADS_MAX, head_count)?;
        if !head_count.is_multiple_of(head_count_kv) {
            return Err(refuse(key, head_count_kv, format!("a divisor of head_count {head_count}")));
        }
        let key = "llama.attention.key_length";
        let default = embedding_length / head_count;
        if header.get(key).is_none() && !embedding_length.is_multiple_of(head_count) {
            let key = "llama.attention.head_count";
            return Err(refuse(key, head_count, format!("a divisor of embedding_length {embedding_length}")));
        }
        let head_dim = count_or(header, key, limits::HEAD_DIM_MAX, default)?;
        let key = "llama.attention.value_length";
        let value_length = count_or(header, key, limits::HEAD_DIM_MAX, head_dim)?;
        if value_length != head_dim {
            return Err(refuse(key, value_length, format!("the key length {head_dim}")));
        }
        let key = "llama.rope.dimension_count";
        let rope_dimension_count = count_or(header, key, head_dim, head_dim)?;
        if !rope_dimension_count.is_multiple_of(2) {
            return Err(refuse(key, rope_dimension_count, "an even number"));
        }
        let key = "llama.expert_count";
        if let Some(experts) = header.get_u32(key).optional()?.filter(|experts| *experts > 0) {
            return Err(refuse(key, experts, "no experts"));
        }
        let key = "llama.rope.freq_base";
        let rope_freq_base = positive(key, header.get_f32(key).optional()?.unwrap_or(10_000.0))?;
        let key = "llama.attention.layer_norm_rms_epsilon";
        let rms_epsilon = positive(key, header.get_f32(key)?)?;
        Ok(Self {
            layer_count: count(header, "llama.block_count", limits::LAYERS_MAX)?,
            embedding_length,
            feed_forward_length: count(header, "llama.feed_forward_length", limits::FEED_FORWARD_MAX)?,
            head_count,
            head_count_kv,
            head_dim,
            rope_dimension_count,
            rope_freq_base,
            rope_position_scale: position_scale(header)?,
            rms_epsilon,
            context_length: count(header, "llama.context_length", limits::CONTEXT_MAX)?,
            vocab_size: vocab_size(header)?,
        })
    }

    /// Values of all query heads of a token.
    pub fn query_length(&self) -> usize {
        self.head_count * self.head_dim
    }

    /// Values of all key (or value) heads of a token.
    pub fn kv_length(&self) -> usize {
        self.head_count_kv * self.head_dim
    }
}

fn position_scale(header: &Header) -> Result<f32> {
    let key = "llama.rope.scaling.type";
    match header.get_str(key).optional()? {
        None | Some("none") => Ok(1.0),
        Some("linear") => {
            let key = "llama.rope.scaling.factor";
            Ok(1.0 / positive(key, header.get_f32(key)?)?)
        }
        Some(other) => Err(refuse(key, other, "none or linear")),
    }
}

fn vocab_size(header: &Header) -> Result<usize> {
    let tensor = "token_embd.weight";
    let shape = &header.tensor(tensor)?.shape;
    match shape.as_slice() {
        [_, rows] if (1..=limits::VOCAB_MAX as u64).contains(rows) => Ok(*rows as usize),
        _ => Err(LlmError::TensorShape {
            tensor: tensor.to_owned(),
            found: shape.clone(),
            expected: vec![u64::from(header.get_u32("llama.embedding_length")?), limits::VOCAB_MAX as u64],
        }),
    }
}
