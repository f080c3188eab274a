//! What a pass costs on this machine, learned from the passes it made. Times steer how far ahead is guessed and what is not
//! begun; they never change a command.

use ganglion_site::Micros;

/// Weight of the newest pass.
const SHARE: f64 = 1.0 / 32.0;
/// Passes after which the estimate is believed.
const PASSES_MIN: u32 = 4;
/// A pass that took longer than so many times the estimate counts as this much: something else had the processor.
const OUTLIER: f64 = 4.0;
/// What is declined for want of time is judged by this share of the estimate, so that doubt lets it try.
const BENEFIT_OF_DOUBT: f64 = 0.75;
/// How much an estimate shrinks each time something is declined by it: one that went wrong heals.
const FORGIVENESS: f64 = 0.9;
/// Cost of a token as a share of the cost of a pass, as long as nothing is known.
const TOKEN_SHARE: f64 = 0.2;

/// Time of a pass = fixed part + tokens × part for each: a regression over the passes so far, old ones fading.
#[derive(Debug, Clone, Default)]
pub(crate) struct PassCost {
    passes: u32,
    tokens: f64,
    us: f64,
    variance: f64,
    covariance: f64,
}

impl PassCost {
    /// Takes note of a pass.
    pub(crate) fn observe(&mut self, tokens: usize, us: Micros) {
        let (tokens, mut us) = (tokens as f64, us as f64);
        if self.passes >= PASSES_MIN {
            us = us.min(OUTLIER * self.us_of(tokens).max(1.0));
        }
        self.passes = self.passes.saturating_add(1);
        let share = SHARE.max(1.0 / f64::from(self.passes));
        let (off_tokens, off_us) = (tokens - self.tokens, us - self.us);
        self.tokens += share * off_tokens;
        self.us += share * off_us;
        self.variance = (1.0 - share) * (self.variance + share * off_tokens * off_tokens);
        self.covariance = (1.0 - share) * (self.covariance + share * off_tokens * off_us);
    }

    /// Cost of a pass apart from its tokens, and of each token, in units of their own.
    pub(crate) fn parts(&self) -> (f64, f64) {
        let token = self.token_us();
        let fixed = self.us - token * self.tokens;
        if self.passes < PASSES_MIN || self.us <= 0.0 { (1.0, TOKEN_SHARE) } else { (fixed, token) }
    }

    fn token_us(&self) -> f64 {
        // Both parts are positive: a token costs something, and so does an empty pass.
        let slope = if self.variance > 0.25 { self.covariance / self.variance } else { 0.0 };
        slope.clamp(0.0, self.us / self.tokens.max(1.0))
    }

    fn us_of(&self, tokens: f64) -> f64 {
        self.us + self.token_us() * (tokens - self.tokens)
    }

    /// Time that a pass will take; 0 as long as nothing is known.
    pub(crate) fn expected_us(&self, tokens: usize) -> Micros {
        if self.passes < PASSES_MIN { 0 } else { self.us_of(tokens as f64).max(0.0) as Micros }
    }

    /// Whether a pass begun now would end behind the deadline: the time it takes and the time there is.
    pub(crate) fn too_late(
        &mut self,
        tokens: usize,
        now: Micros,
        deadline_us: Micros,
    ) -> Option<(Micros, Micros)> {
        let needed_us = self.expected_us(tokens);
        let left_us = deadline_us.saturating_sub(now);
        if needed_us as f64 * BENEFIT_OF_DOUBT <= left_us as f64 {
            return None;
        }
        self.us *= FORGIVENESS;
        self.covariance *= FORGIVENESS;
        Some((needed_us, left_us))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taught(passes: usize) -> PassCost {
        let mut cost = PassCost::default();
        for pass in 0..passes {
            let tokens = [1, 30, 4, 12][pass % 4];
            cost.observe(tokens, 400 + 50 * tokens as Micros);
        }
        cost
    }

    #[test]
    fn learns_what_a_pass_and_a_token_cost() {
        let cost = taught(40);
        let (fixed, token) = cost.parts();
        assert!((fixed - 400.0).abs() < 1.0 && (token - 50.0).abs() < 0.1, "{fixed} {token}");
        assert_eq!(cost.expected_us(20), 1400);
    }

    #[test]
    fn knows_nothing_at_first_and_declines_nothing() {
        let mut cost = taught(3);
        assert_eq!((cost.expected_us(1000), cost.too_late(1000, 5, 5)), (0, None));
    }

    #[test]
    fn one_stolen_second_changes_little() {
        let mut cost = taught(40);
        cost.observe(4, 1_000_000);
        assert!(cost.expected_us(20) < 1800, "{}", cost.expected_us(20));
    }

    #[test]
    fn what_it_declined_by_mistake_is_tried_again_soon() {
        let mut cost = taught(40);
        (0..20).for_each(|_| cost.observe(4, 50_000));
        let mut declined = 0;
        while cost.too_late(4, 1_000_000, 1_002_000).is_some() {
            declined += 1;
        }
        assert!((1..40).contains(&declined), "{declined}");
    }
}
