//! What a converted file will hold: metadata, and for each tensor where its values come from.

use std::collections::HashSet;

use ganglion_gguf::Value;

use super::fields::Fields;
use super::folder::Folder;
use super::rows::Order;
use crate::error::{LlmError, Result};
use crate::limits;

/// What a tensor is for; decides how it may be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// The weights of a layer: in the type asked for.
    Matrix,
    /// Token embedding and output: at least 8 bits a weight, for errors here reach every token.
    Embedding,
    /// Norms, biases, routers, tables: f32.
    Exact,
}

/// Where values come from.
pub(super) enum Origin {
    /// Tensors of the folder of the same shape (outermost dimension first), stacked if there are several.
    Source { names: Vec<String>, shape: Vec<usize>, order: Order, offset: f32 },
    /// Computed from the configuration.
    Values(Vec<f32>),
}

/// One tensor of the file to be written.
pub(super) struct Target {
    pub(super) name: String,
    /// Innermost dimension first.
    pub(super) shape: Vec<u64>,
    pub(super) role: Role,
    pub(super) origin: Origin,
}

/// Collects what an architecture says about itself.
pub(super) struct Plan<'a> {
    pub(super) architecture: &'static str,
    pub(super) config: Fields<'a>,
    pub(super) folder: &'a Folder,
    pub(super) metadata: Vec<(String, Value)>,
    pub(super) targets: Vec<Target>,
    used: HashSet<String>,
}

/// A matrix of the source: its name without `.weight`, what becomes of its rows, and whether it has a bias.
#[derive(Clone, Copy)]
pub(super) struct Linear {
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) order: Order,
    pub(super) bias: bool,
}

impl Linear {
    pub(super) fn new(rows: usize, columns: usize) -> Self {
        Self { rows, columns, order: Order::Same, bias: false }
    }

    pub(super) fn bias(self, bias: bool) -> Self {
        Self { bias, ..self }
    }

    pub(super) fn order(self, order: Order) -> Self {
        Self { order, ..self }
    }
}

impl<'a> Plan<'a> {
    pub(super) fn new(architecture: &'static str, config: Fields<'a>, folder: &'a Folder) -> Self {
        let (metadata, targets) = (Vec::new(), Vec::new());
        Self { architecture, config, folder, metadata, targets, used: HashSet::new() }
    }

    /// A metadata key of the architecture.
    pub(super) fn key(&mut self, name: &str, value: impl Into<Value>) {
        self.metadata.push((format!("{}.{name}", self.architecture), value.into()));
    }

    pub(super) fn key_count(&mut self, name: &str, value: usize) {
        // Every count is bounded by a limit far below 2^32.
        self.key(name, value as u32);
    }

    pub(super) fn key_number(&mut self, name: &str, value: f64) {
        self.key(name, value as f32);
    }

    fn source(
        &mut self,
        name: String,
        shape: &[usize],
        role: Role,
        source: String,
        order: Order,
        offset: f32,
    ) {
        self.used.insert(source.clone());
        let target_shape = match order {
            Order::Transposed => shape.iter().map(|size| *size as u64).collect(),
            _ => shape.iter().rev().map(|size| *size as u64).collect(),
        };
        let origin = Origin::Source { names: vec![source], shape: shape.to_vec(), order, offset };
        self.targets.push(Target { name, shape: target_shape, role, origin });
    }

    /// `target.weight` and, if it has one, `target.bias`.
    pub(super) fn linear(&mut self, target: &str, source: &str, of: Linear) {
        self.linear_as(target, source, of, Role::Matrix);
    }

    fn linear_as(&mut self, target: &str, source: &str, of: Linear, role: Role) {
        let shape = match of.order {
            Order::Transposed => [of.columns, of.rows],
            _ => [of.rows, of.columns],
        };
        self.source(format!("{target}.weight"), &shape, role, format!("{source}.weight"), of.order, 0.0);
        if of.bias {
            let order = if of.order == Order::Transposed { Order::Same } else { of.order };
            self.vector(&format!("{target}.bias"), &format!("{source}.bias"), of.rows, order, 0.0);
        }
    }

    /// A vector of `length` values plus `offset`; full names.
    pub(super) fn vector(&mut self, target: &str, source: &str, length: usize, order: Order, offset: f32) {
        self.source(target.to_owned(), &[length], Role::Exact, source.to_owned(), order, offset);
    }

    /// `target.weight` of a norm without a bias.
    pub(super) fn norm(&mut self, target: &str, source: &str, length: usize) {
        self.vector(&format!("{target}.weight"), &format!("{source}.weight"), length, Order::Same, 0.0);
    }

    /// Weight and bias of a norm.
    pub(super) fn norm_with_bias(&mut self, target: &str, source: &str, length: usize) {
        self.norm(target, source, length);
        self.vector(&format!("{target}.bias"), &format!("{source}.bias"), length, Order::Same, 0.0);
    }

    /// A small matrix that stays f32, such as a router.
    pub(super) fn exact(&mut self, target: &str, source: &str, rows: usize, columns: usize) {
        self.linear_as(target, source, Linear::new(rows, columns), Role::Exact);
    }

    /// A matrix of one row as a vector.
    pub(super) fn row(&mut self, target: &str, source: &str, length: usize) {
        self.source(
            format!("{target}.weight"),
            &[1, length],
            Role::Exact,
            format!("{source}.weight"),
            Order::Same,
            0.0,
        );
        if let Some(target) = self.targets.last_mut() {
            target.shape.truncate(1);
        }
    }

    /// The same matrix of each expert, stacked; `source` has `{}` where the number of the expert goes.
    pub(super) fn experts(&mut self, target: &str, source: &str, count: usize, of: Linear) {
        let names: Vec<_> = (0..count).map(|i| source.replace("{}", &i.to_string()) + ".weight").collect();
        self.used.extend(names.iter().cloned());
        let shape = vec![of.columns as u64, of.rows as u64, count as u64];
        let origin =
            Origin::Source { names, shape: vec![of.rows, of.columns], order: Order::Same, offset: 0.0 };
        self.targets.push(Target { name: format!("{target}.weight"), shape, role: Role::Matrix, origin });
    }

    /// A vector computed from the configuration.
    pub(super) fn values(&mut self, target: &str, values: Vec<f32>) {
        let shape = vec![values.len() as u64];
        let origin = Origin::Values(values);
        self.targets.push(Target { name: target.to_owned(), shape, role: Role::Exact, origin });
    }

    /// Token embedding; and the output, which may be the same. `copied_if_tied`: the reader of this architecture wants
    /// an output in any case.
    pub(super) fn embeddings(
        &mut self,
        input: &str,
        output: &str,
        of: Linear,
        copied_if_tied: bool,
    ) -> Result<()> {
        let plain = of.bias(false);
        self.linear_as("token_embd", input, plain, Role::Embedding);
        // transformers' own default, which files leave out.
        if !self.config.flag_or("tie_word_embeddings", self.tied_by_default())? {
            self.linear_as("output", output, of, Role::Embedding);
        } else {
            // Stored by some, used by none.
            self.used.insert(format!("{output}.weight"));
            if copied_if_tied {
                self.linear_as("output", input, plain, Role::Embedding);
            }
        }
        Ok(())
    }

    fn tied_by_default(&self) -> bool {
        matches!(self.architecture, "gpt2" | "gemma2" | "gemma3")
    }

    /// Refuses tensors that nothing uses: leaving them out would change what the model computes. `ignored` says which
    /// ones carry no weights.
    pub(super) fn check_leftovers(&self, ignored: fn(&str) -> bool) -> Result<()> {
        let mut left = self.folder.names().filter(|name| !self.used.contains(*name) && !ignored(name));
        let Some(name) = left.next() else { return Ok(()) };
        let architecture = self.architecture;
        Err(LlmError::SourceFile {
            file: self.folder.path().to_owned(),
            reason: format!(
                "tensor {name} has no place in a {architecture} model as config.json describes it"
            ),
        })
    }
}

/// Sizes that every decoder has, in config.json's usual names.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    pub(super) layers: usize,
    pub(super) embedding: usize,
    pub(super) feed_forward: usize,
    pub(super) heads: usize,
    pub(super) heads_kv: usize,
    pub(super) head_dim: usize,
    pub(super) vocab: usize,
    pub(super) context: usize,
}

impl Sizes {
    pub(super) fn read(config: Fields<'_>) -> Result<Self> {
        let embedding = config.count("hidden_size", limits::EMBEDDING_MAX)?;
        let heads = config.count("num_attention_heads", limits::HEADS_MAX)?;
        let heads_kv = config.optional_count("num_key_value_heads", limits::HEADS_MAX)?.unwrap_or(heads);
        let head_dim = config.optional_count("head_dim", limits::HEAD_DIM_MAX)?;
        let sizes = Self {
            layers: config.count("num_hidden_layers", limits::LAYERS_MAX)?,
            embedding,
            feed_forward: config.count("intermediate_size", limits::FEED_FORWARD_MAX)?,
            heads,
            heads_kv,
            head_dim: head_dim.unwrap_or(embedding / heads),
            vocab: config.count("vocab_size", limits::VOCAB_MAX)?,
            context: config.count("max_position_embeddings", limits::CONTEXT_MAX)?,
        };
        if !heads.is_multiple_of(heads_kv) {
            let expected = format!("a divisor of num_attention_heads, which is {heads}");
            return Err(config.refuse("num_key_value_heads", expected));
        }
        if head_dim.is_none() && !embedding.is_multiple_of(heads) {
            let expected = format!("a divisor of hidden_size, which is {embedding}");
            return Err(config.refuse("num_attention_heads", expected));
        }
        if !sizes.head_dim.is_multiple_of(2) {
            return Err(config.refuse("head_dim", "an even number"));
        }
        Ok(sizes)
    }

    /// Values of all query heads.
    pub(super) fn query(self) -> usize {
        self.heads * self.head_dim
    }

    /// Values of all key (or value) heads.
    pub(super) fn kv(self) -> usize {
        self.heads_kv * self.head_dim
    }

    /// The keys that every architecture has.
    pub(super) fn describe(self, plan: &mut Plan<'_>) {
        for (key, value) in [
            ("vocab_size", self.vocab),
            ("context_length", self.context),
            ("embedding_length", self.embedding),
            ("block_count", self.layers),
            ("feed_forward_length", self.feed_forward),
            ("attention.head_count", self.heads),
            ("attention.head_count_kv", self.heads_kv),
            ("attention.key_length", self.head_dim),
            ("attention.value_length", self.head_dim),
        ] {
            plan.key_count(key, value);
        }
    }
}
