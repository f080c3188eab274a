//! Packed weights on disk: the same bits as in memory, never those of another model, and never half of a file.

mod common;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::*;
use ganglion_gguf::Gguf;
use ganglion_kernels::Isa;
use ganglion_llm::{LlmError, Loaded, Model, ModelOptions, PackedFolder, Session, SessionOptions};

/// A folder of this test, removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ganglion-packed-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn model(&self, name: &str, format: usize) -> Gguf {
        let path = self.0.join(name);
        writer(SMALL, FORMATS[format], "").write_file(&path).unwrap();
        Gguf::open(&path).unwrap()
    }

    fn packed(&self) -> PackedFolder {
        PackedFolder::new(self.0.join("packed")).from_size(0)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn load(gguf: &Gguf, folder: Option<&PackedFolder>) -> (Vec<u32>, Loaded) {
    let options = ModelOptions { threads: 2, isa: Isa::detect() };
    let (model, loaded) = Model::load_with(gguf, options, folder).unwrap();
    let mut session = Session::new(Arc::new(model), SessionOptions::new(64)).unwrap();
    session.prefill(&tokens(20, SMALL.vocab), &mut || false).unwrap();
    (bits(&logits(&mut session)), loaded)
}

fn files(folder: &Path) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

#[test]
fn the_first_load_writes_what_the_next_one_maps() {
    let folder = Folder::new("again");
    for format in 0..FORMATS.len() {
        let gguf = folder.model(&format!("{format}.gguf"), format);
        let (expected, loaded) = load(&gguf, None);
        assert!(matches!(loaded, Loaded::Packed(None)));
        let (written, loaded) = load(&gguf, Some(&folder.packed()));
        assert!(matches!(loaded, Loaded::Written), "{loaded:?}");
        let (mapped, loaded) = load(&gguf, Some(&folder.packed()));
        assert!(matches!(loaded, Loaded::Mapped), "{loaded:?}");
        assert_eq!((&written, &mapped), (&expected, &expected));
    }
    assert_eq!(files(&folder.0.join("packed")), FORMATS.len(), "one file a model and nothing left over");
}

#[test]
fn a_changed_model_is_packed_anew() {
    let folder = Folder::new("changed");
    let first = folder.model("model.gguf", 3);
    let (_, loaded) = load(&first, Some(&folder.packed()));
    assert!(matches!(loaded, Loaded::Written));

    // The same header and length, other weights: the last bytes of the file belong to a norm, the middle to matrices.
    let path = folder.0.join("model.gguf");
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 4096].iter_mut().for_each(|b| *b ^= 0x01);
    std::fs::write(&path, bytes).unwrap();
    let second = Gguf::open(&path).unwrap();
    assert_ne!(folder.packed().file(&first), folder.packed().file(&second));
    let (expected, _) = load(&second, None);
    let (found, loaded) = load(&second, Some(&folder.packed()));
    assert!(matches!(loaded, Loaded::Written));
    assert_eq!(found, expected);
}

#[test]
fn a_damaged_file_is_replaced() {
    let folder = Folder::new("damaged");
    let gguf = folder.model("model.gguf", 4);
    let (expected, _) = load(&gguf, Some(&folder.packed()));
    let path = folder.packed().file(&gguf);
    let whole = std::fs::read(&path).unwrap();
    let mut other_version = whole.clone();
    other_version[8] ^= 1;
    let mut other_key = whole.clone();
    other_key[30] ^= 1;
    for damaged in [&whole[..whole.len() - 64], &whole[..100], &[], &other_version, &other_key] {
        std::fs::write(&path, damaged).unwrap();
        let (found, loaded) = load(&gguf, Some(&folder.packed()));
        assert!(matches!(loaded, Loaded::Written), "{loaded:?} with {} bytes", damaged.len());
        assert_eq!(found, expected);
        assert_eq!(std::fs::read(&path).unwrap(), whole);
    }
}

#[test]
fn without_a_usable_folder_the_weights_are_in_memory_and_the_reason_is_told() {
    let folder = Folder::new("unusable");
    let gguf = folder.model("model.gguf", 3);
    std::fs::write(folder.0.join("packed"), "a file where the folder should be").unwrap();
    let (found, loaded) = load(&gguf, Some(&folder.packed()));
    assert!(matches!(&loaded, Loaded::Packed(Some(LlmError::PackedFile { .. }))), "{loaded:?}");
    assert_eq!(found, load(&gguf, None).0);
}

#[test]
fn small_models_are_packed_into_memory() {
    let folder = Folder::new("small");
    let gguf = folder.model("model.gguf", 3);
    let (_, loaded) = load(&gguf, Some(&PackedFolder::new(folder.0.join("packed"))));
    assert!(matches!(loaded, Loaded::Packed(None)));
    assert!(!folder.0.join("packed").exists());
}
