//! The tensors of a model: names, shapes and presence, from its configuration alone.
//!
//! [`Weights::read`] walks through a model and asks a [`Source`] for every tensor. One source checks a header and adds up
//! bytes (the memory plan), another one reads weights: what is checked is what is loaded.

use std::collections::HashSet;

use ganglion_gguf::{Header, OptionalExt, TensorInfo};
use ganglion_kernels::Matrix;

use crate::arch::{Gate, Head, Mixture, NormKind, NormPlace, Positions, Presence, QueryKeyNorm, Residual};
use crate::config::Config;
use crate::error::{LlmError, Result};
use crate::format::block_format;

/// Where weights come from, tensor by tensor.
pub(crate) trait Source {
    type Matrix;
    type Vector;

    /// A tensor of `shape` (innermost dimension, the length of a row, first), as matrices of `rows` rows each, in order.
    fn matrices(&mut self, tensor: &Wanted, rows: &[usize]) -> Result<Option<Vec<Self::Matrix>>>;

    /// What the file says of itself.
    fn header(&self) -> &Header;

    /// A vector, in parts of these lengths.
    fn vectors(&mut self, tensor: &Wanted, lengths: &[usize]) -> Result<Option<Vec<Self::Vector>>>;
}

/// A tensor that a model has or may have.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) name: String,
    /// Innermost dimension first; one dimension means F32.
    pub(crate) shape: Vec<u64>,
    pub(crate) presence: Presence,
}

impl Wanted {
    fn new(name: impl Into<String>, shape: &[usize], presence: Presence) -> Self {
        Self { name: name.into(), shape: shape.iter().map(|n| *n as u64).collect(), presence }
    }

    /// Its entry in the file, in a shape and type that can be used.
    pub(crate) fn find<'a>(&self, header: &'a Header) -> Result<Option<&'a TensorInfo>> {
        let tensor = || self.name.clone();
        match header.tensor(&self.name).optional()? {
            _ if self.presence == Presence::Never => Ok(None),
            None if self.presence == Presence::Optional => Ok(None),
            None => Err(LlmError::MissingTensor { tensor: tensor(), expected: self.shape.clone() }),
            // Some writers keep the 1 of a matrix of one row.
            Some(info) if without_ones(&info.shape) != without_ones(&self.shape) => Err(self.misshapen(info)),
            Some(info) => block_format(info).map(|_| Some(info)),
        }
    }

    fn misshapen(&self, info: &TensorInfo) -> LlmError {
        LlmError::TensorShape {
            tensor: self.name.clone(),
            found: info.shape.clone(),
            expected: self.shape.clone(),
        }
    }
}

/// A shape less the ones at its end.
fn without_ones(shape: &[u64]) -> &[u64] {
    let length = shape.iter().rposition(|n| *n != 1).map_or(0, |last| last + 1);
    &shape[..length]
}

/// All weights; matrices are (output rows, input length).
#[derive(Debug)]
pub struct Weights<M, V> {
    /// (vocabulary, embedding)
    pub embedding: M,
    /// (context_length, embedding): learned positions.
    pub position_embedding: Option<M>,
    /// In order.
    pub layers: Vec<Layer<M, V>>,
    /// Before the head.
    pub output_norm: Norm<V>,
    /// `None`: the embedding is also the head.
    pub head: Option<M>,
    /// Added to logits.
    pub head_bias: Option<V>,
    /// What the rotation's frequencies are divided by.
    pub rope_factors: RopeFactors<V>,
}

/// Divisors of the rotation's frequencies.
#[derive(Debug)]
pub struct RopeFactors<V> {
    /// For any context (Llama 3).
    pub always: Option<V>,
    /// For sessions up to the original context, and for longer ones (LongRoPE).
    pub short: Option<V>,
    /// The latter.
    pub long: Option<V>,
}

/// One decoder layer.
#[derive(Debug)]
pub struct Layer<M, V> {
    /// Of what attention reads.
    pub attention_norm: Option<Norm<V>>,
    /// The first sub-layer.
    pub attention: Attention<M, V>,
    /// Of what attention adds.
    pub attention_post_norm: Option<Norm<V>>,
    /// Of what the feed-forward part reads.
    pub feed_forward_norm: Option<Norm<V>>,
    /// The second sub-layer.
    pub feed_forward: FeedForward<M, V>,
    /// Of what the feed-forward part adds.
    pub feed_forward_post_norm: Option<Norm<V>>,
}

/// Weights of a norm.
#[derive(Debug)]
pub enum Norm<V> {
    /// RMSNorm.
    Rms {
        /// Factors.
        weight: V,
    },
    /// LayerNorm.
    Layer {
        /// Factors.
        weight: V,
        /// Summands.
        bias: V,
    },
}

/// A product and its bias; of a matrix in two factors, `matrix · (first · x)`.
#[derive(Debug)]
pub struct Linear<M, V> {
    /// Of a matrix in two factors the one that reads the input: (rank, input length).
    pub first: Option<M>,
    /// (output rows, input length); behind a first factor (output rows, rank).
    pub matrix: M,
    /// (output rows)
    pub bias: Option<V>,
}

impl<M, V> Linear<M, V> {
    /// The matrix that reads the input.
    pub(crate) fn reader(&self) -> &M {
        self.first.as_ref().unwrap_or(&self.matrix)
    }
}

/// The attention sub-layer.
#[derive(Debug)]
pub struct Attention<M, V> {
    /// (query heads · head_dim, embedding)
    pub query: Linear<M, V>,
    /// (key heads · head_dim, embedding)
    pub key: Linear<M, V>,
    /// As the keys.
    pub value: Linear<M, V>,
    /// Of queries: one head's weight, or one for all heads.
    pub query_norm: Option<V>,
    /// Of keys.
    pub key_norm: Option<V>,
    /// (embedding, query heads · head_dim)
    pub output: Linear<M, V>,
}

/// The feed-forward sub-layer.
#[derive(Debug)]
pub enum FeedForward<M, V> {
    /// One.
    Dense(Dense<M, V>),
    /// A choice of several.
    Experts(Experts<M, V>),
}

/// Two or three products with an activation between.
#[derive(Debug)]
pub struct Dense<M, V> {
    /// (feed_forward, embedding); `None`: not gated.
    pub gate: Option<Linear<M, V>>,
    /// (feed_forward, embedding)
    pub up: Linear<M, V>,
    /// (embedding, feed_forward)
    pub down: Linear<M, V>,
}

/// A sparse mixture.
#[derive(Debug)]
pub struct Experts<M, V> {
    /// (experts, embedding)
    pub router: M,
    /// In the order of the router's rows.
    pub routed: Vec<Dense<M, V>>,
    /// The one that every token is given to.
    pub shared: Option<SharedExpert<M, V>>,
}

/// An expert for all tokens.
#[derive(Debug)]
pub struct SharedExpert<M, V> {
    /// (1, embedding)
    pub gate: M,
    /// The expert.
    pub dense: Dense<M, V>,
}

impl<M, V> Weights<M, V> {
    /// Asks `source` for every tensor of a model of this configuration.
    pub(crate) fn read(source: &mut impl Source<Matrix = M, Vector = V>, config: &Config) -> Result<Self> {
        Reader { source, config, prefix: String::new() }.weights()
    }
}

/// The walk. `prefix` stands before the names of a layer's tensors.
struct Reader<'a, S> {
    source: &'a mut S,
    config: &'a Config,
    prefix: String,
}

/// End of the name of a matrix's first factor, (rank, inputs): `blk.0.ffn_up.first.weight` reads what `blk.0.ffn_up.weight` would.
pub const FIRST: &str = ".first.weight";
/// End of the name of its second factor, (rows, rank).
pub const SECOND: &str = ".second.weight";
/// Matrices of a layer that a file may hold in two factors.
pub const FACTORED: [&str; 7] =
    ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"];

/// A whole matrix, or the first factor of one and the second.
type Factored<M> = (Option<M>, M);

type LinearOf<S> = Linear<<S as Source>::Matrix, <S as Source>::Vector>;
type DenseOf<S> = Dense<<S as Source>::Matrix, <S as Source>::Vector>;

impl<S: Source> Reader<'_, S> {
    fn weights(mut self) -> Result<Weights<S::Matrix, S::Vector>> {
        let config = self.config;
        let (length, vocab) = (config.embedding_length, config.vocab_size);
        let design = config.design;
        let learned =
            if design.positions == Positions::Learned { Presence::Required } else { Presence::Never };
        let rope = if design.positions == Positions::Learned { Presence::Never } else { Presence::Optional };
        let pairs = config.ropes.dimensions() / 2;
        let head = match design.head {
            Head::Own => Presence::Required,
            Head::OwnOrEmbedding => Presence::Optional,
            Head::Embedding => Presence::Never,
        };
        Ok(Weights {
            embedding: self.required_matrix("token_embd.weight", length, vocab)?,
            position_embedding: self.matrix(
                "position_embd.weight",
                length,
                config.context_length,
                learned,
            )?,
            output_norm: self.norm("output_norm")?,
            head: self.matrix("output.weight", length, vocab, head)?,
            head_bias: self.vector("output.bias", vocab, design.biases.head)?,
            rope_factors: RopeFactors {
                always: self.vector("rope_freqs.weight", pairs, rope)?,
                short: self.vector("rope_factors_short.weight", pairs, rope)?,
                long: self.vector("rope_factors_long.weight", pairs, rope)?,
            },
            layers: (0..config.layer_count).map(|layer| self.layer(layer)).collect::<Result<_>>()?,
        })
    }

    fn layer(&mut self, layer: usize) -> Result<Layer<S::Matrix, S::Vector>> {
        let design = self.config.design;
        self.prefix = format!("blk.{layer}.");
        let before = design.norm_place != NormPlace::After;
        let after = design.norm_place != NormPlace::Before;
        let own_norm = before && design.residual != Residual::ParallelOneNorm;
        let mut norm = |name, present: bool| present.then(|| self.norm(name)).transpose();
        Ok(Layer {
            attention_norm: norm("attn_norm", before)?,
            attention_post_norm: norm("post_attention_norm", after)?,
            feed_forward_norm: norm("ffn_norm", own_norm)?,
            feed_forward_post_norm: norm("post_ffw_norm", after)?,
            attention: self.attention()?,
            feed_forward: match design.mixture {
                Mixture::None => FeedForward::Dense(self.dense()?),
                Mixture::Routed | Mixture::RoutedAndShared => FeedForward::Experts(self.experts()?),
            },
        })
    }

    fn attention(&mut self) -> Result<Attention<S::Matrix, S::Vector>> {
        let config = self.config;
        let (length, query, kv) = (config.embedding_length, config.query_length(), config.kv_length());
        let biases = config.design.biases;
        let [query_matrix, key_matrix, value_matrix] =
            match self.parts("attn_qkv.weight", length, [query, kv, kv], Presence::Optional)? {
                Some(parts) => parts.map(|matrix| (None, matrix)),
                None => [
                    self.factored("attn_q", length, query)?,
                    self.factored("attn_k", length, kv)?,
                    self.factored("attn_v", length, kv)?,
                ],
            };
        let linear = |(first, matrix), bias| Linear { first, matrix, bias };
        let fused =
            if biases.query_key_value == Presence::Never { Presence::Never } else { Presence::Optional };
        let [query_bias, key_bias, value_bias] =
            match self.vector_parts("attn_qkv.bias", [query, kv, kv], fused)? {
                Some(parts) => parts.map(Some),
                None => [
                    self.vector("attn_q.bias", query, biases.query_key_value)?,
                    self.vector("attn_k.bias", kv, biases.query_key_value)?,
                    self.vector("attn_v.bias", kv, biases.query_key_value)?,
                ],
            };
        let (query_norm, key_norm) = match config.design.query_key_norm {
            QueryKeyNorm::None => (None, None),
            QueryKeyNorm::Head => (Some(config.head_dim), Some(config.head_dim)),
            QueryKeyNorm::Whole => (Some(query), Some(kv)),
        };
        let mut norm = |name, length: Option<usize>| match length {
            Some(length) => self.vector(name, length, Presence::Required),
            None => Ok(None),
        };
        Ok(Attention {
            query_norm: norm("attn_q_norm.weight", query_norm)?,
            key_norm: norm("attn_k_norm.weight", key_norm)?,
            query: linear(query_matrix, query_bias),
            key: linear(key_matrix, key_bias),
            value: linear(value_matrix, value_bias),
            output: self.linear("attn_output", query, length, biases.attention_output)?,
        })
    }

    fn dense(&mut self) -> Result<DenseOf<S>> {
        let config = self.config;
        let (length, hidden) = (config.embedding_length, config.feed_forward_length);
        let bias = config.design.biases.feed_forward;
        let (gate, up) = match config.design.gate {
            Gate::None => (None, self.linear("ffn_up", length, hidden, bias)?),
            Gate::Separate => (
                Some(self.linear("ffn_gate", length, hidden, bias)?),
                self.linear("ffn_up", length, hidden, bias)?,
            ),
            Gate::Fused => {
                let [gate, up] = self.required_parts("ffn_up.weight", length, [hidden, hidden])?;
                let whole = |matrix| Linear { first: None, matrix, bias: None };
                (Some(whole(gate)), whole(up))
            }
        };
        Ok(Dense { gate, up, down: self.linear("ffn_down", hidden, length, bias)? })
    }

    fn experts(&mut self) -> Result<Experts<S::Matrix, S::Vector>> {
        let config = self.config;
        let (length, experts) = (config.embedding_length, config.experts);
        let gates = self.stack("ffn_gate_exps.weight", length, experts.feed_forward_length)?;
        let ups = self.stack("ffn_up_exps.weight", length, experts.feed_forward_length)?;
        let downs = self.stack("ffn_down_exps.weight", experts.feed_forward_length, length)?;
        let plain = |matrix| Linear { first: None, matrix, bias: None };
        let dense = |((gate, up), down)| Dense { gate: Some(plain(gate)), up: plain(up), down: plain(down) };
        let shared = match config.design.mixture {
            Mixture::None | Mixture::Routed => None,
            Mixture::RoutedAndShared => {
                let never = Presence::Never;
                let hidden = experts.shared_length;
                Some(SharedExpert {
                    gate: self.row("ffn_gate_inp_shexp.weight", length)?,
                    dense: Dense {
                        gate: Some(self.linear("ffn_gate_shexp", length, hidden, never)?),
                        up: self.linear("ffn_up_shexp", length, hidden, never)?,
                        down: self.linear("ffn_down_shexp", hidden, length, never)?,
                    },
                })
            }
        };
        Ok(Experts {
            router: self.required_matrix("ffn_gate_inp.weight", length, experts.count)?,
            routed: gates.into_iter().zip(ups).zip(downs).map(dense).collect(),
            shared,
        })
    }

    fn wanted(&self, name: &str, shape: &[usize], presence: Presence) -> Wanted {
        Wanted::new(format!("{}{name}", self.prefix), shape, presence)
    }

    fn norm(&mut self, name: &str) -> Result<Norm<S::Vector>> {
        let length = self.config.embedding_length;
        let weight = self.required_vector(&format!("{name}.weight"), length)?;
        Ok(match self.config.design.norm {
            NormKind::Rms => Norm::Rms { weight },
            NormKind::Layer => {
                Norm::Layer { weight, bias: self.required_vector(&format!("{name}.bias"), length)? }
            }
        })
    }

    fn linear(&mut self, name: &str, k: usize, rows: usize, bias: Presence) -> Result<LinearOf<S>> {
        let (first, matrix) = self.factored(name, k, rows)?;
        Ok(Linear { first, matrix, bias: self.vector(&format!("{name}.bias"), rows, bias)? })
    }

    /// `name.weight`, or its two factors if the file has these. Their rank is the file's choice.
    fn factored(&mut self, name: &str, k: usize, rows: usize) -> Result<Factored<S::Matrix>> {
        let first = self.wanted(&format!("{name}{FIRST}"), &[k, k.min(rows)], Presence::Optional);
        let Some(info) = self.source.header().tensor(&first.name).optional()? else {
            return Ok((None, self.required_matrix(&format!("{name}.weight"), k, rows)?));
        };
        let rank = match info.shape.as_slice() {
            [_, rank] if (1..=first.shape[1]).contains(rank) => *rank as usize,
            // The shape of the highest rank, for the message.
            _ => return Err(first.misshapen(info)),
        };
        Ok((
            Some(self.required_matrix(&format!("{name}{FIRST}"), k, rank)?),
            self.required_matrix(&format!("{name}{SECOND}"), rank, rows)?,
        ))
    }

    fn matrix(&mut self, name: &str, k: usize, rows: usize, presence: Presence) -> Result<Option<S::Matrix>> {
        Ok(self.parts(name, k, [rows], presence)?.map(|[matrix]| matrix))
    }

    fn required_matrix(&mut self, name: &str, k: usize, rows: usize) -> Result<S::Matrix> {
        self.required_parts(name, k, [rows]).map(|[matrix]| matrix)
    }

    fn required_parts<const N: usize>(
        &mut self,
        name: &str,
        k: usize,
        rows: [usize; N],
    ) -> Result<[S::Matrix; N]> {
        Ok(self.parts(name, k, rows, Presence::Required)?.unwrap_or_else(|| unreachable!("required")))
    }

    /// One tensor as N matrices, one below the other.
    fn parts<const N: usize>(
        &mut self,
        name: &str,
        k: usize,
        rows: [usize; N],
        presence: Presence,
    ) -> Result<Option<[S::Matrix; N]>> {
        let wanted = self.wanted(name, &[k, rows.iter().sum()], presence);
        Ok(self.source.matrices(&wanted, &rows)?.map(exactly))
    }

    /// One matrix for each expert.
    fn stack(&mut self, name: &str, k: usize, rows: usize) -> Result<Vec<S::Matrix>> {
        let count = self.config.experts.count;
        let wanted = self.wanted(name, &[k, rows, count], Presence::Required);
        let matrices = self.source.matrices(&wanted, &vec![rows; count])?;
        Ok(matrices.unwrap_or_else(|| unreachable!("required")))
    }

    /// A vector that is used as a matrix of one row.
    fn row(&mut self, name: &str, k: usize) -> Result<S::Matrix> {
        let wanted = self.wanted(name, &[k], Presence::Required);
        let [row] = exactly(self.source.matrices(&wanted, &[1])?.unwrap_or_default());
        Ok(row)
    }

    fn vector(&mut self, name: &str, length: usize, presence: Presence) -> Result<Option<S::Vector>> {
        Ok(self.vector_parts(name, [length], presence)?.map(|[vector]| vector))
    }

    fn required_vector(&mut self, name: &str, length: usize) -> Result<S::Vector> {
        let vector = self.vector(name, length, Presence::Required)?;
        Ok(vector.unwrap_or_else(|| unreachable!("required")))
    }

    fn vector_parts<const N: usize>(
        &mut self,
        name: &str,
        lengths: [usize; N],
        presence: Presence,
    ) -> Result<Option<[S::Vector; N]>> {
        let wanted = self.wanted(name, &[lengths.iter().sum()], presence);
        Ok(self.source.vectors(&wanted, &lengths)?.map(exactly))
    }
}

/// A source gives one part for each length it is asked for.
fn exactly<T, const N: usize>(parts: Vec<T>) -> [T; N] {
    let found = parts.len();
    parts.try_into().unwrap_or_else(|_| unreachable!("{found} parts instead of {N}"))
}

/// Checks a header: nothing is read but names, shapes and types.
struct Checker<'a> {
    header: &'a Header,
    known: HashSet<String>,
    bytes: u64,
}

impl Source for Checker<'_> {
    type Matrix = ();
    type Vector = ();

    fn header(&self) -> &Header {
        self.header
    }

    fn matrices(&mut self, tensor: &Wanted, rows: &[usize]) -> Result<Option<Vec<()>>> {
        let Some(info) = tensor.find(self.header)? else { return Ok(None) };
        let (format, k) = (block_format(info)?, tensor.shape[0] as usize);
        for rows in rows {
            let bytes = Matrix::packed_bytes(format, *rows, k).map_or(u64::MAX / 2, |bytes| bytes as u64);
            self.bytes = self.bytes.saturating_add(bytes);
        }
        self.known.insert(tensor.name.clone());
        Ok(Some(vec![(); rows.len()]))
    }

    fn vectors(&mut self, tensor: &Wanted, lengths: &[usize]) -> Result<Option<Vec<()>>> {
        let Some(info) = tensor.find(self.header)? else { return Ok(None) };
        // Vectors are kept as f32, whatever they are stored as.
        self.bytes = self.bytes.saturating_add(info.element_count() * size_of::<f32>() as u64);
        self.known.insert(tensor.name.clone());
        Ok(Some(vec![(); lengths.len()]))
    }
}

/// Checks that the file holds exactly the tensors of its configuration, each in a shape and type that can be used; the
/// bytes that they will take.
pub(crate) fn check_tensors(header: &Header, config: &Config) -> Result<u64> {
    let mut checker = Checker { header, known: HashSet::new(), bytes: 0 };
    Weights::read(&mut checker, config)?;
    match header.tensors().iter().find(|info| !checker.known.contains(&info.name)) {
        Some(info) => {
            Err(LlmError::UnexpectedTensor { tensor: info.name.clone(), architecture: config.architecture })
        }
        None => Ok(checker.bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ones_at_the_end_of_a_shape_do_not_count() {
        assert_eq!(without_ones(&[32, 1]), without_ones(&[32]));
        assert_eq!(without_ones(&[1, 32]), [1, 32]);
        assert_ne!(without_ones(&[32, 2]), without_ones(&[32]));
        assert_eq!(without_ones(&[1, 1]), without_ones(&[1]));
    }
}
