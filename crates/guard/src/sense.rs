//! From raw samples to what the checks need: usable values, alarms, trips.

use crate::tags::{TagSample, Unusable, unusable_reason, usable};
use crate::text::{Quantity, reason};
use ganglion_site::limits::TAGS_MAX;
use ganglion_site::{Comparison, LimitTarget, Micros, Reason, Rule, Site, TagValues};

/// One cycle's view of all tags; bit `i` of a mask = tag `i`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Sense {
    pub values: [f64; TAGS_MAX],
    pub usable: u64,
    pub read: u64,
    pub alarms: u64,
    pub trips: u64,
    why: [Option<Unusable>; TAGS_MAX],
}

/// Last usable reading per tag, for the rate limit on readings.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Readings([(f64, Micros); TAGS_MAX]);

impl Readings {
    pub const NONE: Self = Self([(0.0, 0); TAGS_MAX]);
}

impl Sense {
    pub const BLIND: Self = Self {
        values: [0.0; TAGS_MAX],
        usable: 0,
        read: 0,
        alarms: 0,
        trips: 0,
        why: [Some(Unusable::Never); TAGS_MAX],
    };

    /// Judges every sample and every tag limit.
    pub fn take(site: &Site, samples: &[TagSample], now: Micros, readings: &mut Readings) -> Self {
        let mut sense = Self::BLIND;
        for (index, tag) in site.tags.iter().take(TAGS_MAX).enumerate() {
            let sample = samples.get(index).unwrap_or(&TagSample::MISSING);
            sense.put(index, usable(tag, sample, now));
        }
        for limit in &site.limits {
            let LimitTarget::Tag(index) = limit.on else { continue };
            if sense.usable & bit(index) == 0 {
                continue;
            }
            let value = sense.values[index];
            let time = samples.get(index).map_or(0, |s| s.time_us);
            let trip = limit.lolo.is_some_and(|x| value <= x) || limit.hihi.is_some_and(|x| value >= x);
            let beyond = limit.lo.is_some_and(|x| value < x) || limit.hi.is_some_and(|x| value > x);
            let (last, last_time) = readings.0[index];
            let elapsed_s = time.saturating_sub(last_time) as f64 / 1e6;
            let jumped = limit
                .rate_per_s
                .is_some_and(|r| last_time != 0 && (value - last).abs() > r * elapsed_s + 1e-9);
            sense.trips |= if trip { bit(index) } else { 0 };
            sense.alarms |= if beyond || (jumped && time > last_time) { bit(index) } else { 0 };
        }
        for (index, reading) in readings.0.iter_mut().enumerate().take(site.tags.len()) {
            if sense.usable & bit(index) != 0 {
                *reading = (sense.values[index], samples.get(index).map_or(0, |s| s.time_us));
            }
        }
        sense
    }

    /// This view with an event's own readings in place of the plant's; their trips count too.
    pub fn with(&self, site: &Site, given: &TagValues) -> Self {
        let mut sense = *self;
        for (index, tag) in site.tags.iter().take(TAGS_MAX).enumerate() {
            let Some(value) = given.get(index) else { continue };
            sense.put(index, usable(tag, &TagSample::good(value, 1), 1));
            let limits = || site.limits.iter().filter(|limit| limit.on == LimitTarget::Tag(index));
            if limits().any(|l| l.lolo.is_some_and(|x| value <= x) || l.hihi.is_some_and(|x| value >= x)) {
                // Kept even out of range, for the sentence about it; nothing else reads an unusable value.
                sense.values[index] = value;
                sense.trips |= bit(index);
            }
        }
        sense
    }

    /// Values as given on a command line: no clock, absent ones are merely absent.
    pub fn given(site: &Site, values: &[Option<f64>]) -> Self {
        let mut samples = [TagSample::MISSING; TAGS_MAX];
        for (sample, value) in samples.iter_mut().zip(values) {
            *sample = value.map_or(TagSample::MISSING, |v| TagSample::good(v, 1));
        }
        Self::take(site, &samples, 1, &mut Readings::NONE.clone())
    }

    fn put(&mut self, index: usize, result: Result<f64, Unusable>) {
        self.read |= if result == Err(Unusable::Never) { 0 } else { bit(index) };
        match result {
            Ok(value) => {
                self.values[index] = value;
                self.usable |= bit(index);
                self.why[index] = None;
            }
            Err(why) => {
                self.usable &= !bit(index);
                self.why[index] = Some(why);
            }
        }
    }

    /// The sentence about the first unusable tag of `mask`.
    pub fn first_unusable(&self, site: &Site, mask: u64) -> Option<Reason> {
        let index = lowest(mask & !self.usable)?;
        let tag = site.tags.get(index)?;
        Some(unusable_reason(tag, self.why.get(index).copied().flatten().unwrap_or(Unusable::Never)))
    }

    /// The sentence about the first trip.
    pub fn first_trip(&self, site: &Site) -> Option<Reason> {
        lowest(self.trips).map(|index| self.describe(site, index, true))
    }

    /// The sentence about the first alarm.
    pub fn first_alarm(&self, site: &Site) -> Option<Reason> {
        lowest(self.alarms).map(|index| self.describe(site, index, false))
    }

    /// The sentence about tag `index` and its limits.
    pub fn describe(&self, site: &Site, index: usize, trip: bool) -> Reason {
        let Some(tag) = site.tags.get(index) else { return Reason::EMPTY };
        let value = self.values[index];
        let name = tag.name.as_str();
        for limit in site.limits.iter().filter(|l| l.on == LimitTarget::Tag(index)) {
            let (low, high) = if trip { (limit.lolo, limit.hihi) } else { (limit.lo, limit.hi) };
            let word = if trip { "trip limit" } else { "alarm limit" };
            let found = match (low, high) {
                (_, Some(high)) if value >= high => Some(("above", high)),
                (Some(low), _) if value <= low => Some(("below", low)),
                _ => None,
            };
            if let Some((side, bound)) = found {
                let (value, bound) = (Quantity(value, &tag.unit), Quantity(bound, &tag.unit));
                return reason!("tag {name} reads {value}, at or {side} its {word} {bound}");
            }
        }
        reason!("tag {name} reads {}, a faster change than its rate limit", Quantity(value, &tag.unit))
    }

    /// Whether all terms of `rule` hold. A term over an unusable tag does not hold.
    pub fn matches(&self, rule: &Rule) -> bool {
        rule.when.iter().all(|term| {
            if self.usable & bit(term.tag) == 0 {
                return false;
            }
            let Some(value) = self.values.get(term.tag) else { return false };
            match term.op {
                Comparison::Less => *value < term.value,
                Comparison::LessOrEqual => *value <= term.value,
                Comparison::Greater => *value > term.value,
                Comparison::GreaterOrEqual => *value >= term.value,
                Comparison::Equal => *value == term.value,
                Comparison::NotEqual => *value != term.value,
            }
        })
    }
}

/// The mask of tag `index`; no bit for an index beyond the table.
pub(crate) fn bit(index: usize) -> u64 {
    if index < TAGS_MAX { 1 << index } else { 0 }
}

/// Index of the lowest set bit.
pub(crate) fn lowest(mask: u64) -> Option<usize> {
    (mask != 0).then(|| mask.trailing_zeros() as usize)
}
