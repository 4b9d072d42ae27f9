//! A pipeline's folder: its index, and what lies where.

use std::path::{Path, PathBuf};

use super::{MODEL_INDEX, ModelIndex, Pipeline, Role, staging::Staging};
use crate::{
    Result,
    codec::Codec,
    models::{AnyControl, AnyModel, Checkpoint},
    schedulers::SCHEDULER_CONFIG,
    weights::CONFIG_NAME,
};

/// The classes of components of several ControlNets, and of several T2I-Adapters.
const SEVERAL_CONTROLNETS: &str = "MultiControlNetModel";
const SEVERAL_ADAPTERS: &str = "MultiAdapter";
/// Both.
pub(super) const SEVERAL_CONTROLS: [&str; 2] = [SEVERAL_CONTROLNETS, SEVERAL_ADAPTERS];

/// The class of what lies between sounds and spectrograms.
const MEL: &str = "Mel";

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

/// The folder of one of several controls, as diffusers' `MultiControlNetModel` and `MultiAdapter` name them.
pub(super) fn control_folder(component: &str, number: usize) -> String {
    match number {
        0 => component.to_string(),
        number => format!("{component}_{number}"),
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
            Role::Sound => match pipeline.mel() {
                Some(mel) => {
                    mel.config().save(folder)?;
                    Some(MEL)
                }
                None => None,
            },
            Role::Control => {
                for (number, network) in pipeline.controls().iter().enumerate() {
                    network.save(staging.path().join(control_folder(name, number)))?;
                }
                match pipeline.controls() {
                    [] => None,
                    [one] => Some(one.config().class_name()),
                    [AnyControl::ControlNet(_), ..] => Some(SEVERAL_CONTROLNETS),
                    [AnyControl::T2IAdapter(_), ..] => Some(SEVERAL_ADAPTERS),
                }
            }
        };
        components.extend(class_name.map(|class_name| (*name, class_name)));
    }
    for condition in pipeline.conditions() {
        components.extend(condition.save(staging.path())?);
    }
    if let Some(safety) = pipeline.safety() {
        components.extend(safety.save(staging.path())?);
    }
    if let Some(estimation) = pipeline.depth_estimation() {
        components.extend(estimation.save(staging.path())?);
    }
    let mut index = ModelIndex::new(class.name, components);
    index.settings.clone_from(pipeline.settings());
    index.save(staging.path())?;
    staging.commit(MODEL_INDEX)
}
