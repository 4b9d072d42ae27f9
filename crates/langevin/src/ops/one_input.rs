//! The way under `Autodiff` of an operation on one tensor, whose backward needs what went in.

use std::fmt;

use burn::backend::{
    autodiff::{
        Autodiff,
        checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
        grads::Gradients,
        ops::{Backward, Ops, OpsKind},
    },
    tensor::FloatTensor,
};

use super::kept::{Kept, Packing};

/// What comes of `x`.
pub(super) type Forward<B> = fn(FloatTensor<B>) -> FloatTensor<B>;
/// The gradient of `x`, from `x` and the gradient of what came of it.
pub(super) type Gradient<B> = fn(FloatTensor<B>, FloatTensor<B>) -> FloatTensor<B>;

struct OneInput<B: Packing>(Gradient<B>);

impl<B: Packing> fmt::Debug for OneInput<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OneInput")
    }
}

impl<B: Packing> Backward<B, 1> for OneInput<B> {
    type State = Kept<B>;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let gy = grads.consume::<B>(&ops.node);
        let [node] = ops.parents;
        if let Some(node) = node {
            grads.register::<B>(node.id, (self.0)(ops.state.get(), gy));
        }
    }
}

/// Does `forward`, and keeps `x` for `gradient` where one will be asked for.
pub(super) fn differentiable<B: Packing, C: CheckpointStrategy>(
    x: FloatTensor<Autodiff<B, C>>,
    forward: Forward<B>,
    gradient: Gradient<B>,
) -> FloatTensor<Autodiff<B, C>> {
    let (nodes, id) = ([x.node()], x.id());
    let x = x.into_primitive();
    match OneInput(gradient).prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish(Kept::new(&x, id), forward(x)),
        OpsKind::UnTracked(prep) => prep.finish(forward(x)),
    }
}
