//! The type in which weights are written.

use std::cell::Cell;

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
        /// Eight bits and a scale for 32 numbers, in GGUF files: matrices, and the rest as it is stored.
        Q8_0 = "q8_0",
    }
}

thread_local! {
    static WRITTEN: Cell<Precision> = const { Cell::new(Precision::Stored) };
}

/// Runs `work`, in which models write their weights in a type of choice: by [`Precision::Stored`], the default, in that in which they hold them. It
/// holds on this thread until `work` returns.
pub fn writing<R>(precision: Precision, work: impl FnOnce() -> R) -> R {
    struct Restore(Precision);
    impl Drop for Restore {
        fn drop(&mut self) {
            WRITTEN.set(self.0);
        }
    }
    let _restore = Restore(WRITTEN.replace(precision));
    work()
}

/// The type in which models write their weights on this thread.
pub(super) fn written() -> Precision {
    WRITTEN.get()
}

impl Precision {
    /// What numbers of a type are written as.
    pub(super) fn of(self, stored: Dtype) -> Dtype {
        match self {
            Self::Stored | Self::Q8_0 => stored,
            Self::Float32 => Dtype::F32,
            Self::Float16 => Dtype::F16,
            Self::Bfloat16 => Dtype::BF16,
        }
    }
}
