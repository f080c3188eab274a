//! The memory a model and one session of it will take, known before anything is loaded.

use ganglion_gguf::Header;
use ganglion_kernels::{KvCache, KvShape, RopeTable};

use crate::blocks::Buffers;
use crate::config::Config;
use crate::error::{LlmError, Result};
use crate::limits;
use crate::tensors::check_tensors;

/// Bytes by purpose. Allocator overhead and the mapped file (which the system may drop at any time) are not in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Positions that the plan is for.
    pub context_tokens: usize,
    /// Repacked weights.
    pub weights_bytes: u64,
    /// Keys and values.
    pub kv_bytes: u64,
    /// Activations, attention scores and the rotary tables.
    pub scratch_bytes: u64,
}

impl MemoryPlan {
    /// The plan of a file for sessions of `context_tokens` and `batch_tokens`, on `threads` threads.
    ///
    /// # Errors
    /// As [`crate::Model::load`], and if an option is out of range.
    pub fn new(header: &Header, context_tokens: usize, batch_tokens: usize, threads: usize) -> Result<Self> {
        let config = Config::from_header(header)?;
        let weights_bytes = check_tensors(header, &config)?;
        check_option("context_tokens", context_tokens, config.positions_max())?;
        check_option("batch_tokens", batch_tokens, limits::BATCH_MAX)?;
        check_option("threads", threads, ganglion_kernels::limits::THREADS_MAX)?;
        let shape = kv_shape(&config, context_tokens);
        let batch = batch_tokens.min(context_tokens);
        let rotation = RopeTable::size_bytes(context_tokens, config.ropes.dimensions());
        let scratch = Buffers::size_bytes(&config, batch)
            + KvCache::scratch_bytes(&shape, threads)
            + config.ropes.rotations().len() * rotation;
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
