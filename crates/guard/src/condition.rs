//! Conditions of rules and limits: comparisons now and over time, with a third truth value for tags that cannot be used.
//!
//! Every term is looked at once per cycle, whatever the mode, so that `for`, `within` and `since` have their history when
//! they are needed. Time is the cycle's, never the wall clock's.

use crate::sense::{Sense, bit, mask};
use ganglion_site::limits::LIMITS_MAX;
use ganglion_site::{Compare, Micros, Over, Site, Term, Trigger, TriggerOn};

/// What is known of a condition. Ordered by how far it counts for a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub(crate) enum Truth {
    No,
    /// A tag that it names cannot be used.
    Unknown,
    Yes,
}

/// Which limits are in force; bit = limit index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InForce {
    pub yes: u128,
    pub unknown: u128,
}

const _: () = assert!(LIMITS_MAX <= u128::BITS as usize, "limit masks are u128");

impl InForce {
    /// Every limit, conditional or not: what the safe command has to keep.
    pub const ALL: Self = Self { yes: u128::MAX, unknown: 0 };

    pub fn holds(&self, limit: usize) -> bool {
        self.yes & limit_bit(limit) != 0
    }

    pub fn is_unknown(&self, limit: usize) -> bool {
        self.unknown & limit_bit(limit) != 0
    }

    fn set(&mut self, limit: usize, truth: Truth) {
        match truth {
            Truth::Yes => self.yes |= limit_bit(limit),
            Truth::Unknown => self.unknown |= limit_bit(limit),
            Truth::No => {}
        }
    }
}

/// The mask of one limit; no bit for an index beyond the masks.
fn limit_bit(limit: usize) -> u128 {
    u32::try_from(limit).ok().and_then(|limit| 1u128.checked_shl(limit)).unwrap_or(0)
}

/// History of one term.
#[derive(Debug, Clone, Copy, serde::Serialize, serde::Deserialize)]
pub(crate) struct Moment {
    /// Start of the unbroken time for which the comparison has held.
    held_from: Option<Micros>,
    /// Last cycle in which it held.
    held_last: Option<Micros>,
    since: bool,
    truth: Truth,
}

/// History of all terms of a site: the rules' first, then the limits', then the triggers' `when` and `until`, in file order.
#[derive(Debug, Clone)]
pub(crate) struct Conditions {
    moments: Vec<Moment>,
    /// First moment of every condition, in that order.
    first: Vec<usize>,
    rules: usize,
    limits: usize,
}

impl Conditions {
    /// Allocates everything.
    pub fn new(site: &Site) -> Self {
        let (mut first, mut count) = (Vec::new(), 0);
        for terms in conditions(site) {
            first.push(count);
            count += terms.len();
        }
        let moment = Moment { held_from: None, held_last: None, since: false, truth: Truth::Unknown };
        Self { moments: vec![moment; count], first, rules: site.rules.len(), limits: site.limits.len() }
    }

    /// The history of every term.
    pub fn moments(&self) -> &[Moment] {
        &self.moments
    }

    /// Takes over a history of as many terms.
    pub fn set_moments(&mut self, moments: &[Moment]) -> bool {
        let fits = moments.len() == self.moments.len();
        if fits {
            self.moments.copy_from_slice(moments);
        }
        fits
    }

    /// Terms that both sites have: the place among the moments of `new`, and that among those of `old`.
    pub fn same_terms(old: &Site, new: &Site) -> Vec<(usize, usize)> {
        let mut left: Vec<_> = conditions(old).flatten().enumerate().collect();
        let mut same = Vec::new();
        for (place, term) in conditions(new).flatten().enumerate() {
            // Equal terms have equal histories, so that it does not matter which one is taken; each is taken once.
            if let Some(found) = left.iter().position(|(_, old)| *old == term) {
                same.push((place, left.swap_remove(found).0));
            }
        }
        same
    }

    /// Takes over the histories of the terms that both have.
    pub fn go_on_from(&mut self, before: &Self, same: &[(usize, usize)]) {
        for &(new, old) in same {
            if let (Some(to), Some(from)) = (self.moments.get_mut(new), before.moments.get(old)) {
                *to = *from;
            }
        }
    }

    /// One cycle.
    pub fn update(&mut self, site: &Site, sense: &Sense, now: Micros) {
        let terms = conditions(site).flatten();
        for (moment, term) in self.moments.iter_mut().zip(terms) {
            moment.update(term, sense, now);
        }
    }

    /// Whether a rule's condition holds. `sense` may hold an event's own readings: they count for comparisons of now;
    /// what is asked over time is asked of the plant.
    pub fn rule_holds(&self, site: &Site, rule: usize, sense: &Sense) -> bool {
        let terms = site.rules.get(rule).map_or(&[][..], |rule| &rule.when);
        self.truth(rule, terms, sense) == Truth::Yes
    }

    /// What is known of a trigger's `when`, or of its `until`, in the plant.
    pub fn trigger_truth(&self, site: &Site, trigger: usize, until: bool, sense: &Sense) -> Truth {
        let Some(trigger_spec) = site.triggers.get(trigger) else { return Truth::No };
        let [when, end] = conditions_of(trigger_spec);
        let place = self.rules + self.limits + 2 * trigger + usize::from(until);
        self.truth(place, if until { end } else { when }, sense)
    }

    /// The limits in force: a condition counts if it holds for the plant's readings or for the event's own, so that an
    /// event cannot talk a limit away.
    pub fn in_force(&self, site: &Site, plant: &Sense, event: &Sense) -> InForce {
        let mut in_force = InForce { yes: 0, unknown: 0 };
        for (index, limit) in site.limits.iter().enumerate() {
            let place = self.rules + index;
            let truth = self.truth(place, &limit.when, plant).max(self.truth(place, &limit.when, event));
            in_force.set(index, truth);
        }
        in_force
    }

    fn truth(&self, place: usize, terms: &[Term], sense: &Sense) -> Truth {
        let first = self.first.get(place).copied().unwrap_or(usize::MAX);
        all(terms.iter().enumerate().map(|(offset, term)| match term.over {
            Over::Now => compare(&term.compare, sense),
            _ => self.moments.get(first.saturating_add(offset)).map_or(Truth::Unknown, |m| m.truth),
        }))
    }
}

impl Moment {
    fn update(&mut self, term: &Term, sense: &Sense, now: Micros) {
        let held = compare(&term.compare, sense);
        self.truth = match term.over {
            Over::Now => held,
            Over::For(ms) => {
                self.held_from = (held == Truth::Yes).then(|| self.held_from.unwrap_or(now));
                let long = self.held_from.is_some_and(|from| now.saturating_sub(from) >= micros(ms));
                if held == Truth::Yes && !long { Truth::No } else { held }
            }
            Over::Within(ms) => {
                if held == Truth::Yes {
                    self.held_last = Some(now);
                }
                let recent = self.held_last.is_some_and(|last| now.saturating_sub(last) <= micros(ms));
                match (held, recent) {
                    (Truth::Unknown, _) => Truth::Unknown,
                    (_, true) => Truth::Yes,
                    (_, false) => Truth::No,
                }
            }
            Over::Since(other) => {
                let other = compare(&other, sense);
                self.since = held != Truth::Unknown
                    && (other == Truth::Yes || (other == Truth::No && held == Truth::Yes && self.since));
                if held == Truth::Unknown || other == Truth::Unknown {
                    Truth::Unknown
                } else if self.since {
                    Truth::Yes
                } else {
                    Truth::No
                }
            }
        };
    }
}

/// Without a history, as if the readings had always been these: `for` and `within` are their comparison, `since` the
/// other one. What was never read is not judged.
pub(crate) fn timeless_rule(site: &Site, rule: usize, sense: &Sense) -> bool {
    let terms = site.rules.get(rule).map_or(&[][..], |rule| &rule.when);
    all(terms.iter().map(|term| timeless(term, sense))) == Truth::Yes
}

/// Limits in force for readings without a history.
pub(crate) fn timeless_in_force(site: &Site, sense: &Sense) -> InForce {
    let mut in_force = InForce { yes: 0, unknown: 0 };
    for (index, limit) in site.limits.iter().enumerate() {
        let truth = all(limit.when.iter().map(|term| timeless(term, sense)));
        in_force.set(index, if truth == Truth::Unknown { Truth::No } else { truth });
    }
    in_force
}

fn timeless(term: &Term, sense: &Sense) -> Truth {
    match &term.over {
        Over::Now | Over::For(_) | Over::Within(_) => compare(&term.compare, sense),
        Over::Since(other) => compare(other, sense),
    }
}

fn compare(compare: &Compare, sense: &Sense) -> Truth {
    match sense.values.get(compare.tag) {
        Some(value) if sense.usable & bit(compare.tag) != 0 => {
            if compare.holds(*value) {
                Truth::Yes
            } else {
                Truth::No
            }
        }
        _ => Truth::Unknown,
    }
}

/// One no is a no; else one unknown leaves it unknown. Of nothing: yes.
fn all(truths: impl Iterator<Item = Truth>) -> Truth {
    truths.min().unwrap_or(Truth::Yes)
}

/// Tags that `terms` name.
pub(crate) fn tags_of(terms: &[Term]) -> u64 {
    let other = |term: &Term| if let Over::Since(other) = term.over { Some(other.tag) } else { None };
    mask(terms.iter().flat_map(|term| [Some(term.compare.tag), other(term)]).flatten())
}

fn conditions(site: &Site) -> impl Iterator<Item = &[Term]> {
    let rules = site.rules.iter().map(|rule| rule.when.as_slice());
    let limits = site.limits.iter().map(|limit| limit.when.as_slice());
    rules.chain(limits).chain(site.triggers.iter().flat_map(conditions_of))
}

/// A trigger's `when` and `until`.
fn conditions_of(trigger: &Trigger) -> [&[Term]; 2] {
    match &trigger.on {
        TriggerOn::When { when, until } => [when, until],
        TriggerOn::Change { .. } | TriggerOn::Every { .. } => [&[], &[]],
    }
}

fn micros(ms: u32) -> Micros {
    Micros::from(ms) * 1000
}
