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
use crate::isa::{Isa, multiversion};
use crate::math::{f16_to_f32, round_even};
use std::sync::LazyLock;

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
/// Candidates that are looked at side by side, so that their sums become vector sums.
pub(super) const LANES: usize = 8;
/// Candidates around the nearest scale and minimum.
const NEIGHBOURS: usize = 9;

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

    /// Values and their weights.
    #[inline(always)]
    fn pairs(self) -> impl Iterator<Item = (f32, f32)> {
        let weight = move |i: usize| if WEIGHED { self.weights[i] } else { 1.0 };
        self.x.iter().enumerate().map(move |(i, x)| (*x, weight(i)))
    }

    /// Σ w·x and Σ w.
    #[inline(always)]
    fn totals(self) -> (f32, f32) {
        self.pairs().fold((0.0, 0.0), |(sum, count), (x, w)| (sum + x * w, count + w))
    }

    /// The values of sub-block `j` of this length.
    #[inline(always)]
    fn sub_block(self, j: usize, length: usize) -> Self {
        let cut = |all: &'a [f32]| &all[j * length..(j + 1) * length];
        Self { x: cut(self.x), weights: if WEIGHED { cut(self.weights) } else { &[] } }
    }
}

/// Sums over one sub-block for the normal equations, one lane for each candidate.
#[derive(Clone, Copy)]
struct Moments {
    q: [f32; LANES],
    qq: [f32; LANES],
    xq: [f32; LANES],
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
        // In this order a NaN, from 0 · inf, becomes a quant too.
        let value = (x + min) * inverse;
        let value = if value > self.low() { value } else { self.low() };
        round_even(if value < self.high() { value } else { self.high() }).0
    }

    /// Σ w·(scale·q − min − x)² with the best quants, for each of the candidates.
    #[inline(always)]
    fn errors<const W: bool>(self, sample: Sample<'_, W>, fits: [Fit; LANES]) -> [f32; LANES] {
        let (scale, min) = (fits.map(|fit| fit.scale), fits.map(|fit| fit.min));
        let inverse = scale.map(inverse);
        let mut sum = [0.0f32; LANES];
        for (x, weight) in sample.pairs() {
            for l in 0..LANES {
                let difference = scale[l] * self.quant(x, min[l], inverse[l]) - min[l] - x;
                sum[l] += difference * difference * weight;
            }
        }
        sum
    }

    #[inline(always)]
    fn error<const W: bool>(self, sample: Sample<'_, W>, fit: Fit) -> f32 {
        self.errors(sample, [fit; LANES])[0]
    }

    #[inline(always)]
    fn moments<const W: bool>(self, sample: Sample<'_, W>, min: f32, inverse: [f32; LANES]) -> Moments {
        let zero = [0.0f32; LANES];
        let mut m = Moments { q: zero, qq: zero, xq: zero };
        for (x, weight) in sample.pairs() {
            for (l, inverse) in inverse.into_iter().enumerate() {
                let q = self.quant(x, min, inverse);
                let weighed = q * weight;
                m.q[l] += weighed;
                m.qq[l] += q * weighed;
                m.xq[l] += x * weighed;
            }
        }
        m
    }

    /// The best scales and minima for the quants that `inverse` and `min` lead to.
    #[inline(always)]
    fn solve<const W: bool>(
        self,
        sample: Sample<'_, W>,
        (x, count): (f32, f32),
        min: f32,
        inverse: [f32; LANES],
    ) -> [Fit; LANES] {
        let m = self.moments(sample, min, inverse);
        std::array::from_fn(|l| {
            let (q, qq, xq) = (m.q[l], m.qq[l], m.xq[l]);
            let determinant = count * qq - q * q;
            let min = (q * xq - qq * x) / determinant;
            // The minimum that a k-quant stores cannot be negative.
            if self.has_mins && determinant > 0.0 && (min > 0.0 || self.any_min) {
                return Fit { scale: (count * xq - q * x) / determinant, min };
            }
            Fit { scale: if qq > 0.0 { xq / qq } else { 0.0 }, min: 0.0 }
        })
    }

    /// The best fit of one sub-block with an unrounded scale and minimum.
    #[inline(always)]
    fn fit_here<const W: bool>(self, sample: Sample<'_, W>) -> Fit {
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
        let totals = sample.totals();
        // Without minima the scale may have either sign, and the range reaches further on the negative side.
        let ends = [self.high(), self.low()];
        for end in &ends[..if self.has_mins { 1 } else { 2 }] {
            let count = if W { WEIGHED_STARTS } else { STARTS } as usize;
            for starts in starts::<W>(*end).as_chunks::<LANES>().0.iter().take(count.div_ceil(LANES)) {
                let fits = self.solve(sample, totals, min, starts.map(|start| start / span));
                for (fit, error) in fits.into_iter().zip(self.errors(sample, fits)) {
                    best.offer(fit, error);
                }
            }
        }
        for _ in 0..TURNS {
            let [fit, ..] = self.solve(sample, totals, best.of.min, [inverse(best.of.scale); LANES]);
            if !best.offer(fit, self.error(sample, fit)) {
                break;
            }
        }
        best.of
    }

    /// The rounded scale and minimum of one sub-block: the best among the neighbours of `target`, and its error.
    #[inline(always)]
    fn round<const W: bool>(self, sample: Sample<'_, W>, target: Fit, d: f32, d_min: f32) -> Best<(i8, u8)> {
        let (low, high) = self.scales;
        let nearest = |value: f32, unit: f32, low: i8| {
            round_even((value * inverse(unit)).max(f32::from(low)).min(f32::from(high))).1 as i8
        };
        let (scale, min) = (nearest(target.scale, d, low), nearest(target.min, d_min, 0));
        let mut best = Best::new((scale, min as u8), f32::INFINITY);
        let mins = if self.has_mins { (min - 1).max(0)..=min.saturating_add(1).min(high) } else { 0..=0 };
        let near = mins.flat_map(|min| {
            let scales = scale.saturating_sub(1).max(low)..=scale.saturating_add(1).min(high);
            scales.map(move |scale| (scale, min as u8))
        });
        // Lanes without a candidate of their own repeat the nearest.
        let mut candidates = [(scale, min as u8); NEIGHBOURS.next_multiple_of(LANES)];
        candidates.iter_mut().zip(near).for_each(|(candidate, near)| *candidate = near);
        for candidates in candidates.as_chunks::<LANES>().0 {
            let fits = candidates
                .map(|(scale, min)| Fit { scale: d * f32::from(scale), min: d_min * f32::from(min) });
            for (candidate, error) in candidates.iter().zip(self.errors(sample, fits)) {
                best.offer(*candidate, error);
            }
        }
        best
    }

    /// The best d and dmin for the quants that `block` leads to.
    #[inline(always)]
    fn solve_super<const W: bool>(
        self,
        sample: Sample<'_, W>,
        block: &Scales,
    ) -> Result<(f32, f32), Overflow> {
        let (mut aa, mut ab, mut bb, mut ax, mut bx) = (0.0f32, 0.0f32, 0.0f32, 0.0f32, 0.0f32);
        for j in 0..self.sub_blocks(sample) {
            let (scale, min) = (f32::from(block.scales[j]), f32::from(block.mins[j]));
            let sample = sample.sub_block(j, self.sub_block);
            let m = self.moments(sample, block.d_min * min, [inverse(block.d * scale); LANES]);
            let (x, count) = sample.totals();
            aa += scale * scale * m.qq[0];
            ab += scale * min * m.q[0];
            bb += min * min * count;
            ax += scale * m.xq[0];
            bx += min * x;
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
    #[inline(always)]
    fn quantize_here<const W: bool>(self, sample: Sample<'_, W>) -> Result<SuperBlock, Overflow> {
        let (low, high) = self.scales;
        let widest = if low < 0 { low } else { high };
        let reach = HALF_MAX * f32::from(widest).abs() * self.high().max(-self.low());
        if extreme(sample.x).abs() > reach {
            return Err(Overflow);
        }
        let mut fits = [Fit { scale: 0.0, min: 0.0 }; SUB_BLOCKS_MAX];
        for (j, fit) in fits[..self.sub_blocks(sample)].iter_mut().enumerate() {
            *fit = self.fit_here(sample.sub_block(j, self.sub_block));
        }
        self.round_all(sample, &fits)
    }

    /// The units of scales and minima that reach the largest of them.
    #[inline(always)]
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
    #[inline(always)]
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

/// A sample of either kind, for the versions of the search.
pub(super) trait Search: Copy {
    /// The best fit of one sub-block with an unrounded scale and minimum.
    fn fit(self, grid: Grid) -> Fit;

    /// Quantises 256 values.
    fn quantize(self, grid: Grid) -> Result<SuperBlock, Overflow>;
}

/// The search for one kind of sample, compiled for every instruction set.
macro_rules! search {
    ($weighed:literal) => {
        impl Search for Sample<'_, $weighed> {
            fn fit(self, grid: Grid) -> Fit {
                multiversion! {
                    fn fit(isa, grid: Grid, sample: Sample<'_, $weighed>, out: &mut Fit) {
                        *out = grid.fit_here(sample);
                    }
                }
                let mut out = Fit { scale: 0.0, min: 0.0 };
                fit(*ISA, grid, self, &mut out);
                out
            }

            fn quantize(self, grid: Grid) -> Result<SuperBlock, Overflow> {
                multiversion! {
                    fn quantize(isa, grid: Grid, sample: Sample<'_, $weighed>, out: &mut Result<SuperBlock, Overflow>) {
                        *out = grid.quantize_here(sample);
                    }
                }
                let mut out = Err(Overflow);
                quantize(*ISA, grid, self, &mut out);
                out
            }
        }
    };
}
search!(false);
search!(true);

/// Looked up once: blocks are small.
pub(super) static ISA: LazyLock<Isa> = LazyLock::new(Isa::detect);

/// Where the search begins: the quant that the end of the range gets. What is left over repeats the last one.
#[inline(always)]
fn starts<const W: bool>(end: f32) -> [f32; (WEIGHED_STARTS as usize).next_multiple_of(LANES)] {
    let count = if W { WEIGHED_STARTS } else { STARTS };
    let mut factor = WEIGHED_STRETCH_LEAST;
    let mut start = end;
    std::array::from_fn(|step| {
        let step = step as i32;
        if step < count {
            start = match W {
                true => end * factor,
                false => end + end.signum() * START_STEP * (step - STARTS / 2) as f32,
            };
            factor *= WEIGHED_STRETCH_STEP;
        }
        start
    })
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
