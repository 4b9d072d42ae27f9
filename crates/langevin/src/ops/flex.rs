//! Between Burn's Flex tensors and the slices that the kernels work on.

use burn::backend::flex::{FlexTensor, Layout};
use burn::tensor::{DType, Shape};
use langevin_kernels::buffer::Buffer;

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
