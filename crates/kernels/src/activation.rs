//! Activations as int8 blocks: quantised once per norm output, shared by all matrices that read it.

use crate::isa::{Isa, multiversion};
use crate::limits::BLOCK;
use crate::math::round_even;
use crate::pool::Pool;
use crate::shared::SharedSlice;

/// What a product needs to know of a block of 32 activations besides their values.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[repr(C)]
pub(crate) struct BlockMeta {
    pub(crate) scale: f32,
    /// `scale · Σ values`: what a minimum of the weights is multiplied with.
    pub(crate) weighted: f32,
    /// `-Σ values`: where sums start, times the zero point of the weights.
    pub(crate) sum_negated: i32,
    /// The same of the first half of the block.
    pub(crate) first_negated: i32,
}

impl BlockMeta {
    #[inline(always)]
    fn new(values: &[i8; BLOCK], scale: f32) -> Self {
        let mut halves = [0i32; 2];
        for i in 0..BLOCK / 2 {
            halves[0] -= i32::from(values[i]);
            halves[1] -= i32::from(values[i + BLOCK / 2]);
        }
        let sum_negated = halves[0] + halves[1];
        Self { scale, weighted: scale * -sum_negated as f32, sum_negated, first_negated: halves[0] }
    }
}

/// (tokens, k) activations as int8, with a scale and sums per block of 32.
///
/// `scale = amax / 127`, rounded half to even; the scale stays f32 (ggml rounds it to f16). A NaN or an infinity makes
/// the scale of its block NaN or infinite, so that it surfaces in every product instead of vanishing.
#[derive(Debug)]
pub struct ActivationBuffer {
    pub(crate) values: Vec<i8>,
    pub(crate) meta: Vec<BlockMeta>,
    tokens_max: usize,
    k_max: usize,
    /// Shape of the current content.
    tokens: usize,
    k: usize,
}

impl ActivationBuffer {
    /// Bytes that [`ActivationBuffer::new`] allocates.
    pub fn scratch_bytes(tokens_max: usize, k_max: usize) -> usize {
        tokens_max * (k_max + k_max.div_ceil(BLOCK) * size_of::<BlockMeta>())
    }

    /// A buffer for up to `tokens_max` rows of up to `k_max` values.
    pub fn new(tokens_max: usize, k_max: usize) -> Self {
        let blocks = k_max.div_ceil(BLOCK);
        Self {
            values: vec![0; tokens_max * k_max],
            meta: vec![BlockMeta::default(); tokens_max * blocks],
            tokens_max,
            k_max,
            tokens: 0,
            k: 0,
        }
    }

    /// Fills the buffer from `x`, a (tokens, k) matrix. Rows that are not whole blocks are not quantised: no
    /// quantised weight has such rows.
    ///
    /// # Panics
    /// If `x` is not (tokens, k) or exceeds the capacity.
    pub fn quantize(&mut self, isa: Isa, pool: &Pool, x: &[f32], tokens: usize, k: usize) {
        assert!(x.len() == tokens * k, "activations are not (tokens, k)");
        assert!(tokens <= self.tokens_max && k <= self.k_max, "activations exceed the buffer");
        (self.tokens, self.k) = (tokens, k);
        if !k.is_multiple_of(BLOCK) {
            self.k = 0;
            return;
        }
        let blocks = k / BLOCK;
        let values = SharedSlice::new(&mut self.values[..tokens * k]);
        let meta = SharedSlice::new(&mut self.meta[..tokens * blocks]);
        pool.split(tokens, &|range| {
            let (first, count) = (range.start, range.len());
            #[allow(unsafe_code)]
            // SAFETY: the token ranges of `split` are disjoint, and so are their parts of the two arrays.
            let (values, meta) =
                unsafe { (values.part(first * k, count * k), meta.part(first * blocks, count * blocks)) };
            quantize_blocks(isa, &x[first * k..(first + count) * k], values, meta);
        });
    }

    /// Loads given int8 values and scales instead of rounding floats: (tokens, k) and (tokens, k / 32).
    ///
    /// # Panics
    /// If the shapes disagree or exceed the capacity.
    pub fn set_quantized(&mut self, values: &[i8], scales: &[f32], tokens: usize, k: usize) {
        assert!(
            k.is_multiple_of(BLOCK) && values.len() == tokens * k && scales.len() * BLOCK == values.len()
        );
        assert!(tokens <= self.tokens_max && k <= self.k_max, "activations exceed the buffer");
        (self.tokens, self.k) = (tokens, k);
        self.values[..values.len()].copy_from_slice(values);
        let (blocks, _) = values.as_chunks::<BLOCK>();
        for ((meta, block), scale) in self.meta.iter_mut().zip(blocks).zip(scales) {
            *meta = BlockMeta::new(block, *scale);
        }
    }

    pub(crate) fn holds(&self, tokens: usize, k: usize) -> bool {
        self.tokens == tokens && self.k == k
    }
}

multiversion! {
    fn quantize_blocks(isa, x: &[f32], values: &mut [i8], meta: &mut [BlockMeta]) {
        let (blocks, _) = x.as_chunks::<BLOCK>();
        let (outputs, _) = values.as_chunks_mut::<BLOCK>();
        for ((block, output), meta) in blocks.iter().zip(outputs).zip(meta) {
            // Magnitudes compared as integers order like floats, with NaN above all: it cannot be lost.
            let mut amax = 0u32;
            for v in block {
                amax = amax.max(v.to_bits() & 0x7fff_ffff);
            }
            let d = f32::from_bits(amax) / 127.0;
            let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
            for (q, v) in output.iter_mut().zip(block) {
                // Clamped: for subnormal scales the inverse is infinite.
                *q = round_even((v * inverse).clamp(-127.0, 127.0)).1 as i8;
            }
            *meta = BlockMeta::new(output, d);
        }
    }
}

/// What a matrix product reads: the same activations as floats (for float weights) and as int8 blocks.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    pub(crate) values: &'a [f32],
    pub(crate) quantised: &'a ActivationBuffer,
}

impl<'a> Input<'a> {
    /// Pairs (tokens, k) floats with the buffer that was quantised from them.
    pub fn new(values: &'a [f32], quantised: &'a ActivationBuffer) -> Self {
        Self { values, quantised }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn not_a_number_is_never_swallowed() {
        let pool = Pool::new(1).unwrap();
        for bad in [f32::NAN, -f32::NAN, f32::INFINITY] {
            let mut x = vec![1.0; 64];
            x[40] = bad;
            let mut buffer = ActivationBuffer::new(1, 64);
            buffer.quantize(Isa::detect(), &pool, &x, 1, 64);
            assert_eq!(buffer.meta[0].scale, 1.0 / 127.0);
            assert!(!buffer.meta[1].scale.is_finite());
        }
    }

    #[test]
    fn subnormal_and_zero_blocks_are_harmless() {
        let pool = Pool::new(1).unwrap();
        let mut x = vec![0.0; 64];
        x[32] = 1e-44;
        let mut buffer = ActivationBuffer::new(1, 64);
        buffer.quantize(Isa::detect(), &pool, &x, 1, 64);
        assert!(buffer.meta.iter().all(|m| m.scale.is_finite()));
        assert_eq!(buffer.meta[0].sum_negated, 0);
    }
}
