//! The UNet itself, and on request the text encoders. What diffusers' `train_text_to_image.py`, `train_dreambooth.py` and their `_sdxl` forms
//! train.

use super::{Latent, kind::Row};

pub(super) const ROW: Row = Row {
    attach: |latent: Latent, _, _| Ok(latent),
    trains: |config, name| {
        name.starts_with("unet.") || (config.train_text_encoder && name.starts_with("text_encoder"))
    },
    save: |_, finished| finished.pipeline.save(finished.folder),
    learning_rate: 1e-5,
    tags: &["stable-diffusion", "text-to-image"],
};
