//! Metadata keys of one architecture, each read with its bound.

use ganglion_gguf::{Array, Header, OptionalExt, Value};

use crate::arch::NormKind;
use crate::error::{LlmError, Result};
use crate::limits;

pub(crate) fn refuse(key: &str, found: impl ToString, expected: impl Into<String>) -> LlmError {
    LlmError::Hyperparameter { key: key.to_owned(), found: found.to_string(), expected: expected.into() }
}

/// The keys that begin with the architecture's name.
pub(crate) struct Keys<'a> {
    header: &'a Header,
    architecture: &'static str,
}

impl<'a> Keys<'a> {
    pub(super) fn new(header: &'a Header, architecture: &'static str) -> Self {
        Self { header, architecture }
    }

    /// The whole key, as errors name it.
    pub(crate) fn name(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }

    pub(super) fn value(&self, key: &str) -> Option<&'a Value> {
        self.header.get(&self.name(key))
    }

    fn bounded(&self, key: &str, found: u32, max: usize) -> Result<usize> {
        let value = found as usize;
        if value == 0 || value > max {
            return Err(refuse(&self.name(key), found, format!("1 to {max}")));
        }
        Ok(value)
    }

    /// A number of 1 to `max`.
    pub(super) fn count(&self, key: &str, max: usize) -> Result<usize> {
        self.bounded(key, self.header.get_u32(&self.name(key))?, max)
    }

    pub(super) fn count_or(&self, key: &str, max: usize, default: usize) -> Result<usize> {
        self.integer(key)?.map_or(Ok(default), |found| self.bounded(key, found, max))
    }

    pub(crate) fn feed_forward_or(&self, key: &str, default: usize) -> Result<usize> {
        self.count_or(key, limits::FEED_FORWARD_MAX, default)
    }

    pub(super) fn integer(&self, key: &str) -> Result<Option<u32>> {
        Ok(self.header.get_u32(&self.name(key)).optional()?)
    }

    pub(crate) fn flag(&self, key: &str) -> Result<Option<bool>> {
        Ok(self.header.get_bool(&self.name(key)).optional()?)
    }

    pub(crate) fn text(&self, key: &str) -> Result<Option<&'a str>> {
        Ok(self.header.get_str(&self.name(key)).optional()?)
    }

    pub(super) fn number(&self, key: &str) -> Result<Option<f32>> {
        Ok(self.header.get_f32(&self.name(key)).optional()?)
    }

    /// A number above zero.
    pub(crate) fn positive(&self, key: &str) -> Result<Option<f32>> {
        match self.number(key)? {
            Some(value) if !(value.is_finite() && value > 0.0) => {
                Err(refuse(&self.name(key), value, "a positive number"))
            }
            value => Ok(value),
        }
    }

    pub(super) fn norm_epsilon(&self, norm: NormKind) -> Result<f32> {
        let key = match norm {
            NormKind::Rms => "attention.layer_norm_rms_epsilon",
            NormKind::Layer => "attention.layer_norm_epsilon",
        };
        let missing = || refuse(&self.name(key), "missing", "a positive number");
        self.positive(key)?.ok_or_else(missing)
    }

    /// For every layer, whether it has a window: from a list, or one layer without after every `n - 1` with.
    pub(super) fn window_pattern(&self, layer_count: usize, full_every: usize) -> Result<Vec<bool>> {
        const KEY: &str = "attention.sliding_window_pattern";
        let listed = match self.value(KEY) {
            Some(Value::Array(Array::Bool(list))) => Some(list.clone()),
            Some(Value::Array(_)) => {
                let list = self.header.get_u32_array(&self.name(KEY))?;
                Some(list.into_iter().map(|value| value != 0).collect())
            }
            _ => None,
        };
        if let Some(list) = listed {
            if list.len() != layer_count {
                let expected = format!("one for each of {layer_count} layers");
                return Err(refuse(&self.name(KEY), format!("a list of {}", list.len()), expected));
            }
            return Ok(list);
        }
        let every = self.integer(KEY)?.map_or(full_every, |every| every as usize);
        Ok((0..layer_count).map(|layer| every == 0 || layer % every != every - 1).collect())
    }
}
