//! Every bound of this crate.

/// Values in one quantised block (Q8_0, Q4_0 and the int8 activations).
pub const BLOCK: usize = 32;
/// Blocks of one super-block of the k-quants.
pub const SUPER_BLOCKS: usize = 8;
/// Output rows in one tile, and virtual lanes of every float reduction.
pub const LANES: usize = 16;
/// Most worker threads of a [`crate::Pool`].
pub const THREADS_MAX: usize = 256;
/// Most values along one side of a matrix: keeps every index product inside `usize` and block sums inside `i32`.
pub const MATRIX_SIDE_MAX: usize = 1 << 24;
/// Turns a worker spins before it sleeps: longer than the gap between two layers, shorter than one between two requests.
pub const SPINS_BEFORE_SLEEP: u32 = 4_000;
/// Turns the caller spins for its workers before it yields the core they may be waiting for.
pub const SPINS_BEFORE_YIELD: u32 = 2_000;
/// Multiply-adds below which an operation stays on the calling thread: about what one core does while a fork and a join
/// pass.
pub const PARALLEL_WORK_MIN: usize = 1 << 17;
/// Most shares of one job.
pub const SHARES_MAX: usize = 1 << 16;
/// Shares of a large product for each thread: a thread that is held up leaves the rest of its part to the others.
pub const SHARES_PER_THREAD: usize = 8;
/// Multiply-adds of a share that are worth taking it apart from the next one.
pub const SHARE_WORK_MIN: usize = 1 << 18;
/// Blocks of a tile that are expanded for many tokens at a time: 32 KiB on the stack, about a nearest cache.
pub const EXPANDED_BLOCKS: usize = 64;
/// Blocks of a row with one scale that one integer sum covers.
pub const WHOLE_SUM_BLOCKS: usize = 1 << 12;
/// Blocks of a sparse stream that are asked for ahead of the one at hand: two or three KiB.
pub const PREFETCH_BLOCKS: usize = 8;
/// Most values that are rotated together: what a Hadamard matrix of a trellis format mixes.
pub const ROTATION_MAX: usize = 128;
/// Most matrices in one fork: Q, K, V and one to spare.
pub const PRODUCTS_MAX: usize = 4;
/// Positions in one block of a KV cache: what attention joins at a time, and what moves to the spill at a time.
pub const KV_BLOCK: usize = 64;
/// Most (token, query head) rows that attention takes through one head's keys and values together.
pub const ATTENTION_ROWS_MAX: usize = 48;
/// Values written by [`crate::KvCache::write`] below which it stays on the calling thread.
pub const PARALLEL_WRITE_MIN: usize = 1 << 13;
/// Most positions of a rotary table and of a KV cache.
pub const POSITIONS_MAX: usize = 1 << 20;
/// Rounds of the dot product probe in one pass: some milliseconds, so that the fork and the join are lost in it.
pub const PROBE_DOT_ROUNDS: u64 = 1 << 18;
/// Most passes that one probe times.
pub const PROBE_PASSES_MAX: usize = 10_000;

const _: () = assert!(BLOCK == 2 * LANES, "a block is two lane groups");
const _: () = assert!(KV_BLOCK.is_multiple_of(LANES), "a KV block is whole lane groups");
const _: () =
    assert!(128 * 127 * BLOCK * WHOLE_SUM_BLOCKS < i32::MAX as usize, "a row's sum is exact in i32");
const _: () = assert!(255 * 128 * BLOCK < i32::MAX as usize, "a block dot is exact in i32");
