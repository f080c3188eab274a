//! The loop with a fake clock, and the real channels with a real child process.

mod common;
use common::*;
use ganglion_guard::*;
use ganglion_site::{BrainMessage, Decision, Event, Micros, Progress};
use std::process::Command;
use std::time::{Duration, Instant};

/// Time stands still except in `sleep_until`, and where `busy_us` says that a cycle took long.
#[derive(Default)]
struct Fake {
    now: Micros,
    starts: Vec<Micros>,
    requests: Vec<Request>,
    operator: Vec<OperatorCommand>,
    answers: Vec<(Micros, Decision)>,
    answer_delay_us: Option<Micros>,
    actuated: Vec<(Micros, Actuation)>,
    busy_us: Vec<Micros>,
    /// How much later than asked each sleep ends.
    late_us: Vec<Micros>,
    /// Questions that get no answer.
    mute: u32,
    /// Latency of each shadow probe's answer.
    probes_us: Vec<Micros>,
    /// Parts of answers that wait, and how many answers and parts each cycle was given.
    parts: u64,
    given: Vec<(usize, usize)>,
    beats: u64,
}

impl Port for Fake {
    fn now(&mut self) -> Micros {
        self.now
    }
    fn sleep_until(&mut self, at: Micros, or_answer: bool) -> bool {
        assert!(at >= self.now, "never sleeps into the past");
        match self.answers.first() {
            Some((when, _)) if or_answer && *when < at => {
                self.now = self.now.max(*when);
                true
            }
            _ => {
                self.now = at + self.late_us.pop().unwrap_or(0);
                false
            }
        }
    }
    fn tags(&mut self, out: &mut [TagSample]) {
        self.starts.push(self.now);
        out[0] = TagSample::good(20.0, self.now);
        out[1] = TagSample::good(80.0, self.now);
        self.now += self.busy_us.pop().unwrap_or(0);
    }
    fn link(&mut self) -> Link {
        Link { connected: true, watchdog: DeviceWatchdog::Armed, heartbeat_ack_us: self.now }
    }
    fn sole_writer(&mut self, _: Micros) -> bool {
        true
    }
    fn estop(&mut self) -> bool {
        false
    }
    fn event(&mut self) -> Option<Request> {
        if self.starts.len() > 4 { self.requests.pop() } else { None }
    }
    fn operator(&mut self) -> Option<OperatorCommand> {
        self.operator.pop()
    }
    fn brain(&mut self) -> BrainProcess {
        BrainProcess::Running { generation: 1 }
    }
    fn message(&mut self) -> Option<BrainMessage> {
        if self.parts > 0 {
            self.parts -= 1;
            let (argument, value) = (None, ganglion_site::Value::Absent);
            return Some(BrainMessage::Progress(Progress { epoch: 0, verb: 0, argument, value }));
        }
        match self.answers.first() {
            Some((when, _)) if *when <= self.now => Some(BrainMessage::Decision(self.answers.remove(0).1)),
            _ => None,
        }
    }
    fn ask(&mut self, event: &Event) {
        if self.mute > 0 {
            self.mute -= 1;
        } else if let Some(delay) = self.answer_delay_us {
            let warm = command(&site(), r#"{"action":"set_temperature","celsius":21.5}"#);
            self.answers.push((self.now + delay, decision(event.epoch, Some(warm))));
        }
    }
    fn replace_brain(&mut self, _: u32) {}
    fn actuate(&mut self, actuation: Actuation) {
        self.actuated.push((self.now, actuation));
    }
    fn heartbeat(&mut self) {
        self.beats += 1;
    }
    fn record(&mut self, record: &Record) {
        if record.kind == RecordKind::Probe {
            self.probes_us.push(record.latency_us);
        }
    }
    fn field(&mut self, _: &Field) {}
    fn show(&mut self, _: &Status) {}
    fn begins(&mut self, _: &Guard, _: Micros, input: &Input<'_>) {
        self.given.push((input.decisions.len(), input.progress.len()));
    }
    fn stopping(&mut self) -> bool {
        false
    }
}

fn fake() -> Fake {
    Fake {
        now: 1_000_000,
        operator: vec![OperatorCommand::Start, OperatorCommand::Reset],
        answers: vec![(1_000_000, decision(0, None))],
        ..Fake::default()
    }
}

fn runner() -> Runner {
    let site = site();
    Runner::new(Guard::new(&site).unwrap(), site.guard.period_ms)
}

#[test]
fn an_answer_is_acted_on_when_it_comes_not_at_the_next_period() {
    let mut port = Fake { requests: vec![request(1, "x")], answer_delay_us: Some(3_000), ..fake() };
    runner().run(&mut port, Some(8));
    let model: Vec<_> =
        port.actuated.iter().filter(|(_, a)| a.outcome == ganglion_site::Outcome::Model).collect();
    assert_eq!(model.len(), 1, "{:?}", port.actuated);
    assert_eq!(model[0].0 % 10_000, 3_000, "three ms after the period in which it was asked");
    // Nor is the first one of a period kept waiting for a pause.
    let mut port = Fake { requests: vec![request(1, "x")], answer_delay_us: Some(300), ..fake() };
    let mut runner = runner();
    runner.run(&mut port, Some(8));
    assert_eq!(port.actuated[0].0 % 10_000, 300);
    assert_eq!((runner.stats().cycles, runner.stats().extra_cycles), (8, 1));
    let off_grid: Vec<Micros> = port.starts.iter().map(|at| at % 10_000).filter(|at| *at != 0).collect();
    assert_eq!((port.starts.len(), off_grid), (9, vec![300]), "the grid is kept");
}

#[test]
fn answers_that_come_together_are_settled_one_after_the_other_at_once() {
    // Four events, asked in as many periods, with time for all; their answers come in the same moment.
    let mut site = site();
    site.guard.deadline_ms = 50;
    let mut port = Fake { requests: (1..=4).map(|id| request(id, "x")).collect(), ..fake() };
    let at = 1_000_000 + 83_000;
    let warm = command(&site, r#"{"action":"set_temperature","celsius":21.5}"#);
    port.answers.extend((1..=4).map(|epoch| (at, decision(epoch, Some(warm)))));
    let mut runner = Runner::new(Guard::new(&site).unwrap(), site.guard.period_ms);
    runner.run(&mut port, Some(10));
    let sent: Vec<(Micros, u64)> = port.actuated.iter().map(|(at, a)| (*at, a.epoch)).collect();
    assert_eq!(sent, [(at, 1), (at, 2), (at, 3), (at, 4)]);
    assert_eq!(runner.stats().extra_cycles, 4);
}

#[test]
fn a_cycle_takes_a_bounded_number_of_messages_and_leaves_the_others() {
    let mut port = Fake { parts: 20, ..fake() };
    port.answers = (1..=20).map(|epoch| (1_000_000, decision(epoch, None))).collect();
    runner().run(&mut port, Some(8));
    let most = limits::DECISIONS_PER_CYCLE_MAX;
    assert!(port.given.iter().all(|(answers, parts)| *answers <= most && *parts <= most), "{:?}", port.given);
    assert_eq!(port.given[..2], [(0, most), (0, most)]);
    assert_eq!(port.given.iter().map(|(answers, parts)| answers + parts).sum::<usize>(), 40);
}

fn slow_site() -> ganglion_site::Site {
    let mut site = site();
    (site.guard.period_ms, site.guard.deadline_ms, site.guard.brain_timeout_ms) = (100, 80, 1_000);
    (site.guard.breaker_failures, site.guard.breaker_probes) = (1, 6);
    site
}

/// A long period, and more fast answers in it than there are free wakes: none is left lying until its deadline.
#[test]
fn fast_answers_to_probes_asked_in_extra_cycles_are_seen_when_they_come() {
    let site = slow_site();
    // The first question gets no answer, which opens the breaker.
    let mut port = Fake { requests: vec![request(1, "x")], answer_delay_us: Some(100), mute: 1, ..fake() };
    let mut runner = Runner::new(Guard::new(&site).unwrap(), site.guard.period_ms);
    runner.run(&mut port, Some(10));
    assert_eq!(port.probes_us.len(), 6, "{:?}", port.probes_us);
    assert!(port.probes_us.iter().all(|&us| us <= 1_000), "{:?}", port.probes_us);
    assert_eq!(runner.guard().status().breaker, BreakerState::Closed);
}

/// A brain that never stops talking gets a bounded share of cycles, and the grid is kept.
#[test]
fn a_flood_of_messages_is_paced() {
    let site = slow_site();
    let mut port = Fake { requests: vec![request(1, "x")], ..fake() };
    port.answers.extend((0..5_000).map(|i| (1_400_000 + i * 20, decision(0, None))));
    let mut runner = Runner::new(Guard::new(&site).unwrap(), site.guard.period_ms);
    runner.run(&mut port, Some(6));
    assert!((50..=90).contains(&runner.stats().extra_cycles), "{}", runner.stats().extra_cycles);
    // The last look for the event's answer is as punctual as ever: asked in the fifth period, 79 ms later.
    let (at, actuation) = port.actuated.iter().find(|(_, a)| a.request == 1).expect("answered");
    assert_eq!((*at, actuation.outcome), (1_400_000 + 79_000, ganglion_site::Outcome::Rule));
    assert_eq!(runner.stats().overruns, 0);
}

#[test]
fn without_an_answer_the_rule_acts_before_the_deadline() {
    let mut port = Fake { requests: vec![request(9, "x")], ..fake() };
    let mut runner = runner();
    runner.run(&mut port, Some(8));
    let (at, actuation) = port.actuated.iter().find(|(_, a)| a.request == 9).expect("answered");
    assert_eq!(actuation.outcome, ganglion_site::Outcome::Rule);
    // Asked at a grid point, deadline 20 ms later, last look 1 ms before it: a cycle more, and the grid stays.
    assert_eq!((at % 10_000, runner.stats().cycles, runner.stats().extra_cycles), (9_000, 8, 1));
}

#[test]
fn overruns_are_counted_and_not_made_up_in_a_burst() {
    let mut port = Fake { busy_us: vec![0, 0, 35_000, 0, 0], ..fake() };
    let mut runner = runner();
    runner.run(&mut port, Some(6));
    assert_eq!(runner.stats().overruns, 3);
    assert_eq!(port.beats, 6);
    for pair in port.starts.windows(2) {
        assert!(pair[1] - pair[0] >= 10_000, "{:?}", port.starts);
        assert_eq!(pair[1] % 10_000, 0, "always on the grid");
    }
}

#[test]
fn wake_up_delays_are_counted_by_powers_of_two() {
    let mut port = Fake { late_us: vec![9_000, 1_024, 1_023, 2, 1, 0], ..fake() };
    let mut runner = runner();
    runner.run(&mut port, Some(8));
    let mut expected = [0; limits::JITTER_BUCKETS];
    // The first cycle and the last sleep are punctual; 1 is below 2, 1023 below 1024, 9000 below 16384.
    (expected[0], expected[1], expected[2], expected[10], expected[11], expected[14]) = (3, 1, 1, 1, 1, 1);
    assert_eq!((runner.stats().jitter, runner.stats().jitter_us_max), (expected, 9_000));
    assert_eq!((runner.stats().cycles, runner.stats().overruns), (8, 0));
    // What is beyond all of them is in the last one.
    let mut port = Fake { late_us: vec![1 << 40], ..fake() };
    let mut runner = Runner::new(Guard::new(&site()).unwrap(), 10);
    runner.run(&mut port, Some(2));
    assert_eq!(runner.stats().jitter[limits::JITTER_BUCKETS - 1], 1);
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn the_supervisor_restarts_kills_and_reaps_real_children() {
    let (supervisor, mut channel) = Supervisor::start(|| {
        let mut command = Command::new("sleep");
        command.arg("1000");
        command
    })
    .unwrap();
    wait_for("first start", || channel.process() == BrainProcess::Running { generation: 1 });
    let first = supervisor.pid().unwrap();
    channel.kill(1);
    wait_for("second start", || channel.process() == BrainProcess::Running { generation: 2 });
    assert!(!std::path::Path::new(&format!("/proc/{first}")).exists(), "killed and reaped");
    channel.kill(1); // an order for the first one, come late
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(channel.process(), BrainProcess::Running { generation: 2 });
    let second = supervisor.pid().unwrap();
    drop(supervisor);
    assert!(!std::path::Path::new(&format!("/proc/{second}")).exists());
}

#[test]
fn garbage_from_a_real_child_is_counted_and_never_a_decision() {
    // The child writes lines of anything into its end of the socket.
    let (supervisor, mut channel) = Supervisor::start(|| {
        let mut command = Command::new("sh");
        command.args(["-c", "for i in 1 2 3; do echo nonsense $i >&0; done; exec sleep 1000"]);
        command
    })
    .unwrap();
    wait_for("start", || channel.process() == BrainProcess::Running { generation: 1 });
    wait_for("garbage", || {
        assert!(channel.receive().is_none());
        supervisor.garbage() >= 3
    });
}

#[test]
fn a_program_that_does_not_exist_is_counted_and_retried() {
    let (supervisor, mut channel) = Supervisor::start(|| Command::new("/nonexistent/brain")).unwrap();
    wait_for("failures", || supervisor.start_failures() >= 2);
    assert_eq!(channel.process(), BrainProcess::Restarting);
}

/// The whole of it on a real thread and clock: a mute child, and the rule's command at the driver.
#[test]
fn a_child_that_never_answers_leaves_the_rule_controller_in_control() {
    let mut site = site();
    // A plant of its own: another run of this test on the same machine would have the lease.
    site.plant.as_mut().unwrap().modbus = format!("runner-test-{}:502", std::process::id());
    let build = || {
        let mut command = Command::new("sleep");
        command.arg("1000");
        command
    };
    let (supervisor, brain) = Supervisor::start(build).unwrap();
    let (mut port, mut outside) = Channels::new(&site, Some(brain), None);
    let signals = std::sync::Arc::clone(&outside.signals);
    let mut runner = Runner::new(Guard::new(&site).unwrap(), site.guard.period_ms);
    let thread = std::thread::spawn(move || {
        let status = go_real_time();
        runner.run(&mut port, None);
        (status.advice().len(), runner.stats().cycles)
    });
    outside.operator.send(OperatorCommand::Reset).unwrap();
    outside.operator.send(OperatorCommand::Start).unwrap();
    let mut heard = None;
    wait_for("the rule's command", || {
        let now = monotonic_us();
        signals.tags.write(0, TagSample::good(20.0, now));
        signals.tags.write(1, TagSample::good(80.0, now));
        signals.set_link(Link { connected: true, watchdog: DeviceWatchdog::Armed, heartbeat_ack_us: now });
        heard = heard.or(outside.actuations.pop().ok());
        heard.is_some()
    });
    assert_eq!(heard.unwrap().outcome, ganglion_site::Outcome::Rule);
    assert!(signals.heartbeats() > 0);
    signals.stop();
    let (_, cycles) = thread.join().unwrap();
    assert!(cycles > 0);
    drop(supervisor);
}

/// Signs of life queue up while the guard sleeps; an answer behind any number of them is seen at once.
#[test]
fn an_answer_behind_many_signs_of_life_is_not_left_for_later() {
    let mut port = fake();
    port.answers = (0..40).map(|_| (0, decision(0, None))).chain([(0, decision(7, None))]).collect();
    let mut runner = Runner::new(Guard::new(&site()).unwrap(), 10);
    runner.run(&mut port, Some(1));
    assert!(port.answers.is_empty());
    assert_eq!(
        runner.guard().status().counters.unexpected_answers,
        1,
        "the one to a question that was not asked"
    );
}
