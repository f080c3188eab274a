//! A verified plan as a table: when each step ends, and what the tags may read then.

use ganglion_plan::explain::{span, times};
use ganglion_plan::{Checker, Plan};
use ganglion_site::plan::Span;
use ganglion_site::{Command, Site, TagKind};
use serde_json::{Value, json};
use std::fmt::Write;

/// One row per step.
#[derive(Debug, Clone, PartialEq)]
pub struct Forecast {
    rows: Vec<Row>,
}

#[derive(Debug, Clone, PartialEq)]
struct Row {
    command: Command,
    task: Option<usize>,
    elapsed_s: Span,
    /// Numbers that the plan changes: tag index and what it may read after the step.
    tags: Vec<(usize, Span)>,
}

impl Forecast {
    /// Of the plan that `checker` has followed last.
    pub fn of(checker: &mut Checker, plan: &Plan) -> Self {
        let site = checker.site().clone();
        let first = checker.trace().first().copied();
        let last = checker.trace().last().copied();
        let map_tag = site.plan.as_ref().and_then(|plan| plan.map.as_ref()).map(|map| map.tag);
        let moved = |tag: usize| {
            let number = site.tags.get(tag).is_some_and(|tag| tag.kind == TagKind::Number);
            let read = |moment: Option<ganglion_plan::Moment>| moment?.tags.get(tag).copied().flatten();
            number && Some(tag) != map_tag && read(first) != read(last)
        };
        let tags: Vec<usize> = (0..site.tags.len()).filter(|tag| moved(*tag)).collect();
        let moments = checker.trace().iter().skip(1);
        let rows = plan.steps.iter().zip(moments).map(|(planned, moment)| Row {
            command: planned.step.command,
            task: planned.task,
            elapsed_s: moment.elapsed_s,
            tags: tags
                .iter()
                .filter_map(|tag| Some((*tag, moment.tags.get(*tag).copied().flatten()?)))
                .collect(),
        });
        Self { rows: rows.collect() }
    }

    /// Lines for people.
    pub fn table(&self, site: &Site) -> String {
        let mut out = String::new();
        let widest = self.rows.iter().map(|row| row.command.describe(site).len()).max().unwrap_or(0);
        for (index, row) in self.rows.iter().enumerate() {
            let added = if row.task.is_none() { "+" } else { " " };
            let command = row.command.describe(site);
            // Writing to a String cannot fail.
            let _ = write!(
                out,
                "  {:>3} {added} {command:<widest$}  done after {:<24}",
                index + 1,
                times(row.elapsed_s)
            );
            for (tag, reading) in &row.tags {
                let name = site.tags.get(*tag).map_or("?", |tag| tag.name.as_str());
                let _ = write!(out, "  {name} {}", span(site, *tag, *reading));
            }
            out.push('\n');
        }
        out
    }

    /// The same for programs.
    pub fn to_json(&self, site: &Site) -> Value {
        let round = |value: f64| (value * 1e3).round() / 1e3;
        let pair = |span: &Span| json!([round(span.lo), round(span.hi)]);
        let rows = self.rows.iter().map(|row| {
            let tags: serde_json::Map<_, _> = row
                .tags
                .iter()
                .filter_map(|(tag, span)| Some((site.tags.get(*tag)?.name.clone(), pair(span))))
                .collect();
            let command: Value = serde_json::from_str(&row.command.to_json(site)).unwrap_or_default();
            json!({"command": command, "clause": row.task, "elapsed_s": pair(&row.elapsed_s), "tags": tags})
        });
        rows.collect()
    }
}
