//! `ganglion model quantize`: a smaller model of the same architecture.

use super::calibration::Calibration;
use super::files::check_result;
use super::meter::Meter;
use crate::load::{self, size};
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use ganglion_compress::{
    Calibrator, FileType, Knowledge, Method, Mix, Needs, QuantizeOptions, Range, Windows, quantize_file,
    read_imatrix, write_imatrix,
};
use ganglion_gguf::Gguf;
use ganglion_llm::convert::{BlockFormat, FolderOptions, ModelFolder};
use ganglion_llm::{Model, ModelOptions};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// Store a model's weights in fewer bits
#[derive(Args)]
#[command(after_help = "Examples:
  ganglion model quantize model-f16.gguf model-q4.gguf --type q4_k_m
  ganglion model quantize model-f16.gguf model-q3.gguf --type q3_k_m --method gptq --calibrate text.txt
  ganglion model quantize model-f16.gguf model-t3.gguf --type t3 --method trellis --calibrate text.txt
  ganglion model quantize model-f16.gguf model-i8.gguf --type int8 --method smoothquant --activations mse --calibrate text.txt
  ganglion model quantize pruned-2-4.gguf model-s8.gguf --type sparse8

t2 to t4, nf4, fp8, int8, sparse8 and sparse4 are formats of this engine alone. All others run in llama.cpp too. The last two store half of
the weights, for models that `ganglion model prune --sparsity 2:4` (or 16:32) has made.
Interrupted, it goes on where it stopped when it is called again in the same way. OUT appears when it is whole.")]
pub struct Arguments {
    /// GGUF file, or Hugging Face folder
    source: PathBuf,
    /// GGUF file to write
    #[arg(value_name = "OUT.gguf")]
    out: PathBuf,
    /// Type or mixture of types: q8_0, q6_k, q5_k_m, q4_k_m, q4_0, iq4_nl, q3_k_m, q2_k, t4, t3, t2, sparse8, …
    #[arg(long = "type", value_name = "TYPE", value_parser = parse_type)]
    file_type: FileType,
    /// rtn, imatrix, gptq, awq, smoothquant, hqq, autoround or trellis; by default gptq with a text, imatrix with a matrix, else rtn
    #[arg(long, value_parser = parse_method)]
    method: Option<Method>,
    /// Text like what the model will read; needed by all methods but rtn and hqq
    #[arg(long, value_name = "FILE")]
    calibrate: Option<PathBuf>,
    #[command(flatten)]
    calibration: Calibration,
    /// Importance matrix of llama-imatrix, in place of a text, for --method imatrix
    #[arg(long, value_name = "FILE", conflicts_with = "calibrate")]
    imatrix: Option<PathBuf>,
    /// Keep what the text taught, as llama-quantize reads it
    #[arg(long, value_name = "FILE", requires = "calibrate")]
    save_imatrix: Option<PathBuf>,
    /// Scales of what int8 matrices read: one a token (dynamic), or fixed by percentile, mse or kl
    #[arg(long, value_name = "RULE", default_value = "dynamic", value_parser = parse_activations)]
    activations: Activations,
    /// Every matrix in the type itself, embedding and output too
    #[arg(long)]
    pure: bool,
    /// Type of the tensors whose name contains PART: ffn_down=q6_k. May be given again; the last that fits counts
    #[arg(long = "tensor-type", value_name = "PART=TYPE", value_parser = parse_override)]
    overrides: Vec<(String, BlockFormat)>,
}

fn parse_type(name: &str) -> Result<FileType, String> {
    FileType::from_name(name)
        .ok_or_else(|| format!("expected one of {}", FileType::names().collect::<Vec<_>>().join(", ")))
}

pub(super) fn parse_method(name: &str) -> Result<Method, String> {
    let names = || Method::ALL.map(Method::name).join(", ");
    Method::from_name(name).ok_or_else(|| format!("expected one of {}", names()))
}

/// `None`: dynamic.
type Activations = Option<Range>;

fn parse_activations(name: &str) -> Result<Activations, String> {
    match Range::from_name(name) {
        None if name != "dynamic" => {
            Err(format!("expected dynamic, {}", Range::ALL.map(Range::name).join(", ")))
        }
        range => Ok(range),
    }
}

fn parse_override(text: &str) -> Result<(String, BlockFormat), String> {
    let (part, format) = text.split_once('=').ok_or("expected PART=TYPE, as in ffn_down=q6_k")?;
    Ok((part.to_owned(), super::model::parse_format(format)?))
}

impl Arguments {
    /// What comes nearest to the source by what is known (`docs/bench/compress.md`).
    fn method(&self) -> Method {
        let best = match (&self.calibrate, &self.imatrix) {
            (Some(_), _) => Method::Gptq,
            (None, Some(_)) => Method::Imatrix,
            (None, None) => Method::Rtn,
        };
        self.method.unwrap_or(best)
    }
}

pub fn run(arguments: &Arguments) -> Result<()> {
    check(arguments)?;
    let options = ModelOptions { threads: arguments.calibration.threads(), ..ModelOptions::default() };
    let converted = if arguments.source.is_dir() {
        Some(convert(&arguments.source, &arguments.out, false)?)
    } else {
        None
    };
    let source = Gguf::open(converted.as_ref().unwrap_or(&arguments.source)).context("model")?;
    check_overrides(&source, &arguments.overrides)?;
    let (knowledge, key, windows) = knowledge(arguments, &source, options)?;
    let mut mix = Mix::new(arguments.file_type);
    mix.pure = arguments.pure;
    mix.overrides = arguments.overrides.clone();
    let options = QuantizeOptions {
        mix,
        method: arguments.method(),
        range: arguments.activations,
        threads: options.threads,
        key,
    };
    let mut meter = Meter::new();
    let report = quantize_file(&source, &arguments.out, &options, knowledge, &mut |p| {
        meter.tell(p.done, p.total, p.tensor)
    })?;
    meter.end();
    if let (Some(file), Some(windows)) = (&arguments.save_imatrix, windows) {
        let dataset = arguments.calibrate.as_deref().map(|p| p.display().to_string()).unwrap_or_default();
        write_imatrix(file, &report.imatrix, &dataset, windows.count(), windows.length())?;
    }
    if let Some(file) = converted {
        std::fs::remove_file(&file).with_context(|| file.display().to_string())?;
    }
    let types: Vec<_> = report.types.iter().map(|(dtype, count)| format!("{count} {dtype}")).collect();
    println!(
        "wrote {}: {}, {:.2} bits a weight; tensors: {}",
        arguments.out.display(),
        size(report.size_bytes),
        report.bits_per_weight,
        types.join(", ")
    );
    Ok(())
}

/// What does not go together is refused before anything is read.
fn check(arguments: &Arguments) -> Result<()> {
    let method = arguments.method().name();
    let text = arguments.calibrate.is_some();
    match arguments.method().needs() {
        Needs::Nothing => ensure!(
            (!text || arguments.activations.is_some()) && arguments.imatrix.is_none(),
            "--method {method} needs no data; choose imatrix, gptq, awq, smoothquant, autoround or trellis to use a text"
        ),
        Needs::Squares => ensure!(
            text || arguments.imatrix.is_some(),
            "--method {method} needs --calibrate TEXT or --imatrix FILE"
        ),
        Needs::Calibration | Needs::Moments => {
            ensure!(text, "--method {method} needs --calibrate TEXT: an importance matrix says too little");
        }
    }
    ensure!(
        arguments.activations.is_none() || arguments.file_type == FileType::I8Row && text,
        "fixed scales of activations are for --type int8, and need --calibrate TEXT"
    );
    let Arguments { source, out, calibrate, imatrix, save_imatrix, .. } = arguments;
    let read: Vec<&Path> = [Some(source), calibrate.as_ref(), imatrix.as_ref()]
        .into_iter()
        .flatten()
        .map(PathBuf::as_path)
        .collect();
    check_result(out, &read)?;
    save_imatrix.as_ref().map_or(Ok(()), |file| check_result(file, &[&read[..], &[out.as_path()]].concat()))
}

/// A part of a name that no tensor has is a slip of the pen.
fn check_overrides(source: &Gguf, overrides: &[(String, BlockFormat)]) -> Result<()> {
    let known = |part: &str| source.tensors().iter().any(|info| info.name.contains(part));
    match overrides.iter().find(|(part, _)| !known(part)) {
        Some((part, _)) => {
            bail!("--tensor-type {part}=…: no tensor's name contains it; see `ganglion model inspect`")
        }
        None => Ok(()),
    }
}

/// A folder as one file beside the result, named by what the folder holds, so that an interrupted run finds it again.
pub(super) fn convert(source: &Path, out: &Path, without_tokenizer: bool) -> Result<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(source)
        .with_context(|| source.display().to_string())?
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let data = entry.metadata().ok()?;
            Some(format!("{:?} {} {:?}\n", entry.file_name(), data.len(), data.modified().ok()))
        })
        .collect();
    files.sort();
    files.push(format!("{without_tokenizer}"));
    // Beside a folder whose name was given with a slash, not in it.
    let mut name = out.components().collect::<PathBuf>().into_os_string();
    name.push(format!(".source-{}", &hash(files.concat().as_bytes())[..16]));
    let file = PathBuf::from(name);
    if !file.exists() {
        let folder =
            ModelFolder::open(source, FolderOptions { without_tokenizer, ..FolderOptions::default() })?;
        eprintln!("reading a {} model", folder.architecture());
        folder.write_file(&file, &mut |_| {})?;
    }
    Ok(file)
}

pub(super) fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What the inputs of matrices are, and what names it.
fn knowledge(
    arguments: &Arguments,
    source: &Gguf,
    options: ModelOptions,
) -> Result<(Knowledge, String, Option<Windows>)> {
    if let Some(file) = &arguments.imatrix {
        let key = hash(&std::fs::read(file).with_context(|| file.display().to_string())?);
        return Ok((Knowledge::Imatrix(read_imatrix(file)?), key, None));
    }
    let Some(file) = &arguments.calibrate else { return Ok((Knowledge::None, String::new(), None)) };
    let (windows, text) = arguments.calibration.windows(source, file)?;
    let key = format!("{} {} {}", hash(text.as_bytes()), windows.length(), windows.count());
    let (model, loaded) = Model::load_with(source, options, load::packed_folder().as_ref())?;
    load::announce(&loaded);
    let calibrator = Calibrator::new(model, &windows)?;
    Ok((Knowledge::Text(Box::new(calibrator)), key, Some(windows)))
}
