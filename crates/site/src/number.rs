//! Numbers on a grid of decimal steps, and how they are written: shortest form, never `-0`, never `21.0`.

use crate::limits::DECIMALS_MAX;

/// The multiples of a decimal step, exact: `step = mantissa / 10^decimals`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Grid {
    mantissa: f64,
    power: f64,
    pub(crate) decimals: u8,
}

/// How far, in steps, a number may lie from a multiple and still be it.
const TOLERANCE_STEPS: f64 = 1e-6;

impl Grid {
    /// The grid of a step; `None` unless the step is 1, 2, 2.5 or 5 times a power of ten with at most
    /// [`DECIMALS_MAX`] decimals.
    pub(crate) fn new(step: f64) -> Option<Self> {
        if !(step.is_finite() && step > 0.0 && step <= 1e6) {
            return None;
        }
        let mut power = 1.0;
        for decimals in 0..=DECIMALS_MAX {
            let mantissa = (step * power).round();
            if mantissa >= 1.0 && (mantissa / power).to_bits() == step.to_bits() {
                let mut lead = mantissa;
                while lead >= 10.0 && lead % 10.0 == 0.0 {
                    lead /= 10.0;
                }
                let friendly = [1.0, 2.0, 5.0, 25.0].contains(&lead);
                return friendly.then_some(Self { mantissa, power, decimals });
            }
            power *= 10.0;
        }
        None
    }

    /// The multiple of the step that `value` is, up to rounding of the f64; `None` when it is none.
    pub(crate) fn snap(&self, value: f64) -> Option<f64> {
        let count = (value * self.power / self.mantissa).round();
        let snapped = count * self.mantissa / self.power;
        let step = self.mantissa / self.power;
        ((snapped - value).abs() <= step * TOLERANCE_STEPS).then_some(snapped + 0.0)
    }
}

/// Appends `value` with at most `decimals` decimals, trailing zeros and the sign of zero left out. Does not allocate
/// when `out` has room.
pub(crate) fn push_decimal(out: &mut String, value: f64, decimals: u8) {
    use std::fmt::Write as _;
    let start = out.len();
    // Writing to a String cannot fail.
    let _ = write!(out, "{value:.*}", usize::from(decimals));
    if out.get(start..).is_some_and(|text| text.contains('.')) {
        let end = out.trim_end_matches('0').trim_end_matches('.').len();
        out.truncate(end);
    }
    if out.get(start..) == Some("-0") {
        out.truncate(start);
        out.push('0');
    }
}

/// [`push_decimal`] with the fewest decimals that give the number back, at most [`DECIMALS_MAX`] of them.
pub(crate) fn shortest(value: f64) -> String {
    let mut out = String::new();
    push_decimal(&mut out, value, DECIMALS_MAX);
    out
}

/// Decimals of `scale` as one would write it: 0.1 → 1, 0.02 → 2, 1 → 0, at most [`DECIMALS_MAX`].
pub(crate) fn decimals_of(scale: f64) -> u8 {
    let text = shortest(scale);
    text.split_once('.').map_or(0, |(_, fraction)| u8::try_from(fraction.len()).unwrap_or(DECIMALS_MAX))
}

/// A JSON number: an integer when the value is whole.
pub(crate) fn json(value: f64) -> serde_json::Value {
    const WHOLE_MAX: f64 = crate::limits::INTEGER_MAX as f64;
    if value.fract() == 0.0 && value.abs() <= WHOLE_MAX {
        // In range by the line above, so the cast is exact.
        serde_json::Value::from(value as i64)
    } else {
        serde_json::Value::from(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps() {
        for step in
            [100.0, 50.0, 25.0, 10.0, 5.0, 2.5, 2.0, 1.0, 0.5, 0.25, 0.2, 0.1, 0.05, 0.025, 0.02, 0.01, 1e-6]
        {
            assert!(Grid::new(step).is_some(), "{step}");
        }
        for step in [0.0, -1.0, 3.0, 0.3, 0.15, 1e-7, f64::NAN, f64::INFINITY, 1e9, 12.0, 0.1 + 1e-12] {
            assert!(Grid::new(step).is_none(), "{step}");
        }
    }

    #[test]
    fn multiples_are_the_nearest_f64_of_their_decimal() {
        let grid = Grid::new(0.1).unwrap();
        assert_eq!(grid.snap(0.1 + 0.2), Some(0.3));
        assert_eq!(grid.snap(21.30000001), Some(21.3));
        assert_eq!(grid.snap(21.35), None);
        assert_eq!(grid.snap(-0.0).map(f64::to_bits), Some(0));
        assert_eq!(grid.snap(f64::NAN), None);
    }

    #[test]
    fn written_short() {
        let show = |value, decimals| {
            let mut out = String::from("x=10.0 ");
            push_decimal(&mut out, value, decimals);
            out.split_off(7)
        };
        assert_eq!(show(21.0, 1), "21");
        assert_eq!(show(-0.04, 1), "0");
        assert_eq!(show(-0.5, 1), "-0.5");
        assert_eq!(show(100.0, 0), "100");
        assert_eq!(show(0.25, 2), "0.25");
        assert_eq!(decimals_of(0.02), 2);
        assert_eq!(decimals_of(10.0), 0);
    }
}
