//! Answers one step beside the usual: late, out of turn, from nobody; what is counted and said then.

mod common;
use common::*;
use ganglion_guard::*;
use ganglion_site::{Decision, Outcome};

const WARM: &str = r#"{"action":"set_temperature","celsius":21.5}"#;
const FAN: &str = r#"{"action":"set_fan","room":"office","percent":20}"#;

fn asked(bench: &mut Bench, id: u64, deadline_ms: u32) -> u64 {
    let request = Request { deadline_ms: Some(deadline_ms), ..request(id, "do it") };
    bench.go(Some(request), &[], None).event.expect("asked").epoch
}

fn answer(bench: &Bench, epoch: u64, json: &str) -> Decision {
    decision(epoch, Some(command(&bench.site, json)))
}

#[test]
fn an_answer_seen_behind_its_deadline_says_by_how_much() {
    let mut bench = Bench::running();
    let epoch = asked(&mut bench, 1, 25);
    bench.idle();
    bench.idle();
    // 24 ms, its last look, has not come in the cycle before; now its deadline is over by 5.
    let got = bench.go(None, &[answer(&bench, epoch, WARM)], None);
    let reason = got.decisions()[0].reason.as_str();
    assert!(reason.starts_with("the answer was seen 5 ms after the deadline"), "{reason}");
    let counters = got.status.counters;
    assert_eq!((counters.late_answers, counters.deadline_misses, counters.by_safe), (1, 1, 1));
    // And exactly at it, it counts.
    let mut bench = Bench::running();
    let epoch = asked(&mut bench, 1, 20);
    bench.ms += 10;
    let got = bench.go(None, &[answer(&bench, epoch, WARM)], None);
    assert_eq!(got.actuation.unwrap().outcome, Outcome::Model);
    assert_eq!(got.status.counters.deadline_misses, 0);
}

#[test]
fn messages_of_nobody_and_of_nothing_are_counted_one_by_one() {
    let mut bench = Bench::running();
    bench.brain = BrainProcess::Restarting;
    let message = answer(&bench, 1, WARM);
    assert_eq!(bench.go(None, &[message; 3], None).status.counters.unexpected_answers, 3, "no brain runs");
    let mut bench = Bench::running();
    let epoch = asked(&mut bench, 1, 50);
    let messages = [answer(&bench, epoch + 1, WARM), answer(&bench, epoch, WARM), answer(&bench, epoch, FAN)];
    let got = bench.go(None, &messages, None);
    assert_eq!(got.actuation.unwrap().outcome, Outcome::Model);
    let counters = got.status.counters;
    assert_eq!((counters.unexpected_answers, counters.late_answers, counters.actuated), (1, 1, 1));
}

#[test]
fn no_more_messages_are_taken_in_a_cycle_than_there_is_time_for() {
    let mut bench = Bench::running();
    let epoch = asked(&mut bench, 1, 50);
    let mut messages = vec![decision(0, None); limits::DECISIONS_PER_CYCLE_MAX];
    messages.push(answer(&bench, epoch, WARM));
    assert!(bench.go(None, &messages, None).actuation.is_none(), "left for another cycle");
    assert!(bench.go(None, &messages[1..], None).actuation.is_some());
}

#[test]
fn what_sends_nothing_needs_no_turn() {
    // Two answers in one cycle: the second one is settled at once when there is nothing to be sent for it.
    let none = r#"{"action":"none"}"#;
    for (second, dry_run) in [(none, false), (FAN, true), (none, true)] {
        let mut bench = Bench::running();
        let first = asked(&mut bench, 1, 50);
        let request = Request { dry_run, deadline_ms: Some(50), ..request(2, "do it") };
        let epoch = bench.go(Some(request), &[], None).event.unwrap().epoch;
        let got = bench.go(None, &[answer(&bench, first, WARM), answer(&bench, epoch, second)], None);
        assert_eq!(got.decisions().len(), 2, "{second} {dry_run}");
        assert!(!bench.guard.has_backlog());
    }
    // Else it waits, and is answered even if its deadline passes meanwhile.
    let mut bench = Bench::running();
    bench.values[1] = 80.0;
    let first = asked(&mut bench, 1, 50);
    let second = asked(&mut bench, 2, 15);
    let got = bench.go(None, &[answer(&bench, first, WARM), answer(&bench, second, FAN)], None);
    assert_eq!((got.decisions().len(), bench.guard.has_backlog()), (1, true));
    let got = bench.idle();
    let record = got.decisions()[0];
    assert_eq!((record.request, record.outcome), (2, Some(Outcome::Rule)));
    let why = "the answer waited for another command until after the deadline";
    assert_eq!(record.reason.as_str(), why);
    assert_eq!(got.status.counters.deadline_misses, 1);
    assert_eq!(got.status.breaker, BreakerState::Closed);
}

#[test]
fn confidence_is_a_share() {
    for (confidence, sound) in
        [(0.0, true), (1.0, true), (1.001, false), (-0.001, false), (f32::NAN, false), (f32::INFINITY, false)]
    {
        let mut bench = Bench::running();
        let epoch = asked(&mut bench, 1, 50);
        let got = bench.go(None, &[Decision { confidence, ..answer(&bench, epoch, WARM) }], None);
        assert_eq!(got.actuation.is_some(), sound, "{confidence}");
        assert_eq!(got.status.counters.malformed_answers, u64::from(!sound), "{confidence}");
    }
}

#[test]
fn a_brain_that_says_it_ran_out_of_time_is_no_faulty_one() {
    let mut bench = Bench::running();
    for count in 1..=5 {
        let epoch = asked(&mut bench, count, 50);
        let reason = ganglion_site::Reason::cut(Decision::EXPIRED);
        let got = bench.go(None, &[Decision { reason, ..decision(epoch, None) }], None);
        assert_eq!(got.status.counters.deadline_misses, count);
        assert_eq!(got.status.breaker, BreakerState::Closed);
        assert!(got.decisions()[0].reason.as_str().starts_with("the brain: "), "{got:?}");
    }
}

#[test]
fn a_brain_has_two_minutes_to_come_up_and_is_announced_once() {
    let mut bench = Bench::new();
    let told = |got: &Got| -> Vec<String> {
        let brain = got.records.iter().filter(|record| record.kind == RecordKind::Brain);
        brain.map(|record| record.reason.as_str().to_owned()).collect()
    };
    bench.go(None, &[], None);
    bench.ms += limits::BRAIN_START_US_MAX / 1000 - 10;
    let got = bench.go(None, &[], None);
    assert_eq!(
        (got.status.brain, got.brain),
        (BrainState::Starting, BrainAction::Keep),
        "at the last moment"
    );
    bench.ms -= 9;
    let got = bench.go(None, &[], None);
    assert_eq!(got.status.brain, BrainState::Lost);
    assert_eq!(got.brain, BrainAction::KillAndRestart { generation: 1 });
    assert_eq!(told(&got), ["the brain did not come up in 120 s; killed"]);
    assert_eq!(got.status.counters.brain_losses, 1);
    bench.brain = BrainProcess::Running { generation: 2 };
    let got = bench.go(None, &[], None);
    assert_eq!((got.status.brain, got.brain), (BrainState::Starting, BrainAction::Keep));
    assert_eq!(told(&bench.idle()), ["the brain is ready"]);
    assert!(told(&bench.idle()).is_empty(), "once");
    bench.brain = BrainProcess::Running { generation: 3 };
    assert_eq!(told(&bench.go(None, &[], None)), ["the brain's process ended"]);
    assert_eq!(told(&bench.idle()), ["the brain is ready"]);
}

#[test]
fn silence_is_told_in_ms_and_counts_from_what_is_still_due() {
    // Site: 50 ms without a word.
    let mut bench = Bench::running();
    bench.idle();
    for _ in 0..5 {
        assert_eq!(bench.go(None, &[], None).status.brain, BrainState::Ready);
    }
    let got = bench.go(None, &[], None);
    assert_eq!(got.status.brain, BrainState::Lost);
    let said = got.records.iter().find(|record| record.kind == RecordKind::Brain).unwrap();
    assert_eq!(said.reason.as_str(), "the brain has been silent for 60 ms; killed");
    // While it thinks, until the deadline and the timeout after it; a second question does not prolong that.
    let mut bench = Bench::running();
    asked(&mut bench, 1, 30);
    let due = bench.ms + 30;
    asked(&mut bench, 2, 50);
    while bench.go(None, &[], None).status.brain == BrainState::Ready {}
    assert_eq!(bench.ms, due + 60);
}

#[test]
fn commands_share_outputs_by_their_registers_and_without_any_by_their_name() {
    // Two commands of one register, and one that writes none.
    let more = "[[command]]\nname = \"cool\"\narguments = [{ name = \"celsius\", number = [5, 60], step = 0.5 }]\n\
                writes = [{ holding = 0, value = \"celsius\", scale = 0.1 }]\n\
                [[command]]\nname = \"note\"\narguments = [{ name = \"words\", text = 8 }]\n";
    let text =
        SITE.replace("[[command]]\nname = \"all_off\"", &format!("{more}[[command]]\nname = \"all_off\""));
    let cool = r#"{"action":"cool","celsius":18}"#;
    let (one, two) = (r#"{"action":"note","words":"a"}"#, r#"{"action":"note","words":"b"}"#);
    for (young, old, superseded) in [
        (WARM, cool, true),
        (cool, WARM, true),
        (one, two, true),
        (one, WARM, false),
        (WARM, one, false),
        (FAN, WARM, false),
    ] {
        let mut bench = Bench::of(parse(&text), &[20.0, 30.0]).started();
        let first = asked(&mut bench, 1, 50);
        let second = asked(&mut bench, 2, 50);
        assert!(bench.go(None, &[answer(&bench, second, young)], None).actuation.is_some());
        let got = bench.go(None, &[answer(&bench, first, old)], None);
        assert_eq!(got.actuation.is_none(), superseded, "{old} after {young}");
        assert_eq!(got.status.counters.superseded, u64::from(superseded));
    }
}

#[test]
fn a_brain_may_think_until_the_next_deadline_that_is_still_due() {
    // The one that is answered is due no more; the other one gives the brain time until its own deadline.
    let mut bench = Bench::running();
    let first = asked(&mut bench, 1, 25);
    asked(&mut bench, 2, 50);
    let due = bench.ms + 50;
    bench.go(None, &[answer(&bench, first, WARM)], None);
    while bench.go(None, &[], None).status.brain == BrainState::Ready {}
    assert_eq!(bench.ms, due + 60, "50 ms of silence after that, seen in the next cycle");
    // With nothing to do it says so, or is lost.
    let mut bench = Bench::running();
    let only = asked(&mut bench, 1, 50);
    bench.go(None, &[answer(&bench, only, WARM)], None);
    let heard = bench.ms;
    while bench.go(None, &[], None).status.brain == BrainState::Ready {}
    assert_eq!(bench.ms, heard + 60);
}

#[test]
fn a_trigger_whose_event_is_not_answered_asks_no_other() {
    let trigger = |name: &str, tag: &str| {
        format!("[[trigger]]\nname = \"{name}\"\nchange = \"{tag}\"\nby = 1\npause_ms = 1\n")
    };
    let text = SITE.replace("deadline_ms = 20", "deadline_ms = 50")
        + &trigger("p", "price")
        + &trigger("t", "temperature");
    let mut bench = Bench::of(parse(&text), &[20.0, 30.0]).started();
    bench.idle();
    bench.values[1] = 32.0;
    let event = bench.idle().event.expect("asked");
    bench.values[1] = 34.0;
    for _ in 0..3 {
        assert!(bench.idle().event.is_none(), "one at a time");
    }
    bench.values[0] = 22.0;
    assert!(bench.idle().event.is_some(), "but another trigger's");
    assert_eq!(bench.guard.status().counters.triggers[..2], [1, 1]);
    let none = answer(&bench, event.epoch, r#"{"action":"none"}"#);
    let got = bench.go(None, &[none], None);
    assert!(got.event.is_some(), "what has changed meanwhile is asked now");
    assert_eq!(got.status.counters.triggers[..2], [2, 1]);
}

#[test]
fn the_safe_command_is_never_superseded_and_a_rules_is() {
    let mut bench = Bench::running();
    asked(&mut bench, 1, 50);
    asked(&mut bench, 2, 15);
    bench.idle();
    let got = bench.idle();
    assert_eq!((got.decisions()[0].request, got.actuation.unwrap().outcome), (2, Outcome::Safe));
    let mut got = bench.idle();
    while got.decisions().is_empty() {
        got = bench.idle();
    }
    assert_eq!((got.decisions()[0].request, got.actuation.unwrap().outcome), (1, Outcome::Safe));
    assert_eq!(got.status.counters.superseded, 0);
    // A rule's answer to an older event, after a younger one's to the same output.
    let mut bench = Bench::running();
    bench.values[1] = 80.0;
    asked(&mut bench, 1, 30);
    let young = asked(&mut bench, 2, 50);
    bench.go(None, &[answer(&bench, young, FAN)], None);
    let got = bench.idle();
    assert_eq!((got.decisions()[0].request, got.decisions()[0].actuated), (1, false));
    assert_eq!(got.status.counters.superseded, 1);
}

#[test]
fn an_events_own_trip_finds_the_cycles_place_taken_and_is_refused() {
    let mut bench = Bench::running();
    let epoch = asked(&mut bench, 1, 50);
    let mut tags = ganglion_site::TagValues::NONE;
    tags.set(0, 60.0);
    let trip = Request { tags, ..request(2, "it is hot") };
    let got = bench.go(Some(trip), &[answer(&bench, epoch, WARM)], None);
    let refused = got.decisions().into_iter().find(|record| record.request == 2).unwrap();
    assert!(
        refused.reason.as_str().starts_with("busy: another command was sent in this cycle; tag temperature")
    );
    assert_eq!((got.actuation.unwrap().outcome, got.status.counters.busy), (Outcome::Model, 1));
    let got = bench.go(Some(trip), &[decision(0, None)], None);
    assert_eq!((got.actuation.unwrap().outcome, got.status.counters.busy), (Outcome::Safe, 1));
}

#[test]
fn a_rules_answer_finds_the_cycles_place_taken_but_for_a_dry_run() {
    for dry_run in [false, true] {
        let mut bench = Bench::running();
        let epoch = asked(&mut bench, 1, 50);
        // Its own reading cannot be used, so that the model is not asked.
        let mut tags = ganglion_site::TagValues::NONE;
        tags.set(1, 900.0);
        let event = Request { dry_run, tags, ..request(2, "warm it") };
        let got = bench.go(Some(event), &[answer(&bench, epoch, WARM)], None);
        let record = got.decisions().into_iter().find(|record| record.request == 2).unwrap();
        assert_eq!(record.reason.as_str().starts_with("busy: another command"), !dry_run, "{record:?}");
        assert_eq!((record.actuated, got.actuation.unwrap().outcome), (false, Outcome::Model));
    }
}
