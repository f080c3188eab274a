//! Every architecture against transformers (tests/golden/make_hf.py): the stream after each layer, and the logits.

mod common;
use std::sync::Arc;

use common::golden::{Golden, mapped, rewritten};
use common::*;
use ganglion_gguf::{Gguf, Value};
use ganglion_kernels::{BlockFormat, Isa};
use ganglion_llm::{KvType, LlmError, Loaded, Model, ModelOptions, PackedFolder, Session, SessionOptions};

/// Positions of the sessions: beyond LongRoPE's original context of 16, as the golden values are.
const CONTEXT: usize = 64;

fn never() -> bool {
    false
}

/// The greatest difference, over the greatest value expected.
fn distance(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let greatest = expected.iter().fold(0f32, |greatest, v| greatest.max(v.abs()));
    found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / greatest
}

#[test]
fn layers_and_logits_are_those_of_transformers() {
    // Both compute in f32, in different orders: ten times what was found. A wrong window, scale, order of pairs or norm
    // moves these models by 0.01 to 1.
    const BOUND: f32 = 2e-5;
    let all = Golden::all();
    let mut architectures = std::collections::BTreeSet::new();
    for golden in &all {
        let gguf = golden.gguf(BlockFormat::F32);
        let mut session = session(&gguf, 1, Isa::detect(), CONTEXT, CONTEXT);
        architectures.insert(session.model().config().architecture);
        let mut found = Vec::new();
        session
            .prefill_observed(&golden.tokens, &mut never, &mut |layer, stream| {
                found.push(distance(stream, &golden.layers[layer]));
            })
            .unwrap();
        assert_eq!(found.len(), golden.layers.len());
        let mut logits = vec![0.0; session.model().config().vocab_size];
        for (token, expected) in golden.logits.iter().enumerate() {
            session.logits_all_at(token, &mut logits).unwrap();
            found.push(distance(&logits, expected));
            let mut some = [0.0; 3];
            session.logits_rows_at(token, &[90, 0, 17], &mut some).unwrap();
            assert_eq!(bits(&some), bits(&[logits[90], logits[0], logits[17]]));
        }
        let worst = found.iter().copied().fold(0.0, f32::max);
        println!("{}: {worst:e}", golden.name);
        assert!(worst < BOUND, "{}: {worst:e} from transformers, bound {BOUND:e}", golden.name);
    }
    assert_eq!(architectures.len(), 12, "{architectures:?}");
    assert!(all.len() >= 21);
}

/// Everything that a run of the tokens leaves behind, as bits.
fn run(session: &mut Session, tokens: &[u32]) -> Vec<u32> {
    session.prefill(tokens, &mut never).unwrap();
    let mut all = bits(&logits(session));
    all.extend(bits(session.hidden(session.evaluated() - 1).unwrap()));
    all
}

#[test]
fn every_architecture_depends_on_its_tokens_alone() {
    // Rows of 32 and 64 values are whole blocks of Q8_0; what is not is stored otherwise.
    let kinds = [
        (BlockFormat::F32, KvType::F32),
        (BlockFormat::Q8_0, KvType::F16),
        (BlockFormat::Q8_0, KvType::Int8),
    ];
    for golden in Golden::all() {
        for (format, kv) in kinds {
            let gguf = golden.gguf(format);
            let fresh = |threads, isa, batch| {
                session_with(&gguf, threads, isa, SessionOptions { kv, ..exact(CONTEXT, batch) })
            };
            let expected = run(&mut fresh(1, Isa::Scalar, 1), &golden.tokens);
            for threads in 1..=3 {
                for batch in [1, 7, CONTEXT] {
                    for isa in Isa::available() {
                        let mut session = fresh(threads, isa, batch);
                        let found = run(&mut session, &golden.tokens);
                        let (name, isa) = (&golden.name, isa.name());
                        assert_eq!(found, expected, "{name} {format:?} {kv:?} {threads} {batch} {isa}");
                        session.truncate(5).unwrap();
                        assert_eq!(run(&mut session, &golden.tokens[5..]), expected, "{name}: prefix kept");
                    }
                }
            }
        }
    }
}

#[test]
fn learned_positions_end_where_the_table_ends() {
    let gguf = Golden::named("gpt2").gguf(BlockFormat::F32);
    assert!(matches!(
        Model::memory_plan(&gguf, &SessionOptions::new(65), 1),
        Err(LlmError::Option { option: "context_tokens", found: 65, max: 64 })
    ));
    let model = session(&gguf, 1, Isa::detect(), 64, 64).model().clone();
    let error = Session::new(model, SessionOptions::new(65)).unwrap_err();
    assert_eq!(error.to_string(), "context_tokens is 65; give 1 to 64");
}

/// Logits of the last token, in a session of `context` positions.
fn last_logits(gguf: &Gguf, tokens: &[u32], context: usize) -> Vec<f32> {
    let mut session = session(gguf, 1, Isa::detect(), context, context);
    session.prefill(tokens, &mut never).unwrap();
    logits(&mut session)
}

#[test]
fn mapped_weights_give_the_same_bits() {
    let folder = std::env::temp_dir().join(format!("ganglion-architectures-{}", std::process::id()));
    for golden in Golden::all() {
        let gguf = golden.gguf(BlockFormat::Q8_0);
        let expected = bits(&last_logits(&gguf, &golden.tokens, CONTEXT));
        for round in 0..2 {
            let options = ModelOptions { threads: 2, isa: Isa::detect() };
            let packed = PackedFolder::new(&folder).from_size(0);
            let (model, loaded) = Model::load_with(&gguf, options, Some(&packed)).unwrap();
            assert_eq!(matches!(loaded, Loaded::Mapped), round == 1, "{}: {loaded:?}", golden.name);
            let mut session = Session::new(Arc::new(model), exact(CONTEXT, CONTEXT)).unwrap();
            session.prefill(&golden.tokens, &mut never).unwrap();
            assert_eq!(bits(&logits(&mut session)), expected, "{}", golden.name);
        }
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn experts_that_nobody_chose_are_not_computed() {
    for name in ["olmoe", "qwen2moe"] {
        let golden = Golden::named(name);
        let gguf = golden.gguf(BlockFormat::F32);
        let experts = session(&gguf, 1, Isa::detect(), 8, 8).model().config().experts;
        assert!(experts.used < experts.count);
        // A router without preferences: the lowest numbers are chosen among equals.
        let with = |rest: f32| {
            rewritten(&gguf, &[], |tensor, bytes| {
                let bytes = if tensor.ends_with("ffn_gate_inp.weight") {
                    mapped(&bytes, |_, _| 0.0)
                } else if tensor.contains("_exps.") {
                    let chosen = bytes.len() / 4 / experts.count * experts.used;
                    mapped(&bytes, |index, value| if index < chosen { value } else { rest })
                } else {
                    bytes
                };
                Some((tensor.to_owned(), bytes))
            })
        };
        let poisoned = last_logits(&with(f32::NAN), &golden.tokens, CONTEXT);
        assert_eq!(bits(&poisoned), bits(&last_logits(&with(1.0), &golden.tokens, CONTEXT)));
    }
}

#[test]
fn shares_can_be_scaled_to_sum_to_one() {
    let golden = Golden::named("olmoe");
    let gguf = golden.gguf(BlockFormat::F32);
    // Without preferences a share is 1/8, and 1/2 where two of them are scaled: a factor of 4, which rounds nothing.
    let with = |norm: bool, factor: f32| {
        rewritten(&gguf, &[("olmoe.expert_weights_norm", Value::Bool(norm))], |tensor, bytes| {
            let bytes = match tensor {
                _ if tensor.ends_with("ffn_gate_inp.weight") => mapped(&bytes, |_, _| 0.0),
                _ if tensor.ends_with("ffn_down_exps.weight") => mapped(&bytes, |_, value| value * factor),
                _ => bytes,
            };
            Some((tensor.to_owned(), bytes))
        })
    };
    let logits = |norm, factor| bits(&last_logits(&with(norm, factor), &golden.tokens, CONTEXT));
    assert_eq!(logits(true, 1.0), logits(false, 4.0));
    assert_ne!(logits(true, 1.0), logits(false, 1.0));
}

#[test]
fn ntk_scaling_raises_the_base() {
    let golden = Golden::named("llama");
    let gguf = golden.gguf(BlockFormat::F32);
    let with = |key: &str, value: f64| {
        let metadata = [(key, Value::F32(value as f32))];
        let gguf = rewritten(&gguf, &metadata, |tensor, bytes| Some((tensor.to_owned(), bytes)));
        last_logits(&gguf, &golden.tokens, CONTEXT)
    };
    let scaled = with("llama.rope.scaling.alpha", 4.0);
    // Heads of 16 values.
    let raised = with("llama.rope.freq_base", 10_000.0 * 4f64.powf(16.0 / 14.0));
    assert!(distance(&scaled, &raised) < 1e-5);
    assert!(distance(&scaled, &with("llama.rope.scaling.alpha", 1.0)) > 1e-3);
}

#[test]
fn longrope_takes_the_short_factors_within_the_original_context() {
    let golden = Golden::named("phi3-longrope");
    let gguf = golden.gguf(BlockFormat::F32);
    let only = |kept: &str| {
        rewritten(&gguf, &[], |tensor, bytes| match tensor {
            _ if tensor == kept => Some(("rope_freqs.weight".to_owned(), bytes)),
            "rope_factors_short.weight" | "rope_factors_long.weight" => None,
            _ => Some((tensor.to_owned(), bytes)),
        })
    };
    let logits = |gguf: &Gguf, context| bits(&last_logits(gguf, &golden.tokens[..12], context));
    assert_eq!(logits(&gguf, 16), logits(&only("rope_factors_short.weight"), 16));
    assert_eq!(logits(&gguf, 17), logits(&only("rope_factors_long.weight"), 17));
    assert_ne!(logits(&gguf, 16), logits(&gguf, 17));
}

#[test]
fn damaged_files_are_refused_or_loaded_never_a_panic() {
    let mut noise = Noise(0x1234_5678_9abc_def1);
    let mut below = |end: usize| ((noise.next() + 1.0) / 2.0 * end as f32) as usize % end;
    let (mut refused, mut loaded) = (0, 0);
    for golden in Golden::all() {
        let whole = golden.gguf(BlockFormat::Q8_0);
        let header = whole.data_offset() as usize;
        for _ in 0..200 {
            let mut bytes = whole.bytes().to_vec();
            for _ in 0..=below(3) {
                bytes[below(header)] = [0, 1, 255, below(256) as u8][below(4)];
            }
            let Ok(gguf) = Gguf::parse(bytes) else { continue };
            let planned = Model::memory_plan(&gguf, &SessionOptions::new(16), 1).is_ok();
            let model = Model::load(&gguf, ModelOptions { threads: 1, isa: Isa::detect() });
            assert_eq!(model.is_ok(), planned, "{}: the plan accepts what loading accepts", golden.name);
            *if planned { &mut loaded } else { &mut refused } += 1;
            // What loads can be run, whatever comes out.
            let Ok(model) = model else { continue };
            let options = SessionOptions { batch_tokens: 4, ..SessionOptions::new(16) };
            let Ok(mut session) = Session::new(Arc::new(model), options) else { continue };
            if session.prefill(&[0; 7], &mut never).is_ok() {
                let mut logits = vec![0.0; session.model().config().vocab_size];
                // A fault in the numbers is an answer too.
                let _ = session.logits_all(&mut logits);
            }
        }
    }
    assert!(refused > 100 && loaded > 100, "{refused} refused, {loaded} loaded: damage both kinds");
}
