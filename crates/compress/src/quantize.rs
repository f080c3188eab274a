//! From a GGUF file to a smaller one, tensor by tensor.

use std::collections::HashMap;
use std::path::Path;

use ganglion_gguf::{Array, Gguf, GgufWriter, TensorInfo, TensorType};
use ganglion_kernels::{BlockFormat, Matrix, dequantize_matrix};
use ganglion_llm::{Config, Reader, block_format, tensor_type};

use crate::calibrate::Calibrator;
use crate::error::{CompressError, Result};
use crate::fold::fold_layer;
use crate::imatrix::Imatrix;
use crate::methods::{Folding, MatrixRef, Method, Needs, quantize_matrix};
use crate::mix::{Mix, is_matrix, layer_part};
use crate::output::Output;
use crate::ranges::Range;
use crate::statistics::Statistics;

/// What to make of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuantizeOptions {
    /// Which tensor becomes what.
    pub mix: Mix,
    /// How.
    pub method: Method,
    /// Threads that share a matrix's rows.
    pub threads: usize,
    /// How far fixed scales of int8 activations reach; `None`: each token has a scale of its own.
    pub range: Option<Range>,
    /// Whatever else the result depends on (the calibration text's hash): an interrupted run is only continued if it is
    /// the same.
    pub key: String,
}

/// What is known of the inputs of matrices.
pub enum Knowledge {
    /// Nothing.
    None,
    /// Their mean squares, from a file.
    Imatrix(Imatrix),
    /// A text, to be read on the way.
    Text(Box<Calibrator>),
}

/// How far [`quantize_file`] has come.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress<'a> {
    /// The tensor at hand.
    pub tensor: &'a str,
    /// Values of finished tensors.
    pub done: u64,
    /// Values of all tensors.
    pub total: u64,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct QuantizeReport {
    /// Number of tensors of each type, in the order in which the types first occur.
    pub types: Vec<(TensorType, usize)>,
    /// Bytes of the file.
    pub size_bytes: u64,
    /// Bits of a weight, over all tensors.
    pub bits_per_weight: f64,
    /// What calibration learned, by tensor; empty without a text.
    pub imatrix: Imatrix,
}

/// A stage of the work: tensors that share statistics and factors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Before,
    Layer(usize),
    Head,
}

/// Quantises `source` to `path`. What is finished stays when the process ends, and a later call goes on from there; `path` holds
/// what it held until the new file is whole.
///
/// # Errors
/// Whatever the source's header lacks, a value that cannot be stored (with its tensor), or a failure of the disk.
pub fn quantize_file(
    source: &Gguf,
    path: &Path,
    options: &QuantizeOptions,
    knowledge: Knowledge,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<QuantizeReport> {
    let config = Config::from_header(source.header())?;
    let tied = source.tensor("output.weight").is_err();
    let types = file_types(source, options)?;
    let layout = header(source, &types, options, &config)?.layout()?;
    let scales_at = options.range.map(|_| place_of_scales(&layout.header));
    let size_bytes = layout.size_bytes;
    let key = format!(
        "{} {:?} {:?} {:?} {}",
        source_key(source),
        options.mix,
        options.method,
        options.range,
        options.key
    );
    let output = Output::open(path, layout, &key)?;
    let total = source.tensors().iter().map(TensorInfo::element_count).sum();
    let scales = Vec::new();
    let mut work =
        Work { source, config: &config, options, types: &types, output, done: 0, total, scales, progress };
    let imatrix = work.run(knowledge, tied)?;
    if let Some(at) = scales_at {
        let bytes: Vec<u8> = work.scales.iter().flatten().flat_map(|scale| scale.to_le_bytes()).collect();
        work.output.write_header(at, &bytes)?;
    }
    work.output.finish()?;
    let mut counts: Vec<(TensorType, usize)> = Vec::new();
    for dtype in &types {
        match counts.iter_mut().find(|(known, _)| known == dtype) {
            Some((_, count)) => *count += 1,
            None => counts.push((*dtype, 1)),
        }
    }
    let stored =
        source.tensors().iter().zip(&types).filter_map(|(info, dtype)| dtype.size_bytes(&info.shape));
    let bits_per_weight = stored.sum::<u64>() as f64 * 8.0 / (total as f64).max(1.0);
    Ok(QuantizeReport { types: counts, size_bytes, bits_per_weight, imatrix })
}

/// The type of every tensor of the result.
pub(crate) fn file_types(source: &Gguf, options: &QuantizeOptions) -> Result<Vec<TensorType>> {
    let config = Config::from_header(source.header())?;
    let tied = source.tensor("output.weight").is_err();
    let chosen = source.tensors().iter().map(|info| match options.mix.choose(info, &config, tied) {
        Some(format) => Ok(tensor_type(format)),
        // What is kept is kept as it is, but no vector stays quantised or halved once factors may move into it.
        None => Ok(block_format(info).map(|_| TensorType::F32)?),
    });
    chosen.collect()
}

/// A tensor's bytes as another type, rounded to nearest.
pub(crate) fn converted(source: &Gguf, info: &TensorInfo, dtype: TensorType) -> Result<Vec<u8>> {
    let bytes = source.tensor_bytes(&info.name)?;
    if info.dtype == dtype {
        return Ok(bytes.to_vec());
    }
    let mut values = vec![0.0; info.element_count() as usize];
    dequantize_matrix(block_format(info)?, info.shape[0] as usize, bytes, &mut values)?;
    let format = format_of(dtype);
    let mut out = vec![0; format.size_bytes(values.len()).unwrap_or(0)];
    ganglion_kernels::quantize(format, &values, &mut out)?;
    Ok(out)
}

/// What the source's tensors are, without reading them all: header, length and time of change.
pub(crate) fn source_key(source: &Gguf) -> String {
    let changed = source.modified().and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
    format!("{} {changed:?} {:?}", source.bytes().len(), source.tensors())
}

/// A writer that holds the result's metadata and the places of its tensors, but no data.
pub(crate) fn header<'a>(
    source: &Gguf,
    types: &[TensorType],
    options: &QuantizeOptions,
    config: &Config,
) -> Result<GgufWriter<'a>> {
    let mut writer = GgufWriter::new();
    let replaced = [
        "general.file_type",
        "general.quantization_version",
        "ganglion.quantize.method",
        Config::ACTIVATION_SCALES,
    ];
    for (key, value) in source.metadata().filter(|(key, _)| !replaced.contains(key)) {
        writer.metadata(key, value.clone())?;
    }
    writer.metadata(replaced[0], options.mix.file_type.number())?;
    writer.metadata(replaced[1], 2u32)?;
    writer.metadata(replaced[2], options.method.name())?;
    if options.range.is_some() {
        // Their values follow when they are known: the place of everything else depends on their number only.
        let count = config.layer_count * Reader::ALL.len();
        writer.metadata(replaced[3], Array::F32(vec![0.0; count]))?;
    }
    for (info, dtype) in source.tensors().iter().zip(types) {
        writer.tensor_with(info.name.clone(), &info.shape, *dtype, |_| Ok(()))?;
    }
    Ok(writer)
}

/// Where the fixed scales of activations lie in a header that has them.
fn place_of_scales(header: &[u8]) -> u64 {
    let key = Config::ACTIVATION_SCALES.as_bytes();
    let at = header.windows(key.len()).position(|bytes| bytes == key);
    // Behind the key: the type of the value, that of its elements, and their number.
    at.map_or(0, |at| (at + key.len() + 4 + 4 + 8) as u64)
}

struct Work<'a> {
    source: &'a Gguf,
    config: &'a Config,
    options: &'a QuantizeOptions,
    types: &'a [TensorType],
    output: Output,
    done: u64,
    total: u64,
    /// By layer, if there are to be fixed ones.
    scales: Vec<[f32; Reader::ALL.len()]>,
    progress: &'a mut dyn FnMut(Progress<'_>),
}

impl Work<'_> {
    fn run(&mut self, mut knowledge: Knowledge, tied: bool) -> Result<Imatrix> {
        let stage = |info: &TensorInfo| match (layer_part(&info.name), info.name.as_str()) {
            (Some((layer, _)), _) => Stage::Layer(layer),
            (None, "output.weight") => Stage::Head,
            (None, "token_embd.weight") if tied => Stage::Head,
            (None, _) => Stage::Before,
        };
        let mut order: Vec<(Stage, usize)> =
            self.source.tensors().iter().enumerate().map(|(index, info)| (stage(info), index)).collect();
        order.sort();
        let mut learned = Imatrix::new();
        for group in order.chunk_by(|a, b| a.0 == b.0) {
            let indices: Vec<usize> = group.iter().map(|(_, index)| *index).collect();
            let known = self.statistics(group[0].0, &mut knowledge)?;
            for (index, statistics) in indices.iter().filter_map(|i| Some((*i, self.known(*i, &known)?))) {
                let mut kept = statistics.clone();
                kept.second_moments = None;
                learned.insert(self.source.tensors()[index].name.clone(), kept);
            }
            self.stage(group[0].0, &indices, &known, &mut knowledge)?;
        }
        Ok(learned)
    }

    /// What a stage's matrices read, by reader; the head under none.
    fn statistics(
        &self,
        stage: Stage,
        knowledge: &mut Knowledge,
    ) -> Result<HashMap<Option<Reader>, Statistics>> {
        let needs = self.options.method.needs().max(Needs::Squares);
        Ok(match (stage, knowledge) {
            (Stage::Layer(layer), Knowledge::Text(calibrator)) if calibrator.layer() == layer => {
                calibrator.statistics(needs)?.into_iter().map(|(reader, s)| (Some(reader), s)).collect()
            }
            (Stage::Head, Knowledge::Text(calibrator)) => HashMap::from([(None, calibrator.head(needs)?)]),
            (_, Knowledge::Imatrix(imatrix)) => {
                let mut known = HashMap::new();
                for (name, statistics) in imatrix.iter() {
                    match (stage, layer_part(name)) {
                        (Stage::Layer(layer), Some((of, part))) if layer == of => {
                            Reader::of_tensor(part)
                                .and_then(|reader| known.insert(Some(reader), statistics.clone()));
                        }
                        (Stage::Head, None) if name == "output.weight" || name == "token_embd.weight" => {
                            known.insert(None, statistics.clone());
                        }
                        _ => {}
                    }
                }
                known
            }
            _ => HashMap::new(),
        })
    }

    /// What is known of the inputs of a tensor.
    fn known<'s>(
        &self,
        index: usize,
        known: &'s HashMap<Option<Reader>, Statistics>,
    ) -> Option<&'s Statistics> {
        let info = &self.source.tensors()[index];
        let reader = match layer_part(&info.name) {
            Some((_, part)) => Some(Reader::of_tensor(part)?),
            None => None,
        };
        let statistics = known.get(&reader).filter(|_| is_matrix(info))?;
        (statistics.columns() as u64 == info.shape[0]).then_some(statistics)
    }

    fn stage(
        &mut self,
        stage: Stage,
        indices: &[usize],
        known: &HashMap<Option<Reader>, Statistics>,
        knowledge: &mut Knowledge,
    ) -> Result<()> {
        let folding = match stage {
            Stage::Layer(layer) => self.folding(layer, indices, known)?,
            Stage::Before | Stage::Head => Folding::default(),
        };
        if let (Some(range), Stage::Layer(layer), Knowledge::Text(calibrator)) =
            (self.options.range, stage, &mut *knowledge)
        {
            self.scales.push(fixed_scales(range, layer, calibrator, &folding)?);
        }
        let mut replaced = Vec::new();
        for index in indices {
            let statistics = self.known(*index, known);
            let bytes = self.tensor(*index, &folding, statistics)?;
            let info = &self.source.tensors()[*index];
            if let (Knowledge::Text(_), Some((_, part))) = (&*knowledge, layer_part(&info.name))
                && is_matrix(info)
                && info.shape.len() == 2
            {
                replaced.push((part.to_owned(), self.effective(*index, &bytes, &folding)?));
            }
        }
        if let (Stage::Layer(layer), Knowledge::Text(calibrator)) = (stage, knowledge)
            && calibrator.layer() == layer
        {
            calibrator.advance(replaced)?;
        }
        Ok(())
    }

    fn folding(
        &self,
        layer: usize,
        indices: &[usize],
        known: &HashMap<Option<Reader>, Statistics>,
    ) -> Result<Folding> {
        let method = self.options.method;
        if !matches!(method, Method::Awq | Method::SmoothQuant) {
            return Ok(Folding::default());
        }
        let format = |name: &str| {
            let index = indices.iter().find(|i| self.source.tensors()[**i].name == name)?;
            BlockFormat::from_name(self.types[*index].name())
        };
        let read = |name: &str| -> Result<Option<Vec<f32>>> {
            match indices.iter().find(|index| self.source.tensors()[**index].name == name) {
                Some(index) => self.values(*index).map(Some),
                None => Ok(None),
            }
        };
        fold_layer(method, self.config, layer, &|reader| known.get(&Some(reader)), &format, &read)
    }

    /// The values of a tensor of the source.
    fn values(&self, index: usize) -> Result<Vec<f32>> {
        let info = &self.source.tensors()[index];
        let mut values = vec![0.0; info.element_count() as usize];
        let columns = info.shape.first().map_or(1, |n| *n as usize);
        dequantize_matrix(block_format(info)?, columns, self.source.tensor_bytes(&info.name)?, &mut values)?;
        Ok(values)
    }

    /// Quantises and stores a tensor, or reads what an earlier run stored.
    fn tensor(
        &mut self,
        index: usize,
        folding: &Folding,
        statistics: Option<&Statistics>,
    ) -> Result<Vec<u8>> {
        let info = &self.source.tensors()[index];
        (self.progress)(Progress { tensor: &info.name, done: self.done, total: self.total });
        let bytes = if self.output.is_done(index) {
            self.output.read(index)?
        } else {
            let bytes = self.stored(index, folding, statistics).map_err(|cause| CompressError::Tensor {
                tensor: info.name.clone(),
                cause: Box::new(cause),
            })?;
            self.output.write(index, &bytes)?;
            bytes
        };
        self.done += info.element_count();
        (self.progress)(Progress { tensor: &info.name, done: self.done, total: self.total });
        Ok(bytes)
    }

    fn stored(&self, index: usize, folding: &Folding, statistics: Option<&Statistics>) -> Result<Vec<u8>> {
        let info = &self.source.tensors()[index];
        let format = format_of(self.types[index]);
        let factors = folding.columns.get(&info.name);
        if block_format(info)? == format && factors.is_none() && !folding.rows.contains_key(&info.name) {
            return Ok(self.source.tensor_bytes(&info.name)?.to_vec());
        }
        let columns = info.shape.first().map_or(1, |n| *n as usize);
        let mut values = self.values(index)?;
        folding.apply(&info.name, &mut values, columns);
        let scaled = statistics.zip(factors).map(|(statistics, factors)| {
            let inverse: Vec<f32> = factors.iter().map(|f| 1.0 / f).collect();
            statistics.scaled(&inverse)
        });
        let rows = values.len() / columns;
        let mut bytes = vec![0; format.matrix_bytes(rows, columns).unwrap_or(0)];
        quantize_matrix(
            &info.name,
            (self.options.method, format),
            MatrixRef { values: &values, columns },
            scaled.as_ref().or(statistics),
            self.options.threads,
            &mut bytes,
        )?;
        Ok(bytes)
    }

    /// A quantised matrix without the factors that were folded into it: what it does in the place of the original.
    fn effective(&self, index: usize, bytes: &[u8], folding: &Folding) -> Result<Matrix> {
        let info = &self.source.tensors()[index];
        let (columns, rows) = (info.shape[0] as usize, info.shape[1] as usize);
        if !folding.columns.contains_key(&info.name) && !folding.rows.contains_key(&info.name) {
            return Ok(Matrix::pack(&info.name, format_of(self.types[index]), rows, columns, bytes)?);
        }
        let mut values = vec![0.0; rows * columns];
        dequantize_matrix(format_of(self.types[index]), columns, bytes, &mut values)?;
        folding.undo(&info.name, &mut values, columns);
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Ok(Matrix::pack(&info.name, BlockFormat::F32, rows, columns, &bytes)?)
    }
}

/// The scales of what a layer's matrices will read once `folding` is done.
fn fixed_scales(
    range: Range,
    layer: usize,
    calibrator: &mut Calibrator,
    folding: &Folding,
) -> Result<[f32; Reader::ALL.len()]> {
    let mut inverse = HashMap::new();
    for (name, factors) in &folding.columns {
        let part = layer_part(name).filter(|(of, _)| *of == layer).map(|(_, part)| part);
        if let Some(reader) = part.and_then(Reader::of_tensor) {
            inverse.insert(reader, factors.iter().map(|f| 1.0 / f).collect());
        }
    }
    let found = calibrator.magnitudes(&inverse)?;
    Ok(Reader::ALL.map(|reader| found.get(&reader).map_or(0.0, |magnitudes| magnitudes.scale(range))))
}

fn format_of(dtype: TensorType) -> BlockFormat {
    BlockFormat::from_name(dtype.name()).unwrap_or_else(|| unreachable!("types came from formats"))
}
