//! The architectures: what each of them is beside the others, as data.
//!
//! A GGUF file names its architecture; [`find`] gives the [`Architecture`], whose [`Design`] says which parts a layer has
//! and how they are joined. [`crate::Config`] reads the sizes, `tensors.rs` derives every tensor's name and shape from the
//! two, and `blocks/` executes them. A new architecture is a file here and a line in [`ARCHITECTURES`].

mod gemma2;
mod gemma3;
mod gpt2;
mod gptneox;
mod llama;
mod olmo2;
mod olmoe;
mod phi2;
mod phi3;
mod qwen2;
mod qwen2moe;
mod qwen3;

use ganglion_kernels::{Activation, RopeOrder};

use crate::config::{Config, Keys};
use crate::error::{LlmError, Result};

/// Everything that runs.
const ARCHITECTURES: [&Architecture; 12] = [
    &gemma2::GEMMA2,
    &gemma3::GEMMA3,
    &gpt2::GPT2,
    &gptneox::GPTNEOX,
    &llama::LLAMA,
    &olmo2::OLMO2,
    &olmoe::OLMOE,
    &phi2::PHI2,
    &phi3::PHI3,
    &qwen2::QWEN2,
    &qwen2moe::QWEN2MOE,
    &qwen3::QWEN3,
];

/// One architecture.
pub(crate) struct Architecture {
    /// `general.architecture`, and the prefix of its keys.
    pub(crate) name: &'static str,
    pub(crate) design: Design,
    /// What its own keys change, after the shared ones were read.
    pub(crate) adjust: fn(&Keys<'_>, &mut Config) -> Result<()>,
}

/// The architecture of this name.
pub(crate) fn find(name: &str) -> Result<&'static Architecture> {
    ARCHITECTURES.into_iter().find(|a| a.name == name).ok_or_else(|| LlmError::Architecture {
        found: name.to_owned(),
        known: ARCHITECTURES.map(|a| a.name).join(", "),
    })
}

/// [`Architecture::adjust`] of those without keys of their own.
fn nothing_more(_: &Keys<'_>, _: &mut Config) -> Result<()> {
    Ok(())
}

/// Normalisation of the residual stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormKind {
    /// RMSNorm: a weight.
    Rms,
    /// LayerNorm: a weight and a bias.
    Layer,
}

/// Where a sub-layer is normed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormPlace {
    /// What it reads.
    Before,
    /// What it adds to the stream.
    After,
    /// Both.
    Around,
}

/// How a token's position enters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Positions {
    /// Queries and keys are rotated.
    Rotary(RopeOrder),
    /// A learned vector is added to the embedding.
    Learned,
}

/// RMSNorm of queries and keys before they are rotated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueryKeyNorm {
    /// None.
    None,
    /// Every head by itself, with one weight for all.
    Head,
    /// All heads of a token together.
    Whole,
}

/// Whether the file holds a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It does not.
    Never,
    /// It may.
    Optional,
    /// It must.
    Required,
}

/// Which products have a bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Biases {
    /// Of queries, keys and values.
    pub query_key_value: Presence,
    /// Of what attention adds.
    pub attention_output: Presence,
    /// Of the feed-forward part.
    pub feed_forward: Presence,
    /// Of logits.
    pub head: Presence,
}

/// How the two sub-layers are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Residual {
    /// `x += attention(norm x)`, then `x += feed_forward(norm x)`.
    Sequential,
    /// `x += attention(norm x) + feed_forward(another norm x)`.
    Parallel,
    /// `x += attention(norm x) + feed_forward(the same norm x)`.
    ParallelOneNorm,
}

/// The feed-forward part's first products.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// `f(up x)`.
    None,
    /// `f(gate x) · up x`, two tensors.
    Separate,
    /// The same, with the rows of gate before those of up in the tensor `ffn_up`.
    Fused,
}

/// Sparse mixtures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mixture {
    /// One dense feed-forward part.
    None,
    /// A router chooses among experts.
    Routed,
    /// And one expert sees every token, weighed by a gate of its own.
    RoutedAndShared,
}

/// Where logits come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Head {
    /// `output.weight`.
    Own,
    /// `output.weight`, or the embedding if the file has none.
    OwnOrEmbedding,
    /// The embedding.
    Embedding,
}

/// Sliding windows if the file's keys say no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Windows {
    /// Positions of a window if `attention.sliding_window` is absent; `None`: no windows then.
    pub size: Option<usize>,
    /// Every how many layers one sees all positions, the last of each group; 0: none does.
    pub full_every: usize,
}

/// Rotation in layers with a window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum LocalRope {
    /// That of the others.
    Same,
    /// The same base, no scaling.
    Unscaled,
    /// A base of its own (`rope.freq_base_swa`, else this one), no scaling.
    Base(f32),
}

/// What an architecture is made of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Design {
    /// Which norm.
    pub norm: NormKind,
    /// Where it stands.
    pub norm_place: NormPlace,
    /// How positions enter.
    pub positions: Positions,
    /// Norms of queries and keys.
    pub query_key_norm: QueryKeyNorm,
    /// Which products have one.
    pub biases: Biases,
    /// How sub-layers are joined.
    pub residual: Residual,
    /// The feed-forward part's first products.
    pub gate: Gate,
    /// Its function.
    pub activation: Activation,
    /// Experts.
    pub mixture: Mixture,
    /// Where logits come from.
    pub head: Head,
    /// Embeddings are multiplied by the root of their length.
    pub scale_embedding: bool,
    /// Sliding windows.
    pub windows: Windows,
    /// Rotation in layers with one.
    pub local_rope: LocalRope,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn designs_hold_no_combination_without_code() {
        for Architecture { name, design, .. } in ARCHITECTURES {
            // A norm of what attention adds would overwrite what the feed-forward part is to read.
            let parallel = design.residual != Residual::Sequential;
            assert!(!parallel || design.norm_place == NormPlace::Before, "{name}");
            let dense = design.mixture == Mixture::None;
            assert!(dense || design.gate == Gate::Separate, "{name}");
            assert!(dense || design.biases.feed_forward == Presence::Never, "{name}");
        }
        assert!(ARCHITECTURES.is_sorted_by_key(|a| a.name), "names are listed in order");
        assert!(find("mamba").err().unwrap().to_string().contains("gemma2, gemma3, gpt2"));
    }
}
