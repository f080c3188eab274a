//! Exhaustive search (test only): every state that a guard can reach by modes, breaker, brain, link, lease, trips and
//! stops, and every combination of inputs in each of them. States that differ in what this alphabet cannot tell apart
//! (counters, absolute time) are one.

use crate::guard::Guard;
use crate::*;
use ganglion_site::{
    Command, Decision, Outcome, Progress, Reason, Sentence, Site, TagValues, Timings, Value,
};
use std::collections::HashSet;

const STEP_US: u64 = 15_000;
/// Far above what is reached; the test fails if the space grows past it unnoticed.
const STATES_MAX: usize = 60_000;

const SITE: &str = r#"
name = "test"
[model]
path = "none.gguf"
[guard]
period_ms = 10
deadline_ms = 20
brain_timeout_ms = 20
breaker = { failures = 2, open_ms = 30, probes = 1 }
safe = { action = "all_off" }
[plant]
modbus = "127.0.0.1:1502"
heartbeat = 100
watchdog = 101
watchdog_ms = 500
watchdog_state = 100
[[tag]]
name = "heat"
range = [0, 100]
read = { input = 0 }
[[command]]
name = "warm"
about = "warm"
arguments = [{ name = "percent", integer = [0, 100] }]
writes = [{ holding = 0, value = "percent" }]
announce = "release"
[[command]]
name = "release"
about = "release"
writes = [{ holding = 1, constant = 1 }]
[[command]]
name = "all_off"
about = "off"
writes = [{ holding = 0, constant = 0 }]
[[limit]]
on = "heat"
hihi = 50
[[rule]]
do = { action = "warm", percent = 20 }
"#;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Brain {
    Alive,
    Answers,
    /// Everything at once, the youngest first.
    AnswersAll,
    /// Says the verb and nothing more.
    Begins,
    Babbles,
    Silent,
    Gone,
}

/// One cycle's inputs.
#[derive(Debug, Clone, Copy)]
struct Letter {
    operator: Option<OperatorCommand>,
    estop: bool,
    link: Link,
    sole_writer: bool,
    brain: Brain,
    heat: f64,
    event: bool,
}

fn alphabet() -> Vec<Letter> {
    use OperatorCommand as O;
    let operators = [
        (None, false),
        (None, true),
        (Some(O::Clear), true),
        (Some(O::Start), false),
        (Some(O::Hold), false),
        (Some(O::Unhold), false),
        (Some(O::Stop), false),
        (Some(O::Reset), false),
        (Some(O::Clear), false),
        (Some(O::Abort), false),
    ];
    let link = |connected, watchdog| Link { connected, watchdog, heartbeat_ack_us: 0 };
    let links = [
        (link(true, DeviceWatchdog::Armed), true),
        (link(true, DeviceWatchdog::Armed), false),
        (link(true, DeviceWatchdog::Tripped), true),
        (link(false, DeviceWatchdog::Off), true),
    ];
    let mut letters = Vec::new();
    for (operator, estop) in operators {
        for (link, sole_writer) in links {
            for brain in [
                Brain::Alive,
                Brain::Answers,
                Brain::AnswersAll,
                Brain::Begins,
                Brain::Babbles,
                Brain::Silent,
                Brain::Gone,
            ] {
                for heat in [20.0, 60.0, f64::NAN] {
                    // An operator's command and an event come in cycles of their own; together they add no state.
                    for event in [false, true].into_iter().take(if operator.is_none() { 2 } else { 1 }) {
                        letters.push(Letter { operator, estop, link, sole_writer, brain, heat, event });
                    }
                }
            }
        }
    }
    letters
}

/// What one cycle did, as far as the properties ask.
struct Did {
    actuated: Option<(Outcome, Command)>,
    asked_for_the_plant: bool,
    heartbeat: bool,
    status: Status,
}

fn step(guard: &mut Guard, letter: &Letter) -> Did {
    let now = guard.now + STEP_US;
    let pending = guard.pending_epochs();
    let oldest = pending.first().copied().unwrap_or(0);
    let warm = Command {
        verb: 0,
        values: std::array::from_fn(|i| if i == 0 { Value::Integer(30) } else { Value::Absent }),
    };
    let decision = |epoch, confidence| Decision {
        epoch,
        command: (epoch > 0).then_some(warm),
        outcome: Outcome::Model,
        confidence,
        timings: Timings::default(),
        reason: Reason::EMPTY,
    };
    let decisions = match letter.brain {
        Brain::Alive => vec![decision(0, 0.5)],
        Brain::Answers => vec![decision(oldest, 0.5)],
        Brain::Babbles => vec![decision(oldest, f32::NAN), decision(u64::MAX, 0.5)],
        Brain::AnswersAll => pending.iter().rev().map(|epoch| decision(*epoch, 0.5)).collect(),
        Brain::Begins | Brain::Silent | Brain::Gone => Vec::new(),
    };
    let verb = |epoch: &u64| Progress { epoch: *epoch, verb: 0, argument: None, value: Value::Absent };
    let progress: Vec<Progress> = match letter.brain {
        Brain::Begins => pending.iter().map(verb).collect(),
        _ => Vec::new(),
    };
    let request = Request {
        id: 1,
        source: Source::Operator,
        client: 0,
        sentence: Sentence::cut("warm it"),
        tags: TagValues::NONE,
        deadline_ms: None,
        dry_run: false,
        stream: false,
        command: None,
        others: 0,
    };
    let input = Input {
        tags: &[TagSample::good(letter.heat, now)],
        link: Link { heartbeat_ack_us: now, ..letter.link },
        sole_writer: letter.sole_writer,
        event: letter.event.then_some(&request),
        decisions: &decisions,
        progress: &progress,
        brain: match letter.brain {
            Brain::Gone => BrainProcess::Restarting,
            _ => BrainProcess::Running { generation: 1 },
        },
        operator: letter.operator,
        estop: letter.estop,
    };
    let output = guard.cycle(now, &input);
    Did {
        actuated: output.actuation.map(|a| (a.outcome, *a.approved.get())),
        asked_for_the_plant: output.event.is_some_and(|event| !event.dry_run),
        heartbeat: output.heartbeat,
        status: *output.status,
    }
}

/// The properties, by the numbers of docs/safety.md.
fn check(before: &Guard, letter: &Letter, after: &Guard, did: &Did, safe: Command) {
    let from = before.mode;
    let to = did.status.mode;
    let say = || format!("{from:?} → {to:?} by {letter:?}: {}", did.status.reason.as_str());
    let aborted = |mode| matches!(mode, Mode::Aborting | Mode::Aborted);
    let writable =
        letter.sole_writer && letter.link.connected && letter.link.watchdog == DeviceWatchdog::Armed;
    let stop = letter.estop || letter.operator == Some(OperatorCommand::Abort);
    // 20, 21: every stop is obeyed in its own cycle, from everywhere, and stays until Clear.
    assert!(!stop || aborted(to), "{}", say());
    assert!(letter.heat != 60.0 || aborted(to), "a trip aborts: {}", say());
    let cleared = letter.operator == Some(OperatorCommand::Clear) && !stop;
    assert!(!aborted(from) || aborted(to) || (cleared && letter.heat != 60.0), "latched: {}", say());
    // 23: Execute only by a Start or Unhold that waited, or by a link that came back.
    let entered = to == Mode::Execute && from != Mode::Execute;
    assert!(!entered || matches!(from, Mode::Starting | Mode::Unholding), "{}", say());
    let started = to == Mode::Starting && from != Mode::Starting;
    assert!(!started || letter.operator == Some(OperatorCommand::Start), "{}", say());
    if let Some((outcome, command)) = did.actuated {
        // 25, 26: nothing without an armed link and the lease.
        assert!(writable, "{}", say());
        // 16: the model's command only while it counts; outside Execute nothing but the safe command.
        let counts = after.breaker.state() == BreakerState::Closed && did.status.brain == BrainState::Ready;
        assert!(outcome != Outcome::Model || counts, "{}", say());
        assert!(to == Mode::Execute || command == safe, "{}", say());
        // 10: no command but the safe one over a trip tag that is beyond its limit or unreadable.
        assert!(letter.heat == 20.0 || command == safe, "{}", say());
    }
    // A stop that can be written is written in the same cycle.
    let newly = aborted(to) && !aborted(from);
    assert!(!newly || !writable || did.actuated.is_some_and(|(_, c)| c == safe), "{}", say());
    // 17, 22: no question for the plant but in Execute with a closed breaker.
    let may_ask = to == Mode::Execute && after.breaker.state() == BreakerState::Closed;
    assert!(!did.asked_for_the_plant || may_ask, "{}", say());
    // 12, 26.
    assert_eq!(did.heartbeat, letter.sole_writer, "{}", say());
}

/// What tells two states apart for this alphabet; ages are counted in steps as far as they can still matter.
fn key(guard: &Guard) -> String {
    let age = |from: u64| (guard.now.saturating_sub(from) / STEP_US).min(2);
    format!(
        "{:?} {:?} {:?} {:?} {} {} {} {} {} {:?}",
        guard.mode,
        guard.breaker.shape(age),
        guard.brain.shape(age),
        guard.latch,
        guard.link_was_up,
        guard.could_write,
        guard.held_by_link,
        guard.safe_owed,
        guard.safe_latched,
        guard.pending_shape(age),
    )
}

#[test]
fn every_reachable_state_and_every_input_keeps_the_invariants() {
    let site = Site::parse(SITE, "test.toml".as_ref()).unwrap_or_else(|e| panic!("{e}"));
    let letters = alphabet();
    let mut first = Guard::new(&site).unwrap();
    first.now = 1_000_000;
    let (mut seen, mut edge, mut modes, mut steps) = (HashSet::new(), vec![first], HashSet::new(), 0u64);
    while let Some(guard) = edge.pop() {
        modes.insert(guard.mode);
        for letter in &letters {
            let mut next = guard.clone();
            let did = step(&mut next, letter);
            check(&guard, letter, &next, &did, site.safe);
            steps += 1;
            if seen.insert(key(&next)) {
                edge.push(next);
            }
        }
        assert!(seen.len() < STATES_MAX);
    }
    eprintln!("{} states, {} inputs, {steps} steps, modes {modes:?}", seen.len(), letters.len());
    // Suspend and Complete have no way in yet; everything else was there.
    assert_eq!(modes.len(), 12, "{modes:?}");
    assert!(seen.len() > 200, "{}", seen.len());
}
