//! One monitor per invariant, written from its wording and not from the guard's code.

use crate::world::Numbers;
use ganglion_guard::*;
use ganglion_site::{Command, Decision, Micros, Outcome, Value};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Those that a simulation can show. 1 is shown by the compiler, 14 and the real-process part of 13 by `ganglion`'s campaign
/// over processes, 29 and 30 by the plan verifier's tests.
pub const INVARIANTS: [(u8, &str); 27] = [
    (2, "any input gives a verdict, no panic"),
    (3, "limits hold for any number, after scaling too"),
    (4, "the slew limit holds across sources"),
    (5, "unknown verb or field: rejected"),
    (6, "a question never actuates"),
    (7, "words cannot widen the envelope"),
    (8, "a missed deadline gives a safe action in time"),
    (9, "an old epoch is discarded"),
    (10, "stale, frozen or bad readings: rejected"),
    (11, "a step of the clock changes nothing"),
    (12, "the watchdog is fed by completed cycles only"),
    (13, "a brain that is gone: fallback at once"),
    (15, "the breaker opens at exactly N"),
    (16, "open: the rule controller is sole writer"),
    (17, "half-open: shadow only, one failure reopens"),
    (18, "minimum dwell of the open breaker"),
    (19, "every mode and event is defined"),
    (20, "a safe stop is one step away"),
    (21, "the emergency stop wins and latches"),
    (22, "the operator beats the model"),
    (23, "a restart never resumes Execute"),
    (24, "duplicates and reorder change nothing"),
    (25, "a lost link: nothing goes out"),
    (26, "no lease, no command and no heartbeat"),
    (27, "the command budget holds, stopping bypasses it"),
    (28, "one record per actuation, replay bit-exact"),
    (31, "a bad policy is refused, a good one holds at once"),
];

/// One cycle, seen from outside.
pub struct Scene<'s> {
    pub cycle: u64,
    pub numbers: Numbers,
    pub before: Status,
    pub time: Micros,
    pub input: &'s Input<'s>,
    pub seen: Seen<'s>,
    pub approved: Option<Command>,
    pub twin: Option<Actuated>,
    pub replayed: Option<(String, String)>,
}

/// Counts, and what a monitor has to remember.
#[derive(Default)]
pub struct Monitors {
    counts: BTreeMap<u8, (u64, u64)>,
    examples: Vec<String>,
    asked: BTreeMap<u64, Micros>,
    followed: BTreeMap<u16, u64>,
    /// Epochs that had a proper answer, whatever else came for them.
    sound: BTreeSet<u64>,
    unsure: bool,
    /// Events without an answer: since when, for how long, and cycles in which time stood still or another command went.
    open: BTreeMap<u64, (Micros, Micros, u64)>,
    actuated_epochs: BTreeSet<u64>,
    fan: Option<(f64, Micros)>,
    sent: VecDeque<Micros>,
    failures: u64,
    opened_us: Micros,
    latched: bool,
    frozen: Option<(u64, Micros)>,
    read_us: Micros,
    new_policy: bool,
}

impl Monitors {
    pub fn check(&mut self, number: u8, holds: bool, what: impl FnOnce() -> String) {
        let count = self.counts.entry(number).or_default();
        count.0 += 1;
        if !holds {
            count.1 += 1;
            if self.examples.len() < 20 {
                self.examples.push(format!("{number}: {}", what()));
            }
        }
    }

    pub fn add(&mut self, other: &Self) {
        for (number, (checks, violations)) in &other.counts {
            let count = self.counts.entry(*number).or_default();
            (count.0, count.1) = (count.0 + checks, count.1 + violations);
        }
        self.examples.extend(other.examples.iter().take(20 - self.examples.len().min(20)).cloned());
    }

    pub fn checks(&self, number: u8) -> u64 {
        self.counts.get(&number).map_or(0, |count| count.0)
    }

    pub fn violations(&self, number: u8) -> u64 {
        self.counts.get(&number).map_or(0, |count| count.1)
    }

    pub fn examples(&self) -> &[String] {
        &self.examples
    }

    pub fn adopted(&mut self, _: &Numbers) {
        self.new_policy = true;
    }

    pub fn watch(&mut self, scene: &Scene<'_>) {
        self.authority(scene);
        self.time(scene);
        self.brain_and_breaker(scene);
        self.modes(scene);
        self.outputs(scene);
        self.new_policy = false;
    }

    fn authority(&mut self, scene: &Scene<'_>) {
        let at = |what: &str| format!("cycle {}: {what}", scene.cycle);
        let records = scene.seen.records;
        // Every event is answered once, in time: those asked are kept until then.
        if let Some(event) = scene.input.event {
            let span_us = event.deadline_ms.map_or(scene.numbers.deadline_us, |ms| {
                (Micros::from(ms) * 1000).clamp(1000, scene.numbers.brain_timeout_us)
            });
            self.open.insert(event.id, (scene.seen.status.time_us, span_us, 0));
        }
        let stood_still = scene.time <= scene.before.time_us;
        if stood_still || scene.seen.actuated.is_some() {
            self.open.values_mut().for_each(|open| open.2 += 1);
        }
        for record in records.iter().filter(|r| r.kind == RecordKind::Decision && r.request != 0) {
            let known = self.open.remove(&record.request);
            self.check(2, known.is_some() && record.verdict.is_some(), || at("a second answer"));
            let Some((from_us, span_us, spent)) = known else { continue };
            // One cycle to look, and those in which nothing could go out for it.
            let took_us = scene.seen.status.time_us - from_us;
            let allowed_us = span_us + (1 + spent) * scene.numbers.period_us;
            self.check(8, took_us <= allowed_us, || at(&format!("answered after {took_us} us of {span_us}")));
        }
        // One that is never answered has no record to look at.
        let (now, period_us) = (scene.seen.status.time_us, scene.numbers.period_us);
        let overdue =
            |open: &(Micros, Micros, u64)| now.saturating_sub(open.0) > open.1 + (1 + open.2) * period_us;
        let lost = self.open.iter().find(|(_, open)| overdue(open)).map(|(id, _)| *id);
        if let Some(id) = lost {
            self.open.remove(&id);
            self.check(8, false, || at(&format!("event {id} has no answer")));
        }
        let actuated = scene.seen.actuated;
        // A reading beyond a trip limit is no question, whatever is asked along with it: that is answered by the safe command.
        let asked =
            |r: &&Record| r.event.sentence.as_str().ends_with('?') && r.outcome != Some(Outcome::Safe);
        for record in records.iter().filter(asked) {
            self.check(6, !record.actuated, || at("a question was acted on"));
        }
        // The words alone change nothing.
        let bare = |a: Option<Actuated>| a.map(|a| format!("{:?}", a.command));
        self.check(7, bare(actuated) == bare(scene.twin), || at("other words, another command"));
        let sound = |d: &Decision| {
            d.command.is_none_or(|c| c.verb < 4) && d.confidence >= 0.0 && d.outcome == Outcome::Model
        };
        self.sound.extend(scene.input.decisions.iter().filter(|d| sound(d)).map(|d| d.epoch));
        for decision in scene.input.decisions.iter().filter(|d| d.epoch != 0 && !sound(d)) {
            let other = self.sound.contains(&decision.epoch);
            let used = actuated.is_some_and(|a| a.epoch == decision.epoch && a.outcome == Outcome::Model);
            self.check(5, !used || other, || at("nonsense was acted on"));
        }
        let Some(command) = scene.approved else { return };
        let number = match (command.verb, command.values.first()) {
            (0, Some(Value::Number(celsius))) => Some((*celsius, 15.0, scene.numbers.hi, 0.1)),
            (1, Some(Value::Integer(percent))) => Some((*percent as f64, 0.0, 100.0, 1.0)),
            _ => None,
        };
        if let Some((value, lo, hi, scale)) = number {
            let decoded = (value / scale).round() * scale;
            let inside = |x: f64| x.is_finite() && x >= lo - 1e-9 && x <= hi + 1e-9;
            self.check(3, inside(value) && inside(decoded), || at(&format!("{value} outside {lo} to {hi}")));
            if self.new_policy {
                self.check(31, inside(value), || at("the old policy's limit"));
            }
        }
        if let (1, Some((value, ..))) = (command.verb, number) {
            let now = scene.seen.status.time_us;
            if let Some((last, last_us)) = self.fan {
                let reach = scene.numbers.rate_per_s * (now - last_us) as f64 / 1e6;
                self.check(4, (value - last).abs() <= reach + 1e-6, || {
                    at(&format!("{last} to {value}, reach {reach}"))
                });
            }
            self.fan = Some((value, now));
        }
    }

    fn time(&mut self, scene: &Scene<'_>) {
        let at = |what: &str| format!("cycle {}: {what}", scene.cycle);
        let (now, seen) = (scene.seen.status.time_us, &scene.seen);
        self.check(11, now >= scene.before.time_us, || at("time ran backwards"));
        if scene.time < scene.before.time_us {
            self.check(11, now == scene.before.time_us, || at("a step back was followed"));
        }
        self.check(12, seen.heartbeat == scene.input.sole_writer, || at("heartbeat"));
        let by_model = seen.actuated.filter(|a| a.outcome == Outcome::Model);
        if let Some(actuated) = by_model {
            let asked = self.asked.get(&actuated.epoch).copied();
            let in_time = asked.is_some_and(|due_us| now <= due_us + 2 * scene.numbers.period_us);
            self.check(9, in_time, || at(&format!("epoch {} was due at {asked:?}", actuated.epoch)));
            // Whose command the output follows already is not asked again: an older event's is superseded.
            let youngest = self.followed.insert(actuated.command.verb, actuated.epoch);
            let newer = youngest.is_none_or(|youngest| youngest < actuated.epoch);
            self.check(9, newer, || at(&format!("epoch {} after {youngest:?}", actuated.epoch)));
            let first = self.actuated_epochs.insert(actuated.epoch);
            self.check(24, first, || at("an answer acted on twice"));
        }
        // A reading that cannot be believed: not a number, not good, too old, or the same to the last bit for too long.
        let sample = scene.input.tags.first().copied().unwrap_or(TagSample::MISSING);
        let bits = sample.value.to_bits();
        // A pause of readable samples starts the time anew.
        let paused = sample.time_us.saturating_sub(self.read_us) > scene.numbers.stale_us;
        let same = self.frozen.filter(|(last, _)| *last == bits && !paused);
        let same_from = same.map_or(sample.time_us, |(_, from)| from);
        self.frozen = Some((bits, same_from));
        let readable = sample.quality == Quality::Good
            && sample.value.is_finite()
            && now.saturating_sub(sample.time_us) <= scene.numbers.stale_us;
        if readable {
            self.read_us = self.read_us.max(sample.time_us);
        }
        let frozen = sample.time_us.saturating_sub(same_from) > scene.numbers.frozen_us + 200_000;
        let unusable = scene.input.tags.iter().any(|tag| {
            !tag.value.is_finite()
                || tag.quality != Quality::Good
                || now.saturating_sub(tag.time_us) > scene.numbers.stale_us.max(1_000_000)
        }) || now.saturating_sub(sample.time_us) > scene.numbers.stale_us
            || (frozen && sample.quality == Quality::Good && sample.value.is_finite());
        if unusable {
            self.check(10, by_model.is_none(), || {
                at(&format!("decided on {:?} at {now}, frozen since {same_from}", scene.input.tags))
            });
        }
        // Only now: an answer taken in this cycle was to a question of an earlier one.
        if let Some(event) = seen.event {
            self.asked.insert(event.epoch, event.deadline_us);
        }
    }

    fn brain_and_breaker(&mut self, scene: &Scene<'_>) {
        let at = |what: &str| format!("cycle {}: {what}", scene.cycle);
        let (before, after) = (&scene.before, scene.seen.status);
        let by_model = scene.seen.actuated.is_some_and(|a| a.outcome == Outcome::Model);
        if scene.input.brain == BrainProcess::Restarting {
            let fallback = !by_model && (after.mode != Mode::Execute || after.rule_in_control);
            self.check(13, fallback, || at("the brain is gone"));
        }
        if before.breaker != BreakerState::Closed && after.breaker != BreakerState::Closed {
            self.check(16, !by_model, || at("the model wrote beside an open breaker"));
        }
        if before.breaker == BreakerState::HalfOpen
            && after.breaker == BreakerState::HalfOpen
            && let Some(event) = scene.seen.event
        {
            self.check(17, event.dry_run, || at("a probe that would be acted on"));
        }
        let failed = after.counters.deadline_misses + after.counters.malformed_answers
            - before.counters.deadline_misses
            - before.counters.malformed_answers;
        let lost = after.counters.brain_losses > before.counters.brain_losses;
        if before.breaker == BreakerState::HalfOpen && failed > 0 {
            self.check(17, after.breaker == BreakerState::Open, || at("a failed probe"));
        }
        // Consecutive failures: a good answer or any opening starts the count anew. An answer that had to wait for another
        // command until its deadline was over is no failure of the brain.
        let records = || scene.seen.records.iter();
        let waited =
            records().filter(|r| r.reason.as_str().contains("waited for another command")).count() as u64;
        let failed = failed - waited.min(failed);
        let good =
            records().any(|r| r.outcome == Some(Outcome::Model) && !r.reason.as_str().contains("malformed"));
        if before.breaker == BreakerState::Closed {
            self.failures = if good { 0 } else { self.failures + failed };
            // Of both in one cycle it is not known from outside which came last.
            self.unsure = (self.unsure && !good) || (good && failed > 0);
            let opens = after.breaker == BreakerState::Open;
            let (count, most) = (self.failures, scene.numbers.failures);
            if lost {
                self.check(15, opens, || at("a lost brain opens it"));
            } else if !self.unsure && !self.new_policy && failed > 0 {
                self.check(15, opens == (count >= most), || at(&format!("{count} failures of {most}")));
            }
            if opens {
                (self.failures, self.unsure) = (0, false);
            }
        } else {
            (self.failures, self.unsure) = (0, false);
        }
        if after.breaker == BreakerState::Open && (before.breaker != BreakerState::Open || lost) {
            self.opened_us = after.time_us;
        }
        if before.breaker == BreakerState::Open && after.breaker != BreakerState::Open {
            let rested = after.time_us - self.opened_us >= scene.numbers.open_us;
            self.check(18, rested && after.breaker == BreakerState::HalfOpen, || at("left too early"));
        }
    }

    fn modes(&mut self, scene: &Scene<'_>) {
        use Mode::{Aborted, Aborting, Clearing, Execute, Stopped, Stopping};
        let at = |what: &str| format!("cycle {}: {what}", scene.cycle);
        let (before, after) = (scene.before.mode, scene.seen.status.mode);
        self.check(19, may_follow(before, after), || at(&format!("{before:?} to {after:?}")));
        let operator = scene.input.operator;
        if operator == Some(OperatorCommand::Stop) {
            let stopping = matches!(after, Stopping | Stopped | Aborting | Aborted | Clearing);
            self.check(20, stopping, || at(&format!("Stop in {before:?} leads to {after:?}")));
        }
        let pressed = scene.input.estop || operator == Some(OperatorCommand::Abort);
        if pressed {
            self.latched = true;
            self.check(21, matches!(after, Aborting | Aborted), || at(&format!("pressed, and {after:?}")));
        } else if self.latched {
            let cleared = operator == Some(OperatorCommand::Clear) && matches!(before, Aborting | Aborted);
            if cleared && !matches!(after, Aborting | Aborted) {
                self.latched = false;
            } else {
                self.check(21, matches!(after, Aborting | Aborted), || {
                    at(&format!("latched, and {after:?}"))
                });
            }
        }
        let takes_away =
            matches!(operator, Some(OperatorCommand::Stop | OperatorCommand::Hold | OperatorCommand::Abort));
        if takes_away {
            let by_model = scene.seen.actuated.is_some_and(|a| a.outcome != Outcome::Safe);
            self.check(22, !by_model, || at("the model wrote in the cycle of an operator's command"));
        }
        if after != Execute {
            let wrote = scene.seen.actuated.is_some_and(|a| a.outcome != Outcome::Safe);
            self.check(22, !wrote, || at("written outside Execute"));
        }
    }

    fn outputs(&mut self, scene: &Scene<'_>) {
        let at = |what: &str| format!("cycle {}: {what}", scene.cycle);
        let actuated = scene.seen.actuated;
        let link = scene.input.link;
        if !link.connected || link.watchdog != DeviceWatchdog::Armed {
            self.check(25, actuated.is_none(), || at("written over a lost link"));
        }
        if !scene.input.sole_writer {
            self.check(26, actuated.is_none() && !scene.seen.heartbeat, || at("written without the lease"));
        }
        let written = scene.seen.records.iter().filter(|record| record.actuated).count();
        self.check(28, written == usize::from(actuated.is_some()), || {
            at(&format!("{written} records of an actuation"))
        });
        if let Some((replica, original)) = &scene.replayed {
            self.check(28, replica == original, || at("the replica came out differently"));
        }
        if let Some(actuated) = actuated.filter(|a| a.outcome != Outcome::Safe) {
            let (now, numbers) = (scene.seen.status.time_us, scene.numbers);
            self.sent.push_back(now);
            let mut count = 0;
            let mut holds = true;
            for at_us in self.sent.iter().rev() {
                count += 1;
                let allowed = numbers.burst * 60_000_000 + (now - at_us) * numbers.per_minute;
                holds &= count * 60_000_000 <= allowed;
            }
            self.check(27, holds, || at(&format!("{count} commands, the last one {:?}", actuated.outcome)));
        }
    }
}

/// The table of ISA-TR88.00.02 as `docs/safety.md` has it, and what can follow within one cycle: an event and the
/// completion of what it began.
fn may_follow(before: Mode, after: Mode) -> bool {
    use Mode::*;
    let next = |mode: Mode| -> &'static [Mode] {
        match mode {
            Stopped => &[Resetting, Aborting],
            Resetting => &[Idle, Stopping, Aborting],
            Idle => &[Starting, Stopping, Aborting],
            Starting => &[Execute, Stopping, Aborting],
            Execute => &[Holding, Suspending, Completing, Stopping, Aborting],
            Holding => &[Held, Stopping, Aborting],
            Held => &[Unholding, Stopping, Aborting],
            Unholding => &[Execute, Stopping, Aborting],
            Suspending => &[Suspended, Stopping, Aborting],
            Suspended => &[Unsuspending, Stopping, Aborting],
            Unsuspending => &[Execute, Stopping, Aborting],
            Completing => &[Complete, Stopping, Aborting],
            Complete => &[Resetting, Stopping, Aborting],
            Stopping => &[Stopped, Aborting],
            Aborting => &[Aborted],
            Aborted => &[Clearing],
            Clearing => &[Stopped, Aborting],
        }
    };
    // Work that is done, and an event, in one cycle.
    let mut reach = vec![before];
    for _ in 0..2 {
        let further: Vec<Mode> = reach.iter().flat_map(|mode| next(*mode)).copied().collect();
        reach.extend(further);
    }
    reach.contains(&after)
}
