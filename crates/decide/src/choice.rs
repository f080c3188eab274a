//! The choice of one token, and how sure it was.

use crate::declined::Declined;
use ganglion_kernels::{exp, ln_f64};
use ganglion_llm::Session;
use ganglion_tokenizer::TokenId;

/// How sure the model was of a command: the least of each over the tokens that were chosen, 1 where none was.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Confidence {
    /// Probability of the best allowed token less that of the second.
    pub margin: f32,
    /// 1 less the entropy over the allowed tokens, as a share of the largest there can be.
    pub certainty: f32,
    /// Probability that the model gave to the allowed tokens all together, where the action is first chosen. Little of it
    /// means that the model would have said something else. [`None`] unless
    /// [`Decider::measure_feasible_mass`](crate::Decider::measure_feasible_mass).
    pub feasible_mass: Option<f32>,
}

impl Confidence {
    pub(crate) const FULL: Self = Self { margin: 1.0, certainty: 1.0, feasible_mass: None };
}

/// Chooses tokens by a session's logits.
pub(crate) struct Chooser {
    logits: Vec<f32>,
    pub(crate) measures_feasible_mass: bool,
}

impl Chooser {
    pub(crate) fn new(vocabulary: usize, measures_feasible_mass: bool) -> Self {
        Self { logits: vec![0.0; vocabulary], measures_feasible_mass }
    }

    /// The best of `allowed` behind the token at `row` of the last pass, lowest id first among equals; how sure that is goes
    /// into `confidence`.
    pub(crate) fn choose(
        &mut self,
        session: &mut Session,
        row: usize,
        allowed: &[TokenId],
        confidence: &mut Confidence,
    ) -> Result<TokenId, Declined> {
        let nothing = || Declined::Because("the grammar allows no token here".into());
        if let [only] = allowed {
            return Ok(*only);
        }
        if self.measures_feasible_mass && confidence.feasible_mass.is_none() {
            session.logits_all_at(row, &mut self.logits)?;
            confidence.feasible_mass = Some(mass(&self.logits, allowed));
        }
        let logits = self.logits.get_mut(..allowed.len()).ok_or_else(nothing)?;
        session.logits_rows_at(row, allowed, logits)?;
        let mut best: Option<(TokenId, f32)> = None;
        let mut second = f32::NEG_INFINITY;
        for (&token, &logit) in allowed.iter().zip(logits.iter()) {
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
        confidence.margin = confidence.margin.min((1.0 - exp(second - top)) / total);
        confidence.certainty = confidence.certainty.min(certainty(logits, top, total));
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
