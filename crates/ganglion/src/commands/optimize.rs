//! `ganglion model optimize`: the best model for a device, under limits.

use super::bench::device;
use super::calibration::Calibration;
use super::files::{check_result, read_text};
use super::meter::Meter;
use super::{measure, quantize};
use crate::load::{self, size};
use anyhow::{Context, Result};
use clap::Args;
use ganglion_compress::limits::{SWAPS_DEFAULT, WINDOW_TOKENS_DEFAULT};
use ganglion_compress::{
    Budget, Device, FactorizeOptions, Goal, Method, OptimizeOptions, OptimizeReport, PruneOptions, Reshape,
    ReshapeTried, TensorChoice, TokenWeight, Verdict, Windows, Workload, optimize_file,
};
use ganglion_decide::suite;
use ganglion_gguf::Gguf;
use ganglion_kernels::BlockFormat;
use ganglion_llm::{Config, Model, ModelOptions, Session, SessionOptions, block_format};
use ganglion_tokenizer::Tokenizer;
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Share of the available memory that a model leaves to others.
const MEMORY_LEFT: f64 = 0.3;
/// Share of the text that divergence is measured on; the rest is learned from.
const JUDGING_SHARE: f64 = 0.2;
/// Time in which answers are measured.
const ANSWERS_NS: u64 = 300_000_000;
/// Tokens that divergence is measured on, times the model's weights; and the least.
const JUDGING_WORK: u64 = 40_000_000_000;
const JUDGING_TOKENS_MIN: usize = 2 * WINDOW_TOKENS_DEFAULT;
/// What llama.cpp reads too. Trellis types are for those who ask: searching one takes as long as all of these.
const TYPES: &str = "q8_0,q6_k,q5_k,q5_0,q4_k,iq4_nl,q4_0,q3_k,q2_k";
/// Multiples that channels are pruned to, the best first: 256 lets k-quants apply.
const MULTIPLES: [usize; 4] = [256, 128, 64, 32];
/// How far a multiple may move the share that was asked for.
const SHARE_MOVED_MAX: f64 = 0.03;

/// Find the best model for a device: a format for each matrix, and what to prune
#[derive(Args)]
#[command(after_help = "Examples:
  ganglion bench device --json device.json
  ganglion model optimize model.gguf small.gguf --calibrate text.txt --device device.json --memory 512MiB --latency-ms 10
  ganglion model optimize model.gguf small.gguf --calibrate text.txt --max-kl 0.02

Within the limits the divergence from the source is made as small as it gets; with --max-kl the file is.
Interrupted, it goes on where it stopped when it is called again in the same way. OUT appears when it is whole.")]
pub struct Arguments {
    /// GGUF file
    source: PathBuf,
    /// GGUF file to write
    #[arg(value_name = "OUT.gguf")]
    out: PathBuf,
    /// Text like what the model will read: four fifths to learn from, one to measure divergence on
    #[arg(long, value_name = "TEXT")]
    calibrate: PathBuf,
    /// Profile that `ganglion bench device` wrote; without one, this machine is measured
    #[arg(long, value_name = "FILE")]
    device: Option<PathBuf>,
    /// Most memory of weights, KV cache and scratch: 512MiB; by default 70 % of what the device has available
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    memory: Option<u64>,
    /// Most bytes of the file: 2.9MB
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    size: Option<u64>,
    /// Most time of an answer: a pass of --prompt-tokens, then --answer-tokens one by one; by default 1.5 times the source's
    #[arg(long, value_name = "MS")]
    latency_ms: Option<f64>,
    /// The smallest file within the limits and this divergence from the source, in nats a token
    #[arg(long, value_name = "NATS")]
    max_kl: Option<f64>,
    /// Folder of .jsonl suites to answer with the source and with the result
    #[arg(long, value_name = "DIR")]
    suite: Option<PathBuf>,
    /// Tokens of the pass that an answer begins with
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=512))]
    prompt_tokens: u32,
    /// Tokens after it
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(0..=512))]
    answer_tokens: u32,
    /// Positions of the KV cache in the memory plan
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..))]
    context_tokens: u32,
    /// Types to choose from, beside that of the source; also t4, t3 and t2, which take long to search
    #[arg(long, value_name = "TYPES", value_delimiter = ',', default_value = TYPES,
        value_parser = super::model::parse_format)]
    types: Vec<BlockFormat>,
    /// Count all tokens alike, not by how probable the source itself finds them
    #[arg(long)]
    all_tokens: bool,
    /// How matrices are quantised: rtn, imatrix, gptq, hqq or autoround
    #[arg(long, default_value = "gptq", value_parser = quantize::parse_method)]
    method: Method,
    /// Prunings to consider, each like ffn=0.3 or layers=1+heads=1, also queries=N, hidden=SHARE; `none` for none
    #[arg(long, value_name = "PRUNINGS", value_delimiter = ',', default_value = "ffn=0.17,ffn=0.33,layers=1",
        value_parser = parse_pruning)]
    prune: Vec<Pruning>,
    /// Shares of the layers' parameters that are to stay in two factors for a matrix, to consider: 0.8
    #[arg(long, value_name = "RATIOS", value_delimiter = ',', value_parser = parse_ratio)]
    factorize: Vec<f64>,
    /// Exchanges of types that are tried and measured after the first choice
    #[arg(long, value_name = "N", default_value_t = SWAPS_DEFAULT)]
    swaps: usize,
    /// Tokens that divergence is measured on; by default fewer for larger models, 1024 at least
    #[arg(long, value_name = "N")]
    judge_tokens: Option<usize>,
    #[command(flatten)]
    calibration: Calibration,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// `None`: no pruning.
type Pruning = Option<PruneOptions>;

fn parse_pruning(text: &str) -> Result<Pruning, String> {
    if text == "none" {
        return Ok(None);
    }
    let mut options = PruneOptions::default();
    for part in text.split('+') {
        let (kind, amount) = part.split_once('=').unwrap_or((part, ""));
        let count = || amount.parse().ok().filter(|count| *count > 0).ok_or("expected a number above 0");
        let share = || parse_ratio(amount);
        match kind {
            "layers" => options.layers = count()?,
            "heads" => options.heads = count()?,
            "queries" => options.queries = count()?,
            "ffn" => options.feed_forward = share()?,
            "hidden" => options.hidden = share()?,
            _ => {
                return Err(
                    "expected layers=N, heads=N, queries=N, ffn=SHARE or hidden=SHARE, joined by +; or none"
                        .to_owned(),
                );
            }
        }
    }
    Ok(Some(options))
}

fn parse_ratio(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share: &f64| *share > 0.0 && *share < 1.0);
    share.ok_or_else(|| "expected a share between 0 and 1".to_owned())
}

/// `512MiB`, `2.9MB`, `1000000`.
fn parse_size(text: &str) -> Result<u64, String> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let unit = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "kb" => 1e3,
        "mb" => 1e6,
        "gb" => 1e9,
        "kib" | "k" => 1024.0,
        "mib" | "m" => 1_048_576.0,
        "gib" | "g" => 1_073_741_824.0,
        _ => return Err("expected a size as in 512MiB, 2.9MB or 1GiB".to_owned()),
    };
    let number: f64 = number.parse().map_err(|_| "expected a number before the unit".to_owned())?;
    Ok((number * unit) as u64)
}

pub fn run(arguments: &Arguments) -> Result<()> {
    check_result(&arguments.out, &[&arguments.source, &arguments.calibrate])?;
    let source = Gguf::open(&arguments.source).context("model")?;
    let suites = arguments.suite.as_deref().map(suite::load).transpose()?;
    let threads = arguments.calibration.threads();
    let formats = &arguments.types;
    let (calibration, judging, key) = texts(arguments, &source)?;
    let device = device(arguments, &source, formats, threads)?;
    let unknown: Vec<_> =
        formats.iter().filter(|f| !device.formats().contains(f)).map(|f| f.name()).collect();
    if !unknown.is_empty() {
        eprintln!(
            "not considered, because the device's profile has no times of them: {}",
            unknown.join(", ")
        );
    }
    let options = options(arguments, &source, &device, (formats.clone(), threads, key))?;
    let mut meter = Meter::new();
    let report =
        optimize_file(&source, &arguments.out, &options, &device, (&calibration, judging), &mut |stage| {
            meter.stage(stage.name);
            meter.tell(stage.done as u64, stage.total as u64, "");
        });
    meter.end();
    let report = report?;
    let answers = |file: &Path| answer_ns(&Gguf::open(file)?, threads, &options.workload);
    let here = (answers(&arguments.source)?, answers(&arguments.out)?);
    let accuracy = match &suites {
        None => None,
        Some(suites) => {
            let of = |file: &Path| measure::accuracy(&Gguf::open(file)?, suites, threads);
            Some((of(&arguments.source)?.0, of(&arguments.out)?.0))
        }
    };
    let mut out = std::io::stdout().lock();
    if arguments.json {
        writeln!(out, "{}", to_json(arguments, &device, &options, &report, accuracy, here))?;
        return Ok(());
    }
    print(&mut out, &report)?;
    summary(&mut out, &report, (&options, &device), accuracy, here)?;
    writeln!(out, "\nwrote {}", arguments.out.display())?;
    Ok(())
}

fn options(
    arguments: &Arguments,
    source: &Gguf,
    device: &Device,
    (formats, threads, key): (Vec<BlockFormat>, usize, String),
) -> Result<OptimizeOptions> {
    let budget = Budget {
        size_bytes: arguments.size,
        memory_bytes: arguments
            .memory
            .unwrap_or((device.available_bytes as f64 * (1.0 - MEMORY_LEFT)) as u64),
        latency_ns: arguments.latency_ms.map(|ms| ms * 1e6),
    };
    let config = Config::from_header(source.header())?;
    let pruning = |options: PruneOptions| {
        let share = if options.hidden > 0.0 { options.hidden } else { options.feed_forward };
        let length = if options.hidden > 0.0 { config.embedding_length } else { config.feed_forward_length };
        Reshape::Prune(PruneOptions { multiple: multiple(length, share), threads, ..options })
    };
    let factors = |ratio: &f64| {
        Reshape::Factorize(FactorizeOptions { ratio: *ratio, multiple: FACTOR_MULTIPLE, threads })
    };
    let workload = Workload {
        context_tokens: arguments.context_tokens as usize,
        prompt_tokens: arguments.prompt_tokens as usize,
        answer_tokens: arguments.answer_tokens as usize,
    };
    Ok(OptimizeOptions {
        formats,
        method: arguments.method,
        budget,
        goal: arguments.max_kl.map_or(Goal::Divergence, |kl_max| Goal::Size { kl_max }),
        workload,
        weights: if arguments.all_tokens { TokenWeight::Equal } else { TokenWeight::Believed },
        reshapes: arguments
            .prune
            .iter()
            .flatten()
            .map(|p| pruning(*p))
            .chain(arguments.factorize.iter().map(factors))
            .collect(),
        swaps: arguments.swaps,
        threads,
        key,
    })
}

/// Ranks are whole blocks of the small types.
const FACTOR_MULTIPLE: usize = 32;

/// The largest multiple that leaves about the share that is wanted of a length.
fn multiple(length: usize, share: f64) -> usize {
    let kept = length as f64 * (1.0 - share);
    let moved = |multiple: usize| (kept - (kept / multiple as f64).round() * multiple as f64).abs();
    let near = |multiple: &usize| moved(*multiple) <= length as f64 * SHARE_MOVED_MAX;
    MULTIPLES.into_iter().find(near).unwrap_or(MULTIPLES[MULTIPLES.len() - 1])
}

/// The profile: as given, or of this machine.
fn device(arguments: &Arguments, source: &Gguf, formats: &[BlockFormat], threads: usize) -> Result<Device> {
    if let Some(file) = &arguments.device {
        return device::read(file);
    }
    let all = formats_to_measure(source, formats)?;
    eprintln!("measuring this machine; `ganglion bench device` keeps what it finds for other runs");
    device::measure(&device::shapes_of(source), &all, threads)
}

/// The types of the source and of the choices, and the one that other shapes of a quantised source are in.
fn formats_to_measure(source: &Gguf, formats: &[BlockFormat]) -> Result<Vec<BlockFormat>> {
    let matrices = source.tensors().iter().filter(|info| info.shape.len() == 2);
    let mut all: Vec<BlockFormat> = matrices.map(block_format).collect::<std::result::Result<_, _>>()?;
    all.extend(formats);
    all.push(BlockFormat::F16);
    all.sort_by_key(|format| format.name());
    all.dedup();
    Ok(all)
}

/// An answer of a model on this machine, in nanoseconds.
fn answer_ns(gguf: &Gguf, threads: usize, workload: &Workload) -> Result<f64> {
    let (model, _) = Model::load_with(
        gguf,
        ModelOptions { threads, ..ModelOptions::default() },
        load::packed_folder().as_ref(),
    )?;
    let tokens = workload.prompt_tokens + workload.answer_tokens;
    let mut session = Session::new(Arc::new(model), SessionOptions::new(tokens))?;
    let vocab = session.model().config().vocab_size as u32;
    let tokens: Vec<u32> = (0..tokens as u32).map(|i| i * 37 % vocab).collect();
    let (prompt, answer) = tokens.split_at(workload.prompt_tokens);
    let mut logits = vec![0.0; vocab as usize];
    device::quarter(ANSWERS_NS, &mut || {
        session.truncate(0)?;
        session.prefill(prompt, &mut || false)?;
        session.logits_all(&mut logits)?;
        for token in answer {
            session.step(*token, &mut || false)?;
            session.logits_all(&mut logits)?;
        }
        Ok(())
    })
}

/// What is learned from and what is judged on, and a name for both.
fn texts(arguments: &Arguments, source: &Gguf) -> Result<(Windows, Windows, String)> {
    let file = &arguments.calibrate;
    let text = read_text(file)?;
    let mut cut = (text.len() as f64 * (1.0 - JUDGING_SHARE)) as usize;
    while !text.is_char_boundary(cut) {
        cut -= 1;
    }
    let tokenizer = Tokenizer::from_gguf(source)?;
    let windows = |text: &str, tokens: usize| -> Result<Windows> {
        let windows = Windows::new(&tokenizer, text, arguments.calibration.context).with_context(|| {
            format!("{}: four fifths and one fifth of it must each fill a window", file.display())
        })?;
        Ok(windows.thinned((tokens / arguments.calibration.context).max(1)))
    };
    let calibration = windows(&text[..cut], arguments.calibration.tokens)?;
    let weights: u64 = source.tensors().iter().map(|info| info.element_count()).sum();
    let most = (JUDGING_WORK / weights.max(1)) as usize;
    let judging = windows(&text[cut..], arguments.judge_tokens.unwrap_or(most.max(JUDGING_TOKENS_MIN)))?;
    let counts = [arguments.calibration.context, calibration.count(), judging.count()];
    let key = format!("{} {counts:?}", quantize::hash(text.as_bytes()));
    Ok((calibration, judging, key))
}

/// One line a tensor: what it became, what that costs, and what the nearest other choice would have cost.
fn print(out: &mut dyn Write, report: &OptimizeReport) -> Result<()> {
    writeln!(
        out,
        "{:<26} {:>6} {:>6} {:>11} {:>10} {:>9} {:>10}  instead",
        "tensor", "was", "is", "size", "KL alone", "µs", "sensitive"
    )?;
    for tensor in &report.tensors {
        let chosen = &tensor.chosen;
        writeln!(
            out,
            "{:<26} {:>6} {:>6} {:>11} {:>10.6} {:>9.0} {:>10}  {}",
            tensor.tensor,
            tensor.source.name(),
            chosen.format.name(),
            size(chosen.size_bytes),
            chosen.kl,
            chosen.latency_ns / 1e3,
            tensor.sensitivity.map_or("–".to_owned(), |s| format!("{s:.4}")),
            instead(tensor),
        )?;
    }
    Ok(())
}

/// The next smaller and the next larger choice, and what they would change.
fn instead(tensor: &TensorChoice) -> String {
    let chosen = &tensor.chosen;
    let smaller = tensor.others.iter().filter(|other| other.size_bytes < chosen.size_bytes);
    let larger = tensor.others.iter().filter(|other| other.size_bytes > chosen.size_bytes);
    let ends = [smaller.max_by_key(|other| other.size_bytes), larger.min_by_key(|other| other.size_bytes)];
    let told = ends.into_iter().flatten().map(|other| {
        let kilobytes = (other.size_bytes as f64 - chosen.size_bytes as f64) / 1024.0;
        format!("{} {:+.6} for {kilobytes:+.0} KiB", other.format, other.kl - chosen.kl)
    });
    told.collect::<Vec<_>>().join(", ")
}

fn summary(
    out: &mut dyn Write,
    report: &OptimizeReport,
    (options, device): (&OptimizeOptions, &Device),
    accuracy: Option<(f64, f64)>,
    here_ns: (f64, f64),
) -> Result<()> {
    writeln!(out, "\nfor {}, {} threads", device.name, device.threads)?;
    let budget = &options.budget;
    writeln!(out, "\n{:<18} {:>12} {:>12} {:>12}", "", "source", "result", "limit")?;
    let limit = |value: Option<String>| value.unwrap_or_else(|| "–".to_owned());
    let (before, after) = report.size_bytes;
    writeln!(
        out,
        "{:<18} {:>12} {:>12} {:>12}",
        "file",
        size(before),
        size(after),
        limit(budget.size_bytes.map(size))
    )?;
    let (before, after) = report.memory_bytes;
    writeln!(
        out,
        "{:<18} {:>12} {:>12} {:>12}",
        "memory",
        size(before),
        size(after),
        size(budget.memory_bytes)
    )?;
    let ms = |ns: f64| format!("{:.3} ms", ns / 1e6);
    let (before, after) = report.latency_ns;
    writeln!(
        out,
        "{:<18} {:>12} {:>12} {:>12}",
        "answer, predicted",
        ms(before),
        ms(after),
        ms(report.latency_limit_ns)
    )?;
    writeln!(out, "{:<18} {:>12} {:>12}", "measured here", ms(here_ns.0), ms(here_ns.1))?;
    writeln!(
        out,
        "{:<18} {:>12} {:>12.6} {:>12}",
        if options.weights == TokenWeight::Equal { "KL divergence" } else { "KL, weighted" },
        0,
        report.kl,
        limit(options.kl_max().map(|max| format!("{max}")))
    )?;
    if options.weights != TokenWeight::Equal {
        writeln!(out, "{:<18} {:>12} {:>12.6}", "KL, tokens alike", 0, report.kl_mean)?;
    }
    if let Some((before, after)) = accuracy {
        writeln!(out, "{:<18} {:>11.2}% {:>11.2}%", "right answers", before * 100.0, after * 100.0)?;
    }
    let (tried, kept) = report.swaps;
    let how = if report.in_sequence { "in sequence" } else { "each by itself" };
    writeln!(
        out,
        "\nsum of single divergences {:.6}; {kept} of {tried} exchanges kept; matrices quantised {how}",
        report.kl_predicted
    )?;
    let weighted = match options.weights {
        TokenWeight::Equal => "",
        TokenWeight::Believed => ", each weighted by how probable the source finds it",
    };
    writeln!(out, "divergence is the mean of {:.0} tokens{weighted}", report.counted_tokens)?;
    for reshape in &report.reshapes {
        writeln!(out, "{}: {}", reshape.name, told(reshape))?;
    }
    writeln!(out, "\nwhat could be had: {:>11} {:>12} {:>12}", "file", "answer", "KL, predicted")?;
    for point in &report.front {
        let (size, latency) = (size(point.size_bytes), ms(point.latency_ns));
        writeln!(out, "{:<18} {size:>11} {latency:>12} {:>12.6}", "", point.kl_predicted)?;
    }
    Ok(())
}

/// What came of another shape, and why.
fn told(reshape: &ReshapeTried) -> String {
    let alone = reshape.kl.map_or(String::new(), |kl| format!("alone costs {kl:.4}"));
    let found = reshape.found.map_or("nothing in it met the limits".to_owned(), |(kl, bytes)| {
        format!("the best of it is {kl:.4} in {}", size(bytes))
    });
    match &reshape.verdict {
        Verdict::Taken => format!("taken; {alone}, {found}"),
        Verdict::NotBetter => format!("not better; {alone}, {found}"),
        Verdict::NoHope => {
            format!("not searched; {alone}, and types as good as the source's would not make up for it")
        }
        Verdict::CostsTooMuch => format!("not searched; {alone}, which is too much already"),
        Verdict::Impossible(reason) => format!("not possible: {reason}"),
    }
}

fn reshape_json(reshape: &ReshapeTried) -> Value {
    let verdict = match &reshape.verdict {
        Verdict::Impossible(_) => "impossible",
        Verdict::CostsTooMuch => "costs too much",
        Verdict::NoHope => "no hope",
        Verdict::NotBetter => "not better",
        Verdict::Taken => "taken",
    };
    json!({"name": reshape.name, "kl": reshape.kl, "kl_best": reshape.found.map(|found| found.0),
        "size_bytes_best": reshape.found.map(|found| found.1), "verdict": verdict})
}

fn to_json(
    arguments: &Arguments,
    device: &Device,
    options: &OptimizeOptions,
    report: &OptimizeReport,
    accuracy: Option<(f64, f64)>,
    here_ns: (f64, f64),
) -> Value {
    let alternative = |a: &ganglion_compress::Alternative| json!({"type": a.format.name(), "kl": a.kl, "size_bytes": a.size_bytes, "latency_ns": a.latency_ns});
    let tensor = |t: &TensorChoice| {
        json!({"name": t.tensor, "source": t.source.name(), "chosen": alternative(&t.chosen),
            "sensitivity": t.sensitivity, "others": t.others.iter().map(alternative).collect::<Vec<_>>()})
    };
    let budget = &options.budget;
    json!({
        "model": arguments.out.display().to_string(),
        "source": arguments.source.display().to_string(),
        "device": device.name,
        "budget": {"size_bytes": budget.size_bytes, "memory_bytes": budget.memory_bytes,
            "latency_ns": report.latency_limit_ns, "kl_max": options.kl_max()},
        "goal": if options.goal == Goal::Divergence { "divergence" } else { "size" },
        "size_bytes": report.size_bytes.1,
        "memory_bytes": report.memory_bytes.1,
        "latency_ns": report.latency_ns.1,
        "latency_here_ns": here_ns.1,
        "kl_mean": report.kl_mean,
        "kl_weighted": (options.weights == TokenWeight::Believed).then_some(report.kl),
        "kl_predicted": report.kl_predicted,
        "suite_accuracy": accuracy.map(|a| a.1),
        "before": {"size_bytes": report.size_bytes.0, "memory_bytes": report.memory_bytes.0,
            "latency_ns": report.latency_ns.0, "latency_here_ns": here_ns.0, "suite_accuracy": accuracy.map(|a| a.0)},
        "in_sequence": report.in_sequence,
        "swaps_tried": report.swaps.0,
        "swaps_kept": report.swaps.1,
        "weights": if options.weights == TokenWeight::Equal { "equal" } else { "believed" },
        "counted_tokens": report.counted_tokens,
        "reshapes": report.reshapes.iter().map(reshape_json).collect::<Vec<_>>(),
        "front": report.front.iter().map(|p| json!({"size_bytes": p.size_bytes, "memory_bytes": p.memory_bytes,
            "latency_ns": p.latency_ns, "kl_predicted": p.kl_predicted})).collect::<Vec<_>>(),
        "tensors": report.tensors.iter().map(tensor).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_their_units() {
        assert_eq!(parse_size("512MiB"), Ok(512 << 20));
        assert_eq!(parse_size("2.9MB"), Ok(2_900_000));
        assert_eq!(parse_size("1000"), Ok(1000));
        assert!(parse_size("12 parsecs").unwrap_err().contains("512MiB"));
        assert!(parse_size("MB").unwrap_err().contains("number"));
    }

    #[test]
    fn every_type_that_a_shape_may_have_is_measured() {
        let nano = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/nano/nano.gguf");
        let found = formats_to_measure(&Gguf::open(nano).unwrap(), &[BlockFormat::Q4_K, BlockFormat::Q8_0]);
        // What `model prune` and `model factorize` make of Q8_0 is F16.
        assert_eq!(found.unwrap(), [BlockFormat::F16, BlockFormat::Q4_K, BlockFormat::Q8_0]);
    }

    #[test]
    fn prunings_are_read() {
        let pruned = |text: &str| parse_pruning(text).unwrap().unwrap();
        assert_eq!(pruned("ffn=0.25"), PruneOptions { feed_forward: 0.25, ..PruneOptions::default() });
        let both = PruneOptions { layers: 1, heads: 2, ..PruneOptions::default() };
        assert_eq!(pruned("layers=1+heads=2"), both);
        assert_eq!(Reshape::Prune(both).name(), "layers=1+heads=2");
        assert_eq!(parse_pruning("none"), Ok(None));
        for wrong in ["ffn=1.5", "layers=0", "layers", "tails=1", "1/0.25", ""] {
            assert!(parse_pruning(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn channels_are_pruned_to_the_largest_blocks_that_leave_about_the_share() {
        assert_eq!(multiple(768, 0.33), 256);
        assert_eq!(multiple(768, 0.17), 128);
        assert_eq!(multiple(5632, 0.15), 256);
        assert_eq!(multiple(100, 0.5), 32);
    }
}
