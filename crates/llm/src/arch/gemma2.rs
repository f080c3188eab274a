//! Gemma 2 (Gemma Team 2024): norms around both sub-layers, soft-caps on scores and logits, a window in every other layer.

use ganglion_kernels::Activation;

use super::llama::HEIR;
use super::*;

pub(super) const GEMMA2: Architecture = Architecture {
    name: "gemma2",
    design: Design {
        norm_place: NormPlace::Around,
        activation: Activation::GeluTanh,
        head: Head::Embedding,
        scale_embedding: true,
        windows: Windows { size: Some(4096), full_every: 2 },
        ..HEIR
    },
    adjust: |keys, config| {
        config.attention_softcap = keys.positive("attn_logit_softcapping")?.or(Some(50.0));
        config.final_softcap = keys.positive("final_logit_softcapping")?.or(Some(30.0));
        scale_of_27b(keys, config, 46)
    },
};

/// The 27B models, known by their layers alone, scale scores by the width of the stream over the heads, which is not
/// the length of a head.
pub(super) fn scale_of_27b(keys: &Keys<'_>, config: &mut Config, layers: usize) -> Result<()> {
    if config.layer_count == layers && keys.positive("attention.scale")?.is_none() {
        config.attention_scale = 1.0 / ((config.embedding_length / config.head_count) as f32).sqrt();
    }
    Ok(())
}
