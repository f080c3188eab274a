//! The limit table: whether a command may reach the plant, and why not.

use crate::approved::Approved;
use crate::error::GuardError;
use crate::limits::RATE_SLOTS_MAX;
use crate::registers::{number_of, register_writes};
use crate::sense::Sense;
use crate::text::{Quantity, reason};
use ganglion_audit::Verdict;
use ganglion_site::{
    ArgumentKind, ArgumentSpec, Command, CommandSpec, Limit, LimitAction, LimitTarget, Micros, Reason, Site,
    Value, WriteSource, WriteTarget,
};

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

/// Limits by argument and the last approved value of every rate-limited one.
#[derive(Debug, Clone)]
pub(crate) struct Envelope {
    rates: Vec<RateLimit>,
    slots: Vec<Slot>,
}

/// Where the slots of one rate limit lie.
#[derive(Debug, Clone, Copy)]
struct RateLimit {
    limit: usize,
    command: usize,
    argument: usize,
    select: Option<usize>,
    first_slot: usize,
    slot_count: usize,
}

/// Last approved value of one argument for one choice of its selecting argument.
#[derive(Debug, Clone, Copy)]
struct Slot {
    register: Option<u16>,
    scale: f64,
    last: Option<(f64, Micros)>,
}

/// What an argument must lie in, all limits taken together.
#[derive(Debug, Clone, Copy)]
struct Window {
    lo: f64,
    hi: f64,
}

impl Envelope {
    /// Allocates every slot.
    ///
    /// # Errors
    /// [`GuardError::TooManyRateSlots`].
    pub fn new(site: &Site) -> Result<Self, GuardError> {
        let (mut rates, mut slots) = (Vec::new(), Vec::new());
        for (limit_index, limit) in site.limits.iter().enumerate() {
            let (LimitTarget::Argument { command, argument }, Some(_)) = (limit.on, limit.rate_per_s) else {
                continue;
            };
            let Some(spec) = site.commands.get(command) else { continue };
            let write = spec.writes.iter().find(
                |w| matches!(w.source, WriteSource::Argument { index, .. } if index == argument && w.target == WriteTarget::Holding),
            );
            let select = write.and_then(|w| w.select);
            let slot_count = match select.and_then(|s| spec.arguments.get(s)).map(|a| &a.kind) {
                Some(ArgumentKind::Enum(choices)) => choices.len(),
                _ => 1,
            };
            let first_slot = slots.len();
            if first_slot + slot_count > RATE_SLOTS_MAX {
                return Err(GuardError::TooManyRateSlots { allowed: RATE_SLOTS_MAX });
            }
            for choice in 0..slot_count {
                let register =
                    write.and_then(|w| w.address.checked_add(u16::try_from(choice).unwrap_or(u16::MAX)));
                let scale = match write.map(|w| w.source) {
                    Some(WriteSource::Argument { scale, .. }) => scale,
                    _ => 1.0,
                };
                slots.push(Slot { register, scale, last: None });
            }
            rates.push(RateLimit { limit: limit_index, command, argument, select, first_slot, slot_count });
        }
        Ok(Self { rates, slots })
    }

    /// All checks that concern the command itself; `now` is `None` where no history is to be judged. Tags, mode and
    /// link are the caller's.
    pub fn check(&self, site: &Site, command: &Command, now: Option<Micros>) -> Checked {
        let rejected = |reason| Checked { verdict: Verdict::Rejected, command: *command, reason };
        if let Err(reason) = well_formed(site, command) {
            return rejected(reason);
        }
        let mut moved = *command;
        match self.apply_limits(site, &mut moved, now) {
            Err(reason) => rejected(reason),
            Ok(clamped) => match self.check_encoding(site, &moved, now) {
                Err(reason) => rejected(reason),
                Ok(()) => match clamped {
                    None => Checked { verdict: Verdict::Approved, command: moved, reason: Reason::EMPTY },
                    Some(reason) => Checked { verdict: Verdict::Clamped, command: moved, reason },
                },
            },
        }
    }

    /// [`Envelope::check`], with the proof when it passed.
    pub fn judge(&self, site: &Site, command: &Command, now: Micros) -> (Checked, Option<Approved<Command>>) {
        let checked = self.check(site, command, Some(now));
        let approved = (checked.verdict != Verdict::Rejected).then(|| Approved::seal(checked.command));
        (checked, approved)
    }

    /// The safe command, checked once at start. It is not rate-limited: stopping bypasses every slope.
    ///
    /// # Errors
    /// [`GuardError::SafeCommand`] with the reason.
    pub fn seal_safe(&self, site: &Site) -> Result<Approved<Command>, GuardError> {
        let checked = self.check(site, &site.safe, None);
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
            for write in writes.iter().filter(|w| w.target == WriteTarget::Holding) {
                for slot in self.slots.iter_mut().filter(|s| s.register == Some(write.address)) {
                    slot.last = Some((f64::from(write.raw.cast_signed()) * slot.scale, now));
                }
            }
        }
        for index in 0..self.rates.len() {
            let Some(rate) = self.rates.get(index).copied() else { continue };
            let Some(value) = command.values.get(rate.argument).and_then(number_of) else { continue };
            let slot = rate.slot(command).and_then(|s| self.slots.get_mut(s));
            if let Some(slot) = slot.filter(|s| s.register.is_none()) {
                slot.last = Some((value, now));
            }
        }
    }

    /// Brings arguments inside where the site says `clamp`; the reason of the first change.
    fn apply_limits(
        &self,
        site: &Site,
        command: &mut Command,
        now: Option<Micros>,
    ) -> Result<Option<Reason>, Reason> {
        let Some(spec) = site.commands.get(usize::from(command.verb)) else { return Ok(None) };
        let mut first = None;
        for (index, argument) in spec.arguments.iter().enumerate() {
            let Some(value) = command.values.get(index).copied() else { continue };
            let Some(number) = number_of(&value) else { continue };
            let mut outside = None;
            for (limit_index, limit) in limits_on(site, command.verb, index) {
                let bounds = self.window_of(limit_index, limit, command, now);
                if bounds.holds(number) {
                    continue;
                }
                let reason = self.outside_reason(spec, argument, limit_index, limit, number, command, now);
                if limit.action == LimitAction::Reject || !number.is_finite() {
                    return Err(reason);
                }
                outside = outside.or(Some(reason));
            }
            let Some(why) = outside else { continue };
            let window = self.window(site, command, index, now);
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
    fn check_encoding(&self, site: &Site, command: &Command, now: Option<Micros>) -> Result<(), Reason> {
        let Some(spec) = site.commands.get(usize::from(command.verb)) else { return Ok(()) };
        for write in register_writes(site, command)?.iter() {
            let Some((index, decoded)) = write.carries else { continue };
            let Some(argument) = spec.arguments.get(index) else { continue };
            let window = self.window(site, command, index, now);
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

    /// Range, limits and slope of one argument, taken together.
    fn window(&self, site: &Site, command: &Command, argument: usize, now: Option<Micros>) -> Window {
        let mut window = Window { lo: f64::NEG_INFINITY, hi: f64::INFINITY };
        let spec = site.commands.get(usize::from(command.verb)).and_then(|c| c.arguments.get(argument));
        match spec.map(|a| &a.kind) {
            Some(ArgumentKind::Integer { lo, hi }) => window.cut(Window { lo: *lo as f64, hi: *hi as f64 }),
            Some(ArgumentKind::Number { lo, hi, .. }) => window.cut(Window { lo: *lo, hi: *hi }),
            _ => {}
        }
        for (limit_index, limit) in limits_on(site, command.verb, argument) {
            window.cut(self.window_of(limit_index, limit, command, now));
        }
        window
    }

    /// What one limit leaves of the number line.
    fn window_of(&self, limit_index: usize, limit: &Limit, command: &Command, now: Option<Micros>) -> Window {
        let mut window =
            Window { lo: limit.lo.unwrap_or(f64::NEG_INFINITY), hi: limit.hi.unwrap_or(f64::INFINITY) };
        let (Some(rate), Some(now)) = (limit.rate_per_s, now) else { return window };
        if let Some((last, time)) = self.last(limit_index, command) {
            let reach = rate * (now.saturating_sub(time) as f64 / 1e6);
            window.cut(Window { lo: last - reach, hi: last + reach });
        }
        window
    }

    /// Last approved value under one rate limit.
    fn last(&self, limit_index: usize, command: &Command) -> Option<(f64, Micros)> {
        let rate = self.rates.iter().find(|r| r.limit == limit_index)?;
        self.slots.get(rate.slot(command)?)?.last
    }

    #[expect(clippy::too_many_arguments, reason = "everything that the sentence names")]
    fn outside_reason(
        &self,
        spec: &CommandSpec,
        argument: &ArgumentSpec,
        limit_index: usize,
        limit: &Limit,
        number: f64,
        command: &Command,
        now: Option<Micros>,
    ) -> Reason {
        let (verb, name, unit) = (spec.name.as_str(), argument.name.as_str(), argument.unit.as_str());
        let value = Quantity(number, unit);
        if let Some(hi) = limit.hi.filter(|hi| number > *hi) {
            return reason!("{verb}.{name} {value} is above its limit {}", Quantity(hi, unit));
        }
        if let Some(lo) = limit.lo.filter(|lo| number < *lo) {
            return reason!("{verb}.{name} {value} is below its limit {}", Quantity(lo, unit));
        }
        match (limit.rate_per_s, self.last(limit_index, command), now) {
            (Some(rate), Some((last, time)), Some(now)) => reason!(
                "{verb}.{name} {value} is too fast a change from {} {} ms ago (limit {} per s)",
                Quantity(last, unit),
                now.saturating_sub(time) / 1000,
                Quantity(rate, unit)
            ),
            _ => reason!("{verb}.{name} {value} is not a usable value"),
        }
    }
}

impl RateLimit {
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

    /// NaN is in no window. The slack only absorbs the last bits of `raw * scale`.
    fn holds(&self, value: f64) -> bool {
        value.is_finite() && value >= self.lo - slack(self.lo) && value <= self.hi + slack(self.hi)
    }

    /// The value of `argument`'s grid inside the window that is nearest to `number`.
    fn snap(&self, argument: &ArgumentSpec, number: f64) -> Option<Value> {
        let step = match argument.kind {
            ArgumentKind::Integer { .. } => 1.0,
            ArgumentKind::Number { step, .. } => step,
            ArgumentKind::Enum(_) | ArgumentKind::Bool | ArgumentKind::Text { .. } => return None,
        };
        let inside = if number > self.hi {
            ((self.hi + slack(self.hi)) / step).floor() * step
        } else {
            ((self.lo - slack(self.lo)) / step).ceil() * step
        };
        if !self.holds(inside) {
            return None;
        }
        match argument.kind {
            // Inside the integer's own range by the window, so the cast is exact or the re-check refuses it.
            ArgumentKind::Integer { .. } => Some(Value::Integer(inside as i64)),
            _ => Some(Value::Number(inside)),
        }
    }
}

fn slack(bound: f64) -> f64 {
    if bound.is_finite() { 1e-9 * bound.abs().max(1.0) } else { 0.0 }
}

fn limits_on(site: &Site, verb: u16, argument: usize) -> impl Iterator<Item = (usize, &Limit)> {
    let on = LimitTarget::Argument { command: usize::from(verb), argument };
    site.limits.iter().enumerate().filter(move |(_, l)| l.on == on)
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
        let fits = match (&argument.kind, value) {
            (ArgumentKind::Enum(choices), Value::Choice(choice)) => usize::from(*choice) < choices.len(),
            (ArgumentKind::Integer { lo, hi }, Value::Integer(integer)) => (lo..=hi).contains(&integer),
            (ArgumentKind::Number { lo, hi, step }, Value::Number(number)) => {
                on_grid(*number, *lo, *hi, *step)
            }
            (ArgumentKind::Bool, Value::Bool(_)) => true,
            (ArgumentKind::Text { bytes_max }, Value::Text(text)) => text.as_str().len() <= *bytes_max,
            _ => return Err(reason!("{}.{} is missing or of the wrong type", spec.name, argument.name)),
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
