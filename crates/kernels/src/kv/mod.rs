//! The KV cache and causal grouped-query attention over it (Ainslie et al. 2023).
//!
//! # Layout
//! Positions lie in blocks of [`KV_BLOCK`], all layers and heads of a block together: (block, layer, kv_head). Inside, keys
//! are transposed, (head_dim, KV_BLOCK), so that every score has a lane of its own; values are (KV_BLOCK, head_dim).
//! A block is on the heap or, beyond a budget, in spill memory; attention reads both alike.
//!
//! # Order
//! A score sums over head_dim in ascending order. The softmax is joined block by block in ascending order: the factor
//! `e^(old top - new top)` on what was summed before, then the block's weights, whose total has 16 lanes by `position mod
//! 16` and the fixed tree at the end; outputs sum over positions in ascending order. Blocks stand at absolute positions.
//! So nothing depends on how many tokens are computed together, by how many threads, or where a block lies. What f16
//! and int8 change is the rounding at the write; reading is exact.
//!
//! # Rings
//! A cache with a [`KvRing`] forgets: the token at position p sees the first `sinks` positions and the last `recent` ones
//! up to its own (Xiao et al. 2023). Room for a whole batch beyond `recent` is kept, so that this holds for
//! every token of a batch.

mod attend;
mod element;
mod lanes;
mod product;
mod storage;
mod visible;

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::isa::Isa;
use crate::limits::{ATTENTION_ROWS_MAX, KV_BLOCK, PARALLEL_WORK_MIN, PARALLEL_WRITE_MIN};
use crate::pool::Pool;
use crate::shared::SharedSlice;

use attend::{Call, Scratch, Task};
use element::{HeadLayout, HeadRows, store};
use storage::{Rotation, SharedBlocks, Storage, view, view_mut};
use visible::{Kept, View};

pub use element::KvType;
pub use storage::KvSpill;

/// Shape of a KV cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvShape {
    /// Decoder layers.
    pub layers: usize,
    /// Key/value heads.
    pub kv_heads: usize,
    /// Values in a head.
    pub head_dim: usize,
    /// Positions that a token can see; memory is taken in whole blocks.
    pub positions: usize,
}

/// Going on past [`KvShape::positions`] by forgetting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvRing {
    /// First positions that are never forgotten; fewer than the shape's positions. The others are the latest.
    pub sinks: usize,
    /// Most tokens of one batch.
    pub batch: usize,
}

/// What a cache consists of; sizes are known before it is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvPlan {
    /// Shape.
    pub shape: KvShape,
    /// Storage type of keys and values.
    pub kind: KvType,
    /// `None`: positions end with the shape's.
    pub ring: Option<KvRing>,
    /// Bytes of blocks to keep on the heap; older ones go to the spill. `None`: all of them. At least one block is kept.
    pub heap_bytes_max: Option<usize>,
}

impl KvPlan {
    /// A plain cache on the heap.
    pub fn new(shape: KvShape, kind: KvType) -> Self {
        Self { shape, kind, ring: None, heap_bytes_max: None }
    }

    fn layout(&self) -> HeadLayout {
        HeadLayout { kind: self.kind, head_dim: self.shape.head_dim }
    }

    fn kept(&self) -> Option<Kept> {
        self.ring.map(|ring| Kept { sinks: ring.sinks, recent: self.shape.positions - ring.sinks })
    }

    fn rotation(&self) -> Rotation {
        let Some((kept, ring)) = self.kept().zip(self.ring) else {
            return Rotation { fixed: self.shape.positions.div_ceil(KV_BLOCK), ring: 0 };
        };
        // What the first token of a batch sees and the last one writes may begin and end anywhere in a block.
        let span = (kept.recent + ring.batch).div_ceil(KV_BLOCK) + 1;
        Rotation { fixed: kept.sinks.div_ceil(KV_BLOCK), ring: span }
    }

    fn block_bytes(&self) -> usize {
        [self.shape.layers, self.shape.kv_heads, self.layout().lines(), 64]
            .into_iter()
            .fold(1, usize::saturating_mul)
    }

    fn heap_blocks(&self) -> usize {
        let slots = self.rotation().slots();
        self.heap_bytes_max.map_or(slots, |max| (max / self.block_bytes().max(1)).clamp(1, slots))
    }

    /// Bytes of all blocks, on the heap and spilled; saturates.
    pub fn size_bytes(&self) -> usize {
        self.block_bytes().saturating_mul(self.rotation().slots())
    }

    /// Bytes of the blocks that the heap has no room for.
    pub fn spill_bytes(&self) -> usize {
        self.block_bytes().saturating_mul(self.rotation().slots() - self.heap_blocks())
    }

    /// Bytes of the scratch of `threads` threads; saturates.
    pub fn scratch_bytes(&self, threads: usize) -> usize {
        Scratch::size_bytes(self.layout()).saturating_mul(threads)
    }
}

/// Keys and values of all layers, with the scratch of each thread.
#[derive(Debug)]
pub struct KvCache {
    plan: KvPlan,
    storage: Storage,
    scratch: Vec<Scratch>,
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
    /// A cache for pools of up to `threads` threads, without spill memory.
    ///
    /// # Panics
    /// As [`KvCache::with_spill`], and if the plan needs spill memory.
    pub fn new(plan: KvPlan, threads: usize) -> Self {
        Self::with_spill(plan, threads, None)
    }

    /// A cache whose blocks beyond the plan's budget lie in `spill`.
    ///
    /// # Panics
    /// If `spill` is not of [`KvPlan::spill_bytes`] bytes, a dimension of the shape is zero, or a ring's sinks leave no
    /// room for recent positions.
    pub fn with_spill(plan: KvPlan, threads: usize, spill: Option<Box<dyn KvSpill>>) -> Self {
        let KvShape { layers, kv_heads, head_dim, positions } = plan.shape;
        assert!(layers * kv_heads * head_dim * positions > 0, "an empty shape");
        assert!(
            plan.ring.is_none_or(|ring| ring.sinks < positions && ring.batch > 0),
            "a ring of sinks only"
        );
        Self {
            plan,
            storage: Storage::new(plan.block_bytes(), plan.rotation(), plan.heap_blocks(), spill),
            scratch: (0..threads).map(|_| Scratch::new(plan.layout())).collect(),
        }
    }

    /// Its plan.
    pub fn plan(&self) -> &KvPlan {
        &self.plan
    }

    /// Bytes of keys and values that lie in spill memory now.
    pub fn spilled_bytes(&self) -> usize {
        self.storage.spilled() * self.plan.block_bytes()
    }

    /// Whether tokens from `length` on can be evaluated again: what they see is still here.
    pub fn can_truncate(&self, length: usize) -> bool {
        let view = View { window: None, kept: self.plan.kept() };
        length == 0 || view.blocks(length - 1, length - 1).all(|block| self.storage.holds(block))
    }

    /// Forgets the positions from `length` on.
    pub fn truncate(&mut self, length: usize) {
        self.storage.truncate(length);
    }

    /// Stores the keys and values of consecutive tokens from `position` on; both are (tokens, kv_heads, head_dim).
    ///
    /// # Panics
    /// If a shape disagrees, or a position is outside the cache or more than a ring's batch is written at once.
    pub fn write(
        &mut self,
        isa: Isa,
        pool: &Pool,
        layer: usize,
        position: usize,
        keys: &[f32],
        values: &[f32],
    ) {
        let KvShape { kv_heads, head_dim, positions, layers } = self.plan.shape;
        let row = kv_heads * head_dim;
        assert!(keys.len() == values.len() && keys.len().is_multiple_of(row), "whole tokens");
        let tokens = keys.len() / row;
        let fits = self.plan.ring.map_or(position + tokens <= positions, |ring| tokens <= ring.batch);
        assert!(layer < layers && fits, "outside the cache");
        for block in position / KV_BLOCK..(position + tokens).div_ceil(KV_BLOCK) {
            self.storage.claim(block);
        }
        let layout = self.plan.layout();
        let shared = self.storage.share();
        let head = |head: usize| {
            let first_line = (layer * kv_heads + head) * layout.lines();
            let rows = |all, token: usize, count| HeadRows {
                all,
                first: token * row + head * head_dim,
                stride: row,
                count,
            };
            let mut token = 0;
            while token < tokens {
                let at = (position + token) % KV_BLOCK;
                let count = (KV_BLOCK - at).min(tokens - token);
                #[allow(unsafe_code)]
                // SAFETY: each head is written by one thread, and heads have lines of their own.
                let lines = unsafe { shared.part((position + token) / KV_BLOCK, first_line, layout.lines()) };
                store(isa, layout, lines, at, rows(keys, token, count), rows(values, token, count));
                token += count;
            }
        };
        if keys.len() < PARALLEL_WRITE_MIN {
            (0..kv_heads).for_each(head);
        } else {
            pool.split(kv_heads, &|range| range.for_each(&head));
        }
    }

    /// Causal attention of every query over the positions up to its own, within the batch's window and what a ring
    /// keeps; `out` has the shape of the queries. The query heads of one key/value head are computed together.
    ///
    /// # Panics
    /// If a shape disagrees, a position is not in the cache, the window is empty, or the pool has more threads than the
    /// cache was made for.
    pub fn attend(
        &mut self,
        isa: Isa,
        pool: &Pool,
        layer: usize,
        batch: &AttentionBatch<'_>,
        out: &mut [f32],
    ) {
        let KvShape { kv_heads, head_dim, layers, .. } = self.plan.shape;
        let row = batch.heads * head_dim;
        assert!(batch.queries.len() == out.len() && out.len().is_multiple_of(row), "whole tokens");
        assert!(layer < layers && batch.heads.is_multiple_of(kv_heads), "whole groups");
        assert!(batch.window != Some(0), "a token sees at least itself");
        assert!(pool.threads() <= self.scratch.len(), "made for fewer threads");
        let tokens = out.len() / row;
        let seen = self.plan.shape.positions.min(batch.window.unwrap_or(usize::MAX));
        let work = 2 * out.len() * seen.min(batch.position + tokens);
        let threads = if work < PARALLEL_WORK_MIN { 1 } else { pool.threads() };
        let tasks = Tasks::new(tokens, kv_heads, batch.heads / kv_heads, threads);
        let layout = self.plan.layout();
        let call = Call {
            isa,
            layout,
            storage: &self.storage,
            first_line: layer * kv_heads * layout.lines(),
            batch,
            view: View { window: batch.window, kept: self.plan.kept() },
            out: SharedSlice::new(out),
        };
        let scratch = SharedSlice::new(&mut self.scratch);
        let next = AtomicUsize::new(0);
        let work = |thread: usize| {
            #[allow(unsafe_code)]
            // SAFETY: one for each thread.
            let scratch = unsafe { &mut scratch.part(thread, 1)[0] };
            while let Some(task) = tasks.get(next.fetch_add(1, Ordering::Relaxed)) {
                #[allow(unsafe_code)]
                // SAFETY: the counter gives every task to one thread, and tasks share no row.
                unsafe {
                    call.run(&task, scratch);
                }
            }
        };
        if threads == 1 {
            work(0);
        } else {
            pool.run(&work);
        }
    }

    /// Bytes of one chunk, see [`KvCache::read_chunk`].
    pub fn chunk_bytes(&self) -> usize {
        self.plan.layout().lines() * 64
    }

    /// Chunks that hold the first `positions` positions.
    pub fn chunk_count(&self, positions: usize) -> usize {
        positions.div_ceil(KV_BLOCK) * self.plan.shape.layers * self.plan.shape.kv_heads
    }

    fn chunk_place(&self, chunk: usize) -> (usize, usize) {
        let heads = self.plan.shape.layers * self.plan.shape.kv_heads;
        (chunk / heads, chunk % heads * self.plan.layout().lines())
    }

    /// Copies chunk number `chunk` of the first `positions` positions: what one head of one layer has in one block, in the
    /// machine's byte order. Chunks are ordered by (block, layer, kv_head); what later positions left in the
    /// block is zeroed.
    ///
    /// # Panics
    /// If the block is not in the cache or `out` is not [`KvCache::chunk_bytes`] long.
    pub fn read_chunk(&self, chunk: usize, positions: usize, out: &mut [u8]) {
        let layout = self.plan.layout();
        let (block, line) = self.chunk_place(chunk);
        let valid = (positions - block * KV_BLOCK).min(KV_BLOCK);
        out.copy_from_slice(view(&self.storage.block(block)[line..line + layout.lines()]));
        layout.clear_from(out, valid);
    }

    /// Stores what [`KvCache::read_chunk`] gave, in a cache of the same shape and type.
    ///
    /// # Panics
    /// If the block is outside the cache or `bytes` is not [`KvCache::chunk_bytes`] long.
    pub fn write_chunk(&mut self, chunk: usize, bytes: &[u8]) {
        let lines = self.plan.layout().lines();
        let (block, line) = self.chunk_place(chunk);
        self.storage.claim(block);
        let shared: SharedBlocks<'_> = self.storage.share();
        #[allow(unsafe_code)]
        // SAFETY: nobody else has a part: the cache is borrowed.
        let target = unsafe { shared.part(block, line, lines) };
        view_mut::<u8>(target).copy_from_slice(bytes);
    }
}

/// How a call is cut: by key/value head, by query heads of it, by tokens. The cut changes speed only.
struct Tasks {
    tokens: usize,
    kv_heads: usize,
    group: usize,
    tokens_each: usize,
    heads_each: usize,
}

impl Tasks {
    fn new(tokens: usize, kv_heads: usize, group: usize, threads: usize) -> Self {
        // Two tasks a thread even out what causality and the system make uneven.
        let wanted = if threads == 1 { 1 } else { (2 * threads).div_ceil(kv_heads) };
        let most = (ATTENTION_ROWS_MAX / group).max(1);
        let parts = tokens.div_ceil(most).max(wanted.min(tokens));
        let tokens_each = tokens.div_ceil(parts.max(1)).max(1);
        // A single token: heads are what is left to share, but each part reads the keys and values anew.
        let head_parts = if tokens == 1 { threads.div_ceil(kv_heads).min(group) } else { 1 };
        let heads_each = group.div_ceil(head_parts.max(1)).min(ATTENTION_ROWS_MAX);
        Self { tokens, kv_heads, group, tokens_each, heads_each }
    }

    /// Task number `index`, the longest first: later tokens see more.
    fn get(&self, index: usize) -> Option<Task> {
        let head_parts = self.group.div_ceil(self.heads_each);
        let per_part = self.kv_heads * head_parts;
        let parts = self.tokens.div_ceil(self.tokens_each);
        let part = parts.checked_sub(index / per_part + 1)?;
        let (kv_head, head_part) = (index % per_part / head_parts, index % head_parts);
        let first = kv_head * self.group;
        let heads =
            first + head_part * self.heads_each..first + ((head_part + 1) * self.heads_each).min(self.group);
        let tokens = part * self.tokens_each..((part + 1) * self.tokens_each).min(self.tokens);
        Some(Task { kv_head, heads, tokens })
    }
}
