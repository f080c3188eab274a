//! A block whose scales are chosen first and whose quants are set one by one: what error-feedback quantisers need.

use super::codebook::{
    FP4_DOUBLED, IQ4_NL, NF4, e8m0_half, nf4_fields, nf4_scales, put_iq4_nl, put_mxfp4, put_nf4,
};
use super::k_quants::{self, SUB_BLOCKS_MAX, SuperBlock};
use super::legacy::{self, extreme};
use super::search::{Fit, Grid, Sample, Search, inverse, round_f16};
use super::{BlockFormat, Overflow, SUPER_BLOCK, check, f16_at, sparse, table};
use crate::error::KernelError;
use crate::math::round_even;

/// Share of the mean weight that every value has at least: a block without any weight still has to be stored.
const WEIGHT_FLOOR: f32 = 1e-4;
/// Distance of the two values of NF4 around zero.
const NF4_UNIT: f32 = 10.0;

/// One block of a quantised format with its fields apart.
///
/// The value of quant `q` at place `i` is [`BlockCode::value`], bit-equal to what [`super::dequantize`] makes of the bytes that
/// [`BlockCode::write`] gives.
#[derive(Debug, Clone)]
pub struct BlockCode {
    format: BlockFormat,
    /// Formats of 32 values use its first 32 quants, one sub-block with scale 1, and a minimum of either sign in `d_min`.
    block: SuperBlock,
    /// `d·scales[j]` and `d_min·mins[j]`, rounded as dequantisation does.
    scale: [f32; SUB_BLOCKS_MAX],
    min: [f32; SUB_BLOCKS_MAX],
    /// MXFP4's power of two.
    exponent: u8,
    /// Of sparse formats, the places that may hold something other than zero; all of any other one.
    kept: u32,
}

/// A scale and a minimum for one sub-block: `x ≈ scale·(q − zero point) − min`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Target {
    /// Distance of neighbouring values.
    pub scale: f32,
    /// Subtracted; zero in formats without minima.
    pub min: f32,
}

impl BlockFormat {
    /// Whether its values are quants with scales: all but the floats.
    pub const fn is_quantized(self) -> bool {
        self.block() > 1
    }

    /// Whether [`BlockCode`] is for it: quants with the scales of their own block.
    pub const fn has_block_code(self) -> bool {
        self.is_quantized() && self.is_blockwise()
    }

    /// Whether sub-blocks have a minimum beside their scale.
    pub const fn has_mins(self) -> bool {
        matches!(self, Self::Q4_1 | Self::Q5_1 | Self::Q2_K | Self::Q4_K | Self::Q5_K)
    }

    /// Values that share a scale; 1 for the plain floats.
    pub const fn sub_block(self) -> usize {
        match self {
            Self::Q2_K | Self::Q3_K | Self::Q6_K => 16,
            Self::F32 | Self::F16 | Self::Bf16 | Self::F8_E4M3 => 1,
            Self::NF4 => 64,
            _ => 32,
        }
    }

    /// The largest quant, counted from 0: 15 for four bits.
    pub const fn quant_max(self) -> u8 {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 | Self::F8_E4M3 => 0,
            Self::Q2_K | Self::T2 => 3,
            Self::Q3_K | Self::T3 => 7,
            Self::Q4_0 | Self::Q4_1 | Self::Q4_K | Self::IQ4_NL | Self::MXFP4 | Self::NF4 | Self::T4 => 15,
            Self::SPARSE4 => 15,
            Self::Q5_0 | Self::Q5_1 | Self::Q5_K => 31,
            Self::Q6_K => 63,
            Self::Q8_0 | Self::I8_ROW | Self::SPARSE8 => 255,
        }
    }
}

/// The integers of a format with evenly spaced values.
fn grid(format: BlockFormat) -> Option<Grid> {
    let legacy = |zero_point, has_mins| Grid {
        sub_block: 32,
        zero_point,
        quant_max: format.quant_max(),
        scales: (1, 1),
        has_mins,
        any_min: has_mins,
    };
    Some(match format {
        BlockFormat::Q2_K => k_quants::Q2,
        BlockFormat::Q3_K => k_quants::Q3,
        BlockFormat::Q4_K => k_quants::Q4,
        BlockFormat::Q5_K => k_quants::Q5,
        BlockFormat::Q6_K => k_quants::Q6,
        BlockFormat::Q4_0 | BlockFormat::SPARSE4 => legacy(8, false),
        BlockFormat::Q5_0 => legacy(16, false),
        BlockFormat::Q8_0 | BlockFormat::SPARSE8 => legacy(128, false),
        BlockFormat::Q4_1 | BlockFormat::Q5_1 => legacy(0, true),
        // Tables, floats, and what has no block code.
        _ => return None,
    })
}

fn table(format: BlockFormat) -> Option<&'static [i8; 16]> {
    match format {
        BlockFormat::IQ4_NL => Some(&IQ4_NL),
        BlockFormat::MXFP4 => Some(&FP4_DOUBLED),
        BlockFormat::NF4 => Some(&NF4),
        _ => None,
    }
}

impl BlockCode {
    /// Chooses scales and minima for the block `x` by least squares, each value's error counted as `weights` says (any
    /// finite, non-negative numbers; all alike without), and sets every quant to the nearest. What is zero stays zero in a sparse
    /// format, whatever comes to be [`BlockCode::nearest`] asked for.
    ///
    /// # Errors
    /// If `x` is not one block of a quantised format, a value is not finite or too large for it, or too many are not zero for a sparse one.
    ///
    /// # Panics
    /// If there are weights, but not one for each value.
    pub fn fit(format: BlockFormat, x: &[f32], weights: Option<&[f32]>) -> Result<Self, KernelError> {
        let kept = Self::checked(format, x)?;
        // Where nothing weighs anything, every error is the same: all values count alike.
        let weights = weights.filter(|weights| weights.iter().any(|weight| *weight > 0.0));
        let code = match (grid(format), weights) {
            (None, weights) => Self::fit_table(format, x, &usable(x.len(), weights)),
            (Some(grid), None) => Self::fit_grid(format, grid, Sample::even(x)),
            (Some(grid), Some(_)) => {
                Self::fit_grid(format, grid, Sample::weighed(x, &usable(x.len(), weights)[..x.len()]))
            }
        };
        code.map(|code| Self { kept, ..code }).map_err(|Overflow| too_large(format, x))
    }

    /// The block `x` with scales and minima as near to `targets`, one for each sub-block, as the format has them, and every
    /// quant set to the nearest. Formats without minima take the scale alone.
    ///
    /// # Errors
    /// As [`BlockCode::fit`].
    ///
    /// # Panics
    /// If the number of targets is wrong.
    pub fn near(format: BlockFormat, x: &[f32], targets: &[Target]) -> Result<Self, KernelError> {
        let kept = Self::checked(format, x)?;
        assert_eq!(targets.len(), format.block() / format.sub_block(), "a target for each sub-block");
        let code = match grid(format) {
            None if format == BlockFormat::NF4 => {
                Self::of_nf4(std::array::from_fn(|j| targets[j].scale / NF4_UNIT))
            }
            Some(grid) if format.block() == SUPER_BLOCK => {
                let fits: Vec<_> = targets.iter().map(|t| Fit { scale: t.scale, min: t.min }).collect();
                grid.nearest(&fits).map(|block| Self::of_super(format, block))
            }
            _ => {
                Self::of_scale(format, targets[0].scale, if format.has_mins() { targets[0].min } else { 0.0 })
            }
        };
        let mut code = Self { kept, ..code.map_err(|Overflow| too_large(format, x))? };
        code.set_nearest(x);
        Ok(code)
    }

    /// The places that may hold something other than zero.
    fn checked(format: BlockFormat, x: &[f32]) -> Result<u32, KernelError> {
        if !format.has_block_code() || x.len() != format.block() {
            let (name, count) = ("block code".to_owned(), x.len());
            return Err(KernelError::PartialBlock { name, count, format, block: format.block() });
        }
        match x.iter().position(|value| !value.is_finite()) {
            Some(index) => Err(KernelError::NotFinite { index, found: x[index].to_string() }),
            None if format.sparse_bits().is_some() => sparse::kept(format, x),
            None => Ok(u32::MAX),
        }
    }

    fn fit_grid<const W: bool>(
        format: BlockFormat,
        grid: Grid,
        sample: Sample<'_, W>,
    ) -> Result<Self, Overflow>
    where
        for<'a> Sample<'a, W>: Search,
    {
        if format.block() == SUPER_BLOCK {
            return sample.quantize(grid).map(|block| Self::of_super(format, block));
        }
        let fit = sample.fit(grid);
        let mut code = Self::of_scale(format, fit.scale, fit.min)?;
        code.set_nearest(sample.values());
        Ok(code)
    }

    /// The best of the scales that a table's format has.
    fn fit_table(format: BlockFormat, x: &[f32], weights: &[f32; SUPER_BLOCK]) -> Result<Self, Overflow> {
        if format == BlockFormat::NF4 {
            return Self::fit_nf4(x, weights);
        }
        if format != BlockFormat::MXFP4 {
            let mut code = Self::of_scale(format, table::scale(&IQ4_NL, x, weights)?, 0.0)?;
            code.set_nearest(x);
            return Ok(code);
        }
        let exponent = (extreme(x).abs().to_bits() >> 23) as u8;
        let codes = [2u8, 1, 3].map(|shift| {
            let mut code = Self::of_exponent(exponent.saturating_sub(shift));
            code.set_nearest(x);
            let square = |(i, x): (usize, &f32)| {
                let difference = code.value(i, code.quant(i)) - x;
                weights[i] * difference * difference
            };
            (x.iter().enumerate().map(square).sum::<f32>(), code)
        });
        let best = codes.into_iter().reduce(|best, code| if code.0 < best.0 { code } else { best });
        Ok(best.unwrap_or_else(|| unreachable!("three were tried")).1)
    }

    /// The best scale of each sub-block, rounded to eight bits.
    fn fit_nf4(x: &[f32], weights: &[f32; SUPER_BLOCK]) -> Result<Self, Overflow> {
        let mut targets = [0.0; 4];
        let sub = BlockFormat::NF4.sub_block();
        for ((target, x), weights) in targets.iter_mut().zip(x.chunks_exact(sub)).zip(weights.chunks(sub)) {
            *target = table::scale(&NF4, x, weights)?;
        }
        let mut code = Self::of_nf4(targets)?;
        code.set_nearest(x);
        Ok(code)
    }

    /// A block of NF4 with these scales, rounded to what is stored.
    fn of_nf4(targets: [f32; 4]) -> Result<Self, Overflow> {
        let (d, scales) = nf4_scales(targets)?;
        Ok(Self::of_nf4_fields(d, scales, [0; SUPER_BLOCK]))
    }

    fn of_nf4_fields(d: f32, fields: [i8; 4], quants: [u8; SUPER_BLOCK]) -> Self {
        let mut scales = [0; SUB_BLOCKS_MAX];
        scales[..4].copy_from_slice(&fields);
        let sub_block = BlockFormat::NF4.sub_block();
        let mins = [0; SUB_BLOCKS_MAX];
        let block = SuperBlock { quants, sub_block, zero_point: 0, scales, mins, d, d_min: 0.0 };
        Self::of_super(BlockFormat::NF4, block)
    }

    fn of_super(format: BlockFormat, block: SuperBlock) -> Self {
        let scale = std::array::from_fn(|j| block.d * f32::from(block.scales[j]));
        let min = std::array::from_fn(|j| block.d_min * f32::from(block.mins[j]));
        Self { format, block, scale, min, exponent: 0, kept: u32::MAX }
    }

    /// A block of 32 with this scale and minimum, rounded to what is stored.
    fn of_scale(format: BlockFormat, scale: f32, min: f32) -> Result<Self, Overflow> {
        Ok(Self::of_fields(format, round_f16(scale)?, round_f16(min)?))
    }

    fn of_fields(format: BlockFormat, d: f32, d_min: f32) -> Self {
        let zero_point = grid(format).map_or(0, |grid| grid.zero_point);
        let one = std::array::from_fn(|j| i8::from(j == 0));
        let block = SuperBlock {
            quants: [zero_point; SUPER_BLOCK],
            sub_block: 32,
            zero_point,
            scales: one,
            mins: one.map(|one| one as u8),
            d,
            d_min,
        };
        Self::of_super(format, block)
    }

    fn of_exponent(exponent: u8) -> Self {
        Self { exponent, ..Self::of_fields(BlockFormat::MXFP4, e8m0_half(exponent), 0.0) }
    }

    /// The block that these bytes hold.
    ///
    /// # Errors
    /// If they are not one block of a quantised format.
    pub fn read(format: BlockFormat, bytes: &[u8]) -> Result<Self, KernelError> {
        check(format, format.block(), bytes.len(), "block code")?;
        sparse::check_masks(format, bytes, "block code")?;
        let of_32 = |d: f32, d_min: f32, quants: [u8; 32]| {
            let mut code = Self::of_fields(format, d, d_min);
            code.block.quants[..32].copy_from_slice(&quants);
            code
        };
        let of_super = |block| Self::of_super(format, block);
        let d = || f16_at(bytes, 0);
        Ok(match format {
            BlockFormat::Q2_K => of_super(SuperBlock::read_q2(bytes)),
            BlockFormat::Q3_K => of_super(SuperBlock::read_q3(bytes)),
            BlockFormat::Q4_K => of_super(SuperBlock::read_q4(bytes)),
            BlockFormat::Q5_K => of_super(SuperBlock::read_q5(bytes)),
            BlockFormat::Q6_K => of_super(SuperBlock::read_q6(bytes)),
            BlockFormat::Q8_0 => of_32(d(), 0.0, std::array::from_fn(|i| bytes[2 + i] ^ 0x80)),
            BlockFormat::Q4_0 | BlockFormat::IQ4_NL => of_32(d(), 0.0, legacy::nibbles(&bytes[2..])),
            BlockFormat::Q5_0 => of_32(d(), 0.0, legacy::five_bits(&bytes[2..])),
            BlockFormat::Q4_1 => of_32(d(), -f16_at(bytes, 2), legacy::nibbles(&bytes[4..])),
            BlockFormat::Q5_1 => of_32(d(), -f16_at(bytes, 2), legacy::five_bits(&bytes[4..])),
            BlockFormat::MXFP4 => {
                let mut code = Self::of_exponent(bytes[0]);
                code.block.quants[..32].copy_from_slice(&legacy::nibbles(&bytes[1..]));
                code
            }
            BlockFormat::NF4 => {
                let (d, scales, quants) = nf4_fields(bytes);
                Self::of_nf4_fields(d, scales, quants)
            }
            BlockFormat::SPARSE8 | BlockFormat::SPARSE4 => {
                let code = of_32(d(), 0.0, sparse::quants(format.sparse_bits().unwrap_or(8), bytes));
                Self { kept: sparse::mask(bytes), ..code }
            }
            _ => {
                let (name, count) = ("block code".to_owned(), 1);
                return Err(KernelError::PartialBlock { name, count, format, block: 1 });
            }
        })
    }

    /// The format.
    pub fn format(&self) -> BlockFormat {
        self.format
    }

    /// The quant at place `index`.
    pub fn quant(&self, index: usize) -> u8 {
        self.block.quants[index]
    }

    /// Sets the quant at place `index`.
    ///
    /// # Panics
    /// If it is above [`BlockFormat::quant_max`], or other than zero where a sparse format stores nothing.
    pub fn set(&mut self, index: usize, quant: u8) {
        assert!(quant <= self.format.quant_max(), "{quant} is no quant of {}", self.format);
        assert!(self.keeps(index) || quant == self.block.zero_point, "place {index} is not stored");
        self.block.quants[index] = quant;
    }

    /// Sets every quant to the nearest of the block `x`.
    pub fn set_nearest(&mut self, x: &[f32]) {
        for (i, x) in x.iter().enumerate() {
            self.block.quants[i] = self.nearest(i, *x);
        }
    }

    /// Whether place `index` may hold something other than zero.
    #[inline]
    fn keeps(&self, index: usize) -> bool {
        // Formats of more than 32 values store them all.
        self.kept.checked_shr(index as u32).is_none_or(|kept| kept & 1 == 1)
    }

    /// The quant at place `index` whose value is nearest to `x`; zero where a sparse format stores nothing.
    #[inline]
    pub fn nearest(&self, index: usize, x: f32) -> u8 {
        if !self.keeps(index) {
            return self.block.zero_point;
        }
        let j = index / self.block.sub_block;
        let scale = self.scale[j];
        if let Some(table) = table(self.format) {
            let mut best = (0, f32::INFINITY);
            for (q, value) in table.iter().enumerate() {
                let error = (scale * f32::from(*value) - x).abs();
                if error < best.1 {
                    best = (q as u8, error);
                }
            }
            return best.0;
        }
        let (low, high) = (
            -f32::from(self.block.zero_point),
            f32::from(self.format.quant_max()) - f32::from(self.block.zero_point),
        );
        let level = round_even(((x + self.min[j]) * inverse(scale)).max(low).min(high)).0;
        (level - low) as u8
    }

    /// The value of a quant at place `index`.
    #[inline]
    pub fn value(&self, index: usize, quant: u8) -> f32 {
        let j = index / self.block.sub_block;
        if let Some(table) = table(self.format) {
            return self.scale[j] * f32::from(table[usize::from(quant)]);
        }
        self.scale[j] * (f32::from(quant) - f32::from(self.block.zero_point)) - self.min[j]
    }

    /// Distance between neighbouring values at place `index`; of tables, between the two around zero.
    pub fn step(&self, index: usize) -> f32 {
        let unit = match self.format {
            BlockFormat::IQ4_NL => 11.0,
            BlockFormat::NF4 => NF4_UNIT,
            _ => 1.0,
        };
        unit * self.scale[index / self.block.sub_block]
    }

    /// The stored form; `out` is [`BlockFormat::block_bytes`] long.
    ///
    /// # Panics
    /// If it is not.
    pub fn write(&self, out: &mut [u8]) {
        assert_eq!(out.len(), self.format.block_bytes(), "one block");
        let Self { block, .. } = self;
        let quants = || std::array::from_fn(|i| block.quants[i]);
        let written = match self.format {
            BlockFormat::Q2_K => block.write_q2(out),
            BlockFormat::Q3_K => block.write_q3(out),
            BlockFormat::Q4_K => block.write_q4(out),
            BlockFormat::Q5_K => block.write_q5(out),
            BlockFormat::Q6_K => block.write_q6(out),
            BlockFormat::Q8_0 => legacy::put_q8_0(&quants(), block.d, out),
            BlockFormat::Q4_0 => legacy::put_q4(&quants(), block.d, None, out),
            BlockFormat::Q4_1 => legacy::put_q4(&quants(), block.d, Some(-block.d_min), out),
            BlockFormat::Q5_0 => legacy::put_q5(&quants(), block.d, None, out),
            BlockFormat::Q5_1 => legacy::put_q5(&quants(), block.d, Some(-block.d_min), out),
            BlockFormat::IQ4_NL => put_iq4_nl(&quants(), block.d, out),
            BlockFormat::MXFP4 => {
                put_mxfp4(&quants(), self.exponent, out);
                Ok(())
            }
            BlockFormat::NF4 => {
                put_nf4(&block.quants, std::array::from_fn(|j| block.scales[j]), block.d, out)
            }
            BlockFormat::SPARSE8 => sparse::put(8, &quants(), block.d, out),
            BlockFormat::SPARSE4 => sparse::put(4, &quants(), block.d, out),
            _ => unreachable!("no block code"),
        };
        // Every scale came from a half.
        written.unwrap_or_else(|Overflow| unreachable!("a half fits a half"));
    }
}

pub(super) fn too_large(format: BlockFormat, x: &[f32]) -> KernelError {
    let found = extreme(x);
    let index = x.iter().position(|value| *value == found).unwrap_or(0);
    KernelError::TooLarge { index, found: found.to_string(), format }
}

/// Weights of mean 1 and at least [`WEIGHT_FLOOR`], the first `count` of them; ones if there are none to speak of.
fn usable(count: usize, weights: Option<&[f32]>) -> [f32; SUPER_BLOCK] {
    let mut usable = [1.0; SUPER_BLOCK];
    if let Some(weights) = weights {
        let mean = weights.iter().map(|w| f64::from(*w)).sum::<f64>() / count as f64;
        if mean.is_finite() && mean > 0.0 {
            for (usable, weight) in usable[..count].iter_mut().zip(weights) {
                *usable = (f64::from(*weight) / mean) as f32 + WEIGHT_FLOOR;
            }
        }
    }
    usable
}
