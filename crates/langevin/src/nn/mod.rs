//! Layers and blocks, with PyTorch's initialisation and parameters named as diffusers names them.
//!
//! A parameter's path in its module is its key in a diffusers checkpoint. Inside, weights lie as the operations want them (see
//! [`crate::ops`]); [`crate::weights`] turns them on the way in and out.

mod activation;
mod ada_block;
mod ada_norm;
pub(crate) mod adapter;
mod attention;
pub(crate) mod checkpoint;
mod conv;
mod dropout;
mod embedding;
mod fir;
pub(crate) mod init;
mod interpolate;
mod joint;
mod lent;
mod linear;
mod norm;
mod patch;
mod resample;
mod resnet;
mod transformer;

pub use activation::Activation;
pub(crate) use ada_block::scale_shift_table;
pub use ada_block::{AdaBlockConfig, AdaSingleBlock, AdaZeroBlock};
pub(crate) use ada_norm::{ADA_NORM_EPS, TIME_CHANNELS, ada_numbers, modulated, plain_layer_norm, rows};
pub use ada_norm::{AdaLayerNorm, ClassAdaLayerNorm, LabelEmbedding, TimestepLabelEmbedding};
pub use adapter::{AdaptedLayer, Adapter, AdapterInit, Adapters, Strength, Strengths, adapting};
pub use attention::{Attention, AttentionConfig};
pub use conv::Conv2d;
pub use dropout::{Dropout, dropping};
pub use embedding::{Embedding, TextProjection, TimestepEmbedding, sinusoidal_embedding};
pub use fir::{fir_downsample, fir_upsample};
pub use init::Init;
pub use interpolate::{Interpolation, interpolate};
pub use joint::{JointAttention, JointBlockConfig, JointTransformerBlock};
pub use lent::{Lent, LentAdapters, LentRows, lending};
pub use linear::Linear;
pub use norm::{GroupNorm, LayerNorm, RmsNorm};
pub(crate) use patch::of_patches;
pub use patch::{PatchConfig, PatchEmbed};
pub use resample::{Downsample2D, Upsample2D, average_pool};
pub use resnet::{Resampling, ResnetBlock2D, ResnetConfig, TimeEmbeddingNorm};
pub use transformer::{
    BasicTransformerBlock, FeedForward, Look, TokenAttention, Transformer2DConfig, Transformer2DModel,
};
