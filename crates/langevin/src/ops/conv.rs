//! Two-dimensional convolution with bias and residual in one pass, and linear layers, which are its 1x1 case.

use std::cell::Cell;

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
pub use langevin_kernels::conv::Algorithm;
use langevin_kernels::conv::{self, Conv2dShape, Residual};

use super::{
    flex,
    kept::{Kept, Packing},
    optional::{self, Optional},
    precision::{Precision, precision},
};

/// Stride and padding of a convolution; the kernel's size is the weight's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Steps in height and width.
    pub stride: [usize; 2],
    /// Zeros around the picture: `[[top, bottom], [left, right]]`.
    pub padding: [[usize; 2]; 2],
}

impl Geometry {
    /// Stride `stride` with `padding` zeros on every side.
    pub fn uniform(stride: usize, padding: usize) -> Self {
        Self {
            stride: [stride; 2],
            padding: [[padding; 2]; 2],
        }
    }
}

thread_local! {
    static ALGORITHM: Cell<Algorithm> = const { Cell::new(Algorithm::Fastest) };
}

/// Runs `work` with convolutions computed by this algorithm: by [`Algorithm::Fastest`], the default, layers with 3x3 kernels use
/// Winograd's F(4x4, 3x3), which is up to three times as fast.
///
/// Winograd's rounding errors are at most 1e-5 of an output's largest value and 3e-5 of a gradient's; a plain sum's are a few units of the
/// last place. It holds on this thread, and within [`in_pool`](super::in_pool), until `work` returns; a backward follows its forward.
pub fn convolving<R>(algorithm: Algorithm, work: impl FnOnce() -> R) -> R {
    struct Restore(Algorithm);
    impl Drop for Restore {
        fn drop(&mut self) {
            ALGORITHM.set(self.0);
        }
    }
    let _restore = Restore(ALGORITHM.replace(algorithm));
    work()
}

/// How convolutions are computed on this thread.
pub(crate) fn algorithm() -> Algorithm {
    ALGORITHM.get()
}

/// How one convolution is computed, forward and backward.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Convolution {
    pub geometry: Geometry,
    pub algorithm: Algorithm,
}

impl Convolution {
    /// As this thread computes them now.
    pub(super) fn now(geometry: Geometry) -> Self {
        let algorithm = match (algorithm(), precision()) {
            (Algorithm::Fastest, Precision::Bf16) => Algorithm::Bf16,
            (algorithm, _) => algorithm,
        };
        Self { geometry, algorithm }
    }

    /// How its weight's gradient is computed, which is float32's.
    fn backward(self) -> Algorithm {
        match self.algorithm {
            Algorithm::Bf16 => Algorithm::Fastest,
            algorithm => algorithm,
        }
    }
}

/// Convolution: `x * weight + bias + residual`.
///
/// Keeps `x` and `weight` for the backward, `x` as [`keeping`](super::keeping) says.
///
/// # Shapes
/// - `x`: `[batch, height, width, in]`, channels last
/// - `weight`: `[kernel height, kernel width, in, out]`; on the CPU also float16 or bfloat16, with the bits that it gives in float32
/// - `bias`: `[out]`
/// - `residual` and the result: `[batch, out height, out width, out]`
pub fn conv2d(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Option<Tensor<1>>,
    residual: Option<Tensor<4>>,
    geometry: Geometry,
) -> Tensor<4> {
    Tensor::from_dispatch(Dispatch::conv2d_nhwc(
        x.into_dispatch(),
        weight.into_dispatch(),
        optional::dispatch(bias),
        optional::dispatch(residual),
        Convolution::now(geometry),
    ))
}

/// A linear layer over the last dimension: `x · weight + bias + residual`.
///
/// # Shapes
/// - `x`: `[..., in]`
/// - `weight`: `[in, out]` (PyTorch's transposed), of the types that [`conv2d`] takes
/// - `bias`: `[out]`
/// - `residual` and the result: `[..., out]`
pub fn linear<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
    residual: Option<Tensor<D>>,
) -> Tensor<D> {
    let mut shape = x.dims();
    let [inputs, outputs] = weight.dims();
    if D == 4 {
        // A picture's positions are rows as they are; it stays the same tensor, which is kept once for all that take it.
        let y = conv2d(
            Tensor::from_dispatch(x.into_dispatch()),
            weight.reshape([1, 1, inputs, outputs]),
            bias,
            residual.map(|r| Tensor::from_dispatch(r.into_dispatch())),
            Geometry::uniform(1, 0),
        );
        return Tensor::from_dispatch(y.into_dispatch());
    }
    let rows = shape[..D - 1].iter().product::<usize>();
    let y = conv2d(
        x.reshape([1, 1, rows, inputs]),
        weight.reshape([1, 1, inputs, outputs]),
        bias,
        residual.map(|r| r.reshape([1, 1, rows, outputs])),
        Geometry::uniform(1, 0),
    );
    shape[D - 1] = outputs;
    y.reshape(shape)
}

/// The forward, dispatched to the tensor's backend.
#[backend_extension(Flex, Cube: cfg(feature = "cube"), Autodiff)]
pub(crate) trait ConvOps: Backend {
    fn conv2d_nhwc(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        #[extension_type] bias: Optional<Self>,
        #[extension_type] residual: Optional<Self>,
        how: Convolution,
    ) -> FloatTensor<Self>;
}

/// The gradients, called by the one backward below on whatever backend the forward ran on.
pub(crate) trait ConvGradients: Packing {
    /// Of `x` only the shape matters, which may be of any type.
    fn conv2d_input_gradient(
        x: &FloatTensor<Self>,
        weight: &FloatTensor<Self>,
        gy: &FloatTensor<Self>,
        how: Convolution,
    ) -> FloatTensor<Self>;
    fn conv2d_weight_gradient(
        x: &FloatTensor<Self>,
        weight: &FloatTensor<Self>,
        gy: &FloatTensor<Self>,
        how: Convolution,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);
}

impl<B: ConvOps + ConvGradients, C: CheckpointStrategy> ConvOps for Autodiff<B, C> {
    fn conv2d_nhwc(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: Optional<Self>,
        residual: Optional<Self>,
        how: Convolution,
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Conv2dBackward;
        impl<B: ConvGradients> Backward<B, 4> for Conv2dBackward {
            type State = (Kept<B>, FloatTensor<B>, bool, bool, Convolution);
            fn backward(
                self,
                ops: Ops<Self::State, 4>,
                grads: &mut Gradients,
                _checkpointer: &mut Checkpointer,
            ) {
                let gy = grads.consume::<B>(&ops.node);
                let [x_node, weight_node, bias_node, residual_node] = ops.parents;
                let (x, weight, has_bias, has_residual, how) = ops.state;
                if let Some(node) = x_node {
                    let gx = B::conv2d_input_gradient(x.as_kept(), &weight, &gy, how);
                    grads.register::<B>(node.id, gx);
                }
                let bias_node = bias_node.filter(|_| has_bias);
                if weight_node.is_some() || bias_node.is_some() {
                    let (gw, gb) = B::conv2d_weight_gradient(&x.get(), &weight, &gy, how);
                    if let Some(node) = weight_node {
                        grads.register::<B>(node.id, gw);
                    }
                    if let Some(node) = bias_node {
                        grads.register::<B>(node.id, gb);
                    }
                }
                if let Some(node) = residual_node.filter(|_| has_residual) {
                    grads.register::<B>(node.id, gy);
                }
            }
        }
        let (bias, residual) = (bias.into_option(), residual.into_option());
        // Burn wants a fixed number of parents: the weight stands in for an absent one, and nothing is registered for it.
        let nodes = [
            x.node(),
            weight.node(),
            bias.as_ref().unwrap_or(&weight).node(),
            residual.as_ref().unwrap_or(&weight).node(),
        ];
        let x_id = x.id();
        let learns = weight.is_tracked() || bias.as_ref().is_some_and(|bias| bias.is_tracked());
        let (has_bias, has_residual) = (bias.is_some(), residual.is_some());
        let (x, weight) = (x.into_primitive(), weight.into_primitive());
        let bias = Optional::from(bias.map(|b| b.into_primitive()));
        let residual = Optional::from(residual.map(|r| r.into_primitive()));
        let preparation = Conv2dBackward.prepare::<C>(nodes).compute_bound().stateful();
        match preparation {
            OpsKind::Tracked(prep) => {
                // Of the input of a layer that is not trained, the backward wants the shape alone.
                let kept = if learns {
                    Kept::new(&x, x_id)
                } else {
                    Kept::shape_of(&x)
                };
                let state = (kept, weight.clone(), has_bias, has_residual, how);
                prep.finish(state, B::conv2d_nhwc(x, weight, bias, residual, how))
            }
            OpsKind::UnTracked(prep) => prep.finish(B::conv2d_nhwc(x, weight, bias, residual, how)),
        }
    }
}

fn shape_of(x: &FlexTensor, weight: &FlexTensor, geometry: Geometry) -> Conv2dShape {
    let [batch, height, width, in_channels] = flex::dims(x);
    let [kernel_height, kernel_width, weight_in, out_channels] = flex::dims(weight);
    assert_eq!(
        in_channels, weight_in,
        "conv2d: the input has {in_channels} channels, the weight takes {weight_in}"
    );
    Conv2dShape {
        batch,
        height,
        width,
        in_channels,
        out_channels,
        kernel: [kernel_height, kernel_width],
        stride: geometry.stride,
        padding: geometry.padding,
    }
}

impl ConvOps for Flex {
    fn conv2d_nhwc(
        x: FlexTensor,
        weight: FlexTensor,
        bias: Optional<Self>,
        residual: Optional<Self>,
        how: Convolution,
    ) -> FlexTensor {
        let (x, weight) = (flex::contiguous(x), flex::contiguous(weight));
        let bias = bias.into_option().map(flex::contiguous);
        let residual = residual.into_option().map(flex::contiguous);
        let shape = shape_of(&x, &weight, how.geometry);
        let out = [
            shape.batch,
            shape.out_height(),
            shape.out_width(),
            shape.out_channels,
        ];
        // In the residual's own place where nobody else wants it.
        let (residual, mut y) = match residual {
            Some(residual) if residual.is_unique() => (None, residual),
            other => (Some(other), flex::tensor(flex::room(out.iter().product()), out)),
        };
        let residual = match &residual {
            None => Residual::InPlace,
            Some(None) => Residual::None,
            Some(Some(residual)) => Residual::Of(flex::floats(residual)),
        };
        conv::conv2d_forward(
            &shape,
            how.algorithm,
            flex::floats(&x),
            flex::stored(&weight),
            flex::optional_floats(&bias),
            residual,
            flex::floats_mut(&mut y),
        );
        y
    }
}

impl ConvGradients for Flex {
    fn conv2d_input_gradient(
        x: &FlexTensor,
        weight: &FlexTensor,
        gy: &FlexTensor,
        how: Convolution,
    ) -> FlexTensor {
        let (weight, gy) = (flex::contiguous(weight.clone()), flex::contiguous(gy.clone()));
        let shape = shape_of(x, &weight, how.geometry);
        let mut gx = flex::room(x.layout().num_elements());
        conv::conv2d_input_gradient(
            &shape,
            how.algorithm,
            flex::floats(&gy),
            flex::stored(&weight),
            &mut gx,
        );
        flex::tensor(gx, flex::dims::<4>(x))
    }

    fn conv2d_weight_gradient(
        x: &FlexTensor,
        weight: &FlexTensor,
        gy: &FlexTensor,
        how: Convolution,
    ) -> (FlexTensor, FlexTensor) {
        let (x, gy) = (flex::contiguous(x.clone()), flex::contiguous(gy.clone()));
        let shape = shape_of(&x, weight, how.geometry);
        let mut gw = flex::room(weight.layout().num_elements());
        let mut gb = flex::room(shape.out_channels);
        conv::conv2d_weight_gradient(
            &shape,
            how.backward(),
            flex::floats(&x),
            flex::floats(&gy),
            &mut gw,
            Some(&mut gb),
        );
        (
            flex::tensor(gw, flex::dims::<4>(weight)),
            flex::tensor(gb, [shape.out_channels]),
        )
    }
}
