//! A profiler sees every operation of a pass once, and changes nothing.

mod common;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use common::*;
use ganglion_kernels::Isa;
use ganglion_llm::{Profiler, Span};

/// A clock that counts how often it was asked.
fn clock() -> u64 {
    static NOW: AtomicU64 = AtomicU64::new(0);
    NOW.fetch_add(1, Ordering::Relaxed)
}

#[test]
fn every_operation_of_a_pass_is_seen_once_a_layer() {
    let gguf = random_gguf(SMALL, FORMATS[3]);
    let (prompt, mut logits) = (tokens(20, SMALL.vocab), vec![0.0; SMALL.vocab]);
    let mut plain = session(&gguf, 1, Isa::detect(), 32, 16);
    plain.prefill(&prompt, &mut || false).unwrap();
    plain.logits_all(&mut logits).unwrap();

    let mut profiled = session(&gguf, 1, Isa::detect(), 32, 16);
    assert!(!profiled.replace_profiler(Profiler::new(clock, 1000)).is_on());
    let mut same = vec![0.0; SMALL.vocab];
    profiled.prefill(&prompt, &mut || false).unwrap();
    profiled.logits_all(&mut same).unwrap();
    assert_eq!(logits, same, "measuring changes no bit");

    let profiler = profiled.replace_profiler(Profiler::off());
    let spans: Vec<Span> = profiler.spans().copied().collect();
    // 20 tokens in batches of 16 are two passes.
    let mut calls = BTreeMap::new();
    for span in &spans {
        *calls.entry((span.layer, span.operation)).or_insert(0) += 1;
    }
    for layer in 0..SMALL.layers as u16 {
        for operation in ["q k v", "attention", "attention output", "gate up", "activation", "down"] {
            assert_eq!(calls.get(&(Some(layer), operation)), Some(&2), "{operation} of layer {layer}");
        }
    }
    for (operation, count) in [("embedding", 2), ("head norm", 1), ("head", 1)] {
        assert_eq!(calls.get(&(None, operation)), Some(&count), "{operation}");
    }
    assert!(spans.windows(2).all(|pair| pair[0].end_ns <= pair[1].start_ns), "one after the other");
    assert!(spans.iter().all(|span| span.start_ns < span.end_ns));

    let total = |operation| *profiler.totals().iter().find(|total| total.operation == operation).unwrap();
    let layer_macs = 2 * SMALL.embedding * SMALL.feed_forward;
    assert_eq!(total("gate up").work.macs, (SMALL.layers * layer_macs * prompt.len()) as u64);
    assert_eq!(total("head").work.macs, (SMALL.embedding * SMALL.vocab) as u64);
    let pairs = prompt.len() * (prompt.len() + 1) / 2;
    let query = SMALL.heads * SMALL.head_dim;
    assert_eq!(total("attention").work.macs, (SMALL.layers * 2 * query * pairs) as u64);
}
