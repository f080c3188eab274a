//! From the residual stream to logits.

use ganglion_kernels::{Input, add_rows, soft_cap};

use super::Buffers;
use super::norm::norm;
use crate::TokenId;
use crate::model::Model;

/// Norms the hidden state of one token into the first row of `normed`, and quantises it.
pub(crate) fn norm_for_head(model: &Model, index: usize, buffers: &mut Buffers) {
    let length = model.config().embedding_length;
    let Buffers { hidden, normed, quantised, .. } = buffers;
    let normed = &mut normed[..length];
    norm(model, &model.weights.output_norm, &hidden[index * length..(index + 1) * length], normed);
    quantised.prepare(model.isa, &model.pool, normed, (1, length), &[model.head()]);
}

/// What the head's matrix reads after [`norm_for_head`].
pub(crate) fn head_input<'a>(model: &Model, buffers: &'a Buffers) -> Input<'a> {
    Input::new(&buffers.normed[..model.config().embedding_length], &buffers.quantised)
}

/// Bias and soft-cap of logits: `out[i]` belongs to `rows[i]`, or to token i without rows.
pub(crate) fn finish_logits(model: &Model, rows: Option<&[TokenId]>, out: &mut [f32]) {
    match (&model.weights.head_bias, rows) {
        (Some(bias), Some(rows)) => {
            out.iter_mut().zip(rows).for_each(|(logit, row)| *logit += bias[*row as usize]);
        }
        (Some(bias), None) => add_rows(model.isa, out, bias),
        (None, _) => {}
    }
    if let Some(cap) = model.config().final_softcap {
        soft_cap(model.isa, out, cap);
    }
}
