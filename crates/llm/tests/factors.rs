//! Matrices that a file holds in two factors.

mod common;
use common::*;
use ganglion_gguf::Gguf;
use ganglion_kernels::{BlockFormat, Isa};
use ganglion_llm::{FACTORED, Model, ModelOptions, SessionOptions};

const PLAIN: Sizes = Sizes { head_dim: 32, ..SMALL };

fn never() -> bool {
    false
}

#[test]
fn two_factors_are_the_matrix_that_is_their_product() {
    let whole = random_gguf(PLAIN, FORMATS[0]);
    let factors = finish(factored(&whole, BlockFormat::F32, ""));
    let prompt = tokens(50, PLAIN.vocab);
    let run = |gguf: &Gguf| {
        let mut session = session(gguf, 2, Isa::detect(), 64, 16);
        session.prefill(&prompt, &mut never).unwrap();
        logits(&mut session)
    };
    // A sum of one value and zeros is that value.
    assert_eq!(bits(&run(&whole)), bits(&run(&factors)));
}

#[test]
fn quantised_factors_give_the_same_bits_on_any_threads_and_batches() {
    let factors = finish(factored(&random_gguf(PLAIN, FORMATS[0]), BlockFormat::Q8_0, ""));
    let prompt = tokens(40, PLAIN.vocab);
    let run = |isa, threads, batch| {
        let mut session = session(&factors, threads, isa, 64, batch);
        session.prefill(&prompt, &mut never).unwrap();
        bits(&logits(&mut session))
    };
    let expected = run(Isa::Scalar, 1, 40);
    for isa in Isa::available() {
        for (threads, batch) in [(1, 1), (2, 7), (3, 40)] {
            assert_eq!(run(isa, threads, batch), expected, "{isa:?} {threads} threads, batches of {batch}");
        }
    }
}

#[test]
fn a_plan_counts_factors_and_what_stands_between_them() {
    let whole = random_gguf(PLAIN, FORMATS[0]);
    let factors = finish(factored(&whole, BlockFormat::F32, ""));
    let options = SessionOptions::new(64);
    let (before, after) = (
        Model::memory_plan(&whole, &options, 1).unwrap(),
        Model::memory_plan(&factors, &options, 1).unwrap(),
    );
    let extra: usize = FACTORED
        .iter()
        .map(|part| {
            let info = whole.tensor(&format!("blk.0.{part}.weight")).unwrap();
            let rank = info.shape.iter().min().copied().unwrap() as usize;
            rank * rank * size_of::<f32>() * PLAIN.layers
        })
        .sum();
    assert_eq!(after.weights_bytes, before.weights_bytes + extra as u64);
    // Ranks of 64 for three products of 64 tokens at once; plain floats read no int8 blocks.
    assert_eq!(after.scratch_bytes, before.scratch_bytes + 64 * 3 * 64 * 4);
}

#[test]
fn half_a_pair_and_too_much_are_refused() {
    let whole = random_gguf(PLAIN, FORMATS[0]);
    let message = |gguf: &Gguf| {
        let options = ModelOptions { threads: 1, isa: Isa::detect() };
        Model::load(gguf, options).unwrap_err().to_string()
    };
    for half in ["blk.1.ffn_up.second.weight", "blk.2.attn_k.second.weight"] {
        let text = message(&finish(factored(&whole, BlockFormat::F32, half)));
        assert!(text.contains(half), "{text}");
    }
    let text = message(&finish(factored(&whole, BlockFormat::F32, "blk.1.ffn_up.first.weight")));
    assert!(text.contains("blk.1.ffn_up.weight"), "{text}");

    let mut spoiled = factored(&whole, BlockFormat::F32, "blk.0.attn_q.first.weight");
    add(&mut spoiled, "blk.0.attn_q.first.weight", 64, BlockFormat::F32, &[0.0; 64 * 65]);
    let text = message(&finish(spoiled));
    assert!(text.contains("blk.0.attn_q.first.weight") && text.contains("[64, 64]"), "{text}");

    let mut spoiled = factored(&whole, BlockFormat::F32, "");
    add(&mut spoiled, "blk.0.attn_q.weight", 64, BlockFormat::F32, &[0.0; 64 * 128]);
    let text = message(&finish(spoiled));
    assert!(text.contains("blk.0.attn_q.weight"), "{text}");
}
