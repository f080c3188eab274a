//! Intervals of f64 whose ends are rounded outwards, so that the true result always lies inside.

use ganglion_site::plan::Span;
use ganglion_site::{Compare, Comparison};

/// Zero, exactly.
pub(crate) const ZERO: Span = Span::exactly(0.0);

/// `a + b`. Adding an exact zero changes nothing.
pub(crate) fn add(a: Span, b: Span) -> Span {
    if b == ZERO {
        return a;
    }
    if a == ZERO {
        return b;
    }
    Span { lo: (a.lo + b.lo).next_down(), hi: (a.hi + b.hi).next_up() }
}

/// `rate * time` for times that are not negative.
pub(crate) fn times(rate: Span, time: Span) -> Span {
    if rate == ZERO || time == ZERO {
        return ZERO;
    }
    Span {
        lo: (rate.lo * time.lo).min(rate.lo * time.hi).next_down(),
        hi: (rate.hi * time.lo).max(rate.hi * time.hi).next_up(),
    }
}

/// `length / speed` for positive ones.
pub(crate) fn over(length: f64, speed: Span) -> Span {
    Span { lo: (length / speed.hi).next_down(), hi: (length / speed.lo).next_up() }
}

/// The smallest interval around both.
pub(crate) fn hull(a: Span, b: Span) -> Span {
    Span { lo: a.lo.min(b.lo), hi: a.hi.max(b.hi) }
}

/// Where a value ends up that moves by `amount` and stops at `until`, if it gets there. Monotone in both, so that the
/// ends of the intervals give the ends of the result.
pub(crate) fn moved(value: Span, amount: Span, until: Option<f64>) -> Span {
    let end = add(value, amount);
    let Some(until) = until else { return end };
    let stop = |from: f64, amount: f64, to: f64| match amount >= 0.0 {
        true => to.min(from.max(until)),
        false => to.max(from.min(until)),
    };
    Span { lo: stop(value.lo, amount.lo, end.lo), hi: stop(value.hi, amount.hi, end.hi) }
}

/// Whether the comparison holds for every value.
pub(crate) fn surely(compare: &Compare, span: Span) -> bool {
    let bound = compare.value;
    match compare.op {
        Comparison::Less => span.hi < bound,
        Comparison::LessOrEqual => span.hi <= bound,
        Comparison::Greater => span.lo > bound,
        Comparison::GreaterOrEqual => span.lo >= bound,
        Comparison::Equal => span.lo == bound && span.hi == bound,
        Comparison::NotEqual => span.hi < bound || span.lo > bound,
    }
}

/// Whether the comparison holds for some value.
pub(crate) fn perhaps(compare: &Compare, span: Span) -> bool {
    let bound = compare.value;
    match compare.op {
        Comparison::Less => span.lo < bound,
        Comparison::LessOrEqual => span.lo <= bound,
        Comparison::Greater => span.hi > bound,
        Comparison::GreaterOrEqual => span.hi >= bound,
        Comparison::Equal => span.lo <= bound && span.hi >= bound,
        Comparison::NotEqual => span.lo != bound || span.hi != bound,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn span() -> impl Strategy<Value = Span> {
        (-100.0..100.0, 0.0..50.0).prop_map(|(lo, wide)| Span { lo, hi: lo + wide })
    }

    proptest! {
        #[test]
        fn every_result_lies_inside(a in span(), b in span(), x in 0.0..=1.0, y in 0.0..=1.0, until in -120.0..120.0f64) {
            let pick = |s: Span, t: f64| (s.lo + (s.hi - s.lo) * t).clamp(s.lo, s.hi);
            let (u, v) = (pick(a, x), pick(b, y));
            let inside = |s: Span, value: f64| s.lo <= value && value <= s.hi;
            prop_assert!(inside(add(a, b), u + v));
            let time = Span { lo: a.lo.abs(), hi: a.lo.abs() + (a.hi - a.lo) };
            prop_assert!(inside(times(b, time), v * pick(time, x)));
            prop_assert!(inside(hull(a, b), u) && inside(hull(a, b), v));
            let end = if v >= 0.0 { (u + v).min(u.max(until)) } else { (u + v).max(u.min(until)) };
            prop_assert!(inside(moved(a, b, Some(until)), end));
            for op in [Comparison::Less, Comparison::LessOrEqual, Comparison::Greater, Comparison::GreaterOrEqual,
                Comparison::Equal, Comparison::NotEqual] {
                let compare = Compare { tag: 0, op, value: until };
                prop_assert!(!surely(&compare, a) || compare.holds(u));
                prop_assert!(perhaps(&compare, a) || !compare.holds(u));
            }
        }
    }

    #[test]
    fn exact_values_stay_exact() {
        let one = Span::exactly(1.0);
        assert_eq!(add(one, ZERO), one);
        assert_eq!(times(one, ZERO), ZERO);
        assert!(surely(&Compare { tag: 0, op: Comparison::Equal, value: 1.0 }, moved(one, ZERO, Some(4.0))));
        assert_eq!(moved(one, Span::exactly(9.0), Some(4.0)), Span::exactly(4.0));
    }
}
