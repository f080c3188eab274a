//! Qwen 3 (Yang et al. 2025): every head of queries and keys is normed, and there are no biases.

use super::llama::HEIR;
use super::*;

pub(super) const QWEN3: Architecture = Architecture {
    name: "qwen3",
    design: Design {
        query_key_norm: QueryKeyNorm::Head,
        biases: Biases {
            query_key_value: Presence::Optional,
            attention_output: Presence::Optional,
            ..HEIR.biases
        },
        ..HEIR
    },
    adjust: nothing_more,
};
