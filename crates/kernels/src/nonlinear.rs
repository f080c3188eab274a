//! The non-linear functions of a layer: gated and plain activations, soft-caps, and the choice of experts.

use crate::isa::{Isa, multiversion};
use crate::math::{exp, tanh};
use crate::pool::Pool;

/// An activation function `f`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x / (1 + e^-x)` (Elfwing et al. 2017).
    Silu,
    /// `x / 2 · (1 + tanh(√(2/π) · (x + 0.044715 x³)))` (Hendrycks and Gimpel 2016), computed as `x / (1 + e^-2u)`, which
    /// is the same function.
    GeluTanh,
    /// `x · Φ(x)` with the normal distribution's Φ, off by less than 1e-7.
    GeluErf,
}

/// `gate = f(gate) · up` (Shazeer 2020: SwiGLU, GEGLU); both are (tokens, length).
///
/// # Panics
/// If the shapes differ or are not whole rows.
pub fn activate_gated(
    isa: Isa,
    pool: &Pool,
    activation: Activation,
    gate: &mut [f32],
    up: &[f32],
    length: usize,
) {
    assert!(gate.len() == up.len(), "gate and up differ in length");
    pool.for_each_row(gate, length, &|token, row| {
        let up = &up[token * length..(token + 1) * length];
        match activation {
            Activation::Silu => silu_gated(isa, row, up),
            Activation::GeluTanh => gelu_tanh_gated(isa, row, up),
            Activation::GeluErf => gelu_erf_gated(isa, row, up),
        }
    });
}

/// `x = f(x)`; `x` is (tokens, length).
///
/// # Panics
/// If `x` is not whole rows.
pub fn activate(isa: Isa, pool: &Pool, activation: Activation, x: &mut [f32], length: usize) {
    pool.for_each_row(x, length, &|_, row| match activation {
        Activation::Silu => silu_row(isa, row),
        Activation::GeluTanh => gelu_tanh_row(isa, row),
        Activation::GeluErf => gelu_erf_row(isa, row),
    });
}

#[inline(always)]
fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

#[inline(always)]
fn gelu_tanh(x: f32) -> f32 {
    /// -2 √(2/π), and the same times 0.044715.
    const LINEAR: f32 = -1.595_769;
    const CUBIC: f32 = LINEAR * 0.044_715;
    x / (1.0 + exp(x * CUBIC.mul_add(x * x, LINEAR)))
}

/// Φ(-√2 t) is erfc(t) / 2, and `ln erfc(t) / t` is smooth: a polynomial in t, fitted for the smallest greatest error of
/// erfc over 0..6. Beyond 6 (|x| above 8.5) the tail is below 2e-17 and stays there.
#[inline(always)]
fn gelu_erf(x: f32) -> f32 {
    let t = (x.abs() * std::f32::consts::FRAC_1_SQRT_2).min(6.0);
    let mut p = (-5.477_621e-7_f32).mul_add(t, 1.248_546_5e-5);
    p = p.mul_add(t, -1.182_916_24e-4);
    p = p.mul_add(t, 5.969_3e-4);
    p = p.mul_add(t, -1.557_424_4e-3);
    p = p.mul_add(t, 1.296_878_6e-5);
    p = p.mul_add(t, 1.925_559_7e-2);
    p = p.mul_add(t, -1.028_142_5e-1);
    p = p.mul_add(t, -6.366_135_5e-1);
    p = p.mul_add(t, -1.128_379_5);
    let tail = 0.5 * exp(p * t);
    // x · (1 - tail) keeps a NaN; so does x · tail.
    x * if x < 0.0 { tail } else { 1.0 - tail }
}

macro_rules! rows {
    ($($function:ident, $plain:ident, $gated:ident;)*) => {$(
        multiversion! {
            fn $plain(isa, x: &mut [f32]) {
                for v in x {
                    *v = $function(*v);
                }
            }
        }
        multiversion! {
            fn $gated(isa, gate: &mut [f32], up: &[f32]) {
                for (g, u) in gate.iter_mut().zip(up) {
                    *g = $function(*g) * u;
                }
            }
        }
    )*};
}

rows! {
    silu, silu_row, silu_gated;
    gelu_tanh, gelu_tanh_row, gelu_tanh_gated;
    gelu_erf, gelu_erf_row, gelu_erf_gated;
}

/// `x = cap · tanh(x / cap)`: bounds logits without cutting them off (Bello et al. 2016; Gemma 2).
pub fn soft_cap(isa: Isa, x: &mut [f32], cap: f32) {
    soft_cap_all(isa, x, cap);
}

multiversion! {
    fn soft_cap_all(isa, x: &mut [f32], cap: f32) {
        for v in x {
            *v = tanh(*v / cap) * cap;
        }
    }
}

/// `1 / (1 + e^-x)`.
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// Turns one token's router logits into shares, in place: the softmax, its total summed in ascending order.
pub fn softmax(logits: &mut [f32]) {
    let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut total = 0.0;
    for v in logits.iter_mut() {
        *v = exp(*v - highest);
        total += *v;
    }
    for v in logits {
        *v /= total;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// erf by its Maclaurin series below 3, by 1 - the continued fraction of erfc above: both to 1e-14.
    fn erf(x: f64) -> f64 {
        let t = x.abs();
        let value = if t < 3.0 {
            let (mut term, mut sum) = (t, t);
            for n in 1..200 {
                term *= -t * t / f64::from(n);
                sum += term / f64::from(2 * n + 1);
            }
            sum * std::f64::consts::FRAC_2_SQRT_PI
        } else {
            let mut fraction = t;
            for n in (1..200).rev() {
                fraction = t + f64::from(n) / 2.0 / fraction;
            }
            1.0 - (-t * t).exp() / (fraction * std::f64::consts::PI.sqrt())
        };
        value.copysign(x)
    }

    #[test]
    fn activations_are_what_they_say() {
        let (mut silu_worst, mut tanh_worst, mut erf_worst) = (0.0f64, 0.0f64, 0.0f64);
        for i in -200_000..=200_000 {
            let x = i as f32 / 10_000.0;
            let wide = f64::from(x);
            let unit = wide.abs().max(1.0);
            let exact = wide / (1.0 + (-wide).exp());
            silu_worst = silu_worst.max((f64::from(silu(x)) - exact).abs() / unit);
            let u = (2.0 / std::f64::consts::PI).sqrt() * (wide + 0.044_715 * wide.powi(3));
            let exact = wide / 2.0 * (1.0 + u.tanh());
            tanh_worst = tanh_worst.max((f64::from(gelu_tanh(x)) - exact).abs() / unit);
            let exact = wide / 2.0 * (1.0 + erf(wide / std::f64::consts::SQRT_2));
            erf_worst = erf_worst.max((f64::from(gelu_erf(x)) - exact).abs() / unit);
        }
        println!("silu {silu_worst:e}, gelu tanh {tanh_worst:e}, gelu erf {erf_worst:e}");
        assert!(silu_worst < 1.5e-7 && tanh_worst < 1.5e-7 && erf_worst < 1e-7);
    }

    #[test]
    fn a_nan_stays_one_and_large_values_pass_or_vanish() {
        for f in [silu, gelu_tanh, gelu_erf] {
            assert!(f(f32::NAN).is_nan());
            assert_eq!(f(1e4), 1e4);
            assert!(f(-1e4).abs() < 1e-12);
            assert_eq!(f(0.0), 0.0);
        }
        let mut capped = [f32::NAN, 1e9, -1e9, 0.1];
        soft_cap(Isa::detect(), &mut capped, 30.0);
        assert!(capped[0].is_nan());
        assert_eq!(&capped[1..3], &[30.0, -30.0]);
        assert!((capped[3] - 0.1).abs() < 1e-6);
    }

    #[test]
    fn shares_sum_to_one() {
        let mut shares = [1.0, 3.0, -200.0, 3.0];
        softmax(&mut shares);
        assert!((shares.iter().sum::<f32>() - 1.0).abs() < 1e-6);
        assert!(shares[1] == shares[3] && shares[1] > shares[0] && shares[2] == 0.0);
        let mut spoiled = [1.0, f32::NAN];
        softmax(&mut spoiled);
        assert!(spoiled.iter().all(|v| v.is_nan()));
        assert!((sigmoid(0.5) - 0.622_459_35).abs() < 1e-6);
    }
}
