//! The feed-forward part: two products with an activation between, gated (Shazeer 2020) or not.

use ganglion_kernels::{ActivationBuffer, Input, Matrix, activate, activate_gated, add_bias, matmul};

use super::{Buffers, Pass};
use crate::model::Model;
use crate::profile::{Profiler, Work};
use crate::tensors::Dense;

/// `projected = feed_forward(normed)`.
pub(super) fn feed_forward(pass: Pass<'_>, weights: &Dense<Matrix, Vec<f32>>, buffers: &mut Buffers) {
    let length = pass.tokens * pass.model.config().embedding_length;
    let Buffers { normed, projected, gate, up, quantised, profiler, .. } = buffers;
    let shape = (pass.tokens, pass.model.config().embedding_length);
    quantised.prepare(pass.model.isa, &pass.model.pool, &normed[..length], shape, &readers(weights));
    profiler.lap("quantize", || Work::NONE);
    let inner = Inner { gate, up, quantised, profiler };
    dense(pass.model, weights, &normed[..length], inner, &mut projected[..length]);
}

/// The matrices that read the part's input.
pub(super) fn readers(weights: &Dense<Matrix, Vec<f32>>) -> [&Matrix; 2] {
    let up = &weights.up.matrix;
    [weights.gate.as_ref().map_or(up, |gate| &gate.matrix), up]
}

/// Scratch of [`dense`]. `quantised` already holds its input.
pub(super) struct Inner<'a> {
    pub(super) gate: &'a mut [f32],
    pub(super) up: &'a mut [f32],
    pub(super) quantised: &'a mut ActivationBuffer,
    pub(super) profiler: &'a mut Profiler,
}

/// `out = down · f(…)` for the (tokens, embedding) rows of `x`.
pub(super) fn dense(
    model: &Model,
    weights: &Dense<Matrix, Vec<f32>>,
    x: &[f32],
    inner: Inner<'_>,
    out: &mut [f32],
) {
    let (isa, pool, activation) = (model.isa, &model.pool, model.config().design.activation);
    let (length, tokens) = (weights.up.matrix.rows(), x.len() / weights.up.matrix.k());
    let (gate, up) = (&mut inner.gate[..tokens * length], &mut inner.up[..tokens * length]);
    let with_bias = |x: &mut [f32], bias: &Option<Vec<f32>>| {
        if let Some(bias) = bias {
            add_bias(isa, pool, x, bias);
        }
    };
    let input = Input::new(x, inner.quantised);
    let activated = match &weights.gate {
        Some(linear) => {
            let products = &mut [(&linear.matrix, &mut *gate), (&weights.up.matrix, &mut *up)];
            matmul(isa, pool, &input, products);
            with_bias(gate, &linear.bias);
            with_bias(up, &weights.up.bias);
            inner.profiler.lap("gate up", || Work::products(&[&linear.matrix, &weights.up.matrix], tokens));
            activate_gated(isa, pool, activation, gate, up, length);
            gate
        }
        None => {
            matmul(isa, pool, &input, &mut [(&weights.up.matrix, &mut *up)]);
            with_bias(up, &weights.up.bias);
            inner.profiler.lap("up", || Work::products(&[&weights.up.matrix], tokens));
            activate(isa, pool, activation, up, length);
            up
        }
    };
    inner.profiler.lap("activation", || Work::NONE);
    inner.quantised.prepare(isa, pool, activated, (tokens, length), &[&weights.down.matrix]);
    inner.profiler.lap("quantize", || Work::NONE);
    let input = Input::new(activated, inner.quantised);
    matmul(isa, pool, &input, &mut [(&weights.down.matrix, &mut *out)]);
    with_bias(out, &weights.down.bias);
    inner.profiler.lap("down", || Work::products(&[&weights.down.matrix], tokens));
}
