//! What an instruction set has to offer: the few register operations that all integer kernels are made of.
//!
//! A register holds `WIDTH` lanes of 32 bits, one for each row of a tile; a tile is `LANES / WIDTH` parts. The methods are
//! inlined into functions with the features of the set, so `self`, a token that exists only where the processor has them, is the
//! proof that they may be called.

use crate::limits::{BLOCK, LANES};
use crate::matrix::{Lanes16, Lanes32, Line};

/// Register operations of one instruction set. All are exact or correctly rounded: every set gives the same bits.
pub(crate) trait Simd: Copy {
    /// Lanes of a register.
    const WIDTH: usize;
    /// Most tokens whose sums fit into registers beside a block of weights.
    const TOKENS: usize;
    /// Whether [`Simd::dot`] takes weights as i8 rather than u8.
    const SIGNED: bool = false;
    /// Whether [`Simd::dot_two`] is there.
    const PAIRS: bool = false;
    /// `WIDTH` × i32, or four bytes for each lane.
    type Int: Copy;
    /// `WIDTH` × f32.
    type Float: Copy;
    /// Four int8 activations, ready to meet the weights of every lane.
    type Four: Copy;

    /// Four bytes for each lane of a part. On x86 by a volatile load, because the compiler is not to change the order of several: a
    /// processor that finds lines read backwards or back and forth loads few of them ahead.
    fn line(self, line: &Line, part: usize) -> Self::Int;
    fn and(self, a: Self::Int, b: Self::Int) -> Self::Int;
    fn or(self, a: Self::Int, b: Self::Int) -> Self::Int;
    fn xor(self, a: Self::Int, b: Self::Int) -> Self::Int;
    /// Shifts by `count < 8` bits towards the low end. Bits that come in from a neighbouring byte are arbitrary.
    fn shift_right(self, a: Self::Int, count: u32) -> Self::Int;
    /// As [`Simd::shift_right`], towards the high end.
    fn shift_left(self, a: Self::Int, count: u32) -> Self::Int;
    /// The byte in every place.
    fn byte(self, value: u8) -> Self::Int;
    /// `table[b]` for every byte b < 16.
    fn look_up(self, table: &[u8; 16], a: Self::Int) -> Self::Int;

    /// As [`Simd::line`], for each lane the four bytes of the lane before it in the line; the last one's for the first.
    fn lines_before(self, line: &Line, part: usize) -> Self::Int;
    /// Shifts each lane by `count ≤ 16` bits towards the low end.
    fn words_right(self, a: Self::Int, count: u32) -> Self::Int;
    /// As [`Simd::words_right`], towards the high end.
    fn words_left(self, a: Self::Int, count: u32) -> Self::Int;
    /// The lower half of each lane of `a`, the upper half of `b`.
    fn low_halves(self, a: Self::Int, b: Self::Int) -> Self::Int;
    /// The first and third byte of each lane of `a`, the others of `b`.
    fn even_bytes(self, a: Self::Int, b: Self::Int) -> Self::Int;
    /// The low 16 bits of the product of each half of a lane with `factor`.
    fn multiply_halves(self, a: Self::Int, factor: u16) -> Self::Int;
    /// `(a + b + 1) / 2` of unsigned bytes.
    fn mean_bytes(self, a: Self::Int, b: Self::Int) -> Self::Int;

    /// A block of a sparse format with stored bytes: the registers that [`super::format::Quants::expand`] gives.
    fn sparse8(self, block: &[Line; 5], part: usize) -> [Self::Int; 8];
    /// As [`Simd::sparse8`], with stored nibbles.
    fn sparse4(self, block: &[Line; 3], part: usize) -> [Self::Int; 8];

    fn four(self, activations: &[i8; 4]) -> Self::Four;
    /// `sum + Σ weight · activation` over the four bytes of each lane; weights are u8 (or i8, as [`Simd::SIGNED`] says),
    /// activations i8 above −128; exact.
    fn dot(self, sum: Self::Int, weights: Self::Int, activations: Self::Four) -> Self::Int;
    /// The sums of two tokens over the first or second half of a block, by instructions that take two tokens at once.
    ///
    /// # Panics
    /// Unless [`Simd::PAIRS`].
    fn dot_two(
        self,
        _weights: &[Self::Int; 8],
        _half: usize,
        _values: [&[i8; BLOCK / 2]; 2],
    ) -> [Self::Int; 2] {
        unreachable!("not a set with pairs")
    }

    /// The value in every lane.
    fn int(self, value: i32) -> Self::Int;
    fn add(self, a: Self::Int, b: Self::Int) -> Self::Int;
    fn sub(self, a: Self::Int, b: Self::Int) -> Self::Int;
    /// The low 32 bits of the product.
    fn mul(self, a: Self::Int, b: Self::Int) -> Self::Int;
    /// `value · 2^shift` in every lane.
    fn int_shifted(self, value: i32, shift: u32) -> Self::Int;
    /// One u8 for each lane.
    fn bytes(self, values: &[u8; LANES], part: usize) -> Self::Int;
    /// One i8 for each lane.
    fn signed_bytes(self, values: &[i8; LANES], part: usize) -> Self::Int;

    fn zero(self) -> Self::Float;
    /// The value in every lane.
    fn float(self, value: f32) -> Self::Float;
    fn to_float(self, a: Self::Int) -> Self::Float;
    /// IEEE halves to singles, exact.
    fn halves(self, values: &Lanes16, part: usize) -> Self::Float;
    /// Brain floats to singles, exact.
    fn brains(self, values: &Lanes16, part: usize) -> Self::Float;
    fn singles(self, values: &Lanes32, part: usize) -> Self::Float;
    fn times(self, a: Self::Float, b: Self::Float) -> Self::Float;
    /// `a · b + c`, rounded once.
    fn fused(self, a: Self::Float, b: Self::Float, c: Self::Float) -> Self::Float;
    fn store(self, a: Self::Float, out: &mut [f32; LANES], part: usize);
    /// Four bytes for each lane of a part, the inverse of [`Simd::line`].
    fn store_line(self, a: Self::Int, line: &mut Line, part: usize);
}
