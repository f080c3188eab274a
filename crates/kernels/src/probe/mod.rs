//! What this machine can do at best: read bandwidth and integer dot products, on the threads of a pool.
//!
//! Benchmarks hold the engine's speed against these. The work is here; the clock is the caller's.

mod dot;
mod read;

pub use dot::DotProbe;
pub use read::ReadProbe;

use crate::limits::PROBE_PASSES_MAX;

/// Nanoseconds since a moment that stays the same.
pub type Clock = fn() -> u64;

/// A rate measured over several passes of the same work.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// Units per second in the middle one of all passes.
    pub median: f64,
    /// Units per second in the fastest pass.
    pub best: f64,
    /// Passes timed.
    pub passes: usize,
}

/// Times `pass`, which does `units` of work, again and again for `budget_ns`, at least three times. One pass before the
/// first timed one warms up.
fn repeat(units: u64, budget_ns: u64, clock: Clock, mut pass: impl FnMut()) -> Rate {
    const PASSES_MIN: usize = 3;
    pass();
    let start = clock();
    let mut durations = Vec::new();
    while durations.len() < PASSES_MIN
        || (clock().saturating_sub(start) < budget_ns && durations.len() < PROBE_PASSES_MAX)
    {
        let before = clock();
        pass();
        // A clock may be too coarse to see a pass; the rate stays finite.
        durations.push(clock().saturating_sub(before).max(1));
    }
    durations.sort_unstable();
    let per_second = |ns: u64| units as f64 * 1e9 / ns as f64;
    Rate {
        median: per_second(durations[durations.len() / 2]),
        best: per_second(durations[0]),
        passes: durations.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    thread_local!(static NOW: Cell<u64> = const { Cell::new(0) });

    fn clock() -> u64 {
        NOW.get()
    }

    #[test]
    fn median_and_best_come_from_the_passes_after_the_first() {
        NOW.set(0);
        let mut durations = [7_000, 400, 100, 200].into_iter();
        let rate = repeat(100, 0, clock, || NOW.set(NOW.get() + durations.next().unwrap()));
        assert_eq!(rate, Rate { median: 0.5e9, best: 1e9, passes: 3 });
    }

    #[test]
    fn passes_go_on_until_the_budget_is_used_up() {
        NOW.set(0);
        let rate = repeat(1, 1_000, clock, || NOW.set(NOW.get() + 100));
        assert_eq!(rate.passes, 10);
        let rate = repeat(1, u64::MAX, clock, || {});
        assert_eq!(rate.passes, PROBE_PASSES_MAX, "a clock that stands still ends too");
        assert!(rate.best.is_finite());
    }
}
