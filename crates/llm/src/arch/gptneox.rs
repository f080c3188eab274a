//! GPT-NeoX (Black et al. 2022) and Pythia: two LayerNorms, sub-layers in parallel unless the file says otherwise, a part
//! of each head rotated, the exact GELU.

use ganglion_kernels::Activation;

use super::llama::HEIR;
use super::*;
use crate::config::refuse;

pub(super) const GPTNEOX: Architecture = Architecture {
    name: "gptneox",
    design: Design {
        norm: NormKind::Layer,
        biases: Biases {
            query_key_value: Presence::Required,
            attention_output: Presence::Required,
            feed_forward: Presence::Required,
            head: Presence::Never,
        },
        residual: Residual::Parallel,
        gate: Gate::None,
        activation: Activation::GeluErf,
        head: Head::Own,
        ..HEIR
    },
    adjust: |keys, config| {
        if !keys.flag("use_parallel_residual")?.unwrap_or(true) {
            config.design.residual = Residual::Sequential;
        }
        // GPT-NeoX-20B was trained with the tanh form, and its converted files cannot say so without this key.
        config.design.activation = match keys.text("hidden_activation")? {
            None | Some("gelu") => Activation::GeluErf,
            Some("gelu_fast" | "gelu_new" | "gelu_pytorch_tanh") => Activation::GeluTanh,
            Some(other) => {
                let expected = "gelu, gelu_fast, gelu_new or gelu_pytorch_tanh";
                return Err(refuse(&keys.name("hidden_activation"), other, expected));
            }
        };
        Ok(())
    },
};
