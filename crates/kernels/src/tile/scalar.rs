//! The reference of the integer kernels: each output by itself, in the defining order.

use super::Job;
use super::layout::{Layout, ScaleKind};
use crate::limits::{BLOCK, LANES, WHOLE_SUM_BLOCKS};

/// One token times the rows of `tile`.
pub(super) fn product(layout: &Layout, job: &Job<'_>, tile: usize, token: usize) {
    let Job { w, a, target, .. } = job;
    let lines = layout.bits.lines();
    let (activation_blocks, stride) = a.token(token);
    let mut out = [0.0; LANES];
    for (lane, acc) in out.iter_mut().enumerate() {
        // Of a row with one scale.
        let mut whole = 0;
        for block in 0..w.blocks {
            let quants = &w.quants[(tile * w.blocks + block) * lines..][..lines];
            let weights: [i32; BLOCK] = std::array::from_fn(|i| layout.weight(quants, lane, i));
            let scales = w.scales.lane(tile, block, lane);
            let from = &activation_blocks[block * stride];
            let activations = from.values.map(i32::from);
            let half = |h: usize| h * BLOCK / 2..(h + 1) * BLOCK / 2;
            let dot = |h: usize| half(h).map(|i| weights[i] * activations[i]).sum::<i32>();
            let total = |h: usize| activations[half(h)].iter().sum::<i32>();
            let (sums, totals, scale) = ([dot(0), dot(1)], [total(0), total(1)], from.meta.scale);
            let join = |sum: i32, d: f32, acc: f32| (sum as f32).mul_add(d * scale, acc);
            let minimum = |m: f32, acc: f32| m.mul_add(scale * (totals[0] + totals[1]) as f32, acc);
            let (sub, min) = (scales.sub.unwrap_or([1, 1]), scales.min.unwrap_or((0.0, [0, 0])));
            *acc = match layout.scales {
                ScaleKind::Half | ScaleKind::Brain | ScaleKind::Lone => {
                    join(sums[0] + sums[1], scales.d, *acc)
                }
                ScaleKind::Row => {
                    whole += sums[0] + sums[1];
                    if block % WHOLE_SUM_BLOCKS + 1 < WHOLE_SUM_BLOCKS && block + 1 < w.blocks {
                        continue;
                    }
                    join(std::mem::take(&mut whole), scales.d, *acc)
                }
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
    #[allow(unsafe_code)]
    // SAFETY: nobody else computes the tiles of this job.
    unsafe {
        target.put(tile, token, &out);
    }
}

/// As [`super::dots`], in plain code.
pub(super) fn dots(rounds: u64) -> (u64, u64) {
    let weights = [1u8; 4 * LANES];
    let mut activations = [2i8; 4];
    let mut sums = [0i32; LANES];
    for _ in 0..rounds {
        // The compiler must not know that the factors stay the same.
        activations = std::hint::black_box(activations);
        for (sum, four) in sums.iter_mut().zip(weights.as_chunks::<4>().0) {
            for (weight, activation) in four.iter().zip(activations) {
                *sum = sum.wrapping_add(i32::from(*weight) * i32::from(activation));
            }
        }
    }
    (sums.iter().map(|sum| u64::from(*sum as u32)).sum(), 4 * LANES as u64)
}
