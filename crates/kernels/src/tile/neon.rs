//! Pairs of 128-bit registers: half a tile at a time. Four products a lane by `smull` and pairwise sums; where the processor has
//! them, by `sdot`; two tokens at once by `usmmla`.
//!
//! The library's intrinsics for the last two are unstable, hence `asm!`.
#![allow(unsafe_code)]

use std::arch::aarch64::*;
use std::arch::asm;

use super::format::Format;
use super::kernel::Strip;
use super::simd::Simd;
use super::sparse::{COUNTS, PLACES, Window, windows};
use super::{Job, kernel};
use crate::isa::{Neon, NeonDot, NeonI8mm};
use crate::limits::LANES;
use crate::matrix::{Lanes16, Lanes32, Line};

/// Eight lanes.
type Ints = [int32x4_t; 2];
type Floats = [float32x4_t; 2];

#[inline(always)]
fn bytes_of(a: Ints) -> [uint8x16_t; 2] {
    // SAFETY: NEON is part of the architecture; a reinterpretation of the same bits.
    a.map(|a| unsafe { vreinterpretq_u8_s32(a) })
}

#[inline(always)]
fn ints_of(a: [uint8x16_t; 2]) -> Ints {
    // SAFETY: NEON is part of the architecture; a reinterpretation of the same bits.
    a.map(|a| unsafe { vreinterpretq_s32_u8(a) })
}

#[inline(always)]
fn pairwise<A: Copy, B: Copy, C>(a: [A; 2], b: [B; 2], f: impl Fn(A, B) -> C) -> [C; 2] {
    [f(a[0], b[0]), f(a[1], b[1])]
}

/// The operations that the three sets share; what differs is passed in.
macro_rules! simd_neon {
    ($token:ty, $features:literal, signed: $signed:literal, dot: $dot:expr, $(pair: $pair:expr)?) => {
        // SAFETY of every block below: NEON is part of the architecture, `self` proves the other features; loads and stores take
        // references to whole registers.
        #[allow(clippy::undocumented_unsafe_blocks)]
        impl Simd for $token {
            const WIDTH: usize = 8;
            const TOKENS: usize = 4;
            const SIGNED: bool = $signed;
            type Int = Ints;
            type Float = Floats;
            type Four = int8x16_t;

            #[inline(always)]
            fn line(self, line: &Line, part: usize) -> Ints {
                let (quarters, _) = line.0.as_chunks::<16>();
                ints_of([0, 1].map(|i| unsafe { vld1q_u8(quarters[2 * part + i].as_ptr()) }))
            }
            #[inline(always)]
            fn and(self, a: Ints, b: Ints) -> Ints {
                pairwise(a, b, |a, b| unsafe { vandq_s32(a, b) })
            }
            #[inline(always)]
            fn or(self, a: Ints, b: Ints) -> Ints {
                pairwise(a, b, |a, b| unsafe { vorrq_s32(a, b) })
            }
            #[inline(always)]
            fn xor(self, a: Ints, b: Ints) -> Ints {
                pairwise(a, b, |a, b| unsafe { veorq_s32(a, b) })
            }
            #[inline(always)]
            fn shift_right(self, a: Ints, count: u32) -> Ints {
                ints_of(bytes_of(a).map(|a| unsafe { vshlq_u8(a, vdupq_n_s8(-(count as i8))) }))
            }
            #[inline(always)]
            fn shift_left(self, a: Ints, count: u32) -> Ints {
                ints_of(bytes_of(a).map(|a| unsafe { vshlq_u8(a, vdupq_n_s8(count as i8)) }))
            }
            #[inline(always)]
            fn byte(self, value: u8) -> Ints {
                ints_of([unsafe { vdupq_n_u8(value) }; 2])
            }
            #[inline(always)]
            fn look_up(self, table: &[u8; 16], a: Ints) -> Ints {
                let table = unsafe { vld1q_u8(table.as_ptr()) };
                ints_of(bytes_of(a).map(|a| unsafe { vqtbl1q_u8(table, a) }))
            }
            #[inline(always)]
            fn lines_before(self, line: &Line, part: usize) -> Ints {
                let (mine, other) = (self.line(line, part), self.line(line, 1 - part));
                unsafe { [vextq_s32::<3>(other[1], mine[0]), vextq_s32::<3>(mine[0], mine[1])] }
            }
            #[inline(always)]
            fn words_right(self, a: Ints, count: u32) -> Ints {
                a.map(|a| unsafe {
                    vreinterpretq_s32_u32(vshlq_u32(vreinterpretq_u32_s32(a), vdupq_n_s32(-(count as i32))))
                })
            }
            #[inline(always)]
            fn words_left(self, a: Ints, count: u32) -> Ints {
                a.map(|a| unsafe { vshlq_s32(a, vdupq_n_s32(count as i32)) })
            }
            #[inline(always)]
            fn low_halves(self, a: Ints, b: Ints) -> Ints {
                pairwise(a, b, |a, b| unsafe { vbslq_s32(vdupq_n_u32(0xffff), a, b) })
            }
            #[inline(always)]
            fn even_bytes(self, a: Ints, b: Ints) -> Ints {
                pairwise(a, b, |a, b| unsafe { vbslq_s32(vdupq_n_u32(0x00ff_00ff), a, b) })
            }
            #[inline(always)]
            fn multiply_halves(self, a: Ints, factor: u16) -> Ints {
                a.map(|a| unsafe {
                    vreinterpretq_s32_u16(vmulq_u16(vreinterpretq_u16_s32(a), vdupq_n_u16(factor)))
                })
            }
            #[inline(always)]
            fn mean_bytes(self, a: Ints, b: Ints) -> Ints {
                ints_of(pairwise(bytes_of(a), bytes_of(b), |a, b| unsafe { vrhaddq_u8(a, b) }))
            }
            #[inline(always)]
            fn sparse8(self, block: &[Line; 5], part: usize) -> [Ints; 8] {
                let mut out = [self.byte(0x80); 8];
                for (out, window) in out.iter_mut().zip(windows(&block[4])) {
                    let stream = block.as_ptr().cast();
                    *out = ints_of(expanded(window, part, |mask, at| unsafe { expand_bytes(stream, mask, at) }));
                }
                out
            }
            #[inline(always)]
            fn sparse4(self, block: &[Line; 3], part: usize) -> [Ints; 8] {
                let mut out = [self.byte(8); 8];
                for (out, window) in out.iter_mut().zip(windows(&block[2])) {
                    let stream = block.as_ptr().cast();
                    *out = ints_of(expanded(window, part, |mask, at| unsafe { expand_nibbles(stream, mask, at) }));
                }
                out
            }
            #[inline(always)]
            fn four(self, activations: &[i8; 4]) -> int8x16_t {
                unsafe { vreinterpretq_s8_s32(vdupq_n_s32(i32::from_ne_bytes(activations.map(|v| v as u8)))) }
            }
            #[inline(always)]
            fn dot(self, sum: Ints, weights: Ints, activations: int8x16_t) -> Ints {
                pairwise(sum, weights, |sum, w| unsafe { $dot(sum, w, activations) })
            }
            $(
            const PAIRS: bool = true;
            #[inline(always)]
            fn dot_two(self, weights: &[Ints; 8], half: usize, values: [&[i8; 16]; 2]) -> [Ints; 2] {
                let mut out = [self.int(0); 2];
                for i in 0..2 {
                    let weights = [0, 1, 2, 3].map(|l| weights[4 * half + l][i]);
                    let sums: [int32x4_t; 2] = unsafe { $pair(weights, values) };
                    (out[0][i], out[1][i]) = (sums[0], sums[1]);
                }
                out
            }
            )?

            #[inline(always)]
            fn int(self, value: i32) -> Ints {
                [unsafe { vdupq_n_s32(value) }; 2]
            }
            #[inline(always)]
            fn add(self, a: Ints, b: Ints) -> Ints {
                pairwise(a, b, |a, b| unsafe { vaddq_s32(a, b) })
            }
            #[inline(always)]
            fn sub(self, a: Ints, b: Ints) -> Ints {
                pairwise(a, b, |a, b| unsafe { vsubq_s32(a, b) })
            }
            #[inline(always)]
            fn mul(self, a: Ints, b: Ints) -> Ints {
                pairwise(a, b, |a, b| unsafe { vmulq_s32(a, b) })
            }
            #[inline(always)]
            fn int_shifted(self, value: i32, shift: u32) -> Ints {
                self.int(value << shift)
            }
            #[inline(always)]
            fn bytes(self, values: &[u8; LANES], part: usize) -> Ints {
                let (halves, _) = values.as_chunks::<8>();
                let wide = unsafe { vmovl_u8(vld1_u8(halves[part].as_ptr())) };
                unsafe { [vmovl_u16(vget_low_u16(wide)), vmovl_high_u16(wide)].map(|a| vreinterpretq_s32_u32(a)) }
            }
            #[inline(always)]
            fn signed_bytes(self, values: &[i8; LANES], part: usize) -> Ints {
                let (halves, _) = values.as_chunks::<8>();
                let wide = unsafe { vmovl_s8(vld1_s8(halves[part].as_ptr())) };
                unsafe { [vmovl_s16(vget_low_s16(wide)), vmovl_high_s16(wide)] }
            }
            #[inline(always)]
            fn zero(self) -> Floats {
                self.float(0.0)
            }
            #[inline(always)]
            fn float(self, value: f32) -> Floats {
                [unsafe { vdupq_n_f32(value) }; 2]
            }
            #[inline(always)]
            fn to_float(self, a: Ints) -> Floats {
                a.map(|a| unsafe { vcvtq_f32_s32(a) })
            }
            #[inline(always)]
            fn halves(self, values: &Lanes16, part: usize) -> Floats {
                let (quarters, _) = values.0.as_chunks::<4>();
                [0, 1].map(|i| widen(&quarters[2 * part + i]))
            }
            #[inline(always)]
            fn brains(self, values: &Lanes16, part: usize) -> Floats {
                let (quarters, _) = values.0.as_chunks::<4>();
                [0, 1].map(|i| unsafe {
                    vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(quarters[2 * part + i].as_ptr())))
                })
            }
            #[inline(always)]
            fn singles(self, values: &Lanes32, part: usize) -> Floats {
                let (quarters, _) = values.0.as_chunks::<4>();
                [0, 1].map(|i| unsafe { vld1q_f32(quarters[2 * part + i].as_ptr()) })
            }
            #[inline(always)]
            fn times(self, a: Floats, b: Floats) -> Floats {
                pairwise(a, b, |a, b| unsafe { vmulq_f32(a, b) })
            }
            #[inline(always)]
            fn fused(self, a: Floats, b: Floats, c: Floats) -> Floats {
                [0, 1].map(|i| unsafe { vfmaq_f32(c[i], a[i], b[i]) })
            }
            #[inline(always)]
            fn store(self, a: Floats, out: &mut [f32; LANES], part: usize) {
                let (quarters, _) = out.as_chunks_mut::<4>();
                for i in 0..2 {
                    unsafe { vst1q_f32(quarters[2 * part + i].as_mut_ptr(), a[i]) }
                }
            }
            #[inline(always)]
            fn store_line(self, a: Ints, line: &mut Line, part: usize) {
                let (quarters, _) = line.0.as_chunks_mut::<16>();
                for (i, a) in bytes_of(a).into_iter().enumerate() {
                    unsafe { vst1q_u8(quarters[2 * part + i].as_mut_ptr(), a) }
                }
            }
        }

        super::kernels!($token, $features);
    };
}

simd_neon!(Neon, "neon", signed: true, dot: dot_by_halves,);
simd_neon!(NeonDot, "neon,dotprod", signed: true, dot: dot_by_sdot,);
simd_neon!(NeonI8mm, "neon,dotprod,i8mm", signed: false, dot: dot_by_usdot, pair: pair_by_usmmla);

/// A part of a register of weights: `eight` gives each eight places what their mask and the place of their first value say.
#[inline(always)]
fn expanded(window: Window, part: usize, eight: impl Fn(u8, usize) -> uint8x8_t) -> [uint8x16_t; 2] {
    let masks = window.mask.to_le_bytes();
    let mut at = window.first;
    for mask in &masks[..4 * part] {
        at += usize::from(COUNTS[usize::from(*mask)]);
    }
    let mut next = |i: usize| {
        let mask = masks[4 * part + i];
        let found = eight(mask, at);
        at += usize::from(COUNTS[usize::from(mask)]);
        found
    };
    [0, 2].map(|i| {
        let (low, high) = (next(i), next(i + 1));
        // SAFETY: NEON is part of the architecture.
        unsafe { vcombine_u8(low, high) }
    })
}

/// Bytes around 128: the places of the mask take the values from `at` on.
///
/// # Safety
/// There are eight bytes from `at` on.
#[inline(always)]
unsafe fn expand_bytes(stream: *const u8, mask: u8, at: usize) -> uint8x8_t {
    // SAFETY: NEON is part of the architecture; this function's contract.
    unsafe {
        let places = vld1_u8(PLACES[usize::from(mask)].as_ptr());
        vtbx1_u8(vdup_n_u8(0x80), vld1_u8(stream.add(at)), places)
    }
}

/// As [`expand_bytes`], with nibbles around 8.
///
/// # Safety
/// There are eight bytes from `at / 2` on.
#[inline(always)]
unsafe fn expand_nibbles(stream: *const u8, mask: u8, at: usize) -> uint8x8_t {
    // SAFETY: NEON is part of the architecture; this function's contract.
    unsafe {
        // Counted in nibbles from the byte on that holds the first.
        let places = vadd_u8(vld1_u8(PLACES[usize::from(mask)].as_ptr()), vdup_n_u8(at as u8 & 1));
        let upper = vtst_u8(places, vdup_n_u8(1));
        // Where no value goes this is 64 or more: no index.
        let bytes = vtbl1_u8(vld1_u8(stream.add(at / 2)), vshr_n_u8::<1>(places));
        let nibbles = vbsl_u8(upper, vshr_n_u8::<4>(bytes), vand_u8(bytes, vdup_n_u8(15)));
        vbsl_u8(vcgt_u8(places, vdup_n_u8(127)), vdup_n_u8(8), nibbles)
    }
}

/// Four halves, exact.
#[inline(always)]
fn widen(halves: &[u16; 4]) -> float32x4_t {
    // SAFETY: NEON, with this conversion, is part of the architecture; four halves are 8 bytes.
    unsafe { vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(halves.as_ptr()))) }
}

/// A half for each row of a tile, exact.
#[inline(always)]
pub(crate) fn widen_lanes(halves: &[u16; LANES]) -> [f32; LANES] {
    let mut out = [0.0; LANES];
    for (out, halves) in out.as_chunks_mut::<4>().0.iter_mut().zip(halves.as_chunks::<4>().0) {
        // SAFETY: NEON is part of the architecture; four floats are 16 bytes.
        unsafe { vst1q_f32(out.as_mut_ptr(), widen(halves)) }
    }
    out
}

/// Two products of at most 128 · 127 (activations are never −128) fit 16 bits; the next sum is widened.
#[inline]
#[target_feature(enable = "neon")]
fn dot_by_halves(sum: int32x4_t, weights: int32x4_t, activations: int8x16_t) -> int32x4_t {
    let weights = vreinterpretq_s8_s32(weights);
    let low = vmull_s8(vget_low_s8(weights), vget_low_s8(activations));
    let high = vmull_high_s8(weights, activations);
    vpadalq_s16(sum, vpaddq_s16(low, high))
}

#[inline]
#[target_feature(enable = "neon,dotprod")]
fn dot_by_sdot(mut sum: int32x4_t, weights: int32x4_t, activations: int8x16_t) -> int32x4_t {
    // SAFETY: the function's features include the instruction; registers only.
    unsafe {
        asm!("sdot {0:v}.4s, {1:v}.16b, {2:v}.16b", inout(vreg) sum, in(vreg) weights, in(vreg) activations,
            options(pure, nomem, nostack, preserves_flags));
    }
    sum
}

#[inline]
#[target_feature(enable = "neon,dotprod,i8mm")]
fn dot_by_usdot(mut sum: int32x4_t, weights: int32x4_t, activations: int8x16_t) -> int32x4_t {
    // SAFETY: the function's features include the instruction; registers only.
    unsafe {
        asm!("usdot {0:v}.4s, {1:v}.16b, {2:v}.16b", inout(vreg) sum, in(vreg) weights, in(vreg) activations,
            options(pure, nomem, nostack, preserves_flags));
    }
    sum
}

/// `sum + a · bᵀ` for 2 × 8 bytes a (unsigned) and b (signed): (a0·b0, a0·b1, a1·b0, a1·b1).
#[inline]
#[target_feature(enable = "neon,dotprod,i8mm")]
fn usmmla(mut sum: int32x4_t, a: int32x4_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: the function's features include the instruction; registers only.
    unsafe {
        asm!("usmmla {0:v}.4s, {1:v}.16b, {2:v}.16b", inout(vreg) sum, in(vreg) a, in(vreg) b,
            options(pure, nomem, nostack, preserves_flags));
    }
    sum
}

/// Four rows × 16 k (four registers of 4 rows × 4 k) times two tokens: the sums of each token.
#[inline]
#[target_feature(enable = "neon,dotprod,i8mm")]
fn pair_by_usmmla(weights: [int32x4_t; 4], values: [&[i8; 16]; 2]) -> [int32x4_t; 2] {
    let (mut low, mut high) = (vdupq_n_s32(0), vdupq_n_s32(0));
    let tokens = values.map(|v| v.as_chunks::<8>().0);
    for eight in 0..2 {
        let (left, right) = (weights[2 * eight], weights[2 * eight + 1]);
        // SAFETY: eight bytes each.
        let pair =
            unsafe { vcombine_s8(vld1_s8(tokens[0][eight].as_ptr()), vld1_s8(tokens[1][eight].as_ptr())) };
        low = usmmla(low, vzip1q_s32(left, right), pair);
        high = usmmla(high, vzip2q_s32(left, right), pair);
    }
    [vuzp1q_s32(low, high), vuzp2q_s32(low, high)]
}
