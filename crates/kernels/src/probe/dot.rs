//! The peak of integer dot products: what each instruction set multiplies and adds when nothing has to be loaded.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{Clock, Rate, repeat};
use crate::isa::Isa;
use crate::limits::PROBE_DOT_ROUNDS;
use crate::pool::Pool;
use crate::tile::dots;

/// A loop of int8 dot products in registers.
#[derive(Debug, Clone, Copy)]
pub struct DotProbe {
    rounds: u64,
}

impl DotProbe {
    /// A probe whose pass is long enough that starting the threads does not count.
    pub fn new() -> Self {
        Self { rounds: PROBE_DOT_ROUNDS }
    }

    /// Multiply-adds of one pass on all threads of `pool`.
    pub fn macs(&self, isa: Isa, pool: &Pool) -> u64 {
        self.rounds * dots(isa, 0).1 * pool.threads() as u64
    }

    /// Runs the loop on every thread and returns a number that depends on all products.
    pub fn pass(&self, isa: Isa, pool: &Pool) -> u64 {
        let total = AtomicU64::new(0);
        pool.run(&|_| {
            total.fetch_add(dots(isa, self.rounds).0, Ordering::Relaxed);
        });
        total.into_inner()
    }

    /// Multiply-adds per second, over passes that take `budget_ns` in all.
    pub fn peak(&self, isa: Isa, pool: &Pool, budget_ns: u64, clock: Clock) -> Rate {
        repeat(self.macs(isa, pool), budget_ns, clock, || {
            std::hint::black_box(self.pass(isa, pool));
        })
    }
}

impl Default for DotProbe {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loop_does_the_work_that_it_is_counted_for() {
        // All products are 2, so the sum is twice the multiply-adds.
        for isa in Isa::available() {
            for rounds in [1, 7, 1000] {
                let (sum, macs) = dots(isa, rounds);
                assert_eq!(sum, 2 * rounds * macs, "{} rounds {rounds}", isa.name());
            }
        }
    }

    #[test]
    fn every_thread_runs_the_loop() {
        let probe = DotProbe { rounds: 10 };
        for isa in Isa::available() {
            let [one, three] = [1, 3].map(|threads| Pool::new(threads).unwrap());
            assert_eq!(probe.macs(isa, &three), 3 * probe.macs(isa, &one));
            assert_eq!(probe.pass(isa, &three), 2 * probe.macs(isa, &three));
        }
    }

    #[test]
    fn the_peak_is_a_positive_number() {
        fn clock() -> u64 {
            use std::sync::OnceLock;
            use std::time::Instant;
            static START: OnceLock<Instant> = OnceLock::new();
            START.get_or_init(Instant::now).elapsed().as_nanos() as u64
        }
        let pool = Pool::new(1).unwrap();
        for isa in Isa::available() {
            let rate = DotProbe { rounds: 100 }.peak(isa, &pool, 0, clock);
            assert!(rate.median.is_finite() && rate.median > 0.0 && rate.best >= rate.median, "{rate:?}");
        }
    }
}
