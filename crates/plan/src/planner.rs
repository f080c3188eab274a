//! From tasks to a plan that passed the check, or to a sentence that says why there is none.

use crate::check::{Checker, Start, Step, Violation};
use crate::error::PlanError;
use crate::limits::TASKS_MAX;
use crate::route::{PlannedStep, with_ways};
use crate::smt::search::{self, Found};
use crate::solver::Solver;
use ganglion_site::plan::Span;
use ganglion_site::{Command, Site};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Something that was asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Task {
    /// What is to be done.
    pub command: Command,
    /// Not before the task named before it.
    pub after_previous: bool,
}

/// A plan that passed the check.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// In order.
    pub steps: Vec<PlannedStep>,
    /// Its time, in s.
    pub time_s: Span,
    /// Why it is not what was said, when it is not: the sentence about the plan as said.
    pub instead_of: Option<String>,
}

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{sentence}")]
pub struct Refusal {
    /// For the operator.
    pub sentence: String,
    /// What the plan as said would have broken first.
    pub violation: Option<Violation>,
    /// What was wrong with the solver, when it was needed and gave no answer.
    pub solver: Option<PlanError>,
}

/// Checks plans and looks for others where they fail.
#[derive(Debug)]
pub struct Planner {
    checker: Checker,
    program: PathBuf,
    solver: Result<Solver, PlanError>,
}

impl Planner {
    /// Starts the solver `program`; a site whose plans all pass as they are said works without one.
    ///
    /// # Errors
    /// [`PlanError::NoPlan`] for a site that says nothing about plans.
    pub fn new(site: &Arc<Site>, program: &Path) -> Result<Self, PlanError> {
        let checker = Checker::new(site)?;
        let solver = Solver::start(program, budget_ms(site));
        Ok(Self { checker, program: program.to_owned(), solver })
    }

    /// Checks against another policy of the same site from now on; the solver stays.
    ///
    /// # Errors
    /// As [`Planner::new`].
    pub fn follow(&mut self, site: &Arc<Site>) -> Result<(), PlanError> {
        if !Arc::ptr_eq(self.checker.site(), site) {
            self.checker = Checker::new(site)?;
        }
        Ok(())
    }

    /// The fast check.
    pub fn checker(&mut self) -> &mut Checker {
        &mut self.checker
    }

    /// The solver, or why there is none.
    pub fn solver(&mut self) -> Result<&mut Solver, PlanError> {
        self.solver.as_mut().map_err(|error| error.clone())
    }

    /// The plan as said, with the ways between places, if it passes the check; otherwise the shortest other one that the
    /// solver finds, once. Without an answer of the solver there is none.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub fn plan(&mut self, start: &Start, tasks: &[Task]) -> Result<Plan, Refusal> {
        let site = Arc::clone(self.checker.site());
        let refuse = |sentence| Refusal { sentence, violation: None, solver: None };
        let Some(spec) = &site.plan else { return Err(refuse("the site has no [plan]".into())) };
        if tasks.is_empty() {
            return Err(refuse("there is nothing to do".into()));
        }
        if tasks.len() > TASKS_MAX {
            return Err(refuse(format!(
                "a mission has at most {TASKS_MAX} commands, this one {}",
                tasks.len()
            )));
        }
        let said: Vec<_> =
            tasks.iter().enumerate().map(|(index, task)| (task.command, Some(index))).collect();
        let steps = with_ways(&site, spec, start, &said);
        let violation = match self.judge(start, &steps) {
            Ok(time_s) => return Ok(Plan { steps, time_s, instead_of: None }),
            Err(violation) => violation,
        };
        let sentence = violation.sentence(&site, &plain(&steps));
        match self.replan(start, tasks) {
            Ok(Ok((steps, time_s))) => Ok(Plan { steps, time_s, instead_of: Some(sentence) }),
            Ok(Err(excluded)) => {
                let sentence = format!("{sentence}; {excluded}");
                Err(Refusal { sentence, violation: Some(violation), solver: None })
            }
            Err(error) => {
                let sentence = format!("{sentence}; no other order was found: {error}");
                Err(Refusal { sentence, violation: Some(violation), solver: Some(error) })
            }
        }
    }

    fn judge(&mut self, start: &Start, steps: &[PlannedStep]) -> Result<Span, Violation> {
        self.checker.check(start, &plain(steps)).map(|end| end.elapsed_s)
    }

    /// Other orders, with no added command, with one, and so on; the site's first choice of them first. What the solver proposes has to pass the check like
    /// anything else.
    fn replan(
        &mut self,
        start: &Start,
        tasks: &[Task],
    ) -> Result<Result<(Vec<PlannedStep>, Span), String>, PlanError> {
        let site = Arc::clone(self.checker.site());
        let Some(spec) = &site.plan else { return Ok(Err(String::new())) };
        if self.solver.is_err() {
            // It may have been installed since, or was slow the first time.
            self.solver = Solver::start(&self.program, budget_ms(&site));
        }
        let (mut excluded, mut last) = (Vec::new(), (0, 0));
        let kinds = |extra: usize| if extra == 0 { 0..=0 } else { 1..=spec.insert.len() };
        let rounds = (0..=spec.insert_max).flat_map(|extra| kinds(extra).map(move |kinds| (extra, kinds)));
        for round in rounds {
            let solver = self.solver.as_mut().map_err(|error| error.clone())?;
            match search::find(solver, &site, start, tasks, round)? {
                Found::Order(order) => {
                    let steps = with_ways(&site, spec, start, &order);
                    match self.judge(start, &steps) {
                        Ok(time_s) => return Ok(Ok((steps, time_s))),
                        Err(violation) => {
                            let why = violation.sentence(&site, &plain(&steps));
                            excluded = vec![format!("{why} (in the best other order)")];
                        }
                    }
                }
                Found::Nothing => (excluded, last) = (Vec::new(), round),
            }
        }
        if excluded.is_empty() {
            let solver = self.solver.as_mut().map_err(|error| error.clone())?;
            // Only words are missing when there is no answer: refused it is in any case.
            excluded = search::excluded(solver, &site, start, tasks, last).unwrap_or_default();
        }
        let names: Vec<String> = spec.insert.iter().map(|command| command.describe(&site)).collect();
        let added = match spec.insert_max {
            0 => String::new(),
            count => format!(", not even with {count} more of {}", names.join(" and ")),
        };
        if excluded.is_empty() {
            return Ok(Err(format!("no other order{added}, keeps every rule")));
        }
        Ok(Err(format!("in no other order{added}, would this hold together: {}", excluded.join(", "))))
    }
}

fn budget_ms(site: &Site) -> u32 {
    site.plan.as_ref().map_or(0, |plan| plan.budget_ms)
}

fn plain(steps: &[PlannedStep]) -> Vec<Step> {
    steps.iter().map(|planned| planned.step).collect()
}
