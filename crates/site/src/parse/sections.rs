//! The file's single tables: `[model]`, `[guard]`, `[prompt]`, `[plant]`, `[http]`.

use super::confidence::read_confidence;
use super::reader::{Fields, Item, Report};
use super::{is_line, is_name, variants};
use crate::kept::SwitchSpec;
use crate::limits::{
    BREAKER_COUNT_MAX, COMMANDS_PER_MINUTE_MAX, CONTEXT_TOKENS, NOTE_BYTES_MAX, NOTES_MAX, PARALLEL,
    PARALLEL_MAX, PATH_BYTES_MAX, PERIOD_MS, SIMULATOR_SPEED_MAX, TAGS_MAX, THREADS_MAX, TIME_MS,
};
use crate::site::{
    CommandBudget, ConfidenceSpec, GuardSpec, KvStorage, ModelSpec, PlantSpec, PromptSpec, Tag,
};
use crate::units::close_name;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// A top-level table, if given.
pub(super) fn section<'t>(
    root: &mut Fields<'t>,
    key: &'static str,
    report: &mut Report<'_>,
) -> Option<Fields<'t>> {
    let item = root.item(key)?;
    Fields::of(item, format!("[{key}]"), &format!("a table [{key}]"), report)
}

pub(super) fn read_model(root: &mut Fields<'_>, file: &Path, report: &mut Report<'_>) -> ModelSpec {
    let kv = KvStorage::default();
    let path = PathBuf::new();
    let confidence = ConfidenceSpec::default();
    let mut model = ModelSpec {
        path,
        context_tokens: 1024,
        threads: 0,
        lock_memory: false,
        memo: true,
        kv,
        parallel: PARALLEL,
        confidence,
        variants: Vec::new(),
        switch: SwitchSpec::NEVER,
    };
    let expected = "the path of a GGUF file, relative to the site's folder";
    if root.item("model").is_none() {
        root.missing("model", "a table [model] with path = \"…\"", report);
        return model;
    }
    let Some(mut fields) = section(root, "model", report) else { return model };
    if let Some(item) = fields.required("path", expected, report) {
        let text = item.get_ref().as_str();
        match text.filter(|text| !text.is_empty() && is_line(text, PATH_BYTES_MAX)) {
            Some(text) => model.path = file.parent().unwrap_or(Path::new("")).join(text),
            None => report.reject(item, fields.field("path"), expected),
        }
    }
    let (lo, hi) = CONTEXT_TOKENS;
    let context_tokens = fields.integer("context_tokens", lo as i64, hi as i64, report);
    model.context_tokens =
        context_tokens.and_then(|n| usize::try_from(n).ok()).unwrap_or(model.context_tokens);
    let threads = fields.integer("threads", 0, THREADS_MAX as i64, report);
    model.threads = threads.and_then(|n| usize::try_from(n).ok()).unwrap_or(model.threads);
    let parallel = fields.integer("parallel", 1, PARALLEL_MAX as i64, report);
    model.parallel = parallel.and_then(|n| usize::try_from(n).ok()).unwrap_or(model.parallel);
    if let Some(item) = fields.item("kv") {
        let named = item.get_ref().as_str();
        match KvStorage::NAMES.into_iter().find(|(name, _)| Some(*name) == named) {
            Some((_, kv)) => model.kv = kv,
            None => report.reject(item, fields.field("kv"), "\"f32\", \"f16\" or \"int8\""),
        }
    }
    model.lock_memory = fields.flag("lock_memory", report);
    model.memo = fields.item("memo").is_none() || fields.flag("memo", report);
    model.variants = variants::read_variants(&mut fields, file, report);
    model.switch = variants::read_switch(&mut fields, model.variants.len(), report);
    model.confidence = read_confidence(&mut fields, report);
    fields.finish(report);
    model
}

/// `[guard]`, and its `safe` entry to be read once the commands are known.
pub(super) fn read_guard<'t>(
    root: &mut Fields<'t>,
    report: &mut Report<'_>,
) -> (GuardSpec, Option<&'t Item<'t>>) {
    let mut guard = GuardSpec::DEFAULT;
    let Some(mut fields) = section(root, "guard", report) else { return (guard, None) };
    guard.period_ms = fields.count("period_ms", PERIOD_MS, guard.period_ms, report);
    guard.deadline_ms = fields.count("deadline_ms", TIME_MS, guard.deadline_ms, report);
    let timeout_default = GuardSpec::brain_timeout_default_ms(guard.deadline_ms);
    guard.brain_timeout_ms = fields.count("brain_timeout_ms", TIME_MS, timeout_default, report);
    if guard.brain_timeout_ms < guard.deadline_ms
        && let Some(item) = fields.item("brain_timeout_ms")
    {
        let expected = format!("no less than deadline_ms = {}", guard.deadline_ms);
        report.reject(item, fields.field("brain_timeout_ms"), expected);
    }
    if let Some(item) = fields.item("breaker") {
        let expected = "a table { failures, open_ms, probes }";
        if let Some(mut breaker) = Fields::of(item, "[guard] breaker", expected, report) {
            let counts = (1, BREAKER_COUNT_MAX);
            guard.breaker_failures = breaker.count("failures", counts, guard.breaker_failures, report);
            guard.breaker_open_ms = breaker.count("open_ms", TIME_MS, guard.breaker_open_ms, report);
            guard.breaker_probes = breaker.count("probes", counts, guard.breaker_probes, report);
            breaker.finish(report);
        }
    }
    if let Some(item) = fields.item("commands") {
        let expected = "a table { burst, per_minute }";
        if let Some(mut budget) = Fields::of(item, "[guard] commands", expected, report) {
            let counts = (1, COMMANDS_PER_MINUTE_MAX);
            let burst = budget.count("burst", counts, 1, report);
            if budget.required("per_minute", "commands per minute", report).is_some() {
                let per_minute = budget.count("per_minute", counts, 1, report);
                guard.commands = Some(CommandBudget { burst, per_minute });
            }
            budget.finish(report);
        }
    }
    let safe = fields.item("safe");
    fields.finish(report);
    (guard, safe)
}

pub(super) fn read_prompt(root: &mut Fields<'_>, tags: &[Tag], report: &mut Report<'_>) -> PromptSpec {
    let mut prompt = PromptSpec::default();
    let Some(mut fields) = section(root, "prompt", report) else { return prompt };
    for item in fields.array("tags", "a list of tag names", TAGS_MAX, report).unwrap_or_default() {
        let name = item.get_ref().as_str().unwrap_or_default();
        match tags.iter().position(|tag| tag.name == name) {
            Some(index) if prompt.tags.contains(&index) => {
                report.reject(item, fields.field("tags"), "each tag once");
            }
            Some(index) => prompt.tags.push(index),
            None => report.reject(item, fields.field("tags"), expected_tag(name, tags)),
        }
    }
    for item in fields.array("notes", "a list of sentences", NOTES_MAX, report).unwrap_or_default() {
        let text = item.get_ref().as_str().map(str::trim);
        match text.filter(|text| !text.is_empty() && is_line(text, NOTE_BYTES_MAX)) {
            Some(text) => prompt.notes.push(text.to_string()),
            None => {
                let expected = format!("one line of text of 1 to {NOTE_BYTES_MAX} bytes");
                report.reject(item, fields.field("notes"), expected);
            }
        }
    }
    fields.finish(report);
    prompt
}

/// What to say where a tag's name is expected.
pub(super) fn expected_tag(name: &str, tags: &[Tag]) -> String {
    let close = close_name(name, tags.iter().map(|tag| tag.name.as_str()));
    let hint = close.map(|close| format!(" (did you mean {close}?)")).unwrap_or_default();
    format!("the name of a tag{hint}")
}

pub(super) fn read_plant(
    root: &mut Fields<'_>,
    guard: &GuardSpec,
    report: &mut Report<'_>,
) -> Option<PlantSpec> {
    let mut fields = section(root, "plant", report)?;
    let expected = "host:port of a Modbus TCP device";
    let mut modbus = String::new();
    if let Some(item) = fields.required("modbus", expected, report) {
        match item.get_ref().as_str().filter(|text| is_host_and_port(text)) {
            Some(text) => modbus = text.to_string(),
            None => report.reject(item, fields.field("modbus"), expected),
        }
    }
    let unit = fields.integer("unit", 0, 255, report);
    let unit = unit.and_then(|unit| u8::try_from(unit).ok()).unwrap_or(1);
    let expected = "the name of a simulated plant";
    let simulator = fields.text("simulator", expected, report).map(str::to_string);
    if let (Some(name), Some(item)) = (&simulator, fields.item("simulator"))
        && !is_name(name)
    {
        report.reject(item, fields.field("simulator"), expected);
    }
    let simulator_speed = fields.number("simulator_speed", report).unwrap_or(1.0);
    if let Some(item) = fields.item("simulator_speed")
        && (simulator.is_none() || !(simulator_speed > 0.0 && simulator_speed <= SIMULATOR_SPEED_MAX))
    {
        let expected = "with a simulator, model seconds per real second, above 0 and at most 3600";
        report.reject(item, fields.field("simulator_speed"), expected);
    }
    let poll_ms = fields.count("poll_ms", TIME_MS, guard.period_ms, report);
    let heartbeat = fields.address("heartbeat", report);
    let watchdog = fields.address("watchdog", report);
    if heartbeat == watchdog
        && let Some(item) = fields.item("watchdog")
    {
        report.reject(item, fields.field("watchdog"), "another register than heartbeat");
    }
    let expected = "milliseconds from 1 to 65535";
    let watchdog_ms = match fields.required("watchdog_ms", expected, report) {
        Some(item) => {
            let value =
                fields.integer("watchdog_ms", 1, u16::MAX.into(), report).unwrap_or(i64::from(u16::MAX));
            if value <= guard.period_ms.into() {
                let expected = format!("more than [guard] period_ms = {}", guard.period_ms);
                report.reject(item, fields.field("watchdog_ms"), expected);
            }
            u16::try_from(value).unwrap_or(u16::MAX)
        }
        None => u16::MAX,
    };
    let watchdog_state = fields.address("watchdog_state", report);
    fields.finish(report);
    Some(PlantSpec {
        modbus,
        unit,
        simulator,
        simulator_speed,
        poll_ms,
        heartbeat,
        watchdog,
        watchdog_ms,
        watchdog_state,
    })
}

fn is_host_and_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let bracketed = host.starts_with('[') && host.ends_with(']');
    let printable = host.bytes().all(|byte| byte.is_ascii_graphic());
    let plain = !host.contains([':', '/', '@']);
    !host.is_empty() && printable && (plain || bracketed) && text.len() <= PATH_BYTES_MAX && is_port(port)
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok_and(|port| port > 0)
}

pub(super) fn read_http(root: &mut Fields<'_>, report: &mut Report<'_>) -> Option<SocketAddr> {
    let mut fields = section(root, "http", report)?;
    let expected = "a loopback address and port, for example \"127.0.0.1:8420\"";
    let item = fields.required("listen", expected, report);
    fields.finish(report);
    let item = item?;
    let address = item.get_ref().as_str().and_then(|text| text.parse::<SocketAddr>().ok());
    let address = address.filter(|address| address.ip().is_loopback());
    if address.is_none() {
        report.reject(item, fields.field("listen"), expected);
    }
    address
}
