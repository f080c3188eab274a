//! The true divergence of a model whose matrices are exchanged one by one.

use std::sync::Arc;

use ganglion_gguf::Gguf;
use ganglion_kernels::Matrix;
use ganglion_llm::{KvType, Model, ModelOptions, Session, SessionOptions, TokenId};

use super::TokenWeight;
use crate::error::{CompressError, Result};
use crate::limits::REFERENCE_BYTES_MAX;
use crate::measure::Windows;

/// Tokens that count less than this share of a whole one are not looked at.
const WEIGHT_MIN: f64 = 0.01;
/// Tokens whose logits are computed in one product.
const LOGITS_TOKENS: usize = 32;

/// What the source makes of every token that counts.
pub(crate) struct Reference {
    windows: Windows,
    /// By window.
    expected: Vec<Vec<Expected>>,
    weight: f64,
}

/// What the source makes of one position.
struct Expected {
    at: usize,
    weight: f64,
    probabilities: Vec<f32>,
    /// `Σ p · ln p`
    negentropy: f64,
}

/// A session of its own.
pub(crate) fn session(gguf: &Gguf, length: usize, threads: usize) -> Result<Session> {
    let model = Arc::new(Model::load(gguf, ModelOptions { threads, ..ModelOptions::default() })?);
    let options = SessionOptions { batch_tokens: length, kv: KvType::F16, ..SessionOptions::new(length) };
    Ok(Session::new(model, options)?)
}

impl Reference {
    /// Evaluates the source on as many of the windows as there is memory for.
    pub(crate) fn new(source: &mut Session, windows: Windows, weights: TokenWeight) -> Result<Self> {
        let vocab = source.model().config().vocab_size;
        let scored = windows.scored_tokens() / windows.count();
        let most = REFERENCE_BYTES_MAX / (scored * vocab * size_of::<f32>()).max(1);
        let windows = windows.thinned(most.max(1));
        let mut found = Self { windows, expected: Vec::new(), weight: 0.0 };
        let mut logits = vec![0.0; vocab];
        for window in found.windows.iter() {
            let stream = first_stream(source, window)?;
            let stream = last_stream(source, 0, stream)?;
            let mut expected = Vec::new();
            for at in found.windows.first_scored()..window.len() - 1 {
                source.logits_of_stream(row(&stream, at, window.len()), &mut logits)?;
                let position = Expected::new(at, &logits, window[at + 1], weights);
                expected.extend((position.weight >= WEIGHT_MIN).then_some(position));
            }
            found.weight += expected.iter().map(|position| position.weight).sum::<f64>();
            found.expected.push(expected);
        }
        if found.weight == 0.0 {
            let reason = "the source believes in no token of the text that divergence is measured on; give more text like what it \
                          was trained for, or count all tokens alike (--all-tokens)";
            return Err(CompressError::Budget { reason: reason.to_owned() });
        }
        Ok(found)
    }

    pub(crate) fn windows(&self) -> &Windows {
        &self.windows
    }

    /// Whole tokens that what counts amounts to.
    pub(crate) fn weight(&self) -> f64 {
        self.weight
    }

    /// Mean `KL(source ‖ model)`.
    pub(crate) fn divergence(&self, model: &mut Session) -> Result<f64> {
        let mut sum = 0.0;
        for (window, expected) in self.windows.iter().zip(&self.expected) {
            let stream = first_stream(model, window)?;
            sum += divergence_from(model, 0, stream, window.len(), expected)?;
        }
        Ok(sum / self.weight)
    }
}

impl Expected {
    fn new(at: usize, logits: &[f32], next: TokenId, weights: TokenWeight) -> Self {
        let top = logits.iter().fold(f32::NEG_INFINITY, |a, b| a.max(*b));
        let total: f64 = logits.iter().map(|l| f64::from(l - top).exp()).sum();
        let log = |l: &f32| f64::from(l - top) - total.ln();
        let weight = match weights {
            TokenWeight::Equal => 1.0,
            TokenWeight::Believed => log(&logits[next as usize]).exp(),
        };
        let negentropy = logits.iter().map(|l| log(l).exp() * log(l)).sum();
        let probabilities = logits.iter().map(|l| log(l).exp() as f32).collect();
        Self { at, weight, probabilities, negentropy }
    }

    /// `KL(expected ‖ softmax(logits))`.
    fn divergence_of(&self, logits: &[f32]) -> f64 {
        let top = logits.iter().fold(f32::NEG_INFINITY, |a, b| a.max(*b));
        let total: f64 = logits.iter().map(|l| f64::from((l - top).exp())).sum();
        // Relative to the largest logit, so that what counts most is rounded least.
        let cross: f64 =
            self.probabilities.iter().zip(logits).map(|(p, l)| f64::from(*p) * f64::from(l - top)).sum();
        (self.negentropy - cross + total.ln()).max(0.0)
    }
}

/// The streams of all windows before one layer of a model, so that what changes behind it need not begin at the start.
pub(crate) struct Walk<'a> {
    reference: &'a Reference,
    session: Session,
    streams: Vec<Vec<f32>>,
    layer: usize,
}

impl<'a> Walk<'a> {
    /// Begins before the first layer.
    pub(crate) fn new(reference: &'a Reference, base: &Gguf, threads: usize) -> Result<Self> {
        let mut session = session(base, reference.windows.length(), threads)?;
        let streams = reference.windows.iter().map(|window| first_stream(&mut session, window));
        let streams = streams.collect::<Result<_>>()?;
        Ok(Self { reference, session, streams, layer: 0 })
    }

    /// The base's own divergence.
    pub(crate) fn divergence(&mut self) -> Result<f64> {
        let mut sum = 0.0;
        let reference = self.reference;
        for ((stream, window), expected) in
            self.streams.iter().zip(reference.windows.iter()).zip(&reference.expected)
        {
            sum += divergence_from(&mut self.session, self.layer, stream.clone(), window.len(), expected)?;
        }
        Ok(sum / reference.weight)
    }

    /// Goes forward to a layer; beyond the last one is before the head.
    pub(crate) fn go_to(&mut self, layer: usize) -> Result<()> {
        let layer = layer.min(self.session.model().config().layer_count);
        while self.layer < layer {
            for stream in &mut self.streams {
                self.session.run_layer(self.layer, stream, None)?;
            }
            self.layer += 1;
        }
        Ok(())
    }

    /// The divergence with this matrix in the place of its name, which must not be before the layer that has been come to; `None` if
    /// there is no such place. The model is afterwards what it was.
    pub(crate) fn divergence_with(&mut self, tensor: &str, mut matrix: Matrix) -> Result<Option<f64>> {
        if !self.session.swap_tensor(tensor, &mut matrix) {
            return Ok(None);
        }
        let found = match tensor {
            "token_embd.weight" => self.reference.divergence(&mut self.session),
            _ => self.divergence(),
        };
        self.session.swap_tensor(tensor, &mut matrix);
        found.map(Some)
    }
}

fn first_stream(session: &mut Session, window: &[TokenId]) -> Result<Vec<f32>> {
    Ok(session.embed(window)?.to_vec())
}

/// A stream before `layer` as it is after the last one.
fn last_stream(session: &mut Session, layer: usize, mut stream: Vec<f32>) -> Result<Vec<f32>> {
    for layer in layer..session.model().config().layer_count {
        session.run_layer(layer, &mut stream, None)?;
    }
    Ok(stream)
}

fn row(stream: &[f32], at: usize, tokens: usize) -> &[f32] {
    let length = stream.len() / tokens;
    &stream[at * length..(at + 1) * length]
}

/// The weighted sum over the positions of a window whose stream before `layer` is given.
fn divergence_from(
    session: &mut Session,
    layer: usize,
    stream: Vec<f32>,
    tokens: usize,
    expected: &[Expected],
) -> Result<f64> {
    if expected.is_empty() {
        return Ok(0.0);
    }
    let stream = last_stream(session, layer, stream)?;
    let vocab = session.model().config().vocab_size;
    let mut logits = vec![0.0; LOGITS_TOKENS * vocab];
    let mut sum = 0.0;
    for positions in expected.chunks(LOGITS_TOKENS.min(session.options().batch_tokens)) {
        let gathered: Vec<f32> = positions.iter().flat_map(|p| row(&stream, p.at, tokens)).copied().collect();
        let logits = &mut logits[..positions.len() * vocab];
        session.logits_of_stream(&gathered, logits)?;
        let found = positions.iter().zip(logits.chunks_exact(vocab));
        sum += found.map(|(position, logits)| position.weight * position.divergence_of(logits)).sum::<f64>();
    }
    Ok(sum)
}
