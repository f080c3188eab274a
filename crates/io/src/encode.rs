//! Values to registers and back, and tag values from text. Nothing here wraps, saturates or guesses.

use crate::error::Error;
use ganglion_site::limits::WRITES_MAX;
use ganglion_site::{
    ArgumentKind, ArgumentSpec, Command, RegisterWrite, Site, Tag, TagKind, Value, WriteSource, WriteTarget,
};

/// One Modbus write, ready for the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Write {
    /// Register or coil.
    pub target: WriteTarget,
    /// Zero-based protocol address.
    pub address: u16,
    /// The register's bits; for a coil 0 or 1.
    pub raw: u16,
}

/// The writes of one command, in the order of the site file. No heap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Writes {
    items: [Write; WRITES_MAX],
    count: usize,
}

impl Writes {
    const EMPTY: Self =
        Self { items: [Write { target: WriteTarget::Holding, address: 0, raw: 0 }; WRITES_MAX], count: 0 };

    /// The writes.
    pub fn as_slice(&self) -> &[Write] {
        self.items.get(..self.count).unwrap_or(&[])
    }
}

/// What a command puts into the plant's registers: `raw = round(value / scale)` as two's complement i16. Allocates only
/// for an error.
///
/// # Errors
/// A verb, argument or choice the site does not have, a value that is no number, that does not fit its register
/// (or is not 0 or 1 for a coil), text, more than [`WRITES_MAX`] writes. The command is then written not at all.
pub fn encode_writes(site: &Site, command: &Command) -> Result<Writes, Error> {
    let Some(spec) = site.commands.get(usize::from(command.verb)) else {
        return Err(Error::UnknownCommand { verb: command.verb, count: site.commands.len() });
    };
    let mut writes = Writes::EMPTY;
    for (i, write) in spec.writes.iter().enumerate() {
        let refused = |address: u32, refusal: Refusal| Error::Encode {
            command: spec.name.clone(),
            write: i + 1,
            address,
            found: refusal.found,
            expected: refusal.expected,
        };
        let encoded = encode_write(&spec.arguments, write, command);
        let encoded = encoded.map_err(|refusal| refused(u32::from(write.address), refusal))?;
        let Some(slot) = writes.items.get_mut(writes.count) else {
            let refusal = Refusal::new(spec.writes.len(), format_args!("at most {WRITES_MAX} writes"));
            return Err(refused(u32::from(write.address), refusal));
        };
        *slot = encoded;
        writes.count += 1;
    }
    Ok(writes)
}

/// A register's content in engineering units: `i16 × scale`.
pub fn decode_register(raw: u16, scale: f64) -> f64 {
    f64::from(raw.cast_signed()) * scale
}

struct Refusal {
    found: String,
    expected: String,
}

impl Refusal {
    fn new(found: impl ToString, expected: impl ToString) -> Self {
        Self { found: found.to_string(), expected: expected.to_string() }
    }
}

fn encode_write(
    arguments: &[ArgumentSpec],
    write: &RegisterWrite,
    command: &Command,
) -> Result<Write, Refusal> {
    let offset = match write.select {
        None => 0,
        Some(index) => choice(arguments, index, command)?,
    };
    let address = write.address.checked_add(offset).ok_or_else(|| {
        Refusal::new(format_args!("address {} + choice {offset}", write.address), "an address up to 65535")
    })?;
    let raw = match write.source {
        WriteSource::Constant(raw) => raw,
        WriteSource::Argument { index, scale } => match argument(arguments, index, command)? {
            (_, Value::Choice(_)) => choice(arguments, index, command)?,
            (_, Value::Integer(value)) => encode_integer(value, scale)?,
            (_, Value::Number(value)) => encode_number(value, scale)?,
            (_, Value::Bool(value)) => u16::from(value),
            (spec, found @ (Value::Text(_) | Value::Absent)) => {
                return Err(Refusal::new(
                    format_args!("{} = {found:?}", spec.name),
                    "a number, choice or truth value",
                ));
            }
        },
    };
    if write.target == WriteTarget::Coil && raw > 1 {
        return Err(Refusal::new(raw, "0 or 1 for a coil"));
    }
    Ok(Write { target: write.target, address, raw })
}

fn argument<'a>(
    arguments: &'a [ArgumentSpec],
    index: usize,
    command: &Command,
) -> Result<(&'a ArgumentSpec, Value), Refusal> {
    match (arguments.get(index), command.values.get(index)) {
        (Some(spec), Some(value)) => Ok((spec, *value)),
        _ => Err(Refusal::new(
            format_args!("argument {index}"),
            format_args!("one of {} arguments", arguments.len()),
        )),
    }
}

fn choice(arguments: &[ArgumentSpec], index: usize, command: &Command) -> Result<u16, Refusal> {
    let (spec, value) = argument(arguments, index, command)?;
    match (&spec.kind, value) {
        (ArgumentKind::Enum(choices), Value::Choice(i)) if usize::from(i) < choices.len() => Ok(i),
        (ArgumentKind::Enum(choices), found) => Err(Refusal::new(
            format_args!("{} = {found:?}", spec.name),
            format_args!("one of {} choices", choices.len()),
        )),
        (_, found) => Err(Refusal::new(format_args!("{} = {found:?}", spec.name), "an enum argument")),
    }
}

/// Exact for every i64, unlike a detour over f64, when nothing is scaled.
fn encode_integer(value: i64, scale: f64) -> Result<u16, Refusal> {
    if scale != 1.0 {
        return encode_number(value as f64, scale);
    }
    i16::try_from(value)
        .map(i16::cast_unsigned)
        .map_err(|_| Refusal::new(value, format_args!("{} to {}", i16::MIN, i16::MAX)))
}

fn encode_number(value: f64, scale: f64) -> Result<u16, Refusal> {
    if !(scale.is_finite() && scale > 0.0) {
        return Err(Refusal::new(format_args!("scale {scale}"), "a scale above 0"));
    }
    let counts = (value / scale).round();
    // NaN fails both comparisons, so it is refused with the rest.
    if counts >= f64::from(i16::MIN) && counts <= f64::from(i16::MAX) {
        return Ok((counts as i16).cast_unsigned());
    }
    let (lo, hi) = (f64::from(i16::MIN) * scale, f64::from(i16::MAX) * scale);
    Err(Refusal::new(value, format_args!("{lo} to {hi} in steps of {scale}")))
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
