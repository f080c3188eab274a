//! The result as a file: as it was judged, or quantised once more layer by layer if that is better.

use std::path::Path;

use ganglion_gguf::Gguf;
use ganglion_kernels::BlockFormat;
use ganglion_llm::{Config, Model, ModelOptions, block_format};

use super::judge::session;
use super::knapsack::FILE;
use super::search::{Found, stored};
use super::units::Unit;
use super::{Context, Stage};
use crate::calibrate::Calibrator;
use crate::error::{CompressError, Result};
use crate::methods::Needs;
use crate::mix::{FileType, Mix};
use crate::output::Output;
use crate::quantize::{Knowledge, QuantizeOptions, file_types, header, quantize_file};

/// What was written.
pub(super) struct Written {
    /// Measured on the file itself.
    pub(super) kl: f64,
    pub(super) size_bytes: u64,
    /// Whether later layers were quantised knowing the errors of earlier ones.
    pub(super) in_sequence: bool,
}

/// Writes the better one of two files of the same types: the matrices that were judged one by one, and the same quantised in
/// sequence, where each layer's inputs know what was done before.
pub(super) fn write(
    context: &Context<'_>,
    base: &Gguf,
    found: &Found,
    path: &Path,
    folder: &Path,
    progress: &mut dyn FnMut(Stage<'_>),
) -> Result<Written> {
    let choices: Vec<_> = found.units.iter().zip(found.packing.chosen.iter().copied()).collect();
    let options = quantize_options(context, base, &choices);
    let assembled = folder.join("assembled.gguf");
    assemble(base, found, &options, &assembled)?;
    let judge = |file: &Path| -> Result<f64> {
        let gguf = Gguf::open(file)?;
        let length = context.reference.windows().length();
        context.reference.divergence(&mut session(&gguf, length, context.options.threads)?)
    };
    let mut chosen = (judge(&assembled)?, assembled, false);
    if context.options.method.needs() > Needs::Squares {
        let file = folder.join("sequence.gguf");
        let model = ModelOptions { threads: context.options.threads, ..ModelOptions::default() };
        let calibrator = Calibrator::new(Model::load(base, model)?, context.calibration)?;
        let knowledge = Knowledge::Text(Box::new(calibrator));
        quantize_file(base, &file, &options, knowledge, &mut |p| {
            let percent = |part: u64| (part * 100 / p.total.max(1)) as usize;
            progress(Stage { name: "writing", done: percent(p.done), total: 100 });
        })?;
        let kl = judge(&file)?;
        if kl < chosen.0 {
            chosen = (kl, file, true);
        }
    }
    let (kl, file, in_sequence) = chosen;
    let io = |source| CompressError::File { path: path.to_owned(), action: "write", source };
    let size_bytes = std::fs::metadata(&file).map_err(io)?.len();
    std::fs::rename(&file, path).map_err(io)?;
    Ok(Written { kl, size_bytes, in_sequence })
}

/// Bytes of a file with every matrix as it is.
pub(super) fn layout_bytes(context: &Context<'_>, base: &Gguf) -> Result<u64> {
    let options = quantize_options(context, base, &[]);
    let config = Config::from_header(base.header())?;
    Ok(header(base, &file_types(base, &options)?, &options, &config)?.layout()?.size_bytes)
}

/// The mixture that the choices make.
fn quantize_options(context: &Context<'_>, base: &Gguf, choices: &[(&Unit, usize)]) -> QuantizeOptions {
    let mut overrides: Vec<(String, BlockFormat)> = Vec::new();
    // What was no matter of choice stays what it is.
    for info in base.tensors() {
        overrides.extend(block_format(info).ok().map(|format| (info.name.clone(), format)));
    }
    let mut bytes = Vec::new();
    for (unit, choice) in choices {
        let choice = &unit.choices[*choice];
        overrides.retain(|(name, _)| *name != unit.tensor);
        overrides.push((unit.tensor.clone(), choice.format));
        bytes.push((choice.format, choice.item.uses[FILE]));
    }
    // A text that is part of other names comes first, so that those override it.
    overrides.sort_by_key(|(name, _)| name.len());
    let share = |format: BlockFormat| -> f64 {
        bytes.iter().filter(|(of, _)| *of == format).map(|(_, bytes)| bytes).sum()
    };
    let most = bytes.iter().map(|(format, _)| *format).max_by(|a, b| share(*a).total_cmp(&share(*b)));
    let most = most.unwrap_or(BlockFormat::F32);
    let file_type = FileType::of_base(most).unwrap_or(FileType::F32);
    let mix = Mix { overrides, ..Mix::new(file_type) };
    let (method, threads) = (context.options.method, context.options.threads);
    QuantizeOptions { mix, method, range: None, threads, key: context.options.key.clone() }
}

fn assemble(base: &Gguf, found: &Found, options: &QuantizeOptions, file: &Path) -> Result<()> {
    let types = file_types(base, options)?;
    let config = Config::from_header(base.header())?;
    let layout = header(base, &types, options, &config)?.layout()?;
    let mut output = Output::open(file, layout, "assembled")?;
    for (index, (info, dtype)) in base.tensors().iter().zip(&types).enumerate() {
        let unit = found.units.iter().zip(&found.packing.chosen).find(|(unit, _)| unit.tensor == info.name);
        let bytes = match unit {
            Some((unit, choice)) => stored(base, &found.work, unit, unit.choices[*choice].format)?,
            None => crate::quantize::converted(base, info, *dtype)?,
        };
        output.write(index, &bytes)?;
    }
    output.finish()
}
