//! What can be wrong besides a plan itself.

use std::path::PathBuf;

/// Why there is no checker, no solver or no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// The site says nothing about plans.
    #[error(
        "{}: a table [plan] is missing, and with it what commands take and do; see docs/plans.md", file.display()
    )]
    NoPlan {
        /// The site file.
        file: PathBuf,
    },
    /// The solver's program could not be started.
    #[error("the solver {program} cannot be started: {reason}")]
    NoSolver {
        /// What was tried.
        program: String,
        /// The system's answer, and what to do where that is known.
        reason: String,
    },
    /// It did not answer in its time, and was killed.
    #[error("the solver gave no answer in {budget_ms} ms")]
    Timeout {
        /// The time it had.
        budget_ms: u64,
    },
    /// It ended, or its answer is none.
    #[error("the solver failed: {reason}")]
    SolverFailed {
        /// What it said or did.
        reason: String,
    },
    /// It said that it does not know.
    #[error("the solver does not know")]
    Undecided,
}
