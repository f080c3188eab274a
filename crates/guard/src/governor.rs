//! Which variant of the model should answer: one step down when the machine is strained, one step back when it has been well
//! for a while. A pure function of time, readings and its own state.

use crate::host::HostReading;
use crate::text::{Quantity, reason};
use ganglion_site::{Micros, Reason, SwitchSpec};
use std::collections::VecDeque;

/// A change of the variant, and why.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Switch {
    /// The variant's place in the site's list; 0 is the first choice.
    pub level: u8,
    /// In words.
    pub reason: Reason,
}

/// The choice of the variant. Between two switches lies at least the site's dwell time, and a way back needs everything to
/// have been beyond its return threshold for as long.
#[derive(Debug)]
pub struct Governor {
    spec: SwitchSpec,
    levels: u8,
    level: u8,
    switched_us: Option<Micros>,
    well_from_us: Option<Micros>,
    /// Looks at the count of missed deadlines, one dwell time back.
    misses: VecDeque<(Micros, u64)>,
}

impl Governor {
    /// `variants` beside the first choice, which answers to begin with.
    pub fn new(spec: SwitchSpec, variants: usize) -> Self {
        let levels = u8::try_from(variants).unwrap_or(u8::MAX - 1) + 1;
        Self { spec, levels, level: 0, switched_us: None, well_from_us: None, misses: VecDeque::new() }
    }

    /// The variant that should answer.
    pub fn level(&self) -> u8 {
        self.level
    }

    /// The switch came to nothing: `level` goes on answering. Tried again after the dwell time.
    pub fn stays(&mut self, now: Micros, level: u8) {
        self.level = level;
        self.switched_us = Some(now);
        self.well_from_us = None;
    }

    /// One look; `missed` counts deadlines since the start.
    pub fn step(&mut self, now: Micros, host: &HostReading, missed: u64) -> Option<Switch> {
        let dwell_us = Micros::from(self.spec.dwell_s) * 1_000_000;
        self.misses.push_back((now, missed));
        while self.misses.get(1).is_some_and(|(at, _)| now.saturating_sub(*at) >= dwell_us) {
            self.misses.pop_front();
        }
        let recent = missed.saturating_sub(self.misses.front().map_or(missed, |(_, count)| *count));
        let strain = self.strain(host, recent);
        let well = strain.is_none() && self.is_well(host, recent);
        self.well_from_us = well.then(|| self.well_from_us.unwrap_or(now));
        if self.switched_us.is_some_and(|at| now.saturating_sub(at) < dwell_us) {
            return None;
        }
        let rested = self.well_from_us.is_some_and(|from| now.saturating_sub(from) >= dwell_us);
        let (level, reason) = match strain {
            Some(why) if self.level + 1 < self.levels => (self.level + 1, why),
            None if rested && self.level > 0 => {
                (self.level - 1, reason!("all has been well for {} s", self.spec.dwell_s))
            }
            _ => return None,
        };
        (self.level, self.switched_us, self.well_from_us) = (level, Some(now), None);
        // What was missed under the old variant says nothing about the new one.
        self.misses.clear();
        Some(Switch { level, reason })
    }

    /// The first reason to step down.
    fn strain(&self, host: &HostReading, recent: u64) -> Option<Reason> {
        let over = |limit: Option<(f64, f64)>, value: Option<f64>| {
            limit
                .zip(value)
                .filter(|((leave, _), value)| value >= leave)
                .map(|((leave, _), value)| (value, leave))
        };
        if let Some((value, leave)) = over(self.spec.temperature_c, host.temperature_c) {
            return Some(reason!(
                "temperature {}, at or above {}",
                Quantity(value, "C"),
                Quantity(leave, "C")
            ));
        }
        if let Some((leave, percent)) =
            self.spec.battery_percent.map(|(leave, _)| leave).zip(host.battery_percent)
            && percent <= leave
        {
            return Some(reason!("battery {}, at or below {}", Quantity(percent, "%"), Quantity(leave, "%")));
        }
        if let Some((value, leave)) = over(self.spec.load, host.load) {
            return Some(reason!(
                "load {} per core, at or above {}",
                Quantity(value, ""),
                Quantity(leave, "")
            ));
        }
        let most = self.spec.misses.filter(|most| recent >= u64::from(*most))?;
        Some(reason!("{recent} deadlines missed in {} s, at or above {most}", self.spec.dwell_s))
    }

    /// Everything that the site names is back beyond its return threshold. What cannot be read is not well, a battery apart:
    /// none is being discharged.
    fn is_well(&self, host: &HostReading, recent: u64) -> bool {
        let below = |limit: Option<(f64, f64)>, value: Option<f64>| {
            limit.is_none_or(|(_, back)| value.is_some_and(|value| value < back))
        };
        let charged =
            self.spec.battery_percent.is_none_or(|(_, back)| host.battery_percent.is_none_or(|p| p > back));
        below(self.spec.temperature_c, host.temperature_c)
            && below(self.spec.load, host.load)
            && charged
            && (self.spec.misses.is_none() || recent == 0)
    }
}
