//! The default model, its text, and how far another model is from it.
#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ganglion_compress::{Divergence, Subject, Windows, measure};
use ganglion_gguf::Gguf;
use ganglion_llm::{KvType, Model, ModelOptions, Session, SessionOptions};
use ganglion_tokenizer::Tokenizer;

pub const TEXT: &str = include_str!("../prompts.txt");

pub fn nano() -> Gguf {
    Gguf::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/nano/nano.gguf")).unwrap()
}

pub fn folder(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("ganglion-compress-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).unwrap();
    path
}

pub fn one_thread() -> ModelOptions {
    ModelOptions { threads: 1, ..ModelOptions::default() }
}

/// Windows of 128 tokens of some bytes of the text.
pub fn windows(gguf: &Gguf, text: &str) -> Windows {
    Windows::new(&Tokenizer::from_gguf(gguf).unwrap(), text, 128).unwrap()
}

pub fn session(gguf: &Gguf) -> Session {
    let model = Arc::new(Model::load(gguf, one_thread()).unwrap());
    let options = SessionOptions { batch_tokens: 128, kv: KvType::F32, ..SessionOptions::new(128) };
    Session::new(model, options).unwrap()
}

/// Mean divergence from the default model on text that no calibration of tests reads.
pub fn divergence(path: &Path) -> f64 {
    divergence_of(&Gguf::open(path).unwrap())
}

pub fn divergence_of(gguf: &Gguf) -> f64 {
    let source = nano();
    divergence_from(&source, gguf, &windows(&source, &TEXT[12_000..15_000])).kl_mean
}

pub fn divergence_from(source: &Gguf, gguf: &Gguf, windows: &Windows) -> Divergence {
    let (mut model, mut reference) = (session(gguf), session(source));
    let mut subject = Subject { model: &mut model, reference: Some(&mut reference) };
    measure(&mut subject, windows, &mut |_| ()).unwrap().divergence.unwrap()
}
