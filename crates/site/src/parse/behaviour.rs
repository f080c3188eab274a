//! `[[limit]]`, `[[rule]]` and `[guard] safe`: what refers to tags and commands.

use super::commands::Commands;
use super::condition::parse_condition;
use super::reader::{self, Fields, Item, Report};
use super::tags::Tags;
use crate::command::{ArgumentKind, Command, CommandSpec, Value};
use crate::error::CommandError;
use crate::limits::{ARGUMENTS_MAX, LIMITS_MAX, RULES_MAX};
use crate::number::Grid;
use crate::site::{Limit, LimitAction, LimitTarget, Rule, TagKind};
use crate::units::close_name;
use crate::value::Scalar;
use toml::de::DeValue;

/// What rules and the safe command are checked against.
pub(super) struct Scope<'a> {
    pub(super) tags: &'a Tags,
    pub(super) commands: &'a Commands,
    pub(super) limits: &'a [Limit],
}

pub(super) fn read_limits(
    root: &mut Fields<'_>,
    tags: &Tags,
    commands: &Commands,
    report: &mut Report<'_>,
) -> Vec<Limit> {
    let items = root.array("limit", "[[limit]] tables", LIMITS_MAX, report).unwrap_or_default();
    let mut limits = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let on = item.get_ref().as_table().and_then(|table| table.get("on"));
        let place = match on.and_then(|on| on.get_ref().as_str()) {
            Some(on) if on.split('.').all(super::is_name) => format!("limit on {on}"),
            _ => format!("limit number {}", index + 1),
        };
        if let Some(mut fields) = Fields::of(item, place, "a [[limit]] table", report) {
            limits.extend(read_limit(&mut fields, tags, commands, report));
        }
    }
    limits
}

fn read_limit(
    fields: &mut Fields<'_>,
    tags: &Tags,
    commands: &Commands,
    report: &mut Report<'_>,
) -> Option<Limit> {
    let expected = "the name of a tag, or command.argument of a number";
    let target = fields.required("on", expected, report);
    let lolo = fields.number("lolo", report);
    let lo = fields.number("lo", report);
    let hi = fields.number("hi", report);
    let hihi = fields.number("hihi", report);
    let rate_per_s = fields.number("rate_per_s", report);
    let action = match fields.item("do").map(|item| (item, item.get_ref().as_str())) {
        None | Some((_, Some("reject"))) => LimitAction::Reject,
        Some((_, Some("clamp"))) => LimitAction::Clamp,
        Some((item, _)) => {
            report.reject(item, fields.field("do"), "\"reject\" or \"clamp\"");
            LimitAction::Reject
        }
    };
    if [lolo, lo, hi, hihi, rate_per_s].iter().all(Option::is_none)
        && ["lolo", "lo", "hi", "hihi", "rate_per_s"].iter().all(|key| fields.peek(key).is_none())
    {
        fields.missing("lo, hi, lolo, hihi or rate_per_s", "at least one bound", report);
    }
    if let (Some(rate), Some(item)) = (rate_per_s, fields.item("rate_per_s"))
        && rate <= 0.0
    {
        report.reject(item, fields.field("rate_per_s"), "a rate above 0 (per second)");
    }
    fields.finish(report);
    let item = target?;
    let name = item.get_ref().as_str().unwrap_or_default();
    let Some(on) = find_target(name, tags, commands) else {
        let close =
            close_name(name, target_names(tags, commands).iter().map(String::as_str)).map(str::to_string);
        let hint = close.map(|close| format!(" (did you mean {close}?)")).unwrap_or_default();
        report.reject(item, fields.field("on"), format!("{expected}{hint}"));
        return None;
    };
    let limit = Limit { on, lolo, lo, hi, hihi, rate_per_s, action };
    check_order(&limit, fields, report);
    match on {
        LimitTarget::Tag(tag) => check_tag_limit(&limit, tag, tags, fields, report),
        LimitTarget::Argument { command, argument } => {
            check_argument_limit(&limit, (command, argument), commands, fields, report);
        }
    }
    Some(limit)
}

fn target_names(tags: &Tags, commands: &Commands) -> Vec<String> {
    let tags = tags.list.iter().map(|tag| tag.name.clone());
    let arguments = commands.list.iter().flat_map(|command| {
        command.arguments.iter().map(move |argument| format!("{}.{}", command.name, argument.name))
    });
    tags.chain(arguments).collect()
}

/// A tag by its name, or an argument by `command.argument`; names may hold dots themselves.
fn find_target(name: &str, tags: &Tags, commands: &Commands) -> Option<LimitTarget> {
    if let Some(tag) = tags.find(name) {
        return Some(LimitTarget::Tag(tag));
    }
    name.match_indices('.').find_map(|(dot, _)| {
        let (verb, argument) = (name.get(..dot)?, name.get(dot + 1..)?);
        let command = commands.list.iter().position(|command| command.name == verb)?;
        let arguments = &commands.list.get(command)?.arguments;
        let argument = arguments.iter().position(|spec| spec.name == argument)?;
        Some(LimitTarget::Argument { command, argument })
    })
}

fn check_order(limit: &Limit, fields: &mut Fields<'_>, report: &mut Report<'_>) {
    let bounds = [("lolo", limit.lolo), ("lo", limit.lo), ("hi", limit.hi), ("hihi", limit.hihi)];
    let given: Vec<_> = bounds.iter().filter_map(|(key, value)| Some((*key, (*value)?))).collect();
    for pair in given.windows(2) {
        if let [(low_key, low), (high_key, high)] = pair
            && low >= high
            && let Some(item) = fields.item(high_key)
        {
            let expected =
                format!("{high_key} above {low_key} = {} (lolo < lo < hi < hihi)", reader::show(*low));
            report.reject(item, fields.field(high_key), expected);
        }
    }
}

fn check_tag_limit(limit: &Limit, tag: usize, tags: &Tags, fields: &mut Fields<'_>, report: &mut Report<'_>) {
    let (Some(spec), Some(false)) = (tags.list.get(tag), tags.broken.get(tag)) else { return };
    if spec.kind == TagKind::Bool
        && let Some(item) = fields.item("on")
    {
        report.reject(item, fields.field("on"), "a tag that is a number");
        return;
    }
    if let Some(item) = fields.item("do") {
        report.reject(item, fields.field("do"), "no do on a tag (a reading cannot be rejected or clamped)");
    }
    for (key, value) in [("lolo", limit.lolo), ("lo", limit.lo), ("hi", limit.hi), ("hihi", limit.hihi)] {
        if let (Some(value), Some(item)) = (value, fields.item(key))
            && !(spec.range_lo..=spec.range_hi).contains(&value)
        {
            let (lo, hi) = (reader::show(spec.range_lo), reader::show(spec.range_hi));
            report.reject(item, fields.field(key), format!("a bound in the tag's range {lo} to {hi}"));
        }
    }
}

fn check_argument_limit(
    limit: &Limit,
    (command, argument): (usize, usize),
    commands: &Commands,
    fields: &mut Fields<'_>,
    report: &mut Report<'_>,
) {
    for key in ["lolo", "hihi"] {
        if let Some(item) = fields.item(key) {
            report.reject(item, fields.field(key), "lolo and hihi only on tags");
        }
    }
    let Some(spec) = commands.list.get(command).and_then(|command| command.arguments.get(argument)) else {
        return;
    };
    if commands.broken.get(command) == Some(&true) {
        return;
    }
    let (lo, hi, step) = match spec.kind {
        ArgumentKind::Integer { lo, hi } => (lo as f64, hi as f64, 1.0),
        ArgumentKind::Number { lo, hi, step } => (lo, hi, step),
        _ => {
            if let Some(item) = fields.item("on") {
                report.reject(item, fields.field("on"), "an argument that is a number");
            }
            return;
        }
    };
    for (key, value) in [("lo", limit.lo), ("hi", limit.hi)] {
        let (Some(value), Some(item)) = (value, fields.item(key)) else { continue };
        if value < lo || value > hi {
            let (lo, hi) = (reader::show(lo), reader::show(hi));
            report.reject(item, fields.field(key), format!("a bound in the argument's range {lo} to {hi}"));
        } else if limit.action == LimitAction::Clamp
            && Grid::new(step).and_then(|grid| grid.snap(value)).is_none()
        {
            let expected = format!("a multiple of {}, since values are clamped to it", reader::show(step));
            report.reject(item, fields.field(key), expected);
        }
    }
}

pub(super) fn read_rules(root: &mut Fields<'_>, scope: &Scope<'_>, report: &mut Report<'_>) -> Vec<Rule> {
    let items = root.array("rule", "[[rule]] tables", RULES_MAX, report).unwrap_or_default();
    let mut rules: Vec<Rule> = Vec::new();
    let mut always = false;
    for (index, item) in items.iter().enumerate() {
        let place = format!("rule number {}", index + 1);
        let Some(mut fields) = Fields::of(item, place, "a [[rule]] table", report) else { continue };
        if always {
            let expected = "no rule after one without when, since that one always applies";
            report.add(fields.span.clone(), fields.place.clone(), expected, "another rule");
        }
        always |= fields.peek("when").is_none();
        let when = match fields.item("when") {
            None => Some(Vec::new()),
            Some(item) => read_condition(item, &fields, scope.tags, report),
        };
        let expected = "a command, for example { action = \"none\" }";
        let command = fields.required("do", expected, report);
        let command = command.and_then(|item| read_do(item, &fields.field("do"), scope, report));
        fields.finish(report);
        rules.extend(when.zip(command).map(|(when, command)| Rule { when, command }));
    }
    rules
}

fn read_condition(
    item: &Item<'_>,
    fields: &Fields<'_>,
    tags: &Tags,
    report: &mut Report<'_>,
) -> Option<Vec<crate::site::Term>> {
    let Some(text) = item.get_ref().as_str() else {
        report.reject(item, fields.field("when"), "a condition, for example \"speed > 40 and door == no\"");
        return None;
    };
    let condition = parse_condition(text, &tags.list);
    let broken = |tag: usize| tags.broken.get(tag) == Some(&true);
    match condition {
        Ok(terms) => Some(terms),
        // The tag's own problem is reported already; what follows from it would only confuse.
        Err(_) if tags.list.iter().enumerate().any(|(i, tag)| broken(i) && text.contains(&tag.name)) => None,
        Err(complaint) => {
            report.add(item.span(), fields.field("when"), complaint.expected, complaint.found);
            None
        }
    }
}

pub(super) fn read_safe(
    safe: Option<&Item<'_>>,
    needed: bool,
    scope: &Scope<'_>,
    report: &mut Report<'_>,
) -> Option<Command> {
    match safe {
        Some(item) => read_do(item, "[guard] safe", scope, report),
        None if needed => {
            let expected = "the command that is safe at any time, for example { action = \"stop\" }";
            report.add(0..0, "[guard] safe", expected, "nothing, though there is a [plant]");
            None
        }
        None => {
            let verb = u16::try_from(scope.commands.list.len().saturating_sub(1)).ok()?;
            Some(Command { verb, values: [Value::Absent; ARGUMENTS_MAX] })
        }
    }
}

/// A command written as a table: `{ action = "…", argument = … }`. It has to be inside the site's limits, too:
/// nothing stands behind a rule or the safe command that could correct it.
fn read_do(item: &Item<'_>, place: &str, scope: &Scope<'_>, report: &mut Report<'_>) -> Option<Command> {
    let expected = "a command, for example { action = \"none\" }";
    let mut fields = Fields::of(item, place, expected, report)?;
    let commands = scope.commands;
    let action = fields.required("action", "the name of a command", report)?;
    let name = action.get_ref().as_str().unwrap_or_default();
    let Some(index) = commands.list.iter().position(|command| command.name == name) else {
        let close = close_name(name, commands.list.iter().map(|command| command.name.as_str()));
        let hint = close.map(|close| format!(" (did you mean {close}?)")).unwrap_or_default();
        report.reject(action, fields.field("action"), format!("the name of a command{hint}"));
        return None;
    };
    if commands.broken.get(index) == Some(&true) {
        return None;
    }
    let spec = commands.list.get(index)?;
    let mut values = [Value::Absent; ARGUMENTS_MAX];
    for (key, item) in fields.entries().into_iter().filter(|(key, _)| *key != "action") {
        let Some(place) = spec.arguments.iter().position(|argument| argument.name == key) else {
            report.reject(
                item,
                fields.field(key),
                format!("only arguments of {name}: {}", argument_names(spec)),
            );
            continue;
        };
        let (Some(argument), Some(value)) = (spec.arguments.get(place), values.get_mut(place)) else {
            continue;
        };
        match argument.read(scalar(item)) {
            Ok(read) => {
                *value = read;
                check_limits(item, (index, place), read, scope, &fields, report);
            }
            Err(CommandError::NotAMultiple { step, .. }) => {
                report.reject(item, fields.field(key), format!("a multiple of {step}"));
            }
            Err(_) => report.reject(item, fields.field(key), argument.expected()),
        }
    }
    for argument in &spec.arguments {
        if fields.peek(&argument.name).is_none() {
            fields.missing(&argument.name, &argument.expected(), report);
        }
    }
    Some(Command { verb: u16::try_from(index).ok()?, values })
}

fn argument_names(spec: &CommandSpec) -> String {
    let names: Vec<&str> = spec.arguments.iter().map(|argument| argument.name.as_str()).collect();
    if names.is_empty() { "it has none".into() } else { names.join(", ") }
}

fn scalar<'a>(item: &'a Item<'_>) -> Scalar<'a> {
    match item.get_ref() {
        DeValue::String(text) => Scalar::Text(text),
        DeValue::Boolean(flag) => Scalar::Bool(*flag),
        DeValue::Integer(_) => reader::whole(item).map_or(Scalar::Other("a number"), Scalar::Integer),
        DeValue::Float(float) => float.as_str().parse().map_or(Scalar::Other("a number"), Scalar::Number),
        _ => Scalar::Other("something else"),
    }
}

fn check_limits(
    item: &Item<'_>,
    (command, argument): (usize, usize),
    value: Value,
    scope: &Scope<'_>,
    fields: &Fields<'_>,
    report: &mut Report<'_>,
) {
    let number = match value {
        Value::Integer(value) => value as f64,
        Value::Number(value) => value,
        _ => return,
    };
    for limit in scope.limits.iter().filter(|limit| limit.on == LimitTarget::Argument { command, argument }) {
        let name = scope.commands.list.get(command).and_then(|spec| spec.arguments.get(argument));
        let field = fields.field(name.map_or("", |argument| argument.name.as_str()));
        match (limit.lo, limit.hi) {
            (Some(lo), _) if number < lo => {
                report.reject(
                    item,
                    field,
                    format!("at least {}, the argument's [[limit]] lo", reader::show(lo)),
                );
            }
            (_, Some(hi)) if number > hi => {
                report.reject(
                    item,
                    field,
                    format!("at most {}, the argument's [[limit]] hi", reader::show(hi)),
                );
            }
            _ => {}
        }
    }
}
