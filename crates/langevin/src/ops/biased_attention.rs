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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{device::default_device, random::Generator};

    const OPTIONS: AttentionOptions = AttentionOptions {
        heads: 2,
        scale: 0.4,
        causal: false,
    };

    fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
        tensor.into_data().try_into_vec().unwrap()
    }

    fn near(found: &[f32], expected: &[f32]) {
        assert_eq!(found.len(), expected.len());
        for (a, b) in found.iter().zip(expected) {
            assert!((a - b).abs() < 1e-5, "{a} is not {b}");
        }
    }

    #[test]
    fn padding_is_as_if_it_were_not_there() {
        let device = default_device().autodiff();
        let mut generator = Generator::new(3);
        let mut draw = |length: usize| {
            generator
                .randn_tensor::<3>([1, length, 12], &device)
                .require_grad()
        };
        let (q, k, v) = (draw(7), draw(5), draw(5));
        let bias = Tensor::from_floats([[0.0, 0.0, 0.0, -10_000.0, -10_000.0]], &device);
        let found = biased_attention(q.clone(), k.clone(), v.clone(), bias, OPTIONS);
        let [short_k, short_v] = [&k, &v].map(|x| x.clone().narrow(1, 0, 3));
        let expected = attention(q.clone(), short_k, short_v, OPTIONS);
        near(&values(found.clone().inner()), &values(expected.clone().inner()));

        let [found, expected] = [found, expected].map(|y| y.square().sum().backward());
        for x in [&q, &k, &v] {
            let [found, expected] = [&found, &expected].map(|gradients| values(x.grad(gradients).unwrap()));
            near(&found, &expected);
        }
    }

    #[test]
    fn a_bias_multiplies_a_keys_weight() {
        let device = default_device();
        let zeros = |length: usize| Tensor::zeros([1, length, 4], &device);
        // Both heads weigh the keys' numbers 1 and 5 by 3 to 1.
        let v = Tensor::from_floats([[[1.0, 1.0, 1.0, 1.0], [5.0, 5.0, 5.0, 5.0]]], &device);
        let bias = Tensor::from_floats([[3f32.ln(), 0.0]], &device);
        let found = biased_attention(zeros(1), zeros(2), v, bias, OPTIONS);
        near(&values(found), &[2.0; 4]);
    }
}
