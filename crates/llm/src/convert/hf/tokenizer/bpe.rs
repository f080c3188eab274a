//! Byte-level BPE: merges, and a name for the pre-tokenizer.

use std::path::Path;

use ganglion_gguf::StringArray;
use serde_json::json;

use super::{File, Json, Merge, Metadata, refuse};
use crate::error::Result;

/// Llama 3's expression; the pieces between are its number of digits.
const WORDS: [&str; 2] = [
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
];
/// GPT-2's expression, which the byte-level step applies by itself unless told not to.
const GPT_2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

pub(super) fn convert(path: &Path, file: &File, pre: Option<&str>) -> Result<Metadata> {
    if let Some(normalizer) = file.normalizer.as_ref().filter(|normalizer| !is_composition(normalizer)) {
        return Err(refuse(path, "normalizer", normalizer, "none or NFC"));
    }
    let known = pre_tokenizer(file.pre_tokenizer.as_ref(), file.model.ignore_merges);
    let Some(pre) = pre.or(known) else {
        let found = match &file.pre_tokenizer {
            Some(found) if file.model.ignore_merges => format!("{found} with model.ignore_merges"),
            Some(found) => found.to_string(),
            None => "absent".to_owned(),
        };
        let expected = "a definition that this program knows; if you know which one it is, name it with --pre NAME \
                        (gpt-2, llama-bpe, qwen2, smollm, …)";
        return Err(refuse(path, "pre_tokenizer", found, expected));
    };
    let mut merges = StringArray::new();
    for (index, merge) in file.model.merges.iter().enumerate() {
        match merge {
            Merge::Joined(text) => merges.push(text),
            Merge::Pair(left, right) if !left.contains(' ') && !right.contains(' ') => {
                merges.push(&format!("{left} {right}"));
            }
            Merge::Pair(left, right) => {
                let found = format!("{left:?}, {right:?}");
                return Err(refuse(path, &format!("model.merges[{index}]"), found, "texts without spaces"));
            }
        }
    }
    Ok(vec![
        ("tokenizer.ggml.model".to_owned(), "gpt2".into()),
        ("tokenizer.ggml.pre".to_owned(), pre.into()),
        ("tokenizer.ggml.merges".to_owned(), merges.into()),
    ])
}

/// NFC, which GGUF's readers leave out: it changes nothing in text that is composed, as nearly all text is.
fn is_composition(normalizer: &Json) -> bool {
    match parts(normalizer, "normalizers") {
        Some(list) => list.iter().all(is_composition),
        None => normalizer.get("type").and_then(Json::as_str) == Some("NFC"),
    }
}

/// The parts of a sequence; `None` for anything else.
pub(super) fn parts<'a>(value: &'a Json, field: &str) -> Option<&'a [Json]> {
    let is_sequence = value.get("type").and_then(Json::as_str) == Some("Sequence");
    value.get(field).and_then(Json::as_array).filter(|_| is_sequence).map(Vec::as_slice)
}

/// The name of a definition, in the form in which trainers and converters write it.
fn pre_tokenizer(definition: Option<&Json>, ignore_merges: bool) -> Option<&'static str> {
    let definition = definition?;
    let one = std::slice::from_ref(definition);
    let name = match parts(definition, "pretokenizers").unwrap_or(one) {
        [level] if is_byte_level(level, true) => "gpt-2",
        [digits, level] if is_single_digits(digits) && is_byte_level(level, true) => "smollm",
        [split, level] if is_byte_level(level, false) => match split_expression(split)? {
            GPT_2 => "gpt-2",
            expression => {
                match expression.strip_prefix(WORDS[0])?.strip_suffix(WORDS[1])? {
                    r"\p{N}{1,3}" if ignore_merges => return Some("llama-bpe"),
                    // The same expression, and merges as usual.
                    r"\p{N}{1,3}" => "dbrx",
                    r"\p{N}" => "qwen2",
                    _ => return None,
                }
            }
        },
        _ => return None,
    };
    // Only the readers' "llama-bpe" takes pieces that are tokens whole.
    (!ignore_merges).then_some(name)
}

/// The definition behind a name of `tokenizer.ggml.pre`, and whether pieces that are tokens are taken whole; `None` if it is not
/// known here. [`pre_tokenizer`] gives a name of the same meaning for it.
pub(in super::super) fn definition(name: &str) -> Option<(Json, bool)> {
    let level = |splits: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": splits});
    let sequence = |first: Json, second: Json| json!({"type": "Sequence", "pretokenizers": [first, second]});
    let words = |digits: &str| {
        let expression = format!("{}{digits}{}", WORDS[0], WORDS[1]);
        let split = json!({
            "type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": false,
        });
        sequence(split, level(false))
    };
    Some(match name {
        "gpt-2" | "phi-2" | "mpt" | "olmo" | "jais" => (level(true), false),
        "smollm" | "starcoder" | "refact" | "command-r" | "codeshell" | "exaone" | "minerva-7b" => {
            (sequence(json!({"type": "Digits", "individual_digits": true}), level(true)), false)
        }
        "qwen2" | "deepseek-r1-qwen" | "stablelm2" => (words(r"\p{N}"), false),
        "dbrx" | "smaug-bpe" => (words(r"\p{N}{1,3}"), false),
        "llama-bpe" | "llama3" | "llama-v3" => (words(r"\p{N}{1,3}"), true),
        _ => return None,
    })
}

fn has(value: &Json, field: &str, expected: bool, default: bool) -> bool {
    value.get(field).map_or(Some(default), Json::as_bool) == Some(expected)
}

fn is_byte_level(value: &Json, splits: bool) -> bool {
    value.get("type").and_then(Json::as_str) == Some("ByteLevel")
        && has(value, "use_regex", splits, true)
        && has(value, "add_prefix_space", false, true)
}

fn is_single_digits(value: &Json) -> bool {
    value.get("type").and_then(Json::as_str) == Some("Digits") && has(value, "individual_digits", true, false)
}

fn split_expression(value: &Json) -> Option<&str> {
    let text = |field: &str| value.get(field).and_then(Json::as_str);
    let plain =
        text("type")? == "Split" && text("behavior")? == "Isolated" && has(value, "invert", false, false);
    value.get("pattern")?.get("Regex")?.as_str().filter(|_| plain)
}
