//! What an autoencoder is.

use std::path::Path;

use anyhow::Result;
use langevin::{
    codec::{AnyCodec, Codec},
    device::default_device,
    files,
    models::weights::CONFIG_NAME,
};
use serde_json::Value;

use super::{Described, pipeline};
use crate::terminal::{bytes, thousands};

/// Whether the model in a folder is an autoencoder.
pub(super) fn is_one(folder: &Path) -> bool {
    class(folder)
        .is_some_and(|class| ["AutoencoderKL", "AutoencoderTiny", "VQModel"].contains(&class.as_str()))
}

fn class(folder: &Path) -> Option<String> {
    let config: Value = files::read_json(folder.join(CONFIG_NAME)).ok()?;
    Some(config.get("_class_name")?.as_str()?.to_string())
}

/// An autoencoder's sizes, and how it was trained where its folder says so.
pub(super) fn describe(folder: &Path) -> Result<Described> {
    let codec = AnyCodec::open(folder, &default_device())?;
    let class = class(folder).unwrap_or_default();
    let mut said = Described::of("autoencoder", format!("{}: an autoencoder", folder.display()));
    let (parameters, factor) = (codec.num_parameters(), codec.factor());
    said.line(
        "model",
        format!(
            "{class}, {} parameters, {}",
            thousands(parameters),
            bytes(parameters as u64 * 4)
        ),
    );
    said.line(
        "latents",
        format!("{} channels, each for {factor}x{factor} pixels", codec.channels()),
    );
    let colours = match codec.picture_channels() {
        1 => "grey",
        _ => "colour",
    };
    said.line("pictures", colours.into());
    said.tell("class", class);
    said.tell("parameters", parameters);
    said.tell("latent_channels", codec.channels());
    said.tell("factor", factor);
    said.tell("channels", codec.picture_channels());
    pipeline::tell_run(&mut said, folder)?;
    Ok(said)
}
