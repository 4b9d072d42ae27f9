//! `UNet2DModel`: the UNet of DDPM (Ho et al. 2020) and NCSN++ (Song et al. 2021), with or without classes.

mod blocks;
mod config;

use burn::{
    module::{Module, Param},
    tensor::Tensor,
};

pub use blocks::{DownBlock, Downsampler, MidBlock, UpBlock, Upsampler};
pub use config::{
    ClassEmbedType, DownBlockType, MidBlockType, SampleSize, SamplingType, TimeEmbeddingType, UNet2DConfig,
    UpBlockType,
};

use super::{Conditioning, DIFFUSERS_VERSION, Denoiser, Model, ModelConfig};
use crate::{
    Error, Result,
    nn::{Activation, Conv2d, Embedding, GroupNorm, Init, TimestepEmbedding, sinusoidal_embedding},
    ops::Geometry,
};

/// Sines and cosines at fixed random frequencies. Mirrors `diffusers.models.embeddings.GaussianFourierProjection`.
#[derive(Module, Debug)]
pub struct FourierProjection {
    /// The frequencies, `[dimension]`; not trained.
    pub weight: Param<Tensor<1>>,
}

impl FourierProjection {
    /// `[batch]` → `[batch, 2 · dimension]`
    fn forward(&self, timesteps: Tensor<1>) -> Tensor<2> {
        let angles = timesteps.log().unsqueeze_dim::<2>(1)
            * self.weight.val().unsqueeze_dim::<2>(0)
            * (2.0 * std::f64::consts::PI);
        Tensor::cat(vec![angles.clone().sin(), angles.cos()], 1)
    }
}

/// The parameters of the timestep's projection, where it has any.
#[derive(Module, Debug)]
pub enum TimeProjection {
    /// Fixed frequencies.
    Fourier(FourierProjection),
    /// A vector for each timestep.
    Learned(Embedding),
}

/// The parameters of the class embedding, where it has any.
#[allow(
    clippy::large_enum_variant,
    reason = "a model has a handful of them, and a box would stand between it and its parameters"
)]
#[derive(Module, Debug)]
pub enum ClassEmbedding {
    /// A vector for each class.
    Table(Embedding),
    /// An embedding of a second timestep.
    Timestep(TimestepEmbedding),
}

/// Predicts noise, the clean picture or the velocity from a noisy picture. Mirrors `diffusers.UNet2DModel`; parameters have its names.
///
/// Pictures enter and leave as `[batch, channels, height, width]`; inside, channels come last.
#[derive(Module, Debug)]
pub struct UNet2DModel {
    /// Into the first level's channels.
    pub conv_in: Conv2d,
    /// Where the timestep's projection has parameters.
    pub time_proj: Option<TimeProjection>,
    /// Of the projected timestep.
    pub time_embedding: TimestepEmbedding,
    /// Where there are classes.
    pub class_embedding: Option<ClassEmbedding>,
    /// From the picture's size down.
    pub down_blocks: Vec<DownBlock>,
    /// At the smallest size.
    pub mid_block: Option<MidBlock>,
    /// Back up.
    pub up_blocks: Vec<UpBlock>,
    /// Before the last convolution.
    pub conv_norm_out: GroupNorm,
    /// To the prediction.
    pub conv_out: Conv2d,
    #[module(skip)]
    config: UNet2DConfig,
}

impl Model for UNet2DModel {
    type Config = UNet2DConfig;

    fn build(config: &UNet2DConfig, init: &mut Init<'_>) -> Result<Self> {
        let channels = &config.block_out_channels;
        let (first, deepest) = (channels[0], channels[channels.len() - 1]);
        let time_embed_dim = config.time_embed_dim();
        let same = Geometry::uniform(1, 1);

        let conv_in = Conv2d::new(config.in_channels, first, 3, same, init);
        let (time_proj, time_dim) = match config.time_embedding_type {
            TimeEmbeddingType::Positional => (None, first),
            TimeEmbeddingType::Fourier => {
                // Diffusers draws the frequencies twice and keeps the second.
                drop(init.normal([first], 16.0));
                let weight = Param::from_tensor(init.normal([first], 16.0)).set_require_grad(false);
                (
                    Some(TimeProjection::Fourier(FourierProjection { weight })),
                    2 * first,
                )
            }
            TimeEmbeddingType::Learned => {
                let steps = config.num_train_timesteps.unwrap_or(0);
                (
                    Some(TimeProjection::Learned(Embedding::new(steps, first, init))),
                    first,
                )
            }
        };
        let time_embedding = TimestepEmbedding::new(time_dim, time_embed_dim, init);
        let class_embedding =
            match (config.class_embed_type, config.num_class_embeds) {
                (None, Some(classes)) => Some(ClassEmbedding::Table(Embedding::new(
                    classes,
                    time_embed_dim,
                    init,
                ))),
                (Some(ClassEmbedType::Timestep), _) => Some(ClassEmbedding::Timestep(
                    TimestepEmbedding::new(time_dim, time_embed_dim, init),
                )),
                (Some(ClassEmbedType::Identity), _) | (None, None) => None,
            };
        let down_blocks = (0..channels.len())
            .map(|level| DownBlock::new(config, level, init))
            .collect::<Result<_>>()?;
        let mid_block = config
            .mid_block_type
            .map(|_| MidBlock::new(config, deepest, init))
            .transpose()?;
        let up_blocks = (0..channels.len())
            .map(|level| UpBlock::new(config, level, init))
            .collect::<Result<_>>()?;
        let groups_out = config.norm_num_groups.unwrap_or_else(|| (first / 4).min(32));
        let conv_norm_out = GroupNorm::new(groups_out, first, config.norm_eps, init)?;
        let conv_out = Conv2d::new(first, config.out_channels, 3, same, init);
        Ok(Self {
            conv_in,
            time_proj,
            time_embedding,
            class_embedding,
            down_blocks,
            mid_block,
            up_blocks,
            conv_norm_out,
            conv_out,
            config: config.clone(),
        })
    }

    fn config(&self) -> &UNet2DConfig {
        &self.config
    }

    fn written_config(&self) -> UNet2DConfig {
        // Whichever version wrote what was loaded, this is the one whose files these are.
        UNet2DConfig {
            diffusers_version: DIFFUSERS_VERSION.into(),
            ..self.config.clone()
        }
    }
}

impl UNet2DModel {
    /// The timestep, and the second one of models that have it, as sines and cosines or a learned vector.
    fn project(&self, timesteps: Tensor<1>) -> Tensor<2> {
        match &self.time_proj {
            None => sinusoidal_embedding(
                timesteps,
                self.config.block_out_channels[0],
                self.config.flip_sin_to_cos,
                self.config.freq_shift,
            ),
            Some(TimeProjection::Fourier(fourier)) => fourier.forward(timesteps),
            Some(TimeProjection::Learned(table)) => table.forward(timesteps.int()),
        }
    }

    /// The class's part of the embedding, `[batch, time_embed_dim]`.
    fn embed_class(&self, conditioning: &Conditioning, batch: usize) -> Result<Option<Tensor<2>>> {
        let identity = self.config.class_embed_type == Some(ClassEmbedType::Identity);
        let embedding = match (&self.class_embedding, identity) {
            (None, false) => {
                if conditioning.classes.is_some() {
                    return Err(Error::Config(
                        "this model has no classes, but classes were given: leave them out".into(),
                    ));
                }
                return Ok(None);
            }
            (_, true) => conditioning.vector.clone().ok_or_else(|| {
                Error::Config(
                    "this model needs a vector for each picture (class_embed_type \"identity\")".into(),
                )
            })?,
            (Some(embedding), _) => {
                let classes = conditioning.classes.clone().ok_or_else(|| {
                    Error::Config("this model is class-conditional: it needs a class for each picture".into())
                })?;
                match embedding {
                    ClassEmbedding::Table(table) => table.forward(classes),
                    ClassEmbedding::Timestep(layers) => layers.forward(self.project(classes.float())),
                }
            }
        };
        let expected = [batch, self.config.time_embed_dim()];
        if embedding.dims() != expected {
            return Err(Error::Shape(format!(
                "the class conditioning has shape {:?} where {expected:?} is needed: one class or vector a picture",
                embedding.dims()
            )));
        }
        Ok(Some(embedding))
    }

    fn check(&self, x: &Tensor<4>, timesteps: &Tensor<1>) -> Result<()> {
        let config = &self.config;
        let levels = config.block_out_channels.len();
        super::check_input(
            x,
            timesteps,
            config.in_channels,
            format_args!("{levels} levels"),
            config.size_divisor(),
        )
    }
}

impl Denoiser for UNet2DModel {
    fn denoise(&self, x: Tensor<4>, timesteps: Tensor<1>, conditioning: &Conditioning) -> Result<Tensor<4>> {
        let x = conditioning.beside(x)?;
        self.check(&x, &timesteps)?;
        let [batch, ..] = x.dims();
        let x = if self.config.center_input_sample {
            x * 2.0 - 1.0
        } else {
            x
        };

        // The embedding of time and class, activated once for all blocks.
        let mut embedding = self.time_embedding.forward(self.project(timesteps.clone()));
        if let Some(class) = self.embed_class(conditioning, batch)? {
            embedding = embedding + class;
        }
        let embedding = self.config.act_fn.forward(embedding);

        let picture = x.permute([0, 2, 3, 1]);
        let mut skip = picture.clone();
        let mut x = self.conv_in.forward(picture);
        let mut outputs = vec![x.clone()];
        for block in &self.down_blocks {
            x = block.forward(x, &embedding, &mut skip, &mut outputs);
        }
        if let Some(block) = &self.mid_block {
            x = block.forward(x, &embedding);
        }
        let mut skip = None;
        for block in &self.up_blocks {
            x = block.forward(x, &embedding, &mut skip, &mut outputs);
        }
        let x = self
            .conv_norm_out
            .modulated_conv(x, None, Activation::Silu, &self.conv_out, skip);
        let x = x.permute([0, 3, 1, 2]);
        Ok(match self.config.time_embedding_type {
            TimeEmbeddingType::Fourier => x / timesteps.reshape([batch, 1, 1, 1]),
            _ => x,
        })
    }
}
