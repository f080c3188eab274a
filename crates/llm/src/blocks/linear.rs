//! Products of one input, biases added: whole matrices in one fork, those in two factors in a second step.

use ganglion_kernels::{ActivationBuffer, Input, Matrix, add_bias, matmul};

use super::{Reader, Tap};
use crate::model::Model;
use crate::tensors::Linear;

/// One of the products.
pub(super) struct Product<'a> {
    /// Name of its tensor without the layer: `attn_q`.
    pub(super) name: &'static str,
    pub(super) linear: &'a Linear<Matrix, Vec<f32>>,
    /// (tokens, rows)
    pub(super) out: &'a mut [f32],
}

/// What stands between two factors.
pub(super) struct Between<'a> {
    /// (tokens, rank) for each product of a call.
    pub(super) values: &'a mut [f32],
    pub(super) quantised: &'a mut ActivationBuffer,
    /// Sees the values, with the layer.
    pub(super) tap: Option<(&'a Tap<'a>, usize)>,
}

/// `out = W·x + bias`, or `W·(F·x) + bias` with a first factor F, for each product.
pub(super) fn products<const N: usize>(
    model: &Model,
    input: &Input<'_>,
    tokens: usize,
    mut products: [Product<'_>; N],
    between: Between<'_>,
) {
    let (isa, pool) = (model.isa, &model.pool);
    let mut rest = between.values;
    let mut inner: [&mut [f32]; N] = std::array::from_fn(|i| {
        let rank = products[i].linear.first.as_ref().map_or(0, Matrix::rows);
        let (part, others) = std::mem::take(&mut rest).split_at_mut(tokens * rank);
        rest = others;
        part
    });
    let mut both = products.iter_mut().zip(inner.iter_mut());
    let mut step: [(&Matrix, &mut [f32]); N] = std::array::from_fn(|_| {
        let (product, inner) = both.next().unwrap_or_else(|| unreachable!("N products"));
        match &product.linear.first {
            Some(first) => (first, &mut **inner),
            None => (&product.linear.matrix, &mut *product.out),
        }
    });
    matmul(isa, pool, input, &mut step);
    for (Product { name, linear, out }, inner) in products.iter_mut().zip(inner) {
        if linear.first.is_some() {
            if let Some((tap, layer)) = between.tap {
                tap(layer, Reader::Second(name), inner);
            }
            between.quantised.prepare(isa, pool, inner, (tokens, linear.matrix.k()), &[&linear.matrix]);
            let input = Input::new(inner, between.quantised);
            matmul(isa, pool, &input, &mut [(&linear.matrix, &mut **out)]);
        }
        if let Some(bias) = &linear.bias {
            add_bias(isa, pool, out, bias);
        }
    }
}
