//! What a model is told of each picture while it learns, and how often it is not told.

use std::path::Path;

use burn::{
    module::Module,
    tensor::{Device, Int, Tensor, TensorData},
};

use super::{ConditioningKind, TextEncoderSource, TrainingConfig};
use crate::{
    Error, Result,
    data::Dataset,
    models::{
        AnyModel, AnyModelConfig, CaptionedUNet, ClipTextEncoder, ClipTokenizer, Conditioning,
        ImageCondition, captioned::small_text_encoder,
    },
    pipelines::Classes,
    random::Generator,
};

/// How many captions a small text encoder's tokenizer learns its words from.
const MOST_CAPTIONS: usize = 20_000;

/// Tells the model what it is to be told.
pub(super) struct Teller {
    /// The null class, where classes are told.
    null: Option<i64>,
    class_dropout: f64,
    caption_dropout: f64,
    image: Option<ImageCondition>,
    image_dropout: f64,
}

impl Teller {
    /// For a run of this configuration.
    pub fn new(config: &TrainingConfig, classes: Option<&Classes>) -> Self {
        Self {
            null: classes.map(|classes| classes.names.len() as i64),
            class_dropout: config.class_dropout(),
            caption_dropout: config.caption_dropout(),
            image: config.conditioning_image.clone(),
            image_dropout: config.image_dropout.unwrap_or(0.0),
        }
    }

    /// What `model` is told of the pictures `clean`, to which the pictures `given` belong where the data have any: some of it, by chance, is withheld.
    ///
    /// # Errors
    /// If the data do not say it.
    pub fn tell(
        &self,
        model: &AnyModel,
        classes: Option<Vec<i64>>,
        captions: Vec<Option<String>>,
        given: Option<Tensor<4>>,
        clean: &Tensor<4>,
        generator: &mut Generator,
    ) -> Result<Conditioning> {
        let device = clean.device();
        let classes = match self.null {
            None => None,
            Some(null) => Some(self.classes(null, classes, &device, generator)?),
        };
        let tokens = match model {
            AnyModel::Captioned(model) => Some(self.tokens(model, captions, &device, generator)?),
            _ => None,
        };
        let channels = match &self.image {
            None => None,
            Some(image) => {
                let pictures = match image {
                    ImageCondition::Column(_) => given,
                    _ => Some(clean.clone()),
                };
                let pictures = pictures.ok_or_else(|| {
                    Error::Config(format!("the data set has no conditioning pictures ({image})"))
                })?;
                let shown = image.make(pictures, generator);
                Some(self.withhold(shown, generator))
            }
        };
        Ok(Conditioning {
            classes,
            tokens,
            channels,
            ..Conditioning::default()
        })
    }

    fn classes(
        &self,
        null: i64,
        classes: Option<Vec<i64>>,
        device: &Device,
        generator: &mut Generator,
    ) -> Result<Tensor<1, Int>> {
        let told = classes.ok_or_else(|| {
            Error::Config("the data set names no class for a picture: use `--conditioning none`".into())
        })?;
        let n = told.len();
        let draws = generator.rand(n);
        // A class that is not known is the null class too.
        let kept = told.into_iter().zip(draws);
        let kept = kept.map(|(class, u)| {
            if f64::from(u) < self.class_dropout || class < 0 {
                null
            } else {
                class
            }
        });
        let kept: Vec<i64> = kept.collect();
        Ok(Tensor::from_data(TensorData::new(kept, [n]), device))
    }

    fn tokens(
        &self,
        model: &CaptionedUNet,
        captions: Vec<Option<String>>,
        device: &Device,
        generator: &mut Generator,
    ) -> Result<Tensor<2, Int>> {
        let draws = generator.rand(captions.len());
        let told = captions.into_iter().zip(draws);
        let told = told.map(|(caption, u)| {
            let kept = caption.filter(|_| f64::from(u) >= self.caption_dropout);
            kept.unwrap_or_default()
        });
        let told: Vec<String> = told.collect();
        model.tokens(&told, device)
    }

    /// Zeros in place of some pictures.
    fn withhold(&self, shown: Tensor<4>, generator: &mut Generator) -> Tensor<4> {
        if self.image_dropout == 0.0 {
            return shown;
        }
        let [batch, ..] = shown.dims();
        let draws = generator.rand(batch);
        let kept = draws.into_iter().map(|u| {
            if f64::from(u) < self.image_dropout {
                0.0
            } else {
                1.0
            }
        });
        let kept = TensorData::new(kept.collect::<Vec<f32>>(), [batch, 1, 1, 1]);
        let device = shown.device();
        shown * Tensor::from_data(kept, &device)
    }
}

/// The model that a run trains: the text encoder first, where it has one, then the UNet.
///
/// # Errors
/// If the configuration makes no model, the data have no captions, or a text encoder does not fit.
pub(super) fn build(
    config: &TrainingConfig,
    dataset: &dyn Dataset,
    classes: Option<&Classes>,
    device: &Device,
    generator: &mut Generator,
) -> Result<AnyModel> {
    let class_count = classes.map_or(0, |classes| classes.names.len());
    if config.conditioning != ConditioningKind::CrossAttention {
        return config.model_config(class_count, None)?.build(device, generator);
    }
    let captions = captions(dataset)?;
    let (encoder, tokenizer) = match &config.text_encoder {
        TextEncoderSource::Small => {
            small_text_encoder(captions.iter().map(String::as_str), device, generator)?
        }
        TextEncoderSource::Folder(folder) => {
            let encoder = ClipTextEncoder::load(folder, device)?;
            // It is read, not trained.
            (encoder.no_grad(), ClipTokenizer::load(tokenizer_beside(folder))?)
        }
    };
    let width = encoder.config().hidden_size;
    match config
        .model_config(class_count, Some(width))?
        .build(device, generator)?
    {
        AnyModel::Condition(unet) => Ok(CaptionedUNet::new(unet, encoder, tokenizer)?.into()),
        model => Err(Error::Config(format!(
            "a {} does not look at texts: `conditioning` cannot be `cross-attention`",
            model.config().class_name()
        ))),
    }
}

/// The configuration of the model that a run trains which goes on with `saved`: its text encoder is there already.
///
/// # Errors
/// If the configuration makes no model.
pub(super) fn expected(
    config: &TrainingConfig,
    classes: Option<&Classes>,
    saved: &AnyModelConfig,
) -> Result<AnyModelConfig> {
    let class_count = classes.map_or(0, |classes| classes.names.len());
    let sequence_dim = match saved {
        AnyModelConfig::Condition(saved) if config.conditioning == ConditioningKind::CrossAttention => {
            Some(saved.sequence_dim())
        }
        _ => None,
    };
    config.model_config(class_count, sequence_dim)
}

/// The model with its text encoder as it stays, where it is not the small one.
pub(super) fn frozen(config: &TrainingConfig, model: AnyModel) -> AnyModel {
    match (model, &config.text_encoder) {
        (AnyModel::Captioned(mut model), TextEncoderSource::Folder(_)) => {
            model.text_encoder = model.text_encoder.no_grad();
            model.into()
        }
        (model, _) => model,
    }
}

/// The folder of a text encoder's tokenizer: the pipeline's `tokenizer`, one below the encoder's, or the encoder's own.
fn tokenizer_beside(folder: &Path) -> std::path::PathBuf {
    let places = [folder.join("tokenizer"), folder.join("../tokenizer")];
    let found = places.into_iter().find(|place| place.is_dir());
    found.unwrap_or_else(|| folder.to_path_buf())
}

/// The captions of the first pictures.
fn captions(dataset: &dyn Dataset) -> Result<Vec<String>> {
    let mut captions = vec![];
    for index in 0..dataset.len().min(MOST_CAPTIONS) {
        // A picture that cannot be read is the loader's to report.
        captions.extend(dataset.get(index).ok().and_then(|example| example.caption));
    }
    if captions.is_empty() {
        return Err(Error::Config(format!(
            "the data set {} has no captions, which `--conditioning cross-attention` needs: a column `text` in metadata.jsonl or in \
             parquet files",
            dataset.name()
        )));
    }
    Ok(captions)
}
