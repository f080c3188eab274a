//! SentencePiece BPE as tokenizer.json writes it (ordered merges) to scores.
//!
//! A reader of scores merges any two neighbours that make a token, best score first; tokenizer.json lists which pairs may
//! merge, in order. The two agree if every pair of tokens that makes a token is listed, and the pairs that make one
//! token follow each other: then minus the first place of its pairs is its score. Files made from SentencePiece models
//! are so; others are refused.
//!
//! One difference stays: where tokenizer.json has a `Metaspace` step, a text that starts with a space gets no second one in
//! front; readers of GGUF put it there, as SentencePiece does.

use std::collections::HashMap;
use std::path::Path;

use ganglion_gguf::{Array, Value};

use super::bpe::parts;
use super::{BYTE, CONTROL, File, Json, Merge, Metadata, NORMAL, SPACE, Tokens, USER_DEFINED, refuse};
use crate::error::{LlmError, Result};

pub(super) fn convert(path: &Path, file: &File, tokens: &mut Tokens) -> Result<Metadata> {
    if file.model.ignore_merges {
        return Err(refuse(path, "model.ignore_merges", true, "false with byte_fallback"));
    }
    let prefix = space_prefix(path, file)?;
    let scores = scores(path, file, tokens)?;
    // Tokens that are looked for in the text itself are spelled as the text is.
    for (text, kind) in tokens.texts.iter_mut().zip(&tokens.types) {
        if *kind == USER_DEFINED {
            *text = text.replace(SPACE, " ");
        }
    }
    Ok(vec![
        ("tokenizer.ggml.model".to_owned(), "llama".into()),
        ("tokenizer.ggml.pre".to_owned(), "default".into()),
        ("tokenizer.ggml.scores".to_owned(), Value::Array(Array::F32(scores))),
        ("tokenizer.ggml.add_space_prefix".to_owned(), prefix.into()),
    ])
}

/// Whether a space is put in front of a text. Everything else that normalizer and pre-tokenizer do must be to write
/// spaces as `▁`.
fn space_prefix(path: &Path, file: &File) -> Result<bool> {
    let (mut prefix, mut replaced) = (false, false);
    for (field, list, value) in [
        ("normalizer", "normalizers", &file.normalizer),
        ("pre_tokenizer", "pretokenizers", &file.pre_tokenizer),
    ] {
        let Some(value) = value else { continue };
        let one = std::slice::from_ref(value);
        for step in parts(value, list).unwrap_or(one) {
            let text = |name: &str| step.get(name).and_then(Json::as_str);
            let pattern =
                step.get("pattern").and_then(|pattern| pattern.get("String")).and_then(Json::as_str);
            match text("type") {
                Some("Prepend") if text("prepend") == Some(SPACE) => prefix = true,
                Some("Replace") if pattern == Some(" ") && text("content") == Some(SPACE) => replaced = true,
                Some("Metaspace") if text("replacement") == Some(SPACE) => {
                    replaced = true;
                    let scheme = text("prepend_scheme").unwrap_or("always");
                    let old = step.get("add_prefix_space").and_then(Json::as_bool).unwrap_or(true);
                    prefix |= old && scheme != "never";
                    if step.get("split").and_then(Json::as_bool).unwrap_or(true) {
                        check_words(path, file)?;
                    }
                }
                // No space is left to split at.
                Some("Split") if pattern == Some(" ") && replaced => {}
                _ => {
                    let expected = format!("steps that write spaces as {SPACE} and may put one in front");
                    return Err(refuse(path, field, step, expected));
                }
            }
        }
    }
    if !replaced {
        let reason = format!("neither normalizer nor pre_tokenizer writes spaces as {SPACE}");
        return Err(LlmError::SourceFile { file: path.to_owned(), reason });
    }
    Ok(prefix)
}

/// Where the text is cut into words, no token may reach over a cut.
fn check_words(path: &Path, file: &File) -> Result<()> {
    let added = |text: &str| file.added_tokens.iter().any(|token| token.content == text);
    let crosses = |text: &&String| text.char_indices().skip(1).any(|(at, _)| text[at..].starts_with(SPACE));
    match file.model.vocab.keys().filter(crosses).find(|text| !added(text)) {
        None => Ok(()),
        Some(text) => {
            let expected = format!("no token with {SPACE} inside where pre_tokenizer splits at it");
            Err(refuse(path, "model.vocab", format!("{text:?}"), expected))
        }
    }
}

fn pair<'a>(path: &Path, index: usize, merge: &'a Merge) -> Result<(&'a str, &'a str)> {
    match merge {
        Merge::Pair(left, right) => Ok((left, right)),
        Merge::Joined(text) => text.split_once(' ').ok_or_else(|| {
            refuse(path, &format!("model.merges[{index}]"), format!("{text:?}"), "two texts and a space")
        }),
    }
}

/// First and last place, and number, of the merges that make a token.
struct Places {
    first: usize,
    last: usize,
    count: usize,
}

fn scores(path: &Path, file: &File, tokens: &Tokens) -> Result<Vec<f32>> {
    let mut places: HashMap<String, Places> = HashMap::new();
    let mut listed: HashMap<(&str, &str), usize> = HashMap::new();
    for (index, merge) in file.model.merges.iter().enumerate() {
        let (left, right) = pair(path, index, merge)?;
        if listed.insert((left, right), index).is_some() {
            continue;
        }
        let place =
            places.entry(format!("{left}{right}")).or_insert(Places { first: index, last: index, count: 0 });
        place.last = index;
        place.count += 1;
    }
    let kinds: HashMap<&str, i32> =
        tokens.texts.iter().map(String::as_str).zip(tokens.types.iter().copied()).collect();
    let unequal = |text: &str, why: String| LlmError::SourceFile {
        file: path.to_owned(),
        reason: format!(
            "its merges are not those of a SentencePiece model: {why}, for token {text:?}; GGUF cannot hold this tokenizer"
        ),
    };
    let mergeable = |text: &str| kinds.get(text).is_some_and(|kind| *kind == NORMAL);
    let mut scores = Vec::with_capacity(tokens.texts.len());
    for (text, kind) in tokens.texts.iter().zip(&tokens.types) {
        let place = places.get(text);
        // Runs of one character may be mixed with each other: any order makes the longest there are.
        let is_run = text.chars().all(|c| text.starts_with(c));
        if let Some(place) = place.filter(|place| place.last - place.first + 1 != place.count && !is_run) {
            let why = format!("merges {} to {} make several tokens in turn", place.first, place.last);
            return Err(unequal(text, why));
        }
        if *kind == NORMAL {
            for (at, _) in text.char_indices().skip(1) {
                let (left, right) = text.split_at(at);
                if mergeable(left) && mergeable(right) && !listed.contains_key(&(left, right)) {
                    return Err(unequal(text, format!("{left:?} and {right:?} do not merge")));
                }
            }
        }
        scores.push(match place {
            Some(place) => -(place.first as f32),
            // Never the result of a merge: its score is not looked at.
            None if matches!(*kind, BYTE | CONTROL) => 0.0,
            None => -(file.model.merges.len() as f32),
        });
    }
    Ok(scores)
}
