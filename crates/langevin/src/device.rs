//! Where tensors live and are computed with.

use std::{fmt, str::FromStr};

pub use burn::tensor::Device;

use crate::{Error, Result, named::named_enum};

/// The device that is used where nothing else is asked for: the CPU.
pub fn default_device() -> Device {
    Device::flex()
}

named_enum! {
    /// What a device is reached by. All but the CPU are cargo features of the same names.
    pub enum DeviceKind: "a device" {
        /// The processor, with kernels of our own.
        Cpu = "cpu",
        /// A GPU by Vulkan.
        Vulkan = "vulkan",
        /// A GPU by whatever API there is (Vulkan, Metal, DirectX 12), in WebGPU's shading language: on more drivers, and slower.
        Wgpu = "wgpu",
        /// Apple's GPU by Metal.
        Metal = "metal",
        /// NVIDIA's GPU by CUDA.
        Cuda = "cuda",
    }
}

/// A device by its name, as a command line has it: `cpu`, `vulkan`, `cuda:1`.
///
/// ```
/// use langevin::device::DeviceName;
///
/// let device = "cpu".parse::<DeviceName>()?.open()?;
/// # Ok::<(), langevin::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceName {
    /// What it is reached by.
    pub kind: DeviceKind,
    /// Which one of several, from 0.
    pub index: usize,
}

impl DeviceName {
    /// The CPU.
    pub const CPU: Self = Self {
        kind: DeviceKind::Cpu,
        index: 0,
    };

    /// The device of this name.
    ///
    /// # Errors
    /// If it was not built in (the error says how it is), or this machine has none.
    pub fn open(self) -> Result<Device> {
        match self.kind {
            DeviceKind::Cpu => Ok(default_device()),
            #[cfg(feature = "vulkan")]
            DeviceKind::Vulkan => self.among(burn::tensor::DeviceType::Vulkan),
            #[cfg(feature = "wgpu")]
            DeviceKind::Wgpu => self.among(burn::tensor::DeviceType::Wgpu),
            #[cfg(feature = "metal")]
            DeviceKind::Metal => self.among(burn::tensor::DeviceType::Metal),
            #[cfg(feature = "cuda")]
            DeviceKind::Cuda => self.among(burn::tensor::DeviceType::Cuda),
            #[allow(unreachable_patterns)] // Where all of them are built in.
            kind => Err(Error::Unsupported(format!(
                "the device {kind} is not built in: `cargo build --release --features {kind}` makes a program that has it"
            ))),
        }
    }

    /// The device of this number among those of its kind that the machine has.
    #[cfg(any(feature = "vulkan", feature = "wgpu", feature = "metal", feature = "cuda"))]
    fn among(self, kind: burn::tensor::DeviceType) -> Result<Device> {
        let devices: Vec<Device> = Device::enumerate(kind).into_iter().collect();
        let found = devices.len();
        devices.into_iter().nth(self.index).ok_or_else(|| {
            let found = match found {
                0 => "none was found on this machine".to_string(),
                1 => "this machine has one, number 0".to_string(),
                _ => format!("this machine has {found}, numbers 0 to {}", found - 1),
            };
            Error::Config(format!("there is no device {self}: {found}"))
        })
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.index {
            0 => write!(f, "{}", self.kind),
            index => write!(f, "{}:{index}", self.kind),
        }
    }
}

impl FromStr for DeviceName {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let (kind, index) = match name.split_once(':') {
            Some((kind, index)) => (kind, Some(index)),
            None => (name, None),
        };
        let kind: DeviceKind = kind.parse()?;
        let index = match index {
            None => 0,
            Some(_) if matches!(kind, DeviceKind::Cpu | DeviceKind::Metal) => {
                return Err(Error::Config(format!(
                    "`{name}` is not a device: there is one {kind}, without a number"
                )));
            }
            Some(index) => index.parse().map_err(|_| {
                Error::Config(format!(
                    "`{name}` is not a device: behind the colon stands a number, as in {kind}:1"
                ))
            })?,
        };
        Ok(Self { kind, index })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written() {
        for name in ["cpu", "vulkan", "vulkan:2", "wgpu:1", "metal", "cuda", "cuda:1"] {
            assert_eq!(name.parse::<DeviceName>().unwrap().to_string(), name);
        }
        assert_eq!("cuda:0".parse::<DeviceName>().unwrap(), "cuda".parse().unwrap());
        for (name, part) in [
            ("gpu", "cpu, vulkan, wgpu, metal, cuda"),
            ("cpu:1", "without a number"),
            ("cuda:x", "cuda:1"),
            ("cuda:-1", "cuda:1"),
            ("", "not a device"),
        ] {
            let message = name.parse::<DeviceName>().unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        }
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn what_is_not_built_in_says_how_it_is() {
        let message = "cuda:1"
            .parse::<DeviceName>()
            .unwrap()
            .open()
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("cargo build --release --features cuda"),
            "{message}"
        );
    }
}
