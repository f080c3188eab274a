//! 256-bit registers: half a tile at a time. Four products a lane by widening to i16 and `vpmaddwd`; where the processor has
//! AVX-VNNI, by `vpdpbusd`.
//!
//! `vpmaddubsw` would be shorter but saturates for u8 weights; two products of 255 · 128 fit an i32 with ease.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::format::Format;
use super::kernel::Strip;
use super::simd::Simd;
use super::sparse::{PLACES, Window, windows};
use super::{Job, kernel};
use crate::isa::{Avx2, AvxVnni};
use crate::limits::{LANES, PREFETCH_BLOCKS};
use crate::matrix::{Lanes16, Lanes32, Line};

/// The operations that both sets share; `$four` and `$dot` are what differs.
macro_rules! simd_256 {
    ($token:ty, $features:literal, $four_type:ty, $four:expr, $dot:expr) => {
        // SAFETY of every block below: `self` proves the features; a part is a whole register of its line or record.
        #[allow(clippy::undocumented_unsafe_blocks)]
        impl Simd for $token {
            const WIDTH: usize = 8;
            const TOKENS: usize = 4;
            type Int = __m256i;
            type Float = __m256;
            type Four = $four_type;

            #[inline(always)]
            fn line(self, line: &Line, part: usize) -> __m256i {
                let (halves, _) = line.0.as_chunks::<32>();
                unsafe { halves[part].as_ptr().cast::<__m256i>().read_volatile() }
            }
            #[inline(always)]
            fn and(self, a: __m256i, b: __m256i) -> __m256i {
                unsafe { _mm256_and_si256(a, b) }
            }
            #[inline(always)]
            fn or(self, a: __m256i, b: __m256i) -> __m256i {
                unsafe { _mm256_or_si256(a, b) }
            }
            #[inline(always)]
            fn xor(self, a: __m256i, b: __m256i) -> __m256i {
                unsafe { _mm256_xor_si256(a, b) }
            }
            #[inline(always)]
            fn shift_right(self, a: __m256i, count: u32) -> __m256i {
                unsafe {
                    match count {
                        0 => a,
                        1 => _mm256_srli_epi16::<1>(a),
                        2 => _mm256_srli_epi16::<2>(a),
                        3 => _mm256_srli_epi16::<3>(a),
                        4 => _mm256_srli_epi16::<4>(a),
                        5 => _mm256_srli_epi16::<5>(a),
                        6 => _mm256_srli_epi16::<6>(a),
                        _ => _mm256_srli_epi16::<7>(a),
                    }
                }
            }
            #[inline(always)]
            fn shift_left(self, a: __m256i, count: u32) -> __m256i {
                unsafe {
                    match count {
                        0 => a,
                        1 => _mm256_slli_epi16::<1>(a),
                        2 => _mm256_slli_epi16::<2>(a),
                        3 => _mm256_slli_epi16::<3>(a),
                        4 => _mm256_slli_epi16::<4>(a),
                        5 => _mm256_slli_epi16::<5>(a),
                        6 => _mm256_slli_epi16::<6>(a),
                        _ => _mm256_slli_epi16::<7>(a),
                    }
                }
            }
            #[inline(always)]
            fn byte(self, value: u8) -> __m256i {
                unsafe { _mm256_set1_epi8(value as i8) }
            }
            #[inline(always)]
            fn look_up(self, table: &[u8; 16], a: __m256i) -> __m256i {
                unsafe {
                    let table = _mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast()));
                    _mm256_shuffle_epi8(table, a)
                }
            }
            #[inline(always)]
            fn lines_before(self, line: &Line, part: usize) -> __m256i {
                let (mine, other) = (self.line(line, part), self.line(line, 1 - part));
                unsafe {
                    let order = _mm256_setr_epi32(7, 0, 1, 2, 3, 4, 5, 6);
                    let mine = _mm256_permutevar8x32_epi32(mine, order);
                    _mm256_blend_epi32::<1>(mine, _mm256_permutevar8x32_epi32(other, order))
                }
            }
            #[inline(always)]
            fn words_right(self, a: __m256i, count: u32) -> __m256i {
                unsafe { _mm256_srl_epi32(a, _mm_cvtsi32_si128(count as i32)) }
            }
            #[inline(always)]
            fn words_left(self, a: __m256i, count: u32) -> __m256i {
                unsafe { _mm256_sll_epi32(a, _mm_cvtsi32_si128(count as i32)) }
            }
            #[inline(always)]
            fn low_halves(self, a: __m256i, b: __m256i) -> __m256i {
                unsafe { _mm256_blend_epi16::<0xaa>(a, b) }
            }
            #[inline(always)]
            fn even_bytes(self, a: __m256i, b: __m256i) -> __m256i {
                unsafe { _mm256_blendv_epi8(b, a, _mm256_set1_epi16(0xff)) }
            }
            #[inline(always)]
            fn multiply_halves(self, a: __m256i, factor: u16) -> __m256i {
                unsafe { _mm256_mullo_epi16(a, _mm256_set1_epi16(factor as i16)) }
            }
            #[inline(always)]
            fn mean_bytes(self, a: __m256i, b: __m256i) -> __m256i {
                unsafe { _mm256_avg_epu8(a, b) }
            }
            #[inline(always)]
            fn sparse8(self, block: &[Line; 5], part: usize) -> [__m256i; 8] {
                let mut out = [self.byte(0x80); 8];
                prefetch(block);
                for (out, window) in out.iter_mut().zip(windows(&block[4])) {
                    unsafe { *out = expand_bytes(block.as_ptr().cast(), window, part) }
                }
                out
            }
            #[inline(always)]
            fn sparse4(self, block: &[Line; 3], part: usize) -> [__m256i; 8] {
                let mut out = [self.byte(8); 8];
                prefetch(block);
                for (out, window) in out.iter_mut().zip(windows(&block[2])) {
                    unsafe { *out = expand_nibbles(block.as_ptr().cast(), window, part) }
                }
                out
            }
            #[inline(always)]
            fn four(self, activations: &[i8; 4]) -> $four_type {
                let four = self.int(i32::from_ne_bytes(activations.map(|v| v as u8)));
                unsafe { $four(four) }
            }
            #[inline(always)]
            fn dot(self, sum: __m256i, weights: __m256i, activations: $four_type) -> __m256i {
                unsafe { $dot(sum, weights, activations) }
            }
            #[inline(always)]
            fn int(self, value: i32) -> __m256i {
                unsafe { _mm256_set1_epi32(value) }
            }
            #[inline(always)]
            fn add(self, a: __m256i, b: __m256i) -> __m256i {
                unsafe { _mm256_add_epi32(a, b) }
            }
            #[inline(always)]
            fn sub(self, a: __m256i, b: __m256i) -> __m256i {
                unsafe { _mm256_sub_epi32(a, b) }
            }
            #[inline(always)]
            fn mul(self, a: __m256i, b: __m256i) -> __m256i {
                unsafe { _mm256_mullo_epi32(a, b) }
            }
            #[inline(always)]
            fn int_shifted(self, value: i32, shift: u32) -> __m256i {
                self.int(value << shift)
            }
            #[inline(always)]
            fn bytes(self, values: &[u8; LANES], part: usize) -> __m256i {
                let (halves, _) = values.as_chunks::<8>();
                unsafe { _mm256_cvtepu8_epi32(_mm_loadu_si64(halves[part].as_ptr())) }
            }
            #[inline(always)]
            fn signed_bytes(self, values: &[i8; LANES], part: usize) -> __m256i {
                let (halves, _) = values.as_chunks::<8>();
                unsafe { _mm256_cvtepi8_epi32(_mm_loadu_si64(halves[part].as_ptr().cast())) }
            }
            #[inline(always)]
            fn zero(self) -> __m256 {
                unsafe { _mm256_setzero_ps() }
            }
            #[inline(always)]
            fn float(self, value: f32) -> __m256 {
                unsafe { _mm256_set1_ps(value) }
            }
            #[inline(always)]
            fn to_float(self, a: __m256i) -> __m256 {
                unsafe { _mm256_cvtepi32_ps(a) }
            }
            #[inline(always)]
            fn halves(self, values: &Lanes16, part: usize) -> __m256 {
                let (halves, _) = values.0.as_chunks::<8>();
                unsafe { _mm256_cvtph_ps(_mm_load_si128(halves[part].as_ptr().cast())) }
            }
            #[inline(always)]
            fn brains(self, values: &Lanes16, part: usize) -> __m256 {
                let (halves, _) = values.0.as_chunks::<8>();
                unsafe {
                    let wide = _mm256_cvtepu16_epi32(_mm_load_si128(halves[part].as_ptr().cast()));
                    _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
                }
            }
            #[inline(always)]
            fn singles(self, values: &Lanes32, part: usize) -> __m256 {
                let (halves, _) = values.0.as_chunks::<8>();
                unsafe { _mm256_load_ps(halves[part].as_ptr()) }
            }
            #[inline(always)]
            fn times(self, a: __m256, b: __m256) -> __m256 {
                unsafe { _mm256_mul_ps(a, b) }
            }
            #[inline(always)]
            fn fused(self, a: __m256, b: __m256, c: __m256) -> __m256 {
                unsafe { _mm256_fmadd_ps(a, b, c) }
            }
            #[inline(always)]
            fn store(self, a: __m256, out: &mut [f32; LANES], part: usize) {
                let (halves, _) = out.as_chunks_mut::<8>();
                unsafe { _mm256_storeu_ps(halves[part].as_mut_ptr(), a) }
            }
            #[inline(always)]
            fn store_line(self, a: __m256i, line: &mut Line, part: usize) {
                let (halves, _) = line.0.as_chunks_mut::<32>();
                unsafe { _mm256_store_si256(halves[part].as_mut_ptr().cast(), a) }
            }
        }

        super::kernels!($token, $features);
    };
}

/// Activations 0 and 2, and 1 and 3, as i16.
type Halves = (__m256i, __m256i);

simd_256!(Avx2, "avx2,fma,f16c,popcnt", Halves, widen, dot_by_halves);
simd_256!(AvxVnni, "avxvnni,avx2,fma,f16c,popcnt", __m256i, as_they_are, dot_by_vnni);

#[inline]
#[target_feature(enable = "avx2")]
fn widen(four: __m256i) -> Halves {
    (_mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(four)), _mm256_srai_epi16::<8>(four))
}

#[inline]
#[target_feature(enable = "avx2")]
fn dot_by_halves(sum: __m256i, weights: __m256i, (even, odd): Halves) -> __m256i {
    let low = _mm256_and_si256(weights, _mm256_set1_epi16(0xff));
    let high = _mm256_srli_epi16::<8>(weights);
    let pairs = _mm256_add_epi32(_mm256_madd_epi16(low, even), _mm256_madd_epi16(high, odd));
    _mm256_add_epi32(sum, pairs)
}

#[inline]
#[target_feature(enable = "avx2")]
fn as_they_are(four: __m256i) -> __m256i {
    four
}

#[inline]
#[target_feature(enable = "avx2,avxvnni")]
fn dot_by_vnni(sum: __m256i, weights: __m256i, four: __m256i) -> __m256i {
    _mm256_dpbusd_avx_epi32(sum, weights, four)
}

/// Asks for a later block of the same stream. Where a block's values are, its masks say: processors that look ahead know too late.
#[inline(always)]
pub(super) fn prefetch<const N: usize>(block: &[Line; N]) {
    let later = block.as_ptr().wrapping_add(PREFETCH_BLOCKS * N);
    for l in 0..N {
        // SAFETY: a hint, which does nothing where there is no memory.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(later.wrapping_add(l).cast()) }
    }
}

/// The 32 places of a part of a window, eight at a time: their mask, and where in the stream their values begin.
#[inline(always)]
fn eights(window: Window, part: usize) -> [(u8, usize); 4] {
    let mut at = window.first;
    if part == 1 {
        at += (window.mask as u32).count_ones() as usize;
    }
    let masks = (window.mask >> (32 * part)) as u32;
    let mut eights = [(0, 0); 4];
    for (i, eight) in eights.iter_mut().enumerate() {
        let mask = (masks >> (8 * i)) as u8;
        *eight = (mask, at);
        at += mask.count_ones() as usize;
    }
    eights
}

/// Four times eight bytes.
#[inline]
#[target_feature(enable = "avx2")]
fn joined(eights: [u64; 4]) -> __m256i {
    let [a, b, c, d] = eights.map(|eight| eight as i64);
    _mm256_setr_epi64x(a, b, c, d)
}

/// A part of a register of bytes around 128: of each eight places those of the mask take the values that follow each other.
///
/// # Safety
/// There are 264 bytes at `stream`.
#[inline]
#[target_feature(enable = "avx2,popcnt")]
unsafe fn expand_bytes(stream: *const u8, window: Window, part: usize) -> __m256i {
    let (mut places, mut values) = ([0; 4], [0; 4]);
    let eights = eights(window, part);
    for i in 0..4 {
        let (mask, at) = eights[i];
        places[i] = u64::from_le_bytes(PLACES[usize::from(mask)]);
        // SAFETY: a window ends at 256 at most, so eight bytes from any of its values on are there.
        values[i] = unsafe { stream.add(at).cast::<u64>().read_unaligned() };
    }
    // The upper eight bytes of each half of a register are indices 8 to 15.
    let places = _mm256_add_epi8(joined(places), joined([0, 8 * ONES, 0, 8 * ONES]));
    let found = _mm256_shuffle_epi8(joined(values), places);
    // What no value goes to is 0 there, and 0x80 is set in its place.
    _mm256_or_si256(found, _mm256_and_si256(places, _mm256_set1_epi8(-128)))
}

/// As [`expand_bytes`], with nibbles around 8.
///
/// # Safety
/// There are 136 bytes at `stream`.
#[inline]
#[target_feature(enable = "avx2,popcnt")]
unsafe fn expand_nibbles(stream: *const u8, window: Window, part: usize) -> __m256i {
    let (mut places, mut values) = ([0; 4], [0; 4]);
    let eights = eights(window, part);
    for i in 0..4 {
        let (mask, at) = eights[i];
        // Counted in nibbles from the byte on that holds the first.
        places[i] = u64::from_le_bytes(PLACES[usize::from(mask)]) + (at as u64 & 1) * ONES;
        // SAFETY: a window ends at nibble 256 at most.
        values[i] = unsafe { stream.add(at / 2).cast::<u64>().read_unaligned() };
    }
    let places = joined(places);
    let indices = _mm256_and_si256(_mm256_srli_epi16::<1>(places), _mm256_set1_epi8(7));
    let bytes =
        _mm256_shuffle_epi8(joined(values), _mm256_add_epi8(indices, joined([0, 8 * ONES, 0, 8 * ONES])));
    let odd = _mm256_slli_epi16::<7>(places);
    let nibbles = _mm256_blendv_epi8(bytes, _mm256_srli_epi16::<4>(bytes), odd);
    let nibbles = _mm256_and_si256(nibbles, _mm256_set1_epi8(15));
    _mm256_blendv_epi8(nibbles, _mm256_set1_epi8(8), places)
}

/// A one in each byte.
const ONES: u64 = 0x0101_0101_0101_0101;
