//! What a UNet is made of.

use serde::{Deserialize, Serialize};

use crate::{
    Error, Result,
    models::{DIFFUSERS_VERSION, ModelConfig},
    nn::{Activation, TimeEmbeddingNorm},
};

/// How a timestep becomes the input of the time embedding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TimeEmbeddingType {
    /// Sines and cosines.
    #[default]
    Positional,
    /// Sines and cosines of its logarithm at fixed random frequencies (Song et al. 2021); the output is divided by the timestep.
    Fourier,
    /// A learned vector for each.
    Learned,
}

/// What `class_labels` are, where they are not numbers of classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClassEmbedType {
    /// A second timestep, with an embedding of its own.
    Timestep,
    /// A vector, added as it is.
    Identity,
}

/// How a block changes the size, where it may choose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SamplingType {
    /// A convolution.
    #[default]
    Conv,
    /// A residual block.
    Resnet,
}

/// One level of the way down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DownBlockType {
    /// Residual blocks, then a convolution of stride 2.
    #[serde(alias = "UNetResDownBlock2D")]
    DownBlock2D,
    /// The same with attention after each residual block.
    #[serde(alias = "UNetResAttnDownBlock2D")]
    AttnDownBlock2D,
    /// Residual blocks, then a residual block that halves the size.
    ResnetDownsampleBlock2D,
    /// NCSN++: residual blocks, and the shrunken picture let in beside them.
    SkipDownBlock2D,
    /// The same with attention.
    AttnSkipDownBlock2D,
}

impl DownBlockType {
    pub(super) fn has_attention(self) -> bool {
        matches!(self, Self::AttnDownBlock2D | Self::AttnSkipDownBlock2D)
    }

    pub(super) fn is_skip(self) -> bool {
        matches!(self, Self::SkipDownBlock2D | Self::AttnSkipDownBlock2D)
    }
}

/// One level of the way up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UpBlockType {
    /// Residual blocks, then nearest-neighbour upsampling and a convolution.
    #[serde(alias = "UNetResUpBlock2D")]
    UpBlock2D,
    /// The same with attention after each residual block.
    #[serde(alias = "UNetResAttnUpBlock2D")]
    AttnUpBlock2D,
    /// Residual blocks, then a residual block that doubles the size.
    ResnetUpsampleBlock2D,
    /// NCSN++: residual blocks, and a picture let out beside them.
    SkipUpBlock2D,
    /// The same with one attention.
    AttnSkipUpBlock2D,
}

impl UpBlockType {
    pub(super) fn is_skip(self) -> bool {
        matches!(self, Self::SkipUpBlock2D | Self::AttnSkipUpBlock2D)
    }
}

/// The middle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String")]
pub enum MidBlockType {
    /// A residual block, attention, a residual block.
    UNetMidBlock2D,
}

/// Diffusers' UNet2DModel has one, whatever the name says.
impl From<String> for MidBlockType {
    fn from(_: String) -> Self {
        Self::UNetMidBlock2D
    }
}

/// What the configuration says of `class_embed_type`; diffusers' UNet2DModel takes any other word for none.
fn class_embed_type<'de, D: serde::Deserializer<'de>>(source: D) -> Result<Option<ClassEmbedType>, D::Error> {
    let name = Option::<String>::deserialize(source)?;
    Ok(match name.as_deref() {
        Some("timestep") => Some(ClassEmbedType::Timestep),
        Some("identity") => Some(ClassEmbedType::Identity),
        _ => None,
    })
}

/// A picture's size: one number for a square, two for height and width.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum SampleSize {
    /// Height and width.
    Square(usize),
    /// Height, then width.
    HeightWidth([usize; 2]),
}

impl SampleSize {
    /// Height and width.
    pub fn height_width(self) -> [usize; 2] {
        match self {
            Self::Square(side) => [side; 2],
            Self::HeightWidth(size) => size,
        }
    }
}

/// The configuration of a [`UNet2DModel`](super::UNet2DModel), with diffusers' names and defaults; a key that is missing takes its default,
/// and one that is unknown is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)] // The names are diffusers', and its documentation is theirs.
pub struct UNet2DConfig {
    #[serde(rename = "_class_name")]
    pub class_name: String,
    #[serde(rename = "_diffusers_version")]
    pub diffusers_version: String,
    pub sample_size: Option<SampleSize>,
    pub in_channels: usize,
    pub out_channels: usize,
    #[serde(deserialize_with = "crate::models::checks::on_or_off")]
    pub center_input_sample: bool,
    pub time_embedding_type: TimeEmbeddingType,
    pub time_embedding_dim: Option<usize>,
    pub freq_shift: f64,
    #[serde(deserialize_with = "crate::models::checks::on_or_off")]
    pub flip_sin_to_cos: bool,
    pub down_block_types: Vec<DownBlockType>,
    pub mid_block_type: Option<MidBlockType>,
    pub up_block_types: Vec<UpBlockType>,
    pub block_out_channels: Vec<usize>,
    pub layers_per_block: usize,
    pub mid_block_scale_factor: f64,
    pub downsample_padding: usize,
    pub downsample_type: SamplingType,
    pub upsample_type: SamplingType,
    pub dropout: f64,
    pub act_fn: Activation,
    pub attention_head_dim: Option<usize>,
    pub norm_num_groups: Option<usize>,
    pub attn_norm_num_groups: Option<usize>,
    pub norm_eps: f64,
    pub resnet_time_scale_shift: TimeEmbeddingNorm,
    #[serde(deserialize_with = "crate::models::checks::on_or_off")]
    pub add_attention: bool,
    #[serde(deserialize_with = "class_embed_type")]
    pub class_embed_type: Option<ClassEmbedType>,
    pub num_class_embeds: Option<usize>,
    pub num_train_timesteps: Option<usize>,
    #[serde(flatten)]
    pub unknown: serde_json::Map<String, serde_json::Value>,
}

impl Default for UNet2DConfig {
    fn default() -> Self {
        use DownBlockType::{AttnDownBlock2D, DownBlock2D};
        use UpBlockType::{AttnUpBlock2D, UpBlock2D};
        Self {
            class_name: Self::CLASS.into(),
            diffusers_version: DIFFUSERS_VERSION.into(),
            sample_size: None,
            in_channels: 3,
            out_channels: 3,
            center_input_sample: false,
            time_embedding_type: TimeEmbeddingType::Positional,
            time_embedding_dim: None,
            freq_shift: 0.0,
            flip_sin_to_cos: true,
            down_block_types: vec![DownBlock2D, AttnDownBlock2D, AttnDownBlock2D, AttnDownBlock2D],
            mid_block_type: Some(MidBlockType::UNetMidBlock2D),
            up_block_types: vec![AttnUpBlock2D, AttnUpBlock2D, AttnUpBlock2D, UpBlock2D],
            block_out_channels: vec![224, 448, 672, 896],
            layers_per_block: 2,
            mid_block_scale_factor: 1.0,
            downsample_padding: 1,
            downsample_type: SamplingType::Conv,
            upsample_type: SamplingType::Conv,
            dropout: 0.0,
            act_fn: Activation::Silu,
            attention_head_dim: Some(8),
            norm_num_groups: Some(32),
            attn_norm_num_groups: None,
            norm_eps: 1e-5,
            resnet_time_scale_shift: TimeEmbeddingNorm::Default,
            add_attention: true,
            class_embed_type: None,
            num_class_embeds: None,
            num_train_timesteps: None,
            unknown: serde_json::Map::new(),
        }
    }
}

impl UNet2DConfig {
    /// Dimension of the time embedding.
    pub fn time_embed_dim(&self) -> usize {
        self.time_embedding_dim
            .unwrap_or(4 * self.block_out_channels.first().copied().unwrap_or(0))
    }
}

impl ModelConfig for UNet2DConfig {
    const CLASS: &'static str = "UNet2DModel";
    const LIBRARY: &'static str = "diffusers";

    /// Every level but the last halves height and width.
    fn size_divisor(&self) -> usize {
        1 << self.block_out_channels.len().saturating_sub(1)
    }

    fn validate(&self) -> Result<()> {
        let fail = |message: String| Err(Error::Config(message));
        let levels = self.block_out_channels.len();
        if levels == 0 || levels > 16 {
            return fail(format!(
                "block_out_channels has {levels} entries: a UNet has 1 to 16 levels"
            ));
        }
        for (name, length) in [
            ("down_block_types", self.down_block_types.len()),
            ("up_block_types", self.up_block_types.len()),
        ] {
            if length != levels {
                return fail(format!(
                    "{name} has {length} entries but block_out_channels has {levels}: there is one block a level"
                ));
            }
        }
        let limits = [
            ("in_channels", self.in_channels, 4096),
            ("out_channels", self.out_channels, 4096),
            ("layers_per_block", self.layers_per_block, 64),
            ("time_embedding_dim", self.time_embed_dim(), 1 << 16),
        ];
        let channels = self
            .block_out_channels
            .iter()
            .map(|&c| ("block_out_channels", c, 1 << 14));
        for (name, value, limit) in limits.into_iter().chain(channels) {
            if value == 0 || value > limit {
                return fail(format!("{name} is {value}: it must be from 1 to {limit}"));
            }
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return fail(format!(
                "dropout is {}: it must be at least 0 and below 1",
                self.dropout
            ));
        }
        if self.num_class_embeds == Some(0) {
            return fail("num_class_embeds is 0: leave it out for a model without classes".into());
        }
        if self.time_embedding_type == TimeEmbeddingType::Learned && self.num_train_timesteps.is_none() {
            return fail("time_embedding_type \"learned\" needs num_train_timesteps".into());
        }
        let sizes = [self.mid_block_scale_factor, self.norm_eps];
        if sizes.iter().any(|x| !x.is_finite() || *x <= 0.0) {
            return fail("mid_block_scale_factor and norm_eps must be positive numbers".into());
        }
        Ok(())
    }

    fn sample_size(&self) -> Option<[usize; 2]> {
        self.sample_size.map(SampleSize::height_width)
    }
}
