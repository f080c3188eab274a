//! `tokenizer.*` keys as tokenizer.json and tokenizer_config.json.
//!
//! All tokens stand in the vocabulary under their ids; those that a text is searched for are listed as added tokens too. The
//! pieces of byte-level vocabularies are defined as `super::super::tokenizer::bpe` knows them; merges of SentencePiece's follow
//! from the scores.

use std::collections::HashMap;

use ganglion_gguf::{Gguf, OptionalExt};
use serde_json::{Map, Value, json};

use super::super::tokenizer::{CONTROL, NORMAL, SPACE, UNKNOWN, UNUSED, USER_DEFINED, definition};
use super::{pretty, refuse};
use crate::config::Config;
use crate::error::Result;

/// Names and contents of the tokenizer's files; none for a file without a tokenizer.
pub(super) fn files(gguf: &Gguf, config: &Config) -> Result<Vec<(&'static str, String)>> {
    let kind = gguf.get_str("tokenizer.ggml.model").optional()?.unwrap_or("none");
    if kind == "none" || kind == "no_vocab" {
        return Ok(Vec::new());
    }
    let tokens = Tokens::read(gguf, config)?;
    let model = match kind {
        "gpt2" => byte_level(gguf, &tokens)?,
        "llama" => sentence_piece(gguf, &tokens)?,
        other => {
            return Err(refuse(format!("tokenizer.ggml.model is \"{other}\", expected gpt2 or llama")));
        }
    };
    let mut file = model;
    file.insert("version".to_owned(), "1.0".into());
    file.insert("truncation".to_owned(), Value::Null);
    file.insert("padding".to_owned(), Value::Null);
    file.insert("added_tokens".to_owned(), tokens.added());
    file.insert("post_processor".to_owned(), tokens.processor(kind == "gpt2"));
    Ok(vec![
        ("tokenizer.json", pretty(Value::Object(file))),
        ("tokenizer_config.json", tokens.settings(gguf, config)?),
    ])
}

struct Tokens {
    texts: Vec<String>,
    types: Vec<i32>,
    /// By role: bos, eos, unk, pad.
    roles: [(&'static str, Option<u32>); 4],
    /// Whether the first two are put around a text.
    around: [bool; 2],
}

impl Tokens {
    fn read(gguf: &Gguf, config: &Config) -> Result<Self> {
        let texts: Vec<String> =
            gguf.get_str_array("tokenizer.ggml.tokens")?.iter().map(str::to_owned).collect();
        let types = gguf.get_i32_array("tokenizer.ggml.token_type").optional()?;
        let types = types.unwrap_or_else(|| vec![NORMAL; texts.len()]);
        if types.len() != texts.len() || texts.len() > config.vocab_size {
            let (tokens, types, rows) = (texts.len(), types.len(), config.vocab_size);
            return Err(refuse(format!("{tokens} tokens, {types} types, {rows} rows of the embedding")));
        }
        let role = |key: &str| gguf.get_u32(&format!("tokenizer.ggml.{key}_token_id")).optional();
        let roles = [
            ("bos", role("bos")?),
            ("eos", role("eos")?),
            ("unk", role("unknown")?),
            ("pad", role("padding")?),
        ];
        let tokenizer = ganglion_tokenizer::Tokenizer::from_gguf(gguf)
            .map_err(|error| refuse(format!("its vocabulary cannot be used: {error}")))?;
        let around = [tokenizer.add_bos_token(), tokenizer.add_eos_token()];
        Ok(Self { texts, types, roles, around })
    }

    fn all(&self) -> impl Iterator<Item = (usize, &str, i32)> {
        self.texts.iter().zip(&self.types).enumerate().map(|(id, (text, kind))| (id, text.as_str(), *kind))
    }

    /// Whether an id only fills a row.
    fn is_filler(id: usize, text: &str, kind: i32) -> bool {
        kind == UNUSED && text == format!("[PAD{id}]")
    }

    /// The vocabulary, spelled by `spell`.
    fn vocabulary(&self, spell: impl Fn(&str, i32) -> String) -> Result<Map<String, Value>> {
        let mut vocabulary = Map::new();
        for (id, text, kind) in self.all().filter(|(id, text, kind)| !Self::is_filler(*id, text, *kind)) {
            if let Some(other) = vocabulary.insert(spell(text, kind), id.into()) {
                return Err(refuse(format!("tokens {other} and {id} have the same text {text:?}")));
            }
        }
        Ok(vocabulary)
    }

    fn added(&self) -> Value {
        let entries = self.all().filter(|(_, _, kind)| matches!(*kind, CONTROL | USER_DEFINED | UNKNOWN));
        let entry = |(id, text, kind): (usize, &str, i32)| {
            json!({
                "id": id, "content": text, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": kind != USER_DEFINED,
            })
        };
        entries.map(entry).collect()
    }

    fn text_of(&self, role: usize) -> Option<&str> {
        self.roles[role].1.and_then(|id| self.texts.get(id as usize)).map(String::as_str)
    }

    /// What is put around a text.
    fn processor(&self, byte_level: bool) -> Value {
        let mut single = Vec::new();
        let mut special = Map::new();
        let mut token = |role: usize, single: &mut Vec<Value>| {
            if let (true, Some(text), Some(id)) = (self.around[role], self.text_of(role), self.roles[role].1)
            {
                single.push(json!({"SpecialToken": {"id": text, "type_id": 0}}));
                special.insert(text.to_owned(), json!({"id": text, "ids": [id], "tokens": [text]}));
            }
        };
        token(0, &mut single);
        single.push(json!({"Sequence": {"id": "A", "type_id": 0}}));
        token(1, &mut single);
        if special.is_empty() && byte_level {
            return json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
        }
        let mut pair = single.clone();
        let second = |part: &Value| {
            let mut part = part.clone();
            if let Some(inner) = part.as_object_mut().and_then(|part| part.values_mut().next()) {
                inner["type_id"] = 1.into();
                if inner["id"] == "A" {
                    inner["id"] = "B".into();
                }
            }
            part
        };
        pair.extend(single.iter().map(second));
        json!({"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": special})
    }

    fn settings(&self, gguf: &Gguf, config: &Config) -> Result<String> {
        let mut map = Map::new();
        map.insert("tokenizer_class".to_owned(), "PreTrainedTokenizerFast".into());
        map.insert("model_max_length".to_owned(), config.context_length.into());
        map.insert("clean_up_tokenization_spaces".to_owned(), false.into());
        for (role, (name, _)) in self.roles.iter().enumerate() {
            if let Some(text) = self.text_of(role) {
                map.insert(format!("{name}_token"), text.into());
            }
        }
        for (add, name) in self.around.iter().zip(["add_bos_token", "add_eos_token"]) {
            map.insert(name.to_owned(), (*add).into());
        }
        if let Some(template) = gguf.get_str("tokenizer.chat_template").optional()? {
            map.insert("chat_template".to_owned(), template.into());
        }
        Ok(pretty(Value::Object(map)))
    }
}

fn byte_level(gguf: &Gguf, tokens: &Tokens) -> Result<Map<String, Value>> {
    let pre = gguf.get_str("tokenizer.ggml.pre").optional()?.unwrap_or("default");
    let Some((pre_tokenizer, ignore_merges)) = definition(pre) else {
        let reason = format!(
            "tokenizer.ggml.pre is \"{pre}\", whose definition is not known here; leave the tokenizer out with --no-tokenizer"
        );
        return Err(refuse(reason));
    };
    let merges: Vec<&str> = gguf.get_str_array("tokenizer.ggml.merges")?.iter().collect();
    let model = json!({
        "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
        "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": ignore_merges,
        "vocab": tokens.vocabulary(|text, _| text.to_owned())?, "merges": merges,
    });
    let mut file = Map::new();
    file.insert("normalizer".to_owned(), Value::Null);
    file.insert("pre_tokenizer".to_owned(), pre_tokenizer);
    file.insert("model".to_owned(), model);
    let decoder =
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    file.insert("decoder".to_owned(), decoder);
    Ok(file)
}

fn sentence_piece(gguf: &Gguf, tokens: &Tokens) -> Result<Map<String, Value>> {
    let scores = gguf.get_f32_array("tokenizer.ggml.scores")?;
    let prefix = gguf.get_bool("tokenizer.ggml.add_space_prefix").optional()?.unwrap_or(true);
    if scores.len() != tokens.texts.len() {
        return Err(refuse(format!("{} tokens, but {} scores", tokens.texts.len(), scores.len())));
    }
    let model = json!({
        "type": "BPE", "dropout": null, "unk_token": tokens.text_of(2), "continuing_subword_prefix": null,
        "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
        "vocab": tokens.vocabulary(|text, _| text.to_owned())?, "merges": merges(tokens, scores),
    });
    let mut steps = Vec::new();
    if prefix {
        steps.push(json!({"type": "Prepend", "prepend": SPACE}));
    }
    steps.push(json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE}));
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": SPACE}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if prefix {
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    let mut file = Map::new();
    file.insert("normalizer".to_owned(), json!({"type": "Sequence", "normalizers": steps}));
    file.insert("pre_tokenizer".to_owned(), Value::Null);
    file.insert("model".to_owned(), model);
    file.insert("decoder".to_owned(), json!({"type": "Sequence", "decoders": decoders}));
    Ok(file)
}

/// Every pair of tokens that makes a token, the best-scored token first: what a reader of scores would merge, in its order.
fn merges(tokens: &Tokens, scores: &[f32]) -> Value {
    let ids: HashMap<&str, usize> =
        tokens.all().filter(|(_, _, kind)| *kind == NORMAL).map(|(id, text, _)| (text, id)).collect();
    let mut order: Vec<usize> = ids.values().copied().collect();
    order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b)));
    let mut merges = Vec::new();
    for id in order {
        let text = &tokens.texts[id];
        let mut pairs: Vec<(usize, usize)> = text
            .char_indices()
            .skip(1)
            .filter_map(|(at, _)| Some((*ids.get(&text[..at])?, *ids.get(&text[at..])?)))
            .collect();
        pairs.sort_unstable();
        merges.extend(pairs.into_iter().map(|(a, b)| [&tokens.texts[a], &tokens.texts[b]]));
    }
    // One text with a space between is what every version reads; newer ones read pairs too.
    if merges.iter().flatten().any(|text| text.contains(' ')) {
        return json!(merges);
    }
    merges.iter().map(|[left, right]| Value::from(format!("{left} {right}"))).collect()
}
