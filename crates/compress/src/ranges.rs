//! Fixed scales for int8 activations: how far the range of 127 steps is to reach.

use std::collections::HashMap;

use ganglion_llm::Reader;

/// Shares of the largest magnitude that are tried as ends of the range: hundredths.
const TRIED: usize = 100;
/// Share of all values that a range by percentile covers.
const COVERED: f64 = 0.9999;
/// Upper bits of a float that make a bin: exponent and four bits of the mantissa, steps of 3 to 6 %.
const BIN_SHIFT: u32 = 19;
const BINS: usize = 1 << (31 - BIN_SHIFT);
/// Steps on either side of zero.
const STEPS: f64 = 127.0;

/// How the range of a fixed scale is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Range {
    /// All but one in ten thousand values are inside.
    Percentile,
    /// Least mean squared error.
    Mse,
    /// Least divergence of the rounded values' distribution from that of the values (Migacz 2017).
    Kl,
}

impl Range {
    /// Every choice.
    pub const ALL: [Self; 3] = [Self::Percentile, Self::Mse, Self::Kl];

    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Percentile => "percentile",
            Self::Mse => "mse",
            Self::Kl => "kl",
        }
    }

    /// The choice of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|range| range.name() == name)
    }
}

/// Magnitudes in bins of nearly equal ratio.
#[derive(Debug, Clone, PartialEq)]
pub struct Magnitudes {
    counts: Vec<u64>,
    largest: f32,
}

/// Those of each reader of a layer.
pub(crate) type ByReader = HashMap<Reader, Magnitudes>;

impl Default for Magnitudes {
    fn default() -> Self {
        Self { counts: vec![0; BINS], largest: 0.0 }
    }
}

/// The ends of a bin.
fn ends(bin: usize) -> (f64, f64) {
    let at = |bin: usize| f64::from(f32::from_bits((bin as u32) << BIN_SHIFT));
    (at(bin), at(bin + 1))
}

impl Magnitudes {
    /// Adds rows of activations, each value multiplied by the factor of its column.
    pub(crate) fn add(&mut self, x: &[f32], factors: Option<&[f32]>) {
        let columns = factors.map_or(x.len(), <[f32]>::len).max(1);
        for row in x.chunks(columns) {
            for (i, value) in row.iter().enumerate() {
                let value = (value * factors.map_or(1.0, |factors| factors[i])).abs();
                if value.is_finite() {
                    self.counts[(value.to_bits() >> BIN_SHIFT) as usize] += 1;
                    self.largest = self.largest.max(value);
                }
            }
        }
    }

    /// Bins with values in them: their ends, the upper one no further than the largest value, and their counts.
    fn filled(&self) -> impl Iterator<Item = (f64, f64, f64)> {
        let bins = self.counts.iter().enumerate().filter(|(_, count)| **count > 0);
        bins.map(|(bin, count)| {
            let (low, high) = ends(bin);
            (low, high.min(f64::from(self.largest)).max(low), *count as f64)
        })
    }

    /// The scale: where the range ends, over 127. 0 if there was nothing but zeros.
    pub fn scale(&self, range: Range) -> f32 {
        let largest = f64::from(self.largest);
        let best = |cost: &dyn Fn(f64) -> f64| {
            let ends = (1..=TRIED).map(|share| largest * share as f64 / TRIED as f64);
            // The first of equals, from the widest on.
            ends.rev().map(|end| (cost(end), end)).min_by(|a, b| a.0.total_cmp(&b.0)).map_or(0.0, |b| b.1)
        };
        let end = match range {
            Range::Percentile => self.percentile(),
            Range::Mse => best(&|end| self.squared_error(end)),
            Range::Kl => best(&|end| self.divergence(end)),
        };
        (end / STEPS) as f32
    }

    fn percentile(&self) -> f64 {
        let total: u64 = self.counts.iter().sum();
        let mut seen = 0.0;
        for (_, high, count) in self.filled() {
            seen += count;
            if seen >= COVERED * total as f64 {
                return high;
            }
        }
        0.0
    }

    /// Of all values, if the range ends at `end`: a uniform error within a step, and what is cut off.
    fn squared_error(&self, end: f64) -> f64 {
        let step = end / STEPS;
        let cost = |(low, high, count): (f64, f64, f64)| {
            let middle = (low + high) / 2.0;
            let cut = (middle - end).max(0.0);
            // What is less than half a step becomes zero.
            let rounding = if middle < step / 2.0 { middle * middle } else { step * step / 12.0 };
            count * if cut > 0.0 { cut * cut } else { rounding }
        };
        self.filled().map(cost).sum()
    }

    /// Kullback-Leibler divergence of the distribution after rounding from that before: a step's values spread evenly over the
    /// bins that it covers and that hold any, everything beyond the end on its last step.
    fn divergence(&self, end: f64) -> f64 {
        let step = end / STEPS;
        let mut steps: HashMap<u64, (f64, f64)> = HashMap::new();
        let of = |middle: f64| (middle / step).round().min(STEPS) as u64;
        let mut total = 0.0;
        for (low, high, count) in self.filled() {
            let middle = (low + high) / 2.0;
            let entry = steps.entry(of(middle)).or_default();
            entry.0 += count;
            // Bins beyond the end have no place among the rounded values.
            entry.1 += if low < end { high - low } else { 0.0 };
            total += count;
        }
        let mut divergence = 0.0;
        for (low, high, count) in self.filled() {
            let (mass, width) = steps[&of((low + high) / 2.0)];
            let inside = if low < end { (high - low).max(f64::MIN_POSITIVE) } else { 0.0 };
            let rounded = if width > 0.0 { mass * inside / width } else { mass };
            // A value whose bin is empty afterwards counts as if a millionth were left there.
            divergence += count / total * (count / rounded.max(total * 1e-6)).ln();
        }
        divergence
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Normal values by sums of uniform ones, and a few outliers.
    fn magnitudes(outlier: f32) -> Magnitudes {
        let mut state = 1u64;
        let mut uniform = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 24) as f32
        };
        let mut x: Vec<f32> = (0..200_000).map(|_| (0..12).map(|_| uniform()).sum::<f32>() - 6.0).collect();
        x[7] = outlier;
        let mut found = Magnitudes::default();
        found.add(&x, None);
        found
    }

    #[test]
    fn ranges_reach_as_far_as_their_rule_says() {
        for outlier in [5.0, 40.0] {
            let found = magnitudes(outlier);
            let end = |range| found.scale(range) * 127.0;
            println!("{outlier}: {:?}", Range::ALL.map(end));
            // Of a normal distribution, 99.99 % are within 3.89 deviations; eight bits err least with a range of about 4.
            assert!((3.6..4.3).contains(&end(Range::Percentile)), "{}", end(Range::Percentile));
            assert!((3.2..4.9).contains(&end(Range::Mse)), "{}", end(Range::Mse));
            assert!((2.0..=5.2).contains(&end(Range::Kl)), "{}", end(Range::Kl));
        }
    }

    #[test]
    fn factors_of_columns_count_and_nothing_has_no_range() {
        let mut plain = Magnitudes::default();
        plain.add(&[1.0, -4.0, 0.5, 8.0], None);
        let mut scaled = Magnitudes::default();
        scaled.add(&[2.0, -2.0, 1.0, 4.0], Some(&[0.5, 2.0]));
        assert_eq!(plain, scaled);
        for range in Range::ALL {
            assert_eq!(Magnitudes::default().scale(range), 0.0);
            assert_eq!(Range::from_name(range.name()), Some(range));
        }
    }
}
