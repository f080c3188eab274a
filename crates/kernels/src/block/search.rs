//! The quantiser of the k-quants: least squares over candidate scales, first for each sub-block on its own, then with
//! the scales themselves rounded.
//!
//! With the scale of a sub-block given, rounding is the best choice of quants; with the quants given, the best scale
//! (and minimum) solves a linear system. The search alternates between the two from several starting points. ggml's
//! reference does the same with fewer steps and other weights; the error of this one is lower on Gaussian data
//! (`tests/formats.rs`). All values weigh alike where their inputs are not known; else each weighs as much as it is told.

use super::k_quants::{SUB_BLOCKS_MAX, SuperBlock};
use super::legacy::{extreme, range};
use super::{Overflow, SUPER_BLOCK, to_f16};
use crate::math::{f16_to_f32, round_even};

/// Starting points of a sub-block's search, and their distance in quants.
const STARTS: i32 = 9;
const START_STEP: f32 = 0.2;
/// The same with weights, which may make it worth cutting off large values: quants are stretched by these factors.
const WEIGHED_STARTS: i32 = 24;
const WEIGHED_STRETCH_LEAST: f32 = 0.8;
const WEIGHED_STRETCH_STEP: f32 = 1.045;
/// The largest half.
const HALF_MAX: f32 = 65504.0;
/// Turns of "round, then solve" from the best starting point.
const TURNS: usize = 3;
/// Turns of "round the scales, then solve for d and dmin".
const SUPER_TURNS: usize = 3;
/// Partial sums side by side, so that they become vector sums.
const PARTS: usize = 8;

/// The integers of one k-quant format.
#[derive(Clone, Copy)]
pub(super) struct Grid {
    pub(super) sub_block: usize,
    /// Subtracted from a stored quant.
    pub(super) zero_point: u8,
    /// Largest stored quant.
    pub(super) quant_max: u8,
    /// Smallest and largest scale; the minima have the same range.
    pub(super) scales: (i8, i8),
    pub(super) has_mins: bool,
    /// A minimum may lie above zero.
    pub(super) any_min: bool,
}

/// `x ≈ scale·q − min`.
#[derive(Clone, Copy)]
pub(super) struct Fit {
    pub(super) scale: f32,
    pub(super) min: f32,
}

/// Values, and how much each of them counts: all alike unless `WEIGHED`, and then `weights` is empty.
#[derive(Clone, Copy)]
pub(super) struct Sample<'a, const WEIGHED: bool> {
    x: &'a [f32],
    weights: &'a [f32],
}

impl<'a> Sample<'a, false> {
    pub(super) fn even(x: &'a [f32]) -> Self {
        Self { x, weights: &[] }
    }
}

impl<'a> Sample<'a, true> {
    pub(super) fn weighed(x: &'a [f32], weights: &'a [f32]) -> Self {
        assert_eq!(x.len(), weights.len(), "a weight for each value");
        Self { x, weights }
    }
}

impl<'a, const WEIGHED: bool> Sample<'a, WEIGHED> {
    pub(super) fn values(self) -> &'a [f32] {
        self.x
    }

    /// Values and weights, a few at a time.
    fn parts(self) -> impl Iterator<Item = (&'a [f32; PARTS], [f32; PARTS])> {
        let weights = self.weights.as_chunks::<PARTS>().0;
        let weights = move |i: usize| if WEIGHED { weights[i] } else { [1.0; PARTS] };
        self.x.as_chunks::<PARTS>().0.iter().enumerate().map(move |(i, x)| (x, weights(i)))
    }

    /// The values of sub-block `j` of this length.
    fn sub_block(self, j: usize, length: usize) -> Self {
        let cut = |all: &'a [f32]| &all[j * length..(j + 1) * length];
        Self { x: cut(self.x), weights: if WEIGHED { cut(self.weights) } else { &[] } }
    }
}

/// Sums over one sub-block for the normal equations.
#[derive(Clone, Copy, Default)]
struct Moments {
    q: f32,
    qq: f32,
    xq: f32,
    x: f32,
    count: f32,
}

impl Grid {
    fn low(self) -> f32 {
        -f32::from(self.zero_point)
    }

    fn high(self) -> f32 {
        f32::from(self.quant_max) - f32::from(self.zero_point)
    }

    /// The quant of `x`, less the zero point. A scale of zero gives 0.
    #[inline(always)]
    fn quant(self, x: f32, min: f32, inverse: f32) -> f32 {
        // `max` and `min` rather than `clamp`: they turn the NaN of 0 · inf into a quant.
        round_even(((x + min) * inverse).max(self.low()).min(self.high())).0
    }

    /// Σ w·(scale·q − min − x)² with the best quants.
    fn error<const W: bool>(self, sample: Sample<'_, W>, fit: Fit) -> f32 {
        let inverse = inverse(fit.scale);
        let mut parts = [0.0f32; PARTS];
        for (x, weights) in sample.parts() {
            for i in 0..PARTS {
                let difference = fit.scale * self.quant(x[i], fit.min, inverse) - fit.min - x[i];
                parts[i] += difference * difference * weights[i];
            }
        }
        parts.iter().sum()
    }

    fn moments<const W: bool>(self, sample: Sample<'_, W>, min: f32, inverse: f32) -> Moments {
        let mut parts = [[0.0f32; PARTS]; 5];
        for (x, weights) in sample.parts() {
            for i in 0..PARTS {
                let q = self.quant(x[i], min, inverse);
                parts[0][i] += q * weights[i];
                parts[1][i] += q * q * weights[i];
                parts[2][i] += x[i] * q * weights[i];
                parts[3][i] += x[i] * weights[i];
                parts[4][i] += weights[i];
            }
        }
        let [q, qq, xq, x, count] = parts.map(|p| p.iter().sum());
        Moments { q, qq, xq, x, count }
    }

    /// The best scale and minimum for the quants that `inverse` and `min` lead to.
    fn solve<const W: bool>(self, sample: Sample<'_, W>, min: f32, inverse: f32) -> Fit {
        let m = self.moments(sample, min, inverse);
        if self.has_mins {
            let determinant = m.count * m.qq - m.q * m.q;
            let min = (m.q * m.xq - m.qq * m.x) / determinant;
            // The minimum that a k-quant stores cannot be negative.
            if determinant > 0.0 && (min > 0.0 || self.any_min) {
                return Fit { scale: (m.count * m.xq - m.q * m.x) / determinant, min };
            }
        }
        Fit { scale: if m.qq > 0.0 { m.xq / m.qq } else { 0.0 }, min: 0.0 }
    }

    /// The best fit of one sub-block with an unrounded scale and minimum.
    pub(super) fn fit<const W: bool>(self, sample: Sample<'_, W>) -> Fit {
        let (lowest, highest) = range(sample.x);
        let lowest = if lowest < 0.0 || self.any_min { lowest } else { 0.0 };
        // Quants span from the lowest to the highest value, or, without minima, from zero to the extreme.
        let (min, span) = match (self.has_mins, highest > -lowest) {
            (true, _) => (0.0 - lowest, highest - lowest),
            (false, true) => (0.0, highest),
            (false, false) => (0.0, lowest),
        };
        let mut best = Best::new(Fit { scale: 0.0, min }, self.error(sample, Fit { scale: 0.0, min }));
        if span == 0.0 {
            return best.of;
        }
        // Without minima the scale may have either sign, and the range reaches further on the negative side.
        let ends = [self.high(), self.low()];
        for end in &ends[..if self.has_mins { 1 } else { 2 }] {
            let mut factor = WEIGHED_STRETCH_LEAST;
            for step in 0..if W { WEIGHED_STARTS } else { STARTS } {
                let stretched = match W {
                    true => end * factor,
                    false => end + end.signum() * START_STEP * (step - STARTS / 2) as f32,
                };
                factor *= WEIGHED_STRETCH_STEP;
                let fit = self.solve(sample, min, stretched / span);
                best.offer(fit, self.error(sample, fit));
            }
        }
        for _ in 0..TURNS {
            let fit = self.solve(sample, best.of.min, inverse(best.of.scale));
            if !best.offer(fit, self.error(sample, fit)) {
                break;
            }
        }
        best.of
    }

    /// The rounded scale and minimum of one sub-block: the best among the neighbours of `target`, and its error.
    fn round<const W: bool>(self, sample: Sample<'_, W>, target: Fit, d: f32, d_min: f32) -> Best<(i8, u8)> {
        let (low, high) = self.scales;
        let nearest = |value: f32, unit: f32, low: i8| {
            round_even((value * inverse(unit)).max(f32::from(low)).min(f32::from(high))).1 as i8
        };
        let (scale, min) = (nearest(target.scale, d, low), nearest(target.min, d_min, 0));
        let mut best = Best::new((scale, min as u8), f32::INFINITY);
        let mins = if self.has_mins { (min - 1).max(0)..=min.saturating_add(1).min(high) } else { 0..=0 };
        for min in mins {
            for scale in scale.saturating_sub(1).max(low)..=scale.saturating_add(1).min(high) {
                let fit = Fit { scale: d * f32::from(scale), min: d_min * f32::from(min) };
                best.offer((scale, min as u8), self.error(sample, fit));
            }
        }
        best
    }

    /// The best d and dmin for the quants that `block` leads to.
    fn solve_super<const W: bool>(
        self,
        sample: Sample<'_, W>,
        block: &Scales,
    ) -> Result<(f32, f32), Overflow> {
        let (mut aa, mut ab, mut bb, mut ax, mut bx) = (0.0f32, 0.0f32, 0.0f32, 0.0f32, 0.0f32);
        for j in 0..self.sub_blocks(sample) {
            let (scale, min) = (f32::from(block.scales[j]), f32::from(block.mins[j]));
            let m = self.moments(
                sample.sub_block(j, self.sub_block),
                block.d_min * min,
                inverse(block.d * scale),
            );
            aa += scale * scale * m.qq;
            ab += scale * min * m.q;
            bb += min * min * m.count;
            ax += scale * m.xq;
            bx += min * m.x;
        }
        // x ≈ d·a − dmin·b
        let determinant = aa * bb - ab * ab;
        let d_min = (ab * ax - aa * bx) / determinant;
        if self.has_mins && determinant > 0.0 && d_min > 0.0 {
            Ok((round_f16((bb * ax - ab * bx) / determinant)?, round_f16(d_min)?))
        } else {
            Ok((round_f16(if aa > 0.0 { ax / aa } else { 0.0 })?, 0.0))
        }
    }

    fn sub_blocks<const W: bool>(self, sample: Sample<'_, W>) -> usize {
        sample.x.len() / self.sub_block
    }

    /// Quantises 256 values.
    pub(super) fn quantize<const W: bool>(self, sample: Sample<'_, W>) -> Result<SuperBlock, Overflow> {
        let (low, high) = self.scales;
        let widest = if low < 0 { low } else { high };
        let reach = HALF_MAX * f32::from(widest).abs() * self.high().max(-self.low());
        if extreme(sample.x).abs() > reach {
            return Err(Overflow);
        }
        let mut fits = [Fit { scale: 0.0, min: 0.0 }; SUB_BLOCKS_MAX];
        for (j, fit) in fits[..self.sub_blocks(sample)].iter_mut().enumerate() {
            *fit = self.fit(sample.sub_block(j, self.sub_block));
        }
        self.round_all(sample, &fits)
    }

    /// The units of scales and minima that reach the largest of them.
    fn units(self, fits: &[Fit]) -> Result<(f32, f32), Overflow> {
        let (low, high) = self.scales;
        let widest = if low < 0 { low } else { high };
        let (mut scale_max, mut min_max) = (0.0f32, 0.0f32);
        for fit in fits {
            scale_max = if fit.scale.abs() > scale_max.abs() { fit.scale } else { scale_max };
            min_max = if fit.min > min_max { fit.min } else { min_max };
        }
        Ok((reaching_f16(scale_max / f32::from(widest))?, reaching_f16(min_max / f32::from(high))?))
    }

    /// A super-block whose scales and minima are those of `fits`, one for each sub-block, rounded; its quants are zero.
    pub(super) fn nearest(self, fits: &[Fit]) -> Result<SuperBlock, Overflow> {
        let (d, d_min) = self.units(fits)?;
        let (low, high) = self.scales;
        let nearest = |value: f32, unit: f32, low: i8| {
            round_even((value * inverse(unit)).max(f32::from(low)).min(f32::from(high))).1 as i8
        };
        let (mut scales, mut mins) = ([0; SUB_BLOCKS_MAX], [0; SUB_BLOCKS_MAX]);
        for (j, fit) in fits.iter().enumerate() {
            scales[j] = nearest(fit.scale, d, low);
            mins[j] = if self.has_mins { nearest(fit.min, d_min, 0) as u8 } else { 0 };
        }
        let (sub_block, zero_point) = (self.sub_block, self.zero_point);
        Ok(SuperBlock { quants: [zero_point; SUPER_BLOCK], sub_block, zero_point, scales, mins, d, d_min })
    }

    /// Quantises 256 values with scales and minima around those of `fits`, one for each sub-block.
    fn round_all<const W: bool>(
        self,
        sample: Sample<'_, W>,
        fits: &[Fit; SUB_BLOCKS_MAX],
    ) -> Result<SuperBlock, Overflow> {
        let (mut d, mut d_min) = self.units(&fits[..self.sub_blocks(sample)])?;
        let mut best = Best::new(Scales::default(), f32::INFINITY);
        for _ in 0..SUPER_TURNS {
            let mut scales = Scales { d, d_min, ..Scales::default() };
            let mut error = 0.0;
            for (j, fit) in fits.iter().enumerate().take(self.sub_blocks(sample)) {
                let rounded = self.round(sample.sub_block(j, self.sub_block), *fit, d, d_min);
                (scales.scales[j], scales.mins[j]) = rounded.of;
                error += rounded.error;
            }
            if !best.offer(scales, error) {
                break;
            }
            (d, d_min) = self.solve_super(sample, &scales)?;
        }
        let Scales { scales, mins, d, d_min } = best.of;
        let mut quants = [0; SUPER_BLOCK];
        for (j, x) in sample.x.chunks_exact(self.sub_block).enumerate() {
            let (min, inverse) = (d_min * f32::from(mins[j]), inverse(d * f32::from(scales[j])));
            for (q, x) in quants[j * self.sub_block..].iter_mut().zip(x) {
                *q = (self.quant(*x, min, inverse) + f32::from(self.zero_point)) as u8;
            }
        }
        Ok(SuperBlock {
            quants,
            sub_block: self.sub_block,
            zero_point: self.zero_point,
            scales,
            mins,
            d,
            d_min,
        })
    }
}

/// The rounded fields of a super-block.
#[derive(Clone, Copy, Default)]
struct Scales {
    scales: [i8; SUB_BLOCKS_MAX],
    mins: [u8; SUB_BLOCKS_MAX],
    d: f32,
    d_min: f32,
}

/// The candidate of least error so far; the first among equals.
struct Best<T> {
    of: T,
    error: f32,
}

impl<T> Best<T> {
    fn new(of: T, error: f32) -> Self {
        Self { of, error }
    }

    fn offer(&mut self, of: T, error: f32) -> bool {
        let better = error < self.error;
        if better {
            *self = Self { of, error };
        }
        better
    }
}

pub(super) fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

/// The nearest half; among the subnormal ones, which lie far apart, the next one away from zero, so that no scale is cut
/// off.
fn reaching_f16(value: f32) -> Result<f32, Overflow> {
    let bits = to_f16(value)?;
    let subnormal = bits & 0x7c00 == 0;
    Ok(f16_to_f32(if subnormal && f16_to_f32(bits).abs() < value.abs() { bits + 1 } else { bits }))
}

pub(super) fn round_f16(value: f32) -> Result<f32, Overflow> {
    Ok(f16_to_f32(to_f16(value)?))
}
