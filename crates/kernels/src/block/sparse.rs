//! Blocks of 32 of which 16 are stored (SPARSE8, SPARSE4): weights that were pruned to zero take no room but a bit.
//!
//! | bytes | what |
//! |---|---|
//! | 0..2 | f16 d |
//! | 2..6 | u32 mask: bit i says that value i is stored; 16 ones |
//! | 6..22 | SPARSE8: the stored values as i8 q, in the order of their places: d·q |
//! | 6..14 | SPARSE4: the same as nibbles, the lower one first: d·(q − 8) |
//!
//! Any pattern of at most 16 values in 32 fits: 2 of every 4, 8 of 16, 16 of 32. Where fewer are not zero, the first zeros are stored too.

use super::legacy;
use super::{BlockFormat, Overflow, f16_at, put_f16};
use crate::error::KernelError;
use crate::limits::BLOCK;

/// Values of a block that are stored.
pub(crate) const STORED: usize = BLOCK / 2;
/// Where the mask of a block is, and where its values are.
const MASK_AT: usize = 2;
const VALUES_AT: usize = 6;

impl BlockFormat {
    /// Bits of a stored value, if it is a sparse format: one that stores 16 of every 32 values.
    pub const fn sparse_bits(self) -> Option<u32> {
        match self {
            Self::SPARSE8 => Some(8),
            Self::SPARSE4 => Some(4),
            _ => None,
        }
    }
}

/// Bytes of a block whose stored values have so many bits.
pub(crate) const fn block_bytes(bits: u32) -> usize {
    VALUES_AT + STORED * bits as usize / 8
}

/// What is subtracted from a stored quant, and is the quant of a value that is not stored.
pub(crate) const fn zero_point(bits: u32) -> u8 {
    1 << (bits - 1)
}

/// Which values of a block are stored.
pub(crate) fn mask(block: &[u8]) -> u32 {
    let at = &block[MASK_AT..VALUES_AT];
    u32::from_le_bytes([at[0], at[1], at[2], at[3]])
}

/// The stored quants of a block.
pub(crate) fn stored(bits: u32, block: &[u8]) -> [u8; STORED] {
    let bytes = &block[VALUES_AT..];
    std::array::from_fn(|i| match bits {
        8 => bytes[i] ^ zero_point(8),
        _ => bytes[i / 2] >> (i % 2 * 4) & 15,
    })
}

/// All quants of a block.
pub(super) fn quants(bits: u32, block: &[u8]) -> [u8; BLOCK] {
    let (mask, stored) = (mask(block), stored(bits, block));
    let mut quants = [zero_point(bits); BLOCK];
    let places = (0..BLOCK).filter(|place| mask >> place & 1 == 1);
    places.zip(stored).for_each(|(place, q)| quants[place] = q);
    quants
}

/// The inverse of [`quants`], for at most 16 that are not zero.
pub(super) fn put(bits: u32, quants: &[u8; BLOCK], d: f32, block: &mut [u8]) -> Result<(), Overflow> {
    let zero = zero_point(bits);
    let mut mask = quants.iter().rev().fold(0u32, |mask, q| mask << 1 | u32::from(*q != zero));
    while (mask.count_ones() as usize) < STORED {
        mask |= mask + 1;
    }
    block[MASK_AT..VALUES_AT].copy_from_slice(&mask.to_le_bytes());
    block[VALUES_AT..].fill(0);
    let places = (0..BLOCK).filter(|place| mask >> place & 1 == 1).take(STORED);
    for (i, place) in places.enumerate() {
        match bits {
            8 => block[VALUES_AT + i] = quants[place] ^ zero,
            _ => block[VALUES_AT + i / 2] |= (quants[place] & 15) << (i % 2 * 4),
        }
    }
    put_f16(block, 0, d)
}

/// Which values have to be stored: those that are not zero.
///
/// # Errors
/// [`KernelError::Dense`] if they are too many.
pub(super) fn kept(format: BlockFormat, values: &[f32]) -> Result<u32, KernelError> {
    let kept = values.iter().rev().fold(0u32, |mask, v| mask << 1 | u32::from(*v != 0.0));
    if kept.count_ones() as usize > STORED {
        return Err(KernelError::Dense { found: kept.count_ones() as usize, format });
    }
    Ok(kept)
}

/// Whether all blocks of a matrix store 16 values: no other number can be packed.
///
/// # Errors
/// [`KernelError::Mask`] with the first that does not.
pub(crate) fn check_masks(format: BlockFormat, bytes: &[u8], name: &str) -> Result<(), KernelError> {
    if format.sparse_bits().is_none() {
        return Ok(());
    }
    let mut counts = bytes.chunks_exact(format.block_bytes()).map(|block| mask(block).count_ones() as usize);
    match counts.position(|count| count != STORED) {
        None => Ok(()),
        Some(block) => {
            let found = mask(&bytes[block * format.block_bytes()..]).count_ones() as usize;
            Err(KernelError::Mask { name: name.to_owned(), block, found, expected: STORED })
        }
    }
}

pub(super) fn dequantize(bits: u32, block: &[u8], out: &mut [f32]) {
    let d = f16_at(block, 0);
    for (value, q) in out.iter_mut().zip(quants(bits, block)) {
        *value = d * (f32::from(q) - f32::from(zero_point(bits)));
    }
}

/// By the rules of Q8_0 and Q4_0: the largest magnitude is 127, or the value of largest magnitude −8.
pub(super) fn quantize(bits: u32, source: &[f32], block: &mut [u8]) -> Result<(), Overflow> {
    let (d, quants) = if bits == 8 { legacy::q8_0(source) } else { legacy::q4_0(source) };
    put(bits, &quants, d, block)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_laid_out_as_documented() {
        let mut values = [0.0f32; BLOCK];
        (values[1], values[4], values[31]) = (1.0, -2.0, 0.5);
        let mut block = [0xa5; block_bytes(8)];
        quantize(8, &values, &mut block).unwrap();
        // 0, 2, 3 and 5 to 14 fill it up: the first zeros.
        assert_eq!(mask(&block), 0x8000_7fff);
        assert_eq!(&block[6..12], &[0, 64, 0, 0, (-127i8) as u8, 0]);
        assert_eq!((block[20], block[21]), (0, 32));
        let mut back = [f32::NAN; BLOCK];
        dequantize(8, &block, &mut back);
        assert!(back.iter().zip(&values).all(|(a, b)| (a - b).abs() < 0.01 && (*b != 0.0 || *a == 0.0)));

        let mut block = [0xa5; block_bytes(4)];
        quantize(4, &values, &mut block).unwrap();
        // d = 0.25: 1 is 4, −2 is −8, 0.5 is 2.
        assert_eq!((f16_at(&block, 0), mask(&block)), (0.25, 0x8000_7fff));
        assert_eq!(&block[6..9], &[0xc8, 0x88, 0x80]);
        assert_eq!(block[13], 0xa8);
        dequantize(4, &block, &mut back);
        assert_eq!(back, values);
    }

    #[test]
    fn a_full_mask_is_not_filled_up() {
        let values: [f32; BLOCK] = std::array::from_fn(|i| if i % 4 < 2 { 1.0 } else { 0.0 });
        let mut block = [0; block_bytes(8)];
        quantize(8, &values, &mut block).unwrap();
        assert_eq!(mask(&block), 0x3333_3333);
        assert_eq!(kept(BlockFormat::SPARSE8, &values), Ok(0x3333_3333));
        assert_eq!(check_masks(BlockFormat::SPARSE8, &block, "w"), Ok(()));
        block[MASK_AT] = 0;
        let found = check_masks(BlockFormat::SPARSE8, &[block, block].concat(), "w");
        assert_eq!(found, Err(KernelError::Mask { name: "w".to_owned(), block: 0, found: 12, expected: 16 }));
    }
}
