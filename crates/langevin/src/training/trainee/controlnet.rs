//! A ControlNet beside a UNet that stays as it is (Zhang et al. 2023). What diffusers' `train_controlnet.py` and its `_sdxl` form train.

use std::path::Path;

use burn::{
    module::{Module, ModuleMapper, Param},
    tensor::{Device, Tensor},
};

use super::{Latent, kind::Row};
use crate::{
    Error, Result,
    codec::Codec,
    models::{AnyModel, ControlNetConfig, ControlNetModel, Model},
    ops,
    random::Generator,
};

pub(super) const ROW: Row = Row {
    attach: |latent, start, generator| {
        let factor = start.base.codec().factor();
        let network = begin(&latent, factor, generator, start.device)?;
        Ok(attach(latent, network))
    },
    trains: |_, name| name.starts_with("controlnet."),
    save: |latent, finished| save(latent, finished.folder),
    learning_rate: 1e-5,
    tags: &["stable-diffusion", "text-to-image", "controlnet"],
};

/// A new network, which begins with the UNet's way down and adds nothing yet. `factor` is how many pixels of a picture's side one of the latents'
/// stands for: so many times smaller does its embedding make the picture that it is shown.
///
/// # Errors
/// If there is no UNet that it could be of.
pub fn begin(
    latent: &Latent,
    factor: usize,
    generator: &mut Generator,
    device: &Device,
) -> Result<ControlNetModel> {
    let AnyModel::Condition(unet) = &latent.unet else {
        return Err(Error::Unsupported(
            "a ControlNet leads a UNet2DConditionModel, and the pipeline's model is none".into(),
        ));
    };
    let mut config = ControlNetConfig::of_unet(unet.config());
    let halvings = factor.ilog2() as usize;
    config.conditioning_embedding_out_channels.truncate(halvings + 1);
    let network = ControlNetModel::from_unet(unet, &config, device, generator)?;
    // Its copies of the UNet's parameters are others than those, which stay as they are.
    struct Own;
    impl ModuleMapper for Own {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            Param::from_tensor(ops::widened(param.val()))
        }
    }
    Ok(network.map(&mut Own))
}

/// Puts a network beside the UNet.
pub fn attach(latent: Latent, network: ControlNetModel) -> Latent {
    Latent {
        controlnet: Some(network),
        ..latent
    }
}

/// Writes the network as `ControlNetModel.save_pretrained` does.
///
/// # Errors
/// If there is none, or a file cannot be written.
pub fn save(latent: &Latent, folder: &Path) -> Result<()> {
    match &latent.controlnet {
        Some(network) => network.save(folder),
        None => Err(Error::Config("no ControlNet was trained".into())),
    }
}
