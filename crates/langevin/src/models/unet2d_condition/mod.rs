//! `UNet2DConditionModel`: the UNet of Stable Diffusion (Rombach et al. 2022), which looks at a sequence by cross-attention.

mod attentions;
mod blocks;
mod config;
mod embed;

use burn::{
    module::{Module, Param},
    tensor::Tensor,
};

pub use attentions::CrossAttention;
pub use blocks::{ConditionDownBlock, ConditionMidBlock, ConditionUpBlock};
pub use config::{
    AdditionEmbedType, ConditionClassEmbedType, ConditionDownBlockType, ConditionMidBlockType,
    ConditionUpBlockType, EncoderHidDimType, FlagPerLevel, PerLevel, TIME_IDS, UNet2DConditionConfig,
};
pub use embed::VectorEmbedding;

pub(in crate::models) use self::{blocks::Told, embed::Vectors};
use super::{Conditioning, DIFFUSERS_VERSION, Denoiser, ImagePrompts, Model};
use crate::{
    Error, Result,
    nn::{Conv2d, GroupNorm, Init, Linear, Look, TimestepEmbedding},
    ops::Geometry,
};

/// Predicts noise, the clean picture or the velocity from a noisy picture and a sequence, such as a caption's embedding.
/// Mirrors `diffusers.UNet2DConditionModel`; parameters have its names.
///
/// Pictures enter and leave as `[batch, channels, height, width]`; inside, channels come last.
#[derive(Module, Debug)]
pub struct UNet2DConditionModel {
    /// Into the first level's channels.
    pub conv_in: Conv2d,
    /// Of the timestep's sines and cosines.
    pub time_embedding: TimestepEmbedding,
    /// Brings the sequence to the cross-attention's dimension.
    pub encoder_hid_proj: Option<Linear>,
    /// Of a class, a second timestep or a vector.
    pub class_embedding: Option<VectorEmbedding>,
    /// Of a pooled embedding and the picture's sizes (Stable Diffusion XL).
    pub add_embedding: Option<TimestepEmbedding>,
    /// From the picture's size down.
    pub down_blocks: Vec<ConditionDownBlock>,
    /// At the smallest size.
    pub mid_block: Option<ConditionMidBlock>,
    /// Back up.
    pub up_blocks: Vec<ConditionUpBlock>,
    /// Before the last convolution.
    pub conv_norm_out: GroupNorm,
    /// To the prediction.
    pub conv_out: Conv2d,
    #[module(skip)]
    config: UNet2DConditionConfig,
}

impl Model for UNet2DConditionModel {
    type Config = UNet2DConditionConfig;

    fn build(config: &UNet2DConditionConfig, init: &mut Init<'_>) -> Result<Self> {
        let levels = config.block_out_channels.len();
        let first = config.block_out_channels[0];
        let time_embed_dim = config.time_embed_dim();
        let same = |kernel: usize| Geometry::uniform(1, kernel / 2);

        let kernel = config.conv_in_kernel;
        let conv_in = Conv2d::new(config.in_channels, first, kernel, same(kernel), init);
        let time_embedding = match config.time_cond_proj_dim {
            Some(dim) => TimestepEmbedding::with_condition(first, dim, time_embed_dim, init),
            None => TimestepEmbedding::new(first, time_embed_dim, init),
        };
        let encoder_hid_proj = config
            .encoder_hid_dim
            .map(|dim| Linear::new(dim, config.cross_attention_dim.at(0), init));
        let class_embedding = VectorEmbedding::new(config, init);
        let add_embedding = config
            .addition_embed_type
            .and(config.projection_class_embeddings_input_dim)
            .map(|dim| TimestepEmbedding::new(dim, time_embed_dim, init));
        let down_blocks = (0..levels)
            .map(|level| ConditionDownBlock::new(config, level, init))
            .collect::<Result<_>>()?;
        let mid_block = config
            .mid_block_type
            .map(|_| ConditionMidBlock::new(config, init))
            .transpose()?;
        let up_blocks = (0..levels)
            .map(|place| ConditionUpBlock::new(config, place, init))
            .collect::<Result<_>>()?;
        let conv_norm_out = GroupNorm::new(config.norm_num_groups, first, config.norm_eps, init)?;
        let kernel = config.conv_out_kernel;
        let conv_out = Conv2d::new(first, config.out_channels, kernel, same(kernel), init);
        Ok(Self {
            conv_in,
            time_embedding,
            encoder_hid_proj,
            class_embedding,
            add_embedding,
            down_blocks,
            mid_block,
            up_blocks,
            conv_norm_out,
            conv_out,
            config: config.clone(),
        })
    }

    fn config(&self) -> &UNet2DConditionConfig {
        &self.config
    }

    fn written_config(&self) -> UNet2DConditionConfig {
        // Whichever version wrote what was loaded, this is the one whose files these are.
        UNet2DConditionConfig {
            diffusers_version: DIFFUSERS_VERSION.into(),
            ..self.config.clone()
        }
    }
}

impl UNet2DConditionModel {
    /// The same that takes `more` channels behind those of the samples, which count for nothing yet.
    pub fn taking_more(mut self, more: usize) -> Self {
        let weight = self.conv_in.weight.val();
        let ([height, width, _, outputs], device) = (weight.dims(), weight.device());
        let zeros = Tensor::zeros([height, width, more, outputs], &device);
        let wider = Tensor::cat(vec![weight, zeros], 2);
        self.conv_in.weight = Param::from_tensor(Tensor::from_data(wider.into_data(), &device));
        self.config.in_channels += more;
        self
    }

    /// The layers that embed timesteps, classes and vectors.
    fn vectors(&self) -> Vectors<'_> {
        Vectors {
            config: &self.config,
            time: &self.time_embedding,
            class: self.class_embedding.as_ref(),
            class_activation: self.config.act_fn,
            added: self.add_embedding.as_ref(),
        }
    }

    /// Whether a block of the model looks at a sequence.
    fn attends(&self) -> bool {
        let down = self.down_blocks.iter().any(|block| !block.attentions.is_empty());
        let up = self.up_blocks.iter().any(|block| !block.attentions.is_empty());
        down || up || self.mid_block.is_some()
    }

    /// The sequence in the cross-attention's dimension; `None` where no block looks at one.
    fn sequence(&self, conditioning: &Conditioning, batch: usize) -> Result<Option<Tensor<3>>> {
        if !self.attends() {
            return Ok(None);
        }
        let sequence = conditioning.needed_sequence(batch, self.config.sequence_dim())?;
        Ok(Some(match &self.encoder_hid_proj {
            Some(projection) => projection.forward(sequence),
            None => sequence,
        }))
    }

    /// What pictures come to in each of the cross-attentions.
    fn looks<'a>(&self, images: &'a ImagePrompts, batch: usize) -> Result<&'a [Vec<Look>]> {
        let (looks, own) = (images.layers(), self.config.cross_attentions());
        let mut wanted = own.iter().flatten();
        let fits = |looks: &Vec<Look>| {
            let channels = wanted.next().map(|attention| attention.channels);
            looks.iter().all(|look| {
                let ([keys, tokens, width], values) = (look.keys.dims(), look.values.dims());
                keys == batch && Some(width) == channels && values == [batch, tokens, width]
            })
        };
        match looks.len() == own.iter().map(Vec::len).sum::<usize>() && looks.iter().all(fits) {
            true => Ok(looks),
            false => Err(Error::Shape(format!(
                "the model is told pictures that are made for another one, or not for {batch} samples"
            ))),
        }
    }

    fn check(&self, x: &Tensor<4>, timesteps: &Tensor<1>) -> Result<()> {
        let config = &self.config;
        let levels = config.block_out_channels.len();
        super::check_input(
            x,
            timesteps,
            config.in_channels,
            format_args!("{levels} levels"),
            1,
        )
    }
}

impl Denoiser for UNet2DConditionModel {
    fn denoise(&self, x: Tensor<4>, timesteps: Tensor<1>, conditioning: &Conditioning) -> Result<Tensor<4>> {
        let x = conditioning.beside(x)?;
        self.check(&x, &timesteps)?;
        let [batch, ..] = x.dims();
        match &conditioning.lent {
            Some(lent) if lent.len() != batch => Err(Error::Shape(format!(
                "LoRA are lent to {} rows of a batch of {batch}",
                lent.len()
            ))),
            Some(lent) => lent.lend(|| self.run(x, timesteps, conditioning)),
            None => self.run(x, timesteps, conditioning),
        }
    }
}

impl UNet2DConditionModel {
    /// What it predicts for inputs that have been checked.
    fn run(&self, x: Tensor<4>, timesteps: Tensor<1>, conditioning: &Conditioning) -> Result<Tensor<4>> {
        let [batch, ..] = x.dims();
        let sequence = self.sequence(conditioning, batch)?;
        let embedding = self.vectors().embed(timesteps, conditioning, batch)?;
        let told = Told::new(&embedding, sequence.as_ref());
        if let Some(images) = &conditioning.images {
            told.looks.set(self.looks(images, batch)?);
        }

        let x = if self.config.center_input_sample {
            x * 2.0 - 1.0
        } else {
            x
        };
        let mut x = self.conv_in.forward(x.permute([0, 2, 3, 1]));
        let mut outputs = vec![x.clone()];
        for (level, block) in self.down_blocks.iter().enumerate() {
            let added = conditioning.residuals.as_ref().and_then(|all| all.level(level));
            x = block.forward_with(x, &told, &mut outputs, added)?;
        }
        if let Some(residuals) = &conditioning.residuals {
            residuals.add_to_skips(&mut outputs)?;
        }
        if let Some(block) = &self.mid_block {
            x = block.forward(x, &told);
        }
        if let Some(residuals) = &conditioning.residuals {
            x = residuals.add_to_middle(x, self.down_blocks.len())?;
        }
        for block in &self.up_blocks {
            x = block.forward(x, &told, &mut outputs);
        }
        let x = self
            .conv_norm_out
            .modulated_conv(x, None, self.config.act_fn, &self.conv_out, None);
        Ok(x.permute([0, 3, 1, 2]))
    }
}
