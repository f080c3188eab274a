//! A profile for people (a table) and for a trace viewer (Chrome's trace event format, which Perfetto reads too).

use anyhow::{Context, Result};
use ganglion_llm::{OperationTotal, Profiler, Span};
use serde_json::{Value, json};
use std::io::{BufWriter, Write};
use std::path::Path;

/// One profiled part of a run: prefill or decode.
pub struct Part {
    pub name: &'static str,
    pub tokens: usize,
    /// Begin and end of each pass from its first operation to the logits, by the profiler's clock.
    pub passes_ns: Vec<(u64, u64)>,
    pub profiler: Profiler,
}

impl Part {
    fn total_ns(&self) -> u64 {
        self.passes_ns.iter().map(|(start, end)| end - start).sum()
    }

    /// The share of an operation in the whole part, in per cent.
    fn share(&self, total: &OperationTotal) -> f64 {
        100.0 * total.total_ns as f64 / self.total_ns().max(1) as f64
    }

    /// The table's rows as JSON.
    pub fn operations(&self) -> Vec<Value> {
        let row = |total: &OperationTotal| {
            json!({
                "operation": total.operation, "calls": total.calls, "total_ms": ms(total.total_ns),
                "share_percent": self.share(total),
                "gb_per_s": rate(total.work.bytes, total.total_ns), "gmac_per_s": rate(total.work.macs, total.total_ns),
            })
        };
        self.profiler.totals().iter().map(row).collect()
    }

    /// Lines for people.
    pub fn table(&self, out: &mut impl Write) -> std::io::Result<()> {
        let total_ms = ms(self.total_ns());
        writeln!(out, "\n{}, {} tokens in {total_ms:.3} ms", self.name, self.tokens)?;
        writeln!(
            out,
            "  {:<18} {:>7} {:>11} {:>8} {:>8} {:>8}",
            "operation", "calls", "ms", "share", "GB/s", "GMAC/s"
        )?;
        for total in self.profiler.totals() {
            let figure = |units: u64| match units {
                0 => "-".to_owned(),
                _ => format!("{:.1}", rate(units, total.total_ns)),
            };
            writeln!(
                out,
                "  {:<18} {:>7} {:>11.3} {:>6.1} % {:>8} {:>8}",
                total.operation,
                total.calls,
                ms(total.total_ns),
                self.share(&total),
                figure(total.work.bytes),
                figure(total.work.macs)
            )?;
        }
        match self.profiler.overwritten() {
            0 => Ok(()),
            lost => writeln!(out, "  (without {lost} earlier spans, for which there was no room)"),
        }
    }
}

fn ms(ns: u64) -> f64 {
    ns as f64 / 1e6
}

/// Units per nanosecond: GB/s of bytes, GMAC/s of multiply-adds.
fn rate(units: u64, ns: u64) -> f64 {
    units as f64 / ns.max(1) as f64
}

/// Writes the parts as a trace: passes, and their operations nested in them.
pub fn write(path: &Path, model: &str, parts: &[Part]) -> Result<()> {
    let file =
        std::fs::File::create(path).with_context(|| format!("{}: cannot be written", path.display()))?;
    let mut out = BufWriter::new(file);
    let origin = parts.iter().flat_map(|part| &part.passes_ns).map(|pass| pass.0).min().unwrap_or(0);
    writeln!(out, "{{\"displayTimeUnit\":\"ns\",\"traceEvents\":[")?;
    write!(out, "{}", json!({"name": "process_name", "ph": "M", "pid": 1, "args": {"name": model}}))?;
    for part in parts {
        for (start_ns, end_ns) in &part.passes_ns {
            write!(out, ",\n{}", event(part.name, "pass", (*start_ns, *end_ns), origin, &json!({})))?;
        }
        for span in part.profiler.spans() {
            let times = (span.start_ns, span.end_ns);
            write!(out, ",\n{}", event(span.operation, part.name, times, origin, &arguments(span)))?;
        }
    }
    writeln!(out, "\n]}}")?;
    out.flush()?;
    Ok(())
}

/// A complete event; the format wants microseconds.
fn event(name: &str, category: &str, (start, end): (u64, u64), origin: u64, arguments: &Value) -> Value {
    let us = |ns: u64| ns as f64 / 1e3;
    json!({
        "name": name, "cat": category, "ph": "X", "pid": 1, "tid": 1,
        "ts": us(start.saturating_sub(origin)), "dur": us(end.saturating_sub(start)), "args": arguments,
    })
}

fn arguments(span: &Span) -> Value {
    json!({"layer": span.layer, "bytes": span.work.bytes, "macs": span.work.macs})
}
