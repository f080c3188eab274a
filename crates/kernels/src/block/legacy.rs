//! 32 evenly spaced values with a scale of their own, and a minimum in the `_1` formats.

use super::f16_at;
use crate::limits::BLOCK;

/// Bytes of the nibbles of a block.
pub(super) const NIBBLES: usize = BLOCK / 2;

/// Nibbles in the order of their values.
pub(crate) fn nibbles(bytes: &[u8]) -> [u8; BLOCK] {
    std::array::from_fn(|i| if i < NIBBLES { bytes[i] & 15 } else { bytes[i - NIBBLES] >> 4 })
}

/// [`nibbles`] with a fifth bit from the 32 bits before them.
pub(crate) fn five_bits(bytes: &[u8]) -> [u8; BLOCK] {
    let high = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    let mut quants = nibbles(&bytes[4..]);
    for (i, q) in quants.iter_mut().enumerate() {
        *q |= ((high >> i & 1) << 4) as u8;
    }
    quants
}

pub(super) fn dequantize_q8_0(bytes: &[u8], out: &mut [f32]) {
    let d = f16_at(bytes, 0);
    for (value, q) in out.iter_mut().zip(&bytes[2..]) {
        *value = f32::from(*q as i8) * d;
    }
}

pub(super) fn dequantize_q4_0(bytes: &[u8], out: &mut [f32]) {
    let d = f16_at(bytes, 0);
    for (value, q) in out.iter_mut().zip(nibbles(&bytes[2..])) {
        *value = f32::from(q as i8 - 8) * d;
    }
}

pub(super) fn dequantize_q5_0(bytes: &[u8], out: &mut [f32]) {
    let d = f16_at(bytes, 0);
    for (value, q) in out.iter_mut().zip(five_bits(&bytes[2..])) {
        *value = f32::from(q as i8 - 16) * d;
    }
}

pub(super) fn dequantize_q4_1(bytes: &[u8], out: &mut [f32]) {
    affine(bytes, nibbles(&bytes[4..]), out);
}

pub(super) fn dequantize_q5_1(bytes: &[u8], out: &mut [f32]) {
    affine(bytes, five_bits(&bytes[4..]), out);
}

/// `d·q + m`, with d and m at the start of the block.
fn affine(bytes: &[u8], quants: [u8; BLOCK], out: &mut [f32]) {
    let (d, m) = (f16_at(bytes, 0), f16_at(bytes, 2));
    for (value, q) in out.iter_mut().zip(quants) {
        *value = f32::from(q) * d + m;
    }
}

pub(super) fn quantize_q8_0(source: &[f32], bytes: &mut [u8]) {
    let amax = source.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    let d = amax / 127.0;
    let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
    bytes[..2].copy_from_slice(&half::f16::from_f32(d).to_le_bytes());
    for (q, v) in bytes[2..].iter_mut().zip(source) {
        *q = (v * inverse).round() as i8 as u8;
    }
}

pub(super) fn quantize_q4_0(source: &[f32], bytes: &mut [u8]) {
    let extreme = source.iter().fold(0.0f32, |m, v| if v.abs() > m.abs() { *v } else { m });
    let d = extreme / -8.0;
    let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
    bytes[..2].copy_from_slice(&half::f16::from_f32(d).to_le_bytes());
    let nibble = |v: f32| ((v * inverse + 8.5) as i32).clamp(0, 15) as u8;
    for i in 0..BLOCK / 2 {
        bytes[2 + i] = nibble(source[i]) | (nibble(source[i + BLOCK / 2]) << 4);
    }
}
