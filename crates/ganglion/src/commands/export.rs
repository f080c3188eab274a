//! `ganglion model export`: a model in the form of another program.

use super::files::{check_result, refuse_same};
use super::quantize;
use crate::load::size;
use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use ganglion_export::{COptions, OnnxOptions, write_c, write_onnx};
use ganglion_gguf::Gguf;
use ganglion_llm::convert::{BlockFormat, ExportOptions, FolderExport, FolderOptions, ModelFolder};
use ganglion_llm::{Config, KvType};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

/// Write a model in the form of another program
#[derive(Args)]
#[command(after_help = "Examples:
  ganglion model export model.gguf folder --dtype bf16       safetensors, for transformers
  ganglion model export model.gguf model.onnx                for ONNX Runtime
  ganglion model export tiny.gguf model.c --context 128      and model.h, for a microcontroller

ONNX keeps f32, f16, q8_0, q4_0 and int8 as they are stored, and writes other types as f32.
C keeps q8_0 and q4_0, and makes all others q8_0; its logits are this program's, bit for bit.
A folder has the two factors of a matrix multiplied; the others keep both.")]
pub struct Arguments {
    /// GGUF file, or Hugging Face folder
    source: PathBuf,
    /// Folder, OUT.onnx, OUT.c or OUT.gguf
    out: PathBuf,
    /// By default what the name of OUT says
    #[arg(long)]
    format: Option<Form>,
    /// Type of the matrices: f32, f16, bf16, q8_0 or q4_0, as far as the form has them
    #[arg(long, value_name = "TYPE", value_parser = super::model::parse_format)]
    dtype: Option<BlockFormat>,
    /// Tokens that there is room for (c, 256), or that can be rotated (onnx, as trained)
    #[arg(short = 'c', long, value_name = "N")]
    context: Option<usize>,
    /// Keys and values of a C file: int8 or f32
    #[arg(long, value_name = "TYPE", value_parser = super::generate::kv_type)]
    kv: Option<KvType>,
    /// Weights of an ONNX graph in a file beside it, whatever their size
    #[arg(long)]
    external_data: bool,
    /// Leave the tokenizer of a folder out
    #[arg(long)]
    no_tokenizer: bool,
}

/// What can be written.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    /// This program's own form, of a folder
    Gguf,
    /// Hugging Face folder
    Safetensors,
    /// Graph for ONNX Runtime
    Onnx,
    /// C99 for microcontrollers
    C,
}

impl Form {
    /// What a name stands for.
    fn of(out: &Path) -> Result<Self> {
        match out.extension().and_then(|ending| ending.to_str()) {
            _ if out.is_dir() => Ok(Self::Safetensors),
            Some("onnx") => Ok(Self::Onnx),
            Some("c") => Ok(Self::C),
            Some("gguf") => Ok(Self::Gguf),
            Some("safetensors") => {
                bail!(
                    "{}: give the name of a folder; the weights come into it as model.safetensors",
                    out.display()
                )
            }
            // `nano-1.5` is a folder's name, `nano.bin` hardly.
            Some(ending) if ending.bytes().all(|byte| byte.is_ascii_alphabetic()) => bail!(
                "{}: expected a folder's name, or one that ends in .onnx, .c or .gguf; --format says which form another name has",
                out.display()
            ),
            _ => Ok(Self::Safetensors),
        }
    }
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let Arguments { source, out, .. } = arguments;
    ensure!(source.exists(), "{}: there is no such file or folder", source.display());
    let form = match arguments.format {
        Some(form) => form,
        None => Form::of(out)?,
    };
    check(arguments, form)?;
    match form {
        Form::Safetensors => refuse_same(source, out)?,
        Form::Gguf | Form::Onnx | Form::C => check_result(out, &[source])?,
    }
    if form == Form::Gguf {
        ensure!(
            source.is_dir(),
            "{}: is GGUF already; `ganglion model quantize` writes it with other types",
            source.display()
        );
        let options = FolderOptions {
            format: arguments.dtype,
            without_tokenizer: arguments.no_tokenizer,
            ..FolderOptions::default()
        };
        ModelFolder::open(source, options)?.write_file(out, &mut |p| tell(p.done_bytes, p.total_bytes))?;
        println!("wrote {}", out.display());
        return Ok(());
    }
    // Graphs and C files have no use for one.
    let without_tokenizer = arguments.no_tokenizer || form != Form::Safetensors;
    let converted =
        if source.is_dir() { Some(quantize::convert(source, out, without_tokenizer)?) } else { None };
    let gguf = Gguf::open(converted.as_ref().unwrap_or(source)).context("model")?;
    let has_fixed_scales = gguf.metadata().any(|(key, _)| key == Config::ACTIVATION_SCALES);
    let written = match form {
        Form::Safetensors => safetensors(arguments, &gguf),
        Form::Onnx => onnx(arguments, &gguf),
        Form::C | Form::Gguf => c(arguments, &gguf),
    };
    if let Some(file) = converted {
        std::fs::remove_file(&file).with_context(|| file.display().to_string())?;
    }
    if written.is_ok() && has_fixed_scales {
        eprintln!("left out: the fixed scales of int8 activations, which have no place there");
    }
    written
}

/// An option that a form does not know is refused, not ignored.
fn check(arguments: &Arguments, form: Form) -> Result<()> {
    for (option, given, forms) in [
        ("--context", arguments.context.is_some(), &[Form::Onnx, Form::C][..]),
        ("--kv", arguments.kv.is_some(), &[Form::C]),
        ("--external-data", arguments.external_data, &[Form::Onnx]),
        ("--no-tokenizer", arguments.no_tokenizer, &[Form::Safetensors, Form::Gguf]),
    ] {
        let names = || {
            let name =
                |form: &Form| form.to_possible_value().map(|v| v.get_name().to_owned()).unwrap_or_default();
            forms.iter().map(name).collect::<Vec<_>>().join(" and ")
        };
        ensure!(!given || forms.contains(&form), "{option} is for {} only", names());
    }
    Ok(())
}

/// Above this a line on the terminal says how far it is.
const PROGRESS_BYTES_MIN: u64 = 256 << 20;

fn tell(done: u64, total: u64) {
    if total >= PROGRESS_BYTES_MIN && std::io::stderr().is_terminal() {
        eprint!("\r{} of {} ", size(done), size(total));
        if done == total {
            eprintln!();
        }
    }
}

fn safetensors(arguments: &Arguments, gguf: &Gguf) -> Result<()> {
    let format = arguments.dtype.unwrap_or(BlockFormat::F32);
    let options = ExportOptions { format, without_tokenizer: arguments.no_tokenizer };
    let export = FolderExport::new(gguf, options)?;
    export.write(&arguments.out, &mut |p| tell(p.done_bytes, p.total_bytes))?;
    println!("wrote {}: {}, {}", arguments.out.display(), export.class(), size(export.size_bytes()));
    Ok(())
}

fn onnx(arguments: &Arguments, gguf: &Gguf) -> Result<()> {
    let options = OnnxOptions {
        format: arguments.dtype,
        context_tokens: arguments.context,
        external_data: arguments.external_data,
    };
    let report = write_onnx(gguf, &arguments.out, options, &mut |p| tell(p.done_bytes, p.total_bytes))?;
    let types: Vec<_> = report.types.iter().map(|(name, count)| format!("{count} {name}")).collect();
    println!(
        "wrote {}: {}; matrices: {}",
        arguments.out.display(),
        size(report.size_bytes),
        types.join(", ")
    );
    Ok(())
}

fn c(arguments: &Arguments, gguf: &Gguf) -> Result<()> {
    let is_header = arguments.out.extension().is_some_and(|ending| ending == "h");
    ensure!(!is_header, "{}: is the header's name; give that of the C file", arguments.out.display());
    let options = COptions {
        format: arguments.dtype,
        context_tokens: arguments.context,
        kv: arguments.kv.unwrap_or(KvType::Int8),
    };
    let report = write_c(gguf, &arguments.out, options, &mut |p| tell(p.done_bytes, p.total_bytes))?;
    let [source, header] = &report.files;
    println!(
        "wrote {} and {}: {} bytes of constants, {} bytes of memory for {} tokens",
        source.display(),
        header.display(),
        report.flash_bytes,
        report.ram_bytes,
        report.context_tokens
    );
    Ok(())
}
