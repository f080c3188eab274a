//! Several events in flight at once: deadlines of their own, turns, and who has the last word.

mod common;
use common::*;
use ganglion_guard::*;
use ganglion_site::{Command, Decision, Outcome, Reason};
use proptest::prelude::*;

const WARM: &str = r#"{"action":"set_temperature","celsius":21.5}"#;
const KITCHEN: &str = r#"{"action":"set_fan","room":"kitchen","percent":10}"#;
const OFFICE: &str = r#"{"action":"set_fan","room":"office","percent":20}"#;

/// Asks `count` events in as many cycles, with a deadline of `ms`; their epochs.
fn ask(bench: &mut Bench, count: u64, ms: u32) -> Vec<u64> {
    let asked = (0..count).map(|i| {
        let request = Request { deadline_ms: Some(ms), ..request(100 + i, "do it") };
        bench.go(Some(request), &[], None).event.expect("asked").epoch
    });
    asked.collect()
}

fn answer(bench: &Bench, epoch: u64, json: &str) -> Decision {
    decision(epoch, Some(command(&bench.site, json)))
}

fn sent(bench: &Bench, got: &Got) -> String {
    bench.json(got).unwrap_or_default().replace(' ', "")
}

#[test]
fn each_answer_finds_its_event_in_any_order() {
    let mut bench = Bench::running();
    let epochs = ask(&mut bench, 3, 50);
    assert_eq!(bench.guard.status().pending, 3);
    for (place, json) in [(1, KITCHEN), (0, WARM), (2, OFFICE)] {
        let decision = answer(&bench, epochs[place], json);
        let got = bench.go(None, &[decision], None);
        assert_eq!(sent(&bench, &got), json);
        let record = got.decisions()[0];
        assert_eq!((record.request, record.actuated), (100 + place as u64, true));
    }
    assert_eq!(bench.guard.status().pending, 0);
    assert_eq!(bench.guard.status().counters.deadline_misses, 0);
}

#[test]
fn answers_that_come_together_take_turns_in_the_order_of_asking() {
    let mut bench = Bench::running();
    let epochs = ask(&mut bench, 3, 50);
    let together: Vec<_> = [(2, OFFICE), (0, WARM), (1, KITCHEN)]
        .iter()
        .map(|(place, json)| answer(&bench, epochs[*place], json))
        .collect();
    let got = bench.go(None, &together, None);
    assert_eq!(sent(&bench, &got), WARM);
    assert!(bench.guard.has_backlog());
    assert_eq!(bench.guard.next_wake_us(), Some(bench.now()), "the next cycle is wanted at once");
    let got = bench.go(None, &[], None);
    assert_eq!(sent(&bench, &got), KITCHEN);
    let got = bench.go(None, &[], None);
    assert_eq!(sent(&bench, &got), OFFICE);
    assert!(!bench.guard.has_backlog());
    assert_eq!(bench.guard.status().counters.actuated, 3);
}

#[test]
fn an_older_event_does_not_overwrite_a_younger_ones_command() {
    let mut bench = Bench::running();
    let epochs = ask(&mut bench, 3, 50);
    let young = answer(&bench, epochs[2], r#"{"action":"set_temperature","celsius":24}"#);
    assert!(bench.go(None, &[young], None).actuation.is_some());
    // The same register.
    let old = answer(&bench, epochs[0], WARM);
    let got = bench.go(None, &[old], None);
    assert!(got.actuation.is_none());
    let record = got.decisions()[0];
    assert_eq!((record.verdict, record.actuated), (Some(Verdict::Approved), false));
    assert!(
        record.reason.as_str().starts_with("superseded: a younger event's"),
        "{}",
        record.reason.as_str()
    );
    assert_eq!(got.status.counters.superseded, 1);
    // Another one.
    let other = answer(&bench, epochs[1], KITCHEN);
    assert!(bench.go(None, &[other], None).actuation.is_some(), "another output is free");
    // A later event is not held back by any of it.
    let got = bench.ask(WARM);
    assert_eq!(sent(&bench, &got), WARM);
}

#[test]
fn nor_does_an_older_events_rule() {
    let mut bench = Bench::running();
    bench.values[1] = 80.0; // the rule: office 20 %
    let old = ask(&mut bench, 1, 30)[0];
    let young = ask(&mut bench, 1, 50)[0];
    let decision = answer(&bench, young, r#"{"action":"set_fan","room":"office","percent":30}"#);
    let got = bench.go(None, &[decision], None);
    assert!(got.actuation.is_some());
    let record = got.decisions()[0].request;
    assert_eq!(record, 100, "the younger one");
    let got = bench.idle();
    let late: Vec<_> = got.decisions().into_iter().filter(|r| r.outcome == Some(Outcome::Rule)).collect();
    assert_eq!(late.len(), 1, "event {old} is answered all the same");
    assert!(
        !late[0].actuated && late[0].reason.as_str().contains("superseded"),
        "{}",
        late[0].reason.as_str()
    );
}

#[test]
fn the_safe_command_is_not_undone_by_what_was_asked_before_it() {
    let mut bench = Bench::running();
    let old = ask(&mut bench, 1, 50)[0];
    // The event's own reading is beyond a trip limit.
    let mut tags = ganglion_site::TagValues::NONE;
    tags.set(0, 55.0);
    let got = bench.go(Some(Request { tags, ..request(7, "hot") }), &[], None);
    assert_eq!(got.actuation.unwrap().outcome, Outcome::Safe);
    let decision = answer(&bench, old, WARM);
    let got = bench.go(None, &[decision], None);
    assert!(got.actuation.is_none());
    assert!(got.decisions()[0].reason.as_str().starts_with("superseded"));
    let got = bench.ask(WARM);
    assert_eq!(sent(&bench, &got), WARM, "what is asked now may act");
}

#[test]
fn each_event_has_its_own_deadline() {
    let mut bench = Bench::running();
    bench.values[1] = 80.0;
    let slow = ask(&mut bench, 1, 50)[0];
    let got = bench.go(Some(Request { deadline_ms: Some(15), ..request(7, "x") }), &[], None);
    assert!(got.event.unwrap().deadline_us < bench.now() + 15_000);
    assert_eq!(bench.guard.next_wake_us().unwrap(), bench.now() + 14_000, "the first of the two");
    bench.idle();
    let got = bench.idle();
    assert_eq!((got.decisions()[0].request, got.decisions()[0].outcome), (7, Some(Outcome::Rule)));
    assert_eq!(got.status.counters.deadline_misses, 1);
    let decision = answer(&bench, slow, WARM);
    let got = bench.go(None, &[decision], None);
    assert_eq!(sent(&bench, &got), WARM);
}

#[test]
fn the_table_is_bounded() {
    let mut bench = Bench::running();
    for i in 0..limits::PENDING_MAX as u64 {
        bench.ms -= 9;
        assert!(
            bench.go(Some(Request { deadline_ms: Some(50), ..request(i, "x") }), &[], None).event.is_some()
        );
    }
    let got = bench.go(Some(request(9, "one more")), &[], None);
    assert!(got.event.is_none());
    assert_eq!(got.decisions()[0].reason.as_str(), "busy: 8 events are still waiting for their answers");
    assert_eq!(got.status.counters.busy, 1);
}

#[test]
fn a_stop_drops_them_all_and_says_so() {
    let mut bench = Bench::running();
    let epochs = ask(&mut bench, 4, 50);
    bench.estop = true;
    let got = bench.idle();
    assert_eq!(got.actuation.unwrap().outcome, Outcome::Safe);
    let refused: Vec<_> = got.decisions().iter().filter(|r| r.request >= 100).map(|r| r.request).collect();
    assert_eq!(refused, [100, 101, 102, 103]);
    let all: Vec<_> = epochs.iter().map(|epoch| answer(&bench, *epoch, WARM)).collect();
    let got = bench.go(None, &all, None);
    assert!(got.actuation.is_none_or(|a| a.outcome == Outcome::Safe));
    assert_eq!(got.status.counters.late_answers, 4);
}

#[test]
fn when_the_breaker_opens_the_rules_answer_what_is_left() {
    let mut bench = Bench::running();
    bench.values[1] = 80.0;
    let epochs = ask(&mut bench, 5, 50);
    let bad = |epoch| Decision { confidence: f32::NAN, ..decision(epoch, None) };
    let good = answer(&bench, epochs[4], WARM);
    let got = bench.go(None, &[bad(epochs[0]), bad(epochs[1]), bad(epochs[2]), good], None);
    assert_eq!(got.status.breaker, BreakerState::Open);
    let mut records: Vec<Record> = got.decisions().into_iter().copied().collect();
    let mut outcomes: Vec<_> = got.actuation.iter().map(|a| a.outcome).collect();
    for _ in 0..4 {
        let got = bench.go(None, &[], None);
        records.extend(got.decisions().into_iter().copied());
        outcomes.extend(got.actuation.iter().map(|a| a.outcome));
    }
    for id in [103, 104] {
        let of: Vec<_> = records.iter().filter(|r| r.request == id).collect();
        assert_eq!(of.len(), 1);
        assert_eq!(of[0].outcome, Some(Outcome::Rule), "{}", of[0].reason.as_str());
        assert!(of[0].reason.as_str().contains("the breaker is open"), "{}", of[0].reason.as_str());
    }
    assert!(!outcomes.is_empty() && outcomes.iter().all(|outcome| *outcome == Outcome::Rule));
}

#[test]
fn a_lost_brain_leaves_every_event_to_the_rules_one_command_a_cycle() {
    let mut bench = Bench::running();
    bench.values[1] = 80.0;
    ask(&mut bench, 4, 50);
    bench.brain = BrainProcess::Restarting;
    let mut answered = Vec::new();
    for _ in 0..4 {
        let got = bench.go(None, &[], None);
        let mine: Vec<_> =
            got.decisions().iter().filter(|r| r.request >= 100).map(|r| (r.request, r.actuated)).collect();
        answered.extend(mine);
    }
    assert_eq!(answered, [(100, true), (101, true), (102, true), (103, true)]);
}

#[test]
fn an_answer_that_says_that_time_ran_out_is_the_rules_to_give() {
    let mut bench = Bench::running();
    bench.values[1] = 80.0;
    let epoch = ask(&mut bench, 1, 50)[0];
    let late = Decision { reason: Reason::cut(Decision::EXPIRED), ..decision(epoch, None) };
    let got = bench.go(None, &[late], None);
    assert_eq!(got.actuation.unwrap().outcome, Outcome::Rule);
    assert_eq!(got.status.counters.deadline_misses, 1);
}

/// What a random run asks of the guard and of the brain.
#[derive(Debug, Clone)]
enum Step {
    Ask {
        deadline_ms: u32,
        dry: bool,
    },
    /// Answers the waiting event at this place with one of a few commands.
    Answer {
        place: usize,
        command: usize,
    },
    Quiet,
    Stop,
}

fn steps() -> impl Strategy<Value = Vec<Vec<Step>>> {
    let step = prop_oneof![
        4 => (10u32..50, prop::bool::weighted(0.2)).prop_map(|(deadline_ms, dry)| Step::Ask { deadline_ms, dry }),
        5 => (0usize..8, 0usize..6).prop_map(|(place, command)| Step::Answer { place, command }),
        2 => Just(Step::Quiet),
        1 => Just(Step::Stop),
    ];
    prop::collection::vec(prop::collection::vec(step, 0..6), 1..60)
}

fn choices(bench: &Bench) -> Vec<Option<Command>> {
    let fan = r#"{"action":"set_fan","room":"office","percent":20}"#;
    let hot = r#"{"action":"set_temperature","celsius":40}"#;
    let all = [WARM, KITCHEN, fan, hot, r#"{"action":"none"}"#];
    all.iter().map(|json| Some(command(&bench.site, json))).chain([None]).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Every event gets exactly one record, whatever comes when; no output follows an older event after a younger one;
    /// nothing of the model's goes out after its deadline, and nothing of a dry run at all.
    #[test]
    fn every_event_is_answered_once_and_the_younger_has_the_last_word(run in steps()) {
        let mut bench = Bench::running();
        let choices = choices(&bench);
        let (mut asked, mut records) = (Vec::new(), Vec::new());
        let mut waiting: Vec<(u64, u64, bool)> = Vec::new(); // epoch, deadline, dry
        let mut last = std::collections::HashMap::<(u16, u16), u64>::new();
        let mut id = 0;
        let quiet = std::iter::repeat_n(Vec::new(), 12);
        for cycle in run.into_iter().chain(quiet) {
            let (mut event, mut decisions, mut operator) = (None, Vec::new(), None);
            for step in cycle {
                match step {
                    Step::Ask { deadline_ms, dry } if event.is_none() => {
                        id += 1;
                        event = Some(Request { dry_run: dry, deadline_ms: Some(deadline_ms), ..request(id, "x") });
                    }
                    Step::Answer { place, command } => {
                        if let Some((epoch, ..)) = waiting.get(place) {
                            decisions.push(decision(*epoch, choices[command]));
                        }
                    }
                    Step::Stop => operator = Some(OperatorCommand::Hold),
                    _ => {}
                }
            }
            if bench.guard.status().mode == Mode::Held {
                operator = Some(OperatorCommand::Unhold);
            }
            decisions.push(decision(0, None));
            decisions.truncate(limits::DECISIONS_PER_CYCLE_MAX);
            asked.extend(event.iter().map(|e| e.id));
            let got = bench.go(event, &decisions, operator);
            if let Some(event) = got.event.filter(|event| event.client == 0) {
                waiting.push((event.epoch, event.deadline_us, event.dry_run));
            }
            records.extend(got.decisions().iter().map(|r| r.request).filter(|id| *id != 0));
            prop_assert_eq!(got.status.counters.records_dropped, 0);
            if let Some(actuation) = got.actuation {
                let command = actuation.approved.get();
                if actuation.epoch != 0 {
                    let (_, deadline, dry) = waiting.iter().find(|(e, ..)| *e == actuation.epoch).unwrap();
                    prop_assert!(!dry);
                    // The brain is told 10 ms less at most; the guard's own deadline is that much later.
                    let late = actuation.outcome == Outcome::Model && bench.now() > deadline + 10_000;
                    prop_assert!(!late, "{} > {deadline}", bench.now());
                }
                if actuation.outcome != Outcome::Safe {
                    let stamp = if actuation.epoch == 0 { u64::MAX } else { actuation.epoch };
                    for write in register_writes(&bench.site, command).unwrap().iter() {
                        let key = (u16::from(write.target == ganglion_site::WriteTarget::Coil), write.address);
                        let before = last.insert(key, if stamp == u64::MAX { 0 } else { stamp });
                        prop_assert!(before.is_none_or(|before| before <= stamp), "{before:?} {stamp}");
                    }
                }
            }
        }
        records.sort_unstable();
        prop_assert_eq!(records, asked);
        prop_assert_eq!(bench.guard.status().pending, 0);
    }
}

/// Without a brain two sentences are answered by rule. Where the one cycle's command is taken, the second is told so.
#[test]
fn a_rules_answer_behind_another_command_of_its_cycle_is_refused_as_busy() {
    let mut bench = Bench::running();
    bench.brain = BrainProcess::Restarting;
    bench.values[0] = 10.0;
    let got = bench.go(Some(request(1, "do it")), &[], None);
    let sent = got.actuation.is_some();
    let answers: Vec<_> = got.decisions().into_iter().cloned().collect();
    for answer in &answers {
        let approved = answer.verdict == Some(Verdict::Approved);
        assert_eq!(approved, answer.actuated, "{}", answer.reason.as_str());
    }
    assert!(sent && !answers.is_empty());
}
