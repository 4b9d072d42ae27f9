//! The transformer over patches of a picture (Dosovitskiy et al. 2021) that a depth estimator has, by itself or behind a convolutional
//! network. Mirrors `transformers.models.dpt.modeling_dpt.DPTModel`; parameters have its names.

use burn::{
    module::{Module, Param},
    tensor::Tensor,
};

use super::{
    bit::BitBackbone,
    config::{DptConfig, EARLY_STAGES},
};
use crate::{
    Error, Result,
    nn::{Activation, Conv2d, Init, Interpolation, LayerNorm, Linear, interpolate},
    ops::{self, AttentionOptions, Geometry},
};

/// Patches as tokens.
#[derive(Module, Debug)]
pub struct DptPatchEmbeddings {
    /// Of a patch.
    pub projection: Conv2d,
}

/// Patches and their places as tokens, and one for the whole picture.
#[derive(Module, Debug)]
pub struct DptEmbeddings {
    /// The whole picture's, `[1, 1, hidden_size]`.
    pub cls_token: Param<Tensor<3>>,
    /// One per place, the whole picture's first: `[1, patches + 1, hidden_size]`.
    pub position_embeddings: Param<Tensor<3>>,
    /// Where the patches are the picture's own.
    pub patch_embeddings: Option<DptPatchEmbeddings>,
    /// Where they are what a convolutional network made of it.
    pub backbone: Option<BitBackbone>,
    /// Of a pixel of its last stage.
    pub projection: Option<Conv2d>,
}

impl DptEmbeddings {
    fn new(config: &DptConfig, init: &mut Init<'_>) -> Result<Self> {
        let (width, patch) = (config.hidden_size, config.patch_size);
        let places = config.patches() * config.patches() + 1;
        let backbone = config.backbone();
        Ok(Self {
            cls_token: init.constant([1, 1, width], 0.0),
            position_embeddings: init.constant([1, places, width], 0.0),
            patch_embeddings: backbone.is_none().then(|| DptPatchEmbeddings {
                projection: Conv2d::new(
                    config.num_channels,
                    width,
                    patch,
                    Geometry::uniform(patch, 0),
                    init,
                ),
            }),
            projection: backbone.as_ref().map(|backbone| {
                let last = backbone.hidden_sizes.last().copied().unwrap_or_default();
                Conv2d::new(last, width, 1, Geometry::uniform(1, 0), init)
            }),
            backbone: match backbone {
                Some(backbone) => Some(BitBackbone::new(&backbone, init)?),
                None => None,
            },
        })
    }

    /// Pictures, `[batch, height, width, channels]`, as tokens, and what the convolutional network's first stages make of them.
    fn forward(&self, x: Tensor<4>, config: &DptConfig) -> (Tensor<3>, Vec<Tensor<4>>) {
        let mut stages = self
            .backbone
            .as_ref()
            .map_or_else(Vec::new, |backbone| backbone.forward(x.clone()));
        let patches = match (&self.patch_embeddings, &self.projection, stages.last()) {
            (_, Some(projection), Some(last)) => projection.forward(last.clone()),
            (Some(patches), ..) => patches.projection.forward(x),
            _ => x,
        };
        stages.truncate(EARLY_STAGES);
        let [batch, rows, columns, width] = patches.dims();
        let whole = self.cls_token.val().expand([batch, 1, width]);
        let tokens = Tensor::cat(vec![whole, patches.reshape([batch, rows * columns, width])], 1);
        (tokens + self.places([rows, columns], config.patches()), stages)
    }

    /// The places of so many rows and columns, brought there from those that the model was made for.
    fn places(&self, [rows, columns]: [usize; 2], side: usize) -> Tensor<3> {
        let places = self.position_embeddings.val();
        let [_, count, width] = places.dims();
        if [rows, columns] == [side; 2] {
            return places;
        }
        let (whole, each) = (places.clone().narrow(1, 0, 1), places.narrow(1, 1, count - 1));
        let each = interpolate(
            each.reshape([1, side, side, width]),
            [rows, columns],
            Interpolation::Bilinear,
        );
        Tensor::cat(vec![whole, each.reshape([1, rows * columns, width])], 1)
    }
}

/// Queries, keys and values.
#[derive(Module, Debug)]
pub struct DptSelfAttention {
    /// Queries.
    pub query: Linear,
    /// Keys.
    pub key: Linear,
    /// Values.
    pub value: Linear,
}

/// A linear layer under the name that it has in a checkpoint.
#[derive(Module, Debug)]
pub struct Dense {
    /// The layer.
    pub dense: Linear,
}

/// Attention of tokens to themselves.
#[derive(Module, Debug)]
pub struct DptAttention {
    /// Into the heads.
    pub attention: DptSelfAttention,
    /// Out of them.
    pub output: Dense,
    heads: usize,
}

/// Attention, then two linear layers; each is normalised before and added after.
#[derive(Module, Debug)]
pub struct DptLayer {
    /// The tokens to each other.
    pub attention: DptAttention,
    /// Wider.
    pub intermediate: Dense,
    /// Back.
    pub output: Dense,
    /// Before the attention.
    pub layernorm_before: LayerNorm,
    /// Before the linear layers.
    pub layernorm_after: LayerNorm,
    #[module(skip)]
    activation: Activation,
}

impl DptLayer {
    fn new(config: &DptConfig, init: &mut Init<'_>) -> Self {
        let (width, inner) = (config.hidden_size, config.intermediate_size);
        let linear = match config.qkv_bias {
            true => Linear::new,
            false => Linear::without_bias,
        };
        let norm = |init: &Init<'_>| LayerNorm::new(width, config.layer_norm_eps, init);
        Self {
            attention: DptAttention {
                attention: DptSelfAttention {
                    query: linear(width, width, init),
                    key: linear(width, width, init),
                    value: linear(width, width, init),
                },
                output: Dense {
                    dense: Linear::new(width, width, init),
                },
                heads: config.num_attention_heads,
            },
            intermediate: Dense {
                dense: Linear::new(width, inner, init),
            },
            output: Dense {
                dense: Linear::new(inner, width, init),
            },
            layernorm_before: norm(init),
            layernorm_after: norm(init),
            activation: config.hidden_act,
        }
    }

    /// `[batch, tokens, width]`, in and out
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let normed = self.layernorm_before.forward(x.clone());
        let DptSelfAttention { query, key, value } = &self.attention.attention;
        let [.., width] = x.dims();
        let options = AttentionOptions {
            heads: self.attention.heads,
            scale: ((width / self.attention.heads) as f64).powf(-0.5) as f32,
            causal: false,
        };
        let found = ops::attention(
            query.forward(normed.clone()),
            key.forward(normed.clone()),
            value.forward(normed),
            options,
        );
        let x = self.attention.output.dense.forward_add(found, x);
        let wide = self
            .intermediate
            .dense
            .forward(self.layernorm_after.forward(x.clone()));
        self.output.dense.forward_add(self.activation.forward(wide), x)
    }
}

/// Layer after layer.
#[derive(Module, Debug)]
pub struct DptEncoder {
    /// In order.
    pub layer: Vec<DptLayer>,
}

/// The transformer.
#[derive(Module, Debug)]
pub struct DptModel {
    /// Pictures as tokens.
    pub embeddings: DptEmbeddings,
    /// The layers.
    pub encoder: DptEncoder,
    /// Of the last layer's tokens, which depths do not come from; a checkpoint has it.
    pub layernorm: LayerNorm,
}

impl DptModel {
    pub(super) fn new(config: &DptConfig, init: &mut Init<'_>) -> Result<Self> {
        let layers = 0..config.num_hidden_layers;
        Ok(Self {
            embeddings: DptEmbeddings::new(config, init)?,
            encoder: DptEncoder {
                layer: layers.map(|_| DptLayer::new(config, init)).collect(),
            },
            layernorm: LayerNorm::new(config.hidden_size, config.layer_norm_eps, init),
        })
    }

    /// Pictures of the convolutional network's first stages, and tokens of the layers that the configuration names.
    pub(super) fn forward(
        &self,
        x: Tensor<4>,
        config: &DptConfig,
    ) -> Result<(Vec<Tensor<4>>, Vec<Tensor<3>>)> {
        let [_, height, width, channels] = x.dims();
        let (size, patch) = (config.image_size, config.patch_size);
        if channels != config.num_channels {
            return Err(Error::Shape(format!(
                "the depth estimator looks at pictures of {} channels, and these have {channels}",
                config.num_channels
            )));
        }
        if config.is_hybrid && [height, width] != [size; 2] {
            return Err(Error::Shape(format!(
                "this depth estimator looks at pictures of {size}x{size}, and these are {width}x{height}"
            )));
        }
        if height < patch || width < patch {
            return Err(Error::Shape(format!(
                "the depth estimator looks at patches of {patch}x{patch}, and these pictures are {width}x{height}"
            )));
        }
        let (mut tokens, stages) = self.embeddings.forward(x, config);
        let mut found = Vec::new();
        for (number, layer) in self.encoder.layer.iter().enumerate() {
            tokens = layer.forward(tokens);
            if config.layers().contains(&number) {
                found.push(tokens.clone());
            }
        }
        Ok((stages, found))
    }
}
