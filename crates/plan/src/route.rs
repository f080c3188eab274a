//! Ways over the map: from what is asked for to steps that each take one road at most.

use crate::check::{Start, Step};
use crate::interval::perhaps;
use crate::limits::STEPS_MAX;
use ganglion_site::limits::ARGUMENTS_MAX;
use ganglion_site::plan::{Map, PlanSpec, Span, Whereabouts};
use ganglion_site::{Command, Site, Term, Value};

/// Shortest ways between all places over roads and places that are free now (Floyd and Warshall).
#[derive(Debug, Clone)]
pub(crate) struct Routes {
    count: usize,
    /// `length_m[from * count + to]`, infinite where no way leads.
    length_m: Vec<f64>,
    /// First place after `from` on the way to `to`.
    next: Vec<usize>,
}

impl Routes {
    pub fn new(map: &Map, start: &Start) -> Self {
        let count = map.places.len();
        let mut routes =
            Self { count, length_m: vec![f64::INFINITY; count * count], next: vec![0; count * count] };
        let closed = |terms: &[Term]| {
            let may = |term: &Term| match start.tags.get(term.compare.tag).copied().flatten() {
                Some(span) => perhaps(&term.compare, span),
                None => true,
            };
            !terms.is_empty() && terms.iter().all(may)
        };
        let open: Vec<bool> = map.places.iter().map(|place| !closed(&place.avoid)).collect();
        for place in 0..count {
            routes.put(place, place, 0.0, place);
        }
        for road in map.roads.iter().filter(|road| !closed(&road.avoid)) {
            let [a, b] = road.between;
            routes.put(a, b, road.length_m, b);
            routes.put(b, a, road.length_m, a);
        }
        // Ways lead through open places only; where they begin and end is for the check to judge.
        for via in (0..count).filter(|via| open.get(*via) == Some(&true)) {
            for from in 0..count {
                for to in 0..count {
                    let through = routes.length_m(from, via) + routes.length_m(via, to);
                    if through < routes.length_m(from, to) {
                        let next = routes.next(from, via);
                        routes.put(from, to, through, next);
                    }
                }
            }
        }
        routes
    }

    fn put(&mut self, from: usize, to: usize, length_m: f64, next: usize) {
        let index = from * self.count + to;
        if let (Some(length), Some(step)) = (self.length_m.get_mut(index), self.next.get_mut(index)) {
            (*length, *step) = (length_m, next);
        }
    }

    pub fn length_m(&self, from: usize, to: usize) -> f64 {
        self.length_m.get(from * self.count + to).copied().unwrap_or(f64::INFINITY)
    }

    fn next(&self, from: usize, to: usize) -> usize {
        self.next.get(from * self.count + to).copied().unwrap_or(to)
    }
}

/// A command that takes the machine to `place`: one that names it by an argument and needs nothing else.
pub(crate) fn travel_to(site: &Site, spec: &PlanSpec, place: usize) -> Option<Command> {
    spec.actions.iter().enumerate().find_map(|(verb, action)| {
        let Some(Whereabouts::Argument { index, places }) = &action.as_ref()?.moves else { return None };
        let choice = places.iter().position(|other| *other == place)?;
        (site.commands.get(verb)?.arguments.len() == 1 && *index == 0).then_some(())?;
        let mut values = [Value::Absent; ARGUMENTS_MAX];
        *values.get_mut(*index)? = Value::Choice(u16::try_from(choice).ok()?);
        Some(Command { verb: u16::try_from(verb).ok()?, values })
    })
}

/// A step of a plan and the task that it is for, `None` for what planning added.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PlannedStep {
    /// The step.
    pub step: Step,
    /// Index of the task that it carries out.
    pub task: Option<usize>,
}

/// The steps of `commands` in this order, with the ways between them. Where no way leads, the command stands there all
/// the same, and the check says so.
pub(crate) fn with_ways(
    site: &Site,
    spec: &PlanSpec,
    start: &Start,
    commands: &[(Command, Option<usize>)],
) -> Vec<PlannedStep> {
    let own =
        |(command, task): &(Command, Option<usize>)| PlannedStep { step: (*command).into(), task: *task };
    let Some(map) = &spec.map else { return commands.iter().map(own).collect() };
    let reading = start.tags.get(map.tag).copied().flatten();
    let mut here = reading.filter(|span: &Span| span.lo == span.hi).and_then(|span| map.place_of(span.lo));
    let routes = Routes::new(map, start);
    let mut steps = Vec::new();
    for (command, task) in commands {
        let action = spec.action(command);
        let at = action.and_then(|action| action.at.as_ref()?.of(command));
        let moves = action.and_then(|action| action.moves.as_ref()?.of(command));
        // A command that moves takes the last road itself.
        if let (Some(from), Some(to)) = (here, at.or(moves)) {
            let stop = |place: usize| at.is_none() && routes.next(place, to) == to;
            let mut place = from;
            while place != to
                && !stop(place)
                && routes.length_m(place, to).is_finite()
                && steps.len() < STEPS_MAX
            {
                place = routes.next(place, to);
                match travel_to(site, spec, place) {
                    Some(travel) => steps.push(PlannedStep { step: travel.into(), task: None }),
                    None => break,
                }
            }
            here = Some(to);
        }
        if moves.is_some() {
            here = moves;
        }
        steps.push(own(&(*command, *task)));
        if steps.len() > STEPS_MAX {
            break;
        }
    }
    steps
}
