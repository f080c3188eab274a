//! The fault campaign: random plants, brains and operators against one guard, on a simulated clock, with an independent
//! monitor for each of the field's invariants that a simulation can show. Prints a table; `--json FILE` writes it too.
//!
//! ```text
//! cargo run --release -p ganglion-guard --example campaign -- [--runs 1000] [--json FILE]
//! ```
//!
//! A monitor sees what an observer outside the guard sees: inputs, outputs, the site. `checks` counts how often the case that
//! it watches for came up; one that never did would show nothing, so the program fails then as it does at a violation.

#[path = "campaign/monitors.rs"]
mod monitors;
#[path = "campaign/world.rs"]
mod world;

use monitors::{INVARIANTS, Monitors};
use std::fmt::Write as _;
use std::process::ExitCode;
use world::World;

const CYCLES: u64 = 400;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let value = |name: &str| arguments.iter().position(|a| a == name).and_then(|at| arguments.get(at + 1));
    let runs = value("--runs").and_then(|runs| runs.parse().ok()).unwrap_or(1000);
    let mut all = Monitors::default();
    for seed in 0..runs {
        let run = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            let mut monitors = Monitors::default();
            for _ in 0..CYCLES {
                world.step(&mut monitors);
            }
            world.end(&mut monitors);
            monitors
        });
        match run {
            Ok(monitors) => all.add(&monitors),
            Err(_) => all.check(2, false, || format!("seed {seed}: panic")),
        }
    }
    let (text, json) = report(&all, runs);
    print!("{text}");
    if let Some(file) = value("--json")
        && let Err(error) = std::fs::write(file, json)
    {
        eprintln!("{file}: {error}");
        return ExitCode::FAILURE;
    }
    let fine = INVARIANTS.iter().all(|(number, _)| all.checks(*number) > 0 && all.violations(*number) == 0);
    if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn report(all: &Monitors, runs: u64) -> (String, String) {
    let mut text = format!(
        "{runs} runs of {CYCLES} cycles\n\n| # | invariant | checks | violations |\n|---|---|---|---|\n"
    );
    let mut rows = Vec::new();
    for (number, name) in INVARIANTS {
        let (checks, violations) = (all.checks(number), all.violations(number));
        let _ = writeln!(text, "| {number} | {name} | {checks} | {violations} |");
        rows.push(format!(
            "{{\"invariant\": {number}, \"name\": \"{name}\", \"checks\": {checks}, \"violations\": {violations}}}"
        ));
    }
    for example in all.examples() {
        let _ = writeln!(text, "VIOLATION {example}");
    }
    let json =
        format!("{{\"runs\": {runs}, \"cycles\": {CYCLES}, \"invariants\": [\n{}\n]}}\n", rows.join(",\n"));
    (text, json)
}
