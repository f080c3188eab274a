//! The feed-forward part: two products with an activation between, gated (Shazeer 2020) or not.

use ganglion_kernels::{ActivationBuffer, Input, Matrix, activate, activate_gated};

use super::linear::{Between, Product, products};
use super::{Buffers, Pass};
use crate::model::Model;
use crate::profile::{Profiler, Work};
use crate::tensors::Dense;

/// `projected = feed_forward(normed)`.
pub(super) fn feed_forward(
    pass: Pass<'_>,
    index: usize,
    weights: &Dense<Matrix, Vec<f32>>,
    buffers: &mut Buffers,
) {
    let length = pass.tokens * pass.model.config().embedding_length;
    let Buffers { normed, projected, gate, up, quantised, between, between_quantised, profiler, .. } =
        buffers;
    let shape = (pass.tokens, pass.model.config().embedding_length);
    quantised.prepare(pass.model.isa, &pass.model.pool, &normed[..length], shape, &readers(weights));
    profiler.lap("quantize", || Work::NONE);
    let tap = pass.tap.map(|tap| (tap, index));
    let between = Between { values: between, quantised: between_quantised, tap };
    let inner = Inner { gate, up, quantised, between, profiler };
    dense(pass.model, weights, &normed[..length], inner, &mut projected[..length]);
}

/// The matrices that read the part's input.
pub(super) fn readers(weights: &Dense<Matrix, Vec<f32>>) -> [&Matrix; 2] {
    let up = weights.up.reader();
    [weights.gate.as_ref().map_or(up, |gate| gate.reader()), up]
}

/// Scratch of [`dense`]. `quantised` already holds its input.
pub(super) struct Inner<'a> {
    pub(super) gate: &'a mut [f32],
    pub(super) up: &'a mut [f32],
    pub(super) quantised: &'a mut ActivationBuffer,
    pub(super) between: Between<'a>,
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
    let (length, tokens) = (weights.up.matrix.rows(), x.len() / model.config().embedding_length);
    let (gate, up) = (&mut inner.gate[..tokens * length], &mut inner.up[..tokens * length]);
    let Between { values, quantised, tap } = inner.between;
    let input = Input::new(x, inner.quantised);
    let first = Between { values: &mut *values, quantised: &mut *quantised, tap };
    let activated = match &weights.gate {
        Some(linear) => {
            let two = [
                Product { name: "ffn_gate", linear, out: &mut *gate },
                Product { name: "ffn_up", linear: &weights.up, out: &mut *up },
            ];
            products(model, &input, tokens, two, first);
            inner.profiler.lap("gate up", || Work::linear(&[linear, &weights.up], tokens));
            activate_gated(isa, pool, activation, gate, up, length);
            gate
        }
        None => {
            let one = [Product { name: "ffn_up", linear: &weights.up, out: &mut *up }];
            products(model, &input, tokens, one, first);
            inner.profiler.lap("up", || Work::linear(&[&weights.up], tokens));
            activate(isa, pool, activation, up, length);
            up
        }
    };
    inner.profiler.lap("activation", || Work::NONE);
    inner.quantised.prepare(isa, pool, activated, (tokens, length), &[weights.down.reader()]);
    inner.profiler.lap("quantize", || Work::NONE);
    let input = Input::new(activated, inner.quantised);
    let one = [Product { name: "ffn_down", linear: &weights.down, out: &mut *out }];
    products(model, &input, tokens, one, Between { values, quantised, tap });
    inner.profiler.lap("down", || Work::linear(&[&weights.down], tokens));
}
