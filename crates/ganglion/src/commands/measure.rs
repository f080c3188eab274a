//! `ganglion model measure`: what models make of a text and of suites, how far they are from a reference, what they take.

use super::files::{check_result, read_text};
use super::meter::Meter;
use crate::load::{self, size};
use anyhow::{Context, Result, ensure};
use clap::Args;
use ganglion_compress::limits::WINDOW_TOKENS_DEFAULT;
use ganglion_compress::{Point, Subject, Windows, measure, scatter};
use ganglion_decide::{LoadedModel, suite};
use ganglion_gguf::Gguf;
use ganglion_llm::{KvType, Model, ModelOptions, Session, SessionOptions};
use ganglion_tokenizer::Tokenizer;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

/// Tokens of the passes that speed is measured with, and how often; the median counts.
const PREFILL_TOKENS: usize = 256;
const DECODE_TOKENS: usize = 64;
const SPEED_RUNS: usize = 5;
const NO_ACCURACY: &str = "--svg needs an accuracy: give --suite DIR, or --against FILE with --text";

/// Perplexity of a text, answers of suites, distance from a reference, size and speed
#[derive(Args)]
#[command(after_help = "Examples:
  ganglion model measure model-q4_k.gguf --against model-f16.gguf --text wiki.txt
  ganglion model measure *.gguf --suite models/nano/suites --svg variants.svg
  ganglion model measure earlier.json later.json --svg variants.svg

Only the second half of each window is scored, as llama-perplexity does, so that figures of both can be compared.")]
pub struct Arguments {
    /// GGUF files; or what --json wrote (.json), to have it in one table or drawing again
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

/// Everything that was found out about one model; what was not asked for is `None`.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Report {
    model: String,
    against: Option<String>,
    tokens: Option<usize>,
    perplexity: Option<f64>,
    bits_per_byte: Option<f64>,
    kl_mean: Option<f64>,
    /// Each token by the probability that the reference gives to it.
    #[serde(default)]
    kl_weighted: Option<f64>,
    kl_p99: Option<f64>,
    top1_agreement: Option<f64>,
    bits_per_weight: f64,
    size_bytes: u64,
    memory_bytes: u64,
    /// What a process that does nothing but run the model occupies.
    resident_bytes: Option<u64>,
    /// Share of right answers in all suites, and in each.
    suite_accuracy: Option<f64>,
    suites: BTreeMap<String, f64>,
    prefill_tokens_per_s: Option<f64>,
    decode_tokens_per_s: Option<f64>,
}

impl Report {
    fn name(&self) -> String {
        Path::new(&self.model).file_stem().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// What `--json` wrote: an object or an array of them.
    fn read(file: &Path) -> Result<Vec<Self>> {
        let text = read_text(file)?;
        let reports = if text.trim_start().starts_with('[') {
            serde_json::from_str(&text)
        } else {
            serde_json::from_str(&text).map(|report| vec![report])
        };
        reports.with_context(|| format!("{}: expected what `model measure --json` writes", file.display()))
    }
}

/// Whether a file is a report of an earlier run.
fn is_report(file: &Path) -> bool {
    file.extension().is_some_and(|ending| ending == "json")
}

pub fn run(arguments: &Arguments) -> Result<()> {
    ensure!(
        arguments.text.is_some()
            || arguments.suite.is_some()
            || arguments.speed
            || arguments.files.iter().all(|file| is_report(file)),
        "nothing to measure: give --text FILE, --suite DIR or --speed"
    );
    if let Some(svg) = &arguments.svg {
        ensure!(
            arguments.suite.is_some()
                || arguments.against.is_some()
                || arguments.files.iter().any(|file| is_report(file)),
            "{NO_ACCURACY}"
        );
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
        if is_report(file) {
            all.extend(Report::read(file)?);
        } else {
            all.push(one(file, arguments, suites.as_deref(), reference.as_mut())?);
        }
    }
    if let Some(file) = &arguments.svg {
        draw(file, &all)?;
    }
    let mut out = std::io::stdout().lock();
    match &all[..] {
        [report] if arguments.json => writeln!(out, "{}", serde_json::to_string(report)?)?,
        all if arguments.json => writeln!(out, "{}", serde_json::to_string(all)?)?,
        [report] => print(&mut out, report)?,
        all => table(&mut out, all)?,
    }
    Ok(())
}

fn one(
    file: &Path,
    arguments: &Arguments,
    suites: Option<&[suite::Suite]>,
    reference: Option<&mut Session>,
) -> Result<Report> {
    let gguf = Gguf::open(file).with_context(|| format!("model {}", file.display()))?;
    let mut model = session(&gguf, arguments)?;
    let parameters: u64 = gguf.tensors().iter().map(ganglion_gguf::TensorInfo::element_count).sum();
    let bytes: u64 = gguf.tensors().iter().map(|t| t.size_bytes).sum();
    let threads = model.model().threads();
    let mut report = Report {
        model: file.display().to_string(),
        against: arguments.against.as_deref().map(|file: &Path| file.display().to_string()),
        size_bytes: gguf.bytes().len() as u64,
        bits_per_weight: bytes as f64 * 8.0 / parameters.max(1) as f64,
        memory_bytes: Model::memory_plan(gguf.header(), &model.options(), threads)?.total_bytes(),
        ..Report::default()
    };
    if let Some(file) = &arguments.text {
        let windows = Windows::new(&Tokenizer::from_gguf(&gguf)?, &read_text(file)?, arguments.context)?;
        let (mut meter, count) = (Meter::new(), windows.count() as u64);
        let found = measure(&mut Subject { model: &mut model, reference }, &windows, &mut |done| {
            meter.tell(done as u64, count, "");
        })?;
        meter.clear();
        report.tokens = Some(found.tokens);
        report.perplexity = Some(found.perplexity);
        report.bits_per_byte = Some(found.bits_per_byte);
        report.kl_mean = found.divergence.map(|d| d.kl_mean);
        report.kl_weighted = found.divergence.map(|d| d.kl_weighted);
        report.kl_p99 = found.divergence.map(|d| d.kl_p99);
        report.top1_agreement = found.divergence.map(|d| d.top1_agreement);
    }
    if arguments.speed {
        let (prefill, decode) = speed(&mut model)?;
        (report.prefill_tokens_per_s, report.decode_tokens_per_s) = (Some(prefill), Some(decode));
        report.resident_bytes = Some(resident_bytes(file, threads)?);
    }
    if let Some(suites) = suites {
        let (all, each) = accuracy(&gguf, suites, arguments.threads)?;
        report.suite_accuracy = Some(all);
        report.suites = each.into_iter().collect();
    }
    Ok(report)
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
        let cases = suite.cases.len() as u64;
        let mut meter = Meter::new();
        let score =
            suite::run(&loaded, suite, &mut |done| meter.tell(done as u64, cases, &suite.name))?.exact;
        meter.clear();
        (right, total) = (right + score.right, total + score.total);
        each.push((suite.name.clone(), score.share()));
    }
    Ok((right as f64 / f64::max(total as f64, 1.0), each))
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

fn draw(file: &Path, all: &[Report]) -> Result<()> {
    let (label, of): (_, fn(&Report) -> Option<f64>) = if all.iter().any(|r| r.suite_accuracy.is_some()) {
        ("right answers, %", |report| report.suite_accuracy)
    } else {
        ("same best token, %", |report| report.top1_agreement)
    };
    let point = |report: &Report| {
        Some(Point { name: report.name(), size_bytes: report.size_bytes, accuracy: of(report)? })
    };
    let points: Vec<_> = all.iter().filter_map(point).collect();
    ensure!(!points.is_empty(), "--svg needs an accuracy: give --suite DIR, or --against FILE with --text");
    std::fs::write(file, scatter(&points, label)).with_context(|| file.display().to_string())
}

fn print(out: &mut dyn Write, report: &Report) -> Result<()> {
    writeln!(
        out,
        "size              {:>12}  {:.2} bits a weight",
        size(report.size_bytes),
        report.bits_per_weight
    )?;
    writeln!(out, "memory            {:>12}  weights, KV cache, scratch", size(report.memory_bytes))?;
    if let Some(resident) = report.resident_bytes {
        writeln!(out, "resident          {:>12}  of a process that runs it", size(resident))?;
    }
    if let Report { perplexity: Some(perplexity), tokens: Some(tokens), bits_per_byte: Some(bits), .. } =
        report
    {
        writeln!(out, "perplexity        {perplexity:>12.4}  over {tokens} tokens, {bits:.4} bits a byte")?;
    }
    if let Report { kl_mean: Some(mean), kl_p99: Some(p99), top1_agreement: Some(same), .. } = report {
        writeln!(out, "KL divergence     {mean:>12.6}  mean, {p99:.6} p99")?;
        if let Some(weighted) = report.kl_weighted {
            writeln!(
                out,
                "weighted          {weighted:>12.6}  mean, tokens by how probable the reference finds them"
            )?;
        }
        writeln!(out, "same best token   {:>11.2} %", same * 100.0)?;
    }
    if let Some(accuracy) = report.suite_accuracy {
        let suites: Vec<_> =
            report.suites.iter().map(|(name, share)| format!("{name} {:.1}", share * 100.0)).collect();
        writeln!(out, "right answers     {:>11.2} %  {}", accuracy * 100.0, suites.join(", "))?;
    }
    if let (Some(prefill), Some(decode)) = (report.prefill_tokens_per_s, report.decode_tokens_per_s) {
        writeln!(out, "prefill           {prefill:>12.0}  tokens a second, {PREFILL_TOKENS} at once")?;
        writeln!(out, "decode            {decode:>12.0}  tokens a second, one by one")?;
    }
    Ok(())
}

fn table(out: &mut dyn Write, all: &[Report]) -> Result<()> {
    let width = all.iter().map(|report| report.name().chars().count()).max().unwrap_or(0).max("model".len());
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
    let percent = |value: Option<f64>| cell(value.map(|share| share * 100.0), 2);
    for report in all {
        writeln!(
            out,
            "{:<width$} {:>11} {:>6.2} {:>11} {:>11} {:>12} {:>8} {:>10} {:>10} {:>7} {:>7} {:>9} {:>8}",
            report.name(),
            size(report.size_bytes),
            report.bits_per_weight,
            size(report.memory_bytes),
            report.resident_bytes.map_or("–".into(), size),
            cell(report.perplexity, 3),
            cell(report.bits_per_byte, 3),
            cell(report.kl_mean, 6),
            cell(report.kl_p99, 4),
            percent(report.top1_agreement),
            percent(report.suite_accuracy),
            cell(report.prefill_tokens_per_s, 0),
            cell(report.decode_tokens_per_s, 0),
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_read_as_they_were_written() {
        let report = Report {
            model: "a/b-q4_0.gguf".into(),
            kl_mean: Some(0.25),
            suites: [("names".to_owned(), 0.5)].into(),
            size_bytes: 7,
            ..Report::default()
        };
        let file = std::env::temp_dir().join(format!("ganglion-report-{}.json", std::process::id()));
        for (text, count) in [
            (serde_json::to_string(&report).unwrap(), 1),
            (serde_json::to_string(&[&report, &report]).unwrap(), 2),
        ] {
            std::fs::write(&file, text).unwrap();
            let read = Report::read(&file).unwrap();
            assert_eq!(read.len(), count);
            for found in read {
                assert_eq!(found.name(), "b-q4_0");
                assert_eq!((found.kl_mean, found.perplexity, found.size_bytes), (Some(0.25), None, 7));
                assert_eq!(found.suites, report.suites);
            }
        }
        std::fs::write(&file, "{\"model\": 3}").unwrap();
        assert!(Report::read(&file).unwrap_err().to_string().contains("model measure --json"));
        std::fs::remove_file(file).unwrap();
    }
}
