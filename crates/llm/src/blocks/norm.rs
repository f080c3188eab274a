//! Norms of the residual stream.

use ganglion_kernels::{layer_norm, rms_norm};

use crate::model::Model;
use crate::tensors::Norm;

/// `out = norm(x)`; both are (tokens, embedding).
pub(super) fn norm(model: &Model, norm: &Norm<Vec<f32>>, x: &[f32], out: &mut [f32]) {
    let (isa, pool, epsilon) = (model.isa, &model.pool, model.config().norm_epsilon);
    match norm {
        Norm::Rms { weight } => rms_norm(isa, pool, x, weight, epsilon, out),
        Norm::Layer { weight, bias } => layer_norm(isa, pool, x, weight, bias, epsilon, out),
    }
}
