//! A model taken apart, for programs that write it in another form.

use ganglion_gguf::Gguf;
use ganglion_kernels::RopeTable;

use crate::config::Config;
use crate::error::Result;
use crate::model::{Loader, rope_tables};
use crate::parts::{self, MatrixPart};
use crate::tensors::{Weights, check_tensors};

/// What a model consists of: how its parts are joined, and where their weights are. Nothing is packed or evaluated.
#[derive(Debug)]
pub struct Anatomy {
    /// The hyperparameters.
    pub config: Config,
    /// Matrices as places in the file, vectors as values.
    pub weights: Weights<MatrixPart, Vec<f32>>,
}

impl Anatomy {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// As [`crate::Model::load`].
    pub fn read(gguf: &Gguf) -> Result<Self> {
        let config = Config::from_header(gguf.header())?;
        check_tensors(gguf.header(), &config)?;
        let matrices = parts::list(gguf.header(), &config)?.into_iter();
        let weights = Weights::read(&mut Loader { gguf, matrices }, &config)?;
        Ok(Self { config, weights })
    }

    /// A table for each rotation, by [`crate::LayerSpec::rope`], with a row for each of `context_tokens` positions.
    pub fn rope_tables(&self, context_tokens: usize) -> Vec<RopeTable> {
        rope_tables(&self.config, &self.weights.rope_factors, context_tokens)
    }
}
