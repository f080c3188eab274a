//! Gemma 3, text (Gemma Team 2025): Gemma 2 with normed heads instead of soft-caps; five of six layers have a window, and
//! rotate with a base of their own.

use ganglion_kernels::Activation;

use super::gemma2::scale_of_27b;
use super::llama::HEIR;
use super::*;

pub(super) const GEMMA3: Architecture = Architecture {
    name: "gemma3",
    design: Design {
        norm_place: NormPlace::Around,
        query_key_norm: QueryKeyNorm::Head,
        activation: Activation::GeluTanh,
        scale_embedding: true,
        windows: Windows { size: None, full_every: 6 },
        local_rope: LocalRope::Base(10_000.0),
        ..HEIR
    },
    adjust: |keys, config| {
        config.final_softcap = keys.positive("final_logit_softcapping")?;
        scale_of_27b(keys, config, 62)
    },
};
