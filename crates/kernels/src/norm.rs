//! Normalisations of rows, and what is added to rows: biases and the residual.

use crate::isa::{Isa, multiversion};
use crate::limits::LANES;
use crate::math::reduce;
use crate::pool::Pool;

/// RMSNorm (Zhang and Sennrich 2019): `out = x / sqrt(mean(x²) + epsilon) · weight` for every row; `x` and `out` are
/// (tokens, weight.len()).
///
/// # Panics
/// If a shape disagrees.
pub fn rms_norm(isa: Isa, pool: &Pool, x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
    assert!(x.len() == out.len(), "input and output differ in length");
    pool.for_each_row(out, weight.len(), &|token, row| {
        let source = &x[token * weight.len()..(token + 1) * weight.len()];
        rms_row(isa, source, weight, epsilon, row);
    });
}

/// [`rms_norm`] in place of a (tokens, row) array, in parts of `weight.len()`: with one head's weight, every head of a
/// token is normed by itself.
///
/// # Panics
/// If `x` is not whole rows or a row not whole parts.
pub fn rms_norm_in_place(isa: Isa, pool: &Pool, x: &mut [f32], row: usize, weight: &[f32], epsilon: f32) {
    assert!(row.is_multiple_of(weight.len()), "whole parts");
    pool.for_each_row(x, row, &|_, heads| {
        for head in heads.chunks_exact_mut(weight.len()) {
            rms_row_in_place(isa, head, weight, epsilon);
        }
    });
}

/// LayerNorm (Ba, Kiros and Hinton 2016): `out = (x - mean) / sqrt(variance + epsilon) · weight + bias` for every row; `x`
/// and `out` are (tokens, weight.len()).
///
/// # Panics
/// If a shape disagrees.
pub fn layer_norm(
    isa: Isa,
    pool: &Pool,
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
    epsilon: f32,
    out: &mut [f32],
) {
    assert!(x.len() == out.len() && weight.len() == bias.len(), "shapes differ");
    pool.for_each_row(out, weight.len(), &|token, row| {
        let source = &x[token * weight.len()..(token + 1) * weight.len()];
        layer_row(isa, source, weight, bias, epsilon, row);
    });
}

/// `Σ f(x)` in 16 lanes and the fixed tree; `add(x, lane)` is the next partial sum.
#[inline(always)]
fn sum(x: &[f32], add: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (groups, tail) = x.as_chunks::<LANES>();
    for group in groups {
        for (lane, v) in lanes.iter_mut().zip(group) {
            *lane = add(*v, *lane);
        }
    }
    for (lane, v) in lanes.iter_mut().zip(tail) {
        *lane = add(*v, *lane);
    }
    reduce(&lanes)
}

#[inline(always)]
fn rms_scale(x: &[f32], epsilon: f32) -> f32 {
    1.0 / (sum(x, |v, lane| v.mul_add(v, lane)) / x.len() as f32 + epsilon).sqrt()
}

multiversion! {
    fn rms_row(isa, x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
        let scale = rms_scale(x, epsilon);
        for ((y, v), w) in out.iter_mut().zip(x).zip(weight) {
            *y = v * scale * w;
        }
    }
}

multiversion! {
    fn rms_row_in_place(isa, x: &mut [f32], weight: &[f32], epsilon: f32) {
        let scale = rms_scale(x, epsilon);
        for (v, w) in x.iter_mut().zip(weight) {
            *v = *v * scale * w;
        }
    }
}

multiversion! {
    fn layer_row(isa, x: &[f32], weight: &[f32], bias: &[f32], epsilon: f32, out: &mut [f32]) {
        let length = x.len() as f32;
        let mean = sum(x, |v, lane| v + lane) / length;
        let variance = sum(x, |v, lane| (v - mean).mul_add(v - mean, lane)) / length;
        let scale = 1.0 / (variance + epsilon).sqrt();
        for (((y, v), w), b) in out.iter_mut().zip(x).zip(weight).zip(bias) {
            *y = ((v - mean) * scale).mul_add(*w, *b);
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

/// `x += bias` for every row; `x` is (tokens, bias.len()).
///
/// # Panics
/// If `x` is not whole rows.
pub fn add_bias(isa: Isa, pool: &Pool, x: &mut [f32], bias: &[f32]) {
    pool.for_each_row(x, bias.len(), &|_, row| add(isa, row, bias));
}

/// `x = y · factor + x`, element by element.
///
/// # Panics
/// If the lengths differ.
pub fn add_scaled(isa: Isa, x: &mut [f32], y: &[f32], factor: f32) {
    assert!(x.len() == y.len(), "summands differ in length");
    add_multiple(isa, x, y, factor);
}

multiversion! {
    fn add(isa, x: &mut [f32], y: &[f32]) {
        for (a, b) in x.iter_mut().zip(y) {
            *a += b;
        }
    }
}

multiversion! {
    fn add_multiple(isa, x: &mut [f32], y: &[f32], factor: f32) {
        for (a, b) in x.iter_mut().zip(y) {
            *a = b.mul_add(factor, *a);
        }
    }
}
