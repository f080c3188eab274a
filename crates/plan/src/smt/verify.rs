//! A second opinion on a plan, written apart from the fast check: is there any course of events in which it breaks a rule?
//!
//! Rates and times are variables inside their intervals and keep what they share (one step's time is the same for all tags),
//! so that this check is the sharper one: what it refuses, the fast check has to refuse too. Ends of intervals are rounded
//! inwards to 24 bits, for the solver's speed; what it refuses is a violation all the same.

use super::{Script, all, any, holds, inner, max, min, moved, number};
use crate::check::{Start, Step};
use crate::error::PlanError;
use crate::solver::Solver;
use ganglion_site::limits::TAGS_MAX;
use ganglion_site::plan::{Action, EffectHow, PlanSpec, Span, Takes, numeric};
use ganglion_site::{Comparison, Limit, LimitTarget, Site, Term, Value, WriteSource};

/// Asks the solver whether the plan can break a rule. `true`: it cannot.
///
/// # Errors
/// No answer in its time, none at all, or one that is none.
pub fn is_safe(solver: &mut Solver, site: &Site, start: &Start, steps: &[Step]) -> Result<bool, PlanError> {
    let Some(question) = question(site, start, steps) else { return Ok(false) };
    match solver.ask(&question)?.trim() {
        "unsat" => Ok(true),
        "sat" => Ok(false),
        "unknown" => Err(PlanError::Undecided),
        other => Err(PlanError::SolverFailed { reason: other.chars().take(200).collect() }),
    }
}

/// The question, satisfiable when the plan can break a rule; `None` when it does so whatever happens: a command without a
/// plan, a place without a road.
pub fn question(site: &Site, start: &Start, steps: &[Step]) -> Option<String> {
    let spec = site.plan.as_ref()?;
    if steps.len() > crate::limits::STEPS_MAX {
        return None;
    }
    let mut course = Course {
        site,
        spec,
        script: Script::new(false),
        state: (0..TAGS_MAX).map(|tag| format!("v{tag}_0")).collect(),
        starts: vec!["0.0".to_string()],
        wrong: Vec::new(),
    };
    for tag in 0..site.tags.len() {
        course.script.real(&format!("v{tag}_0"));
        if let Some(span) = start.tags.get(tag).copied().flatten() {
            course.within(&format!("v{tag}_0"), span);
        }
    }
    let mut here = None;
    if let Some(map) = &spec.map {
        let reading = start.tags.get(map.tag).copied().flatten().filter(|span| span.lo == span.hi)?;
        here = Some(map.places.iter().position(|place| place.number == reading.lo)?);
    }
    let state = course.state.clone();
    let points: Vec<Vec<String>> = state.iter().map(|value| vec![value.clone()]).collect();
    course.rules(&state, &points);
    for (index, step) in steps.iter().enumerate() {
        here = course.step(index, step, steps, here)?;
    }
    let end: Vec<String> = spec.end.iter().map(|term| course.term(term, &course.state)).collect();
    course.wrong.push(format!("(not {})", all(&end)));
    let wrong = any(&course.wrong);
    course.script.assert(&wrong);
    course.script.0.push_str("(check-sat)\n");
    Some(course.script.0)
}

struct Course<'a> {
    site: &'a Site,
    spec: &'a PlanSpec,
    script: Script,
    /// The term of each tag's value now.
    state: Vec<String>,
    /// The time at which each step begins, and the end.
    starts: Vec<String>,
    /// Ways to break a rule.
    wrong: Vec<String>,
}

impl Course<'_> {
    fn within(&mut self, name: &str, span: Span) {
        let span = inner(span);
        let (lo, hi) = (number(span.lo), number(span.hi));
        self.script.assert(&format!("(and (<= {lo} {name}) (<= {name} {hi}))"));
    }

    fn term(&self, term: &Term, state: &[String]) -> String {
        holds(&term.compare, state.get(term.compare.tag).map_or("0.0", String::as_str))
    }

    fn terms(&self, terms: &[Term], state: &[String]) -> String {
        all(&terms.iter().map(|term| self.term(term, state)).collect::<Vec<_>>())
    }

    /// The rules of every moment, broken by what a tag reads at one of its `points` or at any moment. Only tags with
    /// points have changed; the rules about the others were looked at before.
    fn rules(&mut self, moment: &[String], points: &[Vec<String>]) {
        let mut wrong = Vec::new();
        let changed = |tag: usize| points.get(tag).is_some_and(|points| !points.is_empty());
        let points_of = |tag: usize| points.get(tag).map_or(&[][..], Vec::as_slice);
        for term in self.spec.always.iter().filter(|term| changed(term.compare.tag)) {
            wrong.extend(
                self.somewhere(term, moment, points_of(term.compare.tag))
                    .iter()
                    .map(|h| format!("(not {h})")),
            );
        }
        for terms in self.spec.never.iter().filter(|terms| terms.iter().any(|term| changed(term.compare.tag)))
        {
            match terms.as_slice() {
                [term] => wrong.extend(self.somewhere(term, moment, points_of(term.compare.tag))),
                terms => wrong.push(self.terms(terms, moment)),
            }
        }
        let planned = |tag: usize| {
            let mut effects = self.spec.actions.iter().flatten().flat_map(|action| &action.effects);
            effects.any(|effect| effect.tag.of.contains(&tag)) || self.spec.drift.iter().any(|d| d.tag == tag)
        };
        for limit in &self.site.limits {
            let LimitTarget::Tag(tag) = limit.on else { continue };
            // 6 is PackML's Execute.
            if !changed(tag) || !planned(tag) || limit.modes.is_some_and(|modes| modes >> 6 & 1 == 0) {
                continue;
            }
            let bounds = [("<", limit.lo), ("<=", limit.lolo), (">", limit.hi), (">=", limit.hihi)];
            for value in points_of(tag) {
                let broken =
                    |(op, bound): (&str, Option<f64>)| Some(format!("({op} {value} {})", number(bound?)));
                wrong.extend(bounds.into_iter().filter_map(broken));
            }
        }
        self.wrong.extend(wrong);
    }

    /// The term at the places where it is decided: the ends of ways for an order, any moment for an equality.
    fn somewhere(&self, term: &Term, moment: &[String], points: &[String]) -> Vec<String> {
        match term.compare.op {
            Comparison::Equal | Comparison::NotEqual => vec![self.term(term, moment)],
            _ => points.iter().map(|point| holds(&term.compare, point)).collect(),
        }
    }

    fn step(
        &mut self,
        index: usize,
        step: &Step,
        steps: &[Step],
        here: Option<usize>,
    ) -> Option<Option<usize>> {
        let action = self.spec.action(&step.command)?;
        let mut there = here;
        let mut road = None;
        if let (Some(map), Some(from)) = (&self.spec.map, here) {
            if action.at.as_ref().is_some_and(|at| at.of(&step.command) != Some(from)) {
                return None;
            }
            if let Some(moves) = &action.moves {
                let to = moves.of(&step.command)?;
                there = Some(to);
                if to != from {
                    let joins = |ends: [usize; 2]| ends == [from, to] || ends == [to, from];
                    road = Some(map.roads.iter().find(|road| joins(road.between))?);
                }
            }
        }
        let length_m = road.map_or(0.0, |road| road.length_m);
        let before = self.state.clone();
        let needs = self.terms(action.needs.of(&step.command)?, &before);
        self.wrong.push(format!("(not {needs})"));
        self.arguments(index, step, steps, &before);
        self.time(index, step, action, length_m)?;
        let (during, points) = self.effects(index, (step, action), length_m, &before, (here, there))?;
        self.rules(&during, &points);
        if let Some(map) = &self.spec.map {
            let mut places: Vec<_> =
                [here, there].into_iter().flatten().filter_map(|p| map.places.get(p)).collect();
            places.dedup_by(|a, b| a.name == b.name);
            let avoided = places.iter().map(|place| &place.avoid).chain(road.map(|road| &road.avoid));
            let wrong: Vec<String> =
                avoided.filter(|terms| !terms.is_empty()).map(|terms| self.terms(terms, &during)).collect();
            self.wrong.extend(wrong);
        }
        Some(there)
    }

    /// `d_i`, the time of the step, and the time after it.
    fn time(&mut self, index: usize, step: &Step, action: &Action, length_m: f64) -> Option<()> {
        let name = format!("d{index}");
        self.script.real(&name);
        let length = number(length_m);
        let longest = match action.takes {
            Takes::Seconds(span) => {
                if step.duration_s.is_none() {
                    self.within(&name, span);
                }
                number(span.hi)
            }
            Takes::Argument { index, s_per_unit } => {
                let units = step.command.values.get(index).and_then(numeric)?;
                let time = format!("(* {} {})", number(s_per_unit), number(units));
                if step.duration_s.is_none() {
                    self.script.assert(&format!("(= {name} {time})"));
                }
                time
            }
            Takes::Travel => {
                let speed = inner(self.spec.map.as_ref().map_or(Span::exactly(1.0), |map| map.m_per_s));
                let (slow, fast) = (number(speed.lo), number(speed.hi));
                if step.duration_s.is_none() {
                    self.script.assert(&format!(
                        "(and (<= (* {slow} {name}) {length}) (>= (* {fast} {name}) {length}))"
                    ));
                }
                format!("(/ {length} {fast})")
            }
        };
        if let Some(given) = step.duration_s {
            self.script.assert(&format!("(= {name} {})", number(given)));
            self.wrong.push(format!("(< {name} {longest})"));
        }
        let begun = self.starts.last().cloned().unwrap_or_default();
        let ended = format!("t{index}");
        self.script.define(&ended, &format!("(+ {begun} {name})"));
        if let Some(max) = self.spec.time_s_max {
            self.wrong.push(format!("(> {ended} {})", number(max)));
        }
        self.starts.push(ended);
        Some(())
    }

    /// Moves the state on. What every tag reads at one moment on the way, any moment for any tag; and for tags that change,
    /// the points between which they move.
    fn effects(
        &mut self,
        index: usize,
        (step, action): (&Step, &Action),
        length_m: f64,
        before: &[String],
        (here, there): (Option<usize>, Option<usize>),
    ) -> Option<(Vec<String>, Vec<Vec<String>>)> {
        let mut during = before.to_vec();
        let mut points: Vec<Vec<String>> = vec![Vec::new(); before.len()];
        let time = format!("d{index}");
        for tag in (0..self.site.tags.len())
            .filter(|tag| super::search::matters(self.site, self.spec, *tag))
            .collect::<Vec<_>>()
        {
            let effect = action.effects.iter().find(|effect| effect.tag.of(&step.command) == Some(&tag));
            let drift = self.spec.drift.iter().find(|drift| drift.tag == tag).map(|drift| drift.per_s);
            if effect.is_none() && drift.is_none() {
                continue;
            }
            let value = before.get(tag)?.clone();
            let span = match effect {
                Some(effect) => Some((effect.how, effect.amount.of(&step.command)?)),
                None => None,
            };
            let rate = match span {
                Some((EffectHow::PerSecond, span)) => Some((span, time.clone())),
                Some((EffectHow::PerMetre, span)) => Some((span, number(length_m))),
                _ => None,
            };
            let rates: Vec<(Span, String)> =
                drift.map(|span| (span, time.clone())).into_iter().chain(rate).collect();
            let until = effect.and_then(|effect| effect.until);
            let way = self.way(&format!("{tag}_{index}"), &value, &rates, until);
            let (m, jump) = (format!("m{tag}_{index}"), format!("j{tag}_{index}"));
            self.script.real(&m);
            let mut moments = vec![way.between(&m, &value, &way.end)];
            let mut ends = vec![way.end.clone()];
            let mut end = way.end.clone();
            if let Some((EffectHow::Set | EffectHow::Add | EffectHow::During, span)) = span {
                self.script.real(&jump);
                self.within(&jump, span);
            }
            match span.map(|(how, _)| how) {
                Some(EffectHow::Set) if way.is_still() => {
                    end = jump.clone();
                    moments.push(format!("(= {m} {jump})"));
                    ends.push(jump);
                }
                Some(EffectHow::Set) => {
                    let rest = format!("r{tag}_{index}");
                    self.script.real(&rest);
                    self.script.assert(&way.between(&rest, "0.0", &way.amount));
                    end = format!("(+ {jump} {rest})");
                    moments.push(way.between(&m, &jump, &end));
                    ends.extend([jump, end.clone()]);
                }
                Some(EffectHow::Add) => {
                    end = format!("(+ {} {jump})", way.end);
                    let begin = format!("(+ {value} {jump})");
                    moments.push(way.between(&m, &begin, &end));
                    ends.extend([begin, end.clone()]);
                }
                Some(EffectHow::During) => {
                    moments.push(format!("(= {m} {jump})"));
                    ends.push(jump);
                }
                _ => {}
            }
            self.script.assert(&any(&moments));
            let next = format!("v{tag}_{}", index + 1);
            self.script.define(&next, &end);
            *during.get_mut(tag)? = m;
            *points.get_mut(tag)? = ends;
            *self.state.get_mut(tag)? = next;
        }
        if let (Some(map), Some(from), Some(to)) = (&self.spec.map, here, there) {
            let reads = |place: usize| map.places.get(place).map(|place| number(place.number));
            let m = format!("p{index}");
            self.script.real(&m);
            self.script.assert(&between(&m, &reads(from)?, &reads(to)?));
            *during.get_mut(map.tag)? = m;
            *points.get_mut(map.tag)? = vec![reads(from)?, reads(to)?];
            *self.state.get_mut(map.tag)? = reads(to)?;
        }
        Some((during, points))
    }

    /// A tag's movement by rates times a factor that is not negative.
    fn way(&mut self, name: &str, value: &str, rates: &[(Span, String)], until: Option<f64>) -> Way {
        let rates: Vec<(Span, &str)> = rates
            .iter()
            .map(|(span, factor)| (inner(*span), factor.as_str()))
            .filter(|(span, _)| *span != Span::exactly(0.0))
            .collect();
        if rates.is_empty() {
            return Way { amount: "0.0".into(), end: value.to_string(), direction: Direction::Still };
        }
        let sum = |end: &dyn Fn(&Span) -> f64| {
            let parts = rates.iter().map(|(span, factor)| format!("(* {} {factor})", number(end(span))));
            let parts: Vec<String> = parts.collect();
            if parts.len() == 1 { parts.concat() } else { format!("(+ {})", parts.join(" ")) }
        };
        let (low, high) = (sum(&|span| span.lo), sum(&|span| span.hi));
        let amount = format!("a{name}");
        self.script.real(&amount);
        self.script.assert(&format!("(and (<= {low} {amount}) (<= {amount} {high}))"));
        let direction = match () {
            () if rates.iter().all(|(span, _)| span.lo >= 0.0) => Direction::Up,
            () if rates.iter().all(|(span, _)| span.hi <= 0.0) => Direction::Down,
            () => Direction::Either,
        };
        let end = format!("w{name}");
        let plain = format!("(+ {value} {amount})");
        let stop = until.map(number);
        let formula = match (direction, &stop) {
            (_, None) => plain,
            (Direction::Up, Some(stop)) => min(&plain, &max(value, stop)),
            (Direction::Down, Some(stop)) => max(&plain, &min(value, stop)),
            _ => moved(value, &amount, until),
        };
        self.script.define(&end, &formula);
        Way { amount, end, direction }
    }

    /// Limits on the step's arguments.
    fn arguments(&mut self, index: usize, step: &Step, steps: &[Step], before: &[String]) {
        for limit in &self.site.limits {
            let LimitTarget::Argument { command, argument } = limit.on else { continue };
            if usize::from(step.command.verb) != command {
                continue;
            }
            let Some(value) = step.command.values.get(argument).and_then(order) else { continue };
            let mut broken = Vec::new();
            broken.extend(limit.lo.filter(|lo| value < *lo).map(|_| "true".to_string()));
            broken.extend(limit.hi.filter(|hi| value > *hi).map(|_| "true".to_string()));
            let select = self.site.commands.get(command).and_then(|spec| {
                let mut writes = spec.writes.iter();
                let own = |source: &WriteSource| matches!(source, WriteSource::Argument { index, .. } if *index == argument);
                writes.find(|write| own(&write.source))?.select
            });
            let same = |other: &&(usize, &Step)| {
                other.1.command.verb == step.command.verb
                    && select.is_none_or(|s| other.1.command.values.get(s) == step.command.values.get(s))
            };
            let earlier: Vec<(usize, &Step)> = steps.iter().take(index).enumerate().collect();
            if let Some((place, other)) = earlier.iter().rev().find(same) {
                broken.extend(self.too_soon(limit, value, other, argument, (*place, index)));
            }
            if !broken.is_empty() {
                let when = self.terms(&limit.when, before);
                self.wrong.push(format!("(and {when} {})", any(&broken)));
            }
        }
    }

    fn too_soon(
        &self,
        limit: &Limit,
        value: f64,
        other: &Step,
        argument: usize,
        (earlier, index): (usize, usize),
    ) -> Vec<String> {
        let Some(old) = other.command.values.get(argument).and_then(order) else { return Vec::new() };
        let start = |step: usize| self.starts.get(step).cloned().unwrap_or_default();
        let apart = format!("(- {} {})", start(index), start(earlier));
        let change = number((value - old).abs());
        let slope = limit.rate_per_s.map(|rate| format!("(> {change} (* {} {apart}))", number(rate)));
        let dwell = limit.dwell_ms.filter(|_| value != old);
        let dwell = dwell.map(|ms| format!("(< {apart} {})", number(f64::from(ms) / 1000.0)));
        slope.into_iter().chain(dwell).collect()
    }
}

/// A value with an order or an identity.
fn order(value: &Value) -> Option<f64> {
    match value {
        Value::Choice(choice) => Some(f64::from(*choice)),
        other => numeric(other),
    }
}

/// How a tag moves in one step.
struct Way {
    amount: String,
    /// Where it ends without a jump.
    end: String,
    direction: Direction,
}

#[derive(Clone, Copy, PartialEq)]
enum Direction {
    Still,
    Up,
    Down,
    Either,
}

impl Way {
    fn is_still(&self) -> bool {
        self.direction == Direction::Still
    }

    /// `name` lies between two values that are this way apart, from `a` to `b`.
    fn between(&self, name: &str, a: &str, b: &str) -> String {
        match self.direction {
            Direction::Still => format!("(= {name} {a})"),
            Direction::Up => format!("(and (<= {a} {name}) (<= {name} {b}))"),
            Direction::Down => format!("(and (<= {b} {name}) (<= {name} {a}))"),
            Direction::Either => between(name, a, b),
        }
    }
}

fn between(name: &str, a: &str, b: &str) -> String {
    format!("(and (<= {} {name}) (<= {name} {}))", min(a, b), max(a, b))
}
