//! What all models have in common: a configuration that can be checked, and a network that is built from it, loaded and saved.

use std::{fmt, path::Path};

use burn::{module::Module, tensor::Device};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    Error, Result, files,
    nn::Init,
    random::Generator,
    weights::{self, CONFIG_NAME, Checkpoint, DIFFUSERS, FileNames},
};

/// What a model is made of: a `config.json`.
pub trait ModelConfig: Clone + fmt::Debug + PartialEq + Serialize + DeserializeOwned {
    /// The name of the model's class in Python.
    const CLASS: &'static str;
    /// The Python package that has the class.
    const LIBRARY: &'static str;

    /// Checks what the types leave open.
    ///
    /// # Errors
    /// If values contradict each other or make no model, or ask for what is not there yet.
    fn validate(&self) -> Result<()>;

    /// Height and width of the images that the model is for, where it says so.
    fn sample_size(&self) -> Option<[usize; 2]> {
        None
    }

    /// What height and width of the images must be divisible by.
    fn size_divisor(&self) -> usize {
        1
    }

    /// Reads the configuration of the model in `folder`; it is checked where a model is made of it.
    ///
    /// # Errors
    /// If it is missing or not such a configuration.
    fn load(folder: impl AsRef<Path>) -> Result<Self> {
        let path = folder.as_ref().join(CONFIG_NAME);
        Self::of_value(files::read_json(&path)?, &path)
    }

    /// The configuration that a file holds.
    ///
    /// # Errors
    /// If it is not such a configuration.
    fn of_value(value: Value, path: &Path) -> Result<Self> {
        serde_json::from_value(value).map_err(|e| {
            Error::file(
                path,
                format!("is not the JSON expected of a {}: {e}", Self::CLASS),
            )
        })
    }
}

/// A network with its configuration. Parameters have the names of the Python class that it mirrors.
pub trait Model: Module {
    /// What it is built from.
    type Config: ModelConfig;
    /// What the files of its weights are called.
    const FILES: FileNames = DIFFUSERS;

    /// Builds the model of a configuration that [`ModelConfig::validate`] has passed, its layers in the order of the Python class's
    /// constructor.
    ///
    /// # Errors
    /// If the configuration makes no model.
    fn build(config: &Self::Config, init: &mut Init<'_>) -> Result<Self>;

    /// What it was built from.
    fn config(&self) -> &Self::Config;

    /// What is written into `config.json`.
    fn written_config(&self) -> Self::Config {
        self.config().clone()
    }

    /// A new model with PyTorch's initialisation: the weights that `torch.manual_seed(seed)` followed by the Python class's constructor
    /// give, where the generator was seeded with `seed`.
    ///
    /// # Errors
    /// If the configuration makes no model.
    fn new(config: &Self::Config, device: &Device, generator: &mut Generator) -> Result<Self> {
        config.validate()?;
        Self::build(config, &mut Init::new(generator, device))
    }

    /// Loads `config.json` and the weights from a folder that the Python class or [`Self::save`] wrote.
    ///
    /// # Errors
    /// If a file is missing or broken, the configuration makes no model, or the weights are not this model's.
    fn load(folder: impl AsRef<Path>, device: &Device) -> Result<Self> {
        let config = Self::Config::load(&folder)?;
        let mut checkpoint = Checkpoint::named(folder, None, &Self::FILES)?;
        Self::with_weights(&config, &mut checkpoint, device)
    }

    /// A model with the weights of a checkpoint.
    ///
    /// # Errors
    /// If the configuration makes no model, or the weights are not its.
    fn with_weights(config: &Self::Config, checkpoint: &mut Checkpoint, device: &Device) -> Result<Self> {
        config.validate()?;
        let model = Self::build(config, &mut Init::to_load(device))?;
        weights::load(model, checkpoint, device)
    }

    /// Saves both files into a folder, as `save_pretrained` does in Python.
    ///
    /// # Errors
    /// If they cannot be written.
    fn save(&self, folder: impl AsRef<Path>) -> Result<()> {
        let folder = folder.as_ref();
        weights::save(self, folder.join(Self::FILES.whole()))?;
        files::write_json(folder.join(CONFIG_NAME), &self.written_config())
    }

    /// How many parameters it has.
    fn num_parameters(&self) -> usize {
        self.num_params()
    }
}
