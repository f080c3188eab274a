//! A slice that several workers write at disjoint places.
#![allow(unsafe_code)]

use std::marker::PhantomData;

/// A mutable slice handed to all workers of one [`crate::Pool::run`]; each takes the parts that are its own.
pub(crate) struct SharedSlice<'a, T> {
    start: *mut T,
    length: usize,
    borrow: PhantomData<&'a mut [T]>,
}

impl<T> Clone for SharedSlice<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for SharedSlice<'_, T> {}

// SAFETY: access goes only through `part`, whose contract makes the parts disjoint; T itself may change threads.
unsafe impl<T: Send> Send for SharedSlice<'_, T> {}
// SAFETY: as above: no two threads hold the same element.
unsafe impl<T: Send> Sync for SharedSlice<'_, T> {}

impl<'a, T> SharedSlice<'a, T> {
    pub(crate) fn new(slice: &'a mut [T]) -> Self {
        Self { start: slice.as_mut_ptr(), length: slice.len(), borrow: PhantomData }
    }

    /// The elements `first..first + count`.
    ///
    /// # Safety
    /// While the returned slice lives, nobody else may hold a part that overlaps it.
    ///
    /// # Panics
    /// If the range leaves the slice.
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn part(&self, first: usize, count: usize) -> &'a mut [T] {
        assert!(first <= self.length && count <= self.length - first, "part outside its slice");
        // SAFETY: in bounds by the assertion; unaliased by this function's contract.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(first), count) }
    }
}
