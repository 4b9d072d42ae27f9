//! The gate of GEGLU in one pass.

use burn::backend::{
    Backend, Dispatch, Flex,
    autodiff::{Autodiff, checkpoint::strategy::CheckpointStrategy},
    backend_extension,
    flex::FlexTensor,
    tensor::FloatTensor,
};
use burn::tensor::Tensor;
use langevin_kernels::gated;

use super::{flex, kept::Packing, one_input::differentiable};

/// `a · gelu(b)` of the two halves `a` and `b` of the last dimension (Shazeer 2020). Keeps `x` for the backward, as
/// [`keeping`](super::keeping) says.
///
/// # Shapes
/// `[batch, tokens, 2 · channels]` → `[batch, tokens, channels]`
pub fn geglu(x: Tensor<3>) -> Tensor<3> {
    let [batch, tokens, both] = x.dims();
    let rows: Tensor<2> = x.reshape([batch * tokens, both]);
    let y: Tensor<2> = Tensor::from_dispatch(Dispatch::geglu_forward(rows.into_dispatch()));
    y.reshape([batch, tokens, both / 2])
}

/// The forward, dispatched to the tensor's backend: `[rows, 2 · channels]` → `[rows, channels]`.
#[backend_extension(Flex, Cube: cfg(feature = "cube"), Autodiff)]
pub(crate) trait GegluOps: Backend {
    fn geglu_forward(x: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// The gradient.
pub(crate) trait GegluGradient: Packing {
    fn geglu_gradient(x: FloatTensor<Self>, gy: FloatTensor<Self>) -> FloatTensor<Self>;
}

impl<B: GegluOps + GegluGradient, C: CheckpointStrategy> GegluOps for Autodiff<B, C> {
    fn geglu_forward(x: FloatTensor<Self>) -> FloatTensor<Self> {
        differentiable::<B, C>(x, B::geglu_forward, B::geglu_gradient)
    }
}

impl GegluOps for Flex {
    fn geglu_forward(x: FlexTensor) -> FlexTensor {
        let x = flex::contiguous(x);
        let [rows, both] = flex::dims(&x);
        let mut y = flex::room(rows * both / 2);
        gated::geglu_forward(both / 2, flex::floats(&x), &mut y);
        flex::tensor(y, [rows, both / 2])
    }
}

impl GegluGradient for Flex {
    fn geglu_gradient(x: FlexTensor, gy: FlexTensor) -> FlexTensor {
        let (x, gy) = (flex::contiguous(x), flex::contiguous(gy));
        let [rows, both] = flex::dims(&x);
        let mut gx = flex::room(rows * both);
        gated::geglu_backward(both / 2, flex::floats(&x), flex::floats(&gy), &mut gx);
        flex::tensor(gx, [rows, both])
    }
}
