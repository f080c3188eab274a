//! `ganglion bench masks`: compiling a site's commands over a vocabulary, and looking up what may come next.

use super::decide::nanoseconds;
use anyhow::{Context, Result, ensure};
use clap::Args;
use ganglion_gguf::Gguf;
use ganglion_grammar::Engine;
use ganglion_site::Site;
use ganglion_tokenizer::Tokenizer;
use hdrhistogram::Histogram;
use serde_json::json;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

/// Time to compile a site's commands over a vocabulary, and to look up allowed tokens
#[derive(Args)]
#[command(after_help = "Example:\n  ganglion bench masks examples/hvac --vocabulary qwen2.gguf")]
pub struct Arguments {
    /// Folder with site.toml, or the file
    site: PathBuf,
    /// Another GGUF file to take the vocabulary from than the site's model
    #[arg(long, value_name = "FILE")]
    vocabulary: Option<PathBuf>,
    /// Look-ups to time, along random commands
    #[arg(short = 'n', long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    count: u64,
    /// Times to compile; the median counts
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=1000))]
    repeat: u64,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let site = Site::load(&arguments.site)?;
    let file = arguments.vocabulary.as_ref().unwrap_or(&site.model.path);
    let gguf = Gguf::open(file).with_context(|| file.display().to_string())?;
    let tokenizer = Arc::new(Tokenizer::from_gguf(&gguf)?);
    let (engine_ms, engine) = median_ms(arguments.repeat, || Ok(Engine::new(Arc::clone(&tokenizer))?))?;
    let schema = site.schema();
    let (compile_ms, grammar) = median_ms(arguments.repeat, || Ok(engine.compile(&schema)?))?;
    let by_table = grammar.automaton().is_ok();
    let mut lookups = nanoseconds()?;
    let mut out = Vec::with_capacity(tokenizer.vocab_size());
    let mut allowed = Vec::with_capacity(tokenizer.vocab_size());
    let mut random = 0x9E37_79B9_7F4A_7C15_u64;
    while lookups.len() < arguments.count {
        let mut constraint = grammar.start();
        out.clear();
        loop {
            let start = Instant::now();
            constraint.take_forced(&mut out)?;
            let complete = constraint.is_complete();
            if !complete {
                constraint.allowed(&mut allowed)?;
            }
            lookups.record(u64::try_from(start.elapsed().as_nanos())?.max(1))?;
            if complete {
                break;
            }
            ensure!(!allowed.is_empty(), "the grammar allows no token");
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let index = usize::try_from(random % allowed.len() as u64)?;
            let Some(&token) = allowed.get(index) else { break };
            constraint.accept(token)?;
            out.push(token);
        }
    }
    let us = |values: &Histogram<u64>, share| values.value_at_quantile(share) as f64 / 1000.0;
    let mut stdout = std::io::stdout().lock();
    if arguments.json {
        let report = json!({
            "site": site.name, "vocabulary": tokenizer.vocab_size(), "by_table": by_table, "vocabulary_ms": engine_ms,
            "compile_ms": compile_ms, "lookups": lookups.len(), "p50_us": us(&lookups, 0.5), "p99_us": us(&lookups, 0.99),
            "p999_us": us(&lookups, 0.999), "p9999_us": us(&lookups, 0.9999), "max_us": us(&lookups, 1.0),
        });
        writeln!(stdout, "{report}")?;
        return Ok(());
    }
    let how = if by_table { "a table" } else { "llguidance: the commands are not bounded" };
    writeln!(stdout, "{}, {} tokens, masks by {how}", site.name, tokenizer.vocab_size())?;
    writeln!(
        stdout,
        "  vocabulary {engine_ms:10.1} ms, once a model\n  commands   {compile_ms:10.1} ms, once a site"
    )?;
    writeln!(stdout, "{} look-ups:", lookups.len())?;
    for (name, share) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999), ("max", 1.0)] {
        writeln!(stdout, "  {name:<6} {:>9.3} µs", us(&lookups, share))?;
    }
    Ok(())
}

/// Median time of making something, and the last one made.
fn median_ms<T>(repeat: u64, mut make: impl FnMut() -> Result<T>) -> Result<(f64, T)> {
    let mut times = Vec::new();
    let mut last = None;
    for _ in 0..repeat.max(1) {
        drop(last.take());
        let start = Instant::now();
        last = Some(make()?);
        times.push(start.elapsed().as_secs_f64() * 1000.0);
    }
    times.sort_by(f64::total_cmp);
    let median = times.get(times.len() / 2).copied().unwrap_or(0.0);
    Ok((median, last.context("nothing was made")?))
}
