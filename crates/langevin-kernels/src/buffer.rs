//! Memory for results: on a cache line's boundary, reused, and not zeroed in between.
//!
//! A training step makes and drops the same few hundred activations again and again. From the system's allocator each large one
//! would be fresh memory, whose pages are faulted in and zeroed by the kernel, only to be overwritten. Here a dropped
//! buffer's memory waits for the next request, whatever its size: buffers are cut out of slabs, and what is free side by side
//! is one piece again. So the process holds about what is in use at once, and not as much of every size as was ever in use of it.
//! [`trim`] gives slabs back of which nothing is in use.
//!
//! Weights, which stay, have slabs of their own, in the system's large pages where it has some: a model's gigabytes are then a thousand pages to
//! fault in, and not a million. What nothing is left in goes back at once.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::{Mutex, PoisonError};

/// A cache line, in bytes.
const LINE: usize = 64;

/// Values of a cache line.
pub(crate) const LINE_VALUES: usize = LINE / size_of::<f32>();

/// Lines of a slab, unless a buffer needs more: 256 MiB. The system's allocators map that much memory anew, so that pages which nothing was
/// cut out of yet cost nothing.
const SLAB_LINES: usize = (256 << 20) / LINE;

/// The same of what lasts: 64 MiB, so that what a text encoder took goes back although something else begins where it ended.
const LASTING_SLAB_LINES: usize = (64 << 20) / LINE;

/// What pages that are given back begin and end at, which every system's do.
const PAGE_LINES: usize = (64 << 10) / LINE;

/// A large page of the system's.
const LARGE_PAGE: usize = 2 << 20;

/// Values of arbitrary content; their memory waits for other buffers when they are dropped.
#[derive(Debug)]
pub struct Buffer {
    block: Block,
    len: usize,
}

/// A piece of a slab that nothing else uses, all of it initialised; at least a line.
#[derive(Debug)]
struct Block {
    start: NonNull<f32>,
    lasts: bool,
    slab: usize,
    /// Within the slab, in lines.
    offset: usize,
    lines: usize,
}

// SAFETY: a block's memory is its own.
unsafe impl Send for Block {}
// SAFETY: shared, it is only read.
unsafe impl Sync for Block {}

/// Memory that blocks are cut out of.
struct Slab {
    /// On a line's boundary.
    start: NonNull<f32>,
    lines: usize,
    /// What was allocated, and how.
    allocated: NonNull<u8>,
    layout: Layout,
}

// SAFETY: it is a place; what is there is used by the blocks.
unsafe impl Send for Slab {}

impl Drop for Slab {
    fn drop(&mut self) {
        // SAFETY: it was allocated so; a slab is dropped where all of it is free, so that no block leads to it.
        unsafe { dealloc(self.allocated.as_ptr(), self.layout) }
    }
}

/// All slabs, and what is free of them.
struct Pool {
    /// Whether what is cut out of it lasts.
    lasts: bool,
    /// By their number; `None` where one was given back.
    slabs: Vec<Option<Slab>>,
    /// The lines of each free piece by its slab and offset; no two touch.
    free: BTreeMap<(usize, usize), usize>,
    used_lines: usize,
    most_used_lines: usize,
}

static POOL: Mutex<Pool> = Mutex::new(Pool::new(false));
static LASTING: Mutex<Pool> = Mutex::new(Pool::new(true));

impl Pool {
    const fn new(lasts: bool) -> Self {
        Self {
            lasts,
            slabs: Vec::new(),
            free: BTreeMap::new(),
            used_lines: 0,
            most_used_lines: 0,
        }
    }

    /// Cuts `lines` out of the smallest piece that has them, of several the first: large pieces stay whole for large requests, and what
    /// was never used, which is the largest piece, is touched last.
    fn take(&mut self, lines: usize) -> Block {
        let fitting = self.free.iter().filter(|&(_, &size)| size >= lines);
        let piece = fitting.min_by_key(|&(place, &size)| (size, *place));
        let (slab, offset, size) = match piece {
            Some((&(slab, offset), &size)) => (slab, offset, size),
            None => self.add_slab(lines),
        };
        self.free.remove(&(slab, offset));
        if size > lines {
            self.free.insert((slab, offset + lines), size - lines);
        }
        self.used_lines += lines;
        self.most_used_lines = self.most_used_lines.max(self.used_lines);
        let start = self.slabs[slab]
            .as_ref()
            .expect("a free piece is of a slab that is there")
            .start;
        // SAFETY: the piece is within its slab.
        let start = unsafe { start.add(offset * LINE_VALUES) };
        Block {
            start,
            lasts: self.lasts,
            slab,
            offset,
            lines,
        }
    }

    /// A new slab, as one free piece of at least `lines`.
    fn add_slab(&mut self, lines: usize) -> (usize, usize, usize) {
        let (least, boundary) = match self.lasts {
            false => (SLAB_LINES, LINE),
            true => (LASTING_SLAB_LINES, LARGE_PAGE),
        };
        let lines = lines.max(least);
        // Room to begin on a boundary. A layout of that alignment would be zeroed by writing to it, and take all its pages now.
        let layout = lines
            .checked_add(boundary / LINE)
            .and_then(|lines| Layout::array::<[f32; LINE_VALUES]>(lines).ok())
            .expect("a buffer smaller than the address space");
        // SAFETY: there is at least one line.
        let Some(allocated) = NonNull::new(unsafe { alloc_zeroed(layout) }) else {
            handle_alloc_error(layout)
        };
        let start: NonNull<f32> = allocated.cast();
        // SAFETY: less than the room that is there besides.
        let start = unsafe { start.add(start.align_offset(boundary)) };
        if self.lasts {
            ask_for_large_pages(start, lines);
        }
        let slab = Some(Slab {
            start,
            lines,
            allocated,
            layout,
        });
        let number = match self.slabs.iter().position(Option::is_none) {
            Some(number) => {
                self.slabs[number] = slab;
                number
            }
            None => {
                self.slabs.push(slab);
                self.slabs.len() - 1
            }
        };
        self.free.insert((number, 0), lines);
        (number, 0, lines)
    }

    /// Gives the slabs back that are free as a whole; how many lines they had.
    fn trim(&mut self) -> usize {
        (0..self.slabs.len()).map(|slab| self.trim_slab(slab)).sum()
    }

    /// The same of one slab.
    fn trim_slab(&mut self, number: usize) -> usize {
        let place = &mut self.slabs[number];
        match place {
            Some(slab) if self.free.get(&(number, 0)) == Some(&slab.lines) => {
                let lines = slab.lines;
                self.free.remove(&(number, 0));
                *place = None;
                lines
            }
            _ => 0,
        }
    }

    /// Gives the pages of free pieces back whose slabs stay.
    fn release(&self) {
        for (&(slab, offset), &lines) in &self.free {
            self.release_piece(slab, offset, lines);
        }
    }

    /// The same of one piece.
    fn release_piece(&self, slab: usize, offset: usize, lines: usize) {
        let Some(Some(of)) = self.slabs.get(slab) else {
            return;
        };
        let start = of.start.as_ptr().wrapping_add(offset * LINE_VALUES);
        let before = start.align_offset(PAGE_LINES * LINE) / LINE_VALUES;
        let pages = lines.saturating_sub(before) / PAGE_LINES;
        if pages > 0 {
            give_pages_back(start.wrapping_add(before * LINE_VALUES), pages * PAGE_LINES);
        }
    }

    /// Makes a block's memory free, and one piece with what is free on either side of it.
    fn give_back(&mut self, block: &Block) {
        self.used_lines -= block.lines;
        let (slab, mut offset, mut lines) = (block.slab, block.offset, block.lines);
        if let Some(behind) = self.free.remove(&(slab, offset + lines)) {
            lines += behind;
        }
        let before = self.free.range((slab, 0)..(slab, offset)).next_back();
        if let Some((&(_, start), &before)) = before
            && start + before == offset
        {
            (offset, lines) = (start, lines + before);
        }
        self.free.insert((slab, offset), lines);
        if self.lasts && self.trim_slab(slab) == 0 {
            self.release_piece(slab, offset, lines);
        }
    }
}

fn with_pool<R>(lasting: bool, f: impl FnOnce(&mut Pool) -> R) -> R {
    let pool = if lasting { &LASTING } else { &POOL };
    // A panic cannot leave it half changed in a way that matters: at worst a piece is not used again.
    f(&mut pool.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Tells the system that a slab is used from its start to its end, which is when large pages are worth it.
#[cfg(all(target_os = "linux", not(miri)))]
fn ask_for_large_pages(start: NonNull<f32>, lines: usize) {
    // SAFETY: the slab is whole pages from its start on, but for the last one, and advice changes no value. That there are no large pages is no
    // failure.
    unsafe { libc::madvise(start.as_ptr().cast(), lines * LINE, libc::MADV_HUGEPAGE) };
}

#[cfg(not(all(target_os = "linux", not(miri))))]
fn ask_for_large_pages(_: NonNull<f32>, _: usize) {}

/// Gives whole pages of nobody's back to the system: they are zeros when they are next touched.
#[cfg(all(target_os = "linux", not(miri)))]
fn give_pages_back(start: *mut f32, lines: usize) {
    // SAFETY: they are within a piece that no block has, in memory that is the process's own and no file's.
    unsafe { libc::madvise(start.cast(), lines * LINE, libc::MADV_DONTNEED) };
}

#[cfg(not(all(target_os = "linux", not(miri))))]
fn give_pages_back(_: *mut f32, _: usize) {}

/// How many bytes of buffers were in use at once at most, so far, without those that last.
pub fn most_used() -> usize {
    with_pool(false, |pool| pool.most_used_lines * LINE)
}

/// Gives memory back to the system that no buffer is in, such as what a network took which is not to run again. Returns how many bytes there were in
/// slabs of which nothing is in use; the next buffers may need them anew.
pub fn trim() -> usize {
    with_pool(false, |pool| {
        let given_back = pool.trim() * LINE;
        pool.release();
        given_back
    })
}

impl Buffer {
    /// `len` values, arbitrary ones: whoever takes it writes all of them.
    pub fn new(len: usize) -> Self {
        let lines = len.div_ceil(LINE_VALUES).max(1);
        Self {
            block: with_pool(false, |pool| pool.take(lines)),
            len,
        }
    }

    /// `len` values, arbitrary ones, for what lasts: weights.
    pub fn lasting(len: usize) -> Self {
        let lines = len.div_ceil(LINE_VALUES).max(1);
        Self {
            block: with_pool(true, |pool| pool.take(lines)),
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
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: the block has at least `len` initialised values and is borrowed.
        unsafe { std::slice::from_raw_parts(self.block.start.as_ptr(), self.len) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above, borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.block.start.as_ptr(), self.len) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        with_pool(self.block.lasts, |pool| pool.give_back(&self.block));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pool of its own, so that other tests do not disturb it.
    fn pool() -> Pool {
        Pool::new(false)
    }

    #[test]
    fn what_is_free_side_by_side_is_one_piece() {
        let mut pool = pool();
        let blocks: Vec<Block> = (1..=9).map(|i| pool.take(i * 1000)).collect();
        assert_eq!((pool.slabs.len(), pool.used_lines), (1, 45_000));
        // Nothing overlaps.
        let mut ends = 0;
        for block in &blocks {
            assert_eq!(block.offset, ends);
            ends += block.lines;
        }
        // In any order: first every third, then the rest.
        for first in 0..3 {
            blocks
                .iter()
                .skip(first)
                .step_by(3)
                .for_each(|block| pool.give_back(block));
        }
        assert_eq!(pool.free, BTreeMap::from([((0, 0), SLAB_LINES)]));
        assert_eq!((pool.used_lines, pool.most_used_lines), (0, 45_000));
        // One piece of another size uses the same memory.
        assert_eq!(pool.take(45_000).offset, 0);
    }

    #[test]
    fn a_request_takes_the_smallest_piece_that_fits() {
        let mut pool = pool();
        let [small, _a, large, _b] = [100, 1, 500, 1].map(|lines| pool.take(lines));
        pool.give_back(&large);
        pool.give_back(&small);
        assert_eq!(pool.take(101).offset, large.offset);
        assert_eq!(pool.take(90).offset, small.offset);
        assert_eq!(pool.take(399).offset, large.offset + 101);
        // More than a slab has a slab of its own.
        let huge = pool.take(SLAB_LINES + 1);
        assert_eq!((huge.slab, huge.offset, pool.slabs.len()), (1, 0, 2));
    }

    #[test]
    fn slabs_that_are_free_as_a_whole_are_given_back() {
        let mut pool = pool();
        let [first, second, third] = [10, SLAB_LINES, 20].map(|lines| pool.take(lines));
        assert_eq!([first.slab, second.slab, third.slab], [0, 1, 0]);
        pool.give_back(&second);
        pool.give_back(&first);
        // Of the first slab something is in use.
        assert_eq!(pool.trim(), SLAB_LINES);
        assert_eq!(pool.trim(), 0);
        assert!(pool.slabs[1].is_none() && pool.free.keys().all(|(slab, _)| *slab == 0));
        // Its number is the next one's, and its pieces are found again.
        let another = pool.take(SLAB_LINES + 5);
        assert_eq!((another.slab, another.offset, pool.slabs.len()), (1, 0, 2));
        pool.give_back(&another);
        pool.give_back(&third);
        assert_eq!(pool.trim(), 2 * SLAB_LINES + 5);
        assert!(pool.free.is_empty() && pool.used_lines == 0);
        assert_eq!(pool.take(1).slab, 0);
    }

    #[test]
    fn what_lasts_goes_back_when_it_is_dropped_and_the_rest_stays() {
        let mut pool = Pool::new(true);
        let blocks =
            [3 * PAGE_LINES, 1, LASTING_SLAB_LINES - 3 * PAGE_LINES - 1].map(|lines| pool.take(lines));
        for block in &blocks {
            for line in 0..block.lines {
                // SAFETY: the block's own.
                unsafe { block.start.add(line * LINE_VALUES).write(7.0) };
            }
        }
        pool.give_back(&blocks[0]);
        pool.give_back(&blocks[2]);
        // SAFETY: the block's own.
        assert_eq!(unsafe { blocks[1].start.read() }, 7.0);
        assert!(pool.slabs[0].is_some());
        // It serves again.
        let again = pool.take(3 * PAGE_LINES);
        assert_eq!(again.offset, 0);
        pool.give_back(&again);
        pool.give_back(&blocks[1]);
        assert!(pool.slabs[0].is_none() && pool.free.is_empty());
    }

    #[test]
    fn buffers_are_aligned_and_their_own() {
        let mut buffers: Vec<Buffer> = [0, 1, 15, 16, 17, 1000].map(Buffer::new).into();
        for (i, buffer) in buffers.iter_mut().enumerate() {
            assert_eq!(buffer.as_ptr().align_offset(LINE), 0);
            buffer.fill(i as f32);
        }
        assert!(
            buffers
                .iter()
                .enumerate()
                .all(|(i, buffer)| buffer.iter().all(|&v| v == i as f32))
        );
        assert!(buffers[0].is_empty() && most_used() >= 6 * LINE);
        let mut lasting = Buffer::lasting(5000);
        assert_eq!(lasting.as_ptr().align_offset(LINE), 0);
        lasting.fill(1.0);
        assert_eq!(lasting.iter().sum::<f32>(), 5000.0);
        let mut halves = Buffer::halves(7);
        assert_eq!((halves.len(), halves.as_halves_mut().len()), (4, 8));
    }
}
