//! What a ControlNet is made of.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    Error, Result,
    models::{
        DIFFUSERS_VERSION, ModelConfig, UNet2DConditionConfig,
        unet2d_condition::{
            AdditionEmbedType, ConditionClassEmbedType, ConditionDownBlockType, ConditionMidBlockType,
            ConditionUpBlockType, EncoderHidDimType, FlagPerLevel, PerLevel,
        },
    },
    nn::{Activation, TimeEmbeddingNorm},
};

/// In which order a conditioning picture's colours are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChannelOrder {
    /// Red, green, blue.
    Rgb,
    /// Blue, green, red.
    Bgr,
}

/// The configuration of a [`ControlNetModel`](super::ControlNetModel), with diffusers' names and defaults; a key that is missing takes
/// its default, and one that is unknown is kept. `attention_head_dim` is, as in diffusers, the number of heads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)] // The names are diffusers', and its documentation is theirs.
pub struct ControlNetConfig {
    #[serde(rename = "_class_name")]
    pub class_name: String,
    #[serde(rename = "_diffusers_version")]
    pub diffusers_version: String,
    pub in_channels: usize,
    pub conditioning_channels: usize,
    #[serde(deserialize_with = "crate::models::checks::on_or_off")]
    pub flip_sin_to_cos: bool,
    pub freq_shift: f64,
    pub down_block_types: Vec<ConditionDownBlockType>,
    pub mid_block_type: Option<ConditionMidBlockType>,
    pub only_cross_attention: FlagPerLevel,
    pub block_out_channels: Vec<usize>,
    pub layers_per_block: PerLevel,
    pub downsample_padding: usize,
    pub mid_block_scale_factor: f64,
    pub act_fn: Activation,
    pub norm_num_groups: usize,
    pub norm_eps: f64,
    pub cross_attention_dim: PerLevel,
    pub transformer_layers_per_block: PerLevel,
    pub encoder_hid_dim: Option<usize>,
    pub encoder_hid_dim_type: Option<EncoderHidDimType>,
    pub attention_head_dim: PerLevel,
    #[serde(deserialize_with = "crate::models::checks::on_or_off")]
    pub use_linear_projection: bool,
    pub class_embed_type: Option<ConditionClassEmbedType>,
    pub num_class_embeds: Option<usize>,
    pub addition_embed_type: Option<AdditionEmbedType>,
    pub addition_time_embed_dim: Option<usize>,
    pub projection_class_embeddings_input_dim: Option<usize>,
    pub resnet_time_scale_shift: TimeEmbeddingNorm,
    pub controlnet_conditioning_channel_order: ChannelOrder,
    pub conditioning_embedding_out_channels: Vec<usize>,
    #[serde(deserialize_with = "crate::models::checks::on_or_off")]
    pub global_pool_conditions: bool,
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

impl Default for ControlNetConfig {
    fn default() -> Self {
        Self::of_unet(&UNet2DConditionConfig::default())
    }
}

impl ControlNetConfig {
    /// That of a ControlNet for a UNet, as `ControlNetModel.from_unet` makes it.
    pub fn of_unet(unet: &UNet2DConditionConfig) -> Self {
        // What both have and none of us reads, such as `upcast_attention`.
        let shared = ["upcast_attention", "num_attention_heads"];
        let shared = shared
            .iter()
            .filter_map(|&key| Some((key, unet.unknown.get(key)?)));
        Self {
            class_name: Self::CLASS.into(),
            diffusers_version: DIFFUSERS_VERSION.into(),
            in_channels: unet.in_channels,
            conditioning_channels: 3,
            flip_sin_to_cos: unet.flip_sin_to_cos,
            freq_shift: unet.freq_shift,
            down_block_types: unet.down_block_types.clone(),
            mid_block_type: unet.mid_block_type,
            only_cross_attention: unet.only_cross_attention.clone(),
            block_out_channels: unet.block_out_channels.clone(),
            layers_per_block: unet.layers_per_block.clone(),
            downsample_padding: unet.downsample_padding,
            mid_block_scale_factor: unet.mid_block_scale_factor,
            act_fn: unet.act_fn,
            norm_num_groups: unet.norm_num_groups,
            norm_eps: unet.norm_eps,
            cross_attention_dim: unet.cross_attention_dim.clone(),
            transformer_layers_per_block: unet.transformer_layers_per_block.clone(),
            encoder_hid_dim: unet.encoder_hid_dim,
            encoder_hid_dim_type: unet.encoder_hid_dim_type,
            attention_head_dim: unet.attention_head_dim.clone(),
            use_linear_projection: unet.use_linear_projection,
            class_embed_type: unet.class_embed_type,
            num_class_embeds: unet.num_class_embeds,
            addition_embed_type: unet.addition_embed_type,
            addition_time_embed_dim: unet.addition_time_embed_dim,
            projection_class_embeddings_input_dim: unet.projection_class_embeddings_input_dim,
            resnet_time_scale_shift: unet.resnet_time_scale_shift,
            controlnet_conditioning_channel_order: ChannelOrder::Rgb,
            conditioning_embedding_out_channels: vec![16, 32, 96, 256],
            global_pool_conditions: false,
            unknown: shared
                .map(|(key, value)| (key.to_string(), value.clone()))
                .collect(),
        }
    }

    /// The configuration of the UNet whose way down and middle it has.
    pub(super) fn unet(&self) -> UNet2DConditionConfig {
        UNet2DConditionConfig {
            in_channels: self.in_channels,
            flip_sin_to_cos: self.flip_sin_to_cos,
            freq_shift: self.freq_shift,
            down_block_types: self.down_block_types.clone(),
            // It has no way up.
            up_block_types: vec![ConditionUpBlockType::UpBlock2D; self.block_out_channels.len()],
            mid_block_type: self.mid_block_type,
            only_cross_attention: self.only_cross_attention.clone(),
            block_out_channels: self.block_out_channels.clone(),
            layers_per_block: self.layers_per_block.clone(),
            downsample_padding: self.downsample_padding,
            mid_block_scale_factor: self.mid_block_scale_factor,
            act_fn: self.act_fn,
            norm_num_groups: self.norm_num_groups,
            norm_eps: self.norm_eps,
            cross_attention_dim: self.cross_attention_dim.clone(),
            transformer_layers_per_block: self.transformer_layers_per_block.clone(),
            encoder_hid_dim: self.encoder_hid_dim,
            encoder_hid_dim_type: self.encoder_hid_dim_type,
            attention_head_dim: self.attention_head_dim.clone(),
            use_linear_projection: self.use_linear_projection,
            class_embed_type: self.class_embed_type,
            num_class_embeds: self.num_class_embeds,
            addition_embed_type: self.addition_embed_type,
            addition_time_embed_dim: self.addition_time_embed_dim,
            projection_class_embeddings_input_dim: self.projection_class_embeddings_input_dim,
            resnet_time_scale_shift: self.resnet_time_scale_shift,
            unknown: self.unknown.clone(),
            ..UNet2DConditionConfig::default()
        }
    }

    /// By how much the embedding of the conditioning picture makes it smaller.
    pub fn factor(&self) -> usize {
        1 << self.conditioning_embedding_out_channels.len().saturating_sub(1)
    }
}

impl ModelConfig for ControlNetConfig {
    const CLASS: &'static str = "ControlNetModel";
    const LIBRARY: &'static str = "diffusers";

    fn validate(&self) -> Result<()> {
        self.unet().validate().map_err(|error| match error {
            Error::Config(what) => Error::Config(format!("{what} (of a ControlNet)")),
            Error::Unsupported(what) => {
                Error::Unsupported(what.replace(UNet2DConditionConfig::CLASS, Self::CLASS))
            }
            other => other,
        })?;
        let fail = |message: String| Err(Error::Config(message));
        let widths = &self.conditioning_embedding_out_channels;
        if widths.is_empty() || widths.len() > 8 {
            return fail(format!(
                "conditioning_embedding_out_channels has {} entries: it must have 1 to 8",
                widths.len()
            ));
        }
        let numbers = widths
            .iter()
            .map(|&width| ("conditioning_embedding_out_channels", width, 1 << 14));
        let channels = ("conditioning_channels", self.conditioning_channels, 4096);
        for (name, value, limit) in numbers.chain([channels]) {
            if value == 0 || value > limit {
                return fail(format!("{name} is {value}: it must be from 1 to {limit}"));
            }
        }
        Ok(())
    }
}
