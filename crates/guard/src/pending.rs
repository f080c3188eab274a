//! Events that the brain is thinking about: a bounded table, found by epoch.
//!
//! Several are in flight at once, each with its own deadline. What has become of one is noted here as soon as it is known;
//! answers are then settled one command per cycle, the oldest event's first, so that none is lost because another took the
//! cycle's only command.

use crate::limits::PENDING_MAX;
use crate::replica::stand_in;
use crate::status::Request;
use ganglion_audit::Source;
use ganglion_site::{Decision, Epoch, Event, Micros, Reason};

/// An event that the brain is thinking about, or has thought about.
#[derive(Debug, Clone, Copy, serde::Serialize, serde::Deserialize)]
pub(crate) struct Pending {
    pub request: Request,
    pub event: Event,
    pub accepted_us: Micros,
    pub deadline_us: Micros,
    /// The last look for an answer.
    pub cutoff_us: Micros,
    /// A probe of a half-open breaker: evaluated, never actuated.
    pub shadow: bool,
    pub fate: Fate,
    /// The verb that the brain has said it decided.
    pub verb: Option<u16>,
    pub announcement: Announcement,
}

/// What has become of a pending event.
#[derive(Debug, Clone, Copy, serde::Serialize, serde::Deserialize)]
#[allow(clippy::large_enum_variant, reason = "fixed size, no heap")]
pub(crate) enum Fate {
    /// No answer yet.
    Waiting,
    /// An answer came in time.
    Answered(Decision),
    /// The brain's answer will not be used: the rule controller's is.
    GivenUp(Reason),
}

/// What has become of the command that is to go out ahead of a pending event's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) enum Announcement {
    /// Nothing to announce so far.
    None,
    /// To be judged as soon as a command may go out.
    Due(u16),
    /// It was judged and refused, or its time has passed.
    Over,
    /// It went out.
    Sent,
}

/// The table. One place more than [`PENDING_MAX`], for the shadow probe that a half-open breaker asks.
#[derive(Debug, Clone)]
pub(crate) struct PendingTable {
    places: Vec<Option<Pending>>,
}

impl PendingTable {
    /// Allocates all of it.
    pub fn new() -> Self {
        Self { places: vec![None; PENDING_MAX + 1] }
    }

    /// The table with stand-ins for what somebody wrote, unless that is to be kept.
    pub fn places(&self, keep_text: bool) -> impl ExactSizeIterator<Item = Option<Pending>> {
        self.places.iter().map(move |place| place.map(|p| if keep_text { p } else { p.without_text() }))
    }

    /// Takes over a table of as many places.
    pub fn set_places(&mut self, places: Vec<Option<Pending>>) -> bool {
        let fits = places.len() == self.places.len();
        if fits {
            self.places = places;
        }
        fits
    }

    /// Takes an event in; `false` when no place is free.
    pub fn insert(&mut self, pending: Pending) -> bool {
        match self.places.iter_mut().find(|place| place.is_none()) {
            Some(place) => {
                *place = Some(pending);
                true
            }
            None => false,
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Pending> {
        self.places.iter().flatten()
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Pending> {
        self.places.iter_mut().flatten()
    }

    pub fn find_mut(&mut self, epoch: Epoch) -> Option<&mut Pending> {
        self.iter_mut().find(|pending| pending.event.epoch == epoch)
    }

    pub fn remove(&mut self, epoch: Epoch) -> Option<Pending> {
        let found = |place: &&mut Option<Pending>| place.is_some_and(|p| p.event.epoch == epoch);
        self.places.iter_mut().find(found).and_then(Option::take)
    }

    /// Takes any one out.
    pub fn pop(&mut self) -> Option<Pending> {
        let oldest = self.iter().map(|pending| pending.event.epoch).min()?;
        self.remove(oldest)
    }

    /// Events of others than the breaker.
    pub fn count(&self) -> usize {
        self.iter().filter(|pending| !pending.shadow).count()
    }

    pub fn has_shadow(&self) -> bool {
        self.iter().any(|pending| pending.shadow)
    }

    /// Events of triggers, of all or of one.
    pub fn count_of_triggers(&self, trigger: Option<u16>) -> usize {
        let of = |pending: &&Pending| match pending.request.source {
            Source::Trigger(index) => trigger.is_none_or(|wanted| wanted == index),
            _ => false,
        };
        self.iter().filter(of).count()
    }

    /// The first deadline of those that have no answer yet, without this one.
    pub fn first_deadline_us(&self, without: Epoch) -> Option<Micros> {
        let waiting = self.iter().filter(|pending| pending.is_waiting() && pending.event.epoch != without);
        waiting.map(|pending| pending.deadline_us).min()
    }

    /// The oldest event younger than `after` whose fate is known.
    pub fn settled_after(&self, after: Epoch) -> Option<&Pending> {
        let settled = self.iter().filter(|pending| !pending.is_waiting() && pending.event.epoch > after);
        settled.min_by_key(|pending| pending.event.epoch)
    }
}

impl Pending {
    fn without_text(mut self) -> Self {
        self.request.sentence = stand_in(&self.request.sentence);
        self.event.sentence = stand_in(&self.event.sentence);
        self
    }

    pub fn is_waiting(&self) -> bool {
        matches!(self.fate, Fate::Waiting)
    }

    /// The command that is still to go out ahead of this event's own.
    pub fn owes_announcement(&self) -> Option<u16> {
        match self.announcement {
            Announcement::Due(verb) if self.is_waiting() => Some(verb),
            _ => None,
        }
    }
}
