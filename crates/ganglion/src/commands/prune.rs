//! `ganglion model prune`: fewer layers and channels.

use crate::load::size;
use anyhow::{Context, Result, ensure};
use clap::Args;
use ganglion_compress::limits::{CALIBRATION_TOKENS_DEFAULT, WINDOW_TOKENS_DEFAULT};
use ganglion_compress::{PruneOptions, prune_file};
use ganglion_gguf::Gguf;
use ganglion_llm::ModelOptions;
use std::io::IsTerminal;
use std::path::PathBuf;

/// Take layers and feed-forward channels out of a model
#[derive(Args)]
#[command(after_help = "Example:
  ganglion model prune model.gguf smaller.gguf --calibrate text.txt --ffn 0.3 --layers 1

The layers that turn the residual stream least go, and the channels that add least; those that stay are solved anew. What comes out is an
ordinary model: measure it, and quantise it after.")]
pub struct Arguments {
    /// GGUF file
    source: PathBuf,
    /// GGUF file to write
    #[arg(value_name = "OUT.gguf")]
    out: PathBuf,
    /// Text like what the model will read
    #[arg(long, value_name = "FILE")]
    calibrate: PathBuf,
    /// Whole layers to take out
    #[arg(long, value_name = "N", default_value_t = 0)]
    layers: usize,
    /// Share of each layer's feed-forward channels to take out, 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    ffn: f64,
    /// Channels that stay are a multiple of this; 256 lets k-quants apply
    #[arg(long, value_name = "N", default_value_t = 32)]
    multiple: usize,
    /// Tokens of the text that are read, spread over the file
    #[arg(long, value_name = "N", default_value_t = CALIBRATION_TOKENS_DEFAULT)]
    calibrate_tokens: usize,
    /// Tokens of a window of it
    #[arg(short = 'c', long, value_name = "N", default_value_t = WINDOW_TOKENS_DEFAULT)]
    context: usize,
    /// Worker threads; as many as the machine gives by default
    #[arg(short = 't', long, default_value_t = 0)]
    threads: usize,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    ensure!(
        arguments.layers > 0 || arguments.ffn > 0.0,
        "nothing to take out: give --layers N or --ffn SHARE"
    );
    let source = Gguf::open(&arguments.source).context("model")?;
    let (windows, _) = super::quantize::windows(
        &source,
        &arguments.calibrate,
        arguments.context,
        arguments.calibrate_tokens,
    )?;
    let threads = if arguments.threads > 0 { arguments.threads } else { ModelOptions::default().threads };
    let options = PruneOptions {
        layers: arguments.layers,
        feed_forward: arguments.ffn,
        multiple: arguments.multiple,
        threads,
    };
    let terminal = std::io::stderr().is_terminal();
    let report = prune_file(&source, &arguments.out, options, &windows, &mut |done, all| {
        if terminal {
            eprint!("\r{:3.0} %{}", done as f64 / all as f64 * 100.0, if done == all { "\n" } else { "" });
        }
    })?;
    let influence: Vec<_> = report.influence.iter().map(|value| format!("{value:.3}")).collect();
    println!("influence of the layers: {}", influence.join(" "));
    println!(
        "wrote {}: {}; layers removed: {:?}; feed-forward channels {} of {}",
        arguments.out.display(),
        size(report.size_bytes),
        report.removed_layers,
        report.channels.1,
        report.channels.0
    );
    Ok(())
}
