//! Splitting work over rayon's threads.

use rayon::prelude::*;
use std::marker::PhantomData;

/// Values that one task should touch at least; below, waking a thread costs more than it saves.
pub(crate) const GRAIN: usize = 16_384;

/// Multiply-adds that one task should do at least: some ten microseconds.
pub(crate) const GRAIN_PRODUCTS: usize = 1 << 19;

/// Calls `f(i)` for each `i < tasks`, on several threads where `worth` says that it pays. Tasks are handed out one
/// by one: they are coarse, and threads of a shared machine do not run equally fast.
pub(crate) fn for_each(tasks: usize, worth: bool, f: impl Fn(usize) + Send + Sync) {
    if tasks < 2 || !worth || rayon::current_num_threads() == 1 {
        (0..tasks).for_each(f);
    } else {
        (0..tasks).into_par_iter().with_max_len(1).for_each(f);
    }
}

/// A slice to which several tasks write, each to elements of its own.
#[derive(Clone, Copy)]
pub(crate) struct Shared<'a, T = f32> {
    start: *mut T,
    len: usize,
    slice: PhantomData<&'a mut [T]>,
}

// SAFETY: it gives out only raw pointers; who dereferences them promises that no other task touches the element.
unsafe impl<T: Send> Send for Shared<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    pub(crate) fn new(slice: &'a mut [T]) -> Self {
        Self {
            start: slice.as_mut_ptr(),
            len: slice.len(),
            slice: PhantomData,
        }
    }

    /// The address of element `i`, which may be the end.
    #[inline(always)]
    pub(crate) fn at(self, i: usize) -> *mut T {
        assert!(i <= self.len, "an index within the slice");
        // SAFETY: just checked.
        unsafe { self.start.add(i) }
    }

    /// The elements from `i` on.
    ///
    /// # Safety
    /// Until the slice is dropped no other task touches these elements.
    #[inline(always)]
    pub(crate) unsafe fn slice(self, i: usize, len: usize) -> &'a mut [T] {
        assert!(i <= self.len && len <= self.len - i, "a range within the slice");
        // SAFETY: just checked, and the caller promises that the range is its own.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(i), len) }
    }
}
