//! The matrices whose format is a matter of choice, and what each choice costs.

use std::collections::HashMap;

use ganglion_gguf::{Gguf, TensorInfo};
use ganglion_kernels::{BlockFormat, Matrix, dequantize_matrix};
use ganglion_llm::{Model, ModelOptions, Reader, block_format};

use super::judge::Walk;
use super::knapsack::{FILE, Item, MEMORY, RESOURCES, TIME};
use super::work::{Number, Work};
use super::{Context, Stage, Workload};
use crate::calibrate::Calibrator;
use crate::device::Device;
use crate::error::{CompressError, Result};
use crate::gradient::{Gradients, Loss};
use crate::limits::SHORTLIST_MAX;
use crate::methods::{MatrixRef, Method, quantize_matrix};
use crate::mix::{FileType, Mix, is_matrix, layer_part};
use crate::quantize::{Knowledge, QuantizeOptions, quantize_file};
use crate::statistics::Statistics;

/// Windows that sensitivities are computed on: they only order choices.
const SENSITIVITY_WINDOWS: usize = 4;

/// One way to store a matrix.
#[derive(Debug, Clone)]
pub(super) struct Choice {
    pub(super) format: BlockFormat,
    /// Σ |∂L/∂Wq · (W − Wq)|; `None` without gradients.
    pub(super) sensitivity: Option<f64>,
    pub(super) item: Item,
}

/// A matrix.
#[derive(Debug, Clone)]
pub(super) struct Unit {
    pub(super) tensor: String,
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) source: BlockFormat,
    pub(super) choices: Vec<Choice>,
}

/// All of them with everything that can be stored and was measured on the device; as they are comes first.
///
/// # Errors
/// [`CompressError::Budget`] if the device's profile has no times for what a tensor is stored in.
pub(super) fn list(context: &Context<'_>, base: &Gguf) -> Result<Vec<Unit>> {
    let tied = base.tensor("output.weight").is_err();
    let streams = streams(base, context.device);
    let mut units = Vec::new();
    for info in base.tensors().iter().filter(|info| is_matrix(info) && info.shape.len() == 2) {
        let source = block_format(info)?;
        let (columns, rows) = (info.shape[0] as usize, info.shape[1] as usize);
        let mut unit = Unit { tensor: info.name.clone(), rows, columns, source, choices: Vec::new() };
        let formats = std::iter::once(&source).chain(&context.options.formats);
        for format in formats {
            let known = unit.choices.iter().any(|choice| choice.format == *format);
            // Nothing is gained by more bits than the source has.
            if known || *format != source && format.bits_per_weight() >= source.bits_per_weight() {
                continue;
            }
            // A row of a trellis format is as dear as all that it was rotated with, which no product's time tells of.
            if info.name == "token_embd.weight" && *format != source && format.trellis_bits().is_some() {
                continue;
            }
            let work = &context.options.workload;
            if let Some(uses) = uses(context.device, work, &unit, *format, (tied, streams)) {
                // What leaves no room for anything else need not be quantised.
                if *format != source && uses.iter().zip(&context.limits).any(|(used, limit)| used > limit) {
                    continue;
                }
                let damage = if *format == source { 0.0 } else { f64::NAN };
                let item = Item { damage, uses };
                unit.choices.push(Choice { format: *format, sensitivity: None, item });
            }
        }
        if unit.choices.first().is_none_or(|choice| choice.format != source) {
            let reason = format!(
                "the device's profile has no times of {source}, the type of {}; measure the device again with this version's \
                 `ganglion bench device`",
                info.name
            );
            return Err(CompressError::Budget { reason });
        }
        units.push(unit);
    }
    Ok(units)
}

/// Whether a model is too large for the cache even at half its size.
fn streams(base: &Gguf, device: &Device) -> bool {
    base.bytes().len() as u64 / 2 > device.cache_bytes
}

/// Nanoseconds of an answer of the model as it is, by the device's times.
///
/// # Errors
/// A tensor of a type that the kernels do not have.
pub(super) fn answer_ns(model: &Gguf, device: &Device, workload: &Workload) -> Result<f64> {
    let tied = model.tensor("output.weight").is_err();
    let mut sum = other_ns(model, device, workload)?;
    for info in model.tensors().iter().filter(|info| is_matrix(info) && info.shape.len() == 2) {
        let (source, tensor) = (block_format(info)?, info.name.clone());
        let (columns, rows) = (info.shape[0] as usize, info.shape[1] as usize);
        let unit = Unit { tensor, rows, columns, source, choices: Vec::new() };
        let uses = uses(device, workload, &unit, source, (tied, streams(model, device)));
        sum += uses.map_or(0.0, |uses| uses[TIME]);
    }
    Ok(sum)
}

/// Nanoseconds of an answer that are not in its matrix products.
pub(super) fn other_ns(model: &Gguf, device: &Device, workload: &Workload) -> Result<f64> {
    let config = ganglion_llm::Config::from_header(model.header())?;
    let layer = |tokens: usize| device.other_ns(config.embedding_length, tokens);
    let all = layer(workload.prompt_tokens) + workload.answer_tokens as f64 * layer(1);
    Ok(config.layer_count as f64 * all)
}

/// Bytes and time of a choice; `None` if rows are no whole blocks, or the device's profile does not know the type.
fn uses(
    device: &Device,
    work: &Workload,
    unit: &Unit,
    format: BlockFormat,
    (tied, streams): (bool, bool),
) -> Option<[f64; RESOURCES]> {
    let (rows, columns) = (unit.rows, unit.columns);
    let file = format.matrix_bytes(rows, columns)?;
    let memory = Matrix::packed_bytes(format, rows, columns)?;
    let ns = |tokens: usize| {
        let from = device.product_ns(format, (rows, columns), tokens, streams);
        from.or_else(|| device.product_ns(format, (rows, columns), tokens, false))
    };
    let decode = ns(1)?;
    let time = match unit.tensor.as_str() {
        // A row a token is copied.
        "token_embd.weight" if !tied => 0.0,
        // Of a prompt, the last token's logits are needed.
        "token_embd.weight" | "output.weight" => decode * (1 + work.answer_tokens) as f64,
        _ => ns(work.prompt_tokens)? + decode * work.answer_tokens as f64,
    };
    let mut uses = [0.0; RESOURCES];
    (uses[FILE], uses[MEMORY], uses[TIME]) = (file as f64, memory as f64, time);
    Some(uses)
}

/// Σ |∂L/∂Wq · (W − Wq)| of every choice, with all matrices of the model in that format; L is the divergence from the base.
/// Nothing for architectures without gradients, and for trellis formats.
pub(super) fn score(
    context: &Context<'_>,
    base: &Gguf,
    work: &mut Work,
    units: &mut [Unit],
    progress: &mut dyn FnMut(Stage<'_>),
) -> Result<()> {
    let windows = context.calibration.clone().thinned(SENSITIVITY_WINDOWS);
    let threads = context.options.threads;
    let exact = match Gradients::new(base, windows.length(), threads) {
        Ok(exact) => exact,
        Err(CompressError::Gradient { .. }) => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut outputs = None;
    // To search a trellis takes as long for a score as for good.
    let scored = |format: &&BlockFormat| format.trellis_bits().is_none();
    let formats: Vec<BlockFormat> = context.options.formats.iter().filter(scored).copied().collect();
    for (done, format) in formats.iter().enumerate() {
        progress(Stage { name: "sensitivity", done, total: formats.len() });
        let wanted = |unit: &Unit| unit.choices.iter().any(|choice| choice.format == *format);
        let missing = |unit: &Unit| work.number(Number::Sensitivity, &unit.tensor, *format).is_none();
        if units.iter().any(|unit| wanted(unit) && missing(unit)) {
            if outputs.is_none() {
                outputs = Some(exact.outputs(&windows)?);
            }
            let Some(outputs) = &outputs else { continue };
            let file = work.file("sensitivity.gguf");
            rounded(base, &file, *format, threads)?;
            let quantised = Gguf::open(&file)?;
            let rounded = Gradients::new(&quantised, windows.length(), threads)?;
            rounded.run(&windows, Loss::Reference(outputs), &mut |matrix| {
                let info = base.tensor(matrix.tensor)?;
                let mut exact = vec![0.0; matrix.weights.len()];
                dequantize_matrix(
                    block_format(info)?,
                    info.shape[0] as usize,
                    base.tensor_bytes(matrix.tensor)?,
                    &mut exact,
                )?;
                let change = exact.iter().zip(matrix.weights).zip(matrix.gradient);
                let sum: f64 = change.map(|((w, q), g)| f64::from((w - q) * g).abs()).sum();
                work.note(Number::Sensitivity, matrix.tensor, *format, sum)
            })?;
            drop(rounded);
            std::fs::remove_file(&file).map_err(|source| CompressError::File {
                path: file,
                action: "remove",
                source,
            })?;
        }
    }
    for unit in units.iter_mut() {
        for choice in &mut unit.choices {
            choice.sensitivity = work.number(Number::Sensitivity, &unit.tensor, choice.format);
        }
    }
    Ok(())
}

/// The whole model in one format, rounded to nearest.
fn rounded(base: &Gguf, file: &std::path::Path, format: BlockFormat, threads: usize) -> Result<()> {
    let mut mix = Mix::new(FileType::F32);
    for info in base.tensors().iter().filter(|info| is_matrix(info)) {
        mix.overrides.push((info.name.clone(), format));
    }
    let options = QuantizeOptions { mix, method: Method::Rtn, range: None, threads, key: String::new() };
    quantize_file(base, file, &options, Knowledge::None, &mut |_| ())?;
    Ok(())
}

/// Keeps what may be worth it: no choice that another one beats in sensitivity and in what is limited, and not too many.
pub(super) fn shortlist(units: &mut [Unit], limits: &[f64; RESOURCES]) {
    let most = |resource: usize| -> f64 {
        let of =
            |unit: &Unit| unit.choices.iter().map(|choice| choice.item.uses[resource]).fold(0.0, f64::max);
        units.iter().map(of).sum()
    };
    let counts: [bool; RESOURCES] = std::array::from_fn(|r| r == FILE || most(r) > limits[r]);
    for unit in units {
        let source = unit.source;
        let all = unit.choices.clone();
        let beaten = |choice: &Choice| {
            let better = |other: &Choice| {
                let (Some(theirs), Some(ours)) = (other.sensitivity, choice.sensitivity) else {
                    return false;
                };
                let less = |r: usize| other.item.uses[r] <= choice.item.uses[r];
                other.format != choice.format
                    && theirs < ours
                    && (0..RESOURCES).filter(|r| counts[*r]).all(less)
            };
            all.iter().any(better)
        };
        unit.choices.retain(|choice| choice.format == source || !beaten(choice));
        unit.choices.sort_by(|a, b| b.item.uses[FILE].total_cmp(&a.item.uses[FILE]));
        while unit.choices.len() > SHORTLIST_MAX {
            // The one whose neighbours are nearest to each other is missed least; the ends stay.
            let gap = |i: &usize| unit.choices[i - 1].item.uses[FILE] / unit.choices[i + 1].item.uses[FILE];
            let inner = (1..unit.choices.len() - 1).filter(|i| unit.choices[*i].format != source);
            let Some(index) = inner.min_by(|a, b| gap(a).total_cmp(&gap(b))) else { break };
            unit.choices.remove(index);
        }
    }
}

/// Quantises every choice by itself and measures how far it alone moves the base. Matrices that the engine keeps in another
/// form are left as they are.
pub(super) fn measure(
    context: &Context<'_>,
    base: &Gguf,
    work: &mut Work,
    units: &mut [Unit],
    progress: &mut dyn FnMut(Stage<'_>),
) -> Result<()> {
    let threads = context.options.threads;
    let total = units.iter().map(|unit| unit.choices.len()).sum();
    let mut done = 0;
    let mut walk = Walk::new(context.reference, base, threads)?;
    let at_rest = walk.divergence()?;
    let mut inputs = Inputs::new(context, base)?;
    let mut order: Vec<usize> = (0..units.len()).collect();
    order.sort_by_key(|index| stage_of(&units[*index].tensor));
    for index in order {
        let unit = &mut units[index];
        let missing =
            |choice: &Choice| work.number(Number::Divergence, &unit.tensor, choice.format).is_none();
        if unit.choices.iter().any(|choice| choice.format != unit.source && missing(choice)) {
            walk.go_to(stage_of(&unit.tensor))?;
        }
        for choice in &mut unit.choices {
            progress(Stage { name: "divergence of each choice", done, total });
            done += 1;
            if choice.format == unit.source {
                continue;
            }
            if !work.has_matrix(&unit.tensor, choice.format) {
                let bytes = quantized(context, base, &mut inputs, &unit.tensor, choice.format)?;
                work.write_matrix(&unit.tensor, choice.format, &bytes)?;
            }
            if work.number(Number::Divergence, &unit.tensor, choice.format).is_none() {
                let bytes = work.read_matrix(&unit.tensor, choice.format)?;
                let matrix = Matrix::pack(&unit.tensor, choice.format, unit.rows, unit.columns, &bytes)?;
                let value = walk.divergence_with(&unit.tensor, matrix)?.unwrap_or(f64::INFINITY);
                work.note(Number::Divergence, &unit.tensor, choice.format, value)?;
            }
            let found = work.number(Number::Divergence, &unit.tensor, choice.format);
            // Of a pruned base, what it costs already is not counted again.
            choice.item.damage = (found.unwrap_or(f64::INFINITY) - at_rest).max(0.0);
        }
        unit.choices.retain(|choice| choice.item.damage.is_finite());
    }
    Ok(())
}

/// Layers in order, the head last.
fn stage_of(tensor: &str) -> usize {
    match (layer_part(tensor), tensor) {
        (Some((layer, _)), _) => layer,
        (None, "token_embd.weight") => 0,
        _ => usize::MAX,
    }
}

/// What the inputs of the layer at hand are.
struct Inputs {
    calibrator: Calibrator,
    known: Option<(usize, HashMap<Option<Reader>, Statistics>)>,
    tied: bool,
}

impl Inputs {
    fn new(context: &Context<'_>, base: &Gguf) -> Result<Self> {
        let options = ModelOptions { threads: context.options.threads, ..ModelOptions::default() };
        let calibrator = Calibrator::new(Model::load(base, options)?, context.calibration)?;
        Ok(Self { calibrator, known: None, tied: base.tensor("output.weight").is_err() })
    }

    /// Goes forward to a tensor; `None` if nothing is known of its inputs.
    fn of(&mut self, info: &TensorInfo, layers: usize, method: Method) -> Result<Option<&Statistics>> {
        let needs = method.needs();
        let (stage, reader) = match (layer_part(&info.name), info.name.as_str()) {
            (Some((layer, part)), _) => (layer, Some(Reader::of_tensor(part))),
            (None, "output.weight") => (layers, None),
            (None, "token_embd.weight") if self.tied => (layers, None),
            (None, _) => return Ok(None),
        };
        if self.known.as_ref().is_none_or(|(at, _)| *at != stage) {
            while self.calibrator.layer() < stage {
                self.calibrator.advance(Vec::new())?;
            }
            let known = if stage == layers {
                HashMap::from([(None, self.calibrator.head(needs)?)])
            } else {
                self.calibrator.statistics(needs)?.into_iter().map(|(r, s)| (Some(r), s)).collect()
            };
            self.known = Some((stage, known));
        }
        let known = self.known.as_ref().and_then(|(_, known)| match reader {
            Some(reader) => known.get(&Some(reader?)),
            None => known.get(&None),
        });
        Ok(known.filter(|statistics| statistics.columns() as u64 == info.shape[0]))
    }
}

fn quantized(
    context: &Context<'_>,
    base: &Gguf,
    inputs: &mut Inputs,
    tensor: &str,
    format: BlockFormat,
) -> Result<Vec<u8>> {
    let info = base.tensor(tensor)?;
    let mut values = vec![0.0; info.element_count() as usize];
    dequantize_matrix(block_format(info)?, info.shape[0] as usize, base.tensor_bytes(tensor)?, &mut values)?;
    let layers = ganglion_llm::Config::from_header(base.header())?.layer_count;
    let (method, threads) = (context.options.method, context.options.threads);
    let statistics = inputs.of(info, layers, method)?;
    let (columns, rows) = (info.shape[0] as usize, info.shape[1] as usize);
    let mut bytes = vec![0; format.matrix_bytes(rows, columns).unwrap_or(0)];
    let matrix = MatrixRef { values: &values, columns };
    quantize_matrix(tensor, (method, format), matrix, statistics, threads, &mut bytes)?;
    Ok(bytes)
}
