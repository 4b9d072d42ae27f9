//! A pipeline's folder: its index, and what lies where.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use burn::tensor::Device;
use serde_json::Value;

use super::{MODEL_INDEX, ModelIndex, Pipeline, PipelineClass, Role, classes::CLASSES, staging::Staging};
use crate::{
    Error, Result,
    codec::{AnyCodec, Codec},
    files,
    models::{AnyModel, AnyModelConfig, Checkpoint, ClipTokenizer, Components},
    schedulers::{AnyScheduler, SCHEDULER_CONFIG},
    weights::{CONFIG_NAME, DIFFUSERS, FileNames},
};

/// A pipeline's folder whose index has been read.
#[derive(Debug)]
pub(crate) struct PipelineFolder {
    path: PathBuf,
    index: ModelIndex,
    class: &'static PipelineClass,
    variant: Option<String>,
}

impl PipelineFolder {
    /// Reads the index of the pipeline in `folder`; of its weights a variant, where one is named.
    ///
    /// # Errors
    /// If there is none, it is of a class that is not there yet, or a component that it names is missing.
    pub fn open(folder: &Path, variant: Option<&str>) -> Result<Self> {
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
        let opened = Self {
            path: folder.to_path_buf(),
            index,
            class,
            variant: variant.map(str::to_owned),
        };
        opened.check()?;
        Ok(opened)
    }

    /// Refuses a folder that lacks what its index names and a call needs.
    fn check(&self) -> Result<()> {
        for (name, _) in self.class.components {
            self.index.component(name, &self.path)?;
        }
        let needed = |name: &str| self.class.latent.is_some() && !SPARED.contains(&name);
        let absent = |name: &&String| needed(name) && !component_folder(&self.path, name).is_dir();
        match self.index.components.keys().find(absent) {
            Some(name) => Err(Error::file(
                &self.path,
                format!("has no folder `{name}`, which {MODEL_INDEX} names: part of the pipeline is missing"),
            )),
            None => Ok(()),
        }
    }

    /// The row of the class table that its index names.
    pub fn class(&self) -> &'static PipelineClass {
        self.class
    }

    /// The pipeline's settings.
    pub fn settings(&self) -> &BTreeMap<String, Value> {
        &self.index.settings
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
        if config.class_name() != class_name.strip_prefix("Flax").unwrap_or(class_name) {
            let message = format!(
                "names a {class_name}, but the folder `{name}` holds a {}",
                config.class_name()
            );
            return Err(Error::file(self.path.join(MODEL_INDEX), message));
        }
        Ok(config)
    }

    /// A scheduler of it, where its class has one of this role.
    ///
    /// # Errors
    /// If the file is missing or broken, or it is none that the pipeline's class can have.
    pub fn scheduler(&self, role: Role) -> Result<AnyScheduler> {
        let (name, class_name) = self.component(role)?;
        let class_name = class_name.strip_prefix("Flax").unwrap_or(class_name);
        // Early configurations do not all name their class, and where two do, diffusers goes by the index.
        let scheduler = AnyScheduler::load_as(class_name, component_folder(&self.path, name))?;
        match self.class.sampler {
            Some(sampler) => scheduler.convert(sampler),
            None => Ok(scheduler),
        }
    }

    /// What lies between pictures and its model's space, where that is a component.
    ///
    /// # Errors
    /// If a file is missing or broken.
    pub fn codec(&self, device: &Device) -> Result<Option<AnyCodec>> {
        let name = self.class.component(Role::Codec);
        name.map(|name| AnyCodec::load(self, name, device)).transpose()
    }

    /// Its model's weights.
    ///
    /// # Errors
    /// If there are none, or a file of them is not whole.
    pub fn model_weights(&self) -> Result<Checkpoint> {
        let (name, _) = self.component(Role::Denoiser)?;
        self.weights(name, &DIFFUSERS)
    }
}

/// Components that a pipeline does without here, or that are looked for only where they are wanted.
const SPARED: [&str; 5] = [
    "safety_checker",
    "feature_extractor",
    "depth_estimator",
    "image_encoder",
    "watermarker",
];

impl Components for PipelineFolder {
    fn has(&self, name: &str) -> bool {
        // Models of before there was a text encoder in the index have its folder alone.
        let named = self.index.components.contains_key(name) || self.class.latent.is_none();
        named && self.path.join(name).is_dir()
    }

    fn config(&self, name: &str) -> Result<(Value, PathBuf)> {
        let path = component_folder(&self.path, name).join(CONFIG_NAME);
        Ok((files::read_json(&path)?, path))
    }

    fn weights(&self, name: &str, names: &FileNames) -> Result<Checkpoint> {
        let folder = component_folder(&self.path, name);
        let main = self.class.component(Role::Denoiser) == Some(name);
        match self.variant.as_deref() {
            // A component without the variant has its plain weights; the model itself must have it.
            Some(variant) if !main => match Checkpoint::named(&folder, Some(variant), names) {
                Ok(checkpoint) => Ok(checkpoint),
                Err(_) => Checkpoint::named(&folder, None, names),
            },
            variant => Checkpoint::named(&folder, variant, names),
        }
    }

    fn tokenizer(&self, name: &str) -> Result<ClipTokenizer> {
        ClipTokenizer::load(self.path.join(name))
    }

    fn setting(&self, name: &str) -> Option<&Value> {
        self.index.settings.get(name)
    }

    fn path(&self) -> &Path {
        &self.path
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
                Some(pipeline.model.config().class_name())
            }
            Role::Scheduler => {
                pipeline.scheduler.save(folder)?;
                Some(pipeline.scheduler.class_name())
            }
            Role::Codec => pipeline.codec().save(&folder)?,
            Role::LowResolutionScheduler => match pipeline.low_resolution_scheduler() {
                Some(scheduler) => {
                    scheduler.save(folder)?;
                    Some(scheduler.class_name())
                }
                None => None,
            },
        };
        components.extend(class_name.map(|class_name| (*name, class_name)));
    }
    for condition in pipeline.conditions() {
        components.extend(condition.save(staging.path())?);
    }
    let mut index = ModelIndex::new(class.name, components);
    index.settings.clone_from(pipeline.settings());
    index.save(staging.path())?;
    staging.commit(MODEL_INDEX)
}
