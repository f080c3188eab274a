//! The last value inside and the first one outside, for every kind of argument; and which of several limits is named.

mod common;
use common::*;
use ganglion_guard::*;
use ganglion_site::{InlineText, Outcome, Site, Value};
use std::fmt::Write;

const HEAD: &str = r#"
name = "cell"
[model]
path = "none.gguf"
context_tokens = 256
[guard]
period_ms = 10
deadline_ms = 20
brain_timeout_ms = 50
breaker = { failures = 3, open_ms = 100, probes = 2 }
safe = { action = "halt" }
[plant]
modbus = "127.0.0.1:1502"
heartbeat = 100
watchdog = 101
watchdog_ms = 500
watchdog_state = 100
[[tag]]
name = "level"
unit = "m"
range = [0, 10]
stale_ms = 100
read = { input = 1, scale = 0.01 }
[[tag]]
name = "heat"
unit = "C"
range = [0, 200]
stale_ms = 100
read = { input = 2, scale = 0.1 }
[[command]]
name = "pump"
arguments = [{ name = "percent", integer = [0, 100], unit = "%" }]
writes = [{ holding = 2, value = "percent" }]
[[command]]
name = "aim"
arguments = [{ name = "x", number = [0, 3276.7], step = 0.1 }, { name = "y", number = [0, 50], step = 0.5 }]
writes = [{ holding = 3, value = "x", scale = 0.1 }, { holding = 4, value = "y", scale = 0.5 }]
[[command]]
name = "far"
arguments = [{ name = "z", number = [0, 6553.4], step = 0.2 }]
writes = [{ holding = 6, value = "z", scale = 0.2 }]
[[command]]
name = "gear"
arguments = [{ name = "way", choices = ["off", "low", "high"] }]
writes = [{ holding = 5, value = "way" }]
[[command]]
name = "lamp"
arguments = [{ name = "on", bool = true }]
writes = [{ coil = 5, value = "on" }]
[[command]]
name = "say"
arguments = [{ name = "words", text = 4 }]
[[command]]
name = "halt"
writes = [{ holding = 2, constant = 0 }, { holding = 4, constant = 20 }, { holding = 5, constant = -1 }]
"#;

fn bench(more: &str) -> Bench {
    Bench::of(parse(&format!("{HEAD}{more}")), &[5.0, 20.0]).started()
}

/// Verdict and reason of one command.
fn verdict(bench: &mut Bench, json: &str) -> (Verdict, String) {
    let got = bench.ask(json);
    let record = got.decisions()[0];
    assert_eq!(got.actuation.is_some(), record.verdict != Some(Verdict::Rejected), "{record:?}");
    (record.verdict.unwrap(), record.reason.as_str().to_owned())
}

fn aim(x: f64, y: f64) -> String {
    format!(r#"{{"action":"aim","x":{x},"y":{y}}}"#)
}

fn pump(percent: u32) -> String {
    format!(r#"{{"action":"pump","percent":{percent}}}"#)
}

#[test]
fn every_kind_of_argument_takes_what_the_site_declares_and_no_more() {
    let mut bench = bench("");
    // The largest one is 32767 counts of 0.1, which is not 3276.7 to the last bit.
    let far = r#"{"action":"far","z":6553.4}"#.to_owned();
    for json in [pump(0), pump(100), aim(3276.7, 50.0), aim(0.0, 0.0), far] {
        assert_eq!(verdict(&mut bench, &json).0, Verdict::Approved, "{json}");
    }
    for on in [true, false] {
        assert_eq!(verdict(&mut bench, &format!(r#"{{"action":"lamp","on":{on}}}"#)).0, Verdict::Approved);
    }
    for (words, fits) in [("", true), ("four", true), ("fünf", false), ("five5", false)] {
        let mut say = command(&bench.site, r#"{"action":"say","words":"a"}"#);
        say.values[0] = Value::Text(InlineText::cut(words));
        let epoch = bench.go(Some(request(1, "say it")), &[], None).event.unwrap().epoch;
        let got = bench.go(None, &[decision(epoch, Some(say))], None);
        assert_eq!(got.actuation.is_some(), fits, "{words}: {}", got.decisions()[0].reason.as_str());
    }
    // A choice is none of the numbers beyond its list.
    let mut gear = command(&bench.site, r#"{"action":"gear","way":"high"}"#);
    for (number, fits) in [(2, true), (3, false)] {
        gear.values[0] = Value::Choice(number);
        let epoch = bench.go(Some(request(1, "gear")), &[], None).event.unwrap().epoch;
        assert_eq!(
            bench.go(None, &[decision(epoch, Some(gear))], None).actuation.is_some(),
            fits,
            "{number}"
        );
    }
}

#[test]
fn of_several_bounds_the_one_that_is_passed_is_named() {
    let limit = "[[limit]]\non = \"pump.percent\"\nlo = 10\nhi = 90\nrate_per_s = 100\ndwell_ms = 100\n";
    let mut bench = bench(limit);
    assert_eq!(verdict(&mut bench, &pump(91)).1, "pump.percent 91 % is above its limit 90 %");
    assert_eq!(verdict(&mut bench, &pump(9)).1, "pump.percent 9 % is below its limit 10 %");
    assert_eq!(verdict(&mut bench, &pump(50)).0, Verdict::Approved);
    let why = "pump.percent became 50 % 20 ms ago and has to stay so for 100 ms";
    assert_eq!(verdict(&mut bench, &pump(90)).1, why, "90 is not above 90");
    assert_eq!(verdict(&mut bench, &pump(50)).0, Verdict::Approved, "the same is no change");
    for _ in 0..10 {
        bench.idle();
    }
    for far in [90, 10] {
        let (verdict, why) = verdict(&mut bench, &pump(far));
        assert_eq!(verdict, Verdict::Rejected);
        assert!(why.starts_with(&format!("pump.percent {far} % is too fast a change from 50 %")), "{why}");
    }
    let (_, why) = verdict(&mut bench, &pump(10));
    assert!(why.ends_with("160 ms ago (limit 100 % per s)"), "{why}");
}

#[test]
fn a_register_that_reads_as_no_choice_is_shown_as_the_number_it_is() {
    let mut bench = bench("[[limit]]\non = \"gear.way\"\ndwell_ms = 500\n");
    let gear = r#"{"action":"gear","way":"low"}"#;
    bench.go(None, &[], Some(OperatorCommand::Stop));
    for operator in [None, Some(OperatorCommand::Reset), None, Some(OperatorCommand::Start), None] {
        bench.go(None, &[decision(0, None)], operator);
    }
    let why = "gear.way became -1 70 ms ago and has to stay so for 500 ms";
    assert_eq!(verdict(&mut bench, gear), (Verdict::Rejected, why.into()));
}

#[test]
fn a_value_is_followed_by_its_own_register_whoever_wrote_it() {
    // `y` is the second write; stopping puts 20 counts, 10, into it.
    let mut bench = bench("[[limit]]\non = \"aim.y\"\nrate_per_s = 10\n");
    assert_eq!(verdict(&mut bench, &aim(100.0, 40.0)).0, Verdict::Approved);
    bench.go(None, &[], Some(OperatorCommand::Stop));
    for operator in [None, Some(OperatorCommand::Reset), None, Some(OperatorCommand::Start), None] {
        bench.go(None, &[decision(0, None)], operator);
    }
    let (rejected, why) = verdict(&mut bench, &aim(100.0, 40.0));
    assert_eq!(rejected, Verdict::Rejected);
    assert!(why.contains("too fast a change from 10 "), "{why}");
    assert_eq!(verdict(&mut bench, &aim(3000.0, 10.5)).0, Verdict::Approved, "x has no limit");
}

#[test]
fn a_dwelling_switch_stays_as_it_was_where_the_site_says_clamp() {
    let mut bench = bench("[[limit]]\non = \"lamp.on\"\ndwell_ms = 200\ndo = \"clamp\"\n");
    let lamp = |on: bool| format!(r#"{{"action":"lamp","on":{on}}}"#);
    for first in [true, false] {
        for _ in 0..25 {
            bench.idle();
        }
        assert_eq!(verdict(&mut bench, &lamp(first)).0, Verdict::Approved);
        let got = bench.ask(&lamp(!first));
        assert_eq!(got.decisions()[0].verdict, Some(Verdict::Clamped));
        assert_eq!(bench.json(&got).unwrap(), lamp(first));
    }
}

/// Percent after so many cycles under a rule, with nobody to ask.
fn under_rule(bench: &mut Bench, cycles: u32) -> Option<String> {
    bench.brain = BrainProcess::Restarting;
    let mut last = None;
    for _ in 0..cycles {
        let got = bench.go(None, &[], None);
        if let Some(actuation) = got.actuation {
            assert_eq!(actuation.outcome, Outcome::Rule, "{}", got.decisions()[0].reason.as_str());
            last = bench.json(&got);
        }
    }
    last
}

const LOOP: &str = "[[rule]]\ndo = { action = \"pump\", percent = 20 }\n\
                    pi = { argument = \"percent\", tag = \"level\", setpoint = 6, kp = 20, ti_s = 0.2, every_ms = 20 }\n";

#[test]
fn a_loop_stays_at_its_bound_as_long_as_the_error_drives_it_there() {
    // Whether the bound is the argument's own, a limit's, or a limit's that is no value of the argument's grid.
    for (limit, top, bottom) in [
        ("", 100, 0),
        ("[[limit]]\non = \"pump.percent\"\nlo = 10\nhi = 90\n", 90, 10),
        ("[[limit]]\non = \"pump.percent\"\nlo = 9.6\nhi = 90.6\n", 90, 10),
        ("[[limit]]\non = \"pump.percent\"\nlo = 10.4\nhi = 90.4\n", 90, 11),
    ] {
        let mut bench = bench(&format!("{limit}{LOOP}"));
        bench.values[0] = 1.0;
        assert_eq!(under_rule(&mut bench, 300), Some(pump(top)), "{limit}");
        assert_eq!(under_rule(&mut bench, 300), None, "and nothing else is sent: {limit}");
        bench.values[0] = 9.5;
        assert_eq!(under_rule(&mut bench, 600), Some(pump(bottom)), "{limit}");
        assert_eq!(under_rule(&mut bench, 300), None, "{limit}");
    }
}

#[test]
fn a_loop_that_cannot_see_makes_way_for_the_next_rule() {
    let rules = LOOP.replace("[[rule]]\n", "[[rule]]\nwhen = \"heat < 100\"\n")
        + "[[rule]]\ndo = { action = \"pump\", percent = 7 }\n";
    let mut bench = bench(&rules);
    assert_ne!(under_rule(&mut bench, 10), Some(pump(7)));
    bench.values[0] = f64::NAN;
    assert_eq!(under_rule(&mut bench, 10), Some(pump(7)));
}

#[test]
fn a_ramp_answers_an_event_with_what_was_last_sent_to_the_last_digit() {
    let rule = "[[rule]]\ndo = { action = \"aim\", x = 7, y = 40 }\nramp = { argument = \"y\", per_s = 1 }\n";
    let mut bench = bench(rule);
    assert_eq!(verdict(&mut bench, &aim(7.0, 20.5)).0, Verdict::Approved);
    // No answer: the rule's, and it does not move for that.
    bench.go(Some(request(3, "hello")), &[], None);
    bench.idle();
    let got = bench.idle();
    assert_eq!(got.actuation.unwrap().outcome, Outcome::Rule);
    assert_eq!(bench.json(&got).unwrap(), aim(7.0, 20.5));
    // In control it does, in whole steps of 0.5, and waits with each until it is due.
    let from = bench.ms;
    bench.brain = BrainProcess::Restarting;
    let mut sent = Vec::new();
    for _ in 0..210 {
        let got = bench.go(None, &[], None);
        sent.extend(bench.json(&got).map(|json| (bench.ms - from, json)));
    }
    let values: Vec<&str> = sent.iter().map(|(_, json)| json.as_str()).collect();
    assert_eq!(values, [20.5, 21.0, 21.5, 22.0, 22.5].map(|y| aim(7.0, y)), "{sent:?}");
    assert!(sent.windows(2).skip(1).all(|pair| (490..=520).contains(&(pair[1].0 - pair[0].0))), "{sent:?}");
    // Downwards too.
    let rule = rule.replace("y = 40", "y = 0");
    let mut bench = Bench::of(parse(&format!("{HEAD}{rule}")), &[5.0, 20.0]).started();
    bench.ask(&aim(7.0, 20.5));
    assert_eq!(under_rule(&mut bench, 120), Some(aim(7.0, 19.5)));
}

#[test]
fn a_ramp_arrives_at_what_is_no_binary_fraction() {
    for (from, to) in [(0.0, 0.3), (1.0, 0.7)] {
        let rule = format!(
            "[[rule]]\ndo = {{ action = \"aim\", x = {to}, y = 0 }}\nramp = {{ argument = \"x\", per_s = 1 }}\n"
        );
        let mut bench = bench(&rule);
        bench.ask(&aim(from, 0.0));
        assert_eq!(under_rule(&mut bench, 100), Some(aim(to, 0.0)));
        assert_eq!(under_rule(&mut bench, 100), None);
    }
}

#[test]
fn a_ramp_that_knows_no_start_begins_at_its_end() {
    let rule =
        "[[rule]]\ndo = { action = \"pump\", percent = 40 }\nramp = { argument = \"percent\", per_s = 1 }\n";
    let mut bench = bench(rule);
    assert_eq!(under_rule(&mut bench, 1), Some(pump(40)));
    assert_eq!(under_rule(&mut bench, 100), None);
}

/// A site with `limits` rates on arguments of 64 choices each, and a ramp on one more.
fn many(limits: usize, ramp: bool) -> Site {
    let mut text = HEAD.to_owned();
    let choices: Vec<String> = (0..64).map(|i| format!("\"c{i}\"")).collect();
    let mut address = 1000;
    for number in 0..=limits.div_ceil(4) {
        let arguments: String =
            (0..4).map(|i| format!(", {{ name = \"a{i}\", integer = [0, 9] }}")).collect();
        let _ = writeln!(
            text,
            "[[command]]\nname = \"m{number}\"\narguments = [{{ name = \"which\", choices = [{}] }}{arguments}]",
            choices.join(", ")
        );
        let writes: Vec<String> = (0..4)
            .map(|i| format!("{{ holding = {}, select = \"which\", value = \"a{i}\" }}", address + 64 * i))
            .collect();
        let _ = writeln!(text, "writes = [{}]", writes.join(", "));
        address += 256;
    }
    for limit in 0..limits {
        let _ = writeln!(text, "[[limit]]\non = \"m{}.a{}\"\nrate_per_s = 1", limit / 4, limit % 4);
    }
    if ramp {
        let _ = writeln!(
            text,
            "[[rule]]\ndo = {{ action = \"m{}\", which = \"c0\", a0 = 1, a1 = 1, a2 = 1, a3 = 1 }}\n\
             ramp = {{ argument = \"a3\", per_s = 1 }}",
            limits / 4
        );
    }
    parse(&text)
}

#[test]
fn more_histories_than_there_is_room_for_are_refused_at_start() {
    assert!(
        Guard::new(&many(ganglion_site::limits::LIMITS_MAX, false)).is_ok(),
        "as many as there may be limits"
    );
    let refused = Guard::new(&many(ganglion_site::limits::LIMITS_MAX, true)).unwrap_err();
    let allowed = limits::RATE_SLOTS_MAX;
    assert!(matches!(refused, GuardError::TooManyRateSlots { allowed: a } if a == allowed), "{refused}");
}
