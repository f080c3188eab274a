//! The fixed-period loop around [`Guard::cycle`]: what is read before, and what is done after.
//!
//! Cycles start on a grid of absolute times. A cycle that runs over makes the loop skip to the next grid point (counted as
//! overruns, never made up in a burst). Between grid points there are three reasons for an extra cycle: the brain has said
//! something, the last look before a deadline is due, or a command waits because the cycle before gave another. The first few of a period begin at once, the others a pause apart:
//! a chatty brain cannot take the loop over, and an answer late in a long period is not left lying until its deadline.

use crate::guard::Guard;
use crate::limits::{
    DECISIONS_PER_CYCLE_MAX, EARLY_WAKE_PAUSE_US, EARLY_WAKES_PER_PERIOD_MAX, JITTER_BUCKETS,
    MESSAGES_PER_CYCLE_MAX, PENDING_MAX,
};
use crate::policy::{News, Policy};
use crate::replica::Seen;
use crate::status::{
    Actuation, BrainAction, BrainProcess, Field, Input, Link, OperatorCommand, Request, Status,
};
use crate::tags::TagSample;
use ganglion_audit::Record;
use ganglion_site::limits::TAGS_MAX;
use ganglion_site::{BrainMessage, Decision, Event, Micros, Progress};

/// The guard's hands: clock, plant, brain, log. Nothing here may wait except [`Port::sleep_until`].
pub trait Port {
    /// Monotonic time.
    fn now(&mut self) -> Micros;
    /// Sleeps until `at`; with `or_answer`, less when the brain has sent something: then `true`.
    fn sleep_until(&mut self, at: Micros, or_answer: bool) -> bool;
    /// The latest samples, by tag index.
    fn tags(&mut self, out: &mut [TagSample]);
    /// The plant's connection.
    fn link(&mut self) -> Link;
    /// Whether this process is the plant's only writer.
    fn sole_writer(&mut self, now: Micros) -> bool;
    /// Level of the emergency-stop input.
    fn estop(&mut self) -> bool;
    /// The next event; called only when the guard can take one.
    fn event(&mut self) -> Option<Request>;
    /// The next operator command.
    fn operator(&mut self) -> Option<OperatorCommand>;
    /// The brain's process.
    fn brain(&mut self) -> BrainProcess;
    /// The place of the model's variant that this process runs.
    fn variant(&mut self) -> u8 {
        0
    }
    /// The next message of the brain; what is no message is counted and skipped.
    fn message(&mut self) -> Option<BrainMessage>;
    /// Sends an event to the brain.
    fn ask(&mut self, event: &Event);
    /// Has the brain of this generation killed and another started.
    fn replace_brain(&mut self, generation: u32);
    /// Hands a command to the driver.
    fn actuate(&mut self, actuation: Actuation);
    /// A guarded cycle was completed.
    fn heartbeat(&mut self);
    /// Queues a record for the log.
    fn record(&mut self, record: &Record);
    /// Hands on a field of an answer that is still being decided.
    fn field(&mut self, field: &Field);
    /// Shows the state after a cycle.
    fn show(&mut self, status: &Status);
    /// The cycle that begins and what it is given, for a recording.
    fn begins(&mut self, _guard: &Guard, _now: Micros, _input: &Input<'_>) {}
    /// What came out of it.
    fn ends(&mut self, _seen: &Seen<'_>) {}
    /// What comes before the next cycle: another policy, or something to be logged.
    fn news(&mut self) -> Option<News> {
        None
    }
    /// Takes the policy that was exchanged, to be freed elsewhere.
    fn retire(&mut self, _old: Box<Policy>) {}
    /// Ends the loop after this cycle.
    fn stopping(&mut self) -> bool;
}

/// How punctual the loop was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoopStats {
    /// Cycles on the grid.
    pub cycles: u64,
    /// Extra cycles between grid points.
    pub extra_cycles: u64,
    /// Grid points skipped because a cycle ran over.
    pub overruns: u64,
    /// Wake-up delays: bucket `i` counts those below 2^i µs, the last one all others.
    pub jitter: [u64; JITTER_BUCKETS],
    /// Largest wake-up delay.
    pub jitter_us_max: Micros,
}

impl LoopStats {
    fn woke(&mut self, late_us: Micros) {
        let bits = (Micros::BITS - late_us.leading_zeros()) as usize;
        if let Some(bucket) = self.jitter.get_mut(bits.min(JITTER_BUCKETS - 1)) {
            *bucket += 1;
        }
        self.jitter_us_max = self.jitter_us_max.max(late_us);
    }
}

/// A guard and its loop. Everything is allocated by [`Runner::new`].
#[derive(Debug)]
pub struct Runner {
    guard: Guard,
    period_us: Micros,
    samples: [TagSample; TAGS_MAX],
    decisions: Vec<Decision>,
    progress: Vec<Progress>,
    stats: LoopStats,
}

impl Runner {
    /// A loop of `period_ms` (at least 1).
    pub fn new(guard: Guard, period_ms: u32) -> Self {
        let stats = LoopStats {
            cycles: 0,
            extra_cycles: 0,
            overruns: 0,
            jitter: [0; JITTER_BUCKETS],
            jitter_us_max: 0,
        };
        Self {
            guard,
            period_us: Micros::from(period_ms.max(1)) * 1000,
            samples: [TagSample::MISSING; TAGS_MAX],
            decisions: Vec::with_capacity(DECISIONS_PER_CYCLE_MAX),
            progress: Vec::with_capacity(DECISIONS_PER_CYCLE_MAX),
            stats,
        }
    }

    /// The guard.
    pub fn guard(&self) -> &Guard {
        &self.guard
    }

    /// How punctual the loop has been.
    pub fn stats(&self) -> &LoopStats {
        &self.stats
    }

    /// Runs until the port says stop or `cycles` grid cycles are done.
    pub fn run<P: Port>(&mut self, port: &mut P, cycles: Option<u64>) {
        let mut grid = port.now();
        let mut done = 0;
        loop {
            let now = port.now();
            self.stats.woke(now.saturating_sub(grid));
            self.step(now, port);
            self.stats.cycles += 1;
            done += 1;
            if cycles.is_some_and(|c| done >= c) || port.stopping() {
                return;
            }
            let skipped = port.now().saturating_sub(grid) / self.period_us;
            self.stats.overruns += skipped;
            grid += (skipped + 1) * self.period_us;
            self.wait(grid, port);
        }
    }

    /// Sleeps to the next grid point, with the extra cycles that are due before it.
    fn wait<P: Port>(&mut self, grid: Micros, port: &mut P) {
        // Ends at the grid point: beyond the free wakes every pass takes the pause or a question's whole span.
        for extra in 0u32.. {
            let wake = self.guard.next_wake_us();
            // What waits for its turn takes at once, as often as a full table can ask for it.
            let backlog = if self.guard.has_backlog() { PENDING_MAX as u32 } else { 0 };
            let mut target = wake.map_or(grid, |w| w.min(grid)).max(port.now());
            if wake.is_some() && extra >= EARLY_WAKES_PER_PERIOD_MAX + backlog {
                let rested = (port.now() + EARLY_WAKE_PAUSE_US).min(grid.max(target));
                port.sleep_until(if backlog > 0 { rested } else { rested.min(target) }, false);
                target = target.max(port.now());
            }
            let answered = port.sleep_until(target, wake.is_some());
            if !answered && target == grid {
                return;
            }
            let now = port.now();
            if now >= grid {
                return;
            }
            self.stats.extra_cycles += 1;
            self.step(now, port);
        }
    }

    /// Read, cycle, act.
    fn step<P: Port>(&mut self, now: Micros, port: &mut P) {
        let Self { guard, samples, decisions, progress, .. } = self;
        match port.news() {
            Some(News::Adopt(mut policy)) => {
                guard.adopt(&mut policy);
                port.retire(policy);
            }
            Some(News::Note(notice)) => guard.note(notice),
            None => {}
        }
        port.tags(samples);
        decisions.clear();
        progress.clear();
        let brain = port.brain();
        for _ in 0..MESSAGES_PER_CYCLE_MAX {
            if decisions.len() == DECISIONS_PER_CYCLE_MAX || progress.len() == DECISIONS_PER_CYCLE_MAX {
                break;
            }
            match port.message() {
                // One says as much as all that came since the last cycle.
                Some(BrainMessage::Decision(sign))
                    if sign.epoch == 0 && decisions.iter().any(|decision| decision.epoch == 0) => {}
                Some(BrainMessage::Decision(decision)) => decisions.push(decision),
                Some(BrainMessage::Progress(part)) => progress.push(part),
                None => break,
            }
        }
        let event = if guard.can_take_event() { port.event() } else { None };
        let input = Input {
            tags: samples,
            link: port.link(),
            // A dry run writes nothing, and must not keep the plant from the guard that does.
            sole_writer: guard.is_dry_run() || port.sole_writer(now),
            event: event.as_ref(),
            decisions,
            progress,
            brain,
            operator: port.operator(),
            estop: port.estop(),
        };
        port.begins(guard, now, &input);
        let output = guard.cycle(now, &input);
        if let Some(actuation) = output.actuation {
            port.actuate(actuation);
        }
        if let Some(event) = output.event {
            port.ask(event);
        }
        if let BrainAction::KillAndRestart { generation } = output.brain {
            port.replace_brain(generation);
        }
        // Before the records: a part of an answer is there when the answer is.
        for field in output.fields {
            port.field(field);
        }
        for record in output.records {
            port.record(record);
        }
        port.ends(&output.seen());
        port.show(output.status);
        if output.heartbeat {
            port.heartbeat();
        }
    }
}
