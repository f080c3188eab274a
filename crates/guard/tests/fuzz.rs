//! 10,000 random cycles: no panic, no command beyond a limit, the same outputs for the same inputs.

mod common;
use common::*;
use ganglion_guard::*;
use ganglion_site::limits::ARGUMENTS_MAX;
use ganglion_site::{Command, Decision, Outcome, Reason, ShortText, Timings, Value};

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn number(&mut self) -> f64 {
        match self.below(12) {
            0 => f64::NAN,
            1 => f64::INFINITY,
            2 => f64::NEG_INFINITY,
            3 => f64::from_bits(self.next()),
            4 => 1e300,
            5 => -0.0,
            _ => self.below(240) as f64 / 2.0 - 20.0,
        }
    }

    fn command(&mut self) -> Command {
        let mut values = [Value::Absent; ARGUMENTS_MAX];
        let filled = self.below(4);
        for value in values.iter_mut().take(filled as usize) {
            *value = match self.below(7) {
                0 => Value::Choice(self.next() as u16),
                1 => Value::Choice(self.below(3) as u16),
                2 => Value::Integer(self.next() as i64),
                3 => Value::Integer(self.below(140) as i64 - 10),
                4 => Value::Number(self.number()),
                5 => Value::Bool(self.one_in(2)),
                _ => Value::Text(ShortText::cut("text")),
            };
        }
        Command { verb: if self.one_in(10) { self.next() as u16 } else { self.below(5) as u16 }, values }
    }

    /// Often a command of the right shape, so that the limits are reached.
    fn shaped(&mut self) -> Command {
        let mut command = self.command();
        command.values = [Value::Absent; ARGUMENTS_MAX];
        command.verb = self.below(4) as u16;
        match command.verb {
            0 => command.values[0] = Value::Number(5.0 + self.below(111) as f64 / 2.0),
            1 => {
                command.values[0] = Value::Choice(self.below(2) as u16);
                command.values[1] = Value::Integer(self.below(101) as i64);
            }
            _ => {}
        }
        command
    }

    fn decision(&mut self, last_epoch: u64) -> Decision {
        let epoch = match self.below(6) {
            0 => 0,
            1 => self.next(),
            2 => self.below(last_epoch + 3),
            _ => last_epoch,
        };
        let command = match self.below(5) {
            0 => None,
            1 => Some(self.command()),
            _ => Some(self.shaped()),
        };
        let outcomes = [Outcome::Model, Outcome::Model, Outcome::Cache, Outcome::Completion, Outcome::Rule];
        Decision {
            epoch,
            command,
            outcome: outcomes[self.below(5) as usize],
            confidence: if self.one_in(20) { self.number() as f32 } else { 0.5 },
            timings: Timings::default(),
            reason: Reason::EMPTY,
        }
    }
}

/// The site's limits written down a second time, by hand, apart from the guard's tables.
#[derive(Default)]
struct Checker {
    fan: [Option<(f64, u64)>; 2],
}

impl Checker {
    fn check(&mut self, command: &Command, now_us: u64) {
        match (command.verb, &command.values[..2]) {
            (0, [Value::Number(celsius), Value::Absent]) => {
                assert!((15.0..=26.0).contains(celsius), "{celsius}");
                assert_eq!((celsius * 2.0).fract(), 0.0, "off the grid: {celsius}");
            }
            (1, [Value::Choice(room), Value::Integer(percent)]) => {
                assert!((0..=100).contains(percent));
                let slot = &mut self.fan[usize::from(*room)];
                let value = *percent as f64;
                if let Some((last, time)) = *slot {
                    let slope = 40.0 * (now_us - time) as f64 / 1e6;
                    assert!((value - last).abs() <= slope + 1e-6, "{last} → {value} in {} us", now_us - time);
                }
                *slot = Some((value, now_us));
            }
            (2, [Value::Absent, Value::Absent]) => {}
            other => panic!("not a command for the plant: {other:?}"),
        }
        assert!(command.values[2..].iter().all(|v| *v == Value::Absent));
    }
}

fn run(seed: u64, cycles: usize) -> (String, u64) {
    let mut random = Random(seed);
    let site = site();
    let mut guard = Guard::new(&site).unwrap();
    let mut checker = Checker::default();
    let (mut now, mut epoch, mut generation, mut trace) = (1_000_000u64, 0, 1u32, String::new());
    let mut actuated = 0;
    for cycle in 0..cycles {
        now += if random.one_in(50) { random.below(1_000_000) } else { 10_000 };
        let wild = random.one_in(12);
        let mut tag = |value: f64| TagSample {
            value: if wild && random.one_in(2) { random.number() } else { value },
            quality: if wild && random.one_in(4) { Quality::Bad } else { Quality::Good },
            time_us: if wild && random.one_in(4) { random.next() } else { now },
        };
        let tags = [tag(20.0), tag(70.0)];
        let link = Link {
            connected: !random.one_in(60),
            watchdog: if random.one_in(60) { DeviceWatchdog::Tripped } else { DeviceWatchdog::Armed },
            heartbeat_ack_us: if random.one_in(60) { random.next() } else { now },
        };
        let event = random.one_in(3).then(|| request(cycle as u64, "fuzz"));
        let decisions: Vec<_> = (0..random.below(4)).map(|_| random.decision(epoch)).collect();
        generation += u32::from(random.one_in(100));
        let brain =
            if random.one_in(100) { BrainProcess::Restarting } else { BrainProcess::Running { generation } };
        let operators = [
            OperatorCommand::Start,
            OperatorCommand::Reset,
            OperatorCommand::Clear,
            OperatorCommand::Unhold,
            OperatorCommand::Hold,
            OperatorCommand::Stop,
            OperatorCommand::Abort,
        ];
        let operator = if random.one_in(3) {
            let rare = if random.one_in(30) { 7 } else { 4 };
            Some(operators[random.below(rare) as usize])
        } else {
            None
        };
        let estop = random.one_in(200);
        let sole_writer = !random.one_in(60);
        let input = Input {
            tags: &tags,
            link,
            sole_writer,
            event: event.as_ref(),
            decisions: &decisions,
            progress: &[],
            brain,
            operator,
            estop,
        };
        let out = guard.cycle(now, &input);
        if let Some(event) = out.event {
            epoch = event.epoch;
        }
        if let Some(actuation) = &out.actuation {
            let command = actuation.approved.get();
            checker.check(command, now);
            assert!(sole_writer, "only the plant's one writer writes");
            let safe = *command == site.safe;
            assert!(safe || out.status.mode == Mode::Execute, "only the safe command outside Execute");
            let model = !matches!(actuation.outcome, Outcome::Rule | Outcome::Safe);
            assert!(!model || !out.status.rule_in_control || out.status.breaker == BreakerState::Closed);
            actuated += u64::from(!safe);
        }
        if estop {
            assert!(matches!(out.status.mode, Mode::Aborting | Mode::Aborted));
        }
        let decided = out.records.iter().filter(|r| r.kind == RecordKind::Decision && r.actuated).count();
        assert_eq!(decided, usize::from(out.actuation.is_some()), "one record per actuation");
        trace.push_str(&format!("{:?} {:?} {:?}\n", out.actuation, out.status.mode, out.status.reason));
    }
    (trace, actuated)
}

#[test]
fn ten_thousand_random_cycles_break_no_limit() {
    let mut actuated = 0;
    for seed in 0..10 {
        actuated += run(seed, 2_000).1;
    }
    assert!(actuated > 500, "the test must reach the plant to show anything: {actuated}");
}

#[test]
fn replay_gives_the_same_outputs() {
    assert_eq!(run(42, 1_000).0, run(42, 1_000).0);
}

#[test]
fn the_guards_own_form_check_agrees_with_the_parsers() {
    let site = site();
    let guard = Guard::new(&site).unwrap();
    let mut random = Random(7);
    let mut good = 0;
    for _ in 0..20_000 {
        let command = if random.one_in(2) { random.command() } else { random.shaped() };
        let theirs = command.check(&site).is_ok();
        let checked = guard.check(&command, &[]);
        let refused_for_form =
            checked.verdict == Verdict::Rejected && !checked.reason.as_str().contains("limit");
        assert_eq!(theirs, !refused_for_form, "{command:?}: {}", checked.reason.as_str());
        good += u64::from(theirs);
    }
    assert!(good > 1000);
}
