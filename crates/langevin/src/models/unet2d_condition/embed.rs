//! What enters the conditional UNet beside the picture as one vector: the timestep, and a class or a vector added to it.

use burn::{module::Module, tensor::Tensor};

use super::config::{ConditionClassEmbedType, UNet2DConditionConfig};
use crate::{
    Error, Result,
    models::Conditioning,
    nn::{Activation, Embedding, Init, Linear, TimestepEmbedding, sinusoidal_embedding},
};

/// The parameters of the class embedding, where it has any.
#[derive(Module, Debug)]
// A model has one.
#[allow(clippy::large_enum_variant)]
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
    pub(in crate::models) fn new(config: &UNet2DConditionConfig, init: &mut Init<'_>) -> Option<Self> {
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

/// The layers that embed what enters as a vector, of a UNet or of a network that accompanies one.
pub(in crate::models) struct Vectors<'a> {
    pub config: &'a UNet2DConditionConfig,
    pub time: &'a TimestepEmbedding,
    pub class: Option<&'a VectorEmbedding>,
    /// Between the layers of a class that is a second timestep.
    pub class_activation: Activation,
    /// Of a pooled embedding and the picture's sizes.
    pub added: Option<&'a TimestepEmbedding>,
}

impl Vectors<'_> {
    /// Timesteps as sines and cosines.
    fn project(&self, timesteps: Tensor<1>, dimension: usize) -> Tensor<2> {
        sinusoidal_embedding(
            timesteps,
            dimension,
            self.config.flip_sin_to_cos,
            self.config.freq_shift,
        )
    }

    /// The embedding of time, class and vectors, activated once for all blocks: `[batch, time_embed_dim]`.
    pub(crate) fn embed(
        &self,
        timesteps: Tensor<1>,
        conditioning: &Conditioning,
        batch: usize,
    ) -> Result<Tensor<2>> {
        let first = self.config.block_out_channels[0];
        let projected = self.project(timesteps, first);
        let mut embedding = match self.config.time_cond_proj_dim {
            Some(dimension) => {
                let scale = self.guidance_scale(conditioning, dimension, batch)?;
                self.time.forward_with(projected, scale, self.config.act_fn)
            }
            None => self.time.forward_by(projected, self.config.act_fn),
        };
        if let Some(class) = self.embed_class(conditioning, batch)? {
            embedding = embedding + class;
        }
        if let Some(layers) = self.added {
            embedding = embedding + layers.forward(self.text_time(conditioning, batch)?);
        }
        if let Some(activation) = self.config.time_embedding_act_fn {
            embedding = activation.forward(embedding);
        }
        Ok(self.config.act_fn.forward(embedding))
    }

    /// The guidance scale of a model that was distilled to take it, as sines and cosines: `[batch, dimension]`.
    /// Mirrors `get_guidance_scale_embedding` of diffusers' latent consistency pipelines.
    fn guidance_scale(
        &self,
        conditioning: &Conditioning,
        dimension: usize,
        batch: usize,
    ) -> Result<Tensor<2>> {
        let scales = conditioning.guidance_scale.clone();
        let Some(scales) = scales.filter(|scales| scales.dims() == [batch]) else {
            return Err(Error::Config(
                "this model is given the guidance scale: it needs one for each picture".into(),
            ));
        };
        // w = scale - 1, in thousandths of a training step.
        Ok(sinusoidal_embedding(
            (scales - 1.0) * 1000.0,
            dimension,
            false,
            1.0,
        ))
    }

    /// The class's part of the embedding, `[batch, time_embed_dim]`.
    fn embed_class(&self, conditioning: &Conditioning, batch: usize) -> Result<Option<Tensor<2>>> {
        let table = || {
            conditioning.classes.clone().ok_or_else(|| {
                Error::Config("this model is class-conditional: it needs a class for each picture".into())
            })
        };
        let embedding = match (self.class, self.config.class_embed_type) {
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
                layers.forward_by(self.project(table()?.float(), first), self.class_activation)
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

    /// Stable Diffusion XL's vector: the pooled embedding, then the sines and cosines of the picture's six numbers, or the refiner's five.
    fn text_time(&self, conditioning: &Conditioning, batch: usize) -> Result<Tensor<2>> {
        let (Some(pooled), Some(time_ids)) = (&conditioning.vector, &conditioning.time_ids) else {
            return Err(Error::Config(
                "this model needs a pooled embedding and numbers for each picture: original size, crop, and target size or score"
                    .into(),
            ));
        };
        let ([rows, width], [id_rows, ids]) = (pooled.dims(), time_ids.dims());
        let dimension = self.config.addition_time_embed_dim.unwrap_or_default();
        let wanted = self
            .config
            .projection_class_embeddings_input_dim
            .unwrap_or_default();
        if [rows, id_rows] != [batch; 2] || width + ids * dimension != wanted {
            return Err(Error::Shape(format!(
                "pooled embeddings of {width} numbers and {ids} numbers of sizes, each embedded as {dimension}, were given for {rows} \
                 pictures; the model takes {wanted} numbers for each of {batch}"
            )));
        }
        let times = self
            .project(time_ids.clone().reshape([batch * ids]), dimension)
            .reshape([batch, ids * dimension]);
        Ok(Tensor::cat(vec![pooled.clone(), times], 1))
    }
}
