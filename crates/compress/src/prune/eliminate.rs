//! Which groups of a matrix's columns to take out, and what the columns that stay must become.
//!
//! Optimal brain surgery with groups (ZipLM, Kurtić et al. 2023): with H the second moments of the inputs, taking out the columns G of
//! `W` and solving the others anew adds `tr(W_G·(H⁻¹_GG)⁻¹·W_Gᵀ)` to the error of the output. The groups of least error go, `H⁻¹` and
//! W follow, and so on. What an activation norm cannot see, it does: of two channels that say the same, one can go for nothing.

use std::ops::Range;

use crate::linalg::{Square, cholesky, damped, dot, inverse_factor, solve, times_transposed, transposed};

/// Added to the diagonal of H, as a share of its mean.
pub(super) const DAMPING: f64 = 0.01;
/// Groups go in about so many steps; those of one step are chosen together.
const STEPS: usize = 64;

/// The groups that stay, in ascending order. `weights` is (rows, columns), `moments` (columns, columns); each group is as wide as
/// the others. `may_go(gone, group)` says whether a group can go after those that are gone.
///
/// `None` if the moments cannot be factored.
pub(super) fn eliminate(
    moments: &Square,
    weights: &[f32],
    groups: &[Range<usize>],
    count: usize,
    may_go: &dyn Fn(&[bool], usize) -> bool,
) -> Option<Vec<usize>> {
    let (upper, _) = damped(moments, DAMPING, inverse_factor)?;
    let columns = moments.size;
    let mut state = State {
        // UᵀU
        inverse: times_transposed(&upper.transposed().values, &upper.transposed().values, columns, 1),
        weights: transposed(weights, columns).into_iter().map(f64::from).collect(),
        columns,
        rows: weights.len() / columns,
    };
    let mut gone = vec![false; groups.len()];
    let step = if groups.iter().all(|group| group.len() == 1) { (count / STEPS).max(1) } else { 1 };
    let mut left = count;
    while left > 0 {
        let mut errors = Vec::new();
        for (index, group) in groups.iter().enumerate() {
            if !gone[index] && may_go(&gone, index) {
                errors.push((state.error(group)?, index));
            }
        }
        errors.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let chosen: Vec<usize> = errors.iter().map(|(_, index)| *index).take(step.min(left)).collect();
        assert!(!chosen.is_empty(), "no more groups may go than there are");
        let columns: Vec<usize> = chosen.iter().flat_map(|index| groups[*index].clone()).collect();
        state.take_out(&columns)?;
        chosen.iter().for_each(|index| gone[*index] = true);
        left -= chosen.len();
    }
    Some((0..groups.len()).filter(|index| !gone[*index]).collect())
}

struct State {
    /// H⁻¹ of what stays: (columns, columns).
    inverse: Vec<f64>,
    /// Wᵀ: (columns, rows).
    weights: Vec<f64>,
    columns: usize,
    rows: usize,
}

impl State {
    fn column(&self, j: usize) -> &[f64] {
        &self.weights[j * self.rows..(j + 1) * self.rows]
    }

    fn block(&self, columns: &[usize]) -> Square {
        let at = |i: &usize, j: &usize| self.inverse[i * self.columns + j];
        let values = columns.iter().flat_map(|i| columns.iter().map(move |j| at(i, j))).collect();
        Square { size: columns.len(), values }
    }

    /// `tr(W_G·(H⁻¹_GG)⁻¹·W_Gᵀ)`.
    fn error(&self, group: &Range<usize>) -> Option<f64> {
        let columns: Vec<usize> = group.clone().collect();
        if let [j] = columns[..] {
            return Some(dot(self.column(j), self.column(j)) / self.inverse[j * self.columns + j]);
        }
        let lower = cholesky(&self.block(&columns))?;
        let mut total = 0.0;
        for row in 0..self.rows {
            let own: Vec<f64> = columns.iter().map(|j| self.column(*j)[row]).collect();
            let mut solved = own.clone();
            solve(&lower, &mut solved);
            total += dot(&own, &solved);
        }
        Some(total)
    }

    /// `W −= W_G·(H⁻¹_GG)⁻¹·H⁻¹_G`, and `H⁻¹` likewise.
    fn take_out(&mut self, gone: &[usize]) -> Option<()> {
        let lower = cholesky(&self.block(gone))?;
        let (size, width) = (self.columns, gone.len());
        let beside: Vec<f64> = (0..size)
            .flat_map(|i| gone.iter().map(move |j| (i, *j)))
            .map(|(i, j)| self.inverse[i * size + j])
            .collect();
        let mut shares = beside.clone();
        shares.chunks_exact_mut(width).for_each(|row| solve(&lower, row));
        let own: Vec<f64> = gone.iter().flat_map(|j| self.column(*j).to_vec()).collect();
        for (i, share) in shares.chunks_exact(width).enumerate() {
            let column = &mut self.weights[i * self.rows..(i + 1) * self.rows];
            for (share, own) in share.iter().zip(own.chunks_exact(self.rows)) {
                column.iter_mut().zip(own).for_each(|(w, own)| *w -= share * own);
            }
            let row = &mut self.inverse[i * size..(i + 1) * size];
            row.iter_mut().zip(beside.chunks_exact(width)).for_each(|(v, beside)| *v -= dot(share, beside));
        }
        for j in gone {
            self.weights[j * self.rows..(j + 1) * self.rows].fill(0.0);
            // Never divided by again; far from zero, so that rounding cannot make a block of it indefinite.
            self.inverse[j * size + j] = 1.0;
        }
        Some(())
    }
}

/// The weights of the chosen columns that come nearest to the output of all: (rows, chosen). Damping pulls towards the weights as they
/// are, not towards zero.
pub(super) fn compensate(moments: &Square, weights: &[f32], chosen: &[usize]) -> Option<Vec<f32>> {
    let columns = moments.size;
    let (lower, damping) = damped(&moments.select(chosen), DAMPING, cholesky)?;
    let mut solved = Vec::with_capacity(weights.len() / columns * chosen.len());
    for row in weights.chunks_exact(columns) {
        let target = |a: &usize| -> f64 {
            let sum: f64 = moments.row(*a).iter().zip(row).map(|(m, w)| m * f64::from(*w)).sum();
            sum + damping * f64::from(row[*a])
        };
        let mut x: Vec<f64> = chosen.iter().map(target).collect();
        solve(&lower, &mut x);
        solved.extend(x.iter().map(|v| *v as f32));
    }
    Some(solved)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::Statistics;

    fn noise(i: usize) -> f32 {
        ((i.wrapping_mul(2_654_435_761) >> 5) % 1009) as f32 / 1009.0 - 0.5
    }

    /// Every second column nearly repeats the one before it.
    fn twins(columns: usize) -> Statistics {
        let x: Vec<f32> = (0..200 * columns)
            .map(|i| {
                noise(i / columns * 64 + i % columns / 2) + if i % 2 == 1 { 0.05 * noise(i * 3) } else { 0.0 }
            })
            .collect();
        let mut statistics = Statistics::new(columns, true);
        statistics.add(&x, 1);
        statistics
    }

    fn error(statistics: &Statistics, weights: &[f32], chosen: &[usize], solved: &[f32]) -> f64 {
        let rows = weights.chunks(statistics.columns()).zip(solved.chunks(chosen.len()));
        rows.map(|(row, solved)| {
            let mut difference = row.to_vec();
            chosen.iter().zip(solved).for_each(|(j, v)| difference[*j] -= v);
            statistics.output_error(&difference)
        })
        .sum()
    }

    #[test]
    fn what_is_left_stands_in_for_what_went_and_of_twins_one_goes() {
        let (columns, rows) = (24, 5);
        let statistics = twins(columns);
        let moments = statistics.second_moments.as_ref().unwrap();
        let weights: Vec<f32> = (0..rows * columns).map(|i| noise(i * 11 + 5)).collect();
        let groups: Vec<_> = (0..columns).map(|j| j..j + 1).collect();
        let chosen = eliminate(moments, &weights, &groups, 12, &|_, _| true).unwrap();
        assert!(
            (0..12).all(|pair| chosen.contains(&(2 * pair)) != chosen.contains(&(2 * pair + 1))),
            "{chosen:?}"
        );
        let cut: Vec<f32> = weights
            .chunks(columns)
            .flat_map(|row| chosen.iter().map(|j| row[*j]).collect::<Vec<_>>())
            .collect();
        let solved = compensate(moments, &weights, &chosen).unwrap();
        let (found, before) =
            (error(&statistics, &weights, &chosen, &solved), error(&statistics, &weights, &chosen, &cut));
        assert!(found < 0.1 * before, "solved {found}, only cut {before}");
        // The largest activations alone: what was chosen must not be worse than that.
        let mut largest: Vec<usize> = (0..columns).collect();
        largest.sort_by(|a, b| statistics.sum_squares[*b].total_cmp(&statistics.sum_squares[*a]));
        largest.truncate(12);
        largest.sort_unstable();
        let other = compensate(moments, &weights, &largest).unwrap();
        assert!(found <= error(&statistics, &weights, &largest, &other));
    }

    #[test]
    fn the_error_that_is_foretold_is_the_error_of_the_columns_solved_anew() {
        let (columns, rows) = (16, 3);
        let statistics = twins(columns);
        let mut moments = statistics.second_moments.clone().unwrap();
        let weights: Vec<f32> = (0..rows * columns).map(|i| noise(i * 7 + 1)).collect();
        let damping = DAMPING * moments.mean_diagonal();
        moments.add_diagonal(damping);
        let upper = inverse_factor(&moments).unwrap().transposed();
        let state = State {
            inverse: times_transposed(&upper.values, &upper.values, columns, 1),
            weights: transposed(&weights, columns).into_iter().map(f64::from).collect(),
            columns,
            rows,
        };
        for group in [3..4, 4..8] {
            let chosen: Vec<usize> = (0..columns).filter(|j| !group.contains(j)).collect();
            let lower = cholesky(&moments.select(&chosen)).unwrap();
            let mut expected = 0.0;
            for row in weights.chunks(columns) {
                let mut solved: Vec<f64> = chosen
                    .iter()
                    .map(|a| moments.row(*a).iter().zip(row).map(|(m, w)| m * f64::from(*w)).sum())
                    .collect();
                solve(&lower, &mut solved);
                let mut difference: Vec<f64> = row.iter().map(|w| f64::from(*w)).collect();
                chosen.iter().zip(&solved).for_each(|(j, v)| difference[*j] -= v);
                let output = times_transposed(&moments.values, &difference, columns, 1);
                expected += dot(&output, &difference);
            }
            let found = state.error(&group).unwrap();
            assert!((found / expected - 1.0).abs() < 1e-9, "{group:?}: {found}, not {expected}");
        }
    }

    #[test]
    fn groups_go_whole_and_only_where_they_may() {
        let (columns, rows) = (24, 4);
        let statistics = twins(columns);
        let weights: Vec<f32> = (0..rows * columns).map(|i| noise(i + 77)).collect();
        let groups: Vec<_> = (0..6).map(|g| 4 * g..4 * g + 4).collect();
        // One of each half, no more.
        let may_go = |gone: &[bool], group: usize| !gone[group / 3 * 3..][..3].contains(&true);
        let moments = statistics.second_moments.as_ref().unwrap();
        let stays = eliminate(moments, &weights, &groups, 2, &may_go).unwrap();
        assert_eq!(stays.len(), 4);
        assert_eq!(stays.iter().filter(|group| **group < 3).count(), 2, "{stays:?}");
    }
}
