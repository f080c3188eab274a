//! Llama 1 to 3 (Touvron et al. 2023) and what was trained in its form: TinyLlama, SmolLM, Mistral 7B (with a sliding
//! window in every layer if the file says so). The base that the others are described by.

use ganglion_kernels::{Activation, RopeOrder};

use super::*;

pub(super) const LLAMA: Architecture = Architecture {
    name: "llama",
    design: Design {
        norm: NormKind::Rms,
        norm_place: NormPlace::Before,
        positions: Positions::Rotary(RopeOrder::Interleaved),
        query_key_norm: QueryKeyNorm::None,
        biases: Biases {
            query_key_value: Presence::Optional,
            attention_output: Presence::Optional,
            feed_forward: Presence::Optional,
            head: Presence::Never,
        },
        residual: Residual::Sequential,
        gate: Gate::Separate,
        activation: Activation::Silu,
        mixture: Mixture::None,
        head: Head::OwnOrEmbedding,
        scale_embedding: false,
        windows: Windows { size: None, full_every: 0 },
        local_rope: LocalRope::Same,
    },
    adjust: nothing_more,
};

/// The llama layer without biases, pairs half a head apart: where most of its heirs begin.
pub(super) const HEIR: Design = Design {
    positions: Positions::Rotary(RopeOrder::Halves),
    biases: Biases {
        query_key_value: Presence::Never,
        attention_output: Presence::Never,
        feed_forward: Presence::Never,
        head: Presence::Never,
    },
    ..LLAMA.design
};
