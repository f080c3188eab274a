//! The rotations of a model, from its `rope.*` keys.

use ganglion_kernels::{RopeOrder, RopeScaling, Rotation, ln_f64};

use super::keys::{Keys, refuse};
use crate::arch::LocalRope;
use crate::error::Result;
use crate::limits;

/// The rotations of a model: none, one, or one for layers that see everything and one for those with a window.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ropes {
    rotations: Vec<Rotation>,
    /// `rope.scaling.original_context_length`: where LongRoPE's long factors take over.
    pub(crate) original_context_length: usize,
}

impl Ropes {
    pub(super) fn none() -> Self {
        Self { rotations: Vec::new(), original_context_length: 0 }
    }

    pub(super) fn read(keys: &Keys<'_>, order: RopeOrder, head_dim: usize, local: LocalRope) -> Result<Self> {
        let dimensions = keys.count_or("rope.dimension_count", head_dim, head_dim)?;
        if !dimensions.is_multiple_of(2) {
            return Err(refuse(&keys.name("rope.dimension_count"), dimensions, "an even number"));
        }
        let base = keys.positive("rope.freq_base")?.unwrap_or(10_000.0);
        let context_length = keys.count("context_length", limits::CONTEXT_MAX)?;
        let original = "rope.scaling.original_context_length";
        let original_context_length = keys.count_or(original, limits::CONTEXT_MAX, context_length)?;
        let plain = Rotation::plain(order, dimensions, base);
        let (scaling, magnitude) = scaling(keys, original_context_length)?;
        let mut rotations = vec![Rotation { scaling, magnitude, ..plain }];
        match local {
            LocalRope::Same => {}
            LocalRope::Unscaled => rotations.push(plain),
            LocalRope::Base(default) => {
                let base = keys.positive("rope.freq_base_swa")?.unwrap_or(default);
                rotations.push(Rotation { base, ..plain });
            }
        }
        Ok(Self { rotations, original_context_length })
    }

    /// Which rotation a layer takes, `local` if it has a window.
    pub(super) fn index(&self, local: bool) -> Option<usize> {
        self.rotations.len().checked_sub(1).map(|last| if local { last } else { 0 })
    }

    pub(crate) fn rotations(&self) -> &[Rotation] {
        &self.rotations
    }

    /// Rotated values of one head; 0 without rotations.
    pub(crate) fn dimensions(&self) -> usize {
        self.rotations.first().map_or(0, |rotation| rotation.dimensions)
    }
}

/// The scaling and the factor on cosines and sines.
fn scaling(keys: &Keys<'_>, original_positions: usize) -> Result<(RopeScaling, f32)> {
    let attention_factor = keys.positive("rope.scaling.attn_factor")?.unwrap_or(1.0);
    let kind = keys.text("rope.scaling.type")?;
    let factor = match keys.number("rope.scaling.factor")? {
        None => keys.number("rope.scale_linear")?,
        factor => factor,
    };
    // Writers store a 0 for "no scaling".
    let factor = factor.filter(|factor| *factor != 0.0);
    let positive = |factor: f32| {
        if factor.is_finite() && factor > 0.0 {
            return Ok(factor);
        }
        Err(refuse(&keys.name("rope.scaling.factor"), factor, "a positive number"))
    };
    let ntk = keys.positive("rope.scaling.alpha")?.filter(|alpha| *alpha != 1.0);
    let scaling = match (kind, factor, ntk) {
        (None | Some("none"), None, Some(alpha)) => RopeScaling::Ntk { alpha },
        (_, _, Some(alpha)) => {
            return Err(refuse(&keys.name("rope.scaling.alpha"), alpha, "no other scaling beside it"));
        }
        (None | Some("linear"), Some(factor), None) => RopeScaling::Linear { factor: positive(factor)? },
        (None | Some("none" | "linear" | "longrope"), _, None) => RopeScaling::None,
        (Some("yarn"), Some(factor), None) => {
            return yarn(keys, positive(factor)?, original_positions, attention_factor);
        }
        (Some("yarn"), None, None) => {
            return Err(refuse(&keys.name("rope.scaling.factor"), "missing", "a positive number"));
        }
        (Some(other), _, None) => {
            return Err(refuse(&keys.name("rope.scaling.type"), other, "none, linear, yarn or longrope"));
        }
    };
    Ok((scaling, attention_factor))
}

/// YaRN's scaling, with its factor on cosines and sines: `1 + 0.1 ln(factor)` unless the file says otherwise.
fn yarn(
    keys: &Keys<'_>,
    factor: f32,
    original_positions: usize,
    attention_factor: f32,
) -> Result<(RopeScaling, f32)> {
    if let Some(mix) = keys.number("rope.scaling.yarn_ext_factor")?.filter(|mix| *mix != 1.0) {
        return Err(refuse(&keys.name("rope.scaling.yarn_ext_factor"), mix, "1"));
    }
    let scaling = RopeScaling::Yarn {
        factor,
        original_positions,
        beta_fast: keys.positive("rope.scaling.yarn_beta_fast")?.unwrap_or(32.0),
        beta_slow: keys.positive("rope.scaling.yarn_beta_slow")?.unwrap_or(1.0),
    };
    let grown = |multiple: f32| {
        let stretched = f64::from(factor.max(1.0));
        (1.0 + 0.1 * f64::from(multiple) * ln_f64(stretched)) as f32
    };
    let magnitude = match keys.positive("rope.scaling.yarn_attn_factor")? {
        Some(whole) => whole,
        None => match keys.number("rope.scaling.yarn_log_multiplier")? {
            Some(multiple) => grown(1.0) / grown(multiple),
            None => grown(1.0),
        },
    };
    Ok((scaling, magnitude * attention_factor))
}
