//! What a run trains: a file per kind.

pub mod codec;
pub mod controlnet;
pub mod embedding;
mod full;
mod kind;
mod latent;
pub mod lora;
pub mod pix2pix;
mod whole;

use std::{path::Path, sync::Arc};

use burn::{
    module::Module,
    tensor::{Device, Tensor},
};

pub use full::Full;
pub use kind::TraineeKind;
pub(crate) use kind::{Finished, Start};
pub use latent::{Latent, Told, Words};

use crate::{
    Error, Result,
    conditioning::{Condition, Trained},
    models::{AnyModel, AutoencoderKL, ClipTextEncoder, Conditioning, Denoiser, Model},
    weights,
};

/// What a run trains, frozen parts included: the optimiser, the gradients' norm and the average walk its parameters.
pub trait Trainee: Module + Denoiser {
    /// The network that denoises.
    fn model(&self) -> &AnyModel;

    /// The text encoder that belongs to it, trained along or frozen.
    fn text_encoder(&self) -> Option<&ClipTextEncoder>;

    /// A run's conditions, with what was trained of them as it stands.
    fn conditions(&self, conditions: &[Trained]) -> Vec<Arc<dyn Condition>>;

    /// Writes its weights and configurations into a checkpoint's folder.
    ///
    /// # Errors
    /// If they cannot be written.
    fn write(&self, conditions: &[Trained], folder: &Path) -> Result<()>;
}

/// Whatever a run trains.
#[derive(Module, Debug)]
// There is one of these to a run; the difference in size is nothing beside the weights.
#[allow(clippy::large_enum_variant)]
pub enum AnyTrainee {
    /// A model of pictures, with a small text encoder where it has one.
    Full(Full),
    /// On top of a latent pipeline.
    Latent(Latent),
    /// An autoencoder.
    Codec(AutoencoderKL),
}

/// What is trained of a latent pipeline's networks, in a checkpoint's folder.
const TRAINED: &str = "trained.safetensors";

impl AnyTrainee {
    /// The same with the weights in a checkpoint's folder, as `trains` and [`Trainee::write`] chose them.
    ///
    /// # Errors
    /// If a file is missing or broken, or another model's.
    pub fn load(&self, folder: &Path, device: &Device) -> Result<Self> {
        Ok(match self {
            Self::Full(full) => Self::Full(full.load(folder, device)?),
            Self::Latent(latent) => {
                let stored = weights::read_tensors(folder.join(TRAINED))?;
                Self::Latent(weights::replace(latent.clone(), stored, device)?)
            }
            Self::Codec(_) => Self::Codec(AutoencoderKL::load(folder, device)?),
        })
    }

    /// Writes its weights and configurations into a checkpoint's folder: of a latent pipeline what `trains` says yes to alone.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn write_trained(
        &self,
        conditions: &[Trained],
        folder: &Path,
        trains: impl Fn(&str) -> bool,
    ) -> Result<()> {
        match self {
            Self::Full(full) => full.write(conditions, folder),
            Self::Latent(latent) => {
                std::fs::create_dir_all(folder).map_err(|e| Error::io("create", folder, e))?;
                let tensors = weights::named_tensors_of(latent, trains);
                weights::write_tensors(folder.join(TRAINED), &tensors)
            }
            Self::Codec(network) => network.save(folder),
        }
    }

    /// The network that denoises, where one does.
    pub fn model(&self) -> Option<&AnyModel> {
        match self {
            Self::Full(full) => Some(full.model()),
            Self::Latent(latent) => Some(&latent.unet),
            Self::Codec(_) => None,
        }
    }

    /// Its folder in a checkpoint, and that of its average.
    pub(super) fn folders(&self) -> [&'static str; 2] {
        match self {
            Self::Full(_) => ["unet", "unet_ema"],
            Self::Latent(_) => ["trained", "trained_ema"],
            Self::Codec(_) => ["vae", "vae_ema"],
        }
    }

    /// The text encoder that belongs to it, trained along or frozen.
    pub fn text_encoder(&self) -> Option<&ClipTextEncoder> {
        match self {
            Self::Full(full) => full.text_encoder(),
            Self::Latent(latent) => latent.text_encoder.as_ref(),
            Self::Codec(_) => None,
        }
    }
}

impl Denoiser for AnyTrainee {
    fn denoise(&self, x: Tensor<4>, timesteps: Tensor<1>, conditioning: &Conditioning) -> Result<Tensor<4>> {
        match self {
            Self::Full(full) => full.denoise(x, timesteps, conditioning),
            Self::Latent(latent) => latent.denoise(x, timesteps, conditioning),
            Self::Codec(_) => Err(Error::Config("an autoencoder denoises nothing".into())),
        }
    }
}
