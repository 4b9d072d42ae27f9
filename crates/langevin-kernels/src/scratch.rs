//! Working memory that a thread keeps between calls.

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

/// A buffer on a cache line's boundary with arbitrary values, given back to the thread that drops it.
pub(crate) struct Scratch(Vec<Line>);

impl Scratch {
    /// At least `len` values.
    pub(crate) fn new(len: usize) -> Self {
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
        Self(buffer)
    }

    /// `len` zeros at the start.
    pub(crate) fn zeros(len: usize) -> Self {
        let mut scratch = Self::new(len);
        scratch.values_mut()[..len].fill(0.0);
        scratch
    }

    /// The values.
    pub(crate) fn values(&self) -> &[f32] {
        // SAFETY: a `Line` is sixteen `f32` without padding.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), self.0.len() * 16) }
    }

    /// The values, to be written.
    pub(crate) fn values_mut(&mut self) -> &mut [f32] {
        // SAFETY: a `Line` is sixteen `f32` without padding.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), self.0.len() * 16) }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.0);
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
