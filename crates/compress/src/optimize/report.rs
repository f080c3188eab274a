//! What was chosen and why.

use ganglion_gguf::Gguf;
use ganglion_kernels::BlockFormat;
use ganglion_llm::{Model, SessionOptions};

use super::Context;
use super::knapsack::{FILE, MEMORY, Packing, TIME};
use super::search::Found;
use super::units::products_ns;
use super::write::Written;
use crate::error::Result;

/// Points of the front that are told, at most.
const FRONT_POINTS_MAX: usize = 24;

/// One format of a tensor, and what it would cost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Alternative {
    /// The format.
    pub format: BlockFormat,
    /// Divergence with this tensor alone in that format.
    pub kl: f64,
    /// Bytes of the file.
    pub size_bytes: u64,
    /// Of an answer.
    pub latency_ns: f64,
}

/// What became of a tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorChoice {
    /// Its name.
    pub tensor: String,
    /// What it was.
    pub source: BlockFormat,
    /// What it is.
    pub chosen: Alternative,
    /// Σ |∂L/∂Wq · (W − Wq)| of the chosen format.
    pub sensitivity: Option<f64>,
    /// What else was measured.
    pub others: Vec<Alternative>,
}

/// A pruning that was considered.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PruneTried {
    /// Layers that would go.
    pub layers: usize,
    /// Share of the feed-forward channels that would go.
    pub feed_forward: f64,
    /// Divergence of the pruned model before anything is rounded.
    pub kl: f64,
    /// Whether the result is made of it.
    pub taken: bool,
}

/// A choice that nothing beats in bytes and predicted divergence.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FrontPoint {
    /// Bytes of the file.
    pub size_bytes: u64,
    /// Bytes of the memory plan.
    pub memory_bytes: u64,
    /// Of an answer.
    pub latency_ns: f64,
    /// The sum of what each choice costs by itself.
    pub kl_predicted: f64,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct OptimizeReport {
    /// Of the source and of the result: bytes of the file.
    pub size_bytes: (u64, u64),
    /// Bytes of the memory plan.
    pub memory_bytes: (u64, u64),
    /// Nanoseconds of an answer, by the device's times.
    pub latency_ns: (f64, f64),
    /// The sum of what each choice costs by itself.
    pub kl_predicted: f64,
    /// Measured on the file.
    pub kl: f64,
    /// Whether later layers were quantised knowing the errors of earlier ones.
    pub in_sequence: bool,
    /// Exchanges tried, and those that were kept.
    pub swaps: (usize, usize),
    /// Every tensor.
    pub tensors: Vec<TensorChoice>,
    /// Prunings.
    pub prunings: Vec<PruneTried>,
    /// From the smallest on.
    pub front: Vec<FrontPoint>,
}

pub(super) fn report(
    context: &Context<'_>,
    source: &Gguf,
    found: &Found,
    written: &Written,
    prunings: Vec<PruneTried>,
    path: &std::path::Path,
) -> Result<OptimizeReport> {
    let session = SessionOptions::new(context.options.workload.context_tokens);
    let memory = |gguf: &Gguf| -> Result<u64> {
        Ok(Model::memory_plan(gguf.header(), &session, context.options.threads)?.total_bytes())
    };
    let as_is = products_ns(source, context.device, &context.options.workload)?;
    let tensors = found.units.iter().zip(&found.packing.chosen).map(|(unit, chosen)| {
        let alternative = |index: usize| {
            let choice = &unit.choices[index];
            Alternative {
                format: choice.format,
                kl: choice.item.damage,
                size_bytes: choice.item.uses[FILE] as u64,
                latency_ns: choice.item.uses[TIME],
            }
        };
        let others = (0..unit.choices.len()).filter(|index| index != chosen).map(alternative).collect();
        TensorChoice {
            tensor: unit.tensor.clone(),
            source: unit.source,
            chosen: alternative(*chosen),
            sensitivity: unit.choices[*chosen].sensitivity,
            others,
        }
    });
    Ok(OptimizeReport {
        size_bytes: (source.bytes().len() as u64, written.size_bytes),
        memory_bytes: (memory(source)?, memory(&Gguf::open(path)?)?),
        latency_ns: (as_is + found.fixed[TIME], found.uses(TIME)),
        kl_predicted: found.packing.damage,
        kl: written.kl,
        in_sequence: written.in_sequence,
        swaps: (found.swaps_tried, found.swaps_kept),
        tensors: tensors.collect(),
        prunings,
        front: front(found),
    })
}

/// Some points of the front, evenly spread.
fn front(found: &Found) -> Vec<FrontPoint> {
    let count = found.front.len().min(FRONT_POINTS_MAX);
    let spread = (0..count).map(|i| &found.front[i * (found.front.len() - 1) / (count - 1).max(1)]);
    let point = |packing: &Packing| FrontPoint {
        size_bytes: (packing.uses[FILE] + found.fixed[FILE]) as u64,
        memory_bytes: (packing.uses[MEMORY] + found.fixed[MEMORY]) as u64,
        latency_ns: packing.uses[TIME] + found.fixed[TIME],
        kl_predicted: packing.damage,
    };
    spread.map(point).collect()
}
