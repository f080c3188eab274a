//! Perplexity, and the divergence from a reference, over windows of a text.
//!
//! The protocol is llama.cpp's: the text is cut into windows of equal length, a window begins with the BOS token where the vocabulary
//! asks for one, and only its second half is scored, so that every scored token has half a window of context at least. So figures of
//! both programs can be laid side by side.

use ganglion_llm::{Session, TokenId};
use ganglion_tokenizer::{EncodeOptions, Tokenizer};

use crate::error::{CompressError, Result};
use crate::limits::WINDOW_TOKENS_MIN;

/// A text as windows of tokens.
#[derive(Debug, Clone)]
pub struct Windows {
    tokens: Vec<TokenId>,
    length: usize,
    /// Bytes of the text for each of its tokens, on average.
    bytes_per_token: f64,
}

impl Windows {
    /// Cuts `text` into windows of `length` tokens; what is left at the end is not used.
    ///
    /// # Errors
    /// [`CompressError::ShortWindow`] or [`CompressError::ShortText`].
    pub fn new(tokenizer: &Tokenizer, text: &str, length: usize) -> Result<Self> {
        let bos = tokenizer.add_bos_token();
        let tokens = tokenizer.encode(text, EncodeOptions { add_bos: bos, parse_special: false });
        let mut windows = Self::of_tokens(tokens, length, text.len())?;
        if bos {
            let first = windows.tokens[0];
            windows.tokens.iter_mut().step_by(length).for_each(|token| *token = first);
        }
        Ok(windows)
    }

    /// As [`Windows::new`], of the tokens of `text_bytes` bytes of text.
    ///
    /// # Errors
    /// As there.
    pub fn of_tokens(mut tokens: Vec<TokenId>, length: usize, text_bytes: usize) -> Result<Self> {
        if length < WINDOW_TOKENS_MIN {
            return Err(CompressError::ShortWindow { found: length, min: WINDOW_TOKENS_MIN });
        }
        let found = tokens.len();
        if found < length {
            return Err(CompressError::ShortText { found, needed: length });
        }
        tokens.truncate(found / length * length);
        Ok(Self { tokens, length, bytes_per_token: text_bytes as f64 / found as f64 })
    }

    /// Tokens of a window.
    pub fn length(&self) -> usize {
        self.length
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.tokens.len() / self.length
    }

    /// The windows' tokens.
    pub fn iter(&self) -> impl Iterator<Item = &[TokenId]> {
        self.tokens.chunks_exact(self.length)
    }

    /// Leaves out all windows but some: at most `count`, spread over the text.
    pub fn thinned(self, count: usize) -> Self {
        let all = self.count();
        if count >= all {
            return self;
        }
        let chosen = (0..count).flat_map(|i| {
            let first = i * all / count * self.length;
            self.tokens[first..first + self.length].iter().copied()
        });
        Self { tokens: chosen.collect(), ..self }
    }

    /// The first token of a window that is scored by what comes after it.
    pub(crate) fn first_scored(&self) -> usize {
        self.length / 2
    }

    /// Tokens of all windows that are scored.
    pub(crate) fn scored_tokens(&self) -> usize {
        self.count() * (self.length - 1 - self.first_scored())
    }
}

/// What is measured: sessions with room for a window.
#[derive(Debug)]
pub struct Subject<'a> {
    /// The model in question.
    pub model: &'a mut Session,
    /// What it should be like, if it is compared.
    pub reference: Option<&'a mut Session>,
}

/// How far a model is from its reference: `KL(reference ‖ model)` of the next token's distribution.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Divergence {
    /// Mean over the scored tokens, in nats.
    pub kl_mean: f64,
    /// The same where each token counts by the probability that the reference gives to it.
    pub kl_weighted: f64,
    /// 99 of 100 tokens are no further apart.
    pub kl_p99: f64,
    /// Share of tokens where both put the same one first.
    pub top1_agreement: f64,
}

/// What [`measure`] finds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measured {
    /// Tokens that were scored.
    pub tokens: usize,
    /// `e^(mean negative log-likelihood)`.
    pub perplexity: f64,
    /// Bits that a byte of the text takes.
    pub bits_per_byte: f64,
    /// Against the reference, if there is one.
    pub divergence: Option<Divergence>,
}

/// Scores all windows; `progress` is told how many are done.
///
/// # Errors
/// [`CompressError::Vocabulary`], or whatever an evaluation refuses.
pub fn measure(
    subject: &mut Subject<'_>,
    windows: &Windows,
    progress: &mut dyn FnMut(usize),
) -> Result<Measured> {
    let vocab = subject.model.model().config().vocab_size;
    if let Some(reference) = &subject.reference {
        let expected = reference.model().config().vocab_size;
        if expected != vocab {
            return Err(CompressError::Vocabulary { found: vocab, expected });
        }
    }
    let (mut log_likelihood, mut tokens, mut agreed) = (0.0f64, 0usize, 0usize);
    let (mut weighted, mut weights) = (0.0, 0.0);
    let mut divergences = Vec::new();
    let (mut ours, mut theirs) = (Distribution::new(vocab), Distribution::new(vocab));
    for (index, window) in windows.tokens.chunks_exact(windows.length).enumerate() {
        subject.model.truncate(0)?;
        if let Some(reference) = &mut subject.reference {
            reference.truncate(0)?;
        }
        let batch = subject.model.options().batch_tokens;
        let batch = subject.reference.as_ref().map_or(batch, |r| batch.min(r.options().batch_tokens));
        for (pass, piece) in window.chunks(batch).enumerate() {
            subject.model.prefill(piece, &mut || false)?;
            if let Some(reference) = &mut subject.reference {
                reference.prefill(piece, &mut || false)?;
            }
            for at in 0..piece.len() {
                let position = pass * batch + at;
                let Some(next) = window.get(position + 1).filter(|_| position >= windows.first_scored())
                else {
                    continue;
                };
                ours.read(subject.model, at)?;
                log_likelihood += ours.log_probability(*next);
                tokens += 1;
                if let Some(reference) = &mut subject.reference {
                    theirs.read(reference, at)?;
                    let (divergence, weight) =
                        (theirs.divergence_of(&ours), theirs.log_probability(*next).exp());
                    divergences.push(divergence);
                    (weighted, weights) = (weighted + weight * divergence, weights + weight);
                    agreed += usize::from(theirs.best() == ours.best());
                }
            }
        }
        progress(index + 1);
    }
    let mean = -log_likelihood / tokens as f64;
    divergences.sort_by(f64::total_cmp);
    let divergence = (!divergences.is_empty()).then(|| Divergence {
        kl_mean: divergences.iter().sum::<f64>() / tokens as f64,
        kl_weighted: weighted / weights,
        kl_p99: divergences[(divergences.len() - 1) * 99 / 100],
        top1_agreement: agreed as f64 / tokens as f64,
    });
    Ok(Measured {
        tokens,
        perplexity: mean.exp(),
        bits_per_byte: mean / std::f64::consts::LN_2 / windows.bytes_per_token,
        divergence,
    })
}

/// The logits of one position, and the logarithm of their softmax's denominator.
pub(crate) struct Distribution {
    logits: Vec<f32>,
    log_total: f64,
}

impl Distribution {
    pub(crate) fn new(vocab: usize) -> Self {
        Self { logits: vec![0.0; vocab], log_total: 0.0 }
    }

    pub(crate) fn read(&mut self, session: &mut Session, index: usize) -> Result<()> {
        session.logits_all_at(index, &mut self.logits)?;
        let top = f64::from(self.logits.iter().fold(f32::NEG_INFINITY, |a, b| a.max(*b)));
        let total: f64 = self.logits.iter().map(|l| (f64::from(*l) - top).exp()).sum();
        self.log_total = top + total.ln();
        Ok(())
    }

    fn log_probability(&self, token: TokenId) -> f64 {
        f64::from(self.logits[token as usize]) - self.log_total
    }

    pub(crate) fn best(&self) -> usize {
        let better = |best: usize, (i, l): (usize, &f32)| if *l > self.logits[best] { i } else { best };
        self.logits.iter().enumerate().fold(0, better)
    }

    /// `KL(self ‖ other)`.
    pub(crate) fn divergence_of(&self, other: &Self) -> f64 {
        let terms = self.logits.iter().zip(&other.logits).map(|(ours, theirs)| {
            let (p, q) = (f64::from(*ours) - self.log_total, f64::from(*theirs) - other.log_total);
            p.exp() * (p - q)
        });
        terms.sum::<f64>().max(0.0)
    }
}
