//! Plans: are they safe, and if not, is there one that is?
//!
//! ```text
//! tasks ─► steps in the order said, with ways between places ─► Checker ─► plan
//!                                                                  │ no
//!                      Solver (z3, a child process) ◄── search ────┘
//!                                │ another order, added commands
//!                                └─► Checker ─► plan, or a sentence that says why not
//! ```
//!
//! * [`Checker`] is the only one who can call a plan safe: intervals of every tag, step after step, in microseconds.
//! * [`Solver`] is asked when the check says no. It finds another order and commands to add, or the rules that no order can
//!   keep. No answer in its time, an answer that is none, a crash: the plan is rejected.
//! * [`Planner`] puts the two together.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use ganglion_plan::{Checker, Start, Step};
//! use ganglion_site::{Command, Site};
//! let text = r#"
//! name = "pump"
//! [model]
//! path = "nano.gguf"
//! [[tag]]
//! name = "level"
//! unit = "%"
//! range = [0, 100]
//! [[command]]
//! name = "drain"
//! plan = { takes = 60, effects = [{ tag = "level", per_min = [-30, -20] }] }
//! [plan]
//! always = ["level >= 10"]
//! "#;
//! let site = std::sync::Arc::new(Site::parse(text, "site.toml".as_ref())?);
//! let mut checker = Checker::new(&site)?;
//! let mut start = Start::UNKNOWN;
//! start.set(0, 65.0);
//! let drain = Step::from(Command::from_json(&site, r#"{"action":"drain"}"#)?);
//! assert!(checker.check(&start, &[drain]).is_ok());
//! let plan = [drain, drain];
//! let violation = checker.check(&start, &plan).unwrap_err();
//! assert_eq!(violation.sentence(&site, &plan), "step 2 drain would leave level 5 % below the 10 % it has to keep");
//! # Ok(())
//! # }
//! ```
//!
//! What it does not do: it actuates nothing (each step is judged by the guard when its time has come), reads no clock, and
//! knows nothing of models. What the site file says about commands and tags is taken for true.

mod check;
mod error;
pub mod explain;
mod interval;
pub mod limits;
mod planner;
mod route;
pub mod smt;
mod solver;

pub use check::{Checker, Moment, Rule, Start, Step, Violation};
pub use error::PlanError;
pub use planner::{Plan, Planner, Refusal, Task};
pub use route::PlannedStep;
pub use solver::Solver;
