//! How sure a model must be so that what it then commands is seldom wrong.
//!
//! Selective classification: of the cases in which the model acts (any command but `none`), those whose score is at least a
//! threshold are *covered*; the share of them that is wrong is the *risk*. The threshold for a wanted risk is chosen by
//! fixed-sequence testing with several starts (Angelopoulos, Bates, Candès, Jordan and Lei, Learn then Test, 2021): from
//! each start, coverage is raised for as long as the exact upper bound of the risk (Clopper and Pearson, Biometrika 26,
//! 1934) is no more than the wanted one. The starts share the chance of being wrong, and each sequence ends at its first
//! failure, so that the bound holds for the chosen threshold in spite of the search.

/// One case: how sure the model was, and whether it was right.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// Any score that is higher the surer the model is.
    pub score: f64,
    /// Whether the command was the expected one.
    pub right: bool,
}

/// What a threshold does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Cases with at least this score are covered.
    pub threshold: f64,
    /// Covered cases.
    pub covered: usize,
    /// Wrong ones among them.
    pub wrong: usize,
    /// Covered share of all cases.
    pub coverage: f64,
    /// Wrong share of the covered cases; 0 of none.
    pub risk: f64,
}

/// A threshold for a wanted risk.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Choice {
    /// What it does on the samples that it was chosen on.
    pub point: Point,
    /// What the risk of new cases does not exceed, at the level asked for.
    pub risk_bound: f64,
}

/// Risk by coverage, for every threshold that makes a difference.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    /// From the highest threshold, which covers least, to the lowest, which covers all.
    points: Vec<Point>,
    count: usize,
}

impl Curve {
    /// The curve of some samples. Scores that are not finite count as the lowest.
    pub fn new(samples: &[Sample]) -> Self {
        let mut sorted: Vec<_> = samples
            .iter()
            .map(
                |sample| {
                    if sample.score.is_finite() { *sample } else { Sample { score: f64::MIN, ..*sample } }
                },
            )
            .collect();
        sorted.sort_by(|a, b| b.score.total_cmp(&a.score));
        let (mut points, mut wrong) = (Vec::new(), 0);
        for (index, sample) in sorted.iter().enumerate() {
            wrong += usize::from(!sample.right);
            // Equal scores are covered together.
            if sorted.get(index + 1).is_some_and(|next| next.score == sample.score) {
                continue;
            }
            let covered = index + 1;
            points.push(Point {
                threshold: sample.score,
                covered,
                wrong,
                coverage: covered as f64 / sorted.len() as f64,
                risk: wrong as f64 / covered as f64,
            });
        }
        Self { points, count: sorted.len() }
    }

    /// Every threshold that makes a difference, highest first.
    pub fn points(&self) -> &[Point] {
        &self.points
    }

    /// What the smallest threshold that covers no more than this share does; all but the surest case may be too much.
    pub fn at_coverage(&self, coverage: f64) -> Option<Point> {
        let wanted = self.points.iter().rev().find(|point| point.coverage <= coverage + 1e-12);
        wanted.or(self.points.first()).copied()
    }

    /// What a threshold does here, whether or not it is one of the curve's own.
    pub fn at_threshold(&self, threshold: f64) -> Point {
        let none = Point { threshold, covered: 0, wrong: 0, coverage: 0.0, risk: 0.0 };
        let last = self.points.iter().rev().find(|point| point.threshold >= threshold);
        last.map_or(none, |point| Point { threshold, ..*point })
    }

    /// Area under the risk–coverage curve (Geifman, Uziel and El-Yaniv, ICLR 2019): the mean risk over all coverages. 0
    /// without samples.
    pub fn area(&self) -> f64 {
        let mut before = 0;
        let mut sum = 0.0;
        for point in &self.points {
            sum += point.risk * (point.covered - before) as f64;
            before = point.covered;
        }
        if self.count == 0 { 0.0 } else { sum / self.count as f64 }
    }

    /// The threshold that covers most with a risk that, but for a chance of `1 - level`, is no more than `risk`. [`None`]
    /// where that cannot be shown for any.
    pub fn choose(&self, risk: f64, level: f64) -> Option<Choice> {
        let level = 1.0 - (1.0 - level) / START_PERCENTS.len() as f64;
        let mut best: Option<Choice> = None;
        for start in START_PERCENTS {
            let points = (start..=100).map_while(|percent| self.at_coverage(f64::from(percent) / 100.0));
            let bounds = points.map(|point| (point, upper_bound(point.wrong, point.covered, level)));
            for (point, risk_bound) in bounds.take_while(|(_, bound)| *bound <= risk) {
                if best.is_none_or(|best| point.covered > best.point.covered) {
                    best = Some(Choice { point, risk_bound });
                }
            }
        }
        best
    }
}

/// Coverages, in percent, at which the search for a threshold begins: the surest cases may be too few to show anything, and
/// the many may be wrong too often.
const START_PERCENTS: [u32; 4] = [10, 20, 40, 100];

/// The largest share of wrong cases with which `wrong` or fewer of `count` still come about with a chance of `1 - level`:
/// the upper end of Clopper and Pearson's one-sided interval.
pub fn upper_bound(wrong: usize, count: usize, level: f64) -> f64 {
    /// Halvings; more than an f64 can tell apart.
    const STEPS: usize = 60;
    if wrong >= count {
        return 1.0;
    }
    let (mut lo, mut hi) = (wrong as f64 / count as f64, 1.0);
    for _ in 0..STEPS {
        let middle = f64::midpoint(lo, hi);
        if at_most(wrong, count, middle) > 1.0 - level { lo = middle } else { hi = middle }
    }
    hi
}

/// The chance that at most `wrong` of `count` are wrong where each is with a chance of `share`, which is at least
/// `wrong / count`: the binomial distribution, summed from its largest term down.
fn at_most(wrong: usize, count: usize, share: f64) -> f64 {
    /// Terms fall faster than by this share of the sum's last digit from here on.
    const NEGLIGIBLE: f64 = 1e-18;
    if share >= 1.0 {
        return 0.0;
    }
    let (odds, n) = ((1.0 - share) / share, count as f64);
    let ways: f64 = (0..wrong).map(|i| ((n - i as f64) / (i as f64 + 1.0)).ln()).sum();
    let mut term = (ways + wrong as f64 * share.ln() + (n - wrong as f64) * (1.0 - share).ln()).exp();
    let mut sum = term;
    for i in (1..=wrong).rev() {
        term *= i as f64 / (n - i as f64 + 1.0) * odds;
        sum += term;
        if term < sum * NEGLIGIBLE {
            break;
        }
    }
    sum.min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_is_clopper_and_pearsons() {
        // From sums of binomial terms by log-gamma, bisected.
        for (wrong, count, level, expected) in [
            (0, 10, 0.95, 0.258_865_55),
            (1, 10, 0.95, 0.394_163_30),
            (5, 100, 0.975, 0.112_834_91),
            (20, 1000, 0.95, 0.028_930_12),
            (500, 1000, 0.99, 0.537_221_93),
            (20_000, 100_000, 0.95, 0.202_092_01),
        ] {
            let found = upper_bound(wrong, count, level);
            assert!(
                (found - expected).abs() < 1e-7,
                "{wrong}/{count} at {level}: {found}, expected {expected}"
            );
        }
        assert_eq!(upper_bound(3, 3, 0.95), 1.0);
        assert_eq!(upper_bound(0, 0, 0.95), 1.0);
        let rule_of_three = upper_bound(0, 3000, 0.95);
        assert!((rule_of_three - 3.0 / 3000.0).abs() < 1e-5, "{rule_of_three}");
    }

    #[test]
    fn a_curve_counts_what_each_threshold_covers() {
        let sample = |score, right| Sample { score, right };
        let curve = Curve::new(&[
            sample(0.9, true),
            sample(0.2, false),
            sample(0.7, true),
            sample(0.7, false),
            sample(f64::NAN, false),
        ]);
        let points: Vec<_> = curve.points().iter().map(|p| (p.threshold, p.covered, p.wrong)).collect();
        assert_eq!(points, [(0.9, 1, 0), (0.7, 3, 1), (0.2, 4, 2), (f64::MIN, 5, 3)]);
        assert_eq!(curve.at_coverage(0.7).unwrap().threshold, 0.7);
        assert_eq!(curve.at_coverage(0.1).unwrap().threshold, 0.9, "the least that can be covered");
        assert_eq!((curve.at_threshold(0.5).covered, curve.at_threshold(0.95).covered), (3, 0));
        let area = (0.0 + 2.0 * (1.0 / 3.0) + 0.5 + 0.6) / 5.0;
        assert!((curve.area() - area).abs() < 1e-12);
        assert_eq!((Curve::new(&[]).area(), Curve::new(&[]).at_coverage(1.0)), (0.0, None));
    }

    fn random(state: &mut u64) -> f64 {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        (*state >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A model that is wrong with a chance of `(1 - score)²`.
    fn draw(count: usize, state: &mut u64) -> Vec<Sample> {
        let mut one = || {
            let score = random(state);
            Sample { score, right: random(state) > (1.0 - score).powi(2) }
        };
        (0..count).map(|_| one()).collect()
    }

    /// The promise itself: over many drawn suites, the true risk beyond the chosen threshold is above the wanted one no more
    /// often than the level allows.
    #[test]
    fn the_chosen_threshold_keeps_its_promise() {
        let (risk, level) = (0.05, 0.9);
        let mut state = 42;
        let (mut chosen, mut broken) = (0, 0);
        for _ in 0..200 {
            let curve = Curve::new(&draw(2000, &mut state));
            let Some(choice) = curve.choose(risk, level) else { continue };
            assert!(choice.point.risk <= choice.risk_bound && choice.risk_bound <= risk);
            chosen += 1;
            // Mean of (1 - s)² over s from the threshold to 1.
            let true_risk = (1.0 - choice.point.threshold).powi(2) / 3.0;
            broken += usize::from(true_risk > risk);
        }
        assert!(chosen > 190, "{chosen} of 200 suites have a threshold");
        assert!(broken <= 20, "{broken} of {chosen} promises were broken");
        let (many, none) = (Curve::new(&draw(50_000, &mut state)), Curve::new(&draw(20, &mut state)));
        // With many cases it is about as low as it may be: (1 - t)² / 3 = 0.05 at t = 0.613.
        let threshold = many.choose(risk, level).unwrap().point.threshold;
        assert!((0.60..0.65).contains(&threshold), "{threshold}");
        assert_eq!(none.choose(risk, level), None, "20 cases prove nothing");
    }

    #[test]
    fn nothing_is_chosen_where_the_surest_are_wrong() {
        let samples: Vec<_> = (0..1000).map(|i| Sample { score: f64::from(i), right: i % 2 == 0 }).collect();
        assert_eq!(Curve::new(&samples).choose(0.02, 0.95), None);
        let all_right: Vec<_> = samples.iter().map(|sample| Sample { right: true, ..*sample }).collect();
        assert_eq!(Curve::new(&all_right).choose(0.02, 0.95).unwrap().point.covered, 1000);
    }
}
