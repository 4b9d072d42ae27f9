//! Networks beside a UNet that let its pictures follow another one, whatever their class.

use std::{path::Path, sync::Arc};

use burn::{module::Module, tensor::Device};
use serde_json::Value;

use super::{
    AnyModelConfig, Components, ControlNetConfig, ControlNetModel, Model, ModelConfig, T2IAdapter,
    T2IAdapterConfig, UNet2DConditionConfig, components, room::room_for,
};
use crate::{
    Error, Result, files,
    weights::{CONFIG_NAME, Checkpoint, DIFFUSERS},
};

/// Any network that lets pictures follow another one, shared by its copies.
#[derive(Clone, Debug)]
pub enum AnyControl {
    /// Asked in every step.
    ControlNet(Arc<ControlNetModel>),
    /// Asked once.
    T2IAdapter(Arc<T2IAdapter>),
}

/// The configuration of any of them, told apart by `_class_name`.
#[derive(Clone, Debug, PartialEq)]
// A handful of these ever exist.
#[allow(clippy::large_enum_variant)]
pub enum AnyControlConfig {
    /// Of a [`ControlNetModel`].
    ControlNet(ControlNetConfig),
    /// Of a [`T2IAdapter`].
    T2IAdapter(T2IAdapterConfig),
}

impl From<ControlNetModel> for AnyControl {
    fn from(network: ControlNetModel) -> Self {
        Self::ControlNet(Arc::new(network))
    }
}

impl From<T2IAdapter> for AnyControl {
    fn from(network: T2IAdapter) -> Self {
        Self::T2IAdapter(Arc::new(network))
    }
}

impl AnyControlConfig {
    /// That of the network in a folder of diffusers', or in a single file, of whose weights nothing is read but what shapes tell.
    ///
    /// # Errors
    /// If there is none, or it is broken.
    pub fn at(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let config = path.join(CONFIG_NAME);
        if config.is_file() {
            let value: Value = files::read_json(&config)?;
            if value["_class_name"] == T2IAdapterConfig::CLASS {
                return T2IAdapterConfig::of_value(value, &config).map(Self::T2IAdapter);
            }
        }
        if let Some((config, _)) = adapter_in(path)? {
            return Ok(Self::T2IAdapter(config));
        }
        ControlNetConfig::at(path).map(Self::ControlNet)
    }

    /// The name of the network's class.
    pub fn class_name(&self) -> &'static str {
        match self {
            Self::ControlNet(_) => ControlNetConfig::CLASS,
            Self::T2IAdapter(_) => T2IAdapterConfig::CLASS,
        }
    }

    /// Refuses a network that was made for another model than this one, whose latents have so many channels and are `factor` times
    /// smaller than pictures.
    ///
    /// # Errors
    /// If it was.
    pub fn check_fits(&self, model: &AnyModelConfig, channels: usize, factor: usize) -> Result<()> {
        let AnyModelConfig::Condition(unet) = model else {
            let message = format!(
                "a {} adds to a {}, and this model is a {}",
                self.class_name(),
                UNet2DConditionConfig::CLASS,
                model.class_name()
            );
            return Err(Error::option(&["control"], message));
        };
        match self {
            Self::ControlNet(config) => config.check_fits(unet, channels, factor),
            Self::T2IAdapter(config) => config.check_fits(unet, factor),
        }
    }
}

impl AnyControl {
    /// Opens a folder of diffusers', or a single file.
    ///
    /// # Errors
    /// If it holds no such network, or a file of it is missing or broken.
    pub fn open(path: impl AsRef<Path>, device: &Device) -> Result<Self> {
        let path = path.as_ref();
        let config = AnyControlConfig::at(path)?;
        let mut weights = Self::weights(path, &config)?;
        room_for(weights.loaded_bytes(), path)?;
        Ok(match config {
            AnyControlConfig::ControlNet(config) => {
                ControlNetModel::with_weights(&config, &mut weights, device)?.into()
            }
            AnyControlConfig::T2IAdapter(config) => {
                T2IAdapter::with_weights(&config, &mut weights, device)?.into()
            }
        })
    }

    /// The bytes that the network in a folder or a file takes once it is loaded.
    ///
    /// # Errors
    /// If there is none.
    pub fn bytes_at(path: impl AsRef<Path>) -> Result<u64> {
        let path = path.as_ref();
        Ok(Self::weights(path, &AnyControlConfig::at(path)?)?.loaded_bytes())
    }

    fn weights(path: &Path, config: &AnyControlConfig) -> Result<Checkpoint> {
        let weights = match (config, path.is_file()) {
            (_, false) => weights_in(path)?,
            (AnyControlConfig::ControlNet(_), true) => ControlNetModel::weights_of_file(path)?,
            (AnyControlConfig::T2IAdapter(_), true) => match adapter_in(path)? {
                Some((_, weights)) => weights,
                None => weights_in(path)?,
            },
        };
        Ok(weights.keeping_types())
    }

    /// Loads a component of a pipeline.
    ///
    /// # Errors
    /// If it is missing or broken.
    pub(crate) fn load(source: &dyn Components, name: &str, device: &Device) -> Result<Self> {
        let (value, _) = source.config(name)?;
        Ok(match value["_class_name"].as_str() {
            Some(T2IAdapterConfig::CLASS) => components::load::<T2IAdapter>(source, name, device)?.into(),
            _ => components::load::<ControlNetModel>(source, name, device)?.into(),
        })
    }

    /// A copy of its configuration.
    pub fn config(&self) -> AnyControlConfig {
        match self {
            Self::ControlNet(network) => AnyControlConfig::ControlNet(network.config().clone()),
            Self::T2IAdapter(network) => AnyControlConfig::T2IAdapter(network.config().clone()),
        }
    }

    /// The channels of the pictures that it is shown.
    pub fn picture_channels(&self) -> usize {
        match self {
            Self::ControlNet(network) => network.config().conditioning_channels,
            Self::T2IAdapter(network) => network.config().in_channels,
        }
    }

    /// Saves the configuration and the weights into a folder.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn save(&self, folder: impl AsRef<Path>) -> Result<()> {
        match self {
            Self::ControlNet(network) => network.save(folder),
            Self::T2IAdapter(network) => network.save(folder),
        }
    }

    /// How many parameters it has.
    pub fn num_parameters(&self) -> usize {
        match self {
            Self::ControlNet(network) => network.num_params(),
            Self::T2IAdapter(network) => network.num_params(),
        }
    }
}

/// The T2I-Adapter that a single file holds, if it does.
fn adapter_in(path: &Path) -> Result<Option<(T2IAdapterConfig, Checkpoint)>> {
    match path.is_file() {
        true => T2IAdapterConfig::of_weights(Checkpoint::open(path)?),
        false => Ok(None),
    }
}

/// The weights in a folder. Some repositories have nothing but those of half the size.
pub(super) fn weights_in(folder: &Path) -> Result<Checkpoint> {
    match Checkpoint::named(folder, None, &DIFFUSERS) {
        Ok(checkpoint) => Ok(checkpoint),
        Err(error) => Checkpoint::named(folder, Some("fp16"), &DIFFUSERS).map_err(|_| error),
    }
}
