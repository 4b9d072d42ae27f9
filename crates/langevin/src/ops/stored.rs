//! Weights that stay in the type that they are stored in.

use burn::tensor::{DType, Device, FloatDType, Tensor};

/// Whether operations on this device take weights of 16 bits: the kernels do, which widen them while they pack them. On other devices models
/// are float32 throughout.
pub(crate) fn takes_halves(device: &Device) -> bool {
    *device == Device::flex()
}

/// The same numbers as float32.
pub(crate) fn widened<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    match x.dtype() {
        DType::F32 => x,
        _ => x.cast(FloatDType::F32),
    }
}
