//! What enters the conditional UNet beside the picture as one vector: the timestep, and a class or a vector added to it.

use burn::{module::Module, tensor::Tensor};

use super::{
    UNet2DConditionModel,
    config::{ConditionClassEmbedType, TIME_IDS, UNet2DConditionConfig},
};
use crate::{
    Error, Result,
    models::Conditioning,
    nn::{Embedding, Init, Linear, TimestepEmbedding},
};

/// The parameters of the class embedding, where it has any.
#[derive(Module, Debug)]
pub enum VectorEmbedding {
    /// A vector for each class.
    Table(Embedding),
    /// An embedding of a second timestep, or of a given vector.
    Layers(TimestepEmbedding),
    /// One linear layer over a given vector.
    Linear(Linear),
}

impl VectorEmbedding {
    /// The layers that the configuration names; `None` where it names none, or they have no parameters.
    pub(super) fn new(config: &UNet2DConditionConfig, init: &mut Init<'_>) -> Option<Self> {
        use ConditionClassEmbedType::{Identity, Projection, SimpleProjection, Timestep};
        let out = config.time_embed_dim();
        match config.class_embed_type {
            None => config
                .num_class_embeds
                .map(|classes| Self::Table(Embedding::new(classes, out, init))),
            Some(Timestep) => {
                let dim = config.block_out_channels[0];
                Some(Self::Layers(TimestepEmbedding::new(dim, out, init)))
            }
            Some(Identity) => None,
            Some(Projection) => config
                .vector_dim()
                .map(|dim| Self::Layers(TimestepEmbedding::new(dim, out, init))),
            Some(SimpleProjection) => config
                .vector_dim()
                .map(|dim| Self::Linear(Linear::new(dim, out, init))),
        }
    }
}

impl UNet2DConditionModel {
    /// The embedding of time, class and vectors, activated once for all blocks: `[batch, time_embed_dim]`.
    pub(super) fn embed(
        &self,
        timesteps: Tensor<1>,
        conditioning: &Conditioning,
        batch: usize,
    ) -> Result<Tensor<2>> {
        let first = self.config.block_out_channels[0];
        let mut embedding = self.time_embedding.forward(self.project(timesteps, first));
        if let Some(class) = self.embed_class(conditioning, batch)? {
            embedding = embedding + class;
        }
        if let Some(layers) = &self.add_embedding {
            embedding = embedding + layers.forward(self.text_time(conditioning, batch)?);
        }
        if let Some(activation) = self.config.time_embedding_act_fn {
            embedding = activation.forward(embedding);
        }
        Ok(self.config.act_fn.forward(embedding))
    }

    /// The class's part of the embedding, `[batch, time_embed_dim]`.
    fn embed_class(&self, conditioning: &Conditioning, batch: usize) -> Result<Option<Tensor<2>>> {
        let table = || {
            conditioning.classes.clone().ok_or_else(|| {
                Error::Config("this model is class-conditional: it needs a class for each picture".into())
            })
        };
        let embedding = match (&self.class_embedding, self.config.class_embed_type) {
            (None, None) => {
                if conditioning.classes.is_some() {
                    return Err(Error::Config(
                        "this model has no classes, but classes were given: leave them out".into(),
                    ));
                }
                return Ok(None);
            }
            (None, Some(_)) => self.vector(conditioning, batch)?,
            (Some(VectorEmbedding::Table(embedding)), _) => embedding.forward(table()?),
            (Some(VectorEmbedding::Layers(layers)), Some(ConditionClassEmbedType::Timestep)) => {
                let first = self.config.block_out_channels[0];
                layers.forward(self.project(table()?.float(), first))
            }
            (Some(VectorEmbedding::Layers(layers)), _) => layers.forward(self.vector(conditioning, batch)?),
            (Some(VectorEmbedding::Linear(linear)), _) => linear.forward(self.vector(conditioning, batch)?),
        };
        if embedding.dims()[0] != batch {
            return Err(Error::Shape(format!(
                "there are {} classes for {batch} pictures: each needs one",
                embedding.dims()[0]
            )));
        }
        Ok(Some(embedding))
    }

    /// The vector that was given, of the dimension that the model takes.
    fn vector(&self, conditioning: &Conditioning, batch: usize) -> Result<Tensor<2>> {
        conditioning.needed_vector(batch, self.config.vector_dim().unwrap_or_default())
    }

    /// Stable Diffusion XL's vector: the pooled embedding, then the sines and cosines of the picture's six numbers.
    fn text_time(&self, conditioning: &Conditioning, batch: usize) -> Result<Tensor<2>> {
        let pooled = self.vector(conditioning, batch)?;
        let expected = [batch, TIME_IDS];
        let Some(time_ids) = conditioning.time_ids.clone().filter(|ids| ids.dims() == expected) else {
            return Err(Error::Config(format!(
                "this model needs {TIME_IDS} numbers for each picture: original size, crop and target size"
            )));
        };
        let dimension = self.config.addition_time_embed_dim.unwrap_or_default();
        let times = self
            .project(time_ids.reshape([batch * TIME_IDS]), dimension)
            .reshape([batch, TIME_IDS * dimension]);
        Ok(Tensor::cat(vec![pooled, times], 1))
    }
}
