//! Elementary functions as fixed sequences of IEEE operations: the system's libm differs between platforms, these
//! do not.

use crate::limits::LANES;

/// Adding and subtracting this rounds an f32 of magnitude below 2^22 to the nearest integer, ties to even.
const ROUND_MAGIC: f32 = 12_582_912.0;
/// `ln 2` in two parts: `LN2_HI` has enough trailing zeros that `n * LN2_HI` is exact for the exponents in use.
const LN2_HI: f32 = 0.693_359_4;
const LN2_LO: f32 = -2.121_944_4e-4;

/// Nearest integer, ties to even, as float and as i32. Only for magnitudes below 2^22.
#[inline(always)]
pub(crate) fn round_even(x: f32) -> (f32, i32) {
    let shifted = x + ROUND_MAGIC;
    (shifted - ROUND_MAGIC, (shifted.to_bits() as i32).wrapping_sub(ROUND_MAGIC.to_bits() as i32))
}

/// `e^x`: 0 below -87.3, infinity above 88.7, NaN for NaN; elsewhere within 2 units in the last place.
///
/// Range reduction by `ln 2` in two parts and a degree-7 Taylor polynomial, every step fused.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    let (n_float, n) = round_even(x.clamp(-88.0, 89.0) * std::f32::consts::LOG2_E);
    let r = n_float.mul_add(-LN2_LO, n_float.mul_add(-LN2_HI, x));
    let mut p = (1.0f32 / 5040.0).mul_add(r, 1.0 / 720.0);
    p = p.mul_add(r, 1.0 / 120.0);
    p = p.mul_add(r, 1.0 / 24.0);
    p = p.mul_add(r, 1.0 / 6.0);
    p = p.mul_add(r, 0.5);
    p = p.mul_add(r, 1.0);
    p = p.mul_add(r, 1.0);
    // Two factors, because 2^128 alone is not a float while the product may be one.
    let half_n = n >> 1;
    let scale = |e: i32| f32::from_bits((e.wrapping_add(127) as u32) << 23);
    let y = p * scale(half_n) * scale(n.wrapping_sub(half_n));
    let y = if x < -87.3 { 0.0 } else { y };
    if x > 88.72 { f32::INFINITY } else { y }
}

/// Hyperbolic tangent: 1 within rounding for |x| above 9.1, NaN for NaN; elsewhere within 3 units in the last place.
///
/// Below 0.625 the odd polynomial of Cephes' `tanhf` (Moshier 1992), above it `1 - 2 / (e^2|x| + 1)`.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    let magnitude = x.abs();
    let z = x * x;
    let mut p = (-5.704_988_7e-3f32).mul_add(z, 2.063_909e-2);
    p = p.mul_add(z, -5.373_971_6e-2);
    p = p.mul_add(z, 1.333_144_2e-1);
    p = p.mul_add(z, -3.333_328e-1);
    let small = (p * z).mul_add(x, x);
    let large = (1.0 - 2.0 / (exp(2.0 * magnitude) + 1.0)).copysign(x);
    if magnitude < 0.625 { small } else { large }
}

/// IEEE half to single, exact for every finite value and the infinities; plain integer steps that vectorise.
#[inline(always)]
pub(crate) fn f16_to_f32(h: u16) -> f32 {
    let magnitude = u32::from(h & 0x7fff) << 13;
    let exponent = magnitude & 0x0f80_0000;
    let normal = magnitude + ((127 - 15) << 23);
    let special = normal + ((128 - 16) << 23);
    // A subnormal half is `m * 2^-24`: put m under the exponent of 2^-14 and subtract that again.
    let subnormal = (f32::from_bits(magnitude + (113 << 23)) - f32::from_bits(113 << 23)).to_bits();
    let bits = if exponent == 0x0f80_0000 { special } else { normal };
    let bits = if exponent == 0 { subnormal } else { bits };
    f32::from_bits(bits | (u32::from(h & 0x8000) << 16))
}

/// IEEE single to half, to nearest with ties to even; plain integer steps that vectorise. Every NaN becomes 0x7e00 with its
/// sign.
#[inline(always)]
pub(crate) fn f32_to_f16(x: f32) -> u16 {
    let bits = x.to_bits();
    let magnitude = bits & 0x7fff_ffff;
    // Rounding may carry into the exponent, up to infinity.
    let normal = magnitude.wrapping_sub((127 - 15) << 23).wrapping_add(0xfff + ((magnitude >> 13) & 1)) >> 13;
    // Below 2^-14 a sum whose unit in the last place is 2^-24 rounds to the subnormal's integer.
    let subnormal = (f32::from_bits(magnitude) + f32::from_bits((127 - 1) << 23)).to_bits() & 0x007f_ffff;
    let half = if magnitude < 113 << 23 { subnormal } else { normal };
    let half = if magnitude >= 143 << 23 { 0x7c00 } else { half };
    let half = if magnitude > 0x7f80_0000 { 0x7e00 } else { half };
    (half | ((bits >> 16) & 0x8000)) as u16
}

/// Brain float to single, exact.
#[inline(always)]
pub(crate) fn bf16_to_f32(h: u16) -> f32 {
    f32::from_bits(u32::from(h) << 16)
}

/// The fixed tree that joins 16 virtual lanes.
#[inline(always)]
pub(crate) fn reduce(lanes: &[f32; LANES]) -> f32 {
    let mut eight = [0.0f32; 8];
    for (i, e) in eight.iter_mut().enumerate() {
        *e = lanes[i] + lanes[i + 8];
    }
    let four = [eight[0] + eight[4], eight[1] + eight[5], eight[2] + eight[6], eight[3] + eight[7]];
    (four[0] + four[2]) + (four[1] + four[3])
}

/// Natural logarithm of a positive finite number, by the atanh series; relative error below 1e-15.
pub fn ln_f64(x: f64) -> f64 {
    let bits = x.to_bits();
    let mut exponent = ((bits >> 52) & 0x7ff) as i64 - 1023;
    let mut m = f64::from_bits((bits & 0x000f_ffff_ffff_ffff) | 0x3ff0_0000_0000_0000);
    if m > std::f64::consts::SQRT_2 {
        m *= 0.5;
        exponent += 1;
    }
    let s = (m - 1.0) / (m + 1.0);
    let s2 = s * s;
    let mut series = 0.0;
    for n in (0..14).rev() {
        series = series * s2 + 1.0 / f64::from(2 * n + 1);
    }
    exponent as f64 * std::f64::consts::LN_2 + 2.0 * s * series
}

/// `e^x` in double precision for moderate x (|x| below 700).
pub(crate) fn exp_f64(x: f64) -> f64 {
    let n = (x * std::f64::consts::LOG2_E).round();
    let r = (x - n * 6.931_471_803_691_238e-1) - n * 1.908_214_929_270_587_7e-10;
    let mut p = 1.0;
    for i in (1..=15).rev() {
        p = p * r / f64::from(i) + 1.0;
    }
    p * f64::from_bits(((n as i64 + 1023) as u64) << 52)
}

/// Sine and cosine of an angle in radians with |angle| below 2^30; absolute error below 1e-12 there.
pub fn sin_cos_f64(angle: f64) -> (f64, f64) {
    let n = (angle * std::f64::consts::FRAC_2_PI).round();
    // pi/2 in two parts of 33 bits and a rest: with fused products the first difference is exact.
    let r = n.mul_add(-1.570_796_326_734_125_6, angle);
    let r = n.mul_add(-6.077_100_506_303_966e-11, r);
    let r = n.mul_add(-2.022_266_248_795_950_6e-21, r);
    let r2 = r * r;
    let (mut sin, mut cos) = (1.0, 1.0);
    for i in (1..=9).rev() {
        let i = f64::from(i);
        sin = 1.0 - sin * r2 / ((2.0 * i) * (2.0 * i + 1.0));
        cos = 1.0 - cos * r2 / ((2.0 * i - 1.0) * (2.0 * i));
    }
    sin *= r;
    match (n as i64).rem_euclid(4) {
        0 => (sin, cos),
        1 => (cos, -sin),
        2 => (-sin, -cos),
        _ => (-cos, sin),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_converts_as_the_half_crate_does() {
        for h in 0..=u16::MAX {
            let (ours, theirs) = (f16_to_f32(h), half::f16::from_bits(h).to_f32());
            assert!(ours.to_bits() == theirs.to_bits() || (ours.is_nan() && theirs.is_nan()), "{h:#06x}");
        }
    }

    #[test]
    fn singles_round_to_halves_as_the_half_crate_does() {
        let halves = (0..=u16::MAX).map(|h| half::f16::from_bits(h).to_f32());
        for exact in halves {
            for bits in [-0x1001i32, -0x1000, -0xfff, -1, 0, 1, 0xfff, 0x1000, 0x1001] {
                let x = f32::from_bits(exact.to_bits().wrapping_add_signed(bits));
                let (ours, theirs) = (f32_to_f16(x), half::f16::from_f32(x));
                assert!(ours == theirs.to_bits() || (x.is_nan() && ours & 0x7fff == 0x7e00), "{x:e}");
            }
        }
    }

    #[test]
    fn exp_is_within_two_units_in_the_last_place() {
        let mut worst = 0.0f64;
        for i in -870_000..887_000 {
            let x = i as f32 / 10_000.0;
            let exact = f64::from(x).exp();
            let unit = f64::from(f32::from_bits((exact as f32).to_bits() + 1)) - f64::from(exact as f32);
            worst = worst.max((f64::from(exp(x)) - exact).abs() / unit);
        }
        assert!(worst < 2.0, "{worst}");
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn tanh_is_within_three_units_in_the_last_place() {
        let mut worst = 0.0f64;
        for i in -120_000..=120_000 {
            let x = i as f32 / 10_000.0;
            let exact = f64::from(x).tanh();
            let nearest = (exact as f32).abs();
            let unit = f64::from(f32::from_bits(nearest.to_bits() + 1)) - f64::from(nearest);
            worst = worst.max((f64::from(tanh(x)) - exact).abs() / unit);
        }
        assert!(worst < 3.0, "{worst}");
        assert_eq!(tanh(0.0).to_bits(), 0.0f32.to_bits());
        assert_eq!((tanh(f32::INFINITY), tanh(f32::NEG_INFINITY)), (1.0, -1.0));
        assert!(tanh(f32::NAN).is_nan());
    }

    #[test]
    fn double_precision_functions_match_the_system() {
        for i in 1..20_000 {
            let x = f64::from(i) * 0.37;
            assert!((ln_f64(x) - x.ln()).abs() <= 1e-14 * x.ln().abs().max(1.0), "ln {x}");
            let y = f64::from(i) / 1000.0 - 10.0;
            assert!((exp_f64(y) - y.exp()).abs() <= 1e-14 * y.exp(), "exp {y}");
            let (sin, cos) = sin_cos_f64(x * 100.0);
            assert!((sin - (x * 100.0).sin()).abs() < 1e-12, "sin {x}");
            assert!((cos - (x * 100.0).cos()).abs() < 1e-12, "cos {x}");
            let far = f64::from(i) * 53_687.091;
            let (sin, cos) = sin_cos_f64(far);
            assert!((sin - far.sin()).abs() < 1e-12 && (cos - far.cos()).abs() < 1e-12, "far {far}");
        }
    }
}
