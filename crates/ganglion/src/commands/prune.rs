//! `ganglion model prune`: fewer layers, heads, channels and values of the stream, or zeros in matrices of the old size.

use super::calibration::Calibration;
use super::meter::Meter;
use crate::load::size;
use anyhow::{Context, Result, ensure};
use clap::Args;
use ganglion_compress::{
    Importance, Pattern, PruneOptions, SparseMethod, SparseOptions, Windows, prune_file, sparsify_file,
};
use ganglion_gguf::Gguf;
use std::path::PathBuf;

/// Take layers, heads, channels or weights out of a model
#[derive(Args)]
#[command(after_help = "Examples:
  ganglion model prune model.gguf smaller.gguf --calibrate text.txt --ffn 0.46
  ganglion model prune model.gguf smaller.gguf --calibrate text.txt --layers 1 --ffn 0.25 --calibrate-tokens 65536
  ganglion model prune model.gguf sparse.gguf --calibrate text.txt --sparsity 2:4 --method sparsegpt

What goes is what the text shows to matter least; what stays is solved anew, so that it follows the whole model. What comes out is an
ordinary model: measure it, and quantise it after. Channels cost the fewest answers; layers save the most time, attention's too, and
want more text. With --sparsity it has zeros, and the old size and speed until it is quantised to a type that leaves them out: with 2:4
or 16:32,

  ganglion model quantize sparse.gguf small.gguf --type sparse8

gives 5.5 bits a weight (sparse4: 3.5), and more tokens a second where reading the weights is what takes time. 16:32 loses less than 2:4.

Interrupted, it goes on where it stopped when it is called again in the same way. OUT appears when it is whole.")]
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
    /// Key/value heads to take out of each layer, with the query heads that share them
    #[arg(long, value_name = "N", default_value_t = 0)]
    heads: usize,
    /// Query heads to take out of each key/value head
    #[arg(long, value_name = "N", default_value_t = 0)]
    queries: usize,
    /// Share of each layer's feed-forward channels to take out, 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, allow_negative_numbers = true)]
    ffn: f64,
    /// Share of the residual stream's values to take out, 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, allow_negative_numbers = true)]
    hidden: f64,
    /// Channels and values of the stream that stay are a multiple of this; 256 lets k-quants apply
    #[arg(long, value_name = "N", default_value_t = 32)]
    multiple: usize,
    /// What layers, heads and channels are chosen by: reconstruction, activation or taylor
    #[arg(long, default_value = "reconstruction", value_parser = parse_importance)]
    importance: Importance,
    /// Zeros in place of weights: a share of each matrix (0.5), or all but N of M in a row (2:4, 16:32)
    #[arg(long, value_name = "SHARE|N:M", value_parser = parse_pattern,
          conflicts_with_all = ["layers", "heads", "queries", "ffn", "hidden"])]
    sparsity: Option<Pattern>,
    /// Which weights become zeros: magnitude, wanda or sparsegpt
    #[arg(long, default_value = "sparsegpt", requires = "sparsity", value_parser = parse_method)]
    method: SparseMethod,
    #[command(flatten)]
    calibration: Calibration,
}

fn parse_importance(name: &str) -> Result<Importance, String> {
    let names = || Importance::ALL.map(Importance::name).join(", ");
    Importance::from_name(name).ok_or_else(|| format!("expected one of {}", names()))
}

fn parse_pattern(name: &str) -> Result<Pattern, String> {
    Pattern::from_name(name).ok_or_else(|| "expected a share of 0 to 1, or N:M like 2:4 or 16:32".to_owned())
}

fn parse_method(name: &str) -> Result<SparseMethod, String> {
    let names = || SparseMethod::ALL.map(SparseMethod::name).join(", ");
    SparseMethod::from_name(name).ok_or_else(|| format!("expected one of {}", names()))
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let Arguments { layers, heads, queries, ffn, hidden, sparsity, .. } = *arguments;
    ensure!(
        sparsity.is_some() || layers + heads + queries > 0 || ffn != 0.0 || hidden != 0.0,
        "nothing to take out: give --layers N, --heads N, --queries N, --ffn SHARE, --hidden SHARE or --sparsity SHARE"
    );
    super::files::check_result(&arguments.out, &[&arguments.source, &arguments.calibrate])?;
    let source = Gguf::open(&arguments.source).context("model")?;
    let (windows, _) = arguments.calibration.windows(&source, &arguments.calibrate)?;
    let threads = arguments.calibration.threads();
    match sparsity {
        Some(pattern) => sparsify(arguments, pattern, &source, &windows, threads),
        None => prune(arguments, &source, &windows, threads),
    }
}

fn prune(arguments: &Arguments, source: &Gguf, windows: &Windows, threads: usize) -> Result<()> {
    let options = PruneOptions {
        layers: arguments.layers,
        heads: arguments.heads,
        queries: arguments.queries,
        feed_forward: arguments.ffn,
        hidden: arguments.hidden,
        multiple: arguments.multiple,
        importance: arguments.importance,
        threads,
    };
    let mut meter = Meter::new();
    let report = prune_file(source, &arguments.out, options, windows, &mut |done, all| {
        meter.tell(done as u64, all as u64, "");
    })?;
    meter.end();
    if !report.influence.is_empty() {
        let influence: Vec<_> = report.influence.iter().map(|value| format!("{value:.3}")).collect();
        println!("influence of the layers: {}", influence.join(" "));
        println!("layers removed: {:?}", report.removed_layers);
    }
    for (what, (before, after)) in [
        ("query heads", report.heads),
        ("key/value heads", report.kv_heads),
        ("feed-forward channels", report.channels),
        ("values of the stream", report.hidden),
    ] {
        if before != after {
            println!("{what}: {after} of {before}");
        }
    }
    let (before, after) = report.parameters;
    println!(
        "wrote {}: {}; {:.2} M of {:.2} M parameters ({:.1} % less)",
        arguments.out.display(),
        size(report.size_bytes),
        after as f64 / 1e6,
        before as f64 / 1e6,
        100.0 - 100.0 * after as f64 / before.max(1) as f64
    );
    Ok(())
}

fn sparsify(
    arguments: &Arguments,
    pattern: Pattern,
    source: &Gguf,
    windows: &Windows,
    threads: usize,
) -> Result<()> {
    let options = SparseOptions { pattern, method: arguments.method, threads };
    let mut meter = Meter::new();
    let report = sparsify_file(source, &arguments.out, options, windows, &mut |done, all| {
        meter.tell(done as u64, all as u64, "");
    })?;
    meter.end();
    let (zeros, all) = report.zeros;
    println!(
        "wrote {}: {}; {:.1} % zeros in {} matrices, of the old size and speed{}",
        arguments.out.display(),
        size(report.size_bytes),
        100.0 * zeros as f64 / all.max(1) as f64,
        report.matrices,
        if pattern.halves_blocks() { " until it is quantised to sparse8 or sparse4" } else { "" }
    );
    Ok(())
}
