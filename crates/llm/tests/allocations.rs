//! After a session exists, evaluating allocates nothing.

mod common;
#[path = "../../kernels/tests/common/counting.rs"]
mod counting;

use common::golden::Golden;
use common::*;
use counting::allocations;
use ganglion_gguf::Gguf;
use ganglion_kernels::{BlockFormat, Isa};
use ganglion_llm::{KvType, Overflow, Part, Profiler, SessionOptions};

// The only test of this file: another one would allocate in between.
#[test]
fn a_step_allocates_nothing() {
    let kinds = KvType::ALL.into_iter().cycle();
    let overflows = [Overflow::Refuse, Overflow::Ring { sinks: 3 }].into_iter().cycle();
    for ((format, kv), overflow) in FORMATS.into_iter().zip(kinds).zip(overflows) {
        let gguf = random_gguf(SMALL, format);
        let options = SessionOptions {
            batch_tokens: 16,
            kv,
            overflow,
            kv_ram_bytes: Some(0),
            ..SessionOptions::new(140)
        };
        check(&gguf, options, &format!("{format:?}"));
    }
    let sizes = Sizes { head_dim: 32, ..SMALL };
    let factors = finish(factored(&random_gguf(sizes, FORMATS[0]), BlockFormat::Q8_0, ""));
    check(&factors, SessionOptions { batch_tokens: 16, ..SessionOptions::new(64) }, "two factors");
    for golden in Golden::all() {
        let options = SessionOptions { batch_tokens: 16, sequences: 2, ..SessionOptions::new(64) };
        check(&golden.gguf(BlockFormat::Q8_0), options, &golden.name);
    }
}

fn check(gguf: &Gguf, options: SessionOptions, name: &str) {
    let mut session = session_with(gguf, 2, Isa::detect(), options);
    let vocab = session.model().config().vocab_size;
    let prompt = tokens(options.context_tokens - 10, vocab);
    let mut logits = vec![0.0; vocab];
    let mut some = [0.0; 3];
    for round in 0..4 {
        // The last round is measured, into a ring that is too short for it.
        if round == 3 {
            session.replace_profiler(Profiler::new(|| 0, 50));
        }
        let before = allocations();
        session.truncate(0).unwrap();
        session.prefill(&prompt, &mut || false).unwrap();
        for token in 0..10 {
            session.logits_rows(&[token, 50, 51], &mut some).unwrap();
            session.step(token, &mut || false).unwrap();
            session.logits_all(&mut logits).unwrap();
        }
        if options.sequences > 1 {
            session.truncate_sequence(0, 20).unwrap();
            session.truncate_sequence(1, 0).unwrap();
            let parts = [Part { sequence: 1, tokens: &prompt[..9] }, Part { sequence: 0, tokens: &[5, 6] }];
            session.prefill_parts(&parts, &mut || false).unwrap();
            session.logits_rows_at(3, &[1, 50, 51], &mut some).unwrap();
        }
        let allocations = allocations() - before;
        assert!(allocations == 0, "{allocations} allocations with {name} in round {round}");
    }
}
