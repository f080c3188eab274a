//! The same bits for every thread count, batch size, instruction set and cache state.

mod common;
use common::*;
use ganglion_kernels::{BlockFormat, Isa, Matrix};
use ganglion_llm::{KvType, LlmError, Overflow, Part, Reader, Session, SessionOptions};

fn never() -> bool {
    false
}

#[test]
fn logits_depend_on_tokens_alone() {
    let prompt = tokens(100, SMALL.vocab);
    for format in FORMATS {
        for tied in [false, true] {
            let gguf = random_gguf(Sizes { tied, ..SMALL }, format);
            let mut reference = session(&gguf, 1, Isa::Scalar, 128, 1);
            reference.prefill(&prompt, &mut never).unwrap();
            let reference = bits(&logits(&mut reference));
            assert!(
                reference.iter().collect::<std::collections::HashSet<_>>().len() > 100,
                "degenerate model"
            );
            for isa in Isa::available() {
                for threads in 1..=3 {
                    for batch in [1, 7, 64, 100] {
                        let mut session = session(&gguf, threads, isa, 128, batch);
                        session.prefill(&prompt, &mut never).unwrap();
                        assert_eq!(
                            reference,
                            bits(&logits(&mut session)),
                            "{format:?} {isa:?} {threads} threads, batches of {batch}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn a_reused_prefix_gives_the_logits_of_a_fresh_session() {
    let gguf = random_gguf(SMALL, FORMATS[3]);
    let prompt = tokens(60, SMALL.vocab);
    let mut reused = session(&gguf, 2, Isa::detect(), 128, 16);
    reused.prefill(&prompt[..41], &mut never).unwrap();
    for event in [&[5u32, 6, 7][..], &prompt[41..], &[100; 50], &prompt[41..]] {
        reused.truncate(41).unwrap();
        reused.prefill(event, &mut never).unwrap();
        let mut fresh = session(&gguf, 1, Isa::detect(), 100, 100);
        fresh.prefill(&[&prompt[..41], event].concat(), &mut never).unwrap();
        assert_eq!(bits(&logits(&mut reused)), bits(&logits(&mut fresh)));
        assert_eq!(reused.position(), 41 + event.len());
    }
}

#[test]
fn chosen_rows_and_earlier_tokens_have_the_bits_of_the_whole() {
    for format in FORMATS {
        let gguf = random_gguf(SMALL, format);
        let prompt = tokens(9, SMALL.vocab);
        let mut whole = session(&gguf, 1, Isa::detect(), 32, 32);
        whole.prefill(&prompt, &mut never).unwrap();
        assert_eq!(whole.evaluated(), 9);
        let mut stepped = session(&gguf, 2, Isa::detect(), 32, 32);
        for (index, token) in prompt.iter().enumerate() {
            stepped.step(*token, &mut never).unwrap();
            let expected = logits(&mut stepped);
            let mut all = vec![0.0; SMALL.vocab];
            whole.logits_all_at(index, &mut all).unwrap();
            assert_eq!(bits(&expected), bits(&all));
            let rows = [202, 0, 17, 16, 15, 17];
            let mut some = [0.0; 6];
            whole.logits_rows_at(index, &rows, &mut some).unwrap();
            assert_eq!(bits(&some), rows.map(|row| expected[row as usize].to_bits()));
            assert_eq!(stepped.hidden(0).unwrap(), whole.hidden(index).unwrap());
        }
    }
}

#[test]
fn a_deadline_leaves_a_consistent_session() {
    let gguf = random_gguf(SMALL, FORMATS[3]);
    let prompt = tokens(40, SMALL.vocab);
    // Three layers a pass, ten tokens a pass: the callback is asked twelve times.
    for calls in 0..12 {
        let mut session = session(&gguf, 2, Isa::detect(), 64, 10);
        let mut left = calls;
        let mut expired = || {
            left -= 1;
            left < 0
        };
        let error = session.prefill(&prompt, &mut expired).unwrap_err();
        let done = calls as usize / 3 * 10;
        assert!(matches!(error, LlmError::Expired { position } if position == done), "{error}");
        assert!(matches!(
            session.logits_rows(&[1], &mut [0.0]),
            Err(LlmError::NoHiddenState { available: 0, .. })
        ));
        session.prefill(&prompt[done..], &mut never).unwrap();
        let mut fresh = common::session(&gguf, 1, Isa::detect(), 64, 64);
        fresh.prefill(&prompt, &mut never).unwrap();
        assert_eq!(bits(&logits(&mut session)), bits(&logits(&mut fresh)));
    }
}

/// Sequences of different lengths in shared passes, with tokens taken back in between, against each alone.
#[test]
fn sequences_that_share_passes_have_the_bits_of_each_alone() {
    for (format, kv) in FORMATS.into_iter().zip(KvType::ALL.into_iter().cycle()) {
        let gguf = random_gguf(SMALL, format);
        let prefix = tokens(70, SMALL.vocab);
        let options = SessionOptions { kv, sequences: 3, batch_tokens: 24, ..SessionOptions::new(160) };
        let mut together = session_with(&gguf, 2, Isa::detect(), options);
        together.prefill(&prefix, &mut never).unwrap();
        together.share_first().unwrap();
        let alone = SessionOptions { sequences: 1, ..options };
        let mut alone = [(); 3].map(|()| {
            let mut session = session_with(&gguf, 1, Isa::detect(), alone);
            session.prefill(&prefix, &mut never).unwrap();
            session
        });
        let rounds: [&[(usize, &[u32])]; 4] = [
            &[(2, &[5, 6, 7]), (0, &[9; 20])],
            &[(1, &[1]), (0, &[3]), (2, &[4, 4])],
            &[(1, &[100; 24])],
            &[(2, &[7, 8, 9, 10, 11]), (1, &[12])],
        ];
        for round in rounds {
            let part = |&(sequence, tokens)| Part { sequence, tokens };
            together.prefill_parts(&round.iter().map(part).collect::<Vec<_>>(), &mut never).unwrap();
            let mut first = 0;
            for &(sequence, tokens) in round {
                alone[sequence].prefill(tokens, &mut never).unwrap();
                for index in 0..tokens.len() {
                    let (mut wanted, mut found) = (vec![0.0; SMALL.vocab], vec![0.0; SMALL.vocab]);
                    alone[sequence].logits_all_at(index, &mut wanted).unwrap();
                    together.logits_all_at(first + index, &mut found).unwrap();
                    assert_eq!(bits(&wanted), bits(&found), "{format:?} sequence {sequence}");
                }
                first += tokens.len();
                let kept = together.position_of(sequence) - tokens.len() / 2;
                together.truncate_sequence(sequence, kept).unwrap();
                alone[sequence].truncate(kept).unwrap();
            }
        }
    }
}

#[test]
fn parts_that_cannot_be_evaluated_are_refused_before_anything_is() {
    let gguf = random_gguf(SMALL, FORMATS[0]);
    let options = SessionOptions { sequences: 2, batch_tokens: 4, ..SessionOptions::new(8) };
    let mut session = session_with(&gguf, 1, Isa::detect(), options);
    let part = |sequence, tokens| Part { sequence, tokens };
    let refused: [(&[Part<'_>], &str); 5] = [
        (&[part(0, &[1]), part(2, &[1])], "sequence is 2"),
        (&[part(0, &[1]), part(0, &[2])], "parts of one sequence is 2"),
        (&[part(0, &[1, 2, 3]), part(1, &[1, 2])], "tokens of a pass is 5"),
        (&[part(0, &[])], "tokens of a pass is 0"),
        (&[part(0, &[1]), part(1, &[9999])], "9999"),
    ];
    for (parts, expected) in refused {
        let error = session.prefill_parts(parts, &mut never).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert_eq!((session.position_of(0), session.position_of(1)), (0, 0));
    }
    let ring = SessionOptions { overflow: Overflow::Ring { sinks: 1 }, ..options };
    assert!(Session::new(std::sync::Arc::clone(session.model()), ring).is_err());
}

#[test]
fn layer_by_layer_gives_the_stream_of_a_pass_and_the_tap_sees_every_reader() {
    let gguf = random_gguf(SMALL, FORMATS[3]);
    let prompt = tokens(40, SMALL.vocab);
    let mut whole = session(&gguf, 2, Isa::detect(), 64, 64);
    let mut streams = Vec::new();
    let mut observe = |_: usize, stream: &[f32]| streams.push(stream.to_vec());
    whole.prefill_observed(&prompt, &mut never, &mut observe).unwrap();
    let mut single = session(&gguf, 1, Isa::detect(), 64, 64);
    let mut stream = single.embed(&prompt).unwrap().to_vec();
    for (layer, expected) in streams.iter().enumerate() {
        let seen = std::cell::RefCell::new(Vec::new());
        let tap = |at: usize, reader, values: &[f32]| seen.borrow_mut().push((at, reader, values.len()));
        single.run_layer(layer, &mut stream, Some(&tap)).unwrap();
        assert_eq!(bits(&stream), bits(expected), "layer {layer}");
        let seen = seen.into_inner();
        assert_eq!(
            seen.iter().map(|(_, reader, _)| *reader).collect::<Vec<_>>(),
            [Reader::QueryKeyValue, Reader::AttentionOutput, Reader::FeedForward, Reader::Down]
        );
        assert!(seen.iter().all(|(at, _, count)| *at == layer && count % prompt.len() == 0));
    }
    let mut all = vec![0.0; prompt.len() * SMALL.vocab];
    single.logits_of_stream(&stream, &mut all).unwrap();
    let mut expected = vec![0.0; SMALL.vocab];
    for (at, found) in all.chunks_exact(SMALL.vocab).enumerate() {
        whole.logits_all_at(at, &mut expected).unwrap();
        assert_eq!(bits(found), bits(&expected), "token {at}");
    }
    assert!(matches!(single.embed(&[0; 65]), Err(LlmError::ContextFull { tokens: 65, .. })));
}

#[test]
fn a_swapped_matrix_is_used_and_comes_back() {
    let gguf = random_gguf(SMALL, FORMATS[0]);
    let mut session = session(&gguf, 1, Isa::detect(), 64, 64);
    let prompt = tokens(20, SMALL.vocab);
    let stream = |session: &mut ganglion_llm::Session| {
        let mut stream = session.embed(&prompt).unwrap().to_vec();
        session.run_layer(0, &mut stream, None).unwrap();
        bits(&stream)
    };
    let before = stream(&mut session);
    let info = gguf.tensor("blk.0.ffn_up.weight").unwrap();
    let (k, rows) = (info.shape[0] as usize, info.shape[1] as usize);
    let zeros = vec![0; rows * k * 4];
    let mut matrix = Matrix::pack("zeros", BlockFormat::F32, rows, k, &zeros).unwrap();
    assert!(session.swap_matrix(0, "ffn_up.weight", &mut matrix));
    assert_ne!(stream(&mut session), before);
    assert!(session.swap_matrix(0, "ffn_up.weight", &mut matrix));
    assert_eq!(stream(&mut session), before);
    assert!(!session.swap_matrix(0, "ffn_gate_exps.weight", &mut matrix));
    assert!(!session.swap_matrix(0, "attn_k.weight", &mut matrix), "another shape");
}
