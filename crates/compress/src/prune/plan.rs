//! What a pruned model is made of: which values of which tensor stay, and what the file says of itself.

use ganglion_gguf::{Gguf, GgufWriter, TensorInfo, Value};
use ganglion_kernels::{BlockFormat, dequantize, dequantize_matrix, quantize};
use ganglion_llm::{Config, block_format, tensor_type};

use crate::error::Result;
use crate::mix::layer_part;

/// Sizes of a model that pruning changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sizes {
    pub(super) hidden: usize,
    pub(super) head_dim: usize,
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    pub(super) channels: usize,
}

impl Sizes {
    pub(super) fn of(config: &Config) -> Self {
        Self {
            hidden: config.embedding_length,
            head_dim: config.head_dim,
            heads: config.head_count,
            kv_heads: config.head_count_kv,
            channels: config.feed_forward_length,
        }
    }

    /// Query heads that share a key/value head.
    pub(super) fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    pub(super) fn length(&self, axis: Axis) -> Option<usize> {
        match axis {
            Axis::Whole => None,
            Axis::Stream => Some(self.hidden),
            Axis::Queries => Some(self.heads * self.head_dim),
            Axis::KeyValues => Some(self.kv_heads * self.head_dim),
            Axis::Channels => Some(self.channels),
        }
    }
}

/// What the rows or columns of a matrix stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Axis {
    /// Nothing that can be cut.
    Whole,
    /// Values of the residual stream.
    Stream,
    /// Values of query heads.
    Queries,
    /// Values of key or value heads.
    KeyValues,
    /// Channels of the feed-forward part.
    Channels,
}

/// Columns (or the values of a vector) and rows of a tensor, by its name without the layer.
pub(super) fn axes(part: &str) -> (Axis, Axis) {
    use Axis::{Channels, KeyValues, Queries, Stream, Whole};
    match part {
        "attn_norm.weight" | "ffn_norm.weight" | "output_norm.weight" => (Stream, Whole),
        "attn_output.bias" | "ffn_down.bias" => (Stream, Whole),
        "token_embd.weight" | "output.weight" | "attn_qkv.weight" => (Stream, Whole),
        "attn_q.weight" => (Stream, Queries),
        "attn_q.bias" => (Queries, Whole),
        "attn_k.weight" | "attn_v.weight" => (Stream, KeyValues),
        "attn_k.bias" | "attn_v.bias" => (KeyValues, Whole),
        "attn_output.weight" => (Queries, Stream),
        "ffn_gate.weight" | "ffn_up.weight" => (Stream, Channels),
        "ffn_gate.bias" | "ffn_up.bias" => (Channels, Whole),
        "ffn_down.weight" => (Channels, Stream),
        _ => (Whole, Whole),
    }
}

/// A name without its layer.
pub(super) fn part_of(name: &str) -> &str {
    layer_part(name).map_or(name, |(_, part)| part)
}

/// The values of a layer that stay, in ascending order.
#[derive(Debug, Clone)]
pub(super) struct Cut {
    pub(super) queries: Vec<usize>,
    pub(super) key_values: Vec<usize>,
    pub(super) channels: Vec<usize>,
}

/// One tensor of the result.
#[derive(Debug)]
pub(super) struct Kept {
    /// Index among the source's tensors.
    pub(super) source: usize,
    name: String,
    pub(super) shape: Vec<u64>,
    pub(super) format: BlockFormat,
    /// Its values are solved anew.
    pub(super) solved: bool,
}

/// The result's tensors and sizes.
pub(super) struct Plan {
    pub(super) kept: Vec<Kept>,
    pub(super) before: Sizes,
    pub(super) after: Sizes,
    layers: usize,
}

impl Plan {
    /// `solved` says of a tensor, by its name without the layer, whether its values will be new.
    pub(super) fn new(
        source: &Gguf,
        before: Sizes,
        after: Sizes,
        removed: &[usize],
        solved: &dyn Fn(&str) -> bool,
    ) -> Result<Self> {
        let mut kept = Vec::new();
        let mut layers = 0;
        for (index, info) in source.tensors().iter().enumerate() {
            let name = match layer_part(&info.name) {
                Some((layer, _)) if removed.contains(&layer) => continue,
                Some((layer, part)) => {
                    let place = layer - removed.iter().filter(|gone| **gone < layer).count();
                    layers = layers.max(place + 1);
                    format!("blk.{place}.{part}")
                }
                None => info.name.clone(),
            };
            let (columns, rows) = axes(part_of(&info.name));
            let mut shape = info.shape.clone();
            let mut cut = [false; 2];
            for (side, (length, axis)) in shape.iter_mut().zip([columns, rows]).enumerate().take(2) {
                let (old, new) = (before.length(axis), after.length(axis));
                cut[side] = old != new;
                *length = new.filter(|_| cut[side]).map_or(*length, |new| new as u64);
            }
            let solved = solved(part_of(&info.name));
            // New values: not quantised a second time here. Rows are whole blocks of what they were.
            let stored = block_format(info)?;
            let plain = [BlockFormat::F32, BlockFormat::F16].contains(&stored);
            let fresh = (solved || cut[0]) && info.shape.len() > 1;
            let format = if fresh && !plain { BlockFormat::F16 } else { stored };
            kept.push(Kept { source: index, name, shape, format, solved });
        }
        Ok(Self { kept, before, after, layers })
    }

    pub(super) fn header<'a>(&self, source: &Gguf, config: &Config) -> Result<GgufWriter<'a>> {
        let key = |name: &str| format!("{}.{name}", config.architecture);
        let (before, after) = (self.before, self.after);
        let mut changed = vec![("block_count", Value::U32(self.layers as u32))];
        if before.channels != after.channels {
            changed.push(("feed_forward_length", Value::U32(after.channels as u32)));
        }
        if (before.heads, before.hidden) != (after.heads, after.hidden) {
            // A head is no longer what the stream divided by the heads gives.
            let numbers = [
                ("attention.head_count", after.heads),
                ("attention.head_count_kv", after.kv_heads),
                ("attention.key_length", after.head_dim),
                ("attention.value_length", after.head_dim),
            ];
            changed.extend(numbers.map(|(name, number)| (name, Value::U32(number as u32))));
        }
        if before.hidden != after.hidden {
            let epsilon = config.norm_epsilon * self.narrowing();
            changed.push(("embedding_length", Value::U32(after.hidden as u32)));
            changed.push(("attention.layer_norm_rms_epsilon", Value::F32(epsilon)));
        }
        let mut writer = GgufWriter::new();
        for (name, value) in source.metadata() {
            // Scales that were fixed for the activations of another model.
            let stale = name == Config::ACTIVATION_SCALES;
            if !stale && !changed.iter().any(|(changed, _)| key(changed) == name) {
                writer.metadata(name, value.clone())?;
            }
        }
        for (name, value) in changed {
            writer.metadata(key(name), value)?;
        }
        for kept in &self.kept {
            writer.tensor_with(kept.name.clone(), &kept.shape, tensor_type(kept.format), |_| Ok(()))?;
        }
        Ok(writer)
    }

    /// By how much the stream is narrower: a norm divides by the root of a mean over fewer values, and what was cut counts as zeros.
    fn narrowing(&self) -> f32 {
        self.before.hidden as f32 / self.after.hidden as f32
    }

    /// Whether a tensor is stored as it is.
    pub(super) fn is_copied(&self, kept: &Kept, source: &Gguf) -> bool {
        let info = &source.tensors()[kept.source];
        !kept.solved && kept.shape == info.shape
    }

    /// Stored bytes of a tensor that holds `values` of the source's shape.
    pub(super) fn stored(
        &self,
        kept: &Kept,
        info: &TensorInfo,
        values: &[f32],
        cut: &Cut,
    ) -> Result<Vec<u8>> {
        let (columns, rows) = axes(part_of(&info.name));
        let (width, height) = (info.shape[0] as usize, info.shape.get(1).map_or(1, |n| *n as usize));
        let columns = self.stays(columns, width, cut);
        let mut chosen = Vec::with_capacity(kept.shape.iter().product::<u64>() as usize);
        for row in self.stays(rows, height, cut) {
            chosen.extend(columns.iter().map(|j| values[row * width + j]));
        }
        if info.name.ends_with("norm.weight") && info.shape[0] == self.before.hidden as u64 {
            let scale = self.narrowing().sqrt();
            chosen.iter_mut().for_each(|v| *v *= scale);
        }
        let mut bytes = vec![0; kept.format.size_bytes(chosen.len()).unwrap_or(0)];
        quantize(kept.format, &chosen, &mut bytes)?;
        Ok(bytes)
    }

    /// The rows that stay of stored bytes, if nothing else changes.
    pub(super) fn rows(&self, kept: &Kept, info: &TensorInfo, bytes: &[u8], cut: &Cut) -> Option<Vec<u8>> {
        if kept.solved || kept.shape[0] != info.shape[0] || info.shape.len() != 2 {
            return None;
        }
        let (_, rows) = axes(part_of(&info.name));
        let height = info.shape[1] as usize;
        let row_bytes = bytes.len() / height;
        let rows = self.stays(rows, height, cut);
        Some(rows.iter().flat_map(|row| &bytes[row * row_bytes..(row + 1) * row_bytes]).copied().collect())
    }

    fn stays(&self, axis: Axis, length: usize, cut: &Cut) -> Vec<usize> {
        match axis {
            Axis::Stream => (0..self.after.hidden).collect(),
            Axis::Queries => cut.queries.clone(),
            Axis::KeyValues => cut.key_values.clone(),
            Axis::Channels => cut.channels.clone(),
            Axis::Whole => (0..length).collect(),
        }
    }

    /// A stored tensor in the shape that it had, with zeros for what was taken out, so that a layer of the source computes what the
    /// layer of the result will. What is left stands where `cut` says; without one it has moved to the front, which is the same as
    /// long as no bias stays behind.
    pub(super) fn widened(
        &self,
        kept: &Kept,
        info: &TensorInfo,
        bytes: &[u8],
        cut: Option<&Cut>,
    ) -> Result<Vec<f32>> {
        let count = kept.shape.iter().product::<u64>() as usize;
        let mut stored = vec![0.0; count];
        dequantize(kept.format, bytes, &mut stored)?;
        let (columns, rows) = axes(part_of(&info.name));
        let (width, narrow) = (info.shape[0] as usize, kept.shape[0] as usize);
        let places = |axis, count: usize| match cut {
            Some(cut) => self.stays(axis, count, cut),
            None => (0..count).map(|index| self.place(axis, index)).collect(),
        };
        let (columns, rows) = (places(columns, narrow), places(rows, count / narrow));
        let mut values = vec![0.0; info.element_count() as usize];
        for (row, place) in stored.chunks_exact(narrow).zip(rows) {
            row.iter().zip(&columns).for_each(|(v, column)| values[place * width + column] = *v);
        }
        Ok(values)
    }

    /// Where a value of the result stands at the front of the source's shape: query heads stay with their key/value head.
    fn place(&self, axis: Axis, index: usize) -> usize {
        let (old, new) = (self.before.group(), self.after.group());
        match axis {
            Axis::Queries => {
                let (head, value) = (index / self.before.head_dim, index % self.before.head_dim);
                (head / new * old + head % new) * self.before.head_dim + value
            }
            _ => index,
        }
    }
}

/// The values of a tensor.
pub(super) fn values_of(source: &Gguf, info: &TensorInfo) -> Result<Vec<f32>> {
    let mut values = vec![0.0; info.element_count() as usize];
    dequantize_matrix(
        block_format(info)?,
        info.shape[0] as usize,
        source.tensor_bytes(&info.name)?,
        &mut values,
    )?;
    Ok(values)
}
