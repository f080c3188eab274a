//! A stream of fewer values (SliceGPT, Ashkboos et al. 2024).
//!
//! Norms that only divide by the root mean square do not notice a rotation of the stream, so that every matrix around it can be turned
//! with it. Turned to the principal axes of what the norms see, the last values say least and are cut. The paper turns
//! each layer's stream by a rotation of its own and multiplies the residual by the difference; here one rotation serves all
//! layers, so that what is left is an ordinary model without such matrices. What the cut loses, the matrices that are solved anew
//! (`twin.rs`) make up for in part.

use std::path::{Path, PathBuf};

use ganglion_gguf::{Gguf, GgufWriter, TensorInfo, TensorType};
use ganglion_kernels::{BlockFormat, quantize};
use ganglion_llm::{Config, Model, ModelOptions, Reader, block_format, tensor_type};
use sha2::{Digest, Sha256};

use super::plan::{Axis, axes, part_of, values_of};
use crate::calibrate::Calibrator;
use crate::error::{CompressError, Result};
use crate::linalg::{Square, eigen, times_transposed, transposed};
use crate::measure::Windows;
use crate::methods::Needs;
use crate::output::Output;

/// Rows of a matrix that are turned at once.
const ROWS_AT_ONCE: usize = 1 << 10;

/// What a norm's weight is folded into.
const FOLDS: [(&str, &[&str]); 3] = [
    ("attn_norm.weight", &["attn_q.weight", "attn_k.weight", "attn_v.weight", "attn_qkv.weight"]),
    ("ffn_norm.weight", &["ffn_gate.weight", "ffn_up.weight"]),
    ("output_norm.weight", &["output.weight"]),
];

/// Tensors that a rotation of the stream does not touch.
const UNTOUCHED: [&str; 12] = [
    "attn_q.bias",
    "attn_k.bias",
    "attn_v.bias",
    "attn_qkv.bias",
    "attn_q_norm.weight",
    "attn_k_norm.weight",
    "ffn_gate.bias",
    "ffn_up.bias",
    "output.bias",
    "rope_freqs.weight",
    "rope_factors_short.weight",
    "rope_factors_long.weight",
];

/// Refuses what cannot be turned.
pub(super) fn check(source: &Gguf, config: &Config) -> Result<()> {
    let refuse = |reason: String| Err(CompressError::Prune { reason });
    if !config.has_rotatable_stream() {
        return refuse(format!(
            "the stream of {} cannot be rotated, so that it cannot be made narrower; prune layers, heads or channels",
            config.architecture
        ));
    }
    let unknown = source.tensors().iter().find(|info| {
        let part = part_of(&info.name);
        axes(part) == (Axis::Whole, Axis::Whole) && !UNTOUCHED.contains(&part)
    });
    unknown
        .map_or(Ok(()), |info| refuse(format!("nothing is known of a rotation of its tensor {}", info.name)))
}

/// Principal axes of what the norms give, without their weights, over all layers: an axis in each row, the one with most first.
pub(super) fn principal_axes(
    source: &Gguf,
    windows: &Windows,
    threads: usize,
    progress: &mut dyn FnMut(usize),
) -> Result<Square> {
    let config = Config::from_header(source.header())?;
    let model = Model::load(source, ModelOptions { threads, ..ModelOptions::default() })?;
    let mut calibrator = Calibrator::new(model, windows)?;
    let mut sums = Square::zeros(config.embedding_length);
    let norm = |name: &str| values_of(source, source.tensor(name)?);
    for layer in 0..config.layer_count {
        let mut statistics = calibrator.statistics(Needs::Moments)?;
        for (reader, name) in [(Reader::QueryKeyValue, "attn_norm"), (Reader::FeedForward, "ffn_norm")] {
            let weight = norm(&format!("blk.{layer}.{name}.weight"))?;
            let found = statistics.remove(&reader).and_then(|s| s.second_moments);
            add(&mut sums, found, &weight)?;
        }
        calibrator.advance(Vec::new())?;
        progress(layer + 1);
    }
    let found = calibrator.head(Needs::Moments)?.second_moments;
    add(&mut sums, found, &norm("output_norm.weight")?)?;
    let found =
        eigen(&sums).ok_or_else(|| CompressError::Moments { tensor: "token_embd.weight".to_owned() })?;
    Ok(found.vectors)
}

/// Adds moments of what a norm gave, without its weight.
fn add(sums: &mut Square, found: Option<Square>, weight: &[f32]) -> Result<()> {
    let Some(found) = found else {
        let reason = "its stream is wider than second moments are kept for".to_owned();
        return Err(CompressError::Prune { reason });
    };
    let inverse: Vec<f64> =
        weight.iter().map(|w| if *w == 0.0 { 0.0 } else { 1.0 / f64::from(*w) }).collect();
    for (i, row) in found.values.chunks_exact(found.size).enumerate() {
        let sums = sums.row_mut(i).iter_mut();
        sums.zip(row).zip(&inverse).for_each(|((sum, m), f)| *sum += m * inverse[i] * f);
    }
    Ok(())
}

/// Where the turned model is kept while it is pruned; the name says what it was made of.
pub(super) fn rotated_path(path: &Path, source: &Gguf, windows: &Windows) -> PathBuf {
    let key =
        format!("{:?} {:?} {:?}", source.modified(), source.tensors(), windows.iter().collect::<Vec<_>>());
    let hash: String =
        Sha256::digest(key.as_bytes()).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".rotated-{hash}"));
    PathBuf::from(name)
}

/// Writes `source` with its stream turned to `axes`: the same model in other values. Norm weights are folded into the matrices behind
/// them; an output matrix that is the embedding becomes a tensor of its own.
pub(super) fn rotate_file(source: &Gguf, path: &Path, axes: &Square, threads: usize) -> Result<()> {
    let turned = turned(source)?;
    let mut writer = GgufWriter::new();
    for (key, value) in source.metadata().filter(|(key, _)| *key != Config::ACTIVATION_SCALES) {
        writer.metadata(key, value.clone())?;
    }
    for tensor in &turned {
        writer.tensor_with(tensor.name, &tensor.info.shape, tensor.dtype, |_| Ok(()))?;
    }
    let mut output = Output::open(path, writer.layout()?, &format!("{:?}", axes.values))?;
    for (index, tensor) in turned.iter().enumerate() {
        let bytes = bytes_of(source, tensor, axes, threads)?;
        output.write(index, &bytes)?;
    }
    output.finish()
}

/// A tensor of the turned model.
struct Turned<'a> {
    name: &'a str,
    /// What it is made of.
    info: &'a TensorInfo,
    dtype: TensorType,
}

fn turned(source: &Gguf) -> Result<Vec<Turned<'_>>> {
    let mut all = Vec::new();
    for info in source.tensors() {
        let format = block_format(info)?;
        let matrix = info.shape.len() > 1;
        let format = if matrix && format.is_quantized() { BlockFormat::F16 } else { format };
        all.push(Turned { name: &info.name, info, dtype: tensor_type(format) });
    }
    if all.iter().all(|tensor| tensor.name != "output.weight") {
        let embedding = all.iter().find(|tensor| tensor.name == "token_embd.weight");
        let head = embedding.map(|tensor| Turned { name: "output.weight", ..*tensor });
        all.extend(head);
    }
    Ok(all)
}

fn bytes_of(source: &Gguf, tensor: &Turned<'_>, turn: &Square, threads: usize) -> Result<Vec<u8>> {
    let part = part_of(tensor.name);
    if UNTOUCHED.contains(&part) {
        return Ok(source.tensor_bytes(tensor.name)?.to_vec());
    }
    let mut values = values_of(source, tensor.info)?;
    let width = tensor.info.shape[0] as usize;
    let (columns, rows) = axes(part);
    if part.ends_with("norm.weight") {
        values.fill(1.0);
    } else {
        if let Some((norm, _)) = FOLDS.iter().find(|(_, readers)| readers.contains(&part)) {
            let prefix = tensor.name.strip_suffix(part).unwrap_or("");
            let weight = values_of(source, source.tensor(&format!("{prefix}{norm}"))?)?;
            let rows = values.chunks_exact_mut(width);
            rows.for_each(|row| row.iter_mut().zip(&weight).for_each(|(v, w)| *v *= w));
        }
        if rows == Axis::Stream {
            // Its outputs turn: axes · W.
            let columns = transposed(&values, width);
            values = transposed(&rotate(&columns, turn, threads), turn.size);
        } else if columns == Axis::Stream {
            values = rotate(&values, turn, threads);
        }
    }
    let format = BlockFormat::from_name(tensor.dtype.name()).unwrap_or(BlockFormat::F32);
    let mut bytes = vec![0; format.size_bytes(values.len()).unwrap_or(0)];
    quantize(format, &values, &mut bytes)?;
    Ok(bytes)
}

/// Every row in the coordinates of the axes.
pub(super) fn rotate(values: &[f32], axes: &Square, threads: usize) -> Vec<f32> {
    let mut turned = Vec::with_capacity(values.len());
    for rows in values.chunks(ROWS_AT_ONCE * axes.size) {
        let rows: Vec<f64> = rows.iter().map(|v| f64::from(*v)).collect();
        turned
            .extend(times_transposed(&rows, &axes.values, axes.size, threads).into_iter().map(|v| v as f32));
    }
    turned
}
