//! Memory for results: on a cache line's boundary, reused, and not zeroed in between.
//!
//! A training step makes and drops the same few hundred activations again and again. From the system's allocator each large one
//! would be fresh memory, whose pages are faulted in and zeroed by the kernel, only to be overwritten. Here a dropped
//! buffer waits for the next request of about its size. What waits is never more than what was in use at once.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::{Mutex, PoisonError};

/// A cache line, in bytes.
const LINE: usize = 64;

/// Values of a cache line.
const LINE_VALUES: usize = LINE / size_of::<f32>();

/// Values of arbitrary content; their memory waits for the next buffer when they are dropped.
#[derive(Debug)]
pub struct Buffer {
    /// There until it is dropped.
    block: Option<Block>,
    len: usize,
}

/// Owned memory of `lines` cache lines, all of it initialised; at least one.
#[derive(Debug)]
struct Block {
    start: NonNull<f32>,
    lines: usize,
}

// SAFETY: a block owns its memory.
unsafe impl Send for Block {}
// SAFETY: shared, it is only read.
unsafe impl Sync for Block {}

/// Blocks that wait, by size.
struct Pool {
    waiting: BTreeMap<usize, Vec<Block>>,
    waiting_lines: usize,
    used_lines: usize,
    most_used_lines: usize,
}

static POOL: Mutex<Pool> = Mutex::new(Pool {
    waiting: BTreeMap::new(),
    waiting_lines: 0,
    used_lines: 0,
    most_used_lines: 0,
});

impl Pool {
    /// The smallest waiting block of at least `lines` that wastes at most an eighth.
    fn take(&mut self, lines: usize) -> Option<Block> {
        let (&size, blocks) = self.waiting.range_mut(lines..=lines + lines / 8).next()?;
        let block = blocks.pop();
        if blocks.is_empty() {
            self.waiting.remove(&size);
        }
        self.waiting_lines -= size;
        block
    }

    fn count_used(&mut self, lines: usize) {
        self.used_lines += lines;
        self.most_used_lines = self.most_used_lines.max(self.used_lines);
    }
}

fn with_pool<R>(f: impl FnOnce(&mut Pool) -> R) -> R {
    // A panic cannot leave it half changed in a way that matters: at worst a block is not counted.
    f(&mut POOL.lock().unwrap_or_else(PoisonError::into_inner))
}

impl Block {
    fn layout(lines: usize) -> Layout {
        Layout::from_size_align(lines * LINE, LINE).expect("a buffer smaller than the address space")
    }

    fn new(lines: usize) -> Self {
        let layout = Self::layout(lines);
        // SAFETY: there is at least one line.
        let start = unsafe { alloc_zeroed(layout) };
        match NonNull::new(start.cast()) {
            Some(start) => Self { start, lines },
            None => handle_alloc_error(layout),
        }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: it was allocated with this layout, and nobody holds it any more.
        unsafe { dealloc(self.start.as_ptr().cast(), Self::layout(self.lines)) }
    }
}

impl Buffer {
    /// `len` values, arbitrary ones: whoever takes it writes all of them.
    pub fn new(len: usize) -> Self {
        let lines = len.div_ceil(LINE_VALUES).max(1);
        let waiting = with_pool(|pool| {
            let block = pool.take(lines);
            pool.count_used(block.as_ref().map_or(lines, |block| block.lines));
            block
        });
        Self {
            block: Some(waiting.unwrap_or_else(|| Block::new(lines))),
            len,
        }
    }

    /// `len` values of 16 bits, arbitrary ones, in half the memory.
    pub fn halves(len: usize) -> Self {
        Self::new(len.div_ceil(2))
    }

    /// The memory as values of 16 bits, twice as many.
    pub fn as_halves_mut(&mut self) -> &mut [u16] {
        let values: &mut [f32] = self;
        let len = 2 * values.len();
        // SAFETY: the same memory; every pattern of bits is a value of both types, and the alignment is less.
        unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), len) }
    }

    fn start(&self) -> NonNull<f32> {
        self.block
            .as_ref()
            .map_or(NonNull::dangling(), |block| block.start)
    }
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: the block has at least `len` initialised values and is borrowed.
        unsafe { std::slice::from_raw_parts(self.start().as_ptr(), self.len) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above, borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.start().as_ptr(), self.len) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let Some(block) = self.block.take() else { return };
        // What is not kept is freed after the lock is.
        let _freed = with_pool(|pool| {
            pool.used_lines -= block.lines;
            if pool.waiting_lines + block.lines > pool.most_used_lines {
                return Some(block);
            }
            pool.waiting_lines += block.lines;
            pool.waiting.entry(block.lines).or_default().push(block);
            None
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_buffer_serves_again() {
        // A size that no other test asks for.
        let mut first = Buffer::new(7_654_321);
        assert_eq!((first.len(), first.as_ptr().align_offset(LINE)), (7_654_321, 0));
        first.fill(1.0);
        let place = first.as_ptr();
        drop(first);
        let second = Buffer::new(7_654_000);
        assert_eq!((second.as_ptr(), second.len()), (place, 7_654_000));
        assert!(Buffer::new(0).is_empty());
    }
}
