//! A port that is listened to.

use crate::tape::Tape;
use ganglion_guard::{
    Actuation, BrainProcess, Field, Guard, Input, Link, News, OperatorCommand, Policy, Port, Record, Request,
    Seen, Status, TagSample,
};
use ganglion_site::{BrainMessage, Event, Micros};

/// Passes everything on to the port inside and writes down what the cycle is given and what comes out of it.
#[derive(Debug)]
pub struct Recorded<P> {
    port: P,
    tape: Option<Tape>,
}

impl<P> Recorded<P> {
    /// Without a tape nothing is written down.
    pub fn new(port: P, tape: Option<Tape>) -> Self {
        Self { port, tape }
    }
}

impl<P: Port> Port for Recorded<P> {
    fn now(&mut self) -> Micros {
        self.port.now()
    }

    fn sleep_until(&mut self, at: Micros, or_answer: bool) -> bool {
        self.port.sleep_until(at, or_answer)
    }

    fn tags(&mut self, out: &mut [TagSample]) {
        self.port.tags(out);
    }

    fn link(&mut self) -> Link {
        self.port.link()
    }

    fn sole_writer(&mut self, now: Micros) -> bool {
        self.port.sole_writer(now)
    }

    fn estop(&mut self) -> bool {
        self.port.estop()
    }

    fn event(&mut self) -> Option<Request> {
        self.port.event()
    }

    fn operator(&mut self) -> Option<OperatorCommand> {
        self.port.operator()
    }

    fn brain(&mut self) -> BrainProcess {
        self.port.brain()
    }

    fn variant(&mut self) -> u8 {
        self.port.variant()
    }

    fn message(&mut self) -> Option<BrainMessage> {
        self.port.message()
    }

    fn ask(&mut self, event: &Event) {
        self.port.ask(event);
    }

    fn replace_brain(&mut self, generation: u32) {
        self.port.replace_brain(generation);
    }

    fn actuate(&mut self, actuation: Actuation) {
        self.port.actuate(actuation);
    }

    fn heartbeat(&mut self) {
        self.port.heartbeat();
    }

    fn record(&mut self, record: &Record) {
        self.port.record(record);
    }

    fn field(&mut self, field: &Field) {
        self.port.field(field);
    }

    fn show(&mut self, status: &Status) {
        self.port.show(status);
    }

    fn news(&mut self) -> Option<News> {
        let news = self.port.news();
        if let (Some(tape), Some(news)) = (&mut self.tape, &news) {
            match news {
                News::Adopt(policy) => tape.adopted(policy.fingerprint()),
                News::Note(notice) => tape.noted(notice),
            }
        }
        news
    }

    fn retire(&mut self, old: Box<Policy>) {
        self.port.retire(old);
    }

    fn begins(&mut self, guard: &Guard, now: Micros, input: &Input<'_>) {
        self.port.begins(guard, now, input);
        if let Some(tape) = &mut self.tape {
            tape.varied(self.port.variant());
            tape.begins(guard, now, input);
        }
    }

    fn ends(&mut self, seen: &Seen<'_>) {
        if let Some(tape) = &mut self.tape {
            tape.ends(seen);
        }
        self.port.ends(seen);
    }

    fn stopping(&mut self) -> bool {
        self.port.stopping()
    }
}
