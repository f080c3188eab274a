//! What the matrices of a model read, learned from a text.
//!
//! The residual streams of all windows are kept, and the layers are gone through one after the other: a layer is run to see what
//! its matrices read, its matrices are quantised, and it is run again as it then is. So a layer's statistics
//! know the errors of those before it, and no more than one layer's second moments are in memory.

use std::collections::HashMap;
use std::sync::Arc;

use ganglion_kernels::Matrix;
use ganglion_llm::{KvType, Model, Reader, Session, SessionOptions};

use crate::error::Result;
use crate::limits::MOMENT_COLUMNS_MAX;
use crate::measure::Windows;
use crate::methods::Needs;
use crate::ranges::ByReader;
use crate::statistics::Statistics;

/// Walks through a model's layers with a text.
pub struct Calibrator {
    session: Session,
    /// (tokens, embedding) for each window: before the layer that comes next.
    streams: Vec<Vec<f32>>,
    threads: usize,
    layer: usize,
}

impl Calibrator {
    /// Begins before the first layer. The model is the caller's alone: its matrices are exchanged on the way.
    ///
    /// # Errors
    /// If a window is too long for a pass, or a token is not the model's.
    pub fn new(model: Model, windows: &Windows) -> Result<Self> {
        let (threads, length) = (model.threads(), windows.length());
        let options = SessionOptions { batch_tokens: length, kv: KvType::F32, ..SessionOptions::new(length) };
        let mut session = Session::new(Arc::new(model), options)?;
        let streams = windows.iter().map(|window| Ok(session.embed(window)?.to_vec()));
        let streams = streams.collect::<Result<_>>()?;
        Ok(Self { session, streams, threads, layer: 0 })
    }

    /// The layer that comes next.
    pub fn layer(&self) -> usize {
        self.layer
    }

    /// What the matrices of the next layer read.
    ///
    /// # Errors
    /// If an evaluation fails.
    pub fn statistics(&mut self, needs: Needs) -> Result<HashMap<Reader, Statistics>> {
        let found = std::cell::RefCell::new(HashMap::new());
        let threads = self.threads;
        let embedding = self.session.model().config().embedding_length;
        for stream in &self.streams {
            let tokens = stream.len() / embedding;
            let tap = |_: usize, reader: Reader, x: &[f32]| {
                let mut found = found.borrow_mut();
                let fresh = || fresh(x.len() / tokens, needs);
                found.entry(reader).or_insert_with(fresh).add(x, threads);
            };
            self.session.run_layer(self.layer, &mut stream.clone(), Some(&tap))?;
        }
        Ok(found.into_inner())
    }

    /// How large the values are that the matrices of the next layer read, each column's multiplied by the factor that its reader has.
    ///
    /// # Errors
    /// If an evaluation fails.
    pub(crate) fn magnitudes(&mut self, factors: &HashMap<Reader, Vec<f32>>) -> Result<ByReader> {
        let found = std::cell::RefCell::new(ByReader::new());
        for stream in &self.streams {
            let tap = |_: usize, reader: Reader, x: &[f32]| {
                let factors = factors.get(&reader).map(Vec::as_slice);
                found.borrow_mut().entry(reader).or_default().add(x, factors);
            };
            self.session.run_layer(self.layer, &mut stream.clone(), Some(&tap))?;
        }
        Ok(found.into_inner())
    }

    /// Takes all streams through the next layer with `matrices` in the places that their names say (`attn_q.weight`); those that
    /// the model keeps in another form stay as they were.
    ///
    /// # Errors
    /// If an evaluation fails.
    pub fn advance(&mut self, matrices: Vec<(String, Matrix)>) -> Result<()> {
        let mut swapped = Vec::new();
        for (name, mut matrix) in matrices {
            if self.session.swap_matrix(self.layer, &name, &mut matrix) {
                swapped.push((name, matrix));
            }
        }
        for stream in &mut self.streams {
            self.session.run_layer(self.layer, stream, None)?;
        }
        for (name, mut matrix) in swapped {
            self.session.swap_matrix(self.layer, &name, &mut matrix);
        }
        self.layer += 1;
        Ok(())
    }

    /// Takes all streams through the next layer as it is; how far it turns them: `1 − mean cos(before, after)`.
    ///
    /// # Errors
    /// If an evaluation fails.
    pub fn influence(&mut self) -> Result<f64> {
        let embedding = self.session.model().config().embedding_length;
        let before = self.streams.clone();
        self.advance(Vec::new())?;
        Ok(turned(&before, &self.streams, embedding))
    }

    /// Leaves the next layer out, as if the model did not have it.
    pub fn skip(&mut self) {
        self.layer += 1;
    }

    /// What the output matrix reads, once all layers are behind.
    ///
    /// # Errors
    /// If an evaluation fails.
    pub fn head(&mut self, needs: Needs) -> Result<Statistics> {
        let mut found = fresh(self.session.model().config().embedding_length, needs);
        for stream in &self.streams {
            let mut normed = stream.clone();
            self.session.norm_stream(&mut normed)?;
            found.add(&normed, self.threads);
        }
        Ok(found)
    }
}

/// `1 − mean cos(before, after)` over the tokens of streams of `width` values.
pub(crate) fn turned(before: &[Vec<f32>], after: &[Vec<f32>], width: usize) -> f64 {
    let pairs = before
        .iter()
        .zip(after)
        .flat_map(|(before, after)| before.chunks_exact(width).zip(after.chunks_exact(width)));
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let cosines: Vec<f64> =
        pairs.map(|(a, b)| dot(a, b) / (dot(a, a) * dot(b, b)).sqrt().max(f64::MIN_POSITIVE)).collect();
    1.0 - cosines.iter().sum::<f64>() / cosines.len().max(1) as f64
}

fn fresh(columns: usize, needs: Needs) -> Statistics {
    Statistics::new(columns, needs == Needs::Moments && columns <= MOMENT_COLUMNS_MAX)
}
