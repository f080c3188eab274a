//! Lines for people.

use crate::answer::Answer;
use ganglion_guard::{Record, RecordKind, Verdict};
use ganglion_site::Site;
use std::fmt::Write;

/// Paints when standard output is a terminal and the user did not say NO_COLOR.
#[derive(Debug, Clone, Copy)]
pub struct Paint(bool);

impl Paint {
    /// Looks at the terminal and the environment once.
    pub fn detect() -> Self {
        use std::io::IsTerminal;
        Self(std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none())
    }

    fn with(self, code: u8, text: &str) -> String {
        if self.0 { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    fn verdict(self, verdict: Verdict) -> String {
        let code = match verdict {
            Verdict::Approved => 32,
            Verdict::Clamped => 33,
            Verdict::Rejected => 31,
        };
        self.with(code, verdict.as_str())
    }
}

/// What `ask` prints without `--json`.
pub fn answer(answer: &Answer<'_>, site: &Site) -> String {
    let mut out = String::new();
    let command = answer.command.map_or_else(|| "-".to_owned(), |c| c.describe(site));
    let _ = writeln!(out, "command  {command}");
    let _ = write!(out, "verdict  {}", Paint::detect().verdict(answer.verdict));
    let _ = writeln!(out, "{}{}", if answer.reason.is_empty() { "" } else { ": " }, answer.reason);
    let t = &answer.timings;
    let _ = writeln!(
        out,
        "from     {}, confidence {:.2}, {:.1} ms of {} ms ({} prompt tokens, {} from the pinned prefix; {} command tokens, {} forced)",
        answer.outcome.as_str(),
        answer.confidence,
        answer.latency_ms,
        answer.deadline_ms,
        t.prompt_n,
        t.cache_n,
        t.predicted_n,
        t.forced_n
    );
    out
}

/// One record of a run: a decision takes three lines, a notice one.
pub fn record(record: &Record, site: &Site, seconds: f64, paint: Paint) -> String {
    let stamp = paint.with(2, &format!("{seconds:8.2}s"));
    let reason = record.reason.as_str();
    if !matches!(record.kind, RecordKind::Decision | RecordKind::Probe | RecordKind::Announcement) {
        return format!("{stamp}  {:<8} {reason}\n", record.kind.as_str());
    }
    let mut out = String::new();
    let sentence = record.event.sentence.as_str();
    let mut shown: Vec<String> = site
        .tags
        .iter()
        .enumerate()
        .filter(|_| sentence.is_empty())
        .filter_map(|(index, tag)| Some(format!("{} {}", tag.name, tag.show(record.event.tag(index)?))))
        .collect();
    if !sentence.is_empty() {
        shown.push(format!("\"{sentence}\""));
    }
    if let Some(trigger) = record.source.trigger(site) {
        shown.insert(0, trigger.to_owned());
    }
    if !shown.is_empty() && record.kind != RecordKind::Announcement {
        let _ = writeln!(out, "{stamp}  {:<8} {}", record.source.as_str(), paint.with(1, &shown.join(", ")));
    }
    let command = record.clamped.or(record.command).map_or_else(|| "-".to_owned(), |c| c.describe(site));
    let from = record.outcome.map_or("-", |outcome| outcome.as_str());
    let _ = writeln!(
        out,
        "{stamp}  {:<8} {command}  ({from}, {:.1} ms, confidence {:.2})",
        match record.kind {
            RecordKind::Probe => "probe",
            RecordKind::Announcement => "ahead",
            _ => "command",
        },
        record.latency_us as f64 / 1000.0,
        record.confidence
    );
    let verdict = record.verdict.map_or_else(String::new, |verdict| paint.verdict(verdict));
    let end = if record.actuated { "sent to the plant" } else { "not sent" };
    let reason = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    let _ = writeln!(out, "{stamp}  verdict  {verdict}{reason}, {end}");
    out
}
