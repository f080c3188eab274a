//! Rows with one scale: int8, and eight-bit floats.

use super::BlockFormat;
use crate::error::KernelError;
use crate::math::round_even;

/// Bytes of the scale in front of a row: an f32.
pub(crate) const ROW_SCALE_BYTES: usize = 4;
/// The largest E4M3: 1.75 · 2^8.
pub(crate) const F8_MAX: f32 = 448.0;
/// The magnitude of the NaNs among E4M3.
pub(crate) const F8_NAN: u8 = 0x7f;

/// The scale in front of a row.
pub(crate) fn row_scale(row: &[u8]) -> f32 {
    f32::from_le_bytes([row[0], row[1], row[2], row[3]])
}

/// E4M3 of the OCP 8-bit floating point specification 1.0: a sign, 4 exponent bits of bias 7, 3 mantissa bits; no infinities, and one
/// NaN of either sign.
#[inline(always)]
pub(crate) fn f8_to_f32(byte: u8) -> f32 {
    let magnitude = u32::from(byte & 0x7f);
    let normal = f32::from_bits((magnitude << 20) + (120 << 23));
    let subnormal = magnitude as f32 * (1.0 / 512.0);
    let value = if magnitude < 8 { subnormal } else { normal };
    let value = if magnitude == u32::from(F8_NAN) { f32::NAN } else { value };
    f32::from_bits(value.to_bits() | u32::from(byte & 0x80) << 24)
}

/// The nearest E4M3 of a number up to [`F8_MAX`], ties to even.
fn f32_to_f8(x: f32) -> u8 {
    let sign = (x.to_bits() >> 24 & 0x80) as u8;
    let x = x.abs().min(F8_MAX);
    if x < 1.0 / 64.0 {
        // Steps of 2^-9; eight of them are the least normal number, as the bytes have it.
        return sign | round_even(x * 512.0).1 as u8;
    }
    let bits = x.to_bits();
    let odd = bits >> 20 & 1;
    sign | (((bits + 0x7_ffff + odd) >> 20) - (120 << 3)) as u8
}

/// A matrix of rows of `columns` values.
pub(super) fn dequantize(format: BlockFormat, columns: usize, bytes: &[u8], out: &mut [f32]) {
    let rows = bytes.chunks_exact(columns + ROW_SCALE_BYTES).zip(out.chunks_exact_mut(columns));
    for (source, values) in rows {
        let d = row_scale(source);
        for (value, q) in values.iter_mut().zip(&source[ROW_SCALE_BYTES..]) {
            *value = d * if format == BlockFormat::I8_ROW { f32::from(*q as i8) } else { f8_to_f32(*q) };
        }
    }
}

/// f32 to a format whose rows have a scale, for rows of `columns` values. The scale takes the row's largest magnitude to 127 (I8_ROW) or
/// 448 (F8_E4M3); values are rounded to the nearest, ties to even.
///
/// # Errors
/// If the format has no such scale or `values` is not whole rows of whole blocks, `out` is not exactly their stored size, or a value is
/// NaN or infinite.
pub fn quantize_rows(
    format: BlockFormat,
    columns: usize,
    values: &[f32],
    out: &mut [u8],
) -> Result<(), KernelError> {
    let rows = values.len().checked_div(columns).unwrap_or(0);
    let whole = rows * columns == values.len() && format.row_bytes() > 0;
    let Some(expected) = format.matrix_bytes(rows, columns).filter(|_| whole) else {
        let name = "quantize".to_owned();
        return Err(KernelError::PartialBlock { name, count: columns, format, block: format.block() });
    };
    if expected != out.len() {
        return Err(KernelError::ByteLength { name: "quantize".to_owned(), found: out.len(), expected });
    }
    if let Some(index) = values.iter().position(|value| !value.is_finite()) {
        return Err(KernelError::NotFinite { index, found: values[index].to_string() });
    }
    let largest = if format == BlockFormat::I8_ROW { 127.0 } else { F8_MAX };
    let row_bytes = columns + ROW_SCALE_BYTES;
    for (row, out) in values.chunks_exact(columns).zip(out.chunks_exact_mut(row_bytes)) {
        let extreme = row.iter().fold(0.0f32, |extreme, v| extreme.max(v.abs()));
        let d = extreme / largest;
        // A row of subnormal numbers: their inverse may be infinite.
        let inverse = if d < f32::MIN_POSITIVE { 0.0 } else { 1.0 / d };
        out[..ROW_SCALE_BYTES].copy_from_slice(&d.to_le_bytes());
        for (q, v) in out[ROW_SCALE_BYTES..].iter_mut().zip(row) {
            let x = (v * inverse).clamp(-largest, largest);
            *q = if format == BlockFormat::I8_ROW { round_even(x).1 as i8 as u8 } else { f32_to_f8(x) };
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_eight_bit_float_comes_back() {
        assert_eq!([0x08, 0x38, 0x7e, 0x01].map(f8_to_f32), [1.0 / 64.0, 1.0, 448.0, 1.0 / 512.0]);
        for byte in 0..=255u8 {
            let value = f8_to_f32(byte);
            if byte & 0x7f == 0x7f {
                assert!(value.is_nan());
            } else {
                assert_eq!(f32_to_f8(value), byte, "{value}");
                assert_eq!(value.is_sign_negative(), byte >= 0x80);
            }
        }
    }

    #[test]
    fn floats_become_the_nearest_eight_bit_float() {
        let mut finite: Vec<u8> = (0..0x7f).collect();
        finite.sort_by(|a, b| f8_to_f32(*a).total_cmp(&f8_to_f32(*b)));
        for i in 0..20_000 {
            let x = (i as f32 / 20_000.0).powi(4) * 460.0;
            let nearest = finite.iter().map(|b| (f8_to_f32(*b) - x).abs()).fold(f32::MAX, f32::min);
            assert_eq!((f8_to_f32(f32_to_f8(x)) - x).abs(), nearest, "{x}");
        }
    }
}
