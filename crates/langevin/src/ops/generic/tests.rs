//! Held to the kernels on the CPU, which PyTorch's values hold.

use burn::backend::{
    Flex, TensorMetadata,
    flex::{FlexTensor, Layout},
};
use burn::tensor::{Bytes, DType};

use super::{plain::Plain, *};
use crate::{
    ops::{
        AdamW, AttentionOptions, Geometry, GroupNormOptions,
        attention::AttentionGradients,
        concat::{ConcatGradient, ConcatOps},
        conv::{ConvGradients, ConvOps, Convolution},
        flex,
        geglu::{GegluGradient, GegluOps},
        norm::{NormGradients, NormParameters},
        optimizer::OptimizerOps,
        optional::Optional,
        per_picture::{PerPictureGradient, PerPictureOps},
        silu::{SiluGradient, SiluOps},
        upsample::{UpsampleGradient, UpsampleOps},
    },
    random::Generator,
};

/// Standard normal numbers.
fn random<const D: usize>(shape: [usize; D], generator: &mut Generator) -> FlexTensor {
    let values = generator.randn(shape.iter().product());
    FlexTensor::new(
        Bytes::from_elems(values),
        Layout::contiguous(shape.into()),
        DType::F32,
    )
}

/// Whether two tensors have one shape and the same numbers, up to the rounding of the faster convolutions.
fn same(found: FlexTensor, expected: FlexTensor) {
    assert_eq!(found.shape(), expected.shape());
    let (found, expected) = (flex::contiguous(found), flex::contiguous(expected));
    let (found, expected) = (flex::floats(&found), flex::floats(&expected));
    let largest = expected.iter().fold(1e-6_f32, |largest, x| largest.max(x.abs()));
    for (a, b) in found.iter().zip(expected) {
        assert!((a - b).abs() <= 5e-5 * largest, "{a} where {b} is expected");
    }
}

#[test]
fn convolution() {
    let generator = &mut Generator::new(1);
    for (size, [input, output], kernel, stride, padding) in [
        ([9, 7], [3, 20], 3, 1, [[1, 1], [1, 1]]),
        ([8, 8], [16, 8], 3, 2, [[1, 1], [1, 1]]),
        ([8, 6], [5, 8], 3, 2, [[0, 1], [0, 1]]),
        ([5, 5], [33, 7], 1, 1, [[0, 0], [0, 0]]),
        ([6, 6], [4, 6], 1, 2, [[0, 0], [0, 0]]),
    ] {
        let geometry = Geometry {
            stride: [stride; 2],
            padding,
        };
        let x = random([2, size[0], size[1], input], generator);
        let weight = random([kernel, kernel, input, output], generator);
        let bias = random([output], generator);
        let how = Convolution::now(geometry);
        let plain = Flex::conv2d_nhwc(x.clone(), weight.clone(), Optional::Absent, Optional::Absent, how);
        let residual = random(flex::dims::<4>(&plain), generator);
        let gy = random(flex::dims::<4>(&plain), generator);
        same(
            conv2d::<Flex>(x.clone(), weight.clone(), None, None, geometry),
            plain,
        );
        same(
            conv2d::<Flex>(
                x.clone(),
                weight.clone(),
                Some(bias.clone()),
                Some(residual.clone()),
                geometry,
            ),
            Flex::conv2d_nhwc(
                x.clone(),
                weight.clone(),
                Optional::Present(bias),
                Optional::Present(residual),
                how,
            ),
        );
        same(
            conv2d_input_gradient::<Flex>(&x, &weight, &gy, geometry),
            Flex::conv2d_input_gradient(&x, &weight, &gy, how),
        );
        let (gw, gb) = conv2d_weight_gradient::<Flex>(&x, &weight, &gy, geometry);
        let (expected_gw, expected_gb) = Flex::conv2d_weight_gradient(&x, &weight, &gy, how);
        same(gw, expected_gw);
        same(gb, expected_gb);
    }
}

#[test]
fn normalisation() {
    let generator = &mut Generator::new(2);
    for (silu, modulated) in [(false, false), (true, false), (true, true), (false, true)] {
        let mut per_picture = || modulated.then(|| random([3, 12], generator));
        let (scale, shift) = (per_picture(), per_picture());
        let x: FlexTensor = random([3, 4, 5, 12], generator);
        let parameters = NormParameters::<Flex> {
            gamma: random([12], generator),
            beta: random([12], generator),
            scale,
            shift,
            options: GroupNormOptions {
                groups: 4,
                eps: 1e-5,
                silu,
            },
        };
        let (y, statistics) = group_norm_with_statistics::<Flex>(x.clone(), &parameters);
        let (expected_y, expected_statistics) = Flex::group_norm_with_statistics(x.clone(), &parameters);
        same(y, expected_y);
        same(statistics, expected_statistics.clone());
        let gy = random([3, 4, 5, 12], generator);
        let found =
            group_norm_gradient::<Flex>(x.clone(), &parameters, expected_statistics.clone(), gy.clone());
        let expected = Flex::group_norm_gradient(x, &parameters, expected_statistics, gy, false);
        same(found.x, expected.x);
        same(found.gamma, expected.gamma);
        same(found.beta, expected.beta);
        assert_eq!(found.modulation.is_some(), modulated);
        if let (Some((scale, shift)), Some((expected_scale, expected_shift))) =
            (found.modulation, expected.modulation)
        {
            same(scale, expected_scale);
            same(shift, expected_shift);
        }
    }
}

#[test]
fn attention() {
    for (queries, keys, causal) in [(7, 5, false), (6, 6, true)] {
        let generator = &mut Generator::new(3);
        let options = AttentionOptions {
            heads: 2,
            scale: 0.4,
            causal,
        };
        let qkv = [queries, keys, keys].map(|length| random([2, length, 10], generator));
        let (output, log_sums) = attention_with_log_sums::<Flex>(&qkv, options);
        let (expected_output, expected_log_sums) = Flex::attention_with_log_sums(&qkv, options);
        same(output, expected_output.clone());
        same(log_sums, expected_log_sums.clone());
        let gradient = random([2, queries, 10], generator);
        let found = attention_gradient::<Flex>(
            qkv.clone(),
            expected_output.clone(),
            expected_log_sums.clone(),
            gradient.clone(),
            options,
        );
        let expected = Flex::attention_gradient(qkv, expected_output, expected_log_sums, gradient, options);
        for (found, expected) in found.into_iter().zip(expected) {
            same(found, expected);
        }
    }
}

#[test]
fn the_small_ones() {
    let generator = &mut Generator::new(4);
    let [a, b] = [[2, 3, 4, 5], [2, 3, 4, 6]].map(|shape| random(shape, generator));
    same(silu::<Flex>(a.clone()), Flex::silu_forward(a.clone()));
    let gy = random([2, 3, 4, 5], generator);
    same(
        silu_gradient::<Flex>(a.clone(), gy.clone()),
        Flex::silu_gradient(a.clone(), gy.clone()),
    );
    let (x, half) = (random([7, 10], generator), random([7, 5], generator));
    same(geglu::<Flex>(x.clone()), Flex::geglu_forward(x.clone()));
    same(
        geglu_gradient::<Flex>(x.clone(), half.clone()),
        Flex::geglu_gradient(x, half),
    );
    let both = concat_channels::<Flex>(a.clone(), b.clone());
    same(both.clone(), Flex::concat_channels(a.clone(), b));
    let (first, second) = split_channels::<Flex>(both.clone(), 5);
    let (expected_first, expected_second) = Flex::split_channels(both, 5);
    same(first, expected_first);
    same(second, expected_second);
    let vector = random([2, 5], generator);
    same(
        add_per_picture::<Flex>(a.clone(), vector.clone()),
        Flex::add_per_picture_nhwc(a.clone(), vector),
    );
    same(sum_positions::<Flex>(&gy), Flex::sum_positions(&gy));
    for size in [[6, 8], [7, 5]] {
        same(
            upsample_nearest::<Flex>(a.clone(), size),
            Flex::upsample_nearest_nhwc(a.clone(), size),
        );
        let gy = random([2, size[0], size[1], 5], generator);
        same(
            upsample_nearest_gradient::<Flex>(gy.clone(), [3, 4]),
            Flex::upsample_nearest_gradient(gy, [3, 4]),
        );
    }
}

#[test]
fn the_optimiser() {
    let generator = &mut Generator::new(5);
    let [p, g, m] = [0; 3].map(|_| random([3, 7], generator));
    let v = Plain::<Flex>(m.clone()).square().0;
    let hyper = AdamW {
        learning_rate: 1e-2,
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        weight_decay: 1e-2,
        step: 3,
        gradient_factor: 0.5,
    };
    let found = adamw_step::<Flex>(p.clone(), g.clone(), m.clone(), v.clone(), hyper);
    let expected = Flex::adamw_step(p.clone(), g.clone(), m.clone(), v, hyper);
    same(found.0, expected.0);
    same(found.1, expected.1);
    same(found.2, expected.2);
    same(
        moving_average_step::<Flex>(p.clone(), g.clone(), 0.9),
        Flex::moving_average_step(p.clone(), g, 0.9),
    );
    same(sum_of_squares::<Flex>(p.clone()), Flex::sum_of_squares(p));
}
