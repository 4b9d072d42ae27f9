//! A pipeline's folder: its index, and what lies where.

use std::path::{Path, PathBuf};

use super::{MODEL_INDEX, ModelIndex, Pipeline, PipelineClass, Role, classes::CLASSES, staging::Staging};
use crate::{
    Error, Result,
    models::{AnyModel, AnyModelConfig, Checkpoint, weights::CONFIG_NAME},
    schedulers::{AnyScheduler, SCHEDULER_CONFIG},
};

/// A pipeline's folder whose index has been read.
#[derive(Debug)]
pub(crate) struct PipelineFolder {
    path: PathBuf,
    index: ModelIndex,
    class: &'static PipelineClass,
}

impl PipelineFolder {
    /// Reads the index of the pipeline in `folder`.
    ///
    /// # Errors
    /// If there is none, or it is of a class that is not there yet.
    pub fn open(folder: &Path) -> Result<Self> {
        let index = ModelIndex::load(folder)?;
        let class = PipelineClass::named(&index.class_name).ok_or_else(|| {
            let names: Vec<&str> = CLASSES.iter().map(|class| class.name).collect();
            Error::Unsupported(format!(
                "{}: a {} is not there yet; a {} are",
                folder.join(MODEL_INDEX).display(),
                index.class_name,
                names.join(" and a ")
            ))
        })?;
        Ok(Self {
            path: folder.to_path_buf(),
            index,
            class,
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The name of the component of a role, and the class that the index gives it.
    fn component(&self, role: Role) -> Result<(&'static str, &str)> {
        let name = self.class.component(role).ok_or_else(|| {
            Error::Unsupported(format!("a {} has no component of this kind", self.class.name))
        })?;
        Ok((name, &self.index.component(name, &self.path)?.class_name))
    }

    /// The configuration of its model.
    ///
    /// # Errors
    /// If the file is missing or broken, or the folder holds another model than the index says.
    pub fn model_config(&self) -> Result<AnyModelConfig> {
        let (name, class_name) = self.component(Role::Denoiser)?;
        let config = AnyModelConfig::load(component_folder(&self.path, name).join(CONFIG_NAME))?;
        if config.class_name() != class_name {
            let message = format!(
                "names a {class_name}, but the folder `{name}` holds a {}",
                config.class_name()
            );
            return Err(Error::file(self.path.join(MODEL_INDEX), message));
        }
        Ok(config)
    }

    /// Its scheduler.
    ///
    /// # Errors
    /// If the file is missing or broken, or it is none that the pipeline's class can have.
    pub fn scheduler(&self) -> Result<AnyScheduler> {
        let (name, class_name) = self.component(Role::Scheduler)?;
        // Early configurations do not all name their class, and where two do, diffusers goes by the index.
        let scheduler = AnyScheduler::load_as(class_name, component_folder(&self.path, name))?;
        match self.class.sampler {
            Some(sampler) => scheduler.convert(sampler),
            None => Ok(scheduler),
        }
    }

    /// Its model's weights: the plain ones, or a variant of them.
    ///
    /// # Errors
    /// If there are none, or a file of them is not whole.
    pub fn weights(&self, variant: Option<&str>) -> Result<Checkpoint> {
        checkpoint(&self.path, variant)
    }
}

/// The weights of the model of the pipeline in `folder`: the plain ones, or a variant of them.
///
/// # Errors
/// If there are none, or a file of them is not whole.
pub fn checkpoint(folder: impl AsRef<Path>, variant: Option<&str>) -> Result<Checkpoint> {
    Checkpoint::variant_in(component_folder(folder.as_ref(), "unet"), variant)
}

/// The folder of a component: its own, or the pipeline's, where early repositories put every file.
pub(crate) fn component_folder(folder: &Path, component: &str) -> PathBuf {
    let own = folder.join(component);
    let at_root = folder.join(CONFIG_NAME).is_file() || folder.join(SCHEDULER_CONFIG).is_file();
    if !own.is_dir() && at_root {
        folder.to_path_buf()
    } else {
        own
    }
}

/// Saves a model without a pipeline, whole or not at all.
///
/// # Errors
/// If a file cannot be written.
pub fn save_model(model: &AnyModel, folder: impl AsRef<Path>) -> Result<()> {
    let staging = Staging::of(folder)?;
    model.save(staging.path())?;
    staging.commit(CONFIG_NAME)
}

/// Saves a pipeline, whole or not at all.
pub(super) fn save(pipeline: &Pipeline, folder: &Path) -> Result<()> {
    let staging = Staging::of(folder)?;
    let class = pipeline.class();
    let mut components = Vec::new();
    for (name, role) in class.components {
        let folder = staging.path().join(name);
        let class_name = match role {
            Role::Denoiser => {
                pipeline.model.save(folder)?;
                pipeline.model.config().class_name()
            }
            Role::Scheduler => {
                pipeline.scheduler.save(folder)?;
                pipeline.scheduler.class_name()
            }
        };
        components.push((*name, class_name));
    }
    for condition in pipeline.conditions() {
        components.extend(condition.save(staging.path())?);
    }
    ModelIndex::new(class.name, components).save(staging.path())?;
    staging.commit(MODEL_INDEX)
}
