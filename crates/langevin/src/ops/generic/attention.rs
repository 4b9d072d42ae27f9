//! Attention with its scores in a matrix.

use burn::backend::{Backend, TensorMetadata, tensor::FloatTensor};
use burn::tensor::TensorData;

use super::plain::Plain;
use crate::ops::{AttentionOptions, attention::Qkv};

/// `[batch, length, heads · dimension]` → `[batch, heads, length, dimension]`
fn apart<B: Backend>(x: &FloatTensor<B>, heads: usize) -> Plain<B> {
    let x = Plain::<B>(x.clone());
    let [batch, length, width] = x.dims();
    x.reshape([batch, length, heads, width / heads])
        .permute(&[0, 2, 1, 3])
}

/// The way back.
fn together<B: Backend>(x: Plain<B>) -> FloatTensor<B> {
    let [batch, heads, length, dimension] = x.dims();
    x.permute(&[0, 2, 1, 3])
        .reshape([batch, length, heads * dimension])
        .0
}

/// The scores before the softmax, `[batch, heads, queries, keys]`; minus infinity where a query does not see a key.
fn scores<B: Backend>(q: Plain<B>, k: Plain<B>, options: AttentionOptions) -> Plain<B> {
    let [_, _, queries, _] = q.dims();
    let [_, _, keys, _] = k.dims();
    let device = q.0.device();
    let scores = q.matmul(k.transpose()).times(options.scale.into());
    if !options.causal {
        return scores;
    }
    let seen = |query: usize, key: usize| if key > query { f32::NEG_INFINITY } else { 0.0 };
    let mask: Vec<f32> = (0..queries)
        .flat_map(|query| (0..keys).map(move |key| seen(query, key)))
        .collect();
    let mask = TensorData::new(mask, [1, 1, queries, keys]);
    scores + Plain(B::float_from_data(mask, &device))
}

/// The result, and the logarithm of the sum of exponentials of every row: `[batch, heads, queries]`.
pub(crate) fn attention_with_log_sums<B: Backend>(
    qkv: &Qkv<B>,
    options: AttentionOptions,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let [q, k, v] = [0, 1, 2].map(|i| apart::<B>(&qkv[i], options.heads));
    let [batch, heads, queries, _] = q.dims();
    let scores = scores(q, k, options);
    let largest = scores.clone().max(3);
    let log_sums = (scores.clone() - largest.clone()).exp().sum(&[3]).log() + largest;
    let output = (scores - log_sums.clone()).exp().matmul(v);
    (together(output), log_sums.reshape([batch, heads, queries]).0)
}

/// The gradients at queries, keys and values.
pub(crate) fn attention_gradient<B: Backend>(
    qkv: Qkv<B>,
    output: FloatTensor<B>,
    log_sums: FloatTensor<B>,
    gradient: FloatTensor<B>,
    options: AttentionOptions,
) -> Qkv<B> {
    let [q, k, v] = [0, 1, 2].map(|i| apart::<B>(&qkv[i], options.heads));
    let [output, gradient] = [output, gradient].map(|x| apart::<B>(&x, options.heads));
    let [batch, heads, queries, _] = q.dims();
    let scale = f64::from(options.scale);
    let scores = scores(q.clone(), k.clone(), options);
    let weights = (scores - Plain::<B>(log_sums).reshape([batch, heads, queries, 1])).exp();
    let gv = weights.clone().transpose().matmul(gradient.clone());
    // The softmax's gradient; its sum over a row is that of the output with its gradient.
    let row = (gradient.clone() * output).sum(&[3]);
    let gs = (weights * (gradient.matmul(v.transpose()) - row)).times(scale);
    let gk = gs.clone().transpose().matmul(q);
    let gq = gs.matmul(k);
    [together(gq), together(gk), together(gv)]
}
