//! OLMoE (Muennighoff et al. 2024): norms before the sub-layers, queries and keys normed whole, routed experts.

use super::llama::HEIR;
use super::*;

pub(super) const OLMOE: Architecture = Architecture {
    name: "olmoe",
    design: Design { query_key_norm: QueryKeyNorm::Whole, mixture: Mixture::Routed, head: Head::Own, ..HEIR },
    adjust: nothing_more,
};
