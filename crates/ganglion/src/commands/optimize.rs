//! `ganglion model optimize`: the best model for a device, under limits.

use super::bench::device;
use super::files::check_result;
use super::{measure, quantize};
use crate::load::{self, size};
use anyhow::{Context, Result};
use clap::Args;
use ganglion_compress::limits::{CALIBRATION_TOKENS_DEFAULT, SWAPS_DEFAULT, WINDOW_TOKENS_DEFAULT};
use ganglion_compress::{
    Budget, Device, Goal, Method, OptimizeOptions, OptimizeReport, PruneOptions, Stage, TensorChoice,
    Windows, Workload, optimize_file, products_ns,
};
use ganglion_decide::suite;
use ganglion_gguf::Gguf;
use ganglion_kernels::BlockFormat;
use ganglion_kernels::Isa;
use ganglion_kernels::Pool;
use ganglion_kernels::probe::DotProbe;
use ganglion_llm::{Model, ModelOptions, Session, SessionOptions, block_format};
use ganglion_tokenizer::Tokenizer;
use serde_json::{Value, json};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// Share of the available memory that a model leaves to others.
const MEMORY_LEFT: f64 = 0.3;
/// Share of the text that divergence is measured on; the rest is learned from.
const JUDGING_SHARE: f64 = 0.2;
const ANSWERS: usize = 9;
const PROBE_NS: u64 = 200_000_000;
const FORMATS: &str = "q8_0,q6_k,q5_k,q5_0,q4_k,iq4_nl,q4_0,q3_k,q2_k";

/// Find the best model for a device: a format for each matrix, and what to prune
#[derive(Args)]
#[command(after_help = "Examples:
  ganglion bench device --json device.json
  ganglion model optimize model.gguf small.gguf --calibrate text.txt --device device.json --memory 512MiB --latency-ms 10
  ganglion model optimize model.gguf small.gguf --calibrate text.txt --max-kl 0.02

Within the limits the divergence from the source is made as small as it gets; with --max-kl alone, or --smallest, the file is.
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
    /// Most time of an answer: a pass of --prompt-tokens, then --answer-tokens one by one
    #[arg(long, value_name = "MS")]
    latency_ms: Option<f64>,
    /// Most divergence from the source, in nats a token
    #[arg(long, value_name = "NATS")]
    max_kl: Option<f64>,
    /// The smallest file within the limits, instead of the nearest to the source
    #[arg(long, requires = "max_kl")]
    smallest: bool,
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
    /// Types to choose from, beside that of the source
    #[arg(long, value_name = "TYPES", value_delimiter = ',', default_value = FORMATS,
        value_parser = super::model::parse_format)]
    types: Vec<BlockFormat>,
    /// Count divergence only where the source predicts the text's next token: for models trained on answers alone
    #[arg(long)]
    predicted_only: bool,
    /// How matrices are quantised: rtn, imatrix, gptq, hqq or autoround
    #[arg(long, default_value = "gptq", value_parser = quantize::parse_method)]
    method: Method,
    /// Prunings to consider, as layers and share of feed-forward channels; `none` for none
    #[arg(long, value_name = "LAYERS/SHARE", value_delimiter = ',', default_value = "1/0,0/0.15,0/0.3",
        value_parser = parse_pruning)]
    prune: Vec<Pruning>,
    /// Exchanges of types that are tried and measured after the first choice
    #[arg(long, value_name = "N", default_value_t = SWAPS_DEFAULT)]
    swaps: usize,
    /// Tokens of the text that are learned from, spread over it
    #[arg(long, value_name = "N", default_value_t = CALIBRATION_TOKENS_DEFAULT)]
    calibrate_tokens: usize,
    /// Tokens that divergence is measured on
    #[arg(long, value_name = "N", default_value_t = 8 * WINDOW_TOKENS_DEFAULT)]
    judge_tokens: usize,
    /// Tokens of a window of it
    #[arg(short = 'c', long, value_name = "N", default_value_t = WINDOW_TOKENS_DEFAULT)]
    context: usize,
    /// Worker threads; as many as the machine gives by default
    #[arg(short = 't', long, default_value_t = 0)]
    threads: usize,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// `None`: no pruning.
type Pruning = Option<(usize, f64)>;

fn parse_pruning(text: &str) -> Result<Pruning, String> {
    if text == "none" {
        return Ok(None);
    }
    let parsed = text.split_once('/').and_then(|(layers, share)| {
        let share: f64 = share.parse().ok().filter(|share| (0.0..1.0).contains(share))?;
        Some((layers.parse().ok()?, share))
    });
    parsed.map(Some).ok_or_else(|| "expected LAYERS/SHARE as in 1/0.25, or none".to_owned())
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
    let options = ModelOptions::default();
    let threads = if arguments.threads > 0 { arguments.threads } else { options.threads };
    let mut workload = Workload {
        context_tokens: arguments.context_tokens as usize,
        prompt_tokens: arguments.prompt_tokens as usize,
        answer_tokens: arguments.answer_tokens as usize,
        other_ns: 0.0,
    };
    let device = device(arguments, &source, threads, &mut workload)?;
    let (calibration, judging, key) = texts(arguments, &source)?;
    let only_kl = arguments.size.is_none() && arguments.memory.is_none() && arguments.latency_ms.is_none();
    let smallest = arguments.smallest || only_kl && arguments.max_kl.is_some();
    let budget = Budget {
        size_bytes: arguments.size,
        memory_bytes: arguments
            .memory
            .unwrap_or((device.available_bytes as f64 * (1.0 - MEMORY_LEFT)) as u64),
        latency_ns: arguments.latency_ms.map(|ms| ms * 1e6),
        kl_max: arguments.max_kl,
    };
    let pruning = |(layers, feed_forward)| PruneOptions {
        layers,
        feed_forward,
        multiple: PRUNE_MULTIPLE,
        threads,
        ..PruneOptions::default()
    };
    let options = OptimizeOptions {
        formats: arguments.types.clone(),
        method: arguments.method,
        budget,
        goal: if smallest { Goal::Size } else { Goal::Divergence },
        workload,
        predicted_only: arguments.predicted_only,
        prunings: arguments.prune.iter().flatten().map(|p| pruning(*p)).collect(),
        swaps: arguments.swaps,
        threads,
        key,
    };
    let mut meter = Meter::new();
    let report =
        optimize_file(&source, &arguments.out, &options, &device, (&calibration, judging), &mut |stage| {
            meter.tell(stage);
        })?;
    meter.end();
    let here = answer_ns(&Gguf::open(&arguments.out)?, threads, &workload)?;
    let accuracy = match &suites {
        None => None,
        Some(suites) => {
            let of = |file: &Path| measure::accuracy(&Gguf::open(file)?, suites, arguments.threads);
            Some((of(&arguments.source)?.0, of(&arguments.out)?.0))
        }
    };
    let mut out = std::io::stdout().lock();
    if arguments.json {
        writeln!(out, "{}", to_json(arguments, &device, &options, &report, accuracy, here))?;
        return Ok(());
    }
    print(&mut out, &report)?;
    summary(&mut out, &report, &options, accuracy, here)?;
    writeln!(out, "\nwrote {}", arguments.out.display())?;
    Ok(())
}

/// Channels of a pruned model are whole blocks of the small types.
const PRUNE_MULTIPLE: usize = 32;

/// The profile, and what of an answer on the device is no matrix product.
fn device(arguments: &Arguments, source: &Gguf, threads: usize, workload: &mut Workload) -> Result<Device> {
    let mut formats: Vec<BlockFormat> = source
        .tensors()
        .iter()
        .filter(|info| info.shape.len() == 2)
        .map(block_format)
        .collect::<std::result::Result<_, _>>()?;
    formats.sort_by_key(|format| format.name());
    formats.dedup();
    let given = arguments.device.as_deref().map(device::read).transpose()?;
    if given.is_none() {
        formats.extend(arguments.types.iter().filter(|format| !formats.contains(format)).collect::<Vec<_>>());
        eprintln!("measuring this machine; `ganglion bench device` keeps what it finds for other runs");
    }
    let here = device::measure(&device::shapes_of(source), &formats, threads)?;
    let products = products_ns(source, &here, workload)?;
    workload.other_ns = (answer_ns(source, threads, workload)? - products).max(0.0);
    if let Some(given) = &given {
        let (isa, pool) = (Isa::detect(), Pool::new(threads)?);
        let rate = DotProbe::new().peak(isa, &pool, PROBE_NS, super::bench::now_ns).median;
        // What is no product is taken to be as much slower or faster there as integer arithmetic is.
        workload.other_ns *= rate / given.int8_macs_per_s;
    }
    Ok(given.unwrap_or(here))
}

/// The middle one of some answers of a model on this machine, in nanoseconds.
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
    let mut times = Vec::new();
    for _ in 0..ANSWERS {
        session.truncate(0)?;
        let start = Instant::now();
        session.prefill(prompt, &mut || false)?;
        session.logits_all(&mut logits)?;
        for token in answer {
            session.step(*token, &mut || false)?;
            session.logits_all(&mut logits)?;
        }
        times.push(start.elapsed().as_nanos() as f64);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

/// What is learned from and what is judged on, and a name for both.
fn texts(arguments: &Arguments, source: &Gguf) -> Result<(Windows, Windows, String)> {
    let file = &arguments.calibrate;
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let mut cut = (text.len() as f64 * (1.0 - JUDGING_SHARE)) as usize;
    while !text.is_char_boundary(cut) {
        cut -= 1;
    }
    let tokenizer = Tokenizer::from_gguf(source)?;
    let windows = |text: &str, tokens: usize| -> Result<Windows> {
        let windows = Windows::new(&tokenizer, text, arguments.context).with_context(|| {
            format!("{}: four fifths and one fifth of it must each fill a window", file.display())
        })?;
        Ok(windows.thinned((tokens / arguments.context).max(1)))
    };
    let calibration = windows(&text[..cut], arguments.calibrate_tokens)?;
    let judging = windows(&text[cut..], arguments.judge_tokens)?;
    let counts = [arguments.context, calibration.count(), judging.count()];
    let key = format!("{} {counts:?}", quantize::hash(text.as_bytes()));
    Ok((calibration, judging, key))
}

/// Stage and time left, on a terminal's one line.
struct Meter {
    start: Instant,
    stage: String,
    stage_start: Instant,
    terminal: bool,
}

impl Meter {
    fn new() -> Self {
        let now = Instant::now();
        Self { start: now, stage: String::new(), stage_start: now, terminal: std::io::stderr().is_terminal() }
    }

    fn tell(&mut self, stage: Stage<'_>) {
        if stage.name != self.stage {
            (self.stage, self.stage_start) = (stage.name.to_owned(), Instant::now());
            if !self.terminal {
                eprintln!("{}", stage.name);
            }
        }
        if !self.terminal {
            return;
        }
        let spent = self.stage_start.elapsed().as_secs_f64();
        let left = spent / stage.done.max(1) as f64 * (stage.total - stage.done.min(stage.total)) as f64;
        eprint!("\r{:<28} {:>5} of {:<5} {left:>6.0} s left ", stage.name, stage.done, stage.total);
    }

    fn end(&self) {
        if self.terminal {
            eprintln!("\r{:<70}", format!("done in {:.1} s", self.start.elapsed().as_secs_f64()));
        }
    }
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
    options: &OptimizeOptions,
    accuracy: Option<(f64, f64)>,
    here_ns: f64,
) -> Result<()> {
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
        limit(budget.latency_ns.map(ms))
    )?;
    writeln!(out, "{:<18} {:>12} {:>12}", "answer, here", "", ms(here_ns))?;
    writeln!(
        out,
        "{:<18} {:>12} {:>12.6} {:>12}",
        "KL divergence",
        0,
        report.kl,
        limit(budget.kl_max.map(|max| format!("{max}")))
    )?;
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
    for pruned in &report.prunings {
        writeln!(
            out,
            "pruning {} layers and {:.0} % of channels alone costs {:.4}: {}",
            pruned.layers,
            pruned.feed_forward * 100.0,
            pruned.kl,
            if pruned.taken { "taken" } else { "not worth it" }
        )?;
    }
    writeln!(out, "\nwhat could be had: {:>11} {:>12} {:>12}", "file", "answer", "KL, predicted")?;
    for point in &report.front {
        let (size, latency) = (size(point.size_bytes), ms(point.latency_ns));
        writeln!(out, "{:<18} {size:>11} {latency:>12} {:>12.6}", "", point.kl_predicted)?;
    }
    Ok(())
}

fn to_json(
    arguments: &Arguments,
    device: &Device,
    options: &OptimizeOptions,
    report: &OptimizeReport,
    accuracy: Option<(f64, f64)>,
    here_ns: f64,
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
            "latency_ns": budget.latency_ns, "kl_max": budget.kl_max},
        "goal": if options.goal == Goal::Size { "size" } else { "divergence" },
        "size_bytes": report.size_bytes.1,
        "memory_bytes": report.memory_bytes.1,
        "latency_ns": report.latency_ns.1,
        "latency_here_ns": here_ns,
        "kl_mean": report.kl,
        "kl_predicted": report.kl_predicted,
        "suite_accuracy": accuracy.map(|a| a.1),
        "before": {"size_bytes": report.size_bytes.0, "memory_bytes": report.memory_bytes.0,
            "latency_ns": report.latency_ns.0, "suite_accuracy": accuracy.map(|a| a.0)},
        "in_sequence": report.in_sequence,
        "swaps_tried": report.swaps.0,
        "swaps_kept": report.swaps.1,
        "prunings": report.prunings.iter().map(|p| json!({"layers": p.layers, "feed_forward": p.feed_forward,
            "kl": p.kl, "taken": p.taken})).collect::<Vec<_>>(),
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
    fn prunings_are_read() {
        assert_eq!(parse_pruning("1/0.25"), Ok(Some((1, 0.25))));
        assert_eq!(parse_pruning("none"), Ok(None));
        assert!(parse_pruning("1/1.5").is_err());
    }
}
