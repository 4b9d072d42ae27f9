//! Layers and blocks, with PyTorch's initialisation and parameters named as diffusers names them.
//!
//! A parameter's path in its module is its key in a diffusers checkpoint. Inside, weights lie as the operations want them (see
//! [`crate::ops`]); [`crate::weights`] turns them on the way in and out.

mod activation;
mod attention;
pub(crate) mod checkpoint;
mod conv;
pub(crate) mod dropout;
mod embedding;
mod fir;
pub(crate) mod init;
mod linear;
mod norm;
mod resample;
mod resnet;
mod transformer;

pub use activation::Activation;
pub use attention::{Attention, AttentionConfig};
pub use conv::Conv2d;
pub use dropout::Dropout;
pub use embedding::{Embedding, TimestepEmbedding, sinusoidal_embedding};
pub use fir::{fir_downsample, fir_upsample};
pub use init::Init;
pub use linear::Linear;
pub use norm::{GroupNorm, LayerNorm};
pub use resample::{Downsample2D, Upsample2D, average_pool};
pub use resnet::{Resampling, ResnetBlock2D, ResnetConfig, TimeEmbeddingNorm};
pub use transformer::{
    BasicTransformerBlock, FeedForward, TokenAttention, Transformer2DConfig, Transformer2DModel,
};
