//! A UNet with the text encoder whose sequences it looks at.

use std::{path::Path, sync::Arc};

use burn::{
    module::Module,
    tensor::{Device, Int, Tensor, TensorData},
};

use super::{
    ClipTextEncoder, ClipTokenizer, Conditioning, Denoiser, Model, UNet2DConditionModel, clip::ClipTextConfig,
};
use crate::{Error, Result, random::Generator};

/// The folder of a text encoder, in a pipeline's.
pub(crate) const TEXT_ENCODER: &str = "text_encoder";
/// The folder of a tokenizer.
pub(crate) const TOKENIZER: &str = "tokenizer";

/// How many pieces the tokenizer of a small text encoder learns, besides the bytes.
const SMALL_PIECES: usize = 1000;
/// How many tokens of a caption a small text encoder sees.
const SMALL_LENGTH: usize = 32;

/// A UNet that looks at captions: tokens in, through the text encoder, to the cross-attention.
#[derive(Module, Debug)]
pub struct CaptionedUNet {
    /// Looks at the sequence.
    pub unet: UNet2DConditionModel,
    /// Makes the sequence.
    pub text_encoder: ClipTextEncoder,
    #[module(skip)]
    tokenizer: Arc<ClipTokenizer>,
}

impl CaptionedUNet {
    /// Puts the parts together.
    ///
    /// # Errors
    /// If they do not fit each other.
    pub fn new(
        unet: UNet2DConditionModel,
        text_encoder: ClipTextEncoder,
        tokenizer: ClipTokenizer,
    ) -> Result<Self> {
        let config = text_encoder.config();
        let (width, wanted) = (config.hidden_size, unet.config().sequence_dim());
        if width != wanted {
            return Err(Error::Config(format!(
                "the text encoder makes vectors of {width} numbers, and the UNet looks at vectors of {wanted} (cross_attention_dim)"
            )));
        }
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
            unet,
            text_encoder,
            tokenizer: Arc::new(tokenizer),
        })
    }

    /// The UNet with the text encoder and the tokenizer whose folders lie in `folder`.
    pub(super) fn load_around(unet: UNet2DConditionModel, folder: &Path, device: &Device) -> Result<Self> {
        let encoder = ClipTextEncoder::load(folder.join(TEXT_ENCODER), device)?;
        let tokenizer = ClipTokenizer::load(folder.join(TOKENIZER))?;
        Self::new(unet, encoder, tokenizer).map_err(|e| Error::file(folder, e.to_string()))
    }

    /// Saves the UNet into a folder, and text encoder and tokenizer into folders in it.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn save(&self, folder: impl AsRef<Path>) -> Result<()> {
        self.unet.save(&folder)?;
        self.save_text(folder.as_ref())
    }

    /// Saves text encoder and tokenizer into folders in `folder`.
    pub(crate) fn save_text(&self, folder: &Path) -> Result<()> {
        self.text_encoder.save(folder.join(TEXT_ENCODER))?;
        self.tokenizer.save(folder.join(TOKENIZER))
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &ClipTokenizer {
        &self.tokenizer
    }

    /// What [`Conditioning::tokens`] is for these texts: `[texts, length]`.
    ///
    /// # Errors
    /// If the tokenizer fails on one.
    pub fn tokens<T: AsRef<str>>(&self, texts: &[T], device: &Device) -> Result<Tensor<2, Int>> {
        let mut ids = vec![];
        for text in texts {
            ids.extend(self.tokenizer.encode(text.as_ref())?.into_iter().map(i64::from));
        }
        let shape = [texts.len(), self.tokenizer.length()];
        Ok(Tensor::from_data(TensorData::new(ids, shape), device))
    }
}

impl Denoiser for CaptionedUNet {
    fn denoise(&self, x: Tensor<4>, timesteps: Tensor<1>, conditioning: &Conditioning) -> Result<Tensor<4>> {
        let tokens = conditioning.tokens.clone().ok_or_else(|| {
            Error::Config("this model looks at a text: it needs one for each picture".into())
        })?;
        let [_, length] = tokens.dims();
        let ids: Vec<u32> = tokens.into_data().iter::<u32>().collect();
        let rows: Vec<Vec<u32>> = ids.chunks(length.max(1)).map(<[u32]>::to_vec).collect();
        let told = Conditioning {
            sequence: Some(self.text_encoder.text_model.forward(&rows)?.last_hidden_state),
            ..conditioning.clone()
        };
        self.unet.denoise(x, timesteps, &told)
    }
}

/// A text encoder to train along with a UNet, and a tokenizer that knows the words of `captions`: two layers of 64 numbers.
///
/// # Errors
/// If there are no captions.
pub fn small_text_encoder<'a>(
    captions: impl IntoIterator<Item = &'a str>,
    device: &Device,
    generator: &mut Generator,
) -> Result<(ClipTextEncoder, ClipTokenizer)> {
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
    Ok((ClipTextEncoder::new(&config, device, generator)?, tokenizer))
}
