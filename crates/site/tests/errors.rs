//! What a user reads when a site file is wrong. Refresh with `UPDATE_EXPECT=1`.

use expect_test::{Expect, expect};
use ganglion_site::{ConfidenceSpec, KvStorage, Site};
use std::path::Path;

const HEAD: &str = "name = \"t\"\n[model]\npath = \"m.gguf\"\n";

fn check(body: &str, expect: &Expect) {
    let text = format!("{HEAD}{body}");
    let message = match Site::parse(&text, Path::new("site.toml")) {
        Ok(_) => "accepted".to_string(),
        Err(error) => error.to_string(),
    };
    expect.assert_eq(&message);
}

#[test]
fn syntax() {
    check(
        "[guard\nperiod_ms = 3",
        &expect![
            "site.toml:4: TOML syntax: expected valid TOML (unclosed table, expected `]`), found nothing"
        ],
    );
    check(
        "[model]\n",
        &expect!["site.toml:4: TOML syntax: expected valid TOML (duplicate key), found model"],
    );
}

#[test]
fn unknown_fields() {
    check(
        "[gaurd]\nperiod_ms = 3\n[[tag]]\nname = \"a\"\nrnage = [0, 1]\n[http]\nport = 80",
        &expect![[r#"
            site.toml:4: top level: expected one of name, model, guard, tag, prompt, plant, http, record, command, limit, rule, trigger, plan (did you mean guard?), found unknown field gaurd
            site.toml:6: tag a, range: expected [lo, hi], the believable values, found nothing
            site.toml:8: tag a: expected one of name, kind, unit, range, read, decimals, stale_ms, frozen_ms (did you mean range?), found unknown field rnage
            site.toml:9: [http] listen: expected a loopback address and port, for example "127.0.0.1:8420", found nothing
            site.toml:10: [http]: expected one of listen, found unknown field port"#]],
    );
}

#[test]
fn storage_of_keys_and_values() {
    let parse = |kv: &str| Site::parse(&format!("{HEAD}{kv}"), "site.toml".as_ref());
    let named = KvStorage::NAMES.map(|(name, kv)| (format!("kv = \"{name}\"\n"), kv));
    for (line, kv) in named.into_iter().chain([(String::new(), KvStorage::F16)]) {
        let site = parse(&line).unwrap();
        assert_eq!(site.model.kv, kv);
        assert_eq!(site.prompt_prefix(), parse("").unwrap().prompt_prefix(), "the prompt does not change");
    }
    check(
        "kv = \"f8\"",
        &expect![[r#"site.toml:4: [model] kv: expected "f32", "f16" or "int8", found "f8""#]],
    );
    check("kv = 16", &expect![[r#"site.toml:4: [model] kv: expected "f32", "f16" or "int8", found 16"#]]);
}

#[test]
fn events_in_parallel() {
    let parse = |line: &str| Site::parse(&format!("{HEAD}{line}"), "site.toml".as_ref()).unwrap();
    assert_eq!(parse("").model.parallel, 4);
    assert_eq!(parse("parallel = 1\n").model.parallel, 1);
    check(
        "parallel = 0",
        &expect!["site.toml:4: [model] parallel: expected a whole number from 1 to 8, found 0"],
    );
    check(
        "parallel = 9",
        &expect!["site.toml:4: [model] parallel: expected a whole number from 1 to 8, found 9"],
    );
}

#[test]
fn memory_is_locked_on_request() {
    let parse = |line: &str| Site::parse(&format!("{HEAD}{line}"), "site.toml".as_ref()).unwrap();
    assert!(!parse("").model.lock_memory && parse("").model.memo);
    assert!(!parse("memo = false\n").model.memo);
    assert!(parse("lock_memory = true\n").model.lock_memory);
    check(
        "lock_memory = 1",
        &expect![[r#"site.toml:4: [model] lock_memory: expected true or false, found 1"#]],
    );
}

#[test]
fn how_sure_the_model_must_be() {
    let parse = |line: &str| Site::parse(&format!("{HEAD}{line}"), "site.toml".as_ref()).unwrap();
    assert_eq!(parse("").model.confidence, ConfidenceSpec::default());
    let margin = ConfidenceSpec { margin: 0.35, ..ConfidenceSpec::default() };
    assert_eq!(parse("confidence = 0.35").model.confidence, margin);
    assert_eq!(parse("confidence = { margin = 0.35 }").model.confidence, margin);
    let all = ConfidenceSpec { margin: 1.0, certainty: 0.0, feasible_mass: 0.5 };
    assert_eq!(
        parse("confidence = { margin = 1, certainty = 0, feasible_mass = 0.5 }").model.confidence,
        all
    );
    check(
        "confidence = 35",
        &expect![
            "site.toml:4: [model] confidence: expected a share from 0 to 1, or a table { margin, certainty, feasible_mass } of such, found 35"
        ],
    );
    check(
        "confidence = \"high\"",
        &expect![[
            r#"site.toml:4: [model] confidence: expected a share from 0 to 1, or a table { margin, certainty, feasible_mass } of such, found "high""#
        ]],
    );
    check(
        "confidence = { margin = -0.1, certanty = 0.5 }",
        &expect![[r#"
        site.toml:4: [model] confidence margin: expected a share from 0 to 1, found -0.1
        site.toml:4: [model] confidence: expected one of margin, certainty, feasible_mass (did you mean certainty?), found unknown field certanty"#]],
    );
}

#[test]
fn sections() {
    check(
        r#"[guard]
period_ms = 0
deadline_ms = 50
brain_timeout_ms = 40
breaker = { failures = "3", probe = 2 }
[http]
listen = "0.0.0.0:80"
[plant]
modbus = "localhost"
heartbeat = 70000
watchdog = 1
watchdog_ms = 20
[prompt]
tags = ["speed"]
notes = ["two\nlines"]
"#,
        &expect![[r#"
            site.toml:1: [guard] safe: expected the command that is safe at any time, for example { action = "stop" }, found nothing, though there is a [plant]
            site.toml:5: [guard] period_ms: expected a whole number from 1 to 60000, found 0
            site.toml:7: [guard] brain_timeout_ms: expected no less than deadline_ms = 50, found 40
            site.toml:8: [guard] breaker failures: expected a whole number from 1 to 1000, found "3"
            site.toml:8: [guard] breaker: expected one of failures, open_ms, probes (did you mean probes?), found unknown field probe
            site.toml:10: [http] listen: expected a loopback address and port, for example "127.0.0.1:8420", found "0.0.0.0:80"
            site.toml:11: [plant] watchdog_state: expected a register address from 0 to 65535, found nothing
            site.toml:12: [plant] modbus: expected host:port of a Modbus TCP device, found "localhost"
            site.toml:13: [plant] heartbeat: expected a whole number from 0 to 65535, found 70000
            site.toml:15: [plant] watchdog_ms: expected more than [guard] period_ms = 100, found 20
            site.toml:17: [prompt] tags: expected the name of a tag, found "speed"
            site.toml:18: [prompt] notes: expected one line of text of 1 to 256 bytes, found "two\nlines""#]],
    );
}

#[test]
fn tags() {
    check(
        r#"[[tag]]
name = "-a"
range = [0, 1]
[[tag]]
name = "b"
unit = "°C"
range = [1, 0]
[[tag]]
name = "c"
unit = "parsec"
range = [0, inf]
decimals = 9
[[tag]]
name = "d"
kind = "bool"
read = { input = 0, scale = 0 }
[[tag]]
name = "d"
range = [0, 1]
read = { coil = 0 }
[[tag]]
name = "e"
range = [0, 1]
read = { input = 0, holding = 1 }
"#,
        &expect![[r#"
            site.toml:5: tag number 1, name: expected a name of lower-case ASCII letters, digits, _, - or ., starting with a letter or digit, of 1 to 48 bytes, found "-a"
            site.toml:9: tag b, unit: expected a known unit (did you mean C?), found "°C"
            site.toml:10: tag b, range: expected [lo, hi] with finite lo < hi, found [1, 0]
            site.toml:13: tag c, unit: expected a known unit, for example C, %, rpm, mm/s, bar, kW, found "parsec"
            site.toml:14: tag c, range: expected [lo, hi] with finite lo < hi, found [0, inf]
            site.toml:15: tag c, decimals: expected a whole number from 0 to 6, found 9
            site.toml:19: tag d, read, scale: expected a finite number other than 0, found 0
            site.toml:19: tag d, read, scale: expected no scale on a bool, found 0
            site.toml:21: tag d, name: expected a name that is not taken yet, found "d"
            site.toml:23: tag d, read: expected input or holding for a number (or kind = "bool"), found { coil = 0 }
            site.toml:27: tag e, read: expected one of input, holding, discrete or coil with a register address, found { input = 0, holding = 1 }"#]],
    );
}

#[test]
fn commands() {
    check(
        r#"[[command]]
name = "none"
[[command]]
name = "set_fan"
arguments = [
  { name = "percent", integer = [100, 0] },
  { name = "action", bool = true },
  { name = "n", number = [0, 1], step = 0.3 },
  { name = "m", number = [0, 0.75], step = 0.5 },
  { name = "k", number = [0, 1] },
  { name = "c", choices = ["a", "a", "b c"] },
  { name = "t", text = 100 },
  { name = "u", text = 8, integer = [0, 1] },
]
[[command]]
name = "writes"
arguments = [
  { name = "room", choices = ["a", "b"], default = "c" },
  { name = "speed", integer = [-1, 40000], default = 40001 },
  { name = "note", text = 8 },
]
writes = [
  { holding = 1, value = "speed" },
  { holding = 65535, select = "room", constant = 1 },
  { holding = 2, value = "nope" },
  { holding = 2, value = "note" },
  { coil = 2, value = "speed" },
  { coil = 2, constant = 2 },
  { holding = 3, select = "speed", value = "room", scale = 2 },
  { constant = 3 },
]
"#,
        &expect![[r#"
            site.toml:5: command none, name: expected another name (none always exists and does nothing), found "none"
            site.toml:9: command set_fan, argument percent: expected integer range [lo, hi] with lo ≤ hi, found [100, 0]
            site.toml:10: command set_fan, argument action, name: expected a name that is not taken yet, found "action"
            site.toml:11: command set_fan, argument n: expected step: 1, 2, 2.5 or 5 times a power of ten, for example 0.5 or 0.1, found 0.3
            site.toml:12: command set_fan, argument m: expected number range [lo, hi] of multiples of the step 0.5, found [0, 0.75]
            site.toml:13: command set_fan, argument k: expected step: 1, 2, 2.5 or 5 times a power of ten, for example 0.5 or 0.1, found nothing
            site.toml:14: command set_fan, argument c: expected choices: a list of 1 to 64 different names (lower-case letters, digits, _, -, .), each at most 48 bytes, found "a"
            site.toml:14: command set_fan, argument c: expected choices: a list of 1 to 64 different names (lower-case letters, digits, _, -, .), each at most 48 bytes, found "b c"
            site.toml:15: command set_fan, argument t: expected text = N bytes from 1 to 64, found 100
            site.toml:16: command set_fan, argument u: expected one of choices, integer, number, bool or text, found integer and text
            site.toml:21: command writes, argument room, default: expected one of a, b, found "c"
            site.toml:22: command writes, argument speed, default: expected a whole number from -1 to 40000, found 40001
            site.toml:26: command writes, write number 1, value: expected a value and scale that fit a 16-bit register, found speed from -1 to 40000
            site.toml:27: command writes, write number 2, holding: expected an address that leaves room for 2 registers, found 65535
            site.toml:28: command writes, write number 3, value: expected the name of one of the command's arguments (did you mean note?), found "nope"
            site.toml:29: command writes, write number 4, value: expected an argument that is not text, found "note"
            site.toml:30: command writes, write number 5, value: expected an argument of 0 and 1 (bool, or two choices), found speed from -1 to 40000
            site.toml:31: command writes, write number 6, constant: expected a whole number from 0 to 1, found 2
            site.toml:32: command writes, write number 7, select: expected an argument with choices, found "speed"
            site.toml:32: command writes, write number 7, scale: expected a scale only where a number is written to a holding register, found 2
            site.toml:33: command writes, write number 8: expected holding = ADDRESS or coil = ADDRESS, found { constant = 3 }"#]],
    );
}

#[test]
fn writes_stay_away_from_the_watchdog() {
    check(
        r#"[guard]
safe = { action = "go" }
[plant]
modbus = "127.0.0.1:502"
heartbeat = 100
watchdog = 101
watchdog_ms = 1000
watchdog_state = 100
[[command]]
name = "go"
writes = [{ holding = 101, constant = 0 }, { coil = 101, constant = 0 }]
[[command]]
name = "move"
arguments = [{ name = "room", choices = ["a", "b", "c"] }]
writes = [{ holding = 98, select = "room", constant = 1 }]
"#,
        &expect![[r#"
            site.toml:14: command go, write number 1, holding: expected registers other than [plant] heartbeat and watchdog, found 101
            site.toml:18: command move, write number 1, holding: expected registers other than [plant] heartbeat and watchdog, found 98"#]],
    );
}

const BODY: &str = r#"[[tag]]
name = "speed"
unit = "rpm"
range = [0, 3000]
[[tag]]
name = "door"
kind = "bool"
[[command]]
name = "slow"
arguments = [{ name = "percent", number = [0, 100], step = 0.5, unit = "%" }]
[[command]]
name = "turn"
arguments = [{ name = "way", choices = ["left", "right"] }]
"#;

#[test]
fn limits() {
    let limits = r#"[[limit]]
on = "sped"
hi = 3
[[limit]]
on = "speed"
lo = 5
hi = 5
hihi = 4000
do = "clamp"
[[limit]]
on = "slow.percent"
lolo = 1
lo = 10.2
do = "clamp"
[[limit]]
on = "turn.way"
hi = 3
[[limit]]
on = "door"
rate_per_s = -1
[[limit]]
on = "speed"
"#;
    check(
        &format!("{BODY}{limits}"),
        &expect![[r#"
            site.toml:18: limit on sped, on: expected the name of a tag, or command.argument (did you mean speed?), found "sped"
            site.toml:23: limit on speed, hi: expected hi above lo = 5 (lolo < lo < hi < hihi), found 5
            site.toml:24: limit on speed, hihi: expected a bound in the tag's range 0 to 3000, found 4000
            site.toml:25: limit on speed, do: expected no do on a tag (a reading cannot be rejected or clamped), found "clamp"
            site.toml:28: limit on slow.percent, lolo: expected lolo and hihi only on tags, found 1
            site.toml:29: limit on slow.percent, lo: expected a multiple of 0.5, since values are clamped to it, found 10.2
            site.toml:32: limit on turn.way, on: expected an argument that is a number (dwell_ms alone: also choices or a bool), found "turn.way"
            site.toml:35: limit on door, on: expected a tag that is a number, found "door"
            site.toml:36: limit on door, rate_per_s: expected a rate above 0 (per second), found -1
            site.toml:37: limit on speed, lo, hi, lolo, hihi, rate_per_s or dwell_ms: expected at least one bound, found nothing"#]],
    );
}

#[test]
fn rules() {
    let conditions = [
        "sped > 3",
        "speed => 3",
        "speed > fast",
        "speed > 4000",
        "speed > 40 C",
        "speed > 40 rpm or door == yes",
        "door > no",
        "door == 1",
        "speed > 40rpm and",
        "",
    ];
    let mut text = BODY.to_string();
    for when in conditions {
        text.push_str(&format!("[[rule]]\nwhen = \"{when}\"\ndo = {{ action = \"none\" }}\n"));
    }
    text.push_str(
        r#"[[limit]]
on = "slow.percent"
hi = 50
[[rule]]
when = "door == yes and speed>=40rpm and speed < 90.5 rpm"
do = { action = "slow", percent = 0.25 }
[[rule]]
when = "door != no"
do = { action = "slow", percent = 60 }
[[rule]]
when = "door != no"
do = { action = "slow" }
[[rule]]
when = "door != no"
do = { action = "turn", way = "up", speed = 3 }
[[rule]]
do = { action = "trun" }
[[rule]]
do = { action = "none" }
"#,
    );
    check(
        &text,
        &expect![[r#"
            site.toml:18: rule number 1, when: expected the name of a tag (did you mean speed?), found sped
            site.toml:21: rule number 2, when: expected one of < <= > >= == != after speed, found =>
            site.toml:24: rule number 3, when: expected a number for the tag speed, found fast
            site.toml:27: rule number 4, when: expected a number in the range 0 to 3000 of the tag speed, found 4000
            site.toml:30: rule number 5, when: expected the unit rpm of speed, "and", or the end, found C
            site.toml:33: rule number 6, when: expected "and", for, within, since, or the end of the condition, found or
            site.toml:36: rule number 7, when: expected == or != with the bool tag door, found an order
            site.toml:39: rule number 8, when: expected yes or no for the bool tag door, found 1
            site.toml:42: rule number 9, when: expected the name of a tag, found the end of the condition
            site.toml:45: rule number 10, when: expected the name of a tag, found the end of the condition
            site.toml:52: rule number 11, do, percent: expected a multiple of 0.5, found 0.25
            site.toml:55: rule number 12, do, percent: expected at most 50, the argument's [[limit]] hi, found 60
            site.toml:58: rule number 13, do, percent: expected a number from 0 to 100 % in steps of 0.5, found nothing
            site.toml:61: rule number 14, do, way: expected one of left, right, found "up"
            site.toml:61: rule number 14, do, speed: expected only arguments of turn: way, found 3
            site.toml:63: rule number 15, do, action: expected the name of a command (did you mean turn?), found "trun"
            site.toml:64: rule number 16: expected no rule after one without when, since that one always applies, found another rule"#]],
    );
}

#[test]
fn a_plant_needs_a_safe_command() {
    check(
        "[plant]\nmodbus = \"[::1]:502\"\nheartbeat = 1\nwatchdog = 2\nwatchdog_ms = 1000\nwatchdog_state = 0\n",
        &expect![[
            r#"site.toml:1: [guard] safe: expected the command that is safe at any time, for example { action = "stop" }, found nothing, though there is a [plant]"#
        ]],
    );
}

#[test]
fn bounds() {
    let tags: String = (0..65).map(|i| format!("[[tag]]\nname = \"t{i}\"\nkind = \"bool\"\n")).collect();
    check(&tags, &expect!["site.toml:196: tag: expected at most 64, found 65"]);
    let long = "x".repeat(49);
    check(
        &format!("[[tag]]\nname = \"{long}\"\nkind = \"bool\"\n"),
        &expect![[
            r#"site.toml:5: tag number 1, name: expected a name of lower-case ASCII letters, digits, _, - or ., starting with a letter or digit, of 1 to 48 bytes, found "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx""#
        ]],
    );
    check(
        &" ".repeat(300_000),
        &expect!["site.toml:1: file size: expected at most 262144 bytes, found more"],
    );
}

#[test]
fn a_missing_file_is_named() {
    let error = Site::load(Path::new("/nowhere/at/all")).unwrap_err();
    assert!(error.to_string().starts_with("/nowhere/at/all: cannot read the site file"), "{error}");
}

#[test]
fn limits_and_rules_over_time() {
    let conditions = [
        "speed > 4 for",
        "speed > 4 for 5",
        "speed > 4 rpm for 5 parsec",
        "speed > 4 for 2 h",
        "speed > 4 within -1 s",
        "speed > 4 since dor == yes",
        "speed > 4 since",
        "speed > 4 for 1 s for 2 s",
        "speed > 4 bar",
        "speed > 1000 rad/s",
    ];
    let mut text = BODY.to_string();
    for when in conditions {
        text.push_str(&format!("[[limit]]\non = \"slow.percent\"\nhi = 3\nwhen = \"{when}\"\n"));
    }
    text.push_str(
        r#"[[limit]]
on = "slow.percent"
hi = "3 bar"
dwell_ms = 0
modes = ["Execute"]
[[limit]]
on = "speed"
hi = "300 rad/s"
rate_per_s = "1 Hz"
dwell_ms = 5
when = "door == yes"
modes = ["Exekute"]
[[limit]]
on = "turn.way"
hi = 1
dwell_ms = 5
[[rule]]
when = "door == yes"
do = "stop"
[[rule]]
when = "door == yes"
do = { action = "slow", percent = 3 }
ramp = { argument = "way", per_s = 0 }
[[rule]]
when = "door == yes"
do = { action = "slow", percent = 3 }
pi = { argument = "percent", tag = "door", setpoint = 4000, kp = 0, ti_s = "1 bar", every = 3 }
[[rule]]
do = { action = "slow", percent = 3 }
ramp = { argument = "percent", per_s = 1 }
pi = { argument = "percent", tag = "speed", setpoint = 4000, kp = 1, ti_s = -1 }
[guard]
commands = { burst = 0 }
[[tag]]
name = "lid"
kind = "bool"
frozen_ms = 5
"#,
    );
    check(
        &text,
        &expect![[r#"
            site.toml:20: limit on slow.percent, when: expected a time from 1 ms to 1 h, for example 5 s, found the end of the condition
            site.toml:24: limit on slow.percent, when: expected a time from 1 ms to 1 h, for example 5 s, found 5
            site.toml:28: limit on slow.percent, when: expected a time from 1 ms to 1 h, for example 5 s, found 5 parsec
            site.toml:32: limit on slow.percent, when: expected a time from 1 ms to 1 h, for example 5 s, found 2 h
            site.toml:36: limit on slow.percent, when: expected a time from 1 ms to 1 h, for example 5 s, found -1
            site.toml:40: limit on slow.percent, when: expected the name of a tag (did you mean door?), found dor
            site.toml:44: limit on slow.percent, when: expected the name of a tag, found the end of the condition
            site.toml:48: limit on slow.percent, when: expected "and", for, within, since, or the end of the condition, found for
            site.toml:52: limit on slow.percent, when: expected the unit rpm of speed, "and", or the end, found bar
            site.toml:56: limit on slow.percent, when: expected a number in the range 0 to 3000 of the tag speed, found 1000
            site.toml:59: limit on slow.percent, hi: expected a number in %, or in a unit of the same quantity, found "3 bar"
            site.toml:60: limit on slow.percent, dwell_ms: expected a whole number from 1 to 3600000, found 0
            site.toml:61: limit on slow.percent, modes: expected modes only on tags, since commands are taken in Execute alone, found ["Execute"]
            site.toml:65: limit on speed, rate_per_s: expected a number in rpm, or in a unit of the same quantity, found "1 Hz"
            site.toml:66: limit on speed, dwell_ms: expected dwell_ms only on arguments, found 5
            site.toml:67: limit on speed, when: expected when only on arguments (a tag's limit may name modes), found "door == yes"
            site.toml:68: limit on speed, modes: expected PackML states, for example "Execute" (did you mean Execute?), found "Exekute"
            site.toml:70: limit on turn.way, on: expected an argument that is a number (dwell_ms alone: also choices or a bool), found "turn.way"
            site.toml:75: rule number 1, do: expected a command, for example { action = "none" }, found "stop"
            site.toml:79: rule number 2, ramp, argument: expected an argument of slow that is a number, found "way"
            site.toml:79: rule number 2, ramp, per_s: expected a number above 0, up to 1e6, found 0
            site.toml:83: rule number 3, pi, tag: expected the name of a tag that is a number, found "door"
            site.toml:83: rule number 3, pi, kp: expected a gain other than 0, up to 1e6, found 0
            site.toml:83: rule number 3, pi, ti_s: expected a number in s, or in a unit of the same quantity, found "1 bar"
            site.toml:83: rule number 3, pi: expected one of argument, tag, setpoint, kp, ti_s, every_ms (did you mean every_ms?), found unknown field every
            site.toml:87: rule number 4, pi: expected ramp or pi, not both, found { argument = "percent", tag = "speed", setpoint = 4000, kp =…
            site.toml:89: [guard] commands burst: expected a whole number from 1 to 60000, found 0
            site.toml:89: [guard] commands per_minute: expected commands per minute, found nothing
            site.toml:93: tag lid, frozen_ms: expected no frozen_ms on a bool tag, which may well stay as it is, found 5"#]],
    );
}

/// Units of one quantity convert, in limits as in conditions; rates as differences.
#[test]
fn units_convert() {
    let text = format!(
        "{HEAD}{}",
        r#"
[guard]
commands = { burst = 2, per_minute = 30 }
[[tag]]
name = "heat"
unit = "C"
range = [-40, 100]
frozen_ms = 5000
[[command]]
name = "go"
arguments = [{ name = "speed", number = [0, 3], step = 0.1, unit = "m/s" }]
[[limit]]
on = "heat"
hi = "86 F"
hihi = "350 K"
rate_per_s = "9 F"
[[limit]]
on = "go.speed"
hi = "3.6 km/h"
dwell_ms = 250
when = "heat > 68 F for 1.5min and heat < 300 K since heat >= 0.5C"
"#
    );
    let site = Site::parse(&text, Path::new("site.toml")).unwrap();
    let limit = &site.limits[0];
    assert_eq!((limit.hi, limit.hihi, limit.rate_per_s), (Some(30.0), Some(76.85), Some(5.0)));
    assert_eq!(site.limits[1].hi, Some(1.0));
    expect![[r#"
        limit on  lolo  lo  hi  hihi   rate/s  unit  beyond      dwell   holds
        heat      -     -   30  76.85  5       C     warn, trip  -       -
        go.speed  -     -   1   -      -       m/s   reject      250 ms  when heat > 20 C for 90000 ms and heat < 26.85 C since heat >= 0.5 C
    "#]]
    .assert_eq(&site.limit_table());
    let budget = site.guard.commands.unwrap();
    assert_eq!((budget.burst, budget.per_minute, site.tags[0].frozen_ms), (2, 30, Some(5000)));
}

const TRIGGERS: &str = r#"
[[tag]]
name = "price"
unit = "ct/kWh"
range = [0, 200]
[[tag]]
name = "heat"
unit = "C"
range = [-20, 60]
[[tag]]
name = "door"
kind = "bool"
"#;

fn check_triggers(body: &str, expect: &Expect) {
    check(&format!("{TRIGGERS}{body}"), expect);
}

#[test]
fn triggers() {
    use ganglion_site::TriggerOn;
    let body = r#"
[[trigger]]
name = "price"
change = "price"
by = 5
say = " the power price changed "
[[trigger]]
name = "heat"
change = "heat"
by = "9 F"
pause_ms = 250
[[trigger]]
name = "door"
change = "door"
[[trigger]]
name = "hot"
when = "heat > 40 for 5 s"
until = "heat < 35"
[[trigger]]
name = "watch"
every_ms = 60000
"#;
    let site = Site::parse(&format!("{HEAD}{TRIGGERS}{body}"), Path::new("site.toml")).unwrap();
    let [price, heat, door, hot, watch] = &site.triggers[..] else { panic!("{:?}", site.triggers) };
    assert_eq!(price.on, TriggerOn::Change { tag: 0, by: 5.0 });
    assert_eq!((price.say.as_str(), price.pause_ms), ("the power price changed", 1000));
    assert!(matches!(heat.on, TriggerOn::Change { tag: 1, by } if (by - 5.0).abs() < 1e-9), "{heat:?}");
    assert_eq!(door.on, TriggerOn::Change { tag: 2, by: 1.0 });
    assert!(matches!(&hot.on, TriggerOn::When { when, until } if when.len() == 1 && until.len() == 1));
    assert_eq!(watch.on, TriggerOn::Every { ms: 60_000 });
    let without = Site::parse(&format!("{HEAD}{TRIGGERS}"), Path::new("site.toml")).unwrap();
    assert_eq!(site.prompt_prefix(), without.prompt_prefix(), "triggers are the guard's, not the model's");
    expect![[r#"
        trigger  makes an event when          again when   at most every  says
        price    price has moved by 5 ct/kWh  -            1000 ms        the power price changed
        heat     heat has moved by 5 C        -            250 ms         -
        door     door changes                 -            1000 ms        -
        hot      heat > 40 C for 5000 ms      heat < 35 C  1000 ms        -
        watch    time has passed              -            60000 ms       -
    "#]]
    .assert_eq(&site.trigger_table());
}

#[test]
fn wrong_triggers() {
    check_triggers(
        r#"
[[trigger]]
change = "prise"
by = 5
[[trigger]]
name = "a"
change = "price"
[[trigger]]
name = "a"
change = "price"
by = 0
[[trigger]]
name = "b"
change = "price"
when = "price > 3"
by = "3 C"
[[trigger]]
name = "c"
[[trigger]]
name = "d"
when = "price >> 3"
by = 3
[[trigger]]
name = "e"
every_ms = 0
until = "price < 3"
pause_ms = 4
[[trigger]]
name = "f"
change = "door"
by = 1
say = ""
every = 3
[[trigger]]
name = "g"
change = "price"
by = "3 C"
say = 7
"#,
        &expect![[r#"
            site.toml:17: trigger number 1, name: expected a name of lower-case ASCII letters, digits, _, - or ., starting with a letter or digit, of 1 to 48 bytes, found nothing
            site.toml:18: trigger number 1, change: expected the name of a tag (did you mean price?), found "prise"
            site.toml:20: trigger a, by: expected how far the tag has to move, above 0, in its unit or one of the same quantity, found nothing
            site.toml:26: trigger a, by: expected how far the tag has to move, above 0, in its unit or one of the same quantity, found 0
            site.toml:27: trigger b: expected one of change, when or every_ms, found change and when
            site.toml:32: trigger c: expected one of change, when or every_ms, found none of them
            site.toml:36: trigger d, when: expected one of < <= > >= == != after price, found >>
            site.toml:37: trigger d, by: expected no by without change, found 3
            site.toml:40: trigger e, every_ms: expected a whole number from 1 to 3600000, found 0
            site.toml:41: trigger e, until: expected no until without when, found "price < 3"
            site.toml:46: trigger f, by: expected no by with a bool tag, every change of which counts, found 1
            site.toml:47: trigger f, say: expected one line of text of 1 to 512 bytes, found ""
            site.toml:48: trigger f: expected one of name, change, when, every_ms, by, until, say, pause_ms (did you mean every_ms?), found unknown field every
            site.toml:52: trigger g, by: expected a number in ct/kWh, or in a unit of the same quantity, found "3 C"
            site.toml:53: trigger g, say: expected one line of text of 1 to 512 bytes, found 7"#]],
    );
}

#[test]
fn announcements() {
    let commands = r#"
[[command]]
name = "move"
arguments = [{ name = "by", integer = [0, 9] }]
announce = "enable"
[[command]]
name = "enable"
"#;
    let parse = |guard: &str| Site::parse(&format!("{HEAD}{guard}{commands}"), Path::new("site.toml"));
    let site = parse("").unwrap();
    assert_eq!(site.commands.iter().map(|c| c.announce).collect::<Vec<_>>(), [Some(1), None, None]);
    assert_eq!(site.trigger_table(), "no triggers\nenable is sent as soon as move is decided\n");
    assert_eq!(site.prompt_prefix(), "site t\ndo move by=0..9\ndo enable\n");
    check(
        &format!("[guard]\ncommands = {{ burst = 1, per_minute = 9 }}\n{commands}"),
        &expect![[
            r#"site.toml:10: command move, announce: expected [guard] commands with burst = 2 or more: an announcement and its command take one each, found "enable""#
        ]],
    );
    check(
        &commands.replace("\"enable\"\n[[", "\"enabel\"\n[["),
        &expect![[
            r#"site.toml:8: command move, announce: expected the name of another command, one without arguments (did you mean enable?), found "enabel""#
        ]],
    );
    check(
        &commands.replace("\"enable\"\n[[", "\"move\"\n[["),
        &expect![[
            r#"site.toml:8: command move, announce: expected the name of another command, one without arguments, found "move""#
        ]],
    );
    check(
        &commands.replace("\"enable\"\n[[", "\"none\"\n[["),
        &expect![[
            r#"site.toml:8: command move, announce: expected the name of another command, one without arguments, found "none""#
        ]],
    );
    check(
        &commands.replace("\"enable\"\n[[", "3\n[["),
        &expect![
            "site.toml:8: command move, announce: expected the name of another command, one without arguments, found 3"
        ],
    );
}
