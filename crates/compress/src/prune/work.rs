//! A model pruned layer by layer: what goes is chosen, what stays is solved, stored, and stands in for the layer from there on.

use std::collections::BTreeMap;

use ganglion_gguf::Gguf;
use ganglion_llm::Reader;

use super::choice::{Choice, Importance};
use super::plan::{Axis, Cut, Plan, axes, part_of, values_of};
use super::taylor::Taylor;
use super::twin::{Exact, Twin};
use super::{channels, heads};
use crate::error::{CompressError, Result};
use crate::mix::layer_part;
use crate::output::Output;

/// Values of a layer's matrices in the source's shape, by name without the layer.
type Values = BTreeMap<String, Vec<f32>>;

pub(super) struct Work<'a> {
    pub(super) source: &'a Gguf,
    pub(super) plan: Plan,
    pub(super) output: Output,
    pub(super) twin: Twin,
    /// Names, without the layer, of the matrices that stand by themselves in every layer.
    pub(super) matrices: Vec<String>,
    pub(super) plain: bool,
    pub(super) importance: Importance,
    pub(super) taylor: Option<Taylor>,
}

impl Work<'_> {
    /// Tensors outside of layers: those that depend on nothing, or those that are solved behind all layers.
    pub(super) fn outside(&mut self, solved: bool) -> Result<()> {
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
    pub(super) fn missing(&mut self, layer: usize) -> Result<()> {
        self.twin.diverge();
        if self.plain { self.twin.advance_exact(layer) } else { Ok(()) }
    }

    /// Prunes a layer behind which `follow` layers go.
    pub(super) fn layer(&mut self, layer: usize, follow: usize) -> Result<()> {
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
        for (part, values) in values.iter_mut().filter(|(part, _)| Reader::of_tensor(part) == Some(reader)) {
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
