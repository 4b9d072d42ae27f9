//! The transformer that both towers are made of. Mirrors `transformers.models.clip.modeling_clip.CLIPEncoder`.

use burn::{module::Module, tensor::Tensor};

use super::config::TowerSizes;
use crate::{
    nn::{Activation, Init, LayerNorm, Linear},
    ops::{self, AttentionOptions},
};

/// Attention of tokens to themselves.
#[derive(Module, Debug)]
pub struct ClipAttention {
    /// Keys.
    pub k_proj: Linear,
    /// Values.
    pub v_proj: Linear,
    /// Queries.
    pub q_proj: Linear,
    /// Out of the heads.
    pub out_proj: Linear,
    heads: usize,
    scale: f64,
    causal: bool,
}

impl ClipAttention {
    fn new(sizes: &TowerSizes, init: &mut Init<'_>) -> Self {
        let width = sizes.hidden;
        Self {
            k_proj: Linear::new(width, width, init),
            v_proj: Linear::new(width, width, init),
            q_proj: Linear::new(width, width, init),
            out_proj: Linear::new(width, width, init),
            heads: sizes.heads,
            scale: ((width / sizes.heads) as f64).powf(-0.5),
            causal: sizes.causal,
        }
    }

    /// Adds what the tokens `x` (already normalised) find in each other to `residual`.
    fn forward_add(&self, x: Tensor<3>, bias: Option<&Tensor<2>>, residual: Tensor<3>) -> Tensor<3> {
        let options = AttentionOptions {
            heads: self.heads,
            scale: self.scale as f32,
            causal: self.causal,
        };
        let q = self.q_proj.forward(x.clone());
        let k = self.k_proj.forward(x.clone());
        let v = self.v_proj.forward(x);
        let found = match bias {
            Some(bias) => ops::biased_attention(q, k, v, bias.clone(), options),
            None => ops::attention(q, k, v, options),
        };
        self.out_proj.forward_add(found, residual)
    }
}

/// Two linear layers with an activation between.
#[derive(Module, Debug)]
pub struct ClipMlp {
    /// Wider.
    pub fc1: Linear,
    /// Back.
    pub fc2: Linear,
    #[module(skip)]
    activation: Activation,
}

/// Attention, then two linear layers; each is normalised before and added after.
#[derive(Module, Debug)]
pub struct ClipEncoderLayer {
    /// The tokens to each other.
    pub self_attn: ClipAttention,
    /// Before the attention.
    pub layer_norm1: LayerNorm,
    /// The linear layers.
    pub mlp: ClipMlp,
    /// Before the linear layers.
    pub layer_norm2: LayerNorm,
}

impl ClipEncoderLayer {
    fn new(sizes: &TowerSizes, init: &mut Init<'_>) -> Self {
        Self {
            self_attn: ClipAttention::new(sizes, init),
            layer_norm1: LayerNorm::new(sizes.hidden, sizes.eps, init),
            mlp: ClipMlp {
                fc1: Linear::new(sizes.hidden, sizes.intermediate, init),
                fc2: Linear::new(sizes.intermediate, sizes.hidden, init),
                activation: sizes.activation,
            },
            layer_norm2: LayerNorm::new(sizes.hidden, sizes.eps, init),
        }
    }

    /// `[batch, tokens, width]`, in and out
    fn forward(&self, x: Tensor<3>, bias: Option<&Tensor<2>>) -> Tensor<3> {
        let normed = self.layer_norm1.forward(x.clone());
        let x = self.self_attn.forward_add(normed, bias, x);
        let wide = self.mlp.fc1.forward(self.layer_norm2.forward(x.clone()));
        self.mlp.fc2.forward_add(self.mlp.activation.forward(wide), x)
    }
}

/// Layer after layer.
#[derive(Module, Debug)]
pub struct ClipEncoder {
    /// In order.
    pub layers: Vec<ClipEncoderLayer>,
}

impl ClipEncoder {
    pub(super) fn new(sizes: &TowerSizes, init: &mut Init<'_>) -> Self {
        Self {
            layers: (0..sizes.layers)
                .map(|_| ClipEncoderLayer::new(sizes, init))
                .collect(),
        }
    }

    /// The tokens before the first layer and after each: `[batch, tokens, width]`, one more than there are layers. A bias, `[batch, tokens]`,
    /// is added to every token's scores.
    pub(super) fn hidden_states(&self, x: Tensor<3>, bias: Option<&Tensor<2>>) -> Vec<Tensor<3>> {
        self.states_of_first(self.layers.len(), x, bias)
    }

    /// The same of so many layers, from the first.
    pub(super) fn states_of_first(
        &self,
        layers: usize,
        x: Tensor<3>,
        bias: Option<&Tensor<2>>,
    ) -> Vec<Tensor<3>> {
        let mut states = vec![x];
        for layer in self.layers.iter().take(layers) {
            let next = states.last().map(|state| layer.forward(state.clone(), bias));
            states.extend(next);
        }
        states
    }
}
