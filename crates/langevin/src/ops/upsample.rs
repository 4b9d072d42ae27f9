//! Nearest-neighbour resizing, as the upsampling blocks use it.

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
use langevin_kernels::resample::{self, UpsampleShape};

use super::flex;

/// Every position takes the value of the nearest one of `x`, as `torch.nn.functional.interpolate(mode="nearest")` chooses it.
///
/// # Shapes
/// - `x`: `[batch, height, width, channels]`, channels last
/// - the result: `[batch, size[0], size[1], channels]`
pub fn upsample_nearest(x: Tensor<4>, size: [usize; 2]) -> Tensor<4> {
    Tensor::from_dispatch(Dispatch::upsample_nearest_nhwc(x.into_dispatch(), size))
}

/// The forward, dispatched to the tensor's backend.
#[backend_extension(Flex, Cube: cfg(feature = "cube"), Autodiff)]
pub(crate) trait UpsampleOps: Backend {
    fn upsample_nearest_nhwc(x: FloatTensor<Self>, size: [usize; 2]) -> FloatTensor<Self>;
}

/// The gradient: the sum over the positions that took a value.
pub(crate) trait UpsampleGradient: Backend {
    fn size_of(x: &FloatTensor<Self>) -> [usize; 2];
    fn upsample_nearest_gradient(gy: FloatTensor<Self>, size: [usize; 2]) -> FloatTensor<Self>;
}

impl<B: UpsampleOps + UpsampleGradient, C: CheckpointStrategy> UpsampleOps for Autodiff<B, C> {
    fn upsample_nearest_nhwc(x: FloatTensor<Self>, size: [usize; 2]) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct UpsampleBackward;
        impl<B: UpsampleGradient> Backward<B, 1> for UpsampleBackward {
            type State = [usize; 2];
            fn backward(
                self,
                ops: Ops<Self::State, 1>,
                grads: &mut Gradients,
                _checkpointer: &mut Checkpointer,
            ) {
                let gy = grads.consume::<B>(&ops.node);
                let [node] = ops.parents;
                if let Some(node) = node {
                    grads.register::<B>(node.id, B::upsample_nearest_gradient(gy, ops.state));
                }
            }
        }
        let nodes = [x.node()];
        let x = x.into_primitive();
        let original = B::size_of(&x);
        match UpsampleBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(original, B::upsample_nearest_nhwc(x, size)),
            OpsKind::UnTracked(prep) => prep.finish(B::upsample_nearest_nhwc(x, size)),
        }
    }
}

impl UpsampleOps for Flex {
    fn upsample_nearest_nhwc(x: FlexTensor, size: [usize; 2]) -> FlexTensor {
        let x = flex::contiguous(x);
        let [batch, height, width, channels] = flex::dims(&x);
        let shape = UpsampleShape {
            batch,
            height,
            width,
            channels,
            out_height: size[0],
            out_width: size[1],
        };
        let mut y = flex::room(batch * size[0] * size[1] * channels);
        resample::upsample_nearest_forward(&shape, flex::floats(&x), &mut y);
        flex::tensor(y, [batch, size[0], size[1], channels])
    }
}

impl UpsampleGradient for Flex {
    fn size_of(x: &FlexTensor) -> [usize; 2] {
        let [_, height, width, _] = flex::dims(x);
        [height, width]
    }

    fn upsample_nearest_gradient(gy: FlexTensor, size: [usize; 2]) -> FlexTensor {
        let gy = flex::contiguous(gy);
        let [batch, out_height, out_width, channels] = flex::dims(&gy);
        let shape = UpsampleShape {
            batch,
            height: size[0],
            width: size[1],
            channels,
            out_height,
            out_width,
        };
        let mut gx = flex::room(batch * size[0] * size[1] * channels);
        resample::upsample_nearest_backward(&shape, flex::floats(&gy), &mut gx);
        flex::tensor(gx, [batch, size[0], size[1], channels])
    }
}
