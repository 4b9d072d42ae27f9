//! Gradient checkpointing: a block keeps its inputs, and its backward computes the rest again (Chen et al. 2016, "Training Deep Nets with
//! Sublinear Memory Cost"). It is `torch.utils.checkpoint` for the blocks that diffusers' `enable_gradient_checkpointing` wraps.
//!
//! Burn wants a fixed number of parents for an operation, and a block has many parameters. So the block's own backward runs in a graph of its
//! own, with copies of the parameters as leaves, and their gradients are collected beside those of the graph around it.

use std::{
    cell::RefCell,
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use burn::{
    module::{Module, ModuleVisitor, Param, ParamId},
    tensor::{self, Tensor},
};

use super::{
    adapter::{self, Strengths},
    dropout,
    lent::{self, Lent},
};
use crate::{
    ops::{self, Algorithm, BlockInputs, KeptAs, Recompute},
    random::Generator,
};

/// The flat gradients of blocks' parameters.
pub(crate) type Collected = HashMap<ParamId, Tensor<1>>;

thread_local! {
    /// Where blocks leave their parameters' gradients; `None` while they are not checkpointed.
    static COLLECTING: RefCell<Option<Arc<Mutex<Collected>>>> = const { RefCell::new(None) };
}

/// Runs a forward and its backward, both in `work`, with blocks computed again where they are needed. Returns with its result the gradients of
/// the blocks' parameters, which the backward's result does not hold.
pub(crate) fn checkpointing<R>(work: impl FnOnce() -> R) -> (R, Collected) {
    struct Restore(Option<Arc<Mutex<Collected>>>);
    impl Drop for Restore {
        fn drop(&mut self) {
            COLLECTING.set(self.0.take());
        }
    }
    let collected = Arc::default();
    let restore = Restore(COLLECTING.replace(Some(Arc::clone(&collected))));
    let done = work();
    drop(restore);
    let collected = std::mem::take(&mut *collected.lock().unwrap_or_else(PoisonError::into_inner));
    (done, collected)
}

/// What computes a block.
type Compute<M> = fn(&M, BlockInputs) -> Tensor<4>;

/// `compute(module, inputs)`, checkpointed within [`checkpointing`].
///
/// # Shapes
/// - `x`: `[batch, height, width, channels]`
/// - `told`: `[batch, length, dimension]`
pub(super) fn block<M: Module + Sync + 'static>(
    module: &M,
    x: Tensor<4>,
    told: Option<Tensor<3>>,
    compute: Compute<M>,
) -> Tensor<4> {
    let inputs = BlockInputs {
        shortcut: x.clone(),
        x,
        told,
    };
    let collecting = COLLECTING.with_borrow(Clone::clone);
    let (Some(collected), true) = (collecting, inputs.x.is_autodiff()) else {
        return compute(module, inputs);
    };
    let plain = BlockInputs {
        x: inputs.x.clone().inner(),
        shortcut: inputs.shortcut.clone().inner(),
        told: inputs.told.clone().map(Tensor::inner),
    };
    let block = Block {
        module: module.valid(),
        inputs: plain.clone(),
        compute,
        dropout: dropout::generator(),
        strengths: adapter::strengths(),
        lent: lent::held(),
        kept_as: ops::kept_as(),
        algorithm: ops::algorithm(),
        collected,
    };
    let y = compute(&block.module, plain);
    attach(module, y, inputs, Arc::new(block))
}

/// Ties the result to a trained parameter of the module, or to any if none is.
fn attach<M: Module>(module: &M, y: Tensor<4>, inputs: BlockInputs, block: Arc<dyn Recompute>) -> Tensor<4> {
    struct Attach {
        pending: Option<(Tensor<4>, BlockInputs, Arc<dyn Recompute>)>,
        attached: Option<Tensor<4>>,
    }
    impl ModuleVisitor for Attach {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if param.is_require_grad()
                && let Some((y, inputs, block)) = self.pending.take()
            {
                self.attached = Some(ops::recomputed(y, param.val(), inputs, block));
            }
        }
    }
    let mut attach = Attach {
        pending: Some((y, inputs, block)),
        attached: None,
    };
    module.visit(&mut attach);
    match (attach.attached, attach.pending) {
        (Some(y), _) => y,
        // Nothing of it is trained; what comes before may be.
        (None, Some((y, inputs, block))) => ops::recomputed(y, inputs.x.clone(), inputs, block),
        (None, None) => unreachable!("what is pending is attached"),
    }
}

/// A block between its forward and its backward.
#[derive(Debug)]
struct Block<M> {
    /// Outside the graph.
    module: M,
    inputs: BlockInputs,
    compute: Compute<M>,
    /// What dropout drew from, as that stood before.
    dropout: Option<Generator>,
    /// How strongly adapters count.
    strengths: Option<Arc<Strengths>>,
    /// What is lent to the module's layers.
    lent: Option<Arc<[Lent]>>,
    kept_as: KeptAs,
    algorithm: Algorithm,
    collected: Arc<Mutex<Collected>>,
}

impl<M: Module + Sync> Recompute for Block<M> {
    fn gradients(&self, gy: Tensor<4>) -> BlockInputs {
        let module = self.module.clone().train();
        let inputs = BlockInputs {
            x: leaf(&self.inputs.x),
            shortcut: leaf(&self.inputs.shortcut),
            told: self.inputs.told.as_ref().map(leaf),
        };
        // Dropout draws the masks of the forward again.
        let (y, _) = dropout::drawing_from(self.dropout.clone(), || {
            ops::convolving(self.algorithm, || {
                ops::keeping(self.kept_as, || {
                    adapter::adapting_as(self.strengths.clone(), || {
                        lent::lending_as(self.lent.clone(), || (self.compute)(&module, inputs.clone()))
                    })
                })
            })
        });
        // The gradient of this sum at y is gy to the bit.
        let mut backward = (y * Tensor::from_inner(gy)).sum().backward();
        self.collected
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(parameter_gradients(&module, &mut backward));
        BlockInputs {
            x: taken(inputs.x, &mut backward),
            shortcut: taken(inputs.shortcut, &mut backward),
            told: inputs.told.map(|told| taken(told, &mut backward)),
        }
    }
}

/// The tensor at the start of a graph of its own.
fn leaf<const D: usize>(tensor: &Tensor<D>) -> Tensor<D> {
    Tensor::from_inner(tensor.clone()).require_grad()
}

/// A leaf's gradient: zero where nothing depends on it.
fn taken<const D: usize>(leaf: Tensor<D>, backward: &mut tensor::Gradients) -> Tensor<D> {
    leaf.grad_remove(backward)
        .unwrap_or_else(|| leaf.inner().zeros_like())
}

/// The flat gradients of a module's parameters that a backward found, in the module's order.
pub(crate) fn parameter_gradients<M: Module>(
    module: &M,
    backward: &mut tensor::Gradients,
) -> Vec<(ParamId, Tensor<1>)> {
    struct Gather<'a> {
        backward: &'a mut tensor::Gradients,
        gathered: Vec<(ParamId, Tensor<1>)>,
    }
    impl ModuleVisitor for Gather<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if let Some(gradient) = param.val().grad_remove(self.backward) {
                let n = gradient.shape().num_elements();
                self.gathered.push((param.id, gradient.reshape([n])));
            }
        }
    }
    let mut gather = Gather {
        backward,
        gathered: vec![],
    };
    module.visit(&mut gather);
    gather.gathered
}
