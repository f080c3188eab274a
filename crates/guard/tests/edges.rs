//! Edges that behaviour tests walk past: exact times, exact words, and what happens one step beside a bound.

mod common;
use common::*;
use ganglion_guard::*;
use ganglion_site::TagValues;

#[test]
fn margins_before_a_deadline_shrink_with_it() {
    // Site: 20 ms. The guard's last look is a tenth before it, the brain's end a fifth.
    let mut bench = Bench::running();
    let event = bench.go(Some(request(1, "warm it")), &[], None).event.unwrap();
    assert_eq!(event.deadline_us, bench.now() + 20_000 - 4_000);
    assert_eq!(bench.guard.next_wake_us(), Some(bench.now() + 20_000 - 1_000));
    // 2 ms: no more than half of it for the brain's margin, a quarter for the guard's.
    let mut bench = Bench::running();
    let short = Request { deadline_ms: Some(2), ..request(1, "warm it") };
    let event = bench.go(Some(short), &[], None).event.unwrap();
    assert_eq!(event.deadline_us, bench.now() + 1_000);
    assert_eq!(bench.guard.next_wake_us(), Some(bench.now() + 1_500));
}

#[test]
fn an_answers_record_has_the_request_and_the_guards_own_deadline() {
    let mut bench = Bench::running();
    let asked = bench.go(Some(request(77, "warm it")), &[], None).event.unwrap();
    let due_us = bench.now() + 20_000;
    let answer = command(&bench.site, r#"{"action":"set_temperature","celsius":20}"#);
    let got = bench.go(None, &[decision(asked.epoch, Some(answer))], None);
    let record = got.decisions()[0];
    assert_eq!((record.request, record.event.deadline_us, record.event.epoch), (77, due_us, asked.epoch));
    assert_eq!((record.event.sentence.as_str(), record.latency_us), ("warm it", 10_000));
}

#[test]
fn a_rules_record_has_the_event_that_it_answers() {
    let mut bench = Bench::of(parse(SITE), &[20.0, 80.0]).started();
    bench.go(Some(request(5, "warm it")), &[], None);
    bench.idle();
    let got = bench.idle();
    let record = got.decisions()[0];
    assert_eq!((record.request, record.event.sentence.as_str()), (5, "warm it"));
    assert_ne!(record.event.epoch, 0, "it had been asked");
}

#[test]
fn no_command_and_no_reason_says_so() {
    let mut bench = Bench::running();
    let epoch = bench.go(Some(request(1, "warm it")), &[], None).event.unwrap().epoch;
    let got = bench.go(None, &[decision(epoch, None)], None);
    assert_eq!(got.decisions()[0].reason.as_str(), "the brain gave no command");
}

#[test]
fn a_refused_operator_command_is_named() {
    let mut bench = Bench::running();
    for (operator, name) in [
        (OperatorCommand::Start, "Start"),
        (OperatorCommand::Unhold, "Unhold"),
        (OperatorCommand::Reset, "Reset"),
        (OperatorCommand::Clear, "Clear"),
    ] {
        let got = bench.go(None, &[], Some(operator));
        let expected = format!("{name} refused: it does not apply in Execute");
        assert_eq!(got.records[0].reason.as_str(), expected);
    }
}

#[test]
fn an_operators_hold_of_a_held_plant_is_refused_unless_the_link_held_it() {
    let mut bench = Bench::running();
    bench.go(None, &[], Some(OperatorCommand::Hold));
    bench.idle();
    let got = bench.go(None, &[], Some(OperatorCommand::Hold));
    assert_eq!(got.records[0].reason.as_str(), "Hold refused: it does not apply in Held");
}

#[test]
fn alarms_are_told_of_the_tags_that_changed_only() {
    let text = SITE.to_owned() + "[[limit]]\non = \"price\"\nhi = 100\n";
    let mut bench = Bench::of(parse(&text), &[20.0, 30.0]).started();
    bench.values = vec![45.0, 30.0];
    let told = |got: &Got| -> Vec<String> {
        let alarms = got.records.iter().filter(|r| r.kind == RecordKind::Alarm);
        alarms.map(|r| r.reason.as_str().to_owned()).collect()
    };
    assert_eq!(told(&bench.idle()), ["tag temperature reads 45 C, at or above its alarm limit 40 C"]);
    bench.values = vec![45.0, 120.0];
    assert_eq!(told(&bench.idle()), ["tag price reads 120, at or above its alarm limit 100"]);
    bench.values = vec![45.0, 30.0];
    let back = "tag price is back inside its alarm limits or can no longer be judged";
    assert_eq!(told(&bench.idle()), [back]);
    assert_eq!(bench.guard.status().alarms, 1);
}

#[test]
fn too_fast_a_change_is_named_as_such() {
    let text = SITE.replace("rate_per_s = 40\ndo = \"clamp\"", "rate_per_s = 40");
    let mut bench = Bench::of(parse(&text), &[20.0, 30.0]).started();
    bench.ask(r#"{"action":"set_fan","room":"office","percent":10}"#);
    let got = bench.ask(r#"{"action":"set_fan","room":"office","percent":90}"#);
    assert_eq!(
        got.decisions()[0].reason.as_str(),
        "set_fan.percent 90 % is too fast a change from 10 % 20 ms ago (limit 40 % per s)"
    );
}

#[test]
fn a_limit_whose_condition_cannot_be_read_names_the_tag() {
    let text = SITE.replace("tags = [\"temperature\", \"price\"]", "tags = [\"temperature\"]")
        + "[[limit]]\non = \"set_temperature.celsius\"\nhi = 20\nwhen = \"price > 50\"\n";
    let mut bench = Bench::of(parse(&text), &[20.0, f64::NAN]).started();
    let got = bench.ask(r#"{"action":"set_temperature","celsius":19}"#);
    assert!(got.actuation.is_none());
    let reason = got.decisions()[0].reason.as_str();
    assert!(reason.contains("price"), "{reason}");
}

#[test]
fn a_reading_at_its_ranges_end_and_of_its_last_moment_counts() {
    let text = SITE.replace("[[limit]]\non = \"temperature\"\nlo = 5\nhi = 40\nhihi = 50\n", "");
    let mut bench = Bench::of(parse(&text), &[100.0, 0.0]);
    let mut status = |values: [f64; 2], age_ms: u64| {
        bench.values = values.to_vec();
        bench.frozen_tags = Some(bench.ms + 10 - age_ms);
        bench.idle();
        bench.frozen_tags = None;
        bench.guard.status().unusable
    };
    assert_eq!(status([100.0, 200.0], 0), 0, "both at the upper end");
    assert_eq!(status([-20.0, 0.0], 0), 0, "both at the lower end");
    assert_eq!(status([100.1, 200.1], 0), 3);
    assert_eq!(status([20.0, 20.0], 200), 0, "as old as the first one may be");
    assert_eq!(status([20.0, 20.0], 201), 1);
    assert_eq!(status([20.0, 20.0], 300), 1);
    assert_eq!(status([20.0, 20.0], 301), 3);
}

#[test]
fn a_dry_run_over_budget_is_answered_by_the_rule_all_the_same() {
    let text = SITE.replace("safe = {", "commands = { burst = 1, per_minute = 1 }\nsafe = {");
    let mut bench = Bench::of(parse(&text), &[20.0, 80.0]).started();
    bench.ask(r#"{"action":"set_temperature","celsius":20}"#);
    bench.values = vec![20.0, 80.0];
    let unusable = TagValues::NONE;
    let dry = Request { dry_run: true, tags: unusable, ..request(2, "warm it") };
    bench.go(Some(dry), &[decision(0, None)], None);
    bench.idle();
    let got = bench.idle();
    let record = got.decisions()[0];
    assert_eq!(record.verdict, Some(Verdict::Approved), "{}", record.reason.as_str());
    assert!(!record.actuated);
}

#[test]
fn an_event_shows_the_prompt_tags_and_its_own_readings() {
    let text = SITE.replace("tags = [\"temperature\", \"price\"]", "tags = [\"temperature\"]");
    let mut bench = Bench::of(parse(&text), &[20.0, 30.0]).started();
    let event = bench.go(Some(request(1, "warm it")), &[], None).event.unwrap();
    assert_eq!(event.tags_present, 1, "price is none of the prompt's");
    let mut tags = TagValues::NONE;
    tags.set(1, 55.0);
    let mut bench = Bench::of(parse(&text), &[20.0, 30.0]).started();
    let event = bench.go(Some(Request { tags, ..request(1, "warm it") }), &[], None).event.unwrap();
    assert_eq!((event.tags_present, event.tag(1)), (3, Some(55.0)));
}

#[test]
fn a_ramp_moves_by_its_rate_and_no_faster() {
    let text = SITE.replace(
        "[[rule]]\nwhen = \"price > 60\"\ndo = { action = \"set_fan\", room = \"office\", percent = 20 }",
        "[[rule]]\nwhen = \"price > 60\"\ndo = { action = \"set_fan\", room = \"office\", percent = 60 }\n\
         ramp = { argument = \"percent\", per_s = 10 }",
    );
    let mut bench = Bench::of(parse(&text), &[20.0, 80.0]).started();
    bench.ask(r#"{"action":"set_fan","room":"office","percent":20}"#);
    bench.brain = BrainProcess::Restarting;
    let start = bench.ms;
    let mut sent = Vec::new();
    for _ in 0..450 {
        let got = bench.go(None, &[], None);
        if let Some(json) = bench.json(&got) {
            let percent: u64 = json.rsplit(':').next().unwrap().trim_end_matches('}').parse().unwrap();
            sent.push((bench.ms - start, percent));
        }
    }
    assert_eq!(sent.last().map(|(_, percent)| *percent), Some(60));
    assert!(sent.len() >= 40, "{sent:?}");
    for (ms, percent) in &sent {
        // One percent every 100 ms, from 20.
        let reach = 20 + ms / 100;
        assert!(*percent <= reach && percent + 2 >= reach.min(60), "{percent} % after {ms} ms");
    }
}
