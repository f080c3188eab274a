//! Tokenizers of Hugging Face folders, converted: the same ids as before (tests/golden/make_tokenizers.py).

#[path = "common/folder.rs"]
mod folder;
use folder::*;

use std::path::{Path, PathBuf};

use ganglion_gguf::Gguf;
use ganglion_llm::LlmError;
use ganglion_llm::convert::{BlockFormat, ExportOptions, FolderExport, FolderOptions, ModelFolder};
use ganglion_tokenizer::{EncodeOptions, TokenKind, Tokenizer};
use serde_json::Value;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/hf-tokenizers").join(name)
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// A model folder with a committed tokenizer, and `spare` rows more than that has tokens.
fn with_tokenizer(name: &str, spare: usize) -> Temporary {
    let file = json(&golden(name).join("tokenizer.json"));
    let ids = file["model"]["vocab"].as_object().unwrap().values();
    let added = file["added_tokens"].as_array().unwrap().iter().map(|token| &token["id"]);
    let count = ids.chain(added).map(|id| id.as_u64().unwrap() as usize).max().unwrap() + 1;
    let model = small_llama(32, count + spare, |i| i as f32 * 1e-3);
    for entry in std::fs::read_dir(golden(name)).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), model.0.join(entry.file_name())).unwrap();
    }
    model
}

fn open(folder: &Temporary, pre: Option<&str>) -> Result<ModelFolder, LlmError> {
    ModelFolder::open(&folder.0, FolderOptions { pre_tokenizer: pre, ..FolderOptions::default() })
}

fn convert(folder: &Temporary, pre: Option<&str>) -> (Gguf, Tokenizer) {
    let mut bytes = Vec::new();
    open(folder, pre).unwrap_or_else(|error| panic!("{error}")).write_to(&mut bytes).unwrap();
    let gguf = Gguf::parse(bytes).unwrap();
    let tokenizer = Tokenizer::from_gguf(&gguf).unwrap();
    (gguf, tokenizer)
}

#[test]
fn ids_are_those_of_the_source() {
    for (name, model, pre, template) in [
        ("gpt2", "gpt2", "gpt-2", false),
        ("smollm", "gpt2", "smollm", true),
        ("qwen2", "gpt2", "qwen2", true),
        ("llama3", "gpt2", "llama-bpe", true),
        ("llama", "llama", "default", false),
        ("mistral", "llama", "default", false),
        ("gemma", "llama", "default", false),
    ] {
        let (gguf, tokenizer) = convert(&with_tokenizer(name, 3), None);
        assert_eq!(gguf.get_str("tokenizer.ggml.model").unwrap(), model, "{name}");
        assert_eq!(gguf.get_str("tokenizer.ggml.pre").unwrap(), pre, "{name}");
        let expected = json(&golden(name).join("vectors.json"));
        for vector in expected["vectors"].as_array().unwrap() {
            let text = vector["text"].as_str().unwrap();
            let ids: Vec<u32> = serde_json::from_value(vector["ids"].clone()).unwrap();
            let options = EncodeOptions { add_bos: false, parse_special: true };
            assert_eq!(tokenizer.encode(text, options), ids, "{name}: {text:?}");
        }
        let [front, behind] = [0, 1].map(|side| {
            let ids: Vec<u32> = serde_json::from_value(expected["around"][side].clone()).unwrap();
            ids
        });
        assert_eq!(tokenizer.add_bos_token(), !front.is_empty(), "{name}");
        if let [id] = front[..] {
            assert_eq!(tokenizer.bos(), Some(id), "{name}");
        }
        // tokenizer_config.json has the last word: the llama case takes its file's end token back.
        assert_eq!(tokenizer.add_eos_token(), !behind.is_empty() && name != "llama", "{name}");
        assert_eq!(tokenizer.chat_template().is_some(), template, "{name}");
        assert_eq!(tokenizer.token_kind(tokenizer.vocab_size() as u32 - 1), TokenKind::Unused, "{name}");
    }
}

#[test]
fn ids_stay_the_same_over_an_export() {
    for name in ["gpt2", "smollm", "qwen2", "llama3", "llama", "mistral", "gemma"] {
        let (gguf, before) = convert(&with_tokenizer(name, 3), None);
        let out = Temporary::new();
        let folder = Temporary(out.0.join("model"));
        let options = ExportOptions { format: BlockFormat::F32, without_tokenizer: false };
        FolderExport::new(&gguf, options).unwrap().write(&folder.0, &mut |_| ()).unwrap();
        let (_, after) = convert(&folder, None);
        assert_eq!(before.vocab_size(), after.vocab_size(), "{name}");
        assert_eq!(before.chat_template(), after.chat_template(), "{name}");
        let roles = |tokenizer: &Tokenizer| {
            let around = (tokenizer.add_bos_token(), tokenizer.add_eos_token());
            (tokenizer.bos(), tokenizer.eos(), tokenizer.unknown(), around)
        };
        assert_eq!(roles(&before), roles(&after), "{name}");
        let expected = json(&golden(name).join("vectors.json"));
        for vector in expected["vectors"].as_array().unwrap() {
            let text = vector["text"].as_str().unwrap();
            let ids: Vec<u32> = serde_json::from_value(vector["ids"].clone()).unwrap();
            let options = EncodeOptions { add_bos: false, parse_special: true };
            assert_eq!(after.encode(text, options), ids, "{name}: {text:?}");
        }
    }
}

#[test]
fn roles_come_from_the_files_that_state_them() {
    let text = |tokenizer: &Tokenizer, id: Option<u32>| {
        id.map(|id| String::from_utf8_lossy(tokenizer.token_bytes(id)).into_owned())
    };
    let (_, qwen2) = convert(&with_tokenizer("qwen2", 0), None);
    assert_eq!(text(&qwen2, qwen2.bos()), None);
    assert_eq!(text(&qwen2, qwen2.eos()).as_deref(), Some("<|im_end|>"));
    assert!(qwen2.chat_template().unwrap().starts_with("{% for"), "the default of several");
    assert_eq!(qwen2.token_kind(qwen2.vocab_size() as u32 - 1), TokenKind::UserDefined, "<tool>");
    // special_tokens_map.json, where the settings say nothing.
    let (_, mistral) = convert(&with_tokenizer("mistral", 0), None);
    assert_eq!(text(&mistral, mistral.eos()).as_deref(), Some("</s>"));
    let (_, llama3) = convert(&with_tokenizer("llama3", 0), None);
    assert!(llama3.chat_template().unwrap().starts_with("{{ bos_token }}"), "chat_template.jinja");
    // Without any of these files: config.json.
    let bare = with_tokenizer("gpt2", 0);
    std::fs::remove_file(bare.0.join("tokenizer_config.json")).unwrap();
    bare.edit("config.json", |config| config["eos_token_id"] = serde_json::json!([7, 9]));
    assert_eq!(convert(&bare, None).1.eos(), Some(7));
}

#[test]
fn the_name_of_phi_3_is_kept_where_special_tokens_swallow_spaces() {
    let folder = with_tokenizer("llama", 1);
    let vocab = json(&folder.0.join("config.json"))["vocab_size"].as_u64().unwrap() as usize;
    folder.edit("config.json", |config| config["architectures"][0] = "Phi3ForCausalLM".into());
    let layer = |name: &str| format!("model.layers.0.{name}.weight");
    let tensors = [
        ("model.embed_tokens.weight".to_owned(), vec![vocab, 32]),
        ("model.norm.weight".to_owned(), vec![32]),
        (layer("input_layernorm"), vec![32]),
        (layer("post_attention_layernorm"), vec![32]),
        (layer("self_attn.qkv_proj"), vec![96, 32]),
        (layer("self_attn.o_proj"), vec![32, 32]),
        (layer("mlp.gate_up_proj"), vec![128, 32]),
        (layer("mlp.down_proj"), vec![32, 64]),
    ]
    .map(|(name, shape)| {
        let count = shape.iter().product();
        (name, shape, vec![0.5; count])
    });
    folder.write("model.safetensors", safetensors(&tensors));
    let name = || convert(&folder, None).0.get_str("general.name").unwrap().to_owned();
    assert!(name().starts_with("ganglion-llm-"), "the folder's: {}", name());
    folder.edit("tokenizer.json", |file| {
        let mut end = file["added_tokens"][2].clone();
        (end["id"], end["content"]) = ((vocab - 1).into(), "<|endoftext|>".into());
        let added = file["added_tokens"].as_array_mut().unwrap();
        added[2]["rstrip"] = true.into();
        added.push(end);
    });
    assert!(name().starts_with("Phi-3 "), "{}", name());
    let (_, tokenizer) = convert(&folder, None);
    let options = EncodeOptions { add_bos: false, parse_special: true };
    assert_eq!(tokenizer.encode("</s>  x", options), tokenizer.encode("</s>x", options));
    folder.edit("config.json", |config| config["_name_or_path"] = "microsoft/Phi-3-mini".into());
    assert_eq!(name(), "Phi-3-mini");
}

#[test]
fn a_definition_that_is_not_known_needs_a_name() {
    let folder = with_tokenizer("unknown", 0);
    let error = open(&folder, None).err().unwrap().to_string();
    assert!(error.contains("tokenizer.json: pre_tokenizer is") && error.contains("--pre NAME"), "{error}");
    let (gguf, _) = convert(&folder, Some("gpt-2"));
    assert_eq!(gguf.get_str("tokenizer.ggml.pre").unwrap(), "gpt-2");
    let error = open(&folder, Some("no-such")).err().unwrap().to_string();
    assert!(error.contains("no-such") && error.contains("qwen2"), "{error}");
}

#[test]
fn what_gguf_cannot_hold_is_refused() {
    type Change = fn(&mut Value);
    let native = open(&with_tokenizer("native", 0), None).err().unwrap().to_string();
    assert!(native.contains("not those of a SentencePiece model"), "{native}");
    let cases: [(&str, Change, &str); 12] = [
        ("gpt2", |file| file["model"]["type"] = "Unigram".into(), "model.type is Unigram, expected BPE"),
        ("gpt2", |file| file["model"]["dropout"] = 0.5.into(), "model.dropout is 0.5"),
        ("gpt2", |file| file["model"]["end_of_word_suffix"] = "</w>".into(), "end_of_word_suffix"),
        (
            "gpt2",
            |file| file["normalizer"] = serde_json::json!({"type": "Lowercase"}),
            "expected none or NFC",
        ),
        ("gpt2", |file| file["pre_tokenizer"]["add_prefix_space"] = true.into(), "pre_tokenizer is"),
        ("gpt2", |file| file["model"]["ignore_merges"] = true.into(), "ignore_merges"),
        ("gpt2", |file| file["model"]["merges"][0] = "nosuch token".into(), "cannot be used"),
        ("gpt2", |file| file["model"]["vocab"]["zzz"] = 5.into(), "expected another id"),
        ("gpt2", |file| file["model"]["vocab"]["zzz"] = 1_000_000.into(), "expected an id below vocab_size"),
        ("gpt2", |file| file["added_tokens"][0]["id"] = 5.into(), "expected another id"),
        ("llama", |file| file["normalizer"] = Value::Null, "writes spaces as"),
        ("llama", |file| drop(file["model"]["merges"].as_array_mut().unwrap().remove(20)), "SentencePiece"),
    ];
    for (name, change, expected) in cases {
        let folder = with_tokenizer(name, 0);
        folder.edit("tokenizer.json", change);
        let error = open(&folder, None).err().unwrap_or_else(|| panic!("{expected} accepted")).to_string();
        assert!(error.contains("tokenizer.json") && error.contains(expected), "{error}");
    }
}

#[test]
fn a_missing_tokenizer_is_said() {
    let folder = small_llama(32, 40, |_| 0.5);
    let error = open(&folder, None).err().unwrap().to_string();
    assert!(error.contains("tokenizer.json: is missing; save it with"), "{error}");
    folder.write("tokenizer.model", "");
    let error = open(&folder, None).err().unwrap().to_string();
    assert!(error.contains("older form"), "{error}");
}

#[test]
fn damaged_tokenizers_never_panic() {
    let mut state = 12345u64;
    let mut next = move |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as usize % below
    };
    let mut refusals = 0;
    for name in ["llama3", "gemma"] {
        let folder = with_tokenizer(name, 0);
        let whole = std::fs::read(folder.0.join("tokenizer.json")).unwrap();
        for _ in 0..150 {
            let mut bytes = whole.clone();
            for _ in 0..2 {
                // Printable, so that many stay JSON.
                bytes[next(whole.len())] = b' ' + next(95) as u8;
            }
            folder.write("tokenizer.json", &bytes);
            refusals += usize::from(open(&folder, None).is_err());
        }
    }
    assert!(refusals > 100, "{refusals}");
}
