//! Transformer blocks whose branches are modulated and gated by the timestep.

use burn::{
    module::{Module, Param},
    tensor::Tensor,
};

use super::{
    ClassAdaLayerNorm, FeedForward, Init, TokenAttention,
    ada_norm::{ADA_NORM_EPS, Branch, ada_numbers, plain_layer_norm},
    checkpoint,
};
use crate::ops::BlockInputs;

/// Numbers a channel of a block with two branches: shift, scale and gate of each.
const NUMBERS: usize = 6;

/// The arguments of a block.
#[derive(Clone, Copy, Debug)]
pub struct AdaBlockConfig {
    /// Channels of a token.
    pub channels: usize,
    /// How many heads share them; they divide them.
    pub heads: usize,
    /// Whether queries, keys and values have a bias.
    pub attention_bias: bool,
    /// Added to the variance by the normalisations that diffusers does not fix it for.
    pub eps: f64,
}

/// Attention of the tokens to each other, then a feed-forward, both modulated by timestep and class.
/// Mirrors `diffusers.models.attention.BasicTransformerBlock` with `norm_type="ada_norm_zero"`.
#[derive(Module, Debug)]
pub struct AdaZeroBlock {
    /// Of the input, with the numbers of both branches.
    pub norm1: ClassAdaLayerNorm,
    /// The tokens to each other.
    pub attn1: TokenAttention,
    /// The feed-forward.
    pub ff: FeedForward,
    eps: f64,
}

impl AdaZeroBlock {
    /// A new block for `classes`, the null class included.
    pub fn new(config: &AdaBlockConfig, classes: usize, init: &mut Init<'_>) -> Self {
        let (channels, heads) = (config.channels, config.heads);
        Self {
            norm1: ClassAdaLayerNorm::new(channels, NUMBERS, classes, init),
            attn1: TokenAttention::with_bias(channels, channels, heads, config.attention_bias, init),
            ff: FeedForward::gelu(channels, init),
            eps: config.eps,
        }
    }

    /// # Shapes
    /// - `x` and the result: `[batch, tokens, channels]`
    /// - `told`: `[batch, channels]`, what `norm1.emb` makes of timestep and class
    pub fn forward(&self, x: Tensor<3>, told: Tensor<2>) -> Tensor<3> {
        let [batch, tokens, channels] = x.dims();
        let x = x.reshape([batch, tokens, 1, channels]);
        let told = told.reshape([batch, 1, channels]);
        checkpoint::block(self, x, Some(told), Self::compute).reshape([batch, tokens, channels])
    }

    fn compute(&self, inputs: BlockInputs) -> Tensor<4> {
        let BlockInputs { x, shortcut, told } = inputs;
        let shape = x.dims();
        let [batch, tokens, _, channels] = shape;
        let Some(told) = told else {
            return x;
        };
        let [x, shortcut] = [x, shortcut].map(|x| x.reshape([batch, tokens, channels]));
        let [attention, feed_forward] =
            Branch::each(&ada_numbers(&self.norm1.linear, told.reshape([batch, channels])));
        let seen = attention.enter(plain_layer_norm(x, ADA_NORM_EPS));
        let x = attention.leave(self.attn1.forward(seen.clone(), seen, None), shortcut);
        let seen = feed_forward.enter(plain_layer_norm(x.clone(), self.eps));
        feed_forward.leave(self.ff.forward(seen), x).reshape(shape)
    }
}

/// Attention of the tokens to each other, then to a sequence, then a feed-forward; the first and the last are modulated by numbers that all
/// blocks share, and each block adds its own to. Mirrors `diffusers.models.attention.BasicTransformerBlock` with
/// `norm_type="ada_norm_single"`.
#[derive(Module, Debug)]
pub struct AdaSingleBlock {
    /// The tokens to each other.
    pub attn1: TokenAttention,
    /// The tokens to the sequence.
    pub attn2: TokenAttention,
    /// The feed-forward.
    pub ff: FeedForward,
    /// What is added to the numbers of all blocks, `[6, channels]`.
    pub scale_shift_table: Param<Tensor<2>>,
    eps: f64,
}

impl AdaSingleBlock {
    /// A new block; `context` is the dimension of the sequence.
    pub fn new(config: &AdaBlockConfig, context: usize, init: &mut Init<'_>) -> Self {
        let (channels, heads, bias) = (config.channels, config.heads, config.attention_bias);
        Self {
            attn1: TokenAttention::with_bias(channels, channels, heads, bias, init),
            attn2: TokenAttention::with_bias(channels, context, heads, bias, init),
            ff: FeedForward::gelu(channels, init),
            scale_shift_table: scale_shift_table(NUMBERS, channels, init),
            eps: config.eps,
        }
    }

    /// # Shapes
    /// - `x` and the result: `[batch, tokens, channels]`
    /// - `sequence`: `[batch, length, context]`
    /// - `bias`: `[batch, length]`, what is added to the scores of each of its tokens
    /// - `told`: `[batch, 6, channels]`
    pub fn forward(
        &self,
        x: Tensor<3>,
        sequence: Tensor<3>,
        bias: Option<&Tensor<2>>,
        told: Tensor<3>,
    ) -> Tensor<3> {
        let numbers = told + self.scale_shift_table.val().unsqueeze_dim(0);
        let [attention, feed_forward] = Branch::each(&numbers);
        let seen = attention.enter(plain_layer_norm(x.clone(), self.eps));
        let x = attention.leave(self.attn1.forward(seen.clone(), seen, None), x);
        let x = self.attn2.forward(x.clone(), sequence, bias) + x;
        let seen = feed_forward.enter(plain_layer_norm(x.clone(), self.eps));
        feed_forward.leave(self.ff.forward(seen), x)
    }
}

/// New numbers for each channel, `[numbers, channels]`.
pub(crate) fn scale_shift_table(numbers: usize, channels: usize, init: &mut Init<'_>) -> Param<Tensor<2>> {
    let scale = (channels as f32).sqrt().recip();
    Param::from_tensor(init.normal([numbers, channels], scale))
}
