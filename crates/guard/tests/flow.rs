//! The way of one event through the guard, with an injected clock.

mod common;
use common::*;
use ganglion_guard::*;
use ganglion_site::{Decision, Outcome, Reason};

const WARM: &str = r#"{"action":"set_temperature","celsius":21.5}"#;
const FAN: &str = r#"{"action":"set_fan","room":"office","percent":20}"#;
const OFF: &str = r#"{"action":"all_off"}"#;

#[test]
fn a_good_answer_in_time_reaches_the_plant() {
    let mut bench = Bench::running();
    let got = bench.ask(WARM);
    assert_eq!(bench.json(&got).unwrap().replace(' ', ""), WARM);
    let record = got.decisions()[0];
    assert_eq!((record.outcome, record.verdict), (Some(Outcome::Model), Some(Verdict::Approved)));
    assert!(record.actuated);
    assert_eq!(record.latency_us, 10_000);
}

#[test]
fn a_command_beyond_a_limit_is_rejected_with_a_reason_and_nothing_is_actuated() {
    let mut bench = Bench::running();
    let got = bench.ask(r#"{"action":"set_temperature","celsius":35}"#);
    assert!(got.actuation.is_none());
    let record = got.decisions()[0];
    assert_eq!(record.verdict, Some(Verdict::Rejected));
    assert_eq!(record.reason.as_str(), "set_temperature.celsius 35 C is above its limit 26 C");
    assert_eq!(got.status.breaker, BreakerState::Closed);
    assert_eq!(got.status.counters.malformed_answers, 0, "a limit is no fault of the brain");
}

#[test]
fn rate_is_per_choice_and_clamped_where_the_site_says_so() {
    let mut bench = Bench::running();
    let first = bench.ask(r#"{"action":"set_fan","room":"kitchen","percent":10}"#);
    assert!(first.actuation.is_some());
    let other = bench.ask(r#"{"action":"set_fan","room":"office","percent":90}"#);
    assert_eq!(other.decisions()[0].verdict, Some(Verdict::Approved), "another room has its own slope");
    let again = bench.ask(r#"{"action":"set_fan","room":"kitchen","percent":90}"#);
    let record = again.decisions()[0];
    assert_eq!(record.verdict, Some(Verdict::Clamped), "{}", record.reason.as_str());
    // 40 ms at 40 %/s from 10 %: at most 11.6 %, and whole per cents only.
    assert!(bench.json(&again).unwrap().contains("11"), "{:?}", bench.json(&again));
}

#[test]
fn slew_limit_holds_across_source_switches() {
    let mut bench = Bench::running();
    bench.ask(r#"{"action":"set_fan","room":"office","percent":90}"#);
    bench.values[1] = 80.0; // the rule wants 20 %
    bench.brain = BrainProcess::Restarting;
    let got = bench.go(None, &[], None);
    assert_eq!(got.actuation.unwrap().outcome, Outcome::Rule);
    assert_eq!(got.decisions()[0].verdict, Some(Verdict::Clamped));
    let sent = bench.json(&got).unwrap();
    assert!(sent.contains("90") || sent.contains("89"), "from 90 no faster than 40 per s: {sent}");
    for _ in 0..400 {
        bench.go(None, &[], None);
    }
    let got = bench.go(None, &[], None);
    assert!(got.actuation.is_none(), "converged, nothing new to say");
}

#[test]
fn a_missing_answer_gets_the_rules_command_in_that_very_cycle() {
    let mut bench = Bench::running();
    bench.values[1] = 80.0;
    assert!(bench.go(Some(request(7, "hello")), &[], None).event.is_some());
    assert!(bench.go(None, &[decision(0, None)], None).actuation.is_none());
    let got = bench.go(None, &[decision(0, None)], None);
    assert_eq!(bench.json(&got).unwrap().replace(' ', ""), FAN);
    let actuation = got.actuation.unwrap();
    assert_eq!((actuation.outcome, actuation.request), (Outcome::Rule, 7));
    assert_eq!(got.status.counters.deadline_misses, 1);
}

#[test]
fn without_a_matching_rule_the_safe_command_answers() {
    let mut bench = Bench::running();
    bench.go(Some(request(7, "hello")), &[], None);
    bench.idle();
    let got = bench.idle();
    assert_eq!(bench.json(&got).unwrap().replace(' ', ""), OFF);
    assert_eq!(got.actuation.unwrap().outcome, Outcome::Safe);
}

#[test]
fn late_duplicate_and_unknown_answers_change_nothing() {
    let mut bench = Bench::running();
    let epoch = bench.go(Some(request(1, "a")), &[], None).event.unwrap().epoch;
    bench.idle();
    bench.idle();
    let warm = Some(command(&bench.site, WARM));
    let got = bench.go(None, &[decision(epoch, warm), decision(epoch, warm), decision(99, warm)], None);
    assert!(got.actuation.is_none());
    assert_eq!(got.status.counters.late_answers, 2);
    assert_eq!(got.status.counters.unexpected_answers, 1);
}

#[test]
fn a_wake_that_comes_too_late_counts_the_answer_as_missed() {
    let mut bench = Bench::running();
    let epoch = bench.go(Some(request(1, "a")), &[], None).event.unwrap().epoch;
    bench.ms += 40; // the machine was elsewhere
    let answer = decision(epoch, Some(command(&bench.site, WARM)));
    let got = bench.go(None, &[answer], None);
    assert_eq!(got.decisions()[0].outcome, Some(Outcome::Safe));
    assert_eq!(got.status.counters.deadline_misses, 1);
}

#[test]
fn none_is_recorded_and_not_actuated() {
    let mut bench = Bench::running();
    let got = bench.ask(r#"{"action":"none"}"#);
    assert!(got.actuation.is_none());
    assert_eq!(got.decisions()[0].verdict, Some(Verdict::Approved));
    assert!(!got.decisions()[0].actuated);
}

#[test]
fn dry_run_decides_and_records_but_does_not_actuate() {
    let mut bench = Bench::running();
    let epoch = bench.go(Some(Request { dry_run: true, ..request(1, "x") }), &[], None).event.unwrap().epoch;
    let got = bench.go(None, &[decision(epoch, Some(command(&bench.site, WARM)))], None);
    assert!(got.actuation.is_none());
    assert_eq!(got.decisions()[0].verdict, Some(Verdict::Approved));
    assert!(got.decisions()[0].event.dry_run);
}

#[test]
fn stale_bad_and_nan_tags_keep_the_model_from_being_asked() {
    for spoil in 0..3 {
        let mut bench = Bench::running();
        match spoil {
            0 => bench.frozen_tags = Some(bench.ms - 250),
            1 => bench.values[1] = f64::NAN,
            _ => bench.values[1] = 900.0,
        }
        let got = bench.go(Some(request(1, "x")), &[], None);
        assert!(got.event.is_none());
        let record = got.decisions()[0];
        assert!(record.reason.as_str().contains("the model was not asked"), "{}", record.reason.as_str());
        assert_eq!(record.outcome, Some(Outcome::Safe), "a rule over an unusable tag does not hold");
    }
}

#[test]
fn a_trip_aborts_latches_and_only_clear_leaves_it() {
    let mut bench = Bench::running();
    bench.values[0] = 55.0;
    let got = bench.go(None, &[], None);
    assert_eq!((got.status.mode, got.status.severity), (Mode::Aborting, Severity::Trip));
    assert_eq!(bench.json(&got).unwrap().replace(' ', ""), OFF, "in the same cycle");
    assert_eq!(bench.idle().status.mode, Mode::Aborted);
    let refused = bench.go(None, &[decision(0, None)], Some(OperatorCommand::Clear));
    assert_eq!(refused.status.mode, Mode::Aborted, "the cause is still there");
    bench.values[0] = 20.0;
    for command in [OperatorCommand::Start, OperatorCommand::Reset, OperatorCommand::Unhold] {
        assert_eq!(bench.go(None, &[decision(0, None)], Some(command)).status.mode, Mode::Aborted);
    }
    bench.go(None, &[decision(0, None)], Some(OperatorCommand::Clear));
    for _ in 0..5 {
        assert!(bench.idle().actuation.is_none());
    }
    let got = bench.idle();
    assert_eq!((got.status.mode, got.status.severity), (Mode::Stopped, Severity::Nominal));
}

#[test]
fn emergency_stop_latches_and_outranks_everything() {
    let mut bench = Bench::running();
    bench.values[0] = 55.0;
    bench.link = false;
    bench.estop = true;
    let got = bench.go(None, &[], None);
    assert_eq!(got.status.severity, Severity::EmergencyStop);
    bench.estop = false;
    bench.values[0] = 20.0;
    let got = bench.idle();
    assert_eq!((got.status.mode, got.status.severity), (Mode::Aborted, Severity::EmergencyStop));
    assert!(got.actuation.is_none(), "nothing can be sent yet");
    bench.link = true;
    let got = bench.idle();
    assert_eq!(bench.json(&got).unwrap().replace(' ', ""), OFF, "owed since the abort");
}

#[test]
fn link_loss_holds_and_resumes_only_with_an_armed_watchdog() {
    let mut bench = Bench::running();
    bench.link = false;
    assert_eq!(bench.idle().status.mode, Mode::Holding);
    assert_eq!(bench.idle().status.mode, Mode::Held);
    bench.link = true;
    bench.watchdog = DeviceWatchdog::Tripped;
    for _ in 0..5 {
        assert_eq!(bench.idle().status.mode, Mode::Held);
    }
    bench.watchdog = DeviceWatchdog::Armed;
    assert_eq!(bench.idle().status.mode, Mode::Unholding);
    assert_eq!(bench.idle().status.mode, Mode::Execute);
}

#[test]
fn an_operators_hold_outlasts_the_links() {
    let mut bench = Bench::running();
    bench.link = false;
    bench.idle();
    bench.go(None, &[decision(0, None)], Some(OperatorCommand::Hold));
    bench.link = true;
    for _ in 0..5 {
        assert_eq!(bench.idle().status.mode, Mode::Held);
    }
}

#[test]
fn a_new_guard_never_executes_by_itself_and_start_waits_for_the_plant() {
    let mut bench = Bench::new();
    for _ in 0..10 {
        assert_eq!(bench.idle().status.mode, Mode::Stopped);
    }
    bench.watchdog = DeviceWatchdog::Off;
    bench.go(None, &[], Some(OperatorCommand::Reset));
    bench.go(None, &[], Some(OperatorCommand::Start));
    for _ in 0..10 {
        let got = bench.idle();
        assert_eq!(got.status.mode, Mode::Starting);
        assert_eq!(got.status.reason.as_str(), "the plant's watchdog is not armed");
    }
    bench.watchdog = DeviceWatchdog::Armed;
    assert_eq!(bench.idle().status.mode, Mode::Execute);
}

#[test]
fn a_dead_brain_hands_over_to_the_rules_in_the_same_cycle_until_the_breaker_closes() {
    let mut bench = Bench::running();
    bench.values[1] = 80.0;
    bench.brain = BrainProcess::Restarting;
    let got = bench.go(None, &[], None);
    assert_eq!(bench.json(&got).unwrap().replace(' ', ""), FAN);
    assert_eq!(got.status.breaker, BreakerState::Open);
    assert!(bench.go(None, &[], None).actuation.is_none(), "unchanged, so not repeated");
    bench.brain = BrainProcess::Running { generation: 2 };
    let (mut shadow, mut asked) = (0, None);
    for _ in 0..40 {
        let warm = Some(command(&bench.site, WARM));
        let answer = asked.take().map_or(decision(0, None), |epoch| decision(epoch, warm));
        let got = bench.go(None, &[answer], None);
        assert!(got.actuation.is_none(), "a probe is never actuated");
        if answer.epoch != 0 {
            shadow += 1;
            assert!(got.records.iter().any(|r| r.kind == RecordKind::Probe && !r.actuated));
        }
        if let Some(event) = got.event {
            assert_eq!(got.status.breaker, BreakerState::HalfOpen);
            assert!(event.dry_run);
            asked = Some(event.epoch);
        }
        if got.status.breaker == BreakerState::Closed {
            break;
        }
    }
    let status = *bench.guard.status();
    assert_eq!((shadow, status.breaker), (2, BreakerState::Closed));
    assert!(!status.rule_in_control);
}

#[test]
fn a_silent_brain_is_killed_and_its_event_answered_by_rule() {
    let mut bench = Bench::running();
    let mut killed = None;
    for _ in 0..8 {
        let got = bench.go(None, &[], None);
        if let BrainAction::KillAndRestart { generation } = got.brain {
            killed = Some((generation, got.actuation.is_some()));
            break;
        }
    }
    assert_eq!(killed, Some((1, true)), "killed, and the safe command sent, in one cycle");
}

#[test]
fn new_questions_do_not_prolong_a_hung_brains_life() {
    let mut bench = Bench::running();
    let mut cycles = 0;
    while !matches!(bench.go(Some(request(1, "x")), &[], None).brain, BrainAction::KillAndRestart { .. }) {
        cycles += 1;
        assert!(cycles < 12);
    }
}

#[test]
fn the_breaker_opens_after_exactly_three_failures_and_rules_answer() {
    let mut bench = Bench::running();
    for failure in 1..=3 {
        let epoch = bench.go(Some(request(failure, "x")), &[], None).event.expect("asked").epoch;
        let mut bad = decision(epoch, Some(command(&bench.site, WARM)));
        bad.confidence = f32::NAN;
        let got = bench.go(None, &[bad], None);
        let open = failure == 3;
        assert_eq!(got.status.breaker == BreakerState::Open, open);
        assert_eq!(got.decisions()[0].verdict, Some(Verdict::Rejected));
    }
    let got = bench.go(Some(request(4, "x")), &[], None);
    assert!(got.event.is_none());
    assert_eq!(got.decisions()[0].outcome, Some(Outcome::Safe));
}

#[test]
fn one_failed_probe_opens_the_breaker_again() {
    let mut bench = Bench::running();
    bench.brain = BrainProcess::Restarting;
    bench.idle();
    bench.brain = BrainProcess::Running { generation: 2 };
    let event = (0..30).find_map(|_| bench.idle().event).expect("a probe");
    let mut bad = decision(event.epoch, None);
    bad.outcome = Outcome::Safe;
    assert_eq!(bench.go(None, &[bad], None).status.breaker, BreakerState::Open);
}

#[test]
fn outside_execute_events_are_refused_and_stop_drops_the_pending_one() {
    let mut bench = Bench::running();
    let epoch = bench.go(Some(request(1, "x")), &[], None).event.unwrap().epoch;
    let answer = decision(epoch, Some(command(&bench.site, WARM)));
    let got = bench.go(None, &[answer], Some(OperatorCommand::Stop));
    assert_eq!(bench.json(&got).unwrap().replace(' ', ""), OFF, "the operator beats the model");
    assert_eq!(got.status.counters.late_answers, 1);
    let got = bench.go(Some(request(2, "y")), &[], None);
    assert_eq!(got.decisions()[0].verdict, Some(Verdict::Rejected));
    assert_eq!(got.status.mode, Mode::Stopped);
}

#[test]
fn ask_is_pure_and_judges_given_tags() {
    let bench = Bench::running();
    let check = |json: &str, tags: &[Option<f64>]| bench.guard.check(&command(&bench.site, json), tags);
    assert_eq!(check(WARM, &[]).verdict, Verdict::Approved);
    assert_eq!(check(WARM, &[Some(20.0), None]).verdict, Verdict::Approved);
    let tripped = check(WARM, &[Some(51.0)]);
    assert_eq!(tripped.reason.as_str(), "tag temperature reads 51 C, at or above its trip limit 50 C");
    assert_eq!(check(WARM, &[Some(f64::NAN)]).verdict, Verdict::Rejected);
    assert_eq!(check(r#"{"action":"set_temperature","celsius":14.5}"#, &[]).verdict, Verdict::Rejected);
}

#[test]
fn a_safe_command_that_breaks_a_limit_refuses_to_start() {
    let mut site = site();
    site.safe = command(&site, r#"{"action":"set_temperature","celsius":40}"#);
    let error = Guard::new(&site).unwrap_err().to_string();
    assert!(error.contains("above its limit 26 C"), "{error}");
}

#[test]
fn the_example_sites_make_a_guard() {
    for name in ["hvac", "conveyor"] {
        let file = format!("{}/../../examples/{name}/site.toml", env!("CARGO_MANIFEST_DIR"));
        let site = ganglion_site::Site::load(std::path::Path::new(&file)).unwrap_or_else(|e| panic!("{e}"));
        let guard = Guard::new(&site).unwrap_or_else(|e| panic!("{name}: {e}"));
        for rule in &site.rules {
            assert_ne!(guard.check(&rule.command, &[]).verdict, Verdict::Rejected, "{name}");
        }
    }
}

#[test]
fn a_safe_command_owed_over_a_reconnect_waits_for_the_armed_watchdog() {
    let mut bench = Bench::running();
    bench.link = false;
    bench.watchdog = DeviceWatchdog::Off;
    bench.idle();
    bench.estop = true;
    assert!(bench.idle().actuation.is_none());
    bench.estop = false;
    bench.link = true;
    for watchdog in [DeviceWatchdog::Off, DeviceWatchdog::Tripped, DeviceWatchdog::Off] {
        bench.watchdog = watchdog;
        let got = bench.idle();
        assert!(got.actuation.is_none(), "the driver would refuse it: {watchdog:?}");
        assert!(got.decisions().is_empty(), "and so nothing may be recorded as sent");
        assert_eq!(got.status.mode, Mode::Aborted);
    }
    bench.watchdog = DeviceWatchdog::Armed;
    let got = bench.idle();
    assert_eq!(bench.json(&got).unwrap().replace(' ', ""), OFF);
    assert!(got.decisions()[0].actuated);
    assert!(bench.idle().actuation.is_none(), "paid once");
    // The device's watchdog trips and is armed anew: whatever it did meanwhile, it is told again.
    bench.watchdog = DeviceWatchdog::Tripped;
    assert!(bench.idle().actuation.is_none());
    bench.watchdog = DeviceWatchdog::Armed;
    assert_eq!(bench.idle().actuation.unwrap().outcome, Outcome::Safe);
}

/// A request with a reading of its own for tag 0, `temperature` (hihi 50, range to 100).
fn measured(id: u64, temperature: f64) -> Request {
    let mut request = request(id, "");
    request.tags.set(0, temperature);
    request
}

#[test]
fn an_events_own_trip_reading_gets_the_safe_command_and_latches_nothing() {
    for reading in [50.0, 95.0, 150.0] {
        let mut bench = Bench::running();
        bench.values[1] = 80.0; // a rule would apply
        let got = bench.go(Some(measured(7, reading)), &[], None);
        assert!(got.event.is_none(), "the model is not asked");
        assert_eq!(bench.json(&got).unwrap().replace(' ', ""), OFF);
        assert_eq!(got.actuation.unwrap().request, 7);
        let record = got.decisions()[0];
        assert_eq!((record.outcome, record.verdict), (Some(Outcome::Safe), Some(Verdict::Approved)));
        let text =
            format!("tag temperature reads {reading} C, at or above its trip limit 50 C; safe command");
        assert_eq!(record.reason.as_str(), text);
        assert!(record.actuated);
        assert_eq!(got.status.mode, Mode::Execute, "the reading is the event's, not the plant's");
        assert!(bench.idle().actuation.is_none());
        assert!(bench.ask(WARM).actuation.is_some(), "the next event is judged by itself");
    }
    let mut bench = Bench::running();
    let got = bench.go(Some(Request { dry_run: true, ..measured(8, 95.0) }), &[], None);
    assert!(got.actuation.is_none());
    assert_eq!((got.decisions()[0].outcome, got.decisions()[0].actuated), (Some(Outcome::Safe), false));
}

#[test]
fn an_events_trip_stands_while_the_rule_controller_is_in_control() {
    let mut bench = Bench::running();
    bench.values[1] = 80.0;
    bench.brain = BrainProcess::Restarting;
    assert_eq!(bench.go(None, &[], None).actuation.unwrap().outcome, Outcome::Rule);
    let got = bench.go(Some(measured(7, 95.0)), &[], None);
    assert_eq!(bench.json(&got).unwrap().replace(' ', ""), OFF);
    for _ in 0..5 {
        assert!(bench.go(None, &[], None).actuation.is_none(), "the old rule command is not sent over it");
    }
}

#[test]
fn ask_never_refuses_the_sites_own_safe_command() {
    let bench = Bench::running();
    let off = command(&bench.site, OFF);
    for tags in [[Some(95.0), None], [Some(f64::NAN), Some(80.0)]] {
        assert_eq!(bench.guard.check(&off, &tags).verdict, Verdict::Approved);
    }
    let (outcome, checked) = bench.guard.fallback(&[Some(95.0), Some(80.0)]);
    assert_eq!((outcome, checked.verdict, checked.command), (Outcome::Safe, Verdict::Approved, off));
}

#[test]
fn a_safe_command_still_owed_at_the_start_is_sent_alone() {
    let mut bench = Bench::running();
    bench.values[1] = 80.0;
    bench.brain = BrainProcess::Restarting; // the rule controller would speak at once
    bench.watchdog = DeviceWatchdog::Off;
    bench.go(None, &[], Some(OperatorCommand::Abort));
    for operator in [OperatorCommand::Clear, OperatorCommand::Reset, OperatorCommand::Start] {
        bench.go(None, &[], None);
        assert!(bench.go(None, &[], Some(operator)).actuation.is_none());
    }
    assert_eq!(bench.go(None, &[], None).status.mode, Mode::Starting);
    bench.watchdog = DeviceWatchdog::Armed;
    let got = bench.go(Some(request(7, "x")), &[], None);
    assert_eq!((got.status.mode, got.actuation.unwrap().outcome), (Mode::Execute, Outcome::Safe));
    let sent: Vec<_> = got.decisions().into_iter().filter(|r| r.actuated).collect();
    assert_eq!((sent.len(), sent[0].outcome), (1, Some(Outcome::Safe)), "no record claims more");
    assert_eq!(bench.go(None, &[], None).actuation.unwrap().outcome, Outcome::Rule);
}

#[test]
fn an_unsure_model_is_no_failure_and_its_reason_is_recorded() {
    const WHY: &str = "the model is unsure: confidence 0.2 is below model.confidence = 0.35";
    let mut bench = Bench::running();
    let none = command(&bench.site, r#"{"action":"none"}"#);
    for id in 1..20 {
        let epoch = bench.go(Some(request(id, "make it nice")), &[], None).event.expect("asked").epoch;
        let unsure = Decision { reason: Reason::cut(WHY), confidence: 0.2, ..decision(epoch, Some(none)) };
        let got = bench.go(None, &[unsure], None);
        assert_eq!(got.status.breaker, BreakerState::Closed);
        let record = got.decisions()[0];
        assert_eq!((record.outcome, record.command), (Some(Outcome::Model), Some(none)));
        assert_eq!((record.verdict, record.reason.as_str()), (Some(Verdict::Approved), WHY));
    }
}
