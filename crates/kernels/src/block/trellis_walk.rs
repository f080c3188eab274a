//! Viterbi's algorithm (Forney 1973) over all 2^16 states of a trellis format, with costs of 16 bits.
//!
//! States that share their lower `16 − K` bits are a group: what follows them is the same, so the least cost of each of the `2^(16 − K)`
//! groups is all that one step hands to the next. A state is `upper · groups + group`, and follows on the group `state >> K`. The costs
//! of all steps are kept: the way back finds the predecessors from them.
//!
//! Between two steps costs become relative to the least one, and change to the next step's unit: a squared code (at four bits half of
//! one) times the step's weight, or a share of the greatest weight if that is more. What such rounding costs in error is below a
//! thousandth, a few for weights far apart. All arithmetic is of integers: every instruction set finds the same states.

use super::trellis::{STATE_BITS, STATES, TILE_VALUES, code};
use crate::isa::{Isa, multiversion};

/// Bits behind the point of codes and targets.
const POINT: u32 = 8;
/// How far beyond the codes a target may lie: further on it pulls no more.
const BEYOND: f32 = 120.0;
/// Groups that are worked on at once.
const LANES: usize = 32;
/// By how much units differ at most: what weighs less than that share of the greatest weight is counted in parts of a greater unit.
const UNITS: f32 = 16.0;

/// One symbol to be found.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Wanted {
    /// What the symbol's state should stand for, in units of the codes.
    pub(super) target: f32,
    /// How much its squared error counts.
    pub(super) weight: f32,
}

/// A symbol to be found, in integers.
#[derive(Debug, Clone, Copy)]
struct Goal {
    /// The target with its point, as far as 16 bits hold it.
    target: i16,
    /// The rest of it: 0 but for targets beyond the codes.
    beyond: i16,
    /// The weight in 2^16ths of the unit, less one.
    share: u16,
}

/// How costs after a step become those before the next one.
#[derive(Debug, Clone, Copy, Default)]
struct Change {
    least: u16,
    shift: u32,
    /// In 2^16ths.
    factor: u16,
}

/// The tables and the memory of a walk.
#[derive(Debug)]
pub(super) struct Walk {
    bits: u32,
    isa: Isa,
    /// Code of each state, `POINT` bits behind the point, in the order of a step: (chunk of groups, upper, lane).
    codes: Vec<i16>,
    /// Least costs by group before a step, in its unit.
    from: Vec<u16>,
    /// Least costs by group before each step, in the unit of the one before that, and after the last one: (steps + 1, groups).
    rows: Vec<u16>,
    /// How each row but the last became `from`.
    changes: [Change; TILE_VALUES],
    goals: [Goal; TILE_VALUES],
}

impl Walk {
    pub(super) fn new(isa: Isa, bits: u32) -> Self {
        let groups = STATES >> bits;
        Self {
            bits,
            isa,
            codes: (0..STATES).map(|at| pointed(state_at(bits, at))).collect(),
            from: vec![0; groups],
            rows: vec![0; (TILE_VALUES + 1) * groups],
            changes: [Change::default(); TILE_VALUES],
            goals: [Goal { target: 0, beyond: 0, share: 0 }; TILE_VALUES],
        }
    }

    /// The states of least cost, beginning and ending in `group`, if there is one. At most as many as a tile has.
    pub(super) fn find(&mut self, wanted: &[Wanted], group: Option<usize>, states: &mut [u16]) {
        let groups = STATES >> self.bits;
        let first = &mut self.rows[..groups];
        first.fill(if group.is_some() { u16::MAX } else { 0 });
        if let Some(group) = group {
            first[group] = 0;
        }
        let greatest = wanted.iter().fold(f32::MIN_POSITIVE, |a, b| a.max(b.weight));
        let unit = |step: usize| wanted[step].weight.max(greatest / UNITS);
        let mut least = 0;
        for (step, one) in wanted.iter().enumerate() {
            let (before, after) = self.rows[step * groups..(step + 2) * groups].split_at_mut(groups);
            let change = Change::new(least, unit(step.saturating_sub(1)) / unit(step));
            self.changes[step] = change;
            let some_unreached = group.is_some() && step <= STATE_BITS.div_ceil(self.bits) as usize;
            prepare(self.isa, change, before, &mut self.from, some_unreached);
            let goal = Goal::new(*one, unit(step));
            self.goals[step] = goal;
            take_step(self.isa, self.bits, goal, &self.codes, &self.from, after, &mut least);
        }
        self.go_back(wanted.len(), group, states);
    }

    fn go_back(&self, steps: usize, group: Option<usize>, states: &mut [u16]) {
        let groups = STATES >> self.bits;
        let row = |step: usize| &self.rows[step * groups..(step + 1) * groups];
        let cheapest = || {
            let last = row(steps);
            (0..groups).min_by_key(|group| last[*group]).unwrap_or(0)
        };
        let mut group = group.unwrap_or_else(cheapest);
        for (step, state) in states.iter_mut().enumerate().take(steps).rev() {
            let (before, change, goal) = (row(step), self.changes[step], self.goals[step]);
            let cost = |state: &usize| {
                let code = pointed(*state as u16);
                let squared = match (self.bits, goal.is_plain()) {
                    (4, true) => goal.cost::<4, true>(code),
                    (4, false) => goal.cost::<4, false>(code),
                    (_, true) => goal.cost::<3, true>(code),
                    (_, false) => goal.cost::<3, false>(code),
                };
                squared.saturating_add(change.of(before[state >> self.bits]))
            };
            let candidates = (0..1usize << self.bits).map(|upper| upper * groups + group);
            let found = candidates.min_by_key(cost).unwrap_or(group);
            *state = found as u16;
            group = found >> self.bits;
        }
    }
}

/// The state whose code is at a place of the table.
fn state_at(bits: u32, at: usize) -> u16 {
    let (lane, upper, chunk) = (at % LANES, at / LANES % (1 << bits), at / (LANES << bits));
    (upper * (STATES >> bits) + chunk * LANES + lane) as u16
}

/// The code of a state with its point.
fn pointed(state: u16) -> i16 {
    i16::from(code(state)) << POINT
}

/// The upper half of a product.
#[inline(always)]
fn times(a: i16, b: i16) -> u16 {
    ((i32::from(a) * i32::from(b)) >> 16) as u16
}

impl Goal {
    fn new(wanted: Wanted, unit: f32) -> Self {
        let point = (1u32 << POINT) as f32;
        let all = (wanted.target * point).clamp(-BEYOND * point - 32767.0, BEYOND * point + 32767.0);
        let held = all.clamp(-32767.0, 32767.0);
        let share = (wanted.weight / unit * 65536.0 - 1.0).clamp(0.0, 65535.0);
        Self { target: held as i16, beyond: (all - held) as i16, share: share as u16 }
    }

    /// Whether the target is among the codes, and the weight is the unit.
    fn is_plain(self) -> bool {
        self.beyond == 0 && self.share == u16::MAX
    }

    /// What a code costs.
    fn cost<const K: usize, const PLAIN: bool>(self, code: i16) -> u16 {
        let distance = self.distance::<PLAIN>(code);
        self.weighed::<PLAIN>(times(distance, same::<K>(distance)))
    }

    #[inline(always)]
    fn distance<const PLAIN: bool>(self, code: i16) -> i16 {
        let near = code.saturating_sub(self.target);
        if PLAIN { near } else { near.saturating_sub(self.beyond) }
    }

    #[inline(always)]
    fn weighed<const PLAIN: bool>(self, squared: u16) -> u16 {
        if PLAIN { squared } else { ((u32::from(squared) * u32::from(self.share)) >> 16) as u16 }
    }
}

/// What a distance is multiplied by: itself, or at four bits twice that, so that squares are in halves (and linear from 64 codes on).
#[inline(always)]
fn same<const K: usize>(distance: i16) -> i16 {
    if K == 4 { distance.saturating_add(distance) } else { distance }
}

impl Change {
    /// For costs whose unit is `ratio` times what it becomes.
    fn new(least: u16, ratio: f32) -> Self {
        let shift = (0..).find(|shift| (1u32 << shift) as f32 >= ratio).unwrap_or(0);
        let factor = (ratio / (1u32 << shift) as f32 * 65536.0).min(65535.0);
        Self { least, shift, factor: factor as u16 }
    }

    #[inline(always)]
    fn of(self, cost: u16) -> u16 {
        let most = u16::MAX >> self.shift;
        let relative = cost.wrapping_sub(self.least);
        let shifted = (if relative < most { relative } else { most }) << self.shift;
        ((u32::from(shifted) * u32::from(self.factor)) >> 16) as u16
    }
}

multiversion! {
    /// The costs before a step, of those after the one before; no change makes a group reached that is not.
    fn prepare(isa, change: Change, row: &[u16], from: &mut [u16], some_unreached: bool) {
        if some_unreached {
            let costs = from.iter_mut().zip(row);
            return costs.for_each(|(from, cost)| *from = if *cost == u16::MAX { *cost } else { change.of(*cost) });
        }
        from.iter_mut().zip(row).for_each(|(from, cost)| *from = change.of(*cost));
    }
}

multiversion! {
    /// One step: the least cost of each group of next states, and of all.
    fn take_step(
        isa, bits: u32, goal: Goal, codes: &[i16], from: &[u16], to: &mut [u16], least: &mut u16,
    ) {
        *least = match (bits, goal.is_plain()) {
            (2, false) => step_of::<2, false>(goal, codes, from, to),
            (2, true) => step_of::<2, true>(goal, codes, from, to),
            (3, false) => step_of::<3, false>(goal, codes, from, to),
            (3, true) => step_of::<3, true>(goal, codes, from, to),
            (_, false) => step_of::<4, false>(goal, codes, from, to),
            (_, true) => step_of::<4, true>(goal, codes, from, to),
        };
    }
}

/// Each operation is a loop of its own over the lanes: so compilers see one vector operation in each.
#[inline(always)]
fn step_of<const K: usize, const PLAIN: bool>(
    goal: Goal,
    codes: &[i16],
    from: &[u16],
    to: &mut [u16],
) -> u16 {
    let groups = STATES >> K;
    let (from, codes) = (&from[..groups], &codes[..STATES]);
    let (to, codes) = (to[..groups].as_chunks_mut::<LANES>().0, codes.as_chunks::<LANES>().0);
    let mut least = [u16::MAX; LANES];
    for (chunk, (to, codes)) in to.iter_mut().zip(codes.chunks_exact(1 << K)).enumerate() {
        let mut best = [u16::MAX; LANES];
        for (upper, codes) in codes.iter().enumerate() {
            let first = upper * (groups >> K) + chunk * (LANES >> K);
            let before = &from[first..first + (LANES >> K)];
            let (mut distance, mut cost) = ([0; LANES], [0; LANES]);
            let mut spread = [0; LANES];
            for lane in 0..LANES {
                spread[lane] = before[lane >> K];
            }
            for lane in 0..LANES {
                distance[lane] = goal.distance::<PLAIN>(codes[lane]);
            }
            let mut factor = [0; LANES];
            for lane in 0..LANES {
                factor[lane] = same::<K>(distance[lane]);
            }
            for lane in 0..LANES {
                cost[lane] = times(distance[lane], factor[lane]);
            }
            for cost in &mut cost {
                *cost = goal.weighed::<PLAIN>(*cost);
            }
            for lane in 0..LANES {
                cost[lane] = cost[lane].saturating_add(spread[lane]);
            }
            for lane in 0..LANES {
                best[lane] = if cost[lane] < best[lane] { cost[lane] } else { best[lane] };
            }
        }
        for lane in 0..LANES {
            least[lane] = if best[lane] < least[lane] { best[lane] } else { least[lane] };
        }
        *to = best;
    }
    least.into_iter().fold(u16::MAX, u16::min)
}

#[cfg(test)]
mod tests {
    use super::super::trellis::CODE_DEVIATION;
    use super::*;

    /// Normal values by the sum of twelve uniform ones (variance 1).
    fn normal(state: &mut u64) -> f32 {
        let mut uniform = || {
            *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (*state >> 40) as f32 / (1u64 << 24) as f32
        };
        (0..12).map(|_| uniform()).sum::<f32>() - 6.0
    }

    /// A ring of normal values, every sixteenth of which weighs the same; some lie `far` beyond the codes.
    fn ring(seed: &mut u64, spread: f32, far: f32) -> Vec<Wanted> {
        let weights: [f32; 16] = std::array::from_fn(|_| (spread * normal(seed)).exp());
        let wanted = |i: usize| {
            let target = normal(seed) * CODE_DEVIATION + if i % 64 == 9 { far } else { 0.0 };
            Wanted { target, weight: weights[i % 16] }
        };
        (0..TILE_VALUES).map(wanted).collect()
    }

    /// The same search without rounding: the least cost of a walk that begins and ends in `group`.
    fn least_cost(bits: u32, wanted: &[Wanted], group: usize) -> f64 {
        let groups = STATES >> bits;
        let mut from = vec![f64::INFINITY; groups];
        from[group] = 0.0;
        let codes: Vec<f64> = (0..STATES).map(|state| f64::from(code(state as u16))).collect();
        for one in wanted {
            let (target, weight) = (f64::from(one.target), f64::from(one.weight));
            let cost = |state: usize| (codes[state] - target).powi(2) * weight + from[state >> bits];
            let least =
                |group| (0..1 << bits).map(|u| cost(u * groups + group)).fold(f64::INFINITY, f64::min);
            from = (0..groups).map(least).collect();
        }
        from[group]
    }

    fn cost(wanted: &[Wanted], states: &[u16]) -> f64 {
        let cost = |(one, state): (&Wanted, &u16)| {
            (f64::from(code(*state)) - f64::from(one.target)).powi(2) * f64::from(one.weight)
        };
        wanted.iter().zip(states).map(cost).sum()
    }

    fn is_ring(bits: u32, states: &[u16]) -> bool {
        let mask = (STATES >> bits) - 1;
        let follows = |i: usize| {
            usize::from(states[i]) >> bits
                == usize::from(states[(i + states.len() - 1) % states.len()]) & mask
        };
        (0..states.len()).all(follows)
    }

    #[test]
    fn rounded_costs_find_nearly_the_least() {
        for (bits, spread, far) in [2, 3, 4]
            .into_iter()
            .flat_map(|bits| [(bits, 0.0, 0.0), (bits, 0.7, 0.0), (bits, 1.5, 0.0), (bits, 0.3, 120.0)])
        {
            let (mut seed, mut found, mut least) = (7, 0.0, 0.0);
            let mut walk = Walk::new(Isa::detect(), bits);
            for tile in 0..4 {
                let (wanted, group) = (ring(&mut seed, spread, far), 456 * tile);
                let mut states = [0; TILE_VALUES];
                walk.find(&wanted, Some(group), &mut states);
                assert!(is_ring(bits, &states) && usize::from(states[0]) >> bits == group);
                found += cost(&wanted, &states);
                least += least_cost(bits, &wanted, group);
            }
            // Far beyond the codes costs are linear at four bits.
            let most = if far > 0.0 { 1.02 } else { 1.005 };
            assert!(found < most * least, "{bits} bits, {spread}, {far}: {found} of {least}");
        }
    }

    #[test]
    fn whatever_is_wanted_every_instruction_set_finds_the_same() {
        for bits in 2..=4 {
            let mut wanted = ring(&mut 3, 4.0, 1e9);
            wanted[5].weight = 0.0;
            wanted[70].weight = 1e30;
            wanted[90].target = f32::NAN;
            wanted[91].target = f32::NEG_INFINITY;
            let found = |isa: Isa| {
                let (mut states, mut part) = ([0; TILE_VALUES], [0; 48]);
                let mut walk = Walk::new(isa, bits);
                walk.find(&wanted, Some(77), &mut states);
                walk.find(&wanted[..48], None, &mut part);
                (states, part)
            };
            let expected = found(Isa::Scalar);
            assert!(expected.0.iter().any(|state| *state != expected.0[0]));
            Isa::available().into_iter().for_each(|isa| assert!(found(isa) == expected, "{bits} {isa:?}"));
        }
    }
}
