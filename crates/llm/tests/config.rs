//! What the keys of a file say about its model, architecture by architecture, and which of them are refused.

use ganglion_gguf::{Gguf, GgufWriter, TensorType, Value};
use ganglion_llm::Config;

/// An architecture, its keys beyond the smallest set, and a part of the answer.
type Refusal<'a> = (&'a str, &'a [(&'a str, Value)], &'a str);

/// The smallest set of keys of an architecture; `changes` replace or add some.
fn config(architecture: &str, changes: &[(&str, Value)]) -> Result<Config, String> {
    let mut keys: Vec<(&str, Value)> = vec![
        ("context_length", Value::U32(128)),
        ("embedding_length", Value::U32(32)),
        ("block_count", Value::U32(6)),
        ("feed_forward_length", Value::U32(64)),
        ("attention.head_count", Value::U32(4)),
        ("attention.layer_norm_epsilon", Value::F32(1e-5)),
        ("attention.layer_norm_rms_epsilon", Value::F32(1e-6)),
    ];
    if architecture.ends_with("moe") {
        keys.extend([("expert_count", Value::U32(8)), ("expert_used_count", Value::U32(2))]);
    }
    for (key, value) in changes {
        keys.retain(|(known, _)| known != key);
        keys.push((key, value.clone()));
    }
    let mut writer = GgufWriter::new();
    writer.metadata("general.architecture", architecture).unwrap();
    for (key, value) in keys {
        writer.metadata(format!("{architecture}.{key}"), value).unwrap();
    }
    writer.tensor("token_embd.weight", &[32, 10], TensorType::F32, vec![0; 32 * 10 * 4]).unwrap();
    let mut bytes = Vec::new();
    writer.write_to(&mut bytes).unwrap();
    Config::from_header(&Gguf::parse(bytes).unwrap()).map_err(|error| error.to_string())
}

fn text(value: &str) -> Value {
    Value::String(value.to_owned())
}

fn windows(config: &Config) -> Vec<usize> {
    config.layers.iter().map(|layer| layer.window.unwrap_or(0)).collect()
}

fn ropes(config: &Config) -> Vec<Option<usize>> {
    config.layers.iter().map(|layer| layer.rope).collect()
}

const ALL: [&str; 12] = [
    "gemma2", "gemma3", "gpt2", "gptneox", "llama", "olmo2", "olmoe", "phi2", "phi3", "qwen2", "qwen2moe",
    "qwen3",
];

#[test]
fn the_smallest_set_of_keys_is_enough() {
    for name in ALL {
        let config = config(name, &[]).unwrap();
        assert_eq!((config.architecture, config.layers.len(), config.head_dim), (name, 6, 8));
        assert_eq!((config.vocab_size, config.head_count_kv), (10, 4));
        let learned = name == "gpt2";
        assert_eq!(config.positions_max() == 128, learned, "{name}");
        assert!(config.layers.iter().all(|layer| layer.rope.is_none() == learned), "{name}");
        let epsilon = if ["gpt2", "gptneox", "phi2"].contains(&name) { 1e-5 } else { 1e-6 };
        assert_eq!(config.norm_epsilon, epsilon, "{name}");
        assert_eq!(config.embedding_scale, if name.starts_with("gemma") { 32f32.sqrt() } else { 1.0 });
    }
}

#[test]
fn windows_are_placed_as_each_architecture_has_them() {
    let window = ("attention.sliding_window", Value::U32(16));
    for (name, expected) in [
        ("llama", [16; 6]),
        ("phi3", [16; 6]),
        ("qwen2", [16; 6]),
        ("gemma2", [16, 0, 16, 0, 16, 0]),
        ("gemma3", [16, 16, 16, 16, 16, 0]),
        ("olmo2", [16, 16, 16, 0, 16, 16]),
    ] {
        assert_eq!(windows(&config(name, std::slice::from_ref(&window)).unwrap()), expected, "{name}");
        let none = config(name, &[("attention.sliding_window", Value::U32(0))]).unwrap();
        assert_eq!(windows(&none), [0; 6], "{name}");
    }
    assert_eq!(windows(&config("gemma2", &[]).unwrap()), [4096, 0, 4096, 0, 4096, 0]);
    assert_eq!(windows(&config("gemma3", &[]).unwrap()), [0; 6]);

    let pattern = "attention.sliding_window_pattern";
    let every_third = config("gemma3", &[window.clone(), (pattern, Value::U32(3))]).unwrap();
    assert_eq!(windows(&every_third), [16, 16, 0, 16, 16, 0]);
    assert_eq!(ropes(&every_third), [Some(1), Some(1), Some(0), Some(1), Some(1), Some(0)]);
    let list = |list: &[bool]| Value::Array(ganglion_gguf::Array::Bool(list.to_vec()));
    let listed = [true, false, false, true, false, false];
    let listed = config("llama", &[window.clone(), (pattern, list(&listed))]).unwrap();
    assert_eq!(windows(&listed), [16, 0, 0, 16, 0, 0]);
    assert_eq!(ropes(&listed), [Some(0); 6]);
    let short = config("llama", &[window, (pattern, list(&[true]))]).unwrap_err();
    assert!(short.contains("sliding_window_pattern is a list of 1, expected one for each of 6"), "{short}");
}

#[test]
fn scales_and_caps_follow_the_keys() {
    let scale = |name, changes: &[_]| config(name, changes).unwrap().attention_scale;
    assert_eq!(scale("llama", &[]), 1.0 / 8f32.sqrt());
    assert_eq!(scale("gemma3", &[("attention.scale", Value::F32(0.5))]), 0.5);
    // The 27B models.
    for (name, layers) in [("gemma2", 46), ("gemma3", 62)] {
        let length = ("attention.key_length", Value::U32(16));
        let deep = [("block_count", Value::U32(layers)), length];
        assert_eq!(scale(name, &deep), 1.0 / 8f32.sqrt());
        assert_eq!(scale(name, &deep[1..]), 1.0 / 16f32.sqrt());
    }
    let caps = |name, changes: &[_]| {
        let config = config(name, changes).unwrap();
        (config.attention_softcap, config.final_softcap)
    };
    assert_eq!(caps("gemma2", &[]), (Some(50.0), Some(30.0)));
    assert_eq!(caps("gemma2", &[("attn_logit_softcapping", Value::F32(7.0))]), (Some(7.0), Some(30.0)));
    assert_eq!(caps("gemma3", &[("final_logit_softcapping", Value::F32(3.0))]), (None, Some(3.0)));
    assert_eq!(caps("llama", &[]), (None, None));
}

#[test]
fn experts_have_sizes_of_their_own() {
    let plain = config("qwen2moe", &[]).unwrap().experts;
    assert_eq!((plain.count, plain.used), (8, 2));
    assert_eq!((plain.feed_forward_length, plain.shared_length), (32, 64));
    let sized = [
        ("expert_feed_forward_length", Value::U32(48)),
        ("expert_shared_feed_forward_length", Value::U32(96)),
        ("expert_weights_norm", Value::Bool(true)),
    ];
    let sized = config("qwen2moe", &sized).unwrap().experts;
    assert_eq!((sized.feed_forward_length, sized.shared_length, sized.normalise_shares), (48, 96, true));
    let routed = config("olmoe", &[]).unwrap().experts;
    assert_eq!((routed.feed_forward_length, routed.shared_length), (64, 0));
}

#[test]
fn what_cannot_be_run_is_refused_by_key() {
    let number = Value::F32;
    let cases: [Refusal<'_>; 16] = [
        ("mamba", &[], "general.architecture is \"mamba\"; this build runs gemma2, gemma3, gpt2"),
        ("llama", &[("expert_count", Value::U32(8))], "llama.expert_count is 8, expected no experts"),
        ("olmoe", &[("expert_used_count", Value::U32(9))], "olmoe.expert_used_count is 9, expected 1 to 8"),
        ("olmoe", &[("attention.clamp_kqv", number(8.0))], "olmoe.attention.clamp_kqv is set"),
        ("qwen2", &[("attention.head_count_kv", Value::U32(3))], "a divisor of head_count 4"),
        (
            "phi2",
            &[("rope.dimension_count", Value::U32(3))],
            "phi2.rope.dimension_count is 3, expected an even",
        ),
        ("phi3", &[("attention.value_length", Value::U32(4))], "attention.value_length is 4"),
        ("gemma2", &[("attn_logit_softcapping", number(-1.0))], "softcapping is -1, expected a positive"),
        (
            "gptneox",
            &[("hidden_activation", text("relu"))],
            "gptneox.hidden_activation is relu, expected gelu",
        ),
        (
            "llama",
            &[("rope.scaling.type", text("spiral"))],
            "rope.scaling.type is spiral, expected none, linear",
        ),
        ("llama", &[("rope.scaling.type", text("yarn"))], "llama.rope.scaling.factor is missing"),
        ("llama", &[("rope.scaling.factor", number(-2.0))], "rope.scaling.factor is -2, expected a positive"),
        (
            "llama",
            &[("rope.scaling.factor", number(2.0)), ("rope.scaling.alpha", number(4.0))],
            "llama.rope.scaling.alpha is 4, expected no other scaling",
        ),
        (
            "qwen3",
            &[
                ("rope.scaling.type", text("yarn")),
                ("rope.scaling.factor", number(2.0)),
                ("rope.scaling.yarn_ext_factor", number(0.5)),
            ],
            "qwen3.rope.scaling.yarn_ext_factor is 0.5, expected 1",
        ),
        (
            "gpt2",
            &[("attention.layer_norm_epsilon", number(0.0))],
            "layer_norm_epsilon is 0, expected a positive",
        ),
        ("gpt2", &[("block_count", Value::U32(1000))], "gpt2.block_count is 1000, expected 1 to 512"),
    ];
    for (name, changes, expected) in cases {
        let found = config(name, changes).unwrap_err();
        assert!(found.contains(expected), "{found}\ndoes not say\n{expected}");
    }
}
