//! Tag values from registers and from text. Nothing here wraps, saturates or guesses. What a command writes is the guard's to
//! say: [`ganglion_guard::register_writes`].

use crate::error::Error;
use ganglion_site::{Site, Tag, TagKind};

/// A register's content in engineering units: `i16 × scale`.
pub fn decode_register(raw: u16, scale: f64) -> f64 {
    f64::from(raw.cast_signed()) * scale
}

/// Reads `NAME=VALUE`, the value with or without the tag's unit (`kitchen_temperature=21.5`, `=21.5C`, `=21.5 °C`); bool
/// tags take `yes`/`no`, `true`/`false`, `1`/`0`. Returns tag index and value.
///
/// # Errors
/// Another form, an unknown tag, another unit, a value that is not finite or outside the tag's range.
pub fn parse_tag(site: &Site, text: &str) -> Result<(usize, f64), Error> {
    let Some((name, value)) = text.split_once('=') else {
        return Err(Error::TagForm { found: text.to_owned(), example: example(site) });
    };
    let index = find_tag(site, name.trim())?;
    let tag = site.tags.get(index).ok_or_else(|| unknown_tag(site, name))?;
    Ok((index, parse_tag_value(tag, value)?))
}

/// The index of the tag with that name.
///
/// # Errors
/// [`Error::UnknownTag`], which lists the names there are.
pub fn find_tag(site: &Site, name: &str) -> Result<usize, Error> {
    site.tags.iter().position(|tag| tag.name == name).ok_or_else(|| unknown_tag(site, name))
}

/// The value part of [`parse_tag`].
///
/// # Errors
/// [`Error::TagValue`].
pub fn parse_tag_value(tag: &Tag, text: &str) -> Result<f64, Error> {
    let refused = || tag_value_error(tag, text);
    let text = text.trim();
    if tag.kind == TagKind::Bool {
        return match text {
            "yes" | "true" | "1" => Ok(1.0),
            "no" | "false" | "0" => Ok(0.0),
            _ => Err(refused()),
        };
    }
    let number = strip_unit(text, &tag.unit);
    let value: f64 = number.parse().map_err(|_| refused())?;
    check_tag_value(tag, value)
}

/// A JSON value for a tag: a number, `true`/`false` for bool tags, or text as in [`parse_tag`].
///
/// # Errors
/// [`Error::TagValue`].
pub fn tag_from_json(tag: &Tag, value: &serde_json::Value) -> Result<f64, Error> {
    use serde_json::Value as Json;
    match (tag.kind, value) {
        (_, Json::String(text)) => parse_tag_value(tag, text),
        (TagKind::Bool, Json::Bool(on)) => Ok(f64::from(u8::from(*on))),
        (TagKind::Number, Json::Number(number)) => {
            check_tag_value(tag, number.as_f64().ok_or_else(|| tag_value_error(tag, &value.to_string()))?)
        }
        _ => Err(tag_value_error(tag, &value.to_string())),
    }
}

/// `value` if it is a number inside the tag's range.
///
/// # Errors
/// [`Error::TagValue`].
pub fn check_tag_value(tag: &Tag, value: f64) -> Result<f64, Error> {
    // NaN and infinities are inside no range.
    if value.is_finite() && (tag.range_lo..=tag.range_hi).contains(&value) {
        return Ok(value);
    }
    Err(tag_value_error(tag, &value.to_string()))
}

fn strip_unit<'a>(text: &'a str, unit: &str) -> &'a str {
    if unit.is_empty() {
        return text;
    }
    let Some(number) = text.strip_suffix(unit) else { return text };
    let number = number.strip_suffix('°').unwrap_or(number);
    number.trim_end()
}

fn tag_value_error(tag: &Tag, found: &str) -> Error {
    let expected = match tag.kind {
        TagKind::Bool => "yes or no".to_owned(),
        TagKind::Number if tag.unit.is_empty() => {
            format!("a number from {} to {}", tag.range_lo, tag.range_hi)
        }
        TagKind::Number => format!("a number from {} to {} in {}", tag.range_lo, tag.range_hi, tag.unit),
    };
    Error::TagValue { tag: tag.name.clone(), found: shorten(found), expected }
}

fn unknown_tag(site: &Site, name: &str) -> Error {
    let names: Vec<&str> = site.tags.iter().map(|tag| tag.name.as_str()).collect();
    let expected = if names.is_empty() { "no tags".to_owned() } else { names.join(", ") };
    Error::UnknownTag { found: shorten(name), expected }
}

fn example(site: &Site) -> String {
    match site.tags.iter().find(|tag| tag.kind == TagKind::Number) {
        Some(tag) => format!("{}={}{}", tag.name, tag.range_lo, tag.unit),
        None => "temperature=21.5".to_owned(),
    }
}

/// What a user typed, cut to what fits a message.
fn shorten(text: &str) -> String {
    const SHOWN_CHARS_MAX: usize = 60;
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests;
