//! CPU kernels for diffusion models, on plain `f32` slices.
//!
//! This crate knows no tensor framework. Its functions take slices and a shape, check that the lengths agree (a
//! mismatch is a programmer's error and panics with a message) and write their results into slices that the caller owns.
//!
//! # Layout
//!
//! Activations are channels last: `[batch, height, width, channels]`, the channel running fastest. Convolution
//! weights are `[kernel height, kernel width, in channels, out channels]` (HWIO), so a linear layer's weight is
//! `[in, out]` and a 1x1 convolution is the same function. No strides, no views: every slice is contiguous.
//!
//! # Determinism
//!
//! The same input gives the same bits, whatever the number of threads. The order in which the terms of an output
//! element are summed is a function of the layer's shape: without the batch size for outputs and input gradients, so a
//! picture's result does not depend on its company in the batch, and with it for gradients that sum over the batch.
//! Between instruction sets results differ by rounding.
//!
//! # Threads and instruction sets
//!
//! Work is split over the current rayon pool; small inputs run on the calling thread. The instruction set (AVX-512,
//! AVX2 with FMA, or portable code) is chosen when a kernel is called; see [`simd`].

pub mod attention;
pub mod bf16;
pub mod buffer;
#[cfg(feature = "burn")]
mod bytes;
mod channels;
mod columns;
pub mod conv;
pub mod elementwise;
pub mod gated;
mod half;
pub mod norm;
pub mod normal;
pub mod optimizer;
pub mod parallel;
pub mod per_picture;
pub mod resample;
mod scratch;
pub mod simd;
mod stored;
mod tile;
pub mod turn;

pub use half::Bf16Unit;
pub use stored::Stored;
