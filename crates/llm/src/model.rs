//! A loaded model: checked, repacked weights and the threads that multiply them.

use ganglion_gguf::{Gguf, Header};
use ganglion_kernels::{Forms, Isa, Matrix, Pool, RopeTable};

use crate::arch::Gate;
use crate::config::Config;
use crate::error::{LlmError, Result};
use crate::format::{block_format, forms};
use crate::packed_file::{Loaded, PackedFolder};
use crate::parts;
use crate::plan::MemoryPlan;
use crate::session::SessionOptions;
use crate::tensors::{FeedForward, RopeFactors, Source, Wanted, Weights, check_tensors};

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

/// A model ready for sessions.
#[derive(Debug)]
pub struct Model {
    config: Config,
    pub(crate) isa: Isa,
    pub(crate) pool: Pool,
    pub(crate) weights: Weights<Matrix, Vec<f32>>,
    /// Of the activations that the matrices read.
    pub(crate) forms: Forms,
}

/// Hands out matrices that are there already, and reads vectors from the file.
pub(crate) struct Loader<'a, M> {
    pub(crate) gguf: &'a Gguf,
    /// In the order of [`parts::list`].
    pub(crate) matrices: std::vec::IntoIter<M>,
}

impl<M> Source for Loader<'_, M> {
    type Matrix = M;
    type Vector = Vec<f32>;

    fn header(&self) -> &Header {
        self.gguf.header()
    }

    fn matrices(&mut self, tensor: &Wanted, rows: &[usize]) -> Result<Option<Vec<M>>> {
        if tensor.find(self.gguf.header())?.is_none() {
            return Ok(None);
        }
        Ok(Some(self.matrices.by_ref().take(rows.len()).collect()))
    }

    fn vectors(&mut self, tensor: &Wanted, lengths: &[usize]) -> Result<Option<Vec<Vec<f32>>>> {
        let Some(info) = tensor.find(self.gguf.header())? else { return Ok(None) };
        let bytes = self.gguf.tensor_bytes(&tensor.name)?;
        let mut values = vec![0.0; info.element_count() as usize];
        ganglion_kernels::dequantize(block_format(info)?, bytes, &mut values)?;
        let mut rest = values.as_slice();
        let take = |length: &usize| {
            let (part, others) = rest.split_at(*length);
            rest = others;
            part.to_vec()
        };
        Ok(Some(lengths.iter().map(take).collect()))
    }
}

impl Model {
    /// Loads a model. The weights are packed into memory; the file is not needed afterwards.
    ///
    /// # Errors
    /// Whatever [`Config::from_header`] refuses, a missing, superfluous, misshapen or unsupported tensor (by name, with
    /// what was expected), or a bad thread count.
    pub fn load(gguf: &Gguf, options: ModelOptions) -> Result<Self> {
        Self::load_with(gguf, options, None).map(|(model, _)| model)
    }

    /// As [`Model::load`], with the packed weights of larger models kept in `folder` and mapped from there: the next load takes
    /// milliseconds, no weight is in memory twice, and a model larger than memory runs, at the speed of the disk. Where the folder
    /// cannot be used, the weights are packed into memory and [`Loaded::Packed`] says why.
    ///
    /// # Errors
    /// As [`Model::load`].
    pub fn load_with(
        gguf: &Gguf,
        options: ModelOptions,
        folder: Option<&PackedFolder>,
    ) -> Result<(Self, Loaded)> {
        let config = Config::from_header(gguf.header())?;
        check_tensors(gguf.header(), &config)?;
        let pool = Pool::new(options.threads)?;
        let parts = parts::list(gguf.header(), &config)?;
        let bytes = parts.last().map_or(0, |part| part.packed.end);
        let (matrices, loaded) = match folder.filter(|folder| folder.keeps(bytes)) {
            None => (parts::pack_into_memory(&pool, gguf, &parts)?, Loaded::Packed(None)),
            Some(folder) => match folder.open(&pool, gguf, &parts) {
                Ok((mapped, loaded)) => (mapped.matrices(&parts)?, loaded),
                Err(error @ LlmError::PackedFile { .. }) => {
                    (parts::pack_into_memory(&pool, gguf, &parts)?, Loaded::Packed(Some(error)))
                }
                Err(error) => return Err(error),
            },
        };
        let weights = Weights::read(&mut Loader { gguf, matrices: matrices.into_iter() }, &config)?;
        let forms = forms(gguf.header());
        Ok((Self { isa: options.isa, pool, weights, forms, config }, loaded))
    }

    /// What loading the file and one session with these options will take, from the header alone.
    ///
    /// # Errors
    /// As [`Model::load`], threads aside.
    pub fn memory_plan(header: &Header, options: &SessionOptions, threads: usize) -> Result<MemoryPlan> {
        MemoryPlan::new(header, options, threads)
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
        self.weights.head.as_ref().unwrap_or(&self.weights.embedding)
    }

    /// A layer's matrix by the name of its tensor without the layer: `attn_q.weight`, `attn_q.first.weight`. `None` for stacked ones.
    pub(crate) fn matrix_mut(&mut self, layer: usize, tensor: &str) -> Option<&mut Matrix> {
        let layer = &mut self.weights.layers[layer];
        let fused = self.config.design.gate == Gate::Fused;
        let dense = match &mut layer.feed_forward {
            FeedForward::Dense(dense) => Some(dense),
            FeedForward::Experts(_) => None,
        };
        let (name, part) = tensor.split_once('.')?;
        let linear = match name {
            "attn_q" => &mut layer.attention.query,
            "attn_k" => &mut layer.attention.key,
            "attn_v" => &mut layer.attention.value,
            "attn_output" => &mut layer.attention.output,
            "ffn_gate" => dense?.gate.as_mut()?,
            "ffn_up" if !fused => &mut dense?.up,
            "ffn_down" => &mut dense?.down,
            _ => return None,
        };
        match (part, &mut linear.first) {
            ("weight", None) | ("second.weight", Some(_)) => Some(&mut linear.matrix),
            ("first.weight", first) => first.as_mut(),
            _ => None,
        }
    }

    pub(crate) fn rope_tables(&self, context_tokens: usize) -> Vec<RopeTable> {
        rope_tables(&self.config, &self.weights.rope_factors, context_tokens)
    }
}

/// A table for each rotation of a model. Which factors apply is decided by the context, not by the tokens in it.
pub(crate) fn rope_tables(
    config: &Config,
    factors: &RopeFactors<Vec<f32>>,
    context_tokens: usize,
) -> Vec<RopeTable> {
    let ropes = &config.ropes;
    let by_length =
        if context_tokens > ropes.original_context_length { &factors.long } else { &factors.short };
    let first = factors.always.as_ref().or(by_length.as_ref()).map_or(&[][..], Vec::as_slice);
    let table =
        |(index, rotation)| RopeTable::new(rotation, context_tokens, if index == 0 { first } else { &[] });
    ropes.rotations().iter().enumerate().map(table).collect()
}
