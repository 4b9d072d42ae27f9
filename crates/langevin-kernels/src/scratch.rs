//! Working memory for the length of a call: a little is kept by the thread, much is of the pool that results are cut out of, so that
//! what a kernel works in serves as activations when it is done.

use crate::buffer::Buffer;
use std::cell::RefCell;

/// A cache line, so that buffers are aligned to one: vectors that cross lines load at half the speed.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line(#[expect(dead_code, reason = "read through a pointer to its values")] [f32; 16]);

/// Buffers kept by a thread, the largest of all that it had: a layer's seven are then not made anew for the next layer.
const KEPT: usize = 8;

thread_local! {
    static BUFFERS: RefCell<Vec<Vec<Line>>> = const { RefCell::new(Vec::new()) };
}

/// Values from which on memory is of the pool: 256 KiB, beside whose use the pool's lock is nothing.
const POOLED_FROM: usize = 1 << 16;

/// A buffer on a cache line's boundary with arbitrary values.
pub(crate) struct Scratch(Memory);

enum Memory {
    /// Given back to the thread that drops it.
    Kept(Vec<Line>),
    Pooled(Buffer),
}

impl Scratch {
    /// At least `len` values.
    pub(crate) fn new(len: usize) -> Self {
        if len >= POOLED_FROM {
            return Self(Memory::Pooled(Buffer::new(len.next_multiple_of(16))));
        }
        let lines = len.div_ceil(16);
        let kept = BUFFERS.with_borrow_mut(|buffers| {
            // The smallest that is large enough, or else the largest.
            let best = (0..buffers.len())
                .min_by_key(|&i| (buffers[i].len() < lines, buffers[i].len().abs_diff(lines)));
            best.map(|i| buffers.swap_remove(i))
        });
        let mut buffer = kept.unwrap_or_default();
        if buffer.len() < lines {
            // Not `resize`, which would copy what nobody wants.
            buffer = Vec::new();
            buffer.resize(lines, Line([0.0; 16]));
        }
        Self(Memory::Kept(buffer))
    }

    /// `len` zeros at the start.
    pub(crate) fn zeros(len: usize) -> Self {
        let mut scratch = Self::new(len);
        scratch.values_mut()[..len].fill(0.0);
        scratch
    }

    /// The values.
    pub(crate) fn values(&self) -> &[f32] {
        match &self.0 {
            // SAFETY: a `Line` is sixteen `f32` without padding.
            Memory::Kept(lines) => unsafe {
                std::slice::from_raw_parts(lines.as_ptr().cast(), lines.len() * 16)
            },
            Memory::Pooled(buffer) => buffer,
        }
    }

    /// The values, to be written.
    pub(crate) fn values_mut(&mut self) -> &mut [f32] {
        match &mut self.0 {
            // SAFETY: a `Line` is sixteen `f32` without padding.
            Memory::Kept(lines) => unsafe {
                std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), lines.len() * 16)
            },
            Memory::Pooled(buffer) => buffer,
        }
    }

    /// At least `len` values of 16 bits.
    pub(crate) fn halves_of(len: usize) -> Self {
        Self::new(len.div_ceil(2))
    }

    /// The same memory as values of 16 bits.
    pub(crate) fn halves(&self) -> &[u16] {
        let values = self.values();
        // SAFETY: each value is two of 16 bits, and any bits are a value.
        unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), 2 * values.len()) }
    }

    /// The same memory as values of 16 bits, to be written.
    pub(crate) fn halves_mut(&mut self) -> &mut [u16] {
        let values = self.values_mut();
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), 2 * values.len()) }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let Memory::Kept(buffer) = &mut self.0 else {
            return;
        };
        let buffer = std::mem::take(buffer);
        // A thread that is ending has no place for it any more; then it is freed.
        let _ = BUFFERS.try_with(|buffers| {
            let Ok(mut buffers) = buffers.try_borrow_mut() else {
                return;
            };
            buffers.push(buffer);
            if buffers.len() > KEPT
                && let Some(smallest) = (0..buffers.len()).min_by_key(|&i| buffers[i].len())
            {
                buffers.swap_remove(smallest);
            }
        });
    }
}
