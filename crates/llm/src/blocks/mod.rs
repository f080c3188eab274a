//! The parts of a decoder, each one function that executes what the configuration describes.

mod attention;
mod buffers;
mod embedding;
mod experts;
mod feed_forward;
mod head;
mod linear;
mod norm;

use ganglion_kernels::{RopeTable, add_rows};

pub(crate) use buffers::Buffers;
pub(crate) use embedding::embed;
pub(crate) use head::{finish_logits, head_input, norm_for_head};

use crate::arch::Residual;
use crate::model::Model;
use crate::profile::Work;
use crate::sequence::Sequence;
use crate::session::Part;
use crate::tensors::{FACTORED, FIRST, FeedForward, Norm, SECOND};

/// The tokens that one evaluation covers.
#[derive(Clone, Copy)]
pub(crate) struct Pass<'a> {
    pub(crate) model: &'a Model,
    /// One for each of the model's rotations.
    pub(crate) ropes: &'a [RopeTable],
    /// In the order of their rows; each of another sequence.
    pub(crate) parts: &'a [Part<'a>],
    /// Of all parts.
    pub(crate) tokens: usize,
    /// Sees what the layers' matrices read.
    pub(crate) tap: Option<&'a Tap<'a>>,
}

/// Which of a layer's matrices read an activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reader {
    /// Query, key and value: (tokens, embedding).
    QueryKeyValue,
    /// The attention's output: (tokens, query heads · head dimension).
    AttentionOutput,
    /// The feed-forward part's first matrices, or its router: (tokens, embedding).
    FeedForward,
    /// The feed-forward part's last matrix: (tokens, feed-forward length). Not told of mixtures of experts.
    Down,
    /// The second factor of the matrix of this name (`attn_q`): (tokens, rank). Not told of mixtures of experts.
    Second(&'static str),
}

impl Reader {
    /// Every reader of whole matrices, in the order in which a layer's activations come.
    pub const ALL: [Self; 4] = [Self::QueryKeyValue, Self::AttentionOutput, Self::FeedForward, Self::Down];

    /// Who reads through a tensor, by its name without the layer: `attn_q.weight`.
    pub fn of_tensor(name: &str) -> Option<Self> {
        if let Some(name) = name.strip_suffix(SECOND) {
            return FACTORED.into_iter().find(|known| *known == name).map(Self::Second);
        }
        let whole = name.strip_suffix(FIRST).map(|name| format!("{name}.weight"));
        Some(match whole.as_deref().unwrap_or(name) {
            "attn_q.weight" | "attn_k.weight" | "attn_v.weight" | "attn_qkv.weight" => Self::QueryKeyValue,
            "attn_output.weight" => Self::AttentionOutput,
            "ffn_gate.weight"
            | "ffn_up.weight"
            | "ffn_gate_exps.weight"
            | "ffn_up_exps.weight"
            | "ffn_gate_shexp.weight"
            | "ffn_up_shexp.weight" => Self::FeedForward,
            "ffn_down.weight" => Self::Down,
            _ => return None,
        })
    }
}

/// Is told a layer, who reads, and what is read.
pub type Tap<'a> = dyn Fn(usize, Reader, &[f32]) + 'a;

impl Pass<'_> {
    fn tell(&self, layer: usize, reader: Reader, values: &[f32], length: usize) {
        if let Some(tap) = self.tap {
            tap(layer, reader, &values[..self.tokens * length]);
        }
    }
}

/// Evaluates one layer for the first `pass.tokens` rows of `buffers.hidden`.
pub(crate) fn layer(pass: Pass<'_>, index: usize, buffers: &mut Buffers, sequences: &mut [Sequence]) {
    let layer = &pass.model.weights.layers[index];
    let config = pass.model.config();
    read_stream(pass, layer.attention_norm.as_ref(), buffers);
    pass.tell(index, Reader::QueryKeyValue, &buffers.normed, config.embedding_length);
    attention::attention(pass, index, buffers, sequences);
    pass.tell(index, Reader::AttentionOutput, &buffers.attended, config.query_length());
    match config.design.residual {
        Residual::Sequential => {
            add_to_stream(pass, layer.attention_post_norm.as_ref(), buffers);
            read_stream(pass, layer.feed_forward_norm.as_ref(), buffers);
        }
        Residual::Parallel => {
            read_stream(pass, layer.feed_forward_norm.as_ref(), buffers);
            add_to_stream(pass, None, buffers);
        }
        // What attention read is still there.
        Residual::ParallelOneNorm => add_to_stream(pass, None, buffers),
    }
    pass.tell(index, Reader::FeedForward, &buffers.normed, config.embedding_length);
    match &layer.feed_forward {
        FeedForward::Dense(dense) => {
            feed_forward::feed_forward(pass, index, dense, buffers);
            let inner = if dense.gate.is_some() { &buffers.gate } else { &buffers.up };
            pass.tell(index, Reader::Down, inner, config.feed_forward_length);
        }
        FeedForward::Experts(experts) => experts::mixture(pass, experts, buffers),
    }
    add_to_stream(pass, layer.feed_forward_post_norm.as_ref(), buffers);
}

/// `normed = norm(hidden)`, or a copy without a norm.
fn read_stream(pass: Pass<'_>, norm: Option<&Norm<Vec<f32>>>, buffers: &mut Buffers) {
    let length = pass.tokens * pass.model.config().embedding_length;
    let (hidden, normed) = (&buffers.hidden[..length], &mut buffers.normed[..length]);
    match norm {
        Some(norm) => norm::norm(pass.model, norm, hidden, normed),
        None => normed.copy_from_slice(hidden),
    }
    buffers.profiler.lap("norm", || Work::NONE);
}

/// `normed = norm(hidden)` of the first tokens, as the head reads it.
pub(crate) fn norm_stream(model: &Model, tokens: usize, buffers: &mut Buffers) {
    let length = tokens * model.config().embedding_length;
    let (hidden, normed) = (&buffers.hidden[..length], &mut buffers.normed[..length]);
    norm::norm(model, &model.weights.output_norm, hidden, normed);
}

/// `hidden += norm(projected)`, or as it is without a norm.
fn add_to_stream(pass: Pass<'_>, norm: Option<&Norm<Vec<f32>>>, buffers: &mut Buffers) {
    let length = pass.tokens * pass.model.config().embedding_length;
    let (hidden, projected) = (&mut buffers.hidden[..length], &buffers.projected[..length]);
    let added = match norm {
        Some(norm) => {
            let normed = &mut buffers.normed[..length];
            norm::norm(pass.model, norm, projected, normed);
            &*normed
        }
        None => projected,
    };
    add_rows(pass.model.isa, hidden, added);
    buffers.profiler.lap("residual", || Work::NONE);
}
