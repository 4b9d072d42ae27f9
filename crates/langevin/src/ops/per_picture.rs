//! A vector of each picture added to all its positions: how the time embedding enters a residual block.

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
use langevin_kernels::per_picture;

use super::flex;

/// `x + vector`, the vector of a picture at each of its positions.
///
/// # Shapes
/// - `x` and the result: `[batch, height, width, channels]`, channels last
/// - `vector`: `[batch, channels]`
pub fn add_per_picture(x: Tensor<4>, vector: Tensor<2>) -> Tensor<4> {
    Tensor::from_dispatch(Dispatch::add_per_picture_nhwc(
        x.into_dispatch(),
        vector.into_dispatch(),
    ))
}

/// The forward, dispatched to the tensor's backend.
#[backend_extension(Flex, Cube: cfg(feature = "cube"), Autodiff)]
pub(crate) trait PerPictureOps: Backend {
    fn add_per_picture_nhwc(x: FloatTensor<Self>, vector: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// The gradient at the vector: the sum over the positions.
pub(crate) trait PerPictureGradient: Backend {
    fn sum_positions(gy: &FloatTensor<Self>) -> FloatTensor<Self>;
}

impl<B: PerPictureOps + PerPictureGradient, C: CheckpointStrategy> PerPictureOps for Autodiff<B, C> {
    fn add_per_picture_nhwc(x: FloatTensor<Self>, vector: FloatTensor<Self>) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct AddPerPictureBackward;
        impl<B: PerPictureGradient> Backward<B, 2> for AddPerPictureBackward {
            type State = ();
            fn backward(
                self,
                ops: Ops<Self::State, 2>,
                grads: &mut Gradients,
                _checkpointer: &mut Checkpointer,
            ) {
                let gy = grads.consume::<B>(&ops.node);
                let [x, vector] = ops.parents;
                if let Some(node) = vector {
                    grads.register::<B>(node.id, B::sum_positions(&gy));
                }
                if let Some(node) = x {
                    grads.register::<B>(node.id, gy);
                }
            }
        }
        let nodes = [x.node(), vector.node()];
        let (x, vector) = (x.into_primitive(), vector.into_primitive());
        match AddPerPictureBackward
            .prepare::<C>(nodes)
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prep) => prep.finish((), B::add_per_picture_nhwc(x, vector)),
            OpsKind::UnTracked(prep) => prep.finish(B::add_per_picture_nhwc(x, vector)),
        }
    }
}

impl PerPictureOps for Flex {
    fn add_per_picture_nhwc(x: FlexTensor, vector: FlexTensor) -> FlexTensor {
        let (mut x, vector) = (flex::contiguous(x), flex::contiguous(vector));
        let [.., channels] = flex::dims::<4>(&x);
        per_picture::add_per_picture(channels, flex::floats(&vector), flex::floats_mut(&mut x));
        x
    }
}

impl PerPictureGradient for Flex {
    fn sum_positions(gy: &FlexTensor) -> FlexTensor {
        let gy = flex::contiguous(gy.clone());
        let [batch, _, _, channels] = flex::dims(&gy);
        let mut sums = flex::room(batch * channels);
        per_picture::sum_positions(channels, flex::floats(&gy), &mut sums);
        flex::tensor(sums, [batch, channels])
    }
}
