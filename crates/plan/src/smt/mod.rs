//! Plans as SMT-LIB text (QF_LRA): [`verify`], a second opinion on a plan, and [`search`], for another order.

pub mod search;
pub mod verify;

use ganglion_site::plan::Span;
use ganglion_site::{Compare, Comparison};
use std::fmt::Write;

/// The exact value, which f64 always has: a whole number over a power of two.
pub(crate) fn number(value: f64) -> String {
    let magnitude = value.abs();
    let digits = if magnitude == 0.0 {
        "0.0".to_string()
    } else if magnitude.fract() == 0.0 {
        format!("{magnitude:.1}")
    } else {
        let bits = magnitude.to_bits();
        let (exponent, fraction) = ((bits >> 52) as i64, bits & ((1 << 52) - 1));
        let whole = if exponent == 0 { fraction } else { fraction | 1 << 52 };
        let places = 1075 - exponent.max(1) - i64::from(whole.trailing_zeros());
        match u32::try_from(places).ok().and_then(|places| 1u128.checked_shl(places)) {
            Some(below) if places < 128 => format!("(/ {}.0 {below}.0)", whole >> whole.trailing_zeros()),
            _ => format!("{magnitude:.1100}"),
        }
    };
    if value < 0.0 { format!("(- {digits})") } else { digits }
}

/// The nearest number of at most 24 bits: sums and products of such ones stay small, and the solver fast.
pub(crate) fn near(value: f64) -> f64 {
    f64::from(value as f32)
}

/// The interval between numbers of at most 24 bits inside this one; this one itself where there are none.
pub(crate) fn inner(span: Span) -> Span {
    let (lo, hi) = (span.lo as f32, span.hi as f32);
    let lo = if f64::from(lo) < span.lo { lo.next_up() } else { lo };
    let hi = if f64::from(hi) > span.hi { hi.next_down() } else { hi };
    if lo <= hi { Span { lo: lo.into(), hi: hi.into() } } else { span }
}

/// `compare` of the term `left`.
pub(crate) fn holds(compare: &Compare, left: &str) -> String {
    let right = number(compare.value);
    match compare.op {
        Comparison::Less => format!("(< {left} {right})"),
        Comparison::LessOrEqual => format!("(<= {left} {right})"),
        Comparison::Greater => format!("(> {left} {right})"),
        Comparison::GreaterOrEqual => format!("(>= {left} {right})"),
        Comparison::Equal => format!("(= {left} {right})"),
        Comparison::NotEqual => format!("(not (= {left} {right}))"),
    }
}

/// SMT-LIB text under construction.
#[derive(Debug)]
pub(crate) struct Script(pub String);

impl Script {
    pub fn new(cores: bool) -> Self {
        let mut text = String::with_capacity(1 << 16);
        text.push_str("(reset)\n");
        if cores {
            text.push_str("(set-option :produce-unsat-cores true)\n");
        }
        // The plain simplex: half the time of the default on chains of differences.
        text.push_str("(set-option :smt.arith.solver 2)\n(set-logic QF_LRA)\n");
        Self(text)
    }

    pub fn real(&mut self, name: &str) {
        let _ = writeln!(self.0, "(declare-const {name} Real)");
    }

    pub fn boolean(&mut self, name: &str) {
        let _ = writeln!(self.0, "(declare-const {name} Bool)");
    }

    pub fn define(&mut self, name: &str, value: &str) {
        let _ = writeln!(self.0, "(declare-const {name} Real)\n(assert (= {name} {value}))");
    }

    pub fn assert(&mut self, formula: &str) {
        let _ = writeln!(self.0, "(assert {formula})");
    }

    pub fn assert_named(&mut self, name: &str, formula: &str) {
        let _ = writeln!(self.0, "(assert (! {formula} :named {name}))");
    }
}

/// All of them; `true` when there are none.
pub(crate) fn all(parts: &[String]) -> String {
    match parts {
        [] => "true".into(),
        [one] => one.clone(),
        _ => format!("(and {})", parts.join(" ")),
    }
}

/// One of them at least; `false` when there are none.
pub(crate) fn any(parts: &[String]) -> String {
    match parts {
        [] => "false".into(),
        [one] => one.clone(),
        _ => format!("(or {})", parts.join(" ")),
    }
}

pub(crate) fn min(a: &str, b: &str) -> String {
    format!("(ite (<= {a} {b}) {a} {b})")
}

pub(crate) fn max(a: &str, b: &str) -> String {
    format!("(ite (>= {a} {b}) {a} {b})")
}

/// Where `value` ends up after `amount`, which stops at `until`.
pub(crate) fn moved(value: &str, amount: &str, until: Option<f64>) -> String {
    let end = format!("(+ {value} {amount})");
    let Some(until) = until.map(number) else { return end };
    let up = min(&end, &max(value, &until));
    let down = max(&end, &min(value, &until));
    format!("(ite (>= {amount} 0.0) {up} {down})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_exact() {
        for (value, text) in [
            (0.0, "0.0"),
            (-3.0, "(- 3.0)"),
            (0.5, "(/ 1.0 2.0)"),
            (-1.25, "(- (/ 5.0 4.0))"),
            (0.1, "(/ 3602879701896397.0 36028797018963968.0)"),
            (1e15, "1000000000000000.0"),
        ] {
            assert_eq!(number(value), text);
        }
        assert!(number(1e-300).starts_with("0.000"));
        assert_eq!(number(1e-300).parse::<f64>().unwrap(), 1e-300);
    }
}
