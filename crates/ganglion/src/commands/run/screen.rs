//! What a run prints: lines for people, or one JSON record a line.

use super::printer::Line;
use super::world::{News, answer_of};
use super::{SharedSignals, seconds_since};
use crate::answer::Identity;
use crate::display::{self, Paint};
use crate::mission::Word;
use anyhow::Result;
use ganglion_guard::{LoopStats, Quality, Record, RecordKind, Status, monotonic_us};
use ganglion_site::Site;
use serde_json::{Value, json};
use std::io::Write;

/// Time between two lines of plant readings.
const PLANT_US: u64 = 2_000_000;

/// Standard output of a run.
pub struct Screen {
    identity: Identity,
    json: bool,
    paint: Paint,
    start_us: u64,
    plant_us: u64,
    shown: Shown,
    signals: SharedSignals,
}

/// The last line of each kind, so that only changes are printed.
#[derive(Default)]
struct Shown {
    plant: String,
    link: String,
    status: String,
}

impl Screen {
    pub fn new(identity: Identity, json: bool, signals: SharedSignals) -> Self {
        let (paint, start_us) = (Paint::detect(), monotonic_us());
        Self { identity, json, paint, start_us, plant_us: 0, shown: Shown::default(), signals }
    }

    /// One item.
    pub fn print(&mut self, line: &Line) -> Result<()> {
        match line {
            Line::Begin { memory, dry_run } => self.begin(memory, *dry_run),
            Line::Record(record) => self.record(record),
            Line::Status(status) => self.status(status),
            Line::News(news) => self.news(news),
            Line::Mission(word) => self.mission(word),
            Line::RealTime(granted) => granted
                .advice()
                .iter()
                .try_for_each(|advice| self.line("realtime", advice, json!({"advice": advice}))),
            Line::Audit { failing: true, lost } => {
                let text =
                    format!("THE AUDIT LOG CANNOT BE WRITTEN ({lost} records lost so far); still trying");
                self.line("audit", &text, json!({"failing": true, "lost": lost}))
            }
            Line::Audit { failing: false, lost } => {
                let text = format!("the audit log is written again; {lost} records were lost");
                self.line("audit", &text, json!({"failing": false, "lost": lost}))
            }
            Line::Input(text) => self.line("input", text, json!({"text": text})),
            Line::Latch(error) => {
                let text = format!("A RESTART WOULD NOT KNOW OF THIS ABORT, OR OF ITS CLEAR: {error}");
                self.line("latch", &text, json!({"error": error}))
            }
            Line::Recording { failing, lost_bytes } => {
                let word = if *failing { "cannot be written; still trying" } else { "is written again" };
                let text = format!("the recording {word} ({lost_bytes} bytes lost so far)");
                self.line("record", &text, json!({"failing": failing, "lost_bytes": lost_bytes}))
            }
            Line::End { stats, status } => self.end(stats, status),
        }
    }

    fn begin(&mut self, memory: &str, dry_run: bool) -> Result<()> {
        if self.json {
            return Ok(());
        }
        let site = &self.identity.site;
        let dry = if dry_run { ", dry run: nothing is sent to the plant" } else { "" };
        let (name, guard) = (&site.name, &site.guard);
        let mut out = std::io::stdout().lock();
        writeln!(
            out,
            "site {name}: cycle {} ms, deadline {} ms, {memory} of memory{dry}; end with Ctrl-C or Ctrl-D",
            guard.period_ms, guard.deadline_ms
        )?;
        Ok(out.flush()?)
    }

    fn line(&self, kind: &str, text: &str, fields: Value) -> Result<()> {
        let seconds = seconds_since(self.start_us);
        let mut out = std::io::stdout().lock();
        if self.json {
            let mut object = json!({"kind": kind, "time_s": (seconds * 1e3).round() / 1e3});
            if let (Some(object), Value::Object(fields)) = (object.as_object_mut(), fields) {
                object.extend(fields);
            }
            writeln!(out, "{object}")?;
        } else {
            writeln!(out, "{seconds:8.2}s  {kind:<8} {text}")?;
        }
        out.flush()?;
        Ok(())
    }

    /// A decision or notice of the guard.
    fn record(&mut self, record: &Record) -> Result<()> {
        // Said in full by the mission itself; the record is for the log.
        if record.kind == RecordKind::Mission {
            return Ok(());
        }
        let seconds = (record.time_us.saturating_sub(self.start_us)) as f64 / 1e6;
        let site = &self.identity.site;
        if !self.json {
            let text = display::record(record, site, seconds, self.paint);
            let mut out = std::io::stdout().lock();
            out.write_all(text.as_bytes())?;
            return Ok(out.flush()?);
        }
        let mut object = json!({
            "kind": record.kind.as_str(), "time_s": (seconds * 1e3).round() / 1e3, "mode": record.mode,
            "breaker": record.breaker, "reason": record.reason.as_str(),
        });
        if matches!(record.kind, RecordKind::Decision | RecordKind::Probe | RecordKind::Announcement)
            && let Some(map) = object.as_object_mut()
        {
            let tags: serde_json::Map<_, _> = (0..)
                .zip(&site.tags)
                .filter_map(|(index, tag)| Some((tag.name.clone(), json!(record.event.tag(index)?))))
                .collect();
            // The answer below has it, in its documented place.
            map.shift_remove("reason");
            let head = json!({
                "source": record.source.as_str(), "text": record.event.sentence.as_str(), "tags": tags,
                "dry_run": record.event.dry_run, "actuated": record.actuated,
            });
            if let Some(trigger) = record.source.trigger(site) {
                map.insert("trigger".to_owned(), json!(trigger));
            }
            let deadline_ms = f64::from(self.identity.current().guard.deadline_ms);
            for part in [head, answer_of(record, deadline_ms).to_json(&self.identity)] {
                if let Value::Object(part) = part {
                    map.extend(part);
                }
            }
        }
        let mut out = std::io::stdout().lock();
        writeln!(out, "{object}")?;
        Ok(out.flush()?)
    }

    /// A changed state of the guard.
    fn status(&mut self, status: &Status) -> Result<()> {
        let reason = status.reason.as_str();
        let why = if reason.is_empty() { String::new() } else { format!(" ({reason})") };
        let text = format!(
            "{}, breaker {}, brain {}, {}{why}",
            status.mode.as_str(),
            status.breaker.as_str(),
            status.brain.as_str(),
            status.severity.as_str()
        );
        if text == self.shown.status {
            return Ok(());
        }
        self.line("status", &text, status_json(status, &self.identity.site))?;
        self.shown.status = text;
        Ok(())
    }

    /// A mission's transition, and its plan.
    fn mission(&self, word: &Word) -> Result<()> {
        let site = &self.identity.site;
        let state = word.state.as_str();
        self.line("mission", &format!("{state}: {}", word.text), word.to_json(site))?;
        if let (Some(forecast), false) = (&word.forecast, self.json) {
            let mut out = std::io::stdout().lock();
            out.write_all(forecast.table(site).as_bytes())?;
            out.flush()?;
        }
        Ok(())
    }

    /// Word from the network.
    fn news(&mut self, news: &News) -> Result<()> {
        let site = &self.identity.site;
        match news {
            News::Written(command) => {
                let json = json!({"took": serde_json::from_str::<Value>(&command.to_json(site)).unwrap_or_default()});
                self.line("plant", &format!("took {}", command.describe(site)), json)
            }
            News::Refused(command, failure) => {
                let json = json!({"refused": command.to_json(site), "reason": failure.to_string()});
                self.line("plant", &format!("did not take {}: {failure}", command.describe(site)), json)
            }
            News::Link(problem) if *problem != self.shown.link => {
                self.shown.link.clone_from(problem);
                if problem.is_empty() {
                    Ok(())
                } else {
                    self.line("link", problem, json!({"error": problem}))
                }
            }
            News::Link(_) => Ok(()),
            News::Http(Ok(address)) => self.line(
                "http",
                &format!("POST http://{address}/v1/decide"),
                json!({"address": address.to_string()}),
            ),
            News::Http(Err(error)) => self.line("http", error, json!({"error": error})),
        }
    }

    /// The plant's readings, when they changed and some time has passed.
    pub fn plant(&mut self) -> Result<()> {
        let now = monotonic_us();
        if now < self.plant_us + PLANT_US {
            return Ok(());
        }
        let site = &self.identity.site;
        let (mut shown, mut values) = (Vec::new(), serde_json::Map::new());
        for (index, tag) in site.tags.iter().enumerate().filter(|(_, tag)| tag.read.is_some()) {
            let sample = self.signals.tags.read(index);
            if sample.quality == Quality::Good {
                shown.push(format!("{} {}", tag.name, tag.show(sample.value)));
                values.insert(tag.name.clone(), json!(sample.value));
            }
        }
        let line = shown.join(", ");
        if line.is_empty() || line == self.shown.plant {
            return Ok(());
        }
        self.plant_us = now;
        self.line("plant", &line, json!({"tags": values}))?;
        self.shown.plant = line;
        Ok(())
    }

    /// What the run came to.
    fn end(&mut self, stats: &LoopStats, status: &Status) -> Result<()> {
        let c = &status.counters;
        let text = format!(
            "{} cycles, {} events, {} commands to the plant; {} overruns, wake-up at most {:.2} ms late",
            c.cycles,
            c.events,
            c.actuated,
            stats.overruns,
            stats.jitter_us_max as f64 / 1000.0
        );
        self.line("end", &text, json!({"cycles": c.cycles, "events": c.events, "actuated": c.actuated}))
    }
}

/// What the guard has counted since its start.
fn counters_json(status: &Status, site: &Site) -> Value {
    let c = &status.counters;
    let triggers: serde_json::Map<_, _> = site
        .triggers
        .iter()
        .zip(c.triggers)
        .map(|(trigger, count)| (trigger.name.clone(), json!(count)))
        .collect();
    json!({
        "cycles": c.cycles, "events": c.events, "actuated": c.actuated, "approved": c.approved, "clamped": c.clamped,
        "rejected": c.rejected, "by_rule": c.by_rule, "by_safe": c.by_safe, "deadline_misses": c.deadline_misses,
        "late_answers": c.late_answers, "unexpected_answers": c.unexpected_answers,
        "malformed_answers": c.malformed_answers, "brain_losses": c.brain_losses, "busy": c.busy,
        "superseded": c.superseded, "announced": c.announced, "refused_commands": c.refused_commands,
        "records_dropped": c.records_dropped, "triggers": triggers,
    })
}

/// The guard's state for clients and `--json`.
pub fn status_json(status: &Status, site: &Site) -> Value {
    json!({
        "mode": status.mode.as_str(), "breaker": status.breaker.as_str(), "brain": status.brain.as_str(),
        "severity": status.severity.as_str(), "connected": status.link.connected,
        "rule_in_control": status.rule_in_control, "reason": status.reason.as_str(), "pending": status.pending,
        "counters": counters_json(status, site),
    })
}
