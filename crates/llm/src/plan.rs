//! The memory a model and one session of it will take, known before anything is loaded.

use ganglion_gguf::Header;
use ganglion_kernels::{KvPlan, KvRing, KvShape, RopeTable};

use crate::blocks::Buffers;
use crate::config::Config;
use crate::error::{LlmError, Result};
use crate::format::forms;
use crate::session::{Overflow, SessionOptions};
use crate::tensors::check_tensors;

/// Bytes by purpose. Allocator overhead and the mapped file (which the system may drop at any time) are not in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Positions that the plan is for.
    pub context_tokens: usize,
    /// Repacked weights.
    pub weights_bytes: u64,
    /// Keys and values in memory.
    pub kv_bytes: u64,
    /// Keys and values in a temporary file.
    pub kv_spill_bytes: u64,
    /// Activations, attention scores and the rotary tables.
    pub scratch_bytes: u64,
    /// What stands around the engine: vocabulary, masks, answers kept. 0 for an engine alone.
    pub tables_bytes: u64,
}

impl MemoryPlan {
    /// The plan of a file and one session with these options, on `threads` threads.
    ///
    /// # Errors
    /// As [`crate::Model::load`] and [`crate::Session::new`].
    pub fn new(header: &Header, options: &SessionOptions, threads: usize) -> Result<Self> {
        let config = Config::from_header(header)?;
        let weights_bytes = check_tensors(header, &config)?;
        options.check(&config)?;
        check_option("threads", threads, ganglion_kernels::limits::THREADS_MAX)?;
        let kv = kv_plan(&config, options);
        let SessionOptions { context_tokens, batch_tokens, .. } = *options;
        let rotation = RopeTable::size_bytes(context_tokens, config.ropes.dimensions());
        let scratch = Buffers::size_bytes(&config, forms(header), batch_tokens.min(context_tokens))
            + options.sequences * kv.scratch_bytes(threads)
            + config.ropes.rotations().len() * rotation;
        Ok(Self {
            context_tokens,
            weights_bytes,
            kv_bytes: (options.sequences * (kv.size_bytes() - kv.spill_bytes())) as u64,
            kv_spill_bytes: (options.sequences * kv.spill_bytes()) as u64,
            scratch_bytes: scratch as u64,
            tables_bytes: 0,
        })
    }

    /// All of it that is memory.
    pub fn total_bytes(&self) -> u64 {
        [self.weights_bytes, self.kv_bytes, self.scratch_bytes, self.tables_bytes]
            .into_iter()
            .fold(0, u64::saturating_add)
    }
}

pub(crate) fn check_option(option: &'static str, found: usize, max: usize) -> Result<()> {
    if found == 0 || found > max { Err(LlmError::Option { option, found, max }) } else { Ok(()) }
}

/// The cache of a session whose options are checked.
pub(crate) fn kv_plan(config: &Config, options: &SessionOptions) -> KvPlan {
    let shape = KvShape {
        layers: config.layer_count,
        kv_heads: config.head_count_kv,
        head_dim: config.head_dim,
        positions: options.context_tokens,
    };
    let ring = match options.overflow {
        Overflow::Refuse => None,
        Overflow::Ring { sinks } => {
            Some(KvRing { sinks, batch: options.batch_tokens.min(options.context_tokens) })
        }
    };
    KvPlan { ring, heap_bytes_max: options.kv_ram_bytes, ..KvPlan::new(shape, options.kv) }
}
