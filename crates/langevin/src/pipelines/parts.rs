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
    guidance::Guided,
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
    mut scheduler: Box<dyn Scheduler + 'a>,
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
    let told = Told {
        known: config.num_class_embeds(),
        null: classes.and_then(|classes| classes.null_class),
        options,
        device: &device,
    };
    let conditioning = told.conditioning()?;
    let guided = told.guided(model, scheduler.num_train_timesteps())?;
    scheduler.set_timesteps(steps)?;
    let shape = [options.batch_size, config.in_channels(), height, width];
    let noise = generator.randn_tensor(shape, &device);
    let sampling = match guided {
        Some(guided) => Sampling::owning(Box::new(guided), scheduler, noise, generator),
        None => Sampling::new(model, scheduler, noise, generator),
    };
    Ok(sampling
        .of_steps(steps)
        .with_conditioning(conditioning)
        .with_step_options(
            options.eta,
            options.use_clipped_model_output || options.guidance.is_on(),
        ))
}

/// What a call tells the model besides noise and timesteps.
struct Told<'a> {
    /// How many classes the model tells apart.
    known: Option<usize>,
    /// The one of them that stands for none.
    null: Option<usize>,
    options: &'a SampleOptions,
    device: &'a Device,
}

impl Told<'_> {
    /// The classes asked for, or the null class.
    fn conditioning(&self) -> Result<Conditioning> {
        let Some(known) = self.known else {
            return match &self.options.classes {
                None => Ok(Conditioning::default()),
                Some(_) => Err(Error::Config(
                    "classes were given, but the model knows none: it is unconditional".into(),
                )),
            };
        };
        match (&self.options.classes, self.null) {
            (Some(numbers), _) => self.classes(numbers.clone(), known),
            (None, Some(null)) => self.null_class(null),
            (None, None) => Err(Error::Config(format!(
                "the model is class-conditional and has no null class: a class, 0 to {}, must be given",
                known - 1
            ))),
        }
    }

    /// The model, guided towards the classes asked for and away from the negative ones or the null class; `None` where no
    /// guidance is asked for.
    fn guided<'m>(
        &self,
        model: &'m AnyModel,
        num_train_timesteps: usize,
    ) -> Result<Option<Guided<&'m AnyModel>>> {
        let guidance = self.options.guidance;
        let Some(known) = self.known else {
            return match (guidance.is_on(), &self.options.negative_classes) {
                (false, None) => Ok(None),
                _ => Err(Error::Config(
                    "classifier-free guidance needs a model that can be told a class, and this one is unconditional".into(),
                )),
            };
        };
        if !guidance.is_on() {
            return match &self.options.negative_classes {
                None => Ok(None),
                Some(_) => Err(Error::Config(
                    "negative classes do nothing at a guidance scale of 1: give another scale".into(),
                )),
            };
        }
        let negative = match (&self.options.negative_classes, self.null) {
            (Some(numbers), _) => self.classes(numbers.clone(), known)?,
            (None, Some(null)) => self.null_class(null)?,
            (None, None) => {
                return Err(Error::Config(
                    "the model has no null class, so classifier-free guidance needs classes to lead away from".into(),
                ));
            }
        };
        Guided::new(model, negative, guidance, num_train_timesteps).map(Some)
    }

    fn null_class(&self, null: usize) -> Result<Conditioning> {
        // Bounded by the model's number of classes, so far below the limit of any integer.
        self.classes(vec![null as i64; self.options.batch_size], null + 1)
    }

    /// The class embedding's input, checked against a model of `known` classes.
    fn classes(&self, numbers: Vec<i64>, known: usize) -> Result<Conditioning> {
        let batch = self.options.batch_size;
        if numbers.len() != batch {
            return Err(Error::Shape(format!(
                "{} classes were given for a batch of {batch}; there must be one a picture",
                numbers.len()
            )));
        }
        let within = |&number: &i64| usize::try_from(number).is_ok_and(|number| number < known);
        if let Some(number) = numbers.iter().find(|number| !within(number)) {
            return Err(Error::Config(format!(
                "there is no class {number}; the model knows 0 to {}",
                known - 1
            )));
        }
        let classes = Tensor::<1, Int>::from_data(TensorData::new(numbers, [batch]), self.device);
        Ok(Conditioning {
            classes: Some(classes),
            ..Conditioning::default()
        })
    }
}
