//! Choosing a token by chance, for free text such as reports and logs. Never on the way to a command.
//!
//! # The chain
//! In llama.cpp's default order: repetition penalty → top-k → top-p → min-p → temperature → draw. Top-p and min-p look at
//! the probabilities before the temperature. With temperature 0 the best token is taken, the lowest id among equals, and
//! nothing is drawn.
//!
//! # The same text everywhere
//! The exponential is this project's own, sums are f64 in a fixed order, and the generator is xoshiro256++ (Blackman and
//! Vigna 2021): a seed gives one text, on every machine.

use std::cmp::Ordering;
use std::collections::VecDeque;

use ganglion_kernels::exp;

use crate::TokenId;
use crate::error::{LlmError, Result};
use crate::limits;

/// How tokens are chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SamplingOptions {
    /// Divides logits before the draw; 0: no draw, the best token.
    pub temperature: f32,
    /// Only the best so many; 0: all.
    pub top_k: usize,
    /// Only the fewest best tokens whose probabilities reach this sum; 1: all. At least one.
    pub top_p: f32,
    /// Only tokens at least this probable compared with the best; 0: all.
    pub min_p: f32,
    /// Logits of tokens among the last ones are divided by it if positive, else multiplied (Keskar et al. 2019); 1: off.
    pub repeat_penalty: f32,
    /// How many tokens, of prompt and answer, the penalty looks back on.
    pub repeat_last: usize,
    /// Where the generator starts.
    pub seed: u64,
}

impl SamplingOptions {
    /// The best token, always.
    pub const GREEDY: Self = Self {
        temperature: 0.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        repeat_penalty: 1.0,
        repeat_last: 64,
        seed: 0,
    };

    fn check(&self) -> Result<()> {
        let refuse = |option, found: f32, expected| {
            Err(LlmError::Sampling { option, found: found.to_string(), expected })
        };
        // Comparisons with NaN are false: it is refused everywhere.
        if !(0.0..=100.0).contains(&self.temperature) {
            return refuse("temperature", self.temperature, "0 to 100");
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return refuse("top_p", self.top_p, "more than 0, up to 1");
        }
        if !(0.0..=1.0).contains(&self.min_p) {
            return refuse("min_p", self.min_p, "0 to 1");
        }
        if !(self.repeat_penalty > 0.0 && self.repeat_penalty <= 100.0) {
            return refuse("repeat_penalty", self.repeat_penalty, "more than 0, up to 100");
        }
        if self.repeat_last > limits::REPEAT_LAST_MAX {
            let (option, found) = ("repeat_last", self.repeat_last.to_string());
            return Err(LlmError::Sampling { option, found, expected: "0 to 65536" });
        }
        Ok(())
    }
}

/// xoshiro256++, its state filled by splitmix64 as its authors advise.
#[derive(Debug, Clone)]
struct Generator([u64; 4]);

impl Generator {
    fn new(seed: u64) -> Self {
        let mut state = seed;
        Self(std::array::from_fn(|_| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        }))
    }

    fn next(&mut self) -> u64 {
        let s = &mut self.0;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// In [0, 1), in steps of 2^-53.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[derive(Debug, Clone, Copy)]
struct Candidate {
    logit: f32,
    token: TokenId,
}

/// Best first, lowest id first among equals.
fn by_rank(a: &Candidate, b: &Candidate) -> Ordering {
    b.logit.total_cmp(&a.logit).then(a.token.cmp(&b.token))
}

/// Chooses tokens one after the other; remembers the last ones.
#[derive(Debug, Clone)]
pub struct Sampler {
    options: SamplingOptions,
    generator: Generator,
    last: VecDeque<TokenId>,
    candidates: Vec<Candidate>,
    weights: Vec<f32>,
}

impl Sampler {
    /// # Errors
    /// [`LlmError::Sampling`] for an option outside its range.
    pub fn new(options: SamplingOptions) -> Result<Self> {
        options.check()?;
        Ok(Self {
            options,
            generator: Generator::new(options.seed),
            last: VecDeque::with_capacity(options.repeat_last),
            candidates: Vec::new(),
            weights: Vec::new(),
        })
    }

    /// One that always takes the best token.
    pub fn greedy() -> Self {
        Self {
            options: SamplingOptions::GREEDY,
            generator: Generator::new(0),
            last: VecDeque::new(),
            candidates: Vec::new(),
            weights: Vec::new(),
        }
    }

    /// Takes note of a token of the prompt or of the text: what the penalty looks back on.
    pub fn observe(&mut self, token: TokenId) {
        if self.options.repeat_penalty == 1.0 || self.options.repeat_last == 0 {
            return;
        }
        if self.last.len() == self.options.repeat_last {
            self.last.pop_front();
        }
        self.last.push_back(token);
    }

    /// The next token by these logits, one for each token of the vocabulary; `None` if there are none but NaN. Does not
    /// observe it.
    pub fn choose(&mut self, logits: &[f32]) -> Option<TokenId> {
        self.candidates.clear();
        let numbered = logits.iter().zip(0..).map(|(logit, token)| Candidate { logit: *logit, token });
        self.candidates.extend(numbered.filter(|candidate| !candidate.logit.is_nan()));
        self.penalise();
        if self.options.temperature == 0.0 {
            return self.candidates.iter().min_by(|a, b| by_rank(a, b)).map(|best| best.token);
        }
        self.keep_top_k();
        self.keep_top_p();
        self.keep_min_p();
        self.draw()
    }

    /// Each token once, however often it occurred.
    fn penalise(&mut self) {
        let penalty = self.options.repeat_penalty;
        for (index, token) in self.last.iter().enumerate() {
            if self.last.range(..index).any(|earlier| earlier == token) {
                continue;
            }
            // Ids ascend; those of NaN are left out.
            let found = self.candidates.binary_search_by_key(token, |candidate| candidate.token);
            if let Some(candidate) = found.ok().and_then(|at| self.candidates.get_mut(at)) {
                let logit = candidate.logit;
                candidate.logit = if logit > 0.0 { logit / penalty } else { logit * penalty };
            }
        }
    }

    fn keep_top_k(&mut self) {
        let k = self.options.top_k;
        if k > 0 && k < self.candidates.len() {
            self.candidates.select_nth_unstable_by(k - 1, by_rank);
            self.candidates.truncate(k);
        }
    }

    fn keep_top_p(&mut self) {
        if self.options.top_p < 1.0 || self.options.top_k > 0 {
            self.candidates.sort_unstable_by(by_rank);
        }
        if self.options.top_p < 1.0 {
            let total = self.weigh(1.0);
            let goal = f64::from(self.options.top_p) * total;
            let mut sum = 0.0;
            let reached = self.weights.iter().position(|weight| {
                sum += f64::from(*weight);
                sum >= goal
            });
            self.candidates.truncate(reached.map_or(usize::MAX, |last| last + 1));
        }
    }

    fn keep_min_p(&mut self) {
        if self.options.min_p > 0.0 {
            let (best, min_p) = (self.best(), self.options.min_p);
            self.candidates.retain(|candidate| exp(candidate.logit - best) >= min_p);
        }
    }

    fn best(&self) -> f32 {
        self.candidates.iter().fold(f32::NEG_INFINITY, |best, candidate| best.max(candidate.logit))
    }

    /// Probabilities at a temperature, up to a common factor: the best one's is 1. Returns their sum.
    fn weigh(&mut self, temperature: f32) -> f64 {
        let best = self.best();
        self.weights.clear();
        let weight = |candidate: &Candidate| exp((candidate.logit - best) / temperature);
        self.weights.extend(self.candidates.iter().map(weight));
        self.weights.iter().map(|weight| f64::from(*weight)).sum()
    }

    fn draw(&mut self) -> Option<TokenId> {
        let total = self.weigh(self.options.temperature);
        let goal = self.generator.unit() * total;
        let mut sum = 0.0;
        let mut last = None;
        for (candidate, weight) in self.candidates.iter().zip(&self.weights) {
            if *weight > 0.0 {
                sum += f64::from(*weight);
                last = Some(candidate.token);
                if sum > goal {
                    break;
                }
            }
        }
        last.or_else(|| self.candidates.first().map(|candidate| candidate.token))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generators_are_the_published_ones() {
        // First values of the authors' own programs: splitmix64 from 0, xoshiro256++ from (1, 2, 3, 4).
        assert_eq!(Generator::new(0).0[..2], [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4]);
        let mut generator = Generator([1, 2, 3, 4]);
        let found: [u64; 4] = std::array::from_fn(|_| generator.next());
        assert_eq!(found, [41_943_041, 58_720_359, 3_588_806_011_781_223, 3_591_011_842_654_386]);
    }
}
