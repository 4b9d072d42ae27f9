//! A picture's embedding as the sequence, for a model that draws others like it. Mirrors diffusers' `StableDiffusionImageVariationPipeline`.

use std::{path::Path, sync::Arc};

use burn::{module::Module, tensor::Tensor};
use serde_json::Value;

use super::{Ask, Call, Condition, ConditionKind, Examples, Pair, RunSource, Source, TEXT_ENCODER};
use crate::{
    Error, Result,
    data::ImageInput,
    files,
    models::{
        AnyModelConfig, ClipImageProcessor, ClipVisionEncoder, Conditioning, Model, ModelInputs, components,
    },
    options::{Request, SampleOptions},
    random::Generator,
};

/// The folders of its parts.
const ENCODER: &str = "image_encoder";
const PROCESSOR: &str = "feature_extractor";
/// The file of a processor.
const PROCESSOR_CONFIG: &str = "preprocessor_config.json";

/// One picture per picture.
#[derive(Clone, Debug)]
pub struct VariationCondition {
    encoder: ClipVisionEncoder,
    processor: ClipImageProcessor,
    /// The processor's file as it was.
    processor_config: Arc<Value>,
}

impl VariationCondition {
    /// The embeddings of pictures, `[count, 1, dimension]`; of tensors, which are prepared already, as they are.
    fn encode(&self, image: &ImageInput) -> Result<Tensor<3>> {
        let device = self.encoder.devices().into_iter().next().unwrap_or_default();
        let prepared = match image {
            ImageInput::Tensor(prepared) => prepared.clone(),
            image => self.processor.forward(&image.read_all()?, &device)?,
        };
        Ok(self.encoder.encode(prepared)?.unsqueeze_dim(1))
    }
}

impl Condition for VariationCondition {
    fn fit(&self, _: &mut ModelInputs) {}

    fn of_call(&self, call: &Call<'_>) -> Result<Pair> {
        let options = call.options;
        let Some(embedding) = &options.image_embeddings else {
            return Err(Error::option(
                &["init_image"],
                "this model draws pictures like another: name that one by `init_image`",
            ));
        };
        let [rows, length, width] = embedding.dims();
        if !(rows == 1 || rows == options.batch_size) {
            return Err(Error::Shape(format!(
                "embeddings of {rows} pictures were given for a batch of {}",
                options.batch_size
            )));
        }
        let of = |sequence: Tensor<3>| Conditioning {
            sequence: Some(sequence.expand([options.batch_size, length, width])),
            ..Conditioning::default()
        };
        Ok(Pair {
            away: of(embedding.zeros_like()),
            towards: of(embedding.clone()),
            ..Pair::default()
        })
    }

    fn of_batch(&self, _: &Examples<'_>, _: f64, _: &mut Generator) -> Result<Conditioning> {
        Err(Error::Unsupported(
            "a model of picture variations cannot be trained yet".into(),
        ))
    }

    fn num_parameters(&self) -> usize {
        self.encoder.num_params()
    }

    fn save(&self, folder: &Path) -> Result<Vec<(&'static str, &'static str)>> {
        self.encoder.save(folder.join(ENCODER))?;
        files::write_json(
            folder.join(PROCESSOR).join(PROCESSOR_CONFIG),
            &*self.processor_config,
        )?;
        Ok(vec![
            (ENCODER, "CLIPVisionModelWithProjection"),
            (PROCESSOR, "CLIPImageProcessor"),
        ])
    }
}

impl ConditionKind for VariationCondition {
    fn of_pipeline(source: &Source<'_>) -> Result<Option<Self>> {
        let (AnyModelConfig::Condition(_), Some(parts)) = (source.config, source.components) else {
            return Ok(None);
        };
        // Beside a text encoder it is for what is put on top of a pipeline.
        if !parts.has(ENCODER) || parts.has(TEXT_ENCODER) {
            return Ok(None);
        }
        let folder = parts.path().join(PROCESSOR);
        Ok(Some(Self {
            encoder: components::load(parts, ENCODER, source.device)?,
            processor: ClipImageProcessor::load(&folder)?,
            processor_config: Arc::new(files::read_json(folder.join(PROCESSOR_CONFIG))?),
        }))
    }

    fn of_run(_: &RunSource<'_>, _: &mut Generator) -> Result<Option<(Self, f64)>> {
        Ok(None)
    }

    fn rows(request: &Request) -> Vec<usize> {
        vec![match &request.init_image {
            Some(ImageInput::Several(all)) => all.len(),
            _ => 1,
        }]
    }

    fn ask(condition: Option<&Self>, ask: &Ask<'_>, options: &mut SampleOptions) -> Result<()> {
        let (Some(condition), Some(image)) = (condition, &ask.request.init_image) else {
            return Ok(());
        };
        let all = condition.encode(image)?;
        let [count, ..] = all.dims();
        let rows = (0..ask.rows).map(|row| all.clone().narrow(0, row % count, 1));
        options.image_embeddings = Some(Tensor::cat(rows.collect(), 0));
        Ok(())
    }

    fn refuse(_: &SampleOptions) -> Result<()> {
        Ok(())
    }
}
