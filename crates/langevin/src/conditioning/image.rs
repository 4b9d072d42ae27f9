//! A picture beside the noisy one, as channels of its own: grey, blurred, small, edges, masked, or a column of the data.

use burn::tensor::Tensor;

use super::{
    Ask, Call, Condition, ConditionKind, Examples, Pair, Pretrained, RunSource, Source, check_dropout,
    dropped,
};
use crate::{
    Error, Result, Size,
    data::ImageInput,
    models::{Conditioning, ImageCondition, ModelInputs, image_condition},
    options::{ConditioningImage, Request, SampleOptions},
    random::Generator,
    training::TrainingConfig,
};

/// One conditioning picture per picture.
#[derive(Clone, Debug)]
pub struct ConditioningImages {
    kind: ImageCondition,
}

impl ConditioningImages {
    /// What the pictures show.
    pub fn kind(&self) -> &ImageCondition {
        &self.kind
    }
}

fn of_channels(channels: Tensor<4>) -> Conditioning {
    Conditioning {
        channels: Some(channels),
        ..Conditioning::default()
    }
}

impl Condition for ConditioningImages {
    fn fit(&self, inputs: &mut ModelInputs) {
        inputs.image = Some(self.kind.clone());
    }

    fn is_guided(&self) -> bool {
        false
    }

    fn of_call(&self, call: &Call<'_>) -> Result<Pair> {
        let condition = &self.kind;
        let fail = |message: String| Err(Error::Config(message));
        let Some(image) = &call.options.conditioning_image else {
            return fail(format!(
                "the model is shown a picture beside the noisy one ({condition}): a conditioning picture must be given"
            ));
        };
        let Size { height, width } = call.size;
        let [pictures, channels, ..] = image.picture.dims();
        let batch = call.options.batch_size;
        let expected = [pictures, call.config.in_channels(), height, width];
        if image.picture.dims() != expected || !(pictures == 1 || pictures == batch) {
            return Err(Error::Shape(format!(
                "the conditioning pictures have shape {:?} where [1 or {batch}, {}, {height}, {width}] is needed",
                image.picture.dims(),
                call.config.in_channels()
            )));
        }
        let picture = image.picture.clone();
        let shown = match (condition, &image.mask) {
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
        Ok(Pair::both(of_channels(
            shown.expand([batch, channels, height, width]),
        )))
    }

    /// Zeros in place of a picture's own.
    fn of_batch(
        &self,
        examples: &Examples<'_>,
        dropout: f64,
        generator: &mut Generator,
    ) -> Result<Conditioning> {
        let pictures = match self.kind {
            ImageCondition::Column(_) => examples.conditioning,
            _ => Some(examples.clean),
        };
        let pictures = pictures.ok_or_else(|| {
            Error::Config(format!(
                "the data set has no conditioning pictures ({})",
                self.kind
            ))
        })?;
        let shown = self.kind.make(pictures.clone(), generator);
        Ok(of_channels(dropped(shown, dropout, generator)))
    }
}

impl ConditionKind for ConditioningImages {
    fn of_pipeline(source: &Source<'_>) -> Result<Option<Self>> {
        Ok(source.config.image_condition().map(|kind| Self { kind }))
    }

    fn of_run(source: &RunSource<'_>, _: &mut Generator) -> Result<Option<(Self, f64)>> {
        let config = source.config;
        let condition = config.conditioning_image.clone().map(|kind| Self { kind });
        Ok(condition.map(|condition| (condition, config.image_dropout.unwrap_or(0.0))))
    }

    fn check(config: &TrainingConfig) -> Result<()> {
        let image = &config.conditioning_image;
        check_dropout(("image_dropout", config.image_dropout), image.is_some(), || {
            "there is no `conditioning_image`".into()
        })?;
        match image {
            Some(image) => image.validate(config.channels.count(), [config.resolution; 2]),
            None => Ok(()),
        }
    }

    /// It stands beside other kinds, so that it is never all that a model is conditioned on.
    fn of_pretrained(model: &Pretrained<'_>, config: &mut TrainingConfig) -> Result<bool> {
        config.conditioning_image = model.config.image_condition();
        Ok(false)
    }

    fn rows(request: &Request) -> Vec<usize> {
        vec![match &request.conditioning_image {
            Some(ImageInput::Tensor(pictures)) => pictures.dims()[0],
            _ => 1,
        }]
    }

    fn ask(_: Option<&Self>, ask: &Ask<'_>, options: &mut SampleOptions) -> Result<()> {
        let Some(image) = &ask.request.conditioning_image else {
            return Ok(());
        };
        let (picture, mask) = if ask.request.mask.is_some() {
            let (picture, known) = ask.images.masked(image)?;
            (picture, Some(known * -1.0 + 1.0))
        } else {
            (ask.images.image(image)?, None)
        };
        options.conditioning_image = Some(ConditioningImage {
            picture,
            mask,
            as_is: ask.request.conditioning_as_is,
        });
        Ok(())
    }

    fn refuse(options: &SampleOptions) -> Result<()> {
        match options.conditioning_image {
            Some(_) => Err(Error::Config(
                "a conditioning picture was given, but the model is shown none".into(),
            )),
            None => Ok(()),
        }
    }
}
