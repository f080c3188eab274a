//! Four bits that choose from a table: IQ4_NL with a half scale, MXFP4 with a power of two.

use super::f16_at;
use super::legacy::nibbles;

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
