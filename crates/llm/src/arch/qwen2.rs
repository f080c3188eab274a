//! Qwen 2 and 2.5 (Yang et al. 2024): biases on query, key and value.

use super::llama::HEIR;
use super::*;

pub(super) const QWEN2: Architecture = Architecture {
    name: "qwen2",
    design: Design {
        biases: Biases { query_key_value: Presence::Optional, head: Presence::Optional, ..HEIR.biases },
        ..HEIR
    },
    adjust: nothing_more,
};
