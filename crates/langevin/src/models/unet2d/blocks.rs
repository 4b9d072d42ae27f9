//! The levels of the UNet. Mirrors `diffusers.models.unets.unet_2d_blocks`: one struct for all blocks of the way down and one for
//! those of the way up, whose optional parts make the kinds.

use burn::{module::Module, tensor::Tensor};

use super::config::{DownBlockType, SamplingType, UNet2DConfig, UpBlockType};
use crate::{
    Result,
    nn::{
        Activation, Attention, AttentionConfig, Conv2d, Downsample2D, GroupNorm, Init, Resampling,
        ResnetBlock2D, ResnetConfig, Upsample2D, fir_downsample, fir_upsample,
    },
    ops::{self, Geometry},
};

/// NCSN++'s pictures beside the blocks are in colour, whatever the model's channels; diffusers fixes the number.
const SKIP_CHANNELS: usize = 3;

/// Halves the size between two levels.
#[allow(
    clippy::large_enum_variant,
    reason = "a model has a handful of them, and a box would stand between it and its parameters"
)]
#[derive(Module, Debug)]
pub enum Downsampler {
    /// A convolution.
    Conv(Downsample2D),
    /// A residual block.
    Resnet(ResnetBlock2D),
}

/// Doubles the size between two levels.
#[allow(
    clippy::large_enum_variant,
    reason = "a model has a handful of them, and a box would stand between it and its parameters"
)]
#[derive(Module, Debug)]
pub enum Upsampler {
    /// Nearest neighbour and a convolution.
    Conv(Upsample2D),
    /// A residual block.
    Resnet(ResnetBlock2D),
}

/// Makes a block's parts from what the whole UNet has in common.
struct Parts<'a, 'b> {
    config: &'a UNet2DConfig,
    init: &'a mut Init<'b>,
    /// By what sums are divided: √2 in NCSN++.
    scale_factor: f64,
}

impl Parts<'_, '_> {
    fn resnet(
        &mut self,
        channels: [usize; 2],
        groups: [usize; 2],
        resampling: Resampling,
        force_shortcut: bool,
    ) -> Result<ResnetBlock2D> {
        let config = ResnetConfig {
            in_channels: channels[0],
            out_channels: channels[1],
            temb_channels: Some(self.config.time_embed_dim()),
            groups: groups[0],
            groups_out: groups[1],
            eps: self.config.norm_eps,
            activation: self.config.act_fn,
            time_embedding_norm: self.config.resnet_time_scale_shift,
            output_scale_factor: self.scale_factor,
            dropout: self.config.dropout,
            force_shortcut,
            resampling,
        };
        ResnetBlock2D::new(&config, self.init)
    }

    fn attention(&mut self, channels: usize, norm_num_groups: Option<usize>) -> Result<Attention> {
        let config = AttentionConfig {
            channels,
            head_dim: self.config.attention_head_dim.unwrap_or(channels),
            norm_num_groups,
            eps: self.config.norm_eps,
            rescale_output_factor: self.scale_factor,
        };
        Attention::new(&config, self.init)
    }
}

/// NCSN++ derives its groups from the channels.
fn quarter_groups(channels: usize) -> usize {
    (channels / 4).min(32)
}

/// The groups of ordinary blocks; diffusers needs the number there as well.
fn config_groups(config: &UNet2DConfig) -> Result<usize> {
    config.norm_num_groups.ok_or_else(|| {
        crate::Error::Config(
            "norm_num_groups is null: only models made of Skip blocks derive it from the channels".into(),
        )
    })
}

/// One level of the way down.
#[derive(Module, Debug)]
pub struct DownBlock {
    /// After each residual block, or none.
    pub attentions: Vec<Attention>,
    /// One a layer.
    pub resnets: Vec<ResnetBlock2D>,
    /// One, or none on the last level; NCSN++ uses [`Self::resnet_down`].
    pub downsamplers: Vec<Downsampler>,
    /// NCSN++: halves the size.
    pub resnet_down: Option<ResnetBlock2D>,
    /// NCSN++: lets the shrunken picture in.
    pub skip_conv: Option<Conv2d>,
}

impl DownBlock {
    pub(super) fn new(config: &UNet2DConfig, level: usize, init: &mut Init<'_>) -> Result<Self> {
        let kind = config.down_block_types[level];
        let out = config.block_out_channels[level];
        let first_in = config.block_out_channels[level.saturating_sub(1)];
        let last = level + 1 == config.block_out_channels.len();
        let scale_factor = if kind.is_skip() {
            std::f64::consts::SQRT_2
        } else {
            1.0
        };
        let mut parts = Parts {
            config,
            init,
            scale_factor,
        };

        let (mut resnets, mut attentions) = (vec![], vec![]);
        for layer in 0..config.layers_per_block {
            let input = if layer == 0 { first_in } else { out };
            let groups = if kind.is_skip() {
                [quarter_groups(input), quarter_groups(out)]
            } else {
                [config_groups(config)?; 2]
            };
            resnets.push(parts.resnet([input, out], groups, Resampling::None, false)?);
            if kind.has_attention() {
                let groups = if kind.is_skip() { 32 } else { groups[1] };
                attentions.push(parts.attention(out, Some(groups))?);
            }
        }

        let (mut downsamplers, mut resnet_down, mut skip_conv) = (vec![], None, None);
        if !last {
            let by_resnet = kind == DownBlockType::ResnetDownsampleBlock2D
                || (kind == DownBlockType::AttnDownBlock2D && config.downsample_type == SamplingType::Resnet);
            if kind.is_skip() {
                let groups = [quarter_groups(out); 2];
                resnet_down = Some(parts.resnet([out; 2], groups, Resampling::FirDown, true)?);
                let geometry = Geometry::uniform(1, 0);
                skip_conv = Some(Conv2d::new(SKIP_CHANNELS, out, 1, geometry, parts.init));
            } else if by_resnet {
                let groups = [config_groups(config)?; 2];
                let resnet = parts.resnet([out; 2], groups, Resampling::Down, false)?;
                downsamplers.push(Downsampler::Resnet(resnet));
            } else {
                let padding = config.downsample_padding;
                downsamplers.push(Downsampler::Conv(Downsample2D::new(out, padding, parts.init)));
            }
        }
        Ok(Self {
            attentions,
            resnets,
            downsamplers,
            resnet_down,
            skip_conv,
        })
    }

    /// Returns the output; every layer's output, and the halved one, go onto `outputs` for the way up.
    /// `skip` is NCSN++'s picture, shrunk in place.
    pub(super) fn forward(
        &self,
        mut x: Tensor<4>,
        temb: &Tensor<2>,
        skip: &mut Tensor<4>,
        outputs: &mut Vec<Tensor<4>>,
    ) -> Tensor<4> {
        for (layer, resnet) in self.resnets.iter().enumerate() {
            x = resnet.forward(x, temb);
            if let Some(attention) = self.attentions.get(layer) {
                x = attention.forward(x);
            }
            outputs.push(x.clone());
        }
        for downsampler in &self.downsamplers {
            x = match downsampler {
                Downsampler::Conv(conv) => conv.forward(x),
                Downsampler::Resnet(resnet) => resnet.forward(x, temb),
            };
            outputs.push(x.clone());
        }
        if let (Some(resnet_down), Some(skip_conv)) = (&self.resnet_down, &self.skip_conv) {
            x = resnet_down.forward(x, temb);
            *skip = fir_downsample(skip.clone());
            x = skip_conv.forward_add(skip.clone(), x);
            outputs.push(x.clone());
        }
        x
    }
}

/// The middle: a residual block, attention, a residual block. Mirrors `UNetMidBlock2D`.
#[derive(Module, Debug)]
pub struct MidBlock {
    /// One, or none where `add_attention` is false.
    pub attentions: Vec<Attention>,
    /// Two.
    pub resnets: Vec<ResnetBlock2D>,
}

impl MidBlock {
    pub(super) fn new(config: &UNet2DConfig, channels: usize, init: &mut Init<'_>) -> Result<Self> {
        let groups = config.norm_num_groups.unwrap_or_else(|| quarter_groups(channels));
        let attention_groups = config
            .attn_norm_num_groups
            .or(match config.resnet_time_scale_shift {
                crate::nn::TimeEmbeddingNorm::Default => Some(groups),
                crate::nn::TimeEmbeddingNorm::ScaleShift => None,
            });
        let mut parts = Parts {
            config,
            init,
            scale_factor: config.mid_block_scale_factor,
        };
        let mut resnets = vec![parts.resnet([channels; 2], [groups; 2], Resampling::None, false)?];
        let mut attentions = vec![];
        if config.add_attention {
            attentions.push(parts.attention(channels, attention_groups)?);
        }
        resnets.push(parts.resnet([channels; 2], [groups; 2], Resampling::None, false)?);
        Ok(Self { attentions, resnets })
    }

    pub(super) fn forward(&self, mut x: Tensor<4>, temb: &Tensor<2>) -> Tensor<4> {
        for (layer, resnet) in self.resnets.iter().enumerate() {
            x = resnet.forward(x, temb);
            // One attention, after the first residual block.
            if let Some(attention) = self.attentions.get(layer) {
                x = attention.forward(x);
            }
        }
        x
    }
}

/// One level of the way up.
#[derive(Module, Debug)]
pub struct UpBlock {
    /// After each residual block; in NCSN++ one after them all; or none.
    pub attentions: Vec<Attention>,
    /// One more than on the way down.
    pub resnets: Vec<ResnetBlock2D>,
    /// One, or none on the last level; NCSN++ uses [`Self::resnet_up`].
    pub upsamplers: Vec<Upsampler>,
    /// NCSN++: doubles the size.
    pub resnet_up: Option<ResnetBlock2D>,
    /// NCSN++: lets a picture out.
    pub skip_conv: Option<Conv2d>,
    /// NCSN++: before [`Self::skip_conv`].
    pub skip_norm: Option<GroupNorm>,
    skips: bool,
}

impl UpBlock {
    pub(super) fn new(config: &UNet2DConfig, level: usize, init: &mut Init<'_>) -> Result<Self> {
        let kind = config.up_block_types[level];
        let levels = config.block_out_channels.len();
        // Level 0 of the way up is the deepest.
        let channels = |level: usize| config.block_out_channels[levels - 1 - level.min(levels - 1)];
        let (out, next) = (channels(level), channels(level + 1));
        let previous = channels(level.saturating_sub(1));
        let last = level + 1 == levels;
        let layers = config.layers_per_block + 1;
        let scale_factor = if kind.is_skip() {
            std::f64::consts::SQRT_2
        } else {
            1.0
        };
        let mut parts = Parts {
            config,
            init,
            scale_factor,
        };

        let (mut resnets, mut attentions) = (vec![], vec![]);
        for layer in 0..layers {
            let from_down = if layer == layers - 1 { next } else { out };
            let from_below = if layer == 0 { previous } else { out };
            let input = from_below + from_down;
            let groups = match kind {
                UpBlockType::SkipUpBlock2D => [quarter_groups(input), quarter_groups(out)],
                // diffusers divides only one of the two; the checkpoints are made with that.
                UpBlockType::AttnSkipUpBlock2D => [(from_below + from_down / 4).min(32), quarter_groups(out)],
                _ => [config_groups(config)?; 2],
            };
            resnets.push(parts.resnet([input, out], groups, Resampling::None, false)?);
            if kind == UpBlockType::AttnUpBlock2D {
                attentions.push(parts.attention(out, Some(groups[1]))?);
            }
        }
        if kind == UpBlockType::AttnSkipUpBlock2D {
            attentions.push(parts.attention(out, Some(32))?);
        }

        let (mut upsamplers, mut resnet_up, mut skip_conv, mut skip_norm) = (vec![], None, None, None);
        if !last {
            let by_resnet = kind == UpBlockType::ResnetUpsampleBlock2D
                || (kind == UpBlockType::AttnUpBlock2D && config.upsample_type == SamplingType::Resnet);
            if kind.is_skip() {
                let groups = quarter_groups(out);
                resnet_up = Some(parts.resnet([out; 2], [groups; 2], Resampling::FirUp, true)?);
                let same = Geometry::uniform(1, 1);
                skip_conv = Some(Conv2d::new(out, SKIP_CHANNELS, 3, same, parts.init));
                skip_norm = Some(GroupNorm::new(groups, out, config.norm_eps, parts.init)?);
            } else if by_resnet {
                let groups = [config_groups(config)?; 2];
                upsamplers.push(Upsampler::Resnet(parts.resnet(
                    [out; 2],
                    groups,
                    Resampling::Up,
                    false,
                )?));
            } else {
                upsamplers.push(Upsampler::Conv(Upsample2D::new(out, parts.init)));
            }
        }
        Ok(Self {
            attentions,
            resnets,
            upsamplers,
            resnet_up,
            skip_conv,
            skip_norm,
            skips: kind.is_skip(),
        })
    }

    /// Takes as many of the way down's `outputs` as it has layers, the last first. `skip` is NCSN++'s picture, grown in place.
    pub(super) fn forward(
        &self,
        mut x: Tensor<4>,
        temb: &Tensor<2>,
        skip: &mut Option<Tensor<4>>,
        outputs: &mut Vec<Tensor<4>>,
    ) -> Tensor<4> {
        for (layer, resnet) in self.resnets.iter().enumerate() {
            // The configuration makes as many outputs as the way up takes.
            if let Some(output) = outputs.pop() {
                x = ops::concat(x, output);
            }
            x = resnet.forward(x, temb);
            if let Some(attention) = self.attentions.get(layer).filter(|_| !self.skips) {
                x = attention.forward(x);
            }
        }
        if self.skips {
            if let Some(attention) = self.attentions.first() {
                x = attention.forward(x);
            }
            *skip = skip.take().map(fir_upsample);
        }
        if let (Some(resnet_up), Some(conv), Some(norm)) = (&self.resnet_up, &self.skip_conv, &self.skip_norm)
        {
            let picture = norm.forward_activated(x.clone(), Activation::Silu);
            *skip = Some(match skip.take() {
                Some(skip) => conv.forward_add(picture, skip),
                None => conv.forward(picture),
            });
            x = resnet_up.forward(x, temb);
        }
        for upsampler in &self.upsamplers {
            x = match upsampler {
                Upsampler::Conv(conv) => conv.forward(x),
                Upsampler::Resnet(resnet) => resnet.forward(x, temb),
            };
        }
        x
    }
}
