//! Texts, through CLIP's text encoder, for a model that looks at a sequence.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use burn::{module::Module, tensor::Device};

use super::{Ask, Call, Condition, ConditionKind, Examples, Pair, RunSource, Source};
use crate::{
    Error, Result,
    data::Dataset,
    models::{
        AnyModelConfig, ClipTextEncoder, ClipTokenizer, Conditioning, Model, ModelInputs,
        clip::ClipTextConfig,
    },
    options::{Request, SampleOptions},
    random::Generator,
    training::{ConditioningKind, TextEncoderSource},
};

/// The folder of a text encoder, in a pipeline's.
pub(crate) const TEXT_ENCODER: &str = "text_encoder";
/// The folder of a tokenizer.
const TOKENIZER: &str = "tokenizer";

/// How many captions a small text encoder's tokenizer learns its pieces from.
const MOST_CAPTIONS: usize = 20_000;
/// How many pieces it learns, besides the bytes.
const SMALL_PIECES: usize = 1000;
/// How many tokens of a caption a small text encoder sees.
const SMALL_LENGTH: usize = 32;

/// One text per picture.
#[derive(Clone, Debug)]
pub struct TextCondition {
    encoder: ClipTextEncoder,
    tokenizer: Arc<ClipTokenizer>,
}

impl TextCondition {
    /// Puts the parts together.
    ///
    /// # Errors
    /// If they do not fit each other.
    pub fn new(encoder: ClipTextEncoder, tokenizer: ClipTokenizer) -> Result<Self> {
        let config = encoder.config();
        if tokenizer.vocab_size() > config.vocab_size || tokenizer.length() > config.max_position_embeddings {
            return Err(Error::Config(format!(
                "the tokenizer has {} pieces and texts of {}, the text encoder knows {} and {}: they are not of one model",
                tokenizer.vocab_size(),
                tokenizer.length(),
                config.vocab_size,
                config.max_position_embeddings
            )));
        }
        Ok(Self {
            encoder,
            tokenizer: Arc::new(tokenizer),
        })
    }

    /// The text encoder and the tokenizer whose folders lie in `folder`.
    fn load(folder: &Path, device: &Device) -> Result<Self> {
        let encoder = ClipTextEncoder::load(folder.join(TEXT_ENCODER), device)?;
        let tokenizer = ClipTokenizer::load(folder.join(TOKENIZER))?;
        Self::new(encoder, tokenizer).map_err(|e| Error::file(folder, e.to_string()))
    }

    /// The same with another text encoder of its kind, such as the one that was trained along.
    pub fn with_encoder(&self, encoder: ClipTextEncoder) -> Self {
        Self {
            encoder,
            tokenizer: Arc::clone(&self.tokenizer),
        }
    }

    /// The text encoder.
    pub fn encoder(&self) -> &ClipTextEncoder {
        &self.encoder
    }

    /// What a model looks at for these texts.
    fn sequence<T: AsRef<str>>(&self, encoder: &ClipTextEncoder, texts: &[T]) -> Result<Conditioning> {
        let rows = texts.iter().map(|text| self.tokenizer.encode(text.as_ref()));
        let rows = rows.collect::<Result<Vec<Vec<u32>>>>()?;
        Ok(Conditioning {
            sequence: Some(encoder.text_model.forward(&rows)?.last_hidden_state),
            ..Conditioning::default()
        })
    }

    /// The same for a call's texts, of which there is one per picture, or for as many empty ones.
    fn of_texts(&self, what: &str, texts: &Option<Vec<String>>, batch: usize) -> Result<Conditioning> {
        match texts {
            None => self.sequence(&self.encoder, &vec![""; batch]),
            Some(texts) if texts.len() == batch => self.sequence(&self.encoder, texts),
            Some(texts) => Err(Error::Shape(format!(
                "{} {what}s were given for a batch of {batch}; there must be one a picture",
                texts.len()
            ))),
        }
    }
}

impl Condition for TextCondition {
    fn fit(&self, inputs: &mut ModelInputs) {
        inputs.sequence_dim = Some(self.encoder.config().hidden_size);
    }

    fn of_call(&self, call: &Call<'_>) -> Result<Pair> {
        let options = call.options;
        let towards = self.of_texts("prompt", &options.prompts, options.batch_size)?;
        if !options.guidance.is_on() {
            return Ok(Pair::both(towards));
        }
        let away = self.of_texts("negative prompt", &options.negative_prompts, options.batch_size)?;
        Ok(Pair { towards, away })
    }

    /// The empty text in place of a picture's own.
    fn of_batch(
        &self,
        examples: &Examples<'_>,
        dropout: f64,
        generator: &mut Generator,
    ) -> Result<Conditioning> {
        let draws = generator.rand(examples.captions.len());
        let captions = examples.captions.iter().zip(draws);
        let captions: Vec<&str> = captions
            .map(|(caption, u)| {
                let kept = caption.as_deref().filter(|_| f64::from(u) >= dropout);
                kept.unwrap_or_default()
            })
            .collect();
        self.sequence(examples.text_encoder.unwrap_or(&self.encoder), &captions)
    }

    fn num_parameters(&self) -> usize {
        self.encoder.num_params()
    }

    fn save(&self, folder: &Path) -> Result<Vec<(&'static str, &'static str)>> {
        self.encoder.save(folder.join(TEXT_ENCODER))?;
        self.tokenizer.save(folder.join(TOKENIZER))?;
        Ok(vec![
            (TEXT_ENCODER, self.encoder.class_name()),
            (TOKENIZER, "CLIPTokenizer"),
        ])
    }
}

impl ConditionKind for TextCondition {
    fn of_pipeline(source: &Source<'_>) -> Result<Option<Self>> {
        let (AnyModelConfig::Condition(config), Some(folder)) = (source.config, source.folder) else {
            return Ok(None);
        };
        if !folder.join(TEXT_ENCODER).is_dir() {
            return Ok(None);
        }
        let condition = Self::load(folder, source.device)?;
        let (width, wanted) = (condition.encoder.config().hidden_size, config.sequence_dim());
        if width != wanted {
            let message = format!(
                "the text encoder makes vectors of {width} numbers, and the UNet looks at vectors of {wanted} (cross_attention_dim)"
            );
            return Err(Error::file(folder, message));
        }
        Ok(Some(condition))
    }

    fn of_run(source: &RunSource<'_>, generator: &mut Generator) -> Result<Option<(Self, f64)>> {
        let config = source.config;
        if config.conditioning != ConditioningKind::CrossAttention {
            return Ok(None);
        }
        let condition = match (source.model, &config.text_encoder) {
            (Some(folder), _) if !folder.join(TEXT_ENCODER).is_dir() => {
                return Err(Error::Config(
                    "the model looks at no captions, for there is no text encoder beside it: `conditioning` cannot be `cross-attention`"
                        .into(),
                ));
            }
            (Some(folder), _) => {
                captions(source.dataset).map(drop)?;
                Self::load(folder, source.device)?
            }
            (None, TextEncoderSource::Small) => {
                let captions: Vec<String> = captions(source.dataset)?.collect();
                small(captions.iter().map(String::as_str), source.device, generator)?
            }
            (None, TextEncoderSource::Folder(folder)) => {
                captions(source.dataset).map(drop)?;
                let encoder = ClipTextEncoder::load(folder, source.device)?;
                Self::new(encoder, ClipTokenizer::load(tokenizer_beside(folder))?)?
            }
        };
        let condition = match config.text_encoder {
            TextEncoderSource::Small => condition,
            // It is read, not trained.
            TextEncoderSource::Folder(_) => condition.with_encoder(condition.encoder.clone().no_grad()),
        };
        Ok(Some((condition, config.caption_dropout())))
    }

    fn rows(request: &Request) -> usize {
        request.prompt.len()
    }

    fn ask(_: Option<&Self>, ask: &Ask<'_>, options: &mut SampleOptions) -> Result<()> {
        options.prompts = ask.turns(&ask.request.prompt);
        let negative = ask.request.negative_prompt.clone();
        options.negative_prompts = negative.map(|text| vec![text; ask.rows]);
        Ok(())
    }

    fn refuse(options: &SampleOptions) -> Result<()> {
        let texts = [
            ("prompt", &options.prompts),
            ("negative prompt", &options.negative_prompts),
        ];
        for (what, texts) in texts {
            if let Some(texts) = texts {
                return Err(Error::Config(format!(
                    "the {what} `{}` was given, but the model takes no text",
                    texts.first().map_or("", String::as_str)
                )));
            }
        }
        Ok(())
    }
}

/// A text encoder to train along with a UNet, and a tokenizer that knows the words of `captions`: two layers of 64 numbers.
fn small<'a>(
    captions: impl IntoIterator<Item = &'a str>,
    device: &Device,
    generator: &mut Generator,
) -> Result<TextCondition> {
    let tokenizer = ClipTokenizer::train(captions, SMALL_PIECES, SMALL_LENGTH)?;
    let [start, end, padding] = tokenizer.special_ids();
    let config = ClipTextConfig {
        vocab_size: tokenizer.vocab_size(),
        hidden_size: 64,
        intermediate_size: 256,
        projection_dim: 64,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        max_position_embeddings: SMALL_LENGTH,
        bos_token_id: start,
        eos_token_id: end,
        pad_token_id: padding,
        ..ClipTextConfig::default()
    };
    TextCondition::new(ClipTextEncoder::new(&config, device, generator)?, tokenizer)
}

/// The folder of a text encoder's tokenizer: the pipeline's `tokenizer`, one below the encoder's, or the encoder's own.
fn tokenizer_beside(folder: &Path) -> PathBuf {
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
        Error::option(
            &["conditioning"],
            format!(
                "the data set {} has no captions, which `conditioning` cross-attention needs: a column `text` in metadata.jsonl or \
                 in parquet files",
                dataset.name()
            ),
        )
    })?;
    Ok(std::iter::once(first).chain(captions))
}
