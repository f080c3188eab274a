//! `ganglion run` over real processes: guard, brain, plant, network.

mod common;
use common::*;
use serde_json::Value;

fn decisions(lines: &[Value]) -> Vec<&Value> {
    lines.iter().filter(|line| line["kind"] == "decision").collect()
}

#[test]
fn a_script_is_played_and_the_plant_takes_the_command() {
    let site = TestSite::new("hvac");
    let script = site.folder.write("script.txt", "set the kitchen to 21 degrees\n");
    let (status, lines) = site.run(&["--script", text(&script)]).end();
    assert!(status.success(), "{status}");
    let decisions = decisions(&lines);
    let asked = decisions.iter().find(|d| d["source"] == "script").expect("a decision");
    check_answer(asked);
    assert_eq!(asked["text"], "set the kitchen to 21 degrees");
    assert_eq!(asked["outcome"], "model", "{asked}");
    let command = serde_json::json!({"action": "set_temperature", "room": "kitchen", "celsius": 21});
    assert_eq!(asked["command"].to_string(), command.to_string());
    assert_eq!((asked["verdict"].as_str(), asked["actuated"].as_bool()), (Some("approved"), Some(true)));
    let took = |action: &str| lines.iter().any(|l| l["kind"] == "plant" && l["took"]["action"] == action);
    assert!(took("set_temperature"), "the plant took it: {lines:?}");
    assert!(took("all_off"), "a run that ends leaves the plant with the safe command: {lines:?}");
    assert_eq!(lines.last().unwrap()["kind"], "end");
    let verified = ganglion(&["audit", "verify", text(&site.audit())]);
    assert_eq!(verified.code, 0, "{verified:?}");
    assert!(verified.out.contains("intact"), "{verified:?}");
    let shown = ganglion(&["audit", "show", text(&site.audit())]);
    assert!(!shown.out.contains("kitchen to 21"), "the log keeps a keyed hash of the text, not the text");
    assert!(shown.out.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()));
}

#[test]
fn cycles_end_the_run() {
    let site = TestSite::new("hvac");
    let (status, lines) = site.run(&["--cycles", "25"]).end();
    assert!(status.success());
    let end = lines.last().unwrap();
    assert_eq!(end["kind"], "end");
    // Early wakes may add cycles between those of the period.
    assert!(end["cycles"].as_u64().unwrap() >= 25 && end["cycles"].as_u64().unwrap() < 40, "{end}");
}

#[test]
fn a_dry_run_decides_and_touches_nothing() {
    let site = TestSite::new("hvac").without_simulator().with_a_rule_that_shows();
    let _plant = site.start_plant("hvac");
    let mut plant = site.modbus();
    let outputs = [0, 1, 2, 10, 20, 21, 22, 30, 31, 100, 101];
    let before = outputs.map(|address| plant.holding(address));
    let script =
        site.folder.write("script.txt", "set the kitchen to 21 degrees\nfan in the hall at 80 percent\n");
    let (status, lines) = site.run(&["--dry-run", "--script", text(&script)]).end();
    assert!(status.success());
    let decisions = decisions(&lines);
    assert_eq!(decisions.iter().filter(|d| d["source"] == "script").count(), 2);
    for decision in decisions {
        check_answer(decision);
        assert_eq!(
            (decision["actuated"].as_bool(), decision["dry_run"].as_bool()),
            (Some(false), Some(true))
        );
    }
    assert!(!lines.iter().any(|line| line["kind"] == "plant" && !line["took"].is_null()));
    assert_eq!(outputs.map(|address| plant.holding(address)), before, "no output, no heartbeat, no watchdog");
    assert_eq!(plant.input(100), 0, "the watchdog was not armed");
    assert_eq!(ganglion(&["audit", "verify", text(&site.audit())]).code, 0, "and yet it was recorded");
}

#[test]
fn an_unreachable_plant_is_said_and_waited_for() {
    let site = TestSite::new("hvac").without_simulator();
    let mut run = site.run(&[]);
    run.wait_for("the link's error", |line| {
        line["kind"] == "link" && line["error"].as_str().is_some_and(|e| e.contains("cannot connect"))
    });
    run.wait_for("a status that says so", |line| {
        line["kind"] == "status"
            && line["connected"] == false
            && line["reason"].as_str().is_some_and(|r| r.contains("not connected"))
    });
    run.wait_for("the brain is up", |line| line["kind"] == "status" && line["brain"] == "ready");
    std::thread::sleep(std::time::Duration::from_millis(500));
    let answer = decide(&site, "set the kitchen to 21 degrees");
    assert_eq!(answer["verdict"], "rejected", "{answer}");
    let mode = http(site.http, "GET", "/v1/status", "").1;
    assert_eq!(mode["connected"], false, "{mode}");
    assert!(run.seen.iter().all(|line| line["mode"] != "Execute"), "no Execute without a plant");
    let _plant = site.start_plant("hvac");
    run.wait_for_execute();
    assert_eq!(decide(&site, "set the kitchen to 21 degrees")["verdict"], "approved");
    eventually("the plant has it", || site.modbus().holding(0) == 210);
}

#[test]
fn http_gives_the_answer_of_ask() {
    let site = TestSite::new("hvac");
    let mut run = site.run(&[]);
    run.wait_for_execute();
    let mut plant = site.modbus();
    let body = r#"{"text": "set the kitchen to 21 degrees", "dry_run": true}"#;
    let (status, answer) = http(site.http, "POST", "/v1/decide", body);
    assert_eq!(status, 200, "{answer}");
    check_answer(&answer);
    assert_eq!(answer.as_object().unwrap().len(), ANSWER_KEYS.len());
    let asked = ganglion(&["ask", text(site.path()), "set the kitchen to 21 degrees", "--json"]).json();
    for key in ["command", "verdict", "model", "schema", "deadline_ms"] {
        assert_eq!(answer[key], asked[key], "{key}");
    }
    assert_eq!(plant.holding(0), 200, "a dry run is not actuated");
    let body = r#"{"text": "set the kitchen to 21 degrees", "cache_salt": "mine"}"#;
    http(site.http, "POST", "/v1/decide", body);
    let answer = http(site.http, "POST", "/v1/decide", body).1;
    assert_eq!((answer["outcome"].as_str(), &answer["command"]), (Some("cache"), &asked["command"]));
    eventually("the plant has it", || plant.holding(0) == 210);
    for (body, status) in [
        ("", 400),
        ("{", 400),
        ("[]", 400),
        (r#"{"text": 1}"#, 400),
        (r#"{"text": "x", "extra": 1}"#, 400),
        (r#"{"text": "x", "tags": {"no_such_tag": 1}}"#, 400),
        (r#"{"text": "x", "tags": {"power_price": "dear"}}"#, 400),
        (r#"{"text": "x", "deadline_ms": 0}"#, 400),
        (r#"{"text": ""}"#, 422),
    ] {
        let (found, answer) = http(site.http, "POST", "/v1/decide", body);
        assert_eq!(found, status, "{body}: {answer}");
        assert!(answer["error"]["message"].as_str().is_some_and(|m| !m.is_empty()), "{body}: {answer}");
    }
    assert_eq!(http(site.http, "GET", "/v1/status", "").1["mode"], "Execute");
    signal("TERM", run.id());
    let (status, lines) = run.end();
    assert!(status.success(), "asked to end is no failure: {status}");
    assert!(lines.iter().any(|l| l["kind"] == "plant" && l["took"]["action"] == "all_off"));
}

#[test]
fn rows_of_a_table_become_sensor_events() {
    let site = TestSite::new("conveyor");
    let header = "UDI,Product ID,Type,Air temperature [K],Process temperature [K],Rotational speed [rpm],\
                  Torque [Nm],Tool wear [min],Machine failure,TWF,HDF,PWF,OSF,RNF";
    let rows: Vec<String> = [(42.8, 0), (46.3, 3), (71.5, 5), (39.5, 210), (40.0, 9)]
        .iter()
        .zip(1..)
        .map(|((torque, wear), n)| format!("{n},M{n},M,298.1,308.6,1500,{torque},{wear},0,0,0,0,0,0"))
        .collect();
    let table = site.folder.write("parts.csv", format!("{header}\n{}\n", rows.join("\n")));
    let (status, lines) = site.run(&["--script", text(&table), "--row-ms", "50"]).end();
    assert!(status.success());
    let decisions: Vec<_> = decisions(&lines).into_iter().filter(|d| d["source"] == "script").collect();
    let torques: Vec<_> = decisions.iter().map(|d| d["tags"]["torque"].as_f64().unwrap()).collect();
    assert_eq!(torques, [42.8, 46.3, 71.5, 39.5, 40.0], "one record a row, in order");
    for decision in decisions {
        check_answer(decision);
        assert_eq!(decision["text"], "");
    }
}

#[test]
fn nothing_is_started_on_bad_input() {
    let site = TestSite::new("hvac");
    let run = |arguments: &[&str]| {
        let audit = site.audit();
        let mut all = vec!["run", text(site.path()), "--audit", text(&audit)];
        all.extend(arguments);
        ganglion(&all)
    };
    let missing = run(&["--script", "no-such-script.txt"]);
    assert_eq!((missing.code, missing.out.as_str()), (1, ""), "{missing:?}");
    assert!(missing.err.contains("no-such-script.txt"), "{missing:?}");
    let script = site.folder.write("bad.txt", "set the kitchen to 21\n!dance\n");
    let bad = run(&["--script", text(&script)]);
    assert_eq!((bad.code, bad.out.as_str()), (1, ""), "{bad:?}");
    assert!(bad.err.contains("bad.txt:2") && bad.err.contains("!dance"), "{bad:?}");
    assert_eq!(run(&["--cycles", "0"]).code, 2);
    assert_eq!(run(&["--cycles", "many"]).code, 2);
    assert_eq!(run(&["--no-such-flag"]).code, 2);
    assert!(!site.audit().exists(), "no log was begun");
    let taken = std::net::TcpListener::bind(("127.0.0.1", site.modbus)).unwrap();
    let refused = run(&[]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(
        refused.err.contains("did not start") && refused.err.contains(&site.modbus.to_string()),
        "{refused:?}"
    );
    drop(taken);
}
