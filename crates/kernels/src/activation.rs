//! Activations as int8 blocks: quantised once per norm output, shared by all matrices that read it.

use crate::block::BlockFormat;
use crate::isa::{Isa, multiversion};
use crate::limits::{BLOCK, ROTATION_MAX, WHOLE_SUM_BLOCKS};
use crate::math::round_even;
use crate::matrix::Matrix;
use crate::pool::Pool;
use crate::rotation::{Side, rotate, rotation_width};
use crate::shared::SharedSlice;

/// How the activations lie that a format reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A scale for each block of 32.
    Blocks,
    /// The same after a rotation ([`rotate`]): trellis formats.
    Rotated,
    /// One scale for a whole token, or a fixed one: I8_ROW.
    Token,
}

/// A set of forms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Forms([bool; 3]);

impl Forms {
    /// With what a format reads.
    pub const fn with(mut self, format: BlockFormat) -> Self {
        if format.is_quantized() {
            self.0[format.form() as usize] = true;
        }
        self
    }

    const fn has(self, form: Form) -> bool {
        self.0[form as usize]
    }
}

impl BlockFormat {
    /// The form of the activations that its products read. Floats read floats.
    pub const fn form(self) -> Form {
        match self {
            Self::T2 | Self::T3 | Self::T4 => Form::Rotated,
            Self::I8_ROW => Form::Token,
            _ => Form::Blocks,
        }
    }
}

const FORMS: [Form; 3] = [Form::Blocks, Form::Rotated, Form::Token];

/// What a product needs to know of a block of 32 activations besides their values. Of [`Form::Token`], sums are those of all blocks
/// from the last multiple of [`WHOLE_SUM_BLOCKS`] on.
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

/// 32 activations of one token: 48 bytes.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C, align(16))]
pub(crate) struct Block {
    pub(crate) values: [i8; BLOCK],
    pub(crate) meta: BlockMeta,
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
    /// By [`Form`]; empty until a form is wanted.
    forms: [Content; FORMS.len()],
    tokens_max: usize,
    k_max: usize,
}

/// The blocks of one form, and the shape of what they hold.
#[derive(Debug, Default)]
struct Content {
    blocks: Vec<Block>,
    tokens: usize,
    k: usize,
}

/// Tokens side by side, once there are as many.
pub(crate) const GROUP: usize = 4;

fn group_of(tokens: usize) -> usize {
    if tokens < GROUP { 1 } else { GROUP }
}

impl ActivationBuffer {
    /// Blocks that a buffer holds of each form.
    fn blocks_max(tokens_max: usize, k_max: usize) -> usize {
        tokens_max.next_multiple_of(GROUP) * k_max.div_ceil(BLOCK)
    }

    /// Bytes that [`ActivationBuffer::with_forms`] allocates.
    pub fn scratch_bytes(tokens_max: usize, k_max: usize, forms: Forms) -> usize {
        let count = FORMS.into_iter().filter(|form| forms.has(*form)).count();
        count * Self::blocks_max(tokens_max, k_max) * size_of::<Block>()
    }

    /// A buffer for up to `tokens_max` rows of up to `k_max` values.
    pub fn new(tokens_max: usize, k_max: usize) -> Self {
        Self::with_forms(tokens_max, k_max, Forms::default().with(BlockFormat::Q8_0))
    }

    /// As [`ActivationBuffer::new`], with memory for these forms. A form that is wanted later takes its memory then.
    pub fn with_forms(tokens_max: usize, k_max: usize, forms: Forms) -> Self {
        let mut buffer = Self { forms: Default::default(), tokens_max, k_max };
        for form in FORMS.into_iter().filter(|form| forms.has(*form)) {
            buffer.reserve(form);
        }
        buffer
    }

    fn reserve(&mut self, form: Form) {
        let blocks = Self::blocks_max(self.tokens_max, self.k_max);
        self.forms[form as usize].blocks.resize(blocks, Block::default());
    }

    /// Fills the buffer from `x`, a (tokens, k) matrix, in blocks of 32. Rows that are not whole blocks are not quantised: no
    /// quantised weight has such rows.
    ///
    /// # Panics
    /// If `x` is not (tokens, k) or exceeds the capacity.
    pub fn quantize(&mut self, isa: Isa, pool: &Pool, x: &[f32], tokens: usize, k: usize) {
        self.fill(isa, pool, Form::Blocks, x, (tokens, k), None);
    }

    /// Fills the buffer from `x`, a (tokens, k) matrix, in every form that one of `matrices` reads.
    ///
    /// # Panics
    /// If `x` is not (tokens, k) or exceeds the capacity, or two matrices ask for different fixed scales.
    pub fn prepare(
        &mut self,
        isa: Isa,
        pool: &Pool,
        x: &[f32],
        (tokens, k): (usize, usize),
        matrices: &[&Matrix],
    ) {
        let quantized = || matrices.iter().filter(|matrix| matrix.format().is_quantized());
        let wanted = quantized().fold(Forms::default(), |forms, matrix| forms.with(matrix.format()));
        let mut fixed = quantized().filter(|matrix| matrix.format().form() == Form::Token);
        let scale = fixed.next().and_then(|matrix| matrix.input_scale());
        assert!(fixed.all(|matrix| matrix.input_scale() == scale), "one activation, two scales");
        for form in FORMS {
            if wanted.has(form) {
                self.fill(isa, pool, form, x, (tokens, k), scale);
            } else {
                self.forms[form as usize].k = 0;
            }
        }
    }

    fn fill(
        &mut self,
        isa: Isa,
        pool: &Pool,
        form: Form,
        x: &[f32],
        (tokens, k): (usize, usize),
        scale: Option<f32>,
    ) {
        assert!(x.len() == tokens * k, "activations are not (tokens, k)");
        self.set_shape(form, tokens, k);
        let content = &mut self.forms[form as usize];
        if !k.is_multiple_of(BLOCK) {
            content.k = 0;
            return;
        }
        let group = group_of(tokens);
        let size = group * (k / BLOCK);
        let blocks = SharedSlice::new(&mut content.blocks);
        pool.split(tokens.div_ceil(group), &|groups| {
            for index in groups {
                #[allow(unsafe_code)]
                // SAFETY: `split` gives every group to one thread, and groups do not overlap.
                let blocks = unsafe { blocks.part(index * size, size) };
                let rows = &x[index * group * k..((index + 1) * group * k).min(x.len())];
                for (token, row) in rows.chunks_exact(k).enumerate() {
                    let blocks = &mut blocks[token..];
                    match form {
                        Form::Blocks => quantize_row(isa, row, blocks, group),
                        Form::Rotated => rotate_row(isa, row, blocks, group),
                        Form::Token => quantize_token(isa, row, scale, blocks, group),
                    }
                }
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
        self.set_shape(Form::Blocks, tokens, k);
        let (group, blocks) = (group_of(tokens), k / BLOCK);
        for (i, (block, scale)) in values.as_chunks::<BLOCK>().0.iter().zip(scales).enumerate() {
            let (token, block_index) = (i / blocks, i % blocks);
            let at = (token / group * blocks + block_index) * group + token % group;
            self.forms[Form::Blocks as usize].blocks[at] =
                Block { values: *block, meta: BlockMeta::new(block, *scale) };
        }
    }

    fn set_shape(&mut self, form: Form, tokens: usize, k: usize) {
        assert!(tokens <= self.tokens_max && k <= self.k_max, "activations exceed the buffer");
        if self.forms[form as usize].blocks.is_empty() {
            self.reserve(form);
        }
        let content = &mut self.forms[form as usize];
        (content.tokens, content.k) = (tokens, k);
    }

    pub(crate) fn holds(&self, form: Form, tokens: usize, k: usize) -> bool {
        let content = &self.forms[form as usize];
        content.tokens == tokens && content.k == k
    }

    pub(crate) fn tokens(&self, form: Form) -> QuantTokens<'_> {
        let Content { blocks, tokens, k } = &self.forms[form as usize];
        QuantTokens { row: k / BLOCK, group: group_of(*tokens), blocks }
    }
}

/// Int8 activations as kernels see them.
#[derive(Clone, Copy)]
pub(crate) struct QuantTokens<'a> {
    /// Blocks of a token.
    row: usize,
    group: usize,
    blocks: &'a [Block],
}

impl<'a> QuantTokens<'a> {
    /// The blocks of `token`: block b is at `b · stride`.
    #[inline(always)]
    pub(crate) fn token(&self, token: usize) -> (&'a [Block], usize) {
        let first = token / self.group * self.row * self.group;
        (&self.blocks[first + token % self.group..first + self.row * self.group], self.group)
    }

    /// The blocks of `token` and the three after it, side by side; `token` is a multiple of [`GROUP`], and there are as many.
    #[inline(always)]
    pub(crate) fn group(&self, token: usize) -> &'a [[Block; GROUP]] {
        let first = token * self.row;
        self.blocks[first..first + self.row * GROUP].as_chunks().0
    }
}

/// Puts the blocks of a row of k values into every `stride`-th of `blocks`.
fn quantize_row(isa: Isa, row: &[f32], blocks: &mut [Block], stride: usize) {
    match isa {
        #[cfg(target_arch = "x86_64")]
        #[allow(unsafe_code)]
        // SAFETY: the token proves the features.
        Isa::Avx512(_) => unsafe { x86::quantize_row(row, blocks, stride) },
        _ => quantize_row_plain(isa, row, blocks, stride),
    }
}

/// [`quantize_row`] of a rotated row.
fn rotate_row(isa: Isa, row: &[f32], blocks: &mut [Block], stride: usize) {
    let width = rotation_width(row.len());
    let mut rotated = [0.0; ROTATION_MAX];
    let rotated = &mut rotated[..width];
    for (group, values) in row.chunks_exact(width).enumerate() {
        rotated.copy_from_slice(values);
        rotate(isa, Side::Input, rotated, width);
        quantize_row(isa, rotated, &mut blocks[group * (width / BLOCK) * stride..], stride);
    }
}

/// A row of k values with one scale: `scale`, or as large as its largest magnitude needs. Values beyond a given scale are cut off; a
/// NaN or an infinity makes the scale NaN.
fn quantize_token(isa: Isa, row: &[f32], scale: Option<f32>, blocks: &mut [Block], stride: usize) {
    let mut amax = 0;
    find_largest(isa, row, &mut amax);
    let amax = f32::from_bits(amax);
    let d = scale.unwrap_or(step(amax).0);
    let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
    let d = if amax.is_finite() { d } else { f32::NAN };
    match isa {
        #[cfg(target_arch = "x86_64")]
        #[allow(unsafe_code)]
        // SAFETY: the token proves the features.
        Isa::Avx512(_) => unsafe { x86::quantize_with(row, inverse, blocks, stride) },
        _ => quantize_with_plain(isa, row, inverse, blocks, stride),
    }
    let mut sum = [0, 0];
    for (index, to) in blocks.iter_mut().step_by(stride).take(row.len() / BLOCK).enumerate() {
        if index % WHOLE_SUM_BLOCKS == 0 {
            sum = [0, 0];
        }
        let BlockMeta { sum_negated, first_negated, .. } = to.meta;
        sum = [sum[0] - first_negated, sum[1] - (sum_negated - first_negated)];
        to.meta = BlockMeta::from_sums(sum, d);
    }
}

multiversion! {
    /// The bits of the largest magnitude. Compared as integers, magnitudes order like floats, with NaN above all: it cannot be lost.
    fn find_largest(isa, row: &[f32], found: &mut u32) {
        *found = row.iter().fold(0, |amax: u32, v| amax.max(v.to_bits() & 0x7fff_ffff));
    }
}

multiversion! {
    fn quantize_with_plain(isa, row: &[f32], inverse: f32, blocks: &mut [Block], stride: usize) {
        for (block, to) in row.as_chunks::<BLOCK>().0.iter().zip(blocks.iter_mut().step_by(stride)) {
            for (q, v) in to.values.iter_mut().zip(block) {
                *q = round_even((v * inverse).clamp(-127.0, 127.0)).1 as i8;
            }
            to.meta = BlockMeta::new(&to.values, 0.0);
        }
    }
}

multiversion! {
    fn quantize_row_plain(isa, row: &[f32], blocks: &mut [Block], stride: usize) {
        for (block, to) in row.as_chunks::<BLOCK>().0.iter().zip(blocks.iter_mut().step_by(stride)) {
            to.meta = quantize_block(block, &mut to.values);
        }
    }
}

#[inline(always)]
fn quantize_block(block: &[f32; BLOCK], output: &mut [i8; BLOCK]) -> BlockMeta {
    // Magnitudes compared as integers order like floats, with NaN above all: it cannot be lost.
    let amax = block.iter().fold(0, |amax: u32, v| amax.max(v.to_bits() & 0x7fff_ffff));
    let (d, inverse) = step(f32::from_bits(amax));
    for (q, v) in output.iter_mut().zip(block) {
        // Clamped: for subnormal scales the inverse is infinite.
        *q = round_even((v * inverse).clamp(-127.0, 127.0)).1 as i8;
    }
    BlockMeta::new(output, d)
}

/// The scale of a block whose largest magnitude is `amax`, and its inverse.
#[inline(always)]
fn step(amax: f32) -> (f32, f32) {
    let d = amax / 127.0;
    (d, if d == 0.0 { 0.0 } else { 1.0 / d })
}

/// The same in intrinsics: the compiler does not find them.
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
mod x86 {
    use std::arch::x86_64::*;

    use super::{BLOCK, Block, BlockMeta, step};

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")]
    pub(super) fn quantize_row(row: &[f32], blocks: &mut [Block], stride: usize) {
        let magnitude = _mm512_set1_epi32(0x7fff_ffff);
        for (block, to) in row.as_chunks::<BLOCK>().0.iter().zip(blocks.iter_mut().step_by(stride)) {
            let halves = halves_of(block);
            let [a, b] = halves.map(|half| _mm512_and_si512(_mm512_castps_si512(half), magnitude));
            let (d, inverse) = step(f32::from_bits(_mm512_reduce_max_epu32(_mm512_max_epu32(a, b))));
            to.meta = BlockMeta::from_sums(put(halves, inverse, &mut to.values), d);
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")]
    pub(super) fn quantize_with(row: &[f32], inverse: f32, blocks: &mut [Block], stride: usize) {
        for (block, to) in row.as_chunks::<BLOCK>().0.iter().zip(blocks.iter_mut().step_by(stride)) {
            to.meta = BlockMeta::from_sums(put(halves_of(block), inverse, &mut to.values), 0.0);
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn halves_of(block: &[f32; BLOCK]) -> [__m512; 2] {
        // SAFETY: a block is two registers.
        unsafe { [_mm512_loadu_ps(block.as_ptr()), _mm512_loadu_ps(block.as_ptr().add(16))] }
    }

    /// Rounds a block to i8; the sums of its halves.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")]
    fn put(halves: [__m512; 2], inverse: f32, values: &mut [i8; BLOCK]) -> [i32; 2] {
        let (lowest, highest) = (_mm512_set1_ps(-127.0), _mm512_set1_ps(127.0));
        let inverse = _mm512_set1_ps(inverse);
        let rounded = halves.map(|half| {
            let scaled = _mm512_mul_ps(half, inverse);
            // Ties to even, as everywhere: the default rounding of the processor. What a NaN becomes does not matter, because the
            // scale of its block is one.
            _mm512_cvtps_epi32(_mm512_min_ps(_mm512_max_ps(scaled, lowest), highest))
        });
        let narrow = rounded.map(|half| _mm512_cvtepi32_epi8(half));
        // SAFETY: half a block of i8 is 16 bytes.
        unsafe {
            _mm_storeu_si128(values.as_mut_ptr().cast(), narrow[0]);
            _mm_storeu_si128(values.as_mut_ptr().add(16).cast(), narrow[1]);
        }
        rounded.map(|half| _mm512_reduce_add_epi32(half))
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
            assert_eq!(buffer.forms[0].blocks[0].meta.scale, 1.0 / 127.0);
            assert!(!buffer.forms[0].blocks[1].meta.scale.is_finite());
        }
    }

    #[test]
    fn subnormal_and_zero_blocks_are_harmless() {
        let pool = Pool::new(1).unwrap();
        let mut x = vec![0.0; 64];
        x[32] = 1e-44;
        let mut buffer = ActivationBuffer::new(1, 64);
        buffer.quantize(Isa::detect(), &pool, &x, 1, 64);
        assert!(buffer.forms[0].blocks.iter().all(|block| block.meta.scale.is_finite()));
        assert_eq!(buffer.forms[0].blocks[0].meta.sum_negated, 0);
    }
}
