//! A ControlNet from wherever somebody has it.

use std::path::Path;

use burn::tensor::Device;
use serde_json::Value;

use super::{ControlNetConfig, ControlNetModel};
use crate::{
    Error, Result, files,
    models::{Model, ModelConfig, control::weights_in},
    named::Named,
    weights::{
        CONFIG_NAME, Checkpoint,
        single_file::{Component, SingleFile},
    },
};

impl ControlNetModel {
    /// Opens a folder of diffusers', or a single file in either layout.
    ///
    /// # Errors
    /// If it holds no ControlNet, and what it holds in its place is said where that is known; or if a file of it is missing or broken.
    pub fn open(path: impl AsRef<Path>, device: &Device) -> Result<Self> {
        let path = path.as_ref();
        let config = ControlNetConfig::at(path)?;
        if path.is_file() {
            let mut weights = Self::weights_of_file(path)?.keeping_types();
            return Self::with_weights(&config, &mut weights, device);
        }
        Self::with_weights(&config, &mut weights_in(path)?.keeping_types(), device)
    }

    /// The weights in a single file.
    ///
    /// # Errors
    /// If it is none of a ControlNet.
    pub(in crate::models) fn weights_of_file(path: &Path) -> Result<Checkpoint> {
        SingleFile::open(path)?.component(Component::ControlNet)
    }
}

impl ControlNetConfig {
    /// That of the ControlNet in a folder or a file, of whose weights nothing is read but what a single file's shapes tell.
    ///
    /// # Errors
    /// As [`ControlNetModel::open`].
    pub fn at(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        if path.is_file() {
            return Self::of_file(path);
        }
        if !path.exists() {
            return Err(Error::file(path, "there is no such ControlNet"));
        }
        let file = path.join(CONFIG_NAME);
        let value: Value = files::read_json(&file)?;
        let class = value["_class_name"].as_str().unwrap_or(Self::CLASS);
        if class != Self::CLASS {
            let message = format!(
                "is the configuration of a {class}, where that of a {} is needed",
                Self::CLASS
            );
            return Err(Error::file(&file, message));
        }
        Self::of_value(value, &file)
    }

    fn of_file(path: &Path) -> Result<Self> {
        let file = SingleFile::open(path)?;
        match file.configs()?.remove(Component::ControlNet.name()) {
            Some(config) => Self::of_value(config, path),
            None => {
                let held: Vec<String> = file.components().iter().map(ToString::to_string).collect();
                let message = format!("holds no ControlNet; it holds {}", held.join(", "));
                Err(Error::file(path, message))
            }
        }
    }
}
