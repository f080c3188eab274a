//! The brain's answers: which event one belongs to, when it counts, and what is done where there is none.
//!
//! An answer is judged against the plant as it is when its turn comes. A cycle gives the plant one command; what comes
//! together takes its turns in the order in which it was asked.

use crate::breaker::BreakerState;
use crate::envelope::{Checked, well_formed};
use crate::guard::{Guard, is_question};
use crate::limits::DECISIONS_PER_CYCLE_MAX;
use crate::mode::Mode;
use crate::pending::{Announcement, Fate, Pending};
use crate::status::{BrainProcess, Request};
use crate::text::reason;
use ganglion_audit::{Record, RecordKind, Source, Verdict};
use ganglion_site::{Command, Decision, Event, Outcome, Reason, Site};

/// Why a command that passed every check is not sent.
pub(crate) const SUPERSEDED: &str =
    "a younger event's command, or the safe command, has gone to the same outputs";

/// Why a command is not sent as the answer to a sentence, where the site keeps those of plans for verified plans.
pub(crate) fn kept_for_plans(site: &Site, command: &Command) -> Option<Reason> {
    let plan = site.plan.as_ref().filter(|plan| plan.only && *command != site.safe)?;
    plan.action(command)?;
    let name = site.commands.get(usize::from(command.verb)).map_or("?", |spec| spec.name.as_str());
    Some(reason!("{name} is sent in verified plans only: say \"mission: …\""))
}

impl Guard {
    pub(crate) fn follow_brain(&mut self, process: BrainProcess) {
        let lost = self.brain.follow(self.now, process);
        self.lose_brain(lost);
    }

    pub(crate) fn watch_brain(&mut self) {
        let lost = self.brain.watch(self.now);
        self.lose_brain(lost);
    }

    fn lose_brain(&mut self, lost: Option<Reason>) {
        if let Some(text) = lost {
            self.counters.brain_losses += 1;
            self.breaker.open(self.now);
            self.notice(RecordKind::Brain, text);
            self.pending.iter_mut().for_each(|pending| pending.fate = Fate::GivenUp(text));
        }
    }

    /// Notes which event each message answers.
    pub(crate) fn take_decisions(&mut self, decisions: &[Decision]) {
        for decision in decisions.iter().take(DECISIONS_PER_CYCLE_MAX) {
            let due_us = self.pending.first_deadline_us(decision.epoch);
            if !self.brain.hear(self.now, due_us) {
                self.counters.unexpected_answers += 1;
                continue;
            }
            if self.brain.became_ready() {
                self.notice(RecordKind::Brain, reason!("the brain is ready"));
            }
            if decision.epoch == 0 {
                continue;
            }
            let now = self.now;
            match self.pending.find_mut(decision.epoch).filter(|pending| pending.is_waiting()) {
                Some(pending) if now <= pending.deadline_us => pending.fate = Fate::Answered(*decision),
                Some(pending) => {
                    let late_ms = (now - pending.deadline_us).div_ceil(1000);
                    let why = reason!("the answer was seen {late_ms} ms after the deadline");
                    pending.fate = Fate::GivenUp(why);
                    self.counters.late_answers += 1;
                    self.counters.deadline_misses += 1;
                    self.breaker.failure(now);
                }
                None if decision.epoch <= self.epoch => self.counters.late_answers += 1,
                None => self.counters.unexpected_answers += 1,
            }
        }
    }

    /// The last look before a deadline found nothing.
    pub(crate) fn expire_pending(&mut self) {
        let now = self.now;
        let mut missed = 0;
        for pending in self.pending.iter_mut().filter(|p| p.is_waiting() && now >= p.cutoff_us) {
            let waited_ms = (now - pending.accepted_us) / 1000;
            pending.fate = Fate::GivenUp(reason!("the brain gave no answer in {waited_ms} ms"));
            missed += 1;
        }
        for _ in 0..missed {
            self.counters.deadline_misses += 1;
            self.breaker.failure(now);
        }
    }

    /// Acts on all answers whose turn it is, the oldest event's first. What needs the cycle's command when another has taken
    /// it waits for the next cycle.
    pub(crate) fn settle(&mut self) {
        let mut after = 0;
        loop {
            self.forsake();
            let Some(pending) = self.pending.settled_after(after) else { return };
            after = pending.event.epoch;
            if self.actuation.is_some() && self.wants_the_place(pending) {
                continue;
            }
            let Some(pending) = self.pending.remove(after) else { return };
            match pending.fate {
                Fate::Answered(decision) => self.resolve(pending, &decision),
                Fate::GivenUp(why) => self.give_up(pending, why),
                Fate::Waiting => return,
            }
        }
    }

    /// With the breaker not closed the rule controller is the only writer: what was asked before is its to answer.
    fn forsake(&mut self) {
        if self.breaker.state() == BreakerState::Closed {
            return;
        }
        let why = reason!("the breaker is {}", self.breaker.state().as_str());
        let asked = self.pending.iter_mut().filter(|pending| !pending.shadow);
        for pending in asked.filter(|pending| !matches!(pending.fate, Fate::GivenUp(_))) {
            pending.fate = Fate::GivenUp(why);
        }
    }

    fn wants_the_place(&self, pending: &Pending) -> bool {
        let gives = match &pending.fate {
            Fate::Answered(decision) => decision.command.is_none_or(|command| !self.is_none(&command)),
            Fate::GivenUp(_) => true,
            Fate::Waiting => false,
        };
        gives && !pending.shadow && !pending.event.dry_run && self.mode == Mode::Execute
    }

    /// An answer that came in time and whose turn it is.
    fn resolve(&mut self, pending: Pending, decision: &Decision) {
        if self.now > pending.deadline_us {
            self.counters.deadline_misses += 1;
            let why = reason!("the answer waited for another command until after the deadline");
            return self.give_up(pending, why);
        }
        if decision.ran_out_of_time() {
            // It says so in time: nothing is wrong with the brain, there was too much to do.
            self.counters.deadline_misses += 1;
            return self.give_up(pending, reason!("the brain: {}", decision.reason.as_str()));
        }
        if let Err(why) = self.decision_is_sound(decision, &pending) {
            self.counters.malformed_answers += 1;
            self.breaker.failure(self.now);
            let text = reason!("the brain's answer is malformed: {}", why.as_str());
            return self.without_command(pending, decision, text);
        }
        self.breaker.success();
        let Some(command) = decision.command else {
            let text = match decision.reason.as_str() {
                "" => reason!("the brain gave no command"),
                _ => decision.reason,
            };
            return self.without_command(pending, decision, text);
        };
        let kept = kept_for_plans(&self.site, &command).filter(|_| pending.request.source != Source::Mission);
        let (mut checked, approved) = match kept {
            Some(reason) => (Checked { verdict: Verdict::Rejected, command, reason }, None),
            None => self.judge(&command, self.prompt_needed(), &pending.request.tags, !pending.event.dry_run),
        };
        if checked.verdict == Verdict::Rejected && pending.announcement == Announcement::Sent {
            return self.without_command(pending, decision, checked.reason);
        }
        if checked.verdict == Verdict::Approved && is_question(&pending.request.sentence) {
            checked.reason = reason!("a question: answered, not acted on");
        }
        if checked.reason.as_str().is_empty() {
            // The brain's own: why it is not what the model first said.
            checked.reason = decision.reason;
        }
        let mut actuated = false;
        if let (Some(approved), false) = (approved, pending.shadow) {
            let none = self.is_none(approved.get());
            if !none && self.outputs.superseded(&self.site, approved.get(), pending.event.epoch) {
                self.counters.superseded += 1;
                checked.reason = reason!("superseded: {SUPERSEDED}");
            } else {
                actuated = self.actuate(approved, decision.outcome, &pending.event, &pending.request);
            }
        }
        let clamped = (checked.verdict == Verdict::Clamped).then_some(checked.command);
        self.record_answer(&pending, decision, clamped, checked.verdict, checked.reason, actuated);
    }

    /// The answer gives nothing to send. After an announcement that does not do: the rule controller has the last word.
    fn without_command(&mut self, pending: Pending, decision: &Decision, why: Reason) {
        if pending.announcement == Announcement::Sent {
            return self.give_up(pending, reason!("announced, and then: {}", why.as_str()));
        }
        self.record_answer(&pending, decision, None, Verdict::Rejected, why, false);
    }

    /// A decision's own fields, before its command is judged.
    fn decision_is_sound(&self, decision: &Decision, pending: &Pending) -> Result<(), Reason> {
        if !matches!(decision.outcome, Outcome::Model | Outcome::Cache | Outcome::Completion) {
            return Err(reason!("only the guard may answer by rule or by the safe command"));
        }
        if !(decision.confidence >= 0.0 && decision.confidence <= 1.0) {
            return Err(reason!("confidence {} is not between 0 and 1", decision.confidence));
        }
        let Some(command) = &decision.command else { return Ok(()) };
        well_formed(&self.site, command)?;
        if pending.verb.is_some_and(|verb| verb != command.verb) && !self.is_none(command) {
            return Err(reason!("its action is not the one that it said it had decided"));
        }
        Ok(())
    }

    /// Sends an event to the brain; the answer is due at its deadline.
    pub(crate) fn ask(&mut self, request: &Request, shadow: bool) {
        let span_us = self.span_us(request);
        let deadline_us = self.now.saturating_add(span_us);
        let event = Event {
            epoch: self.epoch + 1,
            deadline_us: deadline_us - self.times.brain_margin_us.min(span_us / 2),
            dry_run: request.dry_run || shadow || self.is_dry_run(),
            // Announcements need the verb as soon as it is decided.
            stream: request.stream || (self.announces && !request.dry_run && !shadow),
            ..self.event_of(request)
        };
        let pending = Pending {
            request: *request,
            event,
            accepted_us: self.now,
            deadline_us,
            cutoff_us: deadline_us - self.times.guard_margin_us.min(span_us / 4),
            shadow,
            fate: Fate::Waiting,
            verb: None,
            announcement: Announcement::None,
        };
        if self.pending.insert(pending) {
            self.epoch += 1;
            self.event_out = Some(event);
            self.brain.asked(deadline_us);
        }
    }

    /// The brain's answer will not be used: the rule controller's is, unless this was a shadow probe.
    fn give_up(&mut self, pending: Pending, why: Reason) {
        if pending.shadow {
            let record = Record {
                request: pending.request.id,
                event: pending.event,
                verdict: Some(Verdict::Rejected),
                latency_us: self.now - pending.accepted_us,
                ..self.blank(RecordKind::Probe, why)
            };
            self.push(record);
        } else {
            self.answer_by_rule_for(&pending.request, &pending.event, pending.accepted_us, why);
        }
    }

    /// The mode left Execute while the brain was thinking: its answers, when they come, are old epochs'.
    pub(crate) fn drop_pending(&mut self) {
        let text = self.mode_reason();
        while let Some(pending) = self.pending.pop() {
            if pending.shadow {
                self.give_up(pending, text);
            } else {
                self.refuse(&pending.request, text);
            }
        }
    }
}

#[cfg(test)]
use ganglion_site::Epoch;

#[cfg(test)]
impl Guard {
    /// The epochs that the brain is thinking about, the oldest first.
    pub(crate) fn pending_epochs(&self) -> Vec<Epoch> {
        let waiting = self.pending.iter().filter(|pending| pending.is_waiting());
        let mut epochs: Vec<Epoch> = waiting.map(|pending| pending.event.epoch).collect();
        epochs.sort_unstable();
        epochs
    }

    /// What the exhaustive search tells states apart by.
    pub(crate) fn pending_shape(&self, age: impl Fn(u64) -> u64) -> String {
        let mut shapes: Vec<_> = self
            .pending
            .iter()
            .map(|p| {
                let fate = match p.fate {
                    Fate::Waiting => 'w',
                    Fate::Answered(_) => 'a',
                    Fate::GivenUp(_) => 'g',
                };
                let old = self.outputs.superseded(&self.site, self.safe.get(), p.event.epoch);
                (p.event.epoch, age(p.accepted_us), p.shadow, fate, p.verb, p.announcement, old)
            })
            .collect();
        shapes.sort_unstable_by_key(|shape| shape.0);
        let shapes = shapes.iter().map(|(_, a, b, c, d, e, f)| format!("{a} {b} {c} {d:?} {e:?} {f};"));
        shapes.collect()
    }
}
