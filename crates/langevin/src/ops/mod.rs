//! Fused differentiable operations over Burn tensors, channels last: where kernels meet autodiff.
//!
//! Few and fat: each computes in one pass what a model would otherwise ask for in several, and keeps for its backward only what
//! it must. Activations are `[batch, height, width, channels]`. Every file holds a public function over `Tensor`, a
//! trait that Burn dispatches to the tensor's backend, that trait's autodiff implementation, written once for all backends, and
//! the implementation on Flex (the CPU) with the kernels of [`langevin_kernels`]. On GPUs, `generic` makes the same of Burn's own
//! operations.
//!
//! # Panics
//! The functions panic if shapes do not fit together or a tensor is not float32: that is a mistake in a model, not in its input,
//! which the models check.

mod attention;
mod biased_attention;
mod concat;
mod conv;
#[cfg(feature = "cube")]
mod cube;
mod flex;
mod geglu;
#[cfg(any(test, feature = "cube"))]
mod generic;
mod kept;
mod norm;
mod norm_conv;
mod one_input;
mod optimizer;
mod optional;
mod per_picture;
mod pool;
mod precision;
mod recompute;
mod silu;
mod stored;
mod upsample;

pub use attention::{AttentionOptions, attention};
pub use biased_attention::biased_attention;
pub use concat::concat;
pub(crate) use conv::algorithm;
pub use conv::{Algorithm, Geometry, conv2d, convolving, linear};
pub use geglu::geglu;
pub(crate) use kept::kept_as;
pub use kept::{KeptAs, keeping};
pub use norm::{GroupNormOptions, group_norm, layer_norm};
pub use norm_conv::norm_conv2d;
pub use optimizer::{AdamW, AdamWState, adamw, moving_average, sum_of_squares};
pub use per_picture::add_per_picture;
pub use pool::{in_pool, trim};
pub use precision::{Precision, computing, precision};
pub(crate) use recompute::{BlockInputs, Recompute, recomputed};
pub use silu::silu;
pub(crate) use stored::{takes_halves, widened};
pub use upsample::upsample_nearest;
