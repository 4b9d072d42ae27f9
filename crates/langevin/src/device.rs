//! Where tensors live and are computed with.

pub use burn::tensor::Device;

/// The device that is used where nothing else is asked for: the CPU.
pub fn default_device() -> Device {
    Device::flex()
}
