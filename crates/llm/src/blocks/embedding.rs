//! From token ids to the residual stream.

use ganglion_kernels::add_rows;

use super::{Buffers, Pass};
use crate::sequence::Sequence;

/// Fills `hidden` with the embeddings of the pass's tokens, scaled, with their positions if these are learned.
pub(crate) fn embed(pass: Pass<'_>, sequences: &[Sequence], buffers: &mut Buffers) {
    let (weights, config) = (&pass.model.weights, pass.model.config());
    let length = config.embedding_length;
    let tokens = pass.parts.iter().flat_map(|part| {
        let first = sequences[part.sequence].position;
        part.tokens.iter().zip(first..)
    });
    for (row, (token, position)) in buffers.hidden.chunks_exact_mut(length).zip(tokens) {
        weights.embedding.dequantize_row(*token as usize, row);
        if config.embedding_scale != 1.0 {
            row.iter_mut().for_each(|v| *v *= config.embedding_scale);
        }
        if let Some(positions) = &weights.position_embedding {
            let learned = &mut buffers.normed[..length];
            positions.dequantize_row(position, learned);
            add_rows(pass.model.isa, row, learned);
        }
    }
}
