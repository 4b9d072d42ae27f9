//! A block of layers whose backward computes its forward again, so that only its inputs are kept (Chen et al. 2016).

use std::{fmt::Debug, sync::Arc};

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

use super::optional::{self, Optional};

/// What a block takes: the same picture twice, for its layers and for what goes past them, and what it is told besides.
#[derive(Clone, Debug)]
pub(crate) struct BlockInputs {
    /// `[batch, height, width, channels]`
    pub x: Tensor<4>,
    /// As `x`: a tensor of its own, so that its gradient arrives on its own, in the order in which a backward without this adds it.
    pub shortcut: Tensor<4>,
    /// `[batch, length, dimension]`
    pub told: Option<Tensor<3>>,
}

/// A block that can be computed again.
pub(crate) trait Recompute: Debug + Send + Sync {
    /// From the gradient at the block's result to those at its inputs. Those of its parameters it keeps.
    fn gradients(&self, gy: Tensor<4>) -> BlockInputs;
}

/// `y`, the block's result outside the graph, as a part of the graph. `witness` is a parameter of the block: where it is trained, so is
/// the block, whether or not its input depends on anything that is.
pub(crate) fn recomputed<const D: usize>(
    y: Tensor<4>,
    witness: Tensor<D>,
    inputs: BlockInputs,
    block: Arc<dyn Recompute>,
) -> Tensor<4> {
    Tensor::from_dispatch(Dispatch::recomputed_block(
        y.into_dispatch(),
        witness.into_dispatch(),
        inputs.x.into_dispatch(),
        optional::dispatch(inputs.told),
        inputs.shortcut.into_dispatch(),
        block,
    ))
}

/// Dispatched to the tensor's backend.
#[backend_extension(Flex, Cube: cfg(feature = "cube"), Autodiff)]
pub(crate) trait RecomputeOps: Backend {
    fn recomputed_block(
        y: FloatTensor<Self>,
        witness: FloatTensor<Self>,
        x: FloatTensor<Self>,
        #[extension_type] told: Optional<Self>,
        shortcut: FloatTensor<Self>,
        block: Arc<dyn Recompute>,
    ) -> FloatTensor<Self>;
}

/// Between a backend's tensors and those of any.
pub(crate) trait Lift: Backend {
    fn lift(tensor: FloatTensor<Self>) -> Tensor<4>;
    /// # Panics
    /// If the tensor is another backend's; a block stays on its device.
    fn lower<const D: usize>(tensor: Tensor<D>) -> FloatTensor<Self>;
}

impl<B: RecomputeOps + Lift, C: CheckpointStrategy> RecomputeOps for Autodiff<B, C> {
    fn recomputed_block(
        y: FloatTensor<Self>,
        witness: FloatTensor<Self>,
        x: FloatTensor<Self>,
        told: Optional<Self>,
        shortcut: FloatTensor<Self>,
        block: Arc<dyn Recompute>,
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct RecomputeBackward;
        impl<B: Lift> Backward<B, 4> for RecomputeBackward {
            type State = Arc<dyn Recompute>;
            fn backward(
                self,
                ops: Ops<Self::State, 4>,
                grads: &mut Gradients,
                _checkpointer: &mut Checkpointer,
            ) {
                let gy = B::lift(grads.consume::<B>(&ops.node));
                let [_, x, told, shortcut] = ops.parents;
                let gradients = ops.state.gradients(gy);
                // The shortcut's first, as it comes from the block's last layer.
                if let Some(node) = shortcut {
                    grads.register::<B>(node.id, B::lower(gradients.shortcut));
                }
                if let (Some(node), Some(told)) = (told, gradients.told) {
                    grads.register::<B>(node.id, B::lower(told));
                }
                if let Some(node) = x {
                    grads.register::<B>(node.id, B::lower(gradients.x));
                }
            }
        }
        let told = told.into_option();
        // Burn walks a graph from the last parent to the first, and adds up gradients in the order of its walk: the shortcut, then what
        // the block is told, then the rest is how it meets them in a block that is not computed again.
        let nodes = [
            witness.node(),
            x.node(),
            told.as_ref().unwrap_or(&x).node(),
            shortcut.node(),
        ];
        let y = y.into_primitive();
        match RecomputeBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(block, y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }
}

impl RecomputeOps for Flex {
    fn recomputed_block(
        y: FlexTensor,
        _witness: FlexTensor,
        _x: FlexTensor,
        _told: Optional<Self>,
        _shortcut: FlexTensor,
        _block: Arc<dyn Recompute>,
    ) -> FlexTensor {
        y
    }
}

impl Lift for Flex {
    fn lift(tensor: FlexTensor) -> Tensor<4> {
        Tensor::from_primitive::<Self>(tensor)
    }

    fn lower<const D: usize>(tensor: Tensor<D>) -> FlexTensor {
        tensor
            .try_into_primitive::<Self>()
            .expect("a block's gradients are where its inputs are")
    }
}
