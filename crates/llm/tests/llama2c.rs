//! A converted llama2.c model tells its documented story, and agrees with llama.cpp.

mod common;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use common::*;
use ganglion_gguf::Gguf;
use ganglion_kernels::Isa;
use ganglion_llm::convert::{Precision, llama2c};
use ganglion_llm::*;
use ganglion_tokenizer::Tokenizer;

fn converted(folder: &Path, precision: Precision) -> Gguf {
    let model = std::fs::read(folder.join("stories260K.bin")).unwrap();
    let tokenizer = std::fs::read(folder.join("tok512.bin")).unwrap();
    let gguf = finish(llama2c(&model, &tokenizer, precision).unwrap());
    // Where the golden script finds it: tests/golden/make.py FILE.
    if let Some(path) = std::env::var_os("GANGLION_WRITE_STORIES").filter(|_| precision == Precision::F32) {
        std::fs::write(path, gguf.bytes()).unwrap();
    }
    gguf
}

/// The text between the command line and the end of its code block.
fn documented(folder: &Path) -> String {
    let page = std::fs::read_to_string(folder.join("stories260K.md")).unwrap();
    let (_, after) = page.split_once("-t 0.0\n").unwrap();
    after.split_once("\n```").unwrap().0.to_owned()
}

#[test]
fn the_documented_story_is_told_word_for_word() {
    let Some(shared) = shared() else { return };
    let folder = shared.join("data/stories260k");
    let gguf = converted(&folder, Precision::F32);
    let tokenizer = Tokenizer::from_gguf(&gguf).unwrap();
    for threads in [1, 2] {
        let options = ModelOptions { threads, isa: Isa::detect() };
        let model = Arc::new(Model::load(&gguf, options).unwrap());
        let mut session = Session::new(model, exact(512, 64)).unwrap();
        let mut text = String::new();
        generate_text(
            &mut session,
            &tokenizer,
            "",
            256,
            &mut Sampler::greedy(),
            &mut || false,
            &mut |piece| {
                text.push_str(piece);
                ControlFlow::Continue(())
            },
        )
        .unwrap();
        let expected = documented(&folder);
        assert!(expected.len() > 500 && text.starts_with(&expected), "{text}");
    }
}

#[test]
fn logits_agree_with_llama_cpp() {
    let Some(shared) = shared() else { return };
    let golden: serde_json::Value = serde_json::from_str(include_str!("golden/stories.json")).unwrap();
    let tokens: Vec<u32> = serde_json::from_value(golden["tokens"].clone()).unwrap();
    let last: Vec<f32> = serde_json::from_value(golden["last"].clone()).unwrap();
    let best: Vec<usize> = serde_json::from_value(golden["argmax"].clone()).unwrap();
    let gguf = converted(&shared.join("data/stories260k"), Precision::F32);
    let mut session = session(&gguf, 1, Isa::detect(), 64, 64);
    session.prefill(&tokens, &mut || false).unwrap();
    let ours = logits(&mut session);
    let worst = ours.iter().zip(&last).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    // Both compute in f32; only the order of sums differs. Logits reach 20; a hundred roundings of 2^-24 each.
    assert!(worst < 1e-4, "{worst}");
    let mut all = vec![0.0; ours.len()];
    for (index, expected) in best.iter().enumerate() {
        session.logits_all_at(index, &mut all).unwrap();
        assert_eq!(ganglion_kernels::argmax(&all), Some(*expected), "token {index}");
    }
}

#[test]
fn q8_0_keeps_most_choices() {
    let Some(shared) = shared() else { return };
    let folder = shared.join("data/stories260k");
    let run = |precision| {
        let mut session = session(&converted(&folder, precision), 1, Isa::detect(), 256, 64);
        let mut story = Vec::new();
        generate_greedy(&mut session, &[1], 30, &[], &mut || false, &mut |token| {
            story.push(token);
            ControlFlow::Continue(())
        })
        .unwrap();
        story
    };
    let (exact, rounded) = (run(Precision::F32), run(Precision::Q8_0));
    assert_eq!(exact[..10], rounded[..10]);
}

#[test]
fn damaged_checkpoints_are_refused_with_a_place() {
    let Some(shared) = shared() else { return };
    let folder = shared.join("data/stories260k");
    let model = std::fs::read(folder.join("stories260K.bin")).unwrap();
    let tokenizer = std::fs::read(folder.join("tok512.bin")).unwrap();
    for length in [0, 3, 27, 28, 1000, model.len() - 1] {
        assert!(matches!(
            llama2c(&model[..length], &tokenizer, Precision::F32),
            Err(LlmError::Llama2c { part: "llama2.c checkpoint", .. })
        ));
    }
    let longer = [&model[..], &[0; 4]].concat();
    assert!(llama2c(&longer, &tokenizer, Precision::F32).is_err());
    for length in [0, 5, 400, tokenizer.len() - 1] {
        assert!(matches!(
            llama2c(&model, &tokenizer[..length], Precision::F32),
            Err(LlmError::Llama2c { part: "llama2.c tokenizer", .. })
        ));
    }
    let mut negative = model.clone();
    negative[0..4].copy_from_slice(&(-1i32).to_le_bytes());
    let error = llama2c(&negative, &tokenizer, Precision::F32).err().unwrap();
    assert!(error.to_string().contains("dim is -1"));
}
