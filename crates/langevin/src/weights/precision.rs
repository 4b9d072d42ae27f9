//! The type in which weights are written.

use safetensors::Dtype;

use crate::named::named_enum;

named_enum! {
    /// The type in which weights are written.
    pub enum Precision: "a precision of weights" {
        /// That in which they are stored.
        Stored = "stored",
        /// 32 bits.
        Float32 = "float32",
        /// 16 bits.
        Float16 = "float16",
        /// 16 bits with the range of 32.
        Bfloat16 = "bfloat16",
    }
}

impl Precision {
    /// What numbers of a type are written as.
    pub(super) fn of(self, stored: Dtype) -> Dtype {
        match self {
            Self::Stored => stored,
            Self::Float32 => Dtype::F32,
            Self::Float16 => Dtype::F16,
            Self::Bfloat16 => Dtype::BF16,
        }
    }
}
