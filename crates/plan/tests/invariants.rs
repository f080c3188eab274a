//! Invariants 29 and 30 of docs/safety.md.

mod common;
#[path = "common/random.rs"]
mod random;
use common::example;
use ganglion_plan::{Checker, PlanError, Planner, Solver, Start, Step, Task};
use ganglion_site::plan::{Amount, EffectHow, Span, Takes};
use ganglion_site::{Command, Compare, Limit, LimitTarget, Site, Value};
use random::Random;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A world in which a plan is carried out, written apart from the checker: time runs in small pieces, everything that the
/// site leaves open is thrown with dice, jumps come at a random moment, and every rule is looked at after every piece.
struct World<'a> {
    site: &'a Site,
    random: Random,
    tags: Vec<f64>,
    place: usize,
    clock_s: f64,
    /// What was sent, and when.
    sent: Vec<(Command, f64)>,
}

const PIECES: usize = 16;
/// Sums of floating-point numbers do not come out even.
const SLACK: f64 = 1e-6;

impl World<'_> {
    fn holds(&self, compare: &Compare, tags: &[f64]) -> bool {
        let by_slack = |slack: f64| compare.holds(tags[compare.tag] + slack);
        by_slack(0.0) || by_slack(SLACK) || by_slack(-SLACK)
    }

    /// The same, when holding is what must not be.
    fn holds_for_sure(&self, compare: &Compare, tags: &[f64]) -> bool {
        [0.0, SLACK, -SLACK].iter().all(|slack| compare.holds(tags[compare.tag] + slack))
    }

    fn look(&self, tags: &[f64], moving: &[usize]) {
        let plan = self.site.plan.as_ref().unwrap();
        for term in &plan.always {
            assert!(self.holds(&term.compare, tags), "always {term:?}: {tags:?}");
        }
        for terms in &plan.never {
            assert!(
                !terms.iter().all(|term| self.holds_for_sure(&term.compare, tags)),
                "never {terms:?}: {tags:?}"
            );
        }
        for limit in &self.site.limits {
            if let LimitTarget::Tag(tag) = limit.on
                && moving.contains(&tag)
                && limit.modes.is_none()
            {
                let value = tags[tag];
                assert!(limit.hi.is_none_or(|hi| value <= hi + SLACK), "hi {limit:?}: {value}");
                assert!(limit.lo.is_none_or(|lo| value >= lo - SLACK), "lo {limit:?}: {value}");
                assert!(limit.hihi.is_none_or(|hi| value < hi + SLACK), "hihi {limit:?}: {value}");
                assert!(limit.lolo.is_none_or(|lo| value > lo - SLACK), "lolo {limit:?}: {value}");
            }
        }
    }

    fn send(&mut self, command: &Command) {
        for limit in &self.site.limits {
            let LimitTarget::Argument { command: verb, argument } = limit.on else { continue };
            let force = limit.when.iter().all(|term| self.holds_for_sure(&term.compare, &self.tags));
            if usize::from(command.verb) != verb || !force {
                continue;
            }
            let Value::Integer(value) = command.values[argument] else { panic!("{command:?}") };
            self.judge_argument(limit, value as f64, verb, argument);
        }
        self.sent.push((*command, self.clock_s));
    }

    fn judge_argument(&self, limit: &Limit, value: f64, verb: usize, argument: usize) {
        assert!(limit.hi.is_none_or(|hi| value <= hi) && limit.lo.is_none_or(|lo| value >= lo), "{limit:?}");
        let Some((last, then_s)) = self.sent.iter().rev().find(|(c, _)| usize::from(c.verb) == verb) else {
            return;
        };
        let Value::Integer(last) = last.values[argument] else { panic!("{last:?}") };
        let (change, apart_s) = ((value - last as f64).abs(), self.clock_s - then_s);
        assert!(limit.rate_per_s.is_none_or(|rate| change <= rate * apart_s + SLACK), "{limit:?}");
        assert!(
            limit.dwell_ms.is_none_or(|ms| change == 0.0 || apart_s >= f64::from(ms) / 1e3 - SLACK),
            "{limit:?}"
        );
    }

    fn step(&mut self, step: &Step) {
        let plan = self.site.plan.as_ref().unwrap();
        let action = plan.actions[usize::from(step.command.verb)].as_ref().expect("a plan");
        self.send(&step.command);
        for term in action.needs.of(&step.command).unwrap() {
            assert!(self.holds(&term.compare, &self.tags), "needs {term:?}");
        }
        let from = self.place;
        let mut road = None;
        if let Some(map) = &plan.map {
            assert!(action.at.as_ref().is_none_or(|at| at.of(&step.command) == Some(from)), "not there");
            if let Some(moves) = &action.moves {
                self.place = moves.of(&step.command).unwrap();
                if self.place != from {
                    road = Some(&map.roads[map.road(from, self.place).expect("a road")]);
                }
            }
        }
        let length_m = road.map_or(0.0, |road| road.length_m);
        let time_s = match (action.takes, step.duration_s) {
            (Takes::Travel, Some(given)) => {
                let speed = plan.map.as_ref().map_or(1.0, |map| map.m_per_s.hi);
                assert!(length_m <= speed * given + SLACK, "faster than the map allows");
                given
            }
            (Takes::Travel, None) => match &plan.map {
                Some(map) => length_m / self.random.inside(map.m_per_s),
                None => 0.0,
            },
            (Takes::Seconds(span), given) => {
                let time = self.random.inside(span);
                given
                    .inspect(|given| assert!(*given >= time - SLACK, "less time than it takes"))
                    .unwrap_or(time)
            }
            (Takes::Argument { index, .. }, given) => {
                let Value::Integer(seconds) = step.command.values[index] else { panic!("seconds") };
                given.inspect(|given| assert!(*given >= seconds as f64)).unwrap_or(seconds as f64)
            }
        };
        self.carry_out(step, time_s, length_m, from, road.map_or(&[][..], |road| &road.avoid));
        self.clock_s += time_s;
        assert!(
            plan.time_s_max.is_none_or(|max| self.clock_s <= max + SLACK),
            "too long: {} s",
            self.clock_s
        );
    }

    fn carry_out(
        &mut self,
        step: &Step,
        time_s: f64,
        length_m: f64,
        from: usize,
        road_avoid: &[ganglion_site::Term],
    ) {
        let plan = self.site.plan.as_ref().unwrap();
        let action = plan.actions[usize::from(step.command.verb)].as_ref().unwrap();
        let moving: Vec<usize> = plan
            .actions
            .iter()
            .flatten()
            .flat_map(|action| action.effects.iter().flat_map(|effect| effect.tag.of.iter().copied()))
            .chain(plan.drift.iter().map(|drift| drift.tag))
            .collect();
        // What happens to each tag: total per piece, until, and a jump at a piece.
        let mut fates = Vec::new();
        for tag in 0..self.tags.len() {
            let drift =
                plan.drift.iter().find(|drift| drift.tag == tag).map(|drift| self.random.inside(drift.per_s));
            let mut total = drift.unwrap_or(0.0) * time_s;
            let (mut until, mut jump) = (None, None);
            if let Some(effect) =
                action.effects.iter().find(|effect| effect.tag.of(&step.command) == Some(&tag))
            {
                let span = match &effect.amount {
                    Amount::Span(spans) => *spans.of(&step.command).unwrap(),
                    Amount::Argument { .. } => panic!("not in these sites"),
                };
                let amount = self.random.inside(span);
                until = effect.until;
                match effect.how {
                    EffectHow::PerSecond => total += amount * time_s,
                    EffectHow::PerMetre => total += amount * length_m,
                    how => jump = Some((how, amount, self.random.below(PIECES))),
                }
            }
            fates.push((total, until, jump));
        }
        let begin = self.tags.clone();
        for piece in 0..=PIECES {
            for (tag, (total, until, jump)) in fates.iter().enumerate() {
                let run = |from: f64, pieces: usize| {
                    let end = from + total * pieces as f64 / PIECES as f64;
                    match until {
                        Some(until) if *total >= 0.0 => end.min(from.max(*until)),
                        Some(until) => end.max(from.min(*until)),
                        None => end,
                    }
                };
                self.tags[tag] = match jump {
                    Some((EffectHow::Set, to, at)) if piece > *at => run(*to, piece - at),
                    Some((EffectHow::Add, by, at)) if piece > *at => run(begin[tag], piece) + by,
                    Some((EffectHow::During, through, at)) if piece == *at => *through,
                    _ => run(begin[tag], piece),
                };
            }
            if let Some(map) = &plan.map {
                let here = if piece * 2 < PIECES { from } else { self.place };
                self.tags[map.tag] = map.places[if piece == PIECES { self.place } else { here }].number;
                for avoid in [&map.places[here].avoid[..], road_avoid] {
                    let all = !avoid.is_empty()
                        && avoid.iter().all(|term| self.holds_for_sure(&term.compare, &self.tags));
                    assert!(!all, "at a closed place: {avoid:?} {:?}", self.tags);
                }
            }
            self.look(&self.tags, &moving);
        }
    }
}

fn carry_out(site: &Site, start: &Start, steps: &[Step], seed: u64) {
    let mut random = Random(seed);
    let tags = start.tags.map(|span| span.map_or(f64::NAN, |span| random.inside(span)));
    let map = site.plan.as_ref().unwrap().map.as_ref();
    let place = map.and_then(|map| map.place_of(tags[map.tag])).unwrap_or(0);
    let tags = tags[..site.tags.len()].to_vec();
    let mut world = World { site, random, tags, place, clock_s: 0.0, sent: Vec::new() };
    world.look(&world.tags, &[]);
    steps.iter().for_each(|step| world.step(step));
    for term in &site.plan.as_ref().unwrap().end {
        assert!(world.holds(&term.compare, &world.tags), "end {term:?}: {:?}", world.tags);
    }
}

thread_local! {
    /// Panics of this thread are expected and not worth a message.
    static QUIET: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

fn expect_panics() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !QUIET.get() {
            usual(info);
        }
    }));
}

#[test]
fn invariant_30_a_plan_called_safe_never_violates_in_simulation() {
    expect_panics();
    let (mut safe, mut wrong) = (0, 0);
    for seed in 0..12_000u64 {
        let site = random::site(seed / 20);
        let mut random = Random(!seed);
        let start = random::start(&mut random, &site);
        // What is not known cannot be simulated; that it is refused where it matters is tested elsewhere.
        if start.tags[..site.tags.len()].iter().any(Option::is_none) {
            continue;
        }
        let count = 1 + random.below(8);
        let steps = random::plan(&mut random, &site, &start, count);
        if Checker::new(&site).unwrap().check(&start, &steps).is_ok() {
            safe += 1;
            (0..10).for_each(|course| carry_out(&site, &start, &steps, seed * 16 + course));
        } else if wrong < 2_000 {
            // The simulation is one that can find something: refused plans do break rules in it.
            QUIET.set(true);
            let broken = std::panic::catch_unwind(|| {
                (0..10).for_each(|course| carry_out(&site, &start, &steps, seed * 16 + course));
            });
            QUIET.set(false);
            wrong += u32::from(broken.is_err());
        }
    }
    println!("{safe} plans called safe, 10 courses each; {wrong} refused ones seen to break a rule");
    assert!(safe > 2_000 && wrong >= 1_000, "{safe} {wrong}: the plans test nothing");
}

/// A program in place of the solver.
fn fake(name: &str, body: &str) -> PathBuf {
    let file = std::env::temp_dir().join(format!("ganglion-fake-{name}-{}", std::process::id()));
    std::fs::write(&file, format!("#!/bin/sh\n{body}\n")).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    file
}

/// Answers the greeting, and then does `then` at the first question.
fn greets(then: &str) -> String {
    format!(
        "while read -r line; do case \"$line\" in *check-sat*) {then};; \
         '(echo '*) n=${{line#(echo }}; echo \"${{n%)}}\";; esac; done"
    )
}

fn needs_the_solver(site: &Site) -> (Start, Vec<Task>) {
    let mut start = Start::UNKNOWN;
    (0..site.tags.len()).for_each(|tag| start.set(tag, 0.0));
    start.set(site.find_tag("battery").unwrap(), 90.0);
    let command = Command::from_json(site, r#"{"action":"go_to","place":"gallery"}"#).unwrap();
    (start, vec![Task { command, after_previous: false }])
}

#[test]
fn invariant_29_no_answer_no_sense_or_a_crash_of_the_solver_rejects() {
    let site = example();
    let (start, tasks) = needs_the_solver(&site);
    type Expected = fn(&PlanError) -> bool;
    let cases: [(&str, String, Expected); 7] = [
        ("silent", greets("sleep 60"), |e| matches!(e, PlanError::Timeout { budget_ms: 50 })),
        ("crashes", greets("exit 3"), |e| matches!(e, PlanError::SolverFailed { .. })),
        ("killed", greets("kill -9 $$"), |e| matches!(e, PlanError::SolverFailed { .. })),
        ("unknown", greets("echo unknown"), |e| matches!(e, PlanError::Undecided)),
        ("prose", greets("echo all is well"), |e| matches!(e, PlanError::SolverFailed { .. })),
        ("error", greets("echo '(error \"line 1\")'; echo sat"), |e| {
            matches!(e, PlanError::SolverFailed { .. })
        }),
        ("lies", greets("echo sat"), |e| matches!(e, PlanError::SolverFailed { .. })),
    ];
    for (name, body, expected) in cases {
        let program = fake(name, &body);
        let mut planner = Planner::new(&site, &program).unwrap();
        for round in 0..2 {
            let begin = Instant::now();
            let refusal = planner.plan(&start, &tasks).expect_err(name);
            let error = refusal.solver.as_ref().unwrap_or_else(|| panic!("{name}: {refusal}"));
            // A machine that is slow to start a program sees the time run out instead.
            let late = matches!(error, PlanError::Timeout { .. });
            assert!(expected(error) || late, "{name}, round {round}: {error:?}");
            assert!(refusal.sentence.contains("place == 0 has to hold"), "{name}: {refusal}");
            assert!(begin.elapsed() < Duration::from_secs(20), "{name}: it does not hang");
        }
        std::fs::remove_file(program).unwrap();
    }
}

/// A solver that proposes nonsense: the check has the last word.
#[test]
fn invariant_29_what_the_solver_proposes_has_to_pass_the_check() {
    let site = example();
    let (start, tasks) = needs_the_solver(&site);
    let program = fake(
        "proposes",
        "while read -r line; do case \"$line\" in *check-sat*) echo sat;; \
         '(get-value'*) echo '((x_0_0 true) (x_1_0 true) (x_2_0 true) (x_3_0 true))';; \
         '(echo '*) n=${line#(echo }; echo \"${n%)}\";; esac; done",
    );
    let refusal = Planner::new(&site, &program).unwrap().plan(&start, &tasks).unwrap_err();
    assert!(refusal.sentence.contains("in the best other order"), "{refusal}");
    std::fs::remove_file(program).unwrap();
}

#[test]
fn invariant_29_a_stopped_solver_is_killed_and_replaced() {
    let Some(_) = common::solver() else { return };
    let mut solver = Solver::start(Solver::PROGRAM.as_ref(), 500).unwrap();
    let first = solver.id().unwrap();
    let stop = std::process::Command::new("kill").args(["-STOP", &first.to_string()]).status().unwrap();
    assert!(stop.success());
    let question = format!("(reset)\n(declare-const a Bool)\n{}(check-sat)", "(assert a)\n".repeat(20_000));
    assert_eq!(solver.ask(&question), Err(PlanError::Timeout { budget_ms: 500 }));
    assert_ne!(solver.id(), Some(first));
    assert_eq!(solver.starts(), 2);
    assert!(!PathBuf::from(format!("/proc/{first}")).exists(), "killed and reaped");
    let answer = (0..40).find_map(|_| solver.ask("(reset)\n(check-sat)").ok()).unwrap();
    assert_eq!(answer.trim(), "sat", "the next one answers");
}

#[test]
fn spans_of_a_start_that_are_none_are_no_readings() {
    let site = example();
    let (mut start, tasks) = needs_the_solver(&site);
    let steps = [Step::from(tasks[0].command)];
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        start.tags[site.find_tag("battery").unwrap()] = Some(Span::exactly(bad));
        let violation = Checker::new(&site).unwrap().check(&start, &steps).unwrap_err();
        assert!(violation.sentence(&site, &steps).contains("no usable reading"), "{bad}");
    }
}
