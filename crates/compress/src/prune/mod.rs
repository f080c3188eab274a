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

use std::collections::BTreeMap;
use std::path::Path;

use ganglion_gguf::Gguf;
use ganglion_llm::{Config, FACTORED, Model, ModelOptions, Reader};

pub use choice::Importance;
pub use sparse::{Pattern, SparseMethod, SparseOptions, SparseReport, sparsify_file};

use crate::calibrate::Calibrator;
use crate::error::{CompressError, Result};
use crate::measure::Windows;
use crate::mix::layer_part;
use crate::output::Output;
use choice::Choice;
use plan::{Axis, Cut, Plan, Sizes, axes, part_of, values_of};
use taylor::Taylor;
use twin::{Exact, Twin};

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
    /// How heads and channels are chosen.
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
    /// Influence of each layer of the source, if layers were to go.
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
        return prune(source, path, (options, after), windows, &mut |done| progress(done, steps));
    }
    let rotated = slice::rotated_path(path, source, windows);
    if !rotated.exists() {
        let turned =
            slice::principal_axes(source, windows, options.threads, &mut |done| progress(done, steps))?;
        slice::rotate_file(source, &rotated, &turned, options.threads)?;
    }
    let turned = Gguf::open(&rotated)?;
    let mut report =
        prune(&turned, path, (options, after), windows, &mut |done| progress(turning + done, steps))?;
    report.parameters.0 = parameters(source);
    drop(turned);
    // What cannot be removed says by its name that it is left over.
    let _ = std::fs::remove_file(&rotated);
    Ok(report)
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
    let mut needed = Vec::new();
    if after.heads < before.heads {
        needed.extend(["attn_q", "attn_k", "attn_v", "attn_output"]);
    }
    if after.channels < before.channels {
        needed.extend(["ffn_up", "ffn_down"]);
    }
    for name in needed {
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

fn prune(
    source: &Gguf,
    path: &Path,
    (options, after): (PruneOptions, Sizes),
    windows: &Windows,
    progress: &mut dyn FnMut(usize),
) -> Result<PruneReport> {
    let config = Config::from_header(source.header())?;
    let (before, layers) = (Sizes::of(&config), config.layer_count);
    let load = || Model::load(source, ModelOptions { threads: options.threads, ..ModelOptions::default() });
    let (mut influence, mut removed, mut done) = (Vec::new(), Vec::new(), 0);
    if options.layers > 0 {
        influence = layers::influence(&mut Calibrator::new(load()?, windows)?, layers, progress)?;
        removed = layers::least(&influence, options.layers);
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
    let taylor = (options.importance == Importance::Taylor)
        .then(|| taylor::scores(source, windows, (before, layers), options.threads))
        .transpose()?;
    let importance = options.importance;
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
    Ok(PruneReport {
        influence,
        removed_layers: removed,
        heads: (before.heads, after.heads),
        kv_heads: (before.kv_heads, after.kv_heads),
        channels: (before.channels, after.channels),
        hidden: (before.hidden, after.hidden),
        parameters: (parameters(source), remaining),
        size_bytes,
    })
}

/// Values of a layer's matrices in the source's shape, by name without the layer.
type Values = BTreeMap<String, Vec<f32>>;

struct Work<'a> {
    source: &'a Gguf,
    plan: Plan,
    output: Output,
    twin: Twin,
    /// Names, without the layer, of the matrices that stand by themselves in every layer.
    matrices: Vec<String>,
    plain: bool,
    importance: Importance,
    taylor: Option<Taylor>,
}

impl Work<'_> {
    /// Tensors outside of layers: those that depend on nothing, or those that are solved behind all layers.
    fn outside(&mut self, solved: bool) -> Result<()> {
        let everything = Cut { queries: Vec::new(), key_values: Vec::new(), channels: Vec::new() };
        for (index, kept) in self.plan.kept.iter().enumerate() {
            let info = &self.source.tensors()[kept.source];
            if layer_part(&info.name).is_some() || kept.solved != solved || self.output.is_done(index) {
                continue;
            }
            if self.plan.is_copied(kept, self.source) {
                self.output.write(index, self.source.tensor_bytes(&info.name)?)?;
                continue;
            }
            let mut values = values_of(self.source, info)?;
            if solved && self.twin.differs() {
                self.twin.head()?.apply(&mut values);
            }
            self.output.write(index, &self.plan.stored(kept, info, &values, &everything)?)?;
        }
        Ok(())
    }

    /// A layer that goes, with none before it that stays.
    fn missing(&mut self, layer: usize) -> Result<()> {
        self.twin.diverge();
        if self.plain { self.twin.advance_exact(layer) } else { Ok(()) }
    }

    /// Prunes a layer behind which `follow` layers go.
    fn layer(&mut self, layer: usize, follow: usize) -> Result<()> {
        let of = |index: &usize| {
            let info = &self.source.tensors()[self.plan.kept[*index].source];
            layer_part(&info.name).is_some_and(|(of, _)| of == layer)
        };
        let indices: Vec<usize> = (0..self.plan.kept.len()).filter(of).collect();
        // Biases cannot be moved with what they belong to: what was chosen must be known to stand in for the result.
        let biased = indices.iter().any(|index| {
            let info = &self.source.tensors()[self.plan.kept[*index].source];
            let (columns, rows) = axes(part_of(&info.name));
            rows == Axis::Whole && ![Axis::Whole, Axis::Stream].contains(&columns)
        });
        let done = !biased && indices.iter().all(|index| self.output.is_done(*index));
        let exact = match (self.plain, done) {
            (true, false) => Some(self.twin.observe_exact(layer)?),
            (true, true) => self.twin.advance_exact(layer).map(|()| None)?,
            (false, _) => None,
        };
        if self.plain {
            (layer + 1..=layer + follow).try_for_each(|gone| self.twin.advance_exact(gone))?;
        }
        let cut = if done {
            None
        } else {
            let (values, cut) = self.solve(layer, exact.as_ref(), follow > 0)?;
            self.write(&indices, &values, &cut)?;
            Some(cut).filter(|_| biased)
        };
        if follow > 0 {
            self.twin.diverge();
        }
        self.go_on(layer, &indices, cut.as_ref())
    }

    /// Chooses what stays of a layer, and solves it.
    fn solve(&mut self, layer: usize, exact: Option<&Exact>, before_missing: bool) -> Result<(Values, Cut)> {
        let (before, after) = (self.plan.before, self.plan.after);
        let mut values = Values::new();
        for part in &self.matrices {
            let info = self.source.tensor(&format!("blk.{layer}.{part}"))?;
            let mut found = values_of(self.source, info)?;
            if axes(part).1 == Axis::Stream {
                let columns = info.shape[0] as usize;
                found[after.hidden * columns..].fill(0.0);
            }
            values.insert(part.clone(), found);
        }
        let (query_length, kv_length) = (before.heads * before.head_dim, before.kv_heads * before.head_dim);
        let mut cut = Cut {
            queries: (0..query_length).collect(),
            key_values: (0..kv_length).collect(),
            channels: (0..before.channels).collect(),
        };
        let failed = |name: &str| CompressError::Moments { tensor: format!("blk.{layer}.{name}") };

        self.readers(layer, Reader::QueryKeyValue, exact, &mut values)?;
        let (name, reader) = ("attn_output.weight", Reader::AttentionOutput);
        let fewer = after.heads < before.heads;
        if fewer {
            let moments = self.twin.moments(layer, reader, query_length)?;
            let given = self.taylor.as_ref().map(|taylor| &taylor.queries[layer][..]);
            let choice = Choice::new(self.importance, moments, values[name].clone(), given);
            (cut.queries, cut.key_values) =
                heads::choose(&choice, before, after).ok_or_else(|| failed(name))?;
            self.writer(layer, (name, reader), &choice, &cut.queries, exact, &mut values)?;
        } else if exact.is_some() && self.twin.differs() {
            self.twin.writer(layer, (name, reader), of(&mut values, name), &cut.queries, exact)?;
        }

        self.readers(layer, Reader::FeedForward, exact, &mut values)?;
        let (name, reader) = ("ffn_down.weight", Reader::Down);
        let fewer = after.channels < before.channels;
        if fewer {
            let moments = self.twin.moments(layer, reader, before.channels)?;
            let given = self.taylor.as_ref().map(|taylor| &taylor.channels[layer][..]);
            let choice = Choice::new(self.importance, moments, values[name].clone(), given);
            cut.channels =
                channels::choose(&choice, before.channels, after.channels).ok_or_else(|| failed(name))?;
            self.writer(layer, (name, reader), &choice, &cut.channels, exact, &mut values)?;
        } else if exact.is_some() && (before_missing || self.twin.differs()) {
            self.twin.writer(layer, (name, reader), of(&mut values, name), &cut.channels, None)?;
        }
        Ok((values, cut))
    }

    /// Solves the matrices that read the stream in one place.
    fn readers(
        &mut self,
        layer: usize,
        reader: Reader,
        exact: Option<&Exact>,
        values: &mut Values,
    ) -> Result<()> {
        let Some(exact) = exact.filter(|_| self.twin.differs()) else { return Ok(()) };
        let refit = self.twin.reader(layer, reader, exact)?;
        for (part, values) in
            values.iter_mut().filter(|(part, _)| crate::quantize::reader_of(part) == Some(reader))
        {
            refit.apply(values);
            self.twin.install(layer, part, values, self.plan.before.hidden)?;
        }
        Ok(())
    }

    /// Solves a matrix that writes to the stream and loses columns.
    fn writer(
        &mut self,
        layer: usize,
        (name, reader): (&str, Reader),
        choice: &Choice,
        kept: &[usize],
        exact: Option<&Exact>,
        values: &mut Values,
    ) -> Result<()> {
        let failed = || CompressError::Moments { tensor: format!("blk.{layer}.{name}") };
        let values = of(values, name);
        let solved = choice.compensated(kept).ok_or_else(failed)?;
        let columns = values.len() / self.plan.before.hidden;
        values.fill(0.0);
        for (row, solved) in values.chunks_exact_mut(columns).zip(solved.chunks_exact(kept.len())) {
            kept.iter().zip(solved).for_each(|(j, value)| row[*j] = *value);
        }
        self.twin.diverge();
        match exact {
            Some(exact) => {
                let middle = (reader == Reader::AttentionOutput).then_some(exact);
                self.twin.writer(layer, (name, reader), values, kept, middle)
            }
            None => self.twin.install(layer, name, values, columns),
        }
    }

    /// Stores a layer.
    fn write(&mut self, indices: &[usize], values: &Values, cut: &Cut) -> Result<()> {
        for index in indices.iter().filter(|index| !self.output.is_done(**index)).copied().collect::<Vec<_>>()
        {
            let kept = &self.plan.kept[index];
            let info = &self.source.tensors()[kept.source];
            let bytes = self.source.tensor_bytes(&info.name)?;
            if self.plan.is_copied(kept, self.source) {
                self.output.write(index, bytes)?;
                continue;
            }
            let stored = match (values.get(part_of(&info.name)), self.plan.rows(kept, info, bytes, cut)) {
                (_, Some(rows)) => rows,
                (Some(values), None) => self.plan.stored(kept, info, values, cut)?,
                (None, None) => self.plan.stored(kept, info, &values_of(self.source, info)?, cut)?,
            };
            self.output.write(index, &stored)?;
        }
        Ok(())
    }

    /// Takes the pruned stream through the layer as it is stored.
    fn go_on(&mut self, layer: usize, indices: &[usize], cut: Option<&Cut>) -> Result<()> {
        for index in indices {
            let kept = &self.plan.kept[*index];
            let info = &self.source.tensors()[kept.source];
            let part = part_of(&info.name);
            if self.plan.is_copied(kept, self.source) || !self.matrices.iter().any(|name| name == part) {
                continue;
            }
            let bytes = self.output.read(*index)?;
            let values = self.plan.widened(kept, info, &bytes, cut)?;
            self.twin.install(layer, part, &values, info.shape[0] as usize)?;
        }
        self.twin.advance_pruned(layer)
    }
}

fn of<'v>(values: &'v mut Values, name: &str) -> &'v mut Vec<f32> {
    values.get_mut(name).unwrap_or_else(|| unreachable!("{name} was checked to be there"))
}
