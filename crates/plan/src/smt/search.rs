//! The search for a plan: in which order, and with which commands added, would all rules be kept?
//!
//! One slot per command. A slot's command is one of the tasks or one that the site lets planning insert; the way to its place
//! comes before it. The state between slots is the pair of ends of each tag's interval, so that the answer holds for
//! every course of events. Rules are named assertions, one name per rule, and the core of an unsatisfiable question says
//! which of them exclude each other. What is found is a proposal: the fast check has the last word.

use super::{Script, all, any, holds, near};
use crate::check::Start;
use crate::error::PlanError;
use crate::interval::{ZERO, add, hull, times};
use crate::planner::Task;
use crate::route::{Routes, travel_to};
use crate::solver::Solver;
use ganglion_site::plan::{Action, Effect, EffectHow, PlanSpec, Span, Takes, numeric};
use ganglion_site::{Command, Comparison, Limit, LimitTarget, Site, Term};
use std::fmt::Write;

/// What the solver found.
#[derive(Debug, Clone, PartialEq)]
pub enum Found {
    /// These commands in this order; with each, the task that it is.
    Order(Vec<(Command, Option<usize>)>),
    /// There is none.
    Nothing,
}

/// Asks for an order of all tasks with exactly `extra` inserted commands, of the first `kinds` that the site lets insert.
///
/// # Errors
/// No answer in its time, none at all, or one that is none.
pub fn find(
    solver: &mut Solver,
    site: &Site,
    start: &Start,
    tasks: &[Task],
    (extra, kinds): (usize, usize),
) -> Result<Found, PlanError> {
    let Some(spec) = &site.plan else { return Ok(Found::Nothing) };
    let Some(search) = Search::new(site, spec, start, tasks, (extra, kinds)) else {
        return Ok(Found::Nothing);
    };
    match solver.ask(&search.question())?.trim() {
        "sat" => {
            let names: Vec<String> = (0..search.slots)
                .flat_map(|slot| (0..search.choices.len()).map(move |choice| chosen(slot, choice)))
                .collect();
            let values = solver.ask(&format!("(get-value ({}))", names.join(" ")))?;
            search.order(&values).map(Found::Order)
        }
        "unsat" => Ok(Found::Nothing),
        "unknown" => Err(PlanError::Undecided),
        other => Err(PlanError::SolverFailed { reason: other.chars().take(200).collect() }),
    }
}

/// The rules that exclude each other where [`find`] finds nothing.
///
/// # Errors
/// As [`find`].
pub fn excluded(
    solver: &mut Solver,
    site: &Site,
    start: &Start,
    tasks: &[Task],
    (extra, kinds): (usize, usize),
) -> Result<Vec<String>, PlanError> {
    let Some(spec) = &site.plan else { return Ok(Vec::new()) };
    let Some(mut search) = Search::new(site, spec, start, tasks, (extra, kinds)) else {
        return Ok(Vec::new());
    };
    search.named = true;
    match solver.ask(&search.question())?.trim() {
        "unsat" => search.core(solver),
        _ => Ok(Vec::new()),
    }
}

/// The text of the question that [`find`] asks, to be looked at and measured.
pub fn question(site: &Site, start: &Start, tasks: &[Task], extra: (usize, usize)) -> Option<String> {
    Some(Search::new(site, site.plan.as_ref()?, start, tasks, extra)?.question())
}

/// Constants at 24 bits: what is found is checked again, exactly.
fn number(value: f64) -> String {
    super::number(near(value))
}

/// Asks whether these commands, in this order and with their ways, keep every rule: the rules that they break together.
///
/// # Errors
/// As [`find`].
pub fn judge(
    solver: &mut Solver,
    site: &Site,
    start: &Start,
    commands: &[Command],
) -> Result<Result<(), Vec<String>>, PlanError> {
    let Some(spec) = &site.plan else { return Ok(Err(Vec::new())) };
    let tasks: Vec<Task> =
        commands.iter().map(|command| Task { command: *command, after_previous: false }).collect();
    let Some(mut search) = Search::new(site, spec, start, &tasks, (0, 0)) else { return Ok(Err(Vec::new())) };
    (search.fixed, search.named) = (true, true);
    match solver.ask(&search.question())?.trim() {
        "sat" => Ok(Ok(())),
        "unsat" => search.core(solver).map(Err),
        "unknown" => Err(PlanError::Undecided),
        other => Err(PlanError::SolverFailed { reason: other.chars().take(200).collect() }),
    }
}

fn chosen(slot: usize, choice: usize) -> String {
    format!("x_{slot}_{choice}")
}

/// A command that a slot may hold.
struct Choice<'a> {
    command: Command,
    task: Option<usize>,
    action: &'a Action,
    /// Where it is carried out or leads; `None` = anywhere.
    place: Option<usize>,
    time_s: Span,
}

struct Search<'a> {
    site: &'a Site,
    spec: &'a PlanSpec,
    start: &'a Start,
    tasks: &'a [Task],
    slots: usize,
    choices: Vec<Choice<'a>>,
    routes: Option<Routes>,
    here: Option<usize>,
    /// Tags with intervals of their own; the others stay as they are.
    moving: Vec<usize>,
    /// Slot and choice go together: nothing is looked for.
    fixed: bool,
    /// Rules are named, so that an unsatisfiable question has a core. That costs time.
    named: bool,
}

/// A way before a slot's command.
struct Way {
    choice: usize,
    /// Literals of a clause: it is not this way that is taken.
    away: String,
    length_m: f64,
}

/// Ends of a tag's interval as terms.
///
/// Every rule is easier to keep for a narrower interval. So the terms are only bounded from the side that matters: the lower
/// end is at most, the upper one at least what it is; clauses over differences, which are what a solver is quick with.
#[derive(Clone)]
struct Ends {
    lo: String,
    hi: String,
}

impl Ends {
    fn fixed(span: Span) -> Self {
        Self { lo: number(span.lo), hi: number(span.hi) }
    }

    fn named(tag: usize, slot: usize, suffix: &str, script: &mut Script) -> Self {
        let ends = Self { lo: format!("lo_{tag}_{slot}{suffix}"), hi: format!("hi_{tag}_{slot}{suffix}") };
        script.real(&ends.lo);
        script.real(&ends.hi);
        ends
    }

    /// Unless one of the literals `unless` holds, these ends contain `span`.
    fn contain(&self, span: Span, unless: &str, script: &mut Script) {
        script.assert(&format!("(or {unless} (<= {} {}))", self.lo, number(span.lo)));
        script.assert(&format!("(or {unless} (>= {} {}))", self.hi, number(span.hi)));
    }

    /// Unless one of the literals `unless` holds, these ends contain `before` after a change that ends at `until`.
    fn follow(&self, before: &Self, change: Span, until: Option<f64>, unless: &str, script: &mut Script) {
        for (op, after, before, change, grows) in [
            ("<=", &self.lo, &before.lo, change.lo, change.lo < 0.0),
            (">=", &self.hi, &before.hi, change.hi, change.hi >= 0.0),
        ] {
            let moved = format!("({op} (- {after} {before}) {})", number(change));
            let Some(until) = until.map(number) else {
                script.assert(&format!("(or {unless} {moved})"));
                continue;
            };
            let (same, there) =
                (format!("({op} (- {after} {before}) 0.0)"), format!("({op} {after} {until})"));
            if grows {
                // The interval widens, no further than to `until`.
                script.assert(&format!("(or {unless} {moved} {same})"));
                script.assert(&format!("(or {unless} {moved} {there})"));
            } else {
                script.assert(&format!("(or {unless} {moved})"));
                script.assert(&format!("(or {unless} {same} {there})"));
            }
        }
    }
}

impl<'a> Search<'a> {
    fn new(
        site: &'a Site,
        spec: &'a PlanSpec,
        start: &'a Start,
        tasks: &'a [Task],
        (extra, kinds): (usize, usize),
    ) -> Option<Self> {
        let asked = tasks.iter().enumerate().map(|(index, task)| (task.command, Some(index)));
        let inserted = spec.insert.iter().take(kinds).filter(|_| extra > 0).map(|command| (*command, None));
        let mut choices = Vec::new();
        for (command, task) in asked.chain(inserted) {
            let action = spec.action(&command)?;
            let place = match action.at.as_ref().or(action.moves.as_ref()) {
                Some(whereabouts) => Some(whereabouts.of(&command)?),
                None => None,
            };
            let time_s = match action.takes {
                Takes::Seconds(span) => span,
                Takes::Argument { index, s_per_unit } => {
                    Span::exactly(command.values.get(index).and_then(numeric)? * s_per_unit)
                }
                Takes::Travel => ZERO,
            };
            choices.push(Choice { command, task, action, place, time_s });
        }
        let (routes, here) = match &spec.map {
            None => (None, None),
            Some(map) => {
                let reading = start.tags.get(map.tag).copied().flatten()?;
                (Some(Routes::new(map, start)), Some(map.place_of(reading.lo)?))
            }
        };
        let effects = choices.iter().flat_map(|choice| choice.action.effects.iter());
        let travel = spec.actions.iter().flatten().filter(|action| action.moves.is_some());
        let effects = effects.chain(travel.flat_map(|action| action.effects.iter()));
        let mut moving: Vec<usize> = effects.flat_map(|effect| effect.tag.of.iter().copied()).collect();
        moving.extend(spec.drift.iter().map(|drift| drift.tag));
        moving.sort_unstable();
        moving.dedup();
        moving.retain(|tag| matters(site, spec, *tag));
        Some(Self {
            site,
            spec,
            start,
            tasks,
            slots: tasks.len() + extra,
            choices,
            routes,
            here,
            moving,
            fixed: false,
            named: false,
        })
    }

    /// The choices that a slot has.
    fn options(&self, slot: usize) -> impl Iterator<Item = (usize, &Choice<'a>)> {
        let fixed = self.fixed;
        self.choices.iter().enumerate().filter(move |(index, _)| !fixed || *index == slot)
    }

    fn assert(&self, script: &mut Script, name: &str, formula: &str) {
        if self.named { script.assert_named(name, formula) } else { script.assert(formula) }
    }

    /// The rules of the unsatisfiable core.
    fn core(&self, solver: &mut Solver) -> Result<Vec<String>, PlanError> {
        let core = solver.ask("(get-unsat-core)")?;
        let names =
            core.split(|c: char| c.is_whitespace() || "()".contains(c)).filter(|name| !name.is_empty());
        Ok(names.filter_map(|name| self.rule_in_words(name)).collect())
    }

    fn question(&self) -> String {
        let mut script = Script::new(self.named);
        for slot in 0..self.slots {
            self.options(slot).for_each(|(choice, _)| script.boolean(&chosen(slot, choice)));
        }
        self.every_slot_has_one(&mut script);
        self.every_task_once(&mut script);
        let mut rules = Rules::default();
        let mut state: Vec<Option<Ends>> = self.start.tags.iter().map(|span| span.map(Ends::fixed)).collect();
        let truth = |here: bool| if here { "true" } else { "false" }.to_string();
        let mut at: Vec<(usize, String)> =
            self.places().into_iter().map(|place| (place, truth(Some(place) == self.here))).collect();
        let mut time = "0.0".to_string();
        self.rules_of(&state, &mut rules);
        for slot in 0..self.slots {
            let ways = self.ways(slot, &at, &mut rules);
            self.travel(slot, &ways, &mut state, &mut script);
            at = self.arrive(slot, &at, &mut script);
            self.read_place(slot, &at, &mut state, &mut script);
            self.needs(slot, &state, &mut rules);
            self.avoid(slot, &state, &mut rules);
            self.rules_of(&state, &mut rules);
            self.act(slot, &mut state, &mut script, &mut rules);
            self.avoid(slot, &state, &mut rules);
            self.rules_of(&state, &mut rules);
            time = self.time(slot, &time, &ways, &mut script, &mut rules);
        }
        for (index, term) in self.spec.end.iter().enumerate() {
            rules.push(format!("end_{index}"), self.surely(term, &state));
        }
        for (name, parts) in rules.0 {
            self.assert(&mut script, &name, &all(&parts));
        }
        script.0.push_str("(check-sat)\n");
        script.0
    }

    fn every_slot_has_one(&self, script: &mut Script) {
        for slot in 0..self.slots {
            let names: Vec<String> = self.options(slot).map(|(choice, _)| chosen(slot, choice)).collect();
            script.assert(&any(&names));
            for (index, a) in names.iter().enumerate() {
                for b in names.iter().skip(index + 1) {
                    script.assert(&format!("(or (not {a}) (not {b}))"));
                }
            }
        }
    }

    fn every_task_once(&self, script: &mut Script) {
        if self.fixed {
            return;
        }
        for task in 0..self.tasks.len() {
            let names: Vec<String> = (0..self.slots).map(|slot| chosen(slot, task)).collect();
            self.assert(script, &format!("task_{task}"), &any(&names));
            for (index, a) in names.iter().enumerate() {
                for b in names.iter().skip(index + 1) {
                    script.assert(&format!("(or (not {a}) (not {b}))"));
                }
            }
            if task > 0 && self.tasks.get(task).is_some_and(|task| task.after_previous) {
                let order: Vec<String> = (0..self.slots)
                    .map(|slot| {
                        let before: Vec<String> = (0..slot).map(|slot| chosen(slot, task - 1)).collect();
                        format!("(or (not {}) {})", chosen(slot, task), any(&before))
                    })
                    .collect();
                self.assert(script, &format!("order_{task}"), &all(&order));
            }
        }
    }

    /// Places where the machine can be between two slots.
    fn places(&self) -> Vec<usize> {
        let mut places: Vec<usize> =
            self.choices.iter().filter_map(|choice| choice.place).chain(self.here).collect();
        places.sort_unstable();
        places.dedup();
        places
    }

    /// The ways that may come before a slot's command: `(choice, from, length in m)`. `at` says for each place whether the
    /// machine may be there.
    fn ways(&self, slot: usize, at: &[(usize, String)], rules: &mut Rules) -> Vec<Way> {
        let Some(routes) = &self.routes else { return Vec::new() };
        let mut ways = Vec::new();
        for (index, choice) in self.options(slot) {
            let Some(to) = choice.place else { continue };
            for (from, here) in at.iter().filter(|(_, here)| here != "false") {
                let away = match here.as_str() {
                    "true" => format!("(not {})", chosen(slot, index)),
                    _ => format!("(not {}) (not {here})", chosen(slot, index)),
                };
                let length_m = if *from == to { 0.0 } else { routes.length_m(*from, to) };
                if length_m.is_finite() {
                    ways.push(Way { choice: index, away, length_m });
                } else {
                    rules.push("ways".into(), format!("(or {away})"));
                }
            }
        }
        ways
    }

    /// Where the machine is after a slot's way.
    fn arrive(&self, slot: usize, at: &[(usize, String)], script: &mut Script) -> Vec<(usize, String)> {
        let stays: Vec<String> = self
            .options(slot)
            .filter(|(_, c)| c.place.is_none())
            .map(|(index, _)| chosen(slot, index))
            .collect();
        let mut after = Vec::new();
        for (place, before) in at {
            let goes = self.options(slot).filter(|(_, choice)| choice.place == Some(*place));
            let mut parts: Vec<String> = goes.map(|(index, _)| chosen(slot, index)).collect();
            if !stays.is_empty() && before != "false" {
                parts.push(format!("(and {before} {})", any(&stays)));
            }
            let name = format!("at_{slot}_{place}");
            if parts.is_empty() {
                after.push((*place, "false".to_string()));
                continue;
            }
            script.boolean(&name);
            script.assert(&format!("(= {name} {})", any(&parts)));
            after.push((*place, name));
        }
        after
    }

    /// What the map's tag reads, from where the machine is.
    fn read_place(
        &self,
        slot: usize,
        at: &[(usize, String)],
        state: &mut [Option<Ends>],
        script: &mut Script,
    ) {
        let Some(map) = self.spec.map.as_ref().filter(|map| matters(self.site, self.spec, map.tag)) else {
            return;
        };
        let Some(ends) = state.get_mut(map.tag) else { return };
        let name = format!("place_{slot}");
        script.real(&name);
        for (place, here) in at.iter().filter(|(_, here)| here != "false") {
            let Some(place) = map.places.get(*place) else { continue };
            script.assert(&format!("(or (not {here}) (= {name} {}))", number(place.number)));
        }
        *ends = Some(Ends { lo: name.clone(), hi: name });
    }

    /// What travelling costs, per metre: rates of the command that travels, and drift, over the speeds of the map.
    fn per_metre(&self, tag: usize) -> Span {
        let speed = self.spec.map.as_ref().map_or(Span::exactly(1.0), |map| map.m_per_s);
        let per_m = Span { lo: 1.0 / speed.hi, hi: 1.0 / speed.lo };
        let mut sum = times(self.drift(tag), per_m);
        let command =
            self.choices.iter().filter_map(|c| c.place).find_map(|p| travel_to(self.site, self.spec, p));
        if let Some(command) = command
            && let Some(effect) =
                self.spec.action(&command).and_then(|action| effect_on(action, &command, tag))
            && let Some(amount) = effect.amount.of(&command)
        {
            match effect.how {
                EffectHow::PerSecond => sum = add(sum, times(amount, per_m)),
                EffectHow::PerMetre => sum = add(sum, amount),
                EffectHow::Set | EffectHow::Add | EffectHow::During => {}
            }
        }
        sum
    }

    fn drift(&self, tag: usize) -> Span {
        self.spec.drift.iter().find(|drift| drift.tag == tag).map_or(ZERO, |drift| drift.per_s)
    }

    fn travel(&self, slot: usize, ways: &[Way], state: &mut [Option<Ends>], script: &mut Script) {
        if self.routes.is_none() {
            return;
        }
        for tag in self.moving.iter().copied() {
            let per_m = self.per_metre(tag);
            let Some(Some(ends)) = state.get_mut(tag).filter(|_| per_m != ZERO) else { continue };
            let after = Ends::named(tag, slot, "_way", script);
            for way in ways {
                let change = Span { lo: per_m.lo * way.length_m, hi: per_m.hi * way.length_m };
                after.follow(ends, change, None, &way.away, script);
            }
            for (index, _) in self.options(slot).filter(|(_, choice)| choice.place.is_none()) {
                after.follow(ends, ZERO, None, &format!("(not {})", chosen(slot, index)), script);
            }
            *ends = after;
        }
    }

    /// What a slot's own command does.
    fn act(&self, slot: usize, state: &mut [Option<Ends>], script: &mut Script, rules: &mut Rules) {
        for tag in self.moving.iter().copied() {
            let Some(before) = state.get(tag).cloned().flatten() else { continue };
            let effect_of = |choice: &Choice<'a>| {
                effect_on(choice.action, &choice.command, tag).filter(|_| choice.action.moves.is_none())
            };
            let still = |choice: &Choice<'a>| {
                effect_of(choice).is_none() && times(self.drift(tag), choice.time_s) == ZERO
            };
            if self.options(slot).all(|(_, choice)| still(choice)) {
                continue;
            }
            let after = Ends::named(tag, slot, "", script);
            for (index, choice) in self.options(slot) {
                let x = format!("(not {})", chosen(slot, index));
                let drift = times(self.drift(tag), choice.time_s);
                let effect = effect_of(choice);
                let amount = effect.and_then(|effect| effect.amount.of(&choice.command)).unwrap_or(ZERO);
                let until = effect.and_then(|effect| effect.until);
                let change = match effect.map_or(EffectHow::Add, |effect| effect.how) {
                    EffectHow::PerSecond => add(drift, times(amount, choice.time_s)),
                    EffectHow::Add => add(drift, amount),
                    EffectHow::PerMetre => drift,
                    EffectHow::Set => {
                        after.contain(add(amount, hull(drift, ZERO)), &x, script);
                        continue;
                    }
                    EffectHow::During => {
                        let mut through = state.to_vec();
                        if let Some(place) = through.get_mut(tag) {
                            *place = Some(Ends::fixed(amount));
                        }
                        self.rules_while(&x, tag, &through, rules);
                        drift
                    }
                };
                after.follow(&before, change, until, &x, script);
            }
            if let Some(place) = state.get_mut(tag) {
                *place = Some(after);
            }
        }
    }

    fn time(
        &self,
        slot: usize,
        before: &str,
        ways: &[Way],
        script: &mut Script,
        rules: &mut Rules,
    ) -> String {
        let Some(longest) = self.spec.time_s_max else { return before.to_string() };
        let slowest = self.spec.map.as_ref().map_or(1.0, |map| map.m_per_s.lo);
        let name = format!("time_{slot}");
        script.real(&name);
        for (index, choice) in self.options(slot) {
            let mut takes = |away: &str, way_s: f64| {
                let sum = number(way_s + choice.time_s.hi);
                script.assert(&format!("(or {away} (>= (- {name} {before}) {sum}))"));
            };
            match (choice.place, &self.routes) {
                (Some(_), Some(_)) => {
                    let own = ways.iter().filter(|way| way.choice == index);
                    own.for_each(|way| takes(&way.away, way.length_m / slowest));
                }
                _ => takes(&format!("(not {})", chosen(slot, index)), 0.0),
            }
        }
        rules.push("time".into(), format!("(<= {name} {})", number(longest)));
        name
    }

    fn needs(&self, slot: usize, state: &[Option<Ends>], rules: &mut Rules) {
        for (index, choice) in self.options(slot) {
            let terms = choice.action.needs.of(&choice.command).map_or(&[][..], Vec::as_slice);
            if !terms.is_empty() {
                let holds: Vec<String> = terms.iter().map(|term| self.surely(term, state)).collect();
                rules.push(
                    format!("needs_{index}"),
                    format!("(or (not {}) {})", chosen(slot, index), all(&holds)),
                );
            }
        }
    }

    fn avoid(&self, slot: usize, state: &[Option<Ends>], rules: &mut Rules) {
        let Some(map) = &self.spec.map else { return };
        for (index, choice) in self.options(slot) {
            let Some(place) = choice.place else { continue };
            let terms = map.places.get(place).map_or(&[][..], |place| &place.avoid);
            if !terms.is_empty() {
                let free = format!("(not {})", self.perhaps(terms, state));
                rules.push(format!("avoid_{place}"), format!("(or (not {}) {free})", chosen(slot, index)));
            }
        }
    }

    /// The rules of every moment.
    fn rules_of(&self, state: &[Option<Ends>], rules: &mut Rules) {
        for (index, term) in self.spec.always.iter().enumerate() {
            rules.push(format!("always_{index}"), self.surely(term, state));
        }
        for (index, terms) in self.spec.never.iter().enumerate() {
            rules.push(format!("never_{index}"), format!("(not {})", self.perhaps(terms, state)));
        }
        for (index, limit) in self.site.limits.iter().enumerate() {
            let LimitTarget::Tag(tag) = limit.on else { continue };
            if let Some(Some(ends)) = state.get(tag).filter(|_| self.moving.contains(&tag)) {
                rules.push(format!("limit_{index}"), inside(limit, ends));
            }
        }
    }

    /// The rules about one tag, unless `free`.
    fn rules_while(&self, free: &str, tag: usize, state: &[Option<Ends>], rules: &mut Rules) {
        let mut own = Rules::default();
        self.rules_of(state, &mut own);
        let about = |name: &str| {
            let index = |prefix: &str| name.strip_prefix(prefix)?.parse::<usize>().ok();
            index("always_").is_some_and(|i| self.spec.always.get(i).is_some_and(|t| t.compare.tag == tag))
                || index("never_").is_some_and(|i| {
                    self.spec.never.get(i).is_some_and(|terms| terms.iter().any(|t| t.compare.tag == tag))
                })
                || index("limit_").is_some_and(|i| {
                    self.site.limits.get(i).is_some_and(|limit| limit.on == LimitTarget::Tag(tag))
                })
        };
        for (name, parts) in own.0.into_iter().filter(|(name, _)| about(name)) {
            rules.push(name, format!("(or {free} {})", all(&parts)));
        }
    }

    /// A comparison holds for all values between the ends.
    fn surely(&self, term: &Term, state: &[Option<Ends>]) -> String {
        let Some(Some(ends)) = state.get(term.compare.tag) else { return "false".into() };
        let compare = &term.compare;
        let end = match compare.op {
            Comparison::Less | Comparison::LessOrEqual => &ends.hi,
            Comparison::Greater | Comparison::GreaterOrEqual => &ends.lo,
            Comparison::Equal => {
                return format!("(and {} {})", holds(compare, &ends.lo), holds(compare, &ends.hi));
            }
            Comparison::NotEqual => {
                let bound = number(compare.value);
                return format!("(or (< {} {bound}) (> {} {bound}))", ends.hi, ends.lo);
            }
        };
        holds(compare, end)
    }

    /// All comparisons hold for some values between the ends.
    fn perhaps(&self, terms: &[Term], state: &[Option<Ends>]) -> String {
        let one = |term: &Term| {
            let Some(Some(ends)) = state.get(term.compare.tag) else { return "true".to_string() };
            let compare = &term.compare;
            let bound = number(compare.value);
            match compare.op {
                Comparison::Less | Comparison::LessOrEqual => holds(compare, &ends.lo),
                Comparison::Greater | Comparison::GreaterOrEqual => holds(compare, &ends.hi),
                Comparison::Equal => format!("(and (<= {} {bound}) (>= {} {bound}))", ends.lo, ends.hi),
                Comparison::NotEqual => {
                    format!("(not (and (= {} {bound}) (= {} {bound})))", ends.lo, ends.hi)
                }
            }
        };
        all(&terms.iter().map(one).collect::<Vec<_>>())
    }

    fn order(&self, values: &str) -> Result<Vec<(Command, Option<usize>)>, PlanError> {
        let words: Vec<&str> = values
            .split(|c: char| c.is_whitespace() || "()".contains(c))
            .filter(|word| !word.is_empty())
            .collect();
        let mut order = vec![None; self.slots];
        for pair in words.chunks_exact(2) {
            let [name, "true"] = pair else { continue };
            let found = name.strip_prefix("x_").and_then(|rest| rest.split_once('_'));
            let Some((slot, choice)) =
                found.and_then(|(s, c)| Some((s.parse::<usize>().ok()?, c.parse::<usize>().ok()?)))
            else {
                continue;
            };
            if let (Some(place), Some(choice)) = (order.get_mut(slot), self.choices.get(choice)) {
                *place = Some((choice.command, choice.task));
            }
        }
        let order: Option<Vec<_>> = order.into_iter().collect();
        order.ok_or_else(|| PlanError::SolverFailed { reason: "its answer leaves a slot empty".into() })
    }

    /// One name of an unsatisfiable core, for people.
    fn rule_in_words(&self, name: &str) -> Option<String> {
        let (kind, index) = name.rsplit_once('_').unwrap_or((name, "0"));
        let index: usize = index.parse().ok()?;
        let words = |terms: &[Term]| self.site.condition(terms).to_string();
        let describe = |command: &Command| command.describe(self.site);
        Some(match kind {
            "always" => words(self.spec.always.get(index..=index)?),
            "never" => format!("never {}", words(self.spec.never.get(index)?)),
            "end" => format!("{} at the end", words(self.spec.end.get(index..=index)?)),
            "limit" => format!("the limit on {}", self.site.target_name(self.site.limits.get(index)?.on)),
            "avoid" => {
                let place = self.spec.map.as_ref()?.places.get(index)?;
                format!("not at {} while {}", place.name, words(&place.avoid))
            }
            "needs" => {
                let choice = self.choices.get(index)?;
                format!(
                    "{} needs {}",
                    describe(&choice.command),
                    words(choice.action.needs.of(&choice.command)?)
                )
            }
            "task" => describe(&self.tasks.get(index)?.command),
            "order" => format!("{} after what was said before it", describe(&self.tasks.get(index)?.command)),
            "time" => {
                let mut text = String::from("the time of a plan");
                let _ = write!(text, ", {}", crate::explain::time(self.spec.time_s_max?));
                text
            }
            "ways" => "the roads that are free".into(),
            _ => return None,
        })
    }
}

/// Named assertions: name, and what has to hold together.
#[derive(Default)]
struct Rules(Vec<(String, Vec<String>)>);

impl Rules {
    fn push(&mut self, name: String, formula: String) {
        match self.0.iter_mut().find(|(other, _)| *other == name) {
            Some((_, parts)) => parts.push(formula),
            None => self.0.push((name, vec![formula])),
        }
    }
}

fn effect_on<'a>(action: &'a Action, command: &Command, tag: usize) -> Option<&'a Effect> {
    action.effects.iter().find(|effect| effect.tag.of(command) == Some(&tag))
}

fn inside(limit: &Limit, ends: &Ends) -> String {
    let bound = |op: &str, end: &str, bound: Option<f64>| {
        bound.map(|bound| format!("({op} {end} {})", number(bound)))
    };
    let parts = [
        bound(">=", &ends.lo, limit.lo),
        bound(">", &ends.lo, limit.lolo),
        bound("<=", &ends.hi, limit.hi),
        bound("<", &ends.hi, limit.hihi),
    ];
    all(&parts.into_iter().flatten().collect::<Vec<_>>())
}

/// Whether some rule is about the tag.
pub(super) fn matters(site: &Site, spec: &PlanSpec, tag: usize) -> bool {
    let actions = spec.actions.iter().flatten();
    let places = spec.map.iter().flat_map(|map| map.places.iter().map(|place| &place.avoid));
    let roads = spec.map.iter().flat_map(|map| map.roads.iter().map(|road| &road.avoid));
    let lists = [&spec.always, &spec.end].into_iter().chain(&spec.never).chain(places).chain(roads);
    let lists = lists.chain(actions.flat_map(|action| &action.needs.of));
    let mut terms = lists.chain(site.limits.iter().map(|limit| &limit.when)).flatten();
    let limited = site.limits.iter().any(|limit| limit.on == LimitTarget::Tag(tag));
    limited || terms.any(|term| term.compare.tag == tag)
}
