//! The true divergence of a model whose matrices are exchanged one by one.

use std::sync::Arc;

use ganglion_gguf::Gguf;
use ganglion_kernels::Matrix;
use ganglion_llm::{KvType, Model, ModelOptions, Session, SessionOptions, TokenId};

use crate::error::{CompressError, Result};
use crate::limits::REFERENCE_BYTES_MAX;
use crate::measure::{Distribution, Windows};

/// What the source makes of every scored token; nothing where it does not count.
pub(crate) struct Reference {
    windows: Windows,
    expected: Vec<Option<Distribution>>,
    counted: usize,
}

/// A session of its own.
pub(crate) fn session(gguf: &Gguf, length: usize, threads: usize) -> Result<Session> {
    let model = Arc::new(Model::load(gguf, ModelOptions { threads, ..ModelOptions::default() })?);
    let options = SessionOptions { batch_tokens: length, kv: KvType::F16, ..SessionOptions::new(length) };
    Ok(Session::new(model, options)?)
}

impl Reference {
    /// Evaluates the source on as many of the windows as there is memory for their logits. With `predicted` only tokens count
    /// that the source puts first itself.
    pub(crate) fn new(source: &mut Session, windows: Windows, predicted: bool) -> Result<Self> {
        let vocab = source.model().config().vocab_size;
        let scored = windows.scored_tokens() / windows.count();
        let most = REFERENCE_BYTES_MAX / (scored * vocab * size_of::<f32>()).max(1);
        let windows = windows.thinned(most.max(1));
        let mut expected = Vec::new();
        let mut counted = 0;
        each_scored(source, &windows, &mut |session, at, next| {
            let mut distribution = Distribution::new(vocab);
            distribution.read(session, at)?;
            let counts = !predicted || distribution.best() == next as usize;
            counted += usize::from(counts);
            expected.push(counts.then_some(distribution));
            Ok(())
        })?;
        if counted == 0 {
            let reason = "the source predicts no token of the text that divergence is measured on; give more text like what it was \
                          trained for, or leave --predicted-only away";
            return Err(CompressError::Budget { reason: reason.to_owned() });
        }
        Ok(Self { windows, expected, counted })
    }

    pub(crate) fn windows(&self) -> &Windows {
        &self.windows
    }

    /// Mean `KL(source ‖ model)`.
    pub(crate) fn divergence(&self, model: &mut Session) -> Result<f64> {
        let mut found = Distribution::new(model.model().config().vocab_size);
        let (mut sum, mut expected) = (0.0, self.expected.iter());
        each_scored(model, &self.windows, &mut |session, at, _| {
            if let Some(expected) = expected.next().and_then(Option::as_ref) {
                found.read(session, at)?;
                sum += expected.divergence_of(&found);
            }
            Ok(())
        })?;
        Ok(sum / self.counted as f64)
    }

    /// The divergence with these matrices in the places that their names say, and whether there are such places. The model
    /// is afterwards what it was.
    pub(crate) fn divergence_with(
        &self,
        model: &mut Session,
        matrices: &mut [(String, Matrix)],
    ) -> Result<Option<f64>> {
        let mut swapped = 0;
        for (name, matrix) in matrices.iter_mut() {
            if !model.swap_tensor(name, matrix) {
                break;
            }
            swapped += 1;
        }
        let found = if swapped == matrices.len() { self.divergence(model).map(Some) } else { Ok(None) };
        for (name, matrix) in matrices[..swapped].iter_mut().rev() {
            model.swap_tensor(name, matrix);
        }
        found
    }
}

/// Hands each scored position of each window to `look`, with the token that comes next.
fn each_scored(
    session: &mut Session,
    windows: &Windows,
    look: &mut dyn FnMut(&mut Session, usize, TokenId) -> Result<()>,
) -> Result<()> {
    for window in windows.iter() {
        session.truncate(0)?;
        session.prefill(window, &mut || false)?;
        for at in windows.first_scored()..window.len() - 1 {
            look(session, at, window[at + 1])?;
        }
    }
    Ok(())
}
