//! Timing this program's own decisions.

use super::machine::Machine;
use anyhow::Result;
use ganglion_decide::Decider;
use ganglion_site::{Command, Event, Micros, Outcome, Sentence};
use hdrhistogram::Histogram;
use std::time::{Duration, Instant};

/// Decisions before the first that counts.
pub const WARM_UP: u64 = 3;
/// At most so many times is the machine looked at between the decisions.
const SLICES_MAX: u64 = 20;
const SLICE_DECISIONS_MIN: u64 = 25;

/// What was seen of many decisions.
pub struct Totals {
    /// Event to command, all decisions.
    pub latency_ns: Histogram<u64>,
    /// Those answered from memory.
    pub repeat_ns: Histogram<u64>,
    pub commands: u64,
    pub cached: u64,
    pub completed: u64,
    pub declined: u64,
    /// Later than their deadline, where they had one.
    pub late: u64,
    pub prompt_tokens: u64,
    pub tokens: u64,
    pub forced: u64,
    pub passes: u64,
    pub drafted: u64,
    pub drafts_accepted: u64,
}

/// A histogram of ns from one to ten minutes, three digits.
pub fn nanoseconds() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 600_000_000_000, 3)?)
}

/// Milliseconds of a histogram of ns.
pub fn ms(values: &Histogram<u64>, quantile: f64) -> f64 {
    if values.is_empty() { 0.0 } else { values.value_at_quantile(quantile) as f64 / 1e6 }
}

/// Events in turn, each with the deadline that the user asks for.
pub struct Events {
    sentences: Vec<Sentence>,
    deadline: Option<Duration>,
    epoch: u64,
}

impl Events {
    /// `sentences` is not empty.
    pub fn new(sentences: Vec<Sentence>, deadline: Option<Duration>) -> Self {
        Self { sentences, deadline, epoch: 0 }
    }

    pub fn count(&self) -> usize {
        self.sentences.len()
    }

    /// The next event; its time begins now.
    pub fn next(&mut self) -> Event {
        let index = usize::try_from(self.epoch).unwrap_or(0) % self.sentences.len().max(1);
        self.epoch += 1;
        let deadline_us = self.deadline.map_or(Micros::MAX, |deadline| {
            ganglion_guard::monotonic_us() + u64::try_from(deadline.as_micros()).unwrap_or(u64::MAX)
        });
        let mut event = Event::new(self.epoch, deadline_us);
        event.sentence = self.sentences.get(index).copied().unwrap_or(Sentence::EMPTY);
        event
    }
}

impl Totals {
    pub fn new() -> Result<Self> {
        Ok(Self {
            latency_ns: nanoseconds()?,
            repeat_ns: nanoseconds()?,
            commands: 0,
            cached: 0,
            completed: 0,
            declined: 0,
            late: 0,
            prompt_tokens: 0,
            tokens: 0,
            forced: 0,
            passes: 0,
            drafted: 0,
            drafts_accepted: 0,
        })
    }

    /// Decides one event and takes note.
    pub fn time(&mut self, decider: &mut Decider, event: &Event) -> Result<Option<Command>> {
        let start = Instant::now();
        let decision = decider.decide(event, &mut ganglion_guard::monotonic_us);
        let taken = start.elapsed();
        let taken_ns = u64::try_from(taken.as_nanos())?.max(1);
        self.late += u64::from(ganglion_guard::monotonic_us() > event.deadline_us);
        self.latency_ns.record(taken_ns)?;
        let t = decision.timings;
        match (decision.command, decision.outcome) {
            (None, _) => self.declined += 1,
            (Some(_), Outcome::Cache) => {
                self.commands += 1;
                self.cached += 1;
                self.repeat_ns.record(taken_ns)?;
            }
            (Some(_), outcome) => {
                self.commands += 1;
                self.completed += u64::from(outcome == Outcome::Completion);
                self.prompt_tokens += u64::from(t.prompt_n);
                self.tokens += u64::from(t.predicted_n);
                self.forced += u64::from(t.forced_n);
                self.passes += u64::from(t.passes_n);
                self.drafted += u64::from(t.draft_n);
                self.drafts_accepted += u64::from(t.accepted_n);
            }
        }
        Ok(decision.command)
    }

    /// A figure of all commands, for one of those that the model made.
    pub fn per_command(&self, total: u64) -> f64 {
        total as f64 / (self.commands - self.cached).max(1) as f64
    }
}

/// `count` decisions, and the machine between them.
pub fn measure(
    decider: &mut Decider,
    events: &mut Events,
    count: u64,
    machine: &mut Machine,
) -> Result<Totals> {
    let mut warm_up = Totals::new()?;
    for _ in 0..WARM_UP {
        warm_up.time(decider, &events.next())?;
    }
    let mut totals = Totals::new()?;
    let slices = (count / SLICE_DECISIONS_MIN).clamp(1, SLICES_MAX);
    for slice in 0..slices {
        machine.look()?;
        for _ in 0..count * (slice + 1) / slices - count * slice / slices {
            totals.time(decider, &events.next())?;
        }
    }
    Ok(totals)
}
