//! k-quants: 256 values in sub-blocks of 16 or 32, whose scales and minima are themselves quantised.

use super::{SUPER_BLOCK, f16_at};

/// Most sub-blocks of a super-block.
const SUB_BLOCKS_MAX: usize = SUPER_BLOCK / 16;

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
