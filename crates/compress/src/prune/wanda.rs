//! Zeros by a score of each weight: Wanda's, or the magnitude.

use super::sparse::Pattern;

/// Clears the weights of least score among every `together` of them, or in groups of these. `score` is told a weight and its column;
/// `together` is whole rows, or one.
pub(super) fn clear(
    values: &mut [f32],
    together: usize,
    pattern: Pattern,
    score: &dyn Fn(f32, usize) -> f64,
) {
    let group = pattern.group(together);
    for values in values.chunks_mut(together) {
        for (index, values) in values.chunks_mut(group).enumerate() {
            let first = index * group;
            let scores: Vec<f64> = values.iter().enumerate().map(|(i, w)| score(*w, first + i)).collect();
            for place in least(&scores, pattern.zeros(values.len())) {
                values[place] = 0.0;
            }
        }
    }
}

/// The places of the `count` least scores, the first among equals.
pub(super) fn least(scores: &[f64], count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    if count < order.len() && count > 0 {
        order.select_nth_unstable_by(count - 1, |a, b| scores[*a].total_cmp(&scores[*b]).then(a.cmp(b)));
    }
    order.truncate(count);
    order
}
