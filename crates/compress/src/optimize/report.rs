//! What was chosen and why.

use std::path::Path;

use ganglion_gguf::Gguf;
use ganglion_kernels::BlockFormat;
use ganglion_llm::{Model, SessionOptions};

use super::judge::{Reference, session};
use super::knapsack::{FILE, MEMORY, Packing, TIME};
use super::search::Found;
use super::units::answer_ns;
use super::write::Written;
use super::{Context, TokenWeight};
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

/// Another shape of the model that was considered.
#[derive(Debug, Clone, PartialEq)]
pub struct ReshapeTried {
    /// As in `ffn=0.3+layers=1`.
    pub name: String,
    /// Divergence of the model in that shape before anything is rounded.
    pub kl: Option<f64>,
    /// Divergence and bytes of the best that was found in it, if it was searched and something met the budget.
    pub found: Option<(f64, u64)>,
    /// What came of it.
    pub verdict: Verdict,
}

/// What came of another shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The model cannot take it, for this reason.
    Impossible(String),
    /// It alone costs more than the best, or than is allowed.
    CostsTooMuch,
    /// With what the source's matrices cost in each format it would not be better.
    NoHope,
    /// It was searched, and is not better, or does not meet the budget.
    NotBetter,
    /// The result has it.
    Taken,
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
    /// The limit on it.
    pub latency_limit_ns: f64,
    /// The sum of what each choice costs by itself.
    pub kl_predicted: f64,
    /// Measured on the file, tokens weighted as they were in the search.
    pub kl: f64,
    /// The same, all tokens alike.
    pub kl_mean: f64,
    /// Whether later layers were quantised knowing the errors of earlier ones.
    pub in_sequence: bool,
    /// Exchanges tried, and those that were kept.
    pub swaps: (usize, usize),
    /// Every tensor.
    pub tensors: Vec<TensorChoice>,
    /// Other shapes.
    pub reshapes: Vec<ReshapeTried>,
    /// Whole tokens that the divergence is of: the sum of their weights.
    pub counted_tokens: f64,
    /// From the smallest on.
    pub front: Vec<FrontPoint>,
}

pub(super) fn report(
    context: &Context<'_>,
    source: &Gguf,
    found: &Found,
    written: &Written,
    reshapes: Vec<ReshapeTried>,
    path: &Path,
) -> Result<OptimizeReport> {
    let session = SessionOptions::new(context.options.workload.context_tokens);
    let memory = |gguf: &Gguf| -> Result<u64> {
        Ok(Model::memory_plan(gguf.header(), &session, context.options.threads)?.total_bytes())
    };
    let as_is = answer_ns(source, context.device, &context.options.workload)?;
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
        latency_ns: (as_is, found.uses(TIME)),
        latency_limit_ns: context.limits[TIME],
        kl_predicted: found.packing.damage,
        kl: written.kl,
        kl_mean: kl_mean(context, source, written, path)?,
        in_sequence: written.in_sequence,
        swaps: (found.swaps_tried, found.swaps_kept),
        tensors: tensors.collect(),
        reshapes,
        counted_tokens: context.reference.weight(),
        front: front(found),
    })
}

/// Divergence of the result, all tokens alike.
fn kl_mean(context: &Context<'_>, source: &Gguf, written: &Written, path: &Path) -> Result<f64> {
    if context.options.weights == TokenWeight::Equal {
        return Ok(written.kl);
    }
    let windows = context.reference.windows().clone();
    let length = windows.length();
    let session = |gguf: &Gguf| session(gguf, length, context.options.threads);
    let reference = Reference::new(&mut session(source)?, windows, TokenWeight::Equal)?;
    reference.divergence(&mut session(&Gguf::open(path)?)?)
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
