//! Multi-head attention without a stored score matrix.

/// The sizes of an attention layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AttentionShape {
    /// Number of sequences.
    pub batch: usize,
    /// Tokens in each sequence of queries.
    pub queries: usize,
    /// Tokens in each sequence of keys and values.
    pub keys: usize,
    /// Number of heads.
    pub heads: usize,
    /// Channels of a head.
    pub head_dim: usize,
}

impl AttentionShape {
    const fn width(&self) -> usize {
        self.heads * self.head_dim
    }

    fn check(&self, q: usize, k: usize, v: usize, lse: usize) {
        assert!(self.keys > 0, "attention needs at least one key");
        assert_eq!(
            q,
            self.batch * self.queries * self.width(),
            "q, out and their gradients: {self:?}"
        );
        assert_eq!(
            k,
            self.batch * self.keys * self.width(),
            "k and its gradient: {self:?}"
        );
        assert_eq!(
            v,
            self.batch * self.keys * self.width(),
            "v and its gradient: {self:?}"
        );
        assert_eq!(
            lse,
            self.batch * self.heads * self.queries,
            "log_sum_exp: {self:?}"
        );
    }
}

/// Computes `out = softmax(scale · q kᵀ) v` for each sequence and head.
///
/// # Shapes
/// - `q`, `out`: `[batch, queries, heads · head_dim]`
/// - `k`, `v`: `[batch, keys, heads · head_dim]`
/// - `log_sum_exp`: `[batch, heads, queries]`, written: the logarithm of each row's `Σ exp(scale · q k)`, which
///   [`attention_backward`] needs
///
/// # Panics
/// If a slice's length does not match the shape, or there are no keys.
pub fn attention_forward(
    shape: &AttentionShape,
    scale: f32,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    out: &mut [f32],
    log_sum_exp: &mut [f32],
) {
    shape.check(q.len(), k.len(), v.len(), log_sum_exp.len());
    assert_eq!(out.len(), q.len(), "out must have q's shape");
    let (w, d) = (shape.width(), shape.head_dim);
    for (i, lse) in log_sum_exp.iter_mut().enumerate() {
        let (b, h, t) = (
            i / shape.queries / shape.heads,
            i / shape.queries % shape.heads,
            i % shape.queries,
        );
        let row = (b * shape.queries + t) * w + h * d;
        let key = |j: usize| (b * shape.keys + j) * w + h * d;
        let s: Vec<f32> = (0..shape.keys)
            .map(|j| {
                scale
                    * q[row..row + d]
                        .iter()
                        .zip(&k[key(j)..])
                        .map(|(a, b)| a * b)
                        .sum::<f32>()
            })
            .collect();
        let max = s.iter().fold(f32::NEG_INFINITY, |m, &s| m.max(s));
        let sum: f32 = s.iter().map(|s| (s - max).exp()).sum();
        *lse = max + sum.ln();
        out[row..row + d].fill(0.0);
        for (j, s) in s.iter().enumerate() {
            let p = (s - max).exp() / sum;
            out[row..row + d]
                .iter_mut()
                .zip(&v[key(j)..])
                .for_each(|(o, v)| *o += p * v);
        }
    }
}

/// The gradients of [`attention_forward`] with respect to `q`, `k` and `v`.
///
/// # Shapes
/// - `q`, `out`, `gout`, `gq`: `[batch, queries, heads · head_dim]`
/// - `k`, `v`, `gk`, `gv`: `[batch, keys, heads · head_dim]`
/// - `log_sum_exp`: `[batch, heads, queries]`, as the forward pass left it
///
/// `gq`, `gk` and `gv` are overwritten.
///
/// # Panics
/// If a slice's length does not match the shape.
#[expect(
    clippy::too_many_arguments,
    reason = "a gradient names all that it reads and writes"
)]
pub fn attention_backward(
    shape: &AttentionShape,
    scale: f32,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    out: &[f32],
    log_sum_exp: &[f32],
    gout: &[f32],
    gq: &mut [f32],
    gk: &mut [f32],
    gv: &mut [f32],
) {
    shape.check(q.len(), k.len(), v.len(), log_sum_exp.len());
    shape.check(gq.len(), gk.len(), gv.len(), log_sum_exp.len());
    assert!(
        out.len() == q.len() && gout.len() == q.len(),
        "out and gout must have q's shape"
    );
    let (w, d) = (shape.width(), shape.head_dim);
    gq.fill(0.0);
    gk.fill(0.0);
    gv.fill(0.0);
    for (i, lse) in log_sum_exp.iter().enumerate() {
        let (b, h, t) = (
            i / shape.queries / shape.heads,
            i / shape.queries % shape.heads,
            i % shape.queries,
        );
        let row = (b * shape.queries + t) * w + h * d;
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        let delta = dot(&out[row..row + d], &gout[row..row + d]);
        for j in 0..shape.keys {
            let key = (b * shape.keys + j) * w + h * d;
            let p = (scale * dot(&q[row..row + d], &k[key..key + d]) - lse).exp();
            let ds = scale * p * (dot(&gout[row..row + d], &v[key..key + d]) - delta);
            for c in 0..d {
                gv[key + c] += p * gout[row + c];
                gk[key + c] += ds * q[row + c];
                gq[row + c] += ds * k[key + c];
            }
        }
    }
}
