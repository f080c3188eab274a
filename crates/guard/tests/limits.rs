//! Limits with conditions, dwell and modes; conditions over time; rules that hold, ramp and control.

mod common;
use common::*;
use ganglion_guard::*;
use ganglion_site::Outcome;

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
name = "door_open"
kind = "bool"
stale_ms = 100
read = { discrete = 0 }
[[tag]]
name = "level"
unit = "m"
range = [0, 10]
stale_ms = 100
read = { input = 1, scale = 0.01 }
[[command]]
name = "move"
about = "drive"
arguments = [{ name = "speed", number = [0, 3], step = 0.1, unit = "m/s" }]
writes = [{ holding = 0, value = "speed", scale = 0.01 }]
[[command]]
name = "gear"
about = "change gear"
arguments = [{ name = "way", choices = ["off", "low", "high"] }]
writes = [{ holding = 1, value = "way" }]
[[command]]
name = "pump"
about = "pump power"
arguments = [{ name = "percent", integer = [0, 100], unit = "%" }]
writes = [{ holding = 2, value = "percent" }]
[[command]]
name = "halt"
about = "stop"
writes = [{ holding = 0, constant = 0 }, { holding = 1, constant = 0 }, { holding = 2, constant = 0 }]
"#;

/// A running bench of [`HEAD`] and more; the door is closed, the level 5 m.
fn bench(more: &str) -> Bench {
    Bench::of(parse(&format!("{HEAD}{more}")), &[0.0, 5.0]).started()
}

/// Verdict and reason of one command.
fn verdict(bench: &mut Bench, json: &str) -> (Verdict, String) {
    let got = bench.ask(json);
    let record = got.decisions()[0];
    assert_eq!(got.actuation.is_some(), record.verdict != Some(Verdict::Rejected), "{record:?}");
    (record.verdict.unwrap(), record.reason.as_str().to_owned())
}

fn speed(bench: &mut Bench, value: f64) -> (Verdict, String) {
    verdict(bench, &format!(r#"{{"action":"move","speed":{value}}}"#))
}

const DOOR: &str = "[[limit]]\non = \"move.speed\"\nhi = \"1.8 km/h\"\nwhen = \"door_open == yes\"\n";

#[test]
fn a_limit_may_depend_on_a_tag() {
    let mut bench = bench(DOOR);
    assert_eq!(speed(&mut bench, 2.0).0, Verdict::Approved);
    bench.values[0] = 1.0;
    let (rejected, why) = speed(&mut bench, 2.0);
    assert_eq!(rejected, Verdict::Rejected);
    assert_eq!(why, "move.speed 2 m/s is above its limit 0.5 m/s while door_open == yes");
    assert_eq!(speed(&mut bench, 0.5).0, Verdict::Approved, "the bound itself");
    // A door that cannot be seen may be open.
    bench.values[0] = f64::NAN;
    let (rejected, why) = speed(&mut bench, 0.1);
    assert_eq!(rejected, Verdict::Rejected);
    assert_eq!(why, "whether a limit of move holds cannot be told: tag door_open is not a number");
    assert_eq!(verdict(&mut bench, r#"{"action":"pump","percent":30}"#).0, Verdict::Approved);
}

#[test]
fn a_limit_that_holds_sometimes_clamps_where_the_site_says_so() {
    let mut bench = bench(&format!("{DOOR}do = \"clamp\"\n"));
    bench.values[0] = 1.0;
    let got = bench.ask(r#"{"action":"move","speed":2}"#);
    assert_eq!(bench.json(&got).unwrap(), r#"{"action":"move","speed":0.5}"#);
    assert_eq!(got.decisions()[0].verdict, Some(Verdict::Clamped));
}

#[test]
fn the_safe_command_keeps_limits_that_hold_only_sometimes() {
    let text = HEAD.replace(r#"{ action = "halt" }"#, r#"{ action = "move", speed = 1 }"#);
    let error = ganglion_site::Site::parse(&format!("{text}{DOOR}"), "t".as_ref()).unwrap_err().to_string();
    assert!(error.contains("[guard] safe speed: expected at most 0.5"), "{error}");
}

#[test]
fn a_value_dwells() {
    let mut bench = bench("[[limit]]\non = \"gear.way\"\ndwell_ms = 500\n");
    let gear =
        |bench: &mut Bench, way: &str| verdict(bench, &format!(r#"{{"action":"gear","way":"{way}"}}"#));
    assert_eq!(gear(&mut bench, "low").0, Verdict::Approved, "nothing was sent before");
    for _ in 0..10 {
        assert_eq!(gear(&mut bench, "low").0, Verdict::Approved, "the same again does not start it anew");
    }
    let (rejected, why) = gear(&mut bench, "high");
    assert_eq!(rejected, Verdict::Rejected);
    assert_eq!(why, "gear.way became low 220 ms ago and has to stay so for 500 ms");
    for _ in 0..25 {
        bench.idle();
    }
    assert_eq!(gear(&mut bench, "high").0, Verdict::Rejected, "10 ms too early");
    assert_eq!(gear(&mut bench, "high").0, Verdict::Approved);
    // Stopping does not dwell, and what it wrote into the register counts as a change.
    bench.go(None, &[], Some(OperatorCommand::Stop));
    for operator in [None, Some(OperatorCommand::Reset), None, Some(OperatorCommand::Start), None] {
        bench.go(None, &[decision(0, None)], operator);
    }
    assert_eq!(bench.guard.status().mode, Mode::Execute);
    assert_eq!(gear(&mut bench, "low").1, "gear.way became off 70 ms ago and has to stay so for 500 ms");
}

#[test]
fn a_dwelling_value_is_kept_where_the_site_says_clamp() {
    let mut bench = bench("[[limit]]\non = \"gear.way\"\ndwell_ms = 500\ndo = \"clamp\"\n");
    bench.ask(r#"{"action":"gear","way":"low"}"#);
    let got = bench.ask(r#"{"action":"gear","way":"high"}"#);
    assert_eq!(bench.json(&got).unwrap(), r#"{"action":"gear","way":"low"}"#);
    assert_eq!(got.decisions()[0].verdict, Some(Verdict::Clamped));
}

#[test]
fn a_tags_limit_may_hold_in_some_modes_only() {
    let limit = "[[limit]]\non = \"level\"\nlolo = \"100 cm\"\nmodes = [\"Execute\"]\n";
    let mut bench = Bench::of(parse(&format!("{HEAD}{limit}")), &[0.0, 0.5]);
    bench.go(None, &[decision(0, None)], Some(OperatorCommand::Reset));
    assert_eq!(bench.idle().status.mode, Mode::Idle);
    assert_eq!(bench.guard.status().trips, 0, "an empty tank is nothing to trip on at rest");
    bench.go(None, &[decision(0, None)], Some(OperatorCommand::Start));
    let mut modes = Vec::new();
    for _ in 0..4 {
        modes.push(bench.idle().status.mode);
    }
    assert!(modes.contains(&Mode::Aborted), "{modes:?}");
    let all = limit.replace("modes = [\"Execute\"]\n", "");
    let mut bench = Bench::of(parse(&format!("{HEAD}{all}")), &[0.0, 0.5]);
    bench.idle();
    assert_eq!(bench.guard.status().trips, 2, "without modes it holds in all");
}

/// Cycle by cycle: does the limit `speed <= 0.5 when CONDITION` hold? 1 = it does, 0 = not, ? = it cannot be told.
fn when(condition: &str, history: &[(f64, f64)]) -> String {
    let limit = format!("[[limit]]\non = \"move.speed\"\nhi = 0.5\nwhen = \"{condition}\"\n");
    let mut bench = bench(&limit);
    bench.values = vec![0.0, 5.0];
    let mut out = String::new();
    for (door, level) in history {
        bench.values = vec![*door, *level];
        // Two cycles of 10 ms; the verdict falls in the second.
        let (verdict, why) = speed(&mut bench, 2.0);
        out.push(match verdict {
            Verdict::Rejected if why.contains("cannot be told") => '?',
            Verdict::Rejected => '1',
            _ => '0',
        });
    }
    out
}

#[test]
fn conditions_over_time() {
    let door = |pattern: &str| -> Vec<(f64, f64)> {
        pattern
            .chars()
            .map(|c| {
                (
                    match c {
                        '1' => 1.0,
                        '0' => 0.0,
                        _ => f64::NAN,
                    },
                    5.0,
                )
            })
            .collect()
    };
    let history = door("0111010000?1111");
    assert_eq!(when("door_open == yes", &history), "0111010000?1111");
    // Each place is 20 ms: the verdict falls 10, 30, 50 ms after the door opened.
    assert_eq!(when("door_open == yes for 30 ms", &history), "0011000000?0111");
    assert_eq!(when("door_open == yes for 50 ms", &history), "0001000000?0011");
    // Two places after the last open one the verdict falls 40 ms after its last cycle, three places after 60 ms.
    assert_eq!(when("door_open == yes within 45 ms", &history), "0111111100?1111");
    let both = [(0.0, 5.0), (0.0, 9.0), (0.0, 5.0), (1.0, 5.0), (0.0, 5.0), (0.0, 9.5), (0.0, 1.0)];
    assert_eq!(when("door_open == no since level > 8", &both), "0110011");
    assert_eq!(when("level > 800 cm within 0.05 s and door_open == no", &both), "0110011");
}

#[test]
fn a_rule_may_wait() {
    let rules = "[[rule]]\nwhen = \"level > 8 for 100 ms\"\ndo = { action = \"pump\", percent = 80 }\n\
                 [[rule]]\ndo = \"hold\"\n";
    let mut bench = bench(rules);
    bench.brain = BrainProcess::Restarting;
    for _ in 0..20 {
        assert!(bench.go(None, &[], None).actuation.is_none(), "hold sends nothing");
    }
    assert_eq!(bench.guard.status().mode, Mode::Execute);
    bench.values[1] = 9.0;
    let waited = (1..30).find(|_| bench.go(None, &[], None).actuation.is_some());
    assert_eq!(waited, Some(11), "the cycle 100 ms after the first");
}

#[test]
fn a_rule_ramps_from_what_was_sent() {
    let rules = "[[rule]]\ndo = { action = \"pump\", percent = 10 }\n\
                 ramp = { argument = \"percent\", per_s = 20 }\n";
    let mut bench = bench(rules);
    bench.ask(r#"{"action":"pump","percent":30}"#);
    for _ in 0..100 {
        bench.idle();
    }
    bench.brain = BrainProcess::Restarting;
    let begin = bench.ms;
    let mut sent = Vec::new();
    for _ in 0..300 {
        let got = bench.go(None, &[], None);
        if let Some(json) = bench.json(&got) {
            sent.push((bench.ms - begin, json));
        }
    }
    let percents: Vec<i64> = sent
        .iter()
        .map(|(_, json)| {
            serde_json::from_str::<serde_json::Value>(json).unwrap()["percent"].as_i64().unwrap()
        })
        .collect();
    let expected: Vec<i64> = std::iter::once(30).chain((10..30).rev()).collect();
    assert_eq!(percents, expected, "every step, and the start it was left at");
    let (end, _) = sent.last().unwrap();
    assert!((1000..=1050).contains(end), "20 % at 20 % per s: {end} ms");
}

#[test]
fn a_loop_controls_a_plant_without_a_model() {
    let rules = "[[rule]]\nwhen = \"level < 9\"\ndo = { action = \"pump\", percent = 20 }\n\
                 pi = { argument = \"percent\", tag = \"level\", setpoint = \"600 cm\", kp = 20, ti_s = 5, every_ms = 100 }\n\
                 [[limit]]\non = \"pump.percent\"\nhi = 90\n\
                 [[rule]]\ndo = { action = \"pump\", percent = 0 }\n";
    let mut bench = bench(rules);
    bench.brain = BrainProcess::Restarting;
    let (mut percent, mut level, mut writes) = (0.0, 3.0, 0);
    for cycle in 0..12_000 {
        bench.values[1] = (level * 100.0f64).round() / 100.0;
        let got = bench.go(None, &[], None);
        if let Some(json) = bench.json(&got) {
            assert_eq!(
                got.actuation.unwrap().outcome,
                Outcome::Rule,
                "{}",
                got.decisions()[0].reason.as_str()
            );
            percent = serde_json::from_str::<serde_json::Value>(&json).unwrap()["percent"].as_f64().unwrap();
            assert!((0.0..=90.0).contains(&percent));
            writes += 1;
        }
        if cycle == 0 {
            assert_eq!(percent, 20.0, "it starts with what the rule says");
        }
        // In-flow by the pump, out-flow by the square root of the level.
        level += (percent / 100.0 * 0.6 - 0.1 * level.max(0.0).sqrt()) * 0.01;
    }
    assert!((level - 6.0).abs() < 0.1, "{level}");
    assert!(writes > 20 && writes < 1200, "{writes}: only changes are sent");
    // A level that cannot be read ends the loop: the next rule.
    bench.values[1] = f64::NAN;
    let got = bench.go(None, &[], None);
    assert_eq!(bench.json(&got).unwrap(), r#"{"action":"pump","percent":0}"#);
}

#[test]
fn modes_have_packmls_names_and_numbers() {
    let names: Vec<_> = Mode::ALL.iter().map(|mode| (mode.as_str(), mode.number())).collect();
    assert_eq!(names, ganglion_site::PACKML_STATES);
}
