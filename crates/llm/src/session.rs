//! A conversation with a model, or several that share its passes: KV caches, scratch, positions.

use std::sync::Arc;

use ganglion_kernels::{Input, KvType, Matrix, RopeTable, matmul, matmul_rows};

use crate::TokenId;
use crate::blocks::{self, Buffers, Pass, Tap};
use crate::config::Config;
use crate::error::{LlmError, Result};
use crate::limits;
use crate::model::Model;
use crate::plan::check_option;
use crate::profile::{Profiler, Work};
use crate::sequence::Sequence;

/// Sizes of a session, and what its cache is made of. The batch and the memory budget change speed, never a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionOptions {
    /// Positions of the KV cache: what a token can see at most.
    pub context_tokens: usize,
    /// Tokens evaluated by one pass over the weights.
    pub batch_tokens: usize,
    /// How keys and values are stored. This does change results: f16 rounds to 11 bits, int8 to 8.
    pub kv: KvType,
    /// What happens when the context is full.
    pub overflow: Overflow,
    /// Memory for keys and values. What goes beyond lies, oldest blocks first, in a temporary file (see
    /// [`std::env::temp_dir`]) that is mapped and has no name. `None`: all in memory.
    pub kv_ram_bytes: Option<usize>,
    /// Sequences with a cache of their own, each of the sizes above, that passes can share. One with a ring.
    pub sequences: usize,
}

/// What happens when a session's context is full.
///
/// A ring makes a session endless: the token at position p sees the first `sinks` positions and the last `context_tokens -
/// sinks` ones up to its own, whatever the batch. For a model whose layers all have a sliding window no longer than that,
/// nothing is lost. For others the sinks keep attention stable (StreamingLLM, Xiao et al. 2023). Unlike there, keys keep
/// the rotation of their absolute position, as in a cache that never ends: nothing is rotated anew, but the distance
/// between the sinks and the present grows, beyond what the model was trained on if the session is long enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overflow {
    /// [`LlmError::ContextFull`].
    #[default]
    Refuse,
    /// The oldest tokens behind the sinks are forgotten.
    Ring {
        /// First positions that stay; fewer than `context_tokens`. 4 are usual; a pinned prefix is a good choice.
        sinks: usize,
    },
}

impl SessionOptions {
    /// `context_tokens` positions in f16, the default batch, no overflow, all in memory.
    pub fn new(context_tokens: usize) -> Self {
        Self {
            context_tokens,
            batch_tokens: limits::BATCH_DEFAULT,
            kv: KvType::default(),
            overflow: Overflow::Refuse,
            kv_ram_bytes: None,
            sequences: 1,
        }
    }

    pub(crate) fn check(&self, config: &Config) -> Result<()> {
        check_option("context_tokens", self.context_tokens, config.positions_max())?;
        check_option("batch_tokens", self.batch_tokens, limits::BATCH_MAX)?;
        let is_ring = matches!(self.overflow, Overflow::Ring { .. });
        let sequences_max = if is_ring { 1 } else { limits::SEQUENCES_MAX };
        check_option("sequences", self.sequences, sequences_max)?;
        match self.overflow {
            Overflow::Ring { sinks } if sinks >= self.context_tokens => {
                Err(LlmError::Sinks { found: sinks, context_tokens: self.context_tokens })
            }
            _ => Ok(()),
        }
    }
}

/// Tokens that a pass appends to one of a session's sequences.
#[derive(Debug, Clone, Copy, Default)]
pub struct Part<'a> {
    /// Which sequence.
    pub sequence: usize,
    /// At least one.
    pub tokens: &'a [TokenId],
}

/// A sequence being evaluated, or several: methods that name none are about the first. Everything is allocated by
/// [`Session::new`]; no later call allocates.
#[derive(Debug)]
pub struct Session {
    model: Arc<Model>,
    options: SessionOptions,
    /// One at least.
    pub(crate) sequences: Vec<Sequence>,
    ropes: Vec<RopeTable>,
    buffers: Buffers,
    /// Hidden states in `buffers.hidden`, of the last tokens evaluated.
    evaluated: usize,
    /// The hidden state whose norm is in `buffers.normed`, quantised too.
    normed: Option<usize>,
}

impl Session {
    /// An empty session.
    ///
    /// # Errors
    /// If an option is out of range, or there is no temporary file to be had. A context beyond the model's
    /// `context_length` is the caller's choice, unless its positions are learned.
    pub fn new(model: Arc<Model>, options: SessionOptions) -> Result<Self> {
        options.check(model.config())?;
        let options =
            SessionOptions { batch_tokens: options.batch_tokens.min(options.context_tokens), ..options };
        let config = model.config();
        let sequences =
            (0..options.sequences).map(|_| Sequence::new(&model, &options)).collect::<Result<_>>()?;
        Ok(Self {
            ropes: model.rope_tables(options.context_tokens),
            buffers: Buffers::new(config, model.forms, options.batch_tokens),
            model,
            sequences,
            options,
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
        self.first().position
    }

    /// The tokens held by a sequence, up to the first `context_tokens`; none if there is none of this number.
    pub fn tokens_of(&self, sequence: usize) -> &[TokenId] {
        self.sequences.get(sequence).map_or(&[], |sequence| &sequence.tokens)
    }

    /// Tokens held by a sequence; 0 if there is none of this number.
    pub fn position_of(&self, sequence: usize) -> usize {
        self.sequences.get(sequence).map_or(0, |sequence| sequence.position)
    }

    fn first(&self) -> &Sequence {
        &self.sequences[0]
    }

    /// The tokens held, up to the first `context_tokens`.
    pub fn tokens(&self) -> &[TokenId] {
        &self.first().tokens
    }

    /// Bytes of keys and values that lie in the temporary file now.
    pub fn spilled_bytes(&self) -> usize {
        self.sequences.iter().map(|sequence| sequence.kv.spilled_bytes()).sum()
    }

    /// Tokens that still fit.
    pub fn remaining(&self) -> usize {
        self.remaining_of(0)
    }

    /// Tokens that still fit behind a sequence.
    pub fn remaining_of(&self, sequence: usize) -> usize {
        let end = match self.options.overflow {
            Overflow::Refuse => self.options.context_tokens,
            Overflow::Ring { .. } => self.model.config().ring_positions_max(),
        };
        end - self.position_of(sequence)
    }

    /// Forgets all tokens from `length` on, at no cost. So a pinned prefix is evaluated once, and every event after it
    /// starts with `truncate(prefix length)`. The logits after a truncation are those of the next evaluation.
    ///
    /// # Errors
    /// If the session holds fewer than `length` tokens, or its ring has forgotten what the last of them sees.
    pub fn truncate(&mut self, length: usize) -> Result<()> {
        if length < self.position() {
            self.forget_hidden();
        }
        self.truncate_sequence(0, length)
    }

    /// [`Session::truncate`] for any sequence. What the last pass left can still be read: so a part of it can be taken back
    /// before all of it was looked at.
    ///
    /// # Errors
    /// As there, and [`LlmError::Option`] if there is no such sequence.
    pub fn truncate_sequence(&mut self, sequence: usize, length: usize) -> Result<()> {
        self.sequence_mut(sequence)?.truncate(length)
    }

    fn sequence_mut(&mut self, sequence: usize) -> Result<&mut Sequence> {
        let max = self.sequences.len() - 1;
        let none = LlmError::Option { option: "sequence", found: sequence, max };
        self.sequences.get_mut(sequence).ok_or(none)
    }

    /// Gives every sequence what the first one holds. The others then have the same bits, as if they had evaluated it.
    ///
    /// # Errors
    /// [`LlmError::Forgotten`] if the first one is longer than its context.
    pub fn share_first(&mut self) -> Result<()> {
        let Some((first, others)) = self.sequences.split_first_mut() else { return Ok(()) };
        let length = first.tokens.len();
        if length < first.position {
            return Err(LlmError::Forgotten { length: first.position, position: first.position });
        }
        let mut chunk = vec![0; first.kv.chunk_bytes()];
        for other in others {
            other.truncate(0)?;
            for index in 0..first.kv.chunk_count(length) {
                first.kv.read_chunk(index, length, &mut chunk);
                other.kv.write_chunk(index, &chunk);
            }
            other.adopt(&first.tokens);
        }
        Ok(())
    }

    /// Keeps what the session holds of the beginning of `prompt`, all but its last token at most, and forgets the rest.
    /// Returns how many tokens of `prompt` that is: the others are to be evaluated. The logits are those of a fresh session.
    ///
    /// # Errors
    /// As [`Session::truncate`].
    pub fn reuse(&mut self, prompt: &[TokenId]) -> Result<usize> {
        let first = self.first();
        let same = first.tokens.iter().zip(prompt).take_while(|(held, wanted)| held == wanted).count();
        let length = same.min(prompt.len().saturating_sub(1));
        let length = if first.kv.can_truncate(length) { length } else { 0 };
        self.truncate(length)?;
        Ok(length)
    }

    /// Says that the first sequence's cache now holds these tokens and nothing else.
    pub(crate) fn adopt(&mut self, tokens: &[TokenId]) {
        self.sequences[0].adopt(tokens);
        self.forget_hidden();
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
        self.check_part(Part { sequence: 0, tokens })?;
        for batch in tokens.chunks(self.options.batch_tokens) {
            self.evaluate(&[Part { sequence: 0, tokens: batch }], expired, observe)?;
        }
        Ok(())
    }

    /// One pass that appends to several sequences, each named once at most; `batch_tokens` tokens in all. Afterwards the
    /// logits of every token can be read: the tokens of the first part come first. The bits are those of each sequence
    /// evaluated alone.
    ///
    /// `expired` is asked before every layer.
    ///
    /// # Errors
    /// As [`Session::prefill`], and [`LlmError::Option`] for a sequence that does not exist or comes twice, or too many
    /// tokens; before anything is evaluated.
    pub fn prefill_parts(&mut self, parts: &[Part<'_>], expired: &mut dyn FnMut() -> bool) -> Result<()> {
        let tokens: usize = parts.iter().map(|part| part.tokens.len()).sum();
        let (found, max) = (tokens, self.options.batch_tokens);
        if tokens > max || parts.iter().any(|part| part.tokens.is_empty()) {
            return Err(LlmError::Option { option: "tokens of a pass", found, max });
        }
        for (index, part) in parts.iter().enumerate() {
            self.check_part(*part)?;
            if parts.iter().skip(index + 1).any(|other| other.sequence == part.sequence) {
                return Err(LlmError::Option { option: "parts of one sequence", found: 2, max: 1 });
            }
        }
        self.evaluate(parts, expired, &mut |_, _| {})
    }

    fn check_part(&mut self, part: Part<'_>) -> Result<()> {
        let Part { sequence, tokens } = part;
        let position = self.sequence_mut(sequence)?.position;
        if tokens.len() > self.remaining_of(sequence) {
            return Err(LlmError::ContextFull {
                position,
                tokens: tokens.len(),
                context_tokens: self.options.context_tokens,
            });
        }
        self.check_tokens(tokens)
    }

    /// Evaluates one layer alone for the first tokens of a sequence: `stream` is the residual stream before it and becomes the
    /// one after it, (tokens, embedding), and `tap` sees what the layer's matrices read. For offline work that goes through
    /// a model layer by layer. The session is empty afterwards.
    ///
    /// # Errors
    /// [`LlmError::ContextFull`] if there are more tokens than a pass takes.
    ///
    /// # Panics
    /// If there is no such layer, or `stream` is not whole tokens.
    pub fn run_layer(&mut self, layer: usize, stream: &mut [f32], tap: Option<&Tap<'_>>) -> Result<()> {
        let length = self.model.config().embedding_length;
        assert!(
            layer < self.model.config().layer_count && stream.len().is_multiple_of(length),
            "whole tokens"
        );
        let tokens = stream.len() / length;
        self.check_pass(tokens)?;
        self.truncate(0)?;
        for rope in &mut self.ropes {
            rope.cover(0..tokens);
        }
        let Self { model, sequences, ropes, buffers, .. } = self;
        buffers.hidden[..stream.len()].copy_from_slice(stream);
        let parts = &[Part { sequence: 0, tokens: &vec![0; tokens] }];
        blocks::layer(Pass { model, ropes, parts, tokens, tap }, layer, buffers, sequences);
        stream.copy_from_slice(&buffers.hidden[..stream.len()]);
        self.truncate(0)?;
        Ok(())
    }

    /// The residual stream before the first layer, of tokens at the start of a sequence: (tokens, embedding). The session
    /// is empty afterwards.
    ///
    /// # Errors
    /// [`LlmError::ContextFull`] if there are more tokens than a pass takes, [`LlmError::Token`].
    pub fn embed(&mut self, tokens: &[TokenId]) -> Result<&[f32]> {
        self.check_pass(tokens.len())?;
        self.check_tokens(tokens)?;
        self.truncate(0)?;
        let Self { model, sequences, ropes, buffers, .. } = self;
        let parts = &[Part { sequence: 0, tokens }];
        let pass = Pass { model, ropes, parts, tokens: tokens.len(), tap: None };
        blocks::embed(pass, sequences, buffers);
        Ok(&self.buffers.hidden[..tokens.len() * self.model.config().embedding_length])
    }

    /// The final norm of a residual stream of (tokens, embedding), in place: what the head reads.
    ///
    /// # Errors
    /// [`LlmError::ContextFull`] if there are more tokens than a pass takes.
    ///
    /// # Panics
    /// If `stream` is not whole tokens.
    pub fn norm_stream(&mut self, stream: &mut [f32]) -> Result<()> {
        let length = self.model.config().embedding_length;
        assert!(stream.len().is_multiple_of(length), "whole tokens");
        self.check_pass(stream.len() / length)?;
        self.truncate(0)?;
        self.buffers.hidden[..stream.len()].copy_from_slice(stream);
        blocks::norm_stream(&self.model, stream.len() / length, &mut self.buffers);
        stream.copy_from_slice(&self.buffers.normed[..stream.len()]);
        Ok(())
    }

    /// Logits of a residual stream after the last layer, (tokens, embedding): `out` is (tokens, vocab_size), in one product. The bits
    /// are those of [`Session::logits_all`]. The session is empty afterwards.
    ///
    /// # Errors
    /// [`LlmError::ContextFull`] if there are more tokens than a pass takes, [`LlmError::OutputLength`] or
    /// [`LlmError::NotANumber`].
    ///
    /// # Panics
    /// If `stream` is not whole tokens.
    pub fn logits_of_stream(&mut self, stream: &[f32], out: &mut [f32]) -> Result<()> {
        let (length, vocab) = (self.model.config().embedding_length, self.model.config().vocab_size);
        assert!(stream.len().is_multiple_of(length), "whole tokens");
        let tokens = stream.len() / length;
        self.check_pass(tokens)?;
        check_output(out, tokens * vocab)?;
        self.truncate(0)?;
        let Self { model, buffers, .. } = self;
        buffers.hidden[..stream.len()].copy_from_slice(stream);
        blocks::norm_stream(model, tokens, buffers);
        let (normed, head) = (&buffers.normed[..stream.len()], model.head());
        buffers.quantised.prepare(model.isa, &model.pool, normed, (tokens, length), &[head]);
        matmul(model.isa, &model.pool, &Input::new(normed, &buffers.quantised), &mut [(head, &mut *out)]);
        out.chunks_exact_mut(vocab).for_each(|row| blocks::finish_logits(model, None, row));
        self.check_numbers(out)
    }

    /// Puts `matrix` in the place of a layer's one, by the name of its tensor without the layer (`attn_q.weight`), and hands that
    /// one back in it. False, and nothing done, if the model has no such matrix of this shape, or another session uses the
    /// model.
    pub fn swap_matrix(&mut self, layer: usize, tensor: &str, matrix: &mut Matrix) -> bool {
        let place = Arc::get_mut(&mut self.model).and_then(|model| model.matrix_mut(layer, tensor));
        let place = place.filter(|place| (place.rows(), place.k()) == (matrix.rows(), matrix.k()));
        place.map(|place| std::mem::swap(place, matrix)).is_some()
    }

    /// [`Session::swap_matrix`] by a tensor's whole name, embedding and output included.
    pub fn swap_tensor(&mut self, name: &str, matrix: &mut Matrix) -> bool {
        let in_layer = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.'));
        if let Some((layer, part)) = in_layer {
            let layer = layer.parse().ok().filter(|layer| *layer < self.model.config().layer_count);
            return layer.is_some_and(|layer| self.swap_matrix(layer, part, matrix));
        }
        let weights = Arc::get_mut(&mut self.model).map(|model| &mut model.weights);
        let place = weights.and_then(|weights| match name {
            "token_embd.weight" => Some(&mut weights.embedding),
            "output.weight" => weights.head.as_mut(),
            _ => None,
        });
        let place = place.filter(|place| (place.rows(), place.k()) == (matrix.rows(), matrix.k()));
        place.map(|place| std::mem::swap(place, matrix)).is_some()
    }

    fn check_pass(&self, tokens: usize) -> Result<()> {
        let room = self.options.batch_tokens;
        if tokens > room {
            return Err(LlmError::ContextFull { position: 0, tokens, context_tokens: room });
        }
        Ok(())
    }

    fn check_tokens(&self, tokens: &[TokenId]) -> Result<()> {
        let vocab_size = self.model.config().vocab_size;
        match tokens.iter().find(|token| **token as usize >= vocab_size) {
            Some(token) => Err(LlmError::Token { token: *token, vocab_size }),
            None => Ok(()),
        }
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
        parts: &[Part<'_>],
        expired: &mut dyn FnMut() -> bool,
        observe: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<()> {
        self.forget_hidden();
        for part in parts {
            let first = self.position_of(part.sequence);
            for rope in &mut self.ropes {
                rope.cover(first..first + part.tokens.len());
            }
        }
        let Self { model, sequences, ropes, buffers, .. } = self;
        let tokens = parts.iter().map(|part| part.tokens.len()).sum();
        let pass = Pass { model, ropes, parts, tokens, tap: None };
        buffers.profiler.begin();
        blocks::embed(pass, sequences, buffers);
        buffers.profiler.lap("embedding", || Work::NONE);
        for layer in 0..model.config().layer_count {
            if expired() {
                return Err(LlmError::Expired { position: self.first().position });
            }
            buffers.profiler.enter(Some(layer));
            blocks::layer(pass, layer, buffers, sequences);
            observe(layer, &buffers.hidden[..tokens * model.config().embedding_length]);
        }
        self.evaluated = tokens;
        for part in parts {
            self.sequences[part.sequence].extend(part.tokens, self.options.context_tokens);
        }
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
            return Err(LlmError::NotANumber { position: self.position() });
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
