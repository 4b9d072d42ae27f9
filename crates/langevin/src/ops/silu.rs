//! SiLU, x · σ(x), where no normalisation stands before it to fuse it with.

use burn::backend::{
    Backend, Dispatch, Flex,
    autodiff::{Autodiff, checkpoint::strategy::CheckpointStrategy},
    backend_extension,
    flex::FlexTensor,
    tensor::FloatTensor,
};
use burn::tensor::Tensor;
use langevin_kernels::elementwise;

use super::{flex, kept::Packing, one_input::differentiable};

/// `x · σ(x)`, element by element. Keeps `x` for the backward, as [`keeping`](super::keeping) says.
pub fn silu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::silu_forward(x.into_dispatch()))
}

/// The forward, dispatched to the tensor's backend.
#[backend_extension(Flex, Cube: cfg(feature = "cube"), Autodiff)]
pub(crate) trait SiluOps: Backend {
    fn silu_forward(x: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// The gradient.
pub(crate) trait SiluGradient: Packing {
    fn silu_gradient(x: FloatTensor<Self>, gy: FloatTensor<Self>) -> FloatTensor<Self>;
}

impl<B: SiluOps + SiluGradient, C: CheckpointStrategy> SiluOps for Autodiff<B, C> {
    fn silu_forward(x: FloatTensor<Self>) -> FloatTensor<Self> {
        differentiable::<B, C>(x, B::silu_forward, B::silu_gradient)
    }
}

impl SiluOps for Flex {
    fn silu_forward(x: FlexTensor) -> FlexTensor {
        let x = flex::contiguous(x);
        let mut y = flex::room(x.layout().num_elements());
        elementwise::silu_forward(flex::floats(&x), &mut y);
        flex::tensor(y, x.layout().shape().clone())
    }
}

impl SiluGradient for Flex {
    fn silu_gradient(x: FlexTensor, gy: FlexTensor) -> FlexTensor {
        let (x, gy) = (flex::contiguous(x), flex::contiguous(gy));
        let mut gx = flex::room(x.layout().num_elements());
        elementwise::silu_backward(flex::floats(&x), flex::floats(&gy), &mut gx);
        flex::tensor(gx, x.layout().shape().clone())
    }
}
