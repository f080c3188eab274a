//! The circuit breaker in front of the brain: consecutive-count, in Resilience4j's words.

use ganglion_site::{GuardSpec, Micros};

/// Whether the brain's answers count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum BreakerState {
    /// Answers are checked and may be actuated.
    Closed,
    /// The brain is not asked; the rule controller is the only writer.
    Open,
    /// The brain is asked in shadow; the rule controller is still the only writer.
    HalfOpen,
}

impl BreakerState {
    /// The word used in status and log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
        }
    }
}

/// Counts consecutive failures and probes. Opens at exactly the site's `failures`; stays open at least `open_ms` (its
/// minimum dwell, started anew by every opening); one failed probe opens it again; `probes` good ones close it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Breaker {
    state: BreakerState,
    failures: u32,
    probes: u32,
    opened_us: Micros,
    failures_max: u32,
    probes_needed: u32,
    open_us: Micros,
}

impl Breaker {
    /// A closed breaker with the site's numbers; zero counts are read as one.
    pub fn new(spec: &GuardSpec) -> Self {
        Self {
            state: BreakerState::Closed,
            failures: 0,
            probes: 0,
            opened_us: 0,
            failures_max: spec.breaker_failures.max(1),
            probes_needed: spec.breaker_probes.max(1),
            open_us: Micros::from(spec.breaker_open_ms) * 1000,
        }
    }

    /// Other numbers from here on; state and counts stay.
    pub(crate) fn adopt(&mut self, spec: &GuardSpec) {
        let Self { failures_max, probes_needed, open_us, .. } = Self::new(spec);
        *self = Self { failures_max, probes_needed, open_us, ..*self };
    }

    /// The state now.
    pub fn state(&self) -> BreakerState {
        self.state
    }

    /// A good answer in time.
    pub fn success(&mut self) {
        match self.state {
            BreakerState::Closed => self.failures = 0,
            BreakerState::Open => {}
            BreakerState::HalfOpen => {
                self.probes += 1;
                if self.probes >= self.probes_needed {
                    self.state = BreakerState::Closed;
                    self.failures = 0;
                    self.probes = 0;
                }
            }
        }
    }

    /// A missing, late or malformed answer.
    pub fn failure(&mut self, now: Micros) {
        match self.state {
            BreakerState::Closed => {
                self.failures += 1;
                if self.failures >= self.failures_max {
                    self.open(now);
                }
            }
            BreakerState::Open => {}
            BreakerState::HalfOpen => self.open(now),
        }
    }

    /// The brain is gone: open at once, whatever was counted.
    pub fn open(&mut self, now: Micros) {
        self.state = BreakerState::Open;
        self.opened_us = now;
        self.failures = 0;
        self.probes = 0;
    }

    /// Time passes: open → half-open after the dwell, once there is a brain to probe.
    pub fn tick(&mut self, now: Micros, brain_ready: bool) {
        let rested = now.saturating_sub(self.opened_us) >= self.open_us;
        if self.state == BreakerState::Open && rested && brain_ready {
            self.state = BreakerState::HalfOpen;
            self.probes = 0;
        }
    }
}

#[cfg(test)]
impl Breaker {
    /// What the exhaustive search tells states apart by.
    pub(crate) fn shape(&self, age: impl Fn(Micros) -> u64) -> (BreakerState, u32, u32, u64) {
        let age = if self.state == BreakerState::Open { age(self.opened_us) } else { 0 };
        (self.state, self.failures, self.probes, age)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn spec(failures: u32, open_ms: u32, probes: u32) -> GuardSpec {
        GuardSpec {
            period_ms: 10,
            deadline_ms: 8,
            brain_timeout_ms: 50,
            breaker_failures: failures,
            breaker_open_ms: open_ms,
            breaker_probes: probes,
            commands: None,
        }
    }

    proptest! {
        #[test]
        fn opens_at_exactly_n_consecutive_failures(n in 1u32..10, ok_at in 0u32..10) {
            let mut breaker = Breaker::new(&spec(n, 100, 2));
            for i in 1..=n {
                prop_assert_eq!(breaker.state(), BreakerState::Closed);
                breaker.failure(u64::from(i));
            }
            prop_assert_eq!(breaker.state(), BreakerState::Open);
            let mut breaker = Breaker::new(&spec(n, 100, 2));
            let before = ok_at.min(n - 1);
            for _ in 0..before { breaker.failure(1); }
            breaker.success();
            for _ in 1..n { breaker.failure(2); }
            prop_assert_eq!(breaker.state(), BreakerState::Closed, "a success starts the count anew");
        }

        #[test]
        fn dwell_shadow_and_probes_hold_for_any_history(
            n in 1u32..5, open_ms in 1u32..50, k in 1u32..5,
            steps in prop::collection::vec((0u8..4, 0u64..20_000), 1..300),
        ) {
            let mut breaker = Breaker::new(&spec(n, open_ms, k));
            let (mut now, mut opened, mut good) = (0u64, None::<u64>, 0u32);
            for (what, dt) in steps {
                now += dt;
                let before = breaker.state();
                match what {
                    0 => breaker.success(),
                    1 => breaker.failure(now),
                    2 => breaker.tick(now, true),
                    _ => breaker.tick(now, false),
                }
                let after = breaker.state();
                match (before, after) {
                    (BreakerState::Open, BreakerState::HalfOpen) => {
                        prop_assert!(now - opened.unwrap() >= u64::from(open_ms) * 1000);
                        prop_assert_eq!(what, 2, "only with a brain to probe");
                        good = 0;
                    }
                    (BreakerState::HalfOpen, BreakerState::Closed) => {
                        prop_assert_eq!(good + 1, k);
                    }
                    (BreakerState::HalfOpen, BreakerState::HalfOpen) if what == 0 => good += 1,
                    (BreakerState::HalfOpen, BreakerState::Open) | (BreakerState::Closed, BreakerState::Open) => {
                        prop_assert_eq!(what, 1);
                        opened = Some(now);
                    }
                    (a, b) => prop_assert_eq!(a, b, "no other way"),
                }
            }
        }
    }
}
