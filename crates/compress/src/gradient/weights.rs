//! A model's weights as f32, one tensor at a time.

use std::collections::HashMap;

use ganglion_gguf::{Gguf, OptionalExt};
use ganglion_kernels::dequantize_matrix;
use ganglion_llm::block_format;

use crate::error::Result;

/// Tensors of a file, some of them with other values.
pub(super) struct Values<'a> {
    pub(super) source: &'a Gguf,
    pub(super) replaced: HashMap<String, Vec<f32>>,
}

impl Values<'_> {
    pub(super) fn has(&self, name: &str) -> bool {
        self.source.tensor(name).is_ok()
    }

    pub(super) fn matrix(&self, name: &str) -> Result<Vec<f32>> {
        if let Some(values) = self.replaced.get(name) {
            return Ok(values.clone());
        }
        let info = self.source.tensor(name)?;
        let mut values = vec![0.0; info.element_count() as usize];
        dequantize_matrix(
            block_format(info)?,
            info.shape[0] as usize,
            self.source.tensor_bytes(name)?,
            &mut values,
        )?;
        Ok(values)
    }

    /// `None` if there is no such tensor.
    pub(super) fn vector(&self, name: &str) -> Result<Option<Vec<f32>>> {
        match self.source.tensor(name).optional()? {
            Some(_) => self.matrix(name).map(Some),
            None => Ok(None),
        }
    }

    /// What belongs to a matrix of this name.
    pub(super) fn bias(&self, matrix: &str) -> Result<Option<Vec<f32>>> {
        self.vector(&matrix.replace(".weight", ".bias"))
    }
}
