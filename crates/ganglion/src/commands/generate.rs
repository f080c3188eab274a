//! `ganglion generate`: plain text from a model, streamed.

use crate::load;
use anyhow::{Context, Result, ensure};
use clap::Args;
use ganglion_gguf::Gguf;
use ganglion_llm::{
    KvType, Model, ModelOptions, Sampler, SamplingOptions, Session, SessionOptions, encode_prompt,
    generate_text,
};
use ganglion_tokenizer::Tokenizer;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

/// Continue a text, streamed: greedily, or by chance with a seed
#[derive(Args)]
#[command(after_help = "Examples:
  ganglion generate --model stories260k.gguf \"Once upon a time\"
  ganglion generate --model stories260k.gguf --temperature 0.8 --top-p 0.9 --seed 7 \"Once upon a time\"

A seed gives the same text on every machine. The order is: repetition penalty, top-k, top-p, min-p, temperature.")]
pub struct Arguments {
    /// GGUF file
    #[arg(long, value_name = "FILE")]
    model: PathBuf,
    /// Tokens to write at most
    #[arg(short = 'n', long, default_value_t = 256)]
    tokens: usize,
    /// Worker threads; as many as the machine gives by default
    #[arg(short = 't', long, default_value_t = 0)]
    threads: usize,
    /// Divide logits by this before drawing a token; 0 takes the best one
    #[arg(long, value_name = "T", default_value_t = 0.0)]
    temperature: f32,
    /// Draw from the best K tokens only; 0 = all
    #[arg(long, value_name = "K", default_value_t = 0)]
    top_k: usize,
    /// Draw from the fewest best tokens whose probabilities reach P; 1 = all
    #[arg(long, value_name = "P", default_value_t = 1.0)]
    top_p: f32,
    /// Draw from tokens at least P times as probable as the best; 0 = all
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    min_p: f32,
    /// Make the last tokens less likely to come again; 1 = off
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0)]
    repeat_penalty: f32,
    /// How many last tokens the penalty looks at
    #[arg(long, value_name = "N", default_value_t = 64)]
    repeat_last: usize,
    /// Where the random numbers start
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Keys and values: f32, f16 or int8
    #[arg(long, value_name = "TYPE", default_value = "f16", value_parser = kv_type)]
    kv: KvType,
    /// Write the evaluated prompt to FILE, to begin with it later
    #[arg(long, value_name = "FILE")]
    save_kv: Option<PathBuf>,
    /// Take the beginning of the prompt from FILE instead of evaluating it
    #[arg(long, value_name = "FILE")]
    load_kv: Option<PathBuf>,
    /// What the text begins with
    prompt: String,
}

pub(super) fn kv_type(name: &str) -> Result<KvType, String> {
    KvType::by_name(name).ok_or_else(|| "expected f32, f16 or int8".to_owned())
}

impl Arguments {
    fn sampling(&self) -> SamplingOptions {
        SamplingOptions {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repeat_penalty: self.repeat_penalty,
            repeat_last: self.repeat_last,
            seed: self.seed,
        }
    }
}

pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let mut sampler = Sampler::new(arguments.sampling())?;
    let gguf = Gguf::open(&arguments.model).context("model")?;
    let tokenizer = Tokenizer::from_gguf(&gguf)?;
    let mut options = ModelOptions::default();
    if arguments.threads > 0 {
        options.threads = arguments.threads;
    }
    let (model, loaded) = Model::load_with(&gguf, options, load::packed_folder().as_ref())?;
    load::announce(&loaded);
    let model = Arc::new(model);
    let options = SessionOptions { kv: arguments.kv, ..SessionOptions::new(model.config().context_length) };
    let mut session = Session::new(model, options)?;
    keep_prompt(arguments, &gguf, &tokenizer, &mut session)?;
    let mut out = std::io::stdout().lock();
    write!(out, "{}", arguments.prompt)?;
    let mut failed = None;
    generate_text(
        &mut session,
        &tokenizer,
        &arguments.prompt,
        arguments.tokens,
        &mut sampler,
        &mut || false,
        &mut |piece| match out.write_all(piece.as_bytes()).and_then(|()| out.flush()) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        },
    )?;
    if let Some(error) = failed {
        return Err(error.into());
    }
    writeln!(out)?;
    Ok(ExitCode::SUCCESS)
}

/// What `--load-kv` and `--save-kv` ask for. The text does not depend on either.
fn keep_prompt(
    arguments: &Arguments,
    gguf: &Gguf,
    tokenizer: &Tokenizer,
    session: &mut Session,
) -> Result<()> {
    if arguments.load_kv.is_none() && arguments.save_kv.is_none() {
        return Ok(());
    }
    let model_id = gguf.sha256();
    let prompt = encode_prompt(tokenizer, &arguments.prompt);
    if let Some(path) = &arguments.load_kv {
        restore(session, &model_id, path).with_context(|| format!("--load-kv {}", path.display()))?;
        let held = session.tokens().len();
        let kept = session.reuse(&prompt)?;
        eprintln!(
            "{kept} of the prompt's {} tokens come from the {held} of {}",
            prompt.len(),
            path.display()
        );
    }
    if let Some(path) = &arguments.save_kv {
        let kept = session.reuse(&prompt)?;
        session.prefill(&prompt[kept..], &mut || false)?;
        save(session, &model_id, path).with_context(|| format!("--save-kv {}", path.display()))?;
    }
    Ok(())
}

fn restore(session: &mut Session, model_id: &str, path: &Path) -> Result<()> {
    let mut file = BufReader::new(File::open(path)?);
    session.restore(model_id, &mut file)?;
    ensure!(file.read(&mut [0])? == 0, "bytes follow the end of the saved cache: the file is damaged");
    Ok(())
}

/// Beside the target first, so that a full disk leaves no half of a file under its name.
fn save(session: &Session, model_id: &str, path: &Path) -> Result<()> {
    let mut name = path.file_name().context("expected the name of a file")?.to_owned();
    name.push(".part");
    let part = path.with_file_name(name);
    let mut file = BufWriter::new(File::create(&part)?);
    session.save(model_id, &mut file)?;
    file.into_inner()?.sync_all()?;
    std::fs::rename(&part, path)?;
    Ok(())
}
