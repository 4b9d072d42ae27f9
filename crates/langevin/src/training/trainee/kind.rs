//! The kinds of what a run trains on top of a latent pipeline: a row for each, in the file of its name.

use std::path::Path;

use burn::tensor::Device;

use super::{Latent, codec, controlnet, embedding, lora, pix2pix, whole};
use crate::{Result, named::named_enum, pipelines::Pipeline, random::Generator, training::TrainingConfig};

named_enum! {
    /// What a run trains.
    #[derive(Default)]
    pub enum TraineeKind: "something to train" {
        /// The whole model.
        #[default]
        Full = "full",
        /// Adapters of low rank on the model's layers.
        Lora = "lora",
        /// New words for the text encoder: textual inversion.
        Embedding = "embedding",
        /// A network beside the model that lets pictures follow another: edges, depths, a pose.
        ControlNet = "controlnet",
        /// The model widened to see the picture that it edits.
        Pix2Pix = "pix2pix",
        /// An autoencoder of the data's pictures, or that of a pipeline: nothing that is on top of one.
        Codec = "codec",
    }
}

/// What a kind begins with.
pub(crate) struct Start<'a> {
    /// The run's options.
    pub config: &'a TrainingConfig,
    /// The pipeline that it is trained on.
    pub base: &'a Pipeline,
    /// Where.
    pub device: &'a Device,
}

/// What a kind ends with.
pub(crate) struct Finished<'a> {
    /// The run's options.
    pub config: &'a TrainingConfig,
    /// The pipeline with all that was trained.
    pub pipeline: &'a Pipeline,
    /// The run's folder.
    pub folder: &'a Path,
}

/// A kind of trainee.
pub(crate) struct Row {
    /// Puts on the networks what is trained.
    pub attach: fn(Latent, &Start<'_>, &mut Generator) -> Result<Latent>,
    /// Whether a parameter of the networks is trained.
    pub trains: fn(&TrainingConfig, &str) -> bool,
    /// Leaves what was trained in the run's folder, in diffusers' files.
    pub save: fn(&Latent, &Finished<'_>) -> Result<()>,
    /// The learning rate where nobody says.
    pub learning_rate: f64,
    /// What the Hub's pages tag it with.
    pub tags: &'static [&'static str],
}

impl TraineeKind {
    /// The learning rate that works where nobody says another.
    pub fn learning_rate(self) -> f64 {
        self.row().learning_rate
    }

    /// Its row.
    pub(crate) fn row(self) -> &'static Row {
        match self {
            Self::Full => &whole::ROW,
            Self::Lora => &lora::ROW,
            Self::Embedding => &embedding::ROW,
            Self::ControlNet => &controlnet::ROW,
            Self::Pix2Pix => &pix2pix::ROW,
            Self::Codec => &codec::ROW,
        }
    }
}
