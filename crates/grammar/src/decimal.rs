//! Multiples of a decimal step in a range, exact, and the automaton of their spellings.

use crate::bytes::{ByteGraph, NodeId, NotBounded};
use crate::limits::{NUMBER_DIGITS_MAX, STEP_LEAD_MAX};
use serde_json::Value;
use std::collections::HashMap;

/// `mantissa / 10^decimals`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Decimal {
    mantissa: i128,
    decimals: u32,
}

impl Decimal {
    pub(crate) const ONE: Self = Self { mantissa: 1, decimals: 0 };

    /// The shortest decimal that gives a JSON number back; `None` beyond [`NUMBER_DIGITS_MAX`] digits.
    pub(crate) fn of(value: &Value) -> Option<Self> {
        let text = match value.as_i64() {
            Some(whole) => whole.to_string(),
            // Rust writes an f64 in full, never with an exponent.
            None => value.as_f64().filter(|number| number.is_finite())?.to_string(),
        };
        let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
        if whole.len() + fraction.len() > NUMBER_DIGITS_MAX {
            return None;
        }
        Some(Self {
            mantissa: format!("{whole}{fraction}").parse().ok()?,
            decimals: u32::try_from(fraction.len()).ok()?,
        })
    }

    pub(crate) fn is_whole(self) -> bool {
        self.decimals == 0
    }

    fn scaled(self, decimals: u32) -> Option<i128> {
        10i128.checked_pow(decimals.checked_sub(self.decimals)?)?.checked_mul(self.mantissa)
    }
}

/// All multiples of a step in a range, counted in units of the step's last decimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Multiples {
    lo: i128,
    hi: i128,
    decimals: u32,
    /// The step is `lead · 10^zeros` units.
    lead: u32,
    zeros: u32,
    /// Whether zero may have a sign.
    signed_zero: bool,
}

impl Multiples {
    /// From lower and upper bounds, each (inclusive, exclusive), one of the two at least; `None` when a bound is missing or
    /// the step is not positive or has more than [`STEP_LEAD_MAX`] in front of its zeros.
    pub(crate) fn new(
        lower: (Option<Decimal>, Option<Decimal>),
        upper: (Option<Decimal>, Option<Decimal>),
        step: Decimal,
        signed_zero: bool,
    ) -> Option<Self> {
        let bounds = [lower.0, lower.1, upper.0, upper.1];
        let scale = bounds.iter().flatten().map(|bound| bound.decimals).chain([step.decimals]).max()?;
        let unit = step.scaled(scale).filter(|unit| *unit > 0)?;
        let at = |bound: Option<Decimal>| match bound {
            None => Some(None),
            Some(bound) => bound.scaled(scale).map(Some),
        };
        let first = [
            at(lower.0)?.map(|bound| -(-bound).div_euclid(unit)),
            at(lower.1)?.map(|bound| bound.div_euclid(unit) + 1),
        ];
        let last = [
            at(upper.0)?.map(|bound| bound.div_euclid(unit)),
            at(upper.1)?.map(|bound| -(-bound).div_euclid(unit) - 1),
        ];
        let (first, last) = (first.into_iter().flatten().max()?, last.into_iter().flatten().min()?);
        let (mut lead, mut zeros) = (step.mantissa, 0);
        while lead % 10 == 0 {
            (lead, zeros) = (lead / 10, zeros + 1);
        }
        Some(Self {
            lo: first.checked_mul(step.mantissa)?,
            hi: last.checked_mul(step.mantissa)?,
            decimals: step.decimals,
            lead: u32::try_from(lead).ok().filter(|lead| *lead <= STEP_LEAD_MAX)?,
            zeros,
            signed_zero,
        })
    }

    /// The automaton of all spellings, each followed by `next`; `None` when there is no number.
    pub(crate) fn build(self, graph: &mut ByteGraph, next: NodeId) -> Result<Option<NodeId>, NotBounded> {
        let least = i128::from(!self.signed_zero);
        let mut all = None;
        if self.hi >= 0 {
            all = self.magnitudes(self.lo.max(0), self.hi, graph, next)?;
        }
        if self.lo < 0
            && let Some(negative) = self.magnitudes((-self.hi).max(least), -self.lo, graph, next)?
        {
            let signed = graph.node(false, vec![(b'-', negative)])?;
            all = join(graph, all, Some(signed))?;
        }
        Ok(all)
    }

    /// Numbers from `lo` to `hi` without sign, one length after the other.
    fn magnitudes(
        self,
        lo: i128,
        hi: i128,
        graph: &mut ByteGraph,
        next: NodeId,
    ) -> Result<Option<NodeId>, NotBounded> {
        let mut all = None;
        let shortest = self.decimals as usize + 1;
        for size in shortest..=shortest + NUMBER_DIGITS_MAX {
            let Some(beyond) = 10i128.checked_pow(size as u32) else { break };
            let from = if size == shortest { lo } else { lo.max(beyond / 10) };
            let to = hi.min(beyond - 1);
            if from <= to {
                let mut digits = Digits {
                    lo: digits_of(from, size),
                    hi: digits_of(to, size),
                    point: size - self.decimals as usize,
                    zeros_from: size.saturating_sub(self.zeros as usize),
                    lead: self.lead,
                    next,
                    known: HashMap::new(),
                };
                let start = Place {
                    at: 0,
                    residue: 0,
                    on_lo: true,
                    on_hi: true,
                    after_point: false,
                    needs_digit: false,
                };
                let one = digits.node(start, graph)?;
                all = join(graph, all, one)?;
            }
            if beyond > hi {
                break;
            }
        }
        Ok(all)
    }
}

fn join(graph: &mut ByteGraph, a: Option<NodeId>, b: Option<NodeId>) -> Result<Option<NodeId>, NotBounded> {
    match (a, b) {
        (Some(a), Some(b)) => graph.union(a, b).map(Some),
        (one, other) => Ok(one.or(other)),
    }
}

fn digits_of(mut number: i128, size: usize) -> Vec<u8> {
    let mut digits = vec![0; size];
    for digit in digits.iter_mut().rev() {
        // A remainder of ten.
        *digit = (number % 10) as u8;
        number /= 10;
    }
    digits
}

/// Where in a number: how many digits were written, and what of them matters for those to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Place {
    at: usize,
    residue: u32,
    on_lo: bool,
    on_hi: bool,
    after_point: bool,
    needs_digit: bool,
}

/// Numbers of one length, between two bounds written with as many digits.
struct Digits {
    lo: Vec<u8>,
    hi: Vec<u8>,
    /// Digits in front of the decimal point.
    point: usize,
    /// Digits from here on are zeros, since the step has them.
    zeros_from: usize,
    lead: u32,
    next: NodeId,
    known: HashMap<Place, Option<NodeId>>,
}

impl Digits {
    /// The place after one more digit, if the digit is allowed.
    fn step(&self, place: Place, digit: u8) -> Option<Place> {
        let Place { at, residue, on_lo, on_hi, .. } = place;
        let (&lo, &hi) = (self.lo.get(at)?, self.hi.get(at)?);
        if (on_lo && digit < lo) || (on_hi && digit > hi) || (at >= self.zeros_from && digit != 0) {
            return None;
        }
        let residue =
            if at < self.zeros_from { (residue * 10 + u32::from(digit)) % self.lead } else { residue };
        if at + 1 >= self.zeros_from && residue != 0 {
            return None;
        }
        Some(Place {
            at: at + 1,
            residue,
            on_lo: on_lo && digit == lo,
            on_hi: on_hi && digit == hi,
            after_point: place.after_point,
            needs_digit: false,
        })
    }

    /// Whether the number is allowed with nothing but zeros to come.
    fn can_end(&self, place: Place) -> bool {
        let zeros = self.lo.len() - place.at;
        place.at >= self.point
            && !place.needs_digit
            && (0..zeros).try_fold(place, |place, _| self.step(place, 0)).is_some()
    }

    fn node(&mut self, place: Place, graph: &mut ByteGraph) -> Result<Option<NodeId>, NotBounded> {
        if let Some(&known) = self.known.get(&place) {
            return Ok(known);
        }
        let mut edges = Vec::new();
        if place.at == self.point && !place.after_point {
            let behind = Place { after_point: true, needs_digit: true, ..place };
            if place.at < self.lo.len()
                && let Some(fraction) = self.node(behind, graph)?
            {
                edges.push((b'.', fraction));
            }
        } else {
            for digit in 0..10 {
                if let Some(after) = self.step(place, digit)
                    && let Some(node) = self.node(after, graph)?
                {
                    edges.push((b'0' + digit, node));
                }
            }
        }
        let go_on = if edges.is_empty() { None } else { Some(graph.node(false, edges)?) };
        let end = self.can_end(place).then_some(self.next);
        let node = join(graph, go_on, end)?;
        self.known.insert(place, node);
        Ok(node)
    }
}
