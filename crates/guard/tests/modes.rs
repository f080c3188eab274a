//! The mode machine's edges: what is refused, what is owed to the plant, when a link counts as lost.

mod common;
use common::*;
use ganglion_guard::*;
use ganglion_site::Outcome;

fn reasons(got: &Got, kind: RecordKind) -> Vec<&str> {
    got.records.iter().filter(|r| r.kind == kind).map(|r| r.reason.as_str()).collect()
}

#[test]
fn an_abort_is_obeyed_and_not_refused() {
    let mut bench = Bench::running();
    let got = bench.go(None, &[], Some(OperatorCommand::Abort));
    assert_eq!((got.status.mode, got.status.severity), (Mode::Aborting, Severity::EmergencyStop));
    assert_eq!((got.status.counters.refused_commands, reasons(&got, RecordKind::Mode).len()), (0, 1));
    assert_eq!(reasons(&got, RecordKind::Mode), ["Execute → Aborting: emergency stop"]);
    // What does not apply is counted, each time.
    for count in 1..=3 {
        let got = bench.go(None, &[], Some(OperatorCommand::Start));
        assert_eq!(got.status.counters.refused_commands, count);
    }
}

#[test]
fn clear_before_the_plant_was_told_to_stop_clears_nothing() {
    let mut bench = Bench::running();
    bench.watchdog = DeviceWatchdog::Tripped;
    bench.sole_writer = false;
    // Owed and not payable: another process has the plant. It is Aborted all the same, by its own watchdog.
    bench.go(None, &[], Some(OperatorCommand::Abort));
    bench.idle();
    bench.sole_writer = true;
    bench.watchdog = DeviceWatchdog::Armed;
    let mut bench = Bench::running();
    let got = bench.go(None, &[], Some(OperatorCommand::Abort));
    assert_eq!(got.status.mode, Mode::Aborting);
    // In the cycle of the abort itself the mode is not Aborted yet.
    let mut bench = Bench::running();
    bench.estop = true;
    let got = bench.go(None, &[], Some(OperatorCommand::Clear));
    assert_eq!(got.status.mode, Mode::Aborting);
    let refused = reasons(&got, RecordKind::Mode);
    assert_eq!(refused[1], "Clear refused: it does not apply in Aborting");
    bench.estop = false;
    let got = bench.idle();
    assert_eq!(
        (got.status.mode, got.status.severity),
        (Mode::Aborted, Severity::EmergencyStop),
        "still latched"
    );
    bench.estop = true;
    let got = bench.go(None, &[], Some(OperatorCommand::Clear));
    assert_eq!(reasons(&got, RecordKind::Mode), ["Clear refused: the emergency stop is still pressed"]);
}

#[test]
fn a_stop_is_owed_again_after_a_lost_line_until_the_plant_is_started_anew() {
    let reconnect = |bench: &mut Bench| {
        bench.link = false;
        bench.go(None, &[decision(0, None)], None);
        bench.link = true;
        let first = bench.go(None, &[decision(0, None)], None).actuation;
        first.or(bench.go(None, &[decision(0, None)], None).actuation).map(|a| a.outcome)
    };
    let mut bench = Bench::running();
    let got = bench.go(None, &[], Some(OperatorCommand::Stop));
    assert_eq!(got.actuation.unwrap().outcome, Outcome::Safe);
    bench.idle();
    assert_eq!(reconnect(&mut bench), Some(Outcome::Safe), "it may have died with the line");
    bench.go(None, &[], Some(OperatorCommand::Reset));
    for operator in [None, Some(OperatorCommand::Start), None] {
        bench.go(None, &[decision(0, None)], operator);
    }
    assert_eq!(bench.guard.status().mode, Mode::Execute);
    assert_eq!(reconnect(&mut bench), None, "it runs again: nothing is owed");
    for _ in 0..3 {
        bench.idle();
    }
    assert_eq!(bench.guard.status().mode, Mode::Execute, "and resumes");
}

#[test]
fn a_heartbeat_that_is_not_acknowledged_in_the_watchdogs_time_is_a_lost_link() {
    // Site: 500 ms.
    let mut bench = Bench::running();
    let last = bench.ms;
    bench.acknowledged = Some(last);
    while bench.ms < last + 500 {
        assert_eq!(bench.idle().status.mode, Mode::Execute, "{} ms", bench.ms - last);
    }
    bench.ms -= 9;
    let got = bench.idle();
    assert_eq!((bench.ms - last, got.status.severity), (501, Severity::LinkLost));
    assert_eq!(got.status.reason.as_str(), "the plant has acknowledged no heartbeat for 501 ms");
    assert_eq!(got.status.mode, Mode::Holding);
    bench.acknowledged = None;
    for _ in 0..4 {
        bench.idle();
    }
    assert_eq!(bench.guard.status().mode, Mode::Execute);
}

#[test]
fn without_a_brain_to_ask_the_guard_says_that_rules_answer() {
    let mut bench = Bench::new();
    let got = bench.go(None, &[], None);
    assert_eq!(got.status.severity, Severity::Degraded);
    assert_eq!(got.status.reason.as_str(), "rule controller answers: breaker closed, brain starting");
    let got = bench.idle();
    assert_eq!((got.status.severity, got.status.reason.as_str()), (Severity::Nominal, ""));
    // An open breaker alone does too.
    let mut bench = Bench::running();
    for _ in 0..3 {
        bench.go(Some(request(1, "x")), &[decision(0, None)], None);
        bench.idle();
        bench.idle();
    }
    let status = *bench.guard.status();
    assert_eq!((status.severity, status.brain), (Severity::Degraded, BrainState::Ready));
    assert_eq!(status.reason.as_str(), "rule controller answers: breaker open, brain ready");
}

#[test]
fn a_trip_is_told_when_it_begins_and_not_in_every_cycle() {
    let mut bench = Bench::running();
    bench.values[0] = 55.0;
    let got = bench.idle();
    assert_eq!(
        reasons(&got, RecordKind::Trip),
        ["tag temperature reads 55 C, at or above its trip limit 50 C"]
    );
    assert_eq!(got.status.trips, 1);
    let got = bench.idle();
    assert!(reasons(&got, RecordKind::Trip).is_empty(), "{got:?}");
    bench.values[0] = 20.0;
    bench.idle();
    bench.values[0] = 55.0;
    assert_eq!(reasons(&bench.idle(), RecordKind::Trip).len(), 1, "another one");
}

#[test]
fn severities_and_states_have_their_words() {
    use Severity::*;
    let words = [Nominal, Alarm, Degraded, Fault, LinkLost, Trip, EmergencyStop].map(Severity::as_str);
    let expected = ["nominal", "alarm", "degraded", "fault", "link lost", "trip", "emergency stop"];
    assert_eq!(words, expected);
    let words = [BrainState::Absent, BrainState::Starting, BrainState::Ready, BrainState::Lost];
    assert_eq!(words.map(BrainState::as_str), ["absent", "starting", "ready", "lost"]);
    let words = [BreakerState::Closed, BreakerState::Open, BreakerState::HalfOpen];
    assert_eq!(words.map(BreakerState::as_str), ["closed", "open", "half-open"]);
}
