//! The fused operations against compositions of Burn's own, forward and backward.

mod support;

use burn::tensor::{
    Bool, Device, Tensor, TensorData, activation, module::conv2d as burn_conv2d, ops::ConvOptions,
};
use langevin::{
    ops::{self, AttentionOptions, Geometry, GroupNormOptions},
    random::Generator,
};

const TOLERANCE: f32 = 2e-5;

fn device() -> Device {
    support::device().autodiff()
}

fn leaf<const D: usize>(shape: [usize; D], generator: &mut Generator) -> Tensor<D> {
    let values = generator.randn(shape.iter().product());
    Tensor::from_data(TensorData::new(values, shape), &device()).require_grad()
}

fn difference<const D: usize>(a: Tensor<D>, b: Tensor<D>) -> f32 {
    assert_eq!(a.dims(), b.dims());
    let largest = b.clone().abs().max().into_scalar::<f32>().max(1e-6);
    (a - b).abs().max().into_scalar::<f32>() / largest
}

/// Compares outputs, and the gradients of a weighted sum of them, at leaves of any rank.
macro_rules! assert_same {
    ($ours:expr, $burns:expr, [$($leaf:ident),*]) => {{
        let (ours, burns) = ($ours, $burns);
        assert!(difference(ours.clone().inner(), burns.clone().inner()) < TOLERANCE, "outputs differ");
        let weight = Generator::new(99).randn(ours.shape().num_elements());
        let weight = Tensor::from_data(TensorData::new(weight, ours.dims()), &device());
        let ours = (ours * weight.clone()).sum().backward();
        let burns = (burns * weight).sum().backward();
        $(
            let (a, b) = ($leaf.grad(&ours).unwrap(), $leaf.grad(&burns).unwrap());
            assert!(difference(a, b) < TOLERANCE, concat!("gradients at ", stringify!($leaf), " differ"));
        )*
    }};
}

#[test]
fn convolution_is_burns() {
    let mut generator = Generator::new(1);
    for (size, [input, output], kernel, stride, padding) in [
        ([9, 7], [3, 20], 3, 1, [[1, 1], [1, 1]]),
        ([8, 8], [16, 40], 3, 2, [[1, 1], [1, 1]]),
        ([8, 6], [5, 8], 3, 2, [[0, 1], [0, 1]]),
        ([5, 5], [33, 7], 1, 1, [[0, 0], [0, 0]]),
        ([12, 12], [1, 32], 5, 1, [[2, 2], [2, 2]]),
    ] {
        let x = leaf([2, size[0], size[1], input], &mut generator);
        let weight = leaf([kernel, kernel, input, output], &mut generator);
        let bias = leaf([output], &mut generator);
        let geometry = Geometry {
            stride: [stride; 2],
            padding,
        };
        let plain = ops::conv2d(x.clone(), weight.clone(), Some(bias.clone()), None, geometry);
        let residual = leaf(plain.dims(), &mut generator);
        let ours = ops::conv2d(
            x.clone(),
            weight.clone(),
            Some(bias.clone()),
            Some(residual.clone()),
            geometry,
        );
        let options =
            ConvOptions::new_with_padding([stride; 2], padding.map(|[begin, end]| (begin, end)), [1, 1], 1);
        let burns = burn_conv2d(
            x.clone().permute([0, 3, 1, 2]),
            weight.clone().permute([3, 2, 0, 1]),
            Some(bias.clone()),
            options,
        )
        .permute([0, 2, 3, 1])
            + residual.clone();
        assert_same!(ours, burns, [x, weight, bias, residual]);
    }
}

#[test]
fn linear_is_a_matrix_product() {
    let mut generator = Generator::new(2);
    let x = leaf([2, 5, 24], &mut generator);
    let weight = leaf([24, 37], &mut generator);
    let bias = leaf([37], &mut generator);
    let ours = ops::linear(x.clone(), weight.clone(), Some(bias.clone()), None);
    let burns = x.clone().matmul(weight.clone().unsqueeze()) + bias.clone().unsqueeze();
    assert_same!(ours, burns, [x, weight, bias]);
}

#[test]
fn a_layer_without_bias_has_none() {
    let mut generator = Generator::new(3);
    let x = leaf([3, 8], &mut generator);
    let weight = leaf([8, 4], &mut generator);
    let ours = ops::linear(x.clone(), weight.clone(), None, None);
    assert_same!(ours, x.clone().matmul(weight.clone()), [x, weight]);
}

/// Group normalisation written out.
fn normalised(x: Tensor<4>, gamma: Tensor<1>, beta: Tensor<1>, groups: usize) -> Tensor<4> {
    let [batch, height, width, channels] = x.dims();
    let grouped = x.reshape([batch, height * width, groups, channels / groups]);
    let mean = grouped.clone().mean_dim(1).mean_dim(3);
    let centred = grouped - mean;
    let variance = centred.clone().square().mean_dim(1).mean_dim(3);
    let y = centred / (variance + 1e-5).sqrt();
    y.reshape([batch, height, width, channels]) * gamma.reshape([1, 1, 1, channels])
        + beta.reshape([1, 1, 1, channels])
}

#[test]
fn group_norm_is_written_out() {
    let mut generator = Generator::new(4);
    for (channels, groups, silu, modulated) in
        [(8, 4, true, false), (48, 8, false, true), (64, 32, true, true)]
    {
        let x = leaf([2, 5, 3, channels], &mut generator);
        let gamma = leaf([channels], &mut generator);
        let beta = leaf([channels], &mut generator);
        let scale = leaf([2, channels], &mut generator);
        let shift = leaf([2, channels], &mut generator);
        let options = GroupNormOptions {
            groups,
            eps: 1e-5,
            silu,
        };
        let modulation = modulated.then(|| (scale.clone(), shift.clone()));
        let ours = ops::group_norm(x.clone(), gamma.clone(), beta.clone(), modulation, options);
        let mut burns = normalised(x.clone(), gamma.clone(), beta.clone(), groups);
        if modulated {
            burns = burns * (scale.clone().reshape([2, 1, 1, channels]) + 1.0)
                + shift.clone().reshape([2, 1, 1, channels]);
        }
        if silu {
            burns = activation::silu(burns);
        }
        if modulated {
            assert_same!(ours, burns, [x, gamma, beta, scale, shift]);
        } else {
            assert_same!(ours, burns, [x, gamma, beta]);
        }
    }
}

#[test]
fn attention_is_softmax_of_scores() {
    let mut generator = Generator::new(5);
    for (queries, keys, heads, head_dim) in [(7, 7, 1, 16), (16, 16, 4, 8), (5, 9, 2, 24)] {
        let q = leaf([2, queries, heads * head_dim], &mut generator);
        let k = leaf([2, keys, heads * head_dim], &mut generator);
        let v = leaf([2, keys, heads * head_dim], &mut generator);
        let scale = 1.0 / (head_dim as f32).sqrt();
        let causal = queries == 16;
        let options = AttentionOptions { heads, scale, causal };
        let ours = ops::attention(q.clone(), k.clone(), v.clone(), options);
        let split = |t: Tensor<3>| {
            let n = t.dims()[1];
            t.reshape([2, n, heads, head_dim]).swap_dims(1, 2)
        };
        let scores = split(q.clone()).matmul(split(k.clone()).transpose()) * scale;
        let scores = if causal {
            let later = Tensor::<2, Bool>::tril_mask([queries, keys], 0, &scores.device());
            scores.mask_fill(later.unsqueeze::<4>(), f32::NEG_INFINITY)
        } else {
            scores
        };
        let burns = activation::softmax(scores, 3)
            .matmul(split(v.clone()))
            .swap_dims(1, 2);
        let burns = burns.reshape([2, queries, heads * head_dim]);
        assert_same!(ours, burns, [q, k, v]);
    }
}

#[test]
fn biased_attention_is_softmax_of_scores_and_bias() {
    let mut generator = Generator::new(15);
    for (queries, keys, heads, head_dim) in [(7, 7, 1, 16), (5, 9, 2, 24), (6, 4, 2, 72)] {
        let q = leaf([2, queries, heads * head_dim], &mut generator);
        let k = leaf([2, keys, heads * head_dim], &mut generator);
        let v = leaf([2, keys, heads * head_dim], &mut generator);
        let bias = leaf([2, keys], &mut generator);
        // The last two keys of the first sequence are padding.
        let padding = |row: usize, key: usize| {
            if row == 0 && key + 2 >= keys {
                -10_000.0
            } else {
                0.0
            }
        };
        let padding: Vec<f32> = (0..2 * keys).map(|i| padding(i / keys, i % keys)).collect();
        let padding = Tensor::from_data(TensorData::new(padding, [2, keys]), &device());
        // A sum for each side: a graph goes back once.
        let biases = || bias.clone() + padding.clone();
        let options = AttentionOptions {
            heads,
            scale: 1.0 / (head_dim as f32).sqrt(),
            causal: false,
        };
        let ours = ops::biased_attention(q.clone(), k.clone(), v.clone(), biases(), options);
        let split = |t: Tensor<3>| {
            let n = t.dims()[1];
            t.reshape([2, n, heads, head_dim]).swap_dims(1, 2)
        };
        let scores = split(q.clone()).matmul(split(k.clone()).transpose()) * options.scale;
        let scores = scores + biases().reshape([2, 1, 1, keys]);
        let burns = activation::softmax(scores, 3)
            .matmul(split(v.clone()))
            .swap_dims(1, 2);
        let burns = burns.reshape([2, queries, heads * head_dim]);
        assert_same!(ours, burns, [q, k, v, bias]);
    }
}

#[test]
fn silu_is_burns() {
    let x = leaf([3, 50], &mut Generator::new(6)) * 4.0;
    let x = x.inner().autodiff().require_grad();
    assert_same!(ops::silu(x.clone()), activation::silu(x.clone()), [x]);
}

#[test]
fn the_gate_of_geglu_is_burns() {
    let x = leaf([2, 5, 38], &mut Generator::new(6)) * 3.0;
    let x = x.inner().autodiff().require_grad();
    let [value, gate] = [0, 19].map(|first| x.clone().narrow(2, first, 19));
    assert_same!(ops::geglu(x.clone()), value * activation::gelu(gate), [x]);
}

#[test]
fn concatenation_is_burns() {
    let mut generator = Generator::new(7);
    let (a, b) = (
        leaf([2, 3, 4, 5], &mut generator),
        leaf([2, 3, 4, 9], &mut generator),
    );
    assert_same!(
        ops::concat(a.clone(), b.clone()),
        Tensor::cat(vec![a.clone(), b.clone()], 3),
        [a, b]
    );
}

#[test]
fn a_vector_is_added_at_every_position() {
    let mut generator = Generator::new(8);
    let (x, vector) = (leaf([2, 3, 4, 5], &mut generator), leaf([2, 5], &mut generator));
    let burns = x.clone() + vector.clone().reshape([2, 1, 1, 5]);
    assert_same!(
        ops::add_per_picture(x.clone(), vector.clone()),
        burns,
        [x, vector]
    );
}

#[test]
fn nearest_upsampling_repeats() {
    let x = leaf([2, 3, 4, 5], &mut Generator::new(9));
    let burns = x
        .clone()
        .repeat_dim(2, 1)
        .reshape([2, 3, 1, 4, 1, 5])
        .repeat(&[1, 1, 2, 1, 2, 1]);
    assert_same!(
        ops::upsample_nearest(x.clone(), [6, 8]),
        burns.reshape([2, 6, 8, 5]),
        [x]
    );
}

#[test]
fn nothing_changes_the_parameters_but_the_optimiser() {
    // A clone of a parameter must keep its values when the step moves the original in place.
    let parameter = leaf([4, 4], &mut Generator::new(10)).inner();
    let before = parameter.clone();
    let zeros = || Tensor::zeros([4, 4], &support::device());
    let state = ops::AdamWState {
        parameter,
        first_moment: zeros(),
        second_moment: zeros(),
    };
    let hyper = ops::AdamW {
        learning_rate: 0.1,
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        weight_decay: 0.0,
        step: 1,
        gradient_factor: 1.0,
    };
    let gradient = Tensor::ones([4, 4], &support::device());
    let moved = ops::adamw(state, gradient, hyper).parameter;
    // The first step of Adam has the length of the learning rate in every direction.
    assert!(
        difference(
            before.clone() - moved,
            Tensor::full([4, 4], 0.1, &support::device())
        ) < 1e-4
    );
    let again = leaf([4, 4], &mut Generator::new(10)).inner();
    assert_eq!(before.into_data(), again.into_data());
}
