//! Where blocks of positions live: on the heap, or beyond a budget in memory that the caller maps from a file.
//!
//! A block holds [`KV_BLOCK`] positions of all layers and heads. Blocks are numbered by absolute position; a slot is the
//! room for one. Without a ring, block b has slot b. With one, the first `fixed` blocks keep their slots and the
//! others take turns in the rest. A place is a piece of memory; slots and places are a permutation that changes when an
//! old block makes room on the heap for a new one.
#![allow(unsafe_code)]

use crate::limits::{KV_BLOCK, LANES};
use crate::shared::SharedSlice;

/// One cache line, the unit that blocks consist of.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Line([u8; 64]);

/// 16 floats that fill one cache line.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Lanes(pub(super) [f32; LANES]);

impl Lanes {
    pub(super) const ZERO: Self = Self([0.0; LANES]);
}

/// Types that any bytes are a value of, and that whole lines divide into.
///
/// # Safety
/// No padding, no invalid bit pattern, alignment at most that of a line, and a size that divides a line.
pub(super) unsafe trait Plain: Copy {}
// SAFETY: floats and integers have no invalid bit pattern; sizes 64, 32, 16 and 4 divide 64.
unsafe impl Plain for Lanes {}
// SAFETY: as above.
unsafe impl Plain for [u16; LANES] {}
// SAFETY: as above.
unsafe impl Plain for [i8; LANES] {}
// SAFETY: as above.
unsafe impl Plain for f32 {}
// SAFETY: as above.
unsafe impl Plain for u8 {}

/// Lines read as another type.
pub(super) fn view<T: Plain>(lines: &[Line]) -> &[T] {
    let count = size_of_val(lines) / size_of::<T>();
    // SAFETY: `Plain` types divide lines, are aligned wherever a line is, and take any bytes.
    unsafe { std::slice::from_raw_parts(lines.as_ptr().cast(), count) }
}

/// Lines written as another type.
pub(super) fn view_mut<T: Plain>(lines: &mut [Line]) -> &mut [T] {
    let count = size_of_val(lines) / size_of::<T>();
    // SAFETY: as in `view`; and lines take any bytes back.
    unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), count) }
}

/// Lanes as the floats they are.
pub(super) fn floats(lanes: &[Lanes]) -> &[f32] {
    // SAFETY: `Lanes` is 16 floats and nothing else.
    unsafe { std::slice::from_raw_parts(lanes.as_ptr().cast(), lanes.len() * LANES) }
}

/// Memory for the blocks that the heap has no room for, usually a mapped temporary file. Starts with zeros, aligned to 64
/// bytes, of the length that [`super::KvPlan::spill_bytes`] gives.
pub trait KvSpill: std::fmt::Debug + Send + Sync {
    /// All of it.
    fn bytes(&self) -> &[u8];
    /// All of it, to be written.
    fn bytes_mut(&mut self) -> &mut [u8];
}

fn spill_lines(bytes: &[u8]) -> &[Line] {
    // SAFETY: a line takes any bytes.
    let (before, lines, after) = unsafe { bytes.align_to::<Line>() };
    assert!(before.is_empty() && after.is_empty(), "spill memory is not whole lines");
    lines
}

fn spill_lines_mut(bytes: &mut [u8]) -> &mut [Line] {
    // SAFETY: a line takes any bytes.
    let (before, lines, after) = unsafe { bytes.align_to_mut::<Line>() };
    assert!(before.is_empty() && after.is_empty(), "spill memory is not whole lines");
    lines
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    /// The block it holds.
    block: Option<usize>,
    /// Below `heap_blocks` on the heap, else in the spill.
    place: usize,
}

/// Which slot a block has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rotation {
    /// Blocks that keep their slots.
    pub(super) fixed: usize,
    /// Slots that the others take turns in; 0: there are no others.
    pub(super) ring: usize,
}

impl Rotation {
    pub(super) fn slots(self) -> usize {
        self.fixed + self.ring
    }

    fn slot(self, block: usize) -> usize {
        if block < self.fixed {
            return block;
        }
        assert!(self.ring > 0, "outside the cache");
        self.fixed + (block - self.fixed) % self.ring
    }
}

#[derive(Debug)]
pub(super) struct Storage {
    block_lines: usize,
    rotation: Rotation,
    heap: Vec<Line>,
    heap_blocks: usize,
    spill: Option<Box<dyn KvSpill>>,
    slots: Vec<Slot>,
}

impl Storage {
    /// # Panics
    /// If the spill is not as large as the slots beyond `heap_blocks` need.
    pub(super) fn new(
        block_bytes: usize,
        rotation: Rotation,
        heap_blocks: usize,
        spill: Option<Box<dyn KvSpill>>,
    ) -> Self {
        let block_lines = block_bytes / size_of::<Line>();
        let spilled = spill.as_ref().map_or(0, |spill| spill_lines(spill.bytes()).len());
        assert!(
            block_bytes.is_multiple_of(size_of::<Line>())
                && spilled == (rotation.slots() - heap_blocks) * block_lines,
            "spill memory of another size"
        );
        Self {
            block_lines,
            rotation,
            heap: vec![Line([0; 64]); heap_blocks * block_lines],
            heap_blocks,
            spill,
            slots: (0..rotation.slots()).map(|place| Slot { block: None, place }).collect(),
        }
    }

    /// Blocks that lie in the spill.
    pub(super) fn spilled(&self) -> usize {
        self.slots.iter().filter(|slot| slot.block.is_some() && slot.place >= self.heap_blocks).count()
    }

    /// Whether the block is here.
    pub(super) fn holds(&self, block: usize) -> bool {
        self.slots.get(self.rotation.slot(block)).is_some_and(|slot| slot.block == Some(block))
    }

    /// Makes room for a block that is about to be written; what its slot held is lost. On the heap, if that takes no
    /// more than moving an older block to the spill.
    pub(super) fn claim(&mut self, block: usize) {
        let slot = self.rotation.slot(block);
        if self.slots[slot].block == Some(block) {
            return;
        }
        self.slots[slot].block = Some(block);
        if self.slots[slot].place < self.heap_blocks {
            return;
        }
        // An unused slot first (`None` is the least), then the oldest block.
        let on_heap = (0..self.slots.len()).filter(|other| self.slots[*other].place < self.heap_blocks);
        let Some(oldest) = on_heap.min_by_key(|other| self.slots[*other].block) else { return };
        let Slot { block: moved, place: from } = self.slots[oldest];
        if moved.is_some_and(|moved| moved > block) {
            return;
        }
        let to = self.slots[slot].place;
        if moved.is_some()
            && let Some(spill) = self.spill.as_mut()
        {
            let lines = self.block_lines;
            let target = &mut spill_lines_mut(spill.bytes_mut())[(to - self.heap_blocks) * lines..][..lines];
            target.copy_from_slice(&self.heap[from * lines..][..lines]);
        }
        self.slots[oldest].place = to;
        self.slots[slot].place = from;
    }

    /// Forgets the blocks behind the one that holds position `length - 1`.
    pub(super) fn truncate(&mut self, length: usize) {
        let kept = length.div_ceil(KV_BLOCK);
        for slot in &mut self.slots {
            slot.block = slot.block.filter(|block| *block < kept);
        }
    }

    /// All lines of a block.
    ///
    /// # Panics
    /// If the block is not here.
    pub(super) fn block(&self, block: usize) -> &[Line] {
        let slot = self.slots[self.rotation.slot(block)];
        assert!(slot.block == Some(block), "block {block} is not in the cache");
        let lines = self.block_lines;
        match (slot.place.checked_sub(self.heap_blocks), &self.spill) {
            (Some(place), Some(spill)) => &spill_lines(spill.bytes())[place * lines..][..lines],
            _ => &self.heap[slot.place * lines..][..lines],
        }
    }

    /// For several threads that write different parts of blocks which are here.
    pub(super) fn share(&mut self) -> SharedBlocks<'_> {
        SharedBlocks {
            block_lines: self.block_lines,
            rotation: self.rotation,
            heap_blocks: self.heap_blocks,
            slots: &self.slots,
            heap: SharedSlice::new(&mut self.heap),
            spill: self.spill.as_mut().map(|spill| SharedSlice::new(spill_lines_mut(spill.bytes_mut()))),
        }
    }
}

pub(super) struct SharedBlocks<'a> {
    block_lines: usize,
    rotation: Rotation,
    heap_blocks: usize,
    slots: &'a [Slot],
    heap: SharedSlice<'a, Line>,
    spill: Option<SharedSlice<'a, Line>>,
}

impl<'a> SharedBlocks<'a> {
    /// Lines `first..first + count` of a block.
    ///
    /// # Safety
    /// While the returned slice lives, nobody else may hold lines of this block that overlap it.
    ///
    /// # Panics
    /// If the block is not here or the range leaves it.
    #[allow(clippy::mut_from_ref)]
    pub(super) unsafe fn part(&self, block: usize, first: usize, count: usize) -> &'a mut [Line] {
        let slot = self.slots[self.rotation.slot(block)];
        assert!(slot.block == Some(block) && first + count <= self.block_lines, "outside the block");
        // SAFETY: places are a permutation, so different blocks do not overlap; inside one, the caller keeps them apart.
        unsafe {
            match (slot.place.checked_sub(self.heap_blocks), &self.spill) {
                (Some(place), Some(spill)) => spill.part(place * self.block_lines + first, count),
                _ => self.heap.part(slot.place * self.block_lines + first, count),
            }
        }
    }
}
