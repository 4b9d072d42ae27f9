//! The operations on GPUs: every CubeCL runtime, with Burn's own operations.

use std::sync::Arc;

use burn::backend::{Cube, TensorMetadata, ops::FloatTensorOps, tensor::FloatTensor};
use burn::tensor::{FloatDType, Tensor};

use super::{
    AdamW, AttentionOptions,
    attention::{AttentionGradients, AttentionOps, Qkv},
    concat::{ConcatGradient, ConcatOps},
    conv::{ConvGradients, ConvOps, Convolution},
    geglu::{GegluGradient, GegluOps},
    generic,
    kept::Packing,
    norm::{NormGradient, NormGradients, NormOps, NormParameters},
    norm_conv::{self, ConvArguments, NormArguments, NormConvOps, Settings},
    optimizer::OptimizerOps,
    optional::Optional,
    per_picture::{PerPictureGradient, PerPictureOps},
    recompute::{Lift, Recompute, RecomputeOps},
    silu::{SiluGradient, SiluOps},
    upsample::{UpsampleGradient, UpsampleOps},
};

type Float = FloatTensor<Cube>;

impl Packing for Cube {
    fn pack(x: Float) -> Float {
        Self::float_cast(x, FloatDType::BF16)
    }

    fn unpack(x: Float) -> Float {
        Self::float_cast(x, FloatDType::F32)
    }
}

impl ConvOps for Cube {
    fn conv2d_nhwc(
        x: Float,
        weight: Float,
        bias: Optional<Self>,
        residual: Optional<Self>,
        how: Convolution,
    ) -> Float {
        generic::conv2d::<Self>(
            x,
            weight,
            bias.into_option(),
            residual.into_option(),
            how.geometry,
        )
    }
}

impl ConvGradients for Cube {
    fn conv2d_input_gradient(x: &Float, weight: &Float, gy: &Float, how: Convolution) -> Float {
        generic::conv2d_input_gradient::<Self>(x, weight, gy, how.geometry)
    }

    fn conv2d_weight_gradient(x: &Float, weight: &Float, gy: &Float, how: Convolution) -> (Float, Float) {
        generic::conv2d_weight_gradient::<Self>(x, weight, gy, how.geometry)
    }
}

impl NormOps for Cube {
    fn group_norm_nhwc(
        x: Float,
        gamma: Float,
        beta: Float,
        scale: Optional<Self>,
        shift: Optional<Self>,
        options: super::GroupNormOptions,
    ) -> Float {
        let parameters = NormParameters {
            gamma,
            beta,
            scale: scale.into_option(),
            shift: shift.into_option(),
            options,
        };
        generic::group_norm_with_statistics::<Self>(x, &parameters).0
    }
}

impl NormGradients for Cube {
    fn group_norm_with_statistics(x: Float, parameters: &NormParameters<Self>) -> (Float, Float) {
        generic::group_norm_with_statistics::<Self>(x, parameters)
    }

    fn group_norm_rounded(x: Float, parameters: &NormParameters<Self>) -> (Float, Float) {
        generic::group_norm_with_statistics::<Self>(x, parameters)
    }

    fn group_norm_keeping(x: Float, parameters: &NormParameters<Self>) -> (Float, Float, Float) {
        let (y, statistics) = generic::group_norm_with_statistics::<Self>(x.clone(), parameters);
        (y, statistics, Self::pack(x))
    }

    fn group_norm_gradient(
        x: Float,
        parameters: &NormParameters<Self>,
        statistics: Float,
        gy: Float,
        again: bool,
    ) -> NormGradient<Self> {
        let x = Self::unpack(x);
        let again = again.then(|| generic::group_norm_with_statistics::<Self>(x.clone(), parameters).0);
        NormGradient {
            again,
            ..generic::group_norm_gradient::<Self>(x, parameters, statistics, gy)
        }
    }
}

impl NormConvOps for Cube {
    fn norm_conv2d_nhwc(
        x: Float,
        norm: NormArguments<Self>,
        conv: ConvArguments<Self>,
        settings: Settings,
    ) -> Float {
        norm_conv::unfused::<Self>(x, norm, conv, settings)
    }
}

impl RecomputeOps for Cube {
    fn recomputed_block(
        y: Float,
        _witness: Float,
        _x: Float,
        _told: Optional<Self>,
        _shortcut: Float,
        _block: Arc<dyn Recompute>,
    ) -> Float {
        y
    }
}

impl Lift for Cube {
    fn lift(tensor: Float) -> Tensor<4> {
        Tensor::from_primitive::<Self>(tensor)
    }

    fn lower<const D: usize>(tensor: Tensor<D>) -> Float {
        tensor
            .try_into_primitive::<Self>()
            .expect("a block's gradients are where its inputs are")
    }
}

impl AttentionOps for Cube {
    fn multi_head_attention(q: Float, k: Float, v: Float, options: AttentionOptions) -> Float {
        generic::attention_with_log_sums::<Self>(&[q, k, v], options).0
    }
}

impl AttentionGradients for Cube {
    fn attention_with_log_sums(qkv: &Qkv<Self>, options: AttentionOptions) -> (Float, Float) {
        generic::attention_with_log_sums::<Self>(qkv, options)
    }

    fn attention_gradient(
        qkv: Qkv<Self>,
        output: Float,
        log_sums: Float,
        gradient: Float,
        options: AttentionOptions,
    ) -> Qkv<Self> {
        generic::attention_gradient::<Self>(qkv, output, log_sums, gradient, options)
    }
}

impl ConcatOps for Cube {
    fn concat_channels(a: Float, b: Float) -> Float {
        generic::concat_channels::<Self>(a, b)
    }
}

impl ConcatGradient for Cube {
    fn channels_of(a: &Float) -> usize {
        let [.., channels] = a.shape().dims::<4>();
        channels
    }

    fn split_channels(gy: Float, first: usize) -> (Float, Float) {
        generic::split_channels::<Self>(gy, first)
    }
}

impl PerPictureOps for Cube {
    fn add_per_picture_nhwc(x: Float, vector: Float) -> Float {
        generic::add_per_picture::<Self>(x, vector)
    }
}

impl PerPictureGradient for Cube {
    fn sum_positions(gy: &Float) -> Float {
        generic::sum_positions::<Self>(gy)
    }
}

impl SiluOps for Cube {
    fn silu_forward(x: Float) -> Float {
        generic::silu::<Self>(x)
    }
}

impl SiluGradient for Cube {
    fn silu_gradient(x: Float, gy: Float) -> Float {
        generic::silu_gradient::<Self>(x, gy)
    }
}

impl GegluOps for Cube {
    fn geglu_forward(x: Float) -> Float {
        generic::geglu::<Self>(x)
    }
}

impl GegluGradient for Cube {
    fn geglu_gradient(x: Float, gy: Float) -> Float {
        generic::geglu_gradient::<Self>(x, gy)
    }
}

impl UpsampleOps for Cube {
    fn upsample_nearest_nhwc(x: Float, size: [usize; 2]) -> Float {
        generic::upsample_nearest::<Self>(x, size)
    }
}

impl UpsampleGradient for Cube {
    fn size_of(x: &Float) -> [usize; 2] {
        let [_, height, width, _] = x.shape().dims();
        [height, width]
    }

    fn upsample_nearest_gradient(gy: Float, size: [usize; 2]) -> Float {
        generic::upsample_nearest_gradient::<Self>(gy, size)
    }
}

impl OptimizerOps for Cube {
    fn adamw_step(
        parameter: Float,
        gradient: Float,
        first_moment: Float,
        second_moment: Float,
        hyper: AdamW,
    ) -> (Float, Float, Float) {
        generic::adamw_step::<Self>(parameter, gradient, first_moment, second_moment, hyper)
    }

    fn moving_average_step(average: Float, parameter: Float, decay: f64) -> Float {
        generic::moving_average_step::<Self>(average, parameter, decay)
    }

    fn sum_of_squares(x: Float) -> Float {
        generic::sum_of_squares::<Self>(x)
    }
}
