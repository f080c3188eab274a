//! The true divergence of a model whose matrices are exchanged one by one.

use std::sync::Arc;

use ganglion_gguf::Gguf;
use ganglion_kernels::Matrix;
use ganglion_llm::{KvType, Model, ModelOptions, Session, SessionOptions};

use crate::error::Result;
use crate::limits::REFERENCE_BYTES_MAX;
use crate::measure::{Distribution, Windows};

/// What the source makes of every scored token.
pub(crate) struct Reference {
    windows: Windows,
    expected: Vec<Distribution>,
}

/// A session of its own.
pub(crate) fn session(gguf: &Gguf, length: usize, threads: usize) -> Result<Session> {
    let model = Arc::new(Model::load(gguf, ModelOptions { threads, ..ModelOptions::default() })?);
    let options = SessionOptions { batch_tokens: length, kv: KvType::F16, ..SessionOptions::new(length) };
    Ok(Session::new(model, options)?)
}

impl Reference {
    /// Evaluates the source on as many of the windows as there is memory for their logits.
    pub(crate) fn new(source: &mut Session, windows: Windows) -> Result<Self> {
        let vocab = source.model().config().vocab_size;
        let scored = windows.scored_tokens() / windows.count();
        let most = REFERENCE_BYTES_MAX / (scored * vocab * size_of::<f32>()).max(1);
        let windows = windows.thinned(most.max(1));
        let mut expected = Vec::new();
        each_scored(source, &windows, &mut |session, at| {
            let mut distribution = Distribution::new(vocab);
            distribution.read(session, at)?;
            expected.push(distribution);
            Ok(())
        })?;
        Ok(Self { windows, expected })
    }

    pub(crate) fn windows(&self) -> &Windows {
        &self.windows
    }

    /// Mean `KL(source ‖ model)`.
    pub(crate) fn divergence(&self, model: &mut Session) -> Result<f64> {
        let mut found = Distribution::new(model.model().config().vocab_size);
        let (mut sum, mut expected) = (0.0, self.expected.iter());
        each_scored(model, &self.windows, &mut |session, at| {
            found.read(session, at)?;
            sum += expected.next().map_or(0.0, |expected| expected.divergence_of(&found));
            Ok(())
        })?;
        Ok(sum / self.expected.len().max(1) as f64)
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

fn each_scored(
    session: &mut Session,
    windows: &Windows,
    look: &mut dyn FnMut(&mut Session, usize) -> Result<()>,
) -> Result<()> {
    for window in windows.iter() {
        session.truncate(0)?;
        session.prefill(window, &mut || false)?;
        for at in windows.first_scored()..window.len() - 1 {
            look(session, at)?;
        }
    }
    Ok(())
}
