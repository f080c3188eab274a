//! 16 float lanes in the registers of one instruction set, for the one loop that the compiler does not vectorise by itself:
//! many accumulators at once.

use crate::limits::LANES;

use super::storage::Lanes;

/// What the product needs. `self` is the proof that the processor has the instruction set; methods are inlined into functions
/// with its features. Every set gives the same bits.
pub(super) trait FloatLanes: Copy {
    /// 16 floats.
    type Sixteen: Copy;
    /// Rows × lane groups whose accumulators fit into registers beside one row of the block.
    const ROWS: usize;
    const GROUPS: usize;

    fn load(self, from: &Lanes) -> Self::Sixteen;
    fn store(self, value: Self::Sixteen, to: &mut Lanes);
    /// `x · b + c` in every lane, rounded once.
    fn fused(self, x: f32, b: Self::Sixteen, c: Self::Sixteen) -> Self::Sixteen;
}

/// Plain code, the reference of the others.
#[derive(Clone, Copy)]
pub(super) struct Plain;

impl FloatLanes for Plain {
    type Sixteen = [f32; LANES];
    const ROWS: usize = 3;
    const GROUPS: usize = 2;

    #[inline(always)]
    fn load(self, from: &Lanes) -> [f32; LANES] {
        from.0
    }
    #[inline(always)]
    fn store(self, value: [f32; LANES], to: &mut Lanes) {
        to.0 = value;
    }
    #[inline(always)]
    fn fused(self, x: f32, b: [f32; LANES], c: [f32; LANES]) -> [f32; LANES] {
        std::array::from_fn(|lane| x.mul_add(b[lane], c[lane]))
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) use x86::Narrow;

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
mod x86 {
    use std::arch::x86_64::*;

    use super::{FloatLanes, Lanes};
    use crate::isa::{Avx2, Avx512, AvxVnni};

    /// Proof of AVX2 and FMA, by whichever token.
    #[derive(Clone, Copy)]
    pub(in crate::kv) struct Narrow(());

    impl From<Avx2> for Narrow {
        fn from(_: Avx2) -> Self {
            Self(())
        }
    }

    impl From<AvxVnni> for Narrow {
        fn from(_: AvxVnni) -> Self {
            Self(())
        }
    }

    // SAFETY of every block below: `self` proves the features; `Lanes` is 16 floats, aligned to 64 bytes.
    #[allow(clippy::undocumented_unsafe_blocks)]
    impl FloatLanes for Narrow {
        type Sixteen = [__m256; 2];
        const ROWS: usize = 3;
        const GROUPS: usize = 2;

        #[inline(always)]
        fn load(self, from: &Lanes) -> [__m256; 2] {
            unsafe { [_mm256_load_ps(from.0.as_ptr()), _mm256_load_ps(from.0.as_ptr().add(8))] }
        }
        #[inline(always)]
        fn store(self, value: [__m256; 2], to: &mut Lanes) {
            unsafe {
                _mm256_store_ps(to.0.as_mut_ptr(), value[0]);
                _mm256_store_ps(to.0.as_mut_ptr().add(8), value[1]);
            }
        }
        #[inline(always)]
        fn fused(self, x: f32, b: [__m256; 2], c: [__m256; 2]) -> [__m256; 2] {
            unsafe {
                let x = _mm256_set1_ps(x);
                [_mm256_fmadd_ps(x, b[0], c[0]), _mm256_fmadd_ps(x, b[1], c[1])]
            }
        }
    }

    // SAFETY: as above.
    #[allow(clippy::undocumented_unsafe_blocks)]
    impl FloatLanes for Avx512 {
        type Sixteen = __m512;
        const ROWS: usize = 6;
        const GROUPS: usize = 4;

        #[inline(always)]
        fn load(self, from: &Lanes) -> __m512 {
            unsafe { _mm512_load_ps(from.0.as_ptr()) }
        }
        #[inline(always)]
        fn store(self, value: __m512, to: &mut Lanes) {
            unsafe { _mm512_store_ps(to.0.as_mut_ptr(), value) }
        }
        #[inline(always)]
        fn fused(self, x: f32, b: __m512, c: __m512) -> __m512 {
            unsafe { _mm512_fmadd_ps(_mm512_set1_ps(x), b, c) }
        }
    }
}
