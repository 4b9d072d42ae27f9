//! A run in progress: epoch after epoch, batch after batch, an optimiser step after every few.

use std::fs;

use super::{
    Observer, RUN_CONFIG, RunInfo, Trainer, TrainingConfig, UpdateReport,
    ema::EmaSchedule,
    gradients::Gradients,
    learner::Learner,
    optimizer::AdamWConfig,
    report::Reports,
    samples,
    step::{self, Draw},
};
use crate::{
    Error, Result, files, models::AnyModel, ops::in_pool, pipelines::DdpmPipeline, schedulers::AnyScheduler,
};

/// How the steps came to an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// All are done.
    Finished,
    /// The observer had enough.
    Interrupted,
}

/// A run in progress.
pub(super) struct Run {
    /// Taken out only while a step moves it.
    learner: Option<Learner<AnyModel>>,
    pub reports: Reports,
    accumulated: Accumulated,
    steps: usize,
    epochs: usize,
}

/// What the batches since the last optimiser step came to.
#[derive(Debug, Default)]
struct Accumulated {
    gradients: Gradients,
    batches: usize,
    /// The sum of the batches' losses.
    loss: f64,
    noise_levels: Vec<f32>,
    losses: Vec<f32>,
}

impl Run {
    /// Makes the folder, writes the configuration, takes the model.
    pub fn begin(trainer: &mut Trainer) -> Result<Self> {
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
        let reports = Reports::begin(&trainer.folder, steps, epochs)?;
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
            reports,
            accumulated: Accumulated::default(),
            steps,
            epochs,
        })
    }

    /// What is about to be trained on what.
    pub fn info(&self, trainer: &Trainer) -> Result<RunInfo> {
        Ok(RunInfo {
            folder: trainer.folder.clone(),
            dataset: trainer.dataset.description(),
            pictures: trainer.dataset.len(),
            classes: trainer.class_names(),
            model: trainer.config.model.short_name(),
            parameters: self.learner()?.model().num_parameters(),
            resolution: trainer.config.resolution,
            batch_size: trainer.config.train_batch_size,
            epochs: self.epochs,
            steps: self.steps,
        })
    }

    /// The model with all that moves it.
    pub fn learner(&self) -> Result<&Learner<AnyModel>> {
        self.learner
            .as_ref()
            .ok_or_else(|| Error::Config("the run has no model".into()))
    }

    /// Epoch after epoch, until all steps are done or the observer has had enough.
    pub fn train(&mut self, trainer: &mut Trainer, observer: &mut dyn Observer) -> Result<Ended> {
        for epoch in 1..=self.epochs {
            if self.epoch(trainer, observer, epoch)? == Ended::Interrupted {
                return Ok(Ended::Interrupted);
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
                samples::draw(trainer, &self.pipeline(trainer)?, &path)?;
            }
            self.reports.pause();
        }
        Ok(Ended::Finished)
    }

    fn epoch(&mut self, trainer: &mut Trainer, observer: &mut dyn Observer, epoch: usize) -> Result<Ended> {
        let accumulation = trainer.config.gradient_accumulation_steps;
        let mut loaded = trainer.loader.epoch(epoch as u64).peekable();
        while let Some(batch) = loaded.next() {
            self.learn(trainer, batch?)?;
            // A last, incomplete group counts as a whole one.
            if self.accumulated.batches == accumulation || loaded.peek().is_none() {
                self.update(trainer, observer, epoch)?;
                if self.learner()?.steps() >= self.steps {
                    return Ok(Ended::Finished);
                }
                if observer.should_stop() {
                    return Ok(Ended::Interrupted);
                }
            }
        }
        Ok(Ended::Finished)
    }

    /// One batch's gradients, added to those that wait.
    fn learn(&mut self, trainer: &mut Trainer, batch: crate::data::Batch) -> Result<()> {
        let learner = self.learner()?;
        let batch = trainer.prepare(learner.model(), batch)?;
        let draw = Draw::new(&batch.clean, &trainer.scheduler, &mut trainer.generator);
        let (objective, scheduler) = (&trainer.objective, &trainer.scheduler);
        let lesson = in_pool(|| step::gradients(learner.model(), objective, scheduler, &batch, &draw))?;
        if !lesson.loss.is_finite() {
            return Err(no_longer_finite(
                "loss",
                lesson.loss,
                learner.steps() + 1,
                trainer,
            ));
        }
        // Divided by the full number in an incomplete group too, as Accelerate does it.
        let accumulation = trainer.config.gradient_accumulation_steps;
        let gradients = if accumulation > 1 {
            lesson.gradients.scale(1.0 / accumulation as f64)
        } else {
            lesson.gradients
        };
        let waiting = &mut self.accumulated;
        waiting.gradients = std::mem::take(&mut waiting.gradients).plus(gradients);
        waiting.batches += 1;
        waiting.loss += lesson.loss;
        waiting.losses.extend(lesson.losses);
        let last = trainer.config.ddpm_num_steps as f32;
        waiting
            .noise_levels
            .extend(draw.timesteps.iter().map(|&t| t as f32 / last));
        Ok(())
    }

    /// One optimiser step, and word of it.
    fn update(&mut self, trainer: &Trainer, observer: &mut dyn Observer, epoch: usize) -> Result<()> {
        let Some(learner) = self.learner.take() else {
            return self.learner().map(|_| ());
        };
        let done = std::mem::take(&mut self.accumulated);
        let (learner, update) = in_pool(|| learner.update(done.gradients));
        let step = learner.steps();
        self.learner = Some(learner);
        if !update.grad_norm.is_finite() {
            return Err(no_longer_finite("gradient", update.grad_norm, step + 1, trainer));
        }
        let report = UpdateReport {
            epoch,
            step,
            loss: done.loss / done.batches as f64,
            learning_rate: update.learning_rate,
            grad_norm: update.grad_norm,
            ema_decay: update.ema_decay,
            pictures_per_second: 0.0,
            noise_levels: done.noise_levels,
            losses: done.losses,
        };
        self.reports.update(observer, report)
    }

    /// The pipeline as it stands: with the average of the weights where there is one.
    pub fn pipeline(&self, trainer: &Trainer) -> Result<DdpmPipeline> {
        Ok(DdpmPipeline {
            model: self.learner()?.best(),
            scheduler: AnyScheduler::from(trainer.scheduler.clone()),
            classes: trainer.classes.clone(),
        })
    }

    /// Writes the pipeline into the run's folder.
    pub fn save(&self, trainer: &Trainer) -> Result<()> {
        self.pipeline(trainer)?.save(&trainer.folder)
    }
}

fn no_longer_finite(what: &str, value: f64, step: usize, trainer: &Trainer) -> Error {
    Error::NotFinite(format!(
        "the {what} of step {step} is {value}: training cannot go on from there; the state before it is kept in {}. \
         Try a lower learning rate or a longer warm-up",
        trainer.folder.display()
    ))
}
