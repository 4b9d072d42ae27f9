//! What the unconditional pipelines have in common: their parts on disk, and the start of their loops.

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Int, Tensor, TensorData};

use super::{
    SampleOptions, Sampling,
    classes::Classes,
    model_index::{MODEL_INDEX, ModelIndex},
    staging::Staging,
};
use crate::{
    Error, Result,
    models::{AnyModel, AnyModelConfig, Checkpoint, Conditioning, weights::CONFIG_NAME},
    random::Generator,
    schedulers::{AnyScheduler, SCHEDULER_CONFIG, Scheduler},
};

const MODEL: &str = "unet";
const SCHEDULER: &str = "scheduler";

/// A model, a scheduler and the classes' names, as a folder holds them.
pub struct Parts {
    pub model: AnyModel,
    pub scheduler: AnyScheduler,
    pub classes: Option<Classes>,
}

impl Parts {
    /// Loads the parts of the pipeline in `folder`, of the weights a variant.
    pub fn load(folder: &Path, variant: Option<&str>, device: &Device) -> Result<Self> {
        let index = ModelIndex::load(folder)?;
        let model_class = &index.component(MODEL, folder)?.class_name;
        let scheduler_class = &index.component(SCHEDULER, folder)?.class_name;
        let config = AnyModelConfig::load(component_folder(folder, MODEL).join(CONFIG_NAME))?;
        if config.class_name() != model_class {
            let message = format!(
                "names a {model_class}, but the folder `{MODEL}` holds a {}",
                config.class_name()
            );
            return Err(Error::file(folder.join(MODEL_INDEX), message));
        }
        // Early configurations do not all name their class, and where two do, diffusers goes by the index.
        let scheduler = AnyScheduler::load_as(scheduler_class, component_folder(folder, SCHEDULER))?;
        let classes = Classes::load(folder, config.num_class_embeds())?;
        Ok(Self {
            model: AnyModel::with_weights(&config, &mut checkpoint(folder, variant)?, device)?,
            scheduler,
            classes,
        })
    }
}

/// The weights of the pipeline in `folder`: the plain ones, or a variant of them.
///
/// # Errors
/// If there are none, or a file of them is not whole.
pub fn checkpoint(folder: impl AsRef<Path>, variant: Option<&str>) -> Result<Checkpoint> {
    Checkpoint::variant_in(component_folder(folder.as_ref(), MODEL), variant)
}

/// The folder of a component: its own, or the pipeline's, where early repositories put every file.
fn component_folder(folder: &Path, component: &str) -> PathBuf {
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
pub fn save(
    folder: &Path,
    class_name: &str,
    model: &AnyModel,
    scheduler: &AnyScheduler,
    classes: Option<&Classes>,
) -> Result<()> {
    let staging = Staging::of(folder)?;
    model.save(staging.path().join(MODEL))?;
    scheduler.save(staging.path().join(SCHEDULER))?;
    if let Some(classes) = classes {
        classes.save(staging.path())?;
    }
    let components = [
        (MODEL, model.config().class_name()),
        (SCHEDULER, scheduler.class_name()),
    ];
    ModelIndex::new(class_name, components).save(staging.path())?;
    staging.commit(MODEL_INDEX)
}

/// Starts a loop of `steps` steps: draws the initial noise as diffusers' pipelines do.
pub fn sample<'a>(
    model: &'a AnyModel,
    mut scheduler: AnyScheduler,
    steps: usize,
    classes: Option<&Classes>,
    options: &SampleOptions,
    generator: &'a mut Generator,
) -> Result<Sampling<'a>> {
    let config = model.config();
    let device = model.device();
    if options.batch_size == 0 {
        return Err(Error::Config("`batch_size` is 0; it must be at least 1".into()));
    }
    let Some([height, width]) = config.sample_size() else {
        return Err(Error::Config(
            "the model's configuration has no `sample_size`, so it cannot be sampled from".into(),
        ));
    };
    let conditioning = condition(config.num_class_embeds(), classes, options, &device)?;
    scheduler.set_timesteps(steps)?;
    let shape = [options.batch_size, config.in_channels(), height, width];
    let noise = generator.randn_tensor(shape, &device);
    Ok(Sampling::new(model, Box::new(scheduler), noise, generator)
        .with_conditioning(conditioning)
        .with_step_options(options.eta, options.use_clipped_model_output))
}

/// The class embedding's input, checked against a model of `known` classes.
fn condition(
    known: Option<usize>,
    classes: Option<&Classes>,
    options: &SampleOptions,
    device: &Device,
) -> Result<Conditioning> {
    let numbers = match (known, &options.classes) {
        (None, None) => return Ok(Conditioning::default()),
        (None, Some(_)) => {
            return Err(Error::Config(
                "classes were given, but the model knows none: it is unconditional".into(),
            ));
        }
        (Some(known), Some(numbers)) => {
            if numbers.len() != options.batch_size {
                return Err(Error::Shape(format!(
                    "{} classes were given for a batch of {}; there must be one a picture",
                    numbers.len(),
                    options.batch_size
                )));
            }
            let within = |&number: &i64| usize::try_from(number).is_ok_and(|number| number < known);
            if let Some(number) = numbers.iter().find(|number| !within(number)) {
                return Err(Error::Config(format!(
                    "there is no class {number}; the model knows 0 to {}",
                    known - 1
                )));
            }
            numbers.clone()
        }
        (Some(known), None) => match classes.and_then(|classes| classes.null_class) {
            // Bounded by the model's number of classes, so far below the limit of any integer.
            Some(null) => vec![null as i64; options.batch_size],
            None => {
                return Err(Error::Config(format!(
                    "the model is class-conditional and has no null class: a class, 0 to {}, must be given",
                    known - 1
                )));
            }
        },
    };
    let classes = Tensor::<1, Int>::from_data(TensorData::new(numbers, [options.batch_size]), device);
    Ok(Conditioning {
        classes: Some(classes),
        ..Conditioning::default()
    })
}
