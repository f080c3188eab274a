//! From the last residual stream to the loss, and back.

use ganglion_kernels::Matrix;
use ganglion_llm::{Config, TokenId};

use super::arithmetic::{add, pack, soft_cap_back, transposed};
use super::layer::{Shared, norm, norm_back};
use super::weights::Values;
use super::{Loss, Outputs};
use crate::error::Result;

/// Tokens whose logits are in memory at a time.
const TOKENS_AT_ONCE: usize = 64;

/// The final norm and the matrix behind it.
pub(super) struct Head {
    norm: Option<Vec<f32>>,
    /// The tensor: `output.weight`, or the embedding.
    pub(super) tensor: &'static str,
    /// (vocabulary, embedding)
    pub(super) weights: Vec<f32>,
    bias: Option<Vec<f32>>,
    softcap: Option<f32>,
    forward: Matrix,
    backward: Option<Matrix>,
    pub(super) gradient: Vec<f32>,
}

impl Head {
    pub(super) fn read(values: &Values<'_>, config: &Config) -> Result<Self> {
        let tensor = if values.has("output.weight") { "output.weight" } else { "token_embd.weight" };
        let weights = values.matrix(tensor)?;
        Ok(Self {
            norm: values.vector("output_norm.weight")?,
            tensor,
            bias: values.vector("output.bias")?,
            softcap: config.final_softcap,
            forward: pack(&weights, config.embedding_length)?,
            backward: None,
            gradient: Vec::new(),
            weights,
        })
    }

    /// What the head's matrix reads.
    pub(super) fn normed(&self, shared: &Shared<'_>, stream: &[f32]) -> Vec<f32> {
        norm(shared, self.norm.as_deref(), stream)
    }

    /// (tokens, vocabulary), capped.
    pub(super) fn logits(&self, shared: &Shared<'_>, normed: &[f32]) -> Vec<f32> {
        let mut logits = shared.with.times(normed, &self.forward);
        if let Some(bias) = &self.bias {
            logits.chunks_exact_mut(bias.len()).for_each(|row| add(row, bias));
        }
        if let Some(cap) = self.softcap {
            logits.iter_mut().for_each(|l| *l = cap * (*l / cap).tanh());
        }
        logits
    }

    /// The loss of a window's scored tokens, and the gradient of the stream; the head's
    /// own gradient grows.
    pub(super) fn back(
        &mut self,
        shared: &Shared<'_>,
        stream: &[f32],
        window: Window<'_>,
        loss: &mut Loss<'_>,
    ) -> Result<(f64, Vec<f32>)> {
        let length = shared.config.embedding_length;
        let vocab = self.forward.rows();
        let normed = self.normed(shared, stream);
        let mut dnormed = vec![0.0; normed.len()];
        if self.gradient.is_empty() {
            self.gradient = vec![0.0; self.weights.len()];
        }
        if self.backward.is_none() {
            self.backward = Some(pack(&transposed(&self.weights, length), vocab)?);
        }
        let mut total = 0.0;
        // The last token has no successor to be scored by.
        let scored: Vec<usize> = (window.first_scored..window.tokens.len() - 1).collect();
        for chunk in scored.chunks(TOKENS_AT_ONCE) {
            let range = chunk[0] * length..(chunk[chunk.len() - 1] + 1) * length;
            let x = &normed[range.clone()];
            let mut logits = self.logits(shared, x);
            let capped = self.softcap.map(|_| logits.clone());
            let wanted = match loss {
                Loss::Reference(outputs) => Some(outputs.logits(shared, window.index, range.clone())),
                Loss::Text | Loss::Drawn(_) => None,
            };
            for (row, position) in chunk.iter().enumerate() {
                let logits = &mut logits[row * vocab..(row + 1) * vocab];
                let next = window.tokens[position + 1];
                let wanted = wanted.as_ref().map(|all| &all[row * vocab..(row + 1) * vocab]);
                total += window.weight * slope(logits, wanted, next, loss);
                logits.iter_mut().for_each(|d| *d *= window.weight as f32);
            }
            if let (Some(capped), Some(cap)) = (capped, self.softcap) {
                soft_cap_back(&capped, cap, &mut logits);
            }
            let with = shared.with;
            add(&mut self.gradient, &with.product_of_columns(&logits, x, chunk.len())?);
            if let Some(backward) = &self.backward {
                dnormed[range].copy_from_slice(&with.times(&logits, backward));
            }
        }
        Ok((total, norm_back(shared, self.norm.as_deref(), stream, &dnormed)))
    }
}

/// What of a window counts.
#[derive(Clone, Copy)]
pub(super) struct Window<'a> {
    pub(super) index: usize,
    pub(super) tokens: &'a [TokenId],
    pub(super) first_scored: usize,
    /// Of each scored token: 1 over their number in all windows.
    pub(super) weight: f64,
}

impl Outputs {
    fn logits(&self, shared: &Shared<'_>, window: usize, range: std::ops::Range<usize>) -> Vec<f32> {
        self.head.logits(shared, &self.normed[window][range])
    }
}

/// The loss of one token; its logits become their gradient.
fn slope(logits: &mut [f32], wanted: Option<&[f32]>, next: TokenId, loss: &mut Loss<'_>) -> f64 {
    let log_total = log_total(logits);
    let log_p = |logit: f32| f64::from(logit) - log_total;
    if let Some(wanted) = wanted {
        let wanted_total = self::log_total(wanted);
        let mut divergence = 0.0;
        for (logit, wanted) in logits.iter_mut().zip(wanted) {
            let (log_q, log_p) = (log_p(*logit), f64::from(*wanted) - wanted_total);
            divergence += log_p.exp() * (log_p - log_q);
            *logit = (log_q.exp() - log_p.exp()) as f32;
        }
        return divergence.max(0.0);
    }
    let label = match loss {
        Loss::Drawn(state) => drawn(logits, log_total, state),
        Loss::Text | Loss::Reference(_) => next as usize,
    };
    let found = -log_p(logits[label]);
    for (index, logit) in logits.iter_mut().enumerate() {
        *logit = (log_p(*logit).exp() - f64::from(index == label)) as f32;
    }
    found
}

/// A token by chance, as likely as the model thinks it is. The generator is SplitMix64 (Steele et al. 2014).
fn drawn(logits: &[f32], log_total: f64, state: &mut u64) -> usize {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let mut left = ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64;
    for (index, logit) in logits.iter().enumerate() {
        left -= (f64::from(*logit) - log_total).exp();
        if left < 0.0 {
            return index;
        }
    }
    logits.len() - 1
}

fn log_total(logits: &[f32]) -> f64 {
    let top = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    top + logits.iter().map(|l| (f64::from(*l) - top).exp()).sum::<f64>().ln()
}
