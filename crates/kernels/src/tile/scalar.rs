//! The reference of the integer kernels: each output by itself, in the defining order.

use super::{Group, QuantKernels, QuantTiles, QuantTokens};
use crate::limits::LANES;
use crate::math::f16_to_f32;

/// The portable kernels; they need no proof.
#[derive(Clone, Copy)]
pub(super) struct Scalar;

/// `LINES` lines a block; `weight(lines, lane, index in the block)` is the signed weight.
fn product<const LINES: usize, const R: usize, const N: usize>(
    w: QuantTiles<'_>,
    a: QuantTokens<'_>,
    tile: usize,
    token: usize,
    out: &mut Group<R, N>,
    weight: impl Fn(&[crate::matrix::Line; LINES], usize, usize) -> i32,
) {
    for (r, row_out) in out.iter_mut().enumerate() {
        let (lines, weight_scales) = w.tile::<LINES>(tile + r);
        for (n, lanes) in row_out.iter_mut().enumerate() {
            let (values, scales, _) = a.token(token + n);
            for (lane, output) in lanes.iter_mut().enumerate().take(LANES) {
                let mut acc = 0.0f32;
                for (b, block) in values.iter().enumerate() {
                    let mut sum = 0i32;
                    for (i, value) in block.iter().enumerate() {
                        sum += weight(&lines[b], lane, i) * i32::from(*value);
                    }
                    let scale = f16_to_f32(weight_scales[b].0[lane]) * scales[b];
                    acc = (sum as f32).mul_add(scale, acc);
                }
                *output = acc;
            }
        }
    }
}

impl QuantKernels for Scalar {
    fn q8<const R: usize, const N: usize>(
        self,
        w: QuantTiles<'_>,
        a: QuantTokens<'_>,
        tile: usize,
        token: usize,
        out: &mut Group<R, N>,
    ) {
        product::<8, R, N>(w, a, tile, token, out, |lines, lane, i| {
            i32::from(lines[i / 4].0[lane * 4 + i % 4]) - 128
        });
    }

    fn q4<const R: usize, const N: usize>(
        self,
        w: QuantTiles<'_>,
        a: QuantTokens<'_>,
        tile: usize,
        token: usize,
        out: &mut Group<R, N>,
    ) {
        product::<4, R, N>(w, a, tile, token, out, |lines, lane, i| {
            i32::from((lines[i / 8].0[lane * 4 + i % 4] >> (i % 8 / 4 * 4)) & 15) - 8
        });
    }
}
