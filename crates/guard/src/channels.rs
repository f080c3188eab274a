//! The real port: rings, atomics and the brain's socket between the guard's thread and everybody else.

use crate::lease::Lease;
use crate::limits::*;
use crate::operator::{OperatorCommands, OperatorQueue, operator_queue};
use crate::policy::{News, Notice, Policy};
use crate::rt;
use crate::runner::Port;
use crate::status::{Actuation, BrainProcess, DeviceWatchdog, Field, Link, OperatorCommand, Request, Status};
use crate::supervisor::BrainChannel;
use crate::tags::{TagSample, TagTable};
use crate::text::reason;
use ganglion_audit::{Record, RecordKind, Sink, Source};
use ganglion_site::{BrainMessage, Event, Micros, Reason, Site, Timings};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

/// What both sides read and write without a queue.
///
/// Each field stands for itself, so no order between fields is promised except for [`Signals::set_link`]: the heartbeat's
/// time is published before the state that makes it count (`Release`, read with `Acquire`).
#[derive(Debug)]
pub struct Signals {
    /// Latest value per tag.
    pub tags: TagTable,
    estop: AtomicBool,
    stop: AtomicBool,
    link: AtomicU8,
    heartbeat_ack_us: AtomicU64,
    heartbeats: AtomicU64,
    records_lost: AtomicU64,
    deadline_misses: AtomicU64,
}

impl Signals {
    /// Publishes the plant's connection.
    pub fn set_link(&self, link: Link) {
        let watchdog = match link.watchdog {
            DeviceWatchdog::Off => 0,
            DeviceWatchdog::Armed => 1,
            DeviceWatchdog::Tripped => 2,
        };
        self.heartbeat_ack_us.store(link.heartbeat_ack_us, Ordering::Relaxed);
        self.link.store(u8::from(link.connected) << 2 | watchdog, Ordering::Release);
    }

    /// The plant's connection as last published.
    pub fn link(&self) -> Link {
        let bits = self.link.load(Ordering::Acquire);
        let watchdog = match bits & 3 {
            1 => DeviceWatchdog::Armed,
            2 => DeviceWatchdog::Tripped,
            _ => DeviceWatchdog::Off,
        };
        let heartbeat_ack_us = self.heartbeat_ack_us.load(Ordering::Relaxed);
        Link { connected: bits & 4 != 0, watchdog, heartbeat_ack_us }
    }

    /// Level of the emergency-stop input.
    pub fn set_estop(&self, pressed: bool) {
        self.estop.store(pressed, Ordering::Release);
    }

    /// Completed guarded cycles; the driver counts the plant's heartbeat up when this has moved, and only then.
    pub fn heartbeats(&self) -> u64 {
        self.heartbeats.load(Ordering::Acquire)
    }

    /// Records that a live reader was too slow for (they are in the log all the same).
    pub fn records_lost(&self) -> u64 {
        self.records_lost.load(Ordering::Relaxed)
    }

    /// Events without an answer at their deadline.
    pub fn deadline_misses(&self) -> u64 {
        self.deadline_misses.load(Ordering::Relaxed)
    }

    /// Ends the guard's loop after its current cycle.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }
}

/// Everybody else's ends.
#[derive(Debug)]
pub struct Outside {
    /// Values, link, emergency stop, heartbeats; share it.
    pub signals: Arc<Signals>,
    /// Events in.
    pub requests: rtrb::Producer<Request>,
    /// Operator commands in.
    pub operator: OperatorQueue,
    /// Approved commands out; the driver empties it.
    pub actuations: rtrb::Consumer<Actuation>,
    /// A copy of every record, for live display and for answering requests by their number.
    pub records: rtrb::Consumer<Record>,
    /// Fields of answers that are still being decided, for those who asked for them.
    pub fields: rtrb::Consumer<Field>,
    /// The status whenever it changed in more than time.
    pub statuses: rtrb::Consumer<Status>,
    /// Policies and notices in.
    pub news: rtrb::Producer<News>,
    /// Policies that were exchanged, to be freed; empty it.
    pub retired: rtrb::Consumer<Box<Policy>>,
    /// What a mission does, for the log: one sentence per cycle is taken.
    pub notes: rtrb::Producer<Reason>,
}

/// The guard's end: the [`Port`] of `ganglion run`.
#[derive(Debug)]
pub struct Channels {
    signals: Arc<Signals>,
    requests: rtrb::Consumer<Request>,
    operator: OperatorCommands,
    actuations: rtrb::Producer<Actuation>,
    records: rtrb::Producer<Record>,
    statuses: rtrb::Producer<Status>,
    news: rtrb::Consumer<News>,
    retired: rtrb::Producer<Box<Policy>>,
    fields: rtrb::Producer<Field>,
    notes: rtrb::Consumer<Reason>,
    shown: Option<Status>,
    actuation_stuck: bool,
    brain: Option<BrainChannel>,
    audit: Option<Sink>,
    lease: Option<Lease>,
    /// What is logged when a variant of the model takes over.
    variants: Box<[Reason]>,
}

impl Channels {
    /// Allocates both ends. Without `brain` the rule controller decides everything; without `audit` nothing is logged.
    pub fn new(site: &Site, brain: Option<BrainChannel>, audit: Option<Sink>) -> (Self, Outside) {
        let signals = Arc::new(Signals {
            tags: TagTable::new(site.tags.len()),
            estop: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            link: AtomicU8::new(0),
            heartbeat_ack_us: AtomicU64::new(0),
            heartbeats: AtomicU64::new(0),
            records_lost: AtomicU64::new(0),
            deadline_misses: AtomicU64::new(0),
        });
        let (requests_in, requests) = rtrb::RingBuffer::new(REQUEST_QUEUE_MAX);
        let (operator_in, operator) = operator_queue();
        let (actuations, actuations_out) = rtrb::RingBuffer::new(ACTUATION_QUEUE_MAX);
        let (records, records_out) = rtrb::RingBuffer::new(STATUS_QUEUE_MAX * 4);
        let (fields, fields_out) = rtrb::RingBuffer::new(FIELD_QUEUE_MAX);
        let (statuses, statuses_out) = rtrb::RingBuffer::new(STATUS_QUEUE_MAX);
        let (news_in, news) = rtrb::RingBuffer::new(NEWS_QUEUE_MAX);
        let (retired, retired_out) = rtrb::RingBuffer::new(NEWS_QUEUE_MAX);
        let (notes_in, notes) = rtrb::RingBuffer::new(STATUS_QUEUE_MAX);
        let outside = Outside {
            signals: Arc::clone(&signals),
            requests: requests_in,
            operator: operator_in,
            actuations: actuations_out,
            records: records_out,
            fields: fields_out,
            statuses: statuses_out,
            news: news_in,
            retired: retired_out,
            notes: notes_in,
        };
        let shown = None;
        let actuation_stuck = false;
        let inside = Self {
            signals,
            requests,
            operator,
            actuations,
            records,
            statuses,
            news,
            retired,
            fields,
            notes,
            shown,
            actuation_stuck,
            brain,
            audit,
            lease: site.plant.as_ref().map(Lease::new),
            variants: (0..=site.model.variants.len())
                .map(|level| {
                    reason!("the model's variant {} answers from now on", site.model.variant_name(level))
                })
                .collect(),
        };
        (inside, outside)
    }
}

impl Port for Channels {
    fn now(&mut self) -> Micros {
        rt::monotonic_us()
    }

    fn sleep_until(&mut self, at: Micros, or_answer: bool) -> bool {
        if let Some(socket) = self.brain.as_ref().and_then(BrainChannel::socket).filter(|_| or_answer) {
            return rt::sleep_until_readable(at, socket);
        }
        rt::sleep_until(at);
        false
    }

    fn tags(&mut self, out: &mut [TagSample]) {
        self.signals.tags.read_all(out);
    }

    /// A driver that does not take commands is a lost link, whatever its socket says.
    fn link(&mut self) -> Link {
        if self.actuation_stuck && self.actuations.slots() == ACTUATION_QUEUE_MAX {
            self.actuation_stuck = false;
        }
        if self.actuation_stuck { Link::DOWN } else { self.signals.link() }
    }

    fn sole_writer(&mut self, now: Micros) -> bool {
        self.lease.as_mut().is_none_or(|lease| lease.held(now))
    }

    fn estop(&mut self) -> bool {
        self.signals.estop.load(Ordering::Acquire)
    }

    fn event(&mut self) -> Option<Request> {
        self.requests.pop().ok()
    }

    fn operator(&mut self) -> Option<OperatorCommand> {
        self.operator.next()
    }

    fn brain(&mut self) -> BrainProcess {
        self.brain.as_mut().map_or(BrainProcess::Absent, BrainChannel::process)
    }

    fn variant(&mut self) -> u8 {
        self.brain.as_ref().map_or(0, BrainChannel::level)
    }

    fn message(&mut self) -> Option<BrainMessage> {
        self.brain.as_mut()?.receive()
    }

    fn ask(&mut self, event: &Event) {
        if let Some(brain) = &mut self.brain {
            brain.send(event);
        }
    }

    fn replace_brain(&mut self, generation: u32) {
        if let Some(brain) = &self.brain {
            brain.kill(generation);
        }
    }

    fn actuate(&mut self, actuation: Actuation) {
        self.actuation_stuck |= self.actuations.push(actuation).is_err();
    }

    fn heartbeat(&mut self) {
        self.signals.heartbeats.fetch_add(1, Ordering::Release);
    }

    fn record(&mut self, record: &Record) {
        if let Some(audit) = &mut self.audit {
            // A full queue is counted by the sink and leaves a gap record.
            audit.push(record);
        }
        if self.records.push(*record).is_err() {
            self.signals.records_lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn field(&mut self, field: &Field) {
        // A reader that is too slow for parts still gets the whole answer.
        let _ = self.fields.push(*field);
    }

    fn show(&mut self, status: &Status) {
        self.signals.deadline_misses.store(status.counters.deadline_misses, Ordering::Relaxed);
        if let Ok(note) = self.notes.pop() {
            self.record(&note_of(status, note));
        }
        let counters = |s: &Status| crate::Counters { cycles: 0, ..s.counters };
        let still = |s: &Status| Status { time_us: 0, counters: counters(s), link: Link::DOWN, ..*s };
        let changed = self.shown.as_ref().is_none_or(|old| still(old) != still(status));
        if changed && self.statuses.push(*status).is_ok() {
            self.shown = Some(*status);
        }
    }

    fn news(&mut self) -> Option<News> {
        // Not more than can be handed back: freeing is none of this thread's work. Before a switch, which what is said here may
        // have announced.
        if !self.retired.is_full()
            && let Ok(news) = self.news.pop()
        {
            return Some(news);
        }
        if let Some(level) = self.brain.as_mut().and_then(BrainChannel::switch) {
            let name = self.variants.get(usize::from(level)).copied().unwrap_or(Reason::EMPTY);
            return Some(News::Note(Notice { kind: RecordKind::Brain, reason: name }));
        }
        None
    }

    fn retire(&mut self, old: Box<Policy>) {
        if let Err(rtrb::PushError::Full(old)) = self.retired.push(old) {
            std::mem::forget(old);
        }
    }

    fn stopping(&mut self) -> bool {
        self.signals.stop.load(Ordering::Acquire)
    }
}

/// A mission's sentence as a record, with the time and the state of the cycle that took it up.
fn note_of(status: &Status, note: Reason) -> Record {
    Record {
        kind: RecordKind::Mission,
        time_us: status.time_us,
        mode: status.mode.as_str(),
        breaker: status.breaker.as_str(),
        source: Source::Mission,
        request: 0,
        event: Event::new(0, 0),
        outcome: None,
        command: None,
        clamped: None,
        verdict: None,
        reason: note,
        confidence: 0.0,
        latency_us: 0,
        timings: Timings::default(),
        actuated: false,
    }
}
