//! A budget of parameters, shared out among matrices by what each rank is worth.
//!
//! A matrix can stay whole or be cut to a rank, and each choice has its parameters and its loss. Only choices on the lower convex hull of
//! the two are worth making; going down the hulls, always where least is lost for a parameter, reaches the budget with the least
//! sum of losses, but for the last step, which is as short as the budget allows. Losses are shares of each output's squares, so that matrices of any size compare.

/// A matrix that may be cut.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) columns: usize,
    pub(super) rows: usize,
    /// Squares of its singular values, the greatest first.
    pub(super) squares: Vec<f64>,
}

impl Candidate {
    /// Parameters of the factors, or of the whole matrix.
    pub(super) fn parameters(&self, rank: Option<usize>) -> usize {
        rank.map_or(self.columns * self.rows, |rank| rank * (self.columns + self.rows))
    }

    /// Share of the output's squares that is lost.
    pub(super) fn loss(&self, rank: Option<usize>) -> f64 {
        let all: f64 = self.squares.iter().sum();
        let lost: f64 = rank.map_or(0.0, |rank| self.squares.iter().skip(rank).sum());
        if all > 0.0 { lost / all } else { 0.0 }
    }

    /// The choices on the convex hull, from the whole matrix down.
    fn hull(&self, multiple: usize) -> Vec<Option<usize>> {
        let whole = self.parameters(None);
        let ranks = (1..).map(|i| Some(i * multiple)).take_while(|rank| self.parameters(*rank) < whole);
        let mut ranks: Vec<_> = ranks.collect();
        ranks.reverse();
        let mut hull: Vec<Option<usize>> = vec![None];
        for rank in ranks {
            while let [.., before, last] = hull[..]
                && self.slope(before, last) >= self.slope(last, rank)
            {
                hull.pop();
            }
            hull.push(rank);
        }
        hull
    }

    /// Loss for each parameter saved from one choice to the next.
    fn slope(&self, from: Option<usize>, to: Option<usize>) -> f64 {
        let saved = self.parameters(from) - self.parameters(to);
        (self.loss(to) - self.loss(from)) / saved as f64
    }
}

/// The rank of each matrix, or `None` for those that stay whole: at most `ratio` of all parameters stay, as far as ranks of one `multiple` at
/// least allow it.
pub(super) fn share_out(candidates: &[Candidate], ratio: f64, multiple: usize) -> Vec<Option<usize>> {
    let mut steps = Vec::new();
    for (index, candidate) in candidates.iter().enumerate() {
        for pair in candidate.hull(multiple).windows(2) {
            steps.push((candidate.slope(pair[0], pair[1]), index, pair[1]));
        }
    }
    // Slopes of a hull only grow: its steps keep their order.
    steps.sort_by(|a, b| a.0.total_cmp(&b.0));
    let all: usize = candidates.iter().map(|candidate| candidate.parameters(None)).sum();
    let budget = (ratio * all as f64).floor() as usize;
    let (mut ranks, mut left) = (vec![None; candidates.len()], all);
    for (_, index, rank) in steps {
        if left <= budget {
            break;
        }
        let candidate = &candidates[index];
        let others = left - candidate.parameters(ranks[index]);
        // The last step goes no further than it must.
        let enough =
            budget.saturating_sub(others) / (candidate.columns + candidate.rows) / multiple * multiple;
        let rank = rank.map(|rank| rank.max(enough));
        left = others + candidate.parameters(rank);
        ranks[index] = rank;
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates() -> Vec<Candidate> {
        let of = |columns, rows, decay: f64| Candidate {
            columns,
            rows,
            squares: (0..rows.min(columns)).map(|i| decay.powi(i as i32)).collect(),
        };
        vec![of(24, 16, 0.5), of(16, 24, 0.9), of(20, 20, 0.99), of(12, 30, 0.7)]
    }

    /// All choices of all matrices.
    fn best(candidates: &[Candidate], budget: usize, multiple: usize) -> f64 {
        let Some((first, rest)) = candidates.split_first() else { return 0.0 };
        let ranks =
            (1..).map(|i| Some(i * multiple)).take_while(|r| first.parameters(*r) < first.parameters(None));
        let least = |rank: Option<usize>| {
            let left = budget.checked_sub(first.parameters(rank))?;
            Some(first.loss(rank) + best(rest, left, multiple))
        };
        std::iter::once(None).chain(ranks).filter_map(least).fold(f64::INFINITY, f64::min)
    }

    #[test]
    fn the_budget_is_kept_with_nearly_the_least_loss() {
        let candidates = candidates();
        let all: usize = candidates.iter().map(|c| c.parameters(None)).sum();
        for ratio in [0.9, 0.7, 0.5, 0.3] {
            let ranks = share_out(&candidates, ratio, 1);
            let left: usize = candidates.iter().zip(&ranks).map(|(c, rank)| c.parameters(*rank)).sum();
            let budget = (ratio * all as f64) as usize;
            assert!(left <= budget, "{left} of {budget}");
            let loss: f64 = candidates.iter().zip(&ranks).map(|(c, rank)| c.loss(*rank)).sum();
            let least = best(&candidates, budget, 1);
            assert!(
                least <= loss + 1e-9 && loss < 1.1 * least + 0.05,
                "{ratio}: {loss}, the least is {least}"
            );
        }
    }

    #[test]
    fn steep_spectra_are_cut_first_and_ranks_are_multiples() {
        let ranks = share_out(&candidates(), 0.75, 4);
        assert!(ranks[0].is_some() && ranks[2].is_none(), "{ranks:?}");
        assert!(ranks.iter().flatten().all(|rank| rank % 4 == 0));
        // More than can be had: as little as there is.
        let ranks = share_out(&candidates(), 1e-6, 4);
        assert!(ranks.iter().all(|rank| *rank == Some(4)), "{ranks:?}");
        assert!(share_out(&candidates(), 1.0, 4).iter().all(Option::is_none));
    }
}
