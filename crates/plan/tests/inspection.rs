//! Plans for the example site: what passes as said, what the solver mends, what is refused and in which words.

mod common;
use common::*;
use ganglion_plan::smt::search::judge;
use ganglion_plan::{Checker, Planner, Rule, Solver, Start, Step, Task};
use ganglion_site::{Command, Site};
use std::path::Path;
use std::sync::Arc;

fn start(site: &Site, battery: f64, boiler: f64, place: f64) -> Start {
    let mut start = Start::UNKNOWN;
    for tag in 0..site.tags.len() {
        start.set(tag, 0.0);
    }
    for (name, value) in
        [("battery", battery), ("boiler_temperature", boiler), ("place", place), ("pressure", 6.0)]
    {
        start.set(site.find_tag(name).unwrap(), value);
    }
    start
}

/// `open_valve valve=valve_3` and the like; `then` before it.
fn tasks(site: &Site, lines: &[&str]) -> Vec<Task> {
    let task = |line: &&str| {
        let (after_previous, line) = line.strip_prefix("then ").map_or((false, *line), |rest| (true, rest));
        let mut words = line.split(' ');
        let mut json = format!("{{\"action\":\"{}\"", words.next().unwrap());
        for (name, value) in words.map(|word| word.split_once('=').unwrap()) {
            json += &format!(",\"{name}\":\"{value}\"");
        }
        Task { command: Command::from_json(site, &(json + "}")).unwrap(), after_previous }
    };
    lines.iter().map(task).collect()
}

fn steps(site: &Site, plan: &ganglion_plan::Plan) -> Vec<String> {
    plan.steps.iter().map(|planned| planned.step.command.describe(site)).collect()
}

/// A planner whose solver is not there.
fn without_solver(site: &Arc<Site>) -> Planner {
    Planner::new(site, Path::new("no-such-solver")).unwrap()
}

#[test]
fn a_plan_that_is_safe_as_said_needs_no_solver_and_gets_its_ways() {
    let site = example();
    let asked = tasks(
        &site,
        &["open_valve valve=valve_3", "then measure valve=valve_4 quantity=pressure", "return_home"],
    );
    let plan = without_solver(&site).plan(&start(&site, 90.0, 60.0, 0.0), &asked).unwrap();
    assert_eq!(
        steps(&site, &plan),
        [
            "go_to place=gallery",
            "go_to place=valve_3",
            "open_valve valve=valve_3",
            "go_to place=valve_4",
            "measure valve=valve_4 quantity=pressure",
            "go_to place=valve_2",
            "go_to place=gallery",
            "return_home"
        ]
    );
    assert_eq!(plan.instead_of, None);
    assert_eq!(plan.steps.iter().filter_map(|step| step.task).collect::<Vec<_>>(), [0, 1, 2]);
    // 24 m at 1.35 to 1.5 m a minute, and the work.
    let (least, most) = (24.0 / 1.5 * 60.0 + 50.0, 24.0 / 1.35 * 60.0 + 105.0);
    assert!(
        (plan.time_s.lo - least).abs() < 1e-6 && (plan.time_s.hi - most).abs() < 1e-6,
        "{:?}",
        plan.time_s
    );
}

#[test]
fn without_a_solver_the_reason_says_how_to_get_one() {
    let site = example();
    let asked = tasks(&site, &["measure valve=valve_4 quantity=leak"]);
    let refusal = without_solver(&site).plan(&start(&site, 90.0, 60.0, 0.0), &asked).unwrap_err();
    let said = refusal.to_string();
    assert!(
        said.contains("the end of the plan would leave place at 5 where place == 0 has to hold"),
        "{said}"
    );
    assert!(said.contains("apt-get install z3"), "{said}");
    assert_eq!(refusal.violation.unwrap().rule, Rule::End(0));
}

#[test]
fn a_low_battery_is_charged_first_and_the_way_home_is_added() {
    let site = example();
    let Some(mut planner) = with_solver(&site) else { return };
    let asked = tasks(&site, &["photograph valve=valve_2", "photograph valve=valve_1"]);
    let plan = planner.plan(&start(&site, 45.0, 60.0, 0.0), &asked).unwrap();
    let steps = steps(&site, &plan);
    assert!(steps.contains(&"charge".to_string()), "{steps:?}");
    // Home: by the command for it, or to charge there.
    assert!(["return_home", "charge"].contains(&steps.last().unwrap().as_str()), "{steps:?}");
    let why = plan.instead_of.unwrap();
    assert!(why.contains("would leave battery"), "{why}");
}

#[test]
fn a_better_order_is_found_unless_the_order_was_said() {
    let site = example();
    let Some(mut planner) = with_solver(&site) else { return };
    // Valve 1 and 2 must not be open together, and closing needs an open one.
    let said = ["open_valve valve=valve_2", "close_valve valve=valve_1", "return_home"];
    let mut from = start(&site, 90.0, 60.0, 0.0);
    from.set(site.find_tag("valve_1_open").unwrap(), 1.0);
    let plan = planner.plan(&from, &tasks(&site, &said)).unwrap();
    let found = steps(&site, &plan);
    let place = |step: &str| found.iter().position(|other| other == step).unwrap();
    assert!(place("close_valve valve=valve_1") < place("open_valve valve=valve_2"), "{found:?}");
    assert!(
        plan.instead_of.unwrap().contains("could bring about valve_1_open == yes and valve_2_open == yes")
    );
    let ordered = ["open_valve valve=valve_2", "then close_valve valve=valve_1", "return_home"];
    let refusal = planner.plan(&from, &tasks(&site, &ordered)).unwrap_err().to_string();
    assert!(refusal.contains("never valve_1_open == yes and valve_2_open == yes"), "{refusal}");
    assert!(refusal.contains("close_valve valve=valve_1 after what was said before it"), "{refusal}");
}

#[test]
fn heat_torque_and_time_are_refused_in_words() {
    let site = example();
    let mut planner = with_solver(&site).unwrap_or_else(|| without_solver(&site));
    let refusal = |planner: &mut Planner, from: &Start, said: &[&str]| {
        planner.plan(from, &tasks(&site, said)).unwrap_err().to_string()
    };
    // 76 C now, up to 1.5 C more a minute: too hot after 6 m of way and work.
    let hot =
        refusal(&mut planner, &start(&site, 90.0, 76.0, 1.0), &["open_valve valve=valve_3", "return_home"]);
    assert!(hot.contains("would be at valve_3 while boiler_temperature > 80 C (it may read"), "{hot}");
    let stiff =
        refusal(&mut planner, &start(&site, 90.0, 60.0, 0.0), &["open_valve valve=valve_5", "return_home"]);
    assert!(
        stiff.starts_with(
            "step 3 open_valve valve=valve_5 would bring arm_torque 13 Nm above the 45 Nm it has to keep"
        ),
        "{stiff}"
    );
    let flat = refusal(&mut planner, &start(&site, 30.0, 60.0, 5.0), &["return_home"]);
    assert!(flat.starts_with("step 1 go_to place=valve_2 would leave battery 1.67 %"), "{flat}");
    assert!(flat.contains("below the 20 % it has to keep"), "{flat}");
    let lost = refusal(&mut planner, &start(&site, 90.0, 60.0, 255.0), &["return_home"]);
    assert!(lost.contains("place reads 255, which is no place of the map"), "{lost}");
    let mut blind = start(&site, 90.0, 60.0, 0.0);
    blind.tags[site.find_tag("battery").unwrap()] = None;
    let blind = refusal(&mut planner, &blind, &["return_home"]);
    assert!(blind.contains("tag battery has no usable reading"), "{blind}");
}

#[test]
fn the_core_of_a_plan_that_is_asked_about_names_its_rules() {
    let site = example();
    let Some(mut solver) = solver() else { return };
    let commands = |lines: &[&str]| tasks(&site, lines).iter().map(|task| task.command).collect::<Vec<_>>();
    let good =
        commands(&["go_to place=gallery", "go_to place=valve_2", "photograph valve=valve_2", "return_home"]);
    let from = start(&site, 90.0, 60.0, 0.0);
    assert_eq!(judge(&mut solver, &site, &from, &good), Ok(Ok(())));
    let broken = |solver: &mut Solver, from: &Start, lines: &[&str]| {
        judge(solver, &site, from, &commands(lines)).unwrap().unwrap_err()
    };
    let stiff = broken(&mut solver, &from, &["open_valve valve=valve_5", "return_home"]);
    assert_eq!(stiff, ["arm_torque <= 45 Nm"]);
    let away = broken(&mut solver, &from, &["photograph valve=valve_2"]);
    assert_eq!(away, ["place == 0 at the end"]);
    let flat = broken(&mut solver, &start(&site, 30.0, 60.0, 5.0), &["return_home"]);
    assert_eq!(flat, ["battery >= 20 %"]);
}

#[test]
fn a_hot_valve_is_driven_around() {
    let site = example();
    let asked = tasks(&site, &["photograph valve=valve_4", "return_home"]);
    let plan = without_solver(&site).plan(&start(&site, 95.0, 95.0, 0.0), &asked).unwrap();
    let steps = steps(&site, &plan);
    assert!(steps.iter().all(|step| !step.contains("valve_3")), "{steps:?}");
}

#[test]
fn what_is_read_under_way_keeps_the_rules_or_says_which_it_breaks() {
    let site = example();
    let checker = Checker::new(&site).unwrap();
    let go = |place: &str| Step::from(tasks(&site, &[&format!("go_to place={place}")])[0].command);
    let watch = |now: &Start, place: &str, from: usize| {
        checker.watch(now, &go(place), Some(from)).map_err(|violation| violation.rule)
    };
    let cool = start(&site, 50.0, 60.0, 1.0);
    assert_eq!(watch(&cool, "valve_3", 1), Ok(()));
    // The gallery is 1, valve 3 is 4, valve 4 is 5.
    let hot = start(&site, 50.0, 90.0, 1.0);
    assert_eq!(watch(&hot, "valve_3", 1), Err(Rule::AvoidPlace { place: 4 }));
    assert_eq!(watch(&hot, "gallery", 4), Ok(()), "away from it");
    assert!(matches!(watch(&hot, "valve_4", 4), Err(Rule::AvoidRoad { .. })), "over a closed road");
    assert_eq!(watch(&start(&site, 19.0, 60.0, 1.0), "gallery", 0), Err(Rule::Always(0)));
    let mut both = cool;
    both.set(site.find_tag("valve_1_open").unwrap(), 1.0);
    both.set(site.find_tag("valve_2_open").unwrap(), 1.0);
    assert_eq!(watch(&both, "gallery", 0), Err(Rule::Never(0)));
    // What is not read right now says nothing; what is read still does.
    both.tags[site.find_tag("battery").unwrap()] = None;
    assert_eq!(watch(&both, "gallery", 0), Err(Rule::Never(0)));
    assert_eq!(watch(&Start::UNKNOWN, "valve_3", 1), Ok(()));
    let measure = Step::from(tasks(&site, &["measure valve=valve_3 quantity=leak"])[0].command);
    assert!(checker.watch(&hot, &measure, Some(4)).is_err(), "where it is done");
}

#[test]
fn a_solver_that_was_missing_or_silent_is_tried_again_and_only_a_missing_one_is_to_be_installed() {
    let site = example();
    let now = start(&site, 90.0, 60.0, 0.0);
    let asked = tasks(&site, &["photograph valve=valve_1"]);
    let folder = std::env::temp_dir().join(format!("ganglion-solver-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let program = folder.join("solver");
    let mut planner = Planner::new(&site, &program).unwrap();
    let missing = planner.plan(&now, &asked).unwrap_err().sentence;
    assert!(missing.contains("apt-get install z3"), "{missing}");
    std::fs::write(&program, "#!/bin/sh\nexit 0\n").unwrap();
    let failed = planner.plan(&now, &asked).unwrap_err().sentence;
    assert!(
        failed.contains("cannot be started") && !failed.contains("install"),
        "there, but no program: {failed}"
    );
    std::fs::remove_file(&program).unwrap();
    if let Some(solver) = solver() {
        drop(solver);
        std::os::unix::fs::symlink(which("z3"), &program).unwrap();
        // In 50 ms a loaded machine may give no answer; started it is.
        let found = planner.plan(&now, &asked).map_err(|refusal| refusal.sentence);
        assert!(planner.solver().is_ok(), "{found:?}");
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

fn which(program: &str) -> std::path::PathBuf {
    let path = std::env::var_os("PATH").unwrap();
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file()).unwrap()
}
