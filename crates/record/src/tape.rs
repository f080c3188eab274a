//! The cycle's side: frames into a ring. Nothing here waits, allocates or locks.

use crate::frame::{Adopt, Before, Kind, fold, write_begin, write_end};
use crate::limits::{CYCLE_BYTES_MAX, STATE_EVERY_US};
use crate::writer::Shared;
use ganglion_guard::{BrainState, BreakerState, Fingerprint, Guard, Input, Notice, Seen, Severity, Status};
use ganglion_site::Micros;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What makes the flight recorder write down what it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fault {
    /// The emergency stop was pressed, or an operator aborted.
    EmergencyStop,
    /// A trip limit was passed.
    Trip,
    /// The breaker opened.
    Breaker,
    /// The brain was lost.
    Brain,
}

impl Fault {
    /// The word used in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::EmergencyStop => "emergency stop",
            Self::Trip => "trip",
            Self::Breaker => "breaker opened",
            Self::Brain => "brain lost",
        }
    }

    /// The gravest that `now` has and `before` had not.
    fn between(before: &Watched, now: &Watched) -> Option<Self> {
        let risen = |to: Severity| now.severity >= to && before.severity < to;
        if risen(Severity::EmergencyStop) {
            Some(Self::EmergencyStop)
        } else if risen(Severity::Trip) {
            Some(Self::Trip)
        } else if now.brain == BrainState::Lost
            && matches!(before.brain, BrainState::Starting | BrainState::Ready)
        {
            // One that was never there is not lost: the first cycles of a run come before its first brain.
            Some(Self::Brain)
        } else if now.breaker == BreakerState::Open && before.breaker != BreakerState::Open {
            Some(Self::Breaker)
        } else {
            None
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Watched {
    severity: Severity,
    brain: BrainState,
    breaker: BreakerState,
}

impl Watched {
    fn of(status: &Status) -> Self {
        Self { severity: status.severity, brain: status.brain, breaker: status.breaker }
    }
}

/// Where the guard's thread puts what goes into and comes out of its cycles.
#[derive(Debug)]
pub struct Tape {
    ring: rtrb::Producer<u8>,
    shared: Arc<Shared>,
    encoded: Box<[u8]>,
    folded: Box<[u8]>,
    before: Before,
    keep_text: bool,
    policy: Fingerprint,
    /// The variant of the model that is asked.
    level: u8,
    state_due_us: Micros,
    /// Nothing is written until a state is: frames were lost, or none was written yet.
    broken: bool,
    lost_cycles: u64,
    watched: Watched,
}

impl Tape {
    pub(crate) fn new(
        guard: &Guard,
        ring: rtrb::Producer<u8>,
        shared: Arc<Shared>,
        keep_text: bool,
        policy: Fingerprint,
    ) -> Self {
        let room = CYCLE_BYTES_MAX.max(guard.state_bytes_max());
        Self {
            ring,
            shared,
            encoded: vec![0; room].into(),
            folded: vec![0; room + room / 2].into(),
            before: Before::NOTHING,
            keep_text,
            policy,
            level: 0,
            state_due_us: 0,
            broken: true,
            lost_cycles: 0,
            watched: Watched::of(guard.status()),
        }
    }

    /// A cycle begins. A state is written first when one is due.
    pub fn begins(&mut self, guard: &Guard, now: Micros, input: &Input<'_>) {
        if self.broken || now >= self.state_due_us {
            self.write_state(guard, now);
        }
        if self.broken {
            self.lost_cycles += 1;
            self.shared.lost_cycles.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let Self { encoded, folded, ring, before, .. } = self;
        let written = write_begin(before, now, input, self.keep_text, encoded)
            .is_some_and(|body| push(ring, folded, Kind::Begin, &[body]));
        self.keep(written);
    }

    /// A cycle ended.
    pub fn ends(&mut self, seen: &Seen<'_>) {
        let watched = Watched::of(seen.status);
        let fault = Fault::between(&self.watched, &watched);
        self.watched = watched;
        if self.broken {
            return;
        }
        let Self { encoded, folded, ring, .. } = self;
        let written = write_end(seen, self.keep_text, encoded)
            .is_some_and(|body| push(ring, folded, Kind::End, &[body]));
        self.keep(written);
        if let Some(fault) = fault {
            self.write(Kind::Fault, &fault);
        }
    }

    /// Another policy takes over before the next cycle.
    pub fn adopted(&mut self, policy: Fingerprint) {
        let before = std::mem::replace(&mut self.policy, policy);
        self.write(Kind::Adopt, &Adopt { before, after: policy });
    }

    /// A notice is given to the next cycle.
    pub fn noted(&mut self, notice: &Notice) {
        self.write(Kind::Note, notice);
    }

    /// Which variant of the model answers what is asked from the next cycle on.
    pub fn varied(&mut self, level: u8) {
        if std::mem::replace(&mut self.level, level) != level {
            self.write(Kind::Variant, &level);
        }
    }

    #[cfg(test)]
    pub(crate) fn room(&self) -> usize {
        self.ring.slots()
    }

    fn write(&mut self, kind: Kind, what: &impl Serialize) {
        let Self { encoded, folded, ring, broken, .. } = self;
        let written =
            !*broken && postcard::to_slice(what, encoded).is_ok_and(|body| push(ring, folded, kind, &[body]));
        self.keep(written);
    }

    fn keep(&mut self, written: bool) {
        self.broken |= !written;
    }

    fn write_state(&mut self, guard: &Guard, now: Micros) {
        let Self { encoded, folded, ring, .. } = self;
        if self.broken && self.lost_cycles > 0 {
            let gap = postcard::to_slice(&self.lost_cycles, encoded);
            if !gap.is_ok_and(|body| push(ring, folded, Kind::Gap, &[body])) {
                return;
            }
            self.lost_cycles = 0;
        }
        let written = guard
            .save(encoded, self.keep_text)
            .and_then(|size| encoded.get(..size))
            .is_some_and(|state| push(ring, folded, Kind::State, &[&self.policy, &[self.level], state]));
        self.broken = !written;
        self.before = Before::NOTHING;
        self.state_due_us = now.saturating_add(STATE_EVERY_US);
    }
}

/// Size, kind and folded body into the ring, all or nothing.
fn push(ring: &mut rtrb::Producer<u8>, folded: &mut [u8], kind: Kind, parts: &[&[u8]]) -> bool {
    let mut size = 0;
    for part in parts {
        let Some(room) = folded.get_mut(size..) else { return false };
        let Some(used) = fold(part, room) else { return false };
        size += used;
    }
    let body = folded.get(..size).unwrap_or(&[]);
    let Ok(total) = u32::try_from(size + 1) else { return false };
    let Ok(mut chunk) = ring.write_chunk(size + 5) else { return false };
    let (first, second) = chunk.as_mut_slices();
    let bytes = total.to_le_bytes().into_iter().chain([kind as u8]).chain(body.iter().copied());
    for (to, from) in first.iter_mut().chain(second).zip(bytes) {
        *to = from;
    }
    chunk.commit_all();
    true
}
