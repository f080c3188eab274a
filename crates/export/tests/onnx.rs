//! ONNX graphs in ONNX Runtime: the engine's logits, and its greedy tokens.

mod common;

use std::path::PathBuf;
use std::process::Command;

use common::folder::{Temporary, converted};
use common::stored::with_matrices;
use common::{factored, golden, greedy, logits, nano, session};
use ganglion_export::{ExportError, OnnxOptions, write_onnx};
use ganglion_gguf::Gguf;
use ganglion_kernels::BlockFormat;
use ganglion_llm::{Config, KvType};

/// The largest difference of a logit, as a share of the logits' standard deviation: both sides sum f32 in other orders.
const TOLERANCE: f64 = 5e-5;

/// A Python with onnxruntime, or `None` with a visible line.
fn python() -> Option<PathBuf> {
    let python = PathBuf::from(std::env::var_os("GANGLION_PYTHON").unwrap_or_else(|| "python3".into()));
    let found = Command::new(&python).args(["-c", "import onnxruntime, numpy"]).output();
    if found.is_ok_and(|out| out.status.success()) {
        return Some(python);
    }
    println!("skipped: {} has no onnxruntime; set GANGLION_PYTHON", python.display());
    None
}

/// A graph beside what the engine computes in f32 for the model that the graph holds.
struct Case {
    name: String,
    folder: Temporary,
    chosen: Vec<u32>,
}

impl Case {
    fn new(name: &str, gguf: &Gguf, format: Option<BlockFormat>, tokens: &[u32], steps: usize) -> Self {
        let options = OnnxOptions { format, ..OnnxOptions::default() };
        Self::with(name, gguf, options, tokens, steps)
    }

    fn with(name: &str, gguf: &Gguf, options: OnnxOptions, tokens: &[u32], steps: usize) -> Self {
        let folder = Temporary::new();
        let report = write_onnx(gguf, &folder.0.join("model.onnx"), options, &mut |_| ()).unwrap();
        let files =
            std::fs::read_dir(&folder.0).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len());
        let sizes: Vec<u64> = files.collect();
        assert_eq!(
            (sizes.len(), sizes.iter().sum()),
            (1 + usize::from(options.external_data), report.size_bytes)
        );
        let config = Config::from_header(gguf.header()).unwrap();
        let mut session = session(&with_matrices(gguf, BlockFormat::F32), KvType::F32, tokens.len() + steps);
        let mut all = Vec::new();
        for token in &tokens[..tokens.len() - 1] {
            session.step(*token, &mut || false).unwrap();
            all.extend(logits(&mut session));
        }
        let chosen = greedy(&mut session, &tokens[tokens.len() - 1..], steps);
        all.extend(&chosen[0].1);
        let bytes: Vec<u8> = all.iter().flat_map(|logit| logit.to_le_bytes()).collect();
        folder.write("logits.bin", bytes);
        let case = serde_json::json!({
            "tokens": tokens, "vocab": config.vocab_size, "layers": config.layer_count,
            "kv_heads": config.head_count_kv, "head_dim": config.head_dim, "steps": steps,
        });
        folder.write("case.json", case.to_string());
        let chosen = chosen.into_iter().map(|(token, _)| token).collect();
        Self { name: format!("{name} as {:?}", options.format), folder, chosen }
    }
}

fn check(python: &std::path::Path, cases: &[Case]) {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/onnx_check.py");
    let out =
        Command::new(python).arg(script).args(cases.iter().map(|case| &case.folder.0)).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success(), "{text}{}", String::from_utf8_lossy(&out.stderr));
    assert_eq!(text.lines().count(), cases.len());
    for (case, line) in cases.iter().zip(text.lines()) {
        let found: serde_json::Value = serde_json::from_str(line).unwrap();
        let (error, spread) = (found["error"].as_f64().unwrap(), found["spread"].as_f64().unwrap());
        println!("{}: error {error:.2e}, spread {spread:.2e}", case.name);
        assert!(error < TOLERANCE * spread, "{}: error {error}, spread {spread}", case.name);
        let chosen: Vec<u32> = serde_json::from_value(found["chosen"].clone()).unwrap();
        assert_eq!(chosen, case.chosen, "{}", case.name);
        let names: Vec<String> = serde_json::from_value(found["inputs"].clone()).unwrap();
        assert_eq!(
            names[..5],
            [
                "input_ids",
                "attention_mask",
                "position_ids",
                "past_key_values.0.key",
                "past_key_values.0.value"
            ]
        );
        assert_eq!(found["outputs"][2], "present.0.value");
    }
}

fn tokens(count: usize, vocab: usize) -> Vec<u32> {
    (0..count).map(|i| ((i * 7919 + 13) % vocab) as u32).collect()
}

#[test]
fn every_architecture_has_the_engines_logits() {
    let Some(python) = python() else { return };
    let names = [
        "gemma2",
        "gemma3",
        "gemma3-scale",
        "gpt2",
        "gptneox",
        "gptneox-serial",
        "llama",
        "llama-bias",
        "llama-linear",
        "llama-llama3",
        "llama-yarn",
        "mistral",
        "olmo2",
        "olmoe",
        "phi2",
        "phi3",
        "phi3-longrope",
        "qwen2",
        "qwen2-yarn",
        "qwen2moe",
        "qwen3",
    ];
    let mut cases = Vec::new();
    for name in names {
        let gguf = converted(&golden(name), Some(BlockFormat::F32));
        cases.push(Case::new(name, &gguf, None, &tokens(24, 96), 16));
    }
    check(&python, &cases);
}

#[test]
fn every_type_of_weights_holds_its_values() {
    let Some(python) = python() else { return };
    let mut cases = Vec::new();
    for (name, format) in [
        ("llama", BlockFormat::F16),
        ("llama", BlockFormat::Bf16),
        ("llama", BlockFormat::Q8_0),
        ("llama", BlockFormat::Q4_0),
        // Tied: the table is read by rows and multiplied with.
        ("qwen2", BlockFormat::F16),
        ("qwen2", BlockFormat::Q8_0),
        ("gemma2", BlockFormat::Q8_0),
    ] {
        let gguf = converted(&golden(name), Some(format));
        cases.push(Case::new(name, &gguf, None, &tokens(24, 96), 16));
    }
    // In two factors.
    for (name, format) in [("mistral", BlockFormat::F32), ("qwen3", BlockFormat::Q8_0)] {
        let gguf = factored(&converted(&golden(name), Some(format)), format);
        cases.push(Case::new(&format!("{name} in factors"), &gguf, None, &tokens(24, 96), 16));
    }
    // Experts without tokens have products without rows.
    for (name, format) in [
        ("olmoe", BlockFormat::Q8_0),
        ("olmoe", BlockFormat::F16),
        ("qwen2moe", BlockFormat::Q4_0),
        ("qwen2moe", BlockFormat::T3),
    ] {
        let gguf = with_matrices(&converted(&golden(name), Some(BlockFormat::F32)), format);
        cases.push(Case::new(&format!("{name} of {format}"), &gguf, None, &tokens(24, 96), 16));
    }
    // Asked for, from a file that already has these values.
    let gguf = converted(&golden("llama"), Some(BlockFormat::Q4_0));
    cases.push(Case::new("llama of 4 bits", &gguf, Some(BlockFormat::F32), &tokens(24, 96), 16));
    check(&python, &cases);
}

/// Formats that no other program knows go out as what they stand for.
#[test]
fn own_formats_hold_their_values() {
    let Some(python) = python() else { return };
    let mut cases = Vec::new();
    for (name, format) in [
        ("llama", BlockFormat::I8_ROW),
        ("llama", BlockFormat::F8_E4M3),
        ("llama", BlockFormat::T2),
        ("gemma2", BlockFormat::I8_ROW),
        ("qwen2", BlockFormat::T4),
        ("mistral", BlockFormat::T3),
        ("qwen3", BlockFormat::SPARSE4),
        ("qwen3", BlockFormat::SPARSE8),
    ] {
        let gguf = with_matrices(&converted(&golden(name), Some(BlockFormat::F32)), format);
        cases.push(Case::new(&format!("{name} of {format}"), &gguf, None, &tokens(24, 96), 16));
    }
    let of_nf4 = with_matrices(&nano(), BlockFormat::NF4);
    cases.push(Case::new("nano of NF4", &of_nf4, None, &tokens(24, 1536), 16));
    // int8 stays int8, also where it is asked for by its name in GGUF.
    let of_int8 = with_matrices(&converted(&golden("llama"), Some(BlockFormat::F32)), BlockFormat::I8_ROW);
    cases.push(Case::new("llama of I8_ROW", &of_int8, Some(BlockFormat::Q8_0), &tokens(24, 96), 16));
    check(&python, &cases);
    let report =
        write_onnx(&of_int8, &cases[0].folder.0.join("again.onnx"), OnnxOptions::default(), &mut |_| ());
    assert!(report.unwrap().types.iter().all(|(name, _)| *name == "int8"));
}

#[test]
fn nano_goes_on_for_hundreds_of_tokens() {
    let Some(python) = python() else { return };
    let gguf = nano();
    let prompt = tokens(40, 1536);
    let beside =
        OnnxOptions { format: Some(BlockFormat::F32), external_data: true, ..OnnxOptions::default() };
    check(
        &python,
        &[Case::new("nano", &gguf, None, &prompt, 300), Case::with("nano", &gguf, beside, &prompt, 300)],
    );
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let folder = Temporary::new();
    let path = folder.0.join("model.onnx");
    let refused = |gguf: &Gguf, options| write_onnx(gguf, &path, options, &mut |_| ()).unwrap_err();
    let gguf = converted(&golden("llama"), Some(BlockFormat::F32));
    let error = refused(&gguf, OnnxOptions { format: Some(BlockFormat::Q4_K), ..OnnxOptions::default() });
    assert!(error.to_string().contains("Q4_K"), "{error}");
    let error = refused(&gguf, OnnxOptions { context_tokens: Some(0), ..OnnxOptions::default() });
    assert!(matches!(error, ExportError::Context { .. }), "{error}");
    assert_eq!(std::fs::read_dir(&folder.0).unwrap().count(), 0, "nothing is left behind");
}
