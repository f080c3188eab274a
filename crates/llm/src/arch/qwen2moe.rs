//! Qwen 1.5 and 2 MoE (Yang et al. 2024): Qwen 2 with routed experts and a shared one.

use super::qwen2::QWEN2;
use super::*;

pub(super) const QWEN2MOE: Architecture = Architecture {
    name: "qwen2moe",
    design: Design {
        biases: Biases { head: Presence::Never, ..QWEN2.design.biases },
        mixture: Mixture::RoutedAndShared,
        head: Head::Own,
        ..QWEN2.design
    },
    adjust: |keys, config| {
        let routed = config.feed_forward_length / config.experts.used;
        config.experts.feed_forward_length = keys.feed_forward_or("expert_feed_forward_length", routed)?;
        let shared = config.feed_forward_length;
        config.experts.shared_length = keys.feed_forward_or("expert_shared_feed_forward_length", shared)?;
        Ok(())
    },
};
