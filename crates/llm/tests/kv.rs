//! Types of keys and values, rings, spilling, saving: the same bits whatever the threads, chunks and places.

mod common;
use common::*;
use ganglion_gguf::Gguf;
use ganglion_kernels::Isa;
use ganglion_llm::*;

fn never() -> bool {
    false
}

fn options(kv: KvType, context_tokens: usize, batch_tokens: usize) -> SessionOptions {
    SessionOptions { batch_tokens, kv, ..SessionOptions::new(context_tokens) }
}

fn open(gguf: &Gguf, threads: usize, options: SessionOptions) -> Session {
    session_with(gguf, threads, Isa::detect(), options)
}

/// The bits of the logits behind each of the tokens, evaluated in chunks.
fn all_logits(session: &mut Session, tokens: &[u32], chunk: usize) -> Vec<Vec<u32>> {
    let mut found = Vec::new();
    for part in tokens.chunks(chunk) {
        session.prefill(part, &mut never).unwrap();
        // A pass may be shorter than the chunk: of the earlier tokens nothing is left to read.
        found.resize(session.position() - session.evaluated(), Vec::new());
        for index in 0..session.evaluated() {
            let mut out = vec![0.0; SMALL.vocab];
            session.logits_all_at(index, &mut out).unwrap();
            found.push(bits(&out));
        }
    }
    found
}

/// Compares where both have something.
fn assert_same(a: &[Vec<u32>], b: &[Vec<u32>], what: &str) {
    assert_eq!(a.len(), b.len());
    for (position, (a, b)) in a.iter().zip(b).enumerate() {
        assert!(a.is_empty() || b.is_empty() || a == b, "{what}: position {position} differs");
    }
}

#[test]
fn every_type_has_one_result() {
    let gguf = random_gguf(SMALL, FORMATS[3]);
    let prompt = tokens(200, SMALL.vocab);
    let mut last = Vec::new();
    for kv in KvType::ALL {
        let reference = session_with(&gguf, 1, Isa::Scalar, options(kv, 200, 1));
        let reference = all_logits(&mut { reference }, &prompt, 1);
        for threads in 1..=3 {
            for (batch, chunk) in [(1, 200), (7, 7), (64, 64), (200, 200), (64, 200)] {
                for kv_ram_bytes in [None, Some(0), Some(30_000)] {
                    let mut session =
                        open(&gguf, threads, SessionOptions { kv_ram_bytes, ..options(kv, 200, batch) });
                    let found = all_logits(&mut session, &prompt, chunk);
                    assert_same(
                        &reference,
                        &found,
                        &format!("{kv:?} {threads} {batch} {chunk} {kv_ram_bytes:?}"),
                    );
                    assert_eq!(session.spilled_bytes() > 0, kv_ram_bytes.is_some());
                    // And again behind a prefix that stayed.
                    session.truncate(90).unwrap();
                    session.prefill(&prompt[90..], &mut never).unwrap();
                    assert_eq!(bits(&logits(&mut session)), reference[199]);
                }
            }
        }
        last.push(reference[199].iter().map(|bits| f32::from_bits(*bits)).collect::<Vec<_>>());
    }
    // Logits reach about 10 here. f16 keeps 11 bits of keys and values, int8 7 of the largest.
    let worst = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    let (half, int8) = (worst(&last[0], &last[1]), worst(&last[0], &last[2]));
    println!("f16 {half}, int8 {int8}");
    assert!(half > 0.0 && half < 0.2 && int8 > half && int8 < 1.5, "f16 {half}, int8 {int8}");
}

#[test]
fn a_ring_goes_on_past_its_context_with_the_same_bits_for_any_chunk() {
    let gguf = random_gguf(SMALL, FORMATS[0]);
    let prompt = tokens(700, SMALL.vocab);
    for (kv, sinks, context) in [(KvType::F16, 4, 100), (KvType::Int8, 0, 64), (KvType::F32, 70, 90)] {
        let ring =
            |batch| SessionOptions { overflow: Overflow::Ring { sinks }, ..options(kv, context, batch) };
        let mut stepped = open(&gguf, 1, ring(1));
        let reference = all_logits(&mut stepped, &prompt, 1);
        assert_eq!(stepped.position(), 700);
        for (threads, batch, chunk) in [(1, 64, 64), (2, 7, 7), (3, 60, 700), (2, 33, 100)] {
            let mut session = open(&gguf, threads, ring(batch));
            assert_same(&reference, &all_logits(&mut session, &prompt, chunk), &format!("{kv:?} {batch}"));
            // The last chunks again.
            session.truncate(680).unwrap();
            session.prefill(&prompt[680..], &mut never).unwrap();
            assert_eq!(bits(&logits(&mut session)), reference[699]);
            assert!(matches!(session.truncate(300), Err(LlmError::Forgotten { length: 300, position: 700 })));
            let saved = session.save("", &mut Vec::new());
            assert!(matches!(saved, Err(LlmError::Forgotten { position: 700, .. })));
            session.truncate(0).unwrap();
            session.prefill(&prompt[..50], &mut never).unwrap();
            assert_eq!(bits(&logits(&mut session)), reference[49]);
        }
        let spilled = SessionOptions { kv_ram_bytes: Some(0), ..ring(16) };
        assert_same(&reference, &all_logits(&mut open(&gguf, 2, spilled), &prompt, 16), "spilled");
        // Up to its context a ring is a plain session.
        let plain = all_logits(&mut open(&gguf, 1, options(kv, context, 16)), &prompt[..context], 16);
        assert_same(&reference[..context], &plain, "plain");
        // Beyond, it has forgotten something.
        let long = all_logits(&mut open(&gguf, 1, options(kv, 700, 64)), &prompt, 64);
        assert_ne!(reference[699], long[699]);
    }
}

#[test]
fn a_prompt_reuses_what_the_session_holds() {
    let gguf = random_gguf(SMALL, FORMATS[3]);
    let prompt = tokens(60, SMALL.vocab);
    let mut session = open(&gguf, 1, options(KvType::F16, 64, 64));
    assert_eq!(session.reuse(&prompt).unwrap(), 0);
    session.prefill(&prompt, &mut never).unwrap();
    let expected = bits(&logits(&mut session));
    assert_eq!(session.tokens(), prompt);
    assert_eq!(session.reuse(&prompt).unwrap(), 59, "the last token is evaluated, for its logits");
    session.prefill(&prompt[59..], &mut never).unwrap();
    assert_eq!(bits(&logits(&mut session)), expected);
    let other = [&prompt[..20], &[1, 1, 1][..]].concat();
    assert_eq!((session.reuse(&other).unwrap(), session.position()), (20, 20));
    assert_eq!(session.reuse(&[]).unwrap(), 0);
}

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

#[test]
fn a_restored_session_has_the_bits_of_the_saved_one() {
    let gguf = random_gguf(SMALL, FORMATS[3]);
    let prompt = tokens(160, SMALL.vocab);
    for kv in KvType::ALL {
        for held in [0, 1, 64, 130] {
            let spilling = SessionOptions { kv_ram_bytes: Some(0), ..options(kv, 200, 32) };
            let ring = SessionOptions { overflow: Overflow::Ring { sinks: 4 }, ..options(kv, 180, 50) };
            let mut saved = open(&gguf, 1, spilling);
            saved.prefill(&prompt[..held], &mut never).unwrap();
            let mut file = Vec::new();
            saved.save(ID, &mut file).unwrap();
            saved.prefill(&prompt[held..], &mut never).unwrap();
            let expected = bits(&logits(&mut saved));
            for options in [options(kv, 170, 64), spilling, ring] {
                let mut restored = open(&gguf, 2, options);
                restored.prefill(&prompt[50..90], &mut never).unwrap();
                restored.restore(ID, &mut file.as_slice()).unwrap();
                assert_eq!((restored.position(), restored.tokens()), (held, &prompt[..held]));
                assert!(restored.hidden(0).is_err(), "no logits before the next token");
                restored.prefill(&prompt[held..], &mut never).unwrap();
                assert_eq!(bits(&logits(&mut restored)), expected, "{kv:?} {held}");
            }
            // The file depends on the tokens alone, not on what the session did before or after.
            let mut again = Vec::new();
            saved.truncate(held).unwrap();
            saved.save(ID, &mut again).unwrap();
            assert!(file == again);
        }
    }
}

#[test]
fn a_saved_cache_of_something_else_is_refused_by_name() {
    let gguf = random_gguf(SMALL, FORMATS[3]);
    let mut session = open(&gguf, 1, options(KvType::F16, 100, 100));
    session.prefill(&tokens(70, SMALL.vocab), &mut never).unwrap();
    let before = session.tokens().to_vec();
    let mut file = Vec::new();
    session.save(ID, &mut file).unwrap();
    let message = |session: &mut Session, id: &str, file: &[u8]| {
        session.restore(id, &mut &file[..]).unwrap_err().to_string()
    };
    let text = message(&mut session, "another", &file);
    assert!(text.contains("the model is \"0123") && text.contains("expected \"another\""), "{text}");
    assert_eq!(session.tokens(), before, "the head did not fit: nothing happened");
    for (other, field) in [
        (options(KvType::Int8, 100, 100), "the type of keys and values is \"f16\", expected \"int8\""),
        (options(KvType::F16, 69, 69), "the token count is 70, expected at most the session's context of 69"),
    ] {
        let text = message(&mut open(&gguf, 1, other), ID, &file);
        assert!(text.contains(field), "{text}");
    }
    let smaller = random_gguf(Sizes { layers: 2, ..SMALL }, FORMATS[3]);
    let text = message(&mut open(&smaller, 1, options(KvType::F16, 100, 100)), ID, &file);
    assert!(text.contains("the layer count is 3, expected 2"), "{text}");
    let words = random_gguf(Sizes { vocab: 100, ..SMALL }, FORMATS[3]);
    let text = message(&mut open(&words, 1, options(KvType::F16, 100, 100)), ID, &file);
    assert!(text.contains("a token is") && text.contains("vocabulary's size of 100"), "{text}");
    assert!(session.save(&"x".repeat(65), &mut Vec::new()).is_err());
}

#[test]
fn a_damaged_saved_cache_never_passes() {
    let gguf = random_gguf(SMALL, FORMATS[3]);
    let mut session = open(&gguf, 1, options(KvType::Int8, 100, 100));
    session.prefill(&tokens(3, SMALL.vocab), &mut never).unwrap();
    let mut file = Vec::new();
    session.save(ID, &mut file).unwrap();
    let mut noise = Noise(5);
    for round in 0..400 {
        let mut spoiled = file.clone();
        let at = if round < 150 { round } else { (noise.next().abs() * file.len() as f32) as usize };
        let at = at.min(file.len() - 1);
        spoiled[at] ^= 1 << (round % 8);
        let error = session.restore(ID, &mut spoiled.as_slice()).expect_err("a changed byte is noticed");
        assert!(matches!(error, LlmError::KvFile { .. } | LlmError::KvFileIo { .. }), "{error}");
        assert!(session.position() == 0 || session.position() == 3);
    }
    for length in (0..300).chain([file.len() - 33, file.len() - 32, file.len() - 1]) {
        let error = session.restore(ID, &mut &file[..length]).unwrap_err();
        assert!(matches!(error, LlmError::KvFileIo { action: "read", .. }), "{error}");
    }
    session.restore(ID, &mut file.as_slice()).unwrap();
    assert_eq!(session.position(), 3);
    struct Full;
    impl std::io::Write for Full {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    assert!(matches!(session.save(ID, &mut Full), Err(LlmError::KvFileIo { action: "write", .. })));
}

#[test]
fn an_evaluated_prefix_is_read_at_the_next_start() {
    let folder = std::env::temp_dir().join(format!("ganglion-prefix-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    let gguf = random_gguf(SMALL, FORMATS[0]);
    let other = random_gguf(SMALL, FORMATS[1]);
    let prefix = tokens(70, SMALL.vocab);
    let kept = PackedFolder::new(folder.join("deeper")).from_size(0);
    assert_eq!(PackedFolder::new(&folder).prefix_file(&gguf), None, "too small to be worth a file");
    let file = kept.prefix_file(&gguf).unwrap();
    let mut fresh = session_with(&gguf, 1, Isa::detect(), SessionOptions::new(100));
    fresh.prefill(&prefix, &mut || false).unwrap();
    fresh.step(3, &mut || false).unwrap();
    let wanted = bits(&logits(&mut fresh));
    // Evaluated and written; read; damaged and written anew; read.
    for round in 0..4 {
        let mut session = session_with(&gguf, 2, Isa::detect(), SessionOptions::new(100));
        let path = file.path(&session, &prefix);
        assert_eq!(path.exists(), round > 0);
        if round == 2 {
            let mut bytes = std::fs::read(&path).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            std::fs::write(&path, bytes).unwrap();
        }
        let before = round > 0 && round != 2;
        let quiet = session.replace_profiler(Profiler::new(|| 0, 1000));
        file.restore_or_evaluate(&mut session, &prefix).unwrap();
        let spans = session.replace_profiler(quiet).spans().count();
        assert_eq!(spans == 0, before, "{spans} operations in round {round}");
        assert_eq!(session.tokens(), prefix);
        session.step(3, &mut || false).unwrap();
        assert_eq!(bits(&logits(&mut session)), wanted, "round {round}");
        assert_ne!(file.path(&session, &prefix[1..]), path);
        assert_ne!(kept.prefix_file(&other).unwrap().path(&session, &prefix), path);
    }
    assert_eq!(std::fs::read_dir(folder.join("deeper")).unwrap().count(), 1, "nothing else is left");
    std::fs::remove_dir_all(&folder).unwrap();
}
