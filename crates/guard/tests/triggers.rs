//! Triggers make events by themselves, and no floods.

mod common;
use common::*;
use ganglion_guard::*;
use ganglion_site::Outcome;
use proptest::prelude::*;

const TRIGGERS: &str = r#"
[[trigger]]
name = "price"
change = "price"
by = 5
say = "the power price changed"
pause_ms = 100
[[trigger]]
name = "hot"
when = "temperature > 30 for 50 ms"
until = "temperature < 25"
pause_ms = 100
[[trigger]]
name = "watch"
every_ms = 1000
"#;

fn bench(triggers: &str) -> Bench {
    Bench::of(parse(&format!("{SITE}{triggers}")), &[20.0, 30.0]).started()
}

/// One cycle with a brain that answers everything at once; the names of the triggers that asked.
fn cycle(bench: &mut Bench, waiting: &mut Vec<u64>) -> Vec<String> {
    let none = command(&bench.site, r#"{"action":"none"}"#);
    let mut answers: Vec<_> = waiting.drain(..).map(|epoch| decision(epoch, Some(none))).collect();
    answers.push(decision(0, None));
    let got = bench.go(None, &answers, None);
    waiting.extend(got.event.iter().map(|event| event.epoch));
    let asked = got.decisions().into_iter().filter_map(|r| r.source.trigger(&bench.site).map(str::to_owned));
    asked.collect()
}

fn cycles(bench: &mut Bench, count: u64) -> Vec<(u64, String)> {
    let mut waiting = Vec::new();
    let mut all = Vec::new();
    for _ in 0..count {
        let asked = cycle(bench, &mut waiting);
        all.extend(asked.into_iter().map(|name| (bench.ms, name)));
    }
    all
}

fn names(asked: &[(u64, String)]) -> Vec<&str> {
    asked.iter().map(|(_, name)| name.as_str()).collect()
}

#[test]
fn a_change_by_the_deadband_asks_once() {
    let mut bench = bench(TRIGGERS);
    assert!(cycles(&mut bench, 50).is_empty(), "idle asks nothing");
    assert_eq!(bench.guard.status().counters.events, 0);
    bench.values[1] = 34.9;
    assert!(cycles(&mut bench, 20).is_empty());
    bench.values[1] = 35.0;
    let got = bench.go(None, &[decision(0, None)], None);
    let event = got.event.expect("a question went out in that very cycle");
    assert_eq!(event.sentence.as_str(), "the power price changed");
    assert_eq!(event.tag(1), Some(35.0), "with the readings of the prompt");
    assert!(!event.dry_run);
    let warm = command(&bench.site, r#"{"action":"set_temperature","celsius":21.5}"#);
    let got = bench.go(None, &[decision(event.epoch, Some(warm))], None);
    assert_eq!(got.actuation.expect("judged and sent as any other").outcome, Outcome::Model);
    let record = got.decisions()[0];
    assert_eq!((record.source, record.request), (Source::Trigger(0), 0));
    assert_eq!(record.source.trigger(&bench.site), Some("price"));
    assert!(cycles(&mut bench, 20).is_empty(), "from now on 35 is what counts");
    assert_eq!(bench.guard.status().counters.triggers[0], 1);
}

#[test]
fn a_condition_asks_when_it_begins_and_again_after_it_has_ended() {
    let mut bench = bench(TRIGGERS);
    cycles(&mut bench, 10);
    bench.values[0] = 31.0;
    assert!(cycles(&mut bench, 5).is_empty(), "not for 50 ms yet");
    assert_eq!(names(&cycles(&mut bench, 10)), ["hot"]);
    for value in [29.0, 31.0, 26.0, 35.0] {
        bench.values[0] = value;
        assert!(cycles(&mut bench, 10).is_empty(), "{value}: `until` has not held");
    }
    bench.values[0] = 24.0;
    cycles(&mut bench, 2);
    bench.values[0] = 31.0;
    assert_eq!(names(&cycles(&mut bench, 10)), ["hot"]);
}

#[test]
fn a_period_asks_on_time_and_does_not_catch_up() {
    let mut bench = bench(TRIGGERS);
    let from = bench.ms;
    let asked = cycles(&mut bench, 350);
    assert_eq!(names(&asked), ["watch", "watch", "watch"]);
    assert!(asked[0].0 - from >= 990 && asked[1].0 - asked[0].0 >= 1000, "{asked:?}");
    // A pause of the plant is not made up for.
    bench.go(None, &[decision(0, None)], Some(OperatorCommand::Hold));
    assert!(cycles(&mut bench, 500).is_empty(), "commands are taken in Execute only");
    bench.go(None, &[decision(0, None)], Some(OperatorCommand::Unhold));
    assert!(cycles(&mut bench, 95).is_empty());
    assert_eq!(names(&cycles(&mut bench, 20)), ["watch"]);
}

#[test]
fn a_flapping_tag_makes_no_flood() {
    let mut bench = bench(TRIGGERS);
    let mut waiting = Vec::new();
    let mut asked = Vec::new();
    for i in 0..500 {
        bench.values[1] = if i % 2 == 0 { 30.0 } else { 60.0 };
        let names = cycle(&mut bench, &mut waiting);
        asked.extend(names.into_iter().filter(|name| name == "price").map(|_| bench.ms));
    }
    assert!((30..=51).contains(&asked.len()), "5 s at most every 100 ms: {}", asked.len());
    assert!(asked.windows(2).all(|pair| pair[1] - pair[0] >= 100));
}

#[test]
fn a_tag_that_cannot_be_used_has_not_changed() {
    let mut bench = bench(TRIGGERS);
    cycles(&mut bench, 5);
    bench.values[1] = f64::NAN;
    assert!(cycles(&mut bench, 20).is_empty());
    bench.values[1] = 32.0;
    assert!(cycles(&mut bench, 20).is_empty(), "within the deadband of the last usable reading");
    bench.values[1] = 40.0;
    assert_eq!(names(&cycles(&mut bench, 5)), ["price"]);
}

#[test]
fn while_the_rules_are_in_control_nobody_is_asked() {
    let mut bench = bench(TRIGGERS);
    bench.brain = BrainProcess::Restarting;
    for _ in 0..50 {
        bench.values[1] += 6.0;
        assert!(bench.go(None, &[], None).event.is_none());
    }
    assert_eq!(bench.guard.status().counters.triggers[0], 0);
}

#[test]
fn people_find_a_place_beside_any_number_of_triggers() {
    let many: String = (0..12)
        .map(|i| format!("[[trigger]]\nname = \"t{i}\"\nchange = \"price\"\nby = 1\npause_ms = 1\n"))
        .collect();
    let mut bench = Bench::of(
        parse(&format!("{}{many}", SITE.replace("deadline_ms = 20", "deadline_ms = 50"))),
        &[20.0, 30.0],
    )
    .started();
    let mut asked = 0;
    for _ in 0..4 {
        bench.values[1] += 2.0;
        asked += u32::from(bench.go(None, &[], None).event.is_some());
    }
    bench.values[1] += 2.0;
    assert_eq!(asked, 4);
    assert!(bench.go(None, &[], None).event.is_none(), "no more than half of the table");
    let got = bench.go(Some(request(1, "warm")), &[], None);
    assert_eq!(got.event.expect("a sentence goes out").sentence.as_str(), "warm");
    // All of them have their turn: the one that has waited longest is next.
    let mut bench = Bench::of(bench.site.clone(), &[20.0, 30.0]).started();
    bench.values[1] = 40.0;
    let mut order: Vec<_> = cycles(&mut bench, 40).into_iter().map(|(_, name)| name).collect();
    order.sort_unstable();
    order.dedup();
    assert_eq!(order.len(), 12, "{order:?}");
}

#[test]
fn a_question_of_a_trigger_is_never_acted_on() {
    let text = "[[trigger]]\nname = \"ask\"\nchange = \"price\"\nby = 5\nsay = \"is it dear?\"\n";
    let mut bench = bench(text);
    bench.idle();
    bench.values[1] = 60.0;
    let event = bench.go(None, &[], None).event.unwrap();
    assert!(event.dry_run);
    let warm = command(&bench.site, r#"{"action":"set_temperature","celsius":21.5}"#);
    assert!(bench.go(None, &[decision(event.epoch, Some(warm))], None).actuation.is_none());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Against the definition, written down once more: never closer than the pause, never without a change of the deadband
    /// since the event before, never outside Execute; and a change that stays is asked about within the pause and an answer.
    #[test]
    fn a_change_trigger_keeps_its_word(
        prices in prop::collection::vec((0i32..40, 1u32..6, prop::bool::weighted(0.1)), 1..80),
    ) {
        let mut bench = bench("[[trigger]]\nname = \"p\"\nchange = \"price\"\nby = 5\npause_ms = 70\n");
        bench.idle();
        let mut reference = bench.values[1];
        let (mut last_ms, mut away_from, mut waiting, mut count) = (None::<u64>, None::<u64>, Vec::new(), 0u32);
        for (price, stay, hold) in prices {
            bench.values[1] = f64::from(price);
            if hold {
                bench.go(None, &[decision(0, None)], Some(OperatorCommand::Hold));
                bench.go(None, &[decision(0, None)], Some(OperatorCommand::Unhold));
                bench.idle();
                prop_assert_eq!(bench.guard.status().mode, Mode::Execute);
                (reference, last_ms, away_from) = (f64::from(price), None, None);
                waiting.clear();
                count = bench.guard.status().counters.triggers[0];
            }
            for _ in 0..stay {
                cycle(&mut bench, &mut waiting);
                let asked = bench.guard.status().counters.triggers[0] > count;
                count = bench.guard.status().counters.triggers[0];
                let far = (f64::from(price) - reference).abs() >= 5.0;
                if asked {
                    prop_assert!(far, "{price} from {reference}");
                    prop_assert!(last_ms.is_none_or(|last| bench.ms - last >= 70));
                    (reference, last_ms, away_from) = (f64::from(price), Some(bench.ms), None);
                } else if far {
                    let since = *away_from.get_or_insert(bench.ms);
                    prop_assert!(bench.ms - since <= 80, "{} ms at {price} from {reference}", bench.ms - since);
                } else {
                    away_from = None;
                }
            }
        }
    }
}

#[test]
fn a_trigger_lets_a_person_go_first_and_asks_in_the_next_cycle() {
    let mut bench = bench("[[trigger]]\nname = \"p\"\nchange = \"price\"\nby = 5\npause_ms = 1\n");
    bench.idle();
    bench.values[1] = 40.0;
    let got = bench.go(Some(request(1, "warm it")), &[decision(0, None)], None);
    assert_eq!(got.event.unwrap().sentence.as_str(), "warm it");
    assert_eq!(got.status.counters.triggers[0], 0);
    let got = bench.idle();
    assert!(
        got.event.unwrap().sentence.as_str().is_empty() && got.status.counters.triggers[0] == 1,
        "{got:?}"
    );
}

#[test]
fn a_plant_that_cannot_be_seen_is_nothing_to_ask_about() {
    // The temperature has a trip limit: the rules are in control while it cannot be read, though the brain is ready.
    let mut bench = bench("[[trigger]]\nname = \"p\"\nchange = \"price\"\nby = 5\npause_ms = 1\n");
    bench.idle();
    (bench.values[0], bench.values[1]) = (f64::NAN, 60.0);
    for _ in 0..5 {
        let got = bench.idle();
        assert_eq!((got.status.counters.triggers[0], got.status.counters.events), (0, 0));
        assert!(got.status.rule_in_control);
    }
    bench.values[0] = 20.0;
    assert_eq!(bench.idle().status.counters.triggers[0], 1, "it has waited");
}

#[test]
fn a_condition_without_an_until_begins_anew_when_it_has_ended() {
    let mut bench = bench("[[trigger]]\nname = \"hot\"\nwhen = \"temperature > 30\"\npause_ms = 1\n");
    cycles(&mut bench, 3);
    bench.values[0] = 31.0;
    assert_eq!(names(&cycles(&mut bench, 20)), ["hot"], "once, however long it lasts");
    bench.values[0] = f64::NAN;
    cycles(&mut bench, 3);
    bench.values[0] = 31.0;
    assert!(cycles(&mut bench, 5).is_empty(), "what cannot be read has not ended");
    bench.values[0] = 30.0;
    cycles(&mut bench, 1);
    bench.values[0] = 31.0;
    assert_eq!(names(&cycles(&mut bench, 20)), ["hot"]);
}
