//! Four bits that choose from a table: IQ4_NL with a half scale, MXFP4 with a power of two.

use super::legacy::{extreme, nibbles, put_nibbles};
use super::{Overflow, f16_at, put_f16};
use crate::limits::BLOCK;

/// The values of IQ4_NL, by ggml's definition: denser around zero, where weights are.
pub(crate) const IQ4_NL: [i8; 16] =
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// The E2M1 floats of the OCP Microscaling specification 1.0 (section 5.3.3), doubled to be integers.
pub(crate) const FP4_DOUBLED: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// Half of the power of two that an E8M0 exponent stands for: `2^(e − 128)`. The specification's NaN (255) is `2^127`,
/// as in ggml.
pub(crate) fn e8m0_half(e: u8) -> f32 {
    f32::from_bits(if e < 2 { 0x0020_0000 << e } else { (u32::from(e) - 1) << 23 })
}

pub(super) fn dequantize_iq4_nl(bytes: &[u8], out: &mut [f32]) {
    lookup(&IQ4_NL, f16_at(bytes, 0), &bytes[2..], out);
}

pub(super) fn dequantize_mxfp4(bytes: &[u8], out: &mut [f32]) {
    lookup(&FP4_DOUBLED, e8m0_half(bytes[0]), &bytes[1..], out);
}

fn lookup(table: &[i8; 16], d: f32, bytes: &[u8], out: &mut [f32]) {
    for (value, q) in out.iter_mut().zip(nibbles(bytes)) {
        *value = d * f32::from(table[usize::from(q)]);
    }
}

/// The scale that fits the quants best when large values count more (weights x²), by ggml's reference rule.
pub(super) fn quantize_iq4_nl(source: &[f32], bytes: &mut [u8]) -> Result<(), Overflow> {
    bytes.fill(0);
    let extreme = extreme(source);
    if extreme.abs() < ALL_ZERO {
        return Ok(());
    }
    let inverse = 1.0 / (extreme / f32::from(IQ4_NL[0]));
    let quants: [u8; BLOCK] = std::array::from_fn(|i| nearest_iq4_nl(inverse * source[i]));
    let (mut xq, mut qq) = (0.0, 0.0);
    for (x, q) in source.iter().zip(quants) {
        let (weight, q) = (x * x, f32::from(IQ4_NL[usize::from(q)]));
        xq += weight * q * x;
        qq += weight * q * q;
    }
    put_nibbles(&quants, &mut bytes[2..]);
    put_f16(bytes, 0, if qq > 0.0 { xq / qq } else { 0.0 })
}

pub(super) fn put_iq4_nl(quants: &[u8; BLOCK], d: f32, bytes: &mut [u8]) -> Result<(), Overflow> {
    put_nibbles(quants, &mut bytes[2..]);
    put_f16(bytes, 0, d)
}

pub(super) fn put_mxfp4(quants: &[u8; BLOCK], exponent: u8, bytes: &mut [u8]) {
    bytes[0] = exponent;
    put_nibbles(quants, &mut bytes[1..]);
}

/// Magnitude below which a block of IQ4_NL is zero.
const ALL_ZERO: f32 = 1e-15;

/// Index of the nearest value, the upper one of equals.
fn nearest_iq4_nl(x: f32) -> u8 {
    let upper = IQ4_NL.iter().take_while(|value| f32::from(**value) <= x).count();
    match upper {
        0 => 0,
        16 => 15,
        _ => {
            let (below, above) = (f32::from(IQ4_NL[upper - 1]), f32::from(IQ4_NL[upper]));
            (if x - below < above - x { upper - 1 } else { upper }) as u8
        }
    }
}

/// The exponent is that of the largest magnitude, less that of FP4's largest value (specification, section 6.3); the
/// nearest value, the first of equals in the order of the table, as in ggml.
pub(super) fn quantize_mxfp4(source: &[f32], bytes: &mut [u8]) -> Result<(), Overflow> {
    let exponent = (extreme(source).abs().to_bits() >> 23) as u8;
    let e = exponent.saturating_sub(2);
    let d = e8m0_half(e);
    let nearest = |x: f32| {
        let mut best = (0, f32::INFINITY);
        for (i, value) in FP4_DOUBLED.iter().enumerate() {
            let error = (f32::from(*value) * d - x).abs();
            if error < best.1 {
                best = (i as u8, error);
            }
        }
        best.0
    };
    bytes[0] = e;
    put_nibbles(&std::array::from_fn(|i| nearest(source[i])), &mut bytes[1..]);
    Ok(())
}

/// The sixteen values of NF4 (Dettmers et al. 2023, QLoRA), quantiles of a normal distribution with zero among them, in 127ths: what the
/// integer kernels multiply.
pub(crate) const NF4: [i8; 16] = [-127, -88, -67, -50, -36, -23, -12, 0, 10, 20, 31, 43, 56, 71, 92, 127];

/// Values of NF4 that share a scale, and scales of a block.
const NF4_GROUP: usize = 64;
const NF4_GROUPS: usize = 4;

/// d, the scales and the quants of a block of NF4, in the order of their values.
pub(crate) fn nf4_fields(bytes: &[u8]) -> (f32, [i8; NF4_GROUPS], [u8; NF4_GROUPS * NF4_GROUP]) {
    let scales = std::array::from_fn(|j| bytes[2 + j] as i8);
    (f16_at(bytes, 0), scales, nf4_quants(&bytes[2 + NF4_GROUPS..]))
}

fn nf4_quants(nibbles: &[u8]) -> [u8; NF4_GROUPS * NF4_GROUP] {
    std::array::from_fn(|i| {
        let half = NF4_GROUP / 2;
        nibbles[i / NF4_GROUP * half + i % half] >> (i % NF4_GROUP / half * 4) & 15
    })
}

pub(super) fn put_nf4(
    quants: &[u8; NF4_GROUPS * NF4_GROUP],
    scales: [i8; NF4_GROUPS],
    d: f32,
    bytes: &mut [u8],
) -> Result<(), Overflow> {
    put_f16(bytes, 0, d)?;
    for (to, scale) in bytes[2..].iter_mut().zip(scales) {
        *to = scale as u8;
    }
    let nibbles = bytes[2 + NF4_GROUPS..].chunks_exact_mut(NF4_GROUP / 2);
    for (bytes, quants) in nibbles.zip(quants.as_chunks::<NF4_GROUP>().0) {
        let (low, high) = quants.split_at(NF4_GROUP / 2);
        for (byte, (low, high)) in bytes.iter_mut().zip(low.iter().zip(high)) {
            *byte = low | high << 4;
        }
    }
    Ok(())
}

/// The unit of the scales of a block, and the scales: those of `targets`, of either sign, rounded to 8 bits.
pub(super) fn nf4_scales(targets: [f32; NF4_GROUPS]) -> Result<(f32, [i8; NF4_GROUPS]), Overflow> {
    let widest = targets.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    // Away from zero, so that the widest scale is not cut off.
    let mut bits = super::to_f16(widest / 127.0)?;
    if crate::math::f16_to_f32(bits) * 127.0 < widest {
        bits += 1;
    }
    let d = crate::math::f16_to_f32(bits);
    if !d.is_finite() {
        return Err(Overflow);
    }
    let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
    Ok((d, targets.map(|v| (v * inverse).round().clamp(-127.0, 127.0) as i8)))
}

/// The largest magnitude of each 64 values is their scale, rounded to 8 bits; every value becomes the nearest.
pub(super) fn quantize_nf4(source: &[f32], bytes: &mut [u8]) -> Result<(), Overflow> {
    let targets = std::array::from_fn(|j| {
        extreme(&source[j * NF4_GROUP..(j + 1) * NF4_GROUP]).abs() / f32::from(NF4[15])
    });
    let (d, scales) = nf4_scales(targets)?;
    let quants = std::array::from_fn(|i| {
        let scale = d * f32::from(scales[i / NF4_GROUP]);
        nearest_nf4(scale, source[i])
    });
    put_nf4(&quants, scales, d, bytes)
}

/// Index of the nearest value of NF4 times `scale`, the first of equals.
pub(super) fn nearest_nf4(scale: f32, x: f32) -> u8 {
    let mut best = (0, f32::INFINITY);
    for (q, value) in NF4.iter().enumerate() {
        let error = (scale * f32::from(*value) - x).abs();
        if error < best.1 {
            best = (q as u8, error);
        }
    }
    best.0
}

pub(super) fn dequantize_nf4(bytes: &[u8], out: &mut [f32]) {
    let (d, scales, quants) = nf4_fields(bytes);
    for (i, (value, q)) in out.iter_mut().zip(quants).enumerate() {
        *value = d * f32::from(scales[i / NF4_GROUP]) * f32::from(NF4[usize::from(q)]);
    }
}
