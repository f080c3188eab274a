//! `ganglion model measure`: what a model makes of a text, and how far it is from a reference.

use crate::load::{self, size};
use anyhow::{Context, Result};
use clap::Args;
use ganglion_compress::limits::WINDOW_TOKENS_DEFAULT;
use ganglion_compress::{Measured, Subject, Windows, measure};
use ganglion_gguf::Gguf;
use ganglion_llm::{KvType, Model, ModelOptions, Session, SessionOptions};
use ganglion_tokenizer::Tokenizer;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Perplexity of a text, and how far a model is from a reference
#[derive(Args)]
#[command(after_help = "Example:
  ganglion model measure model-q4_k.gguf --against model-f16.gguf --text wiki.txt

Only the second half of each window is scored, as llama-perplexity does, so that figures of both can be compared.")]
pub struct Arguments {
    /// GGUF file
    file: PathBuf,
    /// Compare every next-token distribution with this model's
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    /// Text to read, UTF-8
    #[arg(long, value_name = "FILE")]
    text: PathBuf,
    /// Tokens of a window
    #[arg(short = 'c', long, default_value_t = WINDOW_TOKENS_DEFAULT)]
    context: usize,
    /// Worker threads; as many as the machine gives by default
    #[arg(short = 't', long, default_value_t = 0)]
    threads: usize,
    /// Keys and values: f32, f16 or int8
    #[arg(long, value_name = "TYPE", default_value = "f16", value_parser = super::generate::kv_type)]
    kv: KvType,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let gguf = Gguf::open(&arguments.file).context("model")?;
    let tokenizer = Tokenizer::from_gguf(&gguf)?;
    let text =
        std::fs::read_to_string(&arguments.text).with_context(|| arguments.text.display().to_string())?;
    let windows = Windows::new(&tokenizer, &text, arguments.context)?;
    let mut model = session(&gguf, arguments)?;
    let mut reference = match &arguments.against {
        Some(file) => Some(session(&Gguf::open(file).context("reference")?, arguments)?),
        None => None,
    };
    let tell = std::io::stderr().is_terminal();
    let mut subject = Subject { model: &mut model, reference: reference.as_mut() };
    let measured = measure(&mut subject, &windows, &mut |done| {
        if tell {
            eprint!("\r{done} of {} windows", windows.count());
        }
    })?;
    if tell {
        eprintln!();
    }
    print(arguments, &gguf, &measured)
}

fn session(gguf: &Gguf, arguments: &Arguments) -> Result<Session> {
    let mut options = ModelOptions::default();
    if arguments.threads > 0 {
        options.threads = arguments.threads;
    }
    let (model, loaded) = Model::load_with(gguf, options, load::packed_folder().as_ref())?;
    load::announce(&loaded);
    let options = SessionOptions { kv: arguments.kv, ..SessionOptions::new(arguments.context) };
    Ok(Session::new(Arc::new(model), options)?)
}

fn print(arguments: &Arguments, gguf: &Gguf, measured: &Measured) -> Result<()> {
    let parameters: u64 = gguf.tensors().iter().map(ganglion_gguf::TensorInfo::element_count).sum();
    let bytes: u64 = gguf.tensors().iter().map(|t| t.size_bytes).sum();
    let bits_per_weight = bytes as f64 * 8.0 / parameters.max(1) as f64;
    let size_bytes = gguf.bytes().len() as u64;
    let mut out = std::io::stdout().lock();
    if arguments.json {
        let divergence = measured.divergence;
        let report = serde_json::json!({
            "model": arguments.file.display().to_string(),
            "against": arguments.against.as_deref().map(|file: &Path| file.display().to_string()),
            "tokens": measured.tokens,
            "perplexity": measured.perplexity,
            "bits_per_byte": measured.bits_per_byte,
            "kl_mean": divergence.map(|d| d.kl_mean),
            "kl_p99": divergence.map(|d| d.kl_p99),
            "top1_agreement": divergence.map(|d| d.top1_agreement),
            "bits_per_weight": bits_per_weight,
            "size_bytes": size_bytes,
        });
        writeln!(out, "{report}")?;
        return Ok(());
    }
    writeln!(out, "size              {:>12}  {bits_per_weight:.2} bits a weight", size(size_bytes))?;
    writeln!(
        out,
        "perplexity        {:>12.4}  over {} tokens, {:.4} bits a byte",
        measured.perplexity, measured.tokens, measured.bits_per_byte
    )?;
    if let Some(divergence) = &measured.divergence {
        writeln!(out, "KL divergence     {:>12.6}  mean, {:.6} p99", divergence.kl_mean, divergence.kl_p99)?;
        writeln!(out, "same best token   {:>11.2} %", divergence.top1_agreement * 100.0)?;
    }
    Ok(())
}
