//! Storage formats of GGUF tensors, by ggml's definitions, and the conversions to and from f32.
//!
//! | format | block | bytes | value |
//! |---|---|---|---|
//! | F32, F16, BF16 | 1 | 4, 2, 2 | itself |
//! | Q8_0 | 32 | f16 d, 32 × i8 q | d·q |
//! | Q4_0 | 32 | f16 d, 16 × (low nibble: i, high nibble: i + 16) | d·(q − 8) |

use crate::error::KernelError;
use crate::limits::BLOCK;
use crate::math::{bf16_to_f32, f16_to_f32};

/// A storage format of weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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
}

impl BlockFormat {
    /// Values in one block.
    pub const fn block(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => 1,
            Self::Q8_0 | Self::Q4_0 => BLOCK,
        }
    }

    /// Bytes of one block.
    pub const fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Q8_0 => 2 + BLOCK,
            Self::Q4_0 => 2 + BLOCK / 2,
        }
    }

    /// Bytes of `count` values; `None` if they are not whole blocks or the product overflows.
    pub const fn size_bytes(self, count: usize) -> Option<usize> {
        if count.is_multiple_of(self.block()) {
            (count / self.block()).checked_mul(self.block_bytes())
        } else {
            None
        }
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

fn u16_at(bytes: &[u8]) -> u16 {
    u16::from_le_bytes([bytes[0], bytes[1]])
}

/// Stored bytes to f32, bit-equal to ggml's reference conversions.
///
/// # Errors
/// If `out` is not whole blocks, or `bytes` is not exactly its stored size.
pub fn dequantize(format: BlockFormat, bytes: &[u8], out: &mut [f32]) -> Result<(), KernelError> {
    check(format, out.len(), bytes.len(), "dequantize")?;
    let blocks = bytes.chunks_exact(format.block_bytes()).zip(out.chunks_exact_mut(format.block()));
    for (source, values) in blocks {
        match format {
            BlockFormat::F32 => values[0] = f32::from_le_bytes([source[0], source[1], source[2], source[3]]),
            BlockFormat::F16 => values[0] = f16_to_f32(u16_at(source)),
            BlockFormat::Bf16 => values[0] = bf16_to_f32(u16_at(source)),
            BlockFormat::Q8_0 => {
                let d = f16_to_f32(u16_at(source));
                for (value, q) in values.iter_mut().zip(&source[2..]) {
                    *value = f32::from(*q as i8) * d;
                }
            }
            BlockFormat::Q4_0 => {
                let d = f16_to_f32(u16_at(source));
                for (i, byte) in source[2..].iter().enumerate() {
                    values[i] = f32::from((byte & 15) as i8 - 8) * d;
                    values[i + BLOCK / 2] = f32::from((byte >> 4) as i8 - 8) * d;
                }
            }
        }
    }
    Ok(())
}

/// f32 to stored bytes, by ggml's reference rules (Q8_0: `d = amax / 127`, half away from zero; Q4_0: the value
/// of largest magnitude maps to −8).
///
/// # Errors
/// If `values` is not whole blocks, or `out` is not exactly their stored size.
pub fn quantize(format: BlockFormat, values: &[f32], out: &mut [u8]) -> Result<(), KernelError> {
    check(format, values.len(), out.len(), "quantize")?;
    let blocks = values.chunks_exact(format.block()).zip(out.chunks_exact_mut(format.block_bytes()));
    for (source, bytes) in blocks {
        match format {
            BlockFormat::F32 => bytes.copy_from_slice(&source[0].to_le_bytes()),
            BlockFormat::F16 => bytes.copy_from_slice(&half::f16::from_f32(source[0]).to_le_bytes()),
            BlockFormat::Bf16 => bytes.copy_from_slice(&half::bf16::from_f32(source[0]).to_le_bytes()),
            BlockFormat::Q8_0 => quantize_q8_0(source, bytes),
            BlockFormat::Q4_0 => quantize_q4_0(source, bytes),
        }
    }
    Ok(())
}

fn quantize_q8_0(source: &[f32], bytes: &mut [u8]) {
    let amax = source.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    let d = amax / 127.0;
    let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
    bytes[..2].copy_from_slice(&half::f16::from_f32(d).to_le_bytes());
    for (q, v) in bytes[2..].iter_mut().zip(source) {
        *q = (v * inverse).round() as i8 as u8;
    }
}

fn quantize_q4_0(source: &[f32], bytes: &mut [u8]) {
    let extreme = source.iter().fold(0.0f32, |m, v| if v.abs() > m.abs() { *v } else { m });
    let d = extreme / -8.0;
    let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
    bytes[..2].copy_from_slice(&half::f16::from_f32(d).to_le_bytes());
    let nibble = |v: f32| ((v * inverse + 8.5) as i32).clamp(0, 15) as u8;
    for i in 0..BLOCK / 2 {
        bytes[2 + i] = nibble(source[i]) | (nibble(source[i + BLOCK / 2]) << 4);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_stay_within_half_a_step() {
        let values: Vec<f32> = (0..64).map(|i| ((i * 37 % 64) as f32 - 31.0) * 0.05).collect();
        for (format, step) in [
            (BlockFormat::F32, 0.0),
            (BlockFormat::F16, 0.001),
            (BlockFormat::Bf16, 0.008),
            (BlockFormat::Q8_0, 1.6 / 127.0 * 0.51),
            (BlockFormat::Q4_0, 1.6 / 8.0 * 1.01),
        ] {
            let mut bytes = vec![0; format.size_bytes(64).unwrap()];
            quantize(format, &values, &mut bytes).unwrap();
            let mut back = vec![0.0; 64];
            dequantize(format, &bytes, &mut back).unwrap();
            for (a, b) in values.iter().zip(&back) {
                assert!((a - b).abs() <= step, "{format:?}: {a} became {b}");
            }
        }
    }

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
}
