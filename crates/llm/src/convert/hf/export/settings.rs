//! What a GGUF file says about its model, as a config.json.

use ganglion_gguf::Gguf;
use ganglion_kernels::{BlockFormat, RopeScaling, Rotation, dequantize};
use serde_json::{Map, Value, json};

use super::refuse;
use crate::config::Config;
use crate::error::Result;

/// `general.architecture`, the class, and `model_type` of transformers.
const CLASSES: [(&str, &str, &str); 12] = [
    ("gemma2", "Gemma2ForCausalLM", "gemma2"),
    ("gemma3", "Gemma3ForCausalLM", "gemma3_text"),
    ("gpt2", "GPT2LMHeadModel", "gpt2"),
    ("gptneox", "GPTNeoXForCausalLM", "gpt_neox"),
    ("llama", "LlamaForCausalLM", "llama"),
    ("olmo2", "Olmo2ForCausalLM", "olmo2"),
    ("olmoe", "OlmoeForCausalLM", "olmoe"),
    ("phi2", "PhiForCausalLM", "phi"),
    ("phi3", "Phi3ForCausalLM", "phi3"),
    ("qwen2", "Qwen2ForCausalLM", "qwen2"),
    ("qwen2moe", "Qwen2MoeForCausalLM", "qwen2_moe"),
    ("qwen3", "Qwen3ForCausalLM", "qwen3"),
];
/// The llama class that knows sliding windows.
const WINDOWED: (&str, &str) = ("MistralForCausalLM", "mistral");
/// Llama 3.1's bounds of frequencies, and the contexts that they are commonly relative to.
const LOW_HIGH: (f64, f64) = (1.0, 4.0);

/// A number as short as it can be: the f32 that comes of it is the same.
fn number(value: f32) -> Value {
    value.to_string().parse::<f64>().map_or(Value::Null, Value::from)
}

/// Builds the object field by field.
struct Fields<'a> {
    gguf: &'a Gguf,
    config: &'a Config,
    map: Map<String, Value>,
}

impl Fields<'_> {
    fn set(&mut self, fields: impl IntoIterator<Item = (&'static str, Value)>) {
        self.map.extend(fields.into_iter().map(|(name, value)| (name.to_owned(), value)));
    }

    fn has(&self, tensor: &str) -> bool {
        self.gguf.tensors().iter().any(|info| info.name == tensor)
    }

    /// The values of a small tensor, if it is there.
    fn values(&self, tensor: &str) -> Result<Option<Vec<f32>>> {
        let Some(info) = self.gguf.tensors().iter().find(|info| info.name == tensor) else { return Ok(None) };
        let mut values = vec![0.0; info.element_count() as usize];
        let format = BlockFormat::from_name(info.dtype.name()).unwrap_or(BlockFormat::F32);
        dequantize(format, self.gguf.tensor_bytes(tensor)?, &mut values)?;
        Ok(Some(values))
    }
}

/// The class of a model, and its config.json but for the type of the weights.
pub(super) fn settings(gguf: &Gguf, config: &Config) -> Result<(&'static str, Map<String, Value>)> {
    let found = CLASSES.iter().find(|(architecture, ..)| *architecture == config.architecture);
    let Some((architecture, mut class, mut model_type)) = found.copied() else {
        return Err(refuse(format!("no class is known for the architecture {}", config.architecture)));
    };
    let window = config.layers.iter().find_map(|spec| spec.window);
    if architecture == "llama" && window.is_some() {
        (class, model_type) = WINDOWED;
    }
    let mut fields = Fields { gguf, config, map: Map::new() };
    fields.set([
        ("architectures", json!([class])),
        ("model_type", model_type.into()),
        ("vocab_size", config.vocab_size.into()),
        ("use_cache", true.into()),
    ]);
    for (role, key) in [("bos", "bos"), ("eos", "eos"), ("pad", "padding")] {
        // Left out, it would be the class's own default, which may lie outside the vocabulary.
        let id = gguf.get_u32(&format!("tokenizer.ggml.{key}_token_id")).map_or(Value::Null, Value::from);
        fields.map.insert(format!("{role}_token_id"), id);
    }
    let tied = !fields.has("output.weight");
    fields.set([("tie_word_embeddings", tied.into())]);
    if architecture == "gpt2" {
        gpt2(&mut fields);
        return Ok((class, fields.map));
    }
    common(&mut fields);
    rope(&mut fields)?;
    own(&mut fields, architecture, window)?;
    Ok((class, fields.map))
}

fn gpt2(fields: &mut Fields<'_>) {
    let config = fields.config;
    fields.set([
        ("n_embd", config.embedding_length.into()),
        ("n_head", config.head_count.into()),
        ("n_layer", config.layer_count.into()),
        ("n_positions", config.context_length.into()),
        ("n_ctx", config.context_length.into()),
        ("n_inner", config.feed_forward_length.into()),
        ("activation_function", "gelu_new".into()),
        ("layer_norm_epsilon", number(config.norm_epsilon)),
    ]);
}

/// What nearly all have.
fn common(fields: &mut Fields<'_>) {
    let config = fields.config;
    fields.set([
        ("hidden_size", config.embedding_length.into()),
        ("intermediate_size", config.feed_forward_length.into()),
        ("num_hidden_layers", config.layer_count.into()),
        ("num_attention_heads", config.head_count.into()),
        ("max_position_embeddings", config.context_length.into()),
    ]);
    if config.architecture != "gptneox" {
        fields.set([("num_key_value_heads", config.head_count_kv.into())]);
    }
    // Some classes have no such field, and their heads are whole parts of the stream.
    if config.embedding_length != config.head_count * config.head_dim || has_head_dim(config.architecture) {
        fields.set([("head_dim", config.head_dim.into())]);
    }
}

fn has_head_dim(architecture: &str) -> bool {
    matches!(architecture, "llama" | "qwen3" | "gemma2" | "gemma3")
}

/// What the architectures have of their own.
fn own(fields: &mut Fields<'_>, architecture: &str, window: Option<usize>) -> Result<()> {
    let config = fields.config;
    let epsilon = number(config.norm_epsilon);
    let is_layer_norm = matches!(architecture, "phi2" | "gptneox");
    fields.set([(if is_layer_norm { "layer_norm_eps" } else { "rms_norm_eps" }, epsilon)]);
    let share = f64::from(config.ropes.dimensions() as u32) / config.head_dim as f64;
    match architecture {
        "llama" => {
            let bias = fields.has("blk.0.attn_q.bias") || fields.has("blk.0.attn_qkv.bias");
            let mlp_bias = fields.has("blk.0.ffn_down.bias");
            fields.set([
                ("hidden_act", "silu".into()),
                ("attention_bias", bias.into()),
                ("mlp_bias", mlp_bias.into()),
            ]);
            if let Some(window) = window {
                fields.set([("sliding_window", window.into())]);
            }
        }
        "qwen2" | "qwen3" => {
            fields.set([("hidden_act", "silu".into()), ("use_sliding_window", false.into())]);
            if architecture == "qwen3" {
                fields.set([("attention_bias", false.into())]);
            }
        }
        "qwen2moe" | "olmoe" => experts(fields, architecture),
        "olmo2" => fields.set([("hidden_act", "silu".into()), ("attention_bias", false.into())]),
        "phi2" => fields.set([
            ("hidden_act", "gelu_new".into()),
            ("partial_rotary_factor", share.into()),
            ("qk_layernorm", false.into()),
        ]),
        "gptneox" => {
            let parallel = config.design.residual != crate::arch::Residual::Sequential;
            let exact = config.design.activation == ganglion_kernels::Activation::GeluErf;
            fields.set([
                ("hidden_act", if exact { "gelu" } else { "gelu_new" }.into()),
                ("rotary_pct", share.into()),
                ("attention_bias", true.into()),
                ("use_parallel_residual", parallel.into()),
            ]);
        }
        "phi3" => fields.set([
            ("hidden_act", "silu".into()),
            ("partial_rotary_factor", share.into()),
            ("sliding_window", window.map_or(Value::Null, Value::from)),
            ("original_max_position_embeddings", config.ropes.original_context_length.into()),
        ]),
        _ => gemma(fields, window),
    }
    Ok(())
}

fn experts(fields: &mut Fields<'_>, architecture: &str) {
    let config = fields.config;
    let experts = config.experts;
    fields.set([
        ("hidden_act", "silu".into()),
        ("num_experts", experts.count.into()),
        ("num_experts_per_tok", experts.used.into()),
        ("norm_topk_prob", experts.normalise_shares.into()),
    ]);
    if architecture == "olmoe" {
        return fields.set([("attention_bias", false.into()), ("clip_qkv", Value::Null)]);
    }
    fields.set([
        ("moe_intermediate_size", experts.feed_forward_length.into()),
        ("shared_expert_intermediate_size", experts.shared_length.into()),
        ("decoder_sparse_step", 1.into()),
        ("mlp_only_layers", json!([])),
        ("use_sliding_window", false.into()),
    ]);
}

fn gemma(fields: &mut Fields<'_>, window: Option<usize>) {
    let config = fields.config;
    let scalar = f64::from(config.attention_scale).powi(-2);
    // The scale was a root once; what it was the root of is nearly always a whole number.
    // Newer versions of transformers take no other.
    let whole = (scalar - scalar.round()).abs() < 1e-3;
    let scalar: Value = if whole { (scalar.round() as u64).into() } else { scalar.into() };
    let cap = |cap: Option<f32>| cap.map_or(Value::Null, number);
    let (attention, last) = (cap(config.attention_softcap), cap(config.final_softcap));
    fields.set([
        ("hidden_activation", "gelu_pytorch_tanh".into()),
        ("attention_bias", false.into()),
        ("query_pre_attn_scalar", scalar),
        ("attn_logit_softcapping", attention),
        ("final_logit_softcapping", last),
    ]);
    if let Some(window) = window {
        let kind = |has: bool| if has { "sliding_attention" } else { "full_attention" };
        let kinds: Vec<_> = config.layers.iter().map(|spec| kind(spec.window.is_some())).collect();
        fields.set([("sliding_window", window.into()), ("layer_types", json!(kinds))]);
    }
}

/// `rope_theta`, `rope_scaling`, and the base of layers with a window.
fn rope(fields: &mut Fields<'_>) -> Result<()> {
    let config = fields.config;
    let [rotation, others @ ..] = config.ropes.rotations() else { return Ok(()) };
    fields.set([("rope_theta", number(rotation.base))]);
    if let ("gemma3", [local]) = (config.architecture, others) {
        fields.set([("rope_local_base_freq", number(local.base))]);
    }
    let original = config.ropes.original_context_length;
    let scaling = match rotation.scaling {
        RopeScaling::None => match fields.values("rope_freqs.weight")? {
            Some(factors) => llama3(&factors, rotation)?,
            None => longrope(fields, rotation, original)?,
        },
        RopeScaling::Linear { factor } => json!({"rope_type": "linear", "factor": number(factor)}),
        RopeScaling::Yarn { factor, original_positions, beta_fast, beta_slow } => json!({
            "rope_type": "yarn", "factor": number(factor), "original_max_position_embeddings": original_positions,
            "beta_fast": number(beta_fast), "beta_slow": number(beta_slow),
        }),
        RopeScaling::Ntk { .. } => {
            return Err(refuse("its rotation has a base scaled by rope.scaling.alpha"));
        }
    };
    fields.set([("rope_scaling", scaling)]);
    Ok(())
}

/// Two lists of factors, of which the length of the context chooses one (Phi 3).
fn longrope(fields: &Fields<'_>, rotation: &Rotation, original: usize) -> Result<Value> {
    let lists = (fields.values("rope_factors_short.weight")?, fields.values("rope_factors_long.weight")?);
    let (Some(short), Some(long)) = lists else { return Ok(Value::Null) };
    let numbers = |list: Vec<f32>| list.into_iter().map(number).collect::<Vec<_>>();
    // The three fields that every version of transformers takes; the original context stands outside.
    let mut scaling =
        json!({"type": "longrope", "short_factor": numbers(short), "long_factor": numbers(long)});
    let stretched = fields.config.context_length as f64 / original as f64;
    let usual = if stretched > 1.0 { (1.0 + stretched.ln() / (original as f64).ln()).sqrt() } else { 1.0 };
    if usual as f32 != rotation.magnitude {
        scaling["attention_factor"] = number(rotation.magnitude);
    }
    Ok(scaling)
}

/// The settings behind Llama 3's factors. Frequencies above one bound are left alone, those below another are divided by the
/// largest factor, and between them `1 / factor` is a line over the frequency, by which the bounds can be told.
fn llama3(factors: &[f32], rotation: &Rotation) -> Result<Value> {
    let failed = || refuse("its rope_freqs.weight are not the factors of Llama 3's scaling");
    let factor = f64::from(factors.iter().copied().fold(1.0, f32::max));
    let wavelength = |pair: usize| {
        let exponent = 2.0 * pair as f64 / rotation.dimensions as f64;
        std::f64::consts::TAU * f64::from(rotation.base).powf(exponent)
    };
    // (1 / wavelength, share of the undivided frequency) between the bounds.
    let between: Vec<(f64, f64)> = factors
        .iter()
        .enumerate()
        .filter(|(_, f)| f64::from(**f) > 1.0 + 1e-6 && f64::from(**f) < factor * (1.0 - 1e-6))
        .map(|(pair, f)| {
            (1.0 / wavelength(pair), (1.0 / f64::from(*f) - 1.0 / factor) / (1.0 - 1.0 / factor))
        })
        .collect();
    // share = (original / wavelength - low) / (high - low), with the usual low and high: any other pair scales `original`.
    let (low, high) = LOW_HIGH;
    let (original, low, high) = match between[..] {
        [] => return Err(failed()),
        [(x, share)] => (((high - low) * share + low) / x, low, high),
        [first, .., last] => {
            let slope = (first.1 - last.1) / (first.0 - last.0);
            let zero = first.0 - first.1 / slope;
            // At `zero` the share is 0: original · zero = low.
            let original = (low / zero).round();
            let found = original / slope + low;
            (original, low, if (found - found.round()).abs() < 1e-3 { found.round() } else { found })
        }
    };
    if !(original.is_finite() && original >= 1.0 && high > low) {
        return Err(failed());
    }
    Ok(json!({
        "rope_type": "llama3", "factor": factor, "low_freq_factor": low, "high_freq_factor": high,
        "original_max_position_embeddings": original.round() as u64,
    }))
}
