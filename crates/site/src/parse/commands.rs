//! `[[command]]`: verbs, arguments, register writes.

use super::reader::{self, Fields, Item, Report};
use super::{is_line, is_name, place_of, read_name, read_unit};
use crate::command::{
    ArgumentKind, ArgumentSpec, CommandSpec, RegisterWrite, Value, WriteSource, WriteTarget,
};
use crate::limits::{
    ABOUT_BYTES_MAX, ARGUMENTS_MAX, CHOICES_MAX, COMMANDS_MAX, INTEGER_MAX, NAME_BYTES_MAX, STEPS_MAX,
    TEXT_ARGUMENT_BYTES_MAX, WRITES_MAX,
};
use crate::number::Grid;
use crate::site::{CommandBudget, PlantSpec};
use crate::units::close_name;

/// The commands of a file, `none` last; those in `broken` exist by name, but what they take is not what the file means.
pub(super) struct Commands {
    pub(super) list: Vec<CommandSpec>,
    pub(super) broken: Vec<bool>,
}

pub(super) fn read_commands(
    root: &mut Fields<'_>,
    plant: Option<&PlantSpec>,
    budget: Option<CommandBudget>,
    report: &mut Report<'_>,
) -> Commands {
    let mut commands = Commands { list: Vec::new(), broken: Vec::new() };
    let mut announced = Vec::new();
    // One place is taken by `none`.
    let items = root.array("command", "[[command]] tables", COMMANDS_MAX - 1, report).unwrap_or_default();
    for (index, item) in items.iter().enumerate() {
        let Some(mut fields) = Fields::of(item, "command", "a [[command]] table", report) else { continue };
        fields.place = place_of("command", index, &fields);
        let before = report.count();
        let taken: Vec<&str> = commands.list.iter().map(|command| command.name.as_str()).collect();
        let name = read_name(&mut fields, &taken, report).unwrap_or_default();
        if name == CommandSpec::NONE
            && let Some(item) = fields.item("name")
        {
            report.reject(item, fields.field("name"), "another name (none always exists and does nothing)");
        }
        if let Some(item) = fields.item("announce") {
            announced.push((index, item, fields.field("announce")));
        }
        let command = read_command(name, &mut fields, plant, report);
        commands.list.push(command);
        commands.broken.push(report.count() > before);
    }
    for (index, item, field) in announced {
        resolve_announced(index, item, &field, budget, &mut commands, report);
    }
    commands.list.push(CommandSpec {
        name: CommandSpec::NONE.into(),
        about: String::new(),
        arguments: Vec::new(),
        writes: Vec::new(),
        announce: None,
    });
    commands.broken.push(false);
    commands
}

/// `announce = "…"`: the name of another command, without arguments.
fn resolve_announced(
    index: usize,
    item: &Item<'_>,
    field: &str,
    budget: Option<CommandBudget>,
    commands: &mut Commands,
    report: &mut Report<'_>,
) {
    let name = item.get_ref().as_str().unwrap_or_default();
    let allowed = |(at, spec): &(usize, &CommandSpec)| *at != index && spec.arguments.is_empty();
    let found = commands.list.iter().enumerate().filter(allowed).find(|(_, spec)| spec.name == name);
    let Some((announced, _)) = found else {
        let names = commands.list.iter().enumerate().filter(allowed).map(|(_, spec)| spec.name.as_str());
        let close = close_name(name, names);
        let hint = close.map(|close| format!(" (did you mean {close}?)")).unwrap_or_default();
        report.reject(item, field, format!("the name of another command, one without arguments{hint}"));
        return;
    };
    if budget.is_some_and(|budget| budget.burst < 2) {
        let expected =
            "[guard] commands with burst = 2 or more: an announcement and its command take one each";
        report.reject(item, field, expected);
    }
    if let Some(spec) = commands.list.get_mut(index) {
        spec.announce = u16::try_from(announced).ok();
    }
}

impl CommandSpec {
    /// The command that every site has, as its last: do nothing.
    pub const NONE: &'static str = "none";
}

fn read_command(
    name: String,
    fields: &mut Fields<'_>,
    plant: Option<&PlantSpec>,
    report: &mut Report<'_>,
) -> CommandSpec {
    let expected = format!("one line of text of at most {ABOUT_BYTES_MAX} bytes");
    let about = fields.text("about", &expected, report).unwrap_or_default();
    if let Some(item) = fields.item("about")
        && !is_line(about, ABOUT_BYTES_MAX)
    {
        report.reject(item, fields.field("about"), expected);
    }
    let items = fields.array("arguments", "a list of { name, … } tables", ARGUMENTS_MAX, report);
    let mut arguments: Vec<ArgumentSpec> = Vec::new();
    for (index, item) in items.unwrap_or_default().iter().enumerate() {
        if let Some(mut argument) = Fields::of(item, fields.field("arguments"), "a { name, … } table", report)
        {
            argument.place = format!("{}, {}", fields.place, place_of("argument", index, &argument));
            let spec = read_argument(&mut argument, &arguments, report);
            arguments.push(spec);
        }
    }
    let items = fields.array("writes", "a list of register writes", WRITES_MAX, report);
    let mut writes = Vec::new();
    for (index, item) in items.unwrap_or_default().iter().enumerate() {
        let place = format!("{}, write number {}", fields.place, index + 1);
        let expected =
            "a table { holding = ADDRESS, value = \"argument\" } or { holding = ADDRESS, constant = N }";
        if let Some(mut write) = Fields::of(item, place, expected, report)
            && let Some(write) = read_write(item, &mut write, &arguments, plant, report)
        {
            writes.push(write);
        }
    }
    fields.finish(report);
    CommandSpec { name, about: about.trim().to_string(), arguments, writes, announce: None }
}

fn read_argument(fields: &mut Fields<'_>, others: &[ArgumentSpec], report: &mut Report<'_>) -> ArgumentSpec {
    let taken: Vec<&str> = others.iter().map(|other| other.name.as_str()).chain(["action"]).collect();
    let name = read_name(fields, &taken, report).unwrap_or_default();
    let unit = read_unit(fields, report);
    let kinds: Vec<_> = ["choices", "integer", "number", "bool", "text"]
        .into_iter()
        .filter_map(|key| fields.item(key).map(|item| (key, item)))
        .collect();
    let step = fields.item("step");
    let place = fields.place.clone();
    let kind = match kinds[..] {
        [("choices", item)] => read_choices(item, &place, report),
        [("integer", item)] => read_integer(item, &place, report),
        [("number", item)] => read_number(item, step, &place, report),
        [("bool", item)] => {
            if item.get_ref().as_bool() != Some(true) {
                report.reject(item, place.clone(), "bool = true");
            }
            ArgumentKind::Bool
        }
        [("text", item)] => {
            let size = reader::whole(item).and_then(|size| usize::try_from(size).ok());
            let size = size.filter(|size| (1..=TEXT_ARGUMENT_BYTES_MAX).contains(size));
            if size.is_none() {
                report.reject(
                    item,
                    place.clone(),
                    format!("text = N bytes from 1 to {TEXT_ARGUMENT_BYTES_MAX}"),
                );
            }
            ArgumentKind::Text { bytes_max: size.unwrap_or(1) }
        }
        _ => {
            let found = match kinds.len() {
                0 => "none of them".to_string(),
                _ => kinds.iter().map(|(key, _)| *key).collect::<Vec<_>>().join(" and "),
            };
            let expected = "one of choices, integer, number, bool or text";
            report.add(fields.span.clone(), place.clone(), expected, found);
            ArgumentKind::Bool
        }
    };
    let numeric = matches!(kind, ArgumentKind::Integer { .. } | ArgumentKind::Number { .. });
    if let (Some(item), false) = (fields.item("unit"), numeric || unit.is_empty()) {
        report.reject(item, fields.field("unit"), "no unit on an argument that is not a number");
    }
    if let (Some(item), false) = (step, matches!(kind, ArgumentKind::Number { .. })) {
        report.reject(item, fields.field("step"), "no step on an argument without number = [lo, hi]");
    }
    let mut argument = ArgumentSpec { name, kind, unit, default: None };
    argument.default = read_default(fields, &argument, report);
    fields.finish(report);
    argument
}

/// The value that completes a command whose time is over.
fn read_default(fields: &mut Fields<'_>, argument: &ArgumentSpec, report: &mut Report<'_>) -> Option<Value> {
    let item = fields.item("default")?;
    let value = argument.read(reader::scalar(item)).ok();
    if value.is_none() {
        report.reject(item, fields.field("default"), argument.expected());
    }
    value
}

fn read_choices(item: &Item<'_>, place: &str, report: &mut Report<'_>) -> ArgumentKind {
    let expected = format!(
        "choices: a list of 1 to {CHOICES_MAX} different names (lower-case letters, digits, _, -, .)"
    );
    let items: &[Item<'_>] = item.get_ref().as_array().map(AsRef::as_ref).unwrap_or_default();
    if items.is_empty() || items.len() > CHOICES_MAX {
        report.reject(item, place, expected.clone());
    }
    let mut choices: Vec<String> = Vec::new();
    for choice in items.iter().take(CHOICES_MAX) {
        let name = choice.get_ref().as_str().filter(|name| is_name(name));
        match name.filter(|name| choices.iter().all(|other| other != name)) {
            Some(name) => choices.push(name.to_string()),
            None => {
                let expected = format!("{expected}, each at most {NAME_BYTES_MAX} bytes");
                report.reject(choice, place, expected);
            }
        }
    }
    ArgumentKind::Enum(choices)
}

fn read_integer(item: &Item<'_>, place: &str, report: &mut Report<'_>) -> ArgumentKind {
    let bounds = item.get_ref().as_array().and_then(|array| match array.as_ref() {
        [lo, hi] => Some((reader::whole(lo)?, reader::whole(hi)?)),
        _ => None,
    });
    let exact = |(lo, hi): &(i64, i64)| lo <= hi && *lo >= -INTEGER_MAX && *hi <= INTEGER_MAX;
    let Some((lo, hi)) = bounds.filter(exact) else {
        report.reject(item, place, "integer range [lo, hi] with lo ≤ hi");
        return ArgumentKind::Integer { lo: 0, hi: 0 };
    };
    ArgumentKind::Integer { lo, hi }
}

fn read_number(
    item: &Item<'_>,
    step: Option<&Item<'_>>,
    place: &str,
    report: &mut Report<'_>,
) -> ArgumentKind {
    let range = reader::range(item, false);
    if range.is_none() {
        report.reject(item, place, "number range [lo, hi] with finite lo < hi");
    }
    let (lo, hi) = range.unwrap_or((0.0, 1.0));
    let expected = "step: 1, 2, 2.5 or 5 times a power of ten, for example 0.5 or 0.1";
    let Some(step_item) = step else {
        report.add(item.span(), place, expected, "nothing");
        return ArgumentKind::Number { lo, hi, step: 1.0 };
    };
    let Some((step, grid)) = reader::number(step_item).and_then(|step| Some((step, Grid::new(step)?))) else {
        report.reject(step_item, place, expected);
        return ArgumentKind::Number { lo, hi, step: 1.0 };
    };
    if lo.abs().max(hi.abs()) / step > STEPS_MAX {
        report.reject(item, place, format!("a range within {STEPS_MAX:e} steps of zero"));
    }
    match (grid.snap(lo), grid.snap(hi)) {
        (Some(lo), Some(hi)) => ArgumentKind::Number { lo, hi, step },
        _ => {
            let expected = format!("number range [lo, hi] of multiples of the step {}", reader::show(step));
            report.reject(item, place, expected);
            ArgumentKind::Number { lo, hi, step }
        }
    }
}

fn read_write(
    item: &Item<'_>,
    fields: &mut Fields<'_>,
    arguments: &[ArgumentSpec],
    plant: Option<&PlantSpec>,
    report: &mut Report<'_>,
) -> Option<RegisterWrite> {
    let (key, target) = match (fields.item("holding").is_some(), fields.item("coil").is_some()) {
        (true, false) => ("holding", WriteTarget::Holding),
        (false, true) => ("coil", WriteTarget::Coil),
        _ => {
            report.reject(item, fields.place.clone(), "holding = ADDRESS or coil = ADDRESS");
            return None;
        }
    };
    let address = fields.address(key, report);
    let select = find_argument("select", fields, arguments, report);
    let mut span = 1;
    if let Some(index) = select {
        match arguments.get(index).map(|argument| &argument.kind) {
            Some(ArgumentKind::Enum(choices)) => span = choices.len().max(1),
            _ => {
                if let Some(item) = fields.item("select") {
                    report.reject(item, fields.field("select"), "an argument with choices");
                }
            }
        }
    }
    check_addresses(target, address, span, key, fields, plant, report);
    let scale = fields.scale(report);
    let value = find_argument("value", fields, arguments, report);
    let source = match (fields.item("value"), fields.item("constant")) {
        (Some(_), None) => WriteSource::Argument { index: value?, scale },
        (None, Some(_)) => {
            let hi = if target == WriteTarget::Coil { 1 } else { u16::MAX.into() };
            let lo = if target == WriteTarget::Coil { 0 } else { i16::MIN.into() };
            let constant = fields.integer("constant", lo, hi, report)?;
            // A negative constant is written as its two's complement; in range by the line above.
            WriteSource::Constant((constant & 0xffff) as u16)
        }
        _ => {
            report.reject(item, fields.place.clone(), "either value = \"argument\" or constant = N");
            return None;
        }
    };
    check_fit(target, source, fields, arguments, report);
    fields.finish(report);
    Some(RegisterWrite { target, address, select, source })
}

/// The argument that field `key` names, if given.
fn find_argument(
    key: &'static str,
    fields: &mut Fields<'_>,
    arguments: &[ArgumentSpec],
    report: &mut Report<'_>,
) -> Option<usize> {
    let item = fields.item(key)?;
    let name = item.get_ref().as_str().unwrap_or_default();
    let index = arguments.iter().position(|argument| argument.name == name);
    if index.is_none() {
        let close = close_name(name, arguments.iter().map(|argument| argument.name.as_str()));
        let hint = close.map(|close| format!(" (did you mean {close}?)")).unwrap_or_default();
        report.reject(item, fields.field(key), format!("the name of one of the command's arguments{hint}"));
    }
    index
}

/// A write stays inside the register space and away from the registers that keep the device's watchdog alive.
fn check_addresses(
    target: WriteTarget,
    address: u16,
    span: usize,
    key: &'static str,
    fields: &mut Fields<'_>,
    plant: Option<&PlantSpec>,
    report: &mut Report<'_>,
) {
    let Some(item) = fields.item(key) else { return };
    let addresses = usize::from(address)..usize::from(address) + span;
    if addresses.end > usize::from(u16::MAX) + 1 {
        report.reject(item, fields.field(key), format!("an address that leaves room for {span} registers"));
    }
    let reserved =
        plant.filter(|_| target == WriteTarget::Holding).map(|plant| [plant.heartbeat, plant.watchdog]);
    if reserved
        .is_some_and(|reserved| reserved.iter().any(|register| addresses.contains(&usize::from(*register))))
    {
        report.reject(item, fields.field(key), "registers other than [plant] heartbeat and watchdog");
    }
}

/// Every value that the argument can take has to fit the register or coil.
fn check_fit(
    target: WriteTarget,
    source: WriteSource,
    fields: &mut Fields<'_>,
    arguments: &[ArgumentSpec],
    report: &mut Report<'_>,
) {
    let scaled = fields.item("scale");
    let WriteSource::Argument { index, scale } = source else {
        if let Some(item) = scaled {
            report.reject(item, fields.field("scale"), "no scale with a constant");
        }
        return;
    };
    let Some(argument) = arguments.get(index) else { return };
    let (lo, hi) = match &argument.kind {
        ArgumentKind::Enum(choices) => (0.0, choices.len().saturating_sub(1) as f64),
        ArgumentKind::Bool => (0.0, 1.0),
        ArgumentKind::Integer { lo, hi } => (*lo as f64, *hi as f64),
        ArgumentKind::Number { lo, hi, .. } => (*lo, *hi),
        ArgumentKind::Text { .. } => {
            let Some(item) = fields.item("value") else { return };
            report.reject(item, fields.field("value"), "an argument that is not text");
            return;
        }
    };
    let numeric = matches!(argument.kind, ArgumentKind::Integer { .. } | ArgumentKind::Number { .. });
    if let (Some(item), false) = (scaled, numeric && target == WriteTarget::Holding) {
        report.reject(
            item,
            fields.field("scale"),
            "a scale only where a number is written to a holding register",
        );
        return;
    }
    let (a, b) = ((lo / scale).round(), (hi / scale).round());
    let (raw_lo, raw_hi) = (a.min(b), a.max(b));
    let (signed, unsigned) = (f64::from(i16::MIN)..=f64::from(i16::MAX), 0.0..=f64::from(u16::MAX));
    let fits = match target {
        WriteTarget::Coil => raw_lo >= 0.0 && raw_hi <= 1.0,
        WriteTarget::Holding => {
            [signed, unsigned].iter().any(|range| range.contains(&raw_lo) && range.contains(&raw_hi))
        }
    };
    if let (false, Some(item)) = (fits, fields.item("value")) {
        let expected = match target {
            WriteTarget::Coil => "an argument of 0 and 1 (bool, or two choices)".to_string(),
            WriteTarget::Holding => "a value and scale that fit a 16-bit register".to_string(),
        };
        let found = format!("{} from {} to {}", argument.name, reader::show(raw_lo), reader::show(raw_hi));
        report.add(item.span(), fields.field("value"), expected, found);
    }
}
