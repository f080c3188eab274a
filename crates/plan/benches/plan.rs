//! What verification costs, and that its two halves agree. `cargo bench -p ganglion-plan [-- --plans N] [--no-times]`.
//!
//! Times: the fast check, the solver's check of the same plans, and the solver's search, on the example site with costs
//! scaled down so that every plan passes: the longest way through the code. Then N random plans on random sites: the solver is
//! asked about each that the fast check accepts, and must refuse none.

#[path = "../tests/common/random.rs"]
mod random;

use ganglion_plan::smt::{search, verify};
use ganglion_plan::{Checker, Solver, Start, Step, Task};
use ganglion_site::{Command, Site};
use random::Random;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

const SIZES: [usize; 4] = [5, 10, 20, 50];
/// Tasks, and commands that have to be added.
const SEARCHES: [(usize, usize); 6] = [(2, 1), (3, 1), (4, 1), (4, 2), (6, 2), (8, 2)];
const CHECKS: usize = 20_000;
const QUESTIONS: usize = 400;
const PLANS: u64 = 100_000;
/// More than a site would give, so that the slowest is measured and not cut off.
const PATIENCE_MS: u32 = 10_000;

fn main() {
    let words: Vec<String> = std::env::args().collect();
    let plans =
        words.iter().position(|word| word == "--plans").and_then(|at| words.get(at + 1)?.parse().ok());
    let site = mild_example();
    if let Some(folder) = words.iter().position(|word| word == "--dump").and_then(|at| words.get(at + 1)) {
        return dump(&site, Path::new(folder));
    }
    println!("check                    steps      n        p50        p99      p99.9        max");
    for steps in SIZES {
        let times = fast(&site, steps);
        line("intervals", steps, times);
    }
    let mut solver = match Solver::start(Path::new(Solver::PROGRAM), PATIENCE_MS) {
        Ok(solver) => solver,
        Err(error) => return println!("skipped: {error}"),
    };
    if words.iter().any(|word| word == "--no-times") {
        return differential(&mut solver, plans.unwrap_or(PLANS));
    }
    for steps in SIZES {
        let times = exact(&site, &mut solver, steps);
        line("solver, same plan", steps, times);
    }
    for (tasks, extra) in SEARCHES {
        let times = searching(&site, &mut solver, tasks, extra);
        line(&format!("solver, search +{extra}"), tasks, times);
    }
    differential(&mut solver, plans.unwrap_or(PLANS));
}

/// The example, with a robot that uses little and drives fast.
fn mild_example() -> Arc<Site> {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../examples/inspection/site.toml");
    let text = std::fs::read_to_string(&file).expect("the example");
    let text = text
        .replace("per_min = [-3.4, -3.1]", "per_min = [-0.034, -0.031]")
        .replace("per_min = [-2.2, -1.5]", "per_min = [-0.022, -0.015]")
        .replace("per_min = [-2, 1.5]", "per_min = [-0.02, 0.015]")
        .replace("time_max = \"60 min\"", "time_max = \"24 h\"");
    Arc::new(Site::parse(&text, &file).unwrap_or_else(|error| panic!("{error}")))
}

fn start(site: &Site) -> Start {
    let mut start = Start::UNKNOWN;
    (0..site.tags.len()).for_each(|tag| start.set(tag, 0.0));
    for (name, value) in [("battery", 90.0), ("boiler_temperature", 60.0), ("pressure", 6.0)] {
        start.set(site.find_tag(name).expect("a tag of the example"), value);
    }
    start
}

fn command(site: &Site, json: &str) -> Command {
    Command::from_json(site, json).unwrap_or_else(|error| panic!("{json}: {error}"))
}

/// A tour of `count` steps that ends at the dock.
fn tour(site: &Site, random: &mut Random, count: usize) -> Vec<Step> {
    const NEXT: [(&str, &[&str]); 6] = [
        ("dock", &["gallery", "valve_1"]),
        ("gallery", &["valve_2", "valve_3"]),
        ("valve_1", &["dock", "valve_2"]),
        ("valve_2", &["gallery", "valve_1", "valve_4"]),
        ("valve_3", &["gallery", "valve_4"]),
        ("valve_4", &["valve_2", "valve_3"]),
    ];
    let mut here = "dock";
    let mut steps = Vec::new();
    while steps.len() + 3 < count {
        let json = match here.starts_with("valve") && random.odds(60) {
            true => format!(r#"{{"action":"measure","valve":"{here}","quantity":"pressure"}}"#),
            false => {
                let (_, roads) = NEXT.iter().find(|(place, _)| *place == here).expect("a place");
                here = roads[random.below(roads.len())];
                format!(r#"{{"action":"go_to","place":"{here}"}}"#)
            }
        };
        steps.push(command(site, &json).into());
    }
    // Home, over at most two roads and one of none.
    let via: &[&str] = match here {
        "valve_4" => &["valve_2", "valve_1"],
        "valve_2" => &["valve_1"],
        "valve_3" => &["gallery"],
        _ => &[],
    };
    steps.extend(
        via.iter()
            .map(|place| Step::from(command(site, &format!(r#"{{"action":"go_to","place":"{place}"}}"#)))),
    );
    while steps.len() < count {
        steps.push(command(site, r#"{"action":"return_home"}"#).into());
    }
    steps
}

fn fast(site: &Arc<Site>, count: usize) -> Vec<f64> {
    let mut checker = Checker::new(site).expect("a plan");
    let mut random = Random(count as u64);
    let start = start(site);
    let plans: Vec<_> = (0..100).map(|_| tour(site, &mut random, count)).collect();
    (0..CHECKS)
        .map(|index| {
            let plan = &plans[index % plans.len()];
            let begin = Instant::now();
            let result = black_box(checker.check(black_box(&start), black_box(plan)));
            let time = begin.elapsed();
            assert!(result.is_ok(), "{}", result.unwrap_err().sentence(site, plan));
            time.as_secs_f64() * 1e6
        })
        .collect()
}

fn exact(site: &Arc<Site>, solver: &mut Solver, count: usize) -> Vec<f64> {
    let mut random = Random(count as u64);
    let start = start(site);
    (0..QUESTIONS)
        .map(|_| {
            let plan: Vec<Command> = tour(site, &mut random, count).iter().map(|step| step.command).collect();
            let begin = Instant::now();
            let safe = search::judge(solver, site, &start, &plan);
            let time = begin.elapsed();
            assert_eq!(safe, Ok(Ok(())));
            time.as_secs_f64() * 1e6
        })
        .collect()
}

/// Lists of tasks that in any order only pass with commands added: one of them the way home.
fn lists(site: &Site, tasks: usize) -> impl Iterator<Item = Vec<Task>> {
    let mut random = Random(tasks as u64);
    let mut one = move || {
        let valve = 1 + random.below(4);
        let json = match random.below(2) {
            0 => format!(r#"{{"action":"photograph","valve":"valve_{valve}"}}"#),
            _ => format!(r#"{{"action":"measure","valve":"valve_{valve}","quantity":"leak"}}"#),
        };
        Task { command: command(site, &json), after_previous: random.odds(30) }
    };
    (0..QUESTIONS / 10).map(move |_| (0..tasks).map(|_| one()).collect())
}

fn searching(site: &Arc<Site>, solver: &mut Solver, tasks: usize, extra: usize) -> Vec<f64> {
    let start = start(site);
    lists(site, tasks)
        .map(|list| {
            let begin = Instant::now();
            let found = search::find(solver, site, &start, &list, (extra, 2));
            let time = begin.elapsed();
            assert!(matches!(found, Ok(search::Found::Order(_))), "{found:?}");
            time.as_secs_f64() * 1e6
        })
        .collect()
}

/// Writes the questions of the searches as SMT-LIB files.
fn dump(site: &Arc<Site>, folder: &Path) {
    std::fs::create_dir_all(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    for (tasks, extra) in SEARCHES {
        for (index, list) in lists(site, tasks).enumerate() {
            let text = search::question(site, &start(site), &list, (extra, 2)).unwrap_or_default();
            let file = folder.join(format!("search-{tasks}-{extra}-{index:02}.smt2"));
            std::fs::write(&file, text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        }
    }
}

fn line(name: &str, steps: usize, mut times: Vec<f64>) {
    times.sort_by(f64::total_cmp);
    let at = |part: f64| times[((times.len() as f64 * part).ceil() as usize).clamp(1, times.len()) - 1];
    let show = |us: f64| if us < 1000.0 { format!("{us:.1} us") } else { format!("{:.1} ms", us / 1000.0) };
    println!(
        "{name:<24} {steps:>5} {:>6} {:>10} {:>10} {:>10} {:>10}",
        times.len(),
        show(at(0.5)),
        show(at(0.99)),
        show(at(0.999)),
        show(at(1.0))
    );
}

fn differential(solver: &mut Solver, plans: u64) {
    let (mut accepted, mut refused, begin) = (0u64, 0u64, Instant::now());
    for seed in 0..plans {
        let site = random::site(seed / 10);
        let mut random = Random(seed ^ 0xd1ff);
        let start = random::start(&mut random, &site);
        let count = 1 + random.below(12);
        let steps = random::plan(&mut random, &site, &start, count);
        if Checker::new(&site).expect("a plan").check(&start, &steps).is_err() {
            continue;
        }
        accepted += 1;
        let safe = verify::is_safe(solver, &site, &start, &steps);
        if safe != Ok(true) {
            refused += 1;
            println!("seed {seed}: accepted by the fast check, the solver says {safe:?}");
        }
    }
    println!(
        "differential: {plans} random plans, {accepted} accepted by the fast check, {refused} of these refused by the solver ({:.0} s)",
        begin.elapsed().as_secs_f64()
    );
    assert_eq!(refused, 0, "the fast check accepts what the solver refuses");
}
