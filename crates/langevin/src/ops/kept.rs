//! What operations keep of the forward for their backward: float32 as it is, or bf16 in half the memory.

use std::{
    any::Any,
    cell::{Cell, RefCell},
    sync::{Arc, Weak},
};

use burn::backend::{Backend, Flex, TensorMetadata, autodiff::NodeId, flex::FlexTensor, tensor::FloatTensor};
use burn::tensor::{DType, FloatDType, Shape};
use langevin_kernels::bf16;

use super::flex;

/// The type that activations are kept as between a forward and its backward. Weights, statistics, gradients and all sums are float32
/// whatever it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeptAs {
    /// As they are.
    #[default]
    Float32,
    /// Rounded to bf16, in half the memory, and what is cheap to compute again is not kept at all.
    Bf16,
}

thread_local! {
    static KEPT_AS: Cell<KeptAs> = const { Cell::new(KeptAs::Float32) };
    /// What was kept last, so that a tensor which several operations keep is packed once.
    static RECENT: RefCell<Vec<(NodeId, Weak<dyn Any + Send + Sync>)>> = const { RefCell::new(Vec::new()) };
}

/// How many packed tensors are remembered: those of a block.
const REMEMBERED: usize = 8;

/// Runs a forward whose operations keep activations as `kept_as`. It holds on this thread until `work` returns; a backward follows
/// what its forward kept. Where a forward computes with what it keeps, it does so outside a graph too.
pub fn keeping<R>(kept_as: KeptAs, work: impl FnOnce() -> R) -> R {
    struct Restore(KeptAs);
    impl Drop for Restore {
        fn drop(&mut self) {
            KEPT_AS.set(self.0);
        }
    }
    let _restore = Restore(KEPT_AS.replace(kept_as));
    work()
}

/// How activations are kept on this thread.
pub(crate) fn kept_as() -> KeptAs {
    KEPT_AS.get()
}

/// Between float32 and bf16.
pub(crate) trait Packing: Backend {
    /// Rounds to bf16.
    fn pack(x: FloatTensor<Self>) -> FloatTensor<Self>;
    /// Back, exactly; a float32 tensor stays what it is.
    fn unpack(x: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// A tensor that a backward will want, as it is kept.
#[derive(Clone, Debug)]
pub(crate) struct Kept<B: Backend>(Arc<FloatTensor<B>>);

impl<B: Packing> Kept<B> {
    /// Keeps `x`, whose node in the graph is `id`. A packed tensor is shared with others that keep the same node.
    pub(super) fn new(x: &FloatTensor<B>, id: NodeId) -> Self {
        match kept_as() {
            KeptAs::Float32 => Self(Arc::new(x.clone())),
            KeptAs::Bf16 => Self::packed_by(id, || B::pack(x.clone())),
        }
    }

    /// A tensor of the shape of `x` without its values, for a backward that wants nothing else of it.
    pub(super) fn shape_of(x: &FloatTensor<B>) -> Self {
        let (shape, device) = (x.shape(), x.device());
        let one = B::float_zeros(Shape::from(vec![1; shape.num_dims()]), &device, FloatDType::F32);
        Self(Arc::new(B::float_expand(one, shape)))
    }

    /// What was packed and kept of the node `id`, if that is still there.
    pub(super) fn known(id: NodeId) -> Option<Self> {
        RECENT.with_borrow(|recent| {
            let entry = recent.iter().find(|(of, _)| *of == id)?;
            Some(Self(entry.1.upgrade()?.downcast().ok()?))
        })
    }

    /// What was kept of the node `id`, or else what `pack` makes of it now.
    pub(super) fn packed_by(id: NodeId, pack: impl FnOnce() -> FloatTensor<B>) -> Self {
        if let Some(known) = Self::known(id) {
            return known;
        }
        let kept = Arc::new(pack());
        let weak = Arc::downgrade(&kept);
        RECENT.with_borrow_mut(|recent| {
            if recent.len() == REMEMBERED {
                recent.remove(0);
            }
            recent.push((id, weak));
        });
        Self(kept)
    }

    /// A tensor that only one operation knows.
    pub(super) fn own(x: FloatTensor<B>) -> Self {
        Self(Arc::new(match kept_as() {
            KeptAs::Float32 => x,
            KeptAs::Bf16 => B::pack(x),
        }))
    }

    /// The tensor as it is kept, for its shape and for kernels that read both types.
    pub(super) fn as_kept(&self) -> &FloatTensor<B> {
        &self.0
    }

    /// The tensor as float32.
    pub(super) fn get(&self) -> FloatTensor<B> {
        B::unpack(self.as_kept().clone())
    }
}

impl Packing for Flex {
    fn pack(x: FlexTensor) -> FlexTensor {
        let x = flex::contiguous(x);
        let n = x.layout().num_elements();
        let mut y = flex::half_room(n);
        bf16::pack(flex::floats(&x), &mut y.as_halves_mut()[..n]);
        flex::half_tensor(y, x.layout().shape().clone())
    }

    fn unpack(x: FlexTensor) -> FlexTensor {
        if x.dtype() != DType::BF16 {
            return x;
        }
        let mut y = flex::room(x.layout().num_elements());
        bf16::unpack(flex::halves(&x), &mut y);
        flex::tensor(y, x.layout().shape().clone())
    }
}
