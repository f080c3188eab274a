//! The small language of `when` in rules and limits:
//!
//! ```text
//! condition  = term ("and" term)*
//! term       = comparison [("for" | "within") time | "since" comparison]
//! comparison = tag ("<" | "<=" | ">" | ">=" | "==" | "!=") (number [unit] | "yes" | "no")
//! time       = number ("ms" | "s" | "min" | "h")
//! ```

use super::sections::expected_tag;
use crate::limits::{CONDITION_BYTES_MAX, CONDITION_TERMS_MAX, NUMBER_MAX, TIME_MS};
use crate::number::shortest;
use crate::site::{Compare, Comparison, Over, Tag, TagKind, Term};
use crate::units::{convert, convert_step};

/// Words that may follow a comparison, and so are no units.
const KEYWORDS: [&str; 4] = ["and", "for", "within", "since"];

/// What is wrong with a condition: what was expected, and what stood there.
#[derive(Debug)]
pub(super) struct Complaint {
    pub(super) expected: String,
    pub(super) found: String,
}

fn complaint<T>(expected: impl Into<String>, found: &str) -> Result<T, Complaint> {
    let found = if found.is_empty() { "the end of the condition" } else { found };
    Err(Complaint { expected: expected.into(), found: found.chars().take(60).collect() })
}

/// Splits off the longest start of `text` whose bytes satisfy `allowed`.
fn split(text: &str, allowed: impl Fn(u8) -> bool) -> (&str, &str) {
    // Every `allowed` below is about ASCII bytes, so the cut is at a character boundary.
    let end = text.bytes().position(|byte| !allowed(byte)).unwrap_or(text.len());
    text.split_at_checked(end).unwrap_or((text, ""))
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.')
}

fn is_space(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

/// The whole condition.
pub(super) fn parse_condition(text: &str, tags: &[Tag]) -> Result<Vec<Term>, Complaint> {
    if text.len() > CONDITION_BYTES_MAX {
        return complaint(
            format!("a condition of at most {CONDITION_BYTES_MAX} bytes"),
            &text.len().to_string(),
        );
    }
    let mut terms = Vec::new();
    let mut rest = text;
    loop {
        let (term, after) = parse_term(rest, tags)?;
        terms.push(term);
        let after = after.trim_start_matches([' ', '\t']);
        if after.is_empty() {
            return Ok(terms);
        }
        let (word, after) = split(after, |byte| !is_space(byte));
        if word != "and" {
            return complaint("\"and\", for, within, since, or the end of the condition", word);
        }
        if terms.len() == CONDITION_TERMS_MAX {
            return complaint(format!("at most {CONDITION_TERMS_MAX} comparisons"), "another one");
        }
        rest = after;
    }
}

fn parse_term<'a>(text: &'a str, tags: &[Tag]) -> Result<(Term, &'a str), Complaint> {
    let (compare, rest) = parse_compare(text, tags)?;
    let after = rest.trim_start_matches([' ', '\t']);
    let (word, after) = split(after, |byte| !is_space(byte));
    let (over, rest) = match word {
        "for" => parse_duration(after).map(|(ms, rest)| (Over::For(ms), rest))?,
        "within" => parse_duration(after).map(|(ms, rest)| (Over::Within(ms), rest))?,
        "since" => parse_compare(after, tags).map(|(other, rest)| (Over::Since(other), rest))?,
        _ => (Over::Now, rest),
    };
    Ok((Term { compare, over }, rest))
}

/// A number and ms, s, min or h, attached or after a space.
fn parse_duration(text: &str) -> Result<(u32, &str), Complaint> {
    const EXPECTED: &str = "a time from 1 ms to 1 h, for example 5 s";
    let text = text.trim_start_matches([' ', '\t']);
    let (digits, rest) = split(text, |byte| byte.is_ascii_digit() || byte == b'.');
    let (unit, rest) = split(rest.trim_start_matches([' ', '\t']), |byte| !is_space(byte));
    let (found, _) = text.split_at_checked(text.len() - rest.len()).unwrap_or((text, ""));
    let ms = digits.parse::<f64>().ok().and_then(|value| convert(value, unit, "ms"));
    match ms.filter(|ms| *ms >= f64::from(TIME_MS.0) && *ms <= f64::from(TIME_MS.1)) {
        // In range of u32 by the line above.
        Some(ms) => Ok((ms.round() as u32, rest)),
        None => complaint(EXPECTED, found),
    }
}

fn parse_compare<'a>(text: &'a str, tags: &[Tag]) -> Result<(Compare, &'a str), Complaint> {
    let text = text.trim_start_matches([' ', '\t']);
    let (name, rest) = split(text, is_word);
    let found = tags.iter().enumerate().find(|(_, tag)| tag.name == name);
    let Some((index, tag)) = found else {
        return complaint(expected_tag(name, tags), if name.is_empty() { text } else { name });
    };
    let rest = rest.trim_start_matches([' ', '\t']);
    let (symbol, rest) = split(rest, |byte| matches!(byte, b'<' | b'>' | b'=' | b'!'));
    let op = match symbol {
        "<" => Comparison::Less,
        "<=" => Comparison::LessOrEqual,
        ">" => Comparison::Greater,
        ">=" => Comparison::GreaterOrEqual,
        "==" => Comparison::Equal,
        "!=" => Comparison::NotEqual,
        _ => {
            let expected = format!("one of < <= > >= == != after {name}");
            return complaint(expected, if symbol.is_empty() { rest } else { symbol });
        }
    };
    let rest = rest.trim_start_matches([' ', '\t']);
    let (value, rest) = match tag.kind {
        TagKind::Bool => parse_bool(tag, op, rest)?,
        TagKind::Number => parse_number(tag, rest)?,
    };
    Ok((Compare { tag: index, op, value }, rest))
}

/// One tag's value as a condition has it: a number with or without the tag's unit, or yes/no.
pub(crate) fn parse_value(text: &str, tag: &Tag) -> Option<f64> {
    let (value, rest) = match tag.kind {
        TagKind::Bool => parse_bool(tag, Comparison::Equal, text.trim()).ok()?,
        TagKind::Number => parse_number(tag, text.trim()).ok()?,
    };
    rest.trim().is_empty().then_some(value)
}

fn parse_bool<'a>(tag: &Tag, op: Comparison, text: &'a str) -> Result<(f64, &'a str), Complaint> {
    if !matches!(op, Comparison::Equal | Comparison::NotEqual) {
        return complaint(format!("== or != with the bool tag {}", tag.name), "an order");
    }
    let (word, rest) = split(text, |byte| !is_space(byte));
    match word {
        "yes" | "true" => Ok((1.0, rest)),
        "no" | "false" => Ok((0.0, rest)),
        _ => complaint(format!("yes or no for the bool tag {}", tag.name), word),
    }
}

fn parse_number<'a>(tag: &Tag, text: &'a str) -> Result<(f64, &'a str), Complaint> {
    let (digits, rest) = split(text, |byte| byte.is_ascii_digit() || matches!(byte, b'+' | b'-' | b'.'));
    let value = digits.parse::<f64>().ok().filter(|value| value.is_finite() && value.abs() <= NUMBER_MAX);
    let Some(value) = value else {
        let (word, _) = split(text, |byte| !is_space(byte));
        return complaint(format!("a number for the tag {}", tag.name), word);
    };
    // A unit may follow, attached or after a space: the tag's own, or one of the same quantity.
    let (word, after) = split(rest.trim_start_matches([' ', '\t']), |byte| !is_space(byte));
    let spaced = rest.starts_with([' ', '\t']);
    let (value, after) = if word.is_empty() || (spaced && KEYWORDS.contains(&word)) {
        (value, rest)
    } else if let Some(value) = convert(value, word, &tag.unit) {
        (value, after)
    } else {
        let expected = match tag.unit.as_str() {
            "" => format!("no unit after {digits} ({} has none), \"and\", or the end", tag.name),
            unit => format!("the unit {unit} of {}, \"and\", or the end", tag.name),
        };
        return complaint(expected, word);
    };
    if value < tag.range_lo || value > tag.range_hi {
        let (lo, hi) = (shortest(tag.range_lo), shortest(tag.range_hi));
        return complaint(format!("a number in the range {lo} to {hi} of the tag {}", tag.name), digits);
    }
    Ok((value, after))
}

/// A number that a unit may follow, converted to `unit`; a `rate` is a difference, so that scales without a common zero
/// convert by their step alone.
pub(super) fn parse_quantity(text: &str, unit: &str, rate: bool) -> Option<f64> {
    let text = text.trim();
    let (digits, rest) = split(text, |byte| byte.is_ascii_digit() || matches!(byte, b'+' | b'-' | b'.'));
    let value = digits.parse::<f64>().ok()?;
    let from = rest.trim_start_matches([' ', '\t']);
    let value = match (from, rate) {
        ("", _) => value,
        (from, true) => convert_step(value, from, unit)?,
        (from, false) => convert(value, from, unit)?,
    };
    (value.is_finite() && value.abs() <= NUMBER_MAX).then_some(value)
}
