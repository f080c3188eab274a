//! Attention of some rows over one head's blocks, with the softmax joined block by block (Milakov and Gimelshein 2018; the
//! tiling of Dao et al. 2022).

use std::ops::Range;

#[cfg(target_arch = "x86_64")]
use crate::isa::Avx512;
use crate::isa::Isa;
use crate::limits::{ATTENTION_ROWS_MAX, KV_BLOCK, LANES};
use crate::math::{exp, reduce, tanh};
use crate::shared::SharedSlice;

use super::AttentionBatch;
use super::element::{HeadLayout, KvType, TILES, widen};
#[cfg(target_arch = "x86_64")]
use super::lanes::Narrow;
use super::lanes::{FloatLanes, Plain};
use super::product::{ROWS_MAX, Right, multiply};
use super::storage::{Lanes, Storage, floats, view};
use super::visible::View;

/// What one thread needs while it works.
#[derive(Debug)]
pub(super) struct Scratch {
    /// One block of keys as floats: (head_dim, TILES).
    keys: Vec<Lanes>,
    /// One block of values as floats: (KV_BLOCK, value lanes).
    values: Vec<Lanes>,
    /// Of each row: weighted values so far, (rows, value lanes).
    sums: Vec<Lanes>,
    /// Of each row: weights so far.
    totals: Vec<Lanes>,
    /// Of each row: the largest score so far.
    tops: Vec<f32>,
}

impl Scratch {
    pub(super) fn size_bytes(layout: HeadLayout) -> usize {
        let block = if layout.kind == KvType::F32 {
            0
        } else {
            layout.head_dim * TILES + KV_BLOCK * layout.value_lanes()
        };
        (block + ATTENTION_ROWS_MAX * (layout.value_lanes() + 1)) * size_of::<Lanes>()
            + ATTENTION_ROWS_MAX * size_of::<f32>()
    }

    pub(super) fn new(layout: HeadLayout) -> Self {
        let lanes = |count| vec![Lanes::ZERO; count];
        let wide = usize::from(layout.kind != KvType::F32);
        Self {
            keys: lanes(wide * layout.head_dim * TILES),
            values: lanes(wide * KV_BLOCK * layout.value_lanes()),
            sums: lanes(ATTENTION_ROWS_MAX * layout.value_lanes()),
            totals: lanes(ATTENTION_ROWS_MAX),
            tops: vec![0.0; ATTENTION_ROWS_MAX],
        }
    }
}

/// The rows of one task: some query heads of one key/value head, for some tokens.
#[derive(Debug, Clone)]
pub(super) struct Task {
    pub(super) kv_head: usize,
    /// Query heads, numbered within the model.
    pub(super) heads: Range<usize>,
    /// Tokens, numbered within the batch.
    pub(super) tokens: Range<usize>,
}

/// One call of attention as all its tasks see it.
#[derive(Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) isa: Isa,
    pub(super) layout: HeadLayout,
    pub(super) storage: &'a Storage,
    /// Where the layer's heads begin in a block, in lines.
    pub(super) first_line: usize,
    pub(super) batch: &'a AttentionBatch<'a>,
    pub(super) view: View,
    pub(super) out: SharedSlice<'a, f32>,
}

impl Call<'_> {
    /// Computes the rows of a task.
    ///
    /// # Safety
    /// No other thread may compute a row of this task at the same time.
    #[allow(unsafe_code)]
    pub(super) unsafe fn run(&self, task: &Task, scratch: &mut Scratch) {
        let (batch, group) = (self.batch, task.heads.len());
        let rows = task.tokens.len() * group;
        let (value_lanes, dim) = (self.layout.value_lanes(), self.layout.head_dim);
        // Row i in the batch's order of rows.
        let place = |i: usize| (task.tokens.start + i / group) * batch.heads + task.heads.start + i % group;
        let Scratch { keys: wide_keys, values: wide_values, sums, totals, tops } = scratch;
        tops[..rows].fill(f32::NEG_INFINITY);
        totals[..rows].fill(Lanes::ZERO);
        sums[..rows * value_lanes].fill(Lanes::ZERO);
        let first = batch.position + task.tokens.start;
        let last = batch.position + task.tokens.end - 1;
        for block in self.view.blocks(first, last) {
            let (keys, values, scales) = self.widened(block, task, wide_keys, wide_values);
            let step = Step { keys, values, scales, scale: batch.scale, softcap: batch.softcap };
            let parts = rows.div_ceil(ROWS_MAX);
            for part in 0..parts {
                let range = rows * part / parts..rows * (part + 1) / parts;
                let mut queries: [&[f32]; ROWS_MAX] = [&[]; ROWS_MAX];
                let mut seen: [[Range<usize>; 2]; ROWS_MAX] = Default::default();
                for (i, row) in range.clone().enumerate() {
                    queries[i] = &batch.queries[place(row) * dim..][..dim];
                    seen[i] = self.view.of(first + row / group).in_block(block);
                }
                let mut group = Group {
                    queries: &queries[..range.len()],
                    seen: &seen[..range.len()],
                    tops: &mut tops[range.clone()],
                    totals: &mut totals[range.clone()],
                    sums: &mut sums[range.start * value_lanes..range.end * value_lanes],
                };
                take(self.isa, &step, &mut group);
            }
        }
        for row in 0..rows {
            // SAFETY: this row belongs to this task, and the task to this thread.
            let out = unsafe { self.out.part(place(row) * dim, dim) };
            let total = reduce(&totals[row].0);
            for (o, sum) in out.iter_mut().zip(floats(&sums[row * value_lanes..])) {
                *o = sum / total;
            }
        }
    }
}

type Scales<'a> = Option<(&'a [f32], &'a [f32])>;

impl Call<'_> {
    /// The block's keys and values as floats, where a row of the task sees them.
    fn widened<'s>(
        &'s self,
        block: usize,
        task: &Task,
        wide_keys: &'s mut [Lanes],
        wide_values: &'s mut [Lanes],
    ) -> (Right<'s>, Right<'s>, Scales<'s>) {
        let layout = self.layout;
        let lines = &self.storage.block(block)[self.first_line + task.kv_head * layout.lines()..];
        let [keys, values, key_scales, value_scales] = layout.split(&lines[..layout.lines()]);
        let (key_stride, value_stride) = (TILES, layout.value_lanes());
        let right = |lanes, stride| Right { lanes, stride };
        if layout.kind == KvType::F32 {
            return (right(view(keys), key_stride), right(view(values), value_stride), None);
        }
        let seen = task.tokens.clone().map(|token| self.view.of(self.batch.position + token).in_block(block));
        let Some(range) = union(seen) else {
            return (right(&[], key_stride), right(&[], value_stride), None);
        };
        let tiles = (range.start / LANES, range.end.div_ceil(LANES));
        widen(self.isa, layout.kind, keys, key_stride, tiles, wide_keys);
        let positions = (range.start * value_stride, range.end * value_stride);
        widen(self.isa, layout.kind, values, KV_BLOCK * value_stride, positions, wide_values);
        let scales = (layout.kind == KvType::Int8).then(|| (view(key_scales), view(value_scales)));
        (right(wide_keys, key_stride), right(wide_values, value_stride), scales)
    }
}

/// The smallest range that holds all non-empty ones.
#[inline(always)]
fn union(seen: impl Iterator<Item = [Range<usize>; 2]>) -> Option<Range<usize>> {
    seen.flatten().filter(|range| !range.is_empty()).reduce(|a, b| a.start.min(b.start)..a.end.max(b.end))
}

/// One block as every row sees it.
struct Step<'a> {
    keys: Right<'a>,
    values: Right<'a>,
    /// int8: of the keys and of the values, by position.
    scales: Scales<'a>,
    scale: f32,
    softcap: Option<f32>,
}

/// Rows that go through a block together.
struct Group<'a> {
    queries: &'a [&'a [f32]],
    /// Positions inside the block.
    seen: &'a [[Range<usize>; 2]],
    tops: &'a mut [f32],
    totals: &'a mut [Lanes],
    sums: &'a mut [Lanes],
}

fn take(isa: Isa, step: &Step<'_>, group: &mut Group<'_>) {
    match isa {
        #[cfg(target_arch = "x86_64")]
        #[allow(unsafe_code)]
        // SAFETY: a token exists only where the processor has the features.
        Isa::Avx2(token) => unsafe { avx2(token.into(), step, group) },
        #[cfg(target_arch = "x86_64")]
        #[allow(unsafe_code)]
        // SAFETY: as above.
        Isa::AvxVnni(token) => unsafe { avx2(token.into(), step, group) },
        #[cfg(target_arch = "x86_64")]
        #[allow(unsafe_code)]
        // SAFETY: as above.
        Isa::Avx512(token) => unsafe { avx512(token, step, group) },
        _ => advance(Plain, step, group),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
fn avx2(token: Narrow, step: &Step<'_>, group: &mut Group<'_>) {
    advance(token, step, group);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn avx512(token: Avx512, step: &Step<'_>, group: &mut Group<'_>) {
    advance(token, step, group);
}

/// Takes the rows of a group over one block.
#[inline(always)]
fn advance<F: FloatLanes>(set: F, step: &Step<'_>, group: &mut Group<'_>) {
    let Some(range) = union(group.seen.iter().cloned()) else { return };
    let (first, last) = (range.start / LANES, range.end.div_ceil(LANES));
    let mut scores = [Lanes::ZERO; ROWS_MAX * TILES];
    multiply(set, group.queries, step.keys, (first, last), &mut scores, TILES);
    let value_lanes = step.values.stride;
    for (row, scores) in scores.chunks_exact_mut(TILES).take(group.queries.len()).enumerate() {
        if group.seen[row].iter().all(Range::is_empty) {
            continue;
        }
        finish_scores(step, &group.seen[row], &mut scores[first..last], first);
        let factor = weights(&mut scores[first..last], &mut group.tops[row], &mut group.totals[row]);
        if factor != 1.0 {
            for sum in &mut group.sums[row * value_lanes..(row + 1) * value_lanes] {
                for lane in &mut sum.0 {
                    *lane *= factor;
                }
            }
        }
        if let Some((_, value_scales)) = step.scales {
            let scales = value_scales[first * LANES..].as_chunks::<LANES>().0;
            for (weights, scales) in scores[first..last].iter_mut().zip(scales) {
                for (weight, scale) in weights.0.iter_mut().zip(scales) {
                    *weight *= scale;
                }
            }
        }
    }
    for part in 0..2 {
        add_values(set, step, group, part, &scores);
    }
}

/// From raw products to scores: scales, cap, and minus infinity where the row sees nothing. `first` is the tile that
/// `scores` begins with.
#[inline(always)]
fn finish_scores(step: &Step<'_>, seen: &[Range<usize>; 2], scores: &mut [Lanes], first: usize) {
    if let Some((key_scales, _)) = step.scales {
        let scales = key_scales[first * LANES..].as_chunks::<LANES>().0;
        for (score, scales) in scores.iter_mut().zip(scales) {
            for (score, scale) in score.0.iter_mut().zip(scales) {
                *score *= scale;
            }
        }
    }
    for score in scores.iter_mut().flat_map(|score| &mut score.0) {
        *score *= step.scale;
    }
    if let Some(cap) = step.softcap {
        for score in scores.iter_mut() {
            for lane in &mut score.0 {
                *lane = tanh(*lane / cap) * cap;
            }
        }
    }
    let mut at = first * LANES;
    let end = at + scores.len() * LANES;
    let mut hide = |range: Range<usize>| {
        for at in range {
            scores[at / LANES - first].0[at % LANES] = f32::NEG_INFINITY;
        }
    };
    for range in seen.iter().filter(|range| !range.is_empty()) {
        hide(at..range.start);
        at = range.end;
    }
    hide(at..end);
}

/// Replaces scores by `e^(score - top)` and adds them to the totals; returns the factor on all that was added before.
#[inline(always)]
fn weights(scores: &mut [Lanes], top: &mut f32, totals: &mut Lanes) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let mut tops = [f32::NEG_INFINITY; LANES];
    for score in scores.iter() {
        for (top, score) in tops.iter_mut().zip(&score.0) {
            *top = larger(*top, *score);
        }
    }
    let mut width = LANES;
    while width > 1 {
        width /= 2;
        for lane in 0..width {
            tops[lane] = larger(tops[lane], tops[lane + width]);
        }
    }
    let new = larger(*top, tops[0]);
    let factor = if *top == new { 1.0 } else { exp(*top - new) };
    *top = new;
    if factor != 1.0 {
        for lane in &mut totals.0 {
            *lane *= factor;
        }
    }
    for score in scores.iter_mut() {
        for lane in 0..LANES {
            score.0[lane] = exp(score.0[lane] - new);
            totals.0[lane] += score.0[lane];
        }
    }
    factor
}

/// Adds weights × values of one of the two ranges. Each row takes exactly its own positions, in ascending order: most
/// of them together with the other rows, the rest alone.
#[inline(always)]
fn add_values<F: FloatLanes>(set: F, step: &Step<'_>, group: &mut Group<'_>, part: usize, weights: &[Lanes]) {
    let rows = group.queries.len();
    let weights = floats(weights);
    let weights = |row: usize, range: Range<usize>| &weights[row * KV_BLOCK..(row + 1) * KV_BLOCK][range];
    let seen = |row: usize| group.seen[row][part].clone();
    let lanes = step.values.stride;
    let values = |from: usize| Right { lanes: &step.values.lanes[from * lanes..], stride: lanes };
    let common = (0..rows).map(seen).reduce(|a, b| a.start.max(b.start)..a.end.min(b.end)).unwrap_or(0..0);
    let (before, after) = if common.is_empty() { (KV_BLOCK, KV_BLOCK) } else { (common.start, common.end) };
    for row in 0..rows {
        let alone = seen(row).start..seen(row).end.min(before);
        if !alone.is_empty() {
            let sums = &mut group.sums[row * lanes..(row + 1) * lanes];
            multiply(set, &[weights(row, alone.clone())], values(alone.start), (0, lanes), sums, lanes);
        }
    }
    if !common.is_empty() {
        let mut left: [&[f32]; ROWS_MAX] = [&[]; ROWS_MAX];
        for (row, left) in left.iter_mut().enumerate().take(rows) {
            *left = weights(row, common.clone());
        }
        multiply(set, &left[..rows], values(common.start), (0, lanes), group.sums, lanes);
    }
    for row in 0..rows {
        let alone = seen(row).start.max(after)..seen(row).end;
        if !alone.is_empty() {
            let sums = &mut group.sums[row * lanes..(row + 1) * lanes];
            multiply(set, &[weights(row, alone.clone())], values(alone.start), (0, lanes), sums, lanes);
        }
    }
}
