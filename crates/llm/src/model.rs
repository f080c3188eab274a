//! A loaded model: checked, repacked weights and the threads that multiply them.

use std::collections::HashSet;

use ganglion_gguf::{Gguf, Header};
use ganglion_kernels::{Isa, Matrix, Pool};

use crate::config::Config;
use crate::error::{LlmError, Result};
use crate::format::block_format;
use crate::plan::MemoryPlan;

/// How to load a model. None of it changes a single bit of the results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModelOptions {
    /// Threads that share every product, the caller's included.
    pub threads: usize,
    /// Instruction set of the kernels.
    pub isa: Isa,
}

impl Default for ModelOptions {
    /// The fastest instruction set, and as many threads as the process may use.
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Self { threads: threads.min(ganglion_kernels::limits::THREADS_MAX), isa: Isa::detect() }
    }
}

/// Weights of one decoder layer; matrices are (output rows, input length).
#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) attention_norm: Vec<f32>,
    pub(crate) query: Matrix,
    pub(crate) key: Matrix,
    pub(crate) value: Matrix,
    pub(crate) attention_output: Matrix,
    pub(crate) feed_forward_norm: Vec<f32>,
    pub(crate) gate: Matrix,
    pub(crate) up: Matrix,
    pub(crate) down: Matrix,
}

/// A model ready for sessions.
#[derive(Debug)]
pub struct Model {
    config: Config,
    pub(crate) isa: Isa,
    pub(crate) pool: Pool,
    pub(crate) embedding: Matrix,
    pub(crate) layers: Vec<Layer>,
    pub(crate) output_norm: Vec<f32>,
    /// `None`: the embedding is also the head.
    head: Option<Matrix>,
    pub(crate) rope_factors: Vec<f32>,
}

/// One tensor that a model has or may have.
pub(crate) struct Expected {
    pub(crate) name: String,
    /// Innermost dimension first; one dimension means a vector kept in f32.
    pub(crate) shape: Vec<u64>,
    pub(crate) required: bool,
}

/// Every tensor of a model of this configuration.
pub(crate) fn expected_tensors(config: &Config) -> Vec<Expected> {
    let (embedding, hidden) = (config.embedding_length as u64, config.feed_forward_length as u64);
    let (query, kv) = (config.query_length() as u64, config.kv_length() as u64);
    let vocab = config.vocab_size as u64;
    let tensor = |name: String, shape: &[u64], required| Expected { name, shape: shape.to_vec(), required };
    let mut all = vec![
        tensor("token_embd.weight".into(), &[embedding, vocab], true),
        tensor("output_norm.weight".into(), &[embedding], true),
        tensor("output.weight".into(), &[embedding, vocab], false),
        tensor("rope_freqs.weight".into(), &[config.rope_dimension_count as u64 / 2], false),
    ];
    for layer in 0..config.layer_count {
        for (part, shape) in [
            ("attn_norm", &[embedding][..]),
            ("attn_q", &[embedding, query]),
            ("attn_k", &[embedding, kv]),
            ("attn_v", &[embedding, kv]),
            ("attn_output", &[query, embedding]),
            ("ffn_norm", &[embedding]),
            ("ffn_gate", &[embedding, hidden]),
            ("ffn_up", &[embedding, hidden]),
            ("ffn_down", &[hidden, embedding]),
        ] {
            all.push(tensor(format!("blk.{layer}.{part}.weight"), shape, true));
        }
    }
    all
}

/// Checks that the file holds exactly the tensors of its configuration, each in a shape and type that can be used.
pub(crate) fn check_tensors(header: &Header, config: &Config) -> Result<()> {
    let expected = expected_tensors(config);
    for Expected { name, shape, required } in &expected {
        let Some(info) = header.tensors().iter().find(|info| info.name == *name) else {
            if *required {
                return Err(LlmError::MissingTensor { tensor: name.clone(), expected: shape.clone() });
            }
            continue;
        };
        if info.shape != *shape {
            return Err(LlmError::TensorShape {
                tensor: name.clone(),
                found: info.shape.clone(),
                expected: shape.clone(),
            });
        }
        block_format(info)?;
    }
    let names: HashSet<&str> = expected.iter().map(|e| e.name.as_str()).collect();
    match header.tensors().iter().find(|info| !names.contains(info.name.as_str())) {
        Some(info) => Err(LlmError::UnexpectedTensor { tensor: info.name.clone() }),
        None => Ok(()),
    }
}

fn matrix(gguf: &Gguf, name: &str) -> Result<Matrix> {
    let info = gguf.header().tensor(name)?;
    let (k, rows) = (info.shape[0] as usize, info.shape[1] as usize);
    Ok(Matrix::pack(name, block_format(info)?, rows, k, gguf.tensor_bytes(name)?)?)
}

fn vector(gguf: &Gguf, name: &str) -> Result<Vec<f32>> {
    let info = gguf.header().tensor(name)?;
    let mut values = vec![0.0; info.element_count() as usize];
    ganglion_kernels::dequantize(block_format(info)?, gguf.tensor_bytes(name)?, &mut values)?;
    Ok(values)
}

impl Model {
    /// Loads a model. The weights are copied into the kernels' layout; the file is not needed afterwards.
    ///
    /// # Errors
    /// Whatever [`Config::from_header`] refuses, a missing, superfluous, misshapen or unsupported tensor (by name, with
    /// what was expected), or a bad thread count.
    pub fn load(gguf: &Gguf, options: ModelOptions) -> Result<Self> {
        let config = Config::from_header(gguf.header())?;
        check_tensors(gguf.header(), &config)?;
        let pool = Pool::new(options.threads)?;
        let layers = (0..config.layer_count)
            .map(|layer| {
                let name = |part: &str| format!("blk.{layer}.{part}.weight");
                Ok(Layer {
                    attention_norm: vector(gguf, &name("attn_norm"))?,
                    query: matrix(gguf, &name("attn_q"))?,
                    key: matrix(gguf, &name("attn_k"))?,
                    value: matrix(gguf, &name("attn_v"))?,
                    attention_output: matrix(gguf, &name("attn_output"))?,
                    feed_forward_norm: vector(gguf, &name("ffn_norm"))?,
                    gate: matrix(gguf, &name("ffn_gate"))?,
                    up: matrix(gguf, &name("ffn_up"))?,
                    down: matrix(gguf, &name("ffn_down"))?,
                })
            })
            .collect::<Result<_>>()?;
        let has = |name: &str| gguf.header().tensor(name).is_ok();
        let head = if has("output.weight") { Some(matrix(gguf, "output.weight")?) } else { None };
        let rope_factors =
            if has("rope_freqs.weight") { vector(gguf, "rope_freqs.weight")? } else { Vec::new() };
        Ok(Self {
            isa: options.isa,
            pool,
            embedding: matrix(gguf, "token_embd.weight")?,
            layers,
            output_norm: vector(gguf, "output_norm.weight")?,
            head,
            rope_factors,
            config,
        })
    }

    /// What loading the file and one session of `context_tokens` will take, from the header alone.
    ///
    /// # Errors
    /// As [`Model::load`], threads aside.
    pub fn memory_plan(header: &Header, context_tokens: usize, threads: usize) -> Result<MemoryPlan> {
        MemoryPlan::new(header, context_tokens, crate::limits::BATCH_DEFAULT, threads)
    }

    /// The hyperparameters.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Threads in use.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    pub(crate) fn head(&self) -> &Matrix {
        self.head.as_ref().unwrap_or(&self.embedding)
    }
}
