//! `[[trigger]]`: what makes an event without anybody asking.

use super::behaviour::{Scope, read_condition};
use super::reader::{Fields, Report};
use super::sections::expected_tag;
use super::{is_line, place_of, read_name};
use crate::limits::{SENTENCE_BYTES_MAX, TIME_MS, TRIGGER_PAUSE_MS, TRIGGERS_MAX};
use crate::site::{TagKind, Trigger, TriggerOn};

pub(super) fn read_triggers(
    root: &mut Fields<'_>,
    scope: &Scope<'_>,
    report: &mut Report<'_>,
) -> Vec<Trigger> {
    let items = root.array("trigger", "[[trigger]] tables", TRIGGERS_MAX, report).unwrap_or_default();
    let mut triggers: Vec<Trigger> = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let Some(mut fields) = Fields::of(item, "trigger", "a [[trigger]] table", report) else { continue };
        fields.place = place_of("trigger", index, &fields);
        let taken: Vec<&str> = triggers.iter().map(|trigger| trigger.name.as_str()).collect();
        let name = read_name(&mut fields, &taken, report);
        let on = read_on(&mut fields, scope, report);
        let say = read_say(&mut fields, report);
        let pause_ms = fields.count("pause_ms", TIME_MS, TRIGGER_PAUSE_MS, report);
        if let (Some(TriggerOn::Every { .. }), Some(item)) = (&on, fields.peek("pause_ms")) {
            report.reject(item, fields.field("pause_ms"), "no pause_ms beside every_ms");
        }
        fields.finish(report);
        let read = name.zip(on);
        triggers.extend(read.map(|(name, on)| Trigger { name, on, say, pause_ms }));
    }
    triggers
}

/// Exactly one of `change`, `when` and `every_ms`, with what belongs to it.
fn read_on(fields: &mut Fields<'_>, scope: &Scope<'_>, report: &mut Report<'_>) -> Option<TriggerOn> {
    let (change, when, every) = (fields.item("change"), fields.item("when"), fields.item("every_ms"));
    let given: Vec<&str> = [("change", change), ("when", when), ("every_ms", every)]
        .into_iter()
        .filter_map(|(key, item)| item.map(|_| key))
        .collect();
    let [kind] = given[..] else {
        let found = if given.is_empty() { "none of them".to_string() } else { given.join(" and ") };
        report.add(fields.span.clone(), fields.place.clone(), "one of change, when or every_ms", found);
        for key in ["by", "until"] {
            fields.item(key);
        }
        return None;
    };
    for (key, of) in [("by", "change"), ("until", "when")] {
        if let (Some(item), true) = (fields.item(key), of != kind) {
            report.reject(item, fields.field(key), format!("no {key} without {of}"));
        }
    }
    match kind {
        "change" => read_change(fields, scope, report),
        "when" => {
            let when = read_condition(when?, "when", fields, scope.tags, report)?;
            let until = match fields.item("until") {
                None => Vec::new(),
                Some(item) => read_condition(item, "until", fields, scope.tags, report)?,
            };
            Some(TriggerOn::When { when, until })
        }
        _ => {
            let ms = fields.integer("every_ms", TIME_MS.0.into(), TIME_MS.1.into(), report)?;
            u32::try_from(ms).ok().map(|ms| TriggerOn::Every { ms })
        }
    }
}

fn read_change(fields: &mut Fields<'_>, scope: &Scope<'_>, report: &mut Report<'_>) -> Option<TriggerOn> {
    let item = fields.item("change")?;
    let name = item.get_ref().as_str().unwrap_or_default();
    let Some((tag, spec)) = scope.tags.find(name).and_then(|tag| Some((tag, scope.tags.list.get(tag)?)))
    else {
        report.reject(item, fields.field("change"), expected_tag(name, &scope.tags.list));
        return None;
    };
    if spec.kind == TagKind::Bool {
        if let Some(item) = fields.item("by") {
            report.reject(item, fields.field("by"), "no by with a bool tag, every change of which counts");
        }
        return Some(TriggerOn::Change { tag, by: 1.0 });
    }
    let expected = "how far the tag has to move, above 0, in its unit or one of the same quantity";
    fields.required("by", expected, report)?;
    let by = fields.quantity("by", &spec.unit, true, report)?;
    if by <= 0.0 {
        if let Some(item) = fields.item("by") {
            report.reject(item, fields.field("by"), expected);
        }
        return None;
    }
    Some(TriggerOn::Change { tag, by })
}

fn read_say(fields: &mut Fields<'_>, report: &mut Report<'_>) -> String {
    let expected = format!("one line of text of 1 to {SENTENCE_BYTES_MAX} bytes");
    let text = fields.text("say", &expected, report).unwrap_or_default().trim().to_string();
    if let Some(item) = fields.item("say")
        && item.get_ref().as_str().is_some()
        && (text.is_empty() || !is_line(&text, SENTENCE_BYTES_MAX))
    {
        report.reject(item, fields.field("say"), expected);
    }
    text
}
