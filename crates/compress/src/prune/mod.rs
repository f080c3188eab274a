//! Structured pruning: layers, heads, feed-forward channels and values of the stream go, and a smaller ordinary model is left.
//!
//! What goes is chosen by kind: `layers.rs`, `heads.rs`, `channels.rs`, `slice.rs`. What stays is solved anew (`twin.rs`), layer by layer,
//! so that the stream follows that of the model as it was. Models whose layers do more than read the stream and add to it are
//! solved for their own outputs instead: `W' = W·H[:, kept]·H[kept, kept]⁻¹` with H the second moments of the inputs.
//!
//! `sparse.rs` is the other kind of pruning: zeros in matrices of the old size.

mod channels;
mod choice;
mod eliminate;
#[cfg(test)]
pub(crate) mod golden;
mod heads;
mod layers;
mod plan;
mod slice;
mod sparse;
mod sparsegpt;
mod taylor;
mod twin;
mod wanda;
mod work;

use std::path::Path;

use ganglion_gguf::Gguf;
use ganglion_llm::{Config, FACTORED, FIRST, Model, ModelOptions};

pub use choice::Importance;
pub use sparse::{Pattern, SparseMethod, SparseOptions, SparseReport, sparsify_file};

use crate::calibrate::Calibrator;
use crate::error::{CompressError, Result};
use crate::measure::Windows;
use crate::output::Output;
use plan::{Axis, Plan, Sizes, axes};
use twin::Twin;
use work::Work;

/// What is to go.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PruneOptions {
    /// Whole layers.
    pub layers: usize,
    /// Key/value heads of each layer, with the query heads that share them.
    pub heads: usize,
    /// Query heads of each key/value head.
    pub queries: usize,
    /// Share of each feed-forward part's channels, 0 to 1.
    pub feed_forward: f64,
    /// Share of the values of the residual stream, 0 to 1.
    pub hidden: f64,
    /// Channels, and values of the stream, that stay are a multiple of this: 32 for the small formats, 256 for the k-quants.
    pub multiple: usize,
    /// How layers, heads and channels are chosen.
    pub importance: Importance,
    /// Threads.
    pub threads: usize,
}

impl Default for PruneOptions {
    /// Nothing.
    fn default() -> Self {
        Self {
            layers: 0,
            heads: 0,
            queries: 0,
            feed_forward: 0.0,
            hidden: 0.0,
            multiple: 32,
            importance: Importance::Reconstruction,
            threads: 1,
        }
    }
}

/// What went: sizes before and after.
#[derive(Debug, Clone, PartialEq)]
pub struct PruneReport {
    /// Block influence of each layer of the source, if layers were to go.
    pub influence: Vec<f64>,
    /// Layers of the source that went.
    pub removed_layers: Vec<usize>,
    /// Query heads.
    pub heads: (usize, usize),
    /// Key/value heads.
    pub kv_heads: (usize, usize),
    /// Channels of a feed-forward part.
    pub channels: (usize, usize),
    /// Values of the residual stream.
    pub hidden: (usize, usize),
    /// Values of all tensors.
    pub parameters: (u64, u64),
    /// Bytes of the file.
    pub size_bytes: u64,
}

/// Writes a pruned model to `path`, which holds what it held until the new file is whole; interrupted, a later call goes on. `progress`
/// is told of steps: done, of all.
///
/// # Errors
/// [`CompressError::Prune`] for a model or a share that this cannot be done with; a text that leads to values that are not
/// finite; a failure of the disk.
pub fn prune_file(
    source: &Gguf,
    path: &Path,
    options: PruneOptions,
    windows: &Windows,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<PruneReport> {
    let config = Config::from_header(source.header())?;
    let after = check(source, &config, options)?;
    let layers = config.layer_count;
    let turning = if after.hidden < config.embedding_length { layers } else { 0 };
    let steps = turning + if options.layers > 0 { 2 * layers } else { layers };
    if turning == 0 {
        return prune(source, path, (options, after), windows, &mut |done| progress(done, steps)).map(first);
    }
    let rotated = slice::rotated_path(path, source, windows);
    if !rotated.exists() {
        let turned =
            slice::principal_axes(source, windows, options.threads, &mut |done| progress(done, steps))?;
        slice::rotate_file(source, &rotated, &turned, options.threads)?;
    }
    let turned = Gguf::open(&rotated)?;
    let mut report =
        prune(&turned, path, (options, after), windows, &mut |done| progress(turning + done, steps))
            .map(first)?;
    report.parameters.0 = parameters(source);
    drop(turned);
    // What cannot be removed says by its name that it is left over.
    let _ = std::fs::remove_file(&rotated);
    Ok(report)
}

fn first<A, B>(both: (A, B)) -> A {
    both.0
}

fn parameters(gguf: &Gguf) -> u64 {
    gguf.tensors().iter().map(ganglion_gguf::TensorInfo::element_count).sum()
}

/// The sizes that stay.
fn check(source: &Gguf, config: &Config, options: PruneOptions) -> Result<Sizes> {
    let refuse = |reason: String| Err(CompressError::Prune { reason });
    let before = Sizes::of(config);
    if options.layers >= config.layer_count {
        return refuse(format!(
            "{} layers are to go, the model has {}; leave one at least",
            options.layers, config.layer_count
        ));
    }
    if options.heads >= before.kv_heads || options.queries >= before.group() {
        return refuse(format!(
            "{} key/value heads and {} query heads of each are to go, the model has {} with {} each; leave one at least",
            options.heads,
            options.queries,
            before.kv_heads,
            before.group()
        ));
    }
    for (what, share) in [("channels", options.feed_forward), ("the stream", options.hidden)] {
        if !(0.0..1.0).contains(&share) {
            return refuse(format!("the share of {what} is {share}, expected 0 to less than 1"));
        }
    }
    if options.layers > 0 && config.layers.windows(2).any(|pair| pair[0] != pair[1]) {
        return refuse("its layers differ in their windows, so that none can go".to_owned());
    }
    let multiple = options.multiple.max(1);
    let stays = |length: usize, share: f64| {
        let kept = (length as f64 * (1.0 - share) / multiple as f64).round() as usize * multiple;
        kept.clamp(multiple.min(length), length)
    };
    let kv_heads = before.kv_heads - options.heads;
    let after = Sizes {
        hidden: stays(before.hidden, options.hidden),
        heads: kv_heads * (before.group() - options.queries),
        kv_heads,
        channels: stays(before.channels, options.feed_forward),
        ..before
    };
    if after.hidden < before.hidden {
        slice::check(source, config)?;
    }
    if after == before && options.layers == 0 {
        return refuse(format!(
            "so little is to go that nothing does: what stays of {} channels and {} values of the stream is a multiple of {multiple}; take out \
             more, or give a smaller --multiple",
            before.channels, before.hidden
        ));
    }
    let mut needed = Vec::new();
    if after.heads < before.heads {
        needed.extend(["attn_q", "attn_k", "attn_v", "attn_output"]);
    }
    if after.channels < before.channels {
        needed.extend(["ffn_up", "ffn_down"]);
    }
    let factor = source.tensors().iter().find(|info| info.name.ends_with(FIRST));
    for name in needed {
        if let Some(info) = factor {
            return refuse(format!(
                "{} is a factor; prune the model as it was and factor what is left, or prune layers only",
                info.name
            ));
        }
        if !is_plain(source, &format!("{name}.weight"), before, config.layer_count) {
            return refuse(format!(
                "its tensor {name}.weight is not there by itself in every layer; prune layers only"
            ));
        }
    }
    Ok(after)
}

/// Whether every layer has this matrix, in the shape that its axes say.
fn is_plain(source: &Gguf, part: &str, sizes: Sizes, layers: usize) -> bool {
    let (columns, rows) = axes(part);
    let length = |axis: Axis| sizes.length(axis).unwrap_or(0) as u64;
    (0..layers).all(|layer| {
        let info = source.tensor(&format!("blk.{layer}.{part}"));
        info.is_ok_and(|info| info.shape == [length(columns), length(rows)])
    })
}

/// The report, and both models behind their last layers.
fn prune(
    source: &Gguf,
    path: &Path,
    (options, after): (PruneOptions, Sizes),
    windows: &Windows,
    progress: &mut dyn FnMut(usize),
) -> Result<(PruneReport, Twin)> {
    let config = Config::from_header(source.header())?;
    let (before, layers) = (Sizes::of(&config), config.layer_count);
    let load = || Model::load(source, ModelOptions { threads: options.threads, ..ModelOptions::default() });
    let importance = options.importance;
    let taylor = (importance == Importance::Taylor)
        .then(|| taylor::scores(source, windows, (before, layers), options.threads))
        .transpose()?;
    let (mut influence, mut removed, mut done) = (Vec::new(), Vec::new(), 0);
    if options.layers > 0 {
        influence = layers::influence(&mut Calibrator::new(load()?, windows)?, layers, progress)?;
        removed = layers::choose(importance, &influence, taylor.as_ref(), options.layers);
        done = layers;
    }
    let matrices: Vec<String> = FACTORED
        .iter()
        .map(|name| format!("{name}.weight"))
        .filter(|part| is_plain(source, part, before, layers))
        .collect();
    let writers = matrices.iter().filter(|part| axes(part).1 == Axis::Stream).count();
    let plain = config.has_plain_stream() && writers == 2;
    let solved = |part: &str| {
        plain && (part == "output.weight" || matrices.iter().any(|name| name == part))
            || part == "attn_output.weight" && after.heads < before.heads
            || part == "ffn_down.weight" && after.channels < before.channels
    };
    let plan = Plan::new(source, before, after, &removed, &solved)?;
    let layout = plan.header(source, &config)?.layout()?;
    let size_bytes = layout.size_bytes;
    let key =
        format!("{options:?} {removed:?} {:?} {:?}", source.modified(), windows.iter().collect::<Vec<_>>());
    let output = Output::open(path, layout, &key)?;
    let twin = Twin::new(load()?, windows, after.hidden)?;
    let remaining = plan.kept.iter().map(|kept| kept.shape.iter().product::<u64>()).sum();
    let mut work = Work { source, plan, output, twin, matrices, plain, importance, taylor };
    work.outside(false)?;
    for layer in 0..layers {
        if removed.contains(&layer) {
            // Those behind a layer that stays are part of what that one is solved for.
            if (0..layer).all(|before| removed.contains(&before)) {
                work.missing(layer)?;
            }
        } else {
            let follow = removed.iter().copied().filter(|gone| *gone > layer);
            let follow = follow.enumerate().take_while(|(i, gone)| *gone == layer + 1 + i).count();
            work.layer(layer, follow)?;
        }
        progress(done + layer + 1);
    }
    work.outside(true)?;
    work.output.finish()?;
    let report = PruneReport {
        influence,
        removed_layers: removed,
        heads: (before.heads, after.heads),
        kv_heads: (before.kv_heads, after.kv_heads),
        channels: (before.channels, after.channels),
        hidden: (before.hidden, after.hidden),
        parameters: (parameters(source), remaining),
        size_bytes,
    };
    Ok((report, work.twin))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tiny() -> Gguf {
        Gguf::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("../llm/tests/golden/tiny-f32.gguf")).unwrap()
    }

    fn folder(name: &str) -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("ganglion-prune-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    fn windows(source: &Gguf) -> Windows {
        let vocab = Config::from_header(source.header()).unwrap().vocab_size as u32;
        Windows::of_tokens((0..256).map(|i| i * 7919 % vocab).collect(), 32, 256).unwrap()
    }

    /// The streams of a model behind all its layers.
    fn streams(gguf: &Gguf, windows: &Windows) -> Vec<Vec<f32>> {
        let model = Model::load(gguf, ModelOptions { threads: 1, ..ModelOptions::default() }).unwrap();
        let config = model.config().clone();
        let mut twin = Twin::new(model, windows, config.embedding_length).unwrap();
        (0..config.layer_count).for_each(|layer| twin.advance_exact(layer).unwrap());
        twin.exact().to_vec()
    }

    #[test]
    fn the_file_computes_what_the_zeros_computed_that_stood_in_for_it() {
        let folder = folder("stands-in");
        let path = folder.join("model.gguf");
        let nothing = PruneOptions { multiple: 8, ..PruneOptions::default() };
        let source = tiny();
        let windows = windows(&source);
        let config = Config::from_header(source.header()).unwrap();
        for options in [
            PruneOptions { feed_forward: 0.4, ..nothing },
            PruneOptions { layers: 1, heads: config.head_count_kv / 2, ..nothing },
            PruneOptions { queries: 1, hidden: 0.25, feed_forward: 0.2, ..nothing },
        ] {
            let after = check(&source, &config, options).unwrap();
            let turned = if after.hidden < config.embedding_length {
                let axes = slice::principal_axes(&source, &windows, 1, &mut |_| ()).unwrap();
                slice::rotate_file(&source, &folder.join("turned.gguf"), &axes, 1).unwrap();
                Gguf::open(folder.join("turned.gguf")).unwrap()
            } else {
                tiny()
            };
            let (_, twin) = prune(&turned, &path, (options, after), &windows, &mut |_| ()).unwrap();
            let found = streams(&Gguf::open(&path).unwrap(), &windows);
            let mut largest = 0.0f32;
            for (found, expected) in found.iter().zip(twin.pruned()) {
                let rows = found.chunks(after.hidden).zip(expected.chunks(config.embedding_length));
                for (found, expected) in rows {
                    assert!(expected[after.hidden..].iter().all(|v| *v == 0.0), "{options:?}");
                    let size = expected.iter().fold(0.0f32, |a, b| a.max(b.abs()));
                    let differ = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                    largest = largest.max(differ / size);
                }
            }
            assert!(largest < 1e-4, "{options:?}: {largest}");
        }
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_turned_stream_changes_nothing_but_the_rounding() {
        let folder = folder("turned");
        let path = folder.join("model.gguf");
        let source = tiny();
        let windows = windows(&source);
        let axes = slice::principal_axes(&source, &windows, 2, &mut |_| ()).unwrap();
        slice::rotate_file(&source, &path, &axes, 2).unwrap();
        let logits = |gguf: &Gguf| {
            let model = Model::load(gguf, ModelOptions { threads: 1, ..ModelOptions::default() }).unwrap();
            let options = ganglion_llm::SessionOptions {
                kv: ganglion_llm::KvType::F32,
                ..ganglion_llm::SessionOptions::new(32)
            };
            let mut session = ganglion_llm::Session::new(std::sync::Arc::new(model), options).unwrap();
            session.prefill(windows.iter().next().unwrap(), &mut || false).unwrap();
            let mut logits = vec![0.0; session.model().config().vocab_size];
            session.logits_all(&mut logits).unwrap();
            logits
        };
        let (expected, found) = (logits(&source), logits(&Gguf::open(&path).unwrap()));
        let size = expected.iter().fold(0.0f32, |a, b| a.max(b.abs()));
        for (found, expected) in found.iter().zip(&expected) {
            assert!((found - expected).abs() < 1e-4 * size, "{found}, not {expected}");
        }
        let (before, after) = (streams(&source, &windows), streams(&Gguf::open(&path).unwrap(), &windows));
        assert!((before[0][0] - after[0][0]).abs() > 1e-3, "nothing was turned");
        std::fs::remove_dir_all(folder).unwrap();
    }
}
