//! What the unconditional pipelines have in common: their parts on disk, and the start of their loops.

use std::path::{Path, PathBuf};

use burn::tensor::Device;

use super::{
    SampleOptions, Sampling,
    classes::Classes,
    model_index::{MODEL_INDEX, ModelIndex},
    sampling::{Draws, Held},
    staging::Staging,
    told::Told,
};
use crate::{
    Error, Result,
    models::{
        AnyModel, AnyModelConfig, Checkpoint, Model,
        captioned::{TEXT_ENCODER, TOKENIZER},
        weights::CONFIG_NAME,
    },
    schedulers::{AnyScheduler, SCHEDULER_CONFIG, Scheduler},
};

const MODEL: &str = "unet";
pub(crate) const SCHEDULER: &str = "scheduler";

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
        let model = AnyModel::with_weights(&config, &mut checkpoint(folder, variant)?, device)?;
        let model = model.with_text_encoder(folder, device)?;
        Ok(Self {
            model,
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
pub fn save(
    folder: &Path,
    class_name: &str,
    model: &AnyModel,
    scheduler: &AnyScheduler,
    classes: Option<&Classes>,
) -> Result<()> {
    let staging = Staging::of(folder)?;
    match model {
        AnyModel::Captioned(model) => model.unet.save(staging.path().join(MODEL))?,
        model => model.save(staging.path().join(MODEL))?,
    }
    scheduler.save(staging.path().join(SCHEDULER))?;
    if let Some(classes) = classes {
        classes.save(staging.path())?;
    }
    let mut components = vec![
        (MODEL, model.config().class_name()),
        (SCHEDULER, scheduler.class_name()),
    ];
    if let AnyModel::Captioned(model) = model {
        model.save_text(staging.path())?;
        components.push((TEXT_ENCODER, model.text_encoder.class_name()));
        components.push((TOKENIZER, "CLIPTokenizer"));
    }
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
    mut generator: Draws<'a>,
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
        model,
        null: classes.and_then(|classes| classes.null_class),
        options,
        device: &device,
    };
    let conditioning = told.conditioning()?;
    let guided = told.guided(&conditioning, scheduler.num_train_timesteps())?;
    scheduler.set_timesteps(steps)?;
    let shape = [options.batch_size, config.in_channels(), height, width];
    let noise = generator.get_mut().randn_tensor(shape, &device);
    Ok(Sampling::start(
        Held::Model(model, guided.map(Box::new)),
        scheduler,
        noise,
        generator,
    )
    .of_steps(steps)
    .with_conditioning(conditioning)
    .with_step_options(
        options.eta,
        options.use_clipped_model_output || options.guidance.is_on(),
    ))
}
