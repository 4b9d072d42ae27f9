//! A vector of a picture, such as its mean colour or CLIP's embedding, added to the time embedding.

use burn::tensor::{Tensor, TensorData};

use super::{
    Ask, Call, Condition, ConditionKind, Examples, Pair, PictureEncoder, PictureVector, Pretrained,
    RunSource, Source, check_dropout, dropped, of_vector, would_be,
};
use crate::{
    Error, Result,
    error::require,
    models::{AnyModelConfig, Conditioning, ModelInputs, VectorInput, clip::ClipModel},
    options::{Request, SampleOptions},
    random::Generator,
    training::{ConditioningKind, TrainingConfig, VectorEmbedding},
};

/// Says in a model's configuration what its vector is of a picture.
const NOTE: &str = "conditioning_vector";

/// One vector per picture.
#[derive(Clone, Debug)]
pub struct VectorCondition {
    /// How many numbers it has.
    dimension: usize,
    /// What it is of a picture, where that is known.
    kind: Option<PictureVector>,
    /// How a model that learns it takes it, and what makes it of pictures.
    trained: Option<(VectorInput, PictureEncoder)>,
}

impl VectorCondition {
    /// How many numbers it has.
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// What it is of a picture, where that is known.
    pub fn kind(&self) -> Option<PictureVector> {
        self.kind
    }

    /// The vectors of a run's pictures, `[batch, channels, height, width]` in -1..1 → `[batch, dimension]`.
    ///
    /// # Errors
    /// If this is no run's condition, or its encoder does not take such pictures.
    pub fn encode(&self, pictures: &Tensor<4>) -> Result<Tensor<2>> {
        let (_, encoder) = self
            .trained
            .as_ref()
            .ok_or_else(|| Error::Config("there is nothing here that makes a picture's vector".into()))?;
        encoder.encode(pictures)
    }
}

/// What a model's vector is of a picture, if it is that.
fn noted(config: &AnyModelConfig) -> Option<PictureVector> {
    let (note, value) = config.vector_note()?;
    value.as_str().filter(|_| note == NOTE)?.parse().ok()
}

impl Condition for VectorCondition {
    fn fit(&self, inputs: &mut ModelInputs) {
        inputs.vector = self.trained.as_ref().map(|(input, _)| input.clone());
    }

    fn of_call(&self, call: &Call<'_>) -> Result<Pair> {
        let (batch, dimension) = (call.options.batch_size, self.dimension);
        let zeros = Tensor::zeros([batch, dimension], call.device);
        let towards = match &call.options.vectors {
            None => zeros.clone(),
            Some(given) => {
                let [rows, numbers] = given.dims();
                if numbers != dimension || !(rows == 1 || rows == batch) {
                    return Err(Error::Shape(format!(
                        "the vectors have shape [{rows}, {numbers}] where [1 or {batch}, {dimension}] is needed"
                    )));
                }
                given.clone().expand([batch, dimension])
            }
        };
        Ok(Pair {
            towards: of_vector(towards),
            away: of_vector(zeros),
            ..Pair::default()
        })
    }

    /// Zeros in place of a picture's own.
    fn of_batch(
        &self,
        examples: &Examples<'_>,
        dropout: f64,
        generator: &mut Generator,
    ) -> Result<Conditioning> {
        let vectors = self.encode(examples.clean)?;
        Ok(of_vector(dropped(vectors, dropout, generator)))
    }
}

impl ConditionKind for VectorCondition {
    fn of_pipeline(source: &Source<'_>) -> Result<Option<Self>> {
        let config = source.config;
        // Another note is another kind's.
        if config.vector_note().is_some_and(|(note, _)| note != NOTE) {
            return Ok(None);
        }
        Ok(config.vector_dim().map(|dimension| Self {
            dimension,
            kind: noted(config),
            trained: None,
        }))
    }

    fn of_run(source: &RunSource<'_>, _: &mut Generator) -> Result<Option<(Self, f64)>> {
        let config = source.config;
        if config.conditioning != ConditioningKind::Vector {
            return Ok(None);
        }
        let load = |path| ClipModel::load(path, source.device);
        let clip = config.vector_clip.as_ref().map(load).transpose()?;
        let encoder = PictureEncoder::new(config.vector, clip)?;
        let dimension = encoder.dimension(config.channels.count());
        let input = VectorInput {
            note: (NOTE, config.vector.to_string().into()),
            dimension,
            embedding: config.vector_embedding.into(),
        };
        let condition = Self {
            dimension,
            kind: Some(config.vector),
            trained: Some((input, encoder)),
        };
        Ok(Some((condition, config.vector_dropout())))
    }

    fn check(config: &TrainingConfig) -> Result<()> {
        let is_vector = config.conditioning == ConditioningKind::Vector;
        check_dropout(("vector_dropout", config.vector_dropout), is_vector, || {
            would_be(ConditioningKind::Vector, config)
        })?;
        let is_clip = is_vector && config.vector == PictureVector::Clip;
        require(is_clip == config.vector_clip.is_some(), || {
            if is_clip {
                "the vector is CLIP's embedding of a picture: `vector_clip` must name a CLIP model".into()
            } else {
                "`vector_clip` has nothing to embed: `conditioning` would have to be `vector`, and `vector` `clip`".into()
            }
        })
    }

    fn of_pretrained(model: &Pretrained<'_>, config: &mut TrainingConfig) -> Result<bool> {
        let (Some(vector), AnyModelConfig::Condition(own)) = (noted(model.config), model.config) else {
            return Ok(false);
        };
        let Some(embedding) = own.class_embed_type.filter(|_| !model.has_text) else {
            return Ok(false);
        };
        config.vector = vector;
        config.vector_embedding = VectorEmbedding::try_from(embedding)?;
        config.conditioning = ConditioningKind::Vector;
        Ok(true)
    }

    fn rows(request: &Request) -> Vec<usize> {
        vec![request.vectors.as_ref().map_or(1, |vectors| vectors.dims()[0])]
    }

    fn ask(condition: Option<&Self>, ask: &Ask<'_>, options: &mut SampleOptions) -> Result<()> {
        let request = ask.request;
        options.vectors = match &request.vector_of {
            _ if request.vectors.is_some() => request.vectors.clone(),
            Some(image) => {
                let Some(kind) = condition.and_then(|condition| condition.kind) else {
                    return Err(Error::option(
                        &["vector_of"],
                        "`vector_of`: the model is told no vector of a picture; one that is trained with the conditioning `vector` is",
                    ));
                };
                if kind == PictureVector::Clip && ask.images.clip.is_none() {
                    return Err(Error::option(
                        &["vector_of", "clip"],
                        "`vector_of`: the model is told CLIP's embedding; name the same model with `clip`",
                    ));
                }
                let encoder = PictureEncoder::new(kind, ask.images.clip.clone())?;
                Some(encoder.encode(&ask.images.image(image)?)?)
            }
            None if request.vector.is_empty() => None,
            None => {
                let data = TensorData::new(request.vector.clone(), [1, request.vector.len()]);
                Some(Tensor::from_data(data, &ask.images.device))
            }
        };
        Ok(())
    }

    fn refuse(options: &SampleOptions) -> Result<()> {
        match options.vectors {
            Some(_) => Err(Error::Config(
                "a vector was given, but the model is told none".into(),
            )),
            None => Ok(()),
        }
    }
}
