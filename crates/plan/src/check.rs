//! The fast check: intervals of every tag, step after step. Always on, no solver, no heap after [`Checker::new`].
//!
//! Sound, not complete: a plan that passes cannot break a rule whatever the values inside the site's intervals turn out to
//! be; one that fails may still be good, since the intervals of different tags are taken apart.

use crate::error::PlanError;
use crate::interval::{ZERO, add, hull, moved, over, perhaps, surely, times};
use crate::limits::STEPS_MAX;
use ganglion_site::limits::TAGS_MAX;
use ganglion_site::plan::{Action, Effect, EffectHow, PlanSpec, Span, Takes, numeric};
use ganglion_site::{
    Command, Compare, Comparison, Limit, LimitTarget, PACKML_STATES, Site, Term, Value, WriteSource,
};
use std::sync::Arc;

/// One command of a plan.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// What is done.
    pub command: Command,
    /// How long it is to take, where a plan says so; otherwise as long as the site says.
    pub duration_s: Option<f64>,
}

impl From<Command> for Step {
    fn from(command: Command) -> Self {
        Self { command, duration_s: None }
    }
}

/// What the tags read before the first step; `None` = no usable reading.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Start {
    /// By tag index.
    pub tags: [Option<Span>; TAGS_MAX],
}

impl Start {
    /// No reading at all.
    pub const UNKNOWN: Self = Self { tags: [None; TAGS_MAX] };

    /// Sets one tag to one value.
    pub fn set(&mut self, tag: usize, value: f64) {
        if let Some(place) = self.tags.get_mut(tag) {
            *place = Some(Span::exactly(value));
        }
    }
}

/// What is known of a moment between two steps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Moment {
    /// Time since the plan began, in s.
    pub elapsed_s: Span,
    /// By tag index; `None` = not known.
    pub tags: [Option<Span>; TAGS_MAX],
    /// Index of the place on the map.
    pub place: Option<usize>,
}

/// What a plan would break, and where.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Violation {
    /// Index of the step; the number of steps = the state after the last one.
    pub step: usize,
    /// Which rule.
    pub rule: Rule,
    /// The interval that breaks it: of the tag, the time in s, or the argument.
    pub found: Span,
}

/// A rule that a plan can break.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// More than [`STEPS_MAX`] steps.
    Steps,
    /// The command has no `plan`, or not the argument that it needs.
    NotPlannable,
    /// A tag that is needed has no usable reading.
    Unknown {
        /// Which.
        tag: usize,
    },
    /// The map's tag reads no place's number.
    Nowhere,
    /// The command is for another place.
    NotAt {
        /// Where it has to be carried out.
        place: usize,
    },
    /// No direct road leads there.
    NoRoad {
        /// Where to.
        place: usize,
    },
    /// A place that may be closed at that time.
    AvoidPlace {
        /// Which.
        place: usize,
    },
    /// A road that may be closed at that time.
    AvoidRoad {
        /// Which.
        road: usize,
    },
    /// The time given is too short for the way or the work; `found` is the shortest.
    TooShort,
    /// The whole plan takes too long.
    Time,
    /// Index into `always`.
    Always(usize),
    /// Index into `never`.
    Never(usize),
    /// Index into the command's `needs`.
    Needs(usize),
    /// Index into `end`.
    End(usize),
    /// A limit on a tag.
    TagLimit {
        /// Index into the site's limits.
        limit: usize,
        /// The bound, `below` or above it.
        below: bool,
    },
    /// `lo` or `hi` of a limit on an argument.
    ArgumentLimit {
        /// Index into the site's limits.
        limit: usize,
    },
    /// `rate_per_s` of a limit on an argument, against the step before that sets the same.
    Slew {
        /// Index into the site's limits.
        limit: usize,
    },
    /// `dwell_ms` of a limit on an argument.
    Dwell {
        /// Index into the site's limits.
        limit: usize,
    },
}

/// The fast check of one site.
#[derive(Debug, Clone)]
pub struct Checker {
    site: Arc<Site>,
    /// Tags that plans change, as bits.
    moving: u64,
    drift: [Span; TAGS_MAX],
    trace: Vec<Moment>,
}

/// Verdicts of one rule.
type Checked = Result<(), (Rule, Span)>;

const NOWHERE: Span = Span { lo: 0.0, hi: 0.0 };

impl Checker {
    /// Allocates everything.
    ///
    /// # Errors
    /// [`PlanError::NoPlan`] when the site says nothing about plans.
    pub fn new(site: &Arc<Site>) -> Result<Self, PlanError> {
        let spec = site.plan.as_ref().ok_or_else(|| PlanError::NoPlan { file: site.file.clone() })?;
        let mut drift = [ZERO; TAGS_MAX];
        for own in &spec.drift {
            if let Some(place) = drift.get_mut(own.tag) {
                *place = own.per_s;
            }
        }
        let effects = spec.actions.iter().flatten().flat_map(|action| &action.effects);
        let tags = effects.flat_map(|effect| effect.tag.of.iter().copied());
        let moving =
            tags.chain(spec.drift.iter().map(|drift| drift.tag)).fold(0, |mask, tag| mask | bit(tag));
        Ok(Self { site: Arc::clone(site), moving, drift, trace: Vec::with_capacity(STEPS_MAX + 1) })
    }

    /// The site.
    pub fn site(&self) -> &Arc<Site> {
        &self.site
    }

    /// The state at the start and after every step of the last plan, as far as it was followed.
    pub fn trace(&self) -> &[Moment] {
        &self.trace
    }

    /// Follows a plan from `start`; the state at its end when nothing can go wrong.
    ///
    /// # Errors
    /// The first rule, in time, that some value inside the intervals could break.
    pub fn check(&mut self, start: &Start, steps: &[Step]) -> Result<Moment, Violation> {
        let mut trace = std::mem::take(&mut self.trace);
        trace.clear();
        let result = self.follow(start, steps, &mut trace);
        self.trace = trace;
        result
    }

    fn follow(&self, start: &Start, steps: &[Step], trace: &mut Vec<Moment>) -> Result<Moment, Violation> {
        let Some(spec) = &self.site.plan else {
            return Err(Violation { step: 0, rule: Rule::NotPlannable, found: NOWHERE });
        };
        if steps.len() > STEPS_MAX {
            return Err(Violation {
                step: STEPS_MAX,
                rule: Rule::Steps,
                found: Span::exactly(steps.len() as f64),
            });
        }
        let at = |step| move |(rule, found)| Violation { step, rule, found };
        let mut now = self.begin(spec, start).map_err(at(0))?;
        trace.push(now);
        self.check_moment(spec, &now.tags).map_err(at(0))?;
        for (index, step) in steps.iter().enumerate() {
            let before = steps.get(..index).unwrap_or_default();
            self.check_arguments(step, before, trace).map_err(at(index))?;
            now = self.advance(spec, &now, step).map_err(at(index))?;
            trace.push(now);
        }
        let end = spec.end.iter().enumerate();
        for (index, term) in end {
            let found = known(&now.tags, term.compare.tag).map_err(at(steps.len()))?;
            if !surely(&term.compare, found) {
                return Err(Violation { step: steps.len(), rule: Rule::End(index), found });
            }
        }
        Ok(now)
    }

    fn begin(&self, spec: &PlanSpec, start: &Start) -> Result<Moment, (Rule, Span)> {
        let usable = |span: &Span| span.lo <= span.hi && span.lo.is_finite() && span.hi.is_finite();
        let tags = start.tags.map(|span| span.filter(usable));
        let place = match &spec.map {
            None => None,
            Some(map) => {
                let reading = known(&tags, map.tag)?;
                let place = map.place_of(reading.lo).filter(|_| reading.lo == reading.hi);
                Some(place.ok_or((Rule::Nowhere, reading))?)
            }
        };
        Ok(Moment { elapsed_s: ZERO, tags, place })
    }

    /// One step: where, needs, time, effects, and the rules over everything that may be read on the way.
    fn advance(&self, spec: &PlanSpec, before: &Moment, step: &Step) -> Result<Moment, (Rule, Span)> {
        let action = spec.action(&step.command).ok_or((Rule::NotPlannable, NOWHERE))?;
        let (road, place) = self.way(spec, action, before, step)?;
        let needs = action.needs.of(&step.command).ok_or((Rule::NotPlannable, NOWHERE))?;
        for (index, term) in needs.iter().enumerate() {
            let found = known(&before.tags, term.compare.tag)?;
            if !surely(&term.compare, found) {
                return Err((Rule::Needs(index), found));
            }
        }
        let length_m =
            road.and_then(|road| spec.map.as_ref()?.roads.get(road)).map_or(0.0, |road| road.length_m);
        let time_s = duration(spec, action, step, length_m)?;
        let elapsed_s = add(before.elapsed_s, time_s);
        if spec.time_s_max.is_some_and(|max| elapsed_s.hi > max) {
            return Err((Rule::Time, elapsed_s));
        }
        let mut during = before.tags;
        let mut after = Moment { elapsed_s, place, ..*before };
        for tag in (0..TAGS_MAX).filter(|tag| self.moving & bit(*tag) != 0) {
            let effect = effect_on(action, &step.command, tag);
            let change = self.change(tag, effect, &step.command, time_s, length_m)?;
            let (way, end) = change.apply(before.tags.get(tag).copied().flatten());
            put(&mut during, tag, way);
            put(&mut after.tags, tag, end);
        }
        if let (Some(map), Some(from), Some(to)) = (&spec.map, before.place, place) {
            let number = |index: usize| map.places.get(index).map_or(0.0, |place| place.number);
            put(&mut during, map.tag, Some(hull(Span::exactly(number(from)), Span::exactly(number(to)))));
            put(&mut after.tags, map.tag, Some(Span::exactly(number(to))));
            for place in [from, to] {
                let avoid = map.places.get(place).map_or(&[][..], |place| &place.avoid);
                check_none(avoid, &during, Rule::AvoidPlace { place })?;
            }
            if let Some(road) = road {
                let avoid = map.roads.get(road).map_or(&[][..], |road| &road.avoid);
                check_none(avoid, &during, Rule::AvoidRoad { road })?;
            }
        }
        self.check_moment(spec, &during)?;
        Ok(after)
    }

    /// The road that a step takes, and the place where it ends.
    fn way(
        &self,
        spec: &PlanSpec,
        action: &Action,
        before: &Moment,
        step: &Step,
    ) -> Result<(Option<usize>, Option<usize>), (Rule, Span)> {
        let Some(map) = &spec.map else { return Ok((None, None)) };
        let here = before.place.ok_or((Rule::Nowhere, NOWHERE))?;
        if let Some(at) = &action.at {
            let place = at.of(&step.command).ok_or((Rule::NotPlannable, NOWHERE))?;
            if place != here {
                return Err((Rule::NotAt { place }, NOWHERE));
            }
        }
        let Some(moves) = &action.moves else { return Ok((None, Some(here))) };
        let place = moves.of(&step.command).ok_or((Rule::NotPlannable, NOWHERE))?;
        if place == here {
            return Ok((None, Some(here)));
        }
        let road = map.road(here, place).ok_or((Rule::NoRoad { place }, NOWHERE))?;
        Ok((Some(road), Some(place)))
    }

    /// What a step does to one tag.
    fn change(
        &self,
        tag: usize,
        effect: Option<&Effect>,
        command: &Command,
        time_s: Span,
        length_m: f64,
    ) -> Result<Change, (Rule, Span)> {
        let drift = times(self.drift.get(tag).copied().unwrap_or(ZERO), time_s);
        let mut change = Change { amount: drift, until: None, jump: Jump::None };
        let Some(effect) = effect else { return Ok(change) };
        let amount = effect.amount.of(command).ok_or((Rule::NotPlannable, NOWHERE))?;
        change.until = effect.until;
        match effect.how {
            EffectHow::PerSecond => change.amount = add(drift, times(amount, time_s)),
            EffectHow::PerMetre => change.amount = add(drift, times(amount, Span::exactly(length_m))),
            EffectHow::Set => change.jump = Jump::To(amount),
            EffectHow::Add => change.jump = Jump::By(amount),
            EffectHow::During => change.jump = Jump::Through(amount),
        }
        Ok(change)
    }

    /// Whether what is read while `step` is under way keeps the rules of every moment, and does not close the road or the
    /// place that it goes to from `from`. The place that is left behind does not count; neither does what has no reading.
    ///
    /// # Errors
    /// The first rule that is broken now; its step is 0.
    pub fn watch(&self, now: &Start, step: &Step, from: Option<usize>) -> Result<(), Violation> {
        let Some(spec) = &self.site.plan else { return Ok(()) };
        let goal = spec.action(&step.command).and_then(|action| action.moves.as_ref()?.of(&step.command));
        let in_use = spec.map.as_ref().and_then(|map| {
            let to = goal.or(from)?;
            let road = from.and_then(|from| map.road(from, to));
            Some((
                to,
                &map.places.get(to)?.avoid,
                road.and_then(|road| Some((road, &map.roads.get(road)?.avoid))),
            ))
        });
        let closed = in_use.into_iter().flat_map(|(place, avoid, road)| {
            let place = check_none(avoid, &now.tags, Rule::AvoidPlace { place });
            let road = road.map(|(road, avoid)| check_none(avoid, &now.tags, Rule::AvoidRoad { road }));
            [Some(place), road].into_iter().flatten()
        });
        let broken = |checked: Checked| match checked {
            Err((Rule::Unknown { .. }, _)) | Ok(()) => None,
            Err((rule, found)) => Some(Violation { step: 0, rule, found }),
        };
        self.rules(spec, &now.tags).chain(closed).find_map(broken).map_or(Ok(()), Err)
    }

    /// The rules of every moment, over all that tags may read.
    fn check_moment(&self, spec: &PlanSpec, tags: &[Option<Span>; TAGS_MAX]) -> Checked {
        self.rules(spec, tags).collect()
    }

    /// One verdict per rule.
    fn rules<'a>(
        &'a self,
        spec: &'a PlanSpec,
        tags: &'a [Option<Span>; TAGS_MAX],
    ) -> impl Iterator<Item = Checked> + 'a {
        let always = spec.always.iter().enumerate().map(move |(index, term)| {
            let found = known(tags, term.compare.tag)?;
            if surely(&term.compare, found) { Ok(()) } else { Err((Rule::Always(index), found)) }
        });
        let never = spec.never.iter().enumerate();
        let never = never.map(move |(index, terms)| check_none(terms, tags, Rule::Never(index)));
        let limits = self.site.limits.iter().enumerate();
        always.chain(never).chain(limits.map(move |(index, limit)| self.check_limit(index, limit, tags)))
    }

    /// A limit on a tag that plans change.
    fn check_limit(&self, index: usize, limit: &Limit, tags: &[Option<Span>; TAGS_MAX]) -> Checked {
        let LimitTarget::Tag(tag) = limit.on else { return Ok(()) };
        if self.moving & bit(tag) == 0 || !holds_in_execute(limit) {
            return Ok(());
        }
        let found = known(tags, tag)?;
        let low = limit.lo.is_some_and(|lo| found.lo < lo) || limit.lolo.is_some_and(|lo| found.lo <= lo);
        let high = limit.hi.is_some_and(|hi| found.hi > hi) || limit.hihi.is_some_and(|hi| found.hi >= hi);
        if low || high { Err((Rule::TagLimit { limit: index, below: low }, found)) } else { Ok(()) }
    }

    /// The site's limits on arguments: bounds, slope and dwell against the steps before.
    fn check_arguments(&self, step: &Step, before: &[Step], trace: &[Moment]) -> Checked {
        let now = trace.last().ok_or((Rule::NotPlannable, NOWHERE))?;
        for (index, limit) in self.site.limits.iter().enumerate() {
            let LimitTarget::Argument { command, argument } = limit.on else { continue };
            if usize::from(step.command.verb) != command {
                continue;
            }
            let force = limit.when.iter().all(|term| {
                now.tags
                    .get(term.compare.tag)
                    .copied()
                    .flatten()
                    .is_none_or(|span| perhaps(&term.compare, span))
            });
            let Some(value) = step.command.values.get(argument).and_then(number_of) else { continue };
            if !force {
                continue;
            }
            let found = Span::exactly(value);
            if limit.lo.is_some_and(|lo| value < lo) || limit.hi.is_some_and(|hi| value > hi) {
                return Err((Rule::ArgumentLimit { limit: index }, found));
            }
            let select = self.selector(command, argument);
            let last = before.iter().zip(trace).rev().find(|(earlier, _)| {
                earlier.command.verb == step.command.verb
                    && select.is_none_or(|s| earlier.command.values.get(s) == step.command.values.get(s))
            });
            let Some((earlier, then)) = last else { continue };
            let Some(other) = earlier.command.values.get(argument).and_then(number_of) else { continue };
            // Sums of shortest times: their difference is the shortest time between the two.
            let apart_s = (now.elapsed_s.lo - then.elapsed_s.lo).next_down().max(0.0);
            if limit
                .rate_per_s
                .is_some_and(|rate| (value - other).abs() > (rate * apart_s).next_down().max(0.0))
            {
                return Err((Rule::Slew { limit: index }, found));
            }
            let dwell = |ms: u32| value != other && apart_s < f64::from(ms) / 1000.0;
            if limit.dwell_ms.is_some_and(dwell) {
                return Err((Rule::Dwell { limit: index }, found));
            }
        }
        Ok(())
    }

    /// The argument whose choice selects the register that `argument` goes to: each has its own history.
    fn selector(&self, command: usize, argument: usize) -> Option<usize> {
        let writes = &self.site.commands.get(command)?.writes;
        let carries = |source: &WriteSource| matches!(source, WriteSource::Argument { index, .. } if *index == argument);
        writes.iter().find(|write| carries(&write.source))?.select
    }
}

/// What a step does to a tag: it moves by `amount`, up to `until`, and jumps at some moment.
struct Change {
    amount: Span,
    until: Option<f64>,
    jump: Jump,
}

enum Jump {
    None,
    To(Span),
    By(Span),
    Through(Span),
}

impl Change {
    /// All that the tag may read during the step, and at its end.
    fn apply(&self, value: Option<Span>) -> (Option<Span>, Option<Span>) {
        if let Jump::To(target) = self.jump {
            // The jump may come at any moment, so that drift may have the whole step or none of it left.
            let end = add(target, hull(self.amount, ZERO));
            let way = value.map(|value| hull(hull(value, moved(value, self.amount, self.until)), end));
            return (way, Some(end));
        }
        let Some(value) = value else { return (None, None) };
        let end = moved(value, self.amount, self.until);
        let way = hull(value, end);
        match self.jump {
            Jump::None | Jump::To(_) => (Some(way), Some(end)),
            Jump::By(jump) => (Some(hull(way, add(way, jump))), Some(add(end, jump))),
            Jump::Through(through) => (Some(hull(way, through)), Some(end)),
        }
    }
}

/// The time of a step, in s: what the site says, or what the plan says if that is possible at all.
fn duration(spec: &PlanSpec, action: &Action, step: &Step, length_m: f64) -> Result<Span, (Rule, Span)> {
    let time_s = match (action.takes, &spec.map) {
        (Takes::Seconds(span), _) => span,
        (Takes::Argument { index, s_per_unit }, _) => {
            let units =
                step.command.values.get(index).and_then(numeric).ok_or((Rule::NotPlannable, NOWHERE))?;
            times(Span::exactly(s_per_unit), Span::exactly(units))
        }
        (Takes::Travel, Some(map)) if length_m > 0.0 => over(length_m, map.m_per_s),
        (Takes::Travel, _) => ZERO,
    };
    match step.duration_s {
        None => Ok(time_s),
        Some(given) if given.is_finite() && given >= shortest_s(spec, action, length_m, time_s) => {
            Ok(Span::exactly(given))
        }
        Some(_) => Err((Rule::TooShort, time_s)),
    }
}

/// The shortest time that is safe to ask for: at full speed on a road, the whole time otherwise.
fn shortest_s(spec: &PlanSpec, action: &Action, length_m: f64, time_s: Span) -> f64 {
    match (&spec.map, action.takes) {
        (Some(map), Takes::Travel) if length_m > 0.0 => (length_m / map.m_per_s.hi).next_up(),
        _ => time_s.hi,
    }
}

/// The effect of a command on a tag.
fn effect_on<'a>(action: &'a Action, command: &Command, tag: usize) -> Option<&'a Effect> {
    action.effects.iter().find(|effect| effect.tag.of(command) == Some(&tag))
}

/// The terms of one condition must not all be possible together.
fn check_none(terms: &[Term], tags: &[Option<Span>; TAGS_MAX], rule: Rule) -> Checked {
    let mut found = NOWHERE;
    for term in terms {
        found = known(tags, term.compare.tag)?;
        if !perhaps(&term.compare, found) {
            return Ok(());
        }
    }
    if terms.is_empty() { Ok(()) } else { Err((rule, found)) }
}

fn known(tags: &[Option<Span>; TAGS_MAX], tag: usize) -> Result<Span, (Rule, Span)> {
    tags.get(tag).copied().flatten().ok_or((Rule::Unknown { tag }, NOWHERE))
}

fn put(tags: &mut [Option<Span>; TAGS_MAX], tag: usize, span: Option<Span>) {
    if let Some(place) = tags.get_mut(tag) {
        *place = span;
    }
}

/// Whether a limit holds in Execute, where plans are carried out.
fn holds_in_execute(limit: &Limit) -> bool {
    let execute = PACKML_STATES.iter().find(|(name, _)| *name == "Execute").map_or(0, |(_, number)| *number);
    limit.modes.is_none_or(|modes| modes.checked_shr(execute.into()).is_some_and(|m| m & 1 == 1))
}

/// A value with an order or at least an identity, as the guard's limits see it.
fn number_of(value: &Value) -> Option<f64> {
    match value {
        Value::Choice(choice) => Some(f64::from(*choice)),
        _ => numeric(value),
    }
}

fn bit(tag: usize) -> u64 {
    u32::try_from(tag).ok().and_then(|tag| 1u64.checked_shl(tag)).unwrap_or(0)
}

/// The bound that a comparison names, and whether values below it break it.
pub(crate) fn bound_of(compare: &Compare) -> Option<(f64, bool)> {
    match compare.op {
        Comparison::Less | Comparison::LessOrEqual => Some((compare.value, false)),
        Comparison::Greater | Comparison::GreaterOrEqual => Some((compare.value, true)),
        Comparison::Equal | Comparison::NotEqual => None,
    }
}
