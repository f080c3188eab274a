//! Tiny models of every architecture with what transformers computes (tests/golden/make_hf.py).

use std::path::PathBuf;

use ganglion_gguf::{Gguf, GgufWriter, Value};
use ganglion_kernels::BlockFormat;

use super::folder::{case, cases, converted, expected};

/// One folder of golden/hf.
pub struct Golden {
    pub name: String,
    folder: PathBuf,
    pub tokens: Vec<u32>,
    /// (layers, tokens · embedding)
    pub layers: Vec<Vec<f32>>,
    /// (tokens, vocabulary)
    pub logits: Vec<Vec<f32>>,
}

impl Golden {
    fn read(name: String, folder: PathBuf) -> Self {
        let found = expected(&folder);
        let stride = found.tokens.len() * found.embedding_length;
        assert_eq!(found.hidden.len(), found.layer_count * stride);
        Self {
            name,
            folder,
            tokens: found.tokens,
            layers: found.hidden.chunks(stride).map(<[f32]>::to_vec).collect(),
            logits: found.logits.chunks(found.vocab_size).map(<[f32]>::to_vec).collect(),
        }
    }

    /// The folder of this name.
    pub fn named(name: &str) -> Self {
        Self::read(name.to_owned(), case(name))
    }

    /// Every folder, by name.
    pub fn all() -> Vec<Self> {
        cases().into_iter().map(|(name, folder)| Self::read(name, folder)).collect()
    }

    /// The model, converted.
    pub fn gguf(&self, format: BlockFormat) -> Gguf {
        converted(&self.folder, Some(format))
    }
}

/// A copy of a file in which `change` may replace or drop what it holds.
pub fn rewritten(
    gguf: &Gguf,
    metadata: &[(&str, Value)],
    mut change: impl FnMut(&str, Vec<u8>) -> Option<(String, Vec<u8>)>,
) -> Gguf {
    let mut writer = GgufWriter::new();
    for (key, value) in gguf.metadata().filter(|(key, _)| metadata.iter().all(|(new, _)| new != key)) {
        writer.metadata(key, value.clone()).unwrap();
    }
    for (key, value) in metadata {
        writer.metadata(*key, value.clone()).unwrap();
    }
    for tensor in gguf.tensors() {
        let bytes = gguf.tensor_bytes(&tensor.name).unwrap().to_vec();
        if let Some((name, bytes)) = change(&tensor.name, bytes) {
            writer.tensor(name, &tensor.shape, tensor.dtype, bytes).unwrap();
        }
    }
    super::finish(writer)
}

/// The f32 values of a tensor, each replaced by `f(index, value)`.
pub fn mapped(bytes: &[u8], f: impl Fn(usize, f32) -> f32) -> Vec<u8> {
    let values = bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b));
    values.enumerate().flat_map(|(index, value)| f(index, value).to_le_bytes()).collect()
}
