//! Reading TOML tables field by field, every complaint tied to its line and to a field named in the file's own terms.

use super::condition::parse_quantity;
use crate::error::Problem;
use crate::limits::{NUMBER_MAX, PROBLEMS_MAX, QUOTE_BYTES_MAX};
use crate::number::shortest;
use crate::units::close_name;
use crate::value::Scalar;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A TOML value with its place in the file.
pub(super) type Item<'t> = Spanned<DeValue<'t>>;

/// Collects problems of one file.
pub(super) struct Report<'t> {
    text: &'t str,
    line_starts: Vec<usize>,
    problems: Vec<Problem>,
}

impl<'t> Report<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        let breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        Self { text, line_starts: std::iter::once(0).chain(breaks).collect(), problems: Vec::new() }
    }

    /// Notes a problem with what stands at `span`.
    pub(super) fn add(
        &mut self,
        span: Range<usize>,
        field: impl Into<String>,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) {
        if self.problems.len() < PROBLEMS_MAX {
            let line = self.line_starts.partition_point(|start| *start <= span.start);
            let problem =
                Problem { line, field: field.into(), expected: expected.into(), found: found.into() };
            self.problems.push(problem);
        }
    }

    /// Notes a problem with `item`, quoting it.
    pub(super) fn reject(&mut self, item: &Item<'_>, field: impl Into<String>, expected: impl Into<String>) {
        let found = self.quote(item.span());
        self.add(item.span(), field, expected, found);
    }

    /// The file's text at `span`, on one line, cut to a readable length.
    pub(super) fn quote(&self, span: Range<usize>) -> String {
        let text = self.text.get(span).unwrap_or_default();
        let mut out = String::new();
        for word in text.split_whitespace() {
            if !out.is_empty() {
                out.push(' ');
            }
            out.extend(word.chars().map(|c| if c.is_control() { '?' } else { c }).take(QUOTE_BYTES_MAX));
            if out.len() > QUOTE_BYTES_MAX {
                let end = (0..=QUOTE_BYTES_MAX).rev().find(|at| out.is_char_boundary(*at)).unwrap_or(0);
                out.truncate(end);
                out.push('…');
                break;
            }
        }
        if out.is_empty() { "nothing".into() } else { out }
    }

    /// How many problems were noted so far.
    pub(super) fn count(&self) -> usize {
        self.problems.len()
    }

    /// Whether nothing was noted so far.
    pub(super) fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }

    /// The problems, by line.
    pub(super) fn into_problems(mut self) -> Vec<Problem> {
        self.problems.sort_by_key(|problem| problem.line);
        self.problems
    }
}

/// One table of the file, with the fields that were asked for, so that the others can be refused.
pub(super) struct Fields<'t> {
    /// How problems name this table: `[guard]`, `tag torque`, …; empty for the top level.
    pub(super) place: String,
    pub(super) span: Range<usize>,
    table: &'t DeTable<'t>,
    asked: Vec<&'static str>,
}

impl<'t> Fields<'t> {
    pub(super) fn new(place: impl Into<String>, span: Range<usize>, table: &'t DeTable<'t>) -> Self {
        Self { place: place.into(), span, table, asked: Vec::new() }
    }

    /// `item` as a table; notes a problem when it is none.
    pub(super) fn of(
        item: &'t Item<'t>,
        place: impl Into<String>,
        expected: &str,
        report: &mut Report<'_>,
    ) -> Option<Self> {
        let place = place.into();
        match item.get_ref() {
            DeValue::Table(table) => Some(Self::new(place, item.span(), table)),
            _ => {
                report.reject(item, place, expected);
                None
            }
        }
    }

    /// How problems name field `key` of this table.
    pub(super) fn field(&self, key: &str) -> String {
        if self.place.is_empty() {
            key.to_string()
        } else if self.place.starts_with('[') {
            format!("{} {key}", self.place)
        } else {
            format!("{}, {key}", self.place)
        }
    }

    /// The value of `key`, if given.
    pub(super) fn item(&mut self, key: &'static str) -> Option<&'t Item<'t>> {
        if !self.asked.contains(&key) {
            self.asked.push(key);
        }
        self.table.get(key)
    }

    /// The value of `key`, without marking the field as known.
    pub(super) fn peek(&self, key: &str) -> Option<&'t Item<'t>> {
        self.table.get(key)
    }

    /// The table's entries, in file order.
    pub(super) fn entries(&self) -> Vec<(&'t str, &'t Item<'t>)> {
        let mut entries: Vec<_> = self.table.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        entries.into_iter().map(|(key, item)| (key.get_ref().as_ref(), item)).collect()
    }

    /// Notes that `key` is missing.
    pub(super) fn missing(&self, key: &str, expected: &str, report: &mut Report<'_>) {
        report.add(self.span.clone(), self.field(key), expected, "nothing");
    }

    /// The value of `key`; missing is a problem.
    pub(super) fn required(
        &mut self,
        key: &'static str,
        expected: &str,
        report: &mut Report<'_>,
    ) -> Option<&'t Item<'t>> {
        let item = self.item(key);
        if item.is_none() {
            self.missing(key, expected, report);
        }
        item
    }

    /// A string, if given.
    pub(super) fn text(
        &mut self,
        key: &'static str,
        expected: &str,
        report: &mut Report<'_>,
    ) -> Option<&'t str> {
        let item = self.item(key)?;
        let text = item.get_ref().as_str();
        if text.is_none() {
            report.reject(item, self.field(key), expected);
        }
        text
    }

    /// A whole number in `lo..=hi`, if given.
    pub(super) fn integer(
        &mut self,
        key: &'static str,
        lo: i64,
        hi: i64,
        report: &mut Report<'_>,
    ) -> Option<i64> {
        let item = self.item(key)?;
        let value = whole(item).filter(|value| (lo..=hi).contains(value));
        if value.is_none() {
            report.reject(item, self.field(key), format!("a whole number from {lo} to {hi}"));
        }
        value
    }

    /// A `u32` in `bounds`, or `default`.
    pub(super) fn count(
        &mut self,
        key: &'static str,
        bounds: (u32, u32),
        default: u32,
        report: &mut Report<'_>,
    ) -> u32 {
        let value = self.integer(key, bounds.0.into(), bounds.1.into(), report);
        value.and_then(|value| u32::try_from(value).ok()).unwrap_or(default)
    }

    /// `true` or `false`; false when not given.
    pub(super) fn flag(&mut self, key: &'static str, report: &mut Report<'_>) -> bool {
        let Some(item) = self.item(key) else { return false };
        let value = item.get_ref().as_bool();
        if value.is_none() {
            report.reject(item, self.field(key), "true or false");
        }
        value.unwrap_or(false)
    }

    /// A 16-bit register address; missing is a problem.
    pub(super) fn address(&mut self, key: &'static str, report: &mut Report<'_>) -> u16 {
        if self.required(key, "a register address from 0 to 65535", report).is_none() {
            return 0;
        }
        let value = self.integer(key, 0, u16::MAX.into(), report);
        value.and_then(|value| u16::try_from(value).ok()).unwrap_or(0)
    }

    /// A finite number of ordinary size, if given.
    pub(super) fn number(&mut self, key: &'static str, report: &mut Report<'_>) -> Option<f64> {
        let item = self.item(key)?;
        let value = number(item);
        if value.is_none() {
            report.reject(item, self.field(key), format!("a finite number up to {NUMBER_MAX:e}"));
        }
        value
    }

    /// A finite number in `unit`, or a text of a number and a unit of the same quantity, if given. A `rate` converts as a
    /// difference.
    pub(super) fn quantity(
        &mut self,
        key: &'static str,
        unit: &str,
        rate: bool,
        report: &mut Report<'_>,
    ) -> Option<f64> {
        let item = self.item(key)?;
        let Some(text) = item.get_ref().as_str() else { return self.number(key, report) };
        let value = parse_quantity(text, unit, rate);
        if value.is_none() {
            let expected = match unit {
                "" => "a number without a unit".to_string(),
                unit => format!("a number in {unit}, or in a unit of the same quantity"),
            };
            report.reject(item, self.field(key), expected);
        }
        value
    }

    /// A factor between a register count and a unit: finite and not zero; 1 when not given.
    pub(super) fn scale(&mut self, report: &mut Report<'_>) -> f64 {
        let Some(item) = self.item("scale") else { return 1.0 };
        let value = number(item).filter(|value| value.abs() >= 1e-9);
        if value.is_none() {
            report.reject(item, self.field("scale"), "a finite number other than 0");
        }
        value.unwrap_or(1.0)
    }

    /// The elements of an array, if given.
    pub(super) fn array(
        &mut self,
        key: &'static str,
        expected: &str,
        count_max: usize,
        report: &mut Report<'_>,
    ) -> Option<&'t [Item<'t>]> {
        let item = self.item(key)?;
        let Some(array) = item.get_ref().as_array() else {
            report.reject(item, self.field(key), expected);
            return None;
        };
        if let Some(extra) = array.get(count_max) {
            report.add(
                extra.span(),
                self.field(key),
                format!("at most {count_max}"),
                array.len().to_string(),
            );
        }
        array.get(..array.len().min(count_max))
    }

    /// Refuses the fields that nobody asked for.
    pub(super) fn finish(&self, report: &mut Report<'_>) {
        for key in self.table.keys() {
            let name: &str = key.get_ref();
            if self.asked.contains(&name) {
                continue;
            }
            let close = close_name(name, self.asked.iter().copied());
            let hint = close.map(|close| format!(" (did you mean {close}?)")).unwrap_or_default();
            let expected = format!("one of {}{hint}", self.asked.join(", "));
            let field = if self.place.is_empty() { "top level".to_string() } else { self.place.clone() };
            let found = format!("unknown field {}", report.quote(key.span()));
            report.add(key.span(), field, expected, found);
        }
    }
}

/// A whole number.
pub(super) fn whole(item: &Item<'_>) -> Option<i64> {
    let integer = item.get_ref().as_integer()?;
    i64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

/// A finite number of ordinary size, whole or not.
pub(super) fn number(item: &Item<'_>) -> Option<f64> {
    let value = match item.get_ref() {
        // Beyond 2^53 the nearest f64 is meant.
        DeValue::Integer(_) => whole(item)? as f64,
        DeValue::Float(float) => float.as_str().parse().ok()?,
        _ => return None,
    };
    (value.is_finite() && value.abs() <= NUMBER_MAX).then_some(value)
}

/// `[lo, hi]` with finite `lo < hi` (or `lo <= hi`).
pub(super) fn range(item: &Item<'_>, equal_allowed: bool) -> Option<(f64, f64)> {
    let [lo, hi] = item.get_ref().as_array().map(AsRef::as_ref)? else { return None };
    let (lo, hi) = (number(lo)?, number(hi)?);
    (lo < hi || (equal_allowed && lo == hi)).then_some((lo, hi))
}

/// A number as problems show it.
pub(super) fn show(value: f64) -> String {
    shortest(value)
}

/// A value before it is known what it is for.
pub(super) fn scalar<'a>(item: &'a Item<'_>) -> Scalar<'a> {
    match item.get_ref() {
        DeValue::String(text) => Scalar::Text(text),
        DeValue::Boolean(flag) => Scalar::Bool(*flag),
        DeValue::Integer(_) => whole(item).map_or(Scalar::Other("a number"), Scalar::Integer),
        DeValue::Float(float) => float.as_str().parse().map_or(Scalar::Other("a number"), Scalar::Number),
        _ => Scalar::Other("something else"),
    }
}
