//! Figures against llama.cpp's, and against what must hold for any model.

use std::path::Path;
use std::sync::Arc;

use ganglion_compress::{CompressError, Subject, Windows, measure};
use ganglion_gguf::Gguf;
use ganglion_llm::{KvType, Model, ModelOptions, Session, SessionOptions};
use ganglion_tokenizer::Tokenizer;

const TEXT: &str = include_str!("prompts.txt");

fn gguf(file: &str) -> Gguf {
    Gguf::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(file)).unwrap()
}

fn session(gguf: &Gguf, context: usize, batch: usize) -> Session {
    let model = Arc::new(Model::load(gguf, ModelOptions::default()).unwrap());
    let options = SessionOptions { batch_tokens: batch, kv: KvType::F32, ..SessionOptions::new(context) };
    Session::new(model, options).unwrap()
}

#[test]
fn perplexity_is_llama_cpps() {
    let nano = gguf("models/nano/nano.gguf");
    let windows = Windows::new(&Tokenizer::from_gguf(&nano).unwrap(), TEXT, 128).unwrap();
    let mut model = session(&nano, 128, 64);
    let found = measure(&mut Subject { model: &mut model, reference: None }, &windows, &mut |_| ()).unwrap();
    // llama-perplexity -m nano.gguf -f prompts.txt -c 128, build of llama-cpp-python 0.3.36
    let expected = 9338.7803;
    assert!((found.perplexity / expected - 1.0).abs() < 0.005, "{} is not {expected}", found.perplexity);
    assert_eq!(found.tokens, windows.count() * 63);
    assert_eq!(found.divergence, None);
}

#[test]
fn a_model_does_not_differ_from_itself_however_it_is_batched() {
    let nano = gguf("models/nano/nano.gguf");
    let windows = Windows::new(&Tokenizer::from_gguf(&nano).unwrap(), &TEXT[..4000], 64).unwrap();
    let (mut model, mut reference) = (session(&nano, 64, 64), session(&nano, 64, 7));
    let mut subject = Subject { model: &mut model, reference: Some(&mut reference) };
    let mut told = Vec::new();
    let found = measure(&mut subject, &windows, &mut |done| told.push(done)).unwrap();
    let divergence = found.divergence.unwrap();
    assert_eq!((divergence.kl_mean, divergence.kl_p99, divergence.top1_agreement), (0.0, 0.0, 1.0));
    assert_eq!(told, (1..=windows.count()).collect::<Vec<_>>());
}

#[test]
fn coarser_weights_are_further_away() {
    let exact = gguf("crates/llm/tests/golden/tiny-f32.gguf");
    let vocab = session(&exact, 32, 32).model().config().vocab_size as u32;
    let windows = Windows::of_tokens((0..960).map(|i| i * 7919 % vocab).collect(), 32, 960).unwrap();
    let kl = |file: &str| {
        let (mut model, mut reference) =
            (session(&gguf(&format!("crates/llm/tests/golden/{file}")), 32, 32), session(&exact, 32, 32));
        let mut subject = Subject { model: &mut model, reference: Some(&mut reference) };
        measure(&mut subject, &windows, &mut |_| ()).unwrap().divergence.unwrap().kl_mean
    };
    let (half, eight, four) = (kl("tiny-f16.gguf"), kl("tiny-q8_0.gguf"), kl("tiny-q4_0.gguf"));
    assert!(0.0 < half && half < eight && eight < four, "{half} {eight} {four}");
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let nano = gguf("models/nano/nano.gguf");
    let tokenizer = Tokenizer::from_gguf(&nano).unwrap();
    let short = Windows::new(&tokenizer, "set it down", 512);
    assert!(matches!(short, Err(CompressError::ShortText { needed: 512, .. })), "{short:?}");
    let narrow = Windows::new(&tokenizer, TEXT, 4);
    assert!(matches!(narrow, Err(CompressError::ShortWindow { found: 4, .. })), "{narrow:?}");

    let windows = Windows::new(&tokenizer, TEXT, 32).unwrap();
    let mut model = session(&nano, 32, 32);
    let mut reference = session(&gguf("crates/llm/tests/golden/tiny-f32.gguf"), 32, 32);
    let mut subject = Subject { model: &mut model, reference: Some(&mut reference) };
    let refused = measure(&mut subject, &windows, &mut |_| ());
    assert!(matches!(refused, Err(CompressError::Vocabulary { found: 1536, .. })), "{refused:?}");
}
