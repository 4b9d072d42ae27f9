//! Runs from nothing whose model draws an autoencoder's latents.

use std::path::Path;

use burn::tensor::{Device, Tensor};

use super::{
    CodecSource, TrainingConfig, codec_run,
    latents::{Latents, Pixels, Whose},
};
use crate::{
    Error, Result,
    codec::{AnyCodec, Codec},
    data::{self, Dataset, cache_limit},
    error::require,
    random::Generator,
};

/// The space of an autoencoder's latents.
pub(super) struct LatentSpace {
    /// There once it is trained.
    codec: Option<AnyCodec>,
    channels: usize,
    factor: usize,
    latents: Latents,
}

impl LatentSpace {
    /// That of a run, if it has one. An autoencoder that the run trains itself is not there yet.
    ///
    /// # Errors
    /// If the autoencoder cannot be read, or does not fit the pictures.
    pub(super) fn of(config: &TrainingConfig, device: &Device) -> Result<Option<Self>> {
        let (codec, channels, factor) = match &config.codec {
            Some(CodecSource::Train) => {
                let pictures = config.channels.count();
                let network = config.codec_model.config(config.resolution, pictures)?;
                (None, network.latent_channels, network.factor())
            }
            Some(CodecSource::Autoencoder(path)) => {
                let codec = AnyCodec::open(path, device)?;
                let (of_codec, of_pictures) = (codec.picture_channels(), config.channels.count());
                require(of_codec == of_pictures, || {
                    format!(
                        "{}: is an autoencoder of pictures with {of_codec} channels, and these have {of_pictures}: `channels` says how \
                         pictures are read",
                        path.display()
                    )
                })?;
                let (channels, factor) = (codec.channels(), codec.factor());
                (Some(codec), channels, factor)
            }
            Some(CodecSource::Data(_)) | None => return Ok(None),
        };
        codec_run::fits(config, factor)?;
        Ok(Some(Self {
            codec,
            channels,
            factor,
            latents: Latents::new(cache_limit() / 2),
        }))
    }

    /// Channels, height and width of what the model draws.
    pub(super) fn shape(&self, config: &TrainingConfig) -> [usize; 3] {
        let side = config.resolution / self.factor;
        [self.channels, side, side]
    }

    /// Whether the autoencoder is there.
    pub(super) fn is_there(&self) -> bool {
        self.codec.is_some()
    }

    /// Takes the one that was trained.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(super) fn take(&mut self, folder: &Path, device: &Device) -> Result<()> {
        self.codec = Some(AnyCodec::open(folder, device)?);
        Ok(())
    }

    /// The autoencoder.
    ///
    /// # Errors
    /// If it has not been trained.
    pub(super) fn codec(&self) -> Result<&AnyCodec> {
        self.codec
            .as_ref()
            .ok_or_else(|| Error::Config("the run's autoencoder has not been trained yet".into()))
    }

    /// What the model learns to draw of a batch of pictures: points of their latents, drawn where these are distributions.
    ///
    /// # Errors
    /// If the pictures do not fit the autoencoder.
    pub(super) fn clean(
        &self,
        config: &TrainingConfig,
        batch: &data::Batch,
        device: &Device,
        generator: &mut Generator,
    ) -> Result<Tensor<4>> {
        let codec = self.codec()?;
        let pictures = Pixels {
            whose: Whose::Instance,
            indices: &batch.indices,
            values: &batch.pixels,
            shape: batch.shape,
        };
        let encoded = self.latents.of(codec, config, pictures, device)?;
        Ok(codec.scale(encoded.sample(generator)))
    }

    /// A sentence on what is kept of latents.
    pub(super) fn remark(&self, config: &TrainingConfig, dataset: &dyn Dataset) -> Option<String> {
        let codec = self.codec.as_ref()?;
        Some(self.latents.remark(codec, config, dataset))
    }
}
