//! `ganglion model measure`: what models make of a text and of suites, how far they are from a reference, what they take.

use super::files::{check_result, read_text};
use crate::load::{self, size};
use anyhow::{Context, Result, ensure};
use clap::Args;
use ganglion_compress::limits::WINDOW_TOKENS_DEFAULT;
use ganglion_compress::{Measured, Point, Subject, Windows, measure, scatter};
use ganglion_decide::{LoadedModel, suite};
use ganglion_gguf::Gguf;
use ganglion_llm::{KvType, Model, ModelOptions, Session, SessionOptions};
use ganglion_tokenizer::Tokenizer;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

/// Tokens of the passes that speed is measured with, and how often; the median counts.
const PREFILL_TOKENS: usize = 256;
const DECODE_TOKENS: usize = 64;
const SPEED_RUNS: usize = 5;

/// Perplexity of a text, answers of suites, distance from a reference, size and speed
#[derive(Args)]
#[command(after_help = "Examples:
  ganglion model measure model-q4_k.gguf --against model-f16.gguf --text wiki.txt
  ganglion model measure *.gguf --suite models/nano/suites --svg variants.svg

Only the second half of each window is scored, as llama-perplexity does, so that figures of both can be compared.")]
pub struct Arguments {
    /// GGUF files
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Compare every next-token distribution with this model's
    #[arg(long, value_name = "FILE", requires = "text")]
    against: Option<PathBuf>,
    /// Text to read, UTF-8
    #[arg(long, value_name = "FILE")]
    text: Option<PathBuf>,
    /// Folder of .jsonl suites to answer
    #[arg(long, value_name = "DIR")]
    suite: Option<PathBuf>,
    /// Also measure tokens a second and resident memory, on an idle machine
    #[arg(long)]
    speed: bool,
    /// Draw all models by size and accuracy (of suites, else agreement with the reference)
    #[arg(long, value_name = "FILE.svg")]
    svg: Option<PathBuf>,
    /// Tokens of a window
    #[arg(short = 'c', long, default_value_t = WINDOW_TOKENS_DEFAULT)]
    context: usize,
    /// Worker threads; as many as the machine gives by default
    #[arg(short = 't', long, default_value_t = 0)]
    threads: usize,
    /// Keys and values: f32, f16 or int8
    #[arg(long, value_name = "TYPE", default_value = "f16", value_parser = super::generate::kv_type)]
    kv: KvType,
    /// Print JSON: an object, or an array of several models
    #[arg(long)]
    json: bool,
}

/// Everything that was found out about one model.
struct Found {
    file: PathBuf,
    size_bytes: u64,
    bits_per_weight: f64,
    memory_bytes: u64,
    /// What a process that does nothing but run the model occupies.
    resident_bytes: Option<u64>,
    text: Option<Measured>,
    /// Share of right answers in all suites, and in each.
    suite_accuracy: Option<f64>,
    suites: Vec<(String, f64)>,
    /// Prefill and decode.
    tokens_per_s: Option<(f64, f64)>,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    ensure!(
        arguments.text.is_some() || arguments.suite.is_some() || arguments.speed,
        "nothing to measure: give --text FILE, --suite DIR or --speed"
    );
    ensure!(
        arguments.svg.is_none() || arguments.suite.is_some() || arguments.against.is_some(),
        "--svg needs an accuracy: give --suite DIR, or --against FILE with --text"
    );
    if let Some(svg) = &arguments.svg {
        let read = arguments.files.iter().chain(&arguments.against).chain(&arguments.text);
        check_result(svg, &read.map(PathBuf::as_path).collect::<Vec<_>>())?;
    }
    let suites = arguments.suite.as_deref().map(suite::load).transpose()?;
    let mut reference = match &arguments.against {
        Some(file) => Some(session(&Gguf::open(file).context("reference")?, arguments)?),
        None => None,
    };
    let mut all = Vec::new();
    for file in &arguments.files {
        all.push(one(file, arguments, suites.as_deref(), reference.as_mut())?);
    }
    if let Some(file) = &arguments.svg {
        draw(file, arguments, &all)?;
    }
    let mut out = std::io::stdout().lock();
    if arguments.json {
        let mut reports: Vec<_> = all.iter().map(|found| report(found, arguments)).collect();
        let report = if reports.len() == 1 { reports.remove(0) } else { reports.into() };
        writeln!(out, "{report}")?;
    } else if let [found] = &all[..] {
        print(&mut out, found)?;
    } else {
        table(&mut out, &all)?;
    }
    Ok(())
}

fn one(
    file: &Path,
    arguments: &Arguments,
    suites: Option<&[suite::Suite]>,
    reference: Option<&mut Session>,
) -> Result<Found> {
    let gguf = Gguf::open(file).with_context(|| format!("model {}", file.display()))?;
    let mut model = session(&gguf, arguments)?;
    let parameters: u64 = gguf.tensors().iter().map(ganglion_gguf::TensorInfo::element_count).sum();
    let bytes: u64 = gguf.tensors().iter().map(|t| t.size_bytes).sum();
    let threads = model.model().threads();
    let mut found = Found {
        file: file.to_owned(),
        size_bytes: gguf.bytes().len() as u64,
        bits_per_weight: bytes as f64 * 8.0 / parameters.max(1) as f64,
        memory_bytes: Model::memory_plan(gguf.header(), &model.options(), threads)?.total_bytes(),
        resident_bytes: None,
        text: None,
        suite_accuracy: None,
        suites: Vec::new(),
        tokens_per_s: None,
    };
    if let Some(file) = &arguments.text {
        let text = read_text(file)?;
        let windows = Windows::new(&Tokenizer::from_gguf(&gguf)?, &text, arguments.context)?;
        let tell = tell(windows.count(), "windows");
        found.text = Some(measure(&mut Subject { model: &mut model, reference }, &windows, &mut { tell })?);
    }
    if arguments.speed {
        found.tokens_per_s = Some(speed(&mut model)?);
        found.resident_bytes = Some(resident_bytes(file, threads)?);
    }
    if let Some(suites) = suites {
        let (all, each) = accuracy(&gguf, suites, arguments.threads)?;
        (found.suite_accuracy, found.suites) = (Some(all), each);
    }
    Ok(found)
}

/// The share of right answers in all suites, and in each.
pub(super) fn accuracy(
    gguf: &Gguf,
    suites: &[suite::Suite],
    threads: usize,
) -> Result<(f64, Vec<(String, f64)>)> {
    let (loaded, how) = LoadedModel::with_folder(gguf, threads, load::packed_folder().as_ref())?;
    load::announce(&how);
    let (mut right, mut total, mut each) = (0, 0, Vec::new());
    for suite in suites {
        let score = suite::run(&loaded, suite, &mut tell(suite.cases.len(), &suite.name))?.exact;
        (right, total) = (right + score.right, total + score.total);
        each.push((suite.name.clone(), score.share()));
    }
    Ok((right as f64 / f64::max(total as f64, 1.0), each))
}

/// Counts on a terminal's one line.
fn tell(total: usize, what: &str) -> impl FnMut(usize) {
    let terminal = std::io::stderr().is_terminal();
    move |done| {
        if terminal && (done % 20 == 0 || done == total) {
            eprint!("\r{done} of {total} {what:<20}");
            if done == total {
                eprint!("\r{:40}\r", "");
            }
        }
    }
}

fn session(gguf: &Gguf, arguments: &Arguments) -> Result<Session> {
    let mut options = ModelOptions::default();
    if arguments.threads > 0 {
        options.threads = arguments.threads;
    }
    let (model, loaded) = Model::load_with(gguf, options, load::packed_folder().as_ref())?;
    load::announce(&loaded);
    let context = if arguments.speed {
        arguments.context.max(PREFILL_TOKENS + DECODE_TOKENS)
    } else {
        arguments.context
    };
    let options = SessionOptions { kv: arguments.kv, ..SessionOptions::new(context) };
    Ok(Session::new(Arc::new(model), options)?)
}

/// Resident memory of a process of its own that runs the model: this one holds others too.
fn resident_bytes(file: &Path, threads: usize) -> Result<u64> {
    let program = std::env::current_exe().context("this program's own path")?;
    let mut child = Command::new(program);
    child.args(["bench", "engine", "--json", "--repeat", "1"]).arg(file);
    child.args(["-p", &PREFILL_TOKENS.to_string(), "-n", &DECODE_TOKENS.to_string()]);
    let done = child.args(["-t", &threads.to_string()]).output().context("bench engine")?;
    let report: serde_json::Value = serde_json::from_slice(&done.stdout).with_context(|| {
        format!("bench engine of {}: {}", file.display(), String::from_utf8_lossy(&done.stderr).trim())
    })?;
    report["resident_bytes"].as_u64().context("bench engine: no resident_bytes")
}

/// Tokens a second of a prompt, and of one token after the other behind it.
fn speed(session: &mut Session) -> Result<(f64, f64)> {
    let vocab = session.model().config().vocab_size as u32;
    let tokens: Vec<u32> = (0..(PREFILL_TOKENS + DECODE_TOKENS) as u32).map(|i| i * 37 % vocab).collect();
    let (prompt, rest) = tokens.split_at(PREFILL_TOKENS);
    let mut logits = vec![0.0; vocab as usize];
    let (mut prefill, mut decode) = (Vec::new(), Vec::new());
    for _ in 0..SPEED_RUNS {
        session.truncate(0)?;
        let start = Instant::now();
        session.prefill(prompt, &mut || false)?;
        session.logits_all(&mut logits)?;
        prefill.push(PREFILL_TOKENS as f64 / start.elapsed().as_secs_f64());
        let start = Instant::now();
        for token in rest {
            session.step(*token, &mut || false)?;
            session.logits_all(&mut logits)?;
        }
        decode.push(DECODE_TOKENS as f64 / start.elapsed().as_secs_f64());
    }
    session.truncate(0)?;
    let median = |mut all: Vec<f64>| {
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    };
    Ok((median(prefill), median(decode)))
}

fn draw(file: &Path, arguments: &Arguments, all: &[Found]) -> Result<()> {
    let (label, of): (_, fn(&Found) -> Option<f64>) = if arguments.suite.is_some() {
        ("right answers, %", |found| found.suite_accuracy)
    } else {
        ("same best token, %", |found| found.text?.divergence.map(|d| d.top1_agreement))
    };
    let point = |found: &Found| {
        let name = found.file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Some(Point { name, size_bytes: found.size_bytes, accuracy: of(found)? })
    };
    let points: Vec<_> = all.iter().filter_map(point).collect();
    std::fs::write(file, scatter(&points, label)).with_context(|| file.display().to_string())
}

fn report(found: &Found, arguments: &Arguments) -> serde_json::Value {
    let divergence = found.text.and_then(|text| text.divergence);
    let suites: serde_json::Map<_, _> =
        found.suites.iter().map(|(name, share)| (name.clone(), (*share).into())).collect();
    serde_json::json!({
        "model": found.file.display().to_string(),
        "against": arguments.against.as_deref().map(|file: &Path| file.display().to_string()),
        "tokens": found.text.map(|text| text.tokens),
        "perplexity": found.text.map(|text| text.perplexity),
        "bits_per_byte": found.text.map(|text| text.bits_per_byte),
        "kl_mean": divergence.map(|d| d.kl_mean),
        "kl_p99": divergence.map(|d| d.kl_p99),
        "top1_agreement": divergence.map(|d| d.top1_agreement),
        "bits_per_weight": found.bits_per_weight,
        "size_bytes": found.size_bytes,
        "memory_bytes": found.memory_bytes,
        "resident_bytes": found.resident_bytes,
        "suite_accuracy": found.suite_accuracy,
        "suites": suites,
        "prefill_tokens_per_s": found.tokens_per_s.map(|s| s.0),
        "decode_tokens_per_s": found.tokens_per_s.map(|s| s.1),
    })
}

fn print(out: &mut dyn Write, found: &Found) -> Result<()> {
    writeln!(
        out,
        "size              {:>12}  {:.2} bits a weight",
        size(found.size_bytes),
        found.bits_per_weight
    )?;
    writeln!(out, "memory            {:>12}  weights, KV cache, scratch", size(found.memory_bytes))?;
    if let Some(resident) = found.resident_bytes {
        writeln!(out, "resident          {:>12}  of a process that runs it", size(resident))?;
    }
    if let Some(text) = &found.text {
        writeln!(
            out,
            "perplexity        {:>12.4}  over {} tokens, {:.4} bits a byte",
            text.perplexity, text.tokens, text.bits_per_byte
        )?;
        if let Some(divergence) = &text.divergence {
            let (mean, p99) = (divergence.kl_mean, divergence.kl_p99);
            writeln!(out, "KL divergence     {mean:>12.6}  mean, {p99:.6} p99")?;
            writeln!(out, "same best token   {:>11.2} %", divergence.top1_agreement * 100.0)?;
        }
    }
    if let Some(accuracy) = found.suite_accuracy {
        let suites: Vec<_> =
            found.suites.iter().map(|(name, share)| format!("{name} {:.1}", share * 100.0)).collect();
        writeln!(out, "right answers     {:>11.2} %  {}", accuracy * 100.0, suites.join(", "))?;
    }
    if let Some((prefill, decode)) = found.tokens_per_s {
        writeln!(out, "prefill           {prefill:>12.0}  tokens a second, {PREFILL_TOKENS} at once")?;
        writeln!(out, "decode            {decode:>12.0}  tokens a second, one by one")?;
    }
    Ok(())
}

fn table(out: &mut dyn Write, all: &[Found]) -> Result<()> {
    let name = |found: &Found| found.file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let width = all.iter().map(|found| name(found).chars().count()).max().unwrap_or(0).max("model".len());
    writeln!(
        out,
        "{:<width$} {:>11} {:>6} {:>11} {:>11} {:>12} {:>8} {:>10} {:>10} {:>7} {:>7} {:>9} {:>8}",
        "model",
        "size",
        "bits",
        "memory",
        "resident",
        "perplexity",
        "bits/B",
        "KL",
        "KL p99",
        "same %",
        "right %",
        "prefill/s",
        "decode/s"
    )?;
    let cell = |value: Option<f64>, digits: usize| value.map_or("–".into(), |v| format!("{v:.digits$}"));
    for found in all {
        let divergence = found.text.and_then(|text| text.divergence);
        writeln!(
            out,
            "{:<width$} {:>11} {:>6.2} {:>11} {:>11} {:>12} {:>8} {:>10} {:>10} {:>7} {:>7} {:>9} {:>8}",
            name(found),
            size(found.size_bytes),
            found.bits_per_weight,
            size(found.memory_bytes),
            found.resident_bytes.map_or("–".into(), size),
            cell(found.text.map(|text| text.perplexity), 3),
            cell(found.text.map(|text| text.bits_per_byte), 3),
            cell(divergence.map(|d| d.kl_mean), 6),
            cell(divergence.map(|d| d.kl_p99), 4),
            cell(divergence.map(|d| d.top1_agreement * 100.0), 2),
            cell(found.suite_accuracy.map(|share| share * 100.0), 2),
            cell(found.tokens_per_s.map(|s| s.0), 0),
            cell(found.tokens_per_s.map(|s| s.1), 0),
        )?;
    }
    Ok(())
}
