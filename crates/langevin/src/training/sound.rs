//! Runs on sounds: how they become the pictures that a model is trained on.

use std::{path::Path, sync::Arc};

use super::{CodecSource, TrainingConfig};
use crate::{
    Error, Result,
    codec::{MEL_CONFIG, Mel, MelConfig, Spectrogram},
    data::{Channels, Medium},
    error::require,
    named::named_enum,
    pipelines::Pipeline,
};

named_enum! {
    /// What lies between the data and the pictures that a model is trained on.
    pub enum DataCodec: "a codec of data" {
        /// Nothing: they are pictures.
        Pixels = "pixels",
        /// Mel spectrograms of sounds, as diffusers makes them.
        Mel = "mel",
        /// The same as Riffusion makes them.
        Riffusion = "riffusion",
    }
}

impl TrainingConfig {
    /// The spectrograms that the run is trained on, where it is on sounds.
    ///
    /// # Errors
    /// If an option of theirs makes no sense, or is given where there are none.
    pub fn mel(&self) -> Result<Option<Mel>> {
        let usual = match self.codec {
            Some(CodecSource::Data(DataCodec::Mel)) => MelConfig::default(),
            Some(CodecSource::Data(DataCodec::Riffusion)) => MelConfig::riffusion(),
            _ => return self.no_spectrograms().map(|()| None),
        };
        require(self.channels == Channels::Grey, || {
            "spectrograms have one channel: `channels` must be grey".into()
        })?;
        Mel::new(MelConfig {
            x_res: self.resolution,
            y_res: self.resolution,
            sample_rate: self.sample_rate.unwrap_or(usual.sample_rate),
            n_fft: self.n_fft.unwrap_or(usual.n_fft),
            hop_length: self.hop_length.unwrap_or(usual.hop_length),
            top_db: self.top_db.unwrap_or(usual.top_db),
            n_iter: self.n_iter.unwrap_or(usual.n_iter),
            spectrogram: usual.spectrogram,
        })
        .map(Some)
    }

    fn no_spectrograms(&self) -> Result<()> {
        let given = [
            ("sample_rate", self.sample_rate.is_some()),
            ("n_fft", self.n_fft.is_some()),
            ("hop_length", self.hop_length.is_some()),
            ("top_db", self.top_db.is_some()),
            ("n_iter", self.n_iter.is_some()),
        ];
        match given.into_iter().find(|(_, given)| *given) {
            Some((name, _)) => Err(Error::option(
                &["sample_rate", "n_fft", "hop_length", "top_db", "n_iter", "codec"],
                format!(
                    "`{name}` does nothing without `codec`: mel or riffusion makes spectrograms of sounds"
                ),
            )),
            None => Ok(()),
        }
    }

    /// What the data set is read as.
    pub(super) fn medium(&self) -> Medium {
        match (&self.codec, self.mel()) {
            (None, _) => Medium::Unsaid,
            (_, Ok(Some(mel))) => Medium::Sounds(Arc::new(mel)),
            // What is wrong with it has been said before data are opened.
            _ => Medium::Pictures,
        }
    }

    /// A pipeline of what the run trains, for sounds where it is on sounds.
    pub(super) fn sounding(&self, pipeline: Pipeline) -> Result<Pipeline> {
        match self.mel()? {
            Some(mel) => pipeline.with_mel(mel),
            None => Ok(pipeline),
        }
    }

    /// Makes spectrograms as the pipeline in `folder` does, where it draws sounds.
    pub(super) fn hear_as(&mut self, folder: &Path) -> Result<()> {
        let folder = folder.join("mel");
        if !folder.join(MEL_CONFIG).is_file() {
            return Ok(());
        }
        let config = MelConfig::load(&folder)?;
        if config.x_res != config.y_res {
            return Err(Error::file(
                folder,
                format!(
                    "makes spectrograms of {} columns and {} bands: those that are trained on have as many of one as of the other",
                    config.x_res, config.y_res
                ),
            ));
        }
        let codec = match config.spectrogram {
            Spectrogram::Decibels => DataCodec::Mel,
            Spectrogram::Riffusion => DataCodec::Riffusion,
        };
        self.codec = Some(codec.into());
        self.sample_rate = Some(config.sample_rate);
        self.n_fft = Some(config.n_fft);
        self.hop_length = Some(config.hop_length);
        self.top_db = Some(config.top_db);
        self.n_iter = Some(config.n_iter);
        Ok(())
    }
}
