//! A [`Buffer`] as the memory of a Burn tensor.

use crate::buffer::Buffer;
use cubecl_environment::bytes::{AccessError, AccessPolicy, AllocationController, AllocationProperty, Bytes};
use std::mem::MaybeUninit;

struct Controller(Buffer);

impl AllocationController for Controller {
    fn alloc_align(&self) -> usize {
        64
    }

    fn property(&self) -> AllocationProperty {
        AllocationProperty::Native
    }

    unsafe fn memory_mut(&mut self, _: AccessPolicy) -> Result<&mut [MaybeUninit<u8>], AccessError> {
        let values: &mut [f32] = &mut self.0;
        // SAFETY: the same memory as bytes; the caller promises to write only initialised ones.
        Ok(unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), size_of_val(values)) })
    }

    fn memory(&self, _: AccessPolicy) -> Result<&[MaybeUninit<u8>], AccessError> {
        let values: &[f32] = &self.0;
        // SAFETY: the same memory as bytes.
        Ok(unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) })
    }
}

impl Buffer {
    /// The first `len` bytes, without a copy.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn into_bytes(self, len: usize) -> Bytes {
        assert!(len <= size_of_val::<[f32]>(&self), "as many bytes as there are");
        // SAFETY: all bytes of a buffer are initialised.
        unsafe { Bytes::from_controller(Box::new(Controller(self)), len) }
    }
}

impl From<Buffer> for Bytes {
    /// Without a copy; the memory goes back to the pool with the tensor.
    fn from(buffer: Buffer) -> Self {
        let len = size_of_val::<[f32]>(&buffer);
        buffer.into_bytes(len)
    }
}
