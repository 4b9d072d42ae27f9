//! Diffusion models in Rust: train them, sample from them, and exchange them with Hugging Face diffusers.

pub mod codec;
pub mod conditioning;
pub mod data;
pub mod device;
pub mod error;
pub mod files;
pub mod generate;
pub mod grid;
pub mod guidance;
pub mod models;
pub mod named;
pub mod nn;
pub mod objectives;
pub mod ops;
pub mod options;
pub mod pipelines;
#[cfg(feature = "plot")]
pub mod plot;
pub mod random;
pub mod schedulers;
pub mod settings;
mod size;
pub mod training;
pub mod weights;
pub mod world;

pub use burn;
pub use error::{Error, Result};
pub use options::{Lora, Request};
pub use pipelines::Pipeline;
pub use size::{Offset, Size};

/// The README's Rust, compiled as a test.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
pub struct Readme;

/// The Rust of `docs/embedding.md`, compiled as a test.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/embedding.md")]
pub struct Embedding;
