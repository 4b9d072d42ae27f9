//! Symmetric matrices of float64, row by row, and their eigenvectors.

use rayon::prelude::*;

/// Rows that one thread works on together, so that what they are combined with is read once for all of them.
const BLOCK: usize = 8;
/// Columns of eigenvectors that one thread turns together: as many as stay in its cache.
const PANEL: usize = 64;
/// Rounds for one eigenvalue; two or so are usual.
const MOST_ROUNDS: usize = 60;

/// The turn of the plane of two neighbours, the first of which is `row`.
#[derive(Clone, Copy)]
struct Turn {
    row: usize,
    cosine: f64,
    sine: f64,
}

/// The eigenvalues of a symmetric matrix of `n` x `n`, in no order, and its eigenvectors as the rows of a second one.
///
/// Householder's reflections make the matrix tridiagonal, and QL steps with implicit shifts diagonal (Golub and Van Loan, Matrix
/// Computations, 8.3).
pub(super) fn eigen(matrix: &[f64], n: usize) -> (Vec<f64>, Vec<f64>) {
    let Tridiagonal {
        mut diagonal,
        mut beside,
        reflections,
    } = Tridiagonal::of(matrix, n);
    let mut turns = Vec::new();
    diagonalise(&mut diagonal, &mut beside, |turn| turns.push(turn));
    let vectors = turned(&transposed(&basis(&reflections, n), n), &turns, n);
    (diagonal, vectors)
}

/// The eigenvalues of a symmetric matrix of `n` x `n`, in no order.
pub(super) fn eigenvalues(matrix: &[f64], n: usize) -> Vec<f64> {
    let Tridiagonal {
        mut diagonal,
        mut beside,
        ..
    } = Tridiagonal::of(matrix, n);
    diagonalise(&mut diagonal, &mut beside, |_| ());
    diagonal
}

/// A symmetric matrix brought to three diagonals, and what brought it there.
struct Tridiagonal {
    diagonal: Vec<f64>,
    /// The entries beside the diagonal; the last is 0, and there is no such entry.
    beside: Vec<f64>,
    /// For each column but the last two, a vector v of all rows below it and the factor β: I - β v vᵀ.
    reflections: Vec<(Vec<f64>, f64)>,
}

impl Tridiagonal {
    fn of(matrix: &[f64], n: usize) -> Self {
        let mut a = matrix.to_vec();
        let (mut beside, mut reflections) = (vec![0.0; n], Vec::new());
        for k in 0..n.saturating_sub(1) {
            let mut v = a[k * n + k + 1..(k + 1) * n].to_vec();
            let length = v.iter().map(|x| x * x).sum::<f64>().sqrt();
            let first = if v[0] > 0.0 { -length } else { length };
            beside[k] = first;
            if v.len() == 1 {
                // Nothing is left to bring to zero.
                beside[k] = v[0];
                break;
            }
            v[0] -= first;
            let square: f64 = v.iter().map(|x| x * x).sum();
            // What is left of rounding may be as good as zero, and have no inverse.
            let factor = if square < f64::MIN_POSITIVE {
                0.0
            } else {
                2.0 / square
            };
            reflect(&mut a, n, k + 1, &v, factor);
            reflections.push((v, factor));
        }
        Self {
            diagonal: (0..n).map(|i| a[i * n + i]).collect(),
            beside,
            reflections,
        }
    }
}

/// A becomes H A H for the rows and columns from `start`, where H = I - `factor` v vᵀ.
fn reflect(a: &mut [f64], n: usize, start: usize, v: &[f64], factor: f64) {
    let part = &mut a[start * n..];
    let mut w: Vec<f64> = part
        .par_chunks_exact(n)
        .map(|row| factor * dot(&row[start..], v))
        .collect();
    let half = factor / 2.0 * dot(&w, v);
    w.iter_mut().zip(v).for_each(|(w, v)| *w -= half * v);
    part.par_chunks_exact_mut(n)
        .zip(&w)
        .zip(v)
        .for_each(|((row, wi), vi)| {
            for ((entry, w), v) in row[start..].iter_mut().zip(&w).zip(v) {
                *entry -= vi * w + wi * v;
            }
        });
}

/// A sum in four parts, which the processor adds side by side.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let (a_parts, a_rest) = a.as_chunks::<4>();
    let (b_parts, b_rest) = b.as_chunks::<4>();
    let mut sums = [0.0; 4];
    for (a, b) in a_parts.iter().zip(b_parts) {
        for i in 0..4 {
            sums[i] += a[i] * b[i];
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f64>() + rest
}

/// The product of all reflections, whose columns are the basis in which the matrix has three diagonals.
fn basis(reflections: &[(Vec<f64>, f64)], n: usize) -> Vec<f64> {
    let mut q = identity(n);
    for (k, (v, factor)) in reflections.iter().enumerate().rev() {
        let start = k + 1;
        let part = &mut q[start * n..];
        let mut sums = vec![0.0; n - start];
        sums.par_chunks_mut(PANEL).enumerate().for_each(|(panel, sums)| {
            let first = start + panel * PANEL;
            for (row, v) in part.chunks_exact(n).zip(v) {
                let entries = &row[first..first + sums.len()];
                sums.iter_mut().zip(entries).for_each(|(sum, q)| *sum += v * q);
            }
        });
        part.par_chunks_exact_mut(n).zip(v).for_each(|(row, v)| {
            let entries = row[start..].iter_mut().zip(&sums);
            entries.for_each(|(q, sum)| *q -= factor * v * sum);
        });
    }
    q
}

/// Brings a matrix of three diagonals to one, and tells every turn of the basis on the way.
fn diagonalise(diagonal: &mut [f64], beside: &mut [f64], mut tell: impl FnMut(Turn)) {
    let n = diagonal.len();
    for l in 0..n {
        for _ in 0..MOST_ROUNDS {
            // The first entry from here on that is as good as zero parts the matrix in two.
            let parted = |m: &usize| {
                let around = diagonal[*m].abs() + diagonal[*m + 1].abs();
                beside[*m].abs() <= f64::EPSILON * around
            };
            let end = (l..n - 1).find(parted).unwrap_or(n - 1);
            if end == l {
                break;
            }
            let g = (diagonal[l + 1] - diagonal[l]) / (2.0 * beside[l]);
            let root = g.hypot(1.0);
            let mut g = diagonal[end] - diagonal[l] + beside[l] / (g + root.copysign(g));
            let (mut sine, mut cosine, mut shift) = (1.0, 1.0, 0.0);
            let mut parts = false;
            for row in (l..end).rev() {
                let f = sine * beside[row];
                let b = cosine * beside[row];
                let length = f.hypot(g);
                beside[row + 1] = length;
                if length == 0.0 {
                    diagonal[row + 1] -= shift;
                    beside[end] = 0.0;
                    parts = true;
                    break;
                }
                (sine, cosine) = (f / length, g / length);
                let moved = diagonal[row + 1] - shift;
                let r = (diagonal[row] - moved) * sine + 2.0 * cosine * b;
                shift = sine * r;
                diagonal[row + 1] = moved + shift;
                g = cosine * r - b;
                tell(Turn { row, cosine, sine });
            }
            if parts {
                continue;
            }
            diagonal[l] -= shift;
            beside[l] = g;
            beside[end] = 0.0;
        }
    }
}

/// Turns the rows of a matrix of `n` x `n` one after another, so many columns at a time.
fn turned(rows: &[f64], turns: &[Turn], n: usize) -> Vec<f64> {
    let panels: Vec<Vec<f64>> = (0..n.div_ceil(PANEL))
        .into_par_iter()
        .map(|panel| {
            let columns = panel * PANEL..n.min((panel + 1) * PANEL);
            let width = columns.len();
            let own = rows.chunks_exact(n).flat_map(|row| &row[columns.clone()]);
            let mut own: Vec<f64> = own.copied().collect();
            for turn in turns {
                let both = &mut own[turn.row * width..(turn.row + 2) * width];
                let (first, second) = both.split_at_mut(width);
                for (x, y) in first.iter_mut().zip(second) {
                    let before = *y;
                    *y = turn.sine * *x + turn.cosine * before;
                    *x = turn.cosine * *x - turn.sine * before;
                }
            }
            own
        })
        .collect();
    let mut all = vec![0.0; n * n];
    for (panel, own) in panels.iter().enumerate() {
        let width = own.len() / n;
        for (row, own) in all.chunks_exact_mut(n).zip(own.chunks_exact(width)) {
            row[panel * PANEL..][..width].copy_from_slice(own);
        }
    }
    all
}

fn identity(n: usize) -> Vec<f64> {
    let mut matrix = vec![0.0; n * n];
    (0..n).for_each(|i| matrix[i * n + i] = 1.0);
    matrix
}

fn transposed(matrix: &[f64], n: usize) -> Vec<f64> {
    let column = |j: usize| (0..n).map(move |i| matrix[i * n + j]);
    (0..n).flat_map(column).collect()
}

/// The symmetric square root of a covariance: what rounding made of its zero eigenvalues is taken for zero.
pub(super) fn square_root(matrix: &[f64], n: usize) -> Vec<f64> {
    let (values, vectors) = eigen(matrix, n);
    let mut weighted = vectors.clone();
    for (row, value) in weighted.chunks_exact_mut(n.max(1)).zip(&values) {
        let root = value.max(0.0).sqrt();
        row.iter_mut().for_each(|entry| *entry *= root);
    }
    product(&transposed(&vectors, n), &weighted, n)
}

/// The product of two matrices of `n` x `n`.
pub(super) fn product(a: &[f64], b: &[f64], n: usize) -> Vec<f64> {
    let mut product = vec![0.0; n * n];
    let block = BLOCK * n.max(1);
    let blocks = product.par_chunks_mut(block).zip(a.par_chunks(block));
    blocks.for_each(|(product, a)| {
        for (k, other) in b.chunks_exact(n).enumerate() {
            for (row, out) in a.chunks_exact(n).zip(product.chunks_exact_mut(n)) {
                let value = row[k];
                out.iter_mut()
                    .zip(other)
                    .for_each(|(entry, right)| *entry += value * right);
            }
        }
    });
    product
}

/// The sum of the outer products of rows of `n` numbers with themselves.
pub(super) fn scatter(rows: &[f64], n: usize) -> Vec<f64> {
    let mut sum = vec![0.0; n * n];
    let blocks = sum.par_chunks_mut(BLOCK * n.max(1)).enumerate();
    blocks.for_each(|(block, sum)| {
        for row in rows.chunks_exact(n) {
            for (left, out) in row[block * BLOCK..].iter().zip(sum.chunks_exact_mut(n)) {
                out.iter_mut()
                    .zip(row)
                    .for_each(|(sum, right)| *sum += left * right);
            }
        }
    });
    sum
}

/// The sum of the diagonal.
pub(super) fn trace(matrix: &[f64], n: usize) -> f64 {
    (0..n).map(|i| matrix[i * n + i]).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Generator;

    #[test]
    fn eigenvectors_are_turned_into_themselves() {
        let mut generator = Generator::new(3);
        // One, two; more than a panel; fewer independent rows than columns.
        let drawn = [(1, 2), (2, 3), (70, 90), (67, 20)].map(|(n, rows)| {
            let rows = generator.randn_f64(rows * n);
            (n, scatter(&rows, n))
        });
        // All zero; diagonal; of one rank, of which a reflection leaves nothing but rounding.
        let made = |n: usize, entry: fn(usize, usize) -> f64| {
            let entries = (0..n * n).map(|i| entry(i / n, i % n));
            (n, entries.collect::<Vec<f64>>())
        };
        let made = [
            made(6, |_, _| 0.0),
            made(6, |i, j| if i == j { i as f64 } else { 0.0 }),
            made(80, |i, j| if i.max(j) < 64 { 0.1 } else { 0.0 }),
        ];
        for (n, matrix) in drawn.into_iter().chain(made) {
            let largest = matrix.iter().fold(1.0f64, |m, v| m.max(v.abs()));
            let close = |a: f64, b: f64| assert!((a - b).abs() <= 1e-12 * largest, "{n}: {a} is not {b}");
            let (values, vectors) = eigen(&matrix, n);
            for (value, vector) in values.iter().zip(vectors.chunks_exact(n)) {
                for (row, entry) in matrix.chunks_exact(n).zip(vector) {
                    close(dot(row, vector), value * entry);
                }
            }
            let unit = product(&vectors, &transposed(&vectors, n), n);
            unit.iter().zip(identity(n)).for_each(|(a, b)| close(*a, b));
            close(values.iter().sum(), trace(&matrix, n));
            let (mut values, mut alone) = (values, eigenvalues(&matrix, n));
            values.sort_by(f64::total_cmp);
            alone.sort_by(f64::total_cmp);
            assert_eq!(values, alone);
        }
        assert!(eigenvalues(&[], 0).is_empty());
    }
}
