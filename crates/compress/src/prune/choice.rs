//! What says how much a column is worth.

use std::ops::Range;

use super::eliminate::{compensate, eliminate};
use crate::linalg::Square;

/// How the layers, heads and channels that go are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Importance {
    /// Heads and channels by the error that is left when the others are solved anew for them (ZipLM, Kurtić et al. 2023); layers
    /// by block influence (ShortGPT, Men et al. 2024).
    Reconstruction,
    /// Heads and channels by what they add to the output, `mean x_j² · ‖w_j‖²`; layers by block influence.
    Activation,
    /// All by what their absence does to the loss, as the gradient foretells it (LLM-Pruner, Ma et al. 2023).
    Taylor,
}

impl Importance {
    /// Every way.
    pub const ALL: [Self; 3] = [Self::Reconstruction, Self::Activation, Self::Taylor];

    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reconstruction => "reconstruction",
            Self::Activation => "activation",
            Self::Taylor => "taylor",
        }
    }

    /// The way of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|way| way.name() == name)
    }
}

/// The columns of a matrix to choose among.
pub(super) struct Choice {
    importance: Importance,
    /// Of the matrix's inputs: (columns, columns).
    moments: Square,
    /// (rows, columns)
    weights: Vec<f32>,
    /// Of each column, where the gradient is asked.
    taylor: Option<Vec<f64>>,
}

impl Choice {
    pub(super) fn new(
        importance: Importance,
        moments: Square,
        weights: Vec<f32>,
        taylor: Option<&[f64]>,
    ) -> Self {
        Self { importance, moments, weights, taylor: taylor.map(<[f64]>::to_vec) }
    }

    /// Among these columns only.
    pub(super) fn of(&self, columns: &[usize]) -> Self {
        let rows = self.weights.chunks_exact(self.moments.size);
        let weights = rows.flat_map(|row| columns.iter().map(|j| row[*j])).collect();
        let taylor: Option<Vec<f64>> =
            self.taylor.as_ref().map(|all| columns.iter().map(|j| all[*j]).collect());
        Self::new(self.importance, self.moments.select(columns), weights, taylor.as_deref())
    }

    /// The groups of columns that stay when `count` go, in ascending order; `may_go(gone, group)` says whether one can go after others.
    /// `None` if the moments cannot be factored, or nobody has given what is asked for.
    pub(super) fn staying(
        &self,
        groups: &[Range<usize>],
        count: usize,
        may_go: &dyn Fn(&[bool], usize) -> bool,
    ) -> Option<Vec<usize>> {
        if count == 0 {
            return Some((0..groups.len()).collect());
        }
        match self.importance {
            Importance::Reconstruction => eliminate(&self.moments, &self.weights, groups, count, may_go),
            Importance::Activation => Some(lowest(&self.added(), groups, count, may_go)),
            Importance::Taylor => Some(lowest(self.taylor.as_ref()?, groups, count, may_go)),
        }
    }

    /// The weights of the columns `kept`, solved anew for the output of all: (rows, kept).
    pub(super) fn compensated(&self, kept: &[usize]) -> Option<Vec<f32>> {
        compensate(&self.moments, &self.weights, kept)
    }

    /// What each column adds to the output.
    fn added(&self) -> Vec<f64> {
        let size = self.moments.size;
        let mut norms = vec![0.0f64; size];
        for row in self.weights.chunks_exact(size) {
            norms.iter_mut().zip(row).for_each(|(norm, w)| *norm += f64::from(*w).powi(2));
        }
        norms.iter().enumerate().map(|(j, norm)| norm * self.moments.at(j, j)).collect()
    }
}

/// The groups that stay when those of the least scores go.
fn lowest(
    scores: &[f64],
    groups: &[Range<usize>],
    count: usize,
    may_go: &dyn Fn(&[bool], usize) -> bool,
) -> Vec<usize> {
    let score = |group: usize| scores[groups[group].clone()].iter().sum::<f64>();
    let mut order: Vec<usize> = (0..groups.len()).collect();
    order.sort_by(|a, b| score(*a).total_cmp(&score(*b)).then(a.cmp(b)));
    let mut gone = vec![false; groups.len()];
    let mut left = count;
    for group in order {
        if left > 0 && may_go(&gone, group) {
            gone[group] = true;
            left -= 1;
        }
    }
    (0..groups.len()).filter(|group| !gone[*group]).collect()
}
