//! OLMo 2 and 3 (OLMo Team 2024): norms after the sub-layers instead of before, queries and keys normed whole. OLMo 3 adds
//! windows, in three of four layers, that are rotated without scaling.

use super::llama::HEIR;
use super::*;

pub(super) const OLMO2: Architecture = Architecture {
    name: "olmo2",
    design: Design {
        norm_place: NormPlace::After,
        query_key_norm: QueryKeyNorm::Whole,
        head: Head::Own,
        windows: Windows { size: None, full_every: 4 },
        local_rope: LocalRope::Unscaled,
        ..HEIR
    },
    adjust: nothing_more,
};
