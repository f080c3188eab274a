//! A guard's state as bytes, and a guard made of such bytes that can only be watched.
//!
//! A recording holds the inputs of every cycle and, from time to time, the whole state. A [`Replica`] takes up such a state
//! and repeats the cycles. It is no way around a start in Stopped: what it would send is shown as a bare command, and no
//! [`Approved`](crate::Approved) leaves it.

use crate::brain::BrainWatch;
use crate::breaker::Breaker;
use crate::bucket::Bucket;
use crate::condition::Moment;
use crate::envelope::Sent;
use crate::error::GuardError;
use crate::guard::Guard;
use crate::limits::{HISTORY_BYTES_MAX, PENDING_BYTES_MAX, STATE_BYTES_MIN};
use crate::mode::Mode;
use crate::outputs::Outputs;
use crate::pending::Pending;
use crate::policy::{Notice, Policy};
use crate::rules::ActiveRule;
use crate::sense::{Readings, Sense};
use crate::status::{BrainAction, Counters, Field, Input, Link, Output, Severity, Status};
use crate::triggers::TriggerState;
use ganglion_audit::Record;
use ganglion_site::{Command, Epoch, Event, Micros, Outcome, Sentence, Site};
use serde::{Deserialize, Serialize};

/// A command on its way to the plant, without the proof that it may go there.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Actuated {
    /// What was approved.
    pub command: Command,
    /// Where it came from.
    pub outcome: Outcome,
    /// The event it answers; 0 = none.
    pub epoch: Epoch,
    /// The asker's number; 0 = nobody asked.
    pub request: u64,
    /// Time of the cycle that approved it.
    pub time_us: Micros,
}

/// What one cycle wanted done, to look at.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'g> {
    /// Sent to the brain.
    pub event: Option<&'g Event>,
    /// Given to the driver.
    pub actuated: Option<Actuated>,
    /// Keep the brain or replace it.
    pub brain: BrainAction,
    /// Whether the plant's heartbeat was counted up.
    pub heartbeat: bool,
    /// Parts of answers, handed on.
    pub fields: &'g [Field],
    /// Logged.
    pub records: &'g [Record],
    /// The state after the cycle.
    pub status: &'g Status,
}

impl<'g> Output<'g> {
    /// The output without what makes it one.
    pub fn seen(&self) -> Seen<'g> {
        let actuated = self.actuation.map(|a| Actuated {
            command: *a.approved.get(),
            outcome: a.outcome,
            epoch: a.epoch,
            request: a.request,
            time_us: a.time_us,
        });
        let Self { event, brain, heartbeat, fields, records, status, .. } = *self;
        Seen { event, actuated, brain, heartbeat, fields, records, status }
    }
}

/// What stands for a sentence that is not to be kept. All that the guard itself asks of one is whether it is there and
/// whether it is a question, and that stays.
pub fn stand_in(sentence: &Sentence) -> Sentence {
    match (sentence.as_str(), crate::guard::is_question(sentence)) {
        ("", _) => Sentence::EMPTY,
        (_, true) => Sentence::cut("(text?)"),
        (_, false) => Sentence::cut("(text)"),
    }
}

/// Fields of the guard that change, once as references to be written and once as values that were read.
macro_rules! state {
    ($($field:ident: $kind:ty,)*) => {
        #[derive(Serialize)]
        struct Saved<'g> {
            $($field: &'g $kind,)*
            pending: PendingPlaces<'g>,
            moments: &'g [Moment],
            sent: SentBefore<'g>,
        }

        #[derive(Deserialize)]
        struct Loaded {
            $($field: $kind,)*
            pending: Vec<Option<Pending>>,
            moments: Vec<Moment>,
            sent: Vec<Option<Sent>>,
        }

        impl Guard {
            fn saved(&self, keep_text: bool) -> Saved<'_> {
                Saved {
                    $($field: &self.$field,)*
                    pending: PendingPlaces(self, keep_text),
                    moments: self.conditions.moments(),
                    sent: SentBefore(self),
                }
            }

            fn take_up(&mut self, loaded: Loaded) -> bool {
                $(self.$field = loaded.$field;)*
                self.pending.set_places(loaded.pending)
                    && self.conditions.set_moments(&loaded.moments)
                    && self.envelope.set_history(&loaded.sent)
                    && self.triggers.len() == self.site.triggers.len()
            }
        }
    };
}

state! {
    dry_run: bool,
    now: Micros,
    mode: Mode,
    breaker: Breaker,
    brain: BrainWatch,
    bucket: Bucket,
    sense: Sense,
    readings: Readings,
    link: Link,
    sole_writer: bool,
    link_was_up: bool,
    could_write: bool,
    latch: Severity,
    held_by_link: bool,
    safe_owed: bool,
    safe_latched: bool,
    epoch: Epoch,
    last_rule: Option<Command>,
    active: ActiveRule,
    outputs: Outputs,
    triggers: Vec<TriggerState>,
    noted: Option<Notice>,
    counters: Counters,
    status: Status,
}

/// Events that the brain is thinking about, and whether their sentences are written.
struct PendingPlaces<'g>(&'g Guard, bool);

impl Serialize for PendingPlaces<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.pending.places(self.1))
    }
}

/// What was last sent, by slot.
struct SentBefore<'g>(&'g Guard);

impl Serialize for SentBefore<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.envelope.history())
    }
}

impl Guard {
    /// Room that [`Guard::save`] needs at most.
    pub fn state_bytes_max(&self) -> usize {
        let histories =
            self.envelope.history().len() + self.conditions.moments().len() + self.outputs.count();
        let pending = self.pending.places(true).len();
        STATE_BYTES_MIN + histories * HISTORY_BYTES_MAX + pending * PENDING_BYTES_MAX
    }

    /// Writes the state between two cycles; how many bytes it took, or `None` when there is no room. No heap. Without
    /// `keep_text` a pending event's sentence is written as its [`stand_in`].
    pub fn save(&self, out: &mut [u8], keep_text: bool) -> Option<usize> {
        postcard::to_slice(&self.saved(keep_text), out).ok().map(|used| used.len())
    }
}

/// A guard that repeats what another one did. It actuates nothing.
#[derive(Debug, Clone)]
pub struct Replica(Guard);

impl Replica {
    /// Takes up a state that [`Guard::save`] wrote, of a guard of the same site.
    ///
    /// # Errors
    /// Those of [`Guard::new`], and [`GuardError::State`] for bytes that are no state of this site's guard.
    pub fn restore(site: &Site, state: &[u8]) -> Result<Self, GuardError> {
        let mut guard = Guard::new(site)?;
        let loaded: Loaded =
            postcard::from_bytes(state).map_err(|error| GuardError::State { what: error.to_string() })?;
        if !guard.take_up(loaded) {
            return Err(GuardError::State {
                what: "it has another number of histories than the site".into(),
            });
        }
        Ok(Self(guard))
    }

    /// One cycle, as [`Guard::cycle`].
    pub fn cycle(&mut self, now: Micros, input: &Input<'_>) -> Seen<'_> {
        self.0.cycle(now, input).seen()
    }

    /// As [`Guard::adopt`].
    pub fn adopt(&mut self, policy: &mut Policy) {
        self.0.adopt(policy);
    }

    /// As [`Guard::note`].
    pub fn note(&mut self, notice: Notice) {
        self.0.note(notice);
    }

    /// The site whose policy holds.
    pub fn site(&self) -> &Site {
        &self.0.site
    }

    /// As [`Guard::save`].
    pub fn save(&self, out: &mut [u8], keep_text: bool) -> Option<usize> {
        self.0.save(out, keep_text)
    }

    /// As [`Guard::state_bytes_max`].
    pub fn state_bytes_max(&self) -> usize {
        self.0.state_bytes_max()
    }

    /// The state after the last cycle.
    pub fn status(&self) -> &Status {
        self.0.status()
    }
}
