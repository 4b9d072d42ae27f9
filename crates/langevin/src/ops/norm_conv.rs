//! A group normalisation and the convolution that reads it, as one operation, so that what is between them need not be kept.

use burn::backend::{
    Backend, Dispatch, ExtensionType, Flex,
    autodiff::{
        Autodiff,
        checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
        grads::Gradients,
        ops::{Backward, Ops, OpsKind},
    },
    backend_extension,
    flex::FlexTensor,
    tensor::FloatTensor,
};
use burn::tensor::Tensor;

use super::{
    Geometry, GroupNormOptions,
    conv::{ConvGradients, ConvOps, Convolution},
    kept::{KeptAs, kept_as},
    norm::{KeptNorm, NormGradients, NormOps, NormParameters},
    optional::{self, Optional},
};

/// [`conv2d`](super::conv2d) of [`group_norm`](super::group_norm): `silu?(group_norm(x) · gamma + beta …) * weight + bias + residual`.
///
/// Keeps what the two keep. Where activations are kept as bf16 (see [`keeping`](super::keeping)), the convolution's input is not kept but
/// computed again from `x`.
///
/// # Shapes
/// Those of the two: the normalisation's result is the convolution's input.
pub fn norm_conv2d(
    x: Tensor<4>,
    [gamma, beta]: [Tensor<1>; 2],
    modulation: Option<(Tensor<2>, Tensor<2>)>,
    options: GroupNormOptions,
    (weight, bias): (Tensor<4>, Option<Tensor<1>>),
    residual: Option<Tensor<4>>,
    geometry: Geometry,
) -> Tensor<4> {
    let (scale, shift) = modulation.unzip();
    Tensor::from_dispatch(Dispatch::norm_conv2d_nhwc(
        x.into_dispatch(),
        NormArguments {
            gamma: gamma.into_dispatch(),
            beta: beta.into_dispatch(),
            scale: optional::dispatch(scale),
            shift: optional::dispatch(shift),
        },
        ConvArguments {
            weight: weight.into_dispatch(),
            bias: optional::dispatch(bias),
            residual: optional::dispatch(residual),
        },
        Settings {
            options,
            how: Convolution::now(geometry),
        },
    ))
}

/// The normalisation's tensors, besides its input.
#[derive(ExtensionType)]
pub(crate) struct NormArguments<B: Backend> {
    gamma: FloatTensor<B>,
    beta: FloatTensor<B>,
    #[extension_type]
    scale: Optional<B>,
    #[extension_type]
    shift: Optional<B>,
}

/// The convolution's, besides its input.
#[derive(ExtensionType)]
pub(crate) struct ConvArguments<B: Backend> {
    weight: FloatTensor<B>,
    #[extension_type]
    bias: Optional<B>,
    #[extension_type]
    residual: Optional<B>,
}

/// What both do besides their tensors.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    options: GroupNormOptions,
    how: Convolution,
}

/// The forward, dispatched to the tensor's backend.
#[backend_extension(Flex, Cube: cfg(feature = "cube"), Autodiff)]
pub(crate) trait NormConvOps: Backend {
    fn norm_conv2d_nhwc(
        x: FloatTensor<Self>,
        #[extension_type] norm: NormArguments<Self>,
        #[extension_type] conv: ConvArguments<Self>,
        settings: Settings,
    ) -> FloatTensor<Self>;
}

/// One after the other, for backends without a graph.
pub(super) fn unfused<B: NormOps + ConvOps>(
    x: FloatTensor<B>,
    norm: NormArguments<B>,
    conv: ConvArguments<B>,
    settings: Settings,
) -> FloatTensor<B> {
    let NormArguments {
        gamma,
        beta,
        scale,
        shift,
    } = norm;
    let normed = B::group_norm_nhwc(x, gamma, beta, scale, shift, settings.options);
    B::conv2d_nhwc(normed, conv.weight, conv.bias, conv.residual, settings.how)
}

impl NormConvOps for Flex {
    fn norm_conv2d_nhwc(
        x: FlexTensor,
        norm: NormArguments<Self>,
        conv: ConvArguments<Self>,
        settings: Settings,
    ) -> FlexTensor {
        unfused::<Self>(x, norm, conv, settings)
    }
}

/// What the backward works with.
#[derive(Clone, Debug)]
struct State<B: Backend> {
    norm: KeptNorm<B>,
    /// The convolution's input, where it is not computed again.
    normed: Option<FloatTensor<B>>,
    weight: FloatTensor<B>,
    has_bias: bool,
    has_residual: bool,
    how: Convolution,
}

impl<B, C> NormConvOps for Autodiff<B, C>
where
    B: NormConvOps + NormOps + ConvOps + ConvGradients + NormGradients,
    C: CheckpointStrategy,
{
    fn norm_conv2d_nhwc(
        x: FloatTensor<Self>,
        norm: NormArguments<Self>,
        conv: ConvArguments<Self>,
        settings: Settings,
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct NormConvBackward;
        impl<B: ConvGradients + NormGradients> Backward<B, 8> for NormConvBackward {
            type State = State<B>;
            fn backward(
                self,
                ops: Ops<Self::State, 8>,
                grads: &mut Gradients,
                _checkpointer: &mut Checkpointer,
            ) {
                let gy = grads.consume::<B>(&ops.node);
                let [
                    x,
                    gamma,
                    beta,
                    scale,
                    shift,
                    weight_node,
                    bias_node,
                    residual_node,
                ] = ops.parents;
                let State {
                    norm,
                    normed,
                    weight,
                    has_bias,
                    has_residual,
                    how,
                } = ops.state;
                let bias_node = bias_node.filter(|_| has_bias);
                let learns = weight_node.is_some() || bias_node.is_some();
                let learn = |normed: FloatTensor<B>, gy: &FloatTensor<B>, grads: &mut Gradients| {
                    let (gw, gb) = B::conv2d_weight_gradient(&normed, &weight, gy, how);
                    if let Some(node) = weight_node {
                        grads.register::<B>(node.id, gw);
                    }
                    if let Some(node) = bias_node {
                        grads.register::<B>(node.id, gb);
                    }
                };
                // What was kept makes room for its gradient first. What was not, the normalisation comes upon on its way back.
                let wanted = learns && normed.is_none();
                let mut learn = Some(learn).filter(|_| learns);
                if let Some(normed) = normed
                    && let Some(learn) = learn.take()
                {
                    learn(normed, &gy, grads);
                }
                let normed_gradient = B::conv2d_input_gradient(norm.x(), &weight, &gy, how);
                let parents = [x, gamma, beta, scale, shift].map(|node| node.map(|node| node.id));
                let again = norm.backward(normed_gradient, parents, grads, wanted);
                if let (Some(normed), Some(learn)) = (again, learn) {
                    learn(normed, &gy, grads);
                }
                if let Some(node) = residual_node.filter(|_| has_residual) {
                    grads.register::<B>(node.id, gy);
                }
            }
        }
        let (scale, shift) = (norm.scale.into_option(), norm.shift.into_option());
        let (bias, residual) = (conv.bias.into_option(), conv.residual.into_option());
        let (gamma, beta, weight) = (norm.gamma, norm.beta, conv.weight);
        // Burn wants a fixed number of parents: others stand in for an absent one, and nothing is registered for it.
        let nodes = [
            x.node(),
            gamma.node(),
            beta.node(),
            scale.as_ref().unwrap_or(&gamma).node(),
            shift.as_ref().unwrap_or(&gamma).node(),
            weight.node(),
            bias.as_ref().unwrap_or(&weight).node(),
            residual.as_ref().unwrap_or(&weight).node(),
        ];
        let (has_bias, has_residual) = (bias.is_some(), residual.is_some());
        let learns = weight.is_tracked() || bias.as_ref().is_some_and(|bias| bias.is_tracked());
        let id = x.id();
        let inner = |tensor: Option<FloatTensor<Self>>| tensor.map(|tensor| tensor.into_primitive());
        let x = x.into_primitive();
        let parameters = NormParameters::<B> {
            gamma: gamma.into_primitive(),
            beta: beta.into_primitive(),
            scale: inner(scale),
            shift: inner(shift),
            options: settings.options,
        };
        let (weight, how) = (weight.into_primitive(), settings.how);
        let (bias, residual) = (Optional::from(inner(bias)), Optional::from(inner(residual)));
        match NormConvBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let (normed, norm) = KeptNorm::forward(x, parameters, id);
                let state = State {
                    norm,
                    normed: (learns && kept_as() == KeptAs::Float32).then(|| normed.clone()),
                    weight: weight.clone(),
                    has_bias,
                    has_residual,
                    how,
                };
                prep.finish(state, B::conv2d_nhwc(normed, weight, bias, residual, how))
            }
            OpsKind::UnTracked(prep) => {
                let normed = parameters.without_graph(x);
                prep.finish(B::conv2d_nhwc(normed, weight, bias, residual, how))
            }
        }
    }
}
