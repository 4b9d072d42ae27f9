//! Attention to tokens of which some count less, or not at all.

use burn::tensor::Tensor;

use super::{AttentionOptions, attention};

/// `softmax(scale · q kᵀ + bias) v` in every head, with one number for each key, such as a large negative one where it is padding.
///
/// It is [`attention`] over heads that are wider by one: a query's number there is `1 / scale`, a key's its bias, and a value's nothing. So no
/// score matrix is stored here either.
///
/// # Shapes
/// - `q` and the result: `[batch, queries, heads · head dimension]`
/// - `k`, `v`: `[batch, keys, heads · head dimension]`
/// - `bias`: `[batch, keys]`
pub fn biased_attention(
    q: Tensor<3>,
    k: Tensor<3>,
    v: Tensor<3>,
    bias: Tensor<2>,
    options: AttentionOptions,
) -> Tensor<3> {
    let heads = options.heads;
    let ([batch, queries, width], [_, keys, _], device) = (q.dims(), k.dims(), q.device());
    let one = Tensor::full([batch, queries, heads, 1], 1.0 / options.scale, &device);
    let bias = bias.reshape([batch, keys, 1, 1]).expand([batch, keys, heads, 1]);
    let nothing = Tensor::zeros([batch, keys, heads, 1], &device);
    let found = attention(wider(q, one), wider(k, bias), wider(v, nothing), options);
    found
        .reshape([batch, queries, heads, width / heads + 1])
        .narrow(3, 0, width / heads)
        .reshape([batch, queries, width])
}

/// Puts a number behind every head: `[batch, length, heads · dimension]` → `[batch, length, heads · (dimension + 1)]`
fn wider(x: Tensor<3>, numbers: Tensor<4>) -> Tensor<3> {
    let ([batch, length, width], heads) = (x.dims(), numbers.dims()[2]);
    let apart = x.reshape([batch, length, heads, width / heads]);
    Tensor::cat(vec![apart, numbers], 3).reshape([batch, length, width + heads])
}
