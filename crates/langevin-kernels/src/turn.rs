//! Turning weights on their way from a file: a layer's outputs come first there and last here.
//!
//! What is written is a model's gigabytes, each line of them once, and read much later. Stores that go past the caches leave out that
//! each line is read before it is written, and what the caches hold stays: with large pages (see [`crate::buffer`]) turning took 0.7 s of processor
//! time for 3.2 GB where plain stores took 2.6 (Sapphire Rapids).

/// Rows that are turned together, at most.
pub const ROWS: usize = 64;

/// Columns that are turned at once: a cache line of a row of float32.
const COLUMNS: usize = 16;

/// A weight's type: float32, or the bits of one of 16.
pub trait Turned: Copy + Default + sealed::Bits {}

impl Turned for f32 {}
impl Turned for u16 {}

mod sealed {
    /// Any bits are a value, and there is no padding.
    pub trait Bits {}
    impl Bits for f32 {}
    impl Bits for u16 {}
}

#[repr(align(64))]
struct Lines<T>([[T; ROWS]; COLUMNS]);

/// Writes some rows of `[outputs, inputs, taps]`, of which `first` is the first one, to where they are in `[taps, inputs, outputs]`.
///
/// # Panics
/// If there are more than [`ROWS`] rows, or lengths do not match.
pub fn turn<T: Turned>(rows: &[T], first: usize, [outputs, inputs, taps]: [usize; 3], to: &mut [T]) {
    let columns = inputs * taps;
    if columns == 0 {
        return;
    }
    let height = rows.len() / columns;
    assert!(
        rows.len() == height * columns && height <= ROWS && first + height <= outputs,
        "some whole rows"
    );
    assert_eq!(to.len(), outputs * columns, "room for all rows");
    let mut lines = Lines([[T::default(); ROWS]; COLUMNS]);
    for column in (0..columns).step_by(COLUMNS) {
        let width = COLUMNS.min(columns - column);
        for (i, row) in rows.chunks_exact(columns).enumerate() {
            for (line, value) in lines.0.iter_mut().zip(&row[column..][..width]) {
                line[i] = *value;
            }
        }
        for (place, line) in (column..column + width).zip(&lines.0) {
            let (input, tap) = (place / taps, place % taps);
            let start = (tap * inputs + input) * outputs + first;
            store(&line[..height], &mut to[start..][..height]);
        }
    }
    finish();
}

/// Copies values past the caches, where they are whole vectors.
#[cfg(all(target_arch = "x86_64", not(miri)))]
fn store<T: Turned>(from: &[T], to: &mut [T]) {
    use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_stream_si128};
    const VECTOR: usize = size_of::<__m128i>();
    let bytes = size_of_val(from);
    let destination: *mut __m128i = to.as_mut_ptr().cast();
    if bytes != size_of_val(to) || !bytes.is_multiple_of(VECTOR) || destination.align_offset(VECTOR) != 0 {
        return to.copy_from_slice(from);
    }
    let source: *const __m128i = from.as_ptr().cast();
    for i in 0..bytes / VECTOR {
        // SAFETY: both have so many whole vectors, of which the destination's are on a vector's boundary; SSE2 is part of every such processor.
        unsafe { _mm_stream_si128(destination.add(i), _mm_loadu_si128(source.add(i))) };
    }
}

#[cfg(not(all(target_arch = "x86_64", not(miri))))]
fn store<T: Turned>(from: &[T], to: &mut [T]) {
    to.copy_from_slice(from);
}

/// Lets other threads see what went past the caches before whatever this one does next.
fn finish() {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: SSE is part of every such processor.
    unsafe {
        std::arch::x86_64::_mm_sfence();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T: Turned + PartialEq + std::fmt::Debug>(
        shape: [usize; 3],
        at_once: usize,
        number: impl Fn(usize) -> T,
    ) {
        let [outputs, inputs, taps] = shape;
        let columns = inputs * taps;
        let from: Vec<T> = (0..outputs * columns).map(number).collect();
        // From a boundary and beside one.
        for offset in [0, 1] {
            let mut room = vec![T::default(); from.len() + offset];
            let to = &mut room[offset..];
            for first in (0..outputs).step_by(at_once) {
                let rows = &from[first * columns..outputs.min(first + at_once) * columns];
                turn(rows, first, shape, to);
            }
            for (i, value) in to.iter().enumerate() {
                let (output, input, tap) = (i % outputs, i / outputs % inputs, i / outputs / inputs);
                assert_eq!(
                    *value,
                    from[(output * inputs + input) * taps + tap],
                    "{shape:?}: {i}"
                );
            }
        }
    }

    #[test]
    fn every_value_goes_where_outputs_come_last() {
        for shape in [
            [64, 5, 9],
            [70, 3, 1],
            [1, 40, 4],
            [130, 17, 1],
            [33, 1, 9],
            [2, 0, 9],
        ] {
            for at_once in [64, 32, 7] {
                check(shape, at_once, |i| i as f32);
                check(shape, at_once, |i| i as u16);
            }
        }
    }
}
