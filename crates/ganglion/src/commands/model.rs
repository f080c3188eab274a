//! `ganglion model`: look into, convert and evaluate model files.

use super::{calibrate, export, factorize, measure, optimize, prune, quantize};
use crate::load::{self, size};
use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Subcommand};
use ganglion_decide::{LoadedModel, suite};
use ganglion_gguf::Gguf;
use ganglion_llm::convert::{BlockFormat, FolderOptions, ModelFolder, Precision};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Inspect, convert and evaluate models
#[derive(Args)]
#[command(after_help = "Examples:\n  ganglion model inspect models/nano/nano.gguf\n  \
                  ganglion model eval models/nano/nano.gguf --suite models/nano/suites")]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Print a GGUF file's metadata and tensors
    #[command(after_help = "Example:\n  ganglion model inspect models/nano/nano.gguf")]
    Inspect {
        /// GGUF file
        file: PathBuf,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Score a model on evaluation suites: exact commands, by suite and kind
    #[command(
        after_help = "Example:\n  ganglion model eval models/nano/nano.gguf --suite models/nano/suites"
    )]
    Eval {
        /// GGUF file
        file: PathBuf,
        /// Folder of .jsonl suites
        #[arg(long, value_name = "DIR")]
        suite: PathBuf,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
        /// Also print the first N wrong answers of each suite
        #[arg(long, value_name = "N", default_value_t = 0)]
        wrong: usize,
    },
    /// Perplexity of a text, and how far a model is from a reference
    Measure(measure::Arguments),
    /// How sure the model must be for a wanted risk
    Calibrate(calibrate::Arguments),
    Quantize(quantize::Arguments),
    Prune(prune::Arguments),
    Factorize(factorize::Arguments),
    Optimize(optimize::Arguments),
    Export(export::Arguments),
    /// Convert a Hugging Face folder, or a llama2.c checkpoint, to GGUF
    #[command(
        after_help = "Examples:\n  ganglion model convert SmolLM2-135M-Instruct smollm2.gguf --type q8_0\n  \
                            ganglion model convert stories260K.bin stories260k.gguf --tokenizer tok512.bin"
    )]
    Convert(Convert),
}

#[derive(Args)]
struct Convert {
    /// Folder with config.json, safetensors and tokenizer.json, or llama2.c model file
    source: PathBuf,
    /// Where to write; by default the source's name with .gguf, in the current folder
    #[arg(value_name = "OUT.gguf")]
    out: Option<PathBuf>,
    /// Type of the matrices: f32, f16, bf16, q8_0, q4_0, …; by default as they are stored
    #[arg(long = "type", value_name = "TYPE", value_parser = parse_plain_format)]
    format: Option<BlockFormat>,
    /// Name of the pre-tokenizer, for a tokenizer.json whose definition is not known
    #[arg(long, value_name = "NAME")]
    pre: Option<String>,
    /// Leave the tokenizer of a folder out
    #[arg(long, conflicts_with_all = ["pre", "tokenizer"])]
    no_tokenizer: bool,
    /// llama2.c tokenizer file
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
}

/// What a conversion can write: the others need all rows of a matrix at once.
fn parse_plain_format(name: &str) -> Result<BlockFormat, String> {
    let format = parse_format(name)?;
    if format.is_blockwise() {
        return Ok(format);
    }
    Err(format!("{format} is written by `ganglion model quantize`; convert to f16 first"))
}

pub(super) fn parse_format(name: &str) -> Result<BlockFormat, String> {
    BlockFormat::from_name(name).ok_or_else(|| {
        let names: Vec<_> =
            BlockFormat::ALL.iter().map(|format| format.name().to_ascii_lowercase()).collect();
        format!("expected one of {}", names.join(", "))
    })
}

pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    match &arguments.action {
        Action::Inspect { file, json } => inspect(file, *json)?,
        Action::Measure(arguments) => measure::run(arguments)?,
        Action::Calibrate(arguments) => calibrate::run(arguments)?,
        Action::Quantize(arguments) => quantize::run(arguments)?,
        Action::Prune(arguments) => prune::run(arguments)?,
        Action::Factorize(arguments) => factorize::run(arguments)?,
        Action::Optimize(arguments) => optimize::run(arguments)?,
        Action::Export(arguments) => export::run(arguments)?,
        Action::Eval { file, suite, json, wrong } => eval(file, suite, *json, *wrong)?,
        Action::Convert(arguments) => convert(arguments)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn open(file: &Path) -> Result<Gguf> {
    Gguf::open(file).context("model")
}

fn convert(arguments: &Convert) -> Result<()> {
    let Convert { source, tokenizer, format, .. } = arguments;
    let out = match &arguments.out {
        Some(out) => out.clone(),
        None => {
            let full = source.canonicalize().with_context(|| source.display().to_string())?;
            let name = if full.is_dir() { full.file_name() } else { full.file_stem() };
            let mut name = name.context("give a name for the output")?.to_owned();
            name.push(".gguf");
            PathBuf::from(name)
        }
    };
    if source.is_dir() {
        ensure!(
            tokenizer.is_none(),
            "--tokenizer is for llama2.c checkpoints; a folder has its own tokenizer"
        );
        convert_folder(arguments, &out)?;
    } else {
        let Some(tokenizer) = tokenizer else {
            bail!("{}: is no folder; a llama2.c checkpoint needs --tokenizer FILE", source.display());
        };
        let precision = match format {
            None | Some(BlockFormat::F32) => Precision::F32,
            Some(BlockFormat::Q8_0) => Precision::Q8_0,
            Some(other) => {
                bail!("--type is {}, expected f32 or q8_0 for a llama2.c checkpoint", other.name())
            }
        };
        let read = |file: &Path| std::fs::read(file).with_context(|| file.display().to_string());
        ganglion_llm::convert::llama2c(&read(source)?, &read(tokenizer)?, precision)?.write_file(&out)?;
    }
    println!("wrote {}", out.display());
    Ok(())
}

fn convert_folder(arguments: &Convert, out: &Path) -> Result<()> {
    /// Below this the whole takes about a second.
    const PROGRESS_BYTES_MIN: u64 = 256 << 20;
    let folder = ModelFolder::open(
        &arguments.source,
        FolderOptions {
            format: arguments.format,
            pre_tokenizer: arguments.pre.as_deref(),
            without_tokenizer: arguments.no_tokenizer,
        },
    )?;
    let counts: Vec<_> =
        folder.formats().iter().map(|(format, count)| format!("{count} {}", format.name())).collect();
    eprintln!("{} model, tensors: {}", folder.architecture(), counts.join(", "));
    folder.write_file(out, &mut |progress| {
        if progress.total_bytes >= PROGRESS_BYTES_MIN {
            eprint!("\r{} of {} ", size(progress.done_bytes), size(progress.total_bytes));
            if progress.done_bytes == progress.total_bytes {
                eprintln!();
            }
        }
    })?;
    Ok(())
}

fn inspect(file: &Path, json: bool) -> Result<()> {
    let gguf = open(file)?;
    let mut out = std::io::stdout().lock();
    if json {
        let metadata: serde_json::Map<_, _> =
            gguf.metadata().map(|(key, value)| (key.to_owned(), value.to_string().into())).collect();
        let tensors: Vec<_> = gguf
            .tensors()
            .iter()
            .map(|t| serde_json::json!({"name": t.name, "shape": t.shape, "type": t.dtype.name(), "size_bytes": t.size_bytes}))
            .collect();
        let report = serde_json::json!({"sha256": gguf.sha256(), "metadata": metadata, "tensors": tensors});
        writeln!(out, "{report}")?;
        return Ok(());
    }
    let parameters: u64 = gguf.tensors().iter().map(ganglion_gguf::TensorInfo::element_count).sum();
    let bytes: u64 = gguf.tensors().iter().map(|t| t.size_bytes).sum();
    writeln!(out, "{}: {}, sha256 {}", file.display(), size(gguf.bytes().len() as u64), gguf.sha256())?;
    writeln!(
        out,
        "{} tensors, {:.2} M parameters, {:.2} bits a weight\n",
        gguf.tensors().len(),
        parameters as f64 / 1e6,
        bytes as f64 * 8.0 / parameters.max(1) as f64
    )?;
    for (key, value) in gguf.metadata() {
        writeln!(out, "{key:<42} {value}")?;
    }
    writeln!(out)?;
    for t in gguf.tensors() {
        let shape = t.shape.iter().map(u64::to_string).collect::<Vec<_>>().join(" × ");
        writeln!(out, "{:<32} {:>18}  {:<7} {:>11}", t.name, shape, t.dtype.name(), size(t.size_bytes))?;
    }
    Ok(())
}

fn eval(file: &Path, dir: &Path, json: bool, wrong: usize) -> Result<()> {
    let gguf = open(file)?;
    let suites = suite::load(dir)?;
    let (model, loaded) = LoadedModel::with_folder(&gguf, 0, load::packed_folder().as_ref())?;
    load::announce(&loaded);
    let mut report = serde_json::Map::new();
    let mut out = std::io::stdout().lock();
    if !json {
        writeln!(out, "{:<14} {:>7} {:>8} {:>9}   by kind", "suite", "cases", "exact", "numbers")?;
    }
    for suite in &suites {
        let total = suite.cases.len();
        let score = suite::run(&model, suite, &mut |done| {
            if done % 50 == 0 {
                eprint!("\r{} {done}/{total} ", suite.name);
            }
        })?;
        eprint!("\r{:40}\r", "");
        let percent = |share: f64| (share * 1e4).round() / 100.0;
        if json {
            let kinds: serde_json::Map<_, _> =
                score.kinds.iter().map(|(kind, s)| (kind.clone(), percent(s.share()).into())).collect();
            report.insert(
                suite.name.clone(),
                serde_json::json!({"cases": total, "exact": percent(score.exact.share()),
                    "numbers": percent(score.numbers.share()), "numbers_cases": score.numbers.total, "kinds": kinds}),
            );
        } else {
            let kinds: Vec<_> = score
                .kinds
                .iter()
                .map(|(kind, s)| format!("{kind} {:.1} ({})", 100.0 * s.share(), s.total))
                .collect();
            writeln!(
                out,
                "{:<14} {total:>7} {:>7.2}% {:>8.2}%   {}",
                suite.name,
                100.0 * score.exact.share(),
                100.0 * score.numbers.share(),
                kinds.join(", ")
            )?;
            for [site, event, expected, found] in score.wrong.iter().take(wrong) {
                writeln!(
                    out,
                    "  {site}: {}\n    expected {expected}\n    found    {found}",
                    event.trim_end().replace('\n', " / ")
                )?;
            }
        }
    }
    if json {
        writeln!(out, "{}", serde_json::json!({"model": gguf.sha256(), "suites": report}))?;
    }
    Ok(())
}
