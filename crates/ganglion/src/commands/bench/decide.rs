//! `ganglion bench decide`: from event to command.

use crate::load;
use anyhow::{Context, Result, bail};
use clap::Args;
use ganglion_decide::{Decider, Options};
use ganglion_guard::monotonic_us;
use ganglion_site::{Event, Outcome, Sentence, Site};
use hdrhistogram::Histogram;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Time from event to command, prefix warm
#[derive(Args)]
#[command(after_help = "Example:\n  ganglion bench decide examples/hvac -n 500 --no-memo")]
pub struct Arguments {
    /// Folder with site.toml, or the file
    site: PathBuf,
    /// Decisions to time
    #[arg(short = 'n', long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    count: u64,
    /// Sentences, one a line; events.txt beside the site file by default
    #[arg(long, value_name = "FILE")]
    events: Option<PathBuf>,
    /// Another model than the site's
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// Decide every event anew, repeated or not
    #[arg(long)]
    no_memo: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

struct Totals {
    latency_us: Histogram<u64>,
    commands: u64,
    cached: u64,
    tokens: u64,
    passes: u64,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let mut site = Site::load(&arguments.site)?;
    if let Some(model) = &arguments.model {
        site.model.path.clone_from(model);
    }
    let site = std::sync::Arc::new(site);
    let sentences = sentences(arguments, &site)?;
    let (gguf, _) = load::model_file(&site)?;
    let mut decider =
        load::decider(&site, &gguf, Options { memo: !arguments.no_memo, ..Options::default() })?;
    let totals = measure(&mut decider, &sentences, arguments.count)?;
    let us = |quantile: f64| totals.latency_us.value_at_quantile(quantile) as f64 / 1000.0;
    let per = |total: u64| total as f64 / totals.commands.max(1) as f64;
    let (passes, tokens) = (per(totals.passes), per(totals.tokens));
    let mut out = std::io::stdout().lock();
    if arguments.json {
        let report = serde_json::json!({
            "site": site.name, "decisions": totals.latency_us.len(), "commands": totals.commands, "memo_hits": totals.cached,
            "p50_ms": us(0.5), "p90_ms": us(0.9), "p99_ms": us(0.99), "p999_ms": us(0.999), "max_ms": totals.latency_us.max() as f64 / 1000.0,
            "forward_passes_per_command": passes, "tokens_per_command": tokens,
        });
        writeln!(out, "{report}")?;
        return Ok(());
    }
    writeln!(
        out,
        "{}: {} decisions of {} sentences, {} commands, {} answered from memory",
        site.name,
        totals.latency_us.len(),
        sentences.len(),
        totals.commands,
        totals.cached
    )?;
    writeln!(out, "event to command, prefix warm:")?;
    for (name, quantile) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)] {
        writeln!(out, "  {name:<6} {:>9.3} ms", us(quantile))?;
    }
    writeln!(out, "{tokens:.1} tokens and {passes:.1} forward passes a command\n")?;
    histogram(&mut out, &totals.latency_us)
}

fn sentences(arguments: &Arguments, site: &Site) -> Result<Vec<Sentence>> {
    let default = site.file.parent().unwrap_or(Path::new(".")).join("events.txt");
    let file = arguments.events.as_ref().unwrap_or(&default);
    let text = std::fs::read_to_string(file).with_context(|| {
        format!("{}: put one sentence a line there, or name another file with --events", file.display())
    })?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let sentences: Vec<_> = lines
        .map(|line| Sentence::new(line).with_context(|| format!("{}: too long: {line}", file.display())))
        .collect::<Result<_>>()?;
    if sentences.is_empty() {
        bail!("{}: holds no sentence", file.display());
    }
    Ok(sentences)
}

fn measure(decider: &mut Decider, sentences: &[Sentence], count: u64) -> Result<Totals> {
    let latency_us = Histogram::new_with_bounds(1, 600_000_000, 3)?;
    let mut totals = Totals { latency_us, commands: 0, cached: 0, tokens: 0, passes: 0 };
    let mut clock = load::clock();
    for (epoch, sentence) in (0..count).zip(sentences.iter().cycle()) {
        let mut event = Event::new(epoch, u64::MAX);
        event.sentence = *sentence;
        let start = monotonic_us();
        let decision = decider.decide(&event, &mut clock);
        totals.latency_us.record((monotonic_us() - start).max(1))?;
        if decision.command.is_none() {
            continue;
        }
        totals.commands += 1;
        if decision.outcome == Outcome::Cache {
            totals.cached += 1;
        } else {
            let t = decision.timings;
            totals.tokens += u64::from(t.predicted_n);
            totals.passes += u64::from(t.passes_n);
        }
    }
    Ok(totals)
}

/// Rows of a tenth of the range from the fastest to p99.9, and one for the rest.
fn histogram(out: &mut impl Write, values: &Histogram<u64>) -> Result<()> {
    const ROWS: u64 = 16;
    const WIDTH: u64 = 60;
    let (low, high) = (values.min(), values.value_at_quantile(0.999).max(values.min() + ROWS));
    let step = (high - low).div_ceil(ROWS);
    let mut rows: Vec<(u64, u64)> = (0..ROWS).map(|row| (low + row * step, 0)).collect();
    rows.push((high, 0));
    for v in values.iter_recorded() {
        let row = usize::try_from((v.value_iterated_to() - low) / step.max(1))
            .unwrap_or(usize::MAX)
            .min(rows.len() - 1);
        if let Some(row) = rows.get_mut(row) {
            row.1 += v.count_at_value();
        }
    }
    let most = rows.iter().map(|row| row.1).max().unwrap_or(1).max(1);
    for (from, count) in rows {
        let bar = "#".repeat(usize::try_from((count * WIDTH).div_ceil(most)).unwrap_or(0));
        writeln!(out, "  {:>9.3} ms {count:>7} {bar}", from as f64 / 1000.0)?;
    }
    Ok(())
}
