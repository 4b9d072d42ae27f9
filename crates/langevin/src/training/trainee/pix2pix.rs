//! A UNet that is shown the picture which it edits (Brooks et al. 2022, "InstructPix2Pix"). What diffusers' `train_instruct_pix2pix.py` trains.

use super::{Latent, kind::Row};
use crate::{
    Error, Result,
    codec::Codec,
    models::{AnyModel, Model},
};

pub(super) const ROW: Row = Row {
    attach: |latent, start, _| attach(latent, start.base.codec().channels()),
    trains: |_, name| name.starts_with("unet."),
    save: |_, finished| {
        let pipeline = finished.pipeline.clone();
        pipeline
            .with_class("StableDiffusionInstructPix2PixPipeline")
            .save(finished.folder)
    },
    learning_rate: 5e-5,
    tags: &["stable-diffusion", "image-to-image", "instruct-pix2pix"],
};

/// Widens the UNet's first convolution by as many channels as the latents have, of which the new ones count for nothing yet. One that is wide enough
/// already stays. The script forgets the bias; here it is kept.
///
/// # Errors
/// If the model is no UNet, or has other channels.
pub fn attach(latent: Latent, latent_channels: usize) -> Result<Latent> {
    let AnyModel::Condition(unet) = latent.unet else {
        return Err(Error::Unsupported(
            "pictures are edited by a UNet2DConditionModel, and the pipeline's model is none".into(),
        ));
    };
    let unet = match unet.config().in_channels {
        channels if channels == 2 * latent_channels => unet,
        channels if channels == latent_channels => unet.taking_more(latent_channels),
        channels => {
            return Err(Error::Config(format!(
                "the UNet takes {channels} channels; one that is to edit pictures takes {latent_channels}, or {} already",
                2 * latent_channels
            )));
        }
    };
    Ok(Latent {
        unet: AnyModel::Condition(unet),
        ..latent
    })
}
