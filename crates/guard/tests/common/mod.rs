//! A small site and a bench around the guard with an injected clock.
#![allow(dead_code, reason = "each test binary uses its part")]

use ganglion_guard::*;
use ganglion_site::{
    Command, Decision, Event, Micros, Outcome, Progress, Reason, Sentence, Site, TagValues, Timings,
};
use std::path::Path;

pub const SITE: &str = r#"
name = "test"
[model]
path = "none.gguf"
context_tokens = 256
[guard]
period_ms = 10
deadline_ms = 20
brain_timeout_ms = 50
breaker = { failures = 3, open_ms = 100, probes = 2 }
safe = { action = "all_off" }
[plant]
modbus = "127.0.0.1:1502"
heartbeat = 100
watchdog = 101
watchdog_ms = 500
watchdog_state = 100
[prompt]
tags = ["temperature", "price"]
[[tag]]
name = "temperature"
unit = "C"
range = [-20, 100]
stale_ms = 200
read = { input = 0, scale = 0.1 }
[[tag]]
name = "price"
range = [0, 200]
stale_ms = 300
read = { input = 1, scale = 0.1 }
[[command]]
name = "set_temperature"
about = "target"
arguments = [{ name = "celsius", number = [5, 60], step = 0.5, unit = "C" }]
writes = [{ holding = 0, value = "celsius", scale = 0.1 }]
[[command]]
name = "set_fan"
about = "fan"
arguments = [
  { name = "room", choices = ["kitchen", "office"] },
  { name = "percent", integer = [0, 100], unit = "%" },
]
writes = [{ holding = 20, select = "room", value = "percent" }]
[[command]]
name = "all_off"
about = "off"
writes = [{ holding = 10, constant = 0 }]
[[limit]]
on = "set_temperature.celsius"
lo = 15
hi = 26
[[limit]]
on = "set_fan.percent"
rate_per_s = 40
do = "clamp"
[[limit]]
on = "temperature"
lo = 5
hi = 40
hihi = 50
[[rule]]
when = "price > 60"
do = { action = "set_fan", room = "office", percent = 20 }
[[rule]]
when = "temperature < 10"
do = { action = "set_temperature", celsius = 20 }
"#;

pub fn site() -> Site {
    parse(SITE)
}

pub fn parse(text: &str) -> Site {
    Site::parse(text, Path::new("test.toml")).unwrap_or_else(|e| panic!("{e}"))
}

pub fn command(site: &Site, json: &str) -> Command {
    Command::from_json(site, json).unwrap()
}

pub fn decision(epoch: u64, command: Option<Command>) -> Decision {
    Decision {
        epoch,
        command,
        outcome: Outcome::Model,
        confidence: 0.9,
        timings: Timings::default(),
        reason: Reason::EMPTY,
    }
}

pub fn request(id: u64, text: &str) -> Request {
    Request {
        id,
        source: Source::Operator,
        client: 0,
        sentence: Sentence::cut(text),
        tags: TagValues::NONE,
        deadline_ms: None,
        dry_run: false,
        stream: false,
        command: None,
        // Knows of everything.
        others: u64::MAX,
    }
}

/// What one cycle gave, owned.
#[derive(Debug, Clone)]
pub struct Got {
    pub event: Option<Event>,
    pub actuation: Option<Actuation>,
    pub brain: BrainAction,
    pub records: Vec<Record>,
    pub fields: Vec<Field>,
    pub status: Status,
}

impl Got {
    pub fn decisions(&self) -> Vec<&Record> {
        self.records.iter().filter(|r| r.kind == RecordKind::Decision).collect()
    }
}

/// A guard, a plant in order and a clock in ms.
pub struct Bench {
    pub site: Site,
    pub guard: Guard,
    pub ms: u64,
    pub values: Vec<f64>,
    pub link: bool,
    pub watchdog: DeviceWatchdog,
    pub brain: BrainProcess,
    pub estop: bool,
    pub sole_writer: bool,
    pub frozen_tags: Option<u64>,
    /// Tags that were never read; bit = tag index.
    pub never_read: u64,
    /// The plant's last acknowledged heartbeat, in ms; the cycle's own time by default.
    pub acknowledged: Option<u64>,
    /// Parts of answers for the next cycle.
    pub progress: Vec<Progress>,
}

impl Bench {
    pub fn new() -> Self {
        Self::of(site(), &[20.0, 30.0])
    }

    /// A guard of any site, with these readings to begin with.
    pub fn of(site: Site, values: &[f64]) -> Self {
        let guard = Guard::new(&site).unwrap();
        Self {
            site,
            guard,
            ms: 1000,
            values: values.to_vec(),
            link: true,
            watchdog: DeviceWatchdog::Armed,
            brain: BrainProcess::Running { generation: 1 },
            estop: false,
            sole_writer: true,
            frozen_tags: None,
            never_read: 0,
            acknowledged: None,
            progress: Vec::new(),
        }
    }

    /// In Execute with a brain that has reported for duty.
    pub fn running() -> Self {
        Self::new().started()
    }

    /// This one, in Execute with a brain that has reported for duty.
    pub fn started(mut self) -> Self {
        let bench = &mut self;
        bench.go(None, &[], Some(OperatorCommand::Reset));
        bench.go(None, &[decision(0, None)], Some(OperatorCommand::Start));
        let got = bench.go(None, &[], None);
        assert_eq!(got.status.mode, Mode::Execute, "{}", got.status.reason.as_str());
        assert_eq!(got.status.brain, BrainState::Ready);
        self
    }

    pub fn now(&self) -> Micros {
        self.ms * 1000
    }

    /// One cycle 10 ms after the last.
    pub fn go(
        &mut self,
        event: Option<Request>,
        decisions: &[Decision],
        operator: Option<OperatorCommand>,
    ) -> Got {
        self.ms += 10;
        let read_us = self.frozen_tags.unwrap_or(self.ms) * 1000;
        let sample = |(index, value): (usize, &f64)| match self.never_read >> index & 1 {
            0 => TagSample::good(*value, read_us),
            _ => TagSample::MISSING,
        };
        let tags: Vec<_> = self.values.iter().enumerate().map(sample).collect();
        let link = Link {
            connected: self.link,
            watchdog: self.watchdog,
            heartbeat_ack_us: if self.link { self.acknowledged.unwrap_or(self.ms) * 1000 } else { 0 },
        };
        let progress = std::mem::take(&mut self.progress);
        let input = Input {
            tags: &tags,
            link,
            sole_writer: self.sole_writer,
            event: event.as_ref(),
            decisions,
            progress: &progress,
            brain: self.brain,
            operator,
            estop: self.estop,
        };
        let out = self.guard.cycle(self.ms * 1000, &input);
        Got {
            event: out.event.copied(),
            actuation: out.actuation,
            brain: out.brain,
            records: out.records.to_vec(),
            fields: out.fields.to_vec(),
            status: *out.status,
        }
    }

    /// A cycle in which a healthy brain only says that it lives.
    pub fn idle(&mut self) -> Got {
        self.go(None, &[decision(0, None)], None)
    }

    /// An event, and in the next cycle the brain's answer to it.
    pub fn ask(&mut self, json: &str) -> Got {
        let epoch = self.go(Some(request(1, "do it")), &[], None).event.expect("asked").epoch;
        let answer = command(&self.site, json);
        self.go(None, &[decision(epoch, Some(answer))], None)
    }

    pub fn json(&self, got: &Got) -> Option<String> {
        got.actuation.map(|a| a.approved.get().to_json(&self.site))
    }
}
