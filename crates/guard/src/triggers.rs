//! Triggers: events that nobody has to ask for.
//!
//! Every cycle compares; a question goes out only when a trigger holds. A trigger that flaps makes no flood: a change counts
//! from the last event's value, a condition has to end before it begins again, each trigger has its pause and one event in
//! flight, and all of them together leave room for people.

use crate::condition::Truth;
use crate::guard::Guard;
use crate::limits::TRIGGERS_PENDING_MAX;
use crate::mode::Mode;
use crate::sense::bit;
use crate::status::Request;
use ganglion_audit::Source;
use ganglion_site::{Micros, Sentence, TriggerOn};

/// What a trigger remembers.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub(crate) struct TriggerState {
    /// Value of the tag at the last event.
    reference: Option<f64>,
    /// The condition has ended since the last event.
    armed: bool,
    /// Since when an event has been owed.
    due_us: Option<Micros>,
    /// The last event; the beginning of Execute for a period.
    last_us: Option<Micros>,
}

impl TriggerState {
    /// As at the beginning of Execute.
    pub const FRESH: Self = Self { reference: None, armed: true, due_us: None, last_us: None };
}

impl Guard {
    /// Looks at every trigger, and makes an event of the one that has waited longest, if one may go out now.
    pub(crate) fn watch_triggers(&mut self) {
        if self.mode != Mode::Execute {
            self.triggers.fill(TriggerState::FRESH);
            return;
        }
        for index in 0..self.triggers.len() {
            self.watch_trigger(index);
        }
        // The rule controller looks at the plant in every cycle; there is nothing to ask it.
        let may_ask = self.event_out.is_none()
            && self.brain_counts()
            && !self.rule_in_control()
            && self.can_take_event()
            && self.pending.count_of_triggers(None) < TRIGGERS_PENDING_MAX;
        if !may_ask {
            return;
        }
        let ready = (0..self.triggers.len()).filter_map(|index| Some((self.ready_since(index)?, index)));
        if let Some((_, index)) = ready.min() {
            self.fire_trigger(index);
        }
    }

    fn watch_trigger(&mut self, index: usize) {
        let (Some(trigger), Some(mut state)) =
            (self.site.triggers.get(index), self.triggers.get(index).copied())
        else {
            return;
        };
        let holds = match &trigger.on {
            TriggerOn::Change { tag, by } => {
                if self.sense.usable & bit(*tag) == 0 {
                    // What cannot be read has not changed.
                    return;
                }
                let value = self.sense.values.get(*tag).copied().unwrap_or(0.0);
                (value - *state.reference.get_or_insert(value)).abs() >= *by
            }
            TriggerOn::When { until, .. } => {
                let truth = self.conditions.trigger_truth(&self.site, index, false, &self.sense);
                let ended = if until.is_empty() {
                    truth == Truth::No
                } else {
                    self.conditions.trigger_truth(&self.site, index, true, &self.sense) == Truth::Yes
                };
                state.armed |= ended;
                state.armed && truth == Truth::Yes
            }
            TriggerOn::Every { ms } => {
                let from = *state.last_us.get_or_insert(self.now);
                self.now.saturating_sub(from) >= Micros::from(*ms) * 1000
            }
        };
        state.due_us = if holds { state.due_us.or(Some(self.now)) } else { None };
        if let Some(place) = self.triggers.get_mut(index) {
            *place = state;
        }
    }

    /// Since when a trigger has been due, if its pause is over and its last event answered.
    fn ready_since(&self, index: usize) -> Option<Micros> {
        let (trigger, state) = (self.site.triggers.get(index)?, self.triggers.get(index)?);
        let due_us = state.due_us?;
        let rested = state
            .last_us
            .is_none_or(|last| self.now.saturating_sub(last) >= Micros::from(trigger.pause_ms) * 1000);
        let rested = rested || matches!(trigger.on, TriggerOn::Every { .. });
        let answered = self.pending.count_of_triggers(u16::try_from(index).ok()) == 0;
        (rested && answered).then_some(due_us)
    }

    fn fire_trigger(&mut self, index: usize) {
        let (Some(trigger), Some(state), Ok(number)) =
            (self.site.triggers.get(index), self.triggers.get_mut(index), u16::try_from(index))
        else {
            return;
        };
        if let TriggerOn::Change { tag, .. } = trigger.on {
            state.reference = self.sense.values.get(tag).copied();
        }
        *state = TriggerState { armed: false, last_us: Some(self.now), ..*state };
        if let Some(count) = self.counters.triggers.get_mut(index) {
            *count = count.saturating_add(1);
        }
        let sentence = Sentence::cut(&trigger.say);
        let request = Request { source: Source::Trigger(number), sentence, ..Request::own(false) };
        self.accept(&request);
    }
}
