//! A training run from its configuration to its folder.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use burn::{
    module::{Module, ModuleVisitor, Param},
    tensor::{Device, Tensor, TensorData},
};

use super::{
    Estimate, MixedPrecision, ModelSource, Observer, Outcome, RunInfo, SavedRun, TraineeKind, TrainingConfig,
    card, checkpoints, codec_first, codec_run,
    ended::ended,
    latent::LatentRun,
    latent_space::LatentSpace,
    learner::Learner,
    memory,
    optimizer::AdamWConfig,
    pretrained,
    run::{Ended, Run},
    samples,
    setup::{self, model_config},
    slots,
    step::{self, Batch, Draw, Saving},
    trackers,
    trainee::{AnyTrainee, Full, codec},
};
use crate::{
    Error, Result,
    conditioning::{self, ClassCondition, Classes, Examples, RunSource, Trained},
    data::{self, Channels, Dataset, Fingerprint, Loader, Picture},
    device::default_device,
    models::{AnyModel, AutoencoderKLConfig, ModelConfig},
    objectives::{NoiseOptions, Objective},
    ops::{Precision, convolving, keeping, trim},
    random::Generator,
    schedulers::AnyScheduler,
    world::{Alone, Team, World},
};

/// A run that is set up: data opened, model built, nothing written yet.
pub struct Trainer {
    pub(super) config: TrainingConfig,
    pub(super) folder: PathBuf,
    pub(super) dataset: Arc<dyn Dataset>,
    /// What it consists of.
    pub(super) data: Fingerprint,
    pub(super) loader: Loader,
    pub(super) trainee: Option<AnyTrainee>,
    /// What it takes on a latent pipeline.
    pub(super) latent: Option<LatentRun>,
    /// The space that a model from nothing draws in, where that is an autoencoder's.
    pub(super) space: Option<LatentSpace>,
    pub(super) scheduler: AnyScheduler,
    pub(super) objective: Box<dyn Objective>,
    pub(super) conditions: Vec<Trained>,
    /// Draws the weights; the first slot goes on with it.
    pub(super) generator: Generator,
    /// The checkpoint that the run goes on from.
    pub(super) resumed: Option<SavedRun>,
    pub(super) device: Device,
}

impl Trainer {
    /// The folder that the run is written to.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Opens the data and builds the model.
    ///
    /// # Errors
    /// If the configuration makes no sense, the data cannot be opened or do not fit it, or the folder holds a run already.
    pub fn new(config: TrainingConfig, device: &Device) -> Result<Self> {
        config.validate()?;
        let dataset = config.open_dataset()?;
        Self::on(config, dataset.into(), device)
    }

    /// Builds the model for data that are opened: those of the configuration, or any other.
    ///
    /// # Errors
    /// As [`Trainer::new`].
    pub fn on(config: TrainingConfig, dataset: Arc<dyn Dataset>, device: &Device) -> Result<Self> {
        config.validate()?;
        check_device(&config, device)?;
        let resumed = checkpoints::asked_for(&config)?;
        let loader = setup::loader(&config, Arc::clone(&dataset))?;
        if let Some(run) = ended(&config, dataset.len())? {
            return Err(Error::Config(format!(
                "{}: the run is done, all {} steps of it",
                run.folder.display(),
                run.steps
            )));
        }
        let folder = match (&resumed, &config.output_dir) {
            (Some(checkpoint), None) => checkpoints::run_of(checkpoint),
            _ => config.run_folder(dataset.name()),
        };
        checkpoints::check_folder(&config, &folder, resumed.as_deref())?;
        let resumed = resumed.map(SavedRun::open).transpose()?;
        let data = dataset.fingerprint()?;
        if let Some(saved) = &resumed {
            saved.check_config(&config)?;
            saved.check_data(&config, &data, loader.batches_per_epoch())?;
        }
        let mut generator = Generator::new(config.seed);
        let source = RunSource {
            config: &config,
            dataset: dataset.as_ref(),
            model: None,
            device,
        };
        let begun = match (config.latent_base()?, config.trainee) {
            (Some(base), _) => Begun::on_pipeline(&config, &base, resumed.as_ref(), device, &mut generator)?,
            (None, TraineeKind::Codec) => Begun::of_codec(&config, resumed.as_ref(), device, &mut generator)?,
            (None, _) => Begun::of_model(&source, resumed.as_ref(), &mut generator)?,
        };
        let scheduler = match &resumed {
            Some(saved) => saved.scheduler()?,
            None => config.scheduler()?,
        };
        let objective = config.objective(&scheduler)?;
        Ok(Self {
            config,
            folder,
            dataset,
            data,
            loader,
            trainee: Some(begun.trainee),
            latent: begun.latent,
            space: begun.space,
            scheduler,
            objective,
            conditions: begun.conditions,
            generator,
            resumed,
            device: device.clone(),
        })
    }

    /// Measures how long a step takes here, on a few pictures of noise.
    ///
    /// # Errors
    /// If the pictures do not fit the model.
    pub fn estimate(&self) -> Result<Estimate> {
        convolving(self.config.convolution(), || self.measured())
    }

    fn measured(&self) -> Result<Estimate> {
        const MEASURED: usize = 4;
        let pictures = match self.latent {
            Some(_) => 1,
            None => self.config.train_batch_size.min(MEASURED),
        };
        let mut generator = Generator::new(0);
        let saving = self.saving();
        let model = match self.trainee()?.clone() {
            parts @ (AnyTrainee::Latent(_) | AnyTrainee::Codec(_)) => {
                let trains = self.config.trainee.row().trains;
                let learner = Learner::new(
                    parts,
                    AdamWConfig::default(),
                    self.config.learning_rate,
                    self.config.lr_schedule(1, 1)?,
                    1.0,
                    None,
                );
                learner
                    .train_only(|name| trains(&self.config, name))?
                    .model()
                    .clone()
            }
            full => Module::train(full),
        };
        let (start, grew) = match &model {
            AnyTrainee::Codec(network) => {
                let side = self.config.resolution;
                let shape = [pictures, self.config.channels.count(), side, side];
                let blank = generator.randn_tensor(shape, &self.device);
                let start = Instant::now();
                let (lesson, grew) = memory::growth(|| {
                    codec::lesson(network, blank, self.config.kl_weight, saving, &mut generator)
                });
                lesson.map(|_| (start, grew))?
            }
            _ => {
                let batch = keeping(saving.kept_as, || self.blank(&model, pictures, &mut generator))?;
                let objective = self.objective.as_ref();
                let draw = Draw::new(&batch.clean, objective, NoiseOptions::default(), &mut generator);
                // What encoding left behind is no part of a step.
                trim();
                let start = Instant::now();
                let (lesson, grew) =
                    memory::growth(|| step::gradients_saving(saving, &model, objective, &batch, &draw));
                lesson.map(|_| (start, grew))?
            }
        };
        let seconds_per_picture = start.elapsed().as_secs_f64() / pictures as f64;
        let pictures_per_step = self.config.pictures_per_step();
        let batches = self.loader.batches_per_epoch();
        Ok(Estimate {
            seconds_per_step: seconds_per_picture * pictures_per_step.min(self.dataset.len()) as f64,
            steps_per_epoch: self.config.steps_of(batches),
            steps: self.config.total_steps_of(batches),
            memory: self.memory(num_trained(&model), grew, pictures),
        })
    }

    /// How a step saves memory. On a latent pipeline bf16 is what is multiplied too.
    pub(super) fn saving(&self) -> Saving {
        let precision = match (&self.latent, self.config.mixed_precision) {
            (Some(_), MixedPrecision::Bf16) => Precision::Bf16,
            _ => Precision::Float32,
        };
        Saving {
            precision,
            ..self.config.saving()
        }
    }

    /// A batch of noise to measure a step with.
    fn blank(&self, model: &AnyTrainee, pictures: usize, generator: &mut Generator) -> Result<Batch> {
        if let (Some(latent), AnyTrainee::Latent(networks)) = (&self.latent, model) {
            return latent.blank(&self.config, networks, pictures);
        }
        let side = self.config.resolution;
        let clean =
            generator.randn_tensor([pictures, self.config.channels.count(), side, side], &self.device);
        let examples = Examples {
            classes: Some(&vec![0; pictures]),
            captions: &vec![None; pictures],
            attributes: &vec![vec![false; self.config.attribute_columns.len()]; pictures],
            clean: &clean,
            conditioning: Some(&clean),
            text_encoder: model.text_encoder(),
        };
        let conditioning = conditioning::of_batch(&self.conditions, &examples, generator)?;
        let clean = match &self.space {
            Some(space) => {
                let [channels, height, width] = space.shape(&self.config);
                generator.randn_tensor([pictures, channels, height, width], &self.device)
            }
            None => clean,
        };
        Ok(Batch::new(clean, conditioning))
    }

    /// The bytes that the process will hold, from those that it grew by for the gradients of a batch of `pictures`.
    fn memory(&self, parameters: usize, grew: Option<u64>, pictures: usize) -> Option<u64> {
        // Pictures that are read ahead, plots, and what threads keep: as measured.
        const BESIDE: u64 = 17 << 20;
        let weights = 4 * parameters as u64;
        let for_a_picture = grew?.saturating_sub(weights) / pictures as u64;
        let batch = self.config.train_batch_size.min(self.dataset.len()) as u64;
        // Gradients and what the optimiser keeps; the average; the gradients that wait.
        let copies = 1
            + self.config.optimizer.copies()
            + u64::from(self.config.use_ema)
            + u64::from(self.config.gradient_accumulation_steps > 1);
        trim();
        let kept = self
            .latent
            .as_ref()
            .map_or(0, |latent| latent.kept(&self.config, self.dataset.as_ref()));
        let drawn = self
            .latent
            .as_ref()
            .map_or(0, |latent| latent.for_a_picture(&self.config));
        Some(
            BESIDE
                + kept
                + data::of_this_process("VmRSS:")?
                + copies * weights
                + (batch * for_a_picture).max(drawn),
        )
    }

    /// Trains, and leaves everything in the run's folder.
    ///
    /// # Errors
    /// If something cannot be read or written, or the loss is no longer a finite number. In the last case, the pipeline of the last good
    /// step is written first.
    pub fn run(&mut self, observer: &mut dyn Observer) -> Result<Outcome> {
        self.run_among(&mut Alone, observer)
    }

    /// The same as one of the processes of a world, each of which has such a trainer: of one configuration, on the same data. From one to
    /// `num_slots` of them come to the same bits. The first writes the files and reports to its observer; the observers of the others are
    /// asked whether to stop, and nothing else.
    ///
    /// # Errors
    /// As [`Trainer::run`], in every process, whichever of them failed; if they do not go together; or if one is gone.
    pub fn run_among(&mut self, world: &mut dyn World, observer: &mut dyn Observer) -> Result<Outcome> {
        let mut follower;
        let observer: &mut dyn Observer = match world.rank() {
            0 => observer,
            _ => {
                follower = Follower(observer);
                &mut follower
            }
        };
        convolving(self.config.convolution(), || {
            match codec_first::first(self, world, observer)? {
                Some(interrupted) => Ok(interrupted),
                None => self.whole_run(world, observer),
            }
        })
    }

    fn whole_run(&mut self, world: &mut dyn World, observer: &mut dyn Observer) -> Result<Outcome> {
        let start = Instant::now();
        let mut team = Team::new(world);
        slots::check(&mut team, self)?;
        let checked = self
            .latent
            .as_ref()
            .map_or(Ok(()), |latent| latent.check(&self.config, self.dataset.as_ref()));
        team.agree(checked)?;
        let mut run = Run::begin(self, team)?;
        let stopped = self.make_ready(&mut run.team, observer)?;
        let info = run.info(self)?;
        observer.started(&info);
        let goes_on_at = self.resumed.as_ref().map(|saved| saved.step() + 1);
        let trackers = match run.team.is_first() {
            true => trackers::open(&self.config, &info, goes_on_at, &mut |text| {
                observer.message(text)
            }),
            false => Ok(vec![]),
        };
        run.reports.add(run.team.agree(trackers)?);
        for sentence in self.remarks(run.steps(), run.team.size()) {
            observer.message(&sentence);
        }
        if self.config.cache
            && let Some(note) = self.loader.cache_note()
        {
            observer.message(&note);
        }
        if let Some(saved) = &self.resumed {
            observer.message(&format!(
                "going on from {}: step {} of {}",
                saved.folder().display(),
                saved.step(),
                run.steps()
            ));
        }
        let ended = match stopped {
            true => Ok(Ended::Interrupted),
            false => run.train(self, observer),
        };
        // Before anything else is written, which might fail.
        let checkpoint = match ended {
            Ok(Ended::Interrupted) => run.checkpoint(self)?,
            _ => None,
        };
        // Whatever ended it, what was learned is kept.
        if run.learner()?.steps() > 0 || (ended.is_ok() && !stopped) {
            run.save(self)?;
        }
        let plot = match run.team.is_first() {
            true => samples::plot(self, run.reports.metrics()),
            false => Ok(None),
        };
        let plot = run.team.agree(plot)?;
        if ended.is_err() {
            run.reports.finish(false)?;
        }
        let interrupted = ended? == Ended::Interrupted;
        let skipped = slots::union(&mut run.team, self.loader.broken())?.len();
        match skipped {
            0 => {}
            1 => observer.message("1 picture could not be read and was left out"),
            _ => observer.message(&format!("{skipped} pictures could not be read and were left out")),
        }
        let samples = if interrupted {
            if let Err(error) = run.keep_last_grid(&self.folder) {
                observer.message(&format!("the last grid of samples is not kept: {error}"));
            }
            None
        } else {
            Some(run.draw_end(self, observer)?)
        };
        let written = match run.team.is_first() {
            true => self.write_end(&mut run, &info),
            false => Ok(()),
        };
        run.team.agree(written)?;
        if run.team.size() > 1 {
            observer.message(&format!(
                "{} bytes were sent by this process for a step, on the average",
                run.team.sent() / run.learner()?.steps().max(1) as u64
            ));
        }
        Ok(Outcome {
            folder: self.folder.clone(),
            steps: run.learner()?.steps(),
            interrupted,
            checkpoint,
            final_loss: run.reports.metrics().recent_loss(),
            samples,
            plot,
            classes: self.class_names(),
            seconds: start.elapsed().as_secs_f64(),
        })
    }

    /// What stands at the end of a run: trackers are told, and the card is written.
    fn write_end(&self, run: &mut Run<'_>, info: &RunInfo) -> Result<()> {
        run.reports.finish(true)?;
        let ended = card::Ended {
            steps: run.learner()?.steps(),
            loss: run.reports.metrics().recent_loss(),
            parameters: info.parameters,
            model: run.learner()?.model().model().map(AnyModel::config),
            base: match (&self.latent, self.config.trainee) {
                (Some(latent), _) => Some(latent.base().class().name),
                (None, TraineeKind::Codec) => Some(AutoencoderKLConfig::CLASS),
                (None, _) => None,
            },
            found: run.fidelity.map(|found| found.to_string()),
        };
        card::write(self, &ended)
    }

    /// Makes what the data need before the first step; whether an observer had enough before it was made.
    fn make_ready(&mut self, team: &mut Team<'_>, observer: &mut dyn Observer) -> Result<bool> {
        let ready = match &mut self.latent {
            Some(latent) => latent.prepare(&self.config, &self.folder, team, observer),
            None => Ok(false),
        };
        team.agree(ready)
    }

    /// What is worth knowing before the first of so many steps of so many processes: what the data have that is not used, and what the options make of them.
    fn remarks(&self, steps: usize, processes: usize) -> Vec<String> {
        let config = &self.config;
        let sharing = (config.num_slots > 1).then(|| {
            format!(
                "a step has {} slots with {} pictures each: {} in all, {}",
                config.num_slots,
                config.pictures_per_step() / config.num_slots,
                config.pictures_per_step(),
                match processes {
                    1 => "in one process".to_string(),
                    processes => format!("shared by {processes} processes"),
                }
            )
        });
        let mut remarks: Vec<String> = self
            .dataset
            .left_out()
            .into_iter()
            .map(|sentence| format!("the data: {sentence}"))
            .chain(sharing)
            .collect();
        if config.lr_scheduler.warms_up() && config.lr_warmup_steps > steps {
            remarks.push(format!(
                "the warm-up of {} steps is longer than the run of {steps}, so the learning rate comes to {:.1e} of {:.1e} at \
                 most: a smaller --lr-warmup-steps changes that",
                config.lr_warmup_steps,
                config.learning_rate * steps as f64 / config.lr_warmup_steps as f64,
                config.learning_rate
            ));
        }
        remarks.extend(self.sizes());
        if let Some(latent) = &self.latent {
            remarks.extend(latent.remarks(config, self.dataset.as_ref()));
        }
        let space = self.space.as_ref();
        remarks.extend(space.and_then(|space| space.remark(config, self.dataset.as_ref())));
        if config.channels == Channels::Rgb && self.latent.is_none() && self.looks_grey() {
            remarks.push(
                "the pictures are grey, and the model learns three channels of them: --channels grey, with a model of one channel, \
                 takes less"
                    .into(),
            );
        }
        remarks
    }

    /// How many pictures are brought to each size, where that is not one square.
    fn sizes(&self) -> Option<String> {
        const MOST: usize = 40;
        let mut sizes = self.loader.sizes()?;
        sizes.sort_unstable();
        let (count, batches) = (sizes.len(), self.loader.batches_per_epoch());
        let said = sizes
            .iter()
            .take(MOST)
            .map(|([height, width], pictures)| format!("{width}x{height}: {pictures}"));
        let said: Vec<String> = said.chain((count > MOST).then(|| "…".into())).collect();
        Some(format!(
            "pictures are brought to {count} sizes, and an epoch has {batches} batches of one size each, {:.1} pictures on the average ({})",
            self.dataset.len() as f64 / batches.max(1) as f64,
            said.join(", ")
        ))
    }

    /// Whether some pictures from all over the data are all grey, whatever channels they are stored with.
    fn looks_grey(&self) -> bool {
        const LOOKED_AT: usize = 8;
        let count = self.dataset.len();
        let is_grey = |picture: &Picture| {
            let mut pixels = picture.pixels().chunks_exact(3);
            picture.channels() == Channels::Grey
                || pixels.all(|pixel| pixel.iter().all(|value| *value == pixel[0]))
        };
        // One that is broken says nothing here, and is told of when its turn comes.
        let mut pictures =
            (0..count.min(LOOKED_AT)).filter_map(|n| self.dataset.get(n * count / count.min(LOOKED_AT)).ok());
        pictures.next().is_some_and(|first| is_grey(&first.picture))
            && pictures.all(|example| is_grey(&example.picture))
    }

    /// Names of the classes, empty where the run is unconditional.
    pub(super) fn class_names(&self) -> Vec<String> {
        self.classes()
            .map(|classes| classes.names.clone())
            .unwrap_or_default()
    }

    /// The classes that the model is conditioned on, if it is.
    pub(super) fn classes(&self) -> Option<&Classes> {
        self.condition::<ClassCondition>()?.names()
    }

    /// The condition of a kind, if the run has it.
    pub(super) fn condition<K: conditioning::Condition>(&self) -> Option<&K> {
        let conditions = self.conditions.iter().map(|trained| &trained.condition);
        conditions.map(std::slice::from_ref).find_map(conditioning::find)
    }

    pub(super) fn trainee(&self) -> Result<&AnyTrainee> {
        self.trainee
            .as_ref()
            .ok_or_else(|| Error::Config("a trainer runs once: make a new one".into()))
    }

    /// A loader's batch on the device, with what the model is trained under.
    pub(super) fn prepare(
        &self,
        trainee: &AnyTrainee,
        mut batch: data::Batch,
        generator: &mut Generator,
    ) -> Result<Batch> {
        if let (Some(latent), AnyTrainee::Latent(networks)) = (&self.latent, trainee) {
            // What a picture comes to is computed once, however often it counts.
            for index in &mut batch.indices {
                *index = self.dataset.original(*index);
            }
            return keeping(self.saving().kept_as, || {
                latent.batch(&self.config, networks, batch, generator)
            });
        }
        let space = self.space.as_ref();
        let latents = space
            .map(|space| space.clean(&self.config, &batch, &self.device, generator))
            .transpose()?;
        let tensor = |pixels| Tensor::from_data(TensorData::new(pixels, batch.shape), &self.device);
        let clean = tensor(batch.pixels);
        let given = batch.conditioning.map(tensor);
        let examples = Examples {
            classes: batch.classes.as_deref(),
            captions: &batch.captions,
            attributes: &batch.attributes,
            clean: &clean,
            conditioning: given.as_ref(),
            text_encoder: trainee.text_encoder(),
        };
        // A text encoder that is trained along keeps for its backward what the model keeps.
        let conditioning = keeping(self.saving().kept_as, || {
            conditioning::of_batch(&self.conditions, &examples, generator)
        })?;
        Ok(Batch::new(latents.unwrap_or(clean), conditioning))
    }
}

/// What a run begins with, or goes on with, by what it trains.
struct Begun {
    trainee: AnyTrainee,
    latent: Option<LatentRun>,
    space: Option<LatentSpace>,
    conditions: Vec<Trained>,
}

impl Begun {
    /// Something on top of a pipeline of latents.
    fn on_pipeline(
        config: &TrainingConfig,
        base: &Path,
        resumed: Option<&SavedRun>,
        device: &Device,
        generator: &mut Generator,
    ) -> Result<Self> {
        let latent = LatentRun::open(config, base, device)?;
        let begun = AnyTrainee::Latent(latent.trainee(config, generator)?);
        Ok(Self {
            trainee: gone_on(begun, resumed, device)?,
            conditions: latent.conditions(config),
            latent: Some(latent),
            space: None,
        })
    }

    /// An autoencoder.
    fn of_codec(
        config: &TrainingConfig,
        resumed: Option<&SavedRun>,
        device: &Device,
        generator: &mut Generator,
    ) -> Result<Self> {
        let begun = AnyTrainee::Codec(codec_run::begun(config, device, generator)?);
        Ok(Self {
            trainee: gone_on(begun, resumed, device)?,
            latent: None,
            space: None,
            conditions: Vec::new(),
        })
    }

    /// A model, of pictures or of an autoencoder's latents.
    fn of_model(
        source: &RunSource<'_>,
        resumed: Option<&SavedRun>,
        generator: &mut Generator,
    ) -> Result<Self> {
        let (config, device) = (source.config, source.device);
        let space = LatentSpace::of(config, device)?;
        let saved = resumed.map(SavedRun::model_folder);
        let source = RunSource {
            model: saved.as_deref().or(config.pretrained.as_deref()),
            ..*source
        };
        let conditions = conditioning::of_run(&source, generator)?;
        let expected = model_config(config, space.as_ref(), &conditions)?;
        let model = match (resumed, &config.pretrained) {
            (Some(saved), _) => {
                saved.check_model(&expected)?;
                saved.model(device)?
            }
            (None, Some(folder)) => {
                let own = ModelSource::Config(folder.clone()).config()?;
                pretrained::model(folder, &own, &expected, device, generator)?
            }
            (None, None) => expected.build(device, generator)?,
        };
        Ok(Self {
            trainee: AnyTrainee::Full(Full::new(model, &conditions)),
            latent: None,
            space,
            conditions,
        })
    }
}

/// A trainee with what a checkpoint has of it, where there is one.
fn gone_on(begun: AnyTrainee, resumed: Option<&SavedRun>, device: &Device) -> Result<AnyTrainee> {
    match resumed {
        Some(saved) => saved.trained(begun, device),
        None => Ok(begun),
    }
}

/// Asks an observer whether to stop, and tells it nothing.
struct Follower<'a>(&'a mut dyn Observer);

impl Observer for Follower<'_> {
    fn should_stop(&self) -> bool {
        self.0.should_stop()
    }
}

/// How many numbers are trained.
fn num_trained(model: &AnyTrainee) -> usize {
    struct Count(usize);
    impl ModuleVisitor for Count {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if param.is_require_grad() {
                self.0 += param.dims().iter().product::<usize>();
            }
        }
    }
    let mut count = Count(0);
    model.visit(&mut count);
    count.0
}

/// Refuses what only the CPU has.
fn check_device(config: &TrainingConfig, device: &Device) -> Result<()> {
    if config.mixed_precision == MixedPrecision::No || *device == default_device() {
        return Ok(());
    }
    Err(Error::Unsupported(format!(
        "`mixed_precision` {} is there on the CPU only: on another device leave it out, which is float32",
        config.mixed_precision
    )))
}
