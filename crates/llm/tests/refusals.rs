//! What a model file or a caller can do wrong, and what the answer says.

mod common;
use std::ops::ControlFlow;
use std::sync::Arc;

use common::*;
use ganglion_gguf::{Gguf, GgufWriter, TensorType};
use ganglion_kernels::Isa;
use ganglion_llm::*;

fn load(gguf: &Gguf) -> Result<Model> {
    let loaded = Model::load(gguf, ModelOptions { threads: 1, isa: Isa::detect() });
    let planned = Model::memory_plan(gguf, &SessionOptions::new(64), 1);
    assert_eq!(loaded.is_ok(), planned.is_ok(), "the plan accepts what loading accepts");
    loaded
}

fn message(gguf: &Gguf) -> String {
    load(gguf).unwrap_err().to_string()
}

#[test]
fn tensors_are_checked_by_name_shape_and_type() {
    for name in ["output_norm.weight", "blk.1.ffn_up.weight", "token_embd.weight"] {
        let mut spoiled = writer(SMALL, FORMATS[3], name);
        if name == "output_norm.weight" {
            spoiled = writer(Sizes { layers: 2, ..SMALL }, FORMATS[3], "blk.1.attn_q.weight");
            assert!(message(&finish(spoiled)).contains("blk.1.attn_q.weight"));
            continue;
        }
        assert!(message(&finish(spoiled)).contains(name));
    }

    let mut spoiled = writer(SMALL, FORMATS[3], "blk.2.ffn_down.weight");
    spoiled.tensor("blk.2.ffn_down.weight", &[64, 160], TensorType::F32, vec![0; 64 * 160 * 4]).unwrap();
    let text = message(&finish(spoiled));
    assert!(
        text.contains("blk.2.ffn_down.weight") && text.contains("[64, 160]") && text.contains("[160, 64]")
    );

    let mut spoiled = writer(SMALL, FORMATS[0], "blk.0.attn_q.weight");
    spoiled.tensor("blk.0.attn_q.weight", &[64, 96], TensorType::Q8_1, vec![0; 64 * 96 / 32 * 36]).unwrap();
    let text = message(&finish(spoiled));
    assert!(text.contains("Q8_1") && text.contains("Q8_0"), "{text}");

    let mut spoiled = writer(Sizes { head_dim: 64, ..SMALL }, FORMATS[0], "");
    spoiled.tensor("rope_freqs.weight", &[32], TensorType::Q8_0, vec![0; 34]).unwrap();
    let text = message(&finish(spoiled));
    assert!(text.contains("rope_freqs.weight") && text.contains("F32, F16 or BF16"), "{text}");

    let mut spoiled = writer(SMALL, FORMATS[0], "");
    spoiled.tensor("blk.0.attn_q_norm.weight", &[24], TensorType::F32, vec![0; 24 * 4]).unwrap();
    let text = message(&finish(spoiled));
    assert!(text.contains("blk.0.attn_q_norm.weight") && text.contains("llama model"), "{text}");
}

#[test]
fn hyperparameters_are_checked() {
    let with = |key: &str, value: u32| {
        let mut spoiled = writer(SMALL, FORMATS[0], "");
        spoiled.metadata(key, value).unwrap();
        message(&finish(spoiled))
    };
    assert!(with("llama.expert_count", 8).contains("llama.expert_count is 8"));
    let mut other = GgufWriter::new();
    other.metadata("general.architecture", "mamba").unwrap();
    assert!(message(&finish(other)).contains("mamba"));
    for (sizes, key) in [
        (Sizes { kv_heads: 3, ..SMALL }, "head_count_kv"),
        (Sizes { head_dim: 0, ..SMALL }, "key_length"),
        (Sizes { head_dim: 23, ..SMALL }, "rope.dimension_count"),
    ] {
        let sized = Sizes { heads: 4, ..sizes };
        if sized.head_dim == 0 {
            continue; // no such tensors can be written
        }
        assert!(message(&random_gguf(sized, FORMATS[0])).contains(key));
    }
    assert!(load(&random_gguf(SMALL, FORMATS[0])).is_ok());
}

#[test]
fn the_plan_counts_what_a_session_takes() {
    let gguf = random_gguf(SMALL, FORMATS[3]);
    let plan = |options: &SessionOptions| Model::memory_plan(&gguf, options, 2);
    let options = SessionOptions::new(100);
    let half = plan(&options).unwrap();
    // Keys of 24 values and values padded to 32, three layers, two heads, 100 positions in blocks of 64.
    assert_eq!((half.kv_bytes, half.kv_spill_bytes), ((24 + 32) * 2 * 3 * 2 * 128, 0));
    let whole = plan(&SessionOptions { kv: KvType::F32, ..options }).unwrap();
    assert_eq!(whole.kv_bytes, 2 * half.kv_bytes);
    let int8 = plan(&SessionOptions { kv: KvType::Int8, ..options }).unwrap();
    assert_eq!(int8.kv_bytes, half.kv_bytes / 2 + 2 * 4 * 3 * 2 * 128);
    // A ring has room for a batch that begins and ends anywhere; the block with the sinks is beside it.
    let ring = Overflow::Ring { sinks: 4 };
    let ring = plan(&SessionOptions { overflow: ring, batch_tokens: 32, ..options }).unwrap();
    assert_eq!(ring.kv_bytes, half.kv_bytes / 2 * 4);
    let spilled = plan(&SessionOptions { kv_ram_bytes: Some(0), ..options }).unwrap();
    assert_eq!((spilled.kv_bytes, spilled.kv_spill_bytes), (half.kv_bytes / 2, half.kv_bytes / 2));
    let stored: u64 = gguf.tensors().iter().map(|t| t.size_bytes).sum();
    assert!(half.weights_bytes >= stored && half.weights_bytes < stored * 11 / 10);
    assert_eq!(half.total_bytes(), half.weights_bytes + half.kv_bytes + half.scratch_bytes);
    assert!(plan(&SessionOptions::new(0)).is_err());
    assert!(plan(&SessionOptions::new(usize::MAX)).is_err());
    let error = plan(&SessionOptions { overflow: Overflow::Ring { sinks: 100 }, ..options }).unwrap_err();
    assert!(matches!(error, LlmError::Sinks { found: 100, context_tokens: 100 }), "{error}");
}

#[test]
fn callers_mistakes_are_errors() {
    let gguf = random_gguf(SMALL, FORMATS[3]);
    let mut session = session(&gguf, 1, Isa::detect(), 8, 4);
    let mut never = || false;
    assert!(matches!(session.logits_all(&mut [0.0; 203]), Err(LlmError::NoHiddenState { .. })));
    assert!(matches!(session.prefill(&[203], &mut never), Err(LlmError::Token { token: 203, .. })));
    assert!(matches!(
        session.prefill(&[1; 9], &mut never),
        Err(LlmError::ContextFull { position: 0, tokens: 9, context_tokens: 8 })
    ));
    assert_eq!(session.position(), 0);
    session.prefill(&[1; 8], &mut never).unwrap();
    assert_eq!(session.remaining(), 0);
    assert!(matches!(session.step(1, &mut never), Err(LlmError::ContextFull { .. })));
    assert!(matches!(session.truncate(9), Err(LlmError::Truncate { length: 9, position: 8 })));
    assert!(matches!(session.logits_rows(&[203], &mut [0.0]), Err(LlmError::Token { .. })));
    assert!(matches!(session.logits_rows(&[1, 2], &mut [0.0]), Err(LlmError::OutputLength { .. })));
    session.truncate(8).unwrap();
    session.logits_rows(&[3], &mut [0.0]).unwrap();
    session.truncate(0).unwrap();
    assert!(session.hidden(0).is_err());

    let mut count = 0;
    let mut receive = |_| {
        count += 1;
        ControlFlow::Continue(())
    };
    let ending = generate_greedy(&mut session, &[1, 2], 100, &[], &mut never, &mut receive).unwrap();
    assert_eq!((ending, count), (Ending::Context, 7));
    let model = Arc::clone(session.model());
    assert!(Session::new(model, SessionOptions::new(0)).is_err());
    assert!(Model::load(&gguf, ModelOptions { threads: 0, isa: Isa::detect() }).is_err());
}

#[test]
fn a_damaged_weight_is_a_fault_not_a_token() {
    for format in FORMATS {
        let mut spoiled = writer(SMALL, format, "blk.1.ffn_gate.weight");
        let nan = f32::NAN.to_le_bytes().repeat(64 * 160);
        spoiled.tensor("blk.1.ffn_gate.weight", &[64, 160], TensorType::F32, nan).unwrap();
        let gguf = finish(spoiled);
        let mut session = session(&gguf, 1, Isa::detect(), 8, 4);
        session.prefill(&[1, 2], &mut || false).unwrap();
        assert!(matches!(session.logits_rows(&[5], &mut [0.0]), Err(LlmError::NotANumber { .. })));
    }
}
