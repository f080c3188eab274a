//! Whole layers: which can be missed.

use super::choice::Importance;
use super::taylor::Taylor;
use crate::calibrate::Calibrator;
use crate::error::Result;

/// Influences that differ by less than this share are alike.
const ALIKE: f64 = 0.1;

/// Block influence of each layer (ShortGPT, Men et al. 2024): `1 − mean cos(before, after)` of the residual stream.
pub(super) fn influence(
    calibrator: &mut Calibrator,
    layers: usize,
    progress: &mut dyn FnMut(usize),
) -> Result<Vec<f64>> {
    let mut all = Vec::with_capacity(layers);
    for layer in 0..layers {
        all.push(calibrator.influence()?);
        progress(layer + 1);
    }
    Ok(all)
}

/// The `count` layers that go, in ascending order: those of least influence on the stream or, by its scores, on the loss.
pub(super) fn choose(
    importance: Importance,
    influence: &[f64],
    taylor: Option<&Taylor>,
    count: usize,
) -> Vec<usize> {
    match taylor.filter(|_| importance == Importance::Taylor) {
        Some(taylor) => least(&taylor.layers, count, 0.0),
        None => least(influence, count, ALIKE),
    }
}

/// The layers of the least scores. Among those that are alike the first goes: the more layers are left behind a gap, the better these, solved anew,
/// make up for it.
fn least(scores: &[f64], count: usize, alike: f64) -> Vec<usize> {
    let mut left: Vec<usize> = (0..scores.len()).collect();
    let mut gone = Vec::with_capacity(count);
    for _ in 0..count.min(scores.len()) {
        let lowest = left.iter().map(|layer| scores[*layer]).fold(f64::INFINITY, f64::min);
        let place = left.iter().position(|layer| scores[*layer] <= lowest * (1.0 + alike));
        gone.push(left.remove(place.unwrap_or(0)));
    }
    gone.sort_unstable();
    gone
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_of_least_scores_go_and_of_those_alike_the_first() {
        let scores = [0.5, 0.4, 0.068, 0.08, 0.064, 0.3];
        assert_eq!(least(&scores, 1, 0.0), [4]);
        assert_eq!(least(&scores, 1, ALIKE), [2]);
        assert_eq!(least(&scores, 2, ALIKE), [2, 4]);
        assert_eq!(least(&scores, 3, ALIKE), [2, 3, 4]);
        // Nothing is alike what is not finite; as many go as are asked for.
        assert_eq!(least(&[f64::NAN, 1.0, f64::NAN], 2, ALIKE).len(), 2);
        assert_eq!(least(&[0.0, 0.0], 1, ALIKE), [0]);
        let taylor = Taylor { queries: Vec::new(), channels: Vec::new(), layers: vec![3.0, 1.0, 2.0] };
        let by = |importance| choose(importance, &[1.0, 2.0, 3.0], Some(&taylor), 1);
        assert_eq!([by(Importance::Taylor), by(Importance::Activation)], [[1], [0]]);
    }
}
