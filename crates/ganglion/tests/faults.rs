//! A brain that dies, stops or loops costs nothing but its answer; a guard that dies leaves a plant in its safe state.

mod common;
use common::*;

const FAN_HALL: u16 = 22;
const WATCHDOG_STATE: u16 = 100;
const TRIPPED: u16 = 2;

/// A running site in which the model answers and no rule has acted yet.
fn start(arguments: &[&str]) -> (TestSite, Run, Modbus) {
    let site = TestSite::new("hvac").with_a_rule_that_shows();
    let mut run = site.run(arguments);
    run.wait_for_execute();
    let mut plant = site.modbus();
    // A machine with much other work may have had the rules in control meanwhile.
    plant.write(FAN_HALL, 0);
    (site, run, plant)
}

fn wait_for_rule(run: &mut Run) {
    let line = run.wait_for("the rule controller's command", |line| {
        line["kind"] == "decision" && line["outcome"] == "rule" && line["actuated"] == true
    });
    assert_eq!(line["command"].to_string(), r#"{"action":"set_fan","room":"hall","percent":20}"#);
}

/// The model answers again, from another process than before.
fn wait_for_recovery(site: &TestSite, run: &mut Run, old: u32) {
    run.wait_for("the breaker is closed again", |line| {
        line["kind"] == "status" && line["breaker"] == "closed" && line["brain"] == "ready"
    });
    let answer = decide(site, "set the kitchen to 21 degrees");
    assert!(["model", "cache"].contains(&answer["outcome"].as_str().unwrap()), "{answer}");
    assert_eq!(answer["command"]["action"], "set_temperature");
    assert_ne!(run.brain(), old, "another process");
    assert!(!is_alive(old), "the old one is gone");
}

#[test]
fn a_killed_brain_is_replaced_by_the_rules_and_then_by_another_brain() {
    let (site, mut run, mut plant) = start(&[]);
    let brain = run.brain();
    signal("KILL", brain);
    wait_for_rule(&mut run);
    eventually("the plant has the rule's command", || plant.holding(FAN_HALL) == 20);
    wait_for_recovery(&site, &mut run, brain);
    eventually("the plant has the model's command", || plant.holding(0) == 210);
    assert_ne!(plant.input(WATCHDOG_STATE), TRIPPED, "the heartbeat never stopped");
}

#[test]
fn a_stopped_brain_is_noticed_killed_and_replaced() {
    let (site, mut run, mut plant) = start(&[]);
    let brain = run.brain();
    signal("STOP", brain);
    let body = r#"{"text": "set the office to 22 degrees", "deadline_ms": 500}"#;
    let (status, answer) = http(site.http, "POST", "/v1/decide", body);
    assert_eq!((status, answer["outcome"].as_str()), (200, Some("rule")), "{answer}");
    check_answer(&answer);
    assert!(answer["latency_ms"].as_f64().unwrap() < 2_000.0, "answered at its deadline: {answer}");
    wait_for_rule(&mut run);
    eventually("the plant has the rule's command", || plant.holding(FAN_HALL) == 20);
    wait_for_recovery(&site, &mut run, brain);
    assert_ne!(plant.input(WATCHDOG_STATE), TRIPPED, "the heartbeat never stopped");
}

#[test]
fn a_looping_brain_is_noticed_killed_and_replaced() {
    let (site, mut run, mut plant) = start(&["--brain-fault", "loop-after=1"]);
    let brain = run.brain();
    assert_eq!(decide(&site, "set the kitchen to 21 degrees")["outcome"], "model");
    let body = r#"{"text": "set the office to 22 degrees", "deadline_ms": 500}"#;
    let (status, answer) = http(site.http, "POST", "/v1/decide", body);
    assert_eq!((status, answer["outcome"].as_str()), (200, Some("rule")), "{answer}");
    wait_for_rule(&mut run);
    eventually("the plant has the rule's command", || plant.holding(FAN_HALL) == 20);
    run.wait_for("the brain is killed", |line| {
        line["kind"] == "brain" && line["reason"].as_str().is_some_and(|r| r.contains("killed"))
    });
    run.wait_for("another one is ready", |line| {
        line["kind"] == "brain" && line["reason"].as_str().is_some_and(|r| r.contains("ready"))
    });
    assert!(!is_alive(brain));
    assert_ne!(plant.input(WATCHDOG_STATE), TRIPPED, "the heartbeat never stopped");
}

#[test]
fn invariant_14_a_killed_guard_leaves_the_plant_safe_and_no_brain_behind() {
    let site = TestSite::new("hvac").without_simulator();
    let _plant = site.start_plant("hvac");
    let mut run = site.run(&[]);
    run.wait_for_execute();
    let mut plant = site.modbus();
    plant.write(10, 1);
    plant.write(20, 50);
    assert_eq!(plant.input(WATCHDOG_STATE), 1, "armed");
    let brain = run.brain();
    // Not even a brain that cannot see its socket close outlives its guard.
    signal("STOP", brain);
    signal("KILL", run.id());
    eventually("the plant's own watchdog trips", || plant.input(WATCHDOG_STATE) == TRIPPED);
    assert_eq!((plant.holding(10), plant.holding(20)), (0, 0), "heating and fans are off");
    eventually("the brain is gone", || !is_alive(brain));
}

#[test]
fn ctrl_c_sends_the_safe_command_to_a_plant_that_is_still_there() {
    let site = TestSite::new("hvac");
    let mut run = site.run(&[]);
    run.wait_for_execute();
    run.press_ctrl_c();
    let (status, lines) = run.end();
    assert!(status.success(), "{status}");
    let took = |line: &serde_json::Value| line["kind"] == "plant" && line["took"]["action"] == "all_off";
    assert!(lines.iter().any(took), "{lines:?}");
}

#[test]
fn a_stop_before_the_start_is_the_last_word() {
    let site = TestSite::new("hvac").without_simulator();
    let mut run = site.run(&[]);
    run.wait_for("the brain is up", |line| line["kind"] == "status" && line["brain"] == "ready");
    run.type_line("!stop");
    run.wait_for("Stopped by hand", |line| line["kind"] == "status" && line["mode"] == "Stopped");
    let _plant = site.start_plant("hvac");
    run.wait_for("the plant is there", |line| line["kind"] == "status" && line["connected"] == true);
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert_eq!(http(site.http, "GET", "/v1/status", "").1["mode"], "Stopped");
    run.type_line("!reset");
    run.wait_for("Idle by hand", |line| line["kind"] == "status" && line["mode"] == "Idle");
    run.type_line("!start");
    run.wait_for_execute();
}

#[test]
fn a_typed_emergency_stop_does_not_wait_behind_sentences() {
    let site = TestSite::new("hvac");
    let mut run = site.run(&[]);
    run.wait_for_execute();
    signal("STOP", run.brain());
    for _ in 0..20 {
        run.type_line("set the kitchen to 21 degrees");
    }
    run.type_line("!estop");
    let mut asked = 0;
    run.wait_for("Aborted", |line| {
        asked += usize::from(line["kind"] == "decision");
        line["kind"] == "status" && line["mode"] == "Aborted"
    });
    assert!(asked < 20, "{asked} sentences were answered first");
}

#[test]
fn an_emergency_stop_outlives_the_process() {
    let site = TestSite::new("hvac").without_simulator();
    let _plant = site.start_plant("hvac");
    let file = site.audit().join("latched");
    let mode = |run: &mut Run, mode: &str| {
        run.wait_for(mode, |line| line["kind"] == "status" && line["mode"] == mode);
    };
    let mut run = site.run(&[]);
    run.wait_for_execute();
    assert!(!file.exists());
    run.type_line("!estop");
    mode(&mut run, "Aborted");
    eventually("the abort is written down", || file.exists());
    signal("KILL", run.id());
    drop(run);
    let mut run = site.run(&[]);
    run.wait_for("what was and what to do", |line| {
        let said = line["reason"].as_str().unwrap_or_default();
        said.contains("the run before was aborted (emergency stop)") && said.contains("!clear")
    });
    mode(&mut run, "Aborted");
    run.wait_for("the safe command", |line| line["kind"] == "plant" && line["took"].is_object());
    run.type_line("!start");
    run.wait_for("a refusal", |line| line["reason"].as_str().is_some_and(|r| r.contains("Start refused")));
    // The end of a run is no Clear either.
    run.press_ctrl_c();
    assert!(run.end().1.iter().all(|line| line["mode"] != "Execute"));
    let mut run = site.run(&[]);
    mode(&mut run, "Aborted");
    run.type_line("!clear");
    mode(&mut run, "Stopped");
    eventually("the abort is forgotten", || !file.exists());
    run.type_line("!reset");
    mode(&mut run, "Idle");
    run.type_line("!start");
    run.wait_for_execute();
}
