//! A run in progress: epoch after epoch, batch after batch, an optimiser step after every few.

mod in_slots;

use std::{
    fs,
    ops::Range,
    path::{Path, PathBuf},
};

use burn::tensor::{Tensor, TensorData};

use super::{
    Drawn, Observer, RUN_CONFIG, RunInfo, Trainer, TrainingConfig, UpdateReport, checkpoints,
    codec_run::{self, Fidelity},
    ema::EmaSchedule,
    gradients::Gradients,
    learner::{Learner, Update},
    lock::RunLock,
    report::Reports,
    samples,
    slots::{self, Chance, ChanceState},
    state::{self, Place},
    step::{self, Draw, Lesson},
    trainee::{AnyTrainee, Trainee, codec},
};
use crate::{
    Error, Result, files,
    nn::dropping,
    ops::{in_pool, trim},
    pipelines::{MODEL_INDEX, Pipeline},
    world::{Team, part_of},
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
pub(super) struct Run<'w> {
    /// Taken out only while a step moves it.
    learner: Option<Learner<AnyTrainee>>,
    pub reports: Reports,
    /// Who else trains. The first of them writes.
    pub team: Team<'w>,
    /// The slots that are computed here, and their chance.
    own: Range<usize>,
    chances: Vec<Chance>,
    accumulated: Accumulated,
    /// The epoch it is in, from 1.
    epoch: usize,
    /// Batches of the epoch that are done.
    batch: usize,
    steps: usize,
    epochs: usize,
    /// What is written as the run's configuration.
    config: TrainingConfig,
    /// The folder holds the weights of a run that is replaced.
    replaces: bool,
    /// The grid of samples that was drawn last.
    last_grid: Option<PathBuf>,
    /// How well pictures come back at the end of an autoencoder's run.
    pub fidelity: Option<Fidelity>,
    /// Nobody else writes into the folder meanwhile. The first process has it.
    _lock: Option<RunLock>,
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

impl<'w> Run<'w> {
    /// Makes the folder, writes the configuration, takes the model; goes to where a checkpoint left off.
    pub(super) fn begin(trainer: &mut Trainer, mut team: Team<'w>) -> Result<Self> {
        let config = &trainer.config;
        let batches = trainer.loader.batches_per_epoch();
        let steps = config.total_steps_of(batches);
        let epochs = steps.div_ceil(config.steps_of(batches));
        trainer.trainee()?;
        // Before there is a folder: it may be refused.
        let learner = trainer
            .trainee
            .take()
            .map(|trainee| learner(trainee, config, batches))
            .transpose()?;
        let replaces = trainer.resumed.is_none() && trainer.folder.join(MODEL_INDEX).exists();
        let resolved = TrainingConfig {
            output_dir: Some(trainer.folder.clone()),
            resume_from_checkpoint: None,
            ..config.clone()
        };
        let opened = match team.is_first() {
            true => Self::open(trainer, &resolved, steps, epochs).map(Some),
            false => Ok(None),
        };
        let (lock, reports) = match team.agree(opened)? {
            Some((lock, reports)) => (Some(lock), reports),
            None => (None, Reports::unwritten(steps, epochs)),
        };
        let own = part_of(team.rank(), team.size(), config.num_slots);
        let chance = |slot: usize| match slot {
            0 => Chance::first(trainer.generator.clone(), config.seed),
            slot => Chance::of(slot, config.seed),
        };
        let mut run = Self {
            learner,
            reports,
            team,
            chances: own.clone().map(chance).collect(),
            own,
            accumulated: Accumulated::default(),
            epoch: 1,
            batch: 0,
            steps,
            epochs,
            config: resolved,
            replaces,
            last_grid: None,
            fidelity: None,
            _lock: lock,
        };
        run.restore(trainer)?;
        if run.team.size() > 1
            && let Some(learner) = &mut run.learner
        {
            let total = learner.row().last().map_or(0, |(_, at)| at.end);
            let shares = slots::shares(total, run.team.size());
            learner.share(shares[run.team.rank()].clone());
        }
        Ok(run)
    }

    /// Makes the folder, and leaves in it nothing but what the run goes on from.
    fn open(
        trainer: &Trainer,
        resolved: &TrainingConfig,
        steps: usize,
        epochs: usize,
    ) -> Result<(RunLock, Reports)> {
        let folder = &trainer.folder;
        fs::create_dir_all(folder).map_err(|e| Error::io("create", folder, e))?;
        let lock = RunLock::acquire(folder)?;
        checkpoints::tidy(folder);
        files::write_json(folder.join(RUN_CONFIG), &resolved.portable())?;
        let kept = trainer.resumed.as_ref();
        if kept.is_none() {
            // Of a run that is replaced.
            samples::forget(folder);
        }
        checkpoints::remove_later(folder, kept.map(|kept| kept.step()))?;
        // A run that was killed as it removed the oldest may have written its last one.
        checkpoints::keep_newest(folder, resolved.checkpoints_total_limit)?;
        let reports = match kept {
            None => Reports::begin(folder, steps, epochs)?,
            Some(kept) => {
                let from = checkpoints::run_of(kept.folder());
                Reports::resume(folder, &from, kept.step(), steps, epochs)?
            }
        };
        Ok((lock, reports))
    }

    /// Puts everything where the checkpoint had it, if there is one.
    fn restore(&mut self, trainer: &Trainer) -> Result<()> {
        let (Some(saved), Some(learner)) = (&trainer.resumed, &mut self.learner) else {
            return Ok(());
        };
        let place = saved.place.clone();
        self.accumulated = Accumulated {
            gradients: saved.restore(learner, &trainer.device)?,
            batches: place.waiting,
            loss: f64::from_bits(place.waiting_loss),
            noise_levels: place.waiting_noise_levels,
            losses: place.waiting_losses,
        };
        (self.epoch, self.batch) = (place.epoch, place.batch);
        let first = ChanceState {
            generator: place.generator,
            dropout: place.dropout,
        };
        let all = std::iter::once(first).chain(place.slots);
        let own = all.skip(self.own.start).take(self.own.len());
        self.chances = own.map(Chance::restored).collect::<Result<_>>()?;
        Ok(())
    }

    /// Writes a checkpoint of where the run stands; the first process says where.
    pub(super) fn checkpoint(&mut self, trainer: &Trainer) -> Result<Option<PathBuf>> {
        let states = slots::states(&mut self.team, &self.chances)?;
        self.assemble(true)?;
        let written = match self.team.is_first() {
            true => self.write_checkpoint(trainer, states).map(Some),
            false => Ok(None),
        };
        self.disperse();
        self.team.agree(written)
    }

    fn write_checkpoint(&self, trainer: &Trainer, states: Vec<ChanceState>) -> Result<PathBuf> {
        let learner = self.learner()?;
        let mut states = states.into_iter();
        let Some(first) = states.next() else {
            return Err(Error::Config("the run has no slots".into()));
        };
        let waiting = &self.accumulated;
        let place = Place {
            version: state::VERSION.into(),
            pictures: trainer.dataset.len(),
            data: Some(trainer.data.clone()),
            step: learner.steps(),
            epoch: self.epoch,
            batch: self.batch,
            waiting: waiting.batches,
            waiting_loss: waiting.loss.to_bits(),
            waiting_noise_levels: waiting.noise_levels.clone(),
            waiting_losses: waiting.losses.clone(),
            generator: first.generator,
            dropout: first.dropout,
            slots: states.collect(),
        };
        // The steps up to here are in the metrics before the checkpoint that goes on from them.
        self.reports.metrics().sync()?;
        checkpoints::write(
            &trainer.folder,
            place.step,
            trainer.config.checkpoints_total_limit,
            |folder| {
                state::write(
                    folder,
                    &self.config,
                    &place,
                    learner,
                    &trainer.conditions,
                    &waiting.gradients,
                    &trainer.scheduler,
                )
            },
        )
    }

    /// Optimiser steps in the whole run.
    pub(super) fn steps(&self) -> usize {
        self.steps
    }

    /// What is about to be trained on what.
    pub(super) fn info(&self, trainer: &Trainer) -> Result<RunInfo> {
        Ok(RunInfo {
            folder: trainer.folder.clone(),
            dataset: trainer.dataset.description(),
            pictures: trainer.dataset.len(),
            classes: trainer.class_names(),
            model: trainer.config.model_name(),
            parameters: self.learner()?.num_trained(),
            resolution: trainer.config.resolution,
            batch_size: trainer.config.train_batch_size,
            epochs: self.epochs,
            steps: self.steps,
        })
    }

    /// The model with all that moves it.
    pub(super) fn learner(&self) -> Result<&Learner<AnyTrainee>> {
        self.learner
            .as_ref()
            .ok_or_else(|| Error::Config("the run has no model".into()))
    }

    /// Epoch after epoch, until all steps are done or the observer has had enough.
    pub(super) fn train(&mut self, trainer: &mut Trainer, observer: &mut dyn Observer) -> Result<Ended> {
        while self.epoch <= self.epochs {
            let ended = match trainer.config.num_slots {
                1 => self.epoch(trainer, observer),
                _ => self.epoch_in_slots(trainer, observer),
            };
            if ended? == Ended::Interrupted {
                return Ok(Ended::Interrupted);
            }
            let config = &trainer.config;
            let (epoch, epochs) = (self.epoch, self.epochs);
            let due = |every: usize| every > 0 && epoch.is_multiple_of(every) && epoch < epochs;
            if due(config.save_model_epochs) {
                self.save(trainer)?;
            }
            if due(config.save_images_epochs) {
                let path = trainer
                    .folder
                    .join(samples::DRAWN)
                    .join(format!("epoch-{:04}.png", self.epoch));
                observer.message(&format!("drawing samples into {}", path.display()));
                self.draw(trainer, observer, &path)?;
            }
            self.reports.pause();
            (self.epoch, self.batch) = (self.epoch + 1, 0);
        }
        Ok(Ended::Finished)
    }

    /// The rest of the epoch.
    fn epoch(&mut self, trainer: &mut Trainer, observer: &mut dyn Observer) -> Result<Ended> {
        let accumulation = trainer.config.gradient_accumulation_steps;
        let mut loaded = trainer
            .loader
            .epoch_from(self.epoch as u64, self.batch)
            .peekable();
        while self.learner()?.steps() < self.steps
            && let Some(batch) = loaded.next()
        {
            let batch = batch?;
            self.batch = batch.number + 1;
            self.learn(trainer, batch)?;
            // A last, incomplete group counts as a whole one.
            if self.accumulated.batches == accumulation || loaded.peek().is_none() {
                self.update(trainer, observer)?;
                self.samples_if_due(trainer, observer)?;
                self.write_if_due(trainer)?;
            }
            if self.learner()?.steps() < self.steps && observer.should_stop() {
                return Ok(Ended::Interrupted);
            }
        }
        Ok(Ended::Finished)
    }

    fn samples_if_due(&mut self, trainer: &Trainer, observer: &mut dyn Observer) -> Result<()> {
        let (every, step) = (trainer.config.log_samples_every, self.learner()?.steps());
        // Those of the end are drawn when it has come.
        if every > 0 && step.is_multiple_of(every) && step < self.steps {
            let name = format!("step-{step:06}.png");
            self.draw(trainer, observer, &trainer.folder.join(samples::DRAWN).join(name))?;
        }
        Ok(())
    }

    /// What is written after every so many steps.
    fn write_if_due(&mut self, trainer: &Trainer) -> Result<()> {
        let steps = self.learner()?.steps();
        let due = |every: usize| every > 0 && steps.is_multiple_of(every);
        let (checkpoint, model) = (
            due(trainer.config.checkpointing_steps),
            due(trainer.config.save_model_every),
        );
        if checkpoint {
            self.checkpoint(trainer)?;
        }
        if model {
            self.save(trainer)?;
        }
        if checkpoint || model {
            self.reports.pause();
        }
        Ok(())
    }

    /// Draws samples into the file at `path`, and shows them to everybody. All processes draw, and the first writes.
    fn draw(&mut self, trainer: &Trainer, observer: &mut dyn Observer, path: &Path) -> Result<()> {
        self.assemble_everywhere()?;
        let drawn = self.draw_assembled(trainer, observer, path);
        self.disperse();
        self.team.agree(drawn)
    }

    fn draw_assembled(&mut self, trainer: &Trainer, observer: &mut dyn Observer, path: &Path) -> Result<()> {
        // Never samples of one run beside weights of another.
        let saved = match self.replaces && self.team.is_first() {
            true => self.save_here(trainer),
            false => Ok(()),
        };
        self.team.agree(saved)?;
        // A step's room is no picture's.
        trim();
        let trainee = self.learner()?.best();
        let drawn = drawn(trainer, &trainee, path, &mut self.team)?;
        trim();
        let Some(drawn) = drawn else {
            return Ok(());
        };
        let step = self.learner()?.steps();
        self.last_grid = Some(path.to_path_buf());
        self.reports.drawn(observer, step, &drawn)
    }

    /// Draws the samples of the end: with the weights as they were trained, where there is an average, and with what is kept.
    pub(super) fn draw_end(&mut self, trainer: &Trainer, observer: &mut dyn Observer) -> Result<PathBuf> {
        let path = trainer.folder.join(samples::SAMPLES);
        self.assemble_everywhere()?;
        let drawn = self.draw_end_assembled(trainer, observer, &path);
        self.disperse();
        self.team.agree(drawn)?;
        Ok(path)
    }

    fn draw_end_assembled(
        &mut self,
        trainer: &Trainer,
        observer: &mut dyn Observer,
        path: &Path,
    ) -> Result<()> {
        let learner = self.learner()?;
        if learner.ema().is_some() {
            let (path, trainee) = (trainer.folder.join(samples::SAMPLES_TRAINED), learner.plain());
            let drawn = drawn(trainer, &trainee, &path, &mut self.team);
            self.team.agree(drawn)?;
        }
        if let Some(sentence) = self.young_average()? {
            observer.message(&sentence);
        }
        self.draw_assembled(trainer, observer, path)?;
        if !self.team.is_first() {
            return Ok(());
        }
        if let AnyTrainee::Codec(network) = self.learner()?.best() {
            let found = codec_run::fidelity(trainer, &network)?;
            observer.message(&format!("what comes back of pictures: {found}"));
            self.fidelity = Some(found);
        }
        samples::forget_last(&trainer.folder);
        Ok(())
    }

    /// Copies the grid that was drawn last to where a card shows it, if one was drawn.
    ///
    /// # Errors
    /// If it cannot be read or written.
    pub(super) fn keep_last_grid(&self, folder: &Path) -> Result<()> {
        let Some(drawn) = &self.last_grid else {
            return Ok(());
        };
        let bytes = fs::read(drawn).map_err(|e| Error::io("read", drawn, e))?;
        files::write_atomically(folder.join(samples::SAMPLES_LAST), |w| w.write_all(&bytes))
    }

    /// One batch's gradients, added to those that wait.
    fn learn(&mut self, trainer: &Trainer, batch: crate::data::Batch) -> Result<()> {
        let (Some(learner), [chance]) = (&self.learner, self.chances.as_mut_slice()) else {
            return self.learner().map(|_| ());
        };
        let (lesson, levels) = lesson(trainer, learner, batch, chance)?;
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
        waiting.noise_levels.extend(levels);
        Ok(())
    }

    /// One optimiser step, and word of it.
    fn update(&mut self, trainer: &Trainer, observer: &mut dyn Observer) -> Result<()> {
        let mut done = std::mem::take(&mut self.accumulated);
        let Some(learner) = self.learner.take() else {
            return self.learner().map(|_| ());
        };
        let gradients = std::mem::take(&mut done.gradients);
        let (learner, update) = in_pool(|| learner.update(gradients));
        self.learner = Some(learner);
        self.told(trainer, observer, &update, done)
    }

    /// Word of an optimiser step.
    fn told(
        &mut self,
        trainer: &Trainer,
        observer: &mut dyn Observer,
        update: &Update,
        done: Accumulated,
    ) -> Result<()> {
        let step = self.learner()?.steps();
        if !update.grad_norm.is_finite() {
            return Err(no_longer_finite("gradient", update.grad_norm, step + 1, trainer));
        }
        let report = UpdateReport {
            epoch: self.epoch,
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

    /// A sentence where the average is too young to be used.
    fn young_average(&self) -> Result<Option<String>> {
        let learner = self.learner()?;
        let step = learner.steps() as u64;
        let schedule = learner.ema().map(|ema| ema.schedule());
        Ok(schedule.filter(|schedule| schedule.is_young(step)).map(|schedule| {
            format!(
                "the average of the weights is too young to use: it looks back over {:.0} of {step} steps, to when the model \
                 knew little; {} shows the weights as they are, and a longer run or no --use-ema saves better ones",
                schedule.looks_back(step).min(step as f64),
                samples::SAMPLES_TRAINED
            )
        }))
    }

    /// Writes the pipeline into the run's folder, where no samples of other weights stay as those of the end.
    pub(super) fn save(&mut self, trainer: &Trainer) -> Result<()> {
        self.assemble(false)?;
        let saved = match self.team.is_first() {
            true => self.save_here(trainer),
            false => Ok(()),
        };
        self.disperse();
        self.team.agree(saved)
    }

    fn save_here(&mut self, trainer: &Trainer) -> Result<()> {
        samples::forget_end(&trainer.folder);
        let best = self.learner()?.best();
        match (&trainer.latent, &best) {
            (Some(latent), _) => latent.save(&trainer.config, &best, &trainer.folder)?,
            (None, AnyTrainee::Codec(network)) => codec_run::save(trainer, network, &trainer.folder)?,
            (None, _) => pipeline(trainer, &best)?.save(&trainer.folder)?,
        }
        self.replaces = false;
        Ok(())
    }
}

/// What a batch teaches, with the noise levels of its pictures.
fn lesson(
    trainer: &Trainer,
    learner: &Learner<AnyTrainee>,
    batch: crate::data::Batch,
    chance: &mut Chance,
) -> Result<(Lesson, Vec<f32>)> {
    if let AnyTrainee::Codec(network) = learner.model() {
        let (shape, weight, saving) = (batch.shape, trainer.config.kl_weight, trainer.config.saving());
        let pictures = Tensor::from_data(TensorData::new(batch.pixels, shape), &trainer.device);
        let lesson = in_pool(|| codec::lesson(network, pictures, weight, saving, &mut chance.generator))?;
        // None of them is noisy.
        return finite(lesson, trainer, learner).map(|lesson| (lesson, vec![0.0; shape[0]]));
    }
    let batch = in_pool(|| trainer.prepare(learner.model(), batch, &mut chance.generator))?;
    let objective = trainer.objective.as_ref();
    let noise = trainer.config.noise_options();
    let draw = Draw::new(&batch.clean, objective, noise, &mut chance.generator);
    let (model, saving) = (learner.model(), trainer.saving());
    let lesson = in_pool(|| {
        dropping(&mut chance.dropout, || {
            step::gradients_saving(saving, model, objective, &batch, &draw)
        })
    })?;
    let lesson = finite(lesson, trainer, learner)?;
    let levels = draw
        .times
        .iter()
        .map(|&time| objective.noise_level(time))
        .collect();
    Ok((lesson, levels))
}

/// A lesson that can be learned from.
fn finite(lesson: Lesson, trainer: &Trainer, learner: &Learner<AnyTrainee>) -> Result<Lesson> {
    match lesson.loss.is_finite() {
        true => Ok(lesson),
        false => Err(no_longer_finite(
            "loss",
            lesson.loss,
            learner.steps() + 1,
            trainer,
        )),
    }
}

/// Draws what shows how a run comes along: samples, or what an autoencoder makes of pictures. The first process has what was drawn.
fn drawn(trainer: &Trainer, trainee: &AnyTrainee, path: &Path, team: &mut Team<'_>) -> Result<Option<Drawn>> {
    match trainee {
        AnyTrainee::Codec(network) if team.is_first() => codec_run::draw(trainer, network, path).map(Some),
        AnyTrainee::Codec(_) => Ok(None),
        _ => {
            let pipeline = team.agree(pipeline(trainer, trainee))?;
            samples::draw(trainer, &pipeline, path, team)
        }
    }
}

/// The pipeline of what a run trains.
fn pipeline(trainer: &Trainer, trainee: &AnyTrainee) -> Result<Pipeline> {
    match (trainee, &trainer.latent) {
        (AnyTrainee::Latent(latent), Some(run)) => run.pipeline(&trainer.config, latent),
        (AnyTrainee::Full(full), _) => {
            let conditions = full.conditions(&trainer.conditions);
            let plain = Pipeline::of_parts(full.model().clone(), trainer.scheduler.clone(), conditions);
            match &trainer.space {
                Some(space) => plain.with_codec(space.codec()?.clone()),
                None => trainer.config.sounding(plain),
            }
        }
        (AnyTrainee::Latent(_) | AnyTrainee::Codec(_), _) => {
            Err(Error::Config("the run has no pipeline to train on".into()))
        }
    }
}

/// What is trained with what the configuration moves it by, in a run with so many batches to an epoch.
fn learner(trainee: AnyTrainee, config: &TrainingConfig, batches: usize) -> Result<Learner<AnyTrainee>> {
    let optimizer = config.optimizer();
    let ema = config.use_ema.then(|| EmaSchedule {
        max_decay: config.ema_max_decay,
        inv_gamma: config.ema_inv_gamma,
        power: config.ema_power,
        // As the scripts for latent pipelines have it.
        use_ema_warmup: !matches!(trainee, AnyTrainee::Latent(_)),
        ..EmaSchedule::default()
    });
    let schedule = config.lr_schedule(config.total_steps_of(batches), config.steps_of(batches))?;
    let learner = Learner::new(
        trainee,
        optimizer,
        config.learning_rate,
        schedule,
        config.max_grad_norm,
        ema,
    );
    let words = &config.train_only;
    let chosen = |name: &str| words.is_empty() || words.iter().any(|word| name.contains(word.as_str()));
    if let AnyTrainee::Latent(_) | AnyTrainee::Codec(_) = learner.model() {
        let trains = config.trainee.row().trains;
        let learner = learner.train_only(|name| trains(config, name) && chosen(name))?;
        let text_rate = config.text_encoder_lr.map(|rate| rate / config.learning_rate);
        return Ok(match text_rate {
            Some(factor) => learner.with_rates(|name| {
                if name.starts_with("text_encoder") {
                    factor
                } else {
                    1.0
                }
            }),
            None => learner,
        });
    }
    if words.is_empty() {
        return Ok(learner);
    }
    learner.train_only(chosen)
}

fn no_longer_finite(what: &str, value: f64, step: usize, trainer: &Trainer) -> Error {
    Error::NotFinite(format!(
        "the {what} of step {step} is {value}: training cannot go on from there; the state before it is kept in {}. \
         Try a lower learning rate or a longer warm-up",
        trainer.folder.display()
    ))
}
