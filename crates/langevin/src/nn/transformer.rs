//! Transformers over the positions of a picture, which may look at a sequence beside it.

use burn::{module::Module, tensor::Tensor};

use super::{Conv2d, GroupNorm, Init, LayerNorm, Linear, activation::gelu_approximate, checkpoint};
use crate::{
    Error, Result,
    ops::{self, AttentionOptions, BlockInputs, Geometry},
};

/// Added to the variance by a transformer block's normalisations; diffusers fixes the number.
const LAYER_NORM_EPS: f64 = 1e-5;
/// The same for the normalisation before the first block.
const GROUP_NORM_EPS: f64 = 1e-6;
/// How many times wider the feed-forward's inner layer is.
const WIDENING: usize = 4;

/// Attention of tokens to themselves or to another sequence, without a residual.
/// Mirrors `diffusers.models.attention_processor.Attention` as transformer blocks set it up.
#[derive(Module, Debug)]
pub struct TokenAttention {
    /// Queries, without bias.
    pub to_q: Linear,
    /// Keys, without bias.
    pub to_k: Linear,
    /// Values, without bias.
    pub to_v: Linear,
    /// The output projection, alone in a list as in diffusers, where a dropout stands beside it.
    pub to_out: Vec<Linear>,
    heads: usize,
    scale: f64,
}

impl TokenAttention {
    /// A new layer of `heads` heads, which divide `channels`; `context` is the dimension of what is looked at.
    fn new(channels: usize, context: usize, heads: usize, init: &mut Init<'_>) -> Self {
        Self::with_bias(channels, context, heads, false, init)
    }

    /// The same, with a bias for queries, keys and values or without.
    pub(super) fn with_bias(
        channels: usize,
        context: usize,
        heads: usize,
        bias: bool,
        init: &mut Init<'_>,
    ) -> Self {
        let linear = if bias { Linear::new } else { Linear::without_bias };
        Self {
            to_q: linear(channels, channels, init),
            to_k: linear(context, channels, init),
            to_v: linear(context, channels, init),
            to_out: vec![Linear::new(channels, channels, init)],
            heads,
            scale: ((channels / heads) as f64).powf(-0.5),
        }
    }

    /// Adds what the tokens `x` (already normalised) find in `context` to `residual`.
    ///
    /// # Shapes
    /// - `x`, `residual` and the result: `[batch, tokens, channels]`
    /// - `context`: `[batch, length, context channels]`
    /// - `looks`: what else they look at, whose findings are added
    fn forward_add(
        &self,
        x: Tensor<3>,
        context: Tensor<3>,
        looks: &[Look],
        residual: Tensor<3>,
    ) -> Tensor<3> {
        let mut y = self.look(x, context, looks, None);
        // One layer; the list is there for its name in the checkpoint.
        for layer in &self.to_out {
            y = layer.forward_add(y, residual.clone());
        }
        y
    }

    /// What the tokens `x` find in `context`; nothing is added.
    ///
    /// # Shapes
    /// - `x` and the result: `[batch, tokens, channels]`
    /// - `context`: `[batch, length, context channels]`
    /// - `bias`: `[batch, length]`, what is added to the scores of each token of `context`
    pub(super) fn forward(&self, x: Tensor<3>, context: Tensor<3>, bias: Option<&Tensor<2>>) -> Tensor<3> {
        let y = self.look(x, context, &[], bias);
        self.to_out.iter().fold(y, |y, layer| layer.forward(y))
    }

    /// The attention before its output projection.
    fn look(&self, x: Tensor<3>, context: Tensor<3>, looks: &[Look], bias: Option<&Tensor<2>>) -> Tensor<3> {
        let q = self.to_q.forward(x);
        let k = self.to_k.forward(context.clone());
        let v = self.to_v.forward(context);
        let options = AttentionOptions {
            heads: self.heads,
            scale: self.scale as f32,
            causal: false,
        };
        let found = match bias {
            Some(bias) => ops::biased_attention(q.clone(), k, v, bias.clone(), options),
            None => ops::attention(q.clone(), k, v, options),
        };
        looks.iter().fold(found, |found, look| {
            found + ops::attention(q.clone(), look.keys.clone(), look.values.clone(), options)
        })
    }
}

/// What else the tokens of a cross-attention look at, each with a softmax of its own: the keys and values of a picture's tokens.
///
/// Shapes are `[batch, tokens, channels]`.
#[derive(Clone, Debug)]
pub struct Look {
    /// What queries are compared with.
    pub keys: Tensor<3>,
    /// What is found, as much as it counts.
    pub values: Tensor<3>,
}

/// A gated linear layer, `a · gelu(b)` (Shazeer 2020, "GLU Variants"). Mirrors `diffusers.models.activations.GEGLU`.
#[derive(Module, Debug)]
pub struct Geglu {
    /// To `[a, b]`.
    pub proj: Linear,
}

impl Geglu {
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        ops::geglu(self.proj.forward(x))
    }
}

/// A linear layer and GELU by its approximation with tanh. Mirrors `diffusers.models.activations.GELU` with `approximate="tanh"`.
#[derive(Module, Debug)]
pub struct GeluLayer {
    /// The linear layer.
    pub proj: Linear,
}

/// A layer of the feed-forward.
#[derive(Module, Debug)]
pub enum FeedForwardLayer {
    /// The layer that widens, without a gate.
    Gelu(GeluLayer),
    /// The gated layer that widens.
    Geglu(Geglu),
    /// The way back.
    Linear(Linear),
}

/// Widens every token, bends it and narrows it again. Mirrors `diffusers.models.attention.FeedForward`.
#[derive(Module, Debug)]
pub struct FeedForward {
    /// At the places that they have in diffusers' list, where a dropout without parameters stands between them.
    pub net: Vec<Option<FeedForwardLayer>>,
}

impl FeedForward {
    fn new(channels: usize, init: &mut Init<'_>) -> Self {
        let proj = Linear::new(channels, 2 * WIDENING * channels, init);
        Self::widened(FeedForwardLayer::Geglu(Geglu { proj }), channels, init)
    }

    /// The same without a gate, with GELU by its approximation.
    pub(super) fn gelu(channels: usize, init: &mut Init<'_>) -> Self {
        let proj = Linear::new(channels, WIDENING * channels, init);
        Self::widened(FeedForwardLayer::Gelu(GeluLayer { proj }), channels, init)
    }

    fn widened(widening: FeedForwardLayer, channels: usize, init: &mut Init<'_>) -> Self {
        let back = Linear::new(WIDENING * channels, channels, init);
        Self {
            net: vec![Some(widening), None, Some(FeedForwardLayer::Linear(back))],
        }
    }

    /// `[batch, tokens, channels]`, in and out
    pub(super) fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.net.iter().flatten().fold(x, |x, layer| match layer {
            FeedForwardLayer::Gelu(layer) => gelu_approximate(layer.proj.forward(x)),
            FeedForwardLayer::Geglu(geglu) => geglu.forward(x),
            FeedForwardLayer::Linear(linear) => linear.forward(x),
        })
    }
}

/// Attention of the tokens to each other, then to a sequence, then a feed-forward; each is normalised before and added after.
/// Mirrors `diffusers.models.attention.BasicTransformerBlock`.
#[derive(Module, Debug)]
pub struct BasicTransformerBlock {
    /// Before [`Self::attn1`].
    pub norm1: LayerNorm,
    /// The tokens to each other.
    pub attn1: TokenAttention,
    /// Before [`Self::attn2`].
    pub norm2: LayerNorm,
    /// The tokens to the sequence.
    pub attn2: TokenAttention,
    /// Before [`Self::ff`].
    pub norm3: LayerNorm,
    /// The feed-forward.
    pub ff: FeedForward,
    /// Whether [`Self::attn1`] looks at the sequence too.
    only_cross_attention: bool,
}

impl BasicTransformerBlock {
    fn new(config: &Transformer2DConfig, init: &mut Init<'_>) -> Self {
        let (channels, heads) = (config.channels, config.num_attention_heads);
        let context = config.cross_attention_dim;
        let first = if config.only_cross_attention {
            context
        } else {
            channels
        };
        Self {
            norm1: LayerNorm::new(channels, LAYER_NORM_EPS, init),
            attn1: TokenAttention::new(channels, first, heads, init),
            norm2: LayerNorm::new(channels, LAYER_NORM_EPS, init),
            attn2: TokenAttention::new(channels, context, heads, init),
            norm3: LayerNorm::new(channels, LAYER_NORM_EPS, init),
            ff: FeedForward::new(channels, init),
            only_cross_attention: config.only_cross_attention,
        }
    }

    fn forward(&self, x: Tensor<3>, sequence: &Tensor<3>, looks: &[Look]) -> Tensor<3> {
        let normed = self.norm1.forward(x.clone());
        let context = if self.only_cross_attention {
            sequence
        } else {
            &normed
        };
        let x = self.attn1.forward_add(normed.clone(), context.clone(), &[], x);
        let x = self
            .attn2
            .forward_add(self.norm2.forward(x.clone()), sequence.clone(), looks, x);
        self.ff.forward(self.norm3.forward(x.clone())) + x
    }
}

/// The projection before and after the blocks; what differs is its shape in a checkpoint.
#[derive(Module, Debug)]
pub enum Projection {
    /// A 1x1 convolution.
    Conv(Conv2d),
    /// A linear layer (`use_linear_projection`).
    Linear(Linear),
}

impl Projection {
    fn new(channels: usize, linear: bool, init: &mut Init<'_>) -> Self {
        if linear {
            Self::Linear(Linear::new(channels, channels, init))
        } else {
            let geometry = Geometry::uniform(1, 0);
            Self::Conv(Conv2d::new(channels, channels, 1, geometry, init))
        }
    }

    /// `[batch, height, width, channels]`, in and out
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        match self {
            Self::Conv(layer) => layer.forward(x),
            Self::Linear(layer) => layer.forward(x),
        }
    }

    /// [`Self::forward`] plus `residual`.
    fn forward_add(&self, x: Tensor<4>, residual: Tensor<4>) -> Tensor<4> {
        match self {
            Self::Conv(layer) => layer.forward_add(x, residual),
            Self::Linear(layer) => layer.forward_add(x, residual),
        }
    }
}

/// The arguments of a [`Transformer2DModel`].
#[derive(Clone, Copy, Debug)]
pub struct Transformer2DConfig {
    /// Channels in and out.
    pub channels: usize,
    /// How many heads share them.
    pub num_attention_heads: usize,
    /// How many blocks.
    pub num_layers: usize,
    /// Dimension of the sequence that is looked at.
    pub cross_attention_dim: usize,
    /// Groups of the normalisation before the first block.
    pub norm_num_groups: usize,
    /// Whether the projections are linear layers in a checkpoint, and not 1x1 convolutions.
    pub use_linear_projection: bool,
    /// Whether the tokens look at the sequence twice, and not at each other.
    pub only_cross_attention: bool,
}

/// Transformer blocks over a picture's positions; the input is added.
/// Mirrors `diffusers.Transformer2DModel` for continuous inputs.
#[derive(Module, Debug)]
pub struct Transformer2DModel {
    /// Of the input.
    pub norm: GroupNorm,
    /// Into the blocks.
    pub proj_in: Projection,
    /// One after another.
    pub transformer_blocks: Vec<BasicTransformerBlock>,
    /// Out of the blocks.
    pub proj_out: Projection,
}

impl Transformer2DModel {
    /// A new model.
    ///
    /// # Errors
    /// If heads or groups do not divide the channels.
    pub fn new(config: &Transformer2DConfig, init: &mut Init<'_>) -> Result<Self> {
        let (channels, heads) = (config.channels, config.num_attention_heads);
        if heads == 0 || !channels.is_multiple_of(heads) {
            return Err(Error::Config(format!(
                "{heads} attention heads do not divide {channels} channels; in the configuration of a UNet2DConditionModel \
                 `attention_head_dim` is the number of heads"
            )));
        }
        let norm = GroupNorm::new(config.norm_num_groups, channels, GROUP_NORM_EPS, init)?;
        let proj_in = Projection::new(channels, config.use_linear_projection, init);
        let transformer_blocks = (0..config.num_layers)
            .map(|_| BasicTransformerBlock::new(config, init))
            .collect();
        Ok(Self {
            norm,
            proj_in,
            transformer_blocks,
            proj_out: Projection::new(channels, config.use_linear_projection, init),
        })
    }

    /// # Shapes
    /// - `x` and the result: `[batch, height, width, channels]`
    /// - `sequence`: `[batch, length, cross_attention_dim]`
    pub fn forward(&self, x: Tensor<4>, sequence: &Tensor<3>) -> Tensor<4> {
        checkpoint::block(self, x, Some(sequence.clone()), Self::compute)
    }

    /// The same with what each block looks at besides the sequence; nothing of it is computed again for a backward.
    ///
    /// # Shapes
    /// As [`Self::forward`]
    pub fn forward_with(&self, x: Tensor<4>, sequence: &Tensor<3>, looks: &[Vec<Look>]) -> Tensor<4> {
        let inputs = BlockInputs {
            shortcut: x.clone(),
            x,
            told: Some(sequence.clone()),
        };
        self.compute_with(inputs, looks)
    }

    fn compute(&self, inputs: BlockInputs) -> Tensor<4> {
        self.compute_with(inputs, &[])
    }

    fn compute_with(&self, inputs: BlockInputs, looks: &[Vec<Look>]) -> Tensor<4> {
        let BlockInputs { x, shortcut, told } = inputs;
        let [batch, height, width, channels] = x.dims();
        let projected = self.proj_in.forward(self.norm.forward(x));
        let tokens = projected.reshape([batch, height * width, channels]);
        let tokens = self
            .transformer_blocks
            .iter()
            .enumerate()
            .fold(tokens, |tokens, (place, block)| match &told {
                Some(sequence) => {
                    let looks = looks.get(place).map_or(&[][..], Vec::as_slice);
                    block.forward(tokens, sequence, looks)
                }
                None => tokens,
            });
        let y = tokens.reshape([batch, height, width, channels]);
        self.proj_out.forward_add(y, shortcut)
    }
}
