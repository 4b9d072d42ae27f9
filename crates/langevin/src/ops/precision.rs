//! In which type products are computed.

use std::cell::Cell;

use langevin_kernels::Bf16Unit;

use crate::named::named_enum;

named_enum! {
    /// The type of the values that convolutions, linear layers and attention multiply. Sums, and everything else, are float32 whatever it is.
    #[derive(Default)]
    pub enum Precision: "a precision" {
        /// As weights and activations are.
        #[default]
        Float32 = "float32",
        /// Rounded to bf16, where the processor has instructions for it: AMX or AVX-512 BF16. Elsewhere, and for layers that gain nothing,
        /// as float32.
        Bf16 = "bf16",
    }
}

thread_local! {
    static PRECISION: Cell<Precision> = const { Cell::new(Precision::Float32) };
}

impl Precision {
    /// Whether this processor has instructions that multiply bf16 values.
    pub fn has_bf16() -> bool {
        Bf16Unit::available().is_some()
    }

    /// What `self` is worth to know beside drawing latents on this processor: that bf16 does nothing, or what it would save.
    pub fn advice(self) -> Option<&'static str> {
        match (self, Bf16Unit::available()) {
            (Self::Bf16, None) => Some(
                "precision bf16 changes nothing: this processor has no instructions for it, and products stay float32",
            ),
            (Self::Float32, Some(Bf16Unit::Amx)) => Some(
                "this processor has AMX: precision bf16 would take about half of the time (docs/performance.md)",
            ),
            (Self::Float32, Some(Bf16Unit::Avx512)) => Some(
                "this processor has AVX-512 BF16: precision bf16 would take less time (docs/performance.md)",
            ),
            (Self::Float32, None) | (Self::Bf16, Some(_)) => None,
        }
    }
}

/// Runs forwards whose products are of `precision`, and so are those of their inputs' gradients in convolutions and linear layers; weights' gradients
/// are float32's. It holds on this thread until `work` returns.
pub fn computing<R>(precision: Precision, work: impl FnOnce() -> R) -> R {
    struct Restore(Precision);
    impl Drop for Restore {
        fn drop(&mut self) {
            PRECISION.set(self.0);
        }
    }
    let _restore = Restore(PRECISION.replace(precision));
    work()
}

/// The precision on this thread.
pub fn precision() -> Precision {
    PRECISION.get()
}
