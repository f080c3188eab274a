//! Every bound of plans, in one place.

use ganglion_site::limits::PLAN_INSERT_MAX;

/// Steps of one plan, ways between places included.
pub const STEPS_MAX: usize = 64;
/// Commands that a mission may ask for.
pub const TASKS_MAX: usize = 24;
/// Bytes of one answer of the solver.
pub const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Time for the solver to start and to answer its first, empty question.
pub const SOLVER_START_MS: u64 = 10_000;
/// Memory that the solver may take, in MB.
pub const SOLVER_MEMORY_MB: u32 = 512;

const _: () = assert!(TASKS_MAX + PLAN_INSERT_MAX <= STEPS_MAX);
