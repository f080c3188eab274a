//! Golden models of the engine's tests, and what the engine makes of them.
#![allow(dead_code)]

#[path = "../../../llm/tests/common/mod.rs"]
pub mod engine;

pub use engine::{folder, shared, stored};

use std::path::PathBuf;
use std::sync::Arc;

use ganglion_gguf::Gguf;
use ganglion_kernels::{BlockFormat, argmax};
use ganglion_llm::convert::{Precision, llama2c};
use ganglion_llm::{KvType, Model, ModelOptions, Session, SessionOptions};

/// The committed models of these architectures are among those of `folder::cases`; they lie in the engine's tests.
pub fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../llm/tests/golden/hf").join(name)
}

/// A model with all its layers' matrices in two factors.
pub fn factored(gguf: &Gguf, format: BlockFormat) -> Gguf {
    engine::finish(engine::factored(gguf, format, ""))
}

pub fn session(gguf: &Gguf, kv: KvType, context: usize) -> Session {
    let model = Model::load(gguf, ModelOptions { threads: 1, ..ModelOptions::default() }).unwrap();
    let options = SessionOptions { kv, batch_tokens: 32.min(context), ..SessionOptions::new(context) };
    Session::new(Arc::new(model), options).unwrap()
}

pub fn logits(session: &mut Session) -> Vec<f32> {
    let mut out = vec![0.0; session.model().config().vocab_size];
    session.logits_all(&mut out).unwrap();
    out
}

/// Greedy tokens behind a prompt, each with the logits that it was chosen by.
pub fn greedy(session: &mut Session, prompt: &[u32], steps: usize) -> Vec<(u32, Vec<f32>)> {
    session.prefill(prompt, &mut || false).unwrap();
    let mut chosen = Vec::new();
    for _ in 0..steps {
        let logits = logits(session);
        let next = argmax(&logits).unwrap() as u32;
        chosen.push((next, logits));
        session.step(next, &mut || false).unwrap();
    }
    chosen
}

pub fn nano() -> Gguf {
    Gguf::open(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../models/nano/nano.gguf")).unwrap()
}

/// The 260,000 parameters of llama2.c's smallest model, if the shared data is there.
pub fn stories() -> Option<Gguf> {
    let folder = shared()?.join("data/stories260k");
    let read = |name: &str| std::fs::read(folder.join(name)).unwrap();
    let writer = llama2c(&read("stories260K.bin"), &read("tok512.bin"), Precision::Q8_0).unwrap();
    let mut bytes = Vec::new();
    writer.write_to(&mut bytes).unwrap();
    Some(Gguf::parse(bytes).unwrap())
}
