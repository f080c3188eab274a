//! Activations as int8 blocks: quantised once per norm output, shared by all matrices that read it.

use crate::isa::{Isa, multiversion};
use crate::limits::{BLOCK, LANES};
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
        let total =
            |half: usize| values.as_chunks::<{ BLOCK / 2 }>().0[half].iter().map(|v| i32::from(*v)).sum();
        Self::from_sums([total(0), total(1)], scale)
    }

    /// From the sums of the two halves.
    #[inline(always)]
    fn from_sums([first, second]: [i32; 2], scale: f32) -> Self {
        let sum = first + second;
        Self { scale, weighted: scale * sum as f32, sum_negated: -sum, first_negated: -first }
    }
}

/// (tokens, k) activations as int8, with a scale and sums per block of 32.
///
/// `scale = amax / 127`, rounded half to even; the scale stays f32 (ggml rounds it to f16). A NaN or an infinity makes
/// the scale of its block NaN or infinite, so that it surfaces in every product instead of vanishing.
///
/// Blocks lie as (token / group, block, token mod group): what a kernel reads for several tokens is one stream. Few tokens are groups
/// of one.
#[derive(Debug)]
pub struct ActivationBuffer {
    values: Vec<[i8; BLOCK]>,
    meta: Vec<BlockMeta>,
    tokens_max: usize,
    k_max: usize,
    /// Shape of the current content.
    tokens: usize,
    k: usize,
}

/// Tokens side by side, once there are as many.
pub(crate) const GROUP: usize = 4;

fn group_of(tokens: usize) -> usize {
    if tokens < GROUP { 1 } else { GROUP }
}

impl ActivationBuffer {
    /// Blocks that a buffer holds.
    fn blocks_max(tokens_max: usize, k_max: usize) -> usize {
        tokens_max.next_multiple_of(GROUP) * k_max.div_ceil(BLOCK)
    }

    /// Bytes that [`ActivationBuffer::new`] allocates.
    pub fn scratch_bytes(tokens_max: usize, k_max: usize) -> usize {
        Self::blocks_max(tokens_max, k_max) * (BLOCK + size_of::<BlockMeta>())
    }

    /// A buffer for up to `tokens_max` rows of up to `k_max` values.
    pub fn new(tokens_max: usize, k_max: usize) -> Self {
        let blocks = Self::blocks_max(tokens_max, k_max);
        Self {
            values: vec![[0; BLOCK]; blocks],
            meta: vec![BlockMeta::default(); blocks],
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
        self.set_shape(tokens, k);
        if !k.is_multiple_of(BLOCK) {
            self.k = 0;
            return;
        }
        let group = group_of(tokens);
        let size = group * (k / BLOCK);
        let values = SharedSlice::new(&mut self.values);
        let meta = SharedSlice::new(&mut self.meta);
        pool.split(tokens.div_ceil(group), &|groups| {
            for index in groups {
                #[allow(unsafe_code)]
                // SAFETY: `split` gives every group to one thread, and groups do not overlap.
                let (values, meta) =
                    unsafe { (values.part(index * size, size), meta.part(index * size, size)) };
                let rows = &x[index * group * k..((index + 1) * group * k).min(x.len())];
                quantize_group(isa, rows, k, group, values, meta);
            }
        });
    }

    /// Loads given int8 values and scales instead of rounding floats: (tokens, k) and (tokens, k / 32).
    ///
    /// # Panics
    /// If the shapes disagree or exceed the capacity, or a value is −128, which rounding never gives: without it, two products
    /// fit an i16.
    pub fn set_quantized(&mut self, values: &[i8], scales: &[f32], tokens: usize, k: usize) {
        assert!(
            k.is_multiple_of(BLOCK) && values.len() == tokens * k && scales.len() * BLOCK == values.len()
        );
        assert!(!values.contains(&i8::MIN), "activations are -127 to 127");
        self.set_shape(tokens, k);
        let (group, blocks) = (group_of(tokens), k / BLOCK);
        for (i, (block, scale)) in values.as_chunks::<BLOCK>().0.iter().zip(scales).enumerate() {
            let (token, block_index) = (i / blocks, i % blocks);
            let at = (token / group * blocks + block_index) * group + token % group;
            self.values[at] = *block;
            self.meta[at] = BlockMeta::new(block, *scale);
        }
    }

    fn set_shape(&mut self, tokens: usize, k: usize) {
        assert!(tokens <= self.tokens_max && k <= self.k_max, "activations exceed the buffer");
        (self.tokens, self.k) = (tokens, k);
    }

    pub(crate) fn holds(&self, tokens: usize, k: usize) -> bool {
        self.tokens == tokens && self.k == k
    }

    pub(crate) fn tokens(&self) -> QuantTokens<'_> {
        let group = group_of(self.tokens);
        QuantTokens { blocks: self.k / BLOCK, group, values: &self.values, meta: &self.meta }
    }
}

/// Int8 activations as kernels see them.
#[derive(Clone, Copy)]
pub(crate) struct QuantTokens<'a> {
    blocks: usize,
    group: usize,
    values: &'a [[i8; BLOCK]],
    meta: &'a [BlockMeta],
}

/// The blocks of some tokens of one group: block b of token p is at `b · stride + p`.
#[derive(Clone, Copy)]
pub(crate) struct TokenStream<'a> {
    pub(crate) values: &'a [[i8; BLOCK]],
    pub(crate) meta: &'a [BlockMeta],
    pub(crate) stride: usize,
}

impl<'a> QuantTokens<'a> {
    /// The blocks of `token` and of those after it in its group.
    #[inline(always)]
    pub(crate) fn stream(&self, token: usize) -> TokenStream<'a> {
        let first = token / self.group * self.blocks * self.group;
        let range = first + token % self.group..first + self.blocks * self.group;
        TokenStream { values: &self.values[range.clone()], meta: &self.meta[range], stride: self.group }
    }
}

multiversion! {
    /// Up to `group` rows of k values.
    fn quantize_group(
        isa,
        rows: &[f32],
        k: usize,
        group: usize,
        values: &mut [[i8; BLOCK]],
        meta: &mut [BlockMeta],
    ) {
        for (token, row) in rows.chunks_exact(k).enumerate() {
            for (i, block) in row.as_chunks::<BLOCK>().0.iter().enumerate() {
                let at = i * group + token;
                meta[at] = quantize_block(block, &mut values[at]);
            }
        }
    }
}

#[inline(always)]
fn quantize_block(block: &[f32; BLOCK], output: &mut [i8; BLOCK]) -> BlockMeta {
    let (halves, _) = block.as_chunks::<LANES>();
    // Magnitudes compared as integers order like floats, with NaN above all: it cannot be lost.
    let mut lanes = [0u32; LANES];
    for half in halves {
        for (lane, v) in lanes.iter_mut().zip(half) {
            *lane = (*lane).max(v.to_bits() & 0x7fff_ffff);
        }
    }
    let amax = lanes.iter().fold(0, |a: u32, b| a.max(*b));
    let d = f32::from_bits(amax) / 127.0;
    let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
    let mut sums = [0i32; 2];
    let (outputs, _) = output.as_chunks_mut::<LANES>();
    for ((sum, output), half) in sums.iter_mut().zip(outputs).zip(halves) {
        let mut rounded = [0i32; LANES];
        for (q, v) in rounded.iter_mut().zip(half) {
            // Clamped: for subnormal scales the inverse is infinite.
            *q = i32::from(round_even((v * inverse).clamp(-127.0, 127.0)).1 as i8);
        }
        for (to, q) in output.iter_mut().zip(&rounded) {
            *to = *q as i8;
        }
        *sum = rounded.iter().sum();
    }
    BlockMeta::from_sums(sums, d)
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
