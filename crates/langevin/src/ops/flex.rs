//! Between Burn's Flex tensors and the slices that the kernels work on.

use burn::backend::flex::{FlexTensor, Layout};
use burn::tensor::{DType, Shape};
use half::slice::HalfFloatSliceExt;
use langevin_kernels::{Stored, buffer::Buffer};

/// The tensor with its elements in row-major order; free where they already are.
pub(super) fn contiguous(tensor: FlexTensor) -> FlexTensor {
    if tensor.is_contiguous() {
        tensor
    } else {
        tensor.to_contiguous()
    }
}

/// The elements of a contiguous tensor.
///
/// # Panics
/// If the tensor is not float32: the kernels know no other type, and the models are built in no other.
pub(super) fn floats(tensor: &FlexTensor) -> &[f32] {
    tensor
        .as_slice::<f32>()
        .expect("the operations take contiguous float32 tensors")
}

/// The elements of a contiguous tensor, to be changed; copied first where somebody else holds them too.
///
/// # Panics
/// As [`floats`].
pub(super) fn floats_mut(tensor: &mut FlexTensor) -> &mut [f32] {
    let (start, end) = tensor
        .layout()
        .contiguous_offsets()
        .expect("the operations take contiguous float32 tensors");
    &mut tensor.storage_mut::<f32>()[start..end]
}

/// The elements of a contiguous weight, in the type that it has.
///
/// # Panics
/// If the tensor holds no real numbers of at most 32 bits.
pub(super) fn stored(tensor: &FlexTensor) -> Stored<'_> {
    let halves = || match tensor.dtype() {
        DType::F16 => {
            let values = tensor.as_slice::<half::f16>()?;
            Some(Stored::Float16(values.reinterpret_cast()))
        }
        DType::BF16 => {
            let values = tensor.as_slice::<half::bf16>()?;
            Some(Stored::Bfloat16(values.reinterpret_cast()))
        }
        _ => None,
    };
    halves().unwrap_or_else(|| Stored::Float32(floats(tensor)))
}

/// The same for an optional tensor.
pub(super) fn optional_floats(tensor: &Option<FlexTensor>) -> Option<&[f32]> {
    tensor.as_ref().map(floats)
}

/// A tensor of `shape` over `data`, without a copy.
pub(super) fn tensor(data: Buffer, shape: impl Into<Shape>) -> FlexTensor {
    FlexTensor::new(data.into(), Layout::contiguous(shape.into()), DType::F32)
}

/// The shape as an array.
///
/// # Panics
/// If the tensor has another rank; the public functions fix it by their types.
pub(super) fn dims<const D: usize>(tensor: &FlexTensor) -> [usize; D] {
    tensor.layout().shape().dims()
}

/// Room for `n` values, for a kernel that writes all of them.
pub(super) fn room(n: usize) -> Buffer {
    Buffer::new(n)
}

/// Room for `n` values of 16 bits, for a kernel that writes all of them.
pub(super) fn half_room(n: usize) -> Buffer {
    Buffer::halves(n)
}

/// A bf16 tensor of `shape` over `data`, without a copy.
pub(super) fn half_tensor(data: Buffer, shape: impl Into<Shape>) -> FlexTensor {
    FlexTensor::new(data.into(), Layout::contiguous(shape.into()), DType::BF16)
}

/// The bits of a tensor that [`half_tensor`] made.
///
/// # Panics
/// If the tensor is not bf16.
pub(super) fn halves(tensor: &FlexTensor) -> &[u16] {
    assert_eq!(tensor.dtype(), DType::BF16, "a tensor that was kept as bf16");
    // An odd number of values has one behind it that nobody reads.
    &bytemuck::cast_slice(tensor.bytes())[..tensor.layout().num_elements()]
}
