//! The text condition of a training run: an encoder that is read, or a small one that is trained along.

use std::path::{Path, PathBuf};

use burn::{module::Module, tensor::Device};

use super::{TEXT_ENCODER, TextCondition};
use crate::{
    Error, Result,
    conditioning::RunSource,
    data::Dataset,
    models::{ClipTextEncoder, ClipTokenizer, Model, clip::ClipTextConfig},
    random::Generator,
    training::{ConditioningKind, TextEncoderSource},
};

/// How many captions a small text encoder's tokenizer learns its pieces from.
const MOST_CAPTIONS: usize = 20_000;
/// How many pieces it learns, besides the bytes.
const SMALL_PIECES: usize = 1000;
/// How many tokens of a caption a small text encoder sees.
const SMALL_LENGTH: usize = 32;

/// The condition, if the run looks at captions, and how often a picture goes without its own.
pub(super) fn condition(
    source: &RunSource<'_>,
    generator: &mut Generator,
) -> Result<Option<(TextCondition, f64)>> {
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
            TextCondition::load(folder, source.device)?
        }
        (None, TextEncoderSource::Small) => {
            let captions: Vec<String> = captions(source.dataset)?.collect();
            small(captions.iter().map(String::as_str), source.device, generator)?
        }
        (None, TextEncoderSource::Folder(folder)) => {
            captions(source.dataset).map(drop)?;
            let encoder = ClipTextEncoder::load(folder, source.device)?;
            TextCondition::new(encoder, ClipTokenizer::load(tokenizer_beside(folder))?)?
        }
    };
    let condition = match config.text_encoder {
        TextEncoderSource::Small => condition,
        // It is read, not trained.
        TextEncoderSource::Folder(_) => condition.with_encoder(condition.encoder().clone().no_grad()),
    };
    Ok(Some((condition, config.caption_dropout())))
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
