//! 512-bit registers: a whole tile at once, `vpdpbusd` for four products a lane.
#![allow(unsafe_code)]

use std::arch::asm;
use std::arch::x86_64::*;

use super::avx2::prefetch;
use super::format::{Format, Quants};
use super::kernel::Strip;
use super::simd::Simd;
use super::sparse::windows;
use super::{Job, Kernels, kernel};
use crate::isa::Avx512;
use crate::limits::LANES;
use crate::matrix::{Lanes16, Lanes32, Line};

/// For a first nibble that is the lower or the upper one of its byte: the byte of each nibble that follows, and which of them are upper
/// ones.
static NIBBLES: [(Line, u64); 2] =
    [(byte_of_nibble(0), 0xaaaa_aaaa_aaaa_aaaa), (byte_of_nibble(1), 0x5555_5555_5555_5555)];

const fn byte_of_nibble(first: usize) -> Line {
    let mut bytes = [0; 64];
    let mut i = 0;
    while i < 64 {
        bytes[i] = ((i + first) / 2) as u8;
        i += 1;
    }
    Line(bytes)
}

/// The places of the mask take the bytes of `values` that follow each other, the others those of `other`.
///
/// In assembly because the intrinsic and the load before it become the instruction's form that reads memory, which takes ten times as
/// long on Zen 4.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi2")]
fn expand(mut other: __m512i, mask: u64, values: __m512i) -> __m512i {
    // SAFETY: the function's features include the instruction; registers only.
    unsafe {
        asm!("vpexpandb {0} {{{1}}}, {2}", inout(zmm_reg) other, in(kreg) mask, in(zmm_reg) values,
            options(pure, nomem, nostack, preserves_flags));
    }
    other
}

/// Where the first operand has a one, the second, else the third.
const CHOOSE: i32 = 0b1100_1010;

// SAFETY of every block below: `self` proves the features; loads and stores take references to whole registers. What expands is called
// from `Kernels` only, where `self` was asked whether it can.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Simd for Avx512 {
    const WIDTH: usize = 16;
    const TOKENS: usize = 12;
    type Int = __m512i;
    type Float = __m512;
    type Four = __m512i;

    #[inline(always)]
    fn line(self, line: &Line, _part: usize) -> __m512i {
        unsafe { std::ptr::from_ref(line).cast::<__m512i>().read_volatile() }
    }
    #[inline(always)]
    fn and(self, a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_and_si512(a, b) }
    }
    #[inline(always)]
    fn or(self, a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_or_si512(a, b) }
    }
    #[inline(always)]
    fn xor(self, a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_xor_si512(a, b) }
    }
    #[inline(always)]
    fn shift_right(self, a: __m512i, count: u32) -> __m512i {
        unsafe {
            match count {
                0 => a,
                1 => _mm512_srli_epi16::<1>(a),
                2 => _mm512_srli_epi16::<2>(a),
                3 => _mm512_srli_epi16::<3>(a),
                4 => _mm512_srli_epi16::<4>(a),
                5 => _mm512_srli_epi16::<5>(a),
                6 => _mm512_srli_epi16::<6>(a),
                _ => _mm512_srli_epi16::<7>(a),
            }
        }
    }
    #[inline(always)]
    fn shift_left(self, a: __m512i, count: u32) -> __m512i {
        unsafe {
            match count {
                0 => a,
                1 => _mm512_slli_epi16::<1>(a),
                2 => _mm512_slli_epi16::<2>(a),
                3 => _mm512_slli_epi16::<3>(a),
                4 => _mm512_slli_epi16::<4>(a),
                5 => _mm512_slli_epi16::<5>(a),
                6 => _mm512_slli_epi16::<6>(a),
                _ => _mm512_slli_epi16::<7>(a),
            }
        }
    }
    #[inline(always)]
    fn byte(self, value: u8) -> __m512i {
        unsafe { _mm512_set1_epi8(value as i8) }
    }
    #[inline(always)]
    fn look_up(self, table: &[u8; 16], a: __m512i) -> __m512i {
        unsafe {
            let table = _mm512_broadcast_i32x4(_mm_loadu_si128(table.as_ptr().cast()));
            _mm512_shuffle_epi8(table, a)
        }
    }
    #[inline(always)]
    fn lines_before(self, line: &Line, part: usize) -> __m512i {
        let line = self.line(line, part);
        unsafe { _mm512_alignr_epi32::<15>(line, line) }
    }
    #[inline(always)]
    fn words_right(self, a: __m512i, count: u32) -> __m512i {
        unsafe { _mm512_srl_epi32(a, _mm_cvtsi32_si128(count as i32)) }
    }
    #[inline(always)]
    fn words_left(self, a: __m512i, count: u32) -> __m512i {
        unsafe { _mm512_sll_epi32(a, _mm_cvtsi32_si128(count as i32)) }
    }
    #[inline(always)]
    fn low_halves(self, a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_ternarylogic_epi32::<CHOOSE>(self.int(0xffff), a, b) }
    }
    #[inline(always)]
    fn even_bytes(self, a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_ternarylogic_epi32::<CHOOSE>(self.int(0x00ff_00ff), a, b) }
    }
    #[inline(always)]
    fn multiply_halves(self, a: __m512i, factor: u16) -> __m512i {
        unsafe { _mm512_mullo_epi16(a, _mm512_set1_epi16(factor as i16)) }
    }
    #[inline(always)]
    fn mean_bytes(self, a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_avg_epu8(a, b) }
    }
    #[inline(always)]
    fn sparse8(self, block: &[Line; 5], _part: usize) -> [__m512i; 8] {
        let zero = self.byte(0x80);
        let mut out = [zero; 8];
        prefetch(block);
        for (out, window) in out.iter_mut().zip(windows(&block[4])) {
            // A window begins at 256 at most: 64 bytes from there on are within the five lines.
            unsafe {
                let values = _mm512_loadu_si512(block.as_ptr().cast::<u8>().add(window.first).cast());
                *out = expand(zero, window.mask, values);
            }
        }
        out
    }
    #[inline(always)]
    fn sparse4(self, block: &[Line; 3], _part: usize) -> [__m512i; 8] {
        let (zero, low) = (self.byte(8), self.byte(15));
        let mut out = [zero; 8];
        prefetch(block);
        for (out, window) in out.iter_mut().zip(windows(&block[2])) {
            let odd = window.first % 2;
            // A window begins at nibble 256 at most: 64 bytes from there on are within the three lines.
            unsafe {
                let bytes = _mm512_loadu_si512(block.as_ptr().cast::<u8>().add(window.first / 2).cast());
                let pairs = _mm512_permutexvar_epi8(self.line(&NIBBLES[odd].0, 0), bytes);
                let upper = _mm512_srli_epi16::<4>(pairs);
                let values = _mm512_mask_blend_epi8(NIBBLES[odd].1, pairs, upper);
                *out = expand(zero, window.mask, _mm512_and_si512(values, low));
            }
        }
        out
    }
    #[inline(always)]
    fn four(self, activations: &[i8; 4]) -> __m512i {
        unsafe { _mm512_set1_epi32(i32::from_ne_bytes(activations.map(|v| v as u8))) }
    }
    #[inline(always)]
    fn dot(self, sum: __m512i, weights: __m512i, activations: __m512i) -> __m512i {
        unsafe { _mm512_dpbusd_epi32(sum, weights, activations) }
    }
    #[inline(always)]
    fn int(self, value: i32) -> __m512i {
        unsafe { _mm512_set1_epi32(value) }
    }
    #[inline(always)]
    fn add(self, a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_add_epi32(a, b) }
    }
    #[inline(always)]
    fn sub(self, a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_sub_epi32(a, b) }
    }
    #[inline(always)]
    fn mul(self, a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_mullo_epi32(a, b) }
    }
    #[inline(always)]
    fn int_shifted(self, value: i32, shift: u32) -> __m512i {
        self.int(value << shift)
    }
    #[inline(always)]
    fn bytes(self, values: &[u8; LANES], _part: usize) -> __m512i {
        unsafe { _mm512_cvtepu8_epi32(_mm_loadu_si128(values.as_ptr().cast())) }
    }
    #[inline(always)]
    fn signed_bytes(self, values: &[i8; LANES], _part: usize) -> __m512i {
        unsafe { _mm512_cvtepi8_epi32(_mm_loadu_si128(values.as_ptr().cast())) }
    }
    #[inline(always)]
    fn zero(self) -> __m512 {
        unsafe { _mm512_setzero_ps() }
    }
    #[inline(always)]
    fn float(self, value: f32) -> __m512 {
        unsafe { _mm512_set1_ps(value) }
    }
    #[inline(always)]
    fn to_float(self, a: __m512i) -> __m512 {
        unsafe { _mm512_cvtepi32_ps(a) }
    }
    #[inline(always)]
    fn halves(self, values: &Lanes16, _part: usize) -> __m512 {
        unsafe { _mm512_cvtph_ps(_mm256_load_si256(values.0.as_ptr().cast())) }
    }
    #[inline(always)]
    fn brains(self, values: &Lanes16, _part: usize) -> __m512 {
        unsafe {
            let wide = _mm512_cvtepu16_epi32(_mm256_load_si256(values.0.as_ptr().cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
        }
    }
    #[inline(always)]
    fn singles(self, values: &Lanes32, _part: usize) -> __m512 {
        unsafe { _mm512_load_ps(values.0.as_ptr()) }
    }
    #[inline(always)]
    fn times(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    fn fused(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    fn store(self, a: __m512, out: &mut [f32; LANES], _part: usize) {
        unsafe { _mm512_storeu_ps(out.as_mut_ptr(), a) }
    }
    #[inline(always)]
    fn store_line(self, a: __m512i, line: &mut Line, _part: usize) {
        unsafe { _mm512_store_si512(line.0.as_mut_ptr().cast(), a) }
    }
}

impl Kernels for Avx512 {
    fn product<F: Format, const N: usize>(self, job: &Job<'_>, strip: Strip<'_, F::Quants>, token: usize) {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
        fn inner<F: Format, const N: usize>(
            simd: Avx512,
            job: &Job<'_>,
            strip: Strip<'_, F::Quants>,
            token: usize,
        ) {
            kernel::product::<Avx512, F, N>(simd, job, strip, token);
        }
        #[target_feature(
            enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi,avx512vbmi2,avx2,fma,f16c,popcnt"
        )]
        fn sparse<F: Format, const N: usize>(
            simd: Avx512,
            job: &Job<'_>,
            strip: Strip<'_, F::Quants>,
            token: usize,
        ) {
            kernel::product::<Avx512, F, N>(simd, job, strip, token);
        }
        if F::Quants::SPARSE {
            assert!(self.expands(), "sparse weights without instructions that expand");
            // SAFETY: `self` proves the features, those that expand included.
            unsafe { sparse::<F, N>(self, job, strip, token) }
        } else {
            // SAFETY: `self` proves the features.
            unsafe { inner::<F, N>(self, job, strip, token) }
        }
    }

    fn expand<F: Format>(self, strip: Strip<'_, F::Quants>, out: &mut [[Line; 8]]) {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
        fn inner<F: Format>(simd: Avx512, strip: Strip<'_, F::Quants>, out: &mut [[Line; 8]]) {
            kernel::expand::<Avx512, F>(simd, strip, out);
        }
        #[target_feature(
            enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi,avx512vbmi2,avx2,fma,f16c,popcnt"
        )]
        fn sparse<F: Format>(simd: Avx512, strip: Strip<'_, F::Quants>, out: &mut [[Line; 8]]) {
            kernel::expand::<Avx512, F>(simd, strip, out);
        }
        if F::Quants::SPARSE {
            assert!(self.expands(), "sparse weights without instructions that expand");
            // SAFETY: `self` proves the features, those that expand included.
            unsafe { sparse::<F>(self, strip, out) }
        } else {
            // SAFETY: `self` proves the features.
            unsafe { inner::<F>(self, strip, out) }
        }
    }

    fn dots(self, rounds: u64) -> u64 {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
        fn inner(simd: Avx512, rounds: u64) -> u64 {
            kernel::dots(simd, rounds)
        }
        // SAFETY: `self` proves the features.
        unsafe { inner(self, rounds) }
    }
}
