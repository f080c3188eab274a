//! What has to be known before the model is asked and before its answer counts; and what goes out instead.

mod common;
use common::*;
use ganglion_guard::*;
use ganglion_site::{Outcome, TagValues};

const WARM: &str = r#"{"action":"set_temperature","celsius":21.5}"#;
const OFF: &str = r#"{"action":"all_off"}"#;

/// No trip limit, so that a tag which cannot be used is no fault of the plant.
fn without_trips() -> String {
    SITE.replace("hi = 40\nhihi = 50\n", "hi = 40\n")
}

fn reason(got: &Got) -> &str {
    got.decisions()[0].reason.as_str()
}

#[test]
fn a_prompt_tag_that_was_never_read_keeps_the_model_from_being_asked() {
    let mut bench = Bench::of(parse(&without_trips()), &[20.0, 30.0]).started();
    bench.never_read = 0b10;
    let mut fresh = Bench::of(parse(&without_trips()), &[20.0, 30.0]);
    fresh.never_read = 0b10;
    let mut fresh = fresh.started();
    let got = fresh.go(Some(request(1, "warm it")), &[], None);
    assert!(got.event.is_none());
    assert!(
        reason(&got).starts_with("tag price has never been read; the model was not asked"),
        "{}",
        reason(&got)
    );
    // A tag that nobody reads from the plant is not waited for; once it was set it has to stay usable.
    let set = without_trips().replace(
        "range = [0, 200]\nstale_ms = 300\nread = { input = 1, scale = 0.1 }",
        "range = [0, 200]\nstale_ms = 300",
    );
    let mut bench = Bench::of(parse(&set), &[20.0, 30.0]);
    bench.never_read = 0b10;
    let mut bench = bench.started();
    let event = bench.go(Some(request(1, "warm it")), &[], None).event.expect("asked without it");
    assert_eq!(event.tags_present, 0b01);
    bench.never_read = 0;
    bench.values[1] = 900.0;
    let got = bench.go(Some(request(2, "warm it")), &[], None);
    assert!(got.event.is_none() && reason(&got).contains("tag price reads 900"), "{}", reason(&got));
}

#[test]
fn an_events_own_reading_has_to_be_usable_too() {
    for (value, asked) in [(55.0, true), (900.0, false)] {
        let mut bench = Bench::running();
        let mut tags = TagValues::NONE;
        tags.set(1, value);
        let got = bench.go(Some(Request { tags, ..request(1, "warm it") }), &[], None);
        assert_eq!(got.event.is_some(), asked, "{value}");
        assert_eq!(got.event.map(|event| event.tags_present), asked.then_some(0b11));
    }
}

#[test]
fn a_trip_tag_outside_the_prompt_counts_when_the_answer_comes() {
    let text = SITE.replace("tags = [\"temperature\", \"price\"]", "tags = [\"price\"]");
    let mut bench = Bench::of(parse(&text), &[20.0, 30.0]).started();
    let epoch = bench.go(Some(request(1, "warm it")), &[], None).event.unwrap().epoch;
    bench.values[0] = f64::NAN;
    let got = bench.go(None, &[decision(epoch, Some(command(&bench.site, WARM)))], None);
    let record = got.decisions().into_iter().find(|record| record.request == 1).unwrap();
    assert_eq!((record.verdict, record.actuated), (Some(Verdict::Rejected), false));
    assert_eq!(record.reason.as_str(), "tag temperature is not a number");
    assert_eq!(got.status.unusable, 0b01);
}

#[test]
fn the_budget_is_for_what_goes_to_the_plant() {
    let budget = SITE.replace("safe = {", "commands = { burst = 1, per_minute = 1 }\nsafe = {");
    let mut bench = Bench::of(parse(&budget), &[20.0, 30.0]).started();
    let step = |bench: &Bench, dry_run: bool, json: &str| Request {
        source: Source::Mission,
        command: Some(command(&bench.site, json)),
        dry_run,
        ..request(7, "")
    };
    let verdict = |bench: &mut Bench, request: Request| {
        let got = bench.go(Some(request), &[decision(0, None)], None);
        (got.decisions()[0].verdict.unwrap(), got.actuation.is_some())
    };
    let go = step(&bench, false, WARM);
    let dry = step(&bench, true, WARM);
    assert_eq!(verdict(&mut bench, dry), (Verdict::Approved, false), "takes no token");
    assert_eq!(verdict(&mut bench, go), (Verdict::Approved, true));
    assert_eq!(verdict(&mut bench, go), (Verdict::Rejected, false));
    assert_eq!(verdict(&mut bench, dry), (Verdict::Approved, false), "and needs none");
    let none = step(&bench, false, r#"{"action":"none"}"#);
    assert_eq!(verdict(&mut bench, none), (Verdict::Approved, false), "nor does doing nothing");
}

#[test]
fn what_the_rules_would_do_is_told_without_doing_it() {
    let guard = Guard::new(&site()).unwrap();
    let told = |tags: [Option<f64>; 2]| {
        let (outcome, checked) = guard.fallback(&tags);
        (outcome, checked.verdict, checked.command.to_json(&site()))
    };
    let fan = r#"{"action":"set_fan","room":"office","percent":20}"#;
    let warm = r#"{"action":"set_temperature","celsius":20}"#;
    let json = |json: &str| command(&site(), json).to_json(&site());
    assert_eq!(told([None, Some(70.0)]), (Outcome::Rule, Verdict::Approved, json(fan)));
    assert_eq!(told([Some(5.0), Some(70.0)]), (Outcome::Rule, Verdict::Approved, json(fan)), "the first one");
    assert_eq!(told([Some(5.0), Some(30.0)]), (Outcome::Rule, Verdict::Approved, json(warm)));
    assert_eq!(told([Some(20.0), Some(30.0)]), (Outcome::Safe, Verdict::Approved, json(OFF)), "none applies");
    assert_eq!(told([None, None]), (Outcome::Safe, Verdict::Approved, json(OFF)), "nothing is known");
    assert_eq!(told([Some(60.0), Some(70.0)]).0, Outcome::Safe, "a trip refuses the rule's command");
}

#[test]
fn what_a_trigger_or_a_limit_waits_for_is_its_own_condition() {
    // Every condition has a history of its own: those of rules come first, then limits', then triggers'.
    let text = SITE.to_owned()
        + "[[limit]]\non = \"set_temperature.celsius\"\nhi = 20\nwhen = \"price > 150 for 30 ms\"\n"
        + "[[trigger]]\nname = \"a\"\nwhen = \"price > 40 for 50 ms\"\nuntil = \"price < 20 for 20 ms\"\npause_ms = 1\n"
        + "[[trigger]]\nname = \"b\"\nwhen = \"temperature > 25 for 30 ms\"\nuntil = \"temperature < 15 for 40 ms\"\npause_ms = 1\n";
    let mut bench = Bench::of(parse(&text), &[20.0, 30.0]).started();
    // Cycles until each trigger has asked again, after its readings went there.
    let mut until_asked = |readings: [f64; 2], which: usize, most: u32| -> Option<u32> {
        bench.values = readings.to_vec();
        let before = bench.guard.status().counters.triggers[which];
        let none = command(&bench.site, r#"{"action":"none"}"#);
        let mut waiting = None;
        let mut found = None;
        for cycle in 1..=most {
            let answer = waiting.take().map_or(decision(0, None), |epoch| decision(epoch, Some(none)));
            let got = bench.go(None, &[answer], None);
            waiting = got.event.map(|event| event.epoch);
            if found.is_none() && got.status.counters.triggers[which] > before {
                found = Some(cycle);
            }
        }
        found
    };
    assert_eq!(until_asked([20.0, 45.0], 0, 12), Some(6), "50 ms after the first cycle");
    assert_eq!(until_asked([30.0, 45.0], 1, 12), Some(4), "30 ms");
    // Only after `until` has held for its time does either begin anew.
    assert_eq!(until_asked([30.0, 15.0], 0, 2), None);
    assert_eq!(until_asked([30.0, 45.0], 0, 12), None, "20 ms of it were not over");
    assert_eq!(until_asked([30.0, 15.0], 0, 3), None);
    assert_eq!(until_asked([30.0, 45.0], 0, 12), Some(6));
    assert_eq!(until_asked([10.0, 45.0], 1, 4), None);
    assert_eq!(until_asked([30.0, 45.0], 1, 12), None, "40 ms of it were not over");
    assert_eq!(until_asked([10.0, 45.0], 1, 5), None);
    assert_eq!(until_asked([30.0, 45.0], 1, 12), Some(4));
}

#[test]
fn one_tag_that_a_condition_names_twice_is_named_when_it_cannot_be_read() {
    for when in ["price > 5 and price < 150", "price > 50 since price < 20"] {
        let limit = format!("[[limit]]\non = \"set_temperature.celsius\"\nhi = 20\nwhen = \"{when}\"\n");
        let text = without_trips().replace("tags = [\"temperature\", \"price\"]", "tags = [\"temperature\"]")
            + &limit;
        let mut bench = Bench::of(parse(&text), &[20.0, f64::NAN]).started();
        let got = bench.ask(r#"{"action":"set_temperature","celsius":19}"#);
        let why = "whether a limit of set_temperature holds cannot be told: tag price is not a number";
        assert_eq!((got.actuation.is_some(), reason(&got)), (false, why), "{when}");
    }
}
