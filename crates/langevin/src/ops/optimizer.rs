//! The steps that touch every parameter after the backward: AdamW, the moving average, the gradients' norm. No gradients of their own.

use burn::backend::{Backend, Dispatch, Flex, backend_extension, flex::FlexTensor, tensor::FloatTensor};
use burn::tensor::Tensor;
use langevin_kernels::{elementwise, optimizer};

pub use langevin_kernels::optimizer::AdamW;

use super::flex;

/// A parameter with its AdamW moments, all of one shape and outside autodiff.
#[derive(Clone, Debug)]
pub struct AdamWState<const D: usize> {
    /// The parameter.
    pub parameter: Tensor<D>,
    /// The running mean of its gradient.
    pub first_moment: Tensor<D>,
    /// The running mean of its gradient's square.
    pub second_moment: Tensor<D>,
}

/// One step of AdamW (Loshchilov & Hutter 2019, algorithm 2) as `torch.optim.AdamW` computes it, in one pass over the four tensors,
/// in place where nobody else holds them.
pub fn adamw<const D: usize>(state: AdamWState<D>, gradient: Tensor<D>, hyper: AdamW) -> AdamWState<D> {
    let (parameter, first_moment, second_moment) = Dispatch::adamw_step(
        state.parameter.into_dispatch(),
        gradient.into_dispatch(),
        state.first_moment.into_dispatch(),
        state.second_moment.into_dispatch(),
        hyper,
    );
    AdamWState {
        parameter: Tensor::from_dispatch(parameter),
        first_moment: Tensor::from_dispatch(first_moment),
        second_moment: Tensor::from_dispatch(second_moment),
    }
}

/// `average - (1 - decay) · (average - parameter)`, in place where nobody else holds the average.
pub fn moving_average<const D: usize>(average: Tensor<D>, parameter: Tensor<D>, decay: f64) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::moving_average_step(
        average.into_dispatch(),
        parameter.into_dispatch(),
        decay,
    ))
}

/// The sum of the squares of all elements, added up in double precision. Shape `[1]`.
pub fn sum_of_squares<const D: usize>(x: Tensor<D>) -> Tensor<1> {
    Tensor::from_dispatch(Dispatch::sum_of_squares(x.into_dispatch()))
}

/// Dispatched to the tensors' backend.
#[backend_extension(Flex, Cube: cfg(feature = "cube"))]
pub(crate) trait OptimizerOps: Backend {
    fn adamw_step(
        parameter: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        first_moment: FloatTensor<Self>,
        second_moment: FloatTensor<Self>,
        hyper: AdamW,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
    fn moving_average_step(
        average: FloatTensor<Self>,
        parameter: FloatTensor<Self>,
        decay: f64,
    ) -> FloatTensor<Self>;
    fn sum_of_squares(x: FloatTensor<Self>) -> FloatTensor<Self>;
}

impl OptimizerOps for Flex {
    fn adamw_step(
        parameter: FlexTensor,
        gradient: FlexTensor,
        first_moment: FlexTensor,
        second_moment: FlexTensor,
        hyper: AdamW,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        let [mut parameter, gradient, mut first_moment, mut second_moment] =
            [parameter, gradient, first_moment, second_moment].map(flex::contiguous);
        optimizer::adamw_step(
            &hyper,
            flex::floats_mut(&mut parameter),
            flex::floats(&gradient),
            flex::floats_mut(&mut first_moment),
            flex::floats_mut(&mut second_moment),
        );
        (parameter, first_moment, second_moment)
    }

    fn moving_average_step(average: FlexTensor, parameter: FlexTensor, decay: f64) -> FlexTensor {
        let (mut average, parameter) = (flex::contiguous(average), flex::contiguous(parameter));
        optimizer::ema_step(decay, flex::floats_mut(&mut average), flex::floats(&parameter));
        average
    }

    fn sum_of_squares(x: FlexTensor) -> FlexTensor {
        let x = flex::contiguous(x);
        let mut sum = flex::room(1);
        sum[0] = elementwise::sum_of_squares(flex::floats(&x)) as f32;
        flex::tensor(sum, [1])
    }
}
