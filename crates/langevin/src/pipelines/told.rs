//! What a call tells the model besides noise and timesteps, checked against what the model can be told.

use burn::tensor::{Device, Int, Tensor, TensorData};

use super::SampleOptions;
use crate::{
    Error, Result,
    guidance::Guided,
    models::{AnyModel, CaptionedUNet, Conditioning, ImageCondition, image_condition},
    random::Generator,
};

/// The picture that a model is to be shown beside the noisy one, for one drawn picture or for each.
#[derive(Clone, Debug)]
pub struct ConditioningImage {
    /// `[1 or batch, channels, height, width]` in -1..1: what colours, sharpness and the like are taken from.
    pub picture: Tensor<4>,
    /// `[1, 1, height, width]`, 1 where the model is to paint: for models that are shown a mask.
    pub mask: Option<Tensor<4>>,
    /// Whether the picture is blurred, small or an edge drawing already, and is shown as it is.
    pub as_is: bool,
}

/// A call's words, and what the model knows.
pub(super) struct Told<'a, 'm> {
    pub model: &'m AnyModel,
    /// The class that stands for none, where there is one.
    pub null: Option<usize>,
    pub options: &'a SampleOptions,
    pub device: &'a Device,
}

impl<'m> Told<'_, 'm> {
    /// What was asked for: classes, or the null class; texts, or the empty one; the picture.
    pub fn conditioning(&self) -> Result<Conditioning> {
        let classes = match (self.known(), &self.options.classes, self.null) {
            (None, None, _) => None,
            (None, Some(_), _) => {
                return Err(Error::Config(
                    "classes were given, but the model knows none: it is unconditional".into(),
                ));
            }
            (Some(known), Some(numbers), _) => Some(self.classes(numbers, known)?),
            (Some(_), None, Some(null)) => Some(self.null_class(null)?),
            (Some(known), None, None) => {
                return Err(Error::Config(format!(
                    "the model is class-conditional and has no null class: a class, 0 to {}, must be given",
                    known - 1
                )));
            }
        };
        Ok(Conditioning {
            classes,
            vector: self.vector()?,
            tokens: self.tokens("prompt", &self.options.prompts)?,
            channels: self.channels()?,
            ..Conditioning::default()
        })
    }

    /// The model, guided towards what is asked for and away from the negative classes and texts, or from the null class and the empty
    /// text; `None` where no guidance is asked for.
    pub fn guided(
        &self,
        towards: &Conditioning,
        num_train_timesteps: usize,
    ) -> Result<Option<Guided<&'m AnyModel>>> {
        let guidance = self.options.guidance;
        let negative_classes = &self.options.negative_classes;
        let negative = negative_classes.is_some() || self.options.negative_prompts.is_some();
        if self.known().is_none() && self.captioned().is_none() && self.untold_vector().is_none() {
            return match (guidance.is_on(), negative) {
                (false, false) => Ok(None),
                _ => Err(Error::Config(
                    "classifier-free guidance needs a model that can be told a class, a text or a vector, and this one is unconditional".into(),
                )),
            };
        }
        if !guidance.is_on() {
            return if negative {
                Err(Error::Config(
                    "negative classes and prompts do nothing at a guidance scale of 1: give another scale"
                        .into(),
                ))
            } else {
                Ok(None)
            };
        }
        let classes = match (self.known(), negative_classes, self.null) {
            (None, ..) => None,
            (Some(known), Some(numbers), _) => Some(self.classes(numbers, known)?),
            (Some(_), None, Some(null)) => Some(self.null_class(null)?),
            (Some(_), None, None) => {
                return Err(Error::Config(
                    "the model has no null class, so classifier-free guidance needs classes to lead away from".into(),
                ));
            }
        };
        let negative = Conditioning {
            classes,
            vector: self.untold_vector(),
            tokens: self.tokens("negative prompt", &self.options.negative_prompts)?,
            ..towards.clone()
        };
        Guided::new(self.model, negative, guidance, num_train_timesteps).map(Some)
    }

    /// How many classes the model tells apart.
    fn known(&self) -> Option<usize> {
        self.model.config().num_class_embeds()
    }

    fn captioned(&self) -> Option<&'m CaptionedUNet> {
        match self.model {
            AnyModel::Captioned(model) => Some(model),
            _ => None,
        }
    }

    fn null_class(&self, null: usize) -> Result<Tensor<1, Int>> {
        // Bounded by the model's number of classes, so far below the limit of any integer.
        self.classes(&vec![null as i64; self.options.batch_size], null + 1)
    }

    /// The class embedding's input, checked against a model of `known` classes.
    fn classes(&self, numbers: &[i64], known: usize) -> Result<Tensor<1, Int>> {
        let batch = self.options.batch_size;
        if numbers.len() != batch {
            return Err(Error::Shape(format!(
                "{} classes were given for a batch of {batch}; there must be one a picture",
                numbers.len()
            )));
        }
        let within = |&number: &i64| usize::try_from(number).is_ok_and(|number| number < known);
        if let Some(number) = numbers.iter().find(|number| !within(number)) {
            return Err(Error::Config(format!(
                "there is no class {number}; the model knows 0 to {}",
                known - 1
            )));
        }
        Ok(Tensor::from_data(
            TensorData::new(numbers.to_vec(), [batch]),
            self.device,
        ))
    }

    /// Zeros, for a model that is told a vector.
    fn untold_vector(&self) -> Option<Tensor<2>> {
        let dimension = self.model.config().vector_dim()?;
        Some(Tensor::zeros([self.options.batch_size, dimension], self.device))
    }

    /// The vectors that were given, one a picture.
    fn vector(&self) -> Result<Option<Tensor<2>>> {
        match (self.untold_vector(), &self.options.vectors) {
            (None, Some(_)) => Err(Error::Config(
                "a vector was given, but the model is told none".into(),
            )),
            (untold, None) => Ok(untold),
            (Some(untold), Some(given)) => {
                let ([batch, dimension], [rows, numbers]) = (untold.dims(), given.dims());
                if numbers != dimension || !(rows == 1 || rows == batch) {
                    return Err(Error::Shape(format!(
                        "the vectors have shape [{rows}, {numbers}] where [1 or {batch}, {dimension}] is needed"
                    )));
                }
                Ok(Some(given.clone().expand([batch, dimension])))
            }
        }
    }

    /// The tokens of texts, one a picture; of the empty text where none are given.
    fn tokens(&self, what: &str, texts: &Option<Vec<String>>) -> Result<Option<Tensor<2, Int>>> {
        let batch = self.options.batch_size;
        match (self.captioned(), texts) {
            (None, None) => Ok(None),
            (None, Some(texts)) => Err(Error::Config(format!(
                "the {what} `{}` was given, but the model takes no text",
                texts.first().map_or("", String::as_str)
            ))),
            (Some(model), None) => model.tokens(&vec![""; batch], self.device).map(Some),
            (Some(model), Some(texts)) if texts.len() == batch => model.tokens(texts, self.device).map(Some),
            (Some(_), Some(texts)) => Err(Error::Shape(format!(
                "{} {what}s were given for a batch of {batch}; there must be one a picture",
                texts.len()
            ))),
        }
    }

    /// What the model is shown beside the noisy picture.
    fn channels(&self) -> Result<Option<Tensor<4>>> {
        let config = self.model.config();
        let fail = |message: String| Err(Error::Config(message));
        let (condition, image) = match (config.image_condition(), &self.options.conditioning_image) {
            (None, None) => return Ok(None),
            (None, Some(_)) => {
                return fail("a conditioning picture was given, but the model is shown none".into());
            }
            (Some(condition), None) => {
                return fail(format!(
                    "the model is shown a picture beside the noisy one ({condition}): a conditioning picture must be given"
                ));
            }
            (Some(condition), Some(image)) => (condition, image),
        };
        let [height, width] = config.sample_size().unwrap_or_default();
        let [pictures, channels, ..] = image.picture.dims();
        let batch = self.options.batch_size;
        let expected = [pictures, config.in_channels(), height, width];
        if image.picture.dims() != expected || !(pictures == 1 || pictures == batch) {
            return Err(Error::Shape(format!(
                "the conditioning pictures have shape {:?} where [1 or {batch}, {}, {height}, {width}] is needed",
                image.picture.dims(),
                config.in_channels()
            )));
        }
        let picture = image.picture.clone();
        let shown = match (&condition, &image.mask) {
            (ImageCondition::Mask, Some(mask)) if mask.dims() == [1, 1, height, width] => {
                image_condition::masked(picture, mask.clone().expand([pictures, 1, height, width]))
            }
            (ImageCondition::Mask, Some(mask)) => {
                return Err(Error::Shape(format!(
                    "the mask has shape {:?} where [1, 1, {height}, {width}] is needed: it must be as large as the picture",
                    mask.dims()
                )));
            }
            (ImageCondition::Mask, None) => {
                return fail("the model paints under a mask: one must be given, white where to paint".into());
            }
            (other, Some(_)) => {
                return fail(format!(
                    "a mask was given, but the model is shown no mask ({other})"
                ));
            }
            (condition, None) if image.as_is && condition.channels(channels) == channels => picture,
            (_, None) if image.as_is => image_condition::grey(picture),
            // No chance is left where the mask is given.
            (condition, None) => condition.make(picture, &mut Generator::new(0)),
        };
        let [_, channels, ..] = shown.dims();
        Ok(Some(shown.expand([batch, channels, height, width])))
    }
}
