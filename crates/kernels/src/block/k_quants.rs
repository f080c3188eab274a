//! k-quants: 256 values in sub-blocks of 16 or 32, whose scales and minima are themselves quantised.

use super::search::{Grid, Sample, Search};
use super::{Overflow, SUPER_BLOCK, f16_at, put_f16};

/// Most sub-blocks of a super-block.
pub(super) const SUB_BLOCKS_MAX: usize = SUPER_BLOCK / 16;

/// A super-block with its fields apart: what all five formats have in common.
///
/// The value of quant `q` in sub-block `j` is `d·scales[j]·(q − zero_point) − d_min·mins[j]`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SuperBlock {
    /// In the order of their values.
    pub(crate) quants: [u8; SUPER_BLOCK],
    /// Values in one sub-block: 16 or 32.
    pub(crate) sub_block: usize,
    /// Zero in formats with minima.
    pub(crate) zero_point: u8,
    /// One a sub-block.
    pub(crate) scales: [i8; SUB_BLOCKS_MAX],
    /// One a sub-block; zero in formats without.
    pub(crate) mins: [u8; SUB_BLOCKS_MAX],
    pub(crate) d: f32,
    /// Zero in formats without minima.
    pub(crate) d_min: f32,
}

impl SuperBlock {
    /// Q2_K: 16 × (scale, min) nibbles, 64 bytes of 2-bit quants, d, dmin.
    pub(crate) fn read_q2(bytes: &[u8]) -> Self {
        Self {
            quants: two_bits(&bytes[16..80]),
            sub_block: 16,
            zero_point: 0,
            scales: std::array::from_fn(|j| (bytes[j] & 15) as i8),
            mins: std::array::from_fn(|j| bytes[j] >> 4),
            d: f16_at(bytes, 80),
            d_min: f16_at(bytes, 82),
        }
    }

    /// Q3_K: 32 bytes of third bits, 64 bytes of 2-bit quants, 16 scales of 6 bits in 12 bytes, d.
    pub(crate) fn read_q3(bytes: &[u8]) -> Self {
        let (high, scales) = (&bytes[..32], &bytes[96..108]);
        let mut quants = two_bits(&bytes[32..96]);
        for (i, q) in quants.iter_mut().enumerate() {
            *q |= (high[i % 32] >> (i / 32) & 1) << 2;
        }
        // Low nibbles: byte j mod 8, scales 8 to 15 above; the upper two bits: byte 8 + j mod 4, four to a byte.
        let scale = |j: usize| {
            let low = scales[j % 8] >> (j / 8 * 4) & 15;
            let high = scales[8 + j % 4] >> (j / 4 * 2) & 3;
            (low | high << 4) as i8 - 32
        };
        Self {
            quants,
            sub_block: 16,
            zero_point: 4,
            scales: std::array::from_fn(scale),
            mins: [0; SUB_BLOCKS_MAX],
            d: f16_at(bytes, 108),
            d_min: 0.0,
        }
    }

    /// Q4_K: d, dmin, 8 × (scale, min) of 6 bits in 12 bytes, 128 bytes of nibbles.
    pub(crate) fn read_q4(bytes: &[u8]) -> Self {
        let (scales, mins) = six_bits(&bytes[4..16]);
        Self {
            quants: nibbles(&bytes[16..], 32),
            sub_block: 32,
            zero_point: 0,
            scales,
            mins,
            d: f16_at(bytes, 0),
            d_min: f16_at(bytes, 2),
        }
    }

    /// Q5_K: as Q4_K, with 32 bytes of fifth bits before the nibbles.
    pub(crate) fn read_q5(bytes: &[u8]) -> Self {
        let (scales, mins) = six_bits(&bytes[4..16]);
        let high = &bytes[16..48];
        let mut quants = nibbles(&bytes[48..], 32);
        for (i, q) in quants.iter_mut().enumerate() {
            *q |= (high[i % 32] >> (i / 32) & 1) << 4;
        }
        Self {
            quants,
            sub_block: 32,
            zero_point: 0,
            scales,
            mins,
            d: f16_at(bytes, 0),
            d_min: f16_at(bytes, 2),
        }
    }

    /// Q6_K: 128 bytes of nibbles, 64 bytes of upper bit pairs, 16 scales of 8 bits, d.
    pub(crate) fn read_q6(bytes: &[u8]) -> Self {
        let mut quants = nibbles(&bytes[..128], 64);
        for (q, high) in quants.iter_mut().zip(two_bits(&bytes[128..192])) {
            *q |= high << 4;
        }
        Self {
            quants,
            sub_block: 16,
            zero_point: 32,
            scales: std::array::from_fn(|j| bytes[192 + j] as i8),
            mins: [0; SUB_BLOCKS_MAX],
            d: f16_at(bytes, 208),
            d_min: 0.0,
        }
    }

    /// The values, in ggml's order of operations; `out` is (256).
    pub(crate) fn dequantize(&self, out: &mut [f32]) {
        let zero_point = self.zero_point as i8;
        let sub_blocks = out.chunks_exact_mut(self.sub_block).zip(self.quants.chunks_exact(self.sub_block));
        for (j, (values, quants)) in sub_blocks.enumerate() {
            let scale = self.d * f32::from(self.scales[j]);
            let min = self.d_min * f32::from(self.mins[j]);
            for (value, q) in values.iter_mut().zip(quants) {
                // Subtracting the zero of a format without minima changes no bit.
                *value = scale * f32::from(*q as i8 - zero_point) - min;
            }
        }
    }
}

/// What a format's fields can hold.
pub(super) const Q2: Grid =
    Grid { sub_block: 16, zero_point: 0, quant_max: 3, scales: (0, 15), has_mins: true, any_min: false };
pub(super) const Q3: Grid =
    Grid { sub_block: 16, zero_point: 4, quant_max: 7, scales: (-32, 31), has_mins: false, any_min: false };
pub(super) const Q4: Grid =
    Grid { sub_block: 32, zero_point: 0, quant_max: 15, scales: (0, 63), has_mins: true, any_min: false };
pub(super) const Q5: Grid =
    Grid { sub_block: 32, zero_point: 0, quant_max: 31, scales: (0, 63), has_mins: true, any_min: false };
pub(super) const Q6: Grid = Grid {
    sub_block: 16,
    zero_point: 32,
    quant_max: 63,
    scales: (-128, 127),
    has_mins: false,
    any_min: false,
};

pub(super) fn quantize_q2(values: &[f32], bytes: &mut [u8]) -> Result<(), Overflow> {
    Sample::even(values).quantize(Q2)?.write_q2(bytes)
}

pub(super) fn quantize_q3(values: &[f32], bytes: &mut [u8]) -> Result<(), Overflow> {
    Sample::even(values).quantize(Q3)?.write_q3(bytes)
}

pub(super) fn quantize_q4(values: &[f32], bytes: &mut [u8]) -> Result<(), Overflow> {
    Sample::even(values).quantize(Q4)?.write_q4(bytes)
}

pub(super) fn quantize_q5(values: &[f32], bytes: &mut [u8]) -> Result<(), Overflow> {
    Sample::even(values).quantize(Q5)?.write_q5(bytes)
}

pub(super) fn quantize_q6(values: &[f32], bytes: &mut [u8]) -> Result<(), Overflow> {
    Sample::even(values).quantize(Q6)?.write_q6(bytes)
}

/// The inverses of the readers, field by field.
impl SuperBlock {
    pub(super) fn write_q2(&self, bytes: &mut [u8]) -> Result<(), Overflow> {
        for (j, byte) in bytes[..16].iter_mut().enumerate() {
            *byte = self.scales[j] as u8 | self.mins[j] << 4;
        }
        put_two_bits(&self.quants, &mut bytes[16..80]);
        put_f16(bytes, 80, self.d)?;
        put_f16(bytes, 82, self.d_min)
    }

    pub(super) fn write_q3(&self, bytes: &mut [u8]) -> Result<(), Overflow> {
        put_high_bits(&self.quants, 2, &mut bytes[..32]);
        put_two_bits(&self.quants.map(|q| q & 3), &mut bytes[32..96]);
        let scales = &mut bytes[96..108];
        scales.fill(0);
        for j in 0..16 {
            let scale = (self.scales[j] + 32) as u8;
            scales[j % 8] |= (scale & 15) << (j / 8 * 4);
            scales[8 + j % 4] |= (scale >> 4) << (j / 4 * 2);
        }
        put_f16(bytes, 108, self.d)
    }

    pub(super) fn write_q4(&self, bytes: &mut [u8]) -> Result<(), Overflow> {
        put_f16(bytes, 0, self.d)?;
        put_f16(bytes, 2, self.d_min)?;
        put_six_bits(&self.scales, &self.mins, &mut bytes[4..16]);
        put_nibbles(&self.quants, 32, &mut bytes[16..]);
        Ok(())
    }

    pub(super) fn write_q5(&self, bytes: &mut [u8]) -> Result<(), Overflow> {
        put_f16(bytes, 0, self.d)?;
        put_f16(bytes, 2, self.d_min)?;
        put_six_bits(&self.scales, &self.mins, &mut bytes[4..16]);
        put_high_bits(&self.quants, 4, &mut bytes[16..48]);
        put_nibbles(&self.quants, 32, &mut bytes[48..]);
        Ok(())
    }

    pub(super) fn write_q6(&self, bytes: &mut [u8]) -> Result<(), Overflow> {
        put_nibbles(&self.quants, 64, &mut bytes[..128]);
        put_two_bits(&self.quants.map(|q| q >> 4), &mut bytes[128..192]);
        for (byte, scale) in bytes[192..208].iter_mut().zip(self.scales) {
            *byte = scale as u8;
        }
        put_f16(bytes, 208, self.d)
    }
}

/// 2-bit fields: 32 bytes hold 128 values, the first 32 in the lowest bits.
fn two_bits(bytes: &[u8]) -> [u8; SUPER_BLOCK] {
    std::array::from_fn(|i| bytes[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3)
}

/// Nibbles: `run` bytes hold 2 · `run` values, the first half of them below.
fn nibbles(bytes: &[u8], run: usize) -> [u8; SUPER_BLOCK] {
    std::array::from_fn(|i| bytes[i / (2 * run) * run + i % run] >> (i / run % 2 * 4) & 15)
}

/// Scales and minima of Q4_K and Q5_K. The first four of each lie in the lower six bits of a byte; the others have
/// their nibbles side by side, and their upper two bits above the first four.
fn six_bits(bytes: &[u8]) -> ([i8; SUB_BLOCKS_MAX], [u8; SUB_BLOCKS_MAX]) {
    let (mut scales, mut mins) = ([0; SUB_BLOCKS_MAX], [0; SUB_BLOCKS_MAX]);
    for j in 0..4 {
        scales[j] = (bytes[j] & 63) as i8;
        mins[j] = bytes[j + 4] & 63;
        scales[j + 4] = (bytes[j + 8] & 15 | bytes[j] >> 6 << 4) as i8;
        mins[j + 4] = bytes[j + 8] >> 4 | bytes[j + 4] >> 6 << 4;
    }
    (scales, mins)
}

fn put_two_bits(quants: &[u8; SUPER_BLOCK], bytes: &mut [u8]) {
    bytes.fill(0);
    for (i, q) in quants.iter().enumerate() {
        bytes[i / 128 * 32 + i % 32] |= q << (i % 128 / 32 * 2);
    }
}

fn put_nibbles(quants: &[u8; SUPER_BLOCK], run: usize, bytes: &mut [u8]) {
    bytes.fill(0);
    for (i, q) in quants.iter().enumerate() {
        bytes[i / (2 * run) * run + i % run] |= (q & 15) << (i / run % 2 * 4);
    }
}

/// Bit `bit` of every quant: 32 bytes, the first 32 values in the lowest bits.
fn put_high_bits(quants: &[u8; SUPER_BLOCK], bit: usize, bytes: &mut [u8]) {
    bytes.fill(0);
    for (i, q) in quants.iter().enumerate() {
        bytes[i % 32] |= (q >> bit & 1) << (i / 32);
    }
}

fn put_six_bits(scales: &[i8; SUB_BLOCKS_MAX], mins: &[u8; SUB_BLOCKS_MAX], bytes: &mut [u8]) {
    for j in 0..4 {
        let (scale, min) = (scales[j + 4] as u8, mins[j + 4]);
        bytes[j] = scales[j] as u8 | scale >> 4 << 6;
        bytes[j + 4] = mins[j] | min >> 4 << 6;
        bytes[j + 8] = scale & 15 | min << 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Read = fn(&[u8]) -> SuperBlock;
    type Write = fn(&SuperBlock, &mut [u8]) -> Result<(), Overflow>;

    #[test]
    fn every_field_is_written_where_it_is_read() {
        let formats: [(usize, [usize; 2], Read, Write); 5] = [
            (84, [81, 83], SuperBlock::read_q2, SuperBlock::write_q2),
            (110, [109, 109], SuperBlock::read_q3, SuperBlock::write_q3),
            (144, [1, 3], SuperBlock::read_q4, SuperBlock::write_q4),
            (176, [1, 3], SuperBlock::read_q5, SuperBlock::write_q5),
            (210, [209, 209], SuperBlock::read_q6, SuperBlock::write_q6),
        ];
        let mut state = 1u32;
        for (size, scales, read, write) in formats {
            let mut bytes: Vec<u8> = (0..size)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (state >> 24) as u8
                })
                .collect();
            for at in scales {
                bytes[at] &= 0x3f; // a finite half
            }
            let mut back = vec![0xff; size];
            write(&read(&bytes), &mut back).unwrap();
            assert_eq!(bytes, back, "{size} bytes");
        }
    }
}
