//! Plain floats: one value a block.

use super::{Overflow, f16_at, put_f16, u16_at};
use crate::math::bf16_to_f32;

pub(super) fn dequantize_f32(bytes: &[u8], out: &mut [f32]) {
    out[0] = f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
}

pub(super) fn dequantize_f16(bytes: &[u8], out: &mut [f32]) {
    out[0] = f16_at(bytes, 0);
}

pub(super) fn dequantize_bf16(bytes: &[u8], out: &mut [f32]) {
    out[0] = bf16_to_f32(u16_at(bytes, 0));
}

pub(super) fn quantize_f32(values: &[f32], bytes: &mut [u8]) -> Result<(), Overflow> {
    bytes.copy_from_slice(&values[0].to_le_bytes());
    Ok(())
}

pub(super) fn quantize_f16(values: &[f32], bytes: &mut [u8]) -> Result<(), Overflow> {
    put_f16(bytes, 0, values[0])
}

pub(super) fn quantize_bf16(values: &[f32], bytes: &mut [u8]) -> Result<(), Overflow> {
    let stored = half::bf16::from_f32(values[0]);
    bytes.copy_from_slice(&stored.to_le_bytes());
    if stored.is_finite() { Ok(()) } else { Err(Overflow) }
}
