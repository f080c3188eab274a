//! The peak of integer dot products: what each instruction set multiplies and adds when nothing has to be loaded.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{Clock, Rate, repeat};
use crate::isa::Isa;
use crate::limits::{LANES, PROBE_DOT_ROUNDS};
use crate::pool::Pool;

/// A loop of int8 dot products in registers.
#[derive(Debug, Clone, Copy)]
pub struct DotProbe {
    rounds: u64,
}

impl DotProbe {
    /// A probe whose pass is long enough that starting the threads does not count.
    pub fn new() -> Self {
        Self { rounds: PROBE_DOT_ROUNDS }
    }

    /// Multiply-adds of one pass on all threads of `pool`.
    pub fn macs(&self, isa: Isa, pool: &Pool) -> u64 {
        self.rounds * macs_of_a_round(isa) * pool.threads() as u64
    }

    /// Runs the loop on every thread and returns a number that depends on all products.
    pub fn pass(&self, isa: Isa, pool: &Pool) -> u64 {
        let total = AtomicU64::new(0);
        pool.run(&|_| {
            total.fetch_add(run(isa, self.rounds), Ordering::Relaxed);
        });
        total.into_inner()
    }

    /// Multiply-adds per second, over passes that take `budget_ns` in all.
    pub fn peak(&self, isa: Isa, pool: &Pool, budget_ns: u64, clock: Clock) -> Rate {
        repeat(self.macs(isa, pool), budget_ns, clock, || {
            std::hint::black_box(self.pass(isa, pool));
        })
    }
}

impl Default for DotProbe {
    fn default() -> Self {
        Self::new()
    }
}

/// Multiply-adds that one thread does in one round.
fn macs_of_a_round(isa: Isa) -> u64 {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512(_) => x86::AVX512_MACS,
        #[cfg(target_arch = "x86_64")]
        Isa::AvxVnni(_) => x86::AVX_VNNI_MACS,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2(_) => x86::AVX2_MACS,
        Isa::Scalar => SCALAR_MACS,
        #[cfg(not(target_arch = "x86_64"))]
        _ => SCALAR_MACS,
    }
}

/// The sum of all products of the rounds: every weight is 1 and every activation 2.
#[allow(unsafe_code)]
fn run(isa: Isa, rounds: u64) -> u64 {
    match isa {
        // SAFETY: an Avx512 token exists only where the processor has these features.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512(_) => unsafe { x86::avx512(rounds) },
        // SAFETY: an AvxVnni token exists only where the processor has these features.
        #[cfg(target_arch = "x86_64")]
        Isa::AvxVnni(_) => unsafe { x86::avx_vnni(rounds) },
        // SAFETY: an Avx2 token exists only where the processor has this feature.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2(_) => unsafe { x86::avx2(rounds) },
        Isa::Scalar => scalar(rounds),
        #[cfg(not(target_arch = "x86_64"))]
        _ => scalar(rounds),
    }
}

/// Sixteen rows × 4 k, as in the scalar tile.
const SCALAR_MACS: u64 = 4 * LANES as u64;

fn scalar(rounds: u64) -> u64 {
    let weights = [1u8; 4 * LANES];
    let mut activations = [2i8; 4];
    let mut sums = [0i32; LANES];
    for _ in 0..rounds {
        // The compiler must not know that the factors stay the same.
        activations = std::hint::black_box(activations);
        for (sum, four) in sums.iter_mut().zip(weights.as_chunks::<4>().0) {
            for (weight, activation) in four.iter().zip(activations) {
                *sum = sum.wrapping_add(i32::from(*weight) * i32::from(activation));
            }
        }
    }
    total(&sums)
}

fn total(sums: &[i32]) -> u64 {
    // An i32 sum wraps in long runs, as it may: only the work counts.
    sums.iter().map(|sum| u64::from(*sum as u32)).sum()
}

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
mod x86 {
    use std::arch::asm;
    use std::arch::x86_64::*;

    use super::total;

    /// Sums in flight. A sum takes part in one product every few cycles, and up to two products begin in each.
    const CHAINS: usize = 12;
    /// `vpdpbusd` on 64 bytes.
    pub(super) const AVX512_MACS: u64 = 64 * CHAINS as u64;
    /// `vpdpbusd` on 32 bytes.
    pub(super) const AVX_VNNI_MACS: u64 = 32 * CHAINS as u64;
    /// `vpmaddwd` on 16 i16 and the addition that it does not do itself.
    pub(super) const AVX2_MACS: u64 = 16 * CHAINS as u64;

    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    pub(super) fn avx512(rounds: u64) -> u64 {
        let mut weights = _mm512_set1_epi8(1);
        let activations = _mm512_set1_epi8(2);
        let mut sums = [_mm512_setzero_si512(); CHAINS];
        for _ in 0..rounds {
            weights = opaque_512(weights);
            for sum in &mut sums {
                *sum = _mm512_dpbusd_epi32(*sum, weights, activations);
            }
        }
        let mut lanes = [0i32; 16 * CHAINS];
        for (out, sum) in lanes.as_chunks_mut::<16>().0.iter_mut().zip(sums) {
            // SAFETY: 16 i32 are 64 bytes.
            unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), sum) };
        }
        total(&lanes)
    }

    #[target_feature(enable = "avx2")]
    pub(super) fn avx2(rounds: u64) -> u64 {
        let mut weights = _mm256_set1_epi16(1);
        let activations = _mm256_set1_epi16(2);
        let mut sums = [_mm256_setzero_si256(); CHAINS];
        for _ in 0..rounds {
            for sum in &mut sums {
                weights = opaque_256(weights);
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(weights, activations));
            }
        }
        total_256(&sums)
    }

    #[target_feature(enable = "avx2,avxvnni")]
    pub(super) fn avx_vnni(rounds: u64) -> u64 {
        let mut weights = _mm256_set1_epi8(1);
        let activations = _mm256_set1_epi8(2);
        let mut sums = [_mm256_setzero_si256(); CHAINS];
        for _ in 0..rounds {
            weights = opaque_256(weights);
            for sum in &mut sums {
                *sum = _mm256_dpbusd_avx_epi32(*sum, weights, activations);
            }
        }
        total_256(&sums)
    }

    #[target_feature(enable = "avx2")]
    fn total_256(sums: &[__m256i; CHAINS]) -> u64 {
        let mut lanes = [0i32; 8 * CHAINS];
        for (out, sum) in lanes.as_chunks_mut::<8>().0.iter_mut().zip(sums) {
            // SAFETY: 8 i32 are 32 bytes.
            unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), *sum) };
        }
        total(&lanes)
    }

    /// `value`, of which the compiler then knows nothing: it can neither take a product out of the loop nor use it twice.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn opaque_512(mut value: __m512i) -> __m512i {
        // SAFETY: no instruction is executed.
        unsafe { asm!("/* {} */", inout(zmm_reg) value, options(nomem, nostack, preserves_flags)) };
        value
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn opaque_256(mut value: __m256i) -> __m256i {
        // SAFETY: no instruction is executed.
        unsafe { asm!("/* {} */", inout(ymm_reg) value, options(nomem, nostack, preserves_flags)) };
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loop_does_the_work_that_it_is_counted_for() {
        // All products are 2, so the sum is twice the multiply-adds.
        for isa in Isa::available() {
            for rounds in [1, 7, 1000] {
                let products = rounds * macs_of_a_round(isa);
                assert_eq!(run(isa, rounds), 2 * products, "{} rounds {rounds}", isa.name());
            }
        }
    }

    #[test]
    fn every_thread_runs_the_loop() {
        let probe = DotProbe { rounds: 10 };
        for isa in Isa::available() {
            let [one, three] = [1, 3].map(|threads| Pool::new(threads).unwrap());
            assert_eq!(probe.macs(isa, &three), 3 * probe.macs(isa, &one));
            assert_eq!(probe.pass(isa, &three), 2 * probe.macs(isa, &three));
        }
    }

    #[test]
    fn the_peak_is_a_positive_number() {
        fn clock() -> u64 {
            use std::sync::OnceLock;
            use std::time::Instant;
            static START: OnceLock<Instant> = OnceLock::new();
            START.get_or_init(Instant::now).elapsed().as_nanos() as u64
        }
        let pool = Pool::new(1).unwrap();
        for isa in Isa::available() {
            let rate = DotProbe { rounds: 100 }.peak(isa, &pool, 0, clock);
            assert!(rate.median.is_finite() && rate.median > 0.0 && rate.best >= rate.median, "{rate:?}");
        }
    }
}
