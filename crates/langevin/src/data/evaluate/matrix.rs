//! Symmetric matrices of float64, row by row, and their eigenvectors.

/// Rounds over all pairs until nothing is left beside the diagonal; six or so are usual.
const MOST_SWEEPS: usize = 60;

/// The eigenvalues of a symmetric matrix of `n` x `n`, and its eigenvectors as the rows of a second one: Jacobi's method, which is
/// slow for large matrices and exact for small eigenvalues.
pub(super) fn eigen(matrix: &[f64], n: usize) -> (Vec<f64>, Vec<f64>) {
    let mut a = matrix.to_vec();
    let mut vectors = identity(n);
    let scale: f64 = a.iter().map(|v| v * v).sum();
    for _ in 0..MOST_SWEEPS {
        let beside: f64 = (0..n)
            .flat_map(|i| (0..i).map(move |j| (i, j)))
            .map(|(i, j)| a[i * n + j].powi(2))
            .sum();
        if beside <= 1e-30 * scale {
            break;
        }
        for p in 0..n {
            for q in p + 1..n {
                rotate(&mut a, &mut vectors, n, p, q);
            }
        }
    }
    ((0..n).map(|i| a[i * n + i]).collect(), vectors)
}

/// Turns the plane of `p` and `q` so that their entry becomes zero.
fn rotate(a: &mut [f64], vectors: &mut [f64], n: usize, p: usize, q: usize) {
    let entry = a[p * n + q];
    if entry == 0.0 {
        return;
    }
    let theta = (a[q * n + q] - a[p * n + p]) / (2.0 * entry);
    let t = theta.signum() / (theta.abs() + theta.hypot(1.0));
    let (c, s) = (1.0 / t.hypot(1.0), t / t.hypot(1.0));
    // Rows, then columns: a symmetric matrix's turned columns are its turned rows, but for the four entries of the plane.
    turn_rows(a, n, p, q, c, s);
    for k in 0..n {
        let (x, y) = (a[k * n + p], a[k * n + q]);
        a[k * n + p] = c * x - s * y;
        a[k * n + q] = s * x + c * y;
    }
    turn_rows(vectors, n, p, q, c, s);
}

fn turn_rows(a: &mut [f64], n: usize, p: usize, q: usize, c: f64, s: f64) {
    let (upper, lower) = a.split_at_mut(q * n);
    for (x, y) in upper[p * n..(p + 1) * n].iter_mut().zip(&mut lower[..n]) {
        (*x, *y) = (c * *x - s * *y, s * *x + c * *y);
    }
}

fn identity(n: usize) -> Vec<f64> {
    let mut matrix = vec![0.0; n * n];
    (0..n).for_each(|i| matrix[i * n + i] = 1.0);
    matrix
}

/// The symmetric square root of a covariance: what rounding made of its zero eigenvalues is taken for zero.
pub(super) fn square_root(matrix: &[f64], n: usize) -> Vec<f64> {
    let (values, vectors) = eigen(matrix, n);
    let mut root = vec![0.0; n * n];
    for (value, vector) in values.iter().zip(vectors.chunks_exact(n)) {
        let value = value.max(0.0).sqrt();
        for (row, left) in root.chunks_exact_mut(n).zip(vector) {
            let weight = value * left;
            row.iter_mut()
                .zip(vector)
                .for_each(|(entry, right)| *entry += weight * right);
        }
    }
    root
}

/// The product of two matrices of `n` x `n`.
pub(super) fn product(a: &[f64], b: &[f64], n: usize) -> Vec<f64> {
    let mut product = vec![0.0; n * n];
    for (row, out) in a.chunks_exact(n).zip(product.chunks_exact_mut(n)) {
        for (value, other) in row.iter().zip(b.chunks_exact(n)) {
            out.iter_mut()
                .zip(other)
                .for_each(|(entry, right)| *entry += value * right);
        }
    }
    product
}

/// The sum of the diagonal.
pub(super) fn trace(matrix: &[f64], n: usize) -> f64 {
    (0..n).map(|i| matrix[i * n + i]).sum()
}
