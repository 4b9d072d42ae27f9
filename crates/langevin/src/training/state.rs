//! What a checkpoint holds: all that the rest of a run follows from, so that a run which goes on from it ends in the same
//! bytes as one that was never interrupted.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    ConditioningKind, RUN_CONFIG, TrainingConfig, checkpoints, ema::EmaSchedule, gradients::Gradients,
    learner::Learner, places::one_place, slots::ChanceState, trainee::AnyTrainee,
};
use crate::{
    Error, Result,
    conditioning::Trained,
    data::Fingerprint,
    files,
    models::{
        AnyModel, AnyModelConfig,
        weights::{self, CONFIG_NAME},
    },
    random::GeneratorState,
    schedulers::AnyScheduler,
};

/// The file that everything small is in.
pub const STATE: &str = "state.json";
/// The weights as they are trained: a model as diffusers saves it.
const MODEL: &str = "unet";
/// The noise that it is trained on.
const SCHEDULER: &str = "scheduler";
/// Both moments of AdamW.
const OPTIMIZER: &str = "optimizer.safetensors";
/// The gradients that wait for the optimiser step.
const GRADIENTS: &str = "gradients.safetensors";
/// The version of this program that wrote it.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Where a run stands, besides its tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Place {
    /// The version of the program.
    pub version: String,
    /// Pictures in the data set.
    pub pictures: usize,
    /// What the data set consists of. Those that were written before there was one have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Fingerprint>,
    /// Optimiser steps done: the place on the learning-rate schedule, of the optimiser and of the average too.
    pub step: usize,
    /// The epoch, from 1.
    pub epoch: usize,
    /// Batches of it that are done: the place in its order, which follows from seed and epoch.
    pub batch: usize,
    /// Batches since the last optimiser step.
    pub waiting: usize,
    /// The bits of the sum of their losses: a decimal fraction need not come back the same.
    pub waiting_loss: u64,
    /// Where their pictures stood between clean and noise.
    pub waiting_noise_levels: Vec<f32>,
    /// Their pictures' losses.
    pub waiting_losses: Vec<f32>,
    /// What draws noise, timesteps and dropped classes.
    pub generator: GeneratorState,
    /// What draws dropout's masks.
    pub dropout: GeneratorState,
    /// The same of the slots after the first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slots: Vec<ChanceState>,
}

/// Writes all of it into an empty folder.
///
/// # Errors
/// If something cannot be written.
pub(super) fn write(
    folder: &Path,
    config: &TrainingConfig,
    place: &Place,
    learner: &Learner<AnyTrainee>,
    conditions: &[Trained],
    gradients: &Gradients,
    scheduler: &AnyScheduler,
) -> Result<()> {
    let trains = |name: &str| (config.trainee.row().trains)(config, name);
    let [model, average] = learner.model().folders();
    learner
        .plain()
        .write_trained(conditions, &folder.join(model), trains)?;
    scheduler.save(folder.join(SCHEDULER))?;
    if let Some(ema) = learner.ema() {
        let average = folder.join(average);
        ema.average().write_trained(conditions, &average, trains)?;
        if !matches!(learner.model(), AnyTrainee::Latent(_)) {
            add_schedule(&average.join(CONFIG_NAME), ema.schedule(), place.step)?;
        }
    }
    let moments = learner.optimizer().moments(learner.model());
    weights::write_tensors(folder.join(OPTIMIZER), &moments)?;
    if place.waiting > 0 {
        let named = gradients.named(learner.model());
        weights::write_tensors(folder.join(GRADIENTS), &named)?;
    }
    files::write_json(folder.join(RUN_CONFIG), &config.portable())?;
    files::write_json(folder.join(STATE), place)
}

/// Adds to the average's configuration what diffusers' `EMAModel.from_pretrained` reads there.
fn add_schedule(path: &Path, schedule: EmaSchedule, step: usize) -> Result<()> {
    let mut config: Value = files::read_json(path)?;
    for (key, value) in [
        ("decay", schedule.max_decay.into()),
        ("min_decay", schedule.min_decay.into()),
        ("optimization_step", step.into()),
        ("update_after_step", schedule.update_after_step.into()),
        ("use_ema_warmup", schedule.use_ema_warmup.into()),
        ("inv_gamma", schedule.inv_gamma.into()),
        ("power", schedule.power.into()),
    ] {
        config[key] = value;
    }
    files::write_json(path, &config)
}

/// A checkpoint that fits this program: its version has been looked at, nothing of it loaded but what is small.
#[derive(Clone, Debug)]
pub struct SavedRun {
    folder: PathBuf,
    /// Where the run stands.
    pub(super) place: Place,
    config: TrainingConfig,
}

impl SavedRun {
    /// Opens a checkpoint's folder.
    ///
    /// # Errors
    /// If a file is missing or broken, or another version of the program wrote it.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref().to_path_buf();
        let state: Value = files::read_json(folder.join(STATE))?;
        let version = state["version"].as_str().unwrap_or("an unknown version");
        if version != VERSION {
            return Err(Error::option(
                &["pretrained"],
                format!(
                    "{}: was written by langevin {version}, and this is {VERSION}, which may compute otherwise: resume with \
                     the version that wrote it, or start a new run from its weights with `pretrained`",
                    folder.display()
                ),
            ));
        }
        let place: Place = serde_json::from_value(state)
            .map_err(|e| Error::file(folder.join(STATE), format!("is not a run's state: {e}")))?;
        place
            .check(&folder)
            .map_err(|message| Error::file(folder.join(STATE), message))?;
        let mut config: TrainingConfig = files::read_json(folder.join(RUN_CONFIG))?;
        // Whoever resumes a run of somebody else's has not chosen where on this machine it writes.
        let is_inside = |text: &str| matches!(text, "" | ".") || files::plain_path(text).is_some();
        if !config.logging_dir.to_str().is_some_and(is_inside) {
            let usual = TrainingConfig::script().logging_dir;
            tracing::warn!(
                "{}: keeps its logs outside of the run's folder, in {}; they go to {} in it unless `logging_dir` says otherwise",
                folder.display(),
                config.logging_dir.display(),
                usual.display()
            );
            config.logging_dir = usual;
        }
        Ok(Self {
            config: config.found_from(&checkpoints::run_of(&folder)),
            folder,
            place,
        })
    }

    /// Refuses to look on the Hub for data that were in a folder or a file when the run was begun.
    ///
    /// # Errors
    /// If they are not there; the error says where they were.
    pub fn check_data_are_there(&self) -> Result<()> {
        self.config
            .check_data_are_there(&checkpoints::run_of(&self.folder))
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Optimiser steps done.
    pub fn step(&self) -> usize {
        self.place.step
    }

    /// The configuration of its run, with the paths that lead somewhere from the folder where it was begun.
    pub fn config(&self) -> &TrainingConfig {
        &self.config
    }

    /// Refuses to go on with another configuration, but for what only says how long to train, what is kept and where. Where the data
    /// are is not compared if it is known what they are.
    ///
    /// # Errors
    /// If something else differs; the error names everything that does.
    pub fn check_config(&self, config: &TrainingConfig) -> Result<()> {
        let mut differing = config_differences(&self.config, config)?;
        if self.place.data.is_some() {
            differing.retain(|(name, ..)| !PLACE_OF_DATA.contains(&name.as_str()));
        }
        refuse(&self.folder, "the run's configuration", &differing)
    }

    /// Refuses to go on with other pictures, classes or captions than the run was trained on, and with numbers that no run over these
    /// pictures comes to.
    ///
    /// # Errors
    /// If they differ; the error says in what.
    pub fn check_data(&self, config: &TrainingConfig, data: &Fingerprint, batches: usize) -> Result<()> {
        let kind = config.conditioning;
        let difference = match &self.place.data {
            Some(was) => was.difference(
                data,
                kind.tells_classes(),
                kind == ConditioningKind::CrossAttention,
            ),
            None => (data.pictures != self.place.pictures).then(|| {
                format!(
                    "they are {} pictures, and were {}",
                    data.pictures, self.place.pictures
                )
            }),
        };
        if let Some(difference) = difference {
            return Err(Error::option(
                &["pretrained"],
                format!(
                    "{}: cannot be resumed with these data: {difference} when it was written; resume with those, or start a \
                     new run from its weights with `pretrained`",
                    self.folder.display()
                ),
            ));
        }
        self.place
            .check_schedule(config, batches)
            .map_err(|message| Error::file(self.folder.join(STATE), message))
    }

    /// Refuses to go on with another model.
    ///
    /// # Errors
    /// If they differ; the error says in what.
    pub fn check_model(&self, model: &AnyModelConfig) -> Result<()> {
        let saved = self.model_config()?;
        let mut differing = match (&saved, model) {
            (AnyModelConfig::UNet2D(a), AnyModelConfig::UNet2D(b)) => differences(a, b)?,
            (AnyModelConfig::Basic(a), AnyModelConfig::Basic(b)) => differences(a, b)?,
            (AnyModelConfig::Condition(a), AnyModelConfig::Condition(b)) => differences(a, b)?,
            (AnyModelConfig::ClassChannels(a), AnyModelConfig::ClassChannels(b)) => differences(a, b)?,
            (AnyModelConfig::DiT(a), AnyModelConfig::DiT(b)) => differences(a, b)?,
            (a, b) => vec![difference("_class_name", a.class_name(), b.class_name())],
        };
        // Says who wrote the file.
        differing.retain(|(name, ..)| name != "_diffusers_version");
        refuse(&self.folder, "the model", &differing)
    }

    /// The model's configuration.
    ///
    /// # Errors
    /// If the file is broken.
    pub fn model_config(&self) -> Result<AnyModelConfig> {
        AnyModelConfig::load(self.folder.join(MODEL).join(CONFIG_NAME))
    }

    /// The noise that it is trained on.
    ///
    /// # Errors
    /// If the file is missing or broken.
    pub fn scheduler(&self) -> Result<AnyScheduler> {
        AnyScheduler::load(self.folder.join(SCHEDULER))
    }

    /// The folder of the model as it was being trained.
    pub fn model_folder(&self) -> PathBuf {
        self.folder.join(MODEL)
    }

    /// The model as it was being trained.
    ///
    /// # Errors
    /// If a file is missing or broken.
    pub fn model(&self, device: &Device) -> Result<AnyModel> {
        AnyModel::load(self.model_folder(), device)
    }

    /// What was trained of what a run begins with: of the networks of a latent pipeline, or an autoencoder.
    ///
    /// # Errors
    /// If a file is missing or broken.
    pub(super) fn trained(&self, begun: AnyTrainee, device: &Device) -> Result<AnyTrainee> {
        let [trained, _] = begun.folders();
        begun.load(&self.folder.join(trained), device)
    }

    /// Puts the optimiser's moments and the average into a learner that was made with [`Self::model`], and gives the
    /// gradients that wait.
    ///
    /// # Errors
    /// If a file is missing or broken.
    pub(super) fn restore(&self, learner: &mut Learner<AnyTrainee>, device: &Device) -> Result<Gradients> {
        let moments = weights::read_tensors(self.folder.join(OPTIMIZER))?;
        let average = match learner.ema() {
            None => None,
            // Its own configuration holds the average's schedule besides.
            Some(_) => {
                let [_, average] = learner.model().folders();
                let average = self.folder.join(average);
                Some(learner.plain().load(&average, device)?)
            }
        };
        learner.resume(self.place.step, moments, average, device);
        if self.place.waiting == 0 {
            return Ok(Gradients::default());
        }
        let stored = weights::read_tensors(self.folder.join(GRADIENTS))?;
        Ok(Gradients::restored(learner.model(), stored, device))
    }
}

/// The options that say where the data are.
const PLACE_OF_DATA: [&str; 2] = ["dataset_name", "train_data_dir"];

impl Place {
    /// Holds the numbers of a checkpoint against each other and the name of its folder; the error is the part of a sentence that follows
    /// the file's name.
    fn check(&self, folder: &Path) -> Result<(), String> {
        let named = folder
            .file_name()
            .and_then(|name| name.to_str()?.strip_prefix(checkpoints::PREFIX)?.parse().ok());
        let named: Option<usize> = named.filter(|&step| step != self.step);
        if let Some(named) = named {
            return Err(format!(
                "says that {} steps are done, and its folder's name says {named}: one of them was changed",
                self.step
            ));
        }
        if self.epoch == 0 {
            return Err("is not a run's state: epochs count from 1".into());
        }
        let pictures = (self.waiting_losses.len(), self.waiting_noise_levels.len());
        if pictures.0 != pictures.1 || (self.waiting == 0) != (pictures.0 == 0) {
            return Err(format!(
                "is not a run's state: {} batches wait for a step, with losses of {} pictures and noise levels of {}",
                self.waiting, pictures.0, pictures.1
            ));
        }
        Ok(())
    }

    /// Holds the numbers against the schedule of a run. Pictures that could not be read make for fewer steps, and never for more.
    fn check_schedule(&self, config: &TrainingConfig, batches: usize) -> Result<(), String> {
        let slots = config.num_slots.max(1);
        let steps = |batches: usize| {
            batches
                .div_ceil(slots)
                .div_ceil(config.gradient_accumulation_steps.max(1))
        };
        if self.slots.len() + 1 != slots {
            return Err(format!(
                "is not the state of this run: it has {} slots, and the run {slots}",
                self.slots.len() + 1
            ));
        }
        let most = steps(batches)
            .saturating_mul(self.epoch - 1)
            .saturating_add(steps(self.batch));
        if self.batch > batches
            || self.step > most
            || self.waiting >= config.gradient_accumulation_steps.max(1)
        {
            return Err(format!(
                "is not the state of this run: step {}, after {} batches of epoch {} with {} that wait, where an epoch has \
                 {batches} batches and {} steps",
                self.step,
                self.batch,
                self.epoch,
                self.waiting,
                steps(batches)
            ));
        }
        Ok(())
    }
}

/// What two configurations differ in that a run which goes on may not change.
///
/// # Errors
/// If one cannot be expressed as JSON.
pub(super) fn config_differences(there: &TrainingConfig, here: &TrainingConfig) -> Result<Vec<Difference>> {
    let mut differing = differences(&there.portable(), &here.portable())?;
    differing.retain(|(name, there, here)| {
        !TrainingConfig::MAY_CHANGE.contains(&name.as_str()) && !one_place(name, there, here)
    });
    Ok(differing)
}

/// Refuses to go on where something differs.
///
/// # Errors
/// One that names all that does.
pub(super) fn refuse(folder: &Path, what: &str, differing: &[Difference]) -> Result<()> {
    if differing.is_empty() {
        return Ok(());
    }
    let list: Vec<String> = differing
        .iter()
        .map(|(name, there, here)| format!("`{name}` is {there} there and {here} here"))
        .collect();
    Err(Error::option(
        &["pretrained"],
        format!(
            "{}: cannot be resumed, because {what} differs: {}; resume with what it was written with, or start a new run \
             from its weights with `pretrained`",
            folder.display(),
            list.join(", ")
        ),
    ))
}

/// A field's name with its values there and here.
pub(super) type Difference = (String, String, String);

/// What differs between two values of one type, field by field: its name, and both values as JSON.
pub(super) fn differences<T: Serialize>(there: &T, here: &T) -> Result<Vec<Difference>> {
    let fields = |value: &T| {
        serde_json::to_value(value)
            .map_err(|e| Error::Config(format!("a configuration cannot be expressed as JSON: {e}")))
    };
    let (there, here) = (fields(there)?, fields(here)?);
    let names = there.as_object().into_iter().flat_map(|object| object.keys());
    Ok(names
        .filter(|name| there[name.as_str()] != here[name.as_str()])
        .map(|name| difference(name, &there[name.as_str()], &here[name.as_str()]))
        .collect())
}

fn difference(name: &str, there: impl ToString, here: impl ToString) -> Difference {
    (name.to_string(), there.to_string(), here.to_string())
}
