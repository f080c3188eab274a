//! The fast check allocates nothing: a counting allocator watches.
#![allow(unsafe_code, reason = "a global allocator cannot be written without")]

mod common;
#[path = "common/random.rs"]
mod random;
use ganglion_plan::Checker;
use random::Random;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system allocator unchanged; counting touches only a thread-local cell.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|c| c.set(c.get() + 1));
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        COUNT.with(|c| c.set(c.get() + 1));
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_check_touches_no_heap() {
    let (mut safe, mut refused) = (0, 0);
    for seed in 0..200 {
        let site = random::site(seed);
        let mut checker = Checker::new(&site).unwrap();
        for round in 0..10 {
            let mut random = Random(seed * 10 + round);
            let start = random::start(&mut random, &site);
            let count = 1 + random.below(50);
            let steps = random::plan(&mut random, &site, &start, count);
            let before = COUNT.with(Cell::get);
            let result = checker.check(&start, &steps);
            assert_eq!(COUNT.with(Cell::get), before, "seed {seed}");
            *if result.is_ok() { &mut safe } else { &mut refused } += 1;
        }
    }
    assert!(safe > 50 && refused > 500, "{safe} {refused}");
}
