//! `ganglion bench engine`: tokens a second of a model, beside what the machine can do at best.

use super::memory::Resident;
use super::touched::Touched;
use super::trace::{self, Part};
use crate::load;
use anyhow::{Context, Result, bail};
use clap::Args;
use ganglion_gguf::Gguf;
use ganglion_kernels::probe::{DotProbe, Rate, ReadProbe};
use ganglion_kernels::{Pool, argmax};
use ganglion_llm::{Model, ModelOptions, Profiler, Session, SessionOptions, TokenId};
use hdrhistogram::Histogram;
use std::hint::black_box;
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

/// Time that each of the two probes of the machine takes.
const PROBE_NS: u64 = 500_000_000;
/// Most spans that a profile keeps.
const SPANS_MAX: usize = 1 << 20;
/// The token ids are random, because speed must not depend on a text; the same in every run.
const SEED: u64 = 1;

/// Tokens per second of a model, and how near that is to what the machine can do
///
/// A GGUF file without a tokenizer will do: token ids are random. Prefill is one run over the prompt up to the last
/// token's logits, decode is one token at a time from an empty context, each up to the choice of the best token.
#[derive(Args)]
#[command(
    after_help = "Example:\n  ganglion bench engine models/nano/nano.gguf -p 256 -n 64 --profile trace.json"
)]
pub struct Arguments {
    /// GGUF file
    model: PathBuf,
    /// Tokens of the prompt
    #[arg(short = 'p', long, default_value_t = 256, value_parser = positive)]
    prompt: usize,
    /// Tokens to decode
    #[arg(short = 'n', long, default_value_t = 64, value_parser = positive)]
    tokens: usize,
    /// Worker threads; as many as the machine gives by default
    #[arg(short = 't', long, default_value_t = 0)]
    threads: usize,
    /// Tokens that one pass over the weights evaluates at most
    #[arg(short = 'b', long, default_value_t = 512, value_parser = positive)]
    batch: usize,
    /// Positions of the KV cache; as many as needed by default
    #[arg(short = 'c', long, default_value_t = 0)]
    context: usize,
    /// Runs; the medians count
    #[arg(long, default_value_t = 5, value_parser = positive)]
    repeat: usize,
    /// Decode further until so many tokens were timed, for the percentiles
    #[arg(long, default_value_t = 0)]
    latency_tokens: u64,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Pack the weights into memory, as if there were no file of them from an earlier run
    #[arg(long)]
    no_packed: bool,
    /// Print a table of operations, and write a trace to this file (for Perfetto or chrome://tracing)
    #[arg(long, value_name = "TRACE.json")]
    profile: Option<PathBuf>,
}

fn positive(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| *n > 0).ok_or_else(|| "expected a number from 1".to_owned())
}

/// The monotonic clock of all figures here.
pub fn now_ns() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    u64::try_from(START.get_or_init(Instant::now).elapsed().as_nanos()).unwrap_or(u64::MAX)
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let start_ns = now_ns();
    let gguf = Gguf::open(&arguments.model).context("model")?;
    let touched = Touched::new(gguf.header());
    let file_bytes = gguf.bytes().len() as u64;
    let mut options = ModelOptions::default();
    if arguments.threads > 0 {
        options.threads = arguments.threads;
    }
    let context_tokens = match arguments.context {
        0 => arguments.prompt + arguments.tokens,
        given if given < arguments.prompt.max(arguments.tokens) => {
            bail!(
                "--context {given}: the prompt and the decoded tokens each need to fit, give at least {}",
                { arguments.prompt.max(arguments.tokens) }
            )
        }
        given => given,
    };
    let session_options =
        SessionOptions { batch_tokens: arguments.batch, ..SessionOptions::new(context_tokens) };
    let plan = Model::memory_plan(gguf.header(), &session_options, options.threads)
        .with_context(|| format!("model {}", arguments.model.display()))?;
    let folder = load::packed_folder().filter(|_| !arguments.no_packed);
    let (model, loaded) = Model::load_with(&gguf, options, folder.as_ref())
        .with_context(|| format!("model {}", arguments.model.display()))?;
    load::announce(&loaded);
    drop(gguf);
    let mut bench = Bench::new(Session::new(Arc::new(model), session_options)?);
    let load_ns = now_ns() - start_ns;
    bench.decode(1, |_, _| {})?;
    let first_token_ns = now_ns() - start_ns;

    let times = Times::measure(&mut bench, arguments)?;
    let resident = Resident::now()?;
    let profile = match &arguments.profile {
        Some(path) => {
            let parts = bench.profile(arguments)?;
            trace::write(path, &arguments.model.display().to_string(), &parts)?;
            parts
        }
        None => Vec::new(),
    };
    // The probes take the model's place in memory, so that they do not compete with it.
    drop(bench);
    let limits = Limits::measure(options, touched.bytes)?;
    let report = Report {
        arguments,
        options,
        touched,
        file_bytes,
        kv_bytes: plan.kv_bytes,
        load_ns,
        first_token_ns,
        times,
        resident,
        limits,
    };
    let mut out = std::io::stdout().lock();
    if arguments.json {
        writeln!(out, "{}", report.json(&profile))?;
        return Ok(());
    }
    report.print(&mut out)?;
    for part in &profile {
        part.table(&mut out)?;
    }
    Ok(())
}

/// A session with tokens to feed it.
struct Bench {
    session: Session,
    logits: Vec<f32>,
    random: u64,
}

impl Bench {
    fn new(session: Session) -> Self {
        let logits = vec![0.0; session.model().config().vocab_size];
        Self { session, logits, random: SEED }
    }

    /// A random token id (splitmix64).
    fn token(&mut self) -> TokenId {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % self.logits.len() as u64) as TokenId
    }

    /// Evaluates a prompt in an empty context up to the last token's logits; gives the nanoseconds it took.
    fn prefill(&mut self, tokens: usize) -> Result<u64> {
        self.session.truncate(0)?;
        let prompt: Vec<TokenId> = (0..tokens).map(|_| self.token()).collect();
        let start = now_ns();
        self.session.prefill(&prompt, &mut || false)?;
        self.session.logits_all(&mut self.logits)?;
        black_box(argmax(&self.logits));
        Ok(now_ns() - start)
    }

    /// Evaluates `tokens` one by one in an empty context, each up to the choice of the best next one; hands
    /// begin and end of each to `receive` and gives the nanoseconds of all.
    fn decode(&mut self, tokens: usize, mut receive: impl FnMut(u64, u64)) -> Result<u64> {
        self.session.truncate(0)?;
        let mut total = 0;
        for _ in 0..tokens {
            let token = self.token();
            let start = now_ns();
            self.session.step(token, &mut || false)?;
            self.session.logits_all(&mut self.logits)?;
            black_box(argmax(&self.logits));
            let end = now_ns();
            receive(start, end);
            total += end - start;
        }
        Ok(total)
    }

    /// One prefill and one decode with the profiler on, which no other figure includes.
    fn profile(&mut self, arguments: &Arguments) -> Result<Vec<Part>> {
        let fresh = || Profiler::new(now_ns, SPANS_MAX);
        self.session.replace_profiler(fresh());
        let start = now_ns();
        self.prefill(arguments.prompt)?;
        let passes_ns = vec![(start, now_ns())];
        let profiler = self.session.replace_profiler(fresh());
        let prefill = Part { name: "prefill", tokens: arguments.prompt, passes_ns, profiler };
        let mut passes_ns = Vec::with_capacity(arguments.tokens);
        self.decode(arguments.tokens, |start, end| passes_ns.push((start, end)))?;
        let profiler = self.session.replace_profiler(Profiler::off());
        Ok(vec![prefill, Part { name: "decode", tokens: arguments.tokens, passes_ns, profiler }])
    }
}

/// Figures of the model.
struct Times {
    prefill_tokens_per_s: Vec<f64>,
    decode_tokens_per_s: Vec<f64>,
    token_ns: Histogram<u64>,
}

impl Times {
    fn measure(bench: &mut Bench, arguments: &Arguments) -> Result<Self> {
        let mut times = Self {
            prefill_tokens_per_s: Vec::new(),
            decode_tokens_per_s: Vec::new(),
            token_ns: Histogram::new_with_bounds(1, 600_000_000_000, 3)?,
        };
        let per_s = |tokens: usize, ns: u64| tokens as f64 * 1e9 / ns.max(1) as f64;
        bench.prefill(arguments.prompt)?;
        bench.decode(arguments.tokens.min(8), |_, _| {})?;
        for _ in 0..arguments.repeat {
            times.prefill_tokens_per_s.push(per_s(arguments.prompt, bench.prefill(arguments.prompt)?));
            let decoded = times.decode(bench, arguments.tokens)?;
            times.decode_tokens_per_s.push(per_s(arguments.tokens, decoded));
        }
        while times.token_ns.len() < arguments.latency_tokens {
            times.decode(bench, arguments.tokens)?;
        }
        Ok(times)
    }

    fn decode(&mut self, bench: &mut Bench, tokens: usize) -> Result<u64> {
        bench.decode(tokens, |start, end| self.token_ns.saturating_record((end - start).max(1)))
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => sorted[odd / 2],
        even => f64::midpoint(sorted[even / 2 - 1], sorted[even / 2]),
    }
}

/// What the machine can do on the model's threads with its instruction set.
struct Limits {
    bandwidth: Rate,
    peak: Rate,
}

impl Limits {
    fn measure(options: ModelOptions, working_set_bytes: u64) -> Result<Self> {
        let pool = Pool::new(options.threads)?;
        let bytes = usize::try_from(working_set_bytes).context("the weights do not fit the address space")?;
        let bandwidth = ReadProbe::new(bytes).bandwidth(options.isa, &pool, PROBE_NS, now_ns);
        Ok(Self { bandwidth, peak: DotProbe::new().peak(options.isa, &pool, PROBE_NS, now_ns) })
    }
}

struct Report<'a> {
    arguments: &'a Arguments,
    options: ModelOptions,
    touched: Touched,
    file_bytes: u64,
    kv_bytes: u64,
    load_ns: u64,
    first_token_ns: u64,
    times: Times,
    resident: Resident,
    limits: Limits,
}

impl Report<'_> {
    fn prefill(&self) -> f64 {
        median(&self.times.prefill_tokens_per_s)
    }

    fn decode(&self) -> f64 {
        median(&self.times.decode_tokens_per_s)
    }

    /// Weights read per second, as a part of what the machine reads from a working set of that size.
    fn bandwidth_share(&self) -> f64 {
        self.decode() * self.touched.bytes as f64 / self.limits.bandwidth.median
    }

    /// Multiply-adds of the weights per second during prefill, as a part of the integer peak.
    fn peak_share(&self) -> f64 {
        let tokens = self.arguments.prompt as f64;
        let macs = self.touched.layer_macs as f64 * tokens + self.touched.head_macs as f64;
        macs * self.prefill() / tokens / self.limits.peak.median
    }

    fn token_us(&self, quantile: f64) -> f64 {
        self.times.token_ns.value_at_quantile(quantile) as f64 / 1e3
    }

    fn json(&self, profile: &[Part]) -> serde_json::Value {
        let ms = |ns: u64| ns as f64 / 1e6;
        let mut report = serde_json::json!({
            "model": self.arguments.model.display().to_string(),
            "parameters": self.touched.parameters,
            "threads": self.options.threads,
            "isa": self.options.isa.name(),
            "prompt_tokens": self.arguments.prompt,
            "decode_tokens": self.arguments.tokens,
            "prefill_tokens_per_s": self.prefill(),
            "decode_tokens_per_s": self.decode(),
            "bandwidth_share": self.bandwidth_share(),
            "peak_share": self.peak_share(),
            "load_ms": ms(self.load_ns),
            "first_token_ms": ms(self.first_token_ns),
            "resident_bytes": self.resident.total,
            "resident_anonymous_bytes": self.resident.anonymous,
            "resident_file_bytes": self.resident.file,
            "resident_peak_bytes": self.resident.peak,
            "file_bytes": self.file_bytes,
            "kv_bytes": self.kv_bytes,
            "token_p50_us": self.token_us(0.5),
            "token_p999_us": self.token_us(0.999),
            "token_max_us": self.times.token_ns.max() as f64 / 1e3,
            "tokens_timed": self.times.token_ns.len(),
            "bytes_per_token": self.touched.bytes,
            "bandwidth_gb_per_s": self.limits.bandwidth.median / 1e9,
            "bandwidth_best_gb_per_s": self.limits.bandwidth.best / 1e9,
            "peak_gmac_per_s": self.limits.peak.median / 1e9,
            "peak_best_gmac_per_s": self.limits.peak.best / 1e9,
            "prefill_runs_tokens_per_s": self.times.prefill_tokens_per_s,
            "decode_runs_tokens_per_s": self.times.decode_tokens_per_s,
        });
        for part in profile {
            report[format!("{}_operations", part.name)] = part.operations().into();
        }
        report
    }

    fn print(&self, out: &mut impl Write) -> std::io::Result<()> {
        let ms = |ns: u64| ns as f64 / 1e6;
        let limits = &self.limits;
        writeln!(
            out,
            "{}: {:.1} M parameters in {}, {} threads, {}",
            self.arguments.model.display(),
            self.touched.parameters as f64 / 1e6,
            load::size(self.file_bytes),
            self.options.threads,
            self.options.isa.name()
        )?;
        writeln!(
            out,
            "prefill {:>5}  {:>10.1} tokens/s  {:>5.1} % of {:.0} GMAC/s",
            self.arguments.prompt,
            self.prefill(),
            100.0 * self.peak_share(),
            limits.peak.median / 1e9
        )?;
        writeln!(
            out,
            "decode  {:>5}  {:>10.1} tokens/s  {:>5.1} % of {:.1} GB/s over {}",
            self.arguments.tokens,
            self.decode(),
            100.0 * self.bandwidth_share(),
            limits.bandwidth.median / 1e9,
            load::size(self.touched.bytes)
        )?;
        writeln!(
            out,
            "token          {:>10.1} us p50, {:.1} us p99.9 of {}",
            self.token_us(0.5),
            self.token_us(0.999),
            self.times.token_ns.len()
        )?;
        writeln!(
            out,
            "load           {:>10.1} ms, first token after {:.1} ms",
            ms(self.load_ns),
            ms(self.first_token_ns)
        )?;
        writeln!(
            out,
            "resident       {:>10}, of it {} allocated and {} mapped; KV cache {}",
            load::size(self.resident.total),
            load::size(self.resident.anonymous),
            load::size(self.resident.file),
            load::size(self.kv_bytes)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_count_lies_between_two() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), 2.5);
        assert_eq!(median(&[]), 0.0);
    }
}
