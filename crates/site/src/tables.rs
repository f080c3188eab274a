//! Tables for people: limits, tags, and the register map that the integrator wires to.

use crate::command::{ArgumentKind, CommandSpec, RegisterWrite, WriteSource, WriteTarget};
use crate::number::shortest;
use crate::site::{
    Compare, Comparison, Limit, LimitAction, LimitTarget, Over, PACKML_STATES, ReadTable, Site, TagKind,
    Term, Trigger, TriggerOn,
};
use crate::units::find_unit;
use std::fmt;

/// Rows under a header, columns as wide as their widest cell, two spaces between.
fn aligned(header: &[&str], rows: &[Vec<String>]) -> String {
    let header: Vec<String> = header.iter().map(|cell| (*cell).to_string()).collect();
    let mut widths = vec![0; header.len()];
    for row in rows.iter().chain([&header]) {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = String::new();
    for row in std::iter::once(&header).chain(rows) {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        out.push_str(cells.join("  ").trim_end());
        out.push('\n');
    }
    out
}

struct ConditionText<'a> {
    site: &'a Site,
    terms: &'a [Term],
}

impl ConditionText<'_> {
    fn compare(&self, compare: &Compare, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(tag) = self.site.tags.get(compare.tag) else { return f.write_str("?") };
        let op = match compare.op {
            Comparison::Less => "<",
            Comparison::LessOrEqual => "<=",
            Comparison::Greater => ">",
            Comparison::GreaterOrEqual => ">=",
            Comparison::Equal => "==",
            Comparison::NotEqual => "!=",
        };
        write!(f, "{} {op} ", tag.name)?;
        match tag.kind {
            TagKind::Bool => f.write_str(if compare.value == 0.0 { "no" } else { "yes" }),
            TagKind::Number if tag.unit.is_empty() => write!(f, "{}", compare.value),
            TagKind::Number => write!(f, "{} {}", compare.value, tag.unit),
        }
    }
}

impl fmt::Display for ConditionText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, term) in self.terms.iter().enumerate() {
            f.write_str(if index > 0 { " and " } else { "" })?;
            self.compare(&term.compare, f)?;
            match &term.over {
                Over::Now => {}
                Over::For(ms) => write!(f, " for {ms} ms")?,
                Over::Within(ms) => write!(f, " within {ms} ms")?,
                Over::Since(other) => {
                    f.write_str(" since ")?;
                    self.compare(other, f)?;
                }
            }
        }
        Ok(())
    }
}

fn or_dash(text: String) -> String {
    if text.is_empty() { "-".into() } else { text }
}

fn bound(value: Option<f64>) -> String {
    value.map_or("-".into(), shortest)
}

impl Site {
    /// The name of what a limit bounds: `tag` or `command.argument`.
    pub fn target_name(&self, target: LimitTarget) -> String {
        match target {
            LimitTarget::Tag(tag) => self.tags.get(tag).map(|tag| tag.name.clone()).unwrap_or_default(),
            LimitTarget::Argument { command, argument } => {
                let Some(spec) = self.commands.get(command) else { return String::new() };
                let argument = spec.arguments.get(argument).map_or("", |argument| argument.name.as_str());
                format!("{}.{argument}", spec.name)
            }
        }
    }

    /// The limits, one line each, in file order.
    pub fn limit_table(&self) -> String {
        let mut header = vec!["limit on", "lolo", "lo", "hi", "hihi", "rate/s", "unit", "beyond"];
        let mut rows: Vec<Vec<String>> = self.limits.iter().map(|limit| self.limit_row(limit)).collect();
        // Columns that only few sites need.
        if self.limits.iter().any(|limit| limit.dwell_ms.is_some()) {
            header.push("dwell");
            for (row, limit) in rows.iter_mut().zip(&self.limits) {
                row.push(or_dash(limit.dwell_ms.map(|ms| format!("{ms} ms")).unwrap_or_default()));
            }
        }
        if self.limits.iter().any(|limit| !limit.when.is_empty() || limit.modes.is_some()) {
            header.push("holds");
            for (row, limit) in rows.iter_mut().zip(&self.limits) {
                let names =
                    PACKML_STATES.iter().filter(|(_, n)| limit.modes.is_some_and(|m| m >> n & 1 == 1));
                let modes: Vec<&str> = names.map(|(name, _)| *name).collect();
                let when = match (limit.modes, limit.when.as_slice()) {
                    (Some(_), _) => format!("in {}", modes.join(", ")),
                    (None, []) => String::new(),
                    (None, terms) => format!("when {}", self.condition(terms)),
                };
                row.push(or_dash(when));
            }
        }
        aligned(&header, &rows)
    }

    /// A condition as a site file has it. Formatting it takes no memory of its own.
    pub fn condition<'a>(&'a self, terms: &'a [Term]) -> impl fmt::Display + 'a {
        ConditionText { site: self, terms }
    }

    fn limit_row(&self, limit: &Limit) -> Vec<String> {
        let (unit, beyond) = match limit.on {
            LimitTarget::Tag(tag) => {
                let trips = limit.lolo.is_some() || limit.hihi.is_some();
                (self.tags.get(tag).map(|tag| tag.unit.clone()), if trips { "warn, trip" } else { "warn" })
            }
            LimitTarget::Argument { command, argument } => {
                let spec = self.commands.get(command).and_then(|command| command.arguments.get(argument));
                let beyond = match limit.action {
                    LimitAction::Reject => "reject",
                    LimitAction::Clamp => "clamp",
                };
                (spec.map(|spec| spec.unit.clone()), beyond)
            }
        };
        vec![
            self.target_name(limit.on),
            bound(limit.lolo),
            bound(limit.lo),
            bound(limit.hi),
            bound(limit.hihi),
            bound(limit.rate_per_s),
            or_dash(unit.unwrap_or_default()),
            beyond.into(),
        ]
    }

    /// The triggers, one line each, in file order; what an announcement sends ahead of its command, below.
    pub fn trigger_table(&self) -> String {
        let rows: Vec<Vec<String>> = self.triggers.iter().map(|trigger| self.trigger_row(trigger)).collect();
        let header = ["trigger", "makes an event when", "again when", "at most every", "says"];
        let mut out = if rows.is_empty() { "no triggers\n".into() } else { aligned(&header, &rows) };
        for spec in &self.commands {
            if let Some(announced) = spec.announce.and_then(|index| self.commands.get(usize::from(index))) {
                let line = format!("{} is sent as soon as {} is decided\n", announced.name, spec.name);
                out.push_str(&line);
            }
        }
        out
    }

    fn trigger_row(&self, trigger: &Trigger) -> Vec<String> {
        let (event, again) = match &trigger.on {
            TriggerOn::Change { tag, by } => {
                let tag = self.tags.get(*tag);
                let name = tag.map_or("?", |tag| tag.name.as_str());
                match tag.map(|tag| (tag.kind, tag.unit.as_str())) {
                    Some((TagKind::Number, unit)) => (
                        format!("{name} has moved by {}", format!("{} {unit}", shortest(*by)).trim()),
                        String::new(),
                    ),
                    _ => (format!("{name} changes"), String::new()),
                }
            }
            TriggerOn::When { when, until } if until.is_empty() => {
                (self.condition(when).to_string(), "it was false".into())
            }
            TriggerOn::When { when, until } => {
                (self.condition(when).to_string(), self.condition(until).to_string())
            }
            TriggerOn::Every { .. } => ("time has passed".into(), String::new()),
        };
        let pause_ms = match trigger.on {
            TriggerOn::Every { ms } => ms,
            _ => trigger.pause_ms,
        };
        vec![
            trigger.name.clone(),
            event,
            or_dash(again),
            format!("{pause_ms} ms"),
            or_dash(trigger.say.clone()),
        ]
    }

    /// The tags: type, range, unit with its UNECE code, staleness, whether every event shows it.
    pub fn tag_table(&self) -> String {
        let rows: Vec<Vec<String>> = self
            .tags
            .iter()
            .enumerate()
            .map(|(index, tag)| {
                let (kind, range) = match tag.kind {
                    TagKind::Bool => ("bool", "no, yes".to_string()),
                    TagKind::Number => {
                        ("number", format!("{} to {}", shortest(tag.range_lo), shortest(tag.range_hi)))
                    }
                };
                let code = find_unit(&tag.unit).and_then(|unit| unit.code).unwrap_or_default();
                let prompted = if self.prompt.tags.contains(&index) { "yes" } else { "-" };
                vec![
                    tag.name.clone(),
                    kind.into(),
                    range,
                    or_dash(tag.unit.clone()),
                    or_dash(code.into()),
                    tag.decimals.to_string(),
                    format!("{} ms", tag.stale_ms),
                    prompted.into(),
                ]
            })
            .collect();
        aligned(&["tag", "kind", "range", "unit", "code", "decimals", "stale after", "in prompt"], &rows)
    }

    /// Every Modbus register that the site reads or writes, by table and address (zero-based), and what it means.
    pub fn register_table(&self) -> String {
        let mut rows: Vec<(&'static str, u16, Vec<String>)> = Vec::new();
        let mut add = |table: &'static str, address: u16, access: &str, scale: String, meaning: String| {
            let row = vec![table.into(), address.to_string(), access.into(), scale, meaning];
            rows.push((table, address, row));
        };
        if let Some(plant) = &self.plant {
            let scale = || "-".to_string();
            add("holding", plant.heartbeat, "write", scale(), "heartbeat, counted up by the guard".into());
            let time = format!("comms watchdog time in ms, set to {}", plant.watchdog_ms);
            add("holding", plant.watchdog, "write", scale(), time);
            let state = "comms watchdog: 0 off, 1 armed, 2 tripped";
            add("input", plant.watchdog_state, "read", scale(), state.into());
        }
        for tag in &self.tags {
            if let Some(read) = tag.read {
                let table = match read.table {
                    ReadTable::Input => "input",
                    ReadTable::Holding => "holding",
                    ReadTable::Discrete => "discrete",
                    ReadTable::Coil => "coil",
                };
                let scale = scale_text(read.scale, &tag.unit);
                add(table, read.address, "read", scale, format!("tag {}", tag.name));
            }
        }
        for spec in &self.commands {
            for write in &spec.writes {
                let table = match write.target {
                    WriteTarget::Holding => "holding",
                    WriteTarget::Coil => "coil",
                };
                for (address, scale, meaning) in write_rows(spec, write) {
                    add(table, address, "write", scale, meaning);
                }
            }
        }
        rows.sort_by_key(|(table, address, _)| (*table, *address));
        let rows: Vec<Vec<String>> = rows.into_iter().map(|(_, _, row)| row).collect();
        aligned(&["table", "address", "access", "one count is", "meaning"], &rows)
    }
}

fn scale_text(scale: f64, unit: &str) -> String {
    if unit.is_empty() && scale == 1.0 {
        "-".into()
    } else {
        format!("{} {unit}", shortest(scale)).trim().into()
    }
}

/// One row per register that a write may go to: one, or one per choice of the selecting argument.
fn write_rows(spec: &CommandSpec, write: &RegisterWrite) -> Vec<(u16, String, String)> {
    let (scale, what) = match write.source {
        WriteSource::Constant(value) => ("-".to_string(), format!("constant {value}")),
        WriteSource::Argument { index, scale } => match spec.arguments.get(index) {
            Some(argument) => {
                let coding = match &argument.kind {
                    ArgumentKind::Enum(choices) => {
                        let codes =
                            choices.iter().enumerate().map(|(code, choice)| format!("{code} {choice}"));
                        format!(" ({})", codes.collect::<Vec<_>>().join(", "))
                    }
                    _ => String::new(),
                };
                (scale_text(scale, &argument.unit), format!("{}{coding}", argument.name))
            }
            None => return Vec::new(),
        },
    };
    let select = write.select.and_then(|index| spec.arguments.get(index));
    match select.map(|argument| (&argument.name, &argument.kind)) {
        Some((name, ArgumentKind::Enum(choices))) => choices
            .iter()
            .zip(write.address..=u16::MAX)
            .map(|(choice, address)| {
                (address, scale.clone(), format!("{} {name}={choice}: {what}", spec.name))
            })
            .collect(),
        _ => vec![(write.address, scale, format!("{}: {what}", spec.name))],
    }
}
