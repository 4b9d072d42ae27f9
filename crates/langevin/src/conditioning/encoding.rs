//! An encoding of a sound as the sequence, for a model that draws sounds like others. Mirrors the argument `encoding` of diffusers'
//! `AudioDiffusionPipeline`.

use burn::tensor::{Tensor, TensorData};

use super::{Ask, Call, Condition, ConditionKind, Examples, Pair, RunSource, Source, TEXT_ENCODER};
use crate::{
    Error, Result,
    models::{AnyModelConfig, Conditioning, ModelInputs},
    options::{Request, SampleOptions},
    random::Generator,
};

/// The component that pipelines have which draw sounds.
const MEL: &str = "mel";

/// One encoding for all pictures; what makes encodings is no part of the pipeline.
#[derive(Clone, Debug)]
pub struct EncodingCondition {
    dimension: usize,
}

impl Condition for EncodingCondition {
    fn fit(&self, _: &mut ModelInputs) {}

    fn is_guided(&self) -> bool {
        false
    }

    fn of_call(&self, call: &Call<'_>) -> Result<Pair> {
        let Some(encoding) = &call.options.encoding else {
            return Err(Error::option(
                &["encoding"],
                format!(
                    "this model is told an encoding of {} numbers: give it by `encoding`",
                    self.dimension
                ),
            ));
        };
        let [_, length, width] = encoding.dims();
        if width != self.dimension {
            return Err(Error::option(
                &["encoding"],
                format!(
                    "`encoding` has {width} numbers, and this model is told {}",
                    self.dimension
                ),
            ));
        }
        Ok(Pair::both(Conditioning {
            sequence: Some(encoding.clone().expand([call.options.batch_size, length, width])),
            ..Conditioning::default()
        }))
    }

    fn of_batch(&self, _: &Examples<'_>, _: f64, _: &mut Generator) -> Result<Conditioning> {
        Err(Error::Unsupported(
            "a model that is told an encoding cannot be trained yet".into(),
        ))
    }
}

impl ConditionKind for EncodingCondition {
    fn of_pipeline(source: &Source<'_>) -> Result<Option<Self>> {
        let (AnyModelConfig::Condition(config), Some(parts)) = (source.config, source.components) else {
            return Ok(None);
        };
        let told = parts.has(MEL) && !parts.has(TEXT_ENCODER);
        Ok(told.then(|| Self {
            dimension: config.sequence_dim(),
        }))
    }

    fn of_run(_: &RunSource<'_>, _: &mut Generator) -> Result<Option<(Self, f64)>> {
        Ok(None)
    }

    fn rows(_: &Request) -> Vec<usize> {
        vec![1]
    }

    fn ask(condition: Option<&Self>, ask: &Ask<'_>, options: &mut SampleOptions) -> Result<()> {
        let numbers = &ask.request.sound.encoding;
        if condition.is_some() && !numbers.is_empty() {
            let data = TensorData::new(numbers.clone(), [1, 1, numbers.len()]);
            options.encoding = Some(Tensor::from_data(data, &ask.images.device));
        }
        Ok(())
    }

    fn refuse(_: &SampleOptions) -> Result<()> {
        Ok(())
    }
}
