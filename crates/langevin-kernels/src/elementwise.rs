//! Passes over slices: SiLU, addition, scaling, joining channels, and the sum of squares.

/// `y = x · sigmoid(x)`.
///
/// # Panics
/// If the lengths differ.
pub fn silu_forward(x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), y.len(), "x and y must have one length");
    x.iter().zip(y).for_each(|(x, y)| *y = x / (1.0 + (-x).exp()));
}

/// The gradient of [`silu_forward`]: `gx = gy · s · (1 + x · (1 − s))` with `s = sigmoid(x)`.
///
/// # Panics
/// If the lengths differ.
pub fn silu_backward(x: &[f32], gy: &[f32], gx: &mut [f32]) {
    assert!(
        x.len() == gy.len() && x.len() == gx.len(),
        "x, gy and gx must have one length"
    );
    for ((x, gy), gx) in x.iter().zip(gy).zip(gx) {
        let s = 1.0 / (1.0 + (-x).exp());
        *gx = gy * s * (1.0 + x * (1.0 - s));
    }
}

/// `y = a + b`.
///
/// # Panics
/// If the lengths differ.
pub fn add(a: &[f32], b: &[f32], y: &mut [f32]) {
    assert!(
        a.len() == b.len() && a.len() == y.len(),
        "a, b and y must have one length"
    );
    a.iter().zip(b).zip(y).for_each(|((a, b), y)| *y = a + b);
}

/// `x *= factor`.
pub fn scale_in_place(x: &mut [f32], factor: f32) {
    x.iter_mut().for_each(|x| *x *= factor);
}

/// The sum of the squares of `x`, summed in `f64` over short `f32` sums.
pub fn sum_of_squares(x: &[f32]) -> f64 {
    x.iter().map(|&x| f64::from(x) * f64::from(x)).sum()
}

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
    for (r, y) in y.chunks_exact_mut((ca + cb).max(1)).enumerate() {
        y[..ca].copy_from_slice(&a[r * ca..][..ca]);
        y[ca..].copy_from_slice(&b[r * cb..][..cb]);
    }
}

/// The opposite of [`concat_channels`], which is its gradient: `[a[r], b[r]] = y[r]`.
///
/// # Panics
/// If the lengths do not fit.
pub fn split_channels(rows: usize, y: &[f32], a: &mut [f32], b: &mut [f32]) {
    let (ca, cb) = channels(rows, a.len(), b.len(), y.len());
    for (r, y) in y.chunks_exact((ca + cb).max(1)).enumerate() {
        a[r * ca..][..ca].copy_from_slice(&y[..ca]);
        b[r * cb..][..cb].copy_from_slice(&y[ca..]);
    }
}

fn channels(rows: usize, a: usize, b: usize, y: usize) -> (usize, usize) {
    assert_eq!(a + b, y, "the joined slice must be as long as both parts");
    assert!(
        y == 0 || rows > 0 && a.is_multiple_of(rows) && b.is_multiple_of(rows),
        "rows must divide both lengths"
    );
    (a / rows.max(1), b / rows.max(1))
}
