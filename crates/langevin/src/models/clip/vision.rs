//! The picture tower of CLIP: a vision transformer (Dosovitskiy et al. 2021).

use burn::{
    module::{Module, Param},
    tensor::Tensor,
};

use super::{config::ClipVisionConfig, encoder::ClipEncoder};
use crate::{
    Error, Result,
    nn::{Conv2d, Embedding, Init, LayerNorm},
    ops::Geometry,
};

/// Patches and their places as vectors, and one for the whole picture.
#[derive(Module, Debug)]
pub struct ClipVisionEmbeddings {
    /// The whole picture's, `[hidden_size]`.
    pub class_embedding: Param<Tensor<1>>,
    /// Of a patch, without bias.
    pub patch_embedding: Conv2d,
    /// One a place; the first is the whole picture's.
    pub position_embedding: Embedding,
}

/// The picture tower without projection. Mirrors `transformers.CLIPVisionModel`.
#[derive(Module, Debug)]
pub struct ClipVisionModel {
    /// Patches and their places.
    pub embeddings: ClipVisionEmbeddings,
    /// Before the transformer; its name is misspelt in every checkpoint.
    pub pre_layrnorm: LayerNorm,
    /// The transformer.
    pub encoder: ClipEncoder,
    /// Of the whole picture's vector.
    pub post_layernorm: LayerNorm,
    #[module(skip)]
    config: ClipVisionConfig,
}

impl ClipVisionModel {
    pub(in crate::models) fn new(config: &ClipVisionConfig, init: &mut Init<'_>) -> Self {
        let (width, patch) = (config.hidden_size, config.patch_size);
        let geometry = Geometry::uniform(patch, 0);
        let places = config.patches() * config.patches() + 1;
        let class = init.normal([width], (width as f32).powf(-0.5));
        Self {
            embeddings: ClipVisionEmbeddings {
                class_embedding: Param::from_tensor(class),
                patch_embedding: Conv2d::without_bias(config.num_channels, width, patch, geometry, init),
                position_embedding: Embedding::scaled(places, width, 0.02, init),
            },
            pre_layrnorm: LayerNorm::new(width, config.layer_norm_eps, init),
            encoder: ClipEncoder::new(&config.sizes(), init),
            post_layernorm: LayerNorm::new(width, config.layer_norm_eps, init),
            config: config.clone(),
        }
    }

    /// Its configuration.
    pub fn config(&self) -> &ClipVisionConfig {
        &self.config
    }

    /// The whole picture's vector.
    ///
    /// # Shapes
    /// `[batch, channels, image_size, image_size]`, already normalised → `[batch, hidden_size]`
    ///
    /// # Errors
    /// If the pictures have another shape.
    pub fn forward(&self, pictures: Tensor<4>) -> Result<Tensor<2>> {
        let [batch, ..] = pictures.dims();
        let embedded = self.embed(pictures)?;
        let mut states = self.encoder.hidden_states(embedded, None);
        let whole = states
            .pop()
            .map(|last| last.narrow(1, 0, 1).reshape([batch, self.config.hidden_size]));
        let whole = whole.ok_or_else(|| Error::Config("this CLIP's picture tower has no layers".into()))?;
        Ok(self.post_layernorm.forward(whole))
    }

    /// The vectors of the whole picture and of its patches before the last layer: transformers' `hidden_states[-2]`.
    ///
    /// # Shapes
    /// `[batch, channels, image_size, image_size]`, already normalised → `[batch, patches + 1, hidden_size]`
    ///
    /// # Errors
    /// If the pictures have another shape.
    pub fn penultimate(&self, pictures: Tensor<4>) -> Result<Tensor<3>> {
        let none = || Error::Config("this CLIP's picture tower has no layers".into());
        // The last layer is not needed for what it is given.
        let layers = self.encoder.layers.len().checked_sub(1).ok_or_else(none)?;
        let embedded = self.embed(pictures)?;
        self.encoder
            .states_of_first(layers, embedded, None)
            .pop()
            .ok_or_else(none)
    }

    /// What the first layer is given.
    fn embed(&self, pictures: Tensor<4>) -> Result<Tensor<3>> {
        let c = &self.config;
        let [batch, channels, height, width] = pictures.dims();
        if [channels, height, width] != [c.num_channels, c.image_size, c.image_size] {
            return Err(Error::Shape(format!(
                "this CLIP looks at pictures of {} channels and {side}x{side}, these are {channels} and {height}x{width}",
                c.num_channels,
                side = c.image_size
            )));
        }
        let patches = self
            .embeddings
            .patch_embedding
            .forward(pictures.permute([0, 2, 3, 1]));
        let count = c.patches() * c.patches();
        let patches = patches.reshape([batch, count, c.hidden_size]);
        let whole = self
            .embeddings
            .class_embedding
            .val()
            .reshape([1, 1, c.hidden_size])
            .expand([batch, 1, c.hidden_size]);
        let places = self.embeddings.position_embedding.table();
        let x = Tensor::cat(vec![whole, patches], 1) + places.unsqueeze_dim::<3>(0);
        Ok(self.pre_layrnorm.forward(x))
    }
}
