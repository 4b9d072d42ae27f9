//! A training run from its configuration to its folder.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use burn::tensor::{Device, Int, Tensor, TensorData};

use super::{
    ConditioningKind, Estimate, METRICS, Observer, Outcome, Progress, RUN_CONFIG, RunInfo, TrainingConfig,
    ema::EmaSchedule,
    gradients::Gradients,
    learner::Learner,
    metrics::Metrics,
    optimizer::AdamWConfig,
    pace::Pace,
    step::{self, Batch, Draw},
};
use crate::{
    Error, Result,
    data::{self, Dataset, Loader, LoaderConfig, Transform},
    files, grid,
    models::{AnyModel, Conditioning},
    objectives::PredictionType,
    ops::{self, in_pool},
    pipelines::{Classes, DdpmPipeline, SampleOptions, to_pictures},
    random::Generator,
    schedulers::{AnyScheduler, DDPMScheduler},
};

/// The plot of the loss in a run's folder.
pub const LOSS_PLOT: &str = "loss.png";
/// The grid of samples drawn at the end.
pub const SAMPLES: &str = "samples.png";

/// A run that is set up: data opened, model built, nothing written yet.
pub struct Trainer {
    config: TrainingConfig,
    folder: PathBuf,
    dataset: Arc<dyn Dataset>,
    loader: Loader,
    model: Option<AnyModel>,
    scheduler: DDPMScheduler,
    objective: PredictionType,
    classes: Option<Classes>,
    /// Draws the weights, then every step's noise, timesteps and dropped classes.
    generator: Generator,
    device: Device,
}

impl Trainer {
    /// Opens the data and builds the model.
    ///
    /// # Errors
    /// If the configuration makes no sense, the data cannot be opened or do not fit it, or the folder holds a run already.
    pub fn new(config: TrainingConfig, device: &Device) -> Result<Self> {
        config.validate()?;
        ops::set_exact_convolution(config.exact_convolution);
        let dataset: Arc<dyn Dataset> = data::open_with(&config.dataset()?, &config.open_options())?.into();
        let folder = config.run_folder(dataset.name());
        check_folder(&folder, config.overwrite_output_dir)?;
        let classes = classes(&config, dataset.as_ref())?;
        let loader = Loader::new(
            Arc::clone(&dataset),
            transform(&config),
            loader_config(&config, dataset.as_ref()),
        )?;
        let mut generator = Generator::new(config.seed);
        let class_count = classes.as_ref().map_or(0, |classes| classes.names.len());
        let model = config.model_config(class_count)?.build(device, &mut generator)?;
        let scheduler = DDPMScheduler::new(config.noise_schedule())?;
        let objective = config.prediction_type;
        let device = device.clone();
        let model = Some(model);
        Ok(Self {
            config,
            folder,
            dataset,
            loader,
            model,
            scheduler,
            objective,
            classes,
            generator,
            device,
        })
    }

    /// Measures how long a step takes here, on a few pictures of noise.
    ///
    /// # Errors
    /// If the pictures do not fit the model.
    pub fn estimate(&self) -> Result<Estimate> {
        const MEASURED: usize = 4;
        let pictures = self.config.train_batch_size.min(MEASURED);
        let side = self.config.resolution;
        let mut generator = Generator::new(0);
        let clean =
            generator.randn_tensor([pictures, self.config.channels.count(), side, side], &self.device);
        let classes = self.classes.as_ref().map(|_| vec![0; pictures]);
        let batch = Batch {
            clean,
            conditioning: self.conditioning(classes),
        };
        let draw = Draw::new(&batch.clean, &self.scheduler, &mut generator);
        let model = self.model()?.clone();
        let model = burn::module::Module::train(model);
        let start = Instant::now();
        step::gradients(&model, &self.objective, &self.scheduler, &batch, &draw)?;
        let seconds_per_picture = start.elapsed().as_secs_f64() / pictures as f64;
        let pictures_per_step = self.config.train_batch_size * self.config.gradient_accumulation_steps;
        Ok(Estimate {
            seconds_per_step: seconds_per_picture * pictures_per_step.min(self.dataset.len()) as f64,
            steps_per_epoch: self.config.steps_per_epoch(self.dataset.len()),
            steps: self.config.total_steps(self.dataset.len()),
        })
    }

    /// Trains, and leaves everything in the run's folder.
    ///
    /// # Errors
    /// If something cannot be read or written, or the loss is no longer a finite number. In the last case, the pipeline of the last good
    /// step is written first.
    pub fn run(&mut self, observer: &mut dyn Observer) -> Result<Outcome> {
        let start = Instant::now();
        let mut run = Run::begin(self)?;
        observer.started(&run.info(self)?);
        if self.config.cache
            && let Some(note) = self.loader.cache_note()
        {
            observer.message(&note);
        }
        let ended = run.train(self, observer);
        // Whatever ended it, what was learned is kept.
        if run.learner()?.steps() > 0 || ended.is_ok() {
            run.save(self)?;
        }
        let plot = run.plot(self)?;
        let interrupted = match ended? {
            Ended::Finished => false,
            Ended::Interrupted => true,
        };
        let skipped = self.loader.skipped();
        match skipped {
            0 => {}
            1 => observer.message("1 picture could not be read and was left out"),
            _ => observer.message(&format!("{skipped} pictures could not be read and were left out")),
        }
        let samples = if interrupted {
            None
        } else {
            Some(run.draw_samples(self, &self.folder.join(SAMPLES))?)
        };
        Ok(Outcome {
            folder: self.folder.clone(),
            steps: run.learner()?.steps(),
            interrupted,
            final_loss: run.metrics.recent_loss(),
            samples,
            plot,
            classes: self
                .classes
                .as_ref()
                .map(|classes| classes.names.clone())
                .unwrap_or_default(),
            seconds: start.elapsed().as_secs_f64(),
        })
    }

    fn model(&self) -> Result<&AnyModel> {
        self.model
            .as_ref()
            .ok_or_else(|| Error::Config("a trainer runs once: make a new one".into()))
    }

    fn conditioning(&self, classes: Option<Vec<i64>>) -> Conditioning {
        let classes = classes.map(|classes| {
            let n = classes.len();
            Tensor::<1, Int>::from_data(TensorData::new(classes, [n]), &self.device)
        });
        Conditioning {
            classes,
            ..Conditioning::default()
        }
    }

    /// A loader's batch on the device, some of its classes replaced by the null class.
    fn prepare(&mut self, batch: data::Batch) -> Result<Batch> {
        let clean = Tensor::from_data(TensorData::new(batch.pixels, batch.shape), &self.device);
        let classes = match &self.classes {
            None => None,
            Some(classes) => {
                let told = batch.classes.ok_or_else(|| {
                    Error::Config(
                        "the data set names no class for a picture: use `--conditioning none`".into(),
                    )
                })?;
                let null = classes.names.len() as i64;
                let dropout = self.config.class_dropout();
                let draws = self.generator.rand(told.len());
                let kept = told.into_iter().zip(draws);
                Some(
                    kept.map(|(class, u)| {
                        // A class that is not known is the null class too.
                        if f64::from(u) < dropout || class < 0 {
                            null
                        } else {
                            class
                        }
                    })
                    .collect(),
                )
            }
        };
        Ok(Batch {
            clean,
            conditioning: self.conditioning(classes),
        })
    }
}

/// How the steps came to an end.
enum Ended {
    Finished,
    Interrupted,
}

/// A run in progress.
struct Run {
    /// Taken out only while a step moves it.
    learner: Option<Learner<AnyModel>>,
    metrics: Metrics,
    pace: Pace,
    steps: usize,
    epochs: usize,
}

impl Run {
    /// Makes the folder, writes the configuration, takes the model.
    fn begin(trainer: &mut Trainer) -> Result<Self> {
        let config = &trainer.config;
        let pictures = trainer.dataset.len();
        let steps = config.total_steps(pictures);
        let epochs = steps.div_ceil(config.steps_per_epoch(pictures));
        trainer.model()?;
        fs::create_dir_all(&trainer.folder).map_err(|e| Error::io("create", &trainer.folder, e))?;
        let resolved = TrainingConfig {
            output_dir: Some(trainer.folder.clone()),
            ..config.clone()
        };
        files::write_json(trainer.folder.join(RUN_CONFIG), &resolved)?;
        let metrics = Metrics::create(&trainer.folder.join(METRICS))?;
        let optimizer = AdamWConfig {
            beta1: config.adam_beta1,
            beta2: config.adam_beta2,
            eps: config.adam_epsilon,
            weight_decay: config.adam_weight_decay,
        };
        let ema = config.use_ema.then(|| EmaSchedule {
            max_decay: config.ema_max_decay,
            inv_gamma: config.ema_inv_gamma,
            power: config.ema_power,
            use_ema_warmup: true,
            ..EmaSchedule::default()
        });
        let schedule = config.lr_schedule(steps)?;
        let learner = trainer.model.take().map(|model| {
            Learner::new(
                model,
                optimizer,
                config.learning_rate,
                schedule,
                config.max_grad_norm,
                ema,
            )
        });
        Ok(Self {
            learner,
            metrics,
            pace: Pace::start(),
            steps,
            epochs,
        })
    }

    fn info(&self, trainer: &Trainer) -> Result<RunInfo> {
        Ok(RunInfo {
            folder: trainer.folder.clone(),
            dataset: trainer.dataset.description(),
            pictures: trainer.dataset.len(),
            classes: trainer
                .classes
                .as_ref()
                .map(|c| c.names.clone())
                .unwrap_or_default(),
            model: trainer.config.model.short_name(),
            parameters: self.learner()?.model().num_parameters(),
            resolution: trainer.config.resolution,
            batch_size: trainer.config.train_batch_size,
            epochs: self.epochs,
            steps: self.steps,
        })
    }

    fn learner(&self) -> Result<&Learner<AnyModel>> {
        self.learner
            .as_ref()
            .ok_or_else(|| Error::Config("the run has no model".into()))
    }

    /// Epoch after epoch, until all steps are done or the observer has had enough.
    fn train(&mut self, trainer: &mut Trainer, observer: &mut dyn Observer) -> Result<Ended> {
        for epoch in 1..=self.epochs {
            match self.epoch(trainer, observer, epoch)? {
                Ended::Interrupted => return Ok(Ended::Interrupted),
                Ended::Finished => {}
            }
            let config = &trainer.config;
            let due = |every: usize| every > 0 && epoch % every == 0 && epoch < self.epochs;
            if due(config.save_model_epochs) {
                self.save(trainer)?;
            }
            if due(config.save_images_epochs) {
                let path = trainer
                    .folder
                    .join("samples")
                    .join(format!("epoch-{epoch:04}.png"));
                observer.message(&format!("drawing samples into {}", path.display()));
                self.draw_samples(trainer, &path)?;
            }
            self.pace.pause();
        }
        Ok(Ended::Finished)
    }

    fn epoch(&mut self, trainer: &mut Trainer, observer: &mut dyn Observer, epoch: usize) -> Result<Ended> {
        let accumulation = trainer.config.gradient_accumulation_steps;
        let batches = trainer.loader.batches_per_epoch();
        let mut accumulated = Gradients::default();
        let (mut losses, mut pictures, mut waiting) = (0.0, 0, 0);
        let mut loaded = trainer.loader.epoch(epoch as u64).peekable();
        let mut done = 0;
        while let Some(batch) = loaded.next() {
            let batch = trainer.prepare(batch?)?;
            let learner = self.learner()?;
            let draw = Draw::new(&batch.clean, &trainer.scheduler, &mut trainer.generator);
            let (objective, scheduler) = (&trainer.objective, &trainer.scheduler);
            let (loss, gradients) =
                in_pool(|| step::gradients(learner.model(), objective, scheduler, &batch, &draw))?;
            if !loss.is_finite() {
                return Err(no_longer_finite("loss", loss, learner.steps() + 1, trainer));
            }
            // A last, incomplete group counts as a whole one and is divided by the same number, as Accelerate does it.
            let gradients = if accumulation > 1 {
                gradients.scale(1.0 / accumulation as f64)
            } else {
                gradients
            };
            accumulated = accumulated.plus(gradients);
            losses += loss;
            pictures += batch.clean.dims()[0];
            waiting += 1;
            done += 1;
            if waiting < accumulation && done < batches && loaded.peek().is_some() {
                continue;
            }
            self.update(
                trainer,
                observer,
                epoch,
                std::mem::take(&mut accumulated),
                losses / waiting as f64,
                pictures,
            )?;
            (losses, pictures, waiting) = (0.0, 0, 0);
            if self.learner()?.steps() >= self.steps {
                return Ok(Ended::Finished);
            }
            if observer.should_stop() {
                return Ok(Ended::Interrupted);
            }
        }
        Ok(Ended::Finished)
    }

    /// One optimiser step, and word of it.
    fn update(
        &mut self,
        trainer: &Trainer,
        observer: &mut dyn Observer,
        epoch: usize,
        gradients: Gradients,
        loss: f64,
        pictures: usize,
    ) -> Result<()> {
        let Some(learner) = self.learner.take() else {
            return self.learner().map(|_| ());
        };
        let (learner, update) = in_pool(|| learner.update(gradients));
        let step = learner.steps();
        self.learner = Some(learner);
        if !update.grad_norm.is_finite() {
            return Err(no_longer_finite("gradient", update.grad_norm, step + 1, trainer));
        }
        let (pictures_per_second, steps_per_second) = self.pace.step(pictures);
        self.metrics.log(step, epoch, loss, update, pictures_per_second)?;
        observer.step(&Progress {
            epoch,
            epochs: self.epochs,
            step,
            steps: self.steps,
            loss,
            learning_rate: update.learning_rate,
            pictures_per_second,
            seconds_left: (self.steps - step) as f64 / steps_per_second,
        });
        Ok(())
    }

    fn pipeline(&self, trainer: &Trainer) -> Result<DdpmPipeline> {
        Ok(DdpmPipeline {
            model: self.learner()?.best(),
            scheduler: AnyScheduler::from(trainer.scheduler.clone()),
            classes: trainer.classes.clone(),
        })
    }

    fn save(&self, trainer: &Trainer) -> Result<()> {
        self.pipeline(trainer)?.save(&trainer.folder)
    }

    #[cfg(feature = "plot")]
    fn plot(&self, trainer: &Trainer) -> Result<Option<PathBuf>> {
        let path = trainer.folder.join(LOSS_PLOT);
        let title = format!(
            "{} on {}",
            trainer.config.model.short_name(),
            trainer.dataset.name()
        );
        crate::plot::loss_plot(&path, self.metrics.losses(), &title)?;
        Ok(Some(path))
    }

    #[cfg(not(feature = "plot"))]
    fn plot(&self, _trainer: &Trainer) -> Result<Option<PathBuf>> {
        Ok(None)
    }

    /// A grid drawn with seed 0, as the training script's samples are: a row for each class, or as square as it gets.
    fn draw_samples(&self, trainer: &Trainer, path: &Path) -> Result<PathBuf> {
        const MOST_ROWS: usize = 20;
        let pipeline = self.pipeline(trainer)?;
        let config = &trainer.config;
        let (classes, columns) = match &trainer.classes {
            Some(classes) => {
                let rows = classes.names.len().min(MOST_ROWS);
                let columns = (config.eval_batch_size / rows).clamp(1, 10);
                let classes = (0..rows)
                    .flat_map(|class| vec![class as i64; columns])
                    .collect::<Vec<_>>();
                (Some(classes), columns)
            }
            None => (None, (config.eval_batch_size as f64).sqrt().ceil() as usize),
        };
        let count = classes.as_ref().map_or(config.eval_batch_size, Vec::len);
        let mut generator = Generator::new(0);
        let mut pictures = vec![];
        for first in (0..count).step_by(config.eval_batch_size) {
            let batch_size = config.eval_batch_size.min(count - first);
            let options = SampleOptions {
                batch_size,
                num_inference_steps: Some(config.ddpm_num_inference_steps),
                classes: classes
                    .as_ref()
                    .map(|classes| classes[first..first + batch_size].to_vec()),
                ..SampleOptions::default()
            };
            let samples = in_pool(|| pipeline.sample(&options, &mut generator)?.finish())?;
            pictures.extend(to_pictures(&samples)?);
        }
        let scale = grid::visible_scale(&pictures[0]);
        let picture = grid::grid(&pictures, columns, 2, scale)?;
        let text = [
            ("seed", "0".to_string()),
            ("scheduler", "ddpm".to_string()),
            ("steps", config.ddpm_num_inference_steps.to_string()),
            ("model", trainer.folder.display().to_string()),
        ];
        grid::write_png(path, &picture, &text)?;
        Ok(path.to_path_buf())
    }
}

fn no_longer_finite(what: &str, value: f64, step: usize, trainer: &Trainer) -> Error {
    Error::NotFinite(format!(
        "the {what} of step {step} is {value}: training cannot go on from there; the state before it is kept in {}. \
         Try a lower learning rate or a longer warm-up",
        trainer.folder.display()
    ))
}

/// A folder that holds something is a run's only if that run may be replaced.
fn check_folder(folder: &Path, overwrite: bool) -> Result<()> {
    let occupied = fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some());
    if occupied && !overwrite {
        return Err(Error::file(
            folder,
            "is not empty: name another folder, or add --overwrite-output-dir to replace the run in it",
        ));
    }
    Ok(())
}

fn classes(config: &TrainingConfig, dataset: &dyn Dataset) -> Result<Option<Classes>> {
    match config.conditioning {
        ConditioningKind::None => Ok(None),
        ConditioningKind::Class => {
            let names = dataset.class_names().ok_or_else(|| {
                Error::Config(format!(
                    "the data set {} has no classes, which `--conditioning class` needs: put the pictures of each class into a folder of \
                     its own, or add a `label` column to metadata.jsonl",
                    dataset.name()
                ))
            })?;
            Ok(Some(Classes {
                names: names.to_vec(),
                null_class: Some(names.len()),
            }))
        }
    }
}

fn transform(config: &TrainingConfig) -> Transform {
    Transform {
        resolution: config.resolution,
        resize: config.resize,
        crop: if config.center_crop {
            data::Crop::Center
        } else {
            data::Crop::Random
        },
        random_flip: config.random_flip,
        channels: config.channels,
    }
}

fn loader_config(config: &TrainingConfig, dataset: &dyn Dataset) -> LoaderConfig {
    /// Decoding one batch ahead on one thread keeps up with training on a CPU.
    const WORKERS: usize = 1;
    LoaderConfig {
        batch_size: config.train_batch_size,
        seed: config.seed,
        workers: if config.dataloader_num_workers == 0 {
            WORKERS
        } else {
            config.dataloader_num_workers
        },
        cache_bytes: if config.cache || dataset.is_small() {
            data::cache_limit()
        } else {
            0
        },
        strict: config.strict,
        ..LoaderConfig::default()
    }
}
