//! The reference of the integer kernels: each output by itself, in the defining order.

use super::kernel::Group;
use super::layout::{Layout, ScaleKind};
use super::{QuantTiles, QuantTokens};
use crate::limits::{BLOCK, LANES};

/// Tokens `token..token + N` times the rows of `tile`.
pub(super) fn product<const N: usize>(
    layout: &Layout,
    w: QuantTiles<'_>,
    a: QuantTokens<'_>,
    tile: usize,
    token: usize,
    out: &mut Group<N>,
) {
    let lines = layout.bits.lines();
    for lane in 0..LANES {
        let mut acc = [0.0f32; N];
        for block in 0..w.blocks {
            let quants = &w.quants[(tile * w.blocks + block) * lines..][..lines];
            let weights: [i32; BLOCK] = std::array::from_fn(|i| layout.weight(quants, lane, i));
            let scales = w.scales.lane(tile, block, lane);
            for (n, acc) in acc.iter_mut().enumerate() {
                let (values, meta) = a.token(token + n);
                let values = values[block].map(i32::from);
                let (first, second) = values.split_at(BLOCK / 2);
                let dot = |w: &[i32], a: &[i32]| w.iter().zip(a).map(|(w, a)| w * a).sum::<i32>();
                let sums = [dot(&weights[..BLOCK / 2], first), dot(&weights[BLOCK / 2..], second)];
                let totals = [first.iter().sum::<i32>(), second.iter().sum::<i32>()];
                let (scale, total) = (meta[block].scale, totals[0] + totals[1]);
                let join = |sum: i32, d: f32, acc: f32| (sum as f32).mul_add(d * scale, acc);
                let minimum = |m: f32, acc: f32| m.mul_add(scale * total as f32, acc);
                let (sub, min) = (scales.sub.unwrap_or([1, 1]), scales.min.unwrap_or((0.0, [0, 0])));
                *acc = match layout.scales {
                    ScaleKind::Half | ScaleKind::Brain => join(sums[0] + sums[1], scales.d, *acc),
                    ScaleKind::HalfMin => minimum(-min.0, join(sums[0] + sums[1], scales.d, *acc)),
                    ScaleKind::Sub32 => {
                        let acc = join(sums[0] + sums[1], scales.d * sub[0] as f32, *acc);
                        minimum(min.0 * -min.1[0] as f32, acc)
                    }
                    ScaleKind::Sub16 => join(sums[0] * sub[0] + sums[1] * sub[1], scales.d, *acc),
                    ScaleKind::Sub16Min => {
                        let acc = join(sums[0] * sub[0] + sums[1] * sub[1], scales.d, *acc);
                        join(-(totals[0] * min.1[0] + totals[1] * min.1[1]), min.0, acc)
                    }
                };
            }
        }
        for (values, acc) in out.iter_mut().zip(acc) {
            values[lane] = acc;
        }
    }
}
