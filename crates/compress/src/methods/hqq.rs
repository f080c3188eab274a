//! HQQ (Badri and Shaji 2023): zero points for which the error is sparse, found by half-quadratic splitting.
//!
//! With the scale given by a group's range, the error `W − s·(Q − z)` is split off into `E`, which is shrunk as the l_p norm asks
//! (p < 1: few large errors rather than many small ones), and z becomes the mean of `Q − (W − E) / s`, in turns.

use ganglion_kernels::{BlockCode, BlockFormat, Target};

use super::MatrixRef;
use crate::error::Result;

const P: f32 = 0.7;
const BETA: f32 = 10.0;
/// Growth of β from turn to turn.
const KAPPA: f32 = 1.01;
const TURNS_MAX: usize = 20;

/// Quantises whole rows of a format with minima.
pub(super) fn quantize(format: BlockFormat, matrix: MatrixRef<'_>, out: &mut [u8]) -> Result<()> {
    let blocks = matrix.values.chunks_exact(format.block()).zip(out.chunks_exact_mut(format.block_bytes()));
    for (x, out) in blocks {
        let groups = x.chunks_exact(format.sub_block());
        // The minimum that a k-quant stores cannot be negative.
        let any_min = format.block() == format.sub_block();
        let targets: Vec<_> = groups.map(|x| zero_point(x, f32::from(format.quant_max()), any_min)).collect();
        BlockCode::near(format, x, &targets)?.write(out);
    }
    Ok(())
}

/// The scale that spans a group, and the minimum `s·z` of the best zero point.
pub(super) fn zero_point(x: &[f32], quant_max: f32, any_min: bool) -> Target {
    let (low, high) = x.iter().fold((f32::MAX, f32::MIN), |(low, high), v| (low.min(*v), high.max(*v)));
    let low = if any_min { low } else { low.min(0.0) };
    let scale = (high - low) / quant_max;
    if scale <= 0.0 {
        return Target { scale: 0.0, min: -low };
    }
    let quant = |v: f32, zero: f32| (v / scale + zero).round().clamp(0.0, quant_max);
    let error = |zero: f32| x.iter().map(|v| (v - scale * (quant(*v, zero) - zero)).abs()).sum::<f32>();
    let (mut zero, mut beta) = (-low / scale, BETA);
    let (mut best, mut least) = (zero, error(zero));
    for _ in 0..TURNS_MAX {
        let sum: f32 = x
            .iter()
            .map(|v| {
                let q = quant(*v, zero);
                q - (v - shrink(v - scale * (q - zero), beta)) / scale
            })
            .sum();
        zero = sum / x.len() as f32;
        zero = if any_min { zero } else { zero.max(0.0) };
        beta *= KAPPA;
        let found = error(zero);
        if found >= least {
            break;
        }
        (best, least) = (zero, found);
    }
    Target { scale, min: scale * best }
}

/// The generalised soft threshold of the l_p norm.
fn shrink(x: f32, beta: f32) -> f32 {
    let magnitude = x.abs();
    if magnitude == 0.0 {
        return 0.0;
    }
    x.signum() * (magnitude - magnitude.powf(P - 1.0) / beta).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_found_zero_point_errs_no_more_than_the_range_does() {
        for seed in 0..50u32 {
            let x: Vec<f32> = (0..32u32)
                .map(|i| {
                    let noise = (i * 7919 + seed * 104_729) % 1009;
                    (noise as f32 / 1009.0 - 0.4).powi(3)
                })
                .collect();
            let low = x.iter().fold(f32::MAX, |a, b| a.min(*b));
            let high = x.iter().fold(f32::MIN, |a, b| a.max(*b));
            let scale = (high - low) / 15.0;
            let error = |min: f32| -> f32 {
                let value = |v: f32| scale * ((v + min) / scale).round().clamp(0.0, 15.0) - min;
                x.iter().map(|v| (v - value(*v)).abs()).sum()
            };
            let found = zero_point(&x, 15.0, true);
            assert!((found.scale - scale).abs() < 1e-6);
            assert!(error(found.min) <= error(-low) * 1.0001, "seed {seed}");
        }
    }

    #[test]
    fn groups_of_one_value_are_kept() {
        assert_eq!(zero_point(&[0.25; 32], 15.0, true), Target { scale: 0.0, min: -0.25 });
    }
}
