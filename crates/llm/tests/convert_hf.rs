//! Hugging Face folders to GGUF: values and their places, types, logits, refusals (tests/golden/make_hf.py).

mod common;
use common::folder::*;
use common::session;

use std::path::Path;

use ganglion_gguf::{Gguf, TensorType};
use ganglion_kernels::{Isa, dequantize};
use ganglion_llm::LlmError;
use ganglion_llm::convert::{BlockFormat, FolderOptions, ModelFolder};
use safetensors::{Dtype, SafeTensors};
use serde_json::json;

const PLAIN: FolderOptions<'_> = FolderOptions { format: None, pre_tokenizer: None, without_tokenizer: true };

/// All tensors of a folder's files as f32, by name, with their shapes.
fn source(folder: &Path) -> std::collections::BTreeMap<String, (Vec<usize>, Vec<f32>)> {
    let mut tensors = std::collections::BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "safetensors") {
            let bytes = std::fs::read(path).unwrap();
            for (name, view) in SafeTensors::deserialize(&bytes).unwrap().tensors() {
                let format = match view.dtype() {
                    Dtype::F32 => BlockFormat::F32,
                    Dtype::F16 => BlockFormat::F16,
                    Dtype::BF16 => BlockFormat::Bf16,
                    other => panic!("{name}: {other:?}"),
                };
                let mut values = vec![0.0; view.shape().iter().product()];
                dequantize(format, view.data(), &mut values).unwrap();
                tensors.insert(name, (view.shape().to_vec(), values));
            }
        }
    }
    tensors
}

fn target(gguf: &Gguf, name: &str) -> (Vec<usize>, Vec<f32>) {
    let info = gguf.tensor(name).unwrap();
    let format = BlockFormat::from_name(info.dtype.name()).unwrap();
    let mut values = vec![0.0; info.element_count() as usize];
    dequantize(format, gguf.tensor_bytes(name).unwrap(), &mut values).unwrap();
    (info.shape.iter().map(|size| *size as usize).collect(), values)
}

#[test]
fn every_value_of_every_model_is_there_once() {
    for (name, path) in cases() {
        let gguf = converted(&path, Some(BlockFormat::F32));
        let sorted = |values: &mut Vec<f32>| values.sort_by(f32::total_cmp);
        // Norms of Gemma are stored less 1.
        let gemma = name.starts_with("gemma");
        let mut before: Vec<f32> = source(&path)
            .into_iter()
            .flat_map(|(name, (_, values))| {
                let offset = if gemma && name.ends_with("norm.weight") { 1.0 } else { 0.0 };
                values.into_iter().map(move |value| value + offset)
            })
            .collect();
        let mut after: Vec<f32> = gguf
            .tensors()
            .iter()
            .filter(|info| !info.name.starts_with("rope_"))
            .flat_map(|info| target(&gguf, &info.name).1)
            .collect();
        sorted(&mut before);
        sorted(&mut after);
        assert!(before == after, "{name}: {} values became {}", before.len(), after.len());
    }
}

/// Row `row` of a row-major matrix.
fn row(matrix: &(Vec<usize>, Vec<f32>), row: usize, columns: usize) -> &[f32] {
    &matrix.1[row * columns..(row + 1) * columns]
}

#[test]
fn rows_are_where_the_architectures_expect_them() {
    let (gguf, of) = (converted(&case("llama"), None), source(&case("llama")));
    // Two kv heads of 16 in rows of 32: pair i of a head was (i, i + 8), and is (2i, 2i + 1).
    let (before, after) =
        (&of["model.layers.1.self_attn.k_proj.weight"], target(&gguf, "blk.1.attn_k.weight"));
    assert_eq!(after.0, [32, 32]);
    for (head, pair, half) in (0..2).flat_map(|h| (0..8).flat_map(move |p| [(h, p, 0), (h, p, 1)])) {
        let (was, is) = (head * 16 + half * 8 + pair, head * 16 + 2 * pair + half);
        assert_eq!(row(before, was, 32), row(&after, is, 32));
    }
    assert_eq!(of["model.layers.1.self_attn.v_proj.weight"].1, target(&gguf, "blk.1.attn_v.weight").1);
    assert_eq!(target(&gguf, "blk.0.ffn_down.weight").0, [64, 32]);

    let (gguf, of) = (converted(&case("llama-bias"), None), source(&case("llama-bias")));
    let (before, after) =
        (&of["model.layers.0.self_attn.q_proj.bias"].1, target(&gguf, "blk.0.attn_q.bias").1);
    assert_eq!([before[16], before[24], before[17]], [after[16], after[17], after[18]]);

    let (gguf, of) = (converted(&case("gpt2"), None), source(&case("gpt2")));
    let (before, after) = (&of["transformer.h.0.mlp.c_fc.weight"], target(&gguf, "blk.0.ffn_up.weight"));
    assert_eq!(
        (&before.0[..], &after.0[..]),
        (&[32, 64][..], &[32, 64][..]),
        "innermost last, innermost first"
    );
    for (input, output) in (0..32).flat_map(|i| (0..64).map(move |o| (i, o))) {
        assert_eq!(before.1[input * 64 + output], after.1[output * 32 + input]);
    }
    assert_eq!(of["transformer.h.0.attn.c_attn.bias"].1, target(&gguf, "blk.0.attn_qkv.bias").1);

    let (gguf, of) = (converted(&case("gptneox"), None), source(&case("gptneox")));
    let part = "gpt_neox.layers.0.attention.query_key_value";
    let (before, after) = (&of[&format!("{part}.weight")], target(&gguf, "blk.0.attn_qkv.weight"));
    let (bias_before, bias_after) = (&of[&format!("{part}.bias")].1, target(&gguf, "blk.0.attn_qkv.bias").1);
    for (head, kind, i) in (0..2).flat_map(|h| (0..3).flat_map(move |k| (0..16).map(move |i| (h, k, i)))) {
        let (was, is) = ((head * 3 + kind) * 16 + i, (kind * 2 + head) * 16 + i);
        assert_eq!(row(before, was, 32), row(&after, is, 32));
        assert_eq!(bias_before[was], bias_after[is]);
    }

    let (gguf, of) = (converted(&case("olmoe"), None), source(&case("olmoe")));
    let stacked = target(&gguf, "blk.1.ffn_down_exps.weight");
    assert_eq!(stacked.0, [32, 32, 8]);
    for expert in 0..8 {
        let one = &of[&format!("model.layers.1.mlp.experts.{expert}.down_proj.weight")].1;
        assert_eq!(one[..], stacked.1[expert * 1024..(expert + 1) * 1024]);
    }
    assert_eq!(target(&converted(&case("qwen2moe"), None), "blk.0.ffn_gate_inp_shexp.weight").0, [32]);
}

#[test]
fn settings_become_keys() {
    let gguf = converted(&case("gemma3"), None);
    assert_eq!(gguf.get_str("general.architecture").unwrap(), "gemma3");
    assert_eq!(gguf.get_f32("gemma3.rope.freq_base").unwrap(), 1e6);
    assert_eq!(gguf.get_f32("gemma3.rope.freq_base_swa").unwrap(), 1e4);
    assert_eq!(gguf.get_str("gemma3.rope.scaling.type").unwrap(), "linear");
    assert_eq!(gguf.get_u32("gemma3.attention.sliding_window").unwrap(), 8);
    assert!(gguf.get("gemma3.attention.sliding_window_pattern").is_none(), "the usual one");
    assert!(gguf.get("gemma3.attention.scale").is_none(), "the usual one");
    let gguf = converted(&case("gemma3-scale"), None);
    assert!(gguf.get("gemma3.attention.sliding_window_pattern").is_some());
    assert_eq!(gguf.get_f32("gemma3.attention.scale").unwrap(), (1.0 / 24f64.sqrt()) as f32);

    let gguf = converted(&case("gemma2"), None);
    assert_eq!(gguf.get_f32("gemma2.attn_logit_softcapping").unwrap(), 4.0);
    assert_eq!(gguf.get_f32("gemma2.final_logit_softcapping").unwrap(), 5.0);
    let gguf = converted(&case("mistral"), None);
    assert_eq!(gguf.get_u32("llama.attention.sliding_window").unwrap(), 8);
    assert_eq!(gguf.get_f32("llama.rope.freq_base").unwrap(), 1e6);
    let gguf = converted(&case("phi2"), None);
    assert_eq!(gguf.get_u32("phi2.rope.dimension_count").unwrap(), 8);
    let gguf = converted(&case("gptneox"), None);
    assert_eq!(gguf.get_u32("gptneox.rope.dimension_count").unwrap(), 4);
    assert!(gguf.get_bool("gptneox.use_parallel_residual").unwrap());
    assert!(!converted(&case("gptneox-serial"), None).get_bool("gptneox.use_parallel_residual").unwrap());

    let gguf = converted(&case("llama-yarn"), None);
    assert_eq!(gguf.get_u32("llama.rope.scaling.original_context_length").unwrap(), 32);
    assert_eq!(gguf.get_f32("llama.rope.scaling.yarn_beta_slow").unwrap(), 0.05);
    let gguf = converted(&case("phi3-longrope"), None);
    assert_eq!(target(&gguf, "rope_factors_long.weight").1, [1.1, 1.5, 2.0, 3.0, 5.0, 7.5]);
    assert_eq!(gguf.get_u32("phi3.rope.scaling.original_context_length").unwrap(), 16);
    // sqrt(1 + ln(128 / 16) / ln 16)
    assert!((gguf.get_f32("phi3.rope.scaling.attn_factor").unwrap() - 1.322_875_7).abs() < 1e-6);
    // Head of 16, base 500,000: waves of 6, 32, 167, 862, 4443 …; short below 256, long above 1024.
    let gguf = converted(&case("llama-llama3"), None);
    let factors = target(&gguf, "rope_freqs.weight").1;
    assert_eq!((&factors[..3], &factors[4..]), (&[1.0; 3][..], &[8.0; 4][..]));
    assert!(factors[3] > 1.0 && factors[3] < 8.0, "{factors:?}");
}

#[test]
fn types_are_those_asked_for_where_they_fit() {
    let small = small_llama(96, 40, |i| ((i * 7919 % 1000) as f32 / 500.0 - 1.0) * 0.7);
    let dtype = |format, name: &str| converted(&small.0, format).tensor(name).unwrap().dtype;
    for (format, matrix, embedding) in [
        (None, TensorType::F32, TensorType::F32),
        (Some(BlockFormat::F16), TensorType::F16, TensorType::F16),
        (Some(BlockFormat::Bf16), TensorType::BF16, TensorType::BF16),
        (Some(BlockFormat::Q8_0), TensorType::Q8_0, TensorType::Q8_0),
        (Some(BlockFormat::Q4_0), TensorType::Q4_0, TensorType::Q8_0),
    ] {
        assert_eq!(dtype(format, "blk.0.attn_q.weight"), matrix);
        assert_eq!(dtype(format, "token_embd.weight"), embedding);
        assert_eq!(dtype(format, "blk.0.attn_norm.weight"), TensorType::F32);
    }
    // Rows of 96 are no whole super-blocks; rows of 40 no whole blocks of 32 either.
    assert_eq!(dtype(Some(BlockFormat::Q4_K), "blk.0.attn_q.weight"), TensorType::Q8_0);
    let odd = small_llama(40, 40, |_| 0.5);
    let gguf = converted(&odd.0, Some(BlockFormat::Q8_0));
    assert_eq!(gguf.tensor("blk.0.attn_q.weight").unwrap().dtype, TensorType::F16);
    let wide = small_llama(256, 40, |i| (i % 7) as f32);
    for format in [BlockFormat::Q4_K, BlockFormat::Q6_K, BlockFormat::IQ4_NL, BlockFormat::MXFP4] {
        let gguf = converted(&wide.0, Some(format));
        assert_eq!(gguf.tensor("blk.0.ffn_down.weight").unwrap().dtype.name(), format.name());
    }
    // 127 steps on each side of 0, the largest value 0.7: half a step, and the f16 scale's own rounding.
    let before = source(&small.0);
    let after = target(&converted(&small.0, Some(BlockFormat::Q8_0)), "blk.0.ffn_up.weight").1;
    let worst = before["model.layers.0.mlp.up_proj.weight"].1.iter().zip(&after).map(|(a, b)| (a - b).abs());
    assert!(worst.fold(0.0, f32::max) <= 0.7 / 127.0 / 2.0 + 0.7 / 2048.0);
}

#[test]
fn a_file_is_written_whole_and_reported() {
    let (folder, out) = (case("qwen2"), Temporary::new());
    let path = out.0.join("qwen2.gguf");
    let mut steps = Vec::new();
    let model = ModelFolder::open(&folder, PLAIN).unwrap();
    assert_eq!(model.architecture(), "qwen2");
    model.write_file(&path, &mut |progress| steps.push(progress)).unwrap();
    let gguf = Gguf::open(&path).unwrap();
    assert_eq!(steps.len(), gguf.tensors().len());
    assert!(steps.windows(2).all(|pair| pair[0].done_bytes < pair[1].done_bytes));
    assert!(steps.last().is_some_and(|last| last.done_bytes == last.total_bytes));
    assert_eq!(std::fs::read_dir(&out.0).unwrap().count(), 1, "no temporary file is left");
}

#[test]
fn damaged_values_leave_no_file() {
    for (value, format, expected) in [
        (f32::NAN, None, "holds NaN; the file is damaged"),
        (f32::INFINITY, Some(BlockFormat::Q8_0), "holds inf; the file is damaged"),
        (1e5, Some(BlockFormat::F16), "more than F16 can; choose bf16 or f32"),
    ] {
        let folder = small_llama(32, 40, |i| if i == 1000 { value } else { 0.5 });
        let model = ModelFolder::open(&folder.0, FolderOptions { format, ..PLAIN }).unwrap();
        let out = Temporary::new();
        let error = model.write_file(out.0.join("x.gguf"), &mut |_| {}).unwrap_err().to_string();
        assert!(error.contains("model.safetensors: tensor ") && error.contains(expected), "{error}");
        assert_eq!(std::fs::read_dir(&out.0).unwrap().count(), 0);
    }
}

/// How far the logits are from those of transformers: the largest difference of any as a share of the largest logit, and
/// the root mean square of the differences as a share of that of the logits.
fn distances(folder: &Path, expected: &Expected, format: Option<BlockFormat>) -> (f32, f32) {
    let gguf = converted(folder, format);
    let mut session = session(&gguf, 1, Isa::detect(), 64, 64);
    session.prefill(&expected.tokens, &mut || false).unwrap();
    let mut ours = vec![0.0; expected.logits.len()];
    for (index, row) in ours.chunks_exact_mut(expected.vocab_size).enumerate() {
        session.logits_all_at(index, row).unwrap();
    }
    let pairs = || ours.iter().zip(&expected.logits);
    let largest = expected.logits.iter().fold(0f32, |most, logit| most.max(logit.abs()));
    let worst = pairs().map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    let squares: f32 = pairs().map(|(a, b)| (a - b).powi(2)).sum();
    let all: f32 = expected.logits.iter().map(|logit| logit.powi(2)).sum();
    (worst / largest, (squares / all).sqrt())
}

#[test]
fn logits_are_kept() {
    for (name, path) in cases() {
        let expected = expected(&path);
        let [stored, exact, half, int8] =
            [None, Some(BlockFormat::F32), Some(BlockFormat::F16), Some(BlockFormat::Q8_0)]
                .map(|format| distances(&path, &expected, format));
        println!("{name:16} stored {stored:?}, F32 {exact:?}, F16 {half:?}, Q8_0 {int8:?}");
        // The same arithmetic in another order: some tens of f32 roundings of 6e-8.
        assert!(stored.0 < 1e-5 && exact.0 < 1e-5, "{name}: stored {stored:?}, F32 {exact:?}");
        // Weights of 11 bits are 2^-12 off at most, in a few products one after the other.
        assert!(half.1 < 2e-3, "{name}: F16 {half:?}");
        // Weights and activations of 8 bits, 1/254 of the largest of a block off at most. A router that sees rounded
        // values may choose another expert.
        let bound = if name.contains("moe") { 0.2 } else { 0.1 };
        assert!(int8.1 < bound, "{name}: Q8_0 {int8:?}");
        assert!(int8.1 > exact.1, "{name}: rounding shows, or the type was not used");
    }
}

fn refused(folder: &Temporary) -> String {
    match ModelFolder::open(&folder.0, PLAIN) {
        Err(error @ (LlmError::SourceFile { .. } | LlmError::SourceField { .. })) => error.to_string(),
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("accepted"),
    }
}

#[test]
fn settings_without_a_graph_are_refused_by_file_field_and_value() {
    for (name, field, value, expected) in [
        (
            "llama",
            "architectures",
            json!(["BertModel"]),
            "config.json: architectures is [\"BertModel\"], expected one of LlamaForCausalLM",
        ),
        ("llama", "architectures", json!("x"), "architectures"),
        ("llama", "hidden_size", json!(0), "hidden_size is 0, expected a whole number from 1 to 65536"),
        ("llama", "hidden_size", json!("32"), "hidden_size is \"32\""),
        ("llama", "num_hidden_layers", json!(null), "num_hidden_layers is null"),
        ("llama", "num_hidden_layers", json!(1e9), "num_hidden_layers is"),
        ("llama", "num_key_value_heads", json!(3), "a divisor of num_attention_heads, which is 4"),
        ("llama", "head_dim", json!(15), "expected an even number"),
        ("llama", "rms_norm_eps", json!(-1), "rms_norm_eps is -1, expected a number above 0"),
        ("llama", "hidden_act", json!("relu"), "hidden_act is \"relu\", expected \"silu\""),
        ("llama", "rope_scaling", json!({"rope_type": "newrope"}), "rope_scaling.rope_type is \"newrope\""),
        ("llama", "rope_scaling", json!({"type": "linear"}), "rope_scaling.factor is absent"),
        ("llama", "rope_scaling", json!([]), "rope_scaling is [], expected an object"),
        ("llama", "quantization_config", json!({"bits": 4}), "quantization_config"),
        ("llama", "partial_rotary_factor", json!(0.5), "partial_rotary_factor is 0.5"),
        ("qwen2", "use_sliding_window", json!(true), "use_sliding_window is true"),
        ("qwen2moe", "norm_topk_prob", json!(true), "norm_topk_prob is true, expected false"),
        ("qwen2moe", "mlp_only_layers", json!([0]), "mlp_only_layers"),
        ("gpt2", "activation_function", json!("gelu"), "activation_function"),
        ("gptneox", "hidden_act", json!("gelu_fast"), "hidden_act"),
        ("gemma3", "layer_types", json!(["full_attention"]), "layer_types"),
        (
            "phi3-longrope",
            "rope_scaling",
            json!({"rope_type": "longrope", "long_factor": [1, 2]}),
            "long_factor",
        ),
    ] {
        let folder = Temporary::copy_of(&case(name));
        folder.edit("config.json", |config| config[field] = value);
        let error = refused(&folder);
        assert!(error.contains("config.json: ") && error.contains(expected), "{error}");
    }
}

#[test]
fn tensors_must_be_those_of_the_configuration() {
    for (field, value, expected) in [
        ("intermediate_size", json!(96), "has shape [64, 32], expected [96, 32]"),
        ("num_hidden_layers", json!(3), "tensor model.layers.2.input_layernorm.weight is missing"),
        (
            "num_hidden_layers",
            json!(1),
            "tensor model.layers.1.input_layernorm.weight has no place in a llama model",
        ),
        ("attention_bias", json!(true), "q_proj.bias is missing"),
    ] {
        let folder = Temporary::copy_of(&case("llama"));
        folder.edit("config.json", |config| config[field] = value);
        let error = refused(&folder);
        assert!(error.contains(expected), "{error}");
    }
    // A tied model may carry its head a second time; masks and tables are no weights.
    let folder = Temporary::copy_of(&case("llama"));
    folder.edit("config.json", |config| config["tie_word_embeddings"] = true.into());
    assert!(converted(&folder.0, None).tensor("output.weight").is_err());
}

#[test]
fn missing_and_cut_files_are_said() {
    let folder = Temporary::new();
    assert!(refused(&folder).contains("config.json: is missing"), "{}", refused(&folder));
    folder.write("config.json", "{\"architectures\": ");
    assert!(refused(&folder).contains("config.json: EOF"), "{}", refused(&folder));
    folder.write("config.json", "[".repeat(100_000));
    assert!(refused(&folder).contains("config.json: "));
    folder.write("config.json", [0xff, 0xfe]);
    assert!(refused(&folder).contains("config.json: cannot read"));

    let folder = Temporary::copy_of(&case("llama"));
    let whole = std::fs::read(folder.0.join("model.safetensors")).unwrap();
    for length in [0, 7, 8, 100, whole.len() - 1] {
        folder.write("model.safetensors", &whole[..length]);
        // An empty file cannot be mapped at all.
        let error = ModelFolder::open(&folder.0, PLAIN).err().unwrap().to_string();
        assert!(error.contains("model.safetensors: "), "{error}");
    }
    let mut huge = whole.clone();
    huge[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    folder.write("model.safetensors", &huge);
    assert!(refused(&folder).contains("no whole safetensors file"));
    std::fs::remove_file(folder.0.join("model.safetensors")).unwrap();
    assert!(refused(&folder).contains("is missing"));
    folder.write("pytorch_model.bin", "");
    assert!(refused(&folder).contains("safe_serialization=True"));
}

#[test]
fn an_index_may_only_name_files_beside_it() {
    const INDEX: &str = "model.safetensors.index.json";
    for name in [
        "../x.safetensors",
        "/etc/x.safetensors",
        "a/b.safetensors",
        "a\\b.safetensors",
        "..",
        "",
        "config.json",
    ] {
        let folder = Temporary::copy_of(&case("qwen2"));
        folder.edit(INDEX, |index| index["weight_map"]["model.norm.weight"] = name.into());
        let error = refused(&folder);
        assert!(
            error.contains("weight_map.model.norm.weight is ") && error.contains("plain name"),
            "{error}"
        );
    }
    type Change = fn(&mut serde_json::Value);
    let cases: [(Change, &str); 5] = [
        (|index| index["weight_map"]["model.norm.weight"] = json!(3), "plain name"),
        (|index| index["weight_map"] = json!({}), "names 0 files"),
        (|index| index["weight_map"] = json!(7), "weight_map is absent"),
        (|index| index["weight_map"]["x"] = "model-00001-of-00003.safetensors".into(), "tensor x is not in"),
        (|index| index["weight_map"]["x"] = "other.safetensors".into(), "is missing, but"),
    ];
    for (change, expected) in cases {
        let folder = Temporary::copy_of(&case("qwen2"));
        folder.edit(INDEX, change);
        let error = refused(&folder);
        assert!(error.contains(expected), "{error}");
    }
    let folder = Temporary::copy_of(&case("qwen2"));
    let shard = std::fs::read(folder.0.join("model-00001-of-00003.safetensors")).unwrap();
    folder.write("model-00002-of-00003.safetensors", shard);
    assert!(refused(&folder).contains("is also in another file"), "{}", refused(&folder));
}

/// `bytes` with three of the first `length` replaced.
fn damaged(bytes: &[u8], length: usize, noise: &mut common::Noise) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..3 {
        let at = (noise.next().abs() * length as f32) as usize % length;
        bytes[at] = (noise.next().abs() * 255.0) as u8;
    }
    bytes
}

#[test]
fn damaged_configurations_are_refused_or_converted_but_never_panic() {
    let mut noise = common::Noise(99);
    let mut refusals = 0;
    for (name, path) in cases() {
        let folder = Temporary::copy_of(&path);
        let whole = std::fs::read_to_string(path.join("config.json")).unwrap();
        let digits: Vec<usize> =
            whole.bytes().enumerate().filter(|(_, b)| b.is_ascii_digit()).map(|(at, _)| at).collect();
        for round in 0..60 {
            let mut bytes = whole.clone().into_bytes();
            if round % 2 == 0 {
                bytes = damaged(&bytes, whole.len(), &mut noise);
            } else {
                // Still JSON, with another number.
                let at = digits[(noise.next().abs() * digits.len() as f32) as usize % digits.len()];
                bytes[at] = b'0' + (noise.next().abs() * 9.9) as u8;
            }
            folder.write("config.json", &bytes);
            match ModelFolder::open(&folder.0, PLAIN) {
                Ok(model) => model.write_to(&mut std::io::sink()).unwrap_or_else(|e| panic!("{name}: {e}")),
                Err(_) => refusals += 1,
            }
        }
    }
    assert!(refusals > 500, "{refusals}");
}

#[test]
fn damaged_headers_never_panic() {
    let folder = Temporary::copy_of(&case("phi2"));
    let whole = std::fs::read(folder.0.join("model.safetensors")).unwrap();
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let mut noise = common::Noise(77);
    let mut refusals = 0;
    for _ in 0..300 {
        folder.write("model.safetensors", damaged(&whole, header, &mut noise));
        refusals += usize::from(ModelFolder::open(&folder.0, PLAIN).is_err());
    }
    assert!(refusals > 250, "{refusals}");
}
