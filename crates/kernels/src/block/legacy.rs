//! 32 evenly spaced values with a scale of their own, and a minimum in the `_1` formats.

use super::{Overflow, f16_at, put_f16};
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

/// The inverse of [`nibbles`]; bits above the fourth are left out.
pub(super) fn put_nibbles(quants: &[u8; BLOCK], bytes: &mut [u8]) {
    let (low, high) = quants.split_at(NIBBLES);
    for (byte, (low, high)) in bytes.iter_mut().zip(low.iter().zip(high)) {
        *byte = low & 15 | high << 4;
    }
}

/// The inverse of [`five_bits`].
fn put_five_bits(quants: &[u8; BLOCK], bytes: &mut [u8]) {
    let high = quants.iter().rev().fold(0u32, |bits, q| bits << 1 | u32::from(q >> 4));
    bytes[..4].copy_from_slice(&high.to_le_bytes());
    put_nibbles(quants, &mut bytes[4..]);
}

/// Q8_0 of quants around 128.
pub(super) fn put_q8_0(quants: &[u8; BLOCK], d: f32, bytes: &mut [u8]) -> Result<(), Overflow> {
    for (byte, q) in bytes[2..].iter_mut().zip(quants) {
        *byte = q ^ 0x80;
    }
    put_f16(bytes, 0, d)
}

/// Q4_0, or Q4_1 if there is a minimum.
pub(super) fn put_q4(
    quants: &[u8; BLOCK],
    d: f32,
    min: Option<f32>,
    bytes: &mut [u8],
) -> Result<(), Overflow> {
    let head = put_head(d, min, bytes)?;
    put_nibbles(quants, &mut bytes[head..]);
    Ok(())
}

/// Q5_0, or Q5_1 if there is a minimum.
pub(super) fn put_q5(
    quants: &[u8; BLOCK],
    d: f32,
    min: Option<f32>,
    bytes: &mut [u8],
) -> Result<(), Overflow> {
    let head = put_head(d, min, bytes)?;
    put_five_bits(quants, &mut bytes[head..]);
    Ok(())
}

/// Writes d and m; where the quants begin.
fn put_head(d: f32, min: Option<f32>, bytes: &mut [u8]) -> Result<usize, Overflow> {
    put_f16(bytes, 0, d)?;
    match min {
        Some(min) => put_f16(bytes, 2, min).map(|()| 4),
        None => Ok(2),
    }
}

fn inverse(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}

/// The value of largest magnitude, the first among equals.
pub(super) fn extreme(source: &[f32]) -> f32 {
    source.iter().fold(0.0f32, |m, v| if v.abs() > m.abs() { *v } else { m })
}

/// The lowest and the highest value. Of zeros of both signs it takes the first, unlike `f32::min`, which may take any.
pub(super) fn range(source: &[f32]) -> (f32, f32) {
    source.iter().fold((f32::MAX, f32::MIN), |(low, high), v| {
        (if *v < low { *v } else { low }, if *v > high { *v } else { high })
    })
}

/// d, and quants around 128.
pub(super) fn q8_0(source: &[f32]) -> (f32, [u8; BLOCK]) {
    let d = extreme(source).abs() / 127.0;
    let inverse = inverse(d);
    (d, std::array::from_fn(|i| (source[i] * inverse).round() as i8 as u8 ^ 0x80))
}

/// d, and quants around 8.
pub(super) fn q4_0(source: &[f32]) -> (f32, [u8; BLOCK]) {
    let d = extreme(source) / -8.0;
    (d, symmetric(source, d, 8))
}

pub(super) fn quantize_q8_0(source: &[f32], bytes: &mut [u8]) -> Result<(), Overflow> {
    let (d, quants) = q8_0(source);
    put_q8_0(&quants, d, bytes)
}

pub(super) fn quantize_q4_0(source: &[f32], bytes: &mut [u8]) -> Result<(), Overflow> {
    let (d, quants) = q4_0(source);
    put_nibbles(&quants, &mut bytes[2..]);
    put_f16(bytes, 0, d)
}

pub(super) fn quantize_q5_0(source: &[f32], bytes: &mut [u8]) -> Result<(), Overflow> {
    let d = extreme(source) / -16.0;
    put_five_bits(&symmetric(source, d, 16), &mut bytes[2..]);
    put_f16(bytes, 0, d)
}

/// Quants around `zero_point`, halves up.
fn symmetric(source: &[f32], d: f32, zero_point: u8) -> [u8; BLOCK] {
    let (inverse, max) = (inverse(d), i32::from(zero_point) * 2 - 1);
    let rounding = f32::from(zero_point) + 0.5;
    std::array::from_fn(|i| ((source[i] * inverse + rounding) as i32).clamp(0, max) as u8)
}

pub(super) fn quantize_q4_1(source: &[f32], bytes: &mut [u8]) -> Result<(), Overflow> {
    put_nibbles(&quantize_affine(source, bytes, 15)?, &mut bytes[4..]);
    Ok(())
}

pub(super) fn quantize_q5_1(source: &[f32], bytes: &mut [u8]) -> Result<(), Overflow> {
    put_five_bits(&quantize_affine(source, bytes, 31)?, &mut bytes[4..]);
    Ok(())
}

/// Writes d and m; quants from the lowest to the highest value, halves up.
fn quantize_affine(source: &[f32], bytes: &mut [u8], max: u8) -> Result<[u8; BLOCK], Overflow> {
    let (lowest, highest) = range(source);
    let d = (highest - lowest) / f32::from(max);
    put_f16(bytes, 0, d)?;
    put_f16(bytes, 2, lowest)?;
    let inverse = inverse(d);
    let quant = |v: f32| (((v - lowest) * inverse + 0.5) as i32).min(i32::from(max)) as u8;
    Ok(std::array::from_fn(|i| quant(source[i])))
}
