//! Group normalisation with an optional scale and shift of each channel and an optional SiLU, in one pass.

use burn::backend::{
    Backend, Dispatch, Flex,
    autodiff::{
        Autodiff, NodeId,
        checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
        grads::Gradients,
        ops::{Backward, Ops, OpsKind},
    },
    backend_extension,
    flex::FlexTensor,
    tensor::FloatTensor,
};
use burn::tensor::{DType, Tensor};
use langevin_kernels::norm;

use super::{
    flex,
    kept::{Kept, KeptAs, Packing, kept_as},
    optional::{self, Optional},
};

/// What a group normalisation does besides its tensors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GroupNormOptions {
    /// Into how many groups the channels fall.
    pub groups: usize,
    /// Added to the variance.
    pub eps: f32,
    /// Whether SiLU follows.
    pub silu: bool,
}

/// `silu?(group_norm(x) · gamma + beta)`, and with `modulation = (scale, shift)`
/// `silu?((group_norm(x) · gamma + beta) · (1 + scale) + shift)`, as `resnet_time_scale_shift="scale_shift"` wants it.
///
/// Keeps its inputs (`x` as [`keeping`](super::keeping) says) and each group's mean and standard deviation for the backward.
///
/// # Shapes
/// - `x` and the result: `[batch, height, width, channels]`, channels last
/// - `gamma`, `beta`: `[channels]`
/// - `scale`, `shift`: `[batch, channels]`
pub fn group_norm(
    x: Tensor<4>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    modulation: Option<(Tensor<2>, Tensor<2>)>,
    options: GroupNormOptions,
) -> Tensor<4> {
    let (scale, shift) = modulation.unzip();
    Tensor::from_dispatch(Dispatch::group_norm_nhwc(
        x.into_dispatch(),
        gamma.into_dispatch(),
        beta.into_dispatch(),
        optional::dispatch(scale),
        optional::dispatch(shift),
        options,
    ))
}

/// `layer_norm(x) · gamma + beta` over the last dimension: a group normalisation in which every token is a picture of one pixel
/// with one group.
///
/// # Shapes
/// - `x` and the result: `[..., channels]`
/// - `gamma`, `beta`: `[channels]`
pub fn layer_norm<const D: usize>(x: Tensor<D>, gamma: Tensor<1>, beta: Tensor<1>, eps: f32) -> Tensor<D> {
    let shape = x.dims();
    let [channels] = gamma.dims();
    let tokens = shape[..D - 1].iter().product::<usize>();
    let options = GroupNormOptions {
        groups: 1,
        eps,
        silu: false,
    };
    group_norm(x.reshape([tokens, 1, 1, channels]), gamma, beta, None, options).reshape(shape)
}

/// The forward, dispatched to the tensor's backend.
#[backend_extension(Flex, Cube: cfg(feature = "cube"), Autodiff)]
pub(crate) trait NormOps: Backend {
    fn group_norm_nhwc(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        #[extension_type] scale: Optional<Self>,
        #[extension_type] shift: Optional<Self>,
        options: GroupNormOptions,
    ) -> FloatTensor<Self>;
}

/// What the forward is given besides `x`.
#[derive(Clone, Debug)]
pub(crate) struct NormParameters<B: Backend> {
    pub(super) gamma: FloatTensor<B>,
    pub(super) beta: FloatTensor<B>,
    pub(super) scale: Option<FloatTensor<B>>,
    pub(super) shift: Option<FloatTensor<B>>,
    pub(super) options: GroupNormOptions,
}

/// The gradients of all that [`NormOps::group_norm_nhwc`] takes.
pub(crate) struct NormGradient<B: Backend> {
    pub(super) x: FloatTensor<B>,
    pub(super) gamma: FloatTensor<B>,
    pub(super) beta: FloatTensor<B>,
    pub(super) modulation: Option<(FloatTensor<B>, FloatTensor<B>)>,
    /// The forward's result, where it was wanted.
    pub(super) again: Option<FloatTensor<B>>,
}

/// The forward that also returns what the backward needs, and the backward.
pub(crate) trait NormGradients: Packing {
    /// The result, and the mean and reciprocal standard deviation of every group: `[batch, groups, 2]`.
    fn group_norm_with_statistics(
        x: FloatTensor<Self>,
        parameters: &NormParameters<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);
    /// The same of `x` rounded to bf16 after its statistics were taken.
    fn group_norm_rounded(
        x: FloatTensor<Self>,
        parameters: &NormParameters<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);
    /// The same, and `x` rounded.
    fn group_norm_keeping(
        x: FloatTensor<Self>,
        parameters: &NormParameters<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
    /// The gradients, and the result once more where it is wanted. `x` may have been kept as bf16.
    fn group_norm_gradient(
        x: FloatTensor<Self>,
        parameters: &NormParameters<Self>,
        statistics: FloatTensor<Self>,
        gy: FloatTensor<Self>,
        again: bool,
    ) -> NormGradient<Self>;
}

/// What a normalisation keeps for its backward.
#[derive(Clone, Debug)]
pub(super) struct KeptNorm<B: Backend> {
    x: Kept<B>,
    parameters: NormParameters<B>,
    statistics: FloatTensor<B>,
}

impl<B: NormGradients> KeptNorm<B> {
    /// The forward, and what it keeps. `id` is the node of `x`.
    pub(super) fn forward(
        x: FloatTensor<B>,
        parameters: NormParameters<B>,
        id: NodeId,
    ) -> (FloatTensor<B>, Self) {
        let ((y, statistics), x) = match (kept_as(), Kept::known(id)) {
            (KeptAs::Float32, _) => {
                let kept = Kept::new(&x, id);
                (B::group_norm_with_statistics(x, &parameters), kept)
            }
            (KeptAs::Bf16, Some(kept)) => (B::group_norm_rounded(x, &parameters), kept),
            (KeptAs::Bf16, None) => {
                let (y, statistics, x) = B::group_norm_keeping(x, &parameters);
                ((y, statistics), Kept::packed_by(id, || x))
            }
        };
        let kept = Self {
            x,
            parameters,
            statistics,
        };
        (y, kept)
    }

    /// The input as it is kept, for its shape.
    pub(super) fn x(&self) -> &FloatTensor<B> {
        self.x.as_kept()
    }

    /// Registers the gradients at those of `x`, `gamma`, `beta`, `scale` and `shift` that want them. Returns the forward's result once
    /// more if `again`.
    pub(super) fn backward(
        self,
        gy: FloatTensor<B>,
        parents: [Option<NodeId>; 5],
        grads: &mut Gradients,
        again: bool,
    ) -> Option<FloatTensor<B>> {
        let x = self.x.as_kept().clone();
        let gradient = B::group_norm_gradient(x, &self.parameters, self.statistics, gy, again);
        let [x, gamma, beta, scale, shift] = parents;
        let mut pairs = vec![(x, gradient.x), (gamma, gradient.gamma), (beta, gradient.beta)];
        if let Some((gradient_scale, gradient_shift)) = gradient.modulation {
            pairs.extend([(scale, gradient_scale), (shift, gradient_shift)]);
        }
        for (node, gradient) in pairs {
            if let Some(node) = node {
                grads.register::<B>(node, gradient);
            }
        }
        gradient.again
    }
}

impl<B: NormOps> NormParameters<B> {
    /// The forward where no backward follows.
    pub(super) fn without_graph(self, x: FloatTensor<B>) -> FloatTensor<B> {
        let (scale, shift) = (self.scale.into(), self.shift.into());
        B::group_norm_nhwc(x, self.gamma, self.beta, scale, shift, self.options)
    }
}

impl<B: NormOps + NormGradients, C: CheckpointStrategy> NormOps for Autodiff<B, C> {
    fn group_norm_nhwc(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        scale: Optional<Self>,
        shift: Optional<Self>,
        options: GroupNormOptions,
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct GroupNormBackward;
        impl<B: NormGradients> Backward<B, 5> for GroupNormBackward {
            type State = KeptNorm<B>;
            fn backward(
                self,
                ops: Ops<Self::State, 5>,
                grads: &mut Gradients,
                _checkpointer: &mut Checkpointer,
            ) {
                let gy = grads.consume::<B>(&ops.node);
                let parents = ops.parents.map(|node| node.map(|node| node.id));
                ops.state.backward(gy, parents, grads, false);
            }
        }
        let (scale, shift) = (scale.into_option(), shift.into_option());
        // Burn wants a fixed number of parents: gamma stands in for an absent one, and nothing is registered for it.
        let nodes = [
            x.node(),
            gamma.node(),
            beta.node(),
            scale.as_ref().unwrap_or(&gamma).node(),
            shift.as_ref().unwrap_or(&gamma).node(),
        ];
        let id = x.id();
        let x = x.into_primitive();
        let parameters = NormParameters::<B> {
            gamma: gamma.into_primitive(),
            beta: beta.into_primitive(),
            scale: scale.map(|s| s.into_primitive()),
            shift: shift.map(|s| s.into_primitive()),
            options,
        };
        match GroupNormBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let (y, kept) = KeptNorm::forward(x, parameters, id);
                prep.finish(kept, y)
            }
            OpsKind::UnTracked(prep) => prep.finish(parameters.without_graph(x)),
        }
    }
}

impl NormOps for Flex {
    fn group_norm_nhwc(
        x: FlexTensor,
        gamma: FlexTensor,
        beta: FlexTensor,
        scale: Optional<Self>,
        shift: Optional<Self>,
        options: GroupNormOptions,
    ) -> FlexTensor {
        let parameters = NormParameters::<Self> {
            gamma,
            beta,
            scale: scale.into_option(),
            shift: shift.into_option(),
            options,
        };
        // Without a graph nothing is kept, but the numbers are those of a forward that keeps.
        match kept_as() {
            KeptAs::Float32 => Flex::group_norm_with_statistics(x, &parameters).0,
            KeptAs::Bf16 => Flex::group_norm_rounded(x, &parameters).0,
        }
    }
}

impl NormParameters<Flex> {
    /// The same with their elements in row-major order.
    fn contiguous(&self) -> Self {
        Self {
            gamma: flex::contiguous(self.gamma.clone()),
            beta: flex::contiguous(self.beta.clone()),
            scale: self.scale.clone().map(flex::contiguous),
            shift: self.shift.clone().map(flex::contiguous),
            options: self.options,
        }
    }

    /// What the kernels take of contiguous parameters.
    fn of_kernels(&self) -> norm::GroupNormParameters<'_> {
        norm::GroupNormParameters {
            eps: self.options.eps,
            gamma: flex::floats(&self.gamma),
            beta: flex::floats(&self.beta),
            scale: flex::optional_floats(&self.scale),
            shift: flex::optional_floats(&self.shift),
            silu: self.options.silu,
        }
    }
}

fn shape_of(x: &FlexTensor, options: GroupNormOptions) -> norm::GroupNormShape {
    let [batch, height, width, channels] = flex::dims(x);
    norm::GroupNormShape {
        batch,
        pixels: height * width,
        channels,
        groups: options.groups,
    }
}

/// Where a tensor of the shape of `x` is written, and `x`, unless it lies there: in its own place where nobody else wants it.
fn in_place(x: FlexTensor) -> (Option<FlexTensor>, FlexTensor) {
    if x.is_unique() {
        (None, x)
    } else {
        let room = flex::tensor(flex::room(x.layout().num_elements()), x.layout().shape().clone());
        (Some(x), room)
    }
}

/// The forward: of `x` rounded to bf16 if `rounded`, which is then written into `kept` where that is wanted.
fn forward(
    x: FlexTensor,
    parameters: &NormParameters<Flex>,
    rounded: bool,
    kept: Option<&mut [u16]>,
) -> (FlexTensor, FlexTensor) {
    let (x, parameters) = (flex::contiguous(x), parameters.contiguous());
    let shape = shape_of(&x, parameters.options);
    let (x, mut y) = in_place(x);
    let mut statistics = flex::room(shape.batch * shape.groups * 2);
    let (from, to) = (flex::optional_floats(&x), flex::floats_mut(&mut y));
    if rounded {
        let parameters = parameters.of_kernels();
        norm::group_norm_forward_bf16(&shape, from, &parameters, to, &mut statistics, kept);
    } else {
        norm::group_norm_forward(&shape, from, &parameters.of_kernels(), to, &mut statistics);
    }
    (y, flex::tensor(statistics, [shape.batch, shape.groups, 2]))
}

impl NormGradients for Flex {
    fn group_norm_with_statistics(
        x: FlexTensor,
        parameters: &NormParameters<Self>,
    ) -> (FlexTensor, FlexTensor) {
        forward(x, parameters, false, None)
    }

    fn group_norm_rounded(x: FlexTensor, parameters: &NormParameters<Self>) -> (FlexTensor, FlexTensor) {
        forward(x, parameters, true, None)
    }

    fn group_norm_keeping(
        x: FlexTensor,
        parameters: &NormParameters<Self>,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        let (n, dims) = (x.layout().num_elements(), flex::dims::<4>(&x));
        let mut kept = flex::half_room(n);
        let (y, statistics) = forward(x, parameters, true, Some(&mut kept.as_halves_mut()[..n]));
        (y, statistics, flex::half_tensor(kept, dims))
    }

    fn group_norm_gradient(
        x: FlexTensor,
        parameters: &NormParameters<Self>,
        statistics: FlexTensor,
        gy: FlexTensor,
        again: bool,
    ) -> NormGradient<Self> {
        let (x, parameters) = (flex::contiguous(x), parameters.contiguous());
        let shape = shape_of(&x, parameters.options);
        let dims = flex::dims::<4>(&x);
        let (gy, mut gx) = in_place(flex::contiguous(gy));
        let (mut ggamma, mut gbeta) = (flex::room(shape.channels), flex::room(shape.channels));
        let modulated = parameters.scale.is_some();
        let per_picture = [shape.batch, shape.channels];
        let length = if modulated {
            shape.batch * shape.channels
        } else {
            0
        };
        let (mut gscale, mut gshift) = (flex::room(length), flex::room(length));
        let gradients = norm::GroupNormGradients {
            x: flex::floats_mut(&mut gx),
            gamma: &mut ggamma,
            beta: &mut gbeta,
            scale: modulated.then_some(&mut gscale[..]),
            shift: modulated.then_some(&mut gshift[..]),
        };
        let (parameters, statistics, gy) = (
            parameters.of_kernels(),
            flex::floats(&statistics),
            flex::optional_floats(&gy),
        );
        let mut again = again.then(|| flex::room(x.layout().num_elements()));
        if x.dtype() == DType::BF16 {
            let (x, again) = (flex::halves(&x), again.as_deref_mut());
            norm::group_norm_backward_bf16(&shape, x, statistics, &parameters, gy, gradients, again);
        } else {
            let x = flex::floats(&x);
            norm::group_norm_backward(&shape, x, statistics, &parameters, gy, gradients);
            if let Some(again) = &mut again {
                let mut statistics = flex::room(statistics.len());
                norm::group_norm_forward(&shape, Some(x), &parameters, again, &mut statistics);
            }
        }
        NormGradient {
            x: gx,
            gamma: flex::tensor(ggamma, [shape.channels]),
            beta: flex::tensor(gbeta, [shape.channels]),
            modulation: modulated.then(|| {
                (
                    flex::tensor(gscale, per_picture),
                    flex::tensor(gshift, per_picture),
                )
            }),
            again: again.map(|again| flex::tensor(again, dims)),
        }
    }
}
