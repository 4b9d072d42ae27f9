//! Where the components of a pipeline come from.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use serde_json::Value;

use super::{ClipTokenizer, Model, ModelConfig};
use crate::{
    Error, Result,
    weights::{Checkpoint, FileNames},
};

/// The components of a pipeline that has not been loaded: those of a folder, or of one file.
pub trait Components {
    /// Whether there is a component of this name.
    fn has(&self, name: &str) -> bool;

    /// A component's configuration, and the file that it is said to come from.
    ///
    /// # Errors
    /// If it is missing or broken.
    fn config(&self, name: &str) -> Result<(Value, PathBuf)>;

    /// A component's weights, in files that are called so.
    ///
    /// # Errors
    /// If there are none, or a file of them is not whole.
    fn weights(&self, name: &str, files: &FileNames) -> Result<Checkpoint>;

    /// The tokenizer of this name.
    ///
    /// # Errors
    /// If it is missing or broken.
    fn tokenizer(&self, name: &str) -> Result<ClipTokenizer>;

    /// A setting of the pipeline itself.
    fn setting(&self, name: &str) -> Option<&Value>;

    /// What they lie in: a folder, or a file.
    fn path(&self) -> &Path;

    /// Whether a setting is true.
    fn is_set(&self, name: &str) -> bool {
        self.setting(name).and_then(Value::as_bool).unwrap_or(false)
    }
}

/// A component's configuration as a model's.
///
/// # Errors
/// If it is missing, broken, or another model's.
pub fn config_of<C: ModelConfig>(components: &dyn Components, name: &str) -> Result<C> {
    let (value, path) = components.config(name)?;
    C::of_value(value, &path)
}

/// Loads a component.
///
/// # Errors
/// As [`Model::load`].
pub fn load<M: Model>(components: &dyn Components, name: &str, device: &Device) -> Result<M> {
    let config = config_of(components, name)?;
    M::with_weights(&config, &mut components.weights(name, &M::FILES)?, device)
}

/// The error where a pipeline lacks what it needs.
pub fn missing(components: &dyn Components, name: &str, what: &str) -> Error {
    Error::file(components.path(), format!("has no `{name}`, {what}"))
}
