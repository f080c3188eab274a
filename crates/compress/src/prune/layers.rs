//! Whole layers (ShortGPT, Men et al. 2024): those go that turn the residual stream least, by `1 − mean cos(before, after)`.

use crate::calibrate::Calibrator;
use crate::error::Result;

/// Influence of each layer.
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

/// The `count` layers of least influence, in ascending order.
pub(super) fn least(influence: &[f64], count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..influence.len()).collect();
    order.sort_by(|a, b| influence[*a].total_cmp(&influence[*b]));
    order.truncate(count);
    order.sort_unstable();
    order
}
