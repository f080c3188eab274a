//! Where a layer has room for factors: norms before matrices, values before the attention's output, up before down.

use ganglion_kernels::BlockFormat;
use ganglion_llm::{Config, Reader};

use crate::error::Result;
use crate::methods::{Folding, MatrixRef, Method, fold_awq, fold_smooth};
use crate::statistics::Statistics;

/// What writes an activation, and what reads it.
struct Joint {
    reader: Reader,
    /// Tensors whose outputs are divided: rows of matrices, values of vectors.
    writers: &'static [&'static str],
    readers: &'static [&'static str],
    /// Tensors that must be there for the joint to be what it seems: a norm of its own for each sub-layer, a gate.
    requires: &'static [&'static str],
}

const JOINTS: [Joint; 4] = [
    Joint {
        reader: Reader::QueryKeyValue,
        writers: &["attn_norm.weight", "attn_norm.bias"],
        readers: &["attn_q.weight", "attn_k.weight", "attn_v.weight"],
        requires: &["attn_norm.weight", "ffn_norm.weight", "attn_q.weight", "attn_k.weight", "attn_v.weight"],
    },
    Joint {
        reader: Reader::FeedForward,
        writers: &["ffn_norm.weight", "ffn_norm.bias"],
        readers: &["ffn_gate.weight", "ffn_up.weight"],
        requires: &["ffn_norm.weight", "ffn_gate.weight", "ffn_up.weight"],
    },
    Joint {
        reader: Reader::AttentionOutput,
        writers: &["attn_v.weight", "attn_v.bias"],
        readers: &["attn_output.weight"],
        requires: &["attn_v.weight", "attn_output.weight"],
    },
    Joint {
        reader: Reader::Down,
        writers: &["ffn_up.weight", "ffn_up.bias"],
        readers: &["ffn_down.weight"],
        requires: &["ffn_gate.weight", "ffn_up.weight", "ffn_down.weight"],
    },
];

/// The factors of one layer. `statistics` and `format` know the layer's inputs and types, `read` its values.
///
/// # Errors
/// If a value cannot be read or stored.
pub(crate) fn fold_layer<'s>(
    method: Method,
    config: &Config,
    layer: usize,
    statistics: &dyn Fn(Reader) -> Option<&'s Statistics>,
    format: &dyn Fn(&str) -> Option<BlockFormat>,
    read: &dyn Fn(&str) -> Result<Option<Vec<f32>>>,
) -> Result<Folding> {
    let mut folding = Folding::default();
    let full = |part: &str| format!("blk.{layer}.{part}");
    for joint in &JOINTS {
        let Some(statistics) = statistics(joint.reader) else { continue };
        let names: Vec<String> = joint.readers.iter().map(|part| full(part)).collect();
        let there = joint.requires.iter().all(|part| format(&full(part)).is_some());
        let Some(target) = format(&names[0]).filter(|format| there && can_fold(method, *format)) else {
            continue;
        };
        let columns = statistics.columns();
        let mut values = Vec::new();
        for name in &names {
            values.extend(read(name)?);
        }
        let matrices: Vec<_> = values.iter().map(|values| MatrixRef { values, columns }).collect();
        // Query heads of a group read the same values.
        let dim = config.head_dim;
        let per_group = config.head_count / config.head_count_kv.max(1);
        let value_row = |j: usize| j / dim / per_group * dim + j % dim;
        let own = |j: usize| j;
        let (groups, shared): (usize, &dyn Fn(usize) -> usize) = match joint.reader {
            Reader::AttentionOutput => (config.kv_length(), &value_row),
            _ => (columns, &own),
        };
        let factors = match method {
            Method::SmoothQuant => fold_smooth(&matrices, statistics, groups, shared),
            _ => fold_awq(target, &matrices, statistics, groups, shared)?,
        };
        let wide: Vec<f32> = (0..columns).map(|j| factors[shared(j)]).collect();
        for name in names {
            multiply(&mut folding.columns, name, &wide);
        }
        let inverse: Vec<f32> = factors.iter().map(|f| 1.0 / f).collect();
        for part in joint.writers.iter().filter(|part| format(&full(part)).is_some()) {
            // A vector is one row.
            let vector = part.ends_with(".bias") || part.contains("norm");
            multiply(if vector { &mut folding.columns } else { &mut folding.rows }, full(part), &inverse);
        }
    }
    Ok(folding)
}

/// AWQ tries factors out on blocks; in a trellis format the rotation evens out what factors would.
fn can_fold(method: Method, format: BlockFormat) -> bool {
    match method {
        Method::SmoothQuant => format.is_quantized() && format.trellis_bits().is_none(),
        _ => format.has_block_code(),
    }
}

fn multiply(all: &mut std::collections::HashMap<String, Vec<f32>>, name: String, factors: &[f32]) {
    let known = all.entry(name).or_insert_with(|| vec![1.0; factors.len()]);
    known.iter_mut().zip(factors).for_each(|(known, f)| *known *= f);
}
