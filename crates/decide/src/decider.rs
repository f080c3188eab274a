//! The decision itself.

use crate::doubt;
use crate::error::{DecideError, Result};
use crate::limits::COMMAND_TOKENS_MAX;
use crate::memo::Memo;
use crate::prompt::Prompt;
use crate::reader;
use ganglion_gguf::{Gguf, OptionalExt};
use ganglion_grammar::limits::{FORCED_RUN_TOKENS_MAX, OUTPUT_BYTES_MAX};
use ganglion_grammar::{Constraint, Engine, Grammar, GrammarError};
use ganglion_kernels::{exp, ln_f64};
use ganglion_llm::{
    Config, KvType, LlmError, Loaded, MemoryPlan, Model, ModelOptions, PackedFolder, Session, SessionOptions,
};
use ganglion_site::{
    Command, Decision, Event, KvStorage, Micros, Outcome, PROMPT_FORM, Reason, Site, Timings,
};
use ganglion_tokenizer::{TokenId, Tokenizer};
use std::sync::Arc;

/// How a decider is set up.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Answer an event seen before from memory.
    pub memo: bool,
}

/// A model file made ready: weights, vocabulary, masks. Many sites can share one.
pub struct LoadedModel {
    pub(crate) model: Arc<Model>,
    pub(crate) tokenizer: Arc<Tokenizer>,
    engine: Engine,
    pub(crate) speaks_canonical_form: bool,
}

impl LoadedModel {
    /// Loads weights and vocabulary. `threads` = 0 takes as many as the machine gives.
    ///
    /// # Errors
    /// A model file that is malformed or of a kind that is not supported.
    pub fn new(gguf: &Gguf, threads: usize) -> Result<Self> {
        Self::with_folder(gguf, threads, None).map(|(model, _)| model)
    }

    /// As [`LoadedModel::new`], with the packed weights kept in `folder`: see [`Model::load_with`].
    ///
    /// # Errors
    /// As [`LoadedModel::new`].
    pub fn with_folder(gguf: &Gguf, threads: usize, folder: Option<&PackedFolder>) -> Result<(Self, Loaded)> {
        let tokenizer = Arc::new(Tokenizer::from_gguf(gguf)?);
        let (model, loaded) = Model::load_with(gguf, model_options(threads), folder)?;
        let engine = Engine::new(Arc::clone(&tokenizer))?;
        let speaks_canonical_form = speaks_canonical_form(gguf)?;
        Ok((Self { engine, speaks_canonical_form, model: Arc::new(model), tokenizer }, loaded))
    }
}

/// A site with its model loaded and its prefix evaluated: ready for events.
pub struct Decider {
    site: Arc<Site>,
    tokenizer: Arc<Tokenizer>,
    grammar: Grammar,
    prompt: Prompt,
    session: Session,
    memo: Option<Memo>,
    pending: Vec<TokenId>,
    answer: Vec<TokenId>,
    output: Vec<u8>,
    written: String,
    allowed: Vec<TokenId>,
    logits: Vec<f32>,
    masks_generally: bool,
    measures_feasible_mass: bool,
    confidence: Confidence,
}

/// How sure the model was of a command: the least of each over the tokens that were chosen, 1 where none was.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Confidence {
    /// Probability of the best allowed token less that of the second.
    pub margin: f32,
    /// 1 less the entropy over the allowed tokens, as a share of the largest there can be.
    pub certainty: f32,
    /// Probability that the model gave to the allowed tokens all together, where the action is first chosen. Little of it
    /// means that the model would have said something else. [`None`] unless [`Decider::measure_feasible_mass`].
    pub feasible_mass: Option<f32>,
}

impl Confidence {
    const FULL: Self = Self { margin: 1.0, certainty: 1.0, feasible_mass: None };
}

/// The reason of a decision that its deadline cut off.
const EXPIRED: &str = Decision::OUT_OF_TIME;

/// Whether a decision has no command because time ran out, rather than because of what was asked.
pub fn ran_out_of_time(decision: &Decision) -> bool {
    decision.ran_out_of_time()
}

/// Why no command came out.
enum Declined {
    Expired,
    Because(String),
}

impl From<GrammarError> for Declined {
    fn from(error: GrammarError) -> Self {
        Self::Because(error.to_string())
    }
}

impl From<LlmError> for Declined {
    fn from(error: LlmError) -> Self {
        match error {
            LlmError::Expired { .. } => Self::Expired,
            other => Self::Because(other.to_string()),
        }
    }
}

/// Whether a site and a model go together, found out without reading weights: the vocabulary, the prompt, the context.
/// Returns how the site will speak to the model.
///
/// # Errors
/// As [`Decider::new`], memory and weights aside.
pub fn check_fit(site: &Site, gguf: &Gguf) -> Result<Prompt> {
    let tokenizer = Tokenizer::from_gguf(gguf)?;
    let prompt = Prompt::build(site, &tokenizer, speaks_canonical_form(gguf)?)?;
    check_context(site, &prompt, Config::from_header(gguf)?.context_length)?;
    Ok(prompt)
}

/// The site's context, when prefix, event and command have room in it and the model goes that far.
fn check_context(site: &Site, prompt: &Prompt, model_tokens: usize) -> Result<usize> {
    let (context_tokens, needed_tokens) = (site.model.context_tokens, COMMAND_TOKENS_MAX * 2);
    let prefix_tokens = prompt.prefix().len();
    if prefix_tokens + needed_tokens > context_tokens {
        return Err(DecideError::PrefixTooLong { prefix_tokens, context_tokens, needed_tokens });
    }
    if context_tokens > model_tokens {
        return Err(DecideError::ContextBeyondModel { context_tokens, model_tokens });
    }
    Ok(context_tokens)
}

fn speaks_canonical_form(gguf: &Gguf) -> Result<bool> {
    Ok(gguf.get_str("ganglion.prompt_form").optional()?.is_some_and(|form| form == PROMPT_FORM))
}

/// What a site and model take of memory; known before weights are read.
///
/// # Errors
/// A model file that is not a supported model.
pub fn memory_plan(site: &Site, gguf: &Gguf) -> Result<MemoryPlan> {
    let threads = model_options(site.model.threads).threads;
    Ok(Model::memory_plan(gguf, &session_options(site), threads)?)
}

/// A session as the site wants it. A decision never outgrows its context, so nothing is ever forgotten.
fn session_options(site: &Site) -> SessionOptions {
    let kv = match site.model.kv {
        KvStorage::F32 => KvType::F32,
        KvStorage::F16 => KvType::F16,
        KvStorage::Int8 => KvType::Int8,
    };
    SessionOptions { kv, ..SessionOptions::new(site.model.context_tokens) }
}

fn model_options(threads: usize) -> ModelOptions {
    let all = ModelOptions::default();
    if threads == 0 { all } else { ModelOptions { threads, ..all } }
}

impl Decider {
    /// Compiles the site's schema and evaluates its prefix.
    ///
    /// # Errors
    /// Whatever makes the model unusable for this site, with what to change.
    pub fn new(site: Arc<Site>, loaded: &LoadedModel, options: Options) -> Result<Self> {
        let mut prompt = Prompt::new(&site, loaded)?;
        let grammar = loaded.engine.compile(&site.schema())?;
        let model = Arc::clone(&loaded.model);
        let context_tokens = check_context(&site, &prompt, model.config().context_length)?;
        let vocabulary = model.config().vocab_size;
        let mut session = Session::new(model, session_options(&site))?;
        session.prefill(prompt.prefix(), &mut || false)?;
        let mut pending = Vec::with_capacity(context_tokens);
        prompt.warm(&site, &loaded.tokenizer, &mut pending);
        Ok(Self {
            measures_feasible_mass: site.model.confidence.feasible_mass > 0.0,
            site,
            tokenizer: Arc::clone(&loaded.tokenizer),
            grammar,
            prompt,
            session,
            memo: options.memo.then(Memo::default),
            pending,
            answer: Vec::with_capacity(COMMAND_TOKENS_MAX + FORCED_RUN_TOKENS_MAX),
            output: Vec::with_capacity(OUTPUT_BYTES_MAX),
            written: String::with_capacity(OUTPUT_BYTES_MAX),
            allowed: Vec::with_capacity(vocabulary),
            logits: vec![0.0; vocabulary],
            masks_generally: false,
            confidence: Confidence::FULL,
        })
    }

    /// Whether masks and the second look come from the general engines even where the site's commands are bounded: slow, to
    /// compare the two.
    pub fn mask_generally(&mut self, on: bool) {
        self.masks_generally = on;
    }

    /// Whether [`Confidence::feasible_mass`] is measured: one product with the whole head a decision. A site that asks for
    /// some has it measured from the start.
    pub fn measure_feasible_mass(&mut self, on: bool) {
        self.measures_feasible_mass = on;
    }

    /// How sure the model was of the command it last decided.
    pub fn confidence(&self) -> Confidence {
        self.confidence
    }

    /// How the site's commands are masked: by a table, or why not.
    pub fn grammar(&self) -> &Grammar {
        &self.grammar
    }

    /// How the site speaks to its model.
    pub fn prompt(&self) -> &Prompt {
        &self.prompt
    }

    /// Decides one event. `now` reads the clock that `event.deadline_us` is on; it is looked at before every layer.
    ///
    /// Same site, model and event: same command and confidence, bit for bit.
    pub fn decide(&mut self, event: &Event, now: &mut dyn FnMut() -> Micros) -> Decision {
        let mut timings = Timings { cache_n: count(self.prompt.prefix().len()), ..Timings::default() };
        let text = self.prompt.event_text(&self.site, event);
        if text.is_empty() {
            return declined(event, timings, "the event is empty: no sentence and no usable tag value");
        }
        if let Some(known) = self.memo.as_ref().and_then(|memo| memo.get(event.client, text)) {
            return Decision {
                epoch: event.epoch,
                outcome: Outcome::Cache,
                timings: Timings::default(),
                ..*known
            };
        }
        match self.generate(event.deadline_us, now, &mut timings) {
            Ok(command) => {
                let (command, reason) = doubt::settle(&self.site, self.confidence, command);
                let decision = Decision {
                    epoch: event.epoch,
                    command: Some(command),
                    outcome: Outcome::Model,
                    confidence: self.confidence.margin,
                    timings,
                    reason,
                };
                if let Some(memo) = self.memo.as_mut() {
                    memo.put(event.client, self.prompt.event_text(&self.site, event), decision);
                }
                decision
            }
            Err(Declined::Expired) => declined(event, timings, EXPIRED),
            Err(Declined::Because(reason)) => declined(event, timings, &reason),
        }
    }

    fn generate(
        &mut self,
        deadline_us: Micros,
        now: &mut dyn FnMut() -> Micros,
        timings: &mut Timings,
    ) -> std::result::Result<Command, Declined> {
        self.session.truncate(self.prompt.prefix().len())?;
        self.prompt.event_tokens(&self.tokenizer, &mut self.pending);
        timings.prompt_n = count(self.pending.len());
        let room = self.session.remaining().saturating_sub(COMMAND_TOKENS_MAX);
        if self.pending.len() > room {
            return Err(Declined::Because(format!(
                "the event takes {} tokens, the context leaves {room}: shorten the sentence",
                self.pending.len()
            )));
        }
        self.answer.clear();
        let mut constraint =
            if self.masks_generally { self.grammar.start_general()? } else { self.grammar.start() };
        self.confidence = Confidence::FULL;
        let started = now();
        loop {
            let before_mask = now();
            let forced = self.take_forced(&mut constraint)?;
            timings.forced_n += count(forced);
            timings.mask_us += span(before_mask, now());
            if constraint.is_complete() {
                break;
            }
            self.session.prefill(&self.pending, &mut || now() > deadline_us)?;
            timings.passes_n += 1;
            self.pending.clear();
            if timings.prefill_us == 0 {
                timings.prefill_us = span(started, now()).max(1);
            }
            let before_mask = now();
            constraint.allowed(&mut self.allowed)?;
            timings.mask_us += span(before_mask, now());
            let token = self.choose()?;
            constraint.accept(token)?;
            self.pending.push(token);
            self.answer.push(token);
            if self.answer.len() > COMMAND_TOKENS_MAX {
                return Err(Declined::Because(format!(
                    "the command is longer than {COMMAND_TOKENS_MAX} tokens"
                )));
            }
        }
        timings.predicted_n = count(self.answer.len());
        timings.decode_us = span(started, now()).saturating_sub(timings.prefill_us);
        self.finish()
    }

    /// The finished command, looked at a second time.
    fn finish(&mut self) -> std::result::Result<Command, Declined> {
        let because = |e: &dyn std::fmt::Display| Declined::Because(e.to_string());
        if !self.masks_generally && self.grammar.automaton().is_ok() {
            self.output.clear();
            for &token in &self.answer {
                self.output.extend_from_slice(self.tokenizer.token_bytes(token));
            }
            let text = std::str::from_utf8(&self.output).map_err(|e| because(&e))?;
            if let Some(command) = reader::read(&self.site, text, &mut self.written) {
                return Ok(command);
            }
            // The table and the reader disagree: the slow way says about what.
            self.grammar.validate(text)?;
            Command::from_json(&self.site, text).map_err(|e| because(&e))?;
            return Err(Declined::Because(format!("the command is not in its canonical form: {text}")));
        }
        let text = self.tokenizer.decode_bytes(&self.answer);
        let text = String::from_utf8(text).map_err(|e| because(&e))?;
        self.grammar.validate(&text)?;
        Command::from_json(&self.site, &text).map_err(|e| because(&e))
    }

    /// Tokens without a choice join the next pass instead of taking one each.
    fn take_forced(&mut self, constraint: &mut Constraint) -> std::result::Result<usize, Declined> {
        let before = self.pending.len();
        let forced = constraint.take_forced(&mut self.pending)?;
        self.answer.extend_from_slice(self.pending.get(before..).unwrap_or(&[]));
        Ok(forced)
    }

    /// The best allowed token, lowest id first among equals; how sure that is goes into the confidence.
    fn choose(&mut self) -> std::result::Result<TokenId, Declined> {
        let nothing = || Declined::Because("the grammar allows no token here".into());
        if let [only] = self.allowed.as_slice() {
            return Ok(*only);
        }
        if self.measures_feasible_mass && self.confidence.feasible_mass.is_none() {
            self.session.logits_all(&mut self.logits)?;
            self.confidence.feasible_mass = Some(mass(&self.logits, &self.allowed));
        }
        let logits = self.logits.get_mut(..self.allowed.len()).ok_or_else(nothing)?;
        self.session.logits_rows(&self.allowed, logits)?;
        let mut best: Option<(TokenId, f32)> = None;
        let mut second = f32::NEG_INFINITY;
        for (&token, &logit) in self.allowed.iter().zip(logits.iter()) {
            match best {
                Some((_, top)) if logit <= top => second = second.max(logit),
                _ => {
                    second = best.map_or(second, |(_, top)| top);
                    best = Some((token, logit));
                }
            }
        }
        let (token, top) = best.ok_or_else(nothing)?;
        let total: f32 = logits.iter().map(|logit| exp(logit - top)).sum();
        self.confidence.margin = self.confidence.margin.min((1.0 - exp(second - top)) / total);
        self.confidence.certainty = self.confidence.certainty.min(certainty(logits, top, total));
        Ok(token)
    }
}

/// 1 less the entropy of the softmax of `logits`, as a share of its largest; `total` is the sum of exp(logit - top).
fn certainty(logits: &[f32], top: f32, total: f32) -> f32 {
    let weighted: f32 =
        logits.iter().map(|logit| logit - top).map(|below| exp(below) * below.max(BELOW_MIN)).sum();
    let entropy_nats = ln_f64(f64::from(total)) - f64::from(weighted / total);
    // Counts of a vocabulary are exact in an f64.
    let largest_nats = ln_f64(logits.len() as f64);
    (1.0 - entropy_nats / largest_nats).clamp(0.0, 1.0) as f32
}

/// Where exp is zero; keeps 0 · -∞ out of a sum.
const BELOW_MIN: f32 = -200.0;

/// The share of the softmax of all `logits` that `tokens` have.
fn mass(logits: &[f32], tokens: &[TokenId]) -> f32 {
    let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let total: f32 = logits.iter().map(|logit| exp(logit - top)).sum();
    let some = tokens.iter().filter_map(|&token| logits.get(token as usize));
    let part: f32 = some.map(|logit| exp(logit - top)).sum();
    (part / total).min(1.0)
}

fn declined(event: &Event, timings: Timings, reason: &str) -> Decision {
    let reason = Reason::cut(reason);
    Decision { epoch: event.epoch, command: None, outcome: Outcome::Model, confidence: 0.0, timings, reason }
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

fn span(from: Micros, to: Micros) -> u32 {
    u32::try_from(to.saturating_sub(from)).unwrap_or(u32::MAX)
}
