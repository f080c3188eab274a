//! A model as it is and as it becomes, side by side on the same text.
//!
//! Both are walked through layer by layer. The pruned one is kept in the shapes of the other, with zeros in the places of what went:
//! it computes the same. Its matrices are solved anew, layer after layer, for what comes nearest to the stream of the model as it is:
//! those that read the stream for their outputs there, those that write to it for the stream itself. So each layer makes up
//! for what earlier ones lost, and for whole layers that are missing.

use std::cell::RefCell;
use std::sync::Arc;

use ganglion_kernels::{BlockFormat, Matrix};
use ganglion_llm::{KvType, Model, Reader, Session, SessionOptions, Tap};

use super::eliminate::DAMPING;
use crate::error::{CompressError, Result};
use crate::linalg::{Square, cholesky, damped, solve};
use crate::measure::Windows;
use crate::statistics::add_outer;

/// (tokens, values) for each window.
type Streams = Vec<Vec<f32>>;

/// What matrices of the model as it is read in one layer.
#[derive(Default)]
pub(super) struct Exact {
    attention: Streams,
    feed_forward: Streams,
    /// The stream between the two parts of the layer.
    middle: Streams,
}

/// Is told a window, what a matrix read in it, and the stream after the layer.
type Listener<'a> = dyn FnMut(usize, &[f32], &[f32]) + 'a;

/// Both models on all windows.
pub(super) struct Twin {
    session: Session,
    exact: Streams,
    pruned: Streams,
    /// Values of the stream that stay; those behind are zeros in the pruned model.
    hidden: usize,
    /// Whether the streams differ by now.
    differs: bool,
    threads: usize,
}

impl Twin {
    pub(super) fn new(model: Model, windows: &Windows, hidden: usize) -> Result<Self> {
        let (threads, length) = (model.threads(), windows.length());
        let options = SessionOptions { batch_tokens: length, kv: KvType::F32, ..SessionOptions::new(length) };
        let mut session = Session::new(Arc::new(model), options)?;
        let streams = windows.iter().map(|window| Ok(session.embed(window)?.to_vec()));
        let exact = streams.collect::<Result<Streams>>()?;
        let mut pruned = exact.clone();
        let width = session.model().config().embedding_length;
        for row in pruned.iter_mut().flat_map(|stream| stream.chunks_exact_mut(width)) {
            row[hidden..].fill(0.0);
        }
        Ok(Self { session, exact, pruned, hidden, differs: hidden < width, threads })
    }

    #[cfg(test)]
    pub(super) fn exact(&self) -> &Streams {
        &self.exact
    }

    #[cfg(test)]
    pub(super) fn pruned(&self) -> &Streams {
        &self.pruned
    }

    fn width(&self) -> usize {
        self.session.model().config().embedding_length
    }

    pub(super) fn differs(&self) -> bool {
        self.differs
    }

    /// The pruned model is another one from here on.
    pub(super) fn diverge(&mut self) {
        self.differs = true;
    }

    /// Takes the exact streams through a layer, which must not have been changed yet.
    pub(super) fn advance_exact(&mut self, layer: usize) -> Result<()> {
        for stream in &mut self.exact {
            self.session.run_layer(layer, stream, None)?;
        }
        Ok(())
    }

    /// The same, keeping what its matrices read.
    pub(super) fn observe_exact(&mut self, layer: usize) -> Result<Exact> {
        let down = "ffn_down.weight";
        let mut matrix = self.nothing(layer, down)?;
        self.swap(layer, down, &mut matrix);
        let mut exact = Exact::default();
        for stream in &self.exact {
            let found = RefCell::new((Vec::new(), Vec::new()));
            let tap = |_: usize, reader: Reader, x: &[f32]| match reader {
                Reader::QueryKeyValue => found.borrow_mut().0 = x.to_vec(),
                Reader::FeedForward => found.borrow_mut().1 = x.to_vec(),
                _ => {}
            };
            let mut middle = stream.clone();
            self.session.run_layer(layer, &mut middle, Some(&tap))?;
            let (attention, feed_forward) = found.into_inner();
            exact.attention.push(attention);
            exact.feed_forward.push(feed_forward);
            exact.middle.push(middle);
        }
        self.swap(layer, down, &mut matrix);
        self.advance_exact(layer)?;
        Ok(exact)
    }

    /// A matrix of zeros in the shape of the model's, which is handed back by [`Twin::swap`].
    fn nothing(&self, layer: usize, name: &str) -> Result<Matrix> {
        let config = self.session.model().config();
        let (rows, columns) = (config.embedding_length, config.feed_forward_length);
        let zeros = vec![0; rows * columns * size_of::<f32>()];
        Ok(Matrix::pack(&format!("blk.{layer}.{name}"), BlockFormat::F32, rows, columns, &zeros)?)
    }

    fn swap(&mut self, layer: usize, name: &str, matrix: &mut Matrix) {
        assert!(self.session.swap_matrix(layer, name, matrix), "layer {layer} has a {name} of this shape");
    }

    /// Puts values in the place of a layer's matrix for good.
    pub(super) fn install(&mut self, layer: usize, name: &str, values: &[f32], columns: usize) -> Result<()> {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let rows = values.len() / columns;
        let mut matrix =
            Matrix::pack(&format!("blk.{layer}.{name}"), BlockFormat::F32, rows, columns, &bytes)?;
        self.swap(layer, name, &mut matrix);
        Ok(())
    }

    /// Takes the pruned streams through a layer.
    pub(super) fn advance_pruned(&mut self, layer: usize) -> Result<()> {
        for stream in &mut self.pruned {
            self.session.run_layer(layer, stream, None)?;
        }
        Ok(())
    }

    /// Runs the pruned layer on every window, and tells what `reader` read and the stream afterwards.
    fn each(&mut self, layer: usize, reader: Reader, tell: &mut Listener<'_>) -> Result<()> {
        for (index, stream) in self.pruned.iter().enumerate() {
            let found = RefCell::new(Vec::new());
            let tap: &Tap<'_> = &|_, by, x: &[f32]| {
                if by == reader {
                    *found.borrow_mut() = x.to_vec();
                }
            };
            let mut after = stream.clone();
            self.session.run_layer(layer, &mut after, Some(tap))?;
            tell(index, &found.borrow(), &after);
        }
        Ok(())
    }

    /// Second moments of what `reader` reads in the pruned layer: (columns, columns).
    pub(super) fn moments(&mut self, layer: usize, reader: Reader, columns: usize) -> Result<Square> {
        let mut moments = Square::zeros(columns);
        let threads = self.threads;
        self.each(layer, reader, &mut |_, x, _| {
            add_outer(&mut moments.values, (x, columns), (x, columns), threads);
        })?;
        Ok(moments)
    }

    /// What solves matrices that read the stream for the outputs that they have in the model as it is.
    pub(super) fn reader(&mut self, layer: usize, reader: Reader, exact: &Exact) -> Result<Refit> {
        let inputs = match reader {
            Reader::QueryKeyValue => &exact.attention,
            _ => &exact.feed_forward,
        };
        let (width, threads) = (self.width(), self.threads);
        let (mut moments, mut cross) = (Square::zeros(width), Square::zeros(width));
        self.each(layer, reader, &mut |index, x, _| {
            add_outer(&mut moments.values, (x, width), (x, width), threads);
            add_outer(&mut cross.values, (&inputs[index], width), (x, width), threads);
        })?;
        self.refit(&moments, cross, &format!("blk.{layer}: what {reader:?} reads"))
    }

    /// The same for the output matrix, behind all layers.
    pub(super) fn head(&mut self) -> Result<Refit> {
        let (width, threads) = (self.width(), self.threads);
        let (mut moments, mut cross) = (Square::zeros(width), Square::zeros(width));
        for (exact, pruned) in self.exact.iter().zip(&self.pruned) {
            let (mut exact, mut pruned) = (exact.clone(), pruned.clone());
            self.session.norm_stream(&mut exact)?;
            self.session.norm_stream(&mut pruned)?;
            add_outer(&mut moments.values, (&pruned, width), (&pruned, width), threads);
            add_outer(&mut cross.values, (&exact, width), (&pruned, width), threads);
        }
        self.refit(&moments, cross, "output")
    }

    fn refit(&self, moments: &Square, mut cross: Square, what: &str) -> Result<Refit> {
        let kept: Vec<usize> = (0..self.hidden).collect();
        let failed = || CompressError::Moments { tensor: what.to_owned() };
        let (lower, _) = damped(&moments.select(&kept), DAMPING, cholesky).ok_or_else(failed)?;
        // Σ (exact − pruned)·prunedᵀ
        cross.values.iter_mut().zip(&moments.values).for_each(|(c, m)| *c -= m);
        for row in 0..cross.size {
            solve(&lower, &mut cross.row_mut(row)[..self.hidden]);
        }
        Ok(Refit { hidden: self.hidden, correction: cross })
    }

    /// Solves a matrix that writes to the stream (`attn_output.weight`, `ffn_down.weight`, with zeros in the columns that went) for the
    /// exact stream behind it; `kept` are its columns that stay.
    pub(super) fn writer(
        &mut self,
        layer: usize,
        (name, reader): (&str, Reader),
        values: &mut [f32],
        kept: &[usize],
        exact: Option<&Exact>,
    ) -> Result<()> {
        let (width, hidden, threads) = (self.width(), self.hidden, self.threads);
        let columns = values.len() / width;
        self.install(layer, name, values, columns)?;
        let (mut moments, mut errors) = (Square::zeros(kept.len()), vec![0.0; hidden * kept.len()]);
        let targets = match exact {
            Some(exact) => exact.middle.clone(),
            None => self.exact.clone(),
        };
        let down = "ffn_down.weight";
        // The stream between the two parts is what comes out when the second one adds nothing.
        let mut nothing = if exact.is_some() { Some(self.nothing(layer, down)?) } else { None };
        if let Some(nothing) = &mut nothing {
            self.swap(layer, down, nothing);
        }
        self.each(layer, reader, &mut |index, x, after| {
            let chosen: Vec<f32> =
                x.chunks_exact(columns).flat_map(|row| kept.iter().map(|j| row[*j])).collect();
            let missing: Vec<f32> = targets[index]
                .chunks_exact(width)
                .zip(after.chunks_exact(width))
                .flat_map(|(target, found)| target.iter().zip(found).take(hidden).map(|(t, f)| t - f))
                .collect();
            let count = kept.len();
            add_outer(&mut moments.values, (&chosen, count), (&chosen, count), threads);
            add_outer(&mut errors, (&missing, hidden), (&chosen, count), threads);
        })?;
        if let Some(nothing) = &mut nothing {
            self.swap(layer, down, nothing);
        }
        let failed = || CompressError::Moments { tensor: format!("blk.{layer}.{name}") };
        let (lower, _) = damped(&moments, DAMPING, cholesky).ok_or_else(failed)?;
        let share = hidden.div_ceil(threads.max(1)) * kept.len();
        std::thread::scope(|scope| {
            for rows in errors.chunks_mut(share.max(1)) {
                let lower = &lower;
                scope.spawn(move || rows.chunks_exact_mut(kept.len()).for_each(|row| solve(lower, row)));
            }
        });
        for (row, change) in values.chunks_exact_mut(columns).zip(errors.chunks_exact(kept.len())) {
            kept.iter().zip(change).for_each(|(j, change)| row[*j] += *change as f32);
        }
        self.install(layer, name, values, columns)
    }
}

/// `W + W·C` with C the least squares of what the pruned stream lacks by what it has.
pub(super) struct Refit {
    hidden: usize,
    /// (width, width), of which the columns that stay count.
    correction: Square,
}

impl Refit {
    /// Solves a matrix of rows of the stream's width.
    pub(super) fn apply(&self, values: &mut [f32]) {
        let width = self.correction.size;
        for row in values.chunks_exact_mut(width) {
            let mut change = vec![0.0f64; self.hidden];
            for (weight, correction) in row.iter().zip(self.correction.values.chunks_exact(width)) {
                let weight = f64::from(*weight);
                change.iter_mut().zip(correction).for_each(|(change, c)| *change += weight * c);
            }
            row.iter_mut().zip(&change).for_each(|(w, change)| *w += *change as f32);
        }
    }
}
