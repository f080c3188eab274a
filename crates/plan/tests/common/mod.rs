//! The example site and the solver, where there is one.
#![allow(dead_code, reason = "each test binary uses a part")]

use ganglion_plan::{Planner, Solver};
use ganglion_site::Site;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub fn example() -> Arc<Site> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../examples/inspection");
    Arc::new(Site::load(&path).unwrap_or_else(|error| panic!("{error}")))
}

/// A solver with patience, so that a machine with other work changes no verdict.
pub fn solver() -> Option<Solver> {
    let solver = Solver::start(Path::new(Solver::PROGRAM), 10_000);
    if let Err(error) = &solver {
        println!("skipped: {error}");
    }
    solver.ok()
}

/// A planner with a solver, with patience.
pub fn with_solver(site: &Arc<Site>) -> Option<Planner> {
    solver()?;
    let mut patient = Site::clone(site);
    patient.plan.as_mut().unwrap().budget_ms = 10_000;
    Some(Planner::new(&Arc::new(patient), Path::new(Solver::PROGRAM)).unwrap())
}
