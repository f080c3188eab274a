//! Read bandwidth over a working set.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Clock, Rate, repeat};
use crate::isa::Isa;
use crate::pool::Pool;

/// Words of a cache line.
const WORDS: usize = 8;

/// Places that a thread reads at in turn, as a matrix kernel reads several tiles at once.
#[cfg(target_arch = "x86_64")]
const STREAMS: usize = 4;

/// One cache line.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Line([u64; WORDS]);

/// A working set that threads read from one end to the other, as they read the weights of a model for each token.
#[derive(Debug)]
pub struct ReadProbe {
    lines: Vec<Line>,
}

impl ReadProbe {
    /// A working set of `bytes`, rounded up to whole cache lines. Its pages are written, so that none of them is the
    /// system's shared zero page.
    pub fn new(bytes: usize) -> Self {
        let count = bytes.div_ceil(size_of::<Line>()).max(1);
        let words = |line: usize| std::array::from_fn(|word| (line * WORDS + word) as u64);
        Self { lines: (0..count).map(|line| Line(words(line))).collect() }
    }

    /// Bytes that one pass reads.
    pub fn bytes(&self) -> usize {
        self.lines.len() * size_of::<Line>()
    }

    /// Reads everything once, each thread a contiguous part, and returns the sum of all words.
    pub fn pass(&self, isa: Isa, pool: &Pool) -> u64 {
        let total = AtomicU64::new(0);
        pool.split(self.lines.len(), &|range: Range<usize>| {
            let mut sums = [0; WORDS];
            sum(isa, &self.lines[range], &mut sums);
            total.fetch_add(sums.iter().fold(0, |a, b| a.wrapping_add(*b)), Ordering::Relaxed);
        });
        total.into_inner()
    }

    /// Bytes per second, over passes that take `budget_ns` in all.
    pub fn bandwidth(&self, isa: Isa, pool: &Pool, budget_ns: u64, clock: Clock) -> Rate {
        repeat(self.bytes() as u64, budget_ns, clock, || {
            std::hint::black_box(self.pass(isa, pool));
        })
    }
}

/// Adds up the lines word by word, with the widest loads of the instruction set. Written with intrinsics, because a
/// compiler may turn plain loops over words into gathers, which measure nothing but themselves.
#[allow(unsafe_code)]
fn sum(isa: Isa, lines: &[Line], out: &mut [u64; WORDS]) {
    match isa {
        // SAFETY: an Avx512 token exists only where the processor has this feature.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512(_) => unsafe { x86::avx512(lines, out) },
        // SAFETY: both tokens exist only where the processor has this feature.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2(_) | Isa::AvxVnni(_) => unsafe { x86::avx2(lines, out) },
        _ => portable(lines, out),
    }
}

fn portable(lines: &[Line], out: &mut [u64; WORDS]) {
    for line in lines {
        for (total, word) in out.iter_mut().zip(line.0) {
            *total = total.wrapping_add(word);
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Line, STREAMS, WORDS, portable};

    /// The lines in [`STREAMS`] equal parts, and what is left over.
    fn streams(lines: &[Line]) -> ([&[Line]; STREAMS], &[Line]) {
        let length = lines.len() / STREAMS;
        let (whole, rest) = lines.split_at(length * STREAMS);
        (std::array::from_fn(|stream| &whole[stream * length..(stream + 1) * length]), rest)
    }

    #[target_feature(enable = "avx512f")]
    pub(super) fn avx512(lines: &[Line], out: &mut [u64; WORDS]) {
        let (streams, rest) = streams(lines);
        let mut sums = [_mm512_setzero_si512(); STREAMS];
        for at in 0..streams[0].len() {
            for (sum, stream) in sums.iter_mut().zip(streams) {
                // SAFETY: a line is 64 aligned bytes, and all streams have the length of the first.
                *sum = _mm512_add_epi64(*sum, unsafe { _mm512_load_si512(stream.as_ptr().add(at).cast()) });
            }
        }
        for sum in sums {
            let mut line = Line([0; WORDS]);
            // SAFETY: a line is 64 aligned bytes.
            unsafe { _mm512_store_si512((&raw mut line).cast(), sum) };
            portable(&[line], out);
        }
        portable(rest, out);
    }

    #[target_feature(enable = "avx2")]
    pub(super) fn avx2(lines: &[Line], out: &mut [u64; WORDS]) {
        let (streams, rest) = streams(lines);
        let mut sums = [[_mm256_setzero_si256(); 2]; STREAMS];
        for at in 0..streams[0].len() {
            for (sum, stream) in sums.iter_mut().zip(streams) {
                // SAFETY: all streams have the length of the first.
                let line: *const __m256i = unsafe { stream.as_ptr().add(at) }.cast();
                // SAFETY: a line is 64 aligned bytes.
                let [low, high] = unsafe { [_mm256_load_si256(line), _mm256_load_si256(line.add(1))] };
                *sum = [_mm256_add_epi64(sum[0], low), _mm256_add_epi64(sum[1], high)];
            }
        }
        for [low, high] in sums {
            let mut line = Line([0; WORDS]);
            let halves: *mut __m256i = (&raw mut line).cast();
            // SAFETY: a line is 64 aligned bytes.
            unsafe {
                _mm256_store_si256(halves, low);
                _mm256_store_si256(halves.add(1), high);
            }
            portable(&[line], out);
        }
        portable(rest, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_read_once_whatever_threads_and_instructions() {
        // The words count up, so their sum misses none and takes none twice.
        for bytes in [0, 1, 64, 65, 64 * 7, 64 * 1001] {
            let probe = ReadProbe::new(bytes);
            assert!(probe.bytes() >= bytes && probe.bytes() < bytes + 65, "{bytes}: {}", probe.bytes());
            let words = probe.bytes() as u64 / 8;
            for threads in [1, 3] {
                let pool = Pool::new(threads).unwrap();
                for isa in Isa::available() {
                    let sum = probe.pass(isa, &pool);
                    assert_eq!(
                        sum,
                        words * (words - 1) / 2,
                        "{bytes} bytes, {threads} threads, {}",
                        isa.name()
                    );
                }
            }
        }
    }

    #[test]
    fn bandwidth_scales_with_the_bytes_of_a_pass() {
        // One look at this clock costs a microsecond, so every pass takes exactly that.
        use std::cell::Cell;
        thread_local!(static NOW: Cell<u64> = const { Cell::new(0) });
        fn clock() -> u64 {
            NOW.set(NOW.get() + 1000);
            NOW.get()
        }
        let pool = Pool::new(1).unwrap();
        for kib in [1, 2, 64] {
            let rate = ReadProbe::new(kib << 10).bandwidth(Isa::detect(), &pool, 0, clock);
            assert_eq!(rate.median, (kib << 10) as f64 * 1e6);
        }
    }
}
