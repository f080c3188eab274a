//! How many commands may go to the plant: a token bucket in whole numbers, so that no rounding adds a token.

use ganglion_site::{CommandBudget, Micros};

const MINUTE_US: u64 = 60_000_000;

/// The bucket. In any span of `t` minutes at most `burst + per_minute * t` commands pass it. Without a budget all pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Bucket {
    budget: Option<CommandBudget>,
    /// In 1/[`MINUTE_US`] of a token.
    level: u64,
    filled_us: Micros,
}

impl Bucket {
    /// A full one.
    pub fn new(budget: Option<CommandBudget>) -> Self {
        Self { budget, level: budget.map_or(0, |b| u64::from(b.burst) * MINUTE_US), filled_us: 0 }
    }

    /// The bucket of another budget, as full as the one before; a budget where there was none begins full.
    pub fn after(before: Self, budget: Option<CommandBudget>) -> Self {
        let full = Self::new(budget);
        let level = if before.budget.is_some() { before.level.min(full.level) } else { full.level };
        Self { level, filled_us: before.filled_us, ..full }
    }

    /// Lets time pass.
    pub fn tick(&mut self, now: Micros) {
        let Some(budget) = self.budget else { return };
        let elapsed_us = now.saturating_sub(self.filled_us);
        self.filled_us = self.filled_us.max(now);
        let gain = elapsed_us.saturating_mul(budget.per_minute.into());
        self.level = self.level.saturating_add(gain).min(u64::from(budget.burst) * MINUTE_US);
    }

    /// Whether one more command may go.
    pub fn has_one(&self) -> bool {
        self.budget.is_none() || self.level >= MINUTE_US
    }

    /// Whether two more may go.
    pub fn has_two(&self) -> bool {
        self.budget.is_none() || self.level >= 2 * MINUTE_US
    }

    /// A command went.
    pub fn take(&mut self) {
        self.level = self.level.saturating_sub(MINUTE_US);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Over every span of any arrivals, not only from the start.
        #[test]
        fn invariant_27_the_bucket_holds_under_any_arrivals(
            burst in 1u32..20, per_minute in 1u32..6000,
            gaps in prop::collection::vec(prop_oneof![Just(0u64), 0u64..100_000, 0u64..40_000_000], 1..300),
        ) {
            let mut bucket = Bucket::new(Some(CommandBudget { burst, per_minute }));
            let (mut now, mut sent) = (5, Vec::new());
            for gap in gaps {
                now += gap;
                bucket.tick(now);
                if bucket.has_one() {
                    bucket.take();
                    sent.push(now);
                }
            }
            prop_assert!(!sent.is_empty());
            for (i, from) in sent.iter().enumerate() {
                for (j, to) in sent.iter().enumerate().skip(i) {
                    let count = (j - i + 1) as u64;
                    let allowed = u64::from(burst) * MINUTE_US + (to - from) * u64::from(per_minute);
                    prop_assert!(count * MINUTE_US <= allowed, "{count} in {} us", to - from);
                }
            }
        }
    }

    #[test]
    fn a_clock_that_stands_still_or_steps_back_gives_nothing() {
        let mut bucket = Bucket::new(Some(CommandBudget { burst: 1, per_minute: 60 }));
        bucket.tick(10_000_000);
        bucket.take();
        for now in [10_000_000, 5_000_000, 0, 10_999_999] {
            bucket.tick(now);
            assert!(!bucket.has_one(), "{now}");
        }
        bucket.tick(11_000_000);
        assert!(bucket.has_one());
    }
}
