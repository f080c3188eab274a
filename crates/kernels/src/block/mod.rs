//! Storage formats of GGUF tensors, by ggml's definitions, and the conversions to and from f32.
//!
//! | format | block | bytes | value |
//! |---|---|---|---|
//! | F32, F16, BF16 | 1 | 4, 2, 2 | itself |
//! | Q8_0 | 32 | f16 d, 32 × i8 q | d·q |
//! | Q4_0, Q5_0 | 32 | f16 d, (32 high bits,) 32 low nibbles | d·(q − 8), d·(q − 16) |
//! | Q4_1, Q5_1 | 32 | f16 d, f16 m, (32 high bits,) 32 low nibbles | d·q + m |
//! | IQ4_NL | 32 | f16 d, 32 nibbles | d·table\[q\] |
//! | MXFP4 | 32 | power of two e, 32 nibbles (sign, 2 exponent bits, 1 mantissa bit) | 2^(e − 127)·fp4(q) |
//! | Q2_K | 256 | 16 × (4-bit scale, 4-bit min), 2-bit q, f16 d, f16 dmin | d·s·q − dmin·m |
//! | Q3_K | 256 | high bits, 2-bit q, 16 × 6-bit scale, f16 d | d·(s − 32)·(q − 4) |
//! | Q4_K, Q5_K | 256 | f16 d, f16 dmin, 8 × (6-bit scale, 6-bit min), (high bits,) nibbles | d·s·q − dmin·m |
//! | Q6_K | 256 | nibbles, 2 high bits each, 16 × i8 scale, f16 d | d·s·(q − 32) |
//!
//! Nibbles of a 32-block: byte i holds value i below and value i + 16 above.
//!
//! Formats of this project's own ([`BlockFormat::OWN`], ADR 0026):
//!
//! | format | unit | bytes | value |
//! |---|---|---|---|
//! | NF4 | 256 | f16 d, 4 × u8 s, 4 × 32 bytes of nibbles (byte i: values i and i + 32) | d·s·table\[q\] |
//! | I8_ROW | row of k | f32 d, k × i8 q | d·q |
//! | F8_E4M3 | row of k | f32 d, k × E4M3 | d·e4m3(q) |
//! | T2, T3, T4 | 16 × 32 | f16 d, 2 tiles of 2, 3 or 4 bits a value | `trellis.rs`, then rotated back |
//! | SPARSE8 | 32 | f16 d, u32 mask with 16 ones, 16 × i8 q | d·q where the mask has a one, else 0 |
//! | SPARSE4 | 32 | f16 d, u32 mask with 16 ones, 16 nibbles q | d·(q − 8) where the mask has a one, else 0 |

mod code;
mod codebook;
mod float;
mod k_quants;
mod legacy;
mod rows;
mod search;
pub(crate) mod sparse;
mod table;
pub(crate) mod trellis;
mod trellis_search;
mod trellis_walk;

use std::fmt;

pub use code::{BlockCode, Target};
pub(crate) use codebook::{FP4_DOUBLED, IQ4_NL, NF4, e8m0_half, nf4_fields};
pub(crate) use k_quants::SuperBlock;
pub(crate) use legacy::{five_bits, nibbles};
pub use rows::quantize_rows;
pub(crate) use rows::{F8_NAN, ROW_SCALE_BYTES, f8_to_f32, row_scale};
pub use trellis_search::TrellisSearch;

use crate::error::KernelError;
use crate::limits::BLOCK;
use crate::math::f16_to_f32;

/// Values in one super-block of the k-quants.
pub(crate) const SUPER_BLOCK: usize = 256;

/// A storage format of weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(non_camel_case_types)] // ggml's own names
pub enum BlockFormat {
    /// IEEE single, little-endian.
    F32,
    /// IEEE half, little-endian.
    F16,
    /// The upper half of an IEEE single.
    Bf16,
    /// 32 int8 with one half scale.
    Q8_0,
    /// 32 int4 with one half scale.
    Q4_0,
    /// 32 uint4 with a half scale and a half minimum.
    Q4_1,
    /// 32 int5 with one half scale.
    Q5_0,
    /// 32 uint5 with a half scale and a half minimum.
    Q5_1,
    /// 256 uint2 in sub-blocks of 16 with 4-bit scales and minima.
    Q2_K,
    /// 256 int3 in sub-blocks of 16 with 6-bit scales.
    Q3_K,
    /// 256 uint4 in sub-blocks of 32 with 6-bit scales and minima.
    Q4_K,
    /// 256 uint5 in sub-blocks of 32 with 6-bit scales and minima.
    Q5_K,
    /// 256 int6 in sub-blocks of 16 with 8-bit scales.
    Q6_K,
    /// 32 indices into a table of 16 unevenly spaced values, with one half scale.
    IQ4_NL,
    /// 32 four-bit floats (E2M1) with a power of two: MXFP4 of the OCP Microscaling specification 1.0.
    MXFP4,
    /// 256 indices into the quantiles of a normal distribution, in sub-blocks of 64 with 8-bit scales: NF4 of QLoRA.
    NF4,
    /// Rows of int8 with one single scale.
    I8_ROW,
    /// Rows of eight-bit floats (E4M3) with one single scale.
    F8_E4M3,
    /// A rotated trellis of 2 bits.
    T2,
    /// A rotated trellis of 3 bits.
    T3,
    /// A rotated trellis of 4 bits.
    T4,
    /// 32 values of which 16 are stored, as int8 with one half scale.
    SPARSE8,
    /// 32 values of which 16 are stored, as int4 with one half scale.
    SPARSE4,
}

impl BlockFormat {
    /// Every format.
    pub const ALL: [Self; 23] = [
        Self::F32,
        Self::F16,
        Self::Bf16,
        Self::Q8_0,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q2_K,
        Self::Q3_K,
        Self::Q4_K,
        Self::Q5_K,
        Self::Q6_K,
        Self::IQ4_NL,
        Self::MXFP4,
        Self::NF4,
        Self::I8_ROW,
        Self::F8_E4M3,
        Self::T2,
        Self::T3,
        Self::T4,
        Self::SPARSE8,
        Self::SPARSE4,
    ];

    /// Those of ggml.
    pub const GGML: [Self; 15] = match Self::ALL.first_chunk() {
        Some(first) => *first,
        None => unreachable!(),
    };

    /// Those that ggml does not have.
    pub const OWN: [Self; 8] = match Self::ALL.last_chunk() {
        Some(last) => *last,
        None => unreachable!(),
    };

    /// ggml's name, or this project's: `F32`, `Q4_K`, `T3`, …
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::Q8_0 => "Q8_0",
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q5_0 => "Q5_0",
            Self::Q5_1 => "Q5_1",
            Self::Q2_K => "Q2_K",
            Self::Q3_K => "Q3_K",
            Self::Q4_K => "Q4_K",
            Self::Q5_K => "Q5_K",
            Self::Q6_K => "Q6_K",
            Self::IQ4_NL => "IQ4_NL",
            Self::MXFP4 => "MXFP4",
            Self::NF4 => "NF4",
            Self::I8_ROW => "I8_ROW",
            Self::F8_E4M3 => "F8_E4M3",
            Self::T2 => "T2",
            Self::T3 => "T3",
            Self::T4 => "T4",
            Self::SPARSE8 => "SPARSE8",
            Self::SPARSE4 => "SPARSE4",
        }
    }

    /// The format of this name, in upper or lower case.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name().eq_ignore_ascii_case(name))
    }

    /// Values of a row in one block.
    pub const fn block(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 | Self::F8_E4M3 => 1,
            Self::Q8_0 | Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::IQ4_NL | Self::MXFP4 => {
                BLOCK
            }
            Self::I8_ROW | Self::T2 | Self::T3 | Self::T4 | Self::SPARSE8 | Self::SPARSE4 => BLOCK,
            Self::Q2_K | Self::Q3_K | Self::Q4_K | Self::Q5_K | Self::Q6_K | Self::NF4 => SUPER_BLOCK,
        }
    }

    /// Rows in one block.
    pub const fn block_rows(self) -> usize {
        if self.trellis_bits().is_some() { trellis::TILE } else { 1 }
    }

    /// Bytes of one block.
    pub const fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::F8_E4M3 => 1,
            Self::I8_ROW => BLOCK,
            Self::Q8_0 => 2 + BLOCK,
            Self::Q4_0 | Self::IQ4_NL => 2 + BLOCK / 2,
            Self::Q4_1 => 2 + 2 + BLOCK / 2,
            Self::Q5_0 => 2 + BLOCK / 8 + BLOCK / 2,
            Self::Q5_1 => 2 + 2 + BLOCK / 8 + BLOCK / 2,
            Self::MXFP4 => 1 + BLOCK / 2,
            Self::Q2_K => SUPER_BLOCK / 16 + SUPER_BLOCK / 4 + 2 + 2,
            Self::Q3_K => SUPER_BLOCK / 8 + SUPER_BLOCK / 4 + 12 + 2,
            Self::Q4_K => 2 + 2 + 12 + SUPER_BLOCK / 2,
            Self::Q5_K => 2 + 2 + 12 + SUPER_BLOCK / 8 + SUPER_BLOCK / 2,
            Self::Q6_K => SUPER_BLOCK / 2 + SUPER_BLOCK / 4 + SUPER_BLOCK / 16 + 2,
            Self::NF4 => 2 + SUPER_BLOCK / 64 + SUPER_BLOCK / 2,
            Self::T2 => 2 + trellis::BLOCK_TILES * trellis::tile_bytes(2),
            Self::T3 => 2 + trellis::BLOCK_TILES * trellis::tile_bytes(3),
            Self::T4 => 2 + trellis::BLOCK_TILES * trellis::tile_bytes(4),
            Self::SPARSE8 => sparse::block_bytes(8),
            Self::SPARSE4 => sparse::block_bytes(4),
        }
    }

    /// Bytes in front of each row.
    pub const fn row_bytes(self) -> usize {
        match self {
            Self::I8_ROW | Self::F8_E4M3 => ROW_SCALE_BYTES,
            _ => 0,
        }
    }

    /// Whether a block says all about its values: not rows with a scale, nor blocks of several rows.
    pub const fn is_blockwise(self) -> bool {
        self.block_rows() == 1 && self.row_bytes() == 0
    }

    /// Bytes of `count` values of a blockwise format; `None` if they are not whole blocks, the product overflows, or the format needs
    /// to know the rows ([`BlockFormat::matrix_bytes`]).
    pub const fn size_bytes(self, count: usize) -> Option<usize> {
        if self.is_blockwise() && count.is_multiple_of(self.block()) {
            (count / self.block()).checked_mul(self.block_bytes())
        } else {
            None
        }
    }

    /// Bytes of a (rows, k) matrix; `None` if it is not whole blocks or the product overflows.
    pub const fn matrix_bytes(self, rows: usize, k: usize) -> Option<usize> {
        if !k.is_multiple_of(self.block()) || !rows.is_multiple_of(self.block_rows()) {
            return None;
        }
        let Some(blocks) = (k / self.block()).checked_mul(self.block_bytes()) else { return None };
        match blocks.checked_add(self.row_bytes()) {
            Some(row) => row.checked_mul(rows / self.block_rows()),
            None => None,
        }
    }

    /// Stored bits of one weight, the scales of blocks included.
    pub const fn bits_per_weight(self) -> f32 {
        (8 * self.block_bytes()) as f32 / (self.block() * self.block_rows()) as f32
    }
}

impl fmt::Display for BlockFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

fn check(format: BlockFormat, count: usize, bytes: usize, name: &str) -> Result<(), KernelError> {
    match format.size_bytes(count) {
        None => {
            Err(KernelError::PartialBlock { name: name.to_owned(), count, format, block: format.block() })
        }
        Some(expected) if expected != bytes => {
            Err(KernelError::ByteLength { name: name.to_owned(), found: bytes, expected })
        }
        Some(_) => Ok(()),
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn f16_at(bytes: &[u8], at: usize) -> f32 {
    f16_to_f32(u16_at(bytes, at))
}

/// Stored bytes to f32, bit-equal to ggml's reference conversions (`dequantize_row_*`). The order of operations is
/// that of the table above, from left to right, each rounded on its own.
///
/// # Errors
/// If the format is not blockwise ([`dequantize_matrix`] takes all), `out` is not whole blocks, or `bytes` is not exactly its stored size;
/// if a block of a sparse format says that it stores another number of values than 16.
pub fn dequantize(format: BlockFormat, bytes: &[u8], out: &mut [f32]) -> Result<(), KernelError> {
    check(format, out.len(), bytes.len(), "dequantize")?;
    sparse::check_masks(format, bytes, "dequantize")?;
    let convert: fn(&[u8], &mut [f32]) = match format {
        BlockFormat::I8_ROW | BlockFormat::F8_E4M3 | BlockFormat::T2 | BlockFormat::T3 | BlockFormat::T4 => {
            unreachable!("not blockwise")
        }
        BlockFormat::NF4 => codebook::dequantize_nf4,
        BlockFormat::F32 => float::dequantize_f32,
        BlockFormat::F16 => float::dequantize_f16,
        BlockFormat::Bf16 => float::dequantize_bf16,
        BlockFormat::Q8_0 => legacy::dequantize_q8_0,
        BlockFormat::Q4_0 => legacy::dequantize_q4_0,
        BlockFormat::Q4_1 => legacy::dequantize_q4_1,
        BlockFormat::Q5_0 => legacy::dequantize_q5_0,
        BlockFormat::Q5_1 => legacy::dequantize_q5_1,
        BlockFormat::Q2_K => |bytes, out| k_quants::SuperBlock::read_q2(bytes).dequantize(out),
        BlockFormat::Q3_K => |bytes, out| k_quants::SuperBlock::read_q3(bytes).dequantize(out),
        BlockFormat::Q4_K => |bytes, out| k_quants::SuperBlock::read_q4(bytes).dequantize(out),
        BlockFormat::Q5_K => |bytes, out| k_quants::SuperBlock::read_q5(bytes).dequantize(out),
        BlockFormat::Q6_K => |bytes, out| k_quants::SuperBlock::read_q6(bytes).dequantize(out),
        BlockFormat::IQ4_NL => codebook::dequantize_iq4_nl,
        BlockFormat::MXFP4 => codebook::dequantize_mxfp4,
        BlockFormat::SPARSE8 => |bytes, out| sparse::dequantize(8, bytes, out),
        BlockFormat::SPARSE4 => |bytes, out| sparse::dequantize(4, bytes, out),
    };
    let blocks = bytes.chunks_exact(format.block_bytes()).zip(out.chunks_exact_mut(format.block()));
    for (source, values) in blocks {
        convert(source, values);
    }
    Ok(())
}

/// As [`dequantize`], for a matrix of whole rows of `columns` values in any format.
///
/// # Errors
/// As there.
pub fn dequantize_matrix(
    format: BlockFormat,
    columns: usize,
    bytes: &[u8],
    out: &mut [f32],
) -> Result<(), KernelError> {
    if format.is_blockwise() {
        return dequantize(format, bytes, out);
    }
    let rows = out.len().checked_div(columns).unwrap_or(0);
    let expected = format.matrix_bytes(rows, columns).filter(|_| rows * columns == out.len());
    match (expected, format.trellis_bits()) {
        (None, _) => {
            let name = "dequantize".to_owned();
            Err(KernelError::PartialBlock { name, count: columns, format, block: format.block() })
        }
        (Some(expected), _) if expected != bytes.len() => {
            Err(KernelError::ByteLength { name: "dequantize".to_owned(), found: bytes.len(), expected })
        }
        (_, Some(bits)) => {
            trellis::dequantize(bits, format.block_bytes(), columns, bytes, out);
            Ok(())
        }
        (_, None) => {
            rows::dequantize(format, columns, bytes, out);
            Ok(())
        }
    }
}

/// f32 to stored bytes, deterministic.
///
/// The 32-blocks follow ggml's reference rules (`quantize_row_*_ref`), byte for byte: Q8_0 `d = amax / 127`, half away
/// from zero; Q4_0 and Q5_0 map the value of largest magnitude to the lowest quant; Q4_1 and Q5_1 span from the lowest
/// to the highest value; IQ4_NL refits its scale once. MXFP4 takes the exponent of the largest magnitude exactly, where
/// ggml's rounded logarithm is one higher within 2^-20 below a power of two. The k-quants have a least-squares search
/// of their own, with less error than ggml's reference. NF4 takes the largest magnitude of 64 values as their scale. SPARSE8 and SPARSE4
/// follow the rules of Q8_0 and Q4_0 for what is not zero.
///
/// # Errors
/// If the format is not blockwise, `values` is not whole blocks, `out` is not exactly their stored size, a value is NaN or infinite, or one is too
/// large for the format; of sparse formats, if a block has more than 16 values that are not zero. `out` then holds nothing of use.
pub fn quantize(format: BlockFormat, values: &[f32], out: &mut [u8]) -> Result<(), KernelError> {
    check(format, values.len(), out.len(), "quantize")?;
    if let Some(index) = values.iter().position(|value| !value.is_finite()) {
        return Err(KernelError::NotFinite { index, found: values[index].to_string() });
    }
    let convert: fn(&[f32], &mut [u8]) -> Result<(), Overflow> = match format {
        BlockFormat::I8_ROW | BlockFormat::F8_E4M3 | BlockFormat::T2 | BlockFormat::T3 | BlockFormat::T4 => {
            unreachable!("not blockwise")
        }
        BlockFormat::NF4 => codebook::quantize_nf4,
        BlockFormat::F32 => float::quantize_f32,
        BlockFormat::F16 => float::quantize_f16,
        BlockFormat::Bf16 => float::quantize_bf16,
        BlockFormat::Q8_0 => legacy::quantize_q8_0,
        BlockFormat::Q4_0 => legacy::quantize_q4_0,
        BlockFormat::Q4_1 => legacy::quantize_q4_1,
        BlockFormat::Q5_0 => legacy::quantize_q5_0,
        BlockFormat::Q5_1 => legacy::quantize_q5_1,
        BlockFormat::Q2_K => k_quants::quantize_q2,
        BlockFormat::Q3_K => k_quants::quantize_q3,
        BlockFormat::Q4_K => k_quants::quantize_q4,
        BlockFormat::Q5_K => k_quants::quantize_q5,
        BlockFormat::Q6_K => k_quants::quantize_q6,
        BlockFormat::IQ4_NL => codebook::quantize_iq4_nl,
        BlockFormat::MXFP4 => codebook::quantize_mxfp4,
        BlockFormat::SPARSE8 => |source, bytes| sparse::quantize(8, source, bytes),
        BlockFormat::SPARSE4 => |source, bytes| sparse::quantize(4, source, bytes),
    };
    let blocks = values.chunks_exact(format.block()).zip(out.chunks_exact_mut(format.block_bytes()));
    for (index, (source, bytes)) in blocks.enumerate() {
        if format.sparse_bits().is_some() {
            sparse::kept(format, source)?;
        }
        convert(source, bytes).map_err(|Overflow| {
            let extreme = legacy::extreme(source);
            let place = source.iter().position(|value| *value == extreme).unwrap_or(0);
            KernelError::TooLarge {
                index: index * format.block() + place,
                found: extreme.to_string(),
                format,
            }
        })?;
    }
    Ok(())
}

/// A value or a scale does not fit its 16 bits.
#[derive(Debug, Clone, Copy)]
struct Overflow;

fn to_f16(value: f32) -> Result<u16, Overflow> {
    let half = half::f16::from_f32(value);
    if half.is_finite() { Ok(half.to_bits()) } else { Err(Overflow) }
}

fn put_f16(bytes: &mut [u8], at: usize, value: f32) -> Result<(), Overflow> {
    bytes[at..at + 2].copy_from_slice(&to_f16(value)?.to_le_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_blocks_dequantise_exactly() {
        let mut q4 = vec![0x00, 0x3c]; // d = 1
        q4.extend([0xf0; 16]);
        let mut out = vec![0.0; 32];
        dequantize(BlockFormat::Q4_0, &q4, &mut out).unwrap();
        assert_eq!((out[0], out[15], out[16], out[31]), (-8.0, -8.0, 7.0, 7.0));
        let mut q8 = vec![0x00, 0xb8]; // d = -0.5
        q8.extend([0x80; 32]);
        dequantize(BlockFormat::Q8_0, &q8, &mut out).unwrap();
        assert_eq!(out, vec![64.0; 32]);
    }

    #[test]
    fn partial_blocks_and_wrong_lengths_are_refused() {
        assert!(matches!(
            quantize(BlockFormat::Q8_0, &[0.0; 33], &mut [0; 34]),
            Err(KernelError::PartialBlock { count: 33, .. })
        ));
        assert!(matches!(
            dequantize(BlockFormat::F16, &[0; 3], &mut [0.0; 2]),
            Err(KernelError::ByteLength { found: 3, expected: 4, .. })
        ));
    }

    #[test]
    fn names_are_found_again() {
        for format in BlockFormat::ALL {
            assert_eq!(BlockFormat::from_name(format.name()), Some(format));
            assert_eq!(BlockFormat::from_name(&format.to_string().to_lowercase()), Some(format));
        }
        assert_eq!(BlockFormat::from_name("Q4"), None);
        assert_eq!(BlockFormat::Q4_K.bits_per_weight(), 4.5);
        assert_eq!(BlockFormat::MXFP4.bits_per_weight(), 4.25);
        assert_eq!(BlockFormat::T3.bits_per_weight(), 3.03125);
        assert_eq!(BlockFormat::NF4.bits_per_weight(), 4.1875);
        assert_eq!(BlockFormat::I8_ROW.matrix_bytes(3, 64), Some(3 * 68));
        assert_eq!(BlockFormat::T2.matrix_bytes(32, 64), Some(4 * 130));
        assert_eq!(BlockFormat::T2.matrix_bytes(24, 64), None);
        assert_eq!(BlockFormat::SPARSE8.bits_per_weight(), 5.5);
        assert_eq!(BlockFormat::SPARSE4.bits_per_weight(), 3.5);
        let all: Vec<_> = BlockFormat::GGML.into_iter().chain(BlockFormat::OWN).collect();
        assert_eq!(all, BlockFormat::ALL);
    }
}
