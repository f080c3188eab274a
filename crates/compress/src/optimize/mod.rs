//! The best model for a device: a format for each matrix, and its shape, under limits of size, memory, time and divergence.
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

pub use report::{Alternative, FrontPoint, OptimizeReport, ReshapeTried, TensorChoice, Verdict};

use crate::device::Device;
use crate::error::{CompressError, Result};
use crate::factorize::{FactorizeOptions, factorize_file};
use crate::limits::SLOWER_MAX;
use crate::measure::Windows;
use crate::methods::Method;
use crate::prune::{PruneOptions, prune_file};
use crate::quantize::source_key;
use judge::{Reference, session};
use knapsack::{FILE, RESOURCES};
use search::{Figures, Found};
use work::Work;

/// What must not be exceeded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Budget {
    /// Bytes of the file.
    pub size_bytes: Option<u64>,
    /// Bytes of the memory plan: weights, KV cache, scratch.
    pub memory_bytes: u64,
    /// Nanoseconds of an answer; without, [`SLOWER_MAX`] times what the source takes.
    pub latency_ns: Option<f64>,
}

impl Budget {
    /// `source_ns`: of an answer of the source.
    fn limits(&self, source_ns: f64) -> [f64; RESOURCES] {
        let size = self.size_bytes.map_or(f64::INFINITY, |bytes| bytes as f64);
        [size, self.memory_bytes as f64, self.latency_ns.unwrap_or(SLOWER_MAX * source_ns)]
    }
}

/// What is wanted within the budget.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Goal {
    /// The least divergence.
    Divergence,
    /// The smallest file.
    Size {
        /// Most mean divergence from the source, in nats a token.
        kl_max: f64,
    },
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
}

/// How much a token of the text counts when divergence is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenWeight {
    /// All alike.
    Equal,
    /// By the probability that the source itself gives to it. What the source never learned (prompts, if it was trained on answers) hardly
    /// counts, and neither does what it can only guess.
    Believed,
}

/// Another shape of the model, which is made before formats are chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Reshape {
    /// Parts go.
    Prune(PruneOptions),
    /// Matrices become two factors.
    Factorize(FactorizeOptions),
}

impl Reshape {
    /// `ffn=0.3+layers=1`, `factors=0.8`.
    pub fn name(&self) -> String {
        let options = match self {
            Self::Factorize(options) => return format!("factors={}", options.ratio),
            Self::Prune(options) => options,
        };
        let PruneOptions { layers, heads, queries, feed_forward, hidden, .. } = options;
        let parts = [
            (*layers > 0, format!("layers={layers}")),
            (*heads > 0, format!("heads={heads}")),
            (*queries > 0, format!("queries={queries}")),
            (*feed_forward > 0.0, format!("ffn={feed_forward}")),
            (*hidden > 0.0, format!("hidden={hidden}")),
        ];
        let parts: Vec<String> = parts.into_iter().filter_map(|(is, text)| is.then_some(text)).collect();
        parts.join("+")
    }
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
    /// How much each token counts.
    pub weights: TokenWeight,
    /// Other shapes that are considered.
    pub reshapes: Vec<Reshape>,
    /// Exchanges of formats that are tried once a choice is made.
    pub swaps: usize,
    /// Threads.
    pub threads: usize,
    /// Whatever else the result depends on (the calibration text's hash).
    pub key: String,
}

impl OptimizeOptions {
    /// The divergence that is allowed, if the file is to be the smallest.
    pub fn kl_max(&self) -> Option<f64> {
        match self.goal {
            Goal::Divergence => None,
            Goal::Size { kl_max } => Some(kl_max),
        }
    }
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
    /// Of file, memory and time.
    limits: [f64; RESOURCES],
    /// What damage is measured on.
    reference: &'a Reference,
    /// What the inputs of matrices are learned from.
    calibration: &'a Windows,
}

/// Finds the best model and writes it to `path`, which holds what it held until the new file is whole. `calibration` is what
/// matrices are quantised by, `judging` what divergence is measured on.
///
/// # Errors
/// [`CompressError::Budget`] if nothing meets the budget, with what comes near; [`CompressError::Unchanged`] if the source does as it is;
/// else as [`crate::quantize_file`].
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
    let reference = Reference::new(&mut judge, judging, options.weights)?;
    drop(judge);
    let limits = options.budget.limits(units::answer_ns(source, device, &options.workload)?);
    let context = Context { options, device, limits, reference: &reference, calibration };
    let folder = folder_of(path);
    let source_key = source_key(source);
    let OptimizeOptions { method, key, weights, .. } = options;
    let key = format!("{source_key} {method:?} {key} {weights:?}");
    let work = Work::open(&folder, &key)?;
    let mut best = met(search::run(&context, source, work, true, progress))?;
    let figures = best.as_ref().ok().map(Found::figures);
    let (mut base, mut taken) = (None, None);
    let mut tried = Vec::new();
    for (index, reshape) in options.reshapes.iter().enumerate() {
        let mut entry =
            ReshapeTried { name: reshape.name(), kl: None, found: None, verdict: Verdict::NotBetter };
        match reshaped(&context, source, &folder, *reshape, progress) {
            Ok((shaped, kl)) => {
                entry.kl = Some(kl);
                let so_far = best.as_ref().ok();
                if let Some(verdict) = outlook(&context, &shaped, kl, figures.as_ref(), so_far)? {
                    entry.verdict = verdict;
                } else {
                    let work = Work::open(&folder.join(reshape.name()), &key)?;
                    if let Ok(found) = met(search::run(&context, &shaped, work, false, progress))? {
                        entry.found = Some((found.kl, found.uses(FILE) as u64));
                        if so_far.is_none_or(|best| found.is_better_than(best, options.goal)) {
                            (best, base, taken) = (Ok(found), Some(shaped), Some(index));
                        }
                    }
                }
            }
            Err(error @ (CompressError::Prune { .. } | CompressError::Factorize { .. })) => {
                entry.verdict = Verdict::Impossible(error.to_string());
            }
            Err(error) => return Err(error),
        }
        tried.push(entry);
    }
    if let Some(index) = taken {
        tried[index].verdict = Verdict::Taken;
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

/// Sets a budget that was not met apart from what ends the work.
fn met(found: Result<Found>) -> Result<std::result::Result<Found, CompressError>> {
    match found {
        Ok(found) => Ok(Ok(found)),
        Err(error @ CompressError::Budget { .. }) => Ok(Err(error)),
        Err(error) => Err(error),
    }
}

/// Why a shape need not be searched; `None` if it must be.
fn outlook(
    context: &Context<'_>,
    shaped: &Gguf,
    kl: f64,
    figures: Option<&Figures>,
    best: Option<&Found>,
) -> Result<Option<Verdict>> {
    let too_much = match context.options.goal {
        Goal::Divergence => best.is_some_and(|best| kl >= best.kl),
        Goal::Size { kl_max } => kl >= kl_max,
    };
    if too_much {
        return Ok(Some(Verdict::CostsTooMuch));
    }
    let (Some(figures), Some(best)) = (figures, best) else { return Ok(None) };
    let hope = search::promises(context, shaped, kl, figures, best)?;
    Ok((!hope).then_some(Verdict::NoHope))
}

/// The source in another shape, beside the result, and how far that alone moves it.
fn reshaped(
    context: &Context<'_>,
    source: &Gguf,
    folder: &Path,
    reshape: Reshape,
    progress: &mut dyn FnMut(Stage<'_>),
) -> Result<(Gguf, f64)> {
    let name = reshape.name();
    let file = folder.join(format!("{name}.gguf"));
    if !file.exists() {
        let mut progress = |done, total| progress(Stage { name: &name, done, total });
        match reshape {
            Reshape::Prune(options) => {
                prune_file(source, &file, options, context.calibration, &mut progress)?;
            }
            Reshape::Factorize(options) => {
                factorize_file(source, &file, options, context.calibration, &mut progress)?;
            }
        }
    }
    let shaped = Gguf::open(&file)?;
    let length = context.reference.windows().length();
    let kl = context.reference.divergence(&mut session(&shaped, length, context.options.threads)?)?;
    Ok((shaped, kl))
}

fn folder_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".optimize");
    PathBuf::from(name)
}
