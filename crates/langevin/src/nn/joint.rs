//! Transformer blocks over a picture and a text at once (Esser et al. 2024, "Scaling Rectified Flow Transformers", fig. 2b).

use burn::{module::Module, tensor::Tensor};

use super::{
    AdaLayerNorm, FeedForward, Init, Linear, RmsNorm,
    ada_norm::{ADA_NORM_EPS, Branch, ada_numbers, plain_layer_norm},
};
use crate::ops::{self, AttentionOptions};

/// The arguments of a [`JointTransformerBlock`].
#[derive(Clone, Copy, Debug)]
pub struct JointBlockConfig {
    /// Channels of a token.
    pub channels: usize,
    /// How many heads share them; they divide them.
    pub heads: usize,
    /// Whether queries and keys are normalised.
    pub qk_norm: bool,
    /// Whether the text ends here: it is looked at, and not changed any more.
    pub context_pre_only: bool,
    /// Whether the picture's tokens look at each other once more.
    pub dual_attention: bool,
}

/// Attention of a picture's tokens and a text's, all to all, each with projections of their own.
/// Mirrors `diffusers.models.attention_processor.Attention` with a `JointAttnProcessor2_0`.
#[derive(Module, Debug)]
pub struct JointAttention {
    /// Of a head's queries.
    pub norm_q: Option<RmsNorm>,
    /// Of a head's keys.
    pub norm_k: Option<RmsNorm>,
    /// Queries of the picture.
    pub to_q: Linear,
    /// Keys of the picture.
    pub to_k: Linear,
    /// Values of the picture.
    pub to_v: Linear,
    /// Keys of the text, where there is one.
    pub add_k_proj: Option<Linear>,
    /// Values of the text.
    pub add_v_proj: Option<Linear>,
    /// Queries of the text.
    pub add_q_proj: Option<Linear>,
    /// The picture's output projection, alone in a list as in diffusers, where a dropout stands beside it.
    pub to_out: Vec<Linear>,
    /// The text's, where the text goes on.
    pub to_add_out: Option<Linear>,
    /// Of a head's queries of the text.
    pub norm_added_q: Option<RmsNorm>,
    /// Of a head's keys of the text.
    pub norm_added_k: Option<RmsNorm>,
    heads: usize,
}

impl JointAttention {
    /// A new layer; without `text` the picture's tokens look at each other alone.
    fn new(config: &JointBlockConfig, text: bool, init: &mut Init<'_>) -> Self {
        let (channels, heads) = (config.channels, config.heads);
        let norm = |wanted: bool, init: &Init<'_>| {
            (wanted && config.qk_norm).then(|| RmsNorm::new(channels / heads, ADA_NORM_EPS, init))
        };
        let linear = |init: &mut Init<'_>| Linear::new(channels, channels, init);
        // Layers are made in diffusers' order, on which new weights depend.
        Self {
            norm_q: norm(true, init),
            norm_k: norm(true, init),
            to_q: linear(init),
            to_k: linear(init),
            to_v: linear(init),
            add_k_proj: text.then(|| linear(init)),
            add_v_proj: text.then(|| linear(init)),
            add_q_proj: text.then(|| linear(init)),
            to_out: vec![linear(init)],
            to_add_out: (text && !config.context_pre_only).then(|| linear(init)),
            norm_added_q: norm(text, init),
            norm_added_k: norm(text, init),
            heads,
        }
    }

    /// `projection` of the tokens, with every head normalised where there is a norm.
    fn project(&self, projection: &Linear, norm: Option<&RmsNorm>, x: Tensor<3>) -> Tensor<3> {
        let y = projection.forward(x);
        let Some(norm) = norm else {
            return y;
        };
        let [batch, tokens, channels] = y.dims();
        let heads = y.reshape([batch, tokens, self.heads, channels / self.heads]);
        norm.forward(heads).reshape([batch, tokens, channels])
    }

    /// Queries, keys and values of the text, where the layer looks at one.
    fn of_text(&self, text: Tensor<3>) -> Option<[Tensor<3>; 3]> {
        let (q, k, v) = (
            self.add_q_proj.as_ref()?,
            self.add_k_proj.as_ref()?,
            self.add_v_proj.as_ref()?,
        );
        Some([
            self.project(q, self.norm_added_q.as_ref(), text.clone()),
            self.project(k, self.norm_added_k.as_ref(), text.clone()),
            self.project(v, None, text),
        ])
    }

    /// What the picture's tokens find, and what the text's do, where the text goes on; nothing is added.
    ///
    /// # Shapes
    /// - `x` and the first result: `[batch, tokens, channels]`
    /// - `text` and the second: `[batch, length, channels]`
    fn forward(&self, x: Tensor<3>, text: Option<Tensor<3>>) -> (Tensor<3>, Option<Tensor<3>>) {
        let [_, tokens, channels] = x.dims();
        let mut qkv = [
            self.project(&self.to_q, self.norm_q.as_ref(), x.clone()),
            self.project(&self.to_k, self.norm_k.as_ref(), x.clone()),
            self.project(&self.to_v, None, x),
        ];
        if let Some(text) = text.and_then(|text| self.of_text(text)) {
            // The picture's first; without places, the order is that of the results alone.
            let mut text = text.into_iter();
            qkv = qkv.map(|own| Tensor::cat([own].into_iter().chain(text.next()).collect(), 1));
        }
        let [q, k, v] = qkv;
        let options = AttentionOptions {
            heads: self.heads,
            scale: ((channels / self.heads) as f64).powf(-0.5) as f32,
            causal: false,
        };
        let all = ops::attention(q, k, v, options);
        let length = all.dims()[1] - tokens;
        let text = self
            .to_add_out
            .as_ref()
            .map(|layer| layer.forward(all.clone().narrow(1, tokens, length)));
        // One layer; the list is there for its name in the checkpoint.
        let y = self
            .to_out
            .iter()
            .fold(all.narrow(1, 0, tokens), |y, layer| layer.forward(y));
        (y, text)
    }
}

/// Attention over a picture's tokens and a text's, then a feed-forward for each. Mirrors `diffusers.models.attention.JointTransformerBlock`.
#[derive(Module, Debug)]
pub struct JointTransformerBlock {
    /// Of the picture's tokens, with the numbers of their branches.
    pub norm1: AdaLayerNorm,
    /// Of the text's; with scale and shift alone where the text ends here.
    pub norm1_context: AdaLayerNorm,
    /// All to all.
    pub attn: JointAttention,
    /// The picture's tokens to each other, beside it.
    pub attn2: Option<JointAttention>,
    /// The picture's feed-forward.
    pub ff: FeedForward,
    /// The text's, where the text goes on.
    pub ff_context: Option<FeedForward>,
}

impl JointTransformerBlock {
    /// A new block.
    pub fn new(config: &JointBlockConfig, init: &mut Init<'_>) -> Self {
        let (channels, ends) = (config.channels, config.context_pre_only);
        // Scale and shift alone, or shift, scale and gate of every branch.
        let numbers = |branches: usize| 3 * branches;
        let picture = numbers(if config.dual_attention { 3 } else { 2 });
        let text = if ends { 2 } else { numbers(2) };
        Self {
            norm1: AdaLayerNorm::new(channels, picture, init),
            norm1_context: AdaLayerNorm::new(channels, text, init),
            attn: JointAttention::new(config, true, init),
            attn2: config
                .dual_attention
                .then(|| JointAttention::new(config, false, init)),
            ff: FeedForward::gelu(channels, init),
            ff_context: (!ends).then(|| FeedForward::gelu(channels, init)),
        }
    }

    /// The picture's tokens and the text's; the text is what it was where it ends here.
    ///
    /// # Shapes
    /// - `x` and the first result: `[batch, tokens, channels]`
    /// - `text` and the second: `[batch, length, channels]`
    /// - `told`: `[batch, channels]`
    pub fn forward(&self, x: Tensor<3>, text: Tensor<3>, told: &Tensor<2>) -> (Tensor<3>, Tensor<3>) {
        let normed = plain_layer_norm(x.clone(), ADA_NORM_EPS);
        let numbers = ada_numbers(&self.norm1.linear, told.clone());
        let [attention, feed_forward] = Branch::each(&numbers);
        let seen = attention.enter(normed.clone());
        let (found, text) = match &self.ff_context {
            Some(ff) => self.with_text(seen, text, told, ff),
            None => {
                let seen_text = self.norm1_context.normed(text.clone(), told.clone());
                (self.attn.forward(seen, Some(seen_text)).0, text)
            }
        };
        let mut x = attention.leave(found, x);
        if let Some(attn2) = &self.attn2 {
            let [.., dual] = Branch::each::<3>(&numbers);
            x = dual.leave(attn2.forward(dual.enter(normed), None).0, x);
        }
        (feed(&self.ff, &feed_forward, x), text)
    }

    /// What the picture's tokens find, and the text after its own attention and feed-forward.
    fn with_text(
        &self,
        seen: Tensor<3>,
        text: Tensor<3>,
        told: &Tensor<2>,
        ff: &FeedForward,
    ) -> (Tensor<3>, Tensor<3>) {
        let [attention, feed_forward] = Branch::each(&ada_numbers(&self.norm1_context.linear, told.clone()));
        let seen_text = attention.enter(plain_layer_norm(text.clone(), ADA_NORM_EPS));
        let (found, found_text) = self.attn.forward(seen, Some(seen_text));
        let text = match found_text {
            Some(found) => attention.leave(found, text),
            None => text,
        };
        (found, feed(ff, &feed_forward, text))
    }
}

/// The feed-forward's branch.
fn feed(ff: &FeedForward, branch: &Branch, x: Tensor<3>) -> Tensor<3> {
    let seen = branch.enter(plain_layer_norm(x.clone(), ADA_NORM_EPS));
    branch.leave(ff.forward(seen), x)
}
