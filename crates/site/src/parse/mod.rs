//! From the text of a site file to a checked [`Site`], or to every problem in it.

mod behaviour;
mod commands;
pub(crate) mod condition;
mod confidence;
mod reader;
mod record;
mod sections;
mod tags;
mod triggers;
mod variants;

use crate::error::SiteError;
use crate::limits::{NAME_BYTES_MAX, SITE_FILE_BYTES_MAX};
use crate::site::{GuardSpec, Site};
use crate::units::{close_units, find_unit};
use reader::{Fields, Report};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use toml::de::DeTable;

impl Site {
    /// Reads and checks a site: a folder with `site.toml`, or the file itself.
    ///
    /// # Errors
    /// [`SiteError::Read`] when there is no such file, [`SiteError::Invalid`] with every problem found otherwise.
    pub fn load(path: &Path) -> Result<Self, SiteError> {
        let (file, text) = Self::read(path)?;
        Self::parse(&text, &file)
    }

    /// Reads a site's text, unchecked: the file's path and what it holds.
    ///
    /// # Errors
    /// [`SiteError::Read`] when there is no such file, [`SiteError::Invalid`] when it is too large or no text.
    pub fn read(path: &Path) -> Result<(PathBuf, String), SiteError> {
        let file = if path.is_dir() { path.join("site.toml") } else { path.to_path_buf() };
        let unreadable = |source| SiteError::Read { file: file.clone(), source };
        let mut bytes = Vec::new();
        // Bounded by what is read, not by what the file system says: devices and pipes have no size.
        let handle = std::fs::File::open(&file).map_err(unreadable)?;
        handle.take(SITE_FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        if bytes.len() > SITE_FILE_BYTES_MAX {
            return Err(too_large(&file));
        }
        let text = String::from_utf8(bytes).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            let before = error.as_bytes().get(..at).unwrap_or_default();
            let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
            one_problem(&file, line, "text", "UTF-8", &format!("another byte at offset {at}"))
        })?;
        Ok((file, text))
    }

    /// Checks the text of a site file. `file` is only used in messages and to resolve relative paths.
    ///
    /// # Errors
    /// [`SiteError::Invalid`] with every problem found.
    pub fn parse(text: &str, file: &Path) -> Result<Self, SiteError> {
        if text.len() > SITE_FILE_BYTES_MAX {
            return Err(too_large(file));
        }
        let mut report = Report::new(text);
        let (document, errors) = DeTable::parse_recoverable(text);
        for error in &errors {
            let span = error.span().unwrap_or_default();
            let expected = error.message().replace('\n', "; ");
            let found = report.quote(span.clone());
            report.add(span, "TOML syntax", format!("valid TOML ({expected})"), found);
        }
        if report.is_clean() {
            let fields = Fields::new("", 0..0, document.get_ref());
            let site = read_site(fields, file, &mut report);
            if let (Some(site), true) = (site, report.is_clean()) {
                return Ok(site);
            }
        }
        Err(SiteError::Invalid { file: file.to_path_buf(), problems: report.into_problems() })
    }
}

fn too_large(file: &Path) -> SiteError {
    one_problem(file, 1, "file size", &format!("at most {SITE_FILE_BYTES_MAX} bytes"), "more")
}

fn one_problem(file: &Path, line: usize, field: &str, expected: &str, found: &str) -> SiteError {
    let problem =
        crate::error::Problem { line, field: field.into(), expected: expected.into(), found: found.into() };
    SiteError::Invalid { file: file.to_path_buf(), problems: vec![problem] }
}

/// Reads every section even when an earlier one is wrong; `None` only together with a reported problem.
fn read_site(mut root: Fields<'_>, file: &Path, report: &mut Report<'_>) -> Option<Site> {
    let name = read_name(&mut root, &[], report);
    let model = sections::read_model(&mut root, file, report);
    let (guard, safe) = sections::read_guard(&mut root, report);
    let tags = tags::read_tags(&mut root, report);
    let prompt = sections::read_prompt(&mut root, &tags.list, report);
    let plant = sections::read_plant(&mut root, &guard, report);
    let http = sections::read_http(&mut root, report);
    let record = record::read_record(&mut root, file, report);
    let commands = commands::read_commands(&mut root, plant.as_ref(), guard.commands, report);
    let limits = behaviour::read_limits(&mut root, &tags, &commands, report);
    let scope = behaviour::Scope { tags: &tags, commands: &commands, limits: &limits };
    let rules = behaviour::read_rules(&mut root, &scope, report);
    let triggers = triggers::read_triggers(&mut root, &scope, report);
    let safe = behaviour::read_safe(safe, plant.is_some(), &scope, report);
    root.finish(report);
    Some(Site {
        name: name?,
        file: file.to_path_buf(),
        model,
        guard,
        prompt,
        plant,
        http,
        record,
        tags: tags.list,
        commands: commands.list,
        limits,
        rules,
        triggers,
        safe: safe?,
    })
}

/// What every name has to look like.
const NAME_FORM: &str = "a name of lower-case ASCII letters, digits, _, - or ., starting with a letter or digit, of 1 to 48 bytes";
const _: () = assert!(NAME_BYTES_MAX == 48, "NAME_FORM says so");

fn is_name(text: &str) -> bool {
    let allowed =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-' | b'.');
    text.len() <= NAME_BYTES_MAX
        && text.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric)
        && text.bytes().all(allowed)
}

/// The `name` field of a table: required, well-formed, not among `taken`.
fn read_name(fields: &mut Fields<'_>, taken: &[&str], report: &mut Report<'_>) -> Option<String> {
    let item = fields.required("name", NAME_FORM, report)?;
    let text = item.get_ref().as_str().filter(|text| is_name(text));
    let Some(text) = text else {
        report.reject(item, fields.field("name"), NAME_FORM);
        return None;
    };
    if taken.contains(&text) {
        report.reject(item, fields.field("name"), "a name that is not taken yet");
    }
    Some(text.to_string())
}

/// How problems name the `index`-th table of a kind: by its name when it has a usable one.
fn place_of(kind: &str, index: usize, table: &Fields<'_>) -> String {
    match table.peek("name").and_then(|item| item.get_ref().as_str()) {
        Some(name) if is_name(name) => format!("{kind} {name}"),
        _ => format!("{kind} number {}", index + 1),
    }
}

/// The `unit` field of a table; the empty string when not given.
fn read_unit(fields: &mut Fields<'_>, report: &mut Report<'_>) -> String {
    let Some(symbol) = fields.text("unit", "a unit symbol, for example \"C\"", report) else {
        return String::new();
    };
    if !symbol.is_empty() && find_unit(symbol).is_none() {
        let close = close_units(symbol);
        let expected = if close.is_empty() {
            "a known unit, for example C, %, rpm, mm/s, bar, kW".to_string()
        } else {
            format!("a known unit (did you mean {}?)", close.join(" or "))
        };
        if let Some(item) = fields.item("unit") {
            report.reject(item, fields.field("unit"), expected);
        }
    }
    symbol.to_string()
}

/// One line of text for the prompt: trimmed, no control characters, at most `bytes_max` bytes.
fn is_line(text: &str, bytes_max: usize) -> bool {
    text.len() <= bytes_max && !text.chars().any(char::is_control)
}

impl GuardSpec {
    /// What holds where `[guard]` says nothing: ten cycles a second.
    pub const DEFAULT: Self = Self {
        period_ms: 100,
        deadline_ms: 80,
        brain_timeout_ms: 400,
        breaker_failures: 3,
        breaker_open_ms: 3000,
        breaker_probes: 2,
        commands: None,
    };
}
