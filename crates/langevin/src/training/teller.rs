//! What a model is told of each picture while it learns, and how often it is not told.

use std::path::Path;

use burn::{
    module::Module,
    tensor::{Device, Int, Tensor, TensorData},
};

use super::{ConditioningKind, TextEncoderSource, TrainingConfig, Widths};
use crate::{
    Error, Result,
    data::Dataset,
    models::{
        AnyModel, AnyModelConfig, CaptionedUNet, ClipTextEncoder, ClipTokenizer, Conditioning,
        ImageCondition, Model, PictureEncoder,
        captioned::{TEXT_ENCODER, small_text_encoder},
        clip::ClipModel,
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
    vector: Option<PictureEncoder>,
    vector_dropout: f64,
}

impl Teller {
    /// For a run of this configuration.
    pub fn new(config: &TrainingConfig, classes: Option<&Classes>, vector: Option<PictureEncoder>) -> Self {
        Self {
            null: classes.map(|classes| classes.names.len() as i64),
            class_dropout: config.class_dropout(),
            caption_dropout: config.caption_dropout(),
            image: config.conditioning_image.clone(),
            image_dropout: config.image_dropout.unwrap_or(0.0),
            vector,
            vector_dropout: config.vector_dropout(),
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
                Some(withhold(shown, self.image_dropout, generator))
            }
        };
        let vector = match &self.vector {
            None => None,
            Some(encoder) => Some(withhold(encoder.encode(clean)?, self.vector_dropout, generator)),
        };
        Ok(Conditioning {
            classes,
            vector,
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

    /// What makes a picture's vector, where one is told.
    pub fn vector(&self) -> Option<&PictureEncoder> {
        self.vector.as_ref()
    }
}

/// Zeros in place of what some pictures are told, which has a row a picture.
fn withhold<const D: usize>(told: Tensor<D>, dropout: f64, generator: &mut Generator) -> Tensor<D> {
    if dropout == 0.0 {
        return told;
    }
    let mut shape = [1; D];
    shape[0] = told.dims()[0];
    let draws = generator.rand(shape[0]);
    let kept = draws
        .into_iter()
        .map(|u| if f64::from(u) < dropout { 0.0 } else { 1.0 });
    let kept = TensorData::new(kept.collect::<Vec<f32>>(), shape);
    let device = told.device();
    told * Tensor::from_data(kept, &device)
}

/// What makes the vectors that a run tells its model, if it does.
///
/// # Errors
/// If CLIP cannot be loaded.
pub(super) fn encoder(config: &TrainingConfig, device: &Device) -> Result<Option<PictureEncoder>> {
    if config.conditioning != ConditioningKind::Vector {
        return Ok(None);
    }
    let load = |path| ClipModel::load(path, device);
    let clip = config.vector_clip.as_ref().map(load).transpose()?;
    PictureEncoder::new(config.vector, clip).map(Some)
}

/// The dimension of the vectors that a run tells its model.
fn widths(config: &TrainingConfig, encoder: Option<&PictureEncoder>) -> Widths {
    Widths {
        sequence: None,
        vector: encoder.map(|encoder| encoder.dimension(config.channels.count())),
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
    encoder: Option<&PictureEncoder>,
    device: &Device,
    generator: &mut Generator,
) -> Result<AnyModel> {
    let class_count = classes.map_or(0, |classes| classes.names.len());
    if config.conditioning != ConditioningKind::CrossAttention {
        let widths = widths(config, encoder);
        return config.model_config(class_count, widths)?.build(device, generator);
    }
    let captions = captions(dataset)?;
    let (encoder, tokenizer) = match &config.text_encoder {
        TextEncoderSource::Small => {
            let captions: Vec<String> = captions.collect();
            small_text_encoder(captions.iter().map(String::as_str), device, generator)?
        }
        TextEncoderSource::Folder(folder) => {
            let encoder = ClipTextEncoder::load(folder, device)?;
            // It is read, not trained.
            (encoder.no_grad(), ClipTokenizer::load(tokenizer_beside(folder))?)
        }
    };
    let widths = Widths {
        sequence: Some(encoder.config().hidden_size),
        vector: None,
    };
    match config
        .model_config(class_count, widths)?
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
/// If the configuration makes no model, or asks for captions that `saved` does not look at.
pub(super) fn expected(
    config: &TrainingConfig,
    classes: Option<&Classes>,
    encoder: Option<&PictureEncoder>,
    saved: &AnyModelConfig,
) -> Result<AnyModelConfig> {
    let class_count = classes.map_or(0, |classes| classes.names.len());
    let sequence = match saved {
        _ if config.conditioning != ConditioningKind::CrossAttention => None,
        AnyModelConfig::Condition(saved) => Some(saved.sequence_dim()),
        saved => {
            return Err(Error::Config(format!(
                "the model is a {}, which looks at no captions: `conditioning` cannot be `cross-attention`",
                saved.class_name()
            )));
        }
    };
    let widths = Widths {
        sequence,
        ..widths(config, encoder)
    };
    config.model_config(class_count, widths)
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

/// Checks that the pipeline in `folder` can be told captions, and that there are some, where it is to be told them.
///
/// # Errors
/// If not.
pub(super) fn check_captions(config: &TrainingConfig, dataset: &dyn Dataset, folder: &Path) -> Result<()> {
    if config.conditioning != ConditioningKind::CrossAttention {
        return Ok(());
    }
    if !folder.join(TEXT_ENCODER).is_dir() {
        return Err(Error::Config(
            "the model has no text encoder beside it: `conditioning` cannot be `cross-attention`".into(),
        ));
    }
    captions(dataset).map(drop)
}

/// The folder of a text encoder's tokenizer: the pipeline's `tokenizer`, one below the encoder's, or the encoder's own.
fn tokenizer_beside(folder: &Path) -> std::path::PathBuf {
    let places = [folder.join("tokenizer"), folder.join("../tokenizer")];
    let found = places.into_iter().find(|place| place.is_dir());
    found.unwrap_or_else(|| folder.to_path_buf())
}

/// The captions of the first pictures, at least one.
fn captions(dataset: &dyn Dataset) -> Result<impl Iterator<Item = String>> {
    // A picture that cannot be read is the loader's to report.
    let mut captions =
        (0..dataset.len().min(MOST_CAPTIONS)).filter_map(|index| dataset.get(index).ok()?.caption);
    let first = captions.next().ok_or_else(|| {
        Error::Config(format!(
            "the data set {} has no captions, which `--conditioning cross-attention` needs: a column `text` in metadata.jsonl or in \
             parquet files",
            dataset.name()
        ))
    })?;
    Ok(std::iter::once(first).chain(captions))
}
