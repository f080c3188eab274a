//! GPT-2 (Radford et al. 2019): learned positions, LayerNorm, biases, no gate.

use ganglion_kernels::Activation;

use super::llama::HEIR;
use super::*;

pub(super) const GPT2: Architecture = Architecture {
    name: "gpt2",
    design: Design {
        norm: NormKind::Layer,
        positions: Positions::Learned,
        biases: Biases {
            query_key_value: Presence::Required,
            attention_output: Presence::Required,
            feed_forward: Presence::Required,
            head: Presence::Never,
        },
        gate: Gate::None,
        activation: Activation::GeluTanh,
        ..HEIR
    },
    adjust: nothing_more,
};
