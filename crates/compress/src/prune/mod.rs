//! Structured pruning: whole layers and whole channels of feed-forward parts go, and a smaller ordinary model is left.
//!
//! Layers go by block influence, `1 − mean cos(stream before, stream after)` (ShortGPT, Men et al. 2024): those that turn the
//! residual stream least. Channels go by what they add to the output, `mean x_j² · ‖w_j‖²` of the last matrix; the channels that stay
//! are then solved anew for the least error of the whole output, `W' = W·H[:, kept]·H[kept, kept]⁻¹` with H the second moments
//! of the inputs.

use std::path::Path;

use ganglion_gguf::{Gguf, GgufWriter, TensorInfo, Value};
use ganglion_kernels::{BlockFormat, Matrix, dequantize, quantize};
use ganglion_llm::{Config, Model, ModelOptions, Reader, block_format, tensor_type};

use crate::calibrate::Calibrator;
use crate::error::{CompressError, Result};
use crate::linalg::{Square, cholesky};
use crate::measure::Windows;
use crate::methods::Needs;
use crate::mix::layer_part;
use crate::output::Output;
use crate::statistics::Statistics;

/// Added to the diagonal of H, as a share of its mean.
const DAMPING: f64 = 0.01;

/// What is to go.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PruneOptions {
    /// Whole layers.
    pub layers: usize,
    /// Share of each feed-forward part's channels, 0 to 1.
    pub feed_forward: f64,
    /// Channels that stay are a multiple of this: 32 for the small formats, 256 for the k-quants.
    pub multiple: usize,
    /// Threads.
    pub threads: usize,
}

/// What went.
#[derive(Debug, Clone, PartialEq)]
pub struct PruneReport {
    /// Influence of each layer of the source.
    pub influence: Vec<f64>,
    /// Layers of the source that went.
    pub removed_layers: Vec<usize>,
    /// Channels of a feed-forward part before and after.
    pub channels: (usize, usize),
    /// Bytes of the file.
    pub size_bytes: u64,
}

/// Writes a pruned model to `path`, which holds what it held until the new file is whole. `progress` is told of layers: done, of all.
///
/// # Errors
/// [`CompressError::Prune`] for a model or a share that this cannot be done with; a text that leads to values that are not
/// finite; a failure of the disk.
pub fn prune_file(
    source: &Gguf,
    path: &Path,
    options: PruneOptions,
    windows: &Windows,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<PruneReport> {
    let config = Config::from_header(source.header())?;
    let channels = check(source, &config, options)?;
    let model_options = ModelOptions { threads: options.threads, ..ModelOptions::default() };
    let load = || Calibrator::new(Model::load(source, model_options)?, windows);
    let steps = 2 * config.layer_count;
    let mut first = load()?;
    let mut influence = Vec::new();
    for layer in 0..config.layer_count {
        influence.push(first.influence()?);
        progress(layer + 1, steps);
    }
    let mut order: Vec<usize> = (0..config.layer_count).collect();
    order.sort_by(|a, b| influence[*a].total_cmp(&influence[*b]));
    let mut removed_layers = order[..options.layers].to_vec();
    removed_layers.sort_unstable();
    let plan = Plan::new(source, &config, &removed_layers, channels)?;
    let layout = plan.header(source, &config)?.layout()?;
    let size_bytes = layout.size_bytes;
    let key = format!(
        "{options:?} {removed_layers:?} {:?} {:?}",
        source.modified(),
        windows.iter().collect::<Vec<_>>()
    );
    let mut output = Output::open(path, layout, &key)?;
    let mut calibrator = load()?;
    plan.copy(source, None, &mut output)?;
    for layer in 0..config.layer_count {
        if removed_layers.contains(&layer) {
            calibrator.skip();
        } else {
            plan.layer(source, layer, &mut calibrator, &mut output)?;
        }
        progress(config.layer_count + layer + 1, steps);
    }
    output.finish()?;
    Ok(PruneReport {
        influence,
        removed_layers,
        channels: (config.feed_forward_length, channels),
        size_bytes,
    })
}

/// Channels that stay.
fn check(source: &Gguf, config: &Config, options: PruneOptions) -> Result<usize> {
    let refuse = |reason: String| Err(CompressError::Prune { reason });
    let (layers, before) = (config.layer_count, config.feed_forward_length);
    if options.layers >= layers {
        return refuse(format!(
            "{} layers are to go, the model has {layers}; leave one at least",
            options.layers
        ));
    }
    if !(0.0..1.0).contains(&options.feed_forward) {
        return refuse(format!(
            "the share of channels is {}, expected 0 to less than 1",
            options.feed_forward
        ));
    }
    if options.layers > 0 && config.layers.windows(2).any(|pair| pair[0] != pair[1]) {
        return refuse("its layers differ in their windows, so that none can go".to_owned());
    }
    let multiple = options.multiple.max(1);
    let kept = (before as f64 * (1.0 - options.feed_forward) / multiple as f64).round() as usize * multiple;
    let kept = kept.clamp(multiple.min(before), before);
    if kept == before {
        return Ok(before);
    }
    for layer in 0..layers {
        let up = source.tensor(&format!("blk.{layer}.ffn_up.weight"));
        if up.map_or(0, |info| info.shape[1]) != before as u64 {
            return refuse(
                "its feed-forward parts are no plain ffn_up and ffn_down; prune layers only".to_owned(),
            );
        }
    }
    Ok(kept)
}

/// One tensor of the result.
struct Kept {
    /// Index among the source's tensors.
    source: usize,
    name: String,
    shape: Vec<u64>,
    format: BlockFormat,
}

struct Plan {
    kept: Vec<Kept>,
    channels: usize,
    channels_before: usize,
    layers: usize,
}

/// What becomes of a tensor when channels go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Whole,
    /// Rows, or values of a bias, are channels.
    Outputs,
    /// Columns are channels.
    Inputs,
}

fn part_of(name: &str) -> Part {
    match layer_part(name) {
        Some((_, "ffn_gate.weight" | "ffn_up.weight" | "ffn_up.bias" | "ffn_gate.bias")) => Part::Outputs,
        Some((_, "ffn_down.weight")) => Part::Inputs,
        _ => Part::Whole,
    }
}

impl Plan {
    fn new(source: &Gguf, config: &Config, removed: &[usize], channels: usize) -> Result<Self> {
        let mut kept = Vec::new();
        let fewer = channels < config.feed_forward_length;
        for (index, info) in source.tensors().iter().enumerate() {
            let name = match layer_part(&info.name) {
                Some((layer, _)) if removed.contains(&layer) => continue,
                Some((layer, part)) => {
                    let before = removed.iter().filter(|gone| **gone < layer).count();
                    format!("blk.{}.{part}", layer - before)
                }
                None => info.name.clone(),
            };
            let (mut shape, mut format) = (info.shape.clone(), block_format(info)?);
            match part_of(&info.name) {
                Part::Outputs if fewer => *shape.last_mut().unwrap_or(&mut 0) = channels as u64,
                Part::Inputs if fewer => {
                    shape[0] = channels as u64;
                    // New values: not quantised a second time here.
                    format = if format == BlockFormat::F32 { format } else { BlockFormat::F16 };
                }
                _ => {}
            }
            kept.push(Kept { source: index, name, shape, format });
        }
        let layers = config.layer_count - removed.len();
        Ok(Self { kept, channels, channels_before: config.feed_forward_length, layers })
    }

    fn header<'a>(&self, source: &Gguf, config: &Config) -> Result<GgufWriter<'a>> {
        let mut writer = GgufWriter::new();
        let key = |name: &str| format!("{}.{name}", config.architecture);
        for (name, value) in source.metadata() {
            let value = if name == key("block_count") {
                Value::U32(self.layers as u32)
            } else if name == key("feed_forward_length") {
                Value::U32(self.channels as u32)
            } else {
                value.clone()
            };
            writer.metadata(name, value)?;
        }
        for kept in &self.kept {
            writer.tensor_with(kept.name.clone(), &kept.shape, tensor_type(kept.format), |_| Ok(()))?;
        }
        Ok(writer)
    }

    /// Copies what stays as it is, of a layer of the source or outside of layers.
    fn copy(&self, source: &Gguf, layer: Option<usize>, output: &mut Output) -> Result<()> {
        for (index, kept) in self.kept.iter().enumerate() {
            let info = &source.tensors()[kept.source];
            let of = layer_part(&info.name).map(|(layer, _)| layer);
            if of == layer && kept.shape == info.shape && !output.is_done(index) {
                output.write(index, source.tensor_bytes(&info.name)?)?;
            }
        }
        Ok(())
    }

    fn layer(
        &self,
        source: &Gguf,
        layer: usize,
        calibrator: &mut Calibrator,
        output: &mut Output,
    ) -> Result<()> {
        self.copy(source, Some(layer), output)?;
        if self.channels == self.channels_before {
            return calibrator.advance(Vec::new());
        }
        let mut statistics = calibrator.statistics(Needs::Moments)?;
        let down = source.tensor(&format!("blk.{layer}.ffn_down.weight"))?;
        let failed = || CompressError::Moments { tensor: down.name.clone() };
        let statistics = statistics.remove(&Reader::Down).ok_or_else(failed)?;
        let weights = values(source, down)?;
        let chosen = choose(&statistics, &weights, self.channels);
        let solved = compensate(&statistics, &weights, &chosen).ok_or_else(failed)?;
        for (index, kept) in self.kept.iter().enumerate() {
            let info = &source.tensors()[kept.source];
            if layer_part(&info.name).is_none_or(|(of, _)| of != layer) {
                continue;
            }
            let bytes = match part_of(&info.name) {
                Part::Whole => continue,
                Part::Inputs => {
                    let mut bytes = vec![0; kept.format.size_bytes(solved.len()).unwrap_or(0)];
                    quantize(kept.format, &solved, &mut bytes)?;
                    bytes
                }
                Part::Outputs => {
                    let bytes = source.tensor_bytes(&info.name)?;
                    let row = bytes.len() / self.channels_before;
                    chosen
                        .iter()
                        .flat_map(|channel| &bytes[channel * row..(channel + 1) * row])
                        .copied()
                        .collect()
                }
            };
            output.write(index, &bytes)?;
        }
        // The pruned part in the shape of the whole one: columns of zeros.
        let (columns, rows) = (self.channels_before, weights.len() / self.channels_before);
        let mut wide = vec![0.0f32; weights.len()];
        for (wide, solved) in wide.chunks_exact_mut(columns).zip(solved.chunks_exact(chosen.len())) {
            chosen.iter().zip(solved).for_each(|(channel, value)| wide[*channel] = *value);
        }
        let bytes: Vec<u8> = wide.iter().flat_map(|v| v.to_le_bytes()).collect();
        let matrix = Matrix::pack(&down.name, BlockFormat::F32, rows, columns, &bytes)?;
        calibrator.advance(vec![("ffn_down.weight".to_owned(), matrix)])
    }
}

fn values(source: &Gguf, info: &TensorInfo) -> Result<Vec<f32>> {
    let mut values = vec![0.0; info.element_count() as usize];
    dequantize(block_format(info)?, source.tensor_bytes(&info.name)?, &mut values)?;
    Ok(values)
}

/// The `count` channels that add most to the output, in ascending order.
fn choose(statistics: &Statistics, weights: &[f32], count: usize) -> Vec<usize> {
    let columns = statistics.columns();
    let mut norms = vec![0.0f64; columns];
    for row in weights.chunks_exact(columns) {
        norms.iter_mut().zip(row).for_each(|(norm, w)| *norm += f64::from(*w).powi(2));
    }
    let score = |j: &usize| norms[*j] * statistics.sum_squares[*j];
    let mut order: Vec<usize> = (0..columns).collect();
    order.sort_by(|a, b| score(b).total_cmp(&score(a)));
    order.truncate(count);
    order.sort_unstable();
    order
}

/// The weights of the chosen columns that come nearest to the output of all: (rows, chosen).
fn compensate(statistics: &Statistics, weights: &[f32], chosen: &[usize]) -> Option<Vec<f32>> {
    let moments = statistics.second_moments.as_ref()?;
    let (columns, count) = (statistics.columns(), chosen.len());
    let damping = DAMPING * moments.mean_diagonal();
    let mut square = Square::zeros(count);
    for (i, a) in chosen.iter().enumerate() {
        for (j, b) in chosen.iter().enumerate() {
            square.set(i, j, moments.at(*a, *b) + if i == j { damping } else { 0.0 });
        }
    }
    let lower = cholesky(&square)?;
    let mut solved = Vec::with_capacity(weights.len() / columns * count);
    for row in weights.chunks_exact(columns) {
        // Damping pulls towards the weights as they are, not towards zero.
        let mut x: Vec<f64> = chosen
            .iter()
            .map(|a| {
                let sum: f64 = moments.row(*a).iter().zip(row).map(|(m, w)| m * f64::from(*w)).sum();
                sum + damping * f64::from(row[*a])
            })
            .collect();
        for i in 0..count {
            let sum: f64 = (0..i).map(|j| lower.at(i, j) * x[j]).sum();
            x[i] = (x[i] - sum) / lower.at(i, i);
        }
        for i in (0..count).rev() {
            x[i] /= lower.at(i, i);
            let value = x[i];
            (0..i).for_each(|j| x[j] -= lower.at(i, j) * value);
        }
        solved.extend(x.iter().map(|v| *v as f32));
    }
    Some(solved)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_stands_in_for_what_went() {
        let (columns, rows, count) = (24, 5, 12);
        let noise = |i: usize| ((i * 7919 + 31) % 1009) as f32 / 1009.0 - 0.5;
        // Every second channel nearly repeats the one before it.
        let x: Vec<f32> = (0..200 * columns)
            .map(|i| {
                noise(i / columns * 64 + i % columns / 2) + if i % 2 == 1 { 0.05 * noise(i * 3) } else { 0.0 }
            })
            .collect();
        let mut statistics = Statistics::new(columns, true);
        statistics.add(&x, 1);
        let weights: Vec<f32> = (0..rows * columns).map(|i| noise(i * 11 + 5)).collect();
        let chosen = choose(&statistics, &weights, count);
        assert!(chosen.is_sorted() && chosen.len() == count);
        let solved = compensate(&statistics, &weights, &chosen).unwrap();
        let error = |values: &dyn Fn(usize, usize) -> f32| -> f64 {
            let row = |r: usize| -> Vec<f32> {
                let mut difference: Vec<f32> = weights[r * columns..(r + 1) * columns].to_vec();
                chosen.iter().enumerate().for_each(|(i, j)| difference[*j] -= values(r, i));
                difference
            };
            (0..rows).map(|r| statistics.output_error(&row(r))).sum()
        };
        let cut = error(&|r, i| weights[r * columns + chosen[i]]);
        let found = error(&|r, i| solved[r * count + i]);
        assert!(found < 0.5 * cut, "solved {found}, only cut {cut}");
    }
}
