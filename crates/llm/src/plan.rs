//! The memory a model and one session of it will take, known before anything is loaded.

use ganglion_gguf::Header;
use ganglion_kernels::{ActivationBuffer, KvCache, KvShape, Matrix, RopeTable};

use crate::config::Config;
use crate::error::{LlmError, Result};
use crate::format::block_format;
use crate::limits;
use crate::model::check_tensors;

/// Bytes by purpose. Allocator overhead and the mapped file (which the system may drop at any time) are not in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Positions that the plan is for.
    pub context_tokens: usize,
    /// Repacked weights.
    pub weights_bytes: u64,
    /// Keys and values.
    pub kv_bytes: u64,
    /// Activations, attention scores and the rotary table.
    pub scratch_bytes: u64,
}

impl MemoryPlan {
    /// The plan of a file for sessions of `context_tokens` and `batch_tokens`, on `threads` threads.
    ///
    /// # Errors
    /// As [`crate::Model::load`], and if an option is out of range.
    pub fn new(header: &Header, context_tokens: usize, batch_tokens: usize, threads: usize) -> Result<Self> {
        let config = Config::from_header(header)?;
        check_tensors(header, &config)?;
        check_option("context_tokens", context_tokens, limits::CONTEXT_MAX)?;
        check_option("batch_tokens", batch_tokens, limits::BATCH_MAX)?;
        check_option("threads", threads, ganglion_kernels::limits::THREADS_MAX)?;
        let mut weights_bytes = 0u64;
        for info in header.tensors() {
            weights_bytes += match info.shape.as_slice() {
                [k, rows] => Matrix::packed_bytes(block_format(info)?, *rows as usize, *k as usize)
                    .map_or(u64::MAX / 2, |bytes| bytes as u64),
                // Vectors are kept as f32, whatever they are stored as.
                _ => info.element_count() * size_of::<f32>() as u64,
            };
        }
        let shape = kv_shape(&config, context_tokens);
        let batch = batch_tokens.min(context_tokens);
        let scratch = BufferLengths::new(&config, batch).total() * size_of::<f32>()
            + ActivationBuffer::scratch_bytes(batch, widest_input(&config))
            + KvCache::scratch_bytes(&shape, threads)
            + RopeTable::size_bytes(context_tokens, config.rope_dimension_count);
        Ok(Self {
            context_tokens,
            weights_bytes,
            kv_bytes: shape.size_bytes() as u64,
            scratch_bytes: scratch as u64,
        })
    }

    /// All of it.
    pub fn total_bytes(&self) -> u64 {
        self.weights_bytes.saturating_add(self.kv_bytes).saturating_add(self.scratch_bytes)
    }
}

pub(crate) fn check_option(option: &'static str, found: usize, max: usize) -> Result<()> {
    if found == 0 || found > max { Err(LlmError::Option { option, found, max }) } else { Ok(()) }
}

pub(crate) fn kv_shape(config: &Config, context_tokens: usize) -> KvShape {
    KvShape {
        layers: config.layer_count,
        kv_heads: config.head_count_kv,
        head_dim: config.head_dim,
        positions: context_tokens,
    }
}

/// The longest activation row that a matrix reads.
pub(crate) fn widest_input(config: &Config) -> usize {
    config.embedding_length.max(config.feed_forward_length).max(config.query_length())
}

/// f32 values in each buffer of a session: the one place that both the plan and the session read.
pub(crate) struct BufferLengths {
    pub(crate) hidden: usize,
    pub(crate) normed: usize,
    pub(crate) query: usize,
    pub(crate) key: usize,
    pub(crate) value: usize,
    pub(crate) attended: usize,
    pub(crate) projected: usize,
    pub(crate) gate: usize,
    pub(crate) up: usize,
}

impl BufferLengths {
    pub(crate) fn new(config: &Config, batch: usize) -> Self {
        Self {
            hidden: batch * config.embedding_length,
            normed: batch * config.embedding_length,
            query: batch * config.query_length(),
            key: batch * config.kv_length(),
            value: batch * config.kv_length(),
            attended: batch * config.query_length(),
            projected: batch * config.embedding_length,
            gate: batch * config.feed_forward_length,
            up: batch * config.feed_forward_length,
        }
    }

    fn total(&self) -> usize {
        let Self { hidden, normed, query, key, value, attended, projected, gate, up } = self;
        hidden + normed + query + key + value + attended + projected + gate + up
    }
}
