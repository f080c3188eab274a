//! What was measured, as JSON, as a table, as histograms and as a picture.

use super::machine::Machine;
use super::ours::{Totals, ms};
use super::peer::{Peer, Side};
use crate::hgrm;
use crate::plot::{Axis, Plot, Series, svg};
use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::Path;

/// Percentiles of every table, and their JSON keys.
const PERCENTILES: [(&str, &str, f64); 5] = [
    ("p50", "p50_ms", 0.5),
    ("p90", "p90_ms", 0.9),
    ("p99", "p99_ms", 0.99),
    ("p99.9", "p999_ms", 0.999),
    ("max", "max_ms", 1.0),
];

/// As many tokens as ours without a grammar: what is left of a server's time if its grammar were free.
const WITHOUT_SCHEMA: &str = "llama-server, warm, no schema";

/// Everything of one run.
pub struct Report {
    pub site: String,
    pub model: String,
    pub model_sha256: String,
    pub threads: usize,
    pub sentences: usize,
    pub prefix_tokens: usize,
    pub deadline_ms: Option<u64>,
    pub totals: Totals,
    pub machine: Machine,
    pub peer: Option<Peer>,
}

fn percentiles(values: &Histogram<u64>) -> Value {
    PERCENTILES.iter().map(|(_, key, share)| ((*key).to_owned(), json!(ms(values, *share)))).collect()
}

impl Report {
    /// p99.9 over p50.
    fn spread(&self) -> f64 {
        let values = &self.totals.latency_ns;
        ms(values, 0.999) / ms(values, 0.5).max(f64::MIN_POSITIVE)
    }

    fn passes_share(&self) -> f64 {
        self.totals.passes as f64 / self.totals.tokens.max(1) as f64
    }

    pub fn to_json(&self) -> Value {
        let t = &self.totals;
        let mut report = json!({
            "site": self.site, "model": self.model, "model_sha256": self.model_sha256, "threads": self.threads,
            "sentences": self.sentences, "prefix_tokens": self.prefix_tokens, "event_tokens": t.per_command(t.prompt_tokens),
            "decisions": t.latency_ns.len(), "commands": t.commands, "memo_hits": t.cached, "completions": t.completed,
            "declined": t.declined, "deadline_ms": self.deadline_ms, "late": t.late,
        });
        let more = json!({
            "p999_over_p50": self.spread(),
            "forward_passes_per_command": t.per_command(t.passes), "tokens_per_command": t.per_command(t.tokens),
            "passes_per_token": self.passes_share(), "forced_per_command": t.per_command(t.forced),
            "drafted_per_command": t.per_command(t.drafted), "drafts_accepted_per_command": t.per_command(t.drafts_accepted),
            "repeat": (t.cached > 0).then(|| {
                let us = |share| ms(&t.repeat_ns, share) * 1000.0;
                json!({"p50_us": us(0.5), "p99_us": us(0.99), "p999_us": us(0.999), "max_us": us(1.0)})
            }),
            "machine": self.machine.to_json(),
            "peer": self.peer.as_ref().map(peer_json),
        });
        for part in [percentiles(&t.latency_ns), more] {
            if let (Some(report), Value::Object(part)) = (report.as_object_mut(), part) {
                report.extend(part);
            }
        }
        report
    }

    /// For people, in markdown.
    pub fn table(&self) -> String {
        let t = &self.totals;
        let mut out = String::new();
        let _ = writeln!(
            out,
            "{}, {}: {} decisions of {} sentences, {} commands, {} answered from memory, {} completed at the deadline, {} \
             declined\n",
            self.site,
            self.model,
            t.latency_ns.len(),
            self.sentences,
            t.commands,
            t.cached,
            t.completed,
            t.declined
        );
        let columns = self.columns();
        let names: Vec<_> = columns.iter().map(|(name, _)| format!(" {name} |")).collect();
        let _ = writeln!(
            out,
            "| event to command, ms |{}\n|---|{}",
            names.concat(),
            "---:|".repeat(columns.len())
        );
        for (name, _, share) in PERCENTILES {
            let cells: Vec<_> =
                columns.iter().map(|(_, values)| format!(" {:.3} |", ms(values, share))).collect();
            let _ = writeln!(out, "| {name} |{}", cells.concat());
        }
        let counts: Vec<_> = columns.iter().map(|(_, values)| format!(" {} |", values.len())).collect();
        let _ = writeln!(out, "| count |{}\n", counts.concat());
        if let Some(peer) = &self.peer {
            peer_lines(&mut out, peer);
        }
        let _ = writeln!(
            out,
            "* prompt: {} tokens of prefix, {:.1} of event; command: {:.1} tokens ({:.1} forced), {:.1} forward passes \
             ({:.0} % of the tokens), {:.1} of {:.1} guesses right",
            self.prefix_tokens,
            t.per_command(t.prompt_tokens),
            t.per_command(t.tokens),
            t.per_command(t.forced),
            t.per_command(t.passes),
            100.0 * self.passes_share(),
            t.per_command(t.drafts_accepted),
            t.per_command(t.drafted)
        );
        if t.cached > 0 {
            let us = |share| ms(&t.repeat_ns, share) * 1000.0;
            let _ = writeln!(
                out,
                "* repeats, from memory: p50 {:.1} µs, p99 {:.1} µs, max {:.1} µs",
                us(0.5),
                us(0.99),
                us(1.0)
            );
        }
        if let Some(deadline_ms) = self.deadline_ms {
            let _ = writeln!(out, "* later than the deadline of {deadline_ms} ms: {}", t.late);
        }
        if t.cached == 0 {
            let _ = writeln!(out, "* p99.9 / p50: {:.2}", self.spread());
        }
        let [p50, p99, p999, max] = self.machine.wake_up_us();
        let _ = writeln!(
            out,
            "* the machine meanwhile woke a sleeping thread {p50:.0} µs late in the median, {p99:.0} at p99, {p999:.0} at \
             p99.9, {max:.0} at most, and kept a running one waiting {:.0} µs at most, {:.2} % of its time",
            self.machine.stall_max_us(),
            100.0 * self.machine.stalled_share()
        );
        out
    }

    /// The kinds of decisions that have latencies.
    fn columns(&self) -> Vec<(&'static str, &Histogram<u64>)> {
        let mut columns = vec![("ganglion", &self.totals.latency_ns)];
        if let Some(peer) = &self.peer {
            columns.push(("in turn with the peer", &peer.ours.latency_ns));
            columns.push(("llama-server, warm", &peer.warm.latency_ns));
            columns.push(("llama-server, cold", &peer.cold.latency_ns));
            columns.push((WITHOUT_SCHEMA, &peer.free.latency_ns));
        }
        columns.retain(|(_, values)| !values.is_empty());
        columns
    }

    /// Writes `PREFIX.json`, `.md`, `.hgrm` and `.svg`.
    pub fn write(&self, prefix: &Path) -> Result<()> {
        let file = |ending: &str| {
            let mut name = prefix.as_os_str().to_owned();
            name.push(ending);
            std::path::PathBuf::from(name)
        };
        let write = |ending: &str, text: String| {
            let path = file(ending);
            std::fs::write(&path, text).with_context(|| path.display().to_string())
        };
        write(".json", format!("{:#}\n", self.to_json()))?;
        write(".md", self.table())?;
        write(".svg", self.picture())?;
        hgrm::write_file(&file(".hgrm"), &self.totals.latency_ns, 1e6)
    }

    /// How often each latency came, and the percentiles.
    fn picture(&self) -> String {
        let shown = |name: &str| name != "in turn with the peer" && name != WITHOUT_SCHEMA;
        let columns: Vec<_> = self.columns().into_iter().filter(|(name, _)| shown(name)).collect();
        let least = columns.iter().map(|(_, values)| values.min()).min().unwrap_or(1) as f64 / 1e6;
        let most = columns.iter().map(|(_, values)| values.max()).max().unwrap_or(1) as f64 / 1e6;
        let range = Axis::log("", (least, most)).range;
        let shares: Vec<Series> = columns
            .iter()
            .map(|(name, values)| Series {
                name: format!("{name} ({})", values.len()),
                points: shares(values, range),
                filled: true,
            })
            .collect();
        let top = shares.iter().flat_map(|series| &series.points).map(|point| point.1).fold(0.0, f64::max);
        let count = columns.iter().map(|(_, values)| values.len()).max().unwrap_or(1);
        let percentiles = columns
            .iter()
            .map(|(name, values)| Series { name: (*name).into(), points: tail(values), filled: false })
            .collect();
        svg(&[
            Plot {
                title: format!("{}, {}: event to command", self.site, self.model),
                x: Axis::log("latency, ms", range),
                y: Axis::linear("share of the decisions", top, true),
                series: shares,
            },
            Plot {
                title: "Percentiles".into(),
                x: Axis::percentiles("decisions that took no longer", count),
                y: Axis::log("latency, ms", range),
                series: percentiles,
            },
        ])
    }
}

/// Columns of the histogram, evenly wide on a logarithmic axis, as the outline of bars.
fn shares(values: &Histogram<u64>, (lo, hi): (f64, f64)) -> Vec<(f64, f64)> {
    const COLUMNS: u32 = 120;
    let edge = |column: u32| lo * (hi / lo).powf(f64::from(column) / f64::from(COLUMNS));
    let ns = |ms: f64| (ms * 1e6).round().max(1.0) as u64;
    let mut points = vec![(lo, 0.0)];
    for column in 0..COLUMNS {
        let (from, to) = (edge(column), edge(column + 1));
        let first = if column == 0 { 0 } else { ns(from) };
        let last = if column + 1 == COLUMNS { u64::MAX } else { ns(to).saturating_sub(1) };
        let count = values
            .iter_recorded()
            .filter(|step| (first..=last).contains(&step.value_iterated_to()))
            .map(|step| step.count_at_value())
            .sum::<u64>();
        let share = count as f64 / values.len().max(1) as f64;
        points.extend([(from, share), (to, share)]);
    }
    points.push((hi, 0.0));
    points
}

/// Latency by share of the decisions, as far as there are any.
fn tail(values: &Histogram<u64>) -> Vec<(f64, f64)> {
    const POINTS_PER_DECADE: u32 = 40;
    let decades = (values.len().max(2) as f64).log10();
    let points = (decades * f64::from(POINTS_PER_DECADE)) as u32;
    (0..=points)
        .map(|point| 1.0 - 10_f64.powf(-decades * f64::from(point) / f64::from(points)))
        .map(|share| (share, ms(values, share)))
        .collect()
}

fn peer_json(peer: &Peer) -> Value {
    let side = |side: &Side| {
        let (tokens, evaluated) = side.means();
        let mut part = percentiles(&side.latency_ns);
        if let Some(part) = part.as_object_mut() {
            part.insert("count".into(), side.latency_ns.len().into());
            part.insert("tokens_per_command".into(), tokens.into());
            part.insert("prompt_tokens_evaluated".into(), evaluated.into());
        }
        part
    };
    let [warm, cold, free] = peer.ratios();
    json!({
        "url": peer.url, "build": peer.build, "ours": percentiles(&peer.ours.latency_ns), "warm": side(&peer.warm),
        "cold": side(&peer.cold), "free": side(&peer.free), "warm_over_ours": warm, "cold_over_ours": cold,
        "free_over_ours": free, "compared": peer.compared,
        "same_commands": peer.same, "invalid_commands": peer.invalid,
        "prompt_tokens": {"ours": peer.prompt_tokens.0, "peer": peer.prompt_tokens.1},
    })
}

fn peer_lines(out: &mut String, peer: &Peer) {
    let [warm, cold, free] = peer.ratios();
    let sides = [
        ("warm llama-server", warm, &peer.warm),
        ("cold llama-server", cold, &peer.cold),
        ("warm llama-server without the schema, for as many tokens as ours,", free, &peer.free),
    ];
    for (name, ratio, side) in sides {
        if let Some(ratio) = ratio {
            let (tokens, evaluated) = side.means();
            let _ = writeln!(
                out,
                "* {ratio:.1} times faster than {name} in the median of {} ({tokens:.1} tokens an answer, \
                 {evaluated:.1} prompt tokens evaluated)",
                side.latency_ns.len()
            );
        }
    }
    let _ = writeln!(
        out,
        "* the same command in {} of {} answers; {} of llama-server's were no command of the site",
        peer.same, peer.compared, peer.invalid
    );
    if peer.prompt_tokens.0 != peer.prompt_tokens.1 {
        let _ = writeln!(
            out,
            "* the prompt has {} tokens here and {} there",
            peer.prompt_tokens.0, peer.prompt_tokens.1
        );
    }
}
