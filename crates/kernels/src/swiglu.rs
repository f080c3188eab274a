//! SwiGLU (Shazeer 2020): `silu(gate) · up`.

use crate::isa::{Isa, multiversion};
use crate::math::exp;
use crate::pool::Pool;

/// `gate = gate / (1 + e^-gate) · up`; both are (tokens, length).
///
/// # Panics
/// If the shapes differ or are not whole rows.
pub fn swiglu(isa: Isa, pool: &Pool, gate: &mut [f32], up: &[f32], length: usize) {
    assert!(gate.len() == up.len(), "gate and up differ in length");
    pool.for_each_row(gate, length, &|token, row| {
        swiglu_row(isa, row, &up[token * length..(token + 1) * length]);
    });
}

multiversion! {
    fn swiglu_row(isa, gate: &mut [f32], up: &[f32]) {
        for (g, u) in gate.iter_mut().zip(up) {
            *g = *g / (1.0 + exp(-*g)) * u;
        }
    }
}
