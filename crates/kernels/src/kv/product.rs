//! The one product of attention: rows of floats times a (k, columns) block in lanes, added to rows of lanes.
//!
//! Scores are queries × keys (k = head_dim, columns = positions), outputs are weights × values (k = positions, columns =
//! head_dim). Each output is one chain of fused multiply-adds over ascending k, however many are computed together.

use super::lanes::FloatLanes;
use super::storage::Lanes;

/// Most rows of one call: as many as the widest instruction set takes at once.
pub(super) const ROWS_MAX: usize = 6;

/// A block of right-hand sides: row k is `lanes[k * stride..]`.
#[derive(Clone, Copy)]
pub(super) struct Right<'a> {
    pub(super) lanes: &'a [Lanes],
    pub(super) stride: usize,
}

/// M rows × T lane groups from group `at` on; output row m is `out[m * out_stride..]`.
#[inline(always)]
fn product<F: FloatLanes, const M: usize, const T: usize>(
    set: F,
    left: &[&[f32]],
    right: Right<'_>,
    at: usize,
    out: &mut [Lanes],
    out_stride: usize,
) {
    let k = left[0].len();
    assert!(left.len() == M && left.iter().all(|row| row.len() == k), "M rows of one length");
    let left: [&[f32]; M] = std::array::from_fn(|m| left[m]);
    let mut sums = [[set.load(&Lanes::ZERO); T]; M];
    for m in 0..M {
        for t in 0..T {
            sums[m][t] = set.load(&out[m * out_stride + at + t]);
        }
    }
    for i in 0..k {
        let lanes: &[Lanes; T] =
            right.lanes[i * right.stride + at..].first_chunk().expect("lane groups inside the block");
        let mut row = [set.load(&lanes[0]); T];
        for t in 1..T {
            row[t] = set.load(&lanes[t]);
        }
        for m in 0..M {
            #[allow(unsafe_code)]
            // SAFETY: the assertion: there are M rows of k values. Six checks a step are a quarter of the loop.
            let x = unsafe { *left[m].get_unchecked(i) };
            for t in 0..T {
                sums[m][t] = set.fused(x, row[t], sums[m][t]);
            }
        }
    }
    for m in 0..M {
        for t in 0..T {
            set.store(sums[m][t], &mut out[m * out_stride + at + t]);
        }
    }
}

/// M rows × the lane groups `first..last`.
#[inline(always)]
fn columns<F: FloatLanes, const M: usize>(
    set: F,
    left: &[&[f32]],
    right: Right<'_>,
    (first, last): (usize, usize),
    out: &mut [Lanes],
    out_stride: usize,
) {
    let mut at = first;
    while at < last {
        let step = (last - at).min(F::GROUPS);
        match step {
            4 if F::GROUPS >= 4 => product::<F, M, 4>(set, left, right, at, out, out_stride),
            3 if F::GROUPS >= 3 => product::<F, M, 3>(set, left, right, at, out, out_stride),
            2 => product::<F, M, 2>(set, left, right, at, out, out_stride),
            _ => product::<F, M, 1>(set, left, right, at, out, out_stride),
        }
        at += step;
    }
}

/// All rows × the lane groups `range`.
#[inline(always)]
pub(super) fn multiply<F: FloatLanes>(
    set: F,
    left: &[&[f32]],
    right: Right<'_>,
    range: (usize, usize),
    out: &mut [Lanes],
    out_stride: usize,
) {
    for (index, left) in left.chunks(F::ROWS).enumerate() {
        let out = &mut out[index * F::ROWS * out_stride..];
        match left.len() {
            6 if F::ROWS >= 6 => columns::<F, 6>(set, left, right, range, out, out_stride),
            5 if F::ROWS >= 5 => columns::<F, 5>(set, left, right, range, out, out_stride),
            4 if F::ROWS >= 4 => columns::<F, 4>(set, left, right, range, out, out_stride),
            3 => columns::<F, 3>(set, left, right, range, out, out_stride),
            2 => columns::<F, 2>(set, left, right, range, out, out_stride),
            _ => columns::<F, 1>(set, left, right, range, out, out_stride),
        }
    }
}
