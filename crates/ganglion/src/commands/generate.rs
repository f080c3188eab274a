//! `ganglion generate`: plain text from a model, streamed.

use anyhow::{Context, Result};
use clap::Args;
use ganglion_gguf::Gguf;
use ganglion_llm::{Model, ModelOptions, Session, SessionOptions, generate_text};
use ganglion_tokenizer::Tokenizer;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

/// Continue a text, greedily and streamed
#[derive(Args)]
#[command(after_help = "Example:\n  ganglion generate --model stories260k.gguf \"Once upon a time\"")]
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
    /// What the text begins with
    prompt: String,
}

pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let gguf = Gguf::open(&arguments.model).context("model")?;
    let tokenizer = Tokenizer::from_gguf(&gguf)?;
    let mut options = ModelOptions::default();
    if arguments.threads > 0 {
        options.threads = arguments.threads;
    }
    let model = Arc::new(Model::load(&gguf, options)?);
    let context_tokens = model.config().context_length;
    let mut session = Session::new(model, SessionOptions::new(context_tokens))?;
    let mut out = std::io::stdout().lock();
    write!(out, "{}", arguments.prompt)?;
    let mut failed = None;
    generate_text(
        &mut session,
        &tokenizer,
        &arguments.prompt,
        arguments.tokens,
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
