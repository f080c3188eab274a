//! The best model for a device: a format for each matrix, and what to prune, under limits of size, memory, time and divergence.
//!
//! ```text
//! Gradients ─► sensitivity of each matrix in each format ─► shortlist
//! shortlist ─► quantised one by one, put into the source ─► true divergence of each choice
//! divergence, bytes, Device's times ─► knapsack ─► all choices put in together ─► exchanges of pairs ─► OUT
//! ```
//! Divergences add up only roughly, so what is written has been measured as a whole. Whatever is found on the way lies in
//! `OUT.optimize`, and an interrupted run goes on from there.

mod judge;
mod knapsack;
mod report;
mod search;
mod units;
mod work;
mod write;

use std::path::{Path, PathBuf};

use ganglion_gguf::Gguf;
use ganglion_kernels::BlockFormat;

pub use report::{Alternative, FrontPoint, OptimizeReport, PruneTried, TensorChoice};

pub use units::products_ns;

use crate::device::Device;
use crate::error::{CompressError, Result};
use crate::measure::Windows;
use crate::methods::Method;
use crate::prune::{PruneOptions, prune_file};
use crate::quantize::source_key;
use judge::{Reference, session};
use knapsack::RESOURCES;
use work::Work;

/// What must not be exceeded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Budget {
    /// Bytes of the file.
    pub size_bytes: Option<u64>,
    /// Bytes of the memory plan: weights, KV cache, scratch.
    pub memory_bytes: u64,
    /// Nanoseconds of an answer.
    pub latency_ns: Option<f64>,
    /// Mean divergence from the source, in nats a token.
    pub kl_max: Option<f64>,
}

impl Budget {
    fn limits(&self) -> [f64; RESOURCES] {
        let size = self.size_bytes.map_or(f64::INFINITY, |bytes| bytes as f64);
        [size, self.memory_bytes as f64, self.latency_ns.unwrap_or(f64::INFINITY)]
    }
}

/// What is wanted within the budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// The least divergence.
    Divergence,
    /// The smallest file.
    Size,
}

/// What an answer is, for its latency and memory.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Workload {
    /// Positions of the KV cache.
    pub context_tokens: usize,
    /// Tokens of the one pass that an answer begins with.
    pub prompt_tokens: usize,
    /// Tokens after it, one by one.
    pub answer_tokens: usize,
    /// Nanoseconds of an answer that are no matrix products, on the device.
    pub other_ns: f64,
}

/// How to search.
#[derive(Debug, Clone, PartialEq)]
pub struct OptimizeOptions {
    /// Formats that are considered beside that of the source.
    pub formats: Vec<BlockFormat>,
    /// How matrices are quantised; one that folds nothing.
    pub method: Method,
    /// Limits.
    pub budget: Budget,
    /// Goal.
    pub goal: Goal,
    /// Workload.
    pub workload: Workload,
    /// Whether divergence counts only where the source itself puts the text's next token first: for models that were trained on
    /// answers, in texts with prompts.
    pub predicted_only: bool,
    /// Prunings that are considered.
    pub prunings: Vec<PruneOptions>,
    /// Exchanges of formats that are tried once a choice is made.
    pub swaps: usize,
    /// Threads.
    pub threads: usize,
    /// Whatever else the result depends on (the calibration text's hash).
    pub key: String,
}

/// How far [`optimize_file`] has come.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stage<'a> {
    /// What is being done.
    pub name: &'a str,
    /// Steps done, of all.
    pub done: usize,
    /// All steps of this stage.
    pub total: usize,
}

/// What all parts of a run share.
struct Context<'a> {
    options: &'a OptimizeOptions,
    device: &'a Device,
    /// What damage is measured on.
    reference: &'a Reference,
    /// What the inputs of matrices are learned from.
    calibration: &'a Windows,
}

/// Finds the best model and writes it to `path`, which holds what it held until the new file is whole. `calibration` is what
/// matrices are quantised by, `judging` what divergence is measured on.
///
/// # Errors
/// [`CompressError::Budget`] if nothing meets the budget, with what comes near; else as [`crate::quantize_file`].
pub fn optimize_file(
    source: &Gguf,
    path: &Path,
    options: &OptimizeOptions,
    device: &Device,
    (calibration, judging): (&Windows, Windows),
    progress: &mut dyn FnMut(Stage<'_>),
) -> Result<OptimizeReport> {
    if matches!(options.method, Method::Awq | Method::SmoothQuant) {
        let reason = format!("{} changes several matrices at once; take gptq", options.method.name());
        return Err(CompressError::Budget { reason });
    }
    progress(Stage { name: "reference", done: 0, total: 1 });
    let mut judge = session(source, judging.length(), options.threads)?;
    let reference = Reference::new(&mut judge, judging, options.predicted_only)?;
    drop(judge);
    let context = Context { options, device, reference: &reference, calibration };
    let folder = folder_of(path);
    let source_key = source_key(source);
    let OptimizeOptions { method, key, formats, predicted_only, .. } = options;
    let key = format!("{source_key} {method:?} {key} {formats:?} {predicted_only}");
    let work = Work::open(&folder, &key)?;
    let mut best = search::run(&context, source, work, progress);
    let mut base: Option<Gguf> = None;
    let mut tried = Vec::new();
    for pruning in &options.prunings {
        let (pruned, kl) = prune(&context, source, &folder, *pruning, progress)?;
        let hopeless = match &best {
            // What pruning costs before any rounding is already more.
            Ok(best) if options.goal == Goal::Divergence => kl >= best.kl,
            _ => options.budget.kl_max.is_some_and(|max| kl >= max),
        };
        let mut taken = false;
        if !hopeless {
            let work = Work::open(&folder.join(name_of(*pruning)), &key)?;
            let found = search::run(&context, &pruned, work, progress);
            taken = match (&best, &found) {
                (_, Err(_)) => false,
                (Err(_), Ok(_)) => true,
                (Ok(best), Ok(found)) => found.is_better_than(best, options.goal),
            };
            if taken {
                (best, base) = (found, Some(pruned));
            }
        }
        tried.push(PruneTried { layers: pruning.layers, feed_forward: pruning.feed_forward, kl, taken });
    }
    let found = best?;
    let base = base.as_ref().unwrap_or(source);
    let written = write::write(&context, base, &found, path, &folder, progress)?;
    let report = report::report(&context, source, &found, &written, tried, path)?;
    // The result is whole; what led to it is of no more use.
    std::fs::remove_dir_all(&folder).map_err(|source| CompressError::File {
        path: folder,
        action: "remove",
        source,
    })?;
    Ok(report)
}

/// A pruned source beside the result, and how far pruning alone moves it.
fn prune(
    context: &Context<'_>,
    source: &Gguf,
    folder: &Path,
    pruning: PruneOptions,
    progress: &mut dyn FnMut(Stage<'_>),
) -> Result<(Gguf, f64)> {
    let file = folder.join(format!("{}.gguf", name_of(pruning)));
    if !file.exists() {
        prune_file(source, &file, pruning, context.calibration, &mut |done, total| {
            progress(Stage { name: "pruning", done, total });
        })?;
    }
    let pruned = Gguf::open(&file)?;
    let length = context.reference.windows().length();
    let kl = context.reference.divergence(&mut session(&pruned, length, context.options.threads)?)?;
    Ok((pruned, kl))
}

fn name_of(pruning: PruneOptions) -> String {
    let PruneOptions { layers, heads, queries, feed_forward, hidden, .. } = pruning;
    format!("pruned-{layers}-{heads}-{queries}-{feed_forward}-{hidden}")
}

fn folder_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".optimize");
    PathBuf::from(name)
}
