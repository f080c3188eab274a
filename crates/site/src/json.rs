//! A command as JSON: one canonical form out, strict reading in.

use crate::command::{ArgumentKind, ArgumentSpec, Command, CommandSpec, Value};
use crate::error::CommandError;
use crate::limits::ARGUMENTS_MAX;
use crate::number::push_decimal;
use crate::site::Site;
use crate::value::Scalar;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value as Json;

/// An object's entries as they stand: in order, and with those that are given twice.
struct Entries(Vec<(String, Json)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Entries;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a JSON object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(Read)
    }
}

impl Command {
    /// The command that every site has: do nothing.
    pub fn none(site: &Site) -> Self {
        // A site has at most COMMANDS_MAX commands, `none` last.
        let verb = u16::try_from(site.commands.len().saturating_sub(1)).unwrap_or(u16::MAX);
        Self { verb, values: [Value::Absent; ARGUMENTS_MAX] }
    }

    /// Whether it is the command that does nothing.
    pub fn is_none(&self, site: &Site) -> bool {
        usize::from(self.verb) + 1 == site.commands.len()
    }

    /// The command's entry in the site.
    pub fn spec<'s>(&self, site: &'s Site) -> Option<&'s CommandSpec> {
        site.commands.get(usize::from(self.verb))
    }

    /// Whether the command is one of the site's: the verb exists, and each value is of its argument's type, in range, on
    /// a step, finite. Says nothing about limits. Allocates only to say what is wrong.
    ///
    /// # Errors
    /// The first [`CommandError`] found.
    pub fn check(&self, site: &Site) -> Result<(), CommandError> {
        let Some(spec) = self.spec(site) else {
            return Err(CommandError::UnknownAction { found: format!("number {}", self.verb) });
        };
        for (index, value) in self.values.iter().enumerate() {
            match spec.arguments.get(index) {
                Some(argument) if *value == Value::Absent => return Err(missing(spec, argument)),
                Some(argument) => argument.check(value)?,
                None if *value != Value::Absent => {
                    let (command, expected) = (spec.name.clone(), spec.arguments.len());
                    return Err(CommandError::Surplus { command, expected, index });
                }
                None => {}
            }
        }
        Ok(())
    }

    /// Compact JSON, `action` first, arguments in order, numbers in shortest form on the step's decimals (`21`, never
    /// `21.0` or `-0`). A value that the site does not have is written as `null`; [`check`](Self::check) first.
    pub fn to_json(&self, site: &Site) -> String {
        let mut out = String::new();
        self.write_json(site, &mut out);
        out
    }

    /// [`to_json`](Self::to_json) appended to `out`; does not allocate when `out` has room.
    pub fn write_json(&self, site: &Site, out: &mut String) {
        let Some(spec) = self.spec(site) else {
            out.push_str("{\"action\":null}");
            return;
        };
        out.push_str("{\"action\":");
        push_string(out, &spec.name);
        for (argument, value) in spec.arguments.iter().zip(&self.values) {
            out.push(',');
            push_string(out, &argument.name);
            out.push(':');
            push_value(out, argument, value);
        }
        out.push('}');
    }

    /// Reads a command from one JSON object. Fields may come in any order; every one of the command's has to be there
    /// once, and no other.
    ///
    /// # Errors
    /// [`CommandError`] naming the field, what it takes, and what was found.
    pub fn from_json(site: &Site, text: &str) -> Result<Self, CommandError> {
        let Entries(mut entries) =
            serde_json::from_str(text).map_err(|error| CommandError::Syntax { reason: error.to_string() })?;
        // One more than a command can have: among so many, one is unknown or given twice.
        entries.truncate(ARGUMENTS_MAX + 2);
        for (index, (key, _)) in entries.iter().enumerate() {
            if entries.iter().take(index).any(|(other, _)| other == key) {
                return Err(CommandError::DuplicateField { field: cut(key) });
            }
        }
        let action = entries.iter().find(|(key, _)| key == "action").map(|(_, value)| value);
        let verb = match action {
            None => return Err(CommandError::MissingAction),
            Some(Json::String(name)) => site.commands.iter().position(|command| command.name == *name),
            Some(_) => None,
        };
        let spec = verb.and_then(|verb| Some((u16::try_from(verb).ok()?, site.commands.get(verb)?)));
        let Some((verb, spec)) = spec else {
            let found = action.map(|action| cut(&action.to_string())).unwrap_or_default();
            return Err(CommandError::UnknownAction { found });
        };
        let mut values = [Value::Absent; ARGUMENTS_MAX];
        for (key, json) in entries.iter().filter(|(key, _)| key != "action") {
            let place = spec.arguments.iter().position(|argument| argument.name == *key);
            let found = place.and_then(|place| Some((spec.arguments.get(place)?, values.get_mut(place)?)));
            let Some((argument, value)) = found else {
                return Err(CommandError::UnknownField { command: spec.name.clone(), field: cut(key) });
            };
            *value = argument.read(scalar(json))?;
        }
        match spec.arguments.iter().zip(&values).find(|(_, value)| **value == Value::Absent) {
            Some((argument, _)) => Err(missing(spec, argument)),
            None => Ok(Self { verb, values }),
        }
    }

    /// For people: `set_fan room=hall percent=20 %`.
    pub fn describe(&self, site: &Site) -> String {
        let Some(spec) = self.spec(site) else { return format!("command number {}", self.verb) };
        let mut out = spec.name.clone();
        for (argument, value) in spec.arguments.iter().zip(&self.values) {
            out.push_str(&format!(" {}={}", argument.name, argument.show(value)));
        }
        out
    }
}

fn missing(spec: &CommandSpec, argument: &ArgumentSpec) -> CommandError {
    CommandError::MissingField {
        command: spec.name.clone(),
        field: argument.name.clone(),
        expected: argument.expected(),
    }
}

/// At most as much of `text` as an error message should carry.
fn cut(text: &str) -> String {
    text.chars().take(crate::limits::QUOTE_BYTES_MAX).collect()
}

fn scalar(json: &Json) -> Scalar<'_> {
    match json {
        Json::Null => Scalar::Other("null"),
        Json::Bool(value) => Scalar::Bool(*value),
        Json::String(text) => Scalar::Text(text),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(value), _) => Scalar::Integer(value),
            (None, Some(value)) => Scalar::Number(value),
            (None, None) => Scalar::Other("a number beyond all bounds"),
        },
        Json::Array(_) => Scalar::Other("a list"),
        Json::Object(_) => Scalar::Other("an object"),
    }
}

fn push_value(out: &mut String, argument: &ArgumentSpec, value: &Value) {
    use std::fmt::Write as _;
    match (value, &argument.kind) {
        (Value::Choice(index), ArgumentKind::Enum(choices)) => match choices.get(usize::from(*index)) {
            Some(choice) => push_string(out, choice),
            None => out.push_str("null"),
        },
        (Value::Integer(value), _) => {
            // Writing to a String cannot fail.
            let _ = write!(out, "{value}");
        }
        (Value::Number(value), _) if value.is_finite() => push_decimal(out, *value, argument.decimals()),
        (Value::Bool(value), _) => out.push_str(if *value { "true" } else { "false" }),
        (Value::Text(text), _) => push_string(out, text.as_str()),
        _ => out.push_str("null"),
    }
}

/// A JSON string: `"`, `\` and control characters escaped (RFC 8259, section 7), all else as it is.
pub(crate) fn push_string(out: &mut String, text: &str) {
    use std::fmt::Write as _;
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if c < ' ' => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}
