//! Joining and splitting channels, as skip connections do.

use crate::parallel::{self, GRAIN, Shared};

/// Joins channels: `y[r] = [a[r], b[r]]` for each of `rows` rows (pixels).
///
/// # Shapes
/// - `a`: `[rows, a.len() / rows]`, `b`: `[rows, b.len() / rows]`
/// - `y`: `[rows, (a.len() + b.len()) / rows]`
///
/// # Panics
/// If the lengths do not fit.
pub fn concat_channels(rows: usize, a: &[f32], b: &[f32], y: &mut [f32]) {
    let (ca, cb) = channels(rows, a.len(), b.len(), y.len());
    let y = Shared::new(y);
    for_each_block(rows, ca + cb, |first, count| {
        // SAFETY: each block has rows of its own.
        let y = unsafe { y.slice(first * (ca + cb), count * (ca + cb)) };
        for (r, y) in (first..).zip(y.chunks_exact_mut(ca + cb)) {
            y[..ca].copy_from_slice(&a[r * ca..][..ca]);
            y[ca..].copy_from_slice(&b[r * cb..][..cb]);
        }
    });
}

/// The opposite of [`concat_channels`], which is its gradient: `[a[r], b[r]] = y[r]`.
///
/// # Panics
/// If the lengths do not fit.
pub fn split_channels(rows: usize, y: &[f32], a: &mut [f32], b: &mut [f32]) {
    let (ca, cb) = channels(rows, a.len(), b.len(), y.len());
    let (a, b) = (Shared::new(a), Shared::new(b));
    for_each_block(rows, ca + cb, |first, count| {
        // SAFETY: each block has rows of its own.
        let (a, b) = unsafe { (a.slice(first * ca, count * ca), b.slice(first * cb, count * cb)) };
        for (r, y) in y[first * (ca + cb)..][..count * (ca + cb)]
            .chunks_exact(ca + cb)
            .enumerate()
        {
            a[r * ca..][..ca].copy_from_slice(&y[..ca]);
            b[r * cb..][..cb].copy_from_slice(&y[ca..]);
        }
    });
}

fn channels(rows: usize, a: usize, b: usize, y: usize) -> (usize, usize) {
    assert_eq!(a + b, y, "the joined slice must be as long as both parts");
    assert!(
        y == 0 || rows > 0 && a.is_multiple_of(rows) && b.is_multiple_of(rows),
        "rows must divide both lengths"
    );
    (a / rows.max(1), b / rows.max(1))
}

/// Calls `f(first row, rows)` for blocks of rows.
fn for_each_block(rows: usize, channels: usize, f: impl Fn(usize, usize) + Send + Sync) {
    if channels == 0 {
        return;
    }
    let block = GRAIN.div_ceil(channels);
    parallel::for_each(rows.div_ceil(block), true, |i| {
        f(i * block, block.min(rows - i * block))
    });
}
