//! Phi 1 to 2 (Gunasekar et al. 2023; Javaheripi et al. 2023): one LayerNorm for both sub-layers, which run in parallel;
//! biases everywhere, a part of each head rotated, no gate.

use ganglion_kernels::Activation;

use super::llama::HEIR;
use super::*;

pub(super) const PHI2: Architecture = Architecture {
    name: "phi2",
    design: Design {
        norm: NormKind::Layer,
        biases: Biases {
            query_key_value: Presence::Required,
            attention_output: Presence::Required,
            feed_forward: Presence::Required,
            head: Presence::Required,
        },
        residual: Residual::ParallelOneNorm,
        gate: Gate::None,
        activation: Activation::GeluTanh,
        head: Head::Own,
        ..HEIR
    },
    adjust: nothing_more,
};
