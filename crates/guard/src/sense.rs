//! From raw samples to what the checks need: usable values, alarms, trips.

use crate::mode::Mode;
use crate::tags::{TagSample, Unusable, unusable_reason, usable};
use crate::text::{Quantity, reason};
use ganglion_site::limits::TAGS_MAX;
use ganglion_site::{Limit, LimitTarget, Micros, Reason, Site, Tag, TagValues};
use std::ops::BitOr;

/// One cycle's view of all tags; bit `i` of a mask = tag `i`.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Sense {
    #[serde(with = "serde_big_array::BigArray")]
    pub values: [f64; TAGS_MAX],
    pub usable: u64,
    pub read: u64,
    pub alarms: u64,
    pub trips: u64,
    /// The mode that the tags' limits were judged in.
    mode: u8,
    #[serde(with = "serde_big_array::BigArray")]
    why: [Option<Unusable>; TAGS_MAX],
}

/// What has to be remembered of the samples.
#[derive(Debug, Clone, Copy, serde::Serialize, serde::Deserialize)]
pub(crate) struct Readings {
    /// Last usable reading per tag, for the rate limit on readings.
    #[serde(with = "serde_big_array::BigArray")]
    last: [(f64, Micros); TAGS_MAX],
    /// Last sample per tag and the time since which it reads the same, for frozen sensors.
    #[serde(with = "serde_big_array::BigArray")]
    same: [Same; TAGS_MAX],
}

#[derive(Debug, Clone, Copy, serde::Serialize, serde::Deserialize)]
struct Same {
    bits: u64,
    time_us: Micros,
    from_us: Micros,
}

impl Readings {
    pub const NONE: Self =
        Self { last: [(0.0, 0); TAGS_MAX], same: [Same { bits: 0, time_us: 0, from_us: 0 }; TAGS_MAX] };
}

impl Same {
    /// For how long new samples have repeated one value to the last bit, when that is longer than the site allows. A
    /// pause beyond the tag's `stale_ms` starts the time anew: a lost line is no dead sensor.
    fn frozen_us(&mut self, tag: &Tag, sample: &TagSample) -> Option<Micros> {
        let gap_us = sample.time_us.saturating_sub(self.time_us);
        let paused = gap_us > Micros::from(tag.stale_ms) * 1000;
        if sample.value.to_bits() != self.bits || self.time_us == 0 || paused {
            self.from_us = sample.time_us;
        }
        self.bits = sample.value.to_bits();
        self.time_us = self.time_us.max(sample.time_us);
        let same_us = sample.time_us.saturating_sub(self.from_us);
        tag.frozen_ms.filter(|ms| same_us > Micros::from(*ms) * 1000).map(|_| same_us)
    }
}

/// Whether a tag's limit holds in this mode.
fn in_force(limit: &Limit, mode: u8) -> bool {
    limit.modes.is_none_or(|modes| modes.checked_shr(mode.into()).is_some_and(|m| m & 1 == 1))
}

impl Sense {
    pub const BLIND: Self = Self {
        values: [0.0; TAGS_MAX],
        usable: 0,
        read: 0,
        alarms: 0,
        trips: 0,
        mode: 0,
        why: [Some(Unusable::Never); TAGS_MAX],
    };

    /// Judges every sample and every tag limit that holds in `mode`.
    pub fn take(
        site: &Site,
        samples: &[TagSample],
        now: Micros,
        mode: Mode,
        readings: &mut Readings,
    ) -> Self {
        let mut sense = Self { mode: mode.number(), ..Self::BLIND };
        for (index, tag) in site.tags.iter().take(TAGS_MAX).enumerate() {
            let sample = samples.get(index).unwrap_or(&TagSample::MISSING);
            let mut result = usable(tag, sample, now);
            if let (Ok(value), Some(same)) = (result, readings.same.get_mut(index)) {
                let frozen_us = same.frozen_us(tag, sample);
                result = frozen_us.map_or(result, |us| Err(Unusable::Frozen(value, us)));
            }
            sense.put(index, result);
        }
        for limit in &site.limits {
            let LimitTarget::Tag(index) = limit.on else { continue };
            if sense.usable & bit(index) == 0 || !in_force(limit, sense.mode) {
                continue;
            }
            let value = sense.values[index];
            let time = samples.get(index).map_or(0, |s| s.time_us);
            let trip = limit.lolo.is_some_and(|x| value <= x) || limit.hihi.is_some_and(|x| value >= x);
            let beyond = limit.lo.is_some_and(|x| value < x) || limit.hi.is_some_and(|x| value > x);
            let (last, last_time) = readings.last[index];
            let elapsed_s = time.saturating_sub(last_time) as f64 / 1e6;
            let jumped = limit
                .rate_per_s
                .is_some_and(|r| last_time != 0 && (value - last).abs() > r * elapsed_s + 1e-9);
            sense.trips |= if trip { bit(index) } else { 0 };
            sense.alarms |= if beyond || (jumped && time > last_time) { bit(index) } else { 0 };
        }
        for (index, reading) in readings.last.iter_mut().enumerate().take(site.tags.len()) {
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
            let on = LimitTarget::Tag(index);
            let limits = || site.limits.iter().filter(|limit| limit.on == on && in_force(limit, self.mode));
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
        Self::take(site, &samples, 1, Mode::Execute, &mut Readings::NONE.clone())
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
        let on = LimitTarget::Tag(index);
        for limit in site.limits.iter().filter(|l| l.on == on && in_force(l, self.mode)) {
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
}

/// The mask of tag `index`; no bit for an index beyond the table.
pub(crate) fn bit(index: usize) -> u64 {
    u32::try_from(index).ok().and_then(|index| 1u64.checked_shl(index)).unwrap_or(0)
}

/// The mask of several tags.
pub(crate) fn mask(indices: impl Iterator<Item = usize>) -> u64 {
    indices.map(bit).fold(0, BitOr::bitor)
}

/// Index of the lowest set bit.
pub(crate) fn lowest(mask: u64) -> Option<usize> {
    (mask != 0).then(|| mask.trailing_zeros() as usize)
}
