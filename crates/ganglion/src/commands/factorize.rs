//! `ganglion model factorize`: matrices in two factors.

use super::calibration::Calibration;
use super::meter::Meter;
use crate::load::size;
use anyhow::{Context, Result};
use clap::Args;
use ganglion_compress::{FactorizeOptions, factorize_file};
use ganglion_gguf::Gguf;
use std::path::PathBuf;

/// Store a model's matrices in two factors of lower rank
#[derive(Args)]
#[command(after_help = "Examples:
  ganglion model factorize model.gguf factors.gguf --ratio 0.8 --calibrate text.txt
  ganglion model quantize factors.gguf factors-q8.gguf --type q8_0

The text decides what of each matrix matters, and the ratio is shared out so that least is lost. This engine runs the result in fewer
multiplications; other programs do not know factors.

Interrupted, it goes on where it stopped when it is called again in the same way. OUT appears when it is whole.")]
pub struct Arguments {
    /// GGUF file
    source: PathBuf,
    /// GGUF file to write
    #[arg(value_name = "OUT.gguf")]
    out: PathBuf,
    /// Share of the parameters of the layers' matrices that stays, 0 to 1
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true)]
    ratio: f64,
    /// Text like what the model will read
    #[arg(long, value_name = "FILE")]
    calibrate: PathBuf,
    /// Ranks are a multiple of this; 256 lets k-quants apply
    #[arg(long, value_name = "N", default_value_t = 32)]
    multiple: usize,
    /// Also print the rank of each matrix
    #[arg(long)]
    ranks: bool,
    #[command(flatten)]
    calibration: Calibration,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    super::files::check_result(&arguments.out, &[&arguments.source, &arguments.calibrate])?;
    let source = Gguf::open(&arguments.source).context("model")?;
    let (windows, _) = arguments.calibration.windows(&source, &arguments.calibrate)?;
    let threads = arguments.calibration.threads();
    let options = FactorizeOptions { ratio: arguments.ratio, multiple: arguments.multiple, threads };
    let mut meter = Meter::new();
    let report = factorize_file(&source, &arguments.out, options, &windows, &mut |done, all| {
        meter.tell(done as u64, all as u64, "");
    })?;
    meter.end();
    if arguments.ranks {
        for matrix in &report.matrices {
            let (columns, rows) = matrix.shape;
            let rank = matrix.rank.map_or("whole".to_owned(), |rank| format!("rank {rank}"));
            let lost = matrix.loss * 100.0;
            println!(
                "{:<28} {columns:>6} × {rows:<6} {rank:<10} {lost:6.2} % of its output lost",
                matrix.name
            );
        }
    }
    let factored = report.matrices.iter().filter(|matrix| matrix.rank.is_some()).count();
    let (before, after) = report.parameters;
    println!(
        "wrote {}: {}; {factored} of {} matrices in two factors, {:.2} M of their {:.2} M parameters",
        arguments.out.display(),
        size(report.size_bytes),
        report.matrices.len(),
        after as f64 / 1e6,
        before as f64 / 1e6
    );
    Ok(())
}
