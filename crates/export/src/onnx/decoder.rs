//! A decoder as the engine's `blocks/` executes it, written down as a graph.

use ganglion_gguf::Gguf;
use ganglion_kernels::{Activation, BlockFormat, RopeOrder};
use ganglion_llm::{
    Anatomy, Dense, FIRST, FeedForward, Layer, LayerSpec, Linear, MatrixPart, Norm, Positions, Residual,
    SECOND,
};

use super::attention::Shared;
use super::graph::{Attribute, Dimension, Graph, Type};
use super::weights::{Embedding, Stored, product, write_rows};
use crate::error::Result;
use crate::matrix::{RowOrder, Rows};

/// A graph being built.
pub(super) struct Decoder<'a> {
    pub(super) graph: Graph<'a>,
    gguf: &'a Gguf,
    pub(super) anatomy: &'a Anatomy,
    format: Option<BlockFormat>,
    /// Rotated pairs of a head, by rotation.
    pub(super) pairs: Vec<usize>,
    /// Number of matrices of each type.
    types: Vec<(&'static str, usize)>,
}

/// The graph of a model, and the types of its matrices.
pub(super) fn build<'a>(
    gguf: &'a Gguf,
    anatomy: &'a Anatomy,
    format: Option<BlockFormat>,
    context: usize,
) -> Result<(Graph<'a>, Vec<(&'static str, usize)>)> {
    let pairs = anatomy.rope_tables(1).iter().map(|table| table.angles(0).len()).collect();
    let mut decoder = Decoder { graph: Graph::default(), gguf, anatomy, format, pairs, types: Vec::new() };
    decoder.declare();
    let shared = decoder.shared(context);
    let (mut x, embedding) = decoder.embed();
    for (index, layer) in anatomy.weights.layers.iter().enumerate() {
        decoder.graph.enter(format!("layer.{index}"));
        x = decoder.layer(index, layer, &x, &shared)?;
    }
    decoder.head(&x, &embedding);
    Ok((decoder.graph, decoder.types))
}

impl<'a> Decoder<'a> {
    fn declare(&mut self) {
        let [batch, sequence, total] =
            ["batch_size", "sequence_length", "past_sequence_length + sequence_length"].map(Dimension::Named);
        let vocabulary = Dimension::Fixed(self.anatomy.config.vocab_size);
        self.graph.input("input_ids", Type::Int64, &[batch, sequence]);
        self.graph.input("attention_mask", Type::Int64, &[batch, total]);
        self.graph.input("position_ids", Type::Int64, &[batch, sequence]);
        self.graph.output("logits", Type::Float, &[batch, sequence, vocabulary]);
    }

    fn count(&mut self, stored: Stored) {
        match self.types.iter_mut().find(|(name, _)| *name == stored.name()) {
            Some((_, count)) => *count += 1,
            None => self.types.push((stored.name(), 1)),
        }
    }

    /// How rows of queries and keys are written for a layer.
    pub(super) fn row_order(&self, spec: LayerSpec) -> RowOrder {
        match (self.anatomy.config.design.positions, spec.rope) {
            (Positions::Rotary(RopeOrder::Interleaved), Some(rope)) => RowOrder::NeighboursToHalves {
                head_dim: self.anatomy.config.head_dim,
                rotated: 2 * self.pairs[rope],
            },
            _ => RowOrder::Same,
        }
    }

    pub(super) fn linear(&mut self, x: &str, linear: &'a Linear<MatrixPart, Vec<f32>>, name: &str) -> String {
        self.linear_of(x, linear, name, RowOrder::Same)
    }

    /// `x · matrixᵀ + bias`, its rows in another order; a matrix in two factors is two products.
    pub(super) fn linear_of(
        &mut self,
        x: &str,
        linear: &'a Linear<MatrixPart, Vec<f32>>,
        name: &str,
        order: RowOrder,
    ) -> String {
        let mut x = x.to_owned();
        if let Some(first) = &linear.first {
            x = self.product(&x, first, RowOrder::Same, &format!("{name}{FIRST}"));
        }
        let end = if linear.first.is_some() { SECOND } else { ".weight" };
        let out = self.product(&x, &linear.matrix, order, &format!("{name}{end}"));
        self.biased(&out, linear.bias.as_ref().map(|bias| order.vector(bias)), name)
    }

    fn product(&mut self, x: &str, matrix: &'a MatrixPart, order: RowOrder, name: &str) -> String {
        let stored = Stored::of(matrix, self.format);
        self.count(stored);
        product(&mut self.graph, x, Rows::new(self.gguf, matrix, order), stored, name)
    }

    /// A product with a matrix that is stored as in the file, whatever type was asked for: its result is a choice.
    pub(super) fn exact(&mut self, x: &str, matrix: &'a MatrixPart, name: &str) -> String {
        let stored = Stored::of(matrix, None);
        self.count(stored);
        product(&mut self.graph, x, Rows::new(self.gguf, matrix, RowOrder::Same), stored, name)
    }

    fn biased(&mut self, x: &str, bias: Option<Vec<f32>>, name: &str) -> String {
        let Some(bias) = bias else { return x.to_owned() };
        let bias = self.graph.floats(&format!("{name}.bias"), &[bias.len()], bias);
        self.graph.node("Add", &[x, &bias], &[])
    }

    /// RMSNorm over the last axis.
    pub(super) fn rms(&mut self, x: &str, name: &str, weight: Vec<f32>) -> String {
        let graph = &mut self.graph;
        let squares = graph.node("Mul", &[x, x], &[]);
        let last = graph.ints(&[-1]);
        let mean = graph.node("ReduceMean", &[&squares, &last], &[Attribute::Int("keepdims", 1)]);
        let epsilon = graph.float(self.anatomy.config.norm_epsilon);
        let mean = graph.node("Add", &[&mean, &epsilon], &[]);
        let root = graph.node("Sqrt", &[&mean], &[]);
        let normed = graph.node("Div", &[x, &root], &[]);
        let weight = graph.floats(&format!("{name}.weight"), &[weight.len()], weight);
        graph.node("Mul", &[&normed, &weight], &[])
    }

    fn norm(&mut self, x: &str, name: &str, norm: &Norm<Vec<f32>>) -> String {
        match norm {
            Norm::Rms { weight } => self.rms(x, name, weight.clone()),
            Norm::Layer { weight, bias } => {
                let graph = &mut self.graph;
                let weight = graph.floats(&format!("{name}.weight"), &[weight.len()], weight.clone());
                let bias = graph.floats(&format!("{name}.bias"), &[bias.len()], bias.clone());
                let epsilon = Attribute::Float("epsilon", self.anatomy.config.norm_epsilon);
                graph.node("LayerNormalization", &[x, &weight, &bias], &[Attribute::Int("axis", -1), epsilon])
            }
        }
    }

    fn norm_if(&mut self, x: &str, name: &str, norm: &Option<Norm<Vec<f32>>>) -> String {
        norm.as_ref().map_or_else(|| x.to_owned(), |norm| self.norm(x, name, norm))
    }

    /// `cap · tanh(x / cap)`
    pub(super) fn soft_cap(&mut self, x: &str, cap: f32) -> String {
        let graph = &mut self.graph;
        let cap = graph.float(cap);
        let x = graph.node("Div", &[x, &cap], &[]);
        let x = graph.node("Tanh", &[&x], &[]);
        graph.node("Mul", &[&x, &cap], &[])
    }

    /// The residual stream (batch, sequence, embedding) before the first layer.
    fn embed(&mut self) -> (String, Embedding<'a>) {
        self.graph.enter("embedding");
        let (weights, config) = (&self.anatomy.weights, &self.anatomy.config);
        let rows = Rows::new(self.gguf, &weights.embedding, RowOrder::Same);
        let embedding = Embedding::new(&mut self.graph, rows, self.format);
        self.count(embedding.stored());
        let mut x = embedding.look_up(&mut self.graph, "input_ids");
        if config.embedding_scale != 1.0 {
            let scale = self.graph.float(config.embedding_scale);
            x = self.graph.node("Mul", &[&x, &scale], &[]);
        }
        if let Some(table) = &weights.position_embedding {
            let rows = Rows::new(self.gguf, table, RowOrder::Same);
            let name = "position_embd.weight";
            let size = (table.rows * table.k * 4) as u64;
            self.graph.initializer(name, Type::Float, &[table.rows, table.k], size, move |out| {
                write_rows(rows, BlockFormat::F32, out)
            });
            let learned = self.graph.node("Gather", &[name, "position_ids"], &[]);
            x = self.graph.node("Add", &[&x, &learned], &[]);
        }
        (x, embedding)
    }

    fn layer(
        &mut self,
        index: usize,
        layer: &'a Layer<MatrixPart, Vec<f32>>,
        x: &str,
        shared: &Shared,
    ) -> Result<String> {
        let name = |part: &str| format!("blk.{index}.{part}");
        let residual = self.anatomy.config.design.residual;
        let read = self.norm_if(x, &name("attn_norm"), &layer.attention_norm);
        let added = self.attention(index, &layer.attention, &read, shared)?;
        let added = self.norm_if(&added, &name("post_attention_norm"), &layer.attention_post_norm);
        let after = self.graph.node("Add", &[x, &added], &[]);
        let read = match residual {
            Residual::Sequential => self.norm_if(&after, &name("ffn_norm"), &layer.feed_forward_norm),
            Residual::Parallel => self.norm_if(x, &name("ffn_norm"), &layer.feed_forward_norm),
            Residual::ParallelOneNorm => read,
        };
        let added = match &layer.feed_forward {
            FeedForward::Dense(dense) => {
                self.feed_forward(dense, &read, &|part| format!("blk.{index}.ffn_{part}"))
            }
            FeedForward::Experts(experts) => self.mixture(index, experts, &read),
        };
        let added = self.norm_if(&added, &name("post_ffw_norm"), &layer.feed_forward_post_norm);
        Ok(self.graph.node("Add", &[&after, &added], &[]))
    }

    /// `down(f(gate(x)) · up(x))`, or without a gate `down(f(up(x)))`; `name` has the names of the three.
    pub(super) fn feed_forward(
        &mut self,
        dense: &'a Dense<MatrixPart, Vec<f32>>,
        x: &str,
        name: &dyn Fn(&str) -> String,
    ) -> String {
        let up = self.linear(x, &dense.up, &name("up"));
        let inner = match &dense.gate {
            Some(gate) => {
                let gate = self.linear(x, gate, &name("gate"));
                let gate = self.activated(&gate);
                self.graph.node("Mul", &[&gate, &up], &[])
            }
            None => self.activated(&up),
        };
        self.linear(&inner, &dense.down, &name("down"))
    }

    fn activated(&mut self, x: &str) -> String {
        match self.anatomy.config.design.activation {
            Activation::Silu => {
                let share = self.graph.node("Sigmoid", &[x], &[]);
                self.graph.node("Mul", &[x, &share], &[])
            }
            Activation::GeluTanh => self.graph.node("Gelu", &[x], &[Attribute::Text("approximate", "tanh")]),
            Activation::GeluErf => self.graph.node("Gelu", &[x], &[Attribute::Text("approximate", "none")]),
        }
    }

    fn head(&mut self, x: &str, embedding: &Embedding<'a>) {
        self.graph.enter("head");
        let (weights, config) = (&self.anatomy.weights, &self.anatomy.config);
        let x = self.norm(x, "output_norm", &weights.output_norm);
        let logits = match &weights.head {
            Some(head) => self.product(&x, head, RowOrder::Same, "output.weight"),
            None => embedding.product(&mut self.graph, &x),
        };
        let mut logits = self.biased(&logits, weights.head_bias.clone(), "output");
        if let Some(cap) = config.final_softcap {
            logits = self.soft_cap(&logits, cap);
        }
        self.graph.node_to("Identity", &[&logits], &[], "logits");
    }
}
