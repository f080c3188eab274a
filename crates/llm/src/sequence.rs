//! What one sequence of tokens holds: its keys and values, its position.

use ganglion_gguf::TemporaryMap;
use ganglion_kernels::{KvCache, KvSpill};

use crate::TokenId;
use crate::error::{LlmError, Result};
use crate::model::Model;
use crate::plan::kv_plan;
use crate::session::SessionOptions;

/// Spilled blocks.
#[derive(Debug)]
struct Spill(TemporaryMap);

impl KvSpill for Spill {
    fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

/// A sequence that a pass can append to.
#[derive(Debug)]
pub(crate) struct Sequence {
    pub(crate) kv: KvCache,
    pub(crate) position: usize,
    /// The tokens held, as far as the context goes.
    pub(crate) tokens: Vec<TokenId>,
}

impl Sequence {
    /// An empty one, for options that are checked.
    pub(crate) fn new(model: &Model, options: &SessionOptions) -> Result<Self> {
        let kv = kv_plan(model.config(), options);
        let spill = match kv.spill_bytes() {
            0 => None,
            bytes => {
                let map = TemporaryMap::new(&std::env::temp_dir(), bytes)?;
                Some(Box::new(Spill(map)) as Box<dyn KvSpill>)
            }
        };
        Ok(Self {
            kv: KvCache::with_spill(kv, model.threads(), spill),
            tokens: Vec::with_capacity(options.context_tokens),
            position: 0,
        })
    }

    /// See [`Session::truncate`](crate::Session::truncate).
    pub(crate) fn truncate(&mut self, length: usize) -> Result<()> {
        if length > self.position {
            return Err(LlmError::Truncate { length, position: self.position });
        }
        if !self.kv.can_truncate(length) {
            return Err(LlmError::Forgotten { length, position: self.position });
        }
        if length < self.position {
            self.position = length;
            self.tokens.truncate(length);
            self.kv.truncate(length);
        }
        Ok(())
    }

    /// Says that these tokens are in the cache behind what was there.
    pub(crate) fn extend(&mut self, tokens: &[TokenId], context_tokens: usize) {
        self.position += tokens.len();
        let room = context_tokens - self.tokens.len();
        self.tokens.extend_from_slice(tokens.get(..room).unwrap_or(tokens));
    }

    /// Says that the cache now holds these tokens and nothing else.
    pub(crate) fn adopt(&mut self, tokens: &[TokenId]) {
        self.position = tokens.len();
        self.tokens.clear();
        self.tokens.extend_from_slice(tokens);
    }
}
