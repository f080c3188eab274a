//! Typed access to JSON objects of a model folder; what is wrong is said with file, field, value found and expected.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::error::{LlmError, Result};

/// One JSON object of a file. A `null` counts as absent, as it does for the library that writes these files.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a> {
    file: &'a Path,
    /// Where the object is in the file: the name of the field that holds it, or "".
    parent: &'a str,
    map: &'a Map<String, Value>,
}

/// A value in a message: short ones as they are.
fn shown(value: Option<&Value>) -> String {
    const LENGTH_MAX: usize = 80;
    let text = value.map_or("absent".to_owned(), Value::to_string);
    if text.chars().count() <= LENGTH_MAX {
        text
    } else {
        text.chars().take(LENGTH_MAX).chain("…".chars()).collect()
    }
}

impl<'a> Fields<'a> {
    pub(super) fn new(file: &'a Path, map: &'a Map<String, Value>) -> Self {
        Self { file, parent: "", map }
    }

    /// An error about a field, with the value found.
    pub(super) fn refuse(&self, name: &str, expected: impl Into<String>) -> LlmError {
        let field = if self.parent.is_empty() { name.to_owned() } else { format!("{}.{name}", self.parent) };
        LlmError::SourceField {
            file: PathBuf::from(self.file),
            field,
            found: shown(self.map.get(name)),
            expected: expected.into(),
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<&'a Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    pub(super) fn object(&self, name: &'a str) -> Result<Option<Fields<'a>>> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(Fields { parent: name, map, ..*self })),
            Some(_) => Err(self.refuse(name, "an object")),
        }
    }

    /// A whole number from 1 to `max`, if the field is there.
    pub(super) fn optional_count(&self, name: &str, max: usize) -> Result<Option<usize>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let count = value.as_u64().and_then(|count| usize::try_from(count).ok());
        match count.filter(|count| (1..=max).contains(count)) {
            Some(count) => Ok(Some(count)),
            None => Err(self.refuse(name, format!("a whole number from 1 to {max}"))),
        }
    }

    pub(super) fn count(&self, name: &str, max: usize) -> Result<usize> {
        let expected = || self.refuse(name, format!("a whole number from 1 to {max}"));
        self.optional_count(name, max)?.ok_or_else(expected)
    }

    pub(super) fn optional_number(&self, name: &str) -> Result<Option<f64>> {
        match self.get(name) {
            None => Ok(None),
            Some(value) => {
                // GGUF keeps f32.
                let number = value.as_f64().filter(|number| (*number as f32).is_finite());
                number.map(Some).ok_or_else(|| self.refuse(name, "a number that f32 can hold"))
            }
        }
    }

    /// A number above 0, if the field is there.
    pub(super) fn optional_positive(&self, name: &str) -> Result<Option<f64>> {
        match self.optional_number(name)? {
            Some(number) if number as f32 <= 0.0 => Err(self.refuse(name, "a number above 0")),
            other => Ok(other),
        }
    }

    pub(super) fn positive(&self, name: &str) -> Result<f64> {
        self.optional_positive(name)?.ok_or_else(|| self.refuse(name, "a number above 0"))
    }

    pub(super) fn flag_or(&self, name: &str, default: bool) -> Result<bool> {
        match self.get(name) {
            None => Ok(default),
            Some(value) => value.as_bool().ok_or_else(|| self.refuse(name, "true or false")),
        }
    }

    pub(super) fn optional_text(&self, name: &str) -> Result<Option<&'a str>> {
        match self.get(name) {
            None => Ok(None),
            Some(value) => value.as_str().map(Some).ok_or_else(|| self.refuse(name, "a string")),
        }
    }

    pub(super) fn texts(&self, name: &str) -> Result<Vec<&'a str>> {
        let expected = || self.refuse(name, "a list of strings");
        let list = self.get(name).and_then(Value::as_array).ok_or_else(expected)?;
        list.iter().map(|value| value.as_str().ok_or_else(expected)).collect()
    }

    /// A list of exactly `count` positive numbers.
    pub(super) fn positives(&self, name: &str, count: usize) -> Result<Vec<f32>> {
        let expected = || self.refuse(name, format!("a list of {count} numbers above 0"));
        let list = self.get(name).and_then(Value::as_array).filter(|list| list.len() == count);
        let number = |value: &Value| value.as_f64().filter(|n| (*n as f32).is_finite() && *n as f32 > 0.0);
        let list = list.ok_or_else(expected)?;
        list.iter().map(|value| number(value).map(|n| n as f32).ok_or_else(expected)).collect()
    }

    /// Refuses a model whose field has another value than the one that its architecture's graph computes.
    pub(super) fn only(&self, name: &str, accepted: &[Value]) -> Result<()> {
        match self.get(name) {
            Some(value) if !accepted.contains(value) => {
                let accepted: Vec<_> = accepted.iter().map(Value::to_string).collect();
                Err(self.refuse(name, accepted.join(" or ")))
            }
            _ => Ok(()),
        }
    }
}
