//! Matrices in two factors (SVD-LLM, Wang et al. 2024): `W ≈ second · first`, of least error on what the matrix reads.
//!
//! A first walk through the model finds the singular values of every whitened matrix (`whiten.rs`), a budget of parameters is shared
//! out by them (`ranks.rs`), and a second walk makes the factors, layer by layer, each fitted to what it reads behind those
//! before it.

mod ranks;
mod whiten;

use std::path::Path;

use ganglion_gguf::{Gguf, GgufWriter, TensorInfo, Value};
use ganglion_kernels::{BlockFormat, Matrix, dequantize, dequantize_matrix, quantize};
use ganglion_llm::{Config, FACTORED, FIRST, Model, ModelOptions, Reader, SECOND, block_format, tensor_type};

use crate::calibrate::Calibrator;
use crate::error::{CompressError, Result};
use crate::linalg::times_transposed;
use crate::measure::Windows;
use crate::methods::Needs;
use crate::mix::layer_part;
use crate::output::Output;
use crate::statistics::Statistics;
use ranks::{Candidate, share_out};
use whiten::Whitened;

/// Metadata key of the share of parameters that was asked for.
const RATIO_KEY: &str = "ganglion.factorize.ratio";

/// What to make of a model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FactorizeOptions {
    /// Share of the parameters of the layers' matrices that stays, 0 to 1.
    pub ratio: f64,
    /// Ranks are a multiple of this: 32 for the small formats, 256 for the k-quants.
    pub multiple: usize,
    /// Threads.
    pub threads: usize,
}

/// What came of one matrix.
#[derive(Debug, Clone, PartialEq)]
pub struct FactorizedMatrix {
    /// Name of its tensor in the source.
    pub name: String,
    /// (columns, rows)
    pub shape: (usize, usize),
    /// Rank of its factors; `None`: it stays whole.
    pub rank: Option<usize>,
    /// Share of the output's squares that the cut singular values carry.
    pub loss: f64,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct FactorizeReport {
    /// The layers' matrices, in the order of the file.
    pub matrices: Vec<FactorizedMatrix>,
    /// Their parameters, before and after.
    pub parameters: (u64, u64),
    /// Bytes of the file.
    pub size_bytes: u64,
}

/// Writes a model with factors to `path`, which holds what it held until the new file is whole; interrupted, a later call goes on.
/// `progress` is told of layers: done, of all walks.
///
/// # Errors
/// [`CompressError::Factorize`] for a ratio or a model that this cannot be done with; a text that leads to values that are not
/// finite; a failure of the disk.
pub fn factorize_file(
    source: &Gguf,
    path: &Path,
    options: FactorizeOptions,
    windows: &Windows,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<FactorizeReport> {
    let config = Config::from_header(source.header())?;
    let chosen = matrices(source, options)?;
    let load = || -> Result<Calibrator> {
        let model =
            Model::load(source, ModelOptions { threads: options.threads, ..ModelOptions::default() })?;
        Calibrator::new(model, windows)
    };
    let layers = config.layer_count;
    let mut calibrator = load()?;
    let mut candidates = Vec::new();
    for layer in 0..layers {
        let statistics = calibrator.statistics(Needs::Moments)?;
        for (info, part) in chosen.iter().filter(|(of, ..)| *of == layer).map(|(_, info, part)| (info, part))
        {
            let known = Reader::of_tensor(part).and_then(|reader| statistics.get(&reader));
            let whitened = whitened(source, info, known, options.threads)?;
            candidates.push(Candidate {
                columns: info.shape[0] as usize,
                rows: info.shape[1] as usize,
                squares: whitened.squares(),
            });
        }
        calibrator.advance(Vec::new())?;
        progress(layer + 1, 2 * layers);
    }
    let ranks = share_out(&candidates, options.ratio, options.multiple.max(1));
    let tensors = tensors(source, &chosen, &ranks)?;
    let layout = header(source, &tensors, options.ratio)?.layout()?;
    let size_bytes = layout.size_bytes;
    let key =
        format!("{options:?} {ranks:?} {:?} {:?}", source.modified(), windows.iter().collect::<Vec<_>>());
    let output = Output::open(path, layout, &key)?;
    let mut work = Work { source, options, tensors, output };
    let mut calibrator = load()?;
    work.copy()?;
    for layer in 0..layers {
        work.layer(layer, &mut calibrator)?;
        progress(layers + layer + 1, 2 * layers);
    }
    work.output.finish()?;
    let report =
        |((_, info, _), (candidate, rank)): (&Chosen<'_>, (&Candidate, &Option<usize>))| FactorizedMatrix {
            name: info.name.clone(),
            shape: (candidate.columns, candidate.rows),
            rank: *rank,
            loss: candidate.loss(*rank),
        };
    let after = candidates.iter().zip(&ranks).map(|(c, rank)| c.parameters(*rank) as u64).sum();
    Ok(FactorizeReport {
        parameters: (candidates.iter().map(|c| c.parameters(None) as u64).sum(), after),
        matrices: chosen.iter().zip(candidates.iter().zip(&ranks)).map(report).collect(),
        size_bytes,
    })
}

/// A matrix that can be factored: its layer, tensor, and name without the layer.
type Chosen<'a> = (usize, &'a TensorInfo, &'a str);

fn matrices(source: &Gguf, options: FactorizeOptions) -> Result<Vec<Chosen<'_>>> {
    let refuse = |reason: String| Err(CompressError::Factorize { reason });
    if !(options.ratio > 0.0 && options.ratio < 1.0) {
        return refuse(format!("the ratio is {}, expected more than 0 and less than 1", options.ratio));
    }
    if let Some(info) = source.tensors().iter().find(|info| info.name.ends_with(FIRST)) {
        return refuse(format!("it holds {}: it is in factors already", info.name));
    }
    let plain = |part: &str| part.strip_suffix(".weight").is_some_and(|name| FACTORED.contains(&name));
    let mut chosen: Vec<Chosen<'_>> = source
        .tensors()
        .iter()
        .filter(|info| info.shape.len() == 2)
        .filter_map(|info| layer_part(&info.name).map(|(layer, part)| (layer, info, part)))
        .filter(|(_, _, part)| plain(part))
        .collect();
    chosen.sort_by_key(|(layer, ..)| *layer);
    // An up matrix that holds the gate too is one tensor for two matrices.
    chosen.retain(|(layer, info, part)| {
        let gate = source.tensor(&format!("blk.{layer}.ffn_gate.weight")).is_ok();
        let down = source.tensor(&format!("blk.{layer}.ffn_down.weight"));
        *part != "ffn_up.weight" || gate || down.is_ok_and(|down| down.shape[0] == info.shape[1])
    });
    if chosen.is_empty() {
        return refuse("none of its layers has a matrix by itself".to_owned());
    }
    let sides = |info: &TensorInfo| (info.shape[0], info.shape[1]);
    let all: u64 = chosen.iter().map(|(_, info, _)| sides(info).0 * sides(info).1).sum();
    let multiple = options.multiple.max(1);
    let least_of = |(columns, rows): (u64, u64)| (multiple as u64 * (columns + rows)).min(columns * rows);
    let least: u64 = chosen.iter().map(|(_, info, _)| least_of(sides(info))).sum();
    if least as f64 > options.ratio * all as f64 {
        let share = least as f64 / all as f64;
        return refuse(format!(
            "ranks of {multiple} leave a share of {share:.3} already, the ratio is {}; give a larger ratio or a smaller --multiple",
            options.ratio
        ));
    }
    Ok(chosen)
}

fn whitened(
    source: &Gguf,
    info: &TensorInfo,
    statistics: Option<&Statistics>,
    threads: usize,
) -> Result<Whitened> {
    let mut values = vec![0.0; info.element_count() as usize];
    dequantize_matrix(
        block_format(info)?,
        info.shape[0] as usize,
        source.tensor_bytes(&info.name)?,
        &mut values,
    )?;
    let moments = statistics.and_then(|statistics| statistics.second_moments.as_ref());
    let found = moments.and_then(|moments| Whitened::new(&values, moments, threads));
    found.ok_or_else(|| CompressError::Moments { tensor: info.name.clone() })
}

/// What a tensor of the result is made of.
enum Part {
    Copy,
    /// The first factor, of this rank; the second follows it.
    First(usize),
    Second,
}

struct Tensor<'a> {
    name: String,
    info: &'a TensorInfo,
    shape: Vec<u64>,
    format: BlockFormat,
    part: Part,
}

fn tensors<'a>(source: &'a Gguf, chosen: &[Chosen<'_>], ranks: &[Option<usize>]) -> Result<Vec<Tensor<'a>>> {
    let mut all = Vec::new();
    for info in source.tensors() {
        let stored = block_format(info)?;
        let place = chosen.iter().position(|(_, known, _)| known.name == info.name);
        let Some(rank) = place.and_then(|place| ranks[place]) else {
            let (name, shape) = (info.name.clone(), info.shape.clone());
            all.push(Tensor { name, info, shape, format: stored, part: Part::Copy });
            continue;
        };
        // New values: not quantised a second time here.
        let format = if stored == BlockFormat::F32 { stored } else { BlockFormat::F16 };
        let name = info.name.strip_suffix(".weight").unwrap_or(&info.name);
        let (columns, rows) = (info.shape[0], info.shape[1]);
        let tensor = |end, shape, part| Tensor { name: format!("{name}{end}"), info, shape, format, part };
        all.push(tensor(FIRST, vec![columns, rank as u64], Part::First(rank)));
        all.push(tensor(SECOND, vec![rank as u64, rows], Part::Second));
    }
    Ok(all)
}

fn header<'a>(source: &Gguf, tensors: &[Tensor<'_>], ratio: f64) -> Result<GgufWriter<'a>> {
    let mut writer = GgufWriter::new();
    let replaced = [RATIO_KEY, Config::ACTIVATION_SCALES];
    for (key, value) in source.metadata().filter(|(key, _)| !replaced.contains(key)) {
        writer.metadata(key, value.clone())?;
    }
    writer.metadata(RATIO_KEY, Value::F32(ratio as f32))?;
    for tensor in tensors {
        writer.tensor_with(tensor.name.clone(), &tensor.shape, tensor_type(tensor.format), |_| Ok(()))?;
    }
    Ok(writer)
}

struct Work<'a> {
    source: &'a Gguf,
    options: FactorizeOptions,
    tensors: Vec<Tensor<'a>>,
    output: Output,
}

impl Work<'_> {
    fn copy(&mut self) -> Result<()> {
        for (index, tensor) in self.tensors.iter().enumerate() {
            if matches!(tensor.part, Part::Copy) && !self.output.is_done(index) {
                self.output.write(index, self.source.tensor_bytes(&tensor.name)?)?;
            }
        }
        Ok(())
    }

    fn layer(&mut self, layer: usize, calibrator: &mut Calibrator) -> Result<()> {
        let mut pairs = Vec::new();
        for (index, tensor) in self.tensors.iter().enumerate() {
            let of = layer_part(&tensor.name).map(|(of, _)| of);
            if let (Part::First(rank), true) = (&tensor.part, of == Some(layer)) {
                pairs.push((index, *rank, tensor.info));
            }
        }
        let done = pairs.iter().all(|(i, ..)| self.output.is_done(*i) && self.output.is_done(i + 1));
        let statistics = if done { None } else { Some(calibrator.statistics(Needs::Moments)?) };
        let mut replaced = Vec::new();
        for (index, rank, info) in pairs {
            let part = layer_part(&info.name).map_or("", |(_, part)| part);
            if !(self.output.is_done(index) && self.output.is_done(index + 1)) {
                let known =
                    statistics.as_ref().zip(Reader::of_tensor(part)).and_then(|(all, by)| all.get(&by));
                let (first, second) = whitened(self.source, info, known, self.options.threads)?.factors(rank);
                for (index, values) in [(index, first), (index + 1, second)] {
                    let format = self.tensors[index].format;
                    let mut bytes = vec![0; format.size_bytes(values.len()).unwrap_or(0)];
                    quantize(format, &values, &mut bytes)?;
                    self.output.write(index, &bytes)?;
                }
            }
            replaced.push((part.to_owned(), self.product(index, info)?));
        }
        calibrator.advance(replaced)
    }

    /// The product of two stored factors, for the place of the whole matrix.
    fn product(&mut self, index: usize, info: &TensorInfo) -> Result<Matrix> {
        let mut read = |index: usize| -> Result<Vec<f64>> {
            let tensor = &self.tensors[index];
            let mut values = vec![0.0; tensor.shape.iter().product::<u64>() as usize];
            dequantize(tensor.format, &self.output.read(index)?, &mut values)?;
            Ok(values.into_iter().map(f64::from).collect())
        };
        let (first, second) = (read(index)?, read(index + 1)?);
        let (columns, rows) = (info.shape[0] as usize, info.shape[1] as usize);
        let first = crate::linalg::transposed(&first, columns);
        let rank = second.len() / rows;
        let product = times_transposed(&second, &first, rank, self.options.threads);
        let bytes: Vec<u8> = product.into_iter().flat_map(|v| (v as f32).to_le_bytes()).collect();
        Ok(Matrix::pack(&info.name, BlockFormat::F32, rows, columns, &bytes)?)
    }
}
