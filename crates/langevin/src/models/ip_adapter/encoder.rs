//! What an IP-Adapter's pictures are seen by: CLIP's picture tower, with what prepares pictures for it.

use std::path::Path;

use burn::tensor::{Device, Tensor};

use super::IpAdapterConfig;
use crate::{
    Error, Result,
    data::Picture,
    models::{Checkpoint, ClipImageProcessor, ClipVisionEncoder, Model, ModelConfig, room::room_for},
};

/// The file that says how pictures are prepared.
const PROCESSOR_CONFIG: &str = "preprocessor_config.json";
/// The folder that it lies in beside a pipeline's `image_encoder`.
const PROCESSOR: &str = "feature_extractor";

/// CLIP's picture tower with its projection, and what prepares pictures for it.
#[derive(Clone, Debug)]
pub struct ImageEncoder {
    model: ClipVisionEncoder,
    processor: ClipImageProcessor,
}

impl ImageEncoder {
    /// Opens a folder of transformers' `CLIPVisionModelWithProjection`. Pictures are prepared as a `preprocessor_config.json` in it says, or
    /// in `feature_extractor` beside it; without one as CLIP's are, at the tower's size.
    ///
    /// # Errors
    /// If there is none, or a file of it is missing or broken.
    pub fn open(folder: impl AsRef<Path>, device: &Device) -> Result<Self> {
        let folder = folder.as_ref();
        let config = <ClipVisionEncoder as Model>::Config::load(folder)?;
        let mut weights = Self::weights(folder)?;
        room_for(weights.loaded_bytes(), folder)?;
        let model = ClipVisionEncoder::with_weights(&config, &mut weights, device)?;
        let beside = folder.parent().unwrap_or(folder).join(PROCESSOR);
        let place = [folder, &beside]
            .into_iter()
            .find(|place| place.join(PROCESSOR_CONFIG).is_file());
        let processor = match place {
            Some(place) => ClipImageProcessor::load(place)?,
            None => ClipImageProcessor::of_side(model.config().image_size)?,
        };
        Ok(Self { model, processor })
    }

    fn weights(folder: &Path) -> Result<Checkpoint> {
        Ok(Checkpoint::named(folder, None, &ClipVisionEncoder::FILES)?.keeping_types())
    }

    /// The bytes that the encoder in a folder takes once it is loaded.
    ///
    /// # Errors
    /// If there is none.
    pub fn bytes_at(folder: impl AsRef<Path>) -> Result<u64> {
        Ok(Self::weights(folder.as_ref())?.loaded_bytes())
    }

    /// What the tower is shown of pictures of any size.
    ///
    /// # Shapes
    /// `[pictures, 3, side, side]`
    ///
    /// # Errors
    /// If there are none.
    pub fn prepare(&self, pictures: &[Picture], device: &Device) -> Result<Tensor<4>> {
        self.processor.forward(pictures, device)
    }

    /// How many parameters it has.
    pub fn num_parameters(&self) -> usize {
        self.model.num_parameters()
    }

    /// `[pictures, projection_dim]`
    pub(super) fn whole(&self, pictures: Tensor<4>) -> Result<Tensor<2>> {
        self.model.encode(pictures)
    }

    /// `[pictures, patches + 1, hidden_size]`
    pub(super) fn patches(&self, pictures: Tensor<4>) -> Result<Tensor<3>> {
        self.model.vision_model.penultimate(pictures)
    }

    /// Refuses an encoder that is another one than the adapter was made with.
    pub(super) fn check_fits(&self, adapter: &IpAdapterConfig) -> Result<()> {
        Self::check_dimensions(self.model.config(), adapter)
    }

    /// Whether the encoder in a folder is one that the adapter may have been made with, by its configuration alone.
    pub fn fits(folder: impl AsRef<Path>, adapter: &IpAdapterConfig) -> bool {
        let config = <ClipVisionEncoder as Model>::Config::load(folder);
        config.is_ok_and(|config| Self::check_dimensions(&config, adapter).is_ok())
    }

    fn check_dimensions(
        config: &<ClipVisionEncoder as Model>::Config,
        adapter: &IpAdapterConfig,
    ) -> Result<()> {
        let own = match adapter.sees_patches() {
            true => config.hidden_size,
            false => config.projection_dim,
        };
        if own == adapter.image_embed_dim {
            return Ok(());
        }
        Err(Error::option(
            &["image_encoder", "ip_adapter"],
            format!(
                "the IP-Adapter was made with another image encoder: it is told {} numbers, and this one says {own}",
                adapter.image_embed_dim
            ),
        ))
    }
}
