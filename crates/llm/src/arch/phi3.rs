//! Phi 3 to 4 (Abdin et al. 2024): query, key and value in one tensor, gate and up in another; factors for short and long
//! contexts (LongRoPE, Ding et al. 2024).

use super::llama::HEIR;
use super::*;

pub(super) const PHI3: Architecture =
    Architecture { name: "phi3", design: Design { gate: Gate::Fused, ..HEIR }, adjust: nothing_more };
