//! `ganglion mission` over real processes: guard, brain with the default model, simulated robot, solver.

mod common;
use common::*;
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::{Command, ExitStatus};

/// A robot that lives faster, and a solver with patience: a slow machine changes no outcome.
fn site() -> TestSite {
    let site = TestSite::new("inspection");
    site.set("simulator_speed = ", "simulator_speed = 200");
    site.set("insert_max = ", "insert_max = 3\nbudget_ms = 10000");
    site
}

fn has_solver() -> bool {
    let found = Command::new("z3").arg("--version").output().is_ok_and(|output| output.status.success());
    if !found {
        println!("skipped: z3 is not installed");
    }
    found
}

fn mission(site: &TestSite, text: &str, more: &[&str]) -> (ExitStatus, Vec<Value>) {
    let audit = site.audit();
    let mut command = Command::new(GANGLION);
    command
        .args(["mission", common::text(site.path()), text, "--json", "--audit", common::text(&audit)])
        .args(more);
    Run::of(command).end()
}

fn took(lines: &[Value]) -> Vec<&str> {
    let taken = lines.iter().filter(|line| line["kind"] == "plant" && line["took"].is_object());
    taken.map(|line| line["took"]["action"].as_str().unwrap()).collect()
}

fn words(lines: &[Value]) -> Vec<&Value> {
    lines.iter().filter(|line| line["kind"] == "mission").collect()
}

fn last_word(lines: &[Value]) -> String {
    words(lines).last().unwrap()["text"].as_str().unwrap().to_owned()
}

#[test]
fn an_instruction_becomes_a_verified_plan_and_is_carried_out() {
    let site = site();
    let (status, lines) =
        mission(&site, "open valve 3 and measure the pressure at valve 4, then return home", &[]);
    assert!(status.success(), "{status}: {}", last_word(&lines));
    assert_eq!(
        took(&lines),
        ["go_to", "go_to", "open_valve", "go_to", "measure", "go_to", "go_to", "return_home", "halt"],
        "the plan, and the safe command at the end of the run"
    );
    let mut states: Vec<&str> = words(&lines).iter().map(|word| word["state"].as_str().unwrap()).collect();
    states.dedup();
    let rounds = ["Execute", "Monitor"].repeat(8);
    assert_eq!(states, [vec!["ReceiveCmd", "Parse"], rounds, vec!["Complete"]].concat());
    let plan = words(&lines).iter().find_map(|word| word["plan"].as_array().cloned()).unwrap();
    let last = plan.last().unwrap();
    let battery = |index: usize| last["tags"]["battery"][index].as_f64().unwrap();
    assert!(plan.len() == 8 && battery(0) >= 20.0 && battery(0) < battery(1), "{last}");
    // What was forecast is what happened.
    let read = lines
        .iter()
        .rev()
        .find_map(|line| line["tags"]["battery"].as_f64().filter(|_| line["kind"] == "plant"));
    assert!(read.is_none_or(|read| read >= battery(0)), "{read:?} {last}");
    let completed =
        |reason: &str| lines.iter().any(|line| line["kind"] == "mode" && line["reason"] == reason);
    assert!(completed("Completing → Complete"), "PackML's Complete");
    assert_eq!(ganglion(&["audit", "verify", text(&site.audit())]).code, 0);
    let log = ganglion(&["audit", "show", text(&site.audit())]).out;
    for part in [
        "ReceiveCmd: an instruction",
        "Execute: step 3 of 8: open_valve valve=valve_3",
        "Complete: every step",
    ] {
        assert!(log.contains(part), "{part} is in the log:\n{log}");
    }
}

#[test]
fn a_dry_run_shows_the_plan_and_moves_nothing() {
    let site = site();
    let (status, lines) = mission(&site, "photograph valve 2 and return home", &["--dry-run"]);
    assert!(status.success(), "{}", last_word(&lines));
    assert!(took(&lines).is_empty());
    let plan = words(&lines).iter().find_map(|word| word["plan"].as_array().cloned()).unwrap();
    let actions: Vec<_> = plan.iter().map(|row| row["command"]["action"].as_str().unwrap()).collect();
    assert_eq!(actions.last(), Some(&"return_home"), "{actions:?}");
    assert!(plan.iter().all(|row| row["elapsed_s"][0].as_f64() <= row["elapsed_s"][1].as_f64()));
}

#[test]
fn refusals_are_sentences_and_nothing_moves() {
    let site = site();
    for (instruction, why) in [
        ("open valve 5 and return home", "would bring arm_torque 13 Nm above the 45 Nm it has to keep"),
        ("photograph valve 2 and sing a song", "\"sing a song\": no command of the site answers this"),
        ("photograph valve 4", "no other order was found: the solver no-such-solver cannot be started"),
    ] {
        let (status, lines) = mission(&site, instruction, &["--solver", "no-such-solver"]);
        assert_eq!(status.code(), Some(1), "{instruction}");
        assert!(last_word(&lines).contains(why), "{instruction}: {}", last_word(&lines));
        assert!(took(&lines).iter().all(|action| *action == "halt"), "{instruction}");
    }
    // What has not even the form of a mission starts nothing.
    for (instruction, why) in [("photograph valve 2 and is valve 3 open?", "is a question"), ("", "is empty")]
    {
        let refused = ganglion(&["mission", text(site.path()), instruction, "--json"]);
        assert_eq!((refused.code, refused.out.as_str()), (1, ""), "{instruction}");
        assert!(refused.err.contains(why), "{}", refused.err);
    }
    let hvac = TestSite::new("hvac");
    let none = ganglion(&["mission", text(hvac.path()), "all off"]);
    assert_eq!((none.code, none.out.as_str()), (1, ""));
    assert!(none.err.contains("a table [plan] is missing"), "{}", none.err);
}

#[test]
fn the_solver_adds_the_way_home() {
    if !has_solver() {
        return;
    }
    let site = site();
    let (status, lines) = mission(&site, "photograph valve 1", &[]);
    assert!(status.success(), "{}", last_word(&lines));
    assert_eq!(took(&lines), ["go_to", "photograph", "return_home", "halt"]);
    let adjusted = words(&lines).into_iter().find(|word| word["state"] == "Adjust").expect("a replan");
    assert!(adjusted["text"].as_str().unwrap().contains("place == 0 has to hold"), "{adjusted}");
}

/// The events of a mission that is ordered over HTTP, in order; `hear` is told each as it comes. `Err` is a refusal.
fn over_http(
    site: &TestSite,
    body: &str,
    mut hear: impl FnMut(&str, &Value),
) -> Result<Vec<(String, Value)>, (u16, Value)> {
    let mut stream = TcpStream::connect(("127.0.0.1", site.http)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let size = body.len();
    let head = "POST /v1/mission HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/json";
    write!(stream, "{head}\r\nContent-Length: {size}\r\n\r\n{body}").unwrap();
    let mut lines = BufReader::new(stream).lines().map(|line| line.unwrap());
    let status: u16 = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let mut body = lines.skip_while(|line| !line.is_empty()).skip(1);
    if status != 200 {
        return Err((status, serde_json::from_str(&body.next().unwrap()).unwrap()));
    }
    let mut events = Vec::new();
    while let Some(line) = body.next() {
        let Some(name) = line.strip_prefix("event: ") else { continue };
        let data = body.next().unwrap();
        let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        hear(name, &data);
        events.push((name.to_owned(), data));
    }
    Ok(events)
}

#[test]
fn a_mission_over_http_tells_its_plan_every_step_and_its_end() {
    let site = site();
    let mut run = site.run(&[]);
    run.wait_for_execute();
    let order = |text: &str, dry_run: bool| {
        let body = serde_json::json!({"text": text, "dry_run": dry_run}).to_string();
        over_http(&site, &body, |_, _| {}).unwrap()
    };
    let ended = |events: &[(String, Value)]| {
        let (name, answer) = events.last().unwrap().clone();
        assert_eq!(name, "answer");
        let word = |key: &str| answer[key].as_str().unwrap().to_owned();
        (word("outcome"), word("verdict"), word("reason"))
    };
    let ok = |outcome: &str| (outcome.to_owned(), "approved".to_owned(), String::new());
    // Nothing moves in a dry run, so that the same plan is made again afterwards.
    let text = "photograph valve 2 and return home";
    let planned = order(text, true);
    assert_eq!(ended(&planned), ok("planned"));
    let done = order(text, false);
    assert_eq!(ended(&done), ok("complete"));
    let plan = |events: &[(String, Value)]| {
        events.iter().find(|(name, _)| name == "plan").map(|(_, data)| data["plan"].clone()).unwrap()
    };
    assert_eq!(plan(&planned), plan(&done));
    let actions: Vec<Value> =
        plan(&done).as_array().unwrap().iter().map(|row| row["command"]["action"].clone()).collect();
    let mut states: Vec<&str> =
        done.iter().filter_map(|(name, data)| data["state"].as_str().filter(|_| name != "answer")).collect();
    states.dedup();
    let rounds = ["Execute", "Monitor"].repeat(actions.len());
    assert_eq!(states, [vec!["ReceiveCmd", "Parse"], rounds, vec!["Complete"]].concat());
    // What cannot be called safe is not begun, and the reason is the answer.
    let refused = order("photograph valve 2 and is valve 3 open?", false);
    let (outcome, verdict, reason) = ended(&refused);
    assert_eq!((outcome.as_str(), verdict.as_str()), ("failed", "rejected"));
    assert!(reason.contains("is a question, not a step"), "{reason}");
    assert!(refused.iter().all(|(name, _)| name != "plan"));
    run.press_ctrl_c();
    let (status, lines) = run.end();
    assert!(status.success());
    let mut wanted: Vec<&str> = actions.iter().map(|action| action.as_str().unwrap()).collect();
    wanted.push("halt");
    assert_eq!(took(&lines), wanted, "the plan, once, and the safe command at the end of the run");
}

#[test]
fn one_mission_at_a_time_and_any_command_ends_it_over_http_too() {
    let site = site();
    // Slow enough to be interrupted.
    site.set("simulator_speed = ", "simulator_speed = 5");
    let mut run = site.run(&[]);
    run.wait_for_execute();
    let mut taken_over = false;
    let events = over_http(&site, r#"{"text": "photograph valve 4 and return home"}"#, |_, data| {
        if data["state"] == "Monitor" && !std::mem::replace(&mut taken_over, true) {
            let (status, answer) = over_http(&site, r#"{"text": "return home"}"#, |_, _| {}).unwrap_err();
            assert_eq!((status, &answer["error"]["code"]), (409, &"busy".into()));
            decide(&site, "go to the pump room");
        }
    });
    let (name, answer) = events.unwrap().pop().unwrap();
    assert_eq!((name.as_str(), &answer["outcome"]), ("answer", &"failed".into()));
    assert_eq!((&answer["verdict"], taken_over), (&"approved".into(), true), "its plan was verified");
    assert!(answer["reason"].as_str().unwrap().contains("a command of the http has taken over"), "{answer}");
    drop(run);
    let hvac = TestSite::new("hvac");
    let mut run = hvac.run(&[]);
    run.wait_for_execute();
    let (status, answer) = over_http(&hvac, r#"{"text": "all off"}"#, |_, _| {}).unwrap_err();
    assert_eq!(
        (status, &answer["error"]["message"]),
        (422, &"no mission: the site file has no [plan]".into())
    );
}

#[test]
fn a_mission_that_is_cut_short_has_not_succeeded() {
    let site = site();
    let solver = site.folder.write("silent", "#!/bin/sh\nexec cat > /dev/null\n");
    std::fs::set_permissions(&solver, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut command = Command::new(GANGLION);
    command.args(["mission", text(site.path()), "return home", "--json", "--audit", text(&site.audit())]);
    command.args(["--solver", text(&solver)]);
    let mut run = Run::of(command);
    run.wait_for("the run is there", |line| line["kind"] == "status");
    signal("TERM", run.id());
    assert_eq!(run.end().0.code(), Some(1));
}

#[test]
fn lines_that_are_piped_wait_for_execute() {
    let site = site();
    let mut run = site.run(&["--dry-run"]);
    run.type_line("mission: photograph valve 2 and return home");
    run.hang_up();
    let (status, lines) = run.end();
    assert!(status.success());
    assert!(words(&lines).iter().any(|word| word["plan"].is_array()), "{}", last_word(&lines));
}

#[test]
fn an_operators_command_ends_a_mission_that_a_line_began() {
    let site = site();
    // Slow enough to be interrupted.
    site.set("simulator_speed = ", "simulator_speed = 5");
    let mut run = site.run(&[]);
    run.wait_for_execute();
    run.type_line("mission: photograph valve 4 and return home");
    run.wait_for("the robot is under way", |line| line["kind"] == "mission" && line["state"] == "Monitor");
    run.type_line("mission: photograph valve 1 and return home");
    run.type_line("go to the pump room");
    let end = run.wait_for("the mission ends", |line| line["kind"] == "mission" && line["state"] == "Idle");
    assert_eq!(end["text"], "the mission has ended: a command of the operator has taken over");
    let mut plant = site.modbus();
    eventually("the operator's command stands", || plant.holding(0) == 7);
    run.type_line("mission: go to the dock");
    run.wait_for("a plan from there, or a refusal", |line| {
        line["kind"] == "mission"
            && line["text"].as_str().is_some_and(|t| t.contains("plan is verified") || t.contains("ended"))
    });
    run.type_line("!stop");
    run.wait_for("stopped", |line| line["kind"] == "status" && line["mode"] == "Stopped");
}

/// The share of sentences that the default model decides rightly: measured, and kept from falling.
#[test]
fn the_default_model_decides_the_examples_sentences() {
    let site = site();
    let file = repository().join("examples/inspection/sentences.txt");
    let sentences = std::fs::read_to_string(file).unwrap();
    let (mut right, mut wrong) = (0, Vec::new());
    let mut run = site.run(&["--dry-run"]);
    run.wait_for_execute();
    for line in sentences.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let (sentence, meant) = line.split_once(" => ").unwrap();
        let command = decide(&site, sentence)["command"].clone();
        let object = command.as_object().unwrap();
        let words = object.iter().map(|(key, value)| match key.as_str() {
            "action" => value.as_str().unwrap().to_owned(),
            key => format!("{key}={}", value.as_str().unwrap()),
        });
        let found = words.collect::<Vec<_>>().join(" ");
        if found == meant { right += 1 } else { wrong.push(format!("{sentence}: {found}")) }
    }
    println!("{right} right, {} wrong: {wrong:?}", wrong.len());
    assert!(right >= 26 && wrong.len() <= 4, "{right} right, wrong: {wrong:?}");
}
