//! tokenizer.json and the files beside it to `tokenizer.*` keys.
//!
//! Two kinds fit GGUF: byte-level BPE (`gpt2`, with merges and the name of a pre-tokenizer), and SentencePiece BPE with
//! byte fallback (`llama`, with scores). Whatever else the file asks for is refused: a tokenizer that is nearly right
//! gives answers that are nearly right.

mod bpe;
mod spm;

pub(super) use self::bpe::definition;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use ganglion_gguf::{Array, GgufWriter, Header, StringArray, Value};
use ganglion_tokenizer::Tokenizer;
use serde::Deserialize;
use serde_json::Map;

use super::fields::Fields;
use super::folder::{read_object, read_text};
use crate::error::{LlmError, Result};
use crate::limits;

const FILE: &str = "tokenizer.json";
/// SentencePiece's mark for a space.
pub(super) const SPACE: &str = "\u{2581}";
/// Types in `tokenizer.ggml.token_type`.
pub(super) const NORMAL: i32 = 1;
pub(super) const UNKNOWN: i32 = 2;
pub(super) const CONTROL: i32 = 3;
pub(super) const USER_DEFINED: i32 = 4;
pub(super) const UNUSED: i32 = 5;
const BYTE: i32 = 6;

type Json = serde_json::Value;
type Metadata = Vec<(String, Value)>;

/// What is read before the rest, to say which kinds are known.
#[derive(Deserialize)]
struct Outline {
    model: OutlineModel,
}

#[derive(Deserialize)]
struct OutlineModel {
    #[serde(rename = "type")]
    kind: Option<String>,
}

#[derive(Deserialize)]
struct File {
    model: Model,
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
    normalizer: Option<Json>,
    pre_tokenizer: Option<Json>,
    post_processor: Option<Json>,
}

#[derive(Deserialize)]
struct Model {
    vocab: HashMap<String, u32>,
    #[serde(default)]
    merges: Vec<Merge>,
    unk_token: Option<String>,
    dropout: Option<f64>,
    #[serde(default)]
    byte_fallback: bool,
    #[serde(default)]
    ignore_merges: bool,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Pair(String, String),
    Joined(String),
}

#[derive(Deserialize)]
struct AddedToken {
    id: u32,
    content: String,
    #[serde(default)]
    special: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default)]
    normalized: bool,
}

/// Texts and types of all tokens, by id.
struct Tokens {
    texts: Vec<String>,
    types: Vec<i32>,
}

/// The keys, and what a name of the model must say for them.
pub(super) struct Converted {
    pub(super) metadata: Metadata,
    /// Special tokens swallow the spaces behind them, which readers know by the name of Phi-3 only.
    pub(super) strips_right: bool,
}

fn refuse(file: &Path, field: &str, found: impl ToString, expected: impl Into<String>) -> LlmError {
    LlmError::SourceField {
        file: file.to_owned(),
        field: field.to_owned(),
        found: found.to_string(),
        expected: expected.into(),
    }
}

/// Reads the tokenizer of a folder whose model has `vocab_size` rows. `pre` names the pre-tokenizer of a byte-level
/// vocabulary where its definition is not a known one.
pub(super) fn convert(
    folder: &Path,
    vocab_size: usize,
    config: Fields<'_>,
    pre: Option<&str>,
) -> Result<Converted> {
    let path = folder.join(FILE);
    let Some(text) = read_text(&path, limits::SOURCE_TOKENIZER_BYTES_MAX)? else {
        return Err(LlmError::SourceFile { file: path, reason: missing(folder) });
    };
    let file = parse(&path, &text)?;
    drop(text);
    let mut tokens = collect(&path, &file, vocab_size)?;
    let mut metadata = if file.model.byte_fallback {
        spm::convert(&path, &file, &mut tokens)?
    } else {
        bpe::convert(&path, &file, pre)?
    };
    let ids = ids(&tokens);
    // Readers that go by the name expect this token too.
    let strips_right = ids.contains_key("<|endoftext|>")
        && file.added_tokens.iter().any(|token| token.special && token.rstrip);
    let settings_path = folder.join("tokenizer_config.json");
    let settings = read_object(&settings_path)?.unwrap_or_default();
    let settings = Fields::new(&settings_path, &settings);
    special(folder, settings, config, &file, &ids, &mut metadata)?;
    if let Some(template) = template(folder, settings)? {
        metadata.push(("tokenizer.chat_template".to_owned(), template.into()));
    }
    let texts: StringArray = tokens.texts.iter().fold(StringArray::new(), |mut texts, text| {
        texts.push(text);
        texts
    });
    metadata.push(("tokenizer.ggml.tokens".to_owned(), texts.into()));
    metadata.push(("tokenizer.ggml.token_type".to_owned(), Value::Array(Array::I32(tokens.types))));
    check(&path, &metadata)?;
    Ok(Converted { metadata, strips_right })
}

fn missing(folder: &Path) -> String {
    let saved = "save it with AutoTokenizer.from_pretrained(…, use_fast=True).save_pretrained(…)";
    if folder.join("tokenizer.model").is_file() || folder.join("vocab.json").is_file() {
        format!("is missing, and the older form of a tokenizer beside it is not read; {saved}")
    } else {
        format!("is missing; {saved}, or convert without a tokenizer")
    }
}

fn parse(path: &Path, text: &str) -> Result<File> {
    let malformed =
        |error: serde_json::Error| LlmError::SourceFile { file: path.to_owned(), reason: error.to_string() };
    let outline: Outline = serde_json::from_str(text).map_err(malformed)?;
    if let Some(kind) = outline.model.kind.filter(|kind| kind != "BPE") {
        return Err(refuse(path, "model.type", kind, "BPE"));
    }
    let file: File = serde_json::from_str(text).map_err(malformed)?;
    let model = &file.model;
    if let Some(found) = model.dropout.filter(|dropout| *dropout > 0.0) {
        return Err(refuse(path, "model.dropout", found, "none"));
    }
    for (field, found) in [
        ("model.continuing_subword_prefix", &model.continuing_subword_prefix),
        ("model.end_of_word_suffix", &model.end_of_word_suffix),
    ] {
        if let Some(found) = found.as_ref().filter(|found| !found.is_empty()) {
            return Err(refuse(path, field, format!("{found:?}"), "none"));
        }
    }
    Ok(file)
}

/// Tokens by id; ids that nobody has up to the model's vocabulary become unused tokens.
fn collect(path: &Path, file: &File, vocab_size: usize) -> Result<Tokens> {
    let mut texts: Vec<Option<String>> = vec![None; vocab_size];
    let mut types = vec![NORMAL; vocab_size];
    for (text, id) in &file.model.vocab {
        let Some(slot) = texts.get_mut(*id as usize) else {
            // An added token beyond the model's rows could not be evaluated: Gemma 3 has one for images.
            if file.added_tokens.iter().any(|token| token.id == *id) {
                continue;
            }
            let expected = format!("an id below vocab_size, which is {vocab_size} in config.json");
            return Err(refuse(path, &format!("model.vocab[{text:?}]"), id, expected));
        };
        if let Some(other) = slot.replace(text.clone()) {
            let expected = format!("another id than that of {other:?}");
            return Err(refuse(path, &format!("model.vocab[{text:?}]"), id, expected));
        }
        if file.model.byte_fallback && byte_of(text).is_some() {
            types[*id as usize] = BYTE;
        }
    }
    for token in &file.added_tokens {
        let id = token.id as usize;
        let Some(slot) = texts.get_mut(id) else { continue };
        if let Some(other) = slot.as_ref().filter(|other| **other != token.content) {
            let field = format!("added_tokens[{:?}].id", token.content);
            return Err(refuse(path, &field, id, format!("another id than that of {other:?}")));
        }
        // Looked for before spaces are written as `▁`, it is never found in a text with spaces: merges alone make it.
        let by_merges = file.model.byte_fallback && !token.special && !token.normalized && slot.is_some();
        if by_merges && token.content.contains(SPACE) {
            continue;
        }
        *slot = Some(token.content.clone());
        let is_unknown = file.model.byte_fallback && file.model.unk_token.as_ref() == Some(&token.content);
        types[id] = match token.special {
            _ if is_unknown => UNKNOWN,
            true => CONTROL,
            false => USER_DEFINED,
        };
    }
    let mut tokens = Tokens { texts: Vec::with_capacity(vocab_size), types };
    for (id, text) in texts.into_iter().enumerate() {
        if text.is_none() {
            tokens.types[id] = UNUSED;
        }
        tokens.texts.push(text.unwrap_or_else(|| format!("[PAD{id}]")));
    }
    Ok(tokens)
}

/// The byte of `<0x0A>`.
fn byte_of(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    let valid = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    if valid { u8::from_str_radix(digits, 16).ok() } else { None }
}

fn ids(tokens: &Tokens) -> HashMap<&str, u32> {
    (0u32..).zip(&tokens.texts).map(|(id, text)| (text.as_str(), id)).collect()
}

/// Ids with a role, and what is added around a text.
fn special(
    folder: &Path,
    settings: Fields<'_>,
    config: Fields<'_>,
    file: &File,
    ids: &HashMap<&str, u32>,
    metadata: &mut Metadata,
) -> Result<()> {
    let map_path = folder.join("special_tokens_map.json");
    let map = read_object(&map_path)?.unwrap_or_default();
    let map = Fields::new(&map_path, &map);
    let generation_path = folder.join("generation_config.json");
    let generation = read_object(&generation_path)?.unwrap_or_default();
    let generation = Fields::new(&generation_path, &generation);
    let mut bos = None;
    let mut eos = None;
    for (role, key) in [("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")] {
        let name = format!("{role}_token");
        let text = match text_of(settings, &name)? {
            Some(text) => Some(text),
            None => text_of(map, &name)?,
        };
        let text = text.or((role == "unk").then_some(file.model.unk_token.as_deref()).flatten());
        let id = match text {
            // A name that is no token is left over from another vocabulary.
            Some(text) => ids.get(text).copied(),
            None if role == "bos" || role == "eos" => {
                id_of(config, &name)?.or(id_of(generation, &name)?).filter(|id| (*id as usize) < ids.len())
            }
            None => None,
        };
        if let Some(id) = id {
            metadata.push((format!("tokenizer.ggml.{key}_token_id"), id.into()));
        }
        match role {
            "bos" => bos = id,
            "eos" => eos = id,
            _ => {}
        }
    }
    let (first, last) = around(file.post_processor.as_ref());
    for (role, id, processed) in [("bos", bos, first), ("eos", eos, last)] {
        let field = format!("add_{role}_token");
        let by_file = processed.is_some_and(|text| id.is_some() && ids.get(text).copied() == id);
        let add = settings.flag_or(&field, by_file)?;
        metadata.push((format!("tokenizer.ggml.{field}"), (add && id.is_some()).into()));
    }
    Ok(())
}

/// A token's text, given as a string or as an object with its content.
fn text_of<'a>(fields: Fields<'a>, name: &str) -> Result<Option<&'a str>> {
    match fields.get(name) {
        None => Ok(None),
        Some(Json::String(text)) => Ok(Some(text)),
        Some(Json::Object(object)) => match object.get("content").and_then(Json::as_str) {
            Some(text) => Ok(Some(text)),
            None => Err(fields.refuse(name, "a string, or an object with a content")),
        },
        Some(_) => Err(fields.refuse(name, "a string, or an object with a content")),
    }
}

/// `bos_token_id`, which may be a list: its first.
fn id_of(fields: Fields<'_>, name: &str) -> Result<Option<u32>> {
    let field = format!("{name}_id");
    let Some(value) = fields.get(&field) else { return Ok(None) };
    let first = value.as_array().map_or(Some(value), |list| list.first());
    let id = first.and_then(Json::as_u64).and_then(|id| u32::try_from(id).ok());
    id.map(Some).ok_or_else(|| fields.refuse(&field, "a token id or a list of them"))
}

/// The tokens that a post-processor puts before and behind a single text.
fn around(processor: Option<&Json>) -> (Option<&str>, Option<&str>) {
    let Some(processor) = processor else { return (None, None) };
    let list = processor.get("processors").and_then(Json::as_array);
    let all = list.into_iter().flatten().chain([processor]);
    let mut singles = all.filter_map(|part| part.get("single").and_then(Json::as_array));
    let Some(single) = singles.next() else { return (None, None) };
    (special_id(single.first()), special_id(single.last()))
}

fn special_id(part: Option<&Json>) -> Option<&str> {
    part?.get("SpecialToken")?.get("id")?.as_str()
}

/// The chat template: a file of its own, or in the settings, where several may have names.
fn template(folder: &Path, settings: Fields<'_>) -> Result<Option<String>> {
    let file = folder.join("chat_template.jinja");
    if let Some(text) = read_text(&file, ganglion_tokenizer::limits::TEMPLATE_BYTES_MAX)? {
        return Ok(Some(text));
    }
    let named = |entry: &Map<String, Json>| {
        let is_default = entry.get("name").and_then(Json::as_str) == Some("default");
        is_default.then(|| entry.get("template").and_then(Json::as_str).map(str::to_owned)).flatten()
    };
    match settings.get("chat_template") {
        None => Ok(None),
        Some(Json::String(text)) => Ok(Some(text.clone())),
        Some(Json::Array(list)) => Ok(list.iter().filter_map(Json::as_object).find_map(named)),
        Some(_) => Err(settings.refuse("chat_template", "a string or a list of named templates")),
    }
}

/// Nothing is written that this project's own tokenizer would refuse.
fn check(path: &Path, metadata: &Metadata) -> Result<()> {
    let mut writer = GgufWriter::new();
    for (key, value) in metadata {
        writer.metadata(key.clone(), value.clone())?;
    }
    let mut bytes = Vec::new();
    writer.write_to(&mut bytes)?;
    let failed = |reason: String| LlmError::SourceFile { file: PathBuf::from(path), reason };
    Tokenizer::from_header(&Header::parse(&bytes)?)
        .map(drop)
        .map_err(|error| failed(format!("gives a vocabulary that cannot be used: {error}")))
}
