//! ∂L/∂W of every matrix of a model, by a plain backward pass in f32.
//!
//! The weights are dequantised and used as they are: no activation is rounded to int8 here. The stream before each layer is kept
//! for all windows; what else a layer's gradients need is computed anew when the pass comes back to it. So memory holds
//! the streams, and one layer's weights, gradients and activations of one window.
//!
//! The mean is over the same tokens that [`crate::measure()`] scores, so `Loss::Text` is the logarithm of its perplexity and
//! `Loss::Reference` its mean divergence.

mod arithmetic;
mod head;
mod layer;
mod weights;

use std::collections::HashMap;

use ganglion_gguf::Gguf;
use ganglion_kernels::{Activation, RopeTable};
use ganglion_llm::{Anatomy, Config, FIRST, Gate, LlmError, Mixture, NormKind, Positions, Residual};

use crate::error::{CompressError, Result};
use crate::measure::Windows;
use arithmetic::{Arithmetic, add};
use head::{Head, Window};
use layer::{Layer, Linear, Shared};
use weights::Values;

/// What the gradient is of, in nats a token.
pub enum Loss<'a> {
    /// Cross-entropy of the text's own tokens: what training lowers.
    Text,
    /// `KL(reference ‖ model)`. It and its gradient are zero at the reference itself, so this is for models that differ
    /// from it.
    Reference(&'a Outputs),
    /// Cross-entropy of tokens that are drawn from the model, from this state of the generator on: the mean square of its gradients
    /// is the Fisher information, which tells how far a small change moves the model from itself.
    Drawn(u64),
}

/// What a reference makes of the windows: its normed last streams and its head.
pub struct Outputs {
    normed: Vec<Vec<f32>>,
    head: Head,
}

/// The gradient of one tensor.
#[derive(Debug, Clone, Copy)]
pub struct MatrixGradient<'a> {
    /// Its name.
    pub tensor: &'a str,
    /// Values of a row.
    pub columns: usize,
    /// (rows, columns)
    pub weights: &'a [f32],
    /// (rows, columns)
    pub gradient: &'a [f32],
    /// For each token of all windows the mean square of the gradient of the matrix's outputs: how much an error of theirs counts there.
    /// Empty for embedding and head. Of a tensor with several parts, of their mean.
    pub output_squares: &'a [f32],
}

/// A model, ready for passes.
pub struct Gradients<'a> {
    values: Values<'a>,
    config: Config,
    ropes: Vec<RopeTable>,
    with: Arithmetic,
}

impl<'a> Gradients<'a> {
    /// Prepares passes over windows of up to `context` tokens.
    ///
    /// # Errors
    /// [`CompressError::Gradient`] for an architecture without a backward pass here; what a broken header lacks.
    pub fn new(source: &'a Gguf, context: usize, threads: usize) -> Result<Self> {
        let config = Config::from_header(source.header())?;
        check(&config)?;
        if let Some(info) = source.tensors().iter().find(|info| info.name.ends_with(FIRST)) {
            let reason = format!("{}: matrices in two factors have no backward pass here", info.name);
            return Err(CompressError::Gradient { reason });
        }
        let ropes = Anatomy::read(source)?.rope_tables(context);
        let values = Values { source, replaced: HashMap::new() };
        Ok(Self { values, config, ropes, with: Arithmetic::new(threads)? })
    }

    /// Uses other values for a tensor from now on.
    ///
    /// # Errors
    /// If the file has no such tensor of this size.
    pub fn replace(&mut self, tensor: &str, values: Vec<f32>) -> Result<()> {
        let expected = self.values.source.tensor(tensor)?.element_count();
        if expected != values.len() as u64 {
            let reason = format!("{tensor} has {expected} values, {} were given", values.len());
            return Err(CompressError::Gradient { reason });
        }
        self.values.replaced.insert(tensor.to_owned(), values);
        Ok(())
    }

    /// What the model makes of the windows, for others to be held against.
    ///
    /// # Errors
    /// A token that is not the model's.
    pub fn outputs(&self, windows: &Windows) -> Result<Outputs> {
        let shared = self.shared();
        let streams = self.forward(windows, None)?;
        let head = Head::read(&self.values, &self.config)?;
        let normed = streams.iter().map(|stream| head.normed(&shared, stream)).collect();
        Ok(Outputs { normed, head })
    }

    /// Hands the gradient of every tensor to `take`: the head, the layers from the last to the first, the embedding. Returns
    /// the loss.
    ///
    /// # Errors
    /// Whatever `take` returns; a token that is not the model's; [`CompressError::Gradient`] if the reference was
    /// made of other windows or another vocabulary.
    pub fn run(
        &self,
        windows: &Windows,
        mut loss: Loss<'_>,
        take: &mut dyn FnMut(MatrixGradient<'_>) -> Result<()>,
    ) -> Result<f64> {
        let (config, shared) = (&self.config, self.shared());
        let mut kept = Vec::new();
        let mut streams = self.forward(windows, Some(&mut kept))?;
        let mut head = Head::read(&self.values, config)?;
        if let Loss::Reference(outputs) = &loss
            && (outputs.normed.iter().map(Vec::len).ne(streams.iter().map(Vec::len))
                || outputs.head.weights.len() != head.weights.len())
        {
            let reason = "the reference was made of other windows or another vocabulary".to_owned();
            return Err(CompressError::Gradient { reason });
        }
        let weight = 1.0 / windows.scored_tokens() as f64;
        let mut total = 0.0;
        for (index, (stream, tokens)) in streams.iter_mut().zip(windows.iter()).enumerate() {
            let window = Window { index, tokens, first_scored: windows.first_scored(), weight };
            let (found, gradient) = head.back(&shared, stream, window, &mut loss)?;
            total += found;
            *stream = gradient;
        }
        let tied = head.tensor == "token_embd.weight";
        if !tied {
            let Head { tensor, weights, gradient, .. } = &head;
            let (columns, output_squares) = (config.embedding_length, &[][..]);
            take(MatrixGradient { tensor, columns, weights, gradient, output_squares })?;
        }
        for index in (0..config.layer_count).rev() {
            let mut layer = Layer::read(&self.values, config, index)?;
            let before = kept.pop().unwrap_or_else(|| unreachable!("a stream before each layer"));
            for (stream, x) in streams.iter_mut().zip(&before) {
                let trace = layer.forward(&shared, x)?;
                *stream = layer.back(&shared, x, &trace, stream)?;
            }
            hand_over(&layer.matrices(), take)?;
        }
        self.embedding(windows, &streams, tied.then_some(head), take)?;
        Ok(total)
    }

    fn shared(&self) -> Shared<'_> {
        Shared { config: &self.config, ropes: &self.ropes, with: &self.with }
    }

    /// The last streams, and in `kept` those before each layer.
    fn forward(&self, windows: &Windows, mut kept: Option<&mut Vec<Vec<Vec<f32>>>>) -> Result<Vec<Vec<f32>>> {
        let (config, shared) = (&self.config, self.shared());
        let length = config.embedding_length;
        let embedding = self.values.matrix("token_embd.weight")?;
        let vocab_size = config.vocab_size;
        let row = |token: &u32| {
            let row = embedding.get(*token as usize * length..(*token as usize + 1) * length);
            row.ok_or(LlmError::Token { token: *token, vocab_size })
        };
        let mut streams = Vec::new();
        for tokens in windows.iter() {
            let mut stream = Vec::with_capacity(tokens.len() * length);
            for token in tokens {
                stream.extend(row(token)?.iter().map(|v| v * config.embedding_scale));
            }
            streams.push(stream);
        }
        drop(embedding);
        for index in 0..config.layer_count {
            let layer = Layer::read(&self.values, config, index)?;
            let next = streams.iter().map(|x| Ok(layer.forward(&shared, x)?.out)).collect::<Result<_>>()?;
            let before = std::mem::replace(&mut streams, next);
            if let Some(kept) = &mut kept {
                kept.push(before);
            }
        }
        Ok(streams)
    }

    /// The embedding's gradient: that of each token's stream, and the head's if they are one tensor.
    fn embedding(
        &self,
        windows: &Windows,
        streams: &[Vec<f32>],
        head: Option<Head>,
        take: &mut dyn FnMut(MatrixGradient<'_>) -> Result<()>,
    ) -> Result<()> {
        let (length, scale) = (self.config.embedding_length, self.config.embedding_scale);
        let (weights, mut gradient) = match head {
            Some(head) => (head.weights, head.gradient),
            None => {
                let weights = self.values.matrix("token_embd.weight")?;
                let gradient = vec![0.0; weights.len()];
                (weights, gradient)
            }
        };
        for (stream, tokens) in streams.iter().zip(windows.iter()) {
            for (d, token) in stream.chunks_exact(length).zip(tokens) {
                let row = &mut gradient[*token as usize * length..(*token as usize + 1) * length];
                row.iter_mut().zip(d).for_each(|(sum, d)| *sum += d * scale);
            }
        }
        take(MatrixGradient {
            tensor: "token_embd.weight",
            columns: length,
            weights: &weights,
            gradient: &gradient,
            output_squares: &[],
        })
    }
}

/// Parts of one tensor are put together again.
fn hand_over(matrices: &[Linear], take: &mut dyn FnMut(MatrixGradient<'_>) -> Result<()>) -> Result<()> {
    for parts in matrices.chunk_by(|a, b| a.tensor == b.tensor) {
        let joined = |of: fn(&Linear) -> &Vec<f32>| parts.iter().flat_map(of).copied().collect::<Vec<f32>>();
        let mut output_squares = vec![0.0; parts[0].output_squares.len()];
        for part in parts {
            let shares: Vec<f32> = part.output_squares.iter().map(|v| v / parts.len() as f32).collect();
            add(&mut output_squares, &shares);
        }
        take(MatrixGradient {
            tensor: &parts[0].tensor,
            columns: parts[0].columns,
            weights: &joined(|part| &part.weights),
            gradient: &joined(|part| &part.gradient),
            output_squares: &output_squares,
        })?;
    }
    Ok(())
}

/// Llama and its heirs: gated dense layers with RMSNorm, one sub-layer after the other, rotary positions.
fn check(config: &Config) -> Result<()> {
    let design = &config.design;
    let fits = design.norm == NormKind::Rms
        && matches!(design.positions, Positions::Rotary(_))
        && design.residual == Residual::Sequential
        && design.gate != Gate::None
        && design.activation != Activation::GeluErf
        && design.mixture == Mixture::None;
    if fits {
        return Ok(());
    }
    let reason = format!(
        "{} has layers without a backward pass here; those of llama, qwen2, qwen3, phi3, olmo2, gemma2 and gemma3 have one",
        config.architecture
    );
    Err(CompressError::Gradient { reason })
}
