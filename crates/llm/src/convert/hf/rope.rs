//! Rotary embedding: from `rope_theta` and `rope_scaling` (transformers below 5) or `rope_parameters` to GGUF's keys.
//!
//! The scalings are those of transformers' `modeling_rope_utils.py`: linear; llama3 (Llama 3.1's, per frequency); YaRN
//! (Peng et al. 2023); LongRoPE (Ding et al. 2024). `dynamic` changes nothing within the model's own context.

use serde_json::json;

use super::fields::Fields;
use super::plan::Plan;
use crate::error::Result;
use crate::limits;

/// What a model says about its rotary embedding.
pub(super) struct Rope<'a> {
    pub(super) theta: f64,
    /// Of layers with a sliding window, where it differs.
    pub(super) theta_local: Option<f64>,
    /// Share of a head that is rotated.
    pub(super) partial: f64,
    scaling: Option<(&'a str, Fields<'a>)>,
}

impl<'a> Rope<'a> {
    /// Reads either form. `theta` and `partial` are what transformers takes where a file does not say.
    pub(super) fn read(config: Fields<'a>, theta: f64, partial: f64) -> Result<Self> {
        let parameters = config.object("rope_parameters")?;
        let local = parameters.map(|fields| fields.object("sliding_attention")).transpose()?.flatten();
        let full = parameters.map(|fields| fields.object("full_attention")).transpose()?.flatten();
        let main = full.or(parameters);
        if let Some(local) = local {
            local.only("rope_type", &[json!("default")])?;
        }
        let first = |names: [&str; 2]| -> Result<Option<f64>> {
            let inner = main.map(|fields| fields.optional_positive(names[0])).transpose()?.flatten();
            let outer = || config.optional_positive(names[0]);
            match inner {
                Some(found) => Ok(Some(found)),
                None => Ok(outer()?.or(config.optional_positive(names[1])?)),
            }
        };
        let theta_local = match local {
            Some(local) => local.optional_positive("rope_theta")?,
            None => config.optional_positive("rope_local_base_freq")?,
        };
        let partial = first(["partial_rotary_factor", "rotary_pct"])?.unwrap_or(partial);
        if partial > 1.0 {
            return Err(main.unwrap_or(config).refuse("partial_rotary_factor", "at most 1"));
        }
        Ok(Self {
            theta: first(["rope_theta", "rotary_emb_base"])?.unwrap_or(theta),
            theta_local,
            partial,
            scaling: scaling(main.or(config.object("rope_scaling")?))?,
        })
    }

    /// Rotated values of a head of `head_dim`.
    pub(super) fn dimensions(&self, head_dim: usize) -> usize {
        (head_dim as f64 * self.partial) as usize
    }

    /// Writes the keys, and the tensors of factors where a scaling needs them. `context` is the model's.
    pub(super) fn describe(&self, plan: &mut Plan<'_>, dimensions: usize, context: usize) -> Result<()> {
        plan.key_count("rope.dimension_count", dimensions);
        plan.key_number("rope.freq_base", self.theta);
        if let Some(theta) = self.theta_local {
            plan.key_number("rope.freq_base_swa", theta);
        }
        let Some((kind, fields)) = self.scaling else { return Ok(()) };
        match kind {
            "linear" => {
                plan.key("rope.scaling.type", "linear");
                plan.key_number("rope.scaling.factor", fields.positive("factor")?);
            }
            "llama3" => plan.values("rope_freqs.weight", llama3(fields, self.theta, dimensions)?),
            "yarn" => yarn(fields, plan, context)?,
            _ => longrope(fields, plan, dimensions, context)?,
        }
        Ok(())
    }
}

/// The scaling and its fields, if it changes anything.
fn scaling<'a>(fields: Option<Fields<'a>>) -> Result<Option<(&'a str, Fields<'a>)>> {
    let Some(fields) = fields else { return Ok(None) };
    let name = if fields.get("rope_type").is_some() { "rope_type" } else { "type" };
    match fields.optional_text(name)? {
        None | Some("default" | "dynamic") => Ok(None),
        Some("su") => Ok(Some(("longrope", fields))),
        Some(kind @ ("linear" | "llama3" | "yarn" | "longrope")) => Ok(Some((kind, fields))),
        Some(_) => Err(fields.refuse(name, "default, linear, dynamic, llama3, yarn or longrope")),
    }
}

/// By how much each frequency is divided: not at all for short waves, by `factor` for long ones, and between them.
fn llama3(fields: Fields<'_>, theta: f64, dimensions: usize) -> Result<Vec<f32>> {
    let factor = fields.positive("factor")?;
    let (low, high) = (fields.positive("low_freq_factor")?, fields.positive("high_freq_factor")?);
    let original = fields.count("original_max_position_embeddings", limits::CONTEXT_MAX)? as f64;
    if high <= low {
        return Err(fields.refuse("high_freq_factor", format!("more than low_freq_factor, which is {low}")));
    }
    let divisor = |pair: usize| {
        let wavelength = std::f64::consts::TAU * theta.powf(2.0 * pair as f64 / dimensions as f64);
        if wavelength < original / high {
            1.0
        } else if wavelength > original / low {
            factor
        } else {
            let smooth = (original / wavelength - low) / (high - low);
            1.0 / ((1.0 - smooth) / factor + smooth)
        }
    };
    Ok((0..dimensions / 2).map(|pair| divisor(pair) as f32).collect())
}

fn yarn(fields: Fields<'_>, plan: &mut Plan<'_>, context: usize) -> Result<()> {
    let factor = fields.positive("factor")?;
    // GGUF's readers compute the attention factor themselves; another one than theirs cannot be said.
    if let Some(found) = fields.optional_positive("attention_factor")? {
        let usual = 0.1 * factor.max(1.0).ln() + 1.0;
        if (found - usual).abs() > 1e-6 {
            return Err(fields.refuse("attention_factor", format!("{usual} (0.1 ln factor + 1) or none")));
        }
    }
    for name in ["mscale", "mscale_all_dim"] {
        if fields.get(name).is_some() {
            return Err(fields.refuse(name, "none"));
        }
    }
    fields.only("truncate", &[json!(true)])?;
    let original = fields.optional_count("original_max_position_embeddings", limits::CONTEXT_MAX)?;
    plan.key("rope.scaling.type", "yarn");
    plan.key_number("rope.scaling.factor", factor);
    plan.key_count("rope.scaling.original_context_length", original.unwrap_or(context));
    plan.key_number("rope.scaling.yarn_beta_fast", fields.optional_positive("beta_fast")?.unwrap_or(32.0));
    plan.key_number("rope.scaling.yarn_beta_slow", fields.optional_positive("beta_slow")?.unwrap_or(1.0));
    Ok(())
}

/// As phi3 files have it: two tables of factors, chosen by the length of the context, and a factor on attention.
fn longrope(fields: Fields<'_>, plan: &mut Plan<'_>, dimensions: usize, context: usize) -> Result<()> {
    const ORIGINAL: &str = "original_max_position_embeddings";
    let outer = plan.config.optional_count(ORIGINAL, limits::CONTEXT_MAX)?;
    let inner = fields.optional_count(ORIGINAL, limits::CONTEXT_MAX)?;
    let Some(original) = outer.or(inner) else {
        return Err(fields.refuse(ORIGINAL, "the context before the extension"));
    };
    if original == 1 {
        return Err(fields.refuse(ORIGINAL, "more than 1"));
    }
    if plan.architecture != "phi3" {
        return Err(fields.refuse("rope_type", "longrope with Phi3ForCausalLM only"));
    }
    let scale = fields.optional_positive("factor")?.unwrap_or(context as f64 / original as f64);
    let usual = if scale > 1.0 { (1.0 + scale.ln() / (original as f64).ln()).sqrt() } else { 1.0 };
    let attention = fields.optional_positive("attention_factor")?.unwrap_or(usual);
    plan.key_number("rope.scaling.attn_factor", attention);
    for (target, name) in
        [("rope_factors_long.weight", "long_factor"), ("rope_factors_short.weight", "short_factor")]
    {
        plan.values(target, fields.positives(name, dimensions / 2)?);
    }
    Ok(())
}
