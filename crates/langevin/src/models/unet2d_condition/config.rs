//! What a conditional UNet is made of.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{
    Error, Result,
    models::{
        DIFFUSERS_VERSION, ModelConfig, VectorInput, checks,
        unet2d::{DownBlockType, SampleSize, TimeEmbeddingType, UNet2DConfig, UpBlockType},
    },
    nn::{Activation, TimeEmbeddingNorm},
};

/// One number for all levels, or one for each, from the picture's size down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PerLevel {
    /// The same on every level.
    All(usize),
    /// One a level.
    Each(Vec<usize>),
}

impl PerLevel {
    /// The number of a level; [`UNet2DConditionConfig::validate`] makes sure that there is one.
    pub fn at(&self, level: usize) -> usize {
        match self {
            Self::All(number) => *number,
            Self::Each(numbers) => numbers.get(level).copied().unwrap_or_default(),
        }
    }

    fn len(&self) -> Option<usize> {
        match self {
            Self::All(_) => None,
            Self::Each(numbers) => Some(numbers.len()),
        }
    }
}

/// Yes or no for all levels, or for each, from the picture's size down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum FlagPerLevel {
    /// The same on every level.
    All(bool),
    /// One a level.
    Each(Vec<bool>),
}

impl FlagPerLevel {
    /// That of a level; [`UNet2DConditionConfig::validate`] makes sure that there is one.
    pub fn at(&self, level: usize) -> bool {
        match self {
            Self::All(flag) => *flag,
            Self::Each(flags) => flags.get(level).copied().unwrap_or_default(),
        }
    }

    fn len(&self) -> Option<usize> {
        match self {
            Self::All(_) => None,
            Self::Each(flags) => Some(flags.len()),
        }
    }
}

/// One level of the way down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConditionDownBlockType {
    /// Residual blocks.
    DownBlock2D,
    /// Residual blocks, each followed by a transformer that looks at the sequence.
    CrossAttnDownBlock2D,
}

/// One level of the way up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConditionUpBlockType {
    /// Residual blocks.
    UpBlock2D,
    /// Residual blocks, each followed by a transformer that looks at the sequence.
    CrossAttnUpBlock2D,
}

/// The middle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConditionMidBlockType {
    /// A residual block, a transformer, a residual block.
    UNetMidBlock2DCrossAttn,
}

/// What is added to the time embedding for a picture's class or vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConditionClassEmbedType {
    /// A second timestep, with an embedding of its own.
    Timestep,
    /// A vector, added as it is.
    Identity,
    /// A vector, through two linear layers.
    Projection,
    /// A vector, through one linear layer.
    SimpleProjection,
}

/// What else is added to the time embedding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdditionEmbedType {
    /// Stable Diffusion XL's: a caption's pooled embedding beside the sinusoidal embeddings of six numbers.
    TextTime,
}

/// How the sequence is brought to the dimension of the cross-attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EncoderHidDimType {
    /// By a linear layer.
    TextProj,
}

/// Settings of diffusers that change the model and have only one meaning here yet. (`resnet_skip_time_act` is of blocks that are not here;
/// diffusers' others do not look at it.)
fn only_values() -> [(&'static str, Value); 5] {
    [
        ("dual_cross_attention", json!(false)),
        ("num_attention_heads", Value::Null),
        ("time_embedding_type", json!("positional")),
        ("timestep_post_act", Value::Null),
        ("class_embeddings_concat", json!(false)),
    ]
}

/// The types of attention that change a model; diffusers takes every other word for none of them.
const OTHER_ATTENTION: [&str; 2] = ["gated", "gated-text-image"];

/// The configuration of a [`UNet2DConditionModel`](super::UNet2DConditionModel), with diffusers' names and defaults; a key that is
/// missing takes its default, and one that is unknown is kept. `attention_head_dim` is, as in diffusers, the number of heads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)] // The names are diffusers', and its documentation is theirs.
pub struct UNet2DConditionConfig {
    #[serde(rename = "_class_name")]
    pub class_name: String,
    #[serde(rename = "_diffusers_version")]
    pub diffusers_version: String,
    pub sample_size: Option<SampleSize>,
    pub in_channels: usize,
    pub out_channels: usize,
    #[serde(deserialize_with = "crate::models::checks::on_or_off")]
    pub center_input_sample: bool,
    #[serde(deserialize_with = "crate::models::checks::on_or_off")]
    pub flip_sin_to_cos: bool,
    pub freq_shift: f64,
    pub down_block_types: Vec<ConditionDownBlockType>,
    pub mid_block_type: Option<ConditionMidBlockType>,
    pub up_block_types: Vec<ConditionUpBlockType>,
    pub block_out_channels: Vec<usize>,
    pub layers_per_block: PerLevel,
    pub downsample_padding: usize,
    pub mid_block_scale_factor: f64,
    pub dropout: f64,
    pub act_fn: Activation,
    pub norm_num_groups: usize,
    pub norm_eps: f64,
    pub cross_attention_dim: PerLevel,
    pub transformer_layers_per_block: PerLevel,
    pub encoder_hid_dim: Option<usize>,
    pub encoder_hid_dim_type: Option<EncoderHidDimType>,
    pub attention_head_dim: PerLevel,
    pub only_cross_attention: FlagPerLevel,
    #[serde(deserialize_with = "crate::models::checks::on_or_off")]
    pub use_linear_projection: bool,
    pub class_embed_type: Option<ConditionClassEmbedType>,
    pub num_class_embeds: Option<usize>,
    pub addition_embed_type: Option<AdditionEmbedType>,
    pub addition_time_embed_dim: Option<usize>,
    pub projection_class_embeddings_input_dim: Option<usize>,
    pub resnet_time_scale_shift: TimeEmbeddingNorm,
    pub time_embedding_dim: Option<usize>,
    pub time_embedding_act_fn: Option<Activation>,
    pub time_cond_proj_dim: Option<usize>,
    pub conv_in_kernel: usize,
    pub conv_out_kernel: usize,
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

impl Default for UNet2DConditionConfig {
    fn default() -> Self {
        use ConditionDownBlockType::{CrossAttnDownBlock2D, DownBlock2D};
        use ConditionUpBlockType::{CrossAttnUpBlock2D, UpBlock2D};
        Self {
            class_name: Self::CLASS.into(),
            diffusers_version: DIFFUSERS_VERSION.into(),
            sample_size: None,
            in_channels: 4,
            out_channels: 4,
            center_input_sample: false,
            flip_sin_to_cos: true,
            freq_shift: 0.0,
            down_block_types: [[CrossAttnDownBlock2D; 3].as_slice(), &[DownBlock2D]].concat(),
            mid_block_type: Some(ConditionMidBlockType::UNetMidBlock2DCrossAttn),
            up_block_types: [[UpBlock2D].as_slice(), &[CrossAttnUpBlock2D; 3]].concat(),
            block_out_channels: vec![320, 640, 1280, 1280],
            layers_per_block: PerLevel::All(2),
            downsample_padding: 1,
            mid_block_scale_factor: 1.0,
            dropout: 0.0,
            act_fn: Activation::Silu,
            norm_num_groups: 32,
            norm_eps: 1e-5,
            cross_attention_dim: PerLevel::All(1280),
            transformer_layers_per_block: PerLevel::All(1),
            encoder_hid_dim: None,
            encoder_hid_dim_type: None,
            attention_head_dim: PerLevel::All(8),
            only_cross_attention: FlagPerLevel::All(false),
            use_linear_projection: false,
            class_embed_type: None,
            num_class_embeds: None,
            addition_embed_type: None,
            addition_time_embed_dim: None,
            projection_class_embeddings_input_dim: None,
            resnet_time_scale_shift: TimeEmbeddingNorm::Default,
            time_embedding_dim: None,
            time_embedding_act_fn: None,
            time_cond_proj_dim: None,
            conv_in_kernel: 3,
            conv_out_kernel: 3,
            unknown: Map::new(),
        }
    }
}

impl UNet2DConditionConfig {
    /// The same UNet with transformers where the plain one has attention, which look at a sequence of vectors of `sequence_dim`
    /// numbers; heads stay as wide as they were. Without a sequence there is neither attention nor a middle: diffusers has no
    /// conditional UNet that looks at nothing but itself.
    ///
    /// # Errors
    /// If it has blocks that no conditional UNet has.
    pub fn of_plain(plain: &UNet2DConfig, sequence_dim: Option<usize>) -> Result<Self> {
        use ConditionDownBlockType as Down;
        use ConditionUpBlockType as Up;
        let refused = |what: String| {
            Error::Unsupported(format!(
                "neither cross-attention nor a vector has a place in this model: {what} is not there yet in it"
            ))
        };
        let down = |block: &DownBlockType| match block {
            DownBlockType::DownBlock2D => Ok(Down::DownBlock2D),
            DownBlockType::AttnDownBlock2D if sequence_dim.is_some() => Ok(Down::CrossAttnDownBlock2D),
            DownBlockType::AttnDownBlock2D => Ok(Down::DownBlock2D),
            other => Err(refused(format!("{other:?}"))),
        };
        let up = |block: &UpBlockType| match block {
            UpBlockType::UpBlock2D => Ok(Up::UpBlock2D),
            UpBlockType::AttnUpBlock2D if sequence_dim.is_some() => Ok(Up::CrossAttnUpBlock2D),
            UpBlockType::AttnUpBlock2D => Ok(Up::UpBlock2D),
            other => Err(refused(format!("{other:?}"))),
        };
        if plain.time_embedding_type != TimeEmbeddingType::Positional {
            return Err(refused(format!(
                "a time embedding of the type {:?}",
                plain.time_embedding_type
            )));
        }
        let groups = plain.norm_num_groups;
        let heads =
            |&channels: &usize| (channels / plain.attention_head_dim.unwrap_or(channels).max(1)).max(1);
        Ok(Self {
            sample_size: plain.sample_size,
            in_channels: plain.in_channels,
            out_channels: plain.out_channels,
            center_input_sample: plain.center_input_sample,
            flip_sin_to_cos: plain.flip_sin_to_cos,
            freq_shift: plain.freq_shift,
            down_block_types: plain.down_block_types.iter().map(down).collect::<Result<_>>()?,
            up_block_types: plain.up_block_types.iter().map(up).collect::<Result<_>>()?,
            block_out_channels: plain.block_out_channels.clone(),
            layers_per_block: PerLevel::All(plain.layers_per_block),
            downsample_padding: plain.downsample_padding,
            mid_block_scale_factor: plain.mid_block_scale_factor,
            dropout: plain.dropout,
            act_fn: plain.act_fn,
            norm_num_groups: groups.ok_or_else(|| refused("norm_num_groups null".into()))?,
            norm_eps: plain.norm_eps,
            mid_block_type: sequence_dim.map(|_| ConditionMidBlockType::UNetMidBlock2DCrossAttn),
            cross_attention_dim: sequence_dim.map_or(Self::default().cross_attention_dim, PerLevel::All),
            attention_head_dim: PerLevel::Each(plain.block_out_channels.iter().map(heads).collect()),
            resnet_time_scale_shift: plain.resnet_time_scale_shift,
            time_embedding_dim: plain.time_embedding_dim,
            ..Self::default()
        })
    }

    /// Tells the model a vector beside the timestep.
    ///
    /// # Errors
    /// If it is to be added as it is, and the time embedding has another dimension.
    pub(in crate::models) fn take_vector(&mut self, vector: &VectorInput) -> Result<()> {
        let (dimension, time) = (vector.dimension, self.time_embed_dim());
        if vector.embedding == ConditionClassEmbedType::Identity && dimension != time {
            return Err(Error::Config(format!(
                "a vector of {dimension} numbers cannot be added to a time embedding of {time} as it is: `vector_embedding` must be \
                 `projection` or `simple_projection`"
            )));
        }
        self.num_class_embeds = None;
        self.class_embed_type = Some(vector.embedding);
        self.projection_class_embeddings_input_dim = Some(dimension);
        Ok(())
    }

    /// Dimension of the time embedding.
    pub fn time_embed_dim(&self) -> usize {
        self.time_embedding_dim
            .unwrap_or(4 * self.block_out_channels.first().copied().unwrap_or(0))
    }

    /// Dimension of the sequence that the model is given.
    pub fn sequence_dim(&self) -> usize {
        self.encoder_hid_dim.unwrap_or(self.cross_attention_dim.at(0))
    }

    /// Dimension of the vector that the model is given for each picture, where it takes one.
    pub fn vector_dim(&self) -> Option<usize> {
        use ConditionClassEmbedType::{Identity, Projection, SimpleProjection};
        match (self.class_embed_type, self.addition_embed_type) {
            (Some(Identity), _) => Some(self.time_embed_dim()),
            (Some(Projection | SimpleProjection), _) => self.projection_class_embeddings_input_dim,
            (_, Some(AdditionEmbedType::TextTime)) => {
                let times = TIME_IDS * self.addition_time_embed_dim.unwrap_or(0);
                self.projection_class_embeddings_input_dim?.checked_sub(times)
            }
            _ => None,
        }
    }

    /// The numbers that must be positive, and the largest that makes sense.
    fn bounded(&self, levels: usize) -> Vec<(&'static str, usize, usize)> {
        let mut numbers = vec![
            ("in_channels", self.in_channels, 4096),
            ("out_channels", self.out_channels, 4096),
            ("time_embedding_dim", self.time_embed_dim(), 1 << 16),
            ("conv_in_kernel", self.conv_in_kernel, 31),
            ("conv_out_kernel", self.conv_out_kernel, 31),
            ("encoder_hid_dim", self.encoder_hid_dim.unwrap_or(1), 1 << 16),
            ("num_class_embeds", self.num_class_embeds.unwrap_or(1), 1 << 24),
            (
                "time_cond_proj_dim",
                self.time_cond_proj_dim.unwrap_or(4),
                1 << 14,
            ),
            (
                "addition_time_embed_dim",
                self.addition_time_embed_dim.unwrap_or(1),
                1 << 16,
            ),
            (
                "projection_class_embeddings_input_dim",
                self.projection_class_embeddings_input_dim.unwrap_or(1),
                1 << 16,
            ),
        ];
        for level in 0..levels {
            numbers.extend([
                ("block_out_channels", self.block_out_channels[level], 1 << 14),
                ("layers_per_block", self.layers_per_block.at(level), 64),
                ("cross_attention_dim", self.cross_attention_dim.at(level), 1 << 16),
                (
                    "transformer_layers_per_block",
                    self.transformer_layers_per_block.at(level),
                    256,
                ),
                ("attention_head_dim", self.attention_head_dim.at(level), 1 << 14),
            ]);
        }
        numbers
    }

    /// Checks what is added to the time embedding.
    fn validate_vectors(&self) -> Result<()> {
        use ConditionClassEmbedType::{Projection, SimpleProjection};
        let fail = |message: &str| Err(Error::Config(message.into()));
        let projects = matches!(self.class_embed_type, Some(Projection | SimpleProjection));
        if self.addition_embed_type.is_some() {
            if self.class_embed_type.is_some() {
                return fail("class_embed_type and addition_embed_type both take a vector: name one of them");
            }
            if self.addition_time_embed_dim.is_none() {
                return fail("addition_embed_type \"text_time\" needs addition_time_embed_dim");
            }
        }
        if (projects || self.addition_embed_type.is_some())
            && self.projection_class_embeddings_input_dim.is_none()
        {
            return fail("a projected vector needs projection_class_embeddings_input_dim");
        }
        if self.addition_embed_type.is_some() && self.vector_dim().is_none_or(|dim| dim == 0) {
            return fail(
                "projection_class_embeddings_input_dim must be more than six times addition_time_embed_dim",
            );
        }
        if self.encoder_hid_dim.is_none() && self.encoder_hid_dim_type.is_some() {
            return fail("encoder_hid_dim_type needs encoder_hid_dim");
        }
        if self.encoder_hid_dim.is_some() && self.cross_attention_dim.len().is_some() {
            return fail("encoder_hid_dim needs one cross_attention_dim for all levels");
        }
        Ok(())
    }
}

/// How many numbers Stable Diffusion XL is told of a picture: original size, crop and target size, two each.
pub const TIME_IDS: usize = 6;

impl ModelConfig for UNet2DConditionConfig {
    const CLASS: &'static str = "UNet2DConditionModel";
    const LIBRARY: &'static str = "diffusers";

    /// Every level but the last halves height and width.
    fn size_divisor(&self) -> usize {
        1 << self.block_out_channels.len().saturating_sub(1)
    }

    fn validate(&self) -> Result<()> {
        let fail = |message: String| Err(Error::Config(message));
        checks::only(Self::CLASS, &self.unknown, &only_values())?;
        let attention = self.unknown.get("attention_type").and_then(Value::as_str);
        if let Some(name) = attention.filter(|name| OTHER_ATTENTION.contains(name)) {
            return Err(Error::Unsupported(format!(
                "attention_type \"{name}\" is not there yet for a {}; \"default\" is",
                Self::CLASS
            )));
        }
        let levels = self.block_out_channels.len();
        if levels == 0 || levels > 16 {
            return fail(format!(
                "block_out_channels has {levels} entries: a UNet has 1 to 16 levels"
            ));
        }
        let lengths = [
            ("down_block_types", Some(self.down_block_types.len())),
            ("up_block_types", Some(self.up_block_types.len())),
            ("layers_per_block", self.layers_per_block.len()),
            ("cross_attention_dim", self.cross_attention_dim.len()),
            (
                "transformer_layers_per_block",
                self.transformer_layers_per_block.len(),
            ),
            ("attention_head_dim", self.attention_head_dim.len()),
            ("only_cross_attention", self.only_cross_attention.len()),
        ];
        for (name, length) in lengths {
            if let Some(length) = length.filter(|&length| length != levels) {
                return fail(format!(
                    "{name} has {length} entries but block_out_channels has {levels}: there is one per level"
                ));
            }
        }
        for (name, value, limit) in self.bounded(levels) {
            if value == 0 || value > limit {
                return fail(format!("{name} is {value}: it must be from 1 to {limit}"));
            }
        }
        if self
            .time_cond_proj_dim
            .is_some_and(|dim| !(4..=1 << 16).contains(&dim) || dim % 2 == 1)
        {
            return fail("time_cond_proj_dim must be even and from 4 to 65536".into());
        }
        if self.conv_in_kernel.is_multiple_of(2) || self.conv_out_kernel.is_multiple_of(2) {
            return fail("conv_in_kernel and conv_out_kernel must be odd".into());
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return fail(format!(
                "dropout is {}: it must be at least 0 and below 1",
                self.dropout
            ));
        }
        let sizes = [self.mid_block_scale_factor, self.norm_eps];
        if sizes.iter().any(|x| !x.is_finite() || *x <= 0.0) {
            return fail("mid_block_scale_factor and norm_eps must be positive numbers".into());
        }
        self.validate_vectors()
    }

    fn sample_size(&self) -> Option<[usize; 2]> {
        self.sample_size.map(SampleSize::height_width)
    }
}
