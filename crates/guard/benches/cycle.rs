//! The guard's cycle at 1 kHz beside whatever else the machine does: how late it wakes, how long it works, and that it leaves
//! the heap alone. cyclictest (Debian's rt-tests) runs at the same time, as a measure of the machine itself.
//!
//! ```text
//! cargo bench -p ganglion-guard --bench cycle -- --seconds 60 --beside "ganglion bench decide $PWD/examples/hvac -n 1000000 --no-memo"
//! ```
//!
//! The cycle is the real loop on the real clock, with real-time priority where the system gives it. Before each cycle the same
//! thread counts, without touching memory, for about as long as a cycle takes: what disturbs that is the machine. What the cycle works on is
//! busy: tags that change, an event and an answer every few cycles, conditions over time, a ramp, a PI loop.

#[path = "../../kernels/tests/common/counting.rs"]
mod counting;
use counting::operations_here;
use ganglion_guard::*;
use ganglion_site::{
    BrainMessage, Command, Decision, Event, Micros, Outcome, Reason, Sentence, Site, TagValues, Timings,
};
use std::path::Path;
use std::process::{Child, Command as Process, ExitCode, Stdio};
use std::time::Instant;

/// About three microseconds' worth.
const YARDSTICK_STEPS: u64 = 1500;

const SITE: &str = r#"
name = "bench"
[model]
path = "none.gguf"
[guard]
period_ms = 1
deadline_ms = 20
brain_timeout_ms = 100
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
frozen_ms = 5000
read = { input = 0, scale = 0.1 }
[[tag]]
name = "price"
range = [0, 200]
read = { input = 1, scale = 0.1 }
[[command]]
name = "set_temperature"
about = "target"
arguments = [{ name = "celsius", number = [5, 60], step = 0.5, unit = "C" }]
writes = [{ holding = 0, value = "celsius", scale = 0.1 }]
[[command]]
name = "set_fan"
about = "fan"
arguments = [{ name = "room", choices = ["kitchen", "office"] }, { name = "percent", integer = [0, 100], unit = "%" }]
writes = [{ holding = 20, select = "room", value = "percent" }]
[[command]]
name = "all_off"
about = "off"
writes = [{ holding = 10, constant = 0 }]
[[limit]]
on = "set_temperature.celsius"
hi = 26
when = "price > 20 for 1 s"
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
when = "price > 60 within 2 s"
do = { action = "set_fan", room = "office", percent = 20 }
ramp = { argument = "percent", per_s = 5 }
[[rule]]
do = { action = "set_fan", room = "kitchen", percent = 30 }
pi = { argument = "percent", tag = "temperature", setpoint = 22, kp = -4, ti_s = 10, every_ms = 50 }
"#;

/// Counts of 1 µs; the last one is for all beyond.
struct Histogram {
    counts: Box<[u64]>,
    total: u64,
    max_ns: u64,
}

impl Histogram {
    fn new() -> Self {
        Self { counts: vec![0; 100_000].into(), total: 0, max_ns: 0 }
    }

    fn add(&mut self, ns: u64) {
        let last = self.counts.len() - 1;
        let bucket = usize::try_from(ns / 1000).unwrap_or(last).min(last);
        self.counts[bucket] += 1;
        self.total += 1;
        self.max_ns = self.max_ns.max(ns);
    }

    /// Upper end of the bucket that holds the share.
    fn percentile(&self, share: f64) -> f64 {
        let wanted = (self.total as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (bucket, count) in (1u32..).zip(&self.counts) {
            seen += count;
            if seen >= wanted {
                return f64::from(bucket);
            }
        }
        self.max_ns as f64 / 1000.0
    }

    fn row(&self, name: &str) -> String {
        let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|share| self.percentile(share));
        format!("| {name} | {p50:.0} | {p99:.0} | {p999:.0} | {:.1} |", self.max_ns as f64 / 1000.0)
    }

    fn json(&self, name: &str) -> String {
        let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|share| self.percentile(share));
        let max = self.max_ns as f64 / 1000.0;
        format!(
            "\"{name}\": {{\"p50_us\": {p50}, \"p99_us\": {p99}, \"p999_us\": {p999}, \"max_us\": {max:.1}}}"
        )
    }
}

/// The real port for clock and sleep, and a plant, a brain and an operator in its place for the rest.
struct Busy {
    port: Channels,
    answer: Command,
    cycle: u64,
    epoch: Option<u64>,
    begun: Instant,
    work: Histogram,
    wake: Histogram,
    yardstick: Histogram,
    heap: u64,
    actuated: u64,
    signed: u64,
}

impl Port for Busy {
    fn now(&mut self) -> Micros {
        self.port.now()
    }

    fn sleep_until(&mut self, at: Micros, _: bool) -> bool {
        self.port.sleep_until(at, false);
        self.wake.add(monotonic_us().saturating_sub(at) * 1000);
        let begun = Instant::now();
        std::hint::black_box(
            (0..YARDSTICK_STEPS).fold(at, |sum, step| std::hint::black_box(sum.wrapping_mul(31) ^ step)),
        );
        self.yardstick.add(u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX));
        false
    }

    fn tags(&mut self, out: &mut [TagSample]) {
        self.cycle += 1;
        let now = self.port.now();
        let wave = (self.cycle % 2000) as f64;
        for (sample, value) in out.iter_mut().zip([15.0 + wave / 100.0, wave / 25.0]) {
            *sample = TagSample::good(value, now);
        }
    }

    fn link(&mut self) -> Link {
        Link { connected: true, watchdog: DeviceWatchdog::Armed, heartbeat_ack_us: self.port.now() }
    }

    fn sole_writer(&mut self, _: Micros) -> bool {
        true
    }

    fn estop(&mut self) -> bool {
        false
    }

    fn event(&mut self) -> Option<Request> {
        self.cycle.is_multiple_of(5).then(|| Request {
            id: self.cycle,
            source: Source::Sensor,
            client: 0,
            sentence: Sentence::cut("set the temperature to what is right"),
            tags: TagValues::NONE,
            deadline_ms: None,
            dry_run: false,
            stream: false,
            command: None,
            others: 0,
        })
    }

    fn operator(&mut self) -> Option<OperatorCommand> {
        match self.cycle {
            1 => Some(OperatorCommand::Reset),
            5 => Some(OperatorCommand::Start),
            _ => None,
        }
    }

    /// Gone for a second now and then, so that the rules have their turn.
    fn brain(&mut self) -> BrainProcess {
        let generation = u32::try_from(self.cycle / 8000).unwrap_or(0) + 1;
        if self.cycle % 8000 > 7000 { BrainProcess::Restarting } else { BrainProcess::Running { generation } }
    }

    fn message(&mut self) -> Option<BrainMessage> {
        let command = Some(self.answer);
        let confidence = 0.9;
        let decided = self.epoch.take().map(|epoch| Decision {
            epoch,
            command,
            outcome: Outcome::Model,
            confidence,
            timings: Timings::default(),
            reason: Reason::EMPTY,
        });
        // A sign of life once in its cycle, not for every look.
        let due =
            self.cycle.is_multiple_of(20) && std::mem::replace(&mut self.signed, self.cycle) != self.cycle;
        decided.or_else(|| due.then_some(Decision::SIGN_OF_LIFE)).map(BrainMessage::Decision)
    }

    fn ask(&mut self, event: &Event) {
        self.epoch = Some(event.epoch);
    }

    fn replace_brain(&mut self, _: u32) {}

    fn actuate(&mut self, _: Actuation) {
        self.actuated += 1;
    }

    fn heartbeat(&mut self) {}

    fn record(&mut self, _: &Record) {}

    fn field(&mut self, _: &Field) {}

    fn show(&mut self, _: &Status) {}

    fn begins(&mut self, _: &Guard, _: Micros, _: &Input<'_>) {
        self.heap = self.heap.wrapping_sub(operations_here());
        self.begun = Instant::now();
    }

    fn ends(&mut self, _: &Seen<'_>) {
        self.work.add(u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX));
        self.heap = self.heap.wrapping_add(operations_here());
    }

    fn stopping(&mut self) -> bool {
        false
    }
}

/// cyclictest at the same rate, just below the guard's priority; `None` without it.
fn cyclictest(seconds: u64) -> Option<Child> {
    let duration = format!("{seconds}s");
    let arguments = ["-q", "-m", "-p", "59", "-i", "1000", "-h", "20000", "-D", &duration];
    Process::new("cyclictest").args(arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()
}

/// Its histogram, `<µs> <count>` a line.
fn histogram_of(text: &str) -> Histogram {
    let mut histogram = Histogram::new();
    for line in text.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_digit())) {
        let mut words = line.split_whitespace().filter_map(|word| word.parse::<u64>().ok());
        if let (Some(us), Some(count)) = (words.next(), words.next())
            && count > 0
            && let Some(place) = histogram.counts.get_mut(usize::try_from(us).unwrap_or(usize::MAX))
        {
            *place += count;
            histogram.total += count;
            histogram.max_ns = histogram.max_ns.max(us * 1000);
        }
    }
    let max = text.lines().find_map(|line| line.strip_prefix("# Max Latencies:"));
    if let Some(us) = max.and_then(|max| max.trim().parse::<u64>().ok()) {
        histogram.max_ns = us * 1000;
    }
    histogram
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let value = |name: &str| arguments.iter().position(|a| a == name).and_then(|at| arguments.get(at + 1));
    let seconds: u64 = value("--seconds").and_then(|seconds| seconds.parse().ok()).unwrap_or(60);
    let load = value("--beside").map(|command| {
        let shell = Process::new("sh").args(["-c", &format!("exec {command}")]).stdout(Stdio::null()).spawn();
        shell.unwrap_or_else(|error| panic!("--beside: {error}"))
    });
    let site = Site::parse(SITE, Path::new("bench.toml")).unwrap_or_else(|error| panic!("{error}"));
    let answer = Command::from_json(&site, r#"{"action":"set_temperature","celsius":21.5}"#);
    let mut busy = Busy {
        port: Channels::new(&site, None, None).0,
        answer: answer.unwrap_or_else(|error| panic!("{error}")),
        cycle: 0,
        epoch: None,
        begun: Instant::now(),
        work: Histogram::new(),
        wake: Histogram::new(),
        yardstick: Histogram::new(),
        heap: 0,
        actuated: 0,
        signed: 0,
    };
    let guard = Guard::new(&site).unwrap_or_else(|error| panic!("{error}"));
    let test = cyclictest(seconds);
    let granted = go_real_time();
    let mut runner = Runner::new(guard, 1);
    runner.run(&mut busy, Some(seconds * 1000));
    let machine = test.and_then(|child| child.wait_with_output().ok());
    let machine = machine.map(|output| histogram_of(&String::from_utf8_lossy(&output.stdout)));
    if let Some(mut load) = load {
        // Fails only when it has ended by itself.
        let _ = load.kill();
        let _ = load.wait();
    }
    granted.advice().iter().for_each(|advice| println!("{advice}"));
    let stats = runner.stats();
    println!(
        "{} cycles, {} overruns, {} commands, {} heap operations\n",
        stats.cycles, stats.overruns, busy.actuated, busy.heap
    );
    println!("| µs | p50 | p99 | p99.9 | max |\n|---|---|---|---|---|");
    println!("{}\n{}", busy.wake.row("guard's wake-up"), busy.work.row("guard's cycle"));
    println!("{}", busy.yardstick.row("as long without memory"));
    match &machine {
        Some(machine) => println!("{}", machine.row("cyclictest")),
        None => println!("cyclictest is not installed (Debian: rt-tests)"),
    }
    if let Some(file) = value("--json") {
        let machine =
            machine.map_or_else(|| "\"cyclictest\": null".into(), |machine| machine.json("cyclictest"));
        let text = format!(
            "{{\"seconds\": {seconds}, \"cycles\": {}, \"overruns\": {}, \"heap\": {}, \"fifo\": {}, {}, {}, {}, {machine}}}\n",
            stats.cycles,
            stats.overruns,
            busy.heap,
            granted.fifo.is_ok(),
            busy.wake.json("wake"),
            busy.work.json("cycle"),
            busy.yardstick.json("yardstick")
        );
        if let Err(error) = std::fs::write(file, text) {
            eprintln!("{file}: {error}");
            return ExitCode::FAILURE;
        }
    }
    if busy.heap == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
