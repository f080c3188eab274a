//! The quantiser of formats whose quants are places in a table of unevenly spaced values: turns of "take the nearest, then
//! solve for the scale", from several starting points side by side.

use super::search::{ISA, LANES, inverse, round_f16};
use super::{Overflow, legacy::extreme};
use crate::isa::multiversion;

/// Starting points for each end of the table, and how far they lie apart.
const STARTS: usize = 17;
const START_STEP: f32 = 0.04;
/// Turns of "take the nearest, then solve" from each of them.
const TURNS: usize = 4;
/// Entries of a table.
const ENTRIES: usize = 16;

/// The scale (a half) with which `x`, each value's error counted as `weights` says, is nearest to multiples of the entries of
/// `table`, which ascend.
///
/// # Panics
/// If there are fewer weights than values.
pub(super) fn scale(table: &[i8; ENTRIES], x: &[f32], weights: &[f32]) -> Result<f32, Overflow> {
    multiversion! {
        fn search(isa, table: &[i8; ENTRIES], x: &[f32], weights: &[f32], out: &mut Result<f32, Overflow>) {
            *out = search_here(table, x, weights);
        }
    }
    let mut out = Err(Overflow);
    search(*ISA, table, x, &weights[..x.len()], &mut out);
    out
}

#[inline(always)]
fn search_here(table: &[i8; ENTRIES], x: &[f32], weights: &[f32]) -> Result<f32, Overflow> {
    let table = table.map(f32::from);
    let extreme = extreme(x);
    let (mut best, mut least) = (0.0, f32::INFINITY);
    for end in [table[0], table[ENTRIES - 1]] {
        for group in 0..STARTS.div_ceil(LANES) {
            let mut scales: [f32; LANES] = std::array::from_fn(|lane| {
                // What is left over repeats the last one.
                let start = (group * LANES + lane).min(STARTS - 1) as f32;
                extreme / (end * (1.0 + START_STEP * (start - (STARTS / 2) as f32)))
            });
            for _ in 0..TURNS {
                for scale in &mut scales {
                    *scale = round_f16(*scale)?;
                }
                let (errors, solved) = turn(&table, x, weights, scales);
                for (scale, error) in scales.into_iter().zip(errors) {
                    if error < least {
                        (best, least) = (scale, error);
                    }
                }
                scales = solved;
            }
        }
    }
    Ok(best)
}

/// For each scale the error with the nearest entries, and the scale that suits these entries best.
#[inline(always)]
fn turn(
    table: &[f32; ENTRIES],
    x: &[f32],
    weights: &[f32],
    scales: [f32; LANES],
) -> ([f32; LANES], [f32; LANES]) {
    let inverse = scales.map(inverse);
    let (mut error, mut xq, mut qq) = ([0.0f32; LANES], [0.0f32; LANES], [0.0f32; LANES]);
    for (x, weight) in x.iter().zip(weights) {
        let value = inverse.map(|inverse| x * inverse);
        let mut q = [table[0]; LANES];
        for pair in table.windows(2) {
            let (step, middle) = (pair[1] - pair[0], 0.5 * (pair[0] + pair[1]));
            for l in 0..LANES {
                q[l] += if value[l] > middle { step } else { 0.0 };
            }
        }
        for l in 0..LANES {
            let difference = scales[l] * q[l] - x;
            error[l] += weight * difference * difference;
            xq[l] += weight * q[l] * x;
            qq[l] += weight * q[l] * q[l];
        }
    }
    (error, std::array::from_fn(|l| if qq[l] > 0.0 { xq[l] / qq[l] } else { 0.0 }))
}
