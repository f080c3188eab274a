//! HQQ (Badri and Shaji 2023): zero points for which the error is sparse, found by half-quadratic splitting; here with the scales too.
//!
//! The error `W − s·(Q − z)` is split off into `E`, which is shrunk as the l_p norm asks (p < 1: few large errors rather than many small
//! ones), and s and z become the line of least squares through `W − E` over `Q`, in turns. Where the paper keeps the scale that spans a
//! group, that is only where this begins, and from a narrower one once more: few bits are worth more if the outermost values are cut off.
//! What has the least squared error on the way is kept: products feel that, not the l_p norm.

use ganglion_kernels::{BlockCode, BlockFormat, Target};

use super::MatrixRef;
use crate::error::Result;

const P: f32 = 0.7;
const BETA: f32 = 10.0;
/// Growth of β from turn to turn.
const KAPPA: f32 = 1.01;
const TURNS: usize = 10;
/// Shares of a group's range that the first scales span.
const STARTS: [f32; 2] = [1.0, 0.85];

/// Quantises whole rows of a format with minima.
pub(super) fn quantize(format: BlockFormat, matrix: MatrixRef<'_>, out: &mut [u8]) -> Result<()> {
    let blocks = matrix.values.chunks_exact(format.block()).zip(out.chunks_exact_mut(format.block_bytes()));
    for (x, out) in blocks {
        let groups = x.chunks_exact(format.sub_block());
        // The minimum that a k-quant stores cannot be negative.
        let any_min = format.block() == format.sub_block();
        let targets: Vec<_> = groups.map(|x| fit(x, f32::from(format.quant_max()), any_min)).collect();
        BlockCode::near(format, x, &targets)?.write(out);
    }
    Ok(())
}

/// The scale and the minimum `s·z` of a group.
pub(super) fn fit(x: &[f32], quant_max: f32, any_min: bool) -> Target {
    let (low, high) = x.iter().fold((f32::MAX, f32::MIN), |(low, high), v| (low.min(*v), high.max(*v)));
    let low = if any_min { low } else { low.min(0.0) };
    let spanning = (high - low) / quant_max;
    if spanning <= 0.0 {
        return Target { scale: 0.0, min: -low };
    }
    let quant = |v: f32, (scale, zero): (f32, f32)| (v / scale + zero).round().clamp(0.0, quant_max);
    let error = |line: (f32, f32)| {
        let of = |v: &f32| v - line.0 * (quant(*v, line) - line.1);
        x.iter().map(|v| of(v).powi(2)).sum::<f32>()
    };
    let (mut best, mut least) = ((spanning, -low / spanning), f32::INFINITY);
    for start in STARTS {
        let scale = start * spanning;
        let zero = quant_max / 2.0 - (low + high) / 2.0 / scale;
        let (mut line, mut beta) = ((scale, if any_min { zero } else { zero.max(0.0) }), BETA);
        for turn in 0..=TURNS {
            let found = error(line);
            if found < least {
                (best, least) = (line, found);
            }
            if turn < TURNS {
                let pairs = x.iter().map(|v| {
                    let q = quant(*v, line);
                    (q, v - shrink(v - line.0 * (q - line.1), beta))
                });
                line = through(pairs, line, any_min);
                beta *= KAPPA;
            }
        }
    }
    Target { scale: best.0, min: best.0 * best.1 }
}

/// Scale and zero point of least squares for pairs of quants and values. The scale stays where there is no positive one.
fn through(
    pairs: impl Iterator<Item = (f32, f32)> + Clone,
    (scale, _): (f32, f32),
    any_min: bool,
) -> (f32, f32) {
    let count = pairs.clone().count() as f32;
    let mean = |of: fn((f32, f32)) -> f32| pairs.clone().map(of).sum::<f32>() / count;
    let (q_mean, v_mean) = (mean(|(q, _)| q), mean(|(_, v)| v));
    let slope = |q_mean: f32| {
        let square: f32 = pairs.clone().map(|(q, _)| (q - q_mean).powi(2)).sum();
        let product: f32 = pairs.clone().map(|(q, v)| (q - q_mean) * v).sum();
        let slope = product / square;
        if slope.is_finite() && slope > 0.0 { slope } else { scale }
    };
    let scale = slope(q_mean);
    let zero = q_mean - v_mean / scale;
    if any_min || zero >= 0.0 {
        return (scale, zero);
    }
    (slope(0.0), 0.0)
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
    fn what_is_found_errs_no_more_than_the_range_does() {
        for seed in 0..50u32 {
            let x: Vec<f32> = (0..32u32)
                .map(|i| {
                    let noise = (i * 7919 + seed * 104_729) % 1009;
                    (noise as f32 / 1009.0 - 0.4).powi(3)
                })
                .collect();
            let low = x.iter().fold(f32::MAX, |a, b| a.min(*b));
            let high = x.iter().fold(f32::MIN, |a, b| a.max(*b));
            for (quant_max, any_min) in [(15.0, true), (15.0, false), (3.0, true), (3.0, false)] {
                let low = if any_min { low } else { low.min(0.0) };
                let error = |of: Target| -> f32 {
                    let q = |v: f32| ((v + of.min) / of.scale).round().clamp(0.0, quant_max);
                    x.iter().map(|v| (v - (of.scale * q(*v) - of.min)).powi(2)).sum()
                };
                let found = fit(&x, quant_max, any_min);
                let plain = Target { scale: (high - low) / quant_max, min: -low };
                assert!(error(found) <= error(plain) * 1.0001, "seed {seed}");
                assert!(found.scale > 0.0 && (any_min || found.min >= 0.0), "seed {seed}: {found:?}");
            }
        }
    }

    #[test]
    fn groups_of_one_value_are_kept() {
        assert_eq!(fit(&[0.25; 32], 15.0, true), Target { scale: 0.0, min: -0.25 });
    }
}
