//! An IP-Adapter with the image encoder that it was made with, from wherever they lie.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use burn::{module::Module, tensor::Device};

use super::{ImageEncoder, IpAdapter, IpAdapterConfig};
use crate::{Error, Result};

/// The endings of adapters' files.
pub const ENDINGS: [&str; 3] = ["safetensors", "bin", "pt"];
/// Where image encoders lie, from the folder of an adapter on: as in the authors' repository, whose adapters for Stable Diffusion XL may be
/// made with the encoder of those for Stable Diffusion 1.
const ENCODERS: [&str; 5] = [
    "image_encoder",
    "../image_encoder",
    "../models/image_encoder",
    "../sdxl_models/image_encoder",
    "models/image_encoder",
];

/// An adapter and what sees pictures for it, shared by its copies.
#[derive(Clone, Debug)]
pub struct IpAdapterModel {
    /// The adapter.
    pub adapter: Arc<IpAdapter>,
    /// What sees its pictures.
    pub encoder: Arc<ImageEncoder>,
}

impl IpAdapterModel {
    /// An adapter's file with an encoder that is there already.
    ///
    /// # Errors
    /// If the file is missing or broken, or made with another encoder.
    pub fn with_encoder(file: impl AsRef<Path>, encoder: Arc<ImageEncoder>, device: &Device) -> Result<Self> {
        let adapter = IpAdapter::open(file, device)?;
        encoder.check_fits(adapter.config())?;
        Ok(Self {
            adapter: Arc::new(adapter),
            encoder,
        })
    }

    /// Opens the file of an adapter, or a folder with one, and its image encoder: that in `encoder`, or one beside the file that fits.
    ///
    /// # Errors
    /// If there is none, or one of the two is missing, broken, or made for another.
    pub fn open(path: impl AsRef<Path>, encoder: Option<&Path>, device: &Device) -> Result<Self> {
        let file = file_in(path.as_ref())?;
        let adapter = IpAdapter::open(&file, device)?;
        let folder = match encoder {
            Some(folder) => folder.to_path_buf(),
            None => encoder_of(&file, adapter.config())?,
        };
        let encoder = ImageEncoder::open(folder, device)?;
        encoder.check_fits(adapter.config())?;
        Ok(Self {
            adapter: Arc::new(adapter),
            encoder: Arc::new(encoder),
        })
    }

    /// How many parameters both have.
    pub fn num_parameters(&self) -> usize {
        self.adapter.num_params() + self.encoder.num_parameters()
    }
}

/// The adapter's file: itself, or the only one in a folder.
///
/// # Errors
/// If there is none, or there are several.
pub fn file_in(path: &Path) -> Result<PathBuf> {
    if path.is_file() {
        return Ok(path.to_path_buf());
    }
    let entries = std::fs::read_dir(path).map_err(|_| Error::file(path, "there is no such IP-Adapter"))?;
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.is_file() && has_ending(path))
        .collect();
    files.sort();
    match files.as_slice() {
        [one] => Ok(one.clone()),
        [] => Err(Error::file(path, "holds no file of an IP-Adapter")),
        several => {
            let names = several.iter().filter_map(|path| path.file_name()?.to_str());
            let names: Vec<&str> = names.collect();
            let message = format!("holds several files: name one of {}", names.join(", "));
            Err(Error::file(path, message))
        }
    }
}

/// Whether a file may be an adapter by its name.
pub fn has_ending(path: &Path) -> bool {
    let ending = path.extension().and_then(|ending| ending.to_str());
    ending.is_some_and(|ending| ENDINGS.contains(&ending.to_ascii_lowercase().as_str()))
}

/// The folder of the image encoder that an adapter was made with, looked for beside its file.
///
/// # Errors
/// If none that is there fits.
pub fn encoder_of(file: &Path, config: &IpAdapterConfig) -> Result<PathBuf> {
    let folder = file.parent().unwrap_or(Path::new("."));
    let places = ENCODERS.iter().map(|place| folder.join(place));
    let mut there = places.filter(|place| place.is_dir());
    there.find(|place| ImageEncoder::fits(place, config)).ok_or_else(|| {
        Error::option(
            &["image_encoder"],
            format!(
                "{}: there is no image encoder beside it that says {} numbers of a {}: name its folder by `image_encoder`",
                file.display(),
                config.image_embed_dim,
                if config.sees_patches() { "patch" } else { "picture" },
            ),
        )
    })
}
