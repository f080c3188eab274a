//! Hugging Face folders: the committed ones, and small ones made by a test.
#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use ganglion_gguf::Gguf;
use ganglion_llm::convert::{BlockFormat, FolderOptions, ModelFolder};

/// The committed models, by name.
pub fn cases() -> Vec<(String, PathBuf)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/hf");
    let mut cases: Vec<_> = std::fs::read_dir(root)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), path))
        .collect();
    cases.sort();
    assert!(cases.len() > 10);
    cases
}

pub fn case(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/hf").join(name)
}

/// A folder without tokenizer as GGUF.
pub fn converted(folder: &Path, format: Option<BlockFormat>) -> Gguf {
    let options = FolderOptions { format, without_tokenizer: true, ..FolderOptions::default() };
    let mut bytes = Vec::new();
    let folder = ModelFolder::open(folder, options).unwrap_or_else(|error| panic!("{error}"));
    folder.write_to(&mut bytes).unwrap();
    Gguf::parse(bytes).unwrap()
}

/// What transformers computed: tokens, hidden states after each layer (layer, token, value), logits (token, vocabulary).
pub struct Expected {
    pub tokens: Vec<u32>,
    pub layer_count: usize,
    pub embedding_length: usize,
    pub vocab_size: usize,
    pub hidden: Vec<f32>,
    pub logits: Vec<f32>,
}

pub fn expected(folder: &Path) -> Expected {
    let text = std::fs::read_to_string(folder.join("expected.json")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let count = |name: &str| json[name].as_u64().unwrap() as usize;
    let bytes = std::fs::read(folder.join("expected.bin")).unwrap();
    let mut hidden: Vec<f32> =
        bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    let tokens: Vec<u32> = serde_json::from_value(json["tokens"].clone()).unwrap();
    let logits = hidden.split_off(count("layer_count") * tokens.len() * count("embedding_length"));
    assert_eq!(logits.len(), tokens.len() * count("vocab_size"));
    Expected {
        layer_count: count("layer_count"),
        embedding_length: count("embedding_length"),
        vocab_size: count("vocab_size"),
        tokens,
        hidden,
        logits,
    }
}

/// A folder that is removed when dropped.
pub struct Temporary(pub PathBuf);

impl Temporary {
    pub fn new() -> Self {
        static COUNTER: AtomicUsize = AtomicUsize::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("ganglion-llm-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// A copy of a folder's files.
    pub fn copy_of(folder: &Path) -> Self {
        let copy = Self::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), copy.0.join(entry.file_name())).unwrap();
        }
        copy
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        std::fs::write(self.0.join(name), bytes).unwrap();
    }

    /// Changes a JSON file.
    pub fn edit(&self, name: &str, change: impl FnOnce(&mut serde_json::Value)) {
        let text = std::fs::read_to_string(self.0.join(name)).unwrap();
        let mut json = serde_json::from_str(&text).unwrap();
        change(&mut json);
        self.write(name, json.to_string());
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A safetensors file of f32 tensors.
pub fn safetensors(tensors: &[(String, Vec<usize>, Vec<f32>)]) -> Vec<u8> {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, shape, values) in tensors {
        let start = data.len();
        data.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        let entry = serde_json::json!({"dtype": "F32", "shape": shape, "data_offsets": [start, data.len()]});
        header.insert(name.clone(), entry);
    }
    let header = serde_json::Value::Object(header).to_string();
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat()
}

/// A llama folder of one layer whose matrices have `columns` columns and the values that `value` gives.
pub fn small_llama(columns: usize, vocab: usize, value: impl Fn(usize) -> f32) -> Temporary {
    let folder = Temporary::new();
    let config = serde_json::json!({
        "architectures": ["LlamaForCausalLM"], "hidden_size": columns, "intermediate_size": 2 * columns,
        "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 64, "vocab_size": vocab,
        "rms_norm_eps": 1e-5, "tie_word_embeddings": true, "hidden_act": "silu",
    });
    folder.write("config.json", config.to_string());
    let layer = |name: &str| format!("model.layers.0.{name}.weight");
    let shapes = [
        ("model.embed_tokens.weight".to_owned(), vec![vocab, columns]),
        ("model.norm.weight".to_owned(), vec![columns]),
        (layer("input_layernorm"), vec![columns]),
        (layer("post_attention_layernorm"), vec![columns]),
        (layer("self_attn.q_proj"), vec![columns, columns]),
        (layer("self_attn.k_proj"), vec![columns, columns]),
        (layer("self_attn.v_proj"), vec![columns, columns]),
        (layer("self_attn.o_proj"), vec![columns, columns]),
        (layer("mlp.gate_proj"), vec![2 * columns, columns]),
        (layer("mlp.up_proj"), vec![2 * columns, columns]),
        (layer("mlp.down_proj"), vec![columns, 2 * columns]),
    ];
    let tensors = shapes.map(|(name, shape)| {
        let values = (0..shape.iter().product()).map(&value).collect();
        (name, shape, values)
    });
    folder.write("model.safetensors", safetensors(&tensors));
    folder
}
