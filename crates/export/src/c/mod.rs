//! Decoders as one C99 file for microcontrollers: weights as constants, int8 products, every byte of memory static.
//!
//! `runtime.c` is the program; this module writes the constants in front of it. Its arithmetic is the engine's, operation by operation
//! (`ganglion_kernels` states the order), so that logits are the same bits: int8 dots of blocks of 32 are exact in 32 bits and joined by
//! `acc = fma(dot, d · da, acc)`; norms, softmax and activations are f32 in the engine's order, with its `exp`.
//!
//! Matrices are Q8_0 or Q4_0. Others become Q8_0, by rounding; rows that are no whole blocks are f32.

mod source;

use std::path::{Path, PathBuf};

use ganglion_gguf::Gguf;
use ganglion_kernels::{BlockFormat, KvType};
use ganglion_llm::{Anatomy, Config, FeedForward, Mixture, NormKind, Positions, Residual};

use crate::Progress;
use crate::error::{ExportError, Result};
use crate::limits::{C_CONTEXT_DEFAULT, C_WEIGHTS_MAX};

pub(crate) const FORM: &str = "a C file";

/// How to write a C file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct COptions {
    /// Type of the matrices: Q8_0, Q4_0 or F32. Without one, these types stay, and all others become Q8_0.
    pub format: Option<BlockFormat>,
    /// Tokens that the program has room for.
    pub context_tokens: Option<usize>,
    /// Storage of keys and values: int8 or f32.
    pub kv: KvType,
}

impl Default for COptions {
    fn default() -> Self {
        Self { format: None, context_tokens: None, kv: KvType::Int8 }
    }
}

/// What the program takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CReport {
    /// Constants: weights, norms, rotary tables.
    pub flash_bytes: u64,
    /// Static memory: keys, values, activations.
    pub ram_bytes: u64,
    /// Tokens that there is room for.
    pub context_tokens: usize,
    /// The two files.
    pub files: [PathBuf; 2],
}

/// Writes `path` and, with the ending `.h`, its header.
///
/// # Errors
/// [`ExportError::Unsupported`] names what the form has not got, [`ExportError::WeightType`] and [`ExportError::Context`] an option that
/// does not fit; and whatever the file lacks or the disk refuses.
pub fn write_c(
    gguf: &Gguf,
    path: &Path,
    options: COptions,
    progress: &mut dyn FnMut(Progress),
) -> Result<CReport> {
    let anatomy = Anatomy::read(gguf)?;
    check(&anatomy)?;
    if let Some(format) = options.format
        && !matches!(format, BlockFormat::Q8_0 | BlockFormat::Q4_0 | BlockFormat::F32)
    {
        let expected = "Q8_0, Q4_0 or F32";
        return Err(ExportError::WeightType { form: FORM, found: format.name(), expected });
    }
    if options.kv == KvType::F16 {
        let expected = "int8 or f32 (keys and values)";
        return Err(ExportError::WeightType { form: FORM, found: "f16", expected });
    }
    let max = anatomy.config.positions_max();
    let context =
        options.context_tokens.unwrap_or_else(|| C_CONTEXT_DEFAULT.min(anatomy.config.context_length));
    if context == 0 || context > max {
        return Err(ExportError::Context { found: context, max });
    }
    source::Source { gguf, anatomy: &anatomy, options, context, sha256: gguf.sha256() }.write(path, progress)
}

fn check(anatomy: &Anatomy) -> Result<()> {
    let Config { architecture, design, .. } = anatomy.config;
    let refuse = |what, found: String, expected: &str| {
        let expected = expected.to_owned();
        Err(ExportError::Unsupported { form: FORM, architecture, what, found, expected })
    };
    if design.mixture != Mixture::None {
        return refuse(
            "the feed-forward part",
            format!("a mixture of {} experts", anatomy.config.experts.count),
            "a dense one; ONNX holds mixtures",
        );
    }
    if design.norm != NormKind::Rms {
        return refuse("the norm", "LayerNorm".to_owned(), "RMSNorm");
    }
    if !matches!(design.positions, Positions::Rotary(_)) {
        return refuse("the position", "a learned vector".to_owned(), "a rotation");
    }
    if design.residual != Residual::Sequential {
        return refuse("the order of sub-layers", "parallel".to_owned(), "one after the other");
    }
    let gated = |layer: &ganglion_llm::Layer<_, _>| match &layer.feed_forward {
        FeedForward::Dense(dense) => dense.gate.is_some(),
        FeedForward::Experts(_) => false,
    };
    if !anatomy.weights.layers.iter().all(gated) {
        return refuse("the feed-forward part", "not gated".to_owned(), "a gated one");
    }
    let weights = source::matrices(anatomy).map(|part| (part.rows * part.k) as u64).sum::<u64>();
    if weights > C_WEIGHTS_MAX {
        return refuse("the number of weights", weights.to_string(), &format!("at most {C_WEIGHTS_MAX}"));
    }
    Ok(())
}
