//! First-order importance (LLM-Pruner, Ma et al. 2023): what a weight's absence does to the loss is about `|w · ∂L/∂w|`, and what a head's or
//! a channel's does, the sum over all weights that go with it.

use ganglion_gguf::Gguf;

use super::plan::{Axis, Sizes, axes};
use crate::error::Result;
use crate::gradient::{Gradients, Loss, MatrixGradient};
use crate::measure::Windows;
use crate::mix::layer_part;

/// Scores in each layer: of the columns of `attn_output` and of `ffn_down`.
pub(super) struct Taylor {
    pub(super) queries: Vec<Vec<f64>>,
    pub(super) channels: Vec<Vec<f64>>,
    /// Of whole layers.
    pub(super) layers: Vec<f64>,
}

/// Sums of rows and columns of `|w · ∂L/∂w|`.
fn sums(found: &MatrixGradient<'_>) -> (Vec<f64>, Vec<f64>) {
    let rows = found.weights.len() / found.columns;
    let (mut by_row, mut by_column) = (vec![0.0; rows], vec![0.0; found.columns]);
    let pairs = found.weights.chunks_exact(found.columns).zip(found.gradient.chunks_exact(found.columns));
    for (row, (weights, gradient)) in by_row.iter_mut().zip(pairs) {
        for (column, (w, g)) in by_column.iter_mut().zip(weights.iter().zip(gradient)) {
            let effect = f64::from(w * g).abs();
            *row += effect;
            *column += effect;
        }
    }
    (by_row, by_column)
}

/// Scores on a text, by one backward pass.
pub(super) fn scores(
    source: &Gguf,
    windows: &Windows,
    (sizes, layers): (Sizes, usize),
    threads: usize,
) -> Result<Taylor> {
    let length = |axis| sizes.length(axis).unwrap_or(0);
    let mut taylor = Taylor {
        queries: vec![vec![0.0; length(Axis::Queries)]; layers],
        channels: vec![vec![0.0; length(Axis::Channels)]; layers],
        layers: vec![0.0; layers],
    };
    let gradients = Gradients::new(source, windows.length(), threads)?;
    gradients.run(windows, Loss::Text, &mut |found| {
        let Some((layer, part)) = layer_part(found.tensor) else { return Ok(()) };
        let (columns, rows) = axes(part);
        let (by_row, by_column) = sums(&found);
        taylor.layers[layer] += by_row.iter().sum::<f64>();
        for (axis, sums) in [(columns, by_column), (rows, by_row)] {
            match axis {
                Axis::Queries => add(&mut taylor.queries[layer], &sums),
                Axis::Channels => add(&mut taylor.channels[layer], &sums),
                // A key/value head goes with the last of its queries: each carries a share.
                Axis::KeyValues => add(&mut taylor.queries[layer], &shared(&sums, sizes)),
                Axis::Stream | Axis::Whole => {}
            }
        }
        Ok(())
    })?;
    Ok(taylor)
}

fn add(total: &mut [f64], sums: &[f64]) {
    total.iter_mut().zip(sums).for_each(|(total, sum)| *total += sum);
}

/// Scores of key or value heads, shared out among the query heads of each.
fn shared(sums: &[f64], sizes: Sizes) -> Vec<f64> {
    let (dim, group) = (sizes.head_dim, sizes.group());
    let share = |i: usize| sums[i / dim / group * dim + i % dim] / group as f64;
    (0..sizes.heads * dim).map(share).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prune::Importance;
    use crate::prune::channels;
    use crate::prune::choice::Choice;
    use crate::prune::plan::values_of;
    use ganglion_gguf::GgufWriter;
    use ganglion_llm::Config;
    use std::path::Path;

    #[test]
    fn what_says_nothing_is_worth_nothing_and_goes_first() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../llm/tests/golden/tiny-f32.gguf");
        let source = Gguf::open(path).unwrap();
        let config = Config::from_header(source.header()).unwrap();
        let sizes = Sizes::of(&config);
        // Every third channel of layer 1 adds nothing.
        let mut writer = GgufWriter::new();
        for (key, value) in source.metadata() {
            writer.metadata(key, value.clone()).unwrap();
        }
        for info in source.tensors() {
            let mut values = values_of(&source, info).unwrap();
            if info.name == "blk.1.ffn_down.weight" {
                values
                    .chunks_mut(sizes.channels)
                    .for_each(|row| row.iter_mut().step_by(3).for_each(|v| *v = 0.0));
            }
            let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            writer.tensor(&info.name, &info.shape, ganglion_gguf::TensorType::F32, bytes).unwrap();
        }
        let mut bytes = Vec::new();
        writer.write_to(&mut bytes).unwrap();
        let source = Gguf::parse(bytes).unwrap();
        let vocab = config.vocab_size as u32;
        let windows = Windows::of_tokens((0..128).map(|i| i * 7919 % vocab).collect(), 32, 128).unwrap();
        let taylor = scores(&source, &windows, (sizes, config.layer_count), 2).unwrap();
        for (j, score) in taylor.channels[1].iter().enumerate() {
            assert_eq!(*score == 0.0, j % 3 == 0, "channel {j}: {score}");
        }
        assert!(taylor.channels[0].iter().chain(&taylor.queries[1]).all(|score| *score > 0.0));
        let down = values_of(&source, source.tensor("blk.1.ffn_down.weight").unwrap()).unwrap();
        let moments = crate::linalg::Square::zeros(sizes.channels);
        let choice = Choice::new(Importance::Taylor, moments, down, Some(&taylor.channels[1]));
        let nothing = sizes.channels.div_ceil(3);
        let stays = channels::choose(&choice, sizes.channels, sizes.channels - nothing).unwrap();
        assert!(stays.iter().all(|j| j % 3 != 0), "{stays:?}");
    }

    #[test]
    fn a_key_value_head_is_shared_by_its_queries() {
        let sizes = Sizes { hidden: 8, head_dim: 2, heads: 4, kv_heads: 2, channels: 8 };
        assert_eq!(shared(&[2.0, 4.0, 6.0, 8.0], sizes), [1.0, 2.0, 1.0, 2.0, 3.0, 4.0, 3.0, 4.0]);
    }
}
