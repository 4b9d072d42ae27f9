//! Self-attention over the positions of a picture.

use burn::{module::Module, tensor::Tensor};

use super::{GroupNorm, Init, Linear, checkpoint, resnet::scale_down};
use crate::{
    Error, Result,
    ops::{self, AttentionOptions, BlockInputs},
};

/// The arguments of an [`Attention`], with diffusers' names.
#[derive(Clone, Debug)]
pub struct AttentionConfig {
    /// Channels in and out.
    pub channels: usize,
    /// Dimension of each head.
    pub head_dim: usize,
    /// Groups of the normalisation before it, if there is one.
    pub norm_num_groups: Option<usize>,
    /// Added to the normalisation's variance.
    pub eps: f64,
    /// The sum with the input is divided by it.
    pub rescale_output_factor: f64,
}

/// Every position attends to every other; the input is added.
/// Mirrors `diffusers.models.attention_processor.Attention` as the UNets' attention blocks set it up.
#[derive(Module, Debug)]
pub struct Attention {
    /// Of the input.
    pub group_norm: Option<GroupNorm>,
    /// Queries.
    pub to_q: Linear,
    /// Keys.
    pub to_k: Linear,
    /// Values.
    pub to_v: Linear,
    /// The output projection, alone in a list as in diffusers, where a dropout stands beside it.
    pub to_out: Vec<Linear>,
    heads: usize,
    scale: f64,
    rescale_output_factor: f64,
}

impl Attention {
    /// A new block.
    ///
    /// # Errors
    /// If the groups do not divide the channels, or a head is wider than all channels.
    pub fn new(config: &AttentionConfig, init: &mut Init<'_>) -> Result<Self> {
        let c = config;
        let heads = c.channels.checked_div(c.head_dim).unwrap_or(0);
        if heads == 0 {
            return Err(Error::Config(format!(
                "attention_head_dim {} does not fit {} channels: choose a head dimension from 1 to the channels of the block",
                c.head_dim, c.channels
            )));
        }
        let inner = heads * c.head_dim;
        let group_norm = c
            .norm_num_groups
            .map(|groups| GroupNorm::new(groups, c.channels, c.eps, init))
            .transpose()?;
        Ok(Self {
            group_norm,
            to_q: Linear::new(c.channels, inner, init),
            to_k: Linear::new(c.channels, inner, init),
            to_v: Linear::new(c.channels, inner, init),
            to_out: vec![Linear::new(inner, c.channels, init)],
            heads,
            scale: (c.head_dim as f64).powf(-0.5),
            rescale_output_factor: c.rescale_output_factor,
        })
    }

    /// # Shapes
    /// `[batch, height, width, channels]`, in and out
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        checkpoint::block(self, x, None, Self::compute)
    }

    fn compute(&self, inputs: BlockInputs) -> Tensor<4> {
        let BlockInputs { x, shortcut, .. } = inputs;
        let [batch, height, width, channels] = x.dims();
        let normed = match &self.group_norm {
            Some(norm) => norm.forward(x),
            // A tensor between, so that the three gradients are added to each other before they are to the shortcut's, in a block that is
            // computed again as in one that is not.
            None => x.reshape([batch, height * width, 1, channels]),
        };
        // Projected as pictures, so that one tensor is kept for all three.
        let [q, k, v] = [&self.to_q, &self.to_k, &self.to_v].map(|projection| {
            let projected = projection.forward(normed.clone());
            let [.., inner] = projected.dims();
            projected.reshape([batch, height * width, inner])
        });
        let options = AttentionOptions {
            heads: self.heads,
            scale: self.scale as f32,
            causal: false,
        };
        let mut y = ops::attention(q, k, v, options);
        let residual = shortcut.reshape([batch, height * width, channels]);
        // One layer; the list is there for its name in the checkpoint.
        for layer in &self.to_out {
            y = layer.forward_add(y, residual.clone());
        }
        scale_down(
            y.reshape([batch, height, width, channels]),
            self.rescale_output_factor,
        )
    }
}
