//! Learned rounding after AutoRound (Cheng et al. 2023), for one matrix at a time.
//!
//! Each value is rounded as if it lay V steps higher, V in [−½, ½]; V follows the sign of the gradient of the output's squared
//! error, which second moments give without the inputs themselves. Scales are those of least weighed error and stay: the
//! original learns factors for them too, and takes a whole decoder layer's output. Coordinate descent ends what small steps leave.

use ganglion_kernels::{BlockCode, BlockFormat};

use super::MatrixRef;
use super::output_error::{OutputError, normalised};
use crate::error::{CompressError, Result};
use crate::statistics::Statistics;

const TURNS: usize = 200;
/// Farthest that a value is taken to lie from where it lies, in steps.
const REACH: f32 = 0.5;

/// What all rows of a matrix share.
pub(super) struct Rounding {
    output: OutputError,
}

impl Rounding {
    /// # Errors
    /// [`CompressError::Moments`] without second moments that are numbers.
    pub(super) fn new(statistics: &Statistics, tensor: &str) -> Result<Self> {
        let moments = statistics.second_moments.clone().and_then(normalised);
        let moments = moments.ok_or_else(|| CompressError::Moments { tensor: tensor.to_owned() })?;
        Ok(Self { output: OutputError::new(&moments) })
    }

    pub(super) fn quantize(&self, format: BlockFormat, matrix: MatrixRef<'_>, out: &mut [u8]) -> Result<()> {
        let row_bytes = out.len() / matrix.rows().max(1);
        let importance = self.output.importance();
        for (row, out) in matrix.values.chunks_exact(importance.len()).zip(out.chunks_exact_mut(row_bytes)) {
            let blocks = row.chunks_exact(format.block()).zip(importance.chunks_exact(format.block()));
            let codes = blocks.map(|(x, w)| BlockCode::fit(format, x, Some(w)));
            let mut codes = self.learn(row, codes.collect::<std::result::Result<Vec<_>, _>>()?);
            self.output.descend(row, &mut codes);
            for (code, out) in codes.iter().zip(out.chunks_exact_mut(format.block_bytes())) {
                code.write(out);
            }
        }
        Ok(())
    }

    /// The best codes on the way.
    pub(super) fn learn(&self, row: &[f32], mut codes: Vec<BlockCode>) -> Vec<BlockCode> {
        let block = row.len() / codes.len();
        let mut shift = vec![0.0f32; row.len()];
        let mut difference = vec![0.0f32; row.len()];
        let mut gradient = vec![0.0f32; row.len()];
        let (mut best, mut least) = (codes.clone(), f64::INFINITY);
        for turn in 0..TURNS {
            for (j, x) in row.iter().enumerate() {
                let (code, place) = (&mut codes[j / block], j % block);
                let quant = code.nearest(place, x + shift[j] * code.step(place));
                code.set(place, quant);
                difference[j] = code.value(place, quant) - x;
            }
            let error = self.output.pull(&difference, &mut gradient);
            if error < least {
                (best, least) = (codes.clone(), error);
            }
            // The learning rate falls from 1 / TURNS to nothing, as in the original.
            let rate = (1.0 - turn as f32 / TURNS as f32) / TURNS as f32;
            for (j, shift) in shift.iter_mut().enumerate() {
                let slope = gradient[j] * codes[j / block].step(j % block);
                if slope != 0.0 {
                    *shift = (*shift - rate * slope.signum()).clamp(-REACH, REACH);
                }
            }
        }
        best
    }
}
