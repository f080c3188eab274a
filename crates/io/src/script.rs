//! Input from a file, on a time line: the lines of [`lines`](crate::lines), or the rows of a CSV file.
//!
//! In a script, blank lines and lines that start with `#` are passed over, and `@500ms TEXT` or `@2s TEXT` holds TEXT
//! and all that follows back until so long after the start.
//!
//! A file whose name ends in `.csv` is played row by row as sensor events. A tag takes the column whose name equals
//! its own, written in lower case with `_` for blanks and without the unit (`Air temperature [K]` →
//! `air_temperature`); else the only column with the tag's name among its words (`Tool wear [min]` → `wear`). Other
//! columns are passed over. A column whose bracketed unit is not the tag's is an error, never a conversion.

use crate::csv::{Table, read_bounded, too_many_items};
use crate::encode::check_tag_value;
use crate::error::Error;
use crate::limits::{SCRIPT_ITEMS_MAX, SCRIPT_MS_MAX};
use crate::lines::{Input, LineError, parse_bytes};
use ganglion_site::Site;
use std::collections::VecDeque;
use std::path::Path;

/// What is still to come of a script.
#[derive(Debug, Clone, PartialEq)]
pub struct Script {
    items: VecDeque<ScriptItem>,
}

/// One item of a script.
#[derive(Debug, Clone, PartialEq)]
pub struct ScriptItem {
    /// Not before so long after the start.
    pub at_ms: u64,
    /// Line in the file, counted from 1.
    pub line: u64,
    /// What comes in.
    pub input: Input,
}

impl Script {
    /// Reads a script, or a CSV file whose rows come `row_ms` apart.
    ///
    /// # Errors
    /// An unreadable or too long file; in a script a malformed `@` time, one that goes back, or an unknown mode
    /// command or tag; in a CSV file no column for any tag, a unit that differs, a bad row. Sentences that cannot be
    /// used (not UTF-8, too long) are no errors but [`Input::Rejected`] items, as they are from an operator.
    pub fn load(site: &Site, file: &Path, row_ms: u64) -> Result<Self, Error> {
        let bytes = read_bounded(file)?;
        let is_csv = file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv"));
        if is_csv {
            Self::from_csv(site, &Table::parse(file, bytes)?, file, row_ms)
        } else {
            Self::from_script(site, file, &bytes)
        }
    }

    fn from_script(site: &Site, file: &Path, bytes: &[u8]) -> Result<Self, Error> {
        let mut items = VecDeque::new();
        let mut at_ms = 0;
        let bytes = bytes.strip_prefix("\u{FEFF}".as_bytes()).unwrap_or(bytes);
        for (content, line) in bytes.split(|&b| b == b'\n').zip(1..) {
            let failed = |reason| Error::Line { file: file.to_owned(), line, reason };
            let mut content = content.trim_ascii();
            if content.is_empty() || content.starts_with(b"#") {
                continue;
            }
            if let Some(timed) = content.strip_prefix(b"@") {
                let end = timed.iter().position(u8::is_ascii_whitespace).unwrap_or(timed.len());
                let (time, rest) = timed.split_at(end);
                let asked_ms = parse_time(time).map_err(failed)?;
                if asked_ms < at_ms {
                    return Err(failed(format!("{asked_ms} ms is before the line above, at {at_ms} ms")));
                }
                (at_ms, content) = (asked_ms, rest.trim_ascii());
            }
            let input = match parse_bytes(site, content) {
                Ok(input) => input,
                Err(LineError::Sentence(reason)) => Input::Rejected { line, reason },
                Err(LineError::Grammar(reason)) => return Err(failed(reason)),
            };
            if items.len() == SCRIPT_ITEMS_MAX {
                return Err(too_many_items(file, items.len() + 1));
            }
            items.push_back(ScriptItem { at_ms, line, input });
        }
        Ok(Self { items })
    }

    fn from_csv(site: &Site, table: &Table, file: &Path, row_ms: u64) -> Result<Self, Error> {
        let columns = map_columns(site, table)?;
        let mut items = VecDeque::new();
        for (row, index) in table.rows().zip(0u64..) {
            let row = row?;
            let mut tags = Vec::with_capacity(columns.len());
            for &(tag, column) in &columns {
                let value = row.number(column)?;
                if let Some(spec) = site.tags.get(tag) {
                    check_tag_value(spec, value).map_err(|error| row.error(error.to_string()))?;
                }
                tags.push((tag, value));
            }
            if items.len() == SCRIPT_ITEMS_MAX {
                return Err(too_many_items(file, items.len() + 1));
            }
            let at_ms = index.saturating_mul(row_ms);
            items.push_back(ScriptItem { at_ms, line: row.line(), input: Input::Tags(tags, None) });
        }
        Ok(Self { items })
    }

    /// The next item whose time has come, `elapsed_ms` after the start. Call again until `None`.
    pub fn due(&mut self, elapsed_ms: u64) -> Option<ScriptItem> {
        self.items.pop_front_if(|item| item.at_ms <= elapsed_ms)
    }

    /// When the next item is due; `None` when the script has ended.
    pub fn next_at_ms(&self) -> Option<u64> {
        self.items.front().map(|item| item.at_ms)
    }

    /// Items still to come.
    pub fn count(&self) -> usize {
        self.items.len()
    }
}

fn parse_time(text: &[u8]) -> Result<u64, String> {
    let text = String::from_utf8_lossy(text);
    let refused = || format!("time `@{text}`: expected a whole number of ms or s, such as @500ms or @2s");
    let (digits, factor) = match text.strip_suffix("ms") {
        Some(digits) => (digits, 1),
        None => (text.strip_suffix('s').ok_or_else(refused)?, 1000),
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(refused());
    }
    let time_ms =
        digits.parse::<u64>().ok().and_then(|n| n.checked_mul(factor)).filter(|&t| t <= SCRIPT_MS_MAX);
    time_ms.ok_or_else(|| format!("time `@{text}`: at most {SCRIPT_MS_MAX} ms"))
}

/// Pairs of tag and column index.
fn map_columns(site: &Site, table: &Table) -> Result<Vec<(usize, usize)>, Error> {
    let mut pairs = Vec::new();
    for (index, tag) in site.tags.iter().enumerate() {
        let with = |matches: &dyn Fn(&str) -> bool| -> Vec<usize> {
            let columns = table.columns().iter().enumerate();
            columns.filter(|(_, column)| matches(&column.name)).map(|(i, _)| i).collect()
        };
        let exact = with(&|name| name == tag.name);
        let found =
            if exact.is_empty() { with(&|name| name.split('_').any(|w| w == tag.name)) } else { exact };
        let &[column] = found.as_slice() else {
            if found.is_empty() {
                continue;
            }
            return Err(table.header_error(format!(
                "{} columns fit tag `{}`: rename one",
                found.len(),
                tag.name
            )));
        };
        if let Some(header) = table.columns().get(column)
            && !header.unit.is_empty()
            && header.unit != tag.unit
        {
            let (found, expected) = (&header.unit, &tag.unit);
            let reason = format!("tag `{}`: the column is in `{found}`, expected `{expected}`", tag.name);
            return Err(table.header_error(reason));
        }
        pairs.push((index, column));
    }
    if pairs.is_empty() {
        let names: Vec<&str> = site.tags.iter().map(|tag| tag.name.as_str()).collect();
        return Err(table.header_error(format!("no column fits a tag: expected {}", names.join(", "))));
    }
    Ok(pairs)
}
