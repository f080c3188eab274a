//! A sparse mixture of experts (Shazeer et al. 2017; Fedus et al. 2021 for softmax before the choice).
//!
//! # Order
//! A token's experts are those with the greatest shares, the lowest number first among equals. Whatever the batch, each
//! token sums `share · expert(x)` in ascending expert number, and adds the shared expert last. Experts that no token of
//! the batch chose are not touched: their weights need not be in memory.

use ganglion_kernels::{Input, Matrix, add_scaled, matmul, sigmoid, softmax};

use super::feed_forward::{Inner, dense, readers};
use super::linear::Between;
use super::{Buffers, Pass};
use crate::profile::Work;
use crate::tensors::{Experts, SharedExpert};

/// `projected = mixture(normed)`.
pub(super) fn mixture(pass: Pass<'_>, weights: &Experts<Matrix, Vec<f32>>, buffers: &mut Buffers) {
    choose(pass, weights, buffers);
    buffers.projected[..pass.tokens * pass.model.config().embedding_length].fill(0.0);
    for (expert, dense) in weights.routed.iter().enumerate() {
        routed(pass, expert as u32, dense, buffers);
    }
    if let Some(expert) = &weights.shared {
        shared(pass, expert, buffers);
    }
}

/// Fills `choices`: the experts of each token and their shares.
fn choose(pass: Pass<'_>, weights: &Experts<Matrix, Vec<f32>>, buffers: &mut Buffers) {
    let (model, tokens) = (pass.model, pass.tokens);
    let config = model.config();
    let (length, experts) = (config.embedding_length, config.experts);
    let normed = &buffers.normed[..tokens * length];
    let router = &mut buffers.router[..tokens * experts.count];
    buffers.quantised.prepare(model.isa, &model.pool, normed, (tokens, length), &[&weights.router]);
    let input = Input::new(normed, &buffers.quantised);
    matmul(model.isa, &model.pool, &input, &mut [(&weights.router, &mut *router)]);
    for (shares, chosen) in
        router.chunks_exact_mut(experts.count).zip(buffers.choices.chunks_exact_mut(experts.used))
    {
        softmax(shares);
        choose_for_token(shares, chosen);
        if experts.normalise_shares {
            let total: f32 = chosen.iter().map(|(_, share)| share).sum();
            chosen.iter_mut().for_each(|(_, share)| *share /= total);
        }
    }
    buffers.profiler.lap("router", || Work::products(&[&weights.router], tokens));
}

/// The greatest shares, first the greatest. Shares that are not numbers choose the first experts, so that the fault
/// reaches the logits.
fn choose_for_token(shares: &mut [f32], chosen: &mut [(u32, f32)]) {
    let damaged = shares.iter().any(|share| share.is_nan());
    for (rank, choice) in chosen.iter_mut().enumerate() {
        let mut best = if damaged { rank } else { 0 };
        for (expert, share) in shares.iter().enumerate() {
            if *share > shares[best] {
                best = expert;
            }
        }
        *choice = (best as u32, shares[best]);
        if !damaged {
            shares[best] = f32::NEG_INFINITY;
        }
    }
}

/// One expert for all tokens that chose it.
fn routed(
    pass: Pass<'_>,
    expert: u32,
    weights: &crate::tensors::Dense<Matrix, Vec<f32>>,
    buffers: &mut Buffers,
) {
    let (model, used) = (pass.model, pass.model.config().experts.used);
    let length = model.config().embedding_length;
    buffers.members.clear();
    for (token, chosen) in buffers.choices.chunks_exact(used).take(pass.tokens).enumerate() {
        let share = chosen.iter().find(|(chosen, _)| *chosen == expert).map(|(_, share)| *share);
        buffers.members.extend(share.map(|share| (token as u32, share)));
    }
    let count = buffers.members.len();
    if count == 0 {
        return;
    }
    let Buffers { normed, projected, gate, up, quantised, members, gathered, expert: out, profiler, .. } =
        buffers;
    let (values, between) = (&mut buffers.between, &mut buffers.between_quantised);
    let between = Between { values, quantised: between, tap: None };
    let (gathered, out) = (&mut gathered[..count * length], &mut out[..count * length]);
    for (row, (token, _)) in gathered.chunks_exact_mut(length).zip(members.iter()) {
        row.copy_from_slice(&normed[*token as usize * length..][..length]);
    }
    quantised.prepare(model.isa, &model.pool, gathered, (count, length), &readers(weights));
    profiler.lap("expert gather", || Work::NONE);
    dense(model, weights, gathered, Inner { gate, up, quantised, between, profiler: &mut *profiler }, out);
    for (row, (token, share)) in out.chunks_exact(length).zip(members.iter()) {
        add_scaled(model.isa, &mut projected[*token as usize * length..][..length], row, *share);
    }
    profiler.lap("expert sum", || Work::NONE);
}

/// The expert of all tokens, weighed by the sigmoid of its gate.
fn shared(pass: Pass<'_>, weights: &SharedExpert<Matrix, Vec<f32>>, buffers: &mut Buffers) {
    let (model, tokens) = (pass.model, pass.tokens);
    let length = model.config().embedding_length;
    let Buffers { normed, projected, gate, up, quantised, router, expert: out, profiler, .. } = buffers;
    let (values, between) = (&mut buffers.between, &mut buffers.between_quantised);
    let between = Between { values, quantised: between, tap: None };
    let (normed, out) = (&normed[..tokens * length], &mut out[..tokens * length]);
    let weight = &mut router[..tokens];
    let [first, second] = readers(&weights.dense);
    let all = [&weights.gate, first, second];
    quantised.prepare(model.isa, &model.pool, normed, (tokens, length), &all);
    matmul(model.isa, &model.pool, &Input::new(normed, quantised), &mut [(&weights.gate, &mut *weight)]);
    profiler.lap("shared gate", || Work::products(&[&weights.gate], tokens));
    dense(
        model,
        &weights.dense,
        normed,
        Inner { gate, up, quantised, between, profiler: &mut *profiler },
        out,
    );
    for ((row, expert), weight) in
        projected.chunks_exact_mut(length).zip(out.chunks_exact(length)).zip(weight.iter())
    {
        add_scaled(model.isa, row, expert, sigmoid(*weight));
    }
    profiler.lap("expert sum", || Work::NONE);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greatest_shares_are_chosen_and_the_lowest_number_among_equals() {
        let mut chosen = [(9, 0.0); 3];
        choose_for_token(&mut [0.1, 0.3, 0.2, 0.3], &mut chosen);
        assert_eq!(chosen, [(1, 0.3), (3, 0.3), (2, 0.2)]);
        choose_for_token(&mut [f32::NAN; 4], &mut chosen);
        assert_eq!(chosen.map(|(expert, _)| expert), [0, 1, 2]);
        assert!(chosen.iter().all(|(_, share)| share.is_nan()));
    }
}
