//! Splitting work over rayon's threads, and over a [team](lead) of them.

mod team;

pub use team::lead;

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
    } else if !team::for_each(tasks, &f) {
        (0..tasks).into_par_iter().with_max_len(1).for_each(f);
    }
}

/// Calls `f(i, part)` for the parts of `len` values that `values` falls into, the last of which may be shorter; on several threads
/// where `worth` says that it pays.
pub(crate) fn for_each_part<T: Send>(
    values: &mut [T],
    len: usize,
    worth: bool,
    f: impl Fn(usize, &mut [T]) + Send + Sync,
) {
    let total = values.len();
    let values = Shared::new(values);
    for_each(total.div_ceil(len), worth, |i| {
        let start = i * len;
        // SAFETY: parts do not overlap, and each is given out once.
        f(i, unsafe { values.slice(start, len.min(total - start)) });
    });
}

/// A slice to which several tasks write, each to elements of its own.
pub(crate) struct Shared<'a, T = f32> {
    start: *mut T,
    len: usize,
    slice: PhantomData<&'a mut [T]>,
}

// Not derived, which would ask for a `T` that can be copied.
impl<T> Clone for Shared<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Shared<'_, T> {}

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

    /// The address of element `i`, of which `len` from it on are within the slice.
    #[inline(always)]
    pub(crate) fn part(self, i: usize, len: usize) -> *mut T {
        assert!(i <= self.len && len <= self.len - i, "a range within the slice");
        // SAFETY: just checked.
        unsafe { self.start.add(i) }
    }

    /// The elements from `i` on.
    ///
    /// # Safety
    /// Until the slice is dropped no other task touches these elements.
    #[inline(always)]
    pub(crate) unsafe fn slice(self, i: usize, len: usize) -> &'a mut [T] {
        let start = self.part(i, len);
        // SAFETY: `part` checked it, and the caller promises that the range is its own.
        unsafe { std::slice::from_raw_parts_mut(start, len) }
    }
}
