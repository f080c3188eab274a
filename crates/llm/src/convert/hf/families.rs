//! The architectures: for each, how its hyperparameters and tensors are called on both sides.
//!
//! Names on the left are GGUF's, as llama.cpp reads them; names on the right are those of transformers'
//! `modeling_*.py`.

use serde_json::{Value, json};

use super::plan::{Linear, Plan, Sizes};
use super::rope::Rope;
use super::rows::Order;
use crate::error::Result;
use crate::limits;

/// One architecture.
pub(super) struct Family {
    /// Entry of `architectures` in config.json.
    pub(super) class: &'static str,
    /// `general.architecture`.
    pub(super) name: &'static str,
    pub(super) plan: fn(&mut Plan<'_>) -> Result<()>,
    /// Tensors of the source that carry no weights.
    pub(super) ignored: fn(&str) -> bool,
}

const fn family(class: &'static str, name: &'static str, plan: fn(&mut Plan<'_>) -> Result<()>) -> Family {
    Family { class, name, plan, ignored: is_rotary_table }
}

/// All that can be converted.
pub(super) const FAMILIES: &[Family] = &[
    family("LlamaForCausalLM", "llama", llama),
    family("MistralForCausalLM", "llama", llama),
    family("Qwen2ForCausalLM", "qwen2", qwen2),
    family("Qwen3ForCausalLM", "qwen3", qwen3),
    family("Qwen2MoeForCausalLM", "qwen2moe", qwen2moe),
    family("PhiForCausalLM", "phi2", phi2),
    family("Phi3ForCausalLM", "phi3", phi3),
    family("Gemma2ForCausalLM", "gemma2", gemma2),
    family("Gemma3ForCausalLM", "gemma3", gemma3),
    Family { ignored: is_mask, ..family("GPT2LMHeadModel", "gpt2", gpt2) },
    Family { ignored: is_mask, ..family("GPTNeoXForCausalLM", "gptneox", gptneox) },
    family("Olmo2ForCausalLM", "olmo2", olmo2),
    family("OlmoeForCausalLM", "olmoe", olmoe),
];

fn is_rotary_table(name: &str) -> bool {
    name.ends_with("rotary_emb.inv_freq")
}

/// Attention masks, which old checkpoints keep as tensors.
fn is_mask(name: &str) -> bool {
    const SUFFIXES: [&str; 4] =
        [".attn.bias", ".attn.masked_bias", ".attention.bias", ".attention.masked_bias"];
    is_rotary_table(name) || SUFFIXES.iter().any(|suffix| name.ends_with(suffix))
}

fn silu(plan: &Plan<'_>) -> Result<()> {
    plan.config.only("hidden_act", &[json!("silu"), json!("swish")])
}

/// Sizes and a rotary embedding over whole heads: what most have. `theta` is the default.
fn describe(plan: &mut Plan<'_>, theta: f64) -> Result<Sizes> {
    let sizes = describe_partial(plan, theta, 1.0)?;
    if Rope::read(plan.config, theta, 1.0)?.partial != 1.0 {
        return Err(plan.config.refuse("partial_rotary_factor", "1"));
    }
    Ok(sizes)
}

/// As [`describe`], where a part of each head may be rotated.
fn describe_partial(plan: &mut Plan<'_>, theta: f64, partial: f64) -> Result<Sizes> {
    let sizes = Sizes::read(plan.config)?;
    sizes.describe(plan);
    let rope = Rope::read(plan.config, theta, partial)?;
    let dimensions = rope.dimensions(sizes.head_dim);
    if dimensions == 0 || !dimensions.is_multiple_of(2) {
        let expected =
            format!("a share that makes an even number of the {} values of a head", sizes.head_dim);
        return Err(plan.config.refuse("partial_rotary_factor", expected));
    }
    rope.describe(plan, dimensions, sizes.context)?;
    Ok(sizes)
}

fn rms_epsilon(plan: &mut Plan<'_>, default: f64) -> Result<()> {
    let epsilon = plan.config.optional_positive("rms_norm_eps")?.unwrap_or(default);
    plan.key_number("attention.layer_norm_rms_epsilon", epsilon);
    Ok(())
}

/// Biases and row orders of an attention block.
#[derive(Clone, Copy)]
struct Attention {
    bias: bool,
    output_bias: bool,
    neighbours: bool,
}

fn attention(plan: &mut Plan<'_>, layer: usize, sizes: Sizes, how: Attention) {
    let (to, from) = (format!("blk.{layer}"), format!("model.layers.{layer}.self_attn"));
    let order = |heads| if how.neighbours { Order::PairsToNeighbours { heads } } else { Order::Same };
    let (query, kv, input) = (sizes.query(), sizes.kv(), sizes.embedding);
    for (target, source, rows, order) in [
        ("attn_q", "q_proj", query, order(sizes.heads)),
        ("attn_k", "k_proj", kv, order(sizes.heads_kv)),
        ("attn_v", "v_proj", kv, Order::Same),
    ] {
        let of = Linear::new(rows, input).bias(how.bias).order(order);
        plan.linear(&format!("{to}.{target}"), &format!("{from}.{source}"), of);
    }
    let of = Linear::new(input, query).bias(how.output_bias);
    plan.linear(&format!("{to}.attn_output"), &format!("{from}.o_proj"), of);
}

fn gated(plan: &mut Plan<'_>, layer: usize, sizes: Sizes, bias: bool) {
    let (to, from) = (format!("blk.{layer}"), format!("model.layers.{layer}.mlp"));
    let up = Linear::new(sizes.feed_forward, sizes.embedding).bias(bias);
    let down = Linear::new(sizes.embedding, sizes.feed_forward).bias(bias);
    plan.linear(&format!("{to}.ffn_gate"), &format!("{from}.gate_proj"), up);
    plan.linear(&format!("{to}.ffn_up"), &format!("{from}.up_proj"), up);
    plan.linear(&format!("{to}.ffn_down"), &format!("{from}.down_proj"), down);
}

/// Norms of a layer by (GGUF name, source name).
fn norms(plan: &mut Plan<'_>, layer: usize, length: usize, names: &[(&str, &str)], offset: f32) {
    for (target, source) in names {
        let target = format!("blk.{layer}.{target}.weight");
        let source = format!("model.layers.{layer}.{source}.weight");
        plan.vector(&target, &source, length, Order::Same, offset);
    }
}

const BEFORE: &[(&str, &str)] = &[("attn_norm", "input_layernorm"), ("ffn_norm", "post_attention_layernorm")];

/// Embedding, output and last norm of the llama kind.
fn ends(plan: &mut Plan<'_>, sizes: Sizes, copied_if_tied: bool, offset: f32) -> Result<()> {
    let of = Linear::new(sizes.vocab, sizes.embedding);
    plan.embeddings("model.embed_tokens", "lm_head", of, copied_if_tied)?;
    plan.vector("output_norm.weight", "model.norm.weight", sizes.embedding, Order::Same, offset);
    Ok(())
}

/// A window over all layers, unless it is as long as the context.
fn window(plan: &mut Plan<'_>, sizes: Sizes) -> Result<()> {
    if let Some(window) = plan.config.optional_count("sliding_window", usize::MAX)?
        && window < sizes.context
    {
        plan.key_count("attention.sliding_window", window);
    }
    Ok(())
}

fn llama(plan: &mut Plan<'_>) -> Result<()> {
    silu(plan)?;
    let sizes = describe(plan, 10_000.0)?;
    rms_epsilon(plan, 1e-6)?;
    window(plan, sizes)?;
    let bias = plan.config.flag_or("attention_bias", false)?;
    let mlp_bias = plan.config.flag_or("mlp_bias", false)?;
    ends(plan, sizes, false, 0.0)?;
    for layer in 0..sizes.layers {
        norms(plan, layer, sizes.embedding, BEFORE, 0.0);
        attention(plan, layer, sizes, Attention { bias, output_bias: bias, neighbours: true });
        gated(plan, layer, sizes, mlp_bias);
    }
    Ok(())
}

const NEOX_ROTARY: Attention = Attention { bias: false, output_bias: false, neighbours: false };

/// Qwen uses a window in some layers only, and only where asked to.
fn no_window(plan: &Plan<'_>) -> Result<()> {
    plan.config.only("use_sliding_window", &[json!(false)])
}

fn qwen2(plan: &mut Plan<'_>) -> Result<()> {
    silu(plan)?;
    no_window(plan)?;
    let sizes = describe(plan, 10_000.0)?;
    rms_epsilon(plan, 1e-6)?;
    ends(plan, sizes, false, 0.0)?;
    for layer in 0..sizes.layers {
        norms(plan, layer, sizes.embedding, BEFORE, 0.0);
        attention(plan, layer, sizes, Attention { bias: true, ..NEOX_ROTARY });
        gated(plan, layer, sizes, false);
    }
    Ok(())
}

fn qwen3(plan: &mut Plan<'_>) -> Result<()> {
    silu(plan)?;
    no_window(plan)?;
    plan.config.only("attention_bias", &[json!(false)])?;
    let sizes = describe(plan, 10_000.0)?;
    rms_epsilon(plan, 1e-6)?;
    ends(plan, sizes, false, 0.0)?;
    for layer in 0..sizes.layers {
        norms(plan, layer, sizes.embedding, BEFORE, 0.0);
        attention(plan, layer, sizes, NEOX_ROTARY);
        norms(plan, layer, sizes.head_dim, HEAD_NORMS, 0.0);
        gated(plan, layer, sizes, false);
    }
    Ok(())
}

const HEAD_NORMS: &[(&str, &str)] =
    &[("attn_q_norm", "self_attn.q_norm"), ("attn_k_norm", "self_attn.k_norm")];

/// Router and experts of a layer, each expert a gated feed-forward of `length`.
fn experts(plan: &mut Plan<'_>, layer: usize, sizes: Sizes, count: usize, length: usize) {
    let (to, from) = (format!("blk.{layer}"), format!("model.layers.{layer}.mlp"));
    plan.exact(&format!("{to}.ffn_gate_inp"), &format!("{from}.gate"), count, sizes.embedding);
    for (target, source, of) in [
        ("ffn_gate_exps", "gate_proj", Linear::new(length, sizes.embedding)),
        ("ffn_up_exps", "up_proj", Linear::new(length, sizes.embedding)),
        ("ffn_down_exps", "down_proj", Linear::new(sizes.embedding, length)),
    ] {
        plan.experts(&format!("{to}.{target}"), &format!("{from}.experts.{{}}.{source}"), count, of);
    }
}

fn expert_counts(plan: &mut Plan<'_>) -> Result<usize> {
    // Readers of these architectures use the router's probabilities as they are.
    plan.config.only("norm_topk_prob", &[json!(false)])?;
    let count = plan.config.count("num_experts", limits::EXPERTS_MAX)?;
    let used = plan.config.count("num_experts_per_tok", count)?;
    plan.key_count("expert_count", count);
    plan.key_count("expert_used_count", used);
    Ok(count)
}

fn qwen2moe(plan: &mut Plan<'_>) -> Result<()> {
    silu(plan)?;
    no_window(plan)?;
    plan.config.only("decoder_sparse_step", &[json!(1)])?;
    plan.config.only("mlp_only_layers", &[json!([])])?;
    let sizes = describe(plan, 10_000.0)?;
    rms_epsilon(plan, 1e-6)?;
    let count = expert_counts(plan)?;
    let length = plan.config.count("moe_intermediate_size", limits::FEED_FORWARD_MAX)?;
    let shared = plan.config.count("shared_expert_intermediate_size", limits::FEED_FORWARD_MAX)?;
    plan.key_count("expert_feed_forward_length", length);
    plan.key_count("expert_shared_feed_forward_length", shared);
    ends(plan, sizes, true, 0.0)?;
    for layer in 0..sizes.layers {
        norms(plan, layer, sizes.embedding, BEFORE, 0.0);
        attention(plan, layer, sizes, Attention { bias: true, ..NEOX_ROTARY });
        experts(plan, layer, sizes, count, length);
        let (to, from) = (format!("blk.{layer}"), format!("model.layers.{layer}.mlp"));
        plan.row(&format!("{to}.ffn_gate_inp_shexp"), &format!("{from}.shared_expert_gate"), sizes.embedding);
        let (up, down) = (Linear::new(shared, sizes.embedding), Linear::new(sizes.embedding, shared));
        for (target, source, of) in
            [("gate", "gate_proj", up), ("up", "up_proj", up), ("down", "down_proj", down)]
        {
            let source = format!("{from}.shared_expert.{source}");
            plan.linear(&format!("{to}.ffn_{target}_shexp"), &source, of);
        }
    }
    Ok(())
}

fn olmoe(plan: &mut Plan<'_>) -> Result<()> {
    silu(plan)?;
    for (name, accepted) in [("attention_bias", json!(false)), ("clip_qkv", Value::Null)] {
        plan.config.only(name, &[accepted])?;
    }
    let sizes = describe(plan, 10_000.0)?;
    rms_epsilon(plan, 1e-5)?;
    let count = expert_counts(plan)?;
    ends(plan, sizes, true, 0.0)?;
    for layer in 0..sizes.layers {
        norms(plan, layer, sizes.embedding, BEFORE, 0.0);
        attention(plan, layer, sizes, NEOX_ROTARY);
        norms(plan, layer, sizes.query(), &HEAD_NORMS[..1], 0.0);
        norms(plan, layer, sizes.kv(), &HEAD_NORMS[1..], 0.0);
        experts(plan, layer, sizes, count, sizes.feed_forward);
    }
    Ok(())
}

fn olmo2(plan: &mut Plan<'_>) -> Result<()> {
    silu(plan)?;
    plan.config.only("attention_bias", &[json!(false)])?;
    let sizes = describe(plan, 10_000.0)?;
    rms_epsilon(plan, 1e-5)?;
    ends(plan, sizes, true, 0.0)?;
    const AFTER: &[(&str, &str)] = &[
        ("post_attention_norm", "post_attention_layernorm"),
        ("post_ffw_norm", "post_feedforward_layernorm"),
    ];
    for layer in 0..sizes.layers {
        attention(plan, layer, sizes, NEOX_ROTARY);
        norms(plan, layer, sizes.query(), &HEAD_NORMS[..1], 0.0);
        norms(plan, layer, sizes.kv(), &HEAD_NORMS[1..], 0.0);
        norms(plan, layer, sizes.embedding, AFTER, 0.0);
        gated(plan, layer, sizes, false);
    }
    Ok(())
}

fn phi3(plan: &mut Plan<'_>) -> Result<()> {
    silu(plan)?;
    let sizes = describe_partial(plan, 10_000.0, 1.0)?;
    rms_epsilon(plan, 1e-5)?;
    let config = plan.config;
    // Readers require both keys; no window is 0.
    let window =
        config.optional_count("sliding_window", usize::MAX)?.filter(|window| *window < sizes.context);
    plan.key_count("attention.sliding_window", window.unwrap_or(0));
    let original = config.optional_count("original_max_position_embeddings", limits::CONTEXT_MAX)?;
    plan.key_count("rope.scaling.original_context_length", original.unwrap_or(sizes.context));
    ends(plan, sizes, false, 0.0)?;
    for layer in 0..sizes.layers {
        norms(plan, layer, sizes.embedding, BEFORE, 0.0);
        let (to, from) = (format!("blk.{layer}"), format!("model.layers.{layer}"));
        let (embedding, query) = (sizes.embedding, sizes.query());
        for (target, source, of) in [
            ("attn_qkv", "self_attn.qkv_proj", Linear::new(query + 2 * sizes.kv(), embedding)),
            ("attn_output", "self_attn.o_proj", Linear::new(embedding, query)),
            ("ffn_up", "mlp.gate_up_proj", Linear::new(2 * sizes.feed_forward, embedding)),
            ("ffn_down", "mlp.down_proj", Linear::new(embedding, sizes.feed_forward)),
        ] {
            plan.linear(&format!("{to}.{target}"), &format!("{from}.{source}"), of);
        }
    }
    Ok(())
}

const GEMMA_NORMS: &[(&str, &str)] = &[
    ("attn_norm", "input_layernorm"),
    ("post_attention_norm", "post_attention_layernorm"),
    ("ffn_norm", "pre_feedforward_layernorm"),
    ("post_ffw_norm", "post_feedforward_layernorm"),
];

/// What the two Gemmas share. Their norms scale by 1 + weight; GGUF's by the weight.
fn gemma(plan: &mut Plan<'_>, theta: f64, pattern: usize) -> Result<Sizes> {
    let config = plan.config;
    // `hidden_activation` is what counts where both are there.
    let activation =
        if config.get("hidden_activation").is_some() { "hidden_activation" } else { "hidden_act" };
    config.only(activation, &[json!("gelu_pytorch_tanh")])?;
    config.only("attention_bias", &[json!(false)])?;
    let sizes = describe(plan, theta)?;
    rms_epsilon(plan, 1e-6)?;
    let scalar = config.optional_positive("query_pre_attn_scalar")?.unwrap_or(256.0);
    if scalar != sizes.head_dim as f64 {
        plan.key_number("attention.scale", 1.0 / scalar.sqrt());
    }
    if let Some(cap) = config.optional_positive("final_logit_softcapping")? {
        plan.key_number("final_logit_softcapping", cap);
    }
    if let Some(window) = config.optional_count("sliding_window", usize::MAX)? {
        plan.key_count("attention.sliding_window", window.min(limits::CONTEXT_MAX));
        let is_local = local_layers(plan, sizes.layers, pattern)?;
        // Which layers have the window is the architecture's own knowledge, unless a model does it otherwise.
        if is_local.iter().enumerate().any(|(layer, local)| *local != ((layer + 1) % pattern != 0)) {
            plan.key("attention.sliding_window_pattern", is_local);
        }
    }
    ends(plan, sizes, false, 1.0)?;
    for layer in 0..sizes.layers {
        norms(plan, layer, sizes.embedding, GEMMA_NORMS, 1.0);
        attention(plan, layer, sizes, NEOX_ROTARY);
        gated(plan, layer, sizes, false);
    }
    Ok(sizes)
}

/// Which layers see the window only.
fn local_layers(plan: &Plan<'_>, layers: usize, pattern: usize) -> Result<Vec<bool>> {
    let config = plan.config;
    if config.get("layer_types").is_none() {
        let every = config.optional_count("sliding_window_pattern", limits::LAYERS_MAX)?.unwrap_or(pattern);
        return Ok((1..=layers).map(|layer| layer % every != 0).collect());
    }
    let types = config.texts("layer_types")?;
    if types.len() != layers {
        return Err(config.refuse("layer_types", format!("{layers} entries, one for each layer")));
    }
    let local = |kind: &&str| match *kind {
        "sliding_attention" => Ok(true),
        "full_attention" => Ok(false),
        _ => Err(config.refuse("layer_types", "sliding_attention and full_attention only")),
    };
    types.iter().map(local).collect()
}

fn gemma2(plan: &mut Plan<'_>) -> Result<()> {
    gemma(plan, 10_000.0, 2)?;
    if let Some(cap) = plan.config.optional_positive("attn_logit_softcapping")? {
        plan.key_number("attn_logit_softcapping", cap);
    }
    Ok(())
}

fn gemma3(plan: &mut Plan<'_>) -> Result<()> {
    plan.config.only("attn_logit_softcapping", &[])?;
    plan.config.only("use_bidirectional_attention", &[json!(false)])?;
    let sizes = gemma(plan, 1_000_000.0, 6)?;
    for layer in 0..sizes.layers {
        norms(plan, layer, sizes.head_dim, HEAD_NORMS, 1.0);
    }
    Ok(())
}

fn phi2(plan: &mut Plan<'_>) -> Result<()> {
    plan.config.only("hidden_act", &[json!("gelu_new")])?;
    plan.config.only("qk_layernorm", &[json!(false)])?;
    let sizes = describe_partial(plan, 10_000.0, 0.5)?;
    if sizes.heads != sizes.heads_kv {
        return Err(plan.config.refuse("num_key_value_heads", "num_attention_heads"));
    }
    let epsilon = plan.config.optional_positive("layer_norm_eps")?.unwrap_or(1e-5);
    plan.key_number("attention.layer_norm_epsilon", epsilon);
    let embedding = sizes.embedding;
    plan.embeddings("model.embed_tokens", "lm_head", Linear::new(sizes.vocab, embedding).bias(true), false)?;
    if plan.config.flag_or("tie_word_embeddings", false)? {
        return Err(plan.config.refuse("tie_word_embeddings", "false"));
    }
    plan.norm_with_bias("output_norm", "model.final_layernorm", embedding);
    for layer in 0..sizes.layers {
        let (to, from) = (format!("blk.{layer}"), format!("model.layers.{layer}"));
        plan.norm_with_bias(&format!("{to}.attn_norm"), &format!("{from}.input_layernorm"), embedding);
        let square = Linear::new(embedding, embedding).bias(true);
        for (target, source, of) in [
            ("attn_q", "self_attn.q_proj", square),
            ("attn_k", "self_attn.k_proj", square),
            ("attn_v", "self_attn.v_proj", square),
            ("attn_output", "self_attn.dense", square),
            ("ffn_up", "mlp.fc1", Linear::new(sizes.feed_forward, embedding).bias(true)),
            ("ffn_down", "mlp.fc2", Linear::new(embedding, sizes.feed_forward).bias(true)),
        ] {
            plan.linear(&format!("{to}.{target}"), &format!("{from}.{source}"), of);
        }
    }
    Ok(())
}

fn gptneox(plan: &mut Plan<'_>) -> Result<()> {
    plan.config.only("hidden_act", &[json!("gelu")])?;
    plan.config.only("attention_bias", &[json!(true)])?;
    let sizes = describe_partial(plan, 10_000.0, 0.25)?;
    let config = plan.config;
    let epsilon = config.optional_positive("layer_norm_eps")?.unwrap_or(1e-5);
    plan.key_number("attention.layer_norm_epsilon", epsilon);
    plan.key("use_parallel_residual", config.flag_or("use_parallel_residual", true)?);
    let (embedding, heads) = (sizes.embedding, sizes.heads);
    plan.embeddings("gpt_neox.embed_in", "embed_out", Linear::new(sizes.vocab, embedding), true)?;
    plan.norm_with_bias("output_norm", "gpt_neox.final_layer_norm", embedding);
    for layer in 0..sizes.layers {
        let (to, from) = (format!("blk.{layer}"), format!("gpt_neox.layers.{layer}"));
        plan.norm_with_bias(&format!("{to}.attn_norm"), &format!("{from}.input_layernorm"), embedding);
        plan.norm_with_bias(
            &format!("{to}.ffn_norm"),
            &format!("{from}.post_attention_layernorm"),
            embedding,
        );
        let fused = Linear::new(3 * embedding, embedding).order(Order::HeadsToKinds { heads });
        for (target, source, of) in [
            ("attn_qkv", "attention.query_key_value", fused),
            ("attn_output", "attention.dense", Linear::new(embedding, embedding)),
            ("ffn_up", "mlp.dense_h_to_4h", Linear::new(sizes.feed_forward, embedding)),
            ("ffn_down", "mlp.dense_4h_to_h", Linear::new(embedding, sizes.feed_forward)),
        ] {
            plan.linear(&format!("{to}.{target}"), &format!("{from}.{source}"), of.bias(true));
        }
    }
    Ok(())
}

fn gpt2(plan: &mut Plan<'_>) -> Result<()> {
    let config = plan.config;
    config.only("activation_function", &[json!("gelu_new"), json!("gelu_pytorch_tanh")])?;
    for (name, usual) in [
        ("scale_attn_weights", true),
        ("scale_attn_by_inverse_layer_idx", false),
        ("reorder_and_upcast_attn", false),
        ("add_cross_attention", false),
    ] {
        config.only(name, &[json!(usual)])?;
    }
    let embedding = config.count("n_embd", limits::EMBEDDING_MAX)?;
    let heads = config.count("n_head", limits::HEADS_MAX)?;
    let layers = config.count("n_layer", limits::LAYERS_MAX)?;
    let vocab = config.count("vocab_size", limits::VOCAB_MAX)?;
    let context = config.count("n_positions", limits::CONTEXT_MAX)?;
    let inner = config.optional_count("n_inner", limits::FEED_FORWARD_MAX)?.unwrap_or(4 * embedding);
    if !embedding.is_multiple_of(heads) {
        return Err(config.refuse("n_head", format!("a divisor of n_embd, which is {embedding}")));
    }
    for (key, value) in [
        ("vocab_size", vocab),
        ("context_length", context),
        ("embedding_length", embedding),
        ("block_count", layers),
        ("feed_forward_length", inner),
        ("attention.head_count", heads),
    ] {
        plan.key_count(key, value);
    }
    let epsilon = config.optional_positive("layer_norm_epsilon")?.unwrap_or(1e-5);
    plan.key_number("attention.layer_norm_epsilon", epsilon);
    // The first checkpoints were saved without their outermost module's name.
    let root = if plan.folder.has("wte.weight") { "" } else { "transformer." };
    plan.embeddings(&format!("{root}wte"), "lm_head", Linear::new(vocab, embedding), false)?;
    plan.exact("position_embd", &format!("{root}wpe"), context, embedding);
    plan.norm_with_bias("output_norm", &format!("{root}ln_f"), embedding);
    for layer in 0..layers {
        let (to, from) = (format!("blk.{layer}"), format!("{root}h.{layer}"));
        plan.norm_with_bias(&format!("{to}.attn_norm"), &format!("{from}.ln_1"), embedding);
        plan.norm_with_bias(&format!("{to}.ffn_norm"), &format!("{from}.ln_2"), embedding);
        for (target, source, rows, columns) in [
            ("attn_qkv", "attn.c_attn", 3 * embedding, embedding),
            ("attn_output", "attn.c_proj", embedding, embedding),
            ("ffn_up", "mlp.c_fc", inner, embedding),
            ("ffn_down", "mlp.c_proj", embedding, inner),
        ] {
            let of = Linear::new(rows, columns).bias(true).order(Order::Transposed);
            plan.linear(&format!("{to}.{target}"), &format!("{from}.{source}"), of);
        }
    }
    Ok(())
}
