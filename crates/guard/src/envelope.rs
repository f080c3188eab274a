//! The limit table: whether a command may reach the plant, and why not.

use crate::approved::Approved;
use crate::condition::{InForce, tags_of};
use crate::error::GuardError;
use crate::limits::RATE_SLOTS_MAX;
use crate::registers::{number_of, register_writes};
use crate::sense::Sense;
use crate::text::{Quantity, reason};
use ganglion_audit::Verdict;
use ganglion_site::{
    ArgumentKind, ArgumentSpec, Command, CommandSpec, How, Limit, LimitAction, LimitTarget, Micros, Reason,
    Site, Value, WriteSource, WriteTarget,
};
use std::fmt;

/// The result of checking one command.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Checked {
    /// Approved, clamped or rejected.
    pub verdict: Verdict,
    /// The command after clamping; as proposed when rejected.
    pub command: Command,
    /// Why it was clamped or rejected; empty when approved.
    pub reason: Reason,
}

/// The last approved value of every argument whose history counts: under a rate or a dwell, in a ramp or a loop.
#[derive(Debug, Clone)]
pub(crate) struct Envelope {
    tracks: Vec<Track>,
    slots: Vec<Slot>,
}

/// Where the slots of one argument lie.
#[derive(Debug, Clone, Copy)]
struct Track {
    command: usize,
    argument: usize,
    select: Option<usize>,
    first_slot: usize,
    slot_count: usize,
}

/// Last approved value of one argument for one choice of its selecting argument.
#[derive(Debug, Clone, Copy)]
struct Slot {
    register: Option<(WriteTarget, u16)>,
    scale: f64,
    last: Option<Sent>,
}

/// A value that went to the plant.
#[derive(Debug, Clone, Copy, serde::Serialize, serde::Deserialize)]
pub(crate) struct Sent {
    pub value: f64,
    /// When it was last sent.
    pub time_us: Micros,
    /// When it was first sent, without another value since.
    pub changed_us: Micros,
}

/// What an argument must lie in, all limits taken together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    pub lo: f64,
    pub hi: f64,
}

/// What a command is judged by besides its own values.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Judging {
    /// `None` where no history is to be judged.
    pub now: Option<Micros>,
    /// The limits that hold.
    pub in_force: InForce,
}

impl Envelope {
    /// Allocates every slot.
    ///
    /// # Errors
    /// [`GuardError::TooManyRateSlots`].
    pub fn new(site: &Site) -> Result<Self, GuardError> {
        let mut envelope = Self { tracks: Vec::new(), slots: Vec::new() };
        for limit in &site.limits {
            if let (LimitTarget::Argument { command, argument }, true) =
                (limit.on, limit.rate_per_s.is_some() || limit.dwell_ms.is_some())
            {
                envelope.track(site, command, argument)?;
            }
        }
        for rule in &site.rules {
            let argument = match rule.how {
                How::Send => continue,
                How::Ramp { argument, .. } => argument,
                How::Pi(spec) => spec.argument,
            };
            envelope.track(site, usize::from(rule.command.verb), argument)?;
        }
        Ok(envelope)
    }

    /// Slots of the same value in both: the place here, and that in `old`.
    pub fn same_slots(&self, old: &Self) -> Vec<(usize, usize)> {
        let old: std::collections::BTreeMap<_, _> = old.keys().collect();
        self.keys().filter_map(|(key, slot)| Some((slot, *old.get(&key)?))).collect()
    }

    /// Command, argument and choice of every slot.
    fn keys(&self) -> impl Iterator<Item = ((usize, usize, usize), usize)> {
        self.tracks.iter().flat_map(|track| {
            (0..track.slot_count).map(|c| ((track.command, track.argument, c), track.first_slot + c))
        })
    }

    /// Takes over what was last sent.
    pub fn go_on_from(&mut self, before: &Self, same: &[(usize, usize)]) {
        for &(new, old) in same {
            if let (Some(to), Some(from)) = (self.slots.get_mut(new), before.slots.get(old)) {
                to.last = from.last;
            }
        }
    }

    /// What was last sent, by slot.
    pub fn history(&self) -> impl ExactSizeIterator<Item = Option<Sent>> {
        self.slots.iter().map(|slot| slot.last)
    }

    /// Takes over a history of as many slots.
    pub fn set_history(&mut self, history: &[Option<Sent>]) -> bool {
        let fits = history.len() == self.slots.len();
        for (slot, last) in self.slots.iter_mut().zip(history).filter(|_| fits) {
            slot.last = *last;
        }
        fits
    }

    /// Makes room for the history of one argument.
    fn track(&mut self, site: &Site, command: usize, argument: usize) -> Result<(), GuardError> {
        if self.tracks.iter().any(|t| t.command == command && t.argument == argument) {
            return Ok(());
        }
        let Some(spec) = site.commands.get(command) else { return Ok(()) };
        let carries = |source| matches!(source, WriteSource::Argument { index, .. } if index == argument);
        let write = spec.writes.iter().find(|w| carries(w.source));
        let select = write.and_then(|w| w.select);
        let slot_count = match select.and_then(|s| spec.arguments.get(s)).map(|a| &a.kind) {
            Some(ArgumentKind::Enum(choices)) => choices.len(),
            _ => 1,
        };
        let first_slot = self.slots.len();
        if first_slot + slot_count > RATE_SLOTS_MAX {
            return Err(GuardError::TooManyRateSlots { allowed: RATE_SLOTS_MAX });
        }
        for choice in 0..slot_count {
            let offset = u16::try_from(choice).unwrap_or(u16::MAX);
            let register = write.and_then(|w| Some((w.target, w.address.checked_add(offset)?)));
            let scale = match write.map(|w| w.source) {
                Some(WriteSource::Argument { scale, .. }) => scale,
                _ => 1.0,
            };
            self.slots.push(Slot { register, scale, last: None });
        }
        self.tracks.push(Track { command, argument, select, first_slot, slot_count });
        Ok(())
    }

    /// All checks that concern the command itself. Tags, mode and link are the caller's.
    pub fn check(&self, site: &Site, command: &Command, by: Judging) -> Checked {
        let rejected = |reason| Checked { verdict: Verdict::Rejected, command: *command, reason };
        if let Err(reason) = well_formed(site, command) {
            return rejected(reason);
        }
        let mut moved = *command;
        match self.apply_limits(site, &mut moved, by) {
            Err(reason) => rejected(reason),
            Ok(clamped) => match self.check_encoding(site, &moved, by) {
                Err(reason) => rejected(reason),
                Ok(()) => match clamped {
                    None => Checked { verdict: Verdict::Approved, command: moved, reason: Reason::EMPTY },
                    Some(reason) => Checked { verdict: Verdict::Clamped, command: moved, reason },
                },
            },
        }
    }

    /// [`Envelope::check`], with the proof when it passed.
    pub fn judge(&self, site: &Site, command: &Command, by: Judging) -> (Checked, Option<Approved<Command>>) {
        let checked = self.check(site, command, by);
        let approved = (checked.verdict != Verdict::Rejected).then(|| Approved::seal(checked.command));
        (checked, approved)
    }

    /// The safe command, checked once at start, by limits that hold only sometimes too. It knows no rate and no dwell:
    /// stopping bypasses every slope.
    ///
    /// # Errors
    /// [`GuardError::SafeCommand`] with the reason.
    pub fn seal_safe(&self, site: &Site) -> Result<Approved<Command>, GuardError> {
        let checked = self.check(site, &site.safe, Judging { now: None, in_force: InForce::ALL });
        match checked.verdict {
            Verdict::Approved => Ok(Approved::seal(checked.command)),
            Verdict::Clamped | Verdict::Rejected => {
                Err(GuardError::SafeCommand { reason: checked.reason.as_str().to_owned() })
            }
        }
    }

    /// Remembers what the plant was told: own slots, and those whose register another command wrote.
    pub fn commit(&mut self, site: &Site, command: &Command, now: Micros) {
        if let Ok(writes) = register_writes(site, command) {
            for write in writes.iter() {
                let register = Some((write.target, write.address));
                for slot in self.slots.iter_mut().filter(|s| s.register == register) {
                    slot.remember(f64::from(write.raw.cast_signed()) * slot.scale, now);
                }
            }
        }
        for index in 0..self.tracks.len() {
            let Some(track) = self.tracks.get(index).copied() else { continue };
            let Some(value) = command.values.get(track.argument).and_then(number_of) else { continue };
            let slot = track.slot(command).and_then(|s| self.slots.get_mut(s));
            if let Some(slot) = slot.filter(|s| s.register.is_none()) {
                slot.remember(value, now);
            }
        }
    }

    /// Brings arguments inside where the site says `clamp`; the reason of the first change.
    fn apply_limits(
        &self,
        site: &Site,
        command: &mut Command,
        by: Judging,
    ) -> Result<Option<Reason>, Reason> {
        let Some(spec) = site.commands.get(usize::from(command.verb)) else { return Ok(None) };
        let mut first = None;
        for (index, argument) in spec.arguments.iter().enumerate() {
            let Some(value) = command.values.get(index).copied() else { continue };
            let Some(number) = number_of(&value) else { continue };
            let mut outside = None;
            for limit in limits_on(site, command.verb, index, by.in_force) {
                let bounds = self.window_of(limit, index, command, by.now);
                if bounds.holds(number) {
                    continue;
                }
                let reason = self.outside_reason(site, (spec, argument), limit, (index, number), command, by);
                if limit.action == LimitAction::Reject || !number.is_finite() {
                    return Err(reason);
                }
                outside = outside.or(Some(reason));
            }
            let Some(why) = outside else { continue };
            let window = self.window(site, command, index, by);
            let Some(inside) = window.snap(argument, number) else {
                return Err(reason!("{}; no allowed value is near", why.as_str()));
            };
            if let Some(place) = command.values.get_mut(index) {
                *place = inside;
            }
            let to = Quantity(number_of(&inside).unwrap_or(f64::NAN), &argument.unit);
            first = first.or(Some(reason!("{}; moved to {to}", why.as_str())));
        }
        Ok(first)
    }

    /// The value that the device will understand must lie in the same window as the one that was meant.
    fn check_encoding(&self, site: &Site, command: &Command, by: Judging) -> Result<(), Reason> {
        let Some(spec) = site.commands.get(usize::from(command.verb)) else { return Ok(()) };
        for write in register_writes(site, command)?.iter() {
            let Some((index, decoded)) = write.carries else { continue };
            let Some(argument) = spec.arguments.get(index) else { continue };
            let window = self.window(site, command, index, by);
            if !window.holds(decoded) {
                return Err(reason!(
                    "{}.{}: the register's rounding makes it {}, outside {} to {}",
                    spec.name,
                    argument.name,
                    Quantity(decoded, &argument.unit),
                    Quantity(window.lo, ""),
                    Quantity(window.hi, &argument.unit)
                ));
            }
        }
        Ok(())
    }

    /// Range, limits, slope and dwell of one argument, taken together.
    pub fn window(&self, site: &Site, command: &Command, argument: usize, by: Judging) -> Window {
        let mut window = Window { lo: f64::NEG_INFINITY, hi: f64::INFINITY };
        let spec = site.commands.get(usize::from(command.verb)).and_then(|c| c.arguments.get(argument));
        match spec.map(|a| &a.kind) {
            Some(ArgumentKind::Integer { lo, hi }) => window.cut(Window { lo: *lo as f64, hi: *hi as f64 }),
            Some(ArgumentKind::Number { lo, hi, .. }) => window.cut(Window { lo: *lo, hi: *hi }),
            _ => {}
        }
        for limit in limits_on(site, command.verb, argument, by.in_force) {
            window.cut(self.window_of(limit, argument, command, by.now));
        }
        window
    }

    /// What one limit leaves of the number line.
    fn window_of(&self, limit: &Limit, argument: usize, command: &Command, now: Option<Micros>) -> Window {
        let mut window =
            Window { lo: limit.lo.unwrap_or(f64::NEG_INFINITY), hi: limit.hi.unwrap_or(f64::INFINITY) };
        let (Some(now), Some(last)) = (now, self.last(command, argument)) else { return window };
        if let Some(rate) = limit.rate_per_s {
            let reach = rate * (now.saturating_sub(last.time_us) as f64 / 1e6);
            window.cut(Window { lo: last.value - reach, hi: last.value + reach });
        }
        if dwells(limit, &last, now) {
            window.cut(Window { lo: last.value, hi: last.value });
        }
        window
    }

    /// What was last sent for this argument, for the choice that selects its register.
    pub fn last(&self, command: &Command, argument: usize) -> Option<Sent> {
        let track =
            self.tracks.iter().find(|t| t.command == usize::from(command.verb) && t.argument == argument)?;
        self.slots.get(track.slot(command)?)?.last
    }

    fn outside_reason(
        &self,
        site: &Site,
        (spec, argument): (&CommandSpec, &ArgumentSpec),
        limit: &Limit,
        (index, number): (usize, f64),
        command: &Command,
        by: Judging,
    ) -> Reason {
        let (verb, name, unit) = (spec.name.as_str(), argument.name.as_str(), argument.unit.as_str());
        let value = Shown(argument, number);
        let word = if limit.when.is_empty() { "" } else { " while " };
        let when = site.condition(&limit.when);
        if let Some(hi) = limit.hi.filter(|hi| number > *hi) {
            return reason!("{verb}.{name} {value} is above its limit {}{word}{when}", Quantity(hi, unit));
        }
        if let Some(lo) = limit.lo.filter(|lo| number < *lo) {
            return reason!("{verb}.{name} {value} is below its limit {}{word}{when}", Quantity(lo, unit));
        }
        let (Some(last), Some(now)) = (self.last(command, index), by.now) else {
            return reason!("{verb}.{name} {value} is not a usable value");
        };
        match (limit.dwell_ms, limit.rate_per_s) {
            (Some(dwell_ms), _) if dwells(limit, &last, now) => reason!(
                "{verb}.{name} became {} {} ms ago and has to stay so for {dwell_ms} ms{word}{when}",
                Shown(argument, last.value),
                now.saturating_sub(last.changed_us) / 1000
            ),
            (_, Some(rate)) => reason!(
                "{verb}.{name} {value} is too fast a change from {} {} ms ago (limit {} per s){word}{when}",
                Quantity(last.value, unit),
                now.saturating_sub(last.time_us) / 1000,
                Quantity(rate, unit)
            ),
            _ => reason!("{verb}.{name} {value} is not a usable value"),
        }
    }
}

/// A value as the site names it: a choice by its name, everything else as a quantity.
struct Shown<'a>(&'a ArgumentSpec, f64);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A choice's number is a small whole one; anything else finds no name.
        let choice = match &self.0.kind {
            ArgumentKind::Enum(choices) if self.1 >= 0.0 => choices.get(self.1 as usize),
            _ => None,
        };
        match choice {
            Some(choice) => f.write_str(choice),
            None => Quantity(self.1, &self.0.unit).fmt(f),
        }
    }
}

/// Whether the last value is younger than it has to become.
fn dwells(limit: &Limit, last: &Sent, now: Micros) -> bool {
    limit.dwell_ms.is_some_and(|ms| now.saturating_sub(last.changed_us) < Micros::from(ms) * 1000)
}

impl Slot {
    fn remember(&mut self, value: f64, now: Micros) {
        let same = self.last.filter(|last| (last.value - value).abs() <= slack(value));
        let changed_us = same.map_or(now, |last| last.changed_us);
        self.last = Some(Sent { value, time_us: now, changed_us });
    }
}

impl Track {
    /// The slot that `command` moves, when it is this limit's command.
    fn slot(&self, command: &Command) -> Option<usize> {
        if usize::from(command.verb) != self.command {
            return None;
        }
        let offset = match self.select.and_then(|s| command.values.get(s)) {
            Some(Value::Choice(choice)) => usize::from(*choice),
            _ => 0,
        };
        (offset < self.slot_count).then_some(self.first_slot + offset)
    }
}

impl Window {
    fn cut(&mut self, other: Self) {
        self.lo = self.lo.max(other.lo);
        self.hi = self.hi.min(other.hi);
    }

    /// The number of the window that is nearest to `value`; its low end when it is empty.
    pub fn clamp(&self, value: f64) -> f64 {
        value.min(self.hi).max(self.lo)
    }

    /// NaN is in no window. The slack only absorbs the last bits of `raw * scale`.
    fn holds(&self, value: f64) -> bool {
        value.is_finite() && value >= self.lo - slack(self.lo) && value <= self.hi + slack(self.hi)
    }

    /// The value of `argument`'s grid inside the window that is nearest to `number`.
    fn snap(&self, argument: &ArgumentSpec, number: f64) -> Option<Value> {
        let step = match argument.kind {
            ArgumentKind::Integer { .. } | ArgumentKind::Enum(_) | ArgumentKind::Bool => 1.0,
            ArgumentKind::Number { step, .. } => step,
            ArgumentKind::Text { .. } => return None,
        };
        let inside = if number > self.hi {
            ((self.hi + slack(self.hi)) / step).floor() * step
        } else {
            ((self.lo - slack(self.lo)) / step).ceil() * step
        };
        self.value_of(argument, inside)
    }

    /// The value of `argument`'s grid that is nearest to `number`, if it lies in the window; else the nearest inside.
    pub fn nearest(&self, argument: &ArgumentSpec, number: f64) -> Option<Value> {
        let step = match argument.kind {
            ArgumentKind::Number { step, .. } => step,
            _ => 1.0,
        };
        let rounded = (number / step).round() * step;
        // Rounding may leave a window whose bound is no value of the grid: then the last one inside on that side.
        if self.holds(rounded) { self.value_of(argument, rounded) } else { self.snap(argument, rounded) }
    }

    /// A number inside the window as a value of `argument`.
    fn value_of(&self, argument: &ArgumentSpec, inside: f64) -> Option<Value> {
        if !self.holds(inside) {
            return None;
        }
        match argument.kind {
            // Inside the integer's own range by the window, so the cast is exact or the re-check refuses it.
            ArgumentKind::Integer { .. } => Some(Value::Integer(inside as i64)),
            ArgumentKind::Enum(_) => Some(Value::Choice(inside as u16)),
            ArgumentKind::Bool => Some(Value::Bool(inside != 0.0)),
            ArgumentKind::Number { .. } => Some(Value::Number(inside)),
            ArgumentKind::Text { .. } => None,
        }
    }
}

fn slack(bound: f64) -> f64 {
    if bound.is_finite() { 1e-9 * bound.abs().max(1.0) } else { 0.0 }
}

fn limits_on(site: &Site, verb: u16, argument: usize, in_force: InForce) -> impl Iterator<Item = &Limit> {
    let on = LimitTarget::Argument { command: usize::from(verb), argument };
    let limits = site.limits.iter().enumerate();
    limits.filter(move |(index, l)| l.on == on && in_force.holds(*index)).map(|(_, limit)| limit)
}

/// Whether some limit of this command cannot be judged, and why.
pub(crate) fn undecided(site: &Site, command: &Command, in_force: InForce, sense: &Sense) -> Option<Reason> {
    let verb = usize::from(command.verb);
    let limits = site.limits.iter().enumerate().filter(|(index, _)| in_force.is_unknown(*index));
    let (_, limit) = limits
        .into_iter()
        .find(|(_, limit)| matches!(limit.on, LimitTarget::Argument { command, .. } if command == verb))?;
    let name = site.commands.get(verb).map_or("?", |spec| spec.name.as_str());
    let why = sense.first_unusable(site, tags_of(&limit.when)).unwrap_or(Reason::EMPTY);
    Some(reason!("whether a limit of {name} holds cannot be told: {}", why.as_str()))
}

/// Whether an argument takes this value; `None` for one of another type.
pub(crate) fn value_fits(kind: &ArgumentKind, value: &Value) -> Option<bool> {
    match (kind, value) {
        (ArgumentKind::Enum(choices), Value::Choice(choice)) => Some(usize::from(*choice) < choices.len()),
        (ArgumentKind::Integer { lo, hi }, Value::Integer(integer)) => Some((lo..=hi).contains(&integer)),
        (ArgumentKind::Number { lo, hi, step }, Value::Number(number)) => {
            Some(on_grid(*number, *lo, *hi, *step))
        }
        (ArgumentKind::Bool, Value::Bool(_)) => Some(true),
        (ArgumentKind::Text { bytes_max }, Value::Text(text)) => Some(text.as_str().len() <= *bytes_max),
        _ => None,
    }
}

/// Verb known, every argument of its type and in its declared range, nothing beyond them. The guard's own test, without
/// the heap and apart from the parser's.
pub(crate) fn well_formed(site: &Site, command: &Command) -> Result<(), Reason> {
    let Some(spec) = site.commands.get(usize::from(command.verb)) else {
        return Err(reason!("command number {} does not exist", command.verb));
    };
    for (index, value) in command.values.iter().enumerate() {
        let Some(argument) = spec.arguments.get(index) else {
            if *value == Value::Absent {
                continue;
            }
            return Err(reason!("{} takes {} arguments, more were given", spec.name, spec.arguments.len()));
        };
        let Some(fits) = value_fits(&argument.kind, value) else {
            return Err(reason!("{}.{} is missing or of the wrong type", spec.name, argument.name));
        };
        if !fits {
            let shown = Quantity(number_of(value).unwrap_or(f64::NAN), &argument.unit);
            return Err(reason!("{}.{} {shown} is not a value the site declares", spec.name, argument.name));
        }
    }
    Ok(())
}

/// Finite, in range, and a multiple of `step` up to the last bits.
fn on_grid(number: f64, lo: f64, hi: f64, step: f64) -> bool {
    let counts = number / step;
    number.is_finite() && number >= lo && number <= hi && (counts - counts.round()).abs() < 1e-6
}

/// Tags that a verdict rests on.
pub(crate) fn check_tags(site: &Site, sense: &Sense, needed: u64) -> Result<(), Reason> {
    if let Some(reason) = sense.first_trip(site) {
        return Err(reason);
    }
    match sense.first_unusable(site, needed) {
        Some(reason) => Err(reason),
        None => Ok(()),
    }
}
