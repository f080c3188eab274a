//! What a longer text asks for, as `ask --document` and `"document"` over HTTP give it.

use crate::answer::{Identity, command_json};
use anyhow::Result;
use ganglion_decide::{Join, Joined};
use ganglion_guard::{Checked, Guard, Verdict};
use ganglion_site::Site;
use serde_json::{Value, json};
use std::fmt::Write;
use std::time::Duration;

/// The result of all windows.
pub struct Outcome {
    bytes: u64,
    windows: u64,
    nothing: u64,
    undecided: u64,
    left_out: u64,
    elapsed: Duration,
    commands: Vec<(Joined, Checked)>,
}

impl Outcome {
    /// Reduces what was decided and has the guard judge each command by these readings.
    pub fn of(site: &Site, join: Join, bytes: u64, elapsed: Duration, tags: &[Option<f64>]) -> Result<Self> {
        let guard = Guard::new(site)?;
        let Join { windows, nothing, undecided, left_out, .. } = join;
        let judged = join.reduce(site).into_iter().map(|joined| {
            let checked = guard.check(&joined.command, tags);
            (joined, checked)
        });
        Ok(Self { bytes, windows, nothing, undecided, left_out, elapsed, commands: judged.collect() })
    }

    /// Whether a command that stands was refused.
    pub fn is_refused(&self) -> bool {
        let mut standing = self.commands.iter().filter(|(joined, _)| joined.overruled_by.is_none());
        standing.any(|(_, checked)| checked.verdict == Verdict::Rejected)
    }

    /// The object, keys in documented order.
    pub fn to_json(&self, identity: &Identity) -> Value {
        let site = &identity.site;
        let one = |(joined, checked): &(Joined, Checked)| {
            let ranges: Vec<_> = joined.ranges.iter().map(|range| json!([range.start, range.end])).collect();
            let mut object = json!({
                "command": command_json(&joined.command, site),
                "confidence": (f64::from(joined.confidence) * 1e4).round() / 1e4,
                "windows": joined.windows,
                "bytes": ranges,
            });
            let last = match &joined.overruled_by {
                Some(other) => json!({ "overruled_by": command_json(other, site) }),
                None => {
                    json!({ "verdict": checked.verdict.as_str(), "reason": checked.reason.as_str() })
                }
            };
            if let (Some(object), Value::Object(last)) = (object.as_object_mut(), last) {
                object.extend(last);
            }
            object
        };
        let (overruled, standing): (Vec<_>, Vec<_>) =
            self.commands.iter().partition(|(joined, _)| joined.overruled_by.is_some());
        json!({
            "commands": standing.into_iter().map(one).collect::<Vec<_>>(),
            "overruled": overruled.into_iter().map(one).collect::<Vec<_>>(),
            "document": {
                "bytes": self.bytes, "windows": self.windows, "nothing": self.nothing,
                "undecided": self.undecided, "left_out": self.left_out,
            },
            "latency_ms": (self.elapsed.as_secs_f64() * 1e6).round() / 1e3,
            "model": identity.model_sha256(),
            "schema": identity.schema_sha256,
        })
    }

    /// Lines for people.
    pub fn describe(&self, site: &Site) -> String {
        let mut out = String::new();
        for (joined, checked) in &self.commands {
            let _ = writeln!(out, "command  {}", joined.command.describe(site));
            let ranges: Vec<_> =
                joined.ranges.iter().map(|range| format!("{}-{}", range.start, range.end)).collect();
            let more = joined.windows.saturating_sub(ranges.len() as u64);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let _ = writeln!(
                out,
                "from     bytes {}{more}, confidence {:.2}",
                ranges.join(", "),
                joined.confidence
            );
            let _ = match &joined.overruled_by {
                Some(other) => writeln!(out, "verdict  overruled by {}", other.describe(site)),
                None if checked.reason.as_str().is_empty() => {
                    writeln!(out, "verdict  {}", checked.verdict.as_str())
                }
                None => writeln!(out, "verdict  {}: {}", checked.verdict.as_str(), checked.reason.as_str()),
            };
        }
        let _ = writeln!(
            out,
            "document {} bytes in {} windows: nothing to do in {}, no decision in {}, {} left out; {:.1} ms",
            self.bytes,
            self.windows,
            self.nothing,
            self.undecided,
            self.left_out,
            self.elapsed.as_secs_f64() * 1e3
        );
        out
    }
}
