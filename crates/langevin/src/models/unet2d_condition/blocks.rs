//! The levels of the conditional UNet. Mirrors `CrossAttnDownBlock2D`, `DownBlock2D` and their like of
//! `diffusers.models.unets.unet_2d_blocks`: with transformers, or with none.

use std::cell::Cell;

use burn::{module::Module, tensor::Tensor};

use super::config::{ConditionDownBlockType, ConditionUpBlockType, UNet2DConditionConfig};
use crate::{
    Result,
    models::residuals,
    nn::{
        Downsample2D, Init, Look, Resampling, ResnetBlock2D, ResnetConfig, Transformer2DConfig,
        Transformer2DModel, Upsample2D,
    },
    ops,
};

/// What every block is told besides its picture.
pub(in crate::models) struct Told<'a> {
    /// The embedding of time, class and vectors, activated: `[batch, time_embed_dim]`.
    pub embedding: &'a Tensor<2>,
    /// The sequence of each level's dimension, which is one and the same tensor: `[batch, length, cross_attention_dim]`.
    pub sequence: Option<&'a Tensor<3>>,
    /// What is looked at besides, in each cross-attention that is still to come.
    pub looks: Cell<&'a [Vec<Look>]>,
}

impl<'a> Told<'a> {
    /// Nothing but these.
    pub(in crate::models) fn new(embedding: &'a Tensor<2>, sequence: Option<&'a Tensor<3>>) -> Self {
        Self {
            embedding,
            sequence,
            looks: Cell::new(&[]),
        }
    }

    /// What the next so many cross-attentions look at besides.
    fn next_looks(&self, count: usize) -> &'a [Vec<Look>] {
        let all = self.looks.get();
        let (next, rest) = all.split_at(count.min(all.len()));
        self.looks.set(rest);
        next
    }
}

/// Makes a level's parts from what the whole UNet has in common.
struct Parts<'a, 'b> {
    config: &'a UNet2DConditionConfig,
    /// Counted from the picture's size down.
    level: usize,
    init: &'a mut Init<'b>,
    /// By what sums are divided.
    scale_factor: f64,
}

impl Parts<'_, '_> {
    fn resnet(&mut self, in_channels: usize, out_channels: usize) -> Result<ResnetBlock2D> {
        let config = ResnetConfig {
            in_channels,
            out_channels,
            temb_channels: Some(self.config.time_embed_dim()),
            groups: self.config.norm_num_groups,
            groups_out: self.config.norm_num_groups,
            eps: self.config.norm_eps,
            activation: self.config.act_fn,
            time_embedding_norm: self.config.resnet_time_scale_shift,
            output_scale_factor: self.scale_factor,
            dropout: self.config.dropout,
            force_shortcut: false,
            resampling: Resampling::None,
        };
        ResnetBlock2D::new(&config, self.init)
    }

    /// `only_cross`: whether its tokens look at the sequence twice and not at each other.
    fn transformer(&mut self, channels: usize, only_cross: bool) -> Result<Transformer2DModel> {
        let config = Transformer2DConfig {
            channels,
            num_attention_heads: self.config.attention_head_dim.at(self.level),
            num_layers: self.config.transformer_layers_per_block.at(self.level),
            cross_attention_dim: self.config.cross_attention_dim.at(self.level),
            norm_num_groups: self.config.norm_num_groups,
            use_linear_projection: self.config.use_linear_projection,
            only_cross_attention: only_cross,
        };
        Transformer2DModel::new(&config, self.init)
    }
}

/// Looks at the sequence where there is one to look at; the model makes sure of it.
fn attend(transformer: Option<&Transformer2DModel>, x: Tensor<4>, told: &Told<'_>) -> Tensor<4> {
    match (transformer, told.sequence) {
        (Some(transformer), Some(sequence)) => match told.next_looks(transformer.transformer_blocks.len()) {
            [] => transformer.forward(x, sequence),
            looks => transformer.forward_with(x, sequence, looks),
        },
        _ => x,
    }
}

/// One level of the way down.
#[derive(Module, Debug)]
pub struct ConditionDownBlock {
    /// After each residual block, or none.
    pub attentions: Vec<Transformer2DModel>,
    /// One a layer.
    pub resnets: Vec<ResnetBlock2D>,
    /// One, or none on the last level.
    pub downsamplers: Vec<Downsample2D>,
}

impl ConditionDownBlock {
    pub(in crate::models) fn new(
        config: &UNet2DConditionConfig,
        level: usize,
        init: &mut Init<'_>,
    ) -> Result<Self> {
        let attends = config.down_block_types[level] == ConditionDownBlockType::CrossAttnDownBlock2D;
        let only_cross = config.only_cross_attention.at(level);
        let out = config.block_out_channels[level];
        let mut input = config.block_out_channels[level.saturating_sub(1)];
        let mut parts = Parts {
            config,
            level,
            init,
            scale_factor: 1.0,
        };
        let (mut resnets, mut attentions) = (vec![], vec![]);
        for _ in 0..config.layers_per_block.at(level) {
            resnets.push(parts.resnet(input, out)?);
            input = out;
            if attends {
                attentions.push(parts.transformer(out, only_cross)?);
            }
        }
        let halves = level + 1 < config.block_out_channels.len();
        let downsamplers = halves.then(|| Downsample2D::new(out, config.downsample_padding, parts.init));
        Ok(Self {
            attentions,
            resnets,
            downsamplers: downsamplers.into_iter().collect(),
        })
    }

    /// Returns the output; every layer's output, and the halved one, go onto `outputs` for the way up.
    pub(in crate::models) fn forward(
        &self,
        x: Tensor<4>,
        told: &Told<'_>,
        outputs: &mut Vec<Tensor<4>>,
    ) -> Tensor<4> {
        let x = self.layers(x, told, outputs);
        self.halve(x, outputs)
    }

    /// The same with something added: before it is halved where the level looks at a sequence, and else at its end, as diffusers has it.
    ///
    /// # Errors
    /// If it has another shape than what it is added to.
    pub(super) fn forward_with(
        &self,
        x: Tensor<4>,
        told: &Told<'_>,
        outputs: &mut Vec<Tensor<4>>,
        added: Option<&Tensor<4>>,
    ) -> Result<Tensor<4>> {
        let Some(added) = added else {
            return Ok(self.forward(x, told, outputs));
        };
        // It counts for the way up too.
        let add = |x: Tensor<4>, outputs: &mut Vec<Tensor<4>>| {
            residuals::fits(&x, added)?;
            let x = x + added.clone();
            if let Some(last) = outputs.last_mut() {
                *last = x.clone();
            }
            Ok::<_, crate::Error>(x)
        };
        let x = self.layers(x, told, outputs);
        if self.attentions.is_empty() {
            let x = self.halve(x, outputs);
            return add(x, outputs);
        }
        let x = add(x, outputs)?;
        Ok(self.halve(x, outputs))
    }

    fn layers(&self, mut x: Tensor<4>, told: &Told<'_>, outputs: &mut Vec<Tensor<4>>) -> Tensor<4> {
        for (layer, resnet) in self.resnets.iter().enumerate() {
            x = resnet.forward(x, told.embedding);
            x = attend(self.attentions.get(layer), x, told);
            outputs.push(x.clone());
        }
        x
    }

    fn halve(&self, mut x: Tensor<4>, outputs: &mut Vec<Tensor<4>>) -> Tensor<4> {
        for downsampler in &self.downsamplers {
            x = downsampler.forward(x);
            outputs.push(x.clone());
        }
        x
    }
}

/// The middle: a residual block, a transformer, a residual block. Mirrors `UNetMidBlock2DCrossAttn`.
#[derive(Module, Debug)]
pub struct ConditionMidBlock {
    /// One.
    pub attentions: Vec<Transformer2DModel>,
    /// Two.
    pub resnets: Vec<ResnetBlock2D>,
}

impl ConditionMidBlock {
    pub(in crate::models) fn new(config: &UNet2DConditionConfig, init: &mut Init<'_>) -> Result<Self> {
        let level = config.block_out_channels.len() - 1;
        let channels = config.block_out_channels[level];
        let mut parts = Parts {
            config,
            level,
            init,
            scale_factor: config.mid_block_scale_factor,
        };
        let first = parts.resnet(channels, channels)?;
        let attentions = vec![parts.transformer(channels, false)?];
        Ok(Self {
            attentions,
            resnets: vec![first, parts.resnet(channels, channels)?],
        })
    }

    pub(in crate::models) fn forward(&self, mut x: Tensor<4>, told: &Told<'_>) -> Tensor<4> {
        for (layer, resnet) in self.resnets.iter().enumerate() {
            x = resnet.forward(x, told.embedding);
            // One transformer, after the first residual block.
            x = attend(self.attentions.get(layer), x, told);
        }
        x
    }
}

/// One level of the way up.
#[derive(Module, Debug)]
pub struct ConditionUpBlock {
    /// After each residual block, or none.
    pub attentions: Vec<Transformer2DModel>,
    /// One more than on the way down.
    pub resnets: Vec<ResnetBlock2D>,
    /// One, or none on the last level.
    pub upsamplers: Vec<Upsample2D>,
}

impl ConditionUpBlock {
    /// Number `place` of the way up, from the smallest size.
    pub(super) fn new(config: &UNet2DConditionConfig, place: usize, init: &mut Init<'_>) -> Result<Self> {
        let attends = config.up_block_types[place] == ConditionUpBlockType::CrossAttnUpBlock2D;
        let channels = &config.block_out_channels;
        let level = channels.len() - 1 - place;
        let out = channels[level];
        let above = channels[level.saturating_sub(1)];
        let mut from_below = channels[(level + 1).min(channels.len() - 1)];
        let mut parts = Parts {
            config,
            level,
            init,
            scale_factor: 1.0,
        };
        let layers = config.layers_per_block.at(level) + 1;
        let (mut resnets, mut attentions) = (vec![], vec![]);
        for layer in 0..layers {
            let from_down = if layer + 1 == layers { above } else { out };
            resnets.push(parts.resnet(from_below + from_down, out)?);
            from_below = out;
            if attends {
                attentions.push(parts.transformer(out, config.only_cross_attention.at(level))?);
            }
        }
        let upsamplers = (level > 0).then(|| Upsample2D::new(out, parts.init));
        Ok(Self {
            attentions,
            resnets,
            upsamplers: upsamplers.into_iter().collect(),
        })
    }

    /// Takes as many of the way down's `outputs` as it has layers, the last first.
    pub(super) fn forward(
        &self,
        mut x: Tensor<4>,
        told: &Told<'_>,
        outputs: &mut Vec<Tensor<4>>,
    ) -> Tensor<4> {
        for (layer, resnet) in self.resnets.iter().enumerate() {
            // The configuration makes as many outputs as the way up takes.
            if let Some(output) = outputs.pop() {
                x = ops::concat(x, output);
            }
            x = resnet.forward(x, told.embedding);
            x = attend(self.attentions.get(layer), x, told);
        }
        // To the size of the way down, which halving rounded up where a side was odd.
        let size = outputs.last().map(|output| output.dims());
        self.upsamplers.iter().fold(x, |x, upsampler| match size {
            Some([_, height, width, _]) => upsampler.forward_to(x, [height, width]),
            None => upsampler.forward(x),
        })
    }
}
