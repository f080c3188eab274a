//! A model file made ready, and what can be said of one before it is.

use crate::error::{DecideError, Result};
use crate::guess::Guesser;
use crate::limits::{COMMAND_TOKENS_MAX, MASKS_BYTES, SLOT_BYTES, VOCABULARY_BYTES};
use crate::memo::Memo;
use crate::prompt::Prompt;
use ganglion_gguf::{Gguf, OptionalExt};
use ganglion_grammar::Engine;
use ganglion_llm::{
    Config, KvType, Loaded, MemoryPlan, Model, ModelOptions, PackedFolder, PrefixFile, Session,
    SessionOptions,
};
use ganglion_site::{KvStorage, PROMPT_FORM, Site};
use ganglion_tokenizer::{TokenId, Tokenizer};
use std::sync::Arc;

/// A model file made ready: weights, vocabulary, masks. Many sites can share one.
pub struct LoadedModel {
    pub(crate) model: Arc<Model>,
    pub(crate) tokenizer: Arc<Tokenizer>,
    pub(crate) engine: Engine,
    pub(crate) speaks_canonical_form: bool,
    /// Where the state behind a site's prefix is kept.
    prefixes: Option<PrefixFile>,
}

impl LoadedModel {
    /// Loads weights and vocabulary. `threads` = 0 takes as many as the machine gives.
    ///
    /// # Errors
    /// A model file that is malformed or of a kind that is not supported.
    pub fn new(gguf: &Gguf, threads: usize) -> Result<Self> {
        Self::with_folder(gguf, threads, None).map(|(model, _)| model)
    }

    /// As [`LoadedModel::new`], with the packed weights and the evaluated prefixes of larger models kept in `folder`: see
    /// [`Model::load_with`] and [`PrefixFile`].
    ///
    /// # Errors
    /// As [`LoadedModel::new`].
    pub fn with_folder(gguf: &Gguf, threads: usize, folder: Option<&PackedFolder>) -> Result<(Self, Loaded)> {
        Self::with_options(gguf, model_options(threads), folder)
    }

    /// As [`LoadedModel::with_folder`], computed as `options` say and not as this machine would by itself.
    ///
    /// # Errors
    /// As [`LoadedModel::new`].
    pub fn with_options(
        gguf: &Gguf,
        options: ModelOptions,
        folder: Option<&PackedFolder>,
    ) -> Result<(Self, Loaded)> {
        let tokenizer = Arc::new(Tokenizer::from_gguf(gguf)?);
        let (model, loaded) = Model::load_with(gguf, options, folder)?;
        let model = Self {
            engine: Engine::new(Arc::clone(&tokenizer))?,
            speaks_canonical_form: speaks_canonical_form(gguf)?,
            prefixes: folder.and_then(|folder| folder.prefix_file(gguf)),
            model: Arc::new(model),
            tokenizer,
        };
        Ok((model, loaded))
    }

    /// A session in which every sequence holds `prefix`, evaluated now or by an earlier run.
    pub(crate) fn session(&self, site: &Site, prefix: &[TokenId]) -> Result<Session> {
        let mut session = Session::new(Arc::clone(&self.model), session_options(site))?;
        match &self.prefixes {
            Some(file) => file.restore_or_evaluate(&mut session, prefix)?,
            None => session.prefill(prefix, &mut || false)?,
        }
        session.share_first()?;
        Ok(session)
    }
}

/// Whether a site and a model go together, found out without reading weights: the vocabulary, the prompt, the context.
/// Returns how the site will speak to the model.
///
/// # Errors
/// As [`Decider::new`](crate::Decider::new), memory and weights aside.
pub fn check_fit(site: &Site, gguf: &Gguf) -> Result<Prompt> {
    let tokenizer = Tokenizer::from_gguf(gguf)?;
    let prompt = Prompt::build(site, &tokenizer, speaks_canonical_form(gguf)?)?;
    check_context(site, &prompt, Config::from_header(gguf)?.context_length)?;
    Ok(prompt)
}

/// The site's context, when prefix, event and command have room in it and the model goes that far.
pub(crate) fn check_context(site: &Site, prompt: &Prompt, model_tokens: usize) -> Result<usize> {
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
    let mut plan = Model::memory_plan(gguf, &session_options(site), threads)?;
    let config = Config::from_header(gguf)?;
    let slots = site.model.parallel * SLOT_BYTES;
    let vocabulary = config.vocab_size * (VOCABULARY_BYTES + size_of::<f32>() + size_of::<TokenId>());
    plan.tables_bytes = (Guesser::SIZE_BYTES + Memo::SIZE_BYTES + slots + vocabulary + MASKS_BYTES) as u64;
    Ok(plan)
}

/// A session as the site wants it. A decision never outgrows its context, so nothing is ever forgotten.
fn session_options(site: &Site) -> SessionOptions {
    let kv = match site.model.kv {
        KvStorage::F32 => KvType::F32,
        KvStorage::F16 => KvType::F16,
        KvStorage::Int8 => KvType::Int8,
    };
    SessionOptions { kv, sequences: site.model.parallel, ..SessionOptions::new(site.model.context_tokens) }
}

fn model_options(threads: usize) -> ModelOptions {
    let all = ModelOptions::default();
    if threads == 0 { all } else { ModelOptions { threads, ..all } }
}
