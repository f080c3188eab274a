//! A conversation with a model: its KV cache, its scratch, its position.

use std::sync::Arc;

use ganglion_kernels::{KvCache, RopeTable, matmul, matmul_rows};

use crate::TokenId;
use crate::blocks::{self, Buffers, Pass};
use crate::error::{LlmError, Result};
use crate::limits;
use crate::model::Model;
use crate::plan::{check_option, kv_shape};
use crate::profile::{Profiler, Work};

/// Sizes of a session. The batch changes speed and how often a deadline is looked at, never a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionOptions {
    /// Positions of the KV cache.
    pub context_tokens: usize,
    /// Tokens evaluated by one pass over the weights.
    pub batch_tokens: usize,
}

impl SessionOptions {
    /// `context_tokens` positions and the default batch.
    pub fn new(context_tokens: usize) -> Self {
        Self { context_tokens, batch_tokens: limits::BATCH_DEFAULT }
    }
}

/// A sequence being evaluated. Everything is allocated by [`Session::new`]; no later call allocates.
#[derive(Debug)]
pub struct Session {
    model: Arc<Model>,
    options: SessionOptions,
    kv: KvCache,
    ropes: Vec<RopeTable>,
    buffers: Buffers,
    position: usize,
    /// Hidden states in `buffers.hidden`, of the last tokens evaluated.
    evaluated: usize,
    /// The hidden state whose norm is in `buffers.normed`, quantised too.
    normed: Option<usize>,
}

impl Session {
    /// An empty session.
    ///
    /// # Errors
    /// If an option is out of range. A context beyond the model's `context_length` is the caller's choice, unless its
    /// positions are learned.
    pub fn new(model: Arc<Model>, options: SessionOptions) -> Result<Self> {
        check_option("context_tokens", options.context_tokens, model.config().positions_max())?;
        check_option("batch_tokens", options.batch_tokens, limits::BATCH_MAX)?;
        let options =
            SessionOptions { batch_tokens: options.batch_tokens.min(options.context_tokens), ..options };
        let config = model.config();
        Ok(Self {
            kv: KvCache::new(kv_shape(config, options.context_tokens), model.threads()),
            ropes: model.rope_tables(options.context_tokens),
            buffers: Buffers::new(config, options.batch_tokens),
            model,
            options,
            position: 0,
            evaluated: 0,
            normed: None,
        })
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Records all passes from now on in `profiler`; gives back the one before.
    pub fn replace_profiler(&mut self, profiler: Profiler) -> Profiler {
        std::mem::replace(&mut self.buffers.profiler, profiler)
    }

    /// The sizes in force.
    pub fn options(&self) -> SessionOptions {
        self.options
    }

    /// Tokens held: the position of the next one.
    pub fn position(&self) -> usize {
        self.position
    }

    /// Tokens that still fit.
    pub fn remaining(&self) -> usize {
        self.options.context_tokens - self.position
    }

    /// Forgets all tokens from `length` on, at no cost. So a pinned prefix is evaluated once, and every event after it
    /// starts with `truncate(prefix length)`. The logits after a truncation are those of the next evaluation.
    ///
    /// # Errors
    /// If the session holds fewer than `length` tokens.
    pub fn truncate(&mut self, length: usize) -> Result<()> {
        if length > self.position {
            return Err(LlmError::Truncate { length, position: self.position });
        }
        if length < self.position {
            self.position = length;
            self.forget_hidden();
        }
        Ok(())
    }

    /// Appends tokens in passes of at most `batch_tokens`. Afterwards the logits of the last token can be read.
    ///
    /// `expired` is asked before every layer; time is the caller's.
    ///
    /// # Errors
    /// [`LlmError::ContextFull`] or [`LlmError::Token`] before anything is evaluated; [`LlmError::Expired`] with the
    /// passes that were completed kept (see [`Session::position`]).
    pub fn prefill(&mut self, tokens: &[TokenId], expired: &mut dyn FnMut() -> bool) -> Result<()> {
        self.prefill_observed(tokens, expired, &mut |_, _| {})
    }

    /// [`Session::prefill`] that hands every layer's number and the residual stream after it, a (tokens, embedding) array
    /// of the current pass, to `observe`: for tests and for looking into a model.
    ///
    /// # Errors
    /// As there.
    pub fn prefill_observed(
        &mut self,
        tokens: &[TokenId],
        expired: &mut dyn FnMut() -> bool,
        observe: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<()> {
        if tokens.len() > self.remaining() {
            return Err(LlmError::ContextFull {
                position: self.position,
                tokens: tokens.len(),
                context_tokens: self.options.context_tokens,
            });
        }
        let vocab_size = self.model.config().vocab_size;
        if let Some(token) = tokens.iter().find(|token| **token as usize >= vocab_size) {
            return Err(LlmError::Token { token: *token, vocab_size });
        }
        for batch in tokens.chunks(self.options.batch_tokens) {
            self.evaluate(batch, expired, observe)?;
        }
        Ok(())
    }

    /// Appends one token.
    ///
    /// # Errors
    /// As [`Session::prefill`].
    pub fn step(&mut self, token: TokenId, expired: &mut dyn FnMut() -> bool) -> Result<()> {
        self.prefill(&[token], expired)
    }

    fn evaluate(
        &mut self,
        tokens: &[TokenId],
        expired: &mut dyn FnMut() -> bool,
        observe: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<()> {
        self.forget_hidden();
        let Self { model, kv, ropes, buffers, position, .. } = self;
        let pass = Pass { model, ropes, position: *position, tokens: tokens.len() };
        buffers.profiler.begin();
        blocks::embed(pass, tokens, buffers);
        buffers.profiler.lap("embedding", || Work::NONE);
        for layer in 0..model.config().layer_count {
            if expired() {
                return Err(LlmError::Expired { position: *position });
            }
            buffers.profiler.enter(Some(layer));
            blocks::layer(pass, layer, buffers, kv);
            observe(layer, &buffers.hidden[..tokens.len() * model.config().embedding_length]);
        }
        self.position += tokens.len();
        self.evaluated = tokens.len();
        Ok(())
    }

    fn forget_hidden(&mut self) {
        self.evaluated = 0;
        self.normed = None;
    }

    /// Hidden states of the last pass that can be read: the last token's has index `evaluated() - 1`.
    pub fn evaluated(&self) -> usize {
        self.evaluated
    }

    /// The residual stream after the last layer, before the final norm, of one token of the last pass: (embedding).
    ///
    /// # Errors
    /// [`LlmError::NoHiddenState`].
    pub fn hidden(&self, index: usize) -> Result<&[f32]> {
        if index >= self.evaluated {
            return Err(LlmError::NoHiddenState { index, available: self.evaluated });
        }
        let length = self.model.config().embedding_length;
        Ok(&self.buffers.hidden[index * length..(index + 1) * length])
    }

    /// Logits of the last token for the chosen rows only: `out[i]` belongs to `rows[i]`. The bits are those of
    /// [`Session::logits_all`]; the cost is that of the rows' tiles. Ascending rows are cheapest.
    ///
    /// # Errors
    /// [`LlmError::NoHiddenState`], [`LlmError::Token`], [`LlmError::OutputLength`] or [`LlmError::NotANumber`].
    pub fn logits_rows(&mut self, rows: &[TokenId], out: &mut [f32]) -> Result<()> {
        self.logits_rows_at(self.evaluated.saturating_sub(1), rows, out)
    }

    /// [`Session::logits_rows`] for any token of the last pass.
    ///
    /// # Errors
    /// As there.
    pub fn logits_rows_at(&mut self, index: usize, rows: &[TokenId], out: &mut [f32]) -> Result<()> {
        let vocab_size = self.model.config().vocab_size;
        if let Some(token) = rows.iter().find(|row| **row as usize >= vocab_size) {
            return Err(LlmError::Token { token: *token, vocab_size });
        }
        check_output(out, rows.len())?;
        self.norm_hidden(index)?;
        let model = &self.model;
        let input = blocks::head_input(model, &self.buffers);
        matmul_rows(model.isa, &model.pool, &input, model.head(), rows, out);
        blocks::finish_logits(model, Some(rows), out);
        self.buffers.profiler.lap("head rows", || Work::NONE);
        self.check_numbers(out)
    }

    /// Logits of the last token for the whole vocabulary: `out` is (vocab_size).
    ///
    /// # Errors
    /// [`LlmError::NoHiddenState`], [`LlmError::OutputLength`] or [`LlmError::NotANumber`].
    pub fn logits_all(&mut self, out: &mut [f32]) -> Result<()> {
        self.logits_all_at(self.evaluated.saturating_sub(1), out)
    }

    /// [`Session::logits_all`] for any token of the last pass.
    ///
    /// # Errors
    /// As there.
    pub fn logits_all_at(&mut self, index: usize, out: &mut [f32]) -> Result<()> {
        check_output(out, self.model.config().vocab_size)?;
        self.norm_hidden(index)?;
        let model = &self.model;
        let input = blocks::head_input(model, &self.buffers);
        matmul(model.isa, &model.pool, &input, &mut [(model.head(), &mut *out)]);
        blocks::finish_logits(model, None, out);
        self.buffers.profiler.lap("head", || Work::products(&[model.head()], 1));
        self.check_numbers(out)
    }

    fn norm_hidden(&mut self, index: usize) -> Result<()> {
        if index >= self.evaluated {
            return Err(LlmError::NoHiddenState { index, available: self.evaluated });
        }
        self.buffers.profiler.begin();
        if self.normed == Some(index) {
            return Ok(());
        }
        blocks::norm_for_head(&self.model, index, &mut self.buffers);
        self.buffers.profiler.lap("head norm", || Work::NONE);
        self.normed = Some(index);
        Ok(())
    }

    fn check_numbers(&self, out: &[f32]) -> Result<()> {
        if out.iter().any(|v| v.is_nan()) {
            return Err(LlmError::NotANumber { position: self.position });
        }
        Ok(())
    }
}

fn check_output(out: &[f32], expected: usize) -> Result<()> {
    if out.len() != expected {
        return Err(LlmError::OutputLength { found: out.len(), expected });
    }
    Ok(())
}
