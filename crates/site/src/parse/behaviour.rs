//! `[[limit]]`, `[[rule]]` and `[guard] safe`: what refers to tags and commands.

use super::commands::Commands;
use super::condition::parse_condition;
use super::reader::{self, Fields, Item, Report};
use super::tags::Tags;
use crate::command::{ArgumentKind, Command, CommandSpec, Value};
use crate::error::CommandError;
use crate::limits::{ARGUMENTS_MAX, LIMITS_MAX, PI_EVERY_MS, PI_MAX, RULES_MAX, TIME_MS};
use crate::number::Grid;
use crate::site::{How, Limit, LimitAction, LimitTarget, PACKML_STATES, PiSpec, Rule, TagKind};
use crate::units::close_name;

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
    let expected = "the name of a tag, or command.argument";
    let target = fields.required("on", expected, report);
    let name = target.and_then(|item| item.get_ref().as_str()).unwrap_or_default();
    let on = find_target(name, tags, commands);
    let unit = on.and_then(|on| unit_of(on, tags, commands)).unwrap_or_default();
    let lolo = fields.quantity("lolo", &unit, false, report);
    let lo = fields.quantity("lo", &unit, false, report);
    let hi = fields.quantity("hi", &unit, false, report);
    let hihi = fields.quantity("hihi", &unit, false, report);
    let rate_per_s = fields.quantity("rate_per_s", &unit, true, report);
    let dwell_ms = fields.integer("dwell_ms", TIME_MS.0.into(), TIME_MS.1.into(), report);
    let dwell_ms = dwell_ms.and_then(|ms| u32::try_from(ms).ok());
    let when = match fields.item("when") {
        None => Vec::new(),
        Some(item) => read_condition(item, "when", fields, tags, report).unwrap_or_default(),
    };
    let modes = read_modes(fields, report);
    let action = match fields.item("do").map(|item| (item, item.get_ref().as_str())) {
        None | Some((_, Some("reject"))) => LimitAction::Reject,
        Some((_, Some("clamp"))) => LimitAction::Clamp,
        Some((item, _)) => {
            report.reject(item, fields.field("do"), "\"reject\" or \"clamp\"");
            LimitAction::Reject
        }
    };
    if ["lolo", "lo", "hi", "hihi", "rate_per_s", "dwell_ms"].iter().all(|key| fields.peek(key).is_none()) {
        fields.missing("lo, hi, lolo, hihi, rate_per_s or dwell_ms", "at least one bound", report);
    }
    if let (Some(rate), Some(item)) = (rate_per_s, fields.item("rate_per_s"))
        && rate <= 0.0
    {
        report.reject(item, fields.field("rate_per_s"), "a rate above 0 (per second)");
    }
    fields.finish(report);
    let item = target?;
    let Some(on) = on else {
        let close =
            close_name(name, target_names(tags, commands).iter().map(String::as_str)).map(str::to_string);
        let hint = close.map(|close| format!(" (did you mean {close}?)")).unwrap_or_default();
        report.reject(item, fields.field("on"), format!("{expected}{hint}"));
        return None;
    };
    let limit = Limit { on, lolo, lo, hi, hihi, rate_per_s, dwell_ms, when, modes, action };
    check_order(&limit, fields, report);
    match on {
        LimitTarget::Tag(tag) => check_tag_limit(&limit, tag, tags, fields, report),
        LimitTarget::Argument { command, argument } => {
            check_argument_limit(&limit, (command, argument), commands, fields, report);
        }
    }
    Some(limit)
}

fn unit_of(on: LimitTarget, tags: &Tags, commands: &Commands) -> Option<String> {
    match on {
        LimitTarget::Tag(tag) => tags.list.get(tag).map(|tag| tag.unit.clone()),
        LimitTarget::Argument { command, argument } => {
            let spec = commands.list.get(command)?.arguments.get(argument)?;
            Some(spec.unit.clone())
        }
    }
}

/// `modes = ["Execute", …]` as bits of PackML numbers.
fn read_modes(fields: &mut Fields<'_>, report: &mut Report<'_>) -> Option<u32> {
    let items = fields.array("modes", "a list of PackML states", PACKML_STATES.len(), report)?;
    let mut mask = 0;
    for item in items {
        let name = item.get_ref().as_str().unwrap_or_default();
        match PACKML_STATES.iter().find(|(state, _)| *state == name) {
            Some((_, number)) => mask |= 1 << number,
            None => {
                let close = close_name(name, PACKML_STATES.iter().map(|(state, _)| *state));
                let hint = close.map(|close| format!(" (did you mean {close}?)")).unwrap_or_default();
                let expected = format!("PackML states, for example \"Execute\"{hint}");
                report.reject(item, fields.field("modes"), expected);
            }
        }
    }
    Some(mask)
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
    if let Some(item) = fields.item("dwell_ms") {
        report.reject(item, fields.field("dwell_ms"), "dwell_ms only on arguments");
    }
    if let Some(item) = fields.item("when") {
        report.reject(item, fields.field("when"), "when only on arguments (a tag's limit may name modes)");
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
    if let Some(item) = fields.item("modes") {
        let expected = "modes only on tags, since commands are taken in Execute alone";
        report.reject(item, fields.field("modes"), expected);
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
        ArgumentKind::Enum(_) | ArgumentKind::Bool
            if [limit.lo, limit.hi, limit.rate_per_s].iter().all(Option::is_none) =>
        {
            return;
        }
        _ => {
            if let Some(item) = fields.item("on") {
                let expected = "an argument that is a number (dwell_ms alone: also choices or a bool)";
                report.reject(item, fields.field("on"), expected);
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
            Some(item) => read_condition(item, "when", &fields, scope.tags, report),
        };
        let expected = "a command, for example { action = \"none\" }, or \"hold\"";
        let item = fields.required("do", expected, report);
        let command = match item.map(|item| (item, item.get_ref().as_str())) {
            Some((_, Some("hold"))) => none_of(scope),
            Some((item, _)) => read_do(item, &fields.field("do"), false, scope, report),
            None => None,
        };
        let how = read_how(&mut fields, command.as_ref(), scope, report);
        fields.finish(report);
        let rule = when.zip(command).zip(how);
        rules.extend(rule.map(|((when, command), how)| Rule { when, command, how }));
    }
    rules
}

/// The command that does nothing.
fn none_of(scope: &Scope<'_>) -> Option<Command> {
    let verb = u16::try_from(scope.commands.list.len().saturating_sub(1)).ok()?;
    Some(Command { verb, values: [Value::Absent; ARGUMENTS_MAX] })
}

/// `ramp = { argument, per_s }` or `pi = { argument, tag, setpoint, kp, ti_s, every_ms? }`, if given.
fn read_how(
    fields: &mut Fields<'_>,
    command: Option<&Command>,
    scope: &Scope<'_>,
    report: &mut Report<'_>,
) -> Option<How> {
    let (ramp, pi) = (fields.item("ramp"), fields.item("pi"));
    if let (Some(_), Some(item)) = (ramp, pi) {
        report.reject(item, fields.field("pi"), "ramp or pi, not both");
    }
    if let Some(item) = ramp {
        let expected = "a table { argument, per_s }";
        let mut table = Fields::of(item, fields.field("ramp"), expected, report)?;
        let argument = read_output(&mut table, command, scope, report);
        table.required("per_s", "a rate above 0, per second", report);
        let unit = argument.and_then(|place| output_unit(command, place, scope)).unwrap_or_default();
        let per_s = positive("per_s", &unit, true, &mut table, report);
        table.finish(report);
        return Some(How::Ramp { argument: argument?, per_s: per_s? });
    }
    let Some(item) = pi else { return Some(How::Send) };
    let expected = "a table { argument, tag, setpoint, kp, ti_s, every_ms }";
    let mut table = Fields::of(item, fields.field("pi"), expected, report)?;
    let argument = read_output(&mut table, command, scope, report);
    let tag = table.required("tag", "the name of a tag", report).and_then(|item| {
        let name = item.get_ref().as_str().unwrap_or_default();
        let index = scope.tags.find(name);
        let spec = index.and_then(|index| scope.tags.list.get(index)).filter(|t| t.kind == TagKind::Number);
        if spec.is_none() {
            let numbers = scope.tags.list.iter().filter(|tag| tag.kind == TagKind::Number);
            let close = close_name(name, numbers.map(|tag| tag.name.as_str()));
            let hint = close.map(|close| format!(" (did you mean {close}?)")).unwrap_or_default();
            report.reject(item, table.field("tag"), format!("the name of a tag that is a number{hint}"));
        }
        index.zip(spec)
    });
    let unit = tag.map_or(String::new(), |(_, spec)| spec.unit.clone());
    table.required("setpoint", "the tag's wanted value", report);
    let setpoint = table.quantity("setpoint", &unit, false, report);
    if let (Some((_, spec)), Some(value), Some(item)) = (tag, setpoint, table.item("setpoint"))
        && !(spec.range_lo..=spec.range_hi).contains(&value)
    {
        let (lo, hi) = (reader::show(spec.range_lo), reader::show(spec.range_hi));
        report.reject(item, table.field("setpoint"), format!("a value in the tag's range {lo} to {hi}"));
    }
    table.required("kp", "a gain other than 0", report);
    let kp = table.number("kp", report);
    if let (Some(kp), Some(item)) = (kp, table.item("kp"))
        && (kp == 0.0 || kp.abs() > PI_MAX)
    {
        report.reject(item, table.field("kp"), format!("a gain other than 0, up to {PI_MAX:e}"));
    }
    table.required("ti_s", "an integral time above 0, in seconds", report);
    let ti_s = positive("ti_s", "s", false, &mut table, report);
    let every_ms = table.count("every_ms", TIME_MS, PI_EVERY_MS, report);
    table.finish(report);
    let spec =
        PiSpec { argument: argument?, tag: tag?.0, setpoint: setpoint?, kp: kp?, ti_s: ti_s?, every_ms };
    Some(How::Pi(spec))
}

/// A number above 0, at most [`PI_MAX`].
fn positive(
    key: &'static str,
    unit: &str,
    rate: bool,
    table: &mut Fields<'_>,
    report: &mut Report<'_>,
) -> Option<f64> {
    let value = table.quantity(key, unit, rate, report)?;
    if value > 0.0 && value <= PI_MAX {
        return Some(value);
    }
    if let Some(item) = table.item(key) {
        report.reject(item, table.field(key), format!("a number above 0, up to {PI_MAX:e}"));
    }
    None
}

/// The argument that a ramp or a loop moves: a number of the rule's own command.
fn read_output(
    table: &mut Fields<'_>,
    command: Option<&Command>,
    scope: &Scope<'_>,
    report: &mut Report<'_>,
) -> Option<usize> {
    let item = table.required("argument", "an argument of the rule's command", report)?;
    let name = item.get_ref().as_str().unwrap_or_default();
    let spec = scope.commands.list.get(usize::from(command?.verb))?;
    let place = spec.arguments.iter().position(|argument| argument.name == name);
    let place = place.filter(|place| {
        let kind = spec.arguments.get(*place).map(|argument| &argument.kind);
        matches!(kind, Some(ArgumentKind::Integer { .. } | ArgumentKind::Number { .. }))
    });
    if place.is_none() {
        let expected = format!("an argument of {} that is a number", spec.name);
        report.reject(item, table.field("argument"), expected);
    }
    place
}

fn output_unit(command: Option<&Command>, place: usize, scope: &Scope<'_>) -> Option<String> {
    let spec = scope.commands.list.get(usize::from(command?.verb))?;
    spec.arguments.get(place).map(|argument| argument.unit.clone())
}

pub(super) fn read_condition(
    item: &Item<'_>,
    key: &'static str,
    fields: &Fields<'_>,
    tags: &Tags,
    report: &mut Report<'_>,
) -> Option<Vec<crate::site::Term>> {
    let Some(text) = item.get_ref().as_str() else {
        report.reject(item, fields.field(key), "a condition, for example \"speed > 40 and door == no\"");
        return None;
    };
    let condition = parse_condition(text, &tags.list);
    let broken = |tag: usize| tags.broken.get(tag) == Some(&true);
    match condition {
        Ok(terms) => Some(terms),
        // The tag's own problem is reported already; what follows from it would only confuse.
        Err(_) if tags.list.iter().enumerate().any(|(i, tag)| broken(i) && text.contains(&tag.name)) => None,
        Err(complaint) => {
            report.add(item.span(), fields.field(key), complaint.expected, complaint.found);
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
        Some(item) => read_do(item, "[guard] safe", true, scope, report),
        None if needed => {
            let expected = "the command that is safe at any time, for example { action = \"stop\" }";
            report.add(0..0, "[guard] safe", expected, "nothing, though there is a [plant]");
            None
        }
        None => none_of(scope),
    }
}

/// A command written as a table: `{ action = "…", argument = … }`. It has to be inside the site's limits, too:
/// nothing stands behind a rule or the safe command that could correct it. The safe command has to be inside those that
/// hold only sometimes, too.
fn read_do(
    item: &Item<'_>,
    place: &str,
    safe: bool,
    scope: &Scope<'_>,
    report: &mut Report<'_>,
) -> Option<Command> {
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
        match argument.read(reader::scalar(item)) {
            Ok(read) => {
                *value = read;
                check_limits(item, (index, place), read, safe, scope, &fields, report);
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

fn check_limits(
    item: &Item<'_>,
    (command, argument): (usize, usize),
    value: Value,
    safe: bool,
    scope: &Scope<'_>,
    fields: &Fields<'_>,
    report: &mut Report<'_>,
) {
    let number = match value {
        Value::Integer(value) => value as f64,
        Value::Number(value) => value,
        _ => return,
    };
    let on = LimitTarget::Argument { command, argument };
    for limit in scope.limits.iter().filter(|limit| limit.on == on && (safe || limit.when.is_empty())) {
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
