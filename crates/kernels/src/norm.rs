//! RMSNorm (Zhang and Sennrich 2019) and the residual sum.

use crate::isa::{Isa, multiversion};
use crate::limits::LANES;
use crate::math::reduce;
use crate::pool::Pool;

/// `out = x / sqrt(mean(x²) + epsilon) · weight` for every row; `x` and `out` are (tokens, weight.len()).
///
/// # Panics
/// If a shape disagrees.
pub fn rms_norm(isa: Isa, pool: &Pool, x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
    assert!(x.len() == out.len(), "input and output differ in length");
    pool.for_each_row(out, weight.len(), &|token, row| {
        let source = &x[token * weight.len()..(token + 1) * weight.len()];
        norm_row(isa, source, weight, epsilon, row);
    });
}

multiversion! {
    fn norm_row(isa, x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
        let mut lanes = [0.0f32; LANES];
        let (groups, tail) = x.as_chunks::<LANES>();
        for group in groups {
            for (lane, v) in lanes.iter_mut().zip(group) {
                *lane = v.mul_add(*v, *lane);
            }
        }
        for (lane, v) in lanes.iter_mut().zip(tail) {
            *lane = v.mul_add(*v, *lane);
        }
        let scale = 1.0 / (reduce(&lanes) / x.len() as f32 + epsilon).sqrt();
        for ((y, v), w) in out.iter_mut().zip(x).zip(weight) {
            *y = v * scale * w;
        }
    }
}

/// `x += y`, element by element.
///
/// # Panics
/// If the lengths differ.
pub fn add_rows(isa: Isa, x: &mut [f32], y: &[f32]) {
    assert!(x.len() == y.len(), "summands differ in length");
    add(isa, x, y);
}

multiversion! {
    fn add(isa, x: &mut [f32], y: &[f32]) {
        for (a, b) in x.iter_mut().zip(y) {
            *a += b;
        }
    }
}
