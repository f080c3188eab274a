//! How commands of the toolchain read the text that they learn from.

use super::files::read_text;
use anyhow::{Result, ensure};
use clap::Args;
use ganglion_compress::Windows;
use ganglion_compress::limits::{CALIBRATION_TOKENS_DEFAULT, WINDOW_TOKENS_DEFAULT, WINDOW_TOKENS_MIN};
use ganglion_gguf::Gguf;
use ganglion_llm::ModelOptions;
use ganglion_llm::limits::BATCH_MAX;
use ganglion_tokenizer::{EncodeOptions, Tokenizer};
use std::path::Path;

/// How much of it, and by how many threads.
#[derive(Args)]
pub struct Calibration {
    /// Tokens of the text that are learned from, spread over it
    #[arg(long = "calibrate-tokens", value_name = "N", default_value_t = CALIBRATION_TOKENS_DEFAULT, requires = "calibrate")]
    pub tokens: usize,
    /// Tokens of a window of it
    #[arg(short = 'c', long, value_name = "N", default_value_t = WINDOW_TOKENS_DEFAULT)]
    pub context: usize,
    /// Worker threads; as many as the machine gives by default
    #[arg(short = 't', long, default_value_t = 0)]
    threads: usize,
}

impl Calibration {
    pub fn threads(&self) -> usize {
        if self.threads > 0 { self.threads } else { ModelOptions::default().threads }
    }

    /// The text in windows, and the text.
    pub fn windows(&self, source: &Gguf, file: &Path) -> Result<(Windows, String)> {
        let Self { tokens, context, .. } = *self;
        ensure!(
            (WINDOW_TOKENS_MIN..=BATCH_MAX).contains(&context),
            "--context {context}: a window has {WINDOW_TOKENS_MIN} to {BATCH_MAX} tokens"
        );
        ensure!(tokens > 0, "--calibrate-tokens 0: nothing is learned from no tokens");
        let text = read_text(file)?;
        let tokenizer = Tokenizer::from_gguf(source)?;
        let options = EncodeOptions { add_bos: tokenizer.add_bos_token(), parse_special: false };
        let length = context.min(tokenizer.encode(&text, options).len()).max(WINDOW_TOKENS_MIN);
        let windows = Windows::new(&tokenizer, &text, length)?.thinned((tokens / length).max(1));
        let plural = if windows.count() == 1 { "" } else { "s" };
        eprintln!("calibrating with {} window{plural} of {length} tokens", windows.count());
        Ok((windows, text))
    }
}
