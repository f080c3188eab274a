//! Where events come from and decisions go.

use ganglion_site::{Decision, Event, Micros, Progress};

/// The other side of [`Decider::run`](crate::Decider::run). None of its functions may wait.
pub trait Exchange {
    /// The clock that the events' deadlines are on. Asked before every layer.
    fn now(&mut self) -> Micros;

    /// Another event, if one is there. Asked between passes, as long as there is room for one.
    fn next(&mut self) -> Option<Event>;

    /// A field of a command is decided; only for events with [`Event::stream`]. `number` counts the events from 0 as
    /// [`Self::next`] gave them.
    fn decided(&mut self, number: usize, progress: Progress) {
        let _ = (number, progress);
    }

    /// The answer to an event; each gets one.
    fn answer(&mut self, number: usize, decision: Decision);
}

/// A list of events that are all there at once.
pub(crate) struct List<'a> {
    pub(crate) events: std::slice::Iter<'a, Event>,
    pub(crate) now: &'a mut dyn FnMut() -> Micros,
    pub(crate) answer: &'a mut dyn FnMut(usize, Decision),
}

impl Exchange for List<'_> {
    fn now(&mut self) -> Micros {
        (self.now)()
    }

    fn next(&mut self) -> Option<Event> {
        self.events.next().copied()
    }

    fn answer(&mut self, number: usize, decision: Decision) {
        (self.answer)(number, decision);
    }
}
