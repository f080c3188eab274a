//! `ganglion mission` over real processes: guard, brain with the default model, simulated robot, solver.

mod common;
use common::*;
use serde_json::Value;
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
        ("photograph valve 2 and is valve 3 open?", "is a question, not a step"),
        ("photograph valve 4", "no other order was found: the solver no-such-solver cannot be started"),
    ] {
        let (status, lines) = mission(&site, instruction, &["--solver", "no-such-solver"]);
        assert_eq!(status.code(), Some(1), "{instruction}");
        assert!(last_word(&lines).contains(why), "{instruction}: {}", last_word(&lines));
        assert!(took(&lines).iter().all(|action| *action == "halt"), "{instruction}");
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
