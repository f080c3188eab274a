//! From costs to a choice for each matrix, judged as a whole.

use std::collections::HashSet;

use ganglion_gguf::Gguf;
use ganglion_kernels::{BlockFormat, Matrix};
use ganglion_llm::{Model, Session, SessionOptions};

use super::judge::session;
use super::knapsack::{self, FILE, Item, MEMORY, Packing, RESOURCES, TIME};
use super::units::{self, Unit};
use super::work::Work;
use super::{Context, Goal, Stage, Workload};
use crate::error::{CompressError, Result};

/// Most attempts to hit a divergence.
const ATTEMPTS: usize = 6;
/// How far below the wanted divergence the next attempt aims.
const AIM: f64 = 0.97;
/// Exchanges whose predicted damage is worse than this multiple of the whole are not tried.
const WORSE: f64 = 1.1;
/// Another shape of the model is searched if the guess at what it will come to is at most this multiple of the best.
const HOPE: f64 = 1.3;

/// The best of one base.
pub(super) struct Found {
    pub(super) units: Vec<Unit>,
    pub(super) packing: Packing,
    pub(super) work: Work,
    /// Measured, of the whole.
    pub(super) kl: f64,
    pub(super) front: Vec<Packing>,
    /// What is not a matter of choice.
    pub(super) fixed: [f64; RESOURCES],
    pub(super) swaps_tried: usize,
    pub(super) swaps_kept: usize,
}

/// What a search has learned of its base that helps to judge others.
pub(super) struct Figures {
    units: Vec<Unit>,
    /// What the whole differs by, for each nat of the sum of its parts.
    scale: f64,
}

impl Found {
    pub(super) fn figures(&self) -> Figures {
        let sum = self.packing.damage;
        Figures { units: self.units.clone(), scale: if sum > 0.0 { self.kl / sum } else { 1.0 } }
    }

    pub(super) fn is_better_than(&self, other: &Self, goal: Goal) -> bool {
        match goal {
            Goal::Divergence => self.kl < other.kl,
            Goal::Size { .. } => self.uses(FILE) < other.uses(FILE),
        }
    }

    pub(super) fn uses(&self, resource: usize) -> f64 {
        self.packing.uses[resource] + self.fixed[resource]
    }
}

/// Searches on one base. If that is the source and there is nothing to do, [`CompressError::Unchanged`].
pub(super) fn run(
    context: &Context<'_>,
    base: &Gguf,
    mut work: Work,
    is_source: bool,
    progress: &mut dyn FnMut(Stage<'_>),
) -> Result<Found> {
    let mut units = units::list(context, base)?;
    let fixed = fixed(context, base, &units)?;
    let limits = std::array::from_fn(|i| context.limits[i] - fixed[i]);
    let all = items(&units);
    possible(&all, &limits, &fixed)?;
    let unchanged = Packing::of(&all, vec![0; all.len()]);
    if is_source && context.options.goal == Goal::Divergence && unchanged.fits(&limits) {
        return Err(CompressError::Unchanged);
    }
    units::score(context, base, &mut work, &mut units, progress)?;
    units::shortlist(&mut units, &limits);
    units::measure(context, base, &mut work, &mut units, progress)?;
    let items = items(&units);
    possible(&items, &limits, &fixed)?;
    let front = knapsack::front(&items, [0.0; RESOURCES]);
    let mut whole = Whole::new(context, base, &units, &work)?;
    let (mut packing, mut kl) = first_choice(context, &items, &front, &limits, &mut whole)?;
    let mut exchanges = Exchanges { items: &items, limits, seen: HashSet::new() };
    let (mut swaps_tried, mut swaps_kept) = (0, 0);
    while swaps_tried < context.options.swaps {
        let Some(next) = exchanges.next(&packing, kl, context) else { break };
        progress(Stage { name: "exchanges", done: swaps_tried, total: context.options.swaps });
        swaps_tried += 1;
        let measured = whole.divergence(&next.chosen)?;
        let better = match context.options.goal {
            Goal::Divergence => measured < kl,
            Goal::Size { kl_max } => measured <= kl_max,
        };
        if better {
            (packing, kl, swaps_kept) = (next, measured, swaps_kept + 1);
        }
    }
    drop(whole);
    let found = Found { units, packing, work, kl, front, fixed, swaps_tried, swaps_kept };
    match context.options.goal {
        Goal::Size { kl_max } if found.kl > kl_max => Err(CompressError::Budget {
            reason: format!(
                "the nearest that was found within the limits differs from the source by {:.5} nats a token, above --max-kl {kl_max}; \
                 it has {:.2} MB. Give more --size, --memory or --latency-ms, or a higher --max-kl",
                found.kl,
                found.uses(FILE) / 1e6
            ),
        }),
        _ => Ok(found),
    }
}

fn items(units: &[Unit]) -> Vec<Vec<Item>> {
    units.iter().map(|unit| unit.choices.iter().map(|choice| choice.item).collect()).collect()
}

/// Whether a base that differs from the source by `kl` as it is may come to something better than `best`: its matrices are taken to cost
/// what those of the same names and formats cost in the source.
pub(super) fn promises(
    context: &Context<'_>,
    base: &Gguf,
    kl: f64,
    source: &Figures,
    best: &Found,
) -> Result<bool> {
    let mut units = units::list(context, base)?;
    let fixed = fixed(context, base, &units)?;
    for unit in &mut units {
        let known = source.units.iter().find(|known| known.tensor == unit.tensor);
        let cost = |format: BlockFormat| {
            let same = known.and_then(|known| known.choices.iter().find(|choice| choice.format == format));
            same.map(|choice| choice.item.damage)
        };
        for choice in unit.choices.iter_mut().skip(1) {
            choice.item.damage = cost(choice.format).unwrap_or(f64::INFINITY);
        }
        unit.choices.retain(|choice| choice.item.damage.is_finite());
    }
    let items = items(&units);
    let limits = std::array::from_fn(|i| context.limits[i] - fixed[i]);
    let scale = source.scale;
    Ok(match context.options.goal {
        Goal::Size { kl_max } => {
            let front = knapsack::front(&items, [0.0; RESOURCES]);
            let meets =
                |packing: &&Packing| kl + packing.damage * scale <= kl_max * HOPE && packing.fits(&limits);
            front.iter().find(meets).is_some_and(|packing| packing.uses[FILE] + fixed[FILE] < best.uses(FILE))
        }
        Goal::Divergence => {
            let packing = knapsack::pack(&items, &limits);
            packing.is_some_and(|packing| kl + packing.damage * scale <= best.kl * HOPE)
        }
    })
}

/// What of file, memory and time does not depend on the choices.
fn fixed(context: &Context<'_>, base: &Gguf, units: &[Unit]) -> Result<[f64; RESOURCES]> {
    let Workload { context_tokens, .. } = context.options.workload;
    let plan =
        Model::memory_plan(base.header(), &SessionOptions::new(context_tokens), context.options.threads)?;
    let source = |resource: usize| {
        let of = |unit: &Unit| unit.choices.first().map_or(0.0, |choice| choice.item.uses[resource]);
        units.iter().map(of).sum::<f64>()
    };
    let mut fixed = [0.0; RESOURCES];
    // Vectors become F32 and the header says what was done; a tensor of another size may need another padding.
    let as_is = super::write::layout_bytes(context, base)? as f64;
    fixed[FILE] = as_is - source(FILE) + (units.len() * base.header().alignment_bytes()) as f64;
    fixed[MEMORY] = plan.total_bytes() as f64 - source(MEMORY);
    fixed[TIME] = units::other_ns(base, context.device, &context.options.workload)?;
    Ok(fixed)
}

/// Whether each limit can be met by itself.
fn possible(items: &[Vec<Item>], limits: &[f64; RESOURCES], fixed: &[f64; RESOURCES]) -> Result<()> {
    let least = knapsack::least(items);
    let Some(resource) = (0..RESOURCES).find(|r| least[*r] > limits[*r]) else { return Ok(()) };
    let (name, unit, option, advice) = [
        ("file", "MB", "--size", ""),
        ("memory plan", "MB", "--memory", "take fewer --context-tokens, "),
        ("answer", "ms", "--latency-ms", "take fewer --prompt-tokens or --answer-tokens, "),
    ][resource];
    let value = |v: f64| (v + fixed[resource]) / 1e6;
    Err(CompressError::Budget {
        reason: format!(
            "the {name} takes {:.2} {unit} at least, with every matrix in the format that takes least; {option} allows {:.2}. \
             Raise it, allow smaller --types, {advice}prune more (--prune), or begin with a smaller model",
            value(least[resource]),
            value(limits[resource]),
        ),
    })
}

/// The knapsack's choice, measured. For the smallest file the aim is moved until the divergence is met.
fn first_choice(
    context: &Context<'_>,
    items: &[Vec<Item>],
    front: &[Packing],
    limits: &[f64; RESOURCES],
    whole: &mut Whole<'_>,
) -> Result<(Packing, f64)> {
    let nothing = || {
        CompressError::Budget {
        reason: "each limit can be met by itself, but not all of them together; raise --size, --memory or --latency-ms".to_owned(),
    }
    };
    let Goal::Size { kl_max: max } = context.options.goal else {
        let packing = knapsack::pack(items, limits).ok_or_else(nothing)?;
        let kl = whole.divergence(&packing.chosen)?;
        return Ok((packing, kl));
    };
    let mut aim = max;
    let mut best: Option<(Packing, f64)> = None;
    for _ in 0..ATTEMPTS {
        let meets = |packing: &&Packing| packing.damage <= aim && packing.fits(limits);
        let Some(packing) = front.iter().find(meets) else { break };
        let kl = whole.divergence(&packing.chosen)?;
        if kl <= max {
            best = Some((packing.clone(), kl));
            break;
        }
        aim = (aim * max / kl * AIM).min(aim * AIM);
    }
    match best {
        Some(best) => Ok(best),
        None => {
            let packing = knapsack::pack(items, limits).ok_or_else(nothing)?;
            let kl = whole.divergence(&packing.chosen)?;
            Ok((packing, kl))
        }
    }
}

/// The base with all choices in their places.
struct Whole<'a> {
    context: &'a Context<'a>,
    base: &'a Gguf,
    units: &'a [Unit],
    work: &'a Work,
    session: Session,
    current: Vec<BlockFormat>,
}

impl<'a> Whole<'a> {
    fn new(context: &'a Context<'a>, base: &'a Gguf, units: &'a [Unit], work: &'a Work) -> Result<Self> {
        let session = session(base, context.reference.windows().length(), context.options.threads)?;
        let current = units.iter().map(|unit| unit.source).collect();
        Ok(Self { context, base, units, work, session, current })
    }

    fn divergence(&mut self, chosen: &[usize]) -> Result<f64> {
        for (index, (unit, choice)) in self.units.iter().zip(chosen).enumerate() {
            let format = unit.choices[*choice].format;
            if format != self.current[index] {
                let bytes = stored(self.base, self.work, unit, format)?;
                let mut matrix = Matrix::pack(&unit.tensor, format, unit.rows, unit.columns, &bytes)?;
                self.session.swap_tensor(&unit.tensor, &mut matrix);
                self.current[index] = format;
            }
        }
        self.context.reference.divergence(&mut self.session)
    }
}

/// A matrix in one of its formats.
pub(super) fn stored(base: &Gguf, work: &Work, unit: &Unit, format: BlockFormat) -> Result<Vec<u8>> {
    if format == unit.source {
        return Ok(base.tensor_bytes(&unit.tensor)?.to_vec());
    }
    work.read_matrix(&unit.tensor, format)
}

/// Changes of one choice or of two that keep the limits, the most promising first.
struct Exchanges<'a> {
    items: &'a [Vec<Item>],
    limits: [f64; RESOURCES],
    seen: HashSet<Vec<usize>>,
}

impl Exchanges<'_> {
    fn next(&mut self, from: &Packing, kl: f64, context: &Context<'_>) -> Option<Packing> {
        let mut moves = Vec::new();
        for (unit, items) in self.items.iter().enumerate() {
            for choice in (0..items.len()).filter(|choice| *choice != from.chosen[unit]) {
                moves.push((unit, choice));
            }
        }
        let singles = moves.iter().map(|one| [*one, *one]);
        let pairs = moves
            .iter()
            .enumerate()
            .flat_map(|(i, a)| moves[i + 1..].iter().filter(|b| b.0 != a.0).map(|b| [*a, *b]));
        let mut best: Option<(f64, Packing)> = None;
        for change in singles.chain(pairs) {
            let change = if change[0] == change[1] { &change[..1] } else { &change[..] };
            let (mut damage, mut uses) = (from.damage, from.uses);
            for (unit, choice) in change {
                let (old, new) = (self.items[*unit][from.chosen[*unit]], self.items[*unit][*choice]);
                damage += new.damage - old.damage;
                for (sum, (old, new)) in uses.iter_mut().zip(old.uses.iter().zip(&new.uses)) {
                    *sum += new - old;
                }
            }
            let (value, hopeless) = match context.options.goal {
                Goal::Divergence => (damage, damage > from.damage * WORSE),
                // Damages add up to less or more than the whole: the same proportion is expected of the next.
                Goal::Size { kl_max } => {
                    let expected = damage * kl / from.damage.max(f64::MIN_POSITIVE);
                    (uses[FILE], uses[FILE] >= from.uses[FILE] || expected > kl_max * WORSE)
                }
            };
            let fits = uses.iter().zip(&self.limits).all(|(used, limit)| used <= limit);
            if hopeless || !fits || best.as_ref().is_some_and(|(least, _)| value >= *least) {
                continue;
            }
            let mut chosen = from.chosen.clone();
            change.iter().for_each(|(unit, choice)| chosen[*unit] = *choice);
            if !self.seen.contains(&chosen) {
                best = Some((value, Packing { chosen, damage, uses }));
            }
        }
        let (_, packing) = best?;
        self.seen.insert(packing.chosen.clone());
        Some(packing)
    }
}
