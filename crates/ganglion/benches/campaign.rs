//! The fault campaign over real processes: a brain that is killed, stopped or loops, a plant that is gone, a guard that is
//! killed; and how long it takes until the plant has a safe command, or the plant is safe by itself.
//!
//! ```text
//! cargo bench -p ganglion --bench campaign -- [--runs 50] [--json FILE]
//! ```
//!
//! Times are measured from outside: from the signal to the register that a Modbus client of its own reads, or to the line
//! that the run prints. They are figures of this machine and its load, and no verdict hangs on them but one: the program
//! fails when a fault is not answered at all.

#[path = "../tests/common/mod.rs"]
mod common;

use common::*;
use serde_json::json;
use std::time::Instant;

const PERIOD_MS: u64 = 20;
const WATCHDOG_MS: u64 = 200;
const FAN_HALL: u16 = 22;
const WATCHDOG_STATE: u16 = 100;
const TRIPPED: u16 = 2;

/// A site with a short cycle and a rule that shows in a register.
fn site() -> TestSite {
    let site = TestSite::new("hvac").with_a_rule_that_shows();
    site.set("period_ms = ", &format!("period_ms = {PERIOD_MS}"));
    site.set("deadline_ms = ", "deadline_ms = 100");
    site.set("brain_timeout_ms = ", "brain_timeout_ms = 400");
    site.set("watchdog_ms = ", &format!("watchdog_ms = {WATCHDOG_MS}"));
    site.without_simulator()
}

fn ms_since(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1000.0
}

/// Running, with the model in control and the rule's register empty.
fn start(arguments: &[&str]) -> (TestSite, Process, Run, Modbus) {
    let site = site();
    let plant = site.start_plant("hvac");
    let mut run = site.run(arguments);
    run.wait_for_execute();
    let mut registers = site.modbus();
    registers.write(FAN_HALL, 0);
    (site, plant, run, registers)
}

fn until_rule(registers: &mut Modbus, start: Instant) -> f64 {
    eventually_fast("the rule's command is in the plant", || registers.holding(FAN_HALL) == 20);
    ms_since(start)
}

fn eventually_fast(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "did not happen: {what}");
        std::thread::sleep(std::time::Duration::from_micros(500));
    }
}

/// From the signal to the rule's command in the plant.
fn brain_killed() -> f64 {
    let (_site, _plant, run, mut registers) = start(&[]);
    let brain = run.brain();
    let now = Instant::now();
    signal("KILL", brain);
    until_rule(&mut registers, now)
}

/// From an event's deadline to its answer by the rule; 0 when the answer came before.
fn beyond_the_deadline(site: &TestSite) -> f64 {
    let body = r#"{"text": "set the office to 22 degrees"}"#;
    let (status, answer) = http(site.http, "POST", "/v1/decide", body);
    assert_eq!((status, answer["outcome"].as_str()), (200, Some("rule")), "{answer}");
    (answer["latency_ms"].as_f64().unwrap() - answer["deadline_ms"].as_f64().unwrap()).max(0.0)
}

fn brain_stopped() -> f64 {
    let (site, _plant, run, _) = start(&[]);
    signal("STOP", run.brain());
    beyond_the_deadline(&site)
}

fn brain_loops() -> f64 {
    let (site, _plant, _run, _) = start(&["--brain-fault", "loop-after=0"]);
    beyond_the_deadline(&site)
}

/// From the plant's end to the guard's hold, after which nothing is sent.
fn plant_gone() -> f64 {
    let (_site, plant, mut run, registers) = start(&[]);
    drop(registers);
    let now = Instant::now();
    drop(plant);
    run.wait_for("Held", |line| {
        line["kind"] == "status" && ["Holding", "Held"].contains(&line["mode"].as_str().unwrap_or_default())
    });
    ms_since(now)
}

/// From the signal to the plant's own safe state, less the time that its watchdog is set to.
fn guard_killed() -> f64 {
    let (_site, _plant, run, mut registers) = start(&[]);
    registers.write(20, 50);
    let now = Instant::now();
    signal("KILL", run.id());
    eventually_fast("the plant's watchdog trips", || {
        registers.input(WATCHDOG_STATE) == TRIPPED && registers.holding(20) == 0
    });
    (ms_since(now) - WATCHDOG_MS as f64).max(0.0)
}

type Scenario = (&'static str, &'static str, fn() -> f64);

const SCENARIOS: [Scenario; 5] = [
    ("brain killed", "signal to the rule's command in the plant", brain_killed),
    ("brain stopped", "deadline to the rule's answer", brain_stopped),
    ("brain loops", "deadline to the rule's answer", brain_loops),
    ("plant gone", "end of the plant to the guard's hold", plant_gone),
    ("guard killed", "watchdog time to the plant's safe state", guard_killed),
];

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let value = |name: &str| arguments.iter().position(|a| a == name).and_then(|at| arguments.get(at + 1));
    let runs: usize = value("--runs").and_then(|runs| runs.parse().ok()).unwrap_or(50);
    println!("cycle {PERIOD_MS} ms, plant's watchdog {WATCHDOG_MS} ms, {runs} runs each\n");
    println!("| fault | from … to | median ms | max ms | max cycles |\n|---|---|---|---|---|");
    let mut rows = Vec::new();
    for (fault, span, scenario) in SCENARIOS {
        let mut times: Vec<f64> = (0..runs).map(|_| scenario()).collect();
        times.sort_by(f64::total_cmp);
        let (median, max) = (times[times.len() / 2], times[times.len() - 1]);
        let cycles = max / PERIOD_MS as f64;
        println!("| {fault} | {span} | {median:.1} | {max:.1} | {cycles:.2} |");
        rows.push(json!({"fault": fault, "span": span, "median_ms": median, "max_ms": max, "max_cycles": cycles, "ms": times}));
    }
    if let Some(file) = value("--json") {
        let report =
            json!({"period_ms": PERIOD_MS, "watchdog_ms": WATCHDOG_MS, "runs": runs, "faults": rows});
        std::fs::write(file, format!("{report:#}\n")).unwrap_or_else(|error| panic!("{file}: {error}"));
    }
}
