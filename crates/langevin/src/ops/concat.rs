//! Two pictures' channels side by side.

use burn::backend::{
    Backend, Dispatch, Flex,
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
use langevin_kernels::elementwise;

use super::flex;

/// The channels of `a`, then those of `b`.
///
/// # Shapes
/// - `a`, `b`: `[batch, height, width, a's or b's channels]`, channels last
/// - the result: `[batch, height, width, a's channels + b's channels]`
pub fn concat(a: Tensor<4>, b: Tensor<4>) -> Tensor<4> {
    Tensor::from_dispatch(Dispatch::concat_channels(a.into_dispatch(), b.into_dispatch()))
}

/// The forward, dispatched to the tensor's backend.
#[backend_extension(Flex, Cube: cfg(feature = "cube"), Autodiff)]
pub(crate) trait ConcatOps: Backend {
    fn concat_channels(a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// The gradient: the channels apart again.
pub(crate) trait ConcatGradient: Backend {
    fn channels_of(a: &FloatTensor<Self>) -> usize;
    fn split_channels(gy: FloatTensor<Self>, first: usize) -> (FloatTensor<Self>, FloatTensor<Self>);
}

impl<B: ConcatOps + ConcatGradient, C: CheckpointStrategy> ConcatOps for Autodiff<B, C> {
    fn concat_channels(a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct ConcatBackward;
        impl<B: ConcatGradient> Backward<B, 2> for ConcatBackward {
            type State = usize;
            fn backward(
                self,
                ops: Ops<Self::State, 2>,
                grads: &mut Gradients,
                _checkpointer: &mut Checkpointer,
            ) {
                let gy = grads.consume::<B>(&ops.node);
                let [a, b] = ops.parents;
                let (ga, gb) = B::split_channels(gy, ops.state);
                if let Some(node) = a {
                    grads.register::<B>(node.id, ga);
                }
                if let Some(node) = b {
                    grads.register::<B>(node.id, gb);
                }
            }
        }
        let nodes = [a.node(), b.node()];
        let (a, b) = (a.into_primitive(), b.into_primitive());
        let first = B::channels_of(&a);
        match ConcatBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(first, B::concat_channels(a, b)),
            OpsKind::UnTracked(prep) => prep.finish(B::concat_channels(a, b)),
        }
    }
}

impl ConcatOps for Flex {
    fn concat_channels(a: FlexTensor, b: FlexTensor) -> FlexTensor {
        let (a, b) = (flex::contiguous(a), flex::contiguous(b));
        let [batch, height, width, first] = flex::dims(&a);
        let [.., second] = flex::dims::<4>(&b);
        let mut y = flex::room(batch * height * width * (first + second));
        elementwise::concat_channels(batch * height * width, flex::floats(&a), flex::floats(&b), &mut y);
        flex::tensor(y, [batch, height, width, first + second])
    }
}

impl ConcatGradient for Flex {
    fn channels_of(a: &FlexTensor) -> usize {
        let [.., channels] = flex::dims::<4>(a);
        channels
    }

    fn split_channels(gy: FlexTensor, first: usize) -> (FlexTensor, FlexTensor) {
        let gy = flex::contiguous(gy);
        let [batch, height, width, channels] = flex::dims(&gy);
        let second = channels - first;
        let positions = batch * height * width;
        let (mut ga, mut gb) = (flex::room(positions * first), flex::room(positions * second));
        elementwise::split_channels(positions, flex::floats(&gy), &mut ga, &mut gb);
        (
            flex::tensor(ga, [batch, height, width, first]),
            flex::tensor(gb, [batch, height, width, second]),
        )
    }
}
