//! One choice for each unit, so that the damage is least and the sums stay within limits: a multiple-choice knapsack.
//!
//! Sums of bytes and damage are joined unit by unit into the list of those that nothing beats (Nemhauser and Ullmann 1969), which
//! is exact as long as the list stays short; a longer one is thinned to the best of equal steps of bytes. Other resources enter as a
//! price on top of the damage, which is raised until they fit (Lagrange).

/// One way to store a unit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Item {
    /// Adds up; what is kept low.
    pub(crate) damage: f64,
    /// Bytes of the file, bytes of memory, nanoseconds.
    pub(crate) uses: [f64; RESOURCES],
}

pub(crate) const RESOURCES: usize = 3;
pub(crate) const FILE: usize = 0;
pub(crate) const MEMORY: usize = 1;
pub(crate) const TIME: usize = 2;

/// Most sums that are kept after each unit.
const STATES_MAX: usize = 6000;
/// Halvings of the range of prices.
const PRICE_STEPS: usize = 24;
const PRICE_RANGE: f64 = 1e6;

/// What has been chosen: an index for each unit.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Packing {
    pub(crate) chosen: Vec<usize>,
    pub(crate) damage: f64,
    pub(crate) uses: [f64; RESOURCES],
}

impl Packing {
    pub(crate) fn of(units: &[Vec<Item>], chosen: Vec<usize>) -> Self {
        let mut packing = Self { chosen, damage: 0.0, uses: [0.0; RESOURCES] };
        for (items, index) in units.iter().zip(&packing.chosen) {
            packing.damage += items[*index].damage;
            for (sum, used) in packing.uses.iter_mut().zip(&items[*index].uses) {
                *sum += used;
            }
        }
        packing
    }

    pub(crate) fn fits(&self, limits: &[f64; RESOURCES]) -> bool {
        self.uses.iter().zip(limits).all(|(used, limit)| used <= limit)
    }
}

/// A sum and where it came from.
#[derive(Clone, Copy)]
struct State {
    bytes: f64,
    cost: f64,
    before: u32,
    item: u32,
}

/// The packings that nothing beats in bytes of the file and damage plus `prices` for memory and time; fewest bytes
/// first.
pub(crate) fn front(units: &[Vec<Item>], prices: [f64; RESOURCES]) -> Vec<Packing> {
    let mut steps: Vec<Vec<State>> = Vec::new();
    let mut current = vec![State { bytes: 0.0, cost: 0.0, before: 0, item: 0 }];
    for items in units {
        let mut next = Vec::with_capacity(current.len() * items.len());
        for (before, state) in current.iter().enumerate() {
            for (index, item) in items.iter().enumerate() {
                let price: f64 = item.uses.iter().zip(prices).map(|(used, price)| used * price).sum();
                next.push(State {
                    bytes: state.bytes + item.uses[FILE],
                    cost: state.cost + item.damage + price,
                    before: before as u32,
                    item: index as u32,
                });
            }
        }
        next.sort_by(|a, b| a.bytes.total_cmp(&b.bytes).then(a.cost.total_cmp(&b.cost)));
        steps.push(std::mem::replace(&mut current, thinned(unbeaten(next))));
    }
    let last = steps.len();
    let packing = |state: &State| {
        let mut chosen = vec![state.item as usize];
        let mut at = state.before as usize;
        // The first step holds the empty sum.
        for step in steps[1..last].iter().rev() {
            chosen.push(step[at].item as usize);
            at = step[at].before as usize;
        }
        chosen.reverse();
        Packing::of(units, chosen)
    };
    if units.is_empty() { Vec::new() } else { current.iter().map(packing).collect() }
}

fn unbeaten(mut states: Vec<State>) -> Vec<State> {
    let mut best = f64::INFINITY;
    states.retain(|state| {
        let better = state.cost < best;
        best = best.min(state.cost);
        better
    });
    states
}

fn thinned(states: Vec<State>) -> Vec<State> {
    let (Some(first), Some(last)) = (states.first(), states.last()) else { return states };
    if states.len() <= STATES_MAX {
        return states;
    }
    let step = (last.bytes - first.bytes) / STATES_MAX as f64;
    let first = first.bytes;
    let bucket = |state: &State| ((state.bytes - first) / step) as usize;
    let mut kept: Vec<State> = Vec::with_capacity(STATES_MAX + 1);
    for state in states {
        // The last of a step has the least cost.
        match kept.last_mut() {
            Some(previous) if bucket(previous) == bucket(&state) && kept_more_than_one(previous) => {
                *previous = state;
            }
            _ => kept.push(state),
        }
    }
    kept
}

/// The smallest sum of all must stay: it is what shows whether anything fits.
fn kept_more_than_one(previous: &State) -> bool {
    previous.bytes > 0.0
}

/// The packing of least damage within the limits; without one, nothing.
pub(crate) fn pack(units: &[Vec<Item>], limits: &[f64; RESOURCES]) -> Option<Packing> {
    let total = Packing::of(units, vec![0; units.len()]).damage.max(least_damage(units)).max(1e-9);
    let mut prices = [0.0; RESOURCES];
    let best = |prices: [f64; RESOURCES]| {
        // The least damage among those that fit into the file, whether the others fit or not.
        let all = front(units, prices);
        let fitting = all.iter().filter(|packing| packing.fits(limits));
        let found = fitting.min_by(|a, b| a.damage.total_cmp(&b.damage)).cloned();
        let within = all.into_iter().rev().find(|packing| packing.uses[FILE] <= limits[FILE]);
        (found, within)
    };
    let (mut found, within) = best(prices);
    let within = within?;
    for resource in [MEMORY, TIME] {
        if found.is_some() || within.uses[resource] <= limits[resource] {
            continue;
        }
        let unit = total / limits[resource].max(1e-9);
        let (mut low, mut high) = (0.0, PRICE_RANGE * unit);
        for _ in 0..PRICE_STEPS {
            // Prices span many powers of ten.
            let middle = if low == 0.0 { high * 1e-4 } else { (low * high).sqrt() };
            prices[resource] = middle;
            let (fits, state) = best(prices);
            let enough = fits.is_some() || state.is_some_and(|s| s.uses[resource] <= limits[resource]);
            let better = |fits: &Packing| found.as_ref().is_none_or(|found| fits.damage < found.damage);
            if let Some(fits) = fits.filter(better) {
                found = Some(fits);
            }
            if enough {
                high = middle
            } else {
                low = middle
            }
            if high < 1e-30 {
                break;
            }
        }
        prices[resource] = high;
    }
    found
}

fn least_damage(units: &[Vec<Item>]) -> f64 {
    units.iter().map(|items| items.iter().map(|item| item.damage).fold(f64::INFINITY, f64::min)).sum()
}

/// The least that any packing takes of each resource.
pub(crate) fn least(units: &[Vec<Item>]) -> [f64; RESOURCES] {
    std::array::from_fn(|resource| {
        let of =
            |items: &Vec<Item>| items.iter().map(|item| item.uses[resource]).fold(f64::INFINITY, f64::min);
        units.iter().map(of).sum()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(i: usize) -> f64 {
        ((i.wrapping_mul(2_654_435_761) >> 9) % 1009) as f64 / 1009.0
    }

    fn units(count: usize, seed: usize) -> Vec<Vec<Item>> {
        let item = |unit: usize, i: usize| {
            let bytes = (1.0 + i as f64) * (100.0 + (100.0 * noise(unit + seed)).floor());
            Item {
                damage: noise(unit * 7 + seed) / (1.0 + i as f64).powi(3),
                uses: [bytes, bytes * 1.1, 50.0 + 100.0 * noise(unit * 31 + i * 3 + seed)],
            }
        };
        (0..count).map(|unit| (0..4).map(|i| item(unit, i)).collect()).collect()
    }

    /// Every combination.
    fn exhaustive(units: &[Vec<Item>], limits: &[f64; RESOURCES]) -> Option<Packing> {
        let count = units.iter().map(Vec::len).product::<usize>();
        let all = (0..count).map(|mut code| {
            let chosen = units.iter().map(|items| {
                let index = code % items.len();
                code /= items.len();
                index
            });
            Packing::of(units, chosen.collect())
        });
        all.filter(|packing| packing.fits(limits)).min_by(|a, b| a.damage.total_cmp(&b.damage))
    }

    #[test]
    fn with_one_limit_the_best_of_all_combinations_is_found() {
        for seed in 0..20 {
            let units = units(6, seed * 101);
            for share in [0.3, 0.5, 0.8, 1.0] {
                let most: f64 = units.iter().map(|items| items[3].uses[FILE]).sum();
                let limits = [most * share, f64::INFINITY, f64::INFINITY];
                let (found, best) = (pack(&units, &limits).unwrap(), exhaustive(&units, &limits).unwrap());
                assert!((found.damage - best.damage).abs() < 1e-9, "{} {}", found.damage, best.damage);
                assert!(found.fits(&limits));
            }
        }
    }

    #[test]
    fn further_limits_are_kept_and_cost_little_more_than_need_be() {
        let (mut found_sum, mut best_sum, mut cases) = (0.0, 0.0, 0);
        for seed in 0..40 {
            let units = units(6, seed * 77 + 5);
            let most = Packing::of(&units, vec![3; 6]).uses;
            let limits = [most[FILE] * 0.6, most[MEMORY] * 0.55, least(&units)[TIME] * 1.2];
            let found = pack(&units, &limits);
            let Some(best) = exhaustive(&units, &limits) else {
                assert_eq!(found, None);
                continue;
            };
            let Some(found) = found else { continue };
            assert!(found.fits(&limits) && found.damage >= best.damage - 1e-12);
            (found_sum, best_sum, cases) = (found_sum + found.damage, best_sum + best.damage, cases + 1);
        }
        assert!(cases > 10 && found_sum < 1.3 * best_sum, "{cases}: {found_sum}, {best_sum}");
    }

    #[test]
    fn a_long_list_is_thinned_and_loses_little() {
        let units = units(60, 3);
        let all = front(&units, [0.0; RESOURCES]);
        assert!(all.len() <= STATES_MAX + 1);
        assert!(all.windows(2).all(|pair| pair[0].uses[FILE] < pair[1].uses[FILE]));
        assert!((all[0].uses[FILE] - least(&units)[FILE]).abs() < 1e-6, "the smallest stays");
        assert_eq!(pack(&units, &[least(&units)[FILE] * 0.99, 1e12, 1e12]), None);
        assert!(front(&[], [0.0; RESOURCES]).is_empty());
    }
}
