//! Whether an operation's parameters are trained, so that a layer that is frozen keeps and computes nothing for them.

use burn::backend::{
    Backend,
    autodiff::{
        checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
        grads::Gradients,
        ops::{Backward, NodeGuard, Ops, OpsKind},
    },
};

/// Whether a gradient is wanted at any of these tensors. Burn says it of an operation that is being prepared, and of no node by itself.
pub(super) fn learn<B: Backend, C: CheckpointStrategy, const N: usize>(nodes: [NodeGuard; N]) -> bool {
    #[derive(Debug)]
    struct Asked;
    impl<B: Backend, const N: usize> Backward<B, N> for Asked {
        type State = ();
        fn backward(self, _: Ops<Self::State, N>, _: &mut Gradients, _: &mut Checkpointer) {}
    }
    let asked = <Asked as Backward<B, N>>::prepare::<C>(Asked, nodes);
    matches!(asked.compute_bound().stateful(), OpsKind::Tracked(_))
}
