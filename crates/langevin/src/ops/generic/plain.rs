//! A tensor of any backend with the operators that formulas are written in.

use std::ops::{Add, Div, Mul, Sub};

use burn::backend::{Backend, Slice, TensorMetadata, tensor::FloatTensor};
use burn::tensor::Shape;

/// A float tensor outside autodiff. Shapes broadcast as in NumPy.
#[derive(Clone, Debug)]
pub(super) struct Plain<B: Backend>(pub FloatTensor<B>);

impl<B: Backend> Plain<B> {
    /// The shape.
    ///
    /// # Panics
    /// If the tensor has another rank.
    pub(super) fn dims<const D: usize>(&self) -> [usize; D] {
        self.0.shape().dims()
    }

    pub(super) fn reshape<const D: usize>(self, shape: [usize; D]) -> Self {
        Self(B::float_reshape(self.0, Shape::from(shape)))
    }

    pub(super) fn permute(self, axes: &[usize]) -> Self {
        Self(B::float_permute(self.0, axes))
    }

    /// The numbers `from..to` along an axis.
    pub(super) fn part(self, axis: usize, from: usize, to: usize) -> Self {
        let shape = self.0.shape();
        let slices: Vec<Slice> = (0..shape.num_dims())
            .map(|i| {
                if i == axis {
                    Slice::from(from..to)
                } else {
                    Slice::from(0..shape[i])
                }
            })
            .collect();
        Self(B::float_slice(self.0, &slices))
    }

    /// Tensors one after another along an axis.
    pub(super) fn cat(tensors: impl IntoIterator<Item = Self>, axis: usize) -> Self {
        Self(B::float_cat(tensors.into_iter().map(|t| t.0).collect(), axis))
    }

    pub(super) fn matmul(self, other: Self) -> Self {
        Self(B::float_matmul(self.0, other.0))
    }

    /// The last two axes exchanged.
    pub(super) fn transpose(self) -> Self {
        Self(B::float_transpose(self.0))
    }

    /// The sum over axes, which stay with a length of 1.
    pub(super) fn sum(self, axes: &[usize]) -> Self {
        Self(B::float_sum_dims(self.0, axes))
    }

    /// The mean over axes, which stay with a length of 1.
    pub(super) fn mean(self, axes: &[usize]) -> Self {
        let shape = self.0.shape();
        let count: usize = axes.iter().map(|&axis| shape[axis]).product();
        self.sum(axes).times(1.0 / count as f64)
    }

    /// The largest along an axis, which stays with a length of 1.
    pub(super) fn max(self, axis: usize) -> Self {
        Self(B::float_max_dim(self.0, axis))
    }

    pub(super) fn times(self, factor: f64) -> Self {
        Self(B::float_mul_scalar(self.0, factor.into()))
    }

    pub(super) fn plus(self, term: f64) -> Self {
        Self(B::float_add_scalar(self.0, term.into()))
    }

    pub(super) fn square(self) -> Self {
        self.clone() * self
    }

    pub(super) fn sqrt(self) -> Self {
        Self(B::float_sqrt(self.0))
    }

    pub(super) fn recip(self) -> Self {
        Self(B::float_recip(self.0))
    }

    pub(super) fn exp(self) -> Self {
        Self(B::float_exp(self.0))
    }

    pub(super) fn log(self) -> Self {
        Self(B::float_log(self.0))
    }

    /// The error function.
    pub(super) fn erf(self) -> Self {
        Self(B::float_erf(self.0))
    }

    /// 1 / (1 + e⁻ˣ)
    pub(super) fn sigmoid(self) -> Self {
        self.times(-1.0).exp().plus(1.0).recip()
    }
}

macro_rules! operator {
    ($trait:ident, $method:ident, $function:ident) => {
        impl<B: Backend> $trait for Plain<B> {
            type Output = Self;

            fn $method(self, other: Self) -> Self {
                Self(B::$function(self.0, other.0))
            }
        }
    };
}

operator!(Add, add, float_add);
operator!(Sub, sub, float_sub);
operator!(Mul, mul, float_mul);
operator!(Div, div, float_div);
