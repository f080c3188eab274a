//! The rule controller: which rule's command goes out while the brain does not count, and how it moves.

use crate::answers::SUPERSEDED;
use crate::approved::Approved;
use crate::envelope::{Judging, Window};
use crate::guard::{BUSY, Guard};
use crate::mode::Mode;
use crate::pi::Pi;
use crate::registers::number_of;
use crate::sense::{Sense, bit};
use crate::status::{BrainState, Request};
use crate::text::reason;
use ganglion_audit::Verdict;
use ganglion_site::{
    ArgumentKind, ArgumentSpec, Command, Event, How, Micros, Outcome, Reason, Rule, TagValues, Value,
};

/// What the rule controller wants.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RuleChoice {
    pub outcome: Outcome,
    pub approved: Approved<Command>,
    pub proposed: Command,
    pub verdict: Verdict,
    pub reason: Reason,
}

/// The rule that is in control without a break, since when, and its loop.
#[derive(Debug, Clone, Copy, serde::Serialize, serde::Deserialize)]
pub(crate) struct ActiveRule {
    rule: Option<usize>,
    from_us: Micros,
    pi: Pi,
}

impl ActiveRule {
    pub const NONE: Self = Self { rule: None, from_us: 0, pi: Pi::REST };
}

impl Guard {
    pub(crate) fn rule_in_control(&self) -> bool {
        let blind = self.times.trip_mask & !self.sense.usable != 0;
        self.mode == Mode::Execute && (!self.brain_counts() || blind)
    }

    /// The first rule that applies. A loop whose tag cannot be used does not.
    fn matching_rule(&self, sense: &Sense) -> Option<usize> {
        let mut rules = self.site.rules.iter().enumerate();
        let found = rules.find(|(index, rule)| {
            let readable = match rule.how {
                How::Pi(spec) => self.sense.usable & bit(spec.tag) != 0,
                How::Send | How::Ramp { .. } => true,
            };
            readable && self.conditions.rule_holds(&self.site, *index, sense)
        });
        found.map(|(index, _)| index)
    }

    /// `command`, the one of the first matching rule, if it passes the checks; else the safe command.
    fn choose_rule(&self, sense: &Sense, command: Option<Command>, given: &TagValues) -> RuleChoice {
        let safe = |reason| self.safe_choice(reason);
        if let Some(why) = sense.first_unusable(&self.site, self.times.trip_mask) {
            return safe(reason!("{}; safe command", why.as_str()));
        }
        let Some(command) = command else {
            return safe(reason!("no rule applies; safe command"));
        };
        match self.judge(&command, 0, given, false) {
            (checked, Some(approved)) => RuleChoice {
                outcome: Outcome::Rule,
                approved,
                proposed: command,
                verdict: checked.verdict,
                reason: checked.reason,
            },
            (checked, None) => safe(reason!("rule refused: {}; safe command", checked.reason.as_str())),
        }
    }

    /// A rule's command as the answer to one event: ramps and loops move only while the rule controller is in control,
    /// so that an argument of theirs keeps what was last sent.
    fn still(&self, rule: usize) -> Option<Command> {
        let rule = self.site.rules.get(rule)?;
        let argument = match rule.how {
            How::Send => return Some(rule.command),
            How::Ramp { argument, .. } => argument,
            How::Pi(spec) => spec.argument,
        };
        match self.envelope.last(&rule.command, argument) {
            Some(last) => self.with_argument(&rule.command, argument, last.value),
            None => Some(rule.command),
        }
    }

    /// The active rule's command for this cycle.
    fn moved(&mut self, index: usize) -> Option<Command> {
        let rule = self.site.rules.get(index)?;
        match rule.how {
            How::Send => Some(rule.command),
            How::Ramp { argument, per_s } => {
                let target = rule.command.values.get(argument).and_then(number_of)?;
                // Without a known start there is nothing to ramp from.
                let Some(last) = self.envelope.last(&rule.command, argument) else {
                    return Some(rule.command);
                };
                let from_us = last.time_us.max(self.active.from_us);
                let reach = per_s * (self.now.saturating_sub(from_us) as f64 / 1e6);
                let next = target.min(last.value + reach).max(last.value - reach);
                // Whole steps only, so that what is not sent is not lost but still due.
                let next = self.towards(rule, argument, last.value, next)?;
                self.with_argument(&rule.command, argument, next)
            }
            How::Pi(spec) => {
                let reading = self.sense.values.get(spec.tag).copied()?;
                let command = rule.command;
                let written = command.values.get(spec.argument).and_then(number_of)?;
                let last = self.envelope.last(&command, spec.argument);
                let in_force = self.conditions.in_force(&self.site, &self.sense, &self.sense);
                let by = Judging { now: Some(self.now), in_force };
                let window = self.envelope.window(&self.site, &command, spec.argument, by);
                let start = last.map_or(written, |last| last.value);
                let output = self.active.pi.step(&spec, self.now, reading, start, window);
                let argument = self.argument(&command, spec.argument)?;
                let value = window.nearest(argument, output)?;
                with_value(&command, spec.argument, value)
            }
        }
    }

    /// `next`, rounded to the argument's step on the side of `last`.
    fn towards(&self, rule: &Rule, argument: usize, last: f64, next: f64) -> Option<f64> {
        let step = match self.argument(&rule.command, argument)?.kind {
            ArgumentKind::Number { step, .. } => step,
            _ => 1.0,
        };
        let counts = next / step;
        let nearly = counts.round();
        let whole = (counts - nearly).abs() < 1e-6;
        // Not beyond where it stands, should that be no value of the grid.
        Some(if next > last {
            (if whole { nearly } else { counts.floor() } * step).max(last)
        } else {
            (if whole { nearly } else { counts.ceil() } * step).min(last)
        })
    }

    fn argument(&self, command: &Command, argument: usize) -> Option<&ArgumentSpec> {
        self.site.commands.get(usize::from(command.verb))?.arguments.get(argument)
    }

    /// `command` with one argument at the value of its grid nearest to `number`.
    fn with_argument(&self, command: &Command, argument: usize, number: f64) -> Option<Command> {
        let everywhere = Window { lo: f64::NEG_INFINITY, hi: f64::INFINITY };
        let value = everywhere.nearest(self.argument(command, argument)?, number)?;
        with_value(command, argument, value)
    }

    pub(crate) fn answer_by_rule(&mut self, request: &Request, accepted_us: Micros, why: Reason) {
        if self.actuation.is_some() && !request.dry_run {
            return self.refuse_busy(request, why);
        }
        let event = self.event_of(request);
        self.answer_by_rule_for(request, &event, accepted_us, why);
    }

    pub(crate) fn answer_by_rule_for(
        &mut self,
        request: &Request,
        event: &Event,
        accepted_us: Micros,
        why: Reason,
    ) {
        if self.mode != Mode::Execute {
            return self.refuse(request, why);
        }
        let sense = self.sense.with(&self.site, &request.tags);
        let command = self.matching_rule(&sense).and_then(|index| self.still(index));
        let choice = self.choose_rule(&sense, command, &request.tags);
        if choice.outcome == Outcome::Rule && !request.dry_run && self.is_over_budget(&choice) {
            let over = self.budget_reason();
            return self.refuse(request, reason!("{}; {}", why.as_str(), over.as_str()));
        }
        let asked = event.epoch != 0 && choice.outcome == Outcome::Rule;
        if asked && self.outputs.superseded(&self.site, choice.approved.get(), event.epoch) {
            self.counters.superseded += 1;
            let why = reason!("{}; superseded: {SUPERSEDED}", why.as_str());
            return self.record_choice(request, event, accepted_us, &choice, false, why);
        }
        let actuated = self.actuate(choice.approved, choice.outcome, event, request);
        if actuated {
            self.last_rule = Some(*choice.approved.get());
        }
        self.record_choice(request, event, accepted_us, &choice, actuated, why);
    }

    /// The event's own reading is beyond a trip limit: the safe command, without the model or a rule. It stands until
    /// something else is decided; the rule controller does not repeat what it sent before.
    pub(crate) fn answer_by_safe(&mut self, request: &Request, why: Reason) {
        if self.actuation.is_some() {
            return self.refuse_busy(request, why);
        }
        let event = self.event_of(request);
        let actuated = self.actuate(self.safe, Outcome::Safe, &event, request);
        let choice = self.safe_choice(reason!("safe command"));
        self.record_choice(request, &event, self.now, &choice, actuated, why);
    }

    /// One command a cycle: who comes second is told so.
    fn refuse_busy(&mut self, request: &Request, why: Reason) {
        self.counters.busy += 1;
        self.refuse(request, reason!("{BUSY}: another command was sent in this cycle; {}", why.as_str()));
    }

    fn is_over_budget(&self, choice: &RuleChoice) -> bool {
        !self.is_none(choice.approved.get()) && !self.bucket.has_one()
    }

    fn safe_choice(&self, reason: Reason) -> RuleChoice {
        RuleChoice {
            outcome: Outcome::Safe,
            approved: self.safe,
            proposed: *self.safe.get(),
            verdict: Verdict::Approved,
            reason,
        }
    }

    /// While the brain does not count, the rule controller's command is judged anew each cycle and sent when it changes.
    pub(crate) fn control_by_rule(&mut self) {
        if !self.rule_in_control() {
            self.last_rule = None;
            self.active = ActiveRule::NONE;
            return;
        }
        let rule = self.matching_rule(&self.sense);
        if rule != self.active.rule {
            self.active = ActiveRule { rule, from_us: self.now, pi: Pi::REST };
        }
        if self.actuation.is_some() {
            return;
        }
        let command = rule.and_then(|index| self.moved(index));
        let choice = self.choose_rule(&self.sense, command, &TagValues::NONE);
        if self.last_rule == Some(*choice.approved.get()) {
            return;
        }
        // Until a token comes in the outputs stay as they are.
        if choice.outcome == Outcome::Rule && self.is_over_budget(&choice) {
            return;
        }
        self.last_rule = Some(*choice.approved.get());
        let request = Request::own(false);
        let event = self.event_of(&request);
        let actuated = self.actuate(choice.approved, choice.outcome, &event, &request);
        let why = match self.brain.state() {
            BrainState::Ready => {
                reason!("rule controller in control, breaker {}", self.breaker.state().as_str())
            }
            state => reason!("rule controller in control, brain {}", state.as_str()),
        };
        self.record_choice(&request, &event, self.now, &choice, actuated, why);
    }

    /// Sends the safe command that a stop or abort owes the plant, as soon as the driver would take it: connected and
    /// armed. Until then it stays owed and nothing is recorded as sent.
    pub(crate) fn pay_safe(&mut self) {
        if !self.safe_owed || !self.can_write() {
            return;
        }
        self.safe_owed = false;
        let request = Request::own(false);
        let event = self.event_of(&request);
        let actuated = self.actuate(self.safe, Outcome::Safe, &event, &request);
        let choice = self.safe_choice(Reason::EMPTY);
        let why = reason!("{}: safe command", self.mode.as_str());
        self.record_choice(&request, &event, self.now, &choice, actuated, why);
    }
}

fn with_value(command: &Command, argument: usize, value: Value) -> Option<Command> {
    let mut moved = *command;
    *moved.values.get_mut(argument)? = value;
    Some(moved)
}
