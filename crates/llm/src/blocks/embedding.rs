//! From token ids to the residual stream.

use ganglion_kernels::add_rows;

use super::{Buffers, Pass};
use crate::TokenId;

/// Fills `hidden` with the embeddings of `tokens`, scaled, with their positions if these are learned.
pub(crate) fn embed(pass: Pass<'_>, tokens: &[TokenId], buffers: &mut Buffers) {
    let (weights, config) = (&pass.model.weights, pass.model.config());
    let length = config.embedding_length;
    for (index, (row, token)) in buffers.hidden.chunks_exact_mut(length).zip(tokens).enumerate() {
        weights.embedding.dequantize_row(*token as usize, row);
        if config.embedding_scale != 1.0 {
            row.iter_mut().for_each(|v| *v *= config.embedding_scale);
        }
        if let Some(positions) = &weights.position_embedding {
            let learned = &mut buffers.normed[..length];
            positions.dequantize_row(pass.position + index, learned);
            add_rows(pass.model.isa, row, learned);
        }
    }
}
