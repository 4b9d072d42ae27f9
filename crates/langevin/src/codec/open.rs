//! Codecs that come by themselves: `--codec` of a folder or a file.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use serde_json::Value;

use super::{AnyCodec, Autoencoder};
use crate::{
    Error, Result, files,
    models::{AutoencoderKL, Checkpoint, ClipTokenizer, Components, Model, ModelConfig},
    named::Named,
    weights::{
        CONFIG_NAME, FileNames,
        single_file::{Component, SingleFile},
    },
};

/// The folders of autoencoders in pipelines.
const IN_PIPELINES: [&str; 2] = ["vae", "vqvae"];

/// The codec in a folder, its own or a pipeline's.
pub(super) fn of_folder(path: &Path, device: &Device) -> Result<AnyCodec> {
    let own = path.join(CONFIG_NAME).is_file();
    let below = IN_PIPELINES
        .iter()
        .map(|name| path.join(name))
        .find(|folder| folder.is_dir());
    let folder = match below {
        Some(below) if !own => below,
        _ => path.to_path_buf(),
    };
    AnyCodec::load(&Alone { folder }, "", device)
}

/// The codec in a single file, alone or with the rest of a pipeline.
pub(super) fn of_file(path: &Path, device: &Device) -> Result<AnyCodec> {
    let file = SingleFile::open(path)?;
    let mut configs = file.configs()?;
    let config = configs
        .remove(Component::Vae.name())
        .ok_or_else(|| Error::file(path, "holds no autoencoder"))?;
    let config = <AutoencoderKL as Model>::Config::of_value(config, path)?;
    let mut weights = file.component(Component::Vae)?.keeping_types();
    let network = AutoencoderKL::with_weights(&config, &mut weights, device)?;
    Ok(Autoencoder::new(network).into())
}

/// The folder of one component, whatever it is called.
struct Alone {
    folder: PathBuf,
}

impl Components for Alone {
    fn has(&self, _: &str) -> bool {
        true
    }

    fn config(&self, _: &str) -> Result<(Value, PathBuf)> {
        let path = self.folder.join(CONFIG_NAME);
        Ok((files::read_json(&path)?, path))
    }

    fn weights(&self, _: &str, names: &FileNames) -> Result<Checkpoint> {
        Ok(Checkpoint::named(&self.folder, None, names)?.keeping_types())
    }

    fn tokenizer(&self, _: &str) -> Result<ClipTokenizer> {
        ClipTokenizer::load(&self.folder)
    }

    fn setting(&self, _: &str) -> Option<&Value> {
        None
    }

    fn path(&self) -> &Path {
        &self.folder
    }
}
