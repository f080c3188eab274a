//! Randomised Hadamard rotations: what makes the values of a matrix look Gaussian before they are quantised.
//!
//! A vector is cut into groups of [`rotation_width`] values. In each, value i is multiplied by a fixed sign, and the group by the
//! Hadamard matrix over the root of its width (Tseng et al. 2024, QuIP#). The matrix is its own inverse, so the way back is the
//! same with the signs last. Both are orthogonal: a matrix W that is stored as `W' = R_out · W · R_inᵀ` gives
//! `W·x = R_outᵀ · (W' · (R_in·x))`.
//!
//! The signs are part of the format (ADR 0026): every matrix with rotated inputs reads the same rotated activations.

use std::ops::{Add, Mul, Sub};

use crate::isa::{Isa, multiversion};
use crate::limits::ROTATION_MAX;

/// Which side of a matrix is rotated: each has signs of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Columns: what the matrix reads.
    Input,
    /// Rows: what it writes.
    Output,
}

/// Values that are rotated together in a vector of `length`: the largest power of two that divides it, [`ROTATION_MAX`] at most.
pub const fn rotation_width(length: usize) -> usize {
    let power = 1 << length.trailing_zeros();
    if power < ROTATION_MAX { power } else { ROTATION_MAX }
}

/// Signs from the bits of splitmix64 (Steele et al. 2014) with the given state.
const fn signs(mut state: u64) -> [f32; ROTATION_MAX] {
    let mut out = [1.0; ROTATION_MAX];
    let mut i = 0;
    while i < ROTATION_MAX {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        if (z ^ (z >> 31)) >> 63 == 1 {
            out[i] = -1.0;
        }
        i += 1;
    }
    out
}

const INPUT_SIGNS: [f32; ROTATION_MAX] = signs(1);
const OUTPUT_SIGNS: [f32; ROTATION_MAX] = signs(2);

impl Side {
    const fn signs(self) -> &'static [f32; ROTATION_MAX] {
        match self {
            Self::Input => &INPUT_SIGNS,
            Self::Output => &OUTPUT_SIGNS,
        }
    }

    /// The sign of value `index` of a vector whose groups are `width` long.
    pub const fn sign(self, index: usize, width: usize) -> f32 {
        self.signs()[index % width]
    }
}

/// `1 / √width`, for powers of two up to [`ROTATION_MAX`].
pub(crate) fn norm(width: usize) -> f32 {
    let halves = width.trailing_zeros();
    let root = if halves.is_multiple_of(2) { 1.0 } else { std::f32::consts::FRAC_1_SQRT_2 };
    root / (1u32 << (halves / 2)) as f32
}

/// `x = H·x`, unnormalised; the order of additions is the definition.
#[inline(always)]
fn butterfly<T: Copy + Add<Output = T> + Sub<Output = T>, const N: usize>(x: &mut [T; N]) {
    let mut half = 1;
    while half < N {
        for start in (0..N).step_by(2 * half) {
            for i in start..start + half {
                let (a, b) = (x[i], x[i + half]);
                (x[i], x[i + half]) = (a + b, a - b);
            }
        }
        half *= 2;
    }
}

#[inline(always)]
fn group<const N: usize>(x: &mut [f32], signs: &[f32; ROTATION_MAX], back: bool) {
    let norm = norm(N);
    for x in x.as_chunks_mut::<N>().0 {
        if !back {
            x.iter_mut().zip(signs).for_each(|(x, sign)| *x *= sign);
        }
        butterfly(x);
        x.iter_mut().for_each(|x| *x *= norm);
        if back {
            x.iter_mut().zip(signs).for_each(|(x, sign)| *x *= sign);
        }
    }
}

multiversion! {
    fn groups(isa, x: &mut [f32], width: usize, signs: &[f32; ROTATION_MAX], back: bool) {
        match width {
            128 => group::<128>(x, signs, back),
            64 => group::<64>(x, signs, back),
            32 => group::<32>(x, signs, back),
            16 => group::<16>(x, signs, back),
            8 => group::<8>(x, signs, back),
            4 => group::<4>(x, signs, back),
            2 => group::<2>(x, signs, back),
            _ => group::<1>(x, signs, back),
        }
    }
}

/// Rotates whole groups of `width` values.
///
/// # Panics
/// If they are not whole groups, or `width` is no power of two up to [`ROTATION_MAX`].
pub fn rotate(isa: Isa, side: Side, x: &mut [f32], width: usize) {
    check(x.len(), width);
    groups(isa, x, width, side.signs(), false);
}

/// The inverse of [`rotate`].
///
/// # Panics
/// As there.
pub fn rotate_back(isa: Isa, side: Side, x: &mut [f32], width: usize) {
    check(x.len(), width);
    groups(isa, x, width, side.signs(), true);
}

fn check(length: usize, width: usize) {
    assert!(width.is_power_of_two() && width <= ROTATION_MAX, "{width} is no width of a rotation");
    assert!(length.is_multiple_of(width), "{length} values are not whole groups of {width}");
}

/// Rotates the `count` vectors of which `x` holds one value each, side by side: vector j has the values `x[i · count + j]`. The
/// bits are those of [`rotate`] for each vector.
///
/// # Panics
/// If there are not whole groups of `width` values.
pub fn rotate_columns<T>(side: Side, x: &mut [T], count: usize, width: usize)
where
    T: Copy + Add<Output = T> + Sub<Output = T> + Mul<Output = T> + From<f32>,
{
    columns(side, x, count, width, false);
}

/// The inverse of [`rotate_columns`].
///
/// # Panics
/// As there.
pub fn rotate_columns_back<T>(side: Side, x: &mut [T], count: usize, width: usize)
where
    T: Copy + Add<Output = T> + Sub<Output = T> + Mul<Output = T> + From<f32>,
{
    columns(side, x, count, width, true);
}

fn columns<T>(side: Side, x: &mut [T], count: usize, width: usize, back: bool)
where
    T: Copy + Add<Output = T> + Sub<Output = T> + Mul<Output = T> + From<f32>,
{
    check(x.len() / count, width);
    let norm = T::from(norm(width));
    for rows in x.chunks_exact_mut(width * count) {
        let signed = |rows: &mut [T]| {
            for (i, row) in rows.chunks_exact_mut(count).enumerate() {
                let sign = T::from(side.signs()[i]);
                row.iter_mut().for_each(|x| *x = *x * sign);
            }
        };
        if !back {
            signed(rows);
        }
        let mut half = 1;
        while half < width {
            for pair in rows.chunks_exact_mut(2 * half * count) {
                let (first, second) = pair.split_at_mut(half * count);
                for (a, b) in first.iter_mut().zip(second) {
                    (*a, *b) = (*a + *b, *a - *b);
                }
            }
            half *= 2;
        }
        rows.iter_mut().for_each(|x| *x = *x * norm);
        if back {
            signed(rows);
        }
    }
}

/// Value `index` of the vectors that come from [`rotate_columns_back`] of `x`, which holds one group: `width` rows of N. `x` is used
/// as scratch.
pub(crate) fn one_row_back<const N: usize>(side: Side, x: &mut [[f32; N]], index: usize) -> [f32; N] {
    let width = x.len();
    let mut length = width;
    let mut bits = index;
    // Of each pair of a stage only the half that `index` descends from.
    while length > 1 {
        length /= 2;
        for i in 0..length {
            let (a, b) = (x[2 * i], x[2 * i + 1]);
            let add = bits & 1 == 0;
            x[i] = std::array::from_fn(|j| if add { a[j] + b[j] } else { a[j] - b[j] });
        }
        bits >>= 1;
    }
    let (norm, sign) = (norm(width), side.sign(index, width));
    x[0].map(|x| x * norm * sign)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(count: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 7919 + 13) % 997) as f32 / 997.0 - 0.5).collect()
    }

    #[test]
    fn rotations_are_orthogonal_and_come_back() {
        for (length, width) in [(384, 128), (192, 64), (96, 32), (16, 16), (40, 8), (6, 2), (3, 1)] {
            assert_eq!(rotation_width(length), width);
            let x = noise(length);
            let square = |x: &[f32]| x.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>();
            for side in [Side::Input, Side::Output] {
                for isa in Isa::available() {
                    let mut turned = x.clone();
                    rotate(isa, side, &mut turned, width);
                    assert!((square(&turned) / square(&x) - 1.0).abs() < 1e-6, "{length}");
                    let mut plain = x.clone();
                    rotate(Isa::Scalar, side, &mut plain, width);
                    assert!(plain.iter().zip(&turned).all(|(a, b)| a.to_bits() == b.to_bits()));
                    rotate_back(isa, side, &mut turned, width);
                    assert!(turned.iter().zip(&x).all(|(a, b)| (a - b).abs() < 1e-6), "{length}");
                }
            }
        }
    }

    #[test]
    fn each_unit_vector_becomes_its_column_of_the_hadamard_matrix() {
        for i in [0, 5, 77, 127] {
            let mut x = vec![0.0; 128];
            x[i] = 1.0;
            rotate(Isa::detect(), Side::Input, &mut x, 128);
            for (j, value) in x.iter().enumerate() {
                let parity = if (i & j).count_ones() % 2 == 0 { 1.0 } else { -1.0 };
                let expected = parity * Side::Input.sign(i, 128) / 128f64.sqrt() as f32;
                assert!((value - expected).abs() < 1e-7, "{i} {j}");
            }
        }
        assert!(INPUT_SIGNS.iter().filter(|sign| **sign < 0.0).count().abs_diff(64) < 24);
        assert_ne!(INPUT_SIGNS, OUTPUT_SIGNS);
    }

    #[test]
    fn columns_rotate_as_vectors_do() {
        let (width, count) = (64, 5);
        let mut x = noise(2 * width * count);
        let original = x.clone();
        rotate_columns(Side::Output, &mut x, count, width);
        for j in 0..count {
            let take = |x: &[f32]| x.iter().skip(j).step_by(count).copied().collect::<Vec<_>>();
            let mut vector = take(&original);
            rotate(Isa::detect(), Side::Output, &mut vector, width);
            assert_eq!(vector, take(&x));
        }
        let mut back = x.clone();
        rotate_columns_back(Side::Output, &mut back, count, width);
        for index in 0..width {
            let mut group: Vec<[f32; 5]> = x[..width * count].as_chunks::<5>().0.to_vec();
            let row = one_row_back(Side::Output, &mut group, index);
            assert_eq!(row[..], back[index * count..(index + 1) * count]);
        }
        assert!(back.iter().zip(&original).all(|(a, b)| (a - b).abs() < 1e-6));
    }
}
