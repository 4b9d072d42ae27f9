//! `ControlNetModel`: a UNet's way down with a picture added to it, whose outputs are added to another UNet's (Zhang et al. 2023).

mod config;
mod embedding;
mod fits;
mod open;

use burn::{
    module::Module,
    tensor::{Device, Tensor},
};

pub use config::{ChannelOrder, ControlNetConfig};
pub use embedding::ConditioningEmbedding;

use self::embedding::zero_convolution;
use super::{
    Conditioning, DIFFUSERS_VERSION, Model, Residuals, UNet2DConditionConfig, UNet2DConditionModel,
    check_input,
    unet2d_condition::{ConditionDownBlock, ConditionMidBlock, Told, VectorEmbedding, Vectors},
};
use crate::{
    Error, Result,
    nn::{Activation, Conv2d, Init, Linear, TimestepEmbedding},
    ops::Geometry,
    random::Generator,
};

/// Computes what is added inside of a [`UNet2DConditionModel`] so that its pictures follow another picture: edges, depths, a pose.
/// Mirrors `diffusers.ControlNetModel`; parameters have its names.
#[derive(Module, Debug)]
pub struct ControlNetModel {
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
    /// Brings the conditioning picture to the size of the samples.
    pub controlnet_cond_embedding: ConditioningEmbedding,
    /// From the sample's size down.
    pub down_blocks: Vec<ConditionDownBlock>,
    /// Of each output of the way down; zero in a new network.
    pub controlnet_down_blocks: Vec<Conv2d>,
    /// Of the middle's output; zero in a new network.
    pub controlnet_mid_block: Conv2d,
    /// At the smallest size.
    pub mid_block: Option<ConditionMidBlock>,
    #[module(skip)]
    config: ControlNetConfig,
    /// That of the UNet whose parts it has.
    #[module(skip)]
    unet: UNet2DConditionConfig,
}

impl Model for ControlNetModel {
    type Config = ControlNetConfig;

    fn build(config: &ControlNetConfig, init: &mut Init<'_>) -> Result<Self> {
        let unet = config.unet();
        let channels = &config.block_out_channels;
        let (first, last) = (channels[0], channels[channels.len() - 1]);
        let time_embed_dim = unet.time_embed_dim();
        let conv_in = Conv2d::new(config.in_channels, first, 3, Geometry::uniform(1, 1), init);
        let time_embedding = TimestepEmbedding::new(first, time_embed_dim, init);
        let encoder_hid_proj = config
            .encoder_hid_dim
            .map(|dim| Linear::new(dim, config.cross_attention_dim.at(0), init));
        let class_embedding = VectorEmbedding::new(&unet, init);
        let add_embedding = config
            .addition_embed_type
            .and(config.projection_class_embeddings_input_dim)
            .map(|dim| TimestepEmbedding::new(dim, time_embed_dim, init));
        let controlnet_cond_embedding = ConditioningEmbedding::new(
            config.conditioning_channels,
            &config.conditioning_embedding_out_channels,
            first,
            init,
        );
        let mut controlnet_down_blocks = vec![zero_convolution(first, first, 1, init)];
        let mut down_blocks = Vec::with_capacity(channels.len());
        for (level, &out) in channels.iter().enumerate() {
            let block = ConditionDownBlock::new(&unet, level, init)?;
            let outputs = block.resnets.len() + block.downsamplers.len();
            down_blocks.push(block);
            controlnet_down_blocks.extend((0..outputs).map(|_| zero_convolution(out, out, 1, init)));
        }
        let controlnet_mid_block = zero_convolution(last, last, 1, init);
        let mid_block = config
            .mid_block_type
            .map(|_| ConditionMidBlock::new(&unet, init))
            .transpose()?;
        Ok(Self {
            conv_in,
            time_embedding,
            encoder_hid_proj,
            class_embedding,
            add_embedding,
            controlnet_cond_embedding,
            down_blocks,
            controlnet_down_blocks,
            controlnet_mid_block,
            mid_block,
            config: config.clone(),
            unet,
        })
    }

    fn config(&self) -> &ControlNetConfig {
        &self.config
    }

    fn written_config(&self) -> ControlNetConfig {
        ControlNetConfig {
            diffusers_version: DIFFUSERS_VERSION.into(),
            ..self.config.clone()
        }
    }
}

impl ControlNetModel {
    /// A new network for a UNet, which begins with that one's weights on the way down and adds nothing yet; what has no counterpart is
    /// drawn from `generator`. Mirrors `ControlNetModel.from_unet`, whose other arguments are fields of `config`, which
    /// [`ControlNetConfig::of_unet`] makes.
    ///
    /// # Errors
    /// If the configuration makes no network, or one of another UNet.
    pub fn from_unet(
        unet: &UNet2DConditionModel,
        config: &ControlNetConfig,
        device: &Device,
        generator: &mut Generator,
    ) -> Result<Self> {
        let of_unet = ControlNetConfig {
            conditioning_channels: config.conditioning_channels,
            controlnet_conditioning_channel_order: config.controlnet_conditioning_channel_order,
            conditioning_embedding_out_channels: config.conditioning_embedding_out_channels.clone(),
            global_pool_conditions: config.global_pool_conditions,
            unknown: config.unknown.clone(),
            ..ControlNetConfig::of_unet(unet.config())
        };
        if of_unet != *config {
            return Err(Error::Config(
                "the ControlNet's configuration is not that of this UNet: its levels, widths and inputs must be the UNet's".into(),
            ));
        }
        let new = Self::new(config, device, generator)?;
        let with = |own: TimestepEmbedding, theirs: &TimestepEmbedding| TimestepEmbedding {
            linear_1: theirs.linear_1.clone(),
            linear_2: theirs.linear_2.clone(),
            // A ControlNet is not given the guidance scale of a distilled model.
            cond_proj: own.cond_proj,
        };
        Ok(Self {
            conv_in: unet.conv_in.clone(),
            time_embedding: with(new.time_embedding, &unet.time_embedding),
            encoder_hid_proj: unet.encoder_hid_proj.clone(),
            class_embedding: unet.class_embedding.clone(),
            add_embedding: unet.add_embedding.clone(),
            down_blocks: unet.down_blocks.clone(),
            mid_block: unet.mid_block.clone(),
            ..new
        })
    }

    /// What a conditioning picture comes to beside the samples, which is the same in every step.
    ///
    /// # Shapes
    /// `[batch, conditioning channels, height, width]` in 0..1 → `[batch, height / factor, width / factor, channels]`
    ///
    /// # Errors
    /// If it has other channels.
    pub fn embed(&self, picture: Tensor<4>) -> Result<Tensor<4>> {
        let [_, channels, ..] = picture.dims();
        if channels != self.config.conditioning_channels {
            return Err(Error::Shape(format!(
                "the ControlNet is shown pictures of {} channels, and this one has {channels}",
                self.config.conditioning_channels
            )));
        }
        let ordered = match self.config.controlnet_conditioning_channel_order {
            ChannelOrder::Rgb => picture,
            ChannelOrder::Bgr => picture.flip([1]),
        };
        Ok(self
            .controlnet_cond_embedding
            .forward(ordered.permute([0, 2, 3, 1])))
    }

    /// What is added inside of a UNet that is asked the same: for samples `x`, `[batch, channels, height, width]`, `timesteps`, `[batch]`,
    /// and what the UNet is conditioned on, with an embedded picture for each sample ([`Self::embed`]).
    ///
    /// # Errors
    /// If a shape does not fit, or a condition that the network needs is missing.
    pub fn residuals(
        &self,
        x: Tensor<4>,
        timesteps: Tensor<1>,
        conditioning: &Conditioning,
        embedded: Tensor<4>,
    ) -> Result<Residuals> {
        let levels = self.down_blocks.len();
        check_input(
            &x,
            &timesteps,
            self.config.in_channels,
            format_args!("{levels} levels"),
            1,
        )?;
        let [batch, ..] = x.dims();
        // A UNet's own classes are no affair of a network that has none.
        let classes = conditioning.classes.clone().filter(|_| self.takes_classes());
        let vectors = Conditioning {
            classes,
            ..conditioning.clone()
        };
        let embedding = self.vectors().embed(timesteps, &vectors, batch)?;
        let sequence = self.sequence(conditioning, batch)?;
        let told = Told::new(&embedding, sequence.as_ref());
        let x = self.conv_in.forward(x.permute([0, 2, 3, 1]));
        if embedded.dims() != x.dims() {
            let ([_, height, width, _], [rows, h, w, _]) = (x.dims(), embedded.dims());
            return Err(Error::Shape(format!(
                "{rows} conditioning pictures that come to {h}x{w} were given for {batch} samples of {height}x{width}: there must be one of \
                 that size for each"
            )));
        }
        let mut x = x + embedded;
        let mut outputs = vec![x.clone()];
        for block in &self.down_blocks {
            x = block.forward(x, &told, &mut outputs);
        }
        if let Some(block) = &self.mid_block {
            x = block.forward(x, &told);
        }
        let pairs = self.controlnet_down_blocks.iter().zip(outputs);
        Ok(Residuals {
            skips: pairs.map(|(layer, output)| layer.forward(output)).collect(),
            middle: Some(self.controlnet_mid_block.forward(x)),
            levels: Vec::new(),
        })
    }

    /// The additions as strong as they are asked for. In guess mode those to the shallow levels are weaker, from a tenth on, so that the
    /// network leads without a prompt too. Of a network whose configuration has `global_pool_conditions`, the mean over all pixels.
    pub fn scaled(&self, residuals: Residuals, scale: f64, guess: bool) -> Residuals {
        let count = residuals.skips.len();
        let pools = self.config.global_pool_conditions;
        let scale_of = |place: usize| {
            if guess && !pools {
                10_f64.powf(-1.0 + place as f64 / count.max(1) as f64) * scale
            } else {
                scale
            }
        };
        let of = |(place, residual): (usize, Tensor<4>)| {
            let scale = scale_of(place);
            let scaled = if scale == 1.0 { residual } else { residual * scale };
            if pools {
                scaled.mean_dim(1).mean_dim(2)
            } else {
                scaled
            }
        };
        Residuals {
            skips: residuals.skips.into_iter().enumerate().map(of).collect(),
            middle: residuals.middle.map(|middle| of((count, middle))),
            levels: residuals.levels,
        }
    }

    fn vectors(&self) -> Vectors<'_> {
        Vectors {
            config: &self.unet,
            time: &self.time_embedding,
            class: self.class_embedding.as_ref(),
            class_activation: Activation::Silu,
            added: self.add_embedding.as_ref(),
        }
    }

    fn takes_classes(&self) -> bool {
        self.config.class_embed_type.is_some() || self.config.num_class_embeds.is_some()
    }

    fn sequence(&self, conditioning: &Conditioning, batch: usize) -> Result<Option<Tensor<3>>> {
        if !self.config.attends() {
            return Ok(None);
        }
        let sequence = conditioning.needed_sequence(batch, self.unet.sequence_dim())?;
        Ok(Some(match &self.encoder_hid_proj {
            Some(projection) => projection.forward(sequence),
            None => sequence,
        }))
    }
}
