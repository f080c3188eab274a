//! The KV cache and causal grouped-query attention over it (Ainslie et al. 2023).
//!
//! # Layout and order
//! Keys lie transposed in tiles of 16 positions, (layer, kv_head, position / 16, head_dim, 16), so that every score
//! has a lane of its own and sums over head_dim in ascending order. Values are (layer, kv_head, position, head_dim):
//! every output sums over positions in ascending order. The softmax total uses 16 lanes by `position mod 16` and the fixed
//! tree. Nothing depends on how many tokens are computed together.

use std::ops::Range;

use crate::isa::{Isa, multiversion};
use crate::limits::{LANES, PARALLEL_WORK_MIN};
use crate::math::{exp, reduce, tanh};
use crate::pool::Pool;
use crate::shared::SharedSlice;

/// Shape of a KV cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvShape {
    /// Decoder layers.
    pub layers: usize,
    /// Key/value heads.
    pub kv_heads: usize,
    /// Values in a head.
    pub head_dim: usize,
    /// Positions; rounded up to whole tiles inside.
    pub positions: usize,
}

impl KvShape {
    fn positions_padded(&self) -> usize {
        self.positions.next_multiple_of(LANES)
    }

    /// f32 values of one head's keys (or values).
    fn head_size(&self) -> usize {
        self.positions_padded() * self.head_dim
    }

    /// Bytes of a cache of this shape; saturates.
    pub fn size_bytes(&self) -> usize {
        [2, self.layers, self.kv_heads, self.positions_padded(), self.head_dim, size_of::<f32>()]
            .into_iter()
            .fold(1, usize::saturating_mul)
    }
}

/// Keys and values of all layers in f32, with the score scratch of each thread.
#[derive(Debug)]
pub struct KvCache {
    shape: KvShape,
    keys: Vec<f32>,
    values: Vec<f32>,
    /// (threads, positions padded)
    scores: Vec<f32>,
}

/// The queries of one call.
#[derive(Debug, Clone, Copy)]
pub struct AttentionBatch<'a> {
    /// (tokens, heads, head_dim)
    pub queries: &'a [f32],
    /// Query heads; a multiple of the cache's kv_heads.
    pub heads: usize,
    /// Position of the first token; its own key and value are already written.
    pub position: usize,
    /// Factor on every score, usually `1 / sqrt(head_dim)`.
    pub scale: f32,
    /// Sliding window: the token at position p sees the positions `(p - window, p]`; `None`: all up to its own.
    pub window: Option<usize>,
    /// Bound on scaled scores: `cap · tanh(score / cap)` (Gemma 2); `None`: none.
    pub softcap: Option<f32>,
}

impl KvCache {
    /// Bytes of the score scratch.
    pub fn scratch_bytes(shape: &KvShape, threads: usize) -> usize {
        threads.saturating_mul(shape.positions_padded()).saturating_mul(size_of::<f32>())
    }

    /// A cache for pools of up to `threads` threads.
    pub fn new(shape: KvShape, threads: usize) -> Self {
        let size = shape.layers * shape.kv_heads * shape.head_size();
        Self {
            shape,
            keys: vec![0.0; size],
            values: vec![0.0; size],
            scores: vec![0.0; threads * shape.positions_padded()],
        }
    }

    /// Its shape.
    pub fn shape(&self) -> KvShape {
        self.shape
    }

    /// Stores the keys and values of consecutive tokens from `position` on; both are (tokens, kv_heads, head_dim).
    ///
    /// # Panics
    /// If a shape disagrees or a position is outside the cache.
    pub fn write(&mut self, layer: usize, position: usize, keys: &[f32], values: &[f32]) {
        let KvShape { kv_heads, head_dim, positions, layers } = self.shape;
        let row = kv_heads * head_dim;
        assert!(keys.len() == values.len() && keys.len().is_multiple_of(row), "whole tokens");
        assert!(layer < layers && position + keys.len() / row <= positions, "outside the cache");
        let size = self.shape.head_size();
        for (token, (keys, values)) in keys.chunks_exact(row).zip(values.chunks_exact(row)).enumerate() {
            let at = position + token;
            for (head, (key, value)) in
                keys.chunks_exact(head_dim).zip(values.chunks_exact(head_dim)).enumerate()
            {
                let start = (layer * kv_heads + head) * size;
                let tile = start + at / LANES * LANES * head_dim + at % LANES;
                for (d, k) in key.iter().enumerate() {
                    self.keys[tile + d * LANES] = *k;
                }
                self.values[start + at * head_dim..][..head_dim].copy_from_slice(value);
            }
        }
    }

    /// Causal attention of every query over the positions up to its own, within the batch's window; `out` has the shape
    /// of the queries.
    ///
    /// # Panics
    /// If a shape disagrees, a position is outside the cache, the window is empty, or the pool has more threads than the cache was made for.
    pub fn attend(
        &mut self,
        isa: Isa,
        pool: &Pool,
        layer: usize,
        batch: &AttentionBatch<'_>,
        out: &mut [f32],
    ) {
        let KvShape { kv_heads, head_dim, positions, layers } = self.shape;
        let row = batch.heads * head_dim;
        assert!(batch.queries.len() == out.len() && out.len().is_multiple_of(row), "whole tokens");
        let tokens = out.len() / row;
        assert!(layer < layers && batch.position + tokens <= positions, "outside the cache");
        assert!(batch.heads.is_multiple_of(kv_heads), "whole groups");
        assert!(batch.window != Some(0), "a token sees at least itself");
        let (padded, size) = (self.shape.positions_padded(), self.shape.head_size());
        let threads = pool.threads();
        assert!(threads * padded <= self.scores.len(), "made for fewer threads");
        let (keys, values) = (&self.keys, &self.values);
        let scores = SharedSlice::new(&mut self.scores);
        let out_length = out.len();
        let outputs = SharedSlice::new(out);
        let heads = batch.heads;
        let share = |thread: usize, threads: usize| {
            #[allow(unsafe_code)]
            // SAFETY: one part for each thread.
            let scores = unsafe { scores.part(thread * padded, padded) };
            // Dealt out in turn, not in ranges: later tokens see more positions.
            for task in (thread..tokens * heads).step_by(threads) {
                let (token, head) = (task / heads, task % heads);
                let start = (layer * kv_heads + head / (heads / kv_heads)) * size;
                let count = batch.position + token + 1;
                #[allow(unsafe_code)]
                // SAFETY: every task belongs to one thread and has an output row of its own.
                let output = unsafe { outputs.part(task * head_dim, head_dim) };
                let query = &batch.queries[task * head_dim..][..head_dim];
                let keys = &keys[start..start + size];
                let values = &values[start..start + size];
                let first = batch.window.map_or(0, |window| count.saturating_sub(window));
                attend_head(
                    isa,
                    query,
                    keys,
                    values,
                    batch.scale,
                    batch.softcap,
                    first..count,
                    scores,
                    output,
                );
            }
        };
        let seen = batch.window.unwrap_or(usize::MAX).min(batch.position + tokens);
        let work = 2 * out_length * seen;
        if threads == 1 || work < PARALLEL_WORK_MIN {
            share(0, 1);
        } else {
            pool.run(&|thread| share(thread, threads));
        }
    }
}

multiversion! {
    fn attend_head(
        isa,
        query: &[f32],
        keys: &[f32],
        values: &[f32],
        scale: f32,
        softcap: Option<f32>,
        seen: Range<usize>,
        scores: &mut [f32],
        out: &mut [f32],
    ) {
        let (first_tile, tiles) = (seen.start / LANES, seen.end.div_ceil(LANES));
        let (lanes, _) = scores[..tiles * LANES].as_chunks_mut::<LANES>();
        let mut done = first_tile;
        while tiles - done >= 4 {
            score_tiles::<4>(query, &keys[done * LANES * query.len()..], scale, &mut lanes[done..]);
            done += 4;
        }
        while done < tiles {
            score_tiles::<1>(query, &keys[done * LANES * query.len()..], scale, &mut lanes[done..]);
            done += 1;
        }
        if let Some(cap) = softcap {
            for score in lanes[first_tile..].as_flattened_mut() {
                *score = tanh(*score / cap) * cap;
            }
        }
        // Lanes outside the positions seen hold other keys: they must not count.
        lanes[first_tile][..seen.start % LANES].fill(f32::NEG_INFINITY);
        lanes[tiles - 1][(seen.end - 1) % LANES + 1..].fill(f32::NEG_INFINITY);
        let total = softmax_numerators(&mut lanes[first_tile..]);
        let (mut d, head_dim) = (0, out.len());
        let values = &values[seen.start * head_dim..];
        while head_dim - d >= 4 * LANES {
            weigh_values::<{ 4 * LANES }>(&scores[seen.clone()], values, head_dim, d, total, out);
            d += 4 * LANES;
        }
        while head_dim - d >= LANES {
            weigh_values::<LANES>(&scores[seen.clone()], values, head_dim, d, total, out);
            d += LANES;
        }
        while d < head_dim {
            weigh_values::<1>(&scores[seen.clone()], values, head_dim, d, total, out);
            d += 1;
        }
    }
}

/// Scores of T tiles of 16 positions.
#[inline(always)]
fn score_tiles<const T: usize>(query: &[f32], keys: &[f32], scale: f32, scores: &mut [[f32; LANES]]) {
    let head_dim = query.len();
    let (keys, _) = keys.as_chunks::<LANES>();
    let tiles: [&[[f32; LANES]]; T] = std::array::from_fn(|t| &keys[t * head_dim..(t + 1) * head_dim]);
    let mut acc = [[0.0f32; LANES]; T];
    for (d, q) in query.iter().enumerate() {
        for t in 0..T {
            for lane in 0..LANES {
                acc[t][lane] = q.mul_add(tiles[t][d][lane], acc[t][lane]);
            }
        }
    }
    for t in 0..T {
        for lane in 0..LANES {
            scores[t][lane] = acc[t][lane] * scale;
        }
    }
}

/// Replaces scores by `e^(score - max)` and returns their sum.
#[inline(always)]
fn softmax_numerators(scores: &mut [[f32; LANES]]) -> f32 {
    let mut tops = [f32::NEG_INFINITY; LANES];
    for group in scores.iter() {
        for (top, s) in tops.iter_mut().zip(group) {
            *top = if *s > *top { *s } else { *top };
        }
    }
    let top = tops.iter().fold(f32::NEG_INFINITY, |a, b| if *b > a { *b } else { a });
    let mut sums = [0.0f32; LANES];
    for group in scores.iter_mut() {
        for (sum, s) in sums.iter_mut().zip(group) {
            *s = exp(*s - top);
            *sum += *s;
        }
    }
    reduce(&sums)
}

/// `out[first..first + D] = Σ weight · value / total`, positions in ascending order.
#[inline(always)]
fn weigh_values<const D: usize>(
    weights: &[f32],
    values: &[f32],
    head_dim: usize,
    first: usize,
    total: f32,
    out: &mut [f32],
) {
    let mut acc = [0.0f32; D];
    for (weight, row) in weights.iter().zip(values.chunks_exact(head_dim)) {
        let row: &[f32; D] = row[first..].first_chunk().expect("a head has this many values");
        for d in 0..D {
            acc[d] = weight.mul_add(row[d], acc[d]);
        }
    }
    for (o, a) in out[first..first + D].iter_mut().zip(&acc) {
        *o = a / total;
    }
}
