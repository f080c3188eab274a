//! `[plan]`, `[plan.map]` and the `plan` table of a command.

use super::behaviour::{Scope, read_do};
use super::condition::{Complaint, parse_condition, parse_quantity};
use super::reader::{self, Fields, Item, Report};
use crate::command::{ArgumentKind, Command, CommandSpec};
use crate::limits::*;
use crate::plan::*;
use crate::site::{Over, Tag, TagKind, Term};
use crate::units::{close_name, convert_step};

mod map;

const TERMS: &str = "a condition over tags as they are now, for example \"battery >= 20\"";

/// Everything that the file says about plans; `None` without `[plan]`.
pub(super) fn read_plan(
    root: &mut Fields<'_>,
    scope: &Scope<'_>,
    report: &mut Report<'_>,
) -> Option<PlanSpec> {
    let item = root.item("plan");
    let commands = root.array("command", "[[command]] tables", COMMANDS_MAX - 1, report).unwrap_or_default();
    let Some(item) = item else {
        let own = |item: &Item<'_>| item.get_ref().as_table().is_some_and(|table| table.contains_key("plan"));
        if let Some(item) = commands.iter().find(|item| own(item)) {
            report.add(item.span(), "[plan]", "a table [plan], since a command has a plan", "nothing");
        }
        return None;
    };
    let mut fields = Fields::of(item, "[plan]", "a table [plan]", report)?;
    let tags = &scope.tags.list;
    let map = map::read_map(&mut fields, tags, report);
    let time_s_max = fields.quantity("time_max", "s", true, report);
    if let (Some(time), Some(item)) = (time_s_max, fields.item("time_max"))
        && !(time > 0.0 && time <= PLAN_TIME_S_MAX)
    {
        report.reject(
            item,
            fields.field("time_max"),
            "a time above 0 and at most 7 d, for example \"30 min\"",
        );
    }
    let only = fields.flag("only", report);
    let always = read_conditions(&mut fields, "always", tags, report).into_iter().flatten().collect();
    let never = read_conditions(&mut fields, "never", tags, report);
    let end = match fields.item("end") {
        Some(item) => read_terms(item, fields.field("end"), tags, report).unwrap_or_default(),
        None => Vec::new(),
    };
    let drift = read_drift(&mut fields, tags, report);
    let insert = read_insert(&mut fields, scope, report);
    let insert_max = fields.integer("insert_max", 0, PLAN_INSERT_MAX as i64, report);
    let insert_max = insert_max.and_then(|n| usize::try_from(n).ok());
    let budget_ms = fields.count("budget_ms", PLAN_BUDGET_MS, PLAN_BUDGET_MS_DEFAULT, report);
    fields.finish(report);
    let mut actions: Vec<Option<Action>> = vec![None; scope.commands.list.len()];
    for ((item, spec), action) in commands.iter().zip(&scope.commands.list).zip(&mut actions) {
        let place = format!("command {}", spec.name);
        if let Some(table) = item.get_ref().as_table()
            && let Some(item) = table.get("plan")
        {
            let expected = "a table plan = { takes = …, effects = […], … }";
            let Some(mut fields) = Fields::of(item, format!("{place}, plan"), expected, report) else {
                continue;
            };
            *action = read_action(&mut fields, spec, map.as_ref(), tags, report);
        }
    }
    for command in &insert {
        if actions.get(usize::from(command.verb)).is_none_or(Option::is_none)
            && let Some(item) = fields.item("insert")
        {
            report.reject(item, "[plan] insert", "commands that have a plan themselves");
        }
    }
    Some(PlanSpec {
        only,
        time_s_max,
        always,
        never,
        end,
        drift,
        insert_max: if insert.is_empty() { 0 } else { insert_max.unwrap_or(PLAN_INSERT_DEFAULT) },
        insert,
        budget_ms,
        map,
        actions,
    })
}

/// A condition without `for`, `within` or `since`: a plan has no past.
fn parse_terms(text: &str, tags: &[Tag]) -> Result<Vec<Term>, Complaint> {
    let terms = parse_condition(text, tags)?;
    match terms.iter().all(|term| term.over == Over::Now) {
        true => Ok(terms),
        false => Err(Complaint {
            expected: format!("{TERMS}, without for, within or since"),
            found: text.chars().take(QUOTE_BYTES_MAX).collect(),
        }),
    }
}

fn read_terms(item: &Item<'_>, field: String, tags: &[Tag], report: &mut Report<'_>) -> Option<Vec<Term>> {
    let Some(text) = item.get_ref().as_str() else {
        report.reject(item, field, TERMS);
        return None;
    };
    match parse_terms(text, tags) {
        Ok(terms) => Some(terms),
        Err(Complaint { expected, found }) => {
            report.add(item.span(), field, expected, found);
            None
        }
    }
}

fn read_conditions(
    fields: &mut Fields<'_>,
    key: &'static str,
    tags: &[Tag],
    report: &mut Report<'_>,
) -> Vec<Vec<Term>> {
    let items = fields.array(key, "a list of conditions", PLAN_RULES_MAX, report).unwrap_or_default();
    let field = fields.field(key);
    items.iter().filter_map(|item| read_terms(item, field.clone(), tags, report)).collect()
}

fn read_drift(fields: &mut Fields<'_>, tags: &[Tag], report: &mut Report<'_>) -> Vec<Drift> {
    let expected = "a list of { tag, per_min } tables";
    let items = fields.array("drift", expected, TAGS_MAX, report).unwrap_or_default();
    let mut drift: Vec<Drift> = Vec::new();
    for item in items {
        let Some(mut table) = Fields::of(item, fields.field("drift"), expected, report) else { continue };
        let tag = read_tag(&mut table, tags, report);
        let per_s = read_rate(&mut table, report);
        table.finish(report);
        let (Some(tag), Some(per_s)) = (tag, per_s) else { continue };
        if drift.iter().any(|other| other.tag == tag) {
            report.reject(item, fields.field("drift"), "each tag once");
        }
        drift.push(Drift { tag, per_s });
    }
    drift
}

fn read_tag(table: &mut Fields<'_>, tags: &[Tag], report: &mut Report<'_>) -> Option<usize> {
    let item = table.required("tag", "the name of a tag", report)?;
    let name = item.get_ref().as_str().unwrap_or_default();
    let index = tags.iter().position(|tag| tag.name == name && tag.kind == TagKind::Number);
    if index.is_none() {
        report.reject(item, table.field("tag"), number_tag(name, tags));
    }
    index
}

fn number_tag(name: &str, tags: &[Tag]) -> String {
    let numbers = tags.iter().filter(|tag| tag.kind == TagKind::Number).map(|tag| tag.name.as_str());
    let hint = close_name(name, numbers).map(|close| format!(" (did you mean {close}?)")).unwrap_or_default();
    format!("the name of a tag that is a number{hint}")
}

/// `per_s` or `per_min`, one of them.
fn read_rate(table: &mut Fields<'_>, report: &mut Report<'_>) -> Option<Span> {
    let (second, minute) = (table.item("per_s"), table.item("per_min"));
    let (item, key, factor) = match (second, minute) {
        (Some(item), None) => (item, "per_s", 1.0),
        (None, Some(item)) => (item, "per_min", 1.0 / 60.0),
        _ => {
            table.missing("per_min", "per_min or per_s, one of them", report);
            return None;
        }
    };
    let span = read_span(item);
    if span.is_none() {
        report.reject(item, table.field(key), SPAN);
    }
    span.map(|span| scaled(span, factor))
}

const SPAN: &str = "a number, or [lo, hi] with lo ≤ hi";

fn read_span(item: &Item<'_>) -> Option<Span> {
    let pair = reader::range(item, true).map(|(lo, hi)| Span { lo, hi });
    pair.or_else(|| reader::number(item).map(Span::exactly))
}

fn scaled(span: Span, factor: f64) -> Span {
    Span { lo: span.lo * factor, hi: span.hi * factor }
}

fn read_insert(fields: &mut Fields<'_>, scope: &Scope<'_>, report: &mut Report<'_>) -> Vec<Command> {
    let expected = "a list of commands, for example [{ action = \"charge\" }]";
    let items = fields.array("insert", expected, PLAN_INSERT_CHOICES_MAX, report).unwrap_or_default();
    let field = fields.field("insert");
    items.iter().filter_map(|item| read_do(item, &field, false, scope, report)).collect()
}

fn read_action(
    fields: &mut Fields<'_>,
    spec: &CommandSpec,
    map: Option<&Map>,
    tags: &[Tag],
    report: &mut Report<'_>,
) -> Option<Action> {
    let before = report.count();
    let at = map::read_whereabouts(fields, "at", spec, map, report);
    let moves = map::read_whereabouts(fields, "moves", spec, map, report);
    let takes = read_takes(fields, spec, moves.is_some(), report);
    let needs = read_by_choice(fields, "needs", spec, tags, report);
    let done = read_by_choice(fields, "done", spec, tags, report);
    let timeout_s = fields.quantity("timeout", "s", true, report);
    if let (Some(time), Some(item)) = (timeout_s, fields.item("timeout"))
        && !(time > 0.0 && time <= PLAN_TIME_S_MAX)
    {
        report.reject(item, fields.field("timeout"), "a time above 0 and at most 7 d, for example \"90 s\"");
    }
    let expected = "a list of { tag, set | add | during | per_s | per_min | per_m } tables";
    let items = fields.array("effects", expected, TAGS_MAX, report).unwrap_or_default();
    let mut effects: Vec<Effect> = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let place = format!("{}, effect number {}", fields.place, index + 1);
        let Some(mut table) = Fields::of(item, place, expected, report) else { continue };
        let effect = read_effect(&mut table, spec, tags, report);
        table.finish(report);
        let Some(effect) = effect else { continue };
        let twice = |other: &Effect| other.tag.of.iter().any(|tag| effect.tag.of.contains(tag));
        let position = map.is_some_and(|map| effect.tag.of.contains(&map.tag));
        if effects.iter().any(twice) || position {
            let expected = "one effect per tag of a command, and none on the map's own tag";
            report.reject(item, table.field("tag"), expected);
        }
        if effect.how == EffectHow::PerMetre && moves.is_none() {
            report.reject(item, table.field("per_m"), "per_m only in a command that moves");
        }
        effects.push(effect);
    }
    fields.finish(report);
    (report.count() == before).then_some(Action { takes: takes?, at, moves, needs, effects, done, timeout_s })
}

fn read_takes(
    fields: &mut Fields<'_>,
    spec: &CommandSpec,
    moves: bool,
    report: &mut Report<'_>,
) -> Option<Takes> {
    let expected = "seconds, [lo, hi], a time such as \"2 min\", or the name of an argument that is a time";
    if moves {
        if let Some(item) = fields.item("takes") {
            report.reject(item, fields.field("takes"), "no takes in a command that moves: the map says it");
        }
        return Some(Takes::Travel);
    }
    let item = fields.required("takes", expected, report)?;
    let takes = match item.get_ref().as_str() {
        None => read_span(item).map(Takes::Seconds),
        Some(text) => match spec.arguments.iter().position(|argument| argument.name == text) {
            Some(index) => {
                let argument = spec.arguments.get(index)?;
                let time = matches!(argument.kind, ArgumentKind::Integer { lo: 0.., .. })
                    || matches!(argument.kind, ArgumentKind::Number { lo, .. } if lo >= 0.0);
                let s_per_unit = convert_step(1.0, &argument.unit, "s").filter(|_| time);
                s_per_unit.map(|s_per_unit| Takes::Argument { index, s_per_unit })
            }
            None => parse_quantity(text, "s", true).map(|s| Takes::Seconds(Span::exactly(s))),
        },
    };
    let sound = takes.filter(|takes| match takes {
        Takes::Seconds(span) => span.lo >= 0.0 && span.hi <= PLAN_TIME_S_MAX,
        _ => true,
    });
    if sound.is_none() {
        report.reject(item, fields.field("takes"), expected);
    }
    sound
}

/// The enum argument whose name stands in braces in `text`, and the text for each of its choices.
fn expand(text: &str, spec: &CommandSpec) -> Option<(Option<usize>, Vec<String>)> {
    let Some((_, after)) = text.split_once('{') else { return Some((None, vec![text.to_string()])) };
    let (name, _) = after.split_once('}')?;
    let index = spec.arguments.iter().position(|argument| argument.name == name)?;
    let ArgumentKind::Enum(choices) = &spec.arguments.get(index)?.kind else { return None };
    let pattern = format!("{{{name}}}");
    let texts: Vec<String> = choices.iter().map(|choice| text.replace(&pattern, choice)).collect();
    texts.iter().all(|text| !text.contains('{')).then_some((Some(index), texts))
}

const BRACES: &str = "in braces the name of one argument with choices, for example \"{valve}_open == yes\"";

/// A condition that may name an argument's choice in braces.
fn read_by_choice(
    fields: &mut Fields<'_>,
    key: &'static str,
    spec: &CommandSpec,
    tags: &[Tag],
    report: &mut Report<'_>,
) -> ByChoice<Vec<Term>> {
    let none = ByChoice::always(Vec::new());
    let Some(item) = fields.item(key) else { return none };
    let Some(text) = item.get_ref().as_str() else {
        report.reject(item, fields.field(key), TERMS);
        return none;
    };
    let Some((argument, texts)) = expand(text, spec) else {
        report.reject(item, fields.field(key), BRACES);
        return none;
    };
    let mut of = Vec::new();
    for text in texts {
        match parse_terms(&text, tags) {
            Ok(terms) => of.push(terms),
            Err(Complaint { expected, found }) => {
                report.add(item.span(), fields.field(key), expected, found);
                return none;
            }
        }
    }
    ByChoice { argument, of }
}

fn read_effect(
    table: &mut Fields<'_>,
    spec: &CommandSpec,
    tags: &[Tag],
    report: &mut Report<'_>,
) -> Option<Effect> {
    const HOWS: [(&str, EffectHow, f64); 6] = [
        ("set", EffectHow::Set, 1.0),
        ("add", EffectHow::Add, 1.0),
        ("during", EffectHow::During, 1.0),
        ("per_s", EffectHow::PerSecond, 1.0),
        ("per_min", EffectHow::PerSecond, 1.0 / 60.0),
        ("per_m", EffectHow::PerMetre, 1.0),
    ];
    let tag = read_effect_tag(table, spec, tags, report);
    let given: Vec<_> = HOWS
        .into_iter()
        .filter_map(|(key, how, factor)| Some((table.item(key)?, key, how, factor)))
        .collect();
    let until = table.number("until", report);
    let [(item, key, how, factor)] = given[..] else {
        table.missing("set", "one of set, add, during, per_s, per_min and per_m", report);
        return None;
    };
    if let (Some(item), EffectHow::Set | EffectHow::Add | EffectHow::During) = (table.item("until"), how) {
        report.reject(item, table.field("until"), "until only with per_s, per_min or per_m");
    }
    let amount = read_amount(item, spec, factor);
    if amount.is_none() {
        let expected = format!(
            "{SPAN}, yes or no, the name of an argument that is a number, or a table with one of these for each choice"
        );
        report.reject(item, table.field(key), expected);
    }
    Some(Effect { tag: tag?, how, amount: amount?, until })
}

fn read_effect_tag(
    table: &mut Fields<'_>,
    spec: &CommandSpec,
    tags: &[Tag],
    report: &mut Report<'_>,
) -> Option<ByChoice<usize>> {
    let item = table.required("tag", "the name of a tag", report)?;
    let name = item.get_ref().as_str().unwrap_or_default();
    let Some((argument, names)) = expand(name, spec) else {
        report.reject(item, table.field("tag"), BRACES);
        return None;
    };
    let mut of = Vec::new();
    for name in names {
        match tags.iter().position(|tag| tag.name == name) {
            Some(index) => of.push(index),
            None => {
                let hint = close_name(&name, tags.iter().map(|tag| tag.name.as_str()));
                let hint = hint.map(|close| format!(" (did you mean {close}?)")).unwrap_or_default();
                report.reject(item, table.field("tag"), format!("the name of a tag{hint}"));
                return None;
            }
        }
    }
    Some(ByChoice { argument, of })
}

fn read_amount(item: &Item<'_>, spec: &CommandSpec, factor: f64) -> Option<Amount> {
    if let Some(span) = read_plain_amount(item) {
        return Some(Amount::Span(ByChoice::always(scaled(span, factor))));
    }
    if let Some(name) = item.get_ref().as_str() {
        let index = spec.arguments.iter().position(|argument| argument.name == name)?;
        let kind = &spec.arguments.get(index)?.kind;
        let number =
            matches!(kind, ArgumentKind::Integer { .. } | ArgumentKind::Number { .. } | ArgumentKind::Bool);
        return number.then_some(Amount::Argument { index, factor });
    }
    let table = item.get_ref().as_table()?;
    let by = |argument: &crate::command::ArgumentSpec| match &argument.kind {
        ArgumentKind::Enum(choices) if choices.len() == table.len() => {
            let spans: Option<Vec<Span>> =
                choices.iter().map(|choice| read_plain_amount(table.get(choice.as_str())?)).collect();
            spans
        }
        _ => None,
    };
    let (argument, spans) =
        spec.arguments.iter().enumerate().find_map(|(index, argument)| Some((index, by(argument)?)))?;
    let of = spans.into_iter().map(|span| scaled(span, factor)).collect();
    Some(Amount::Span(ByChoice { argument: Some(argument), of }))
}

/// A number, an interval, or yes and no.
fn read_plain_amount(item: &Item<'_>) -> Option<Span> {
    match (item.get_ref().as_bool(), item.get_ref().as_str()) {
        (Some(value), _) => Some(Span::exactly(f64::from(u8::from(value)))),
        (None, Some("yes")) => Some(Span::exactly(1.0)),
        (None, Some("no")) => Some(Span::exactly(0.0)),
        _ => read_span(item),
    }
}
