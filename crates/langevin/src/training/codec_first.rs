//! A run of a model of latents that has its autoencoder trained first.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use super::{
    Estimate, Observer, Outcome, RUN_CONFIG, ResumeFrom, RunLock, TraineeKind, Trainer, TrainingConfig,
    checkpoints, ended::ended, latent_space::LatentSpace, samples,
};
use crate::{
    Error, Result, files,
    world::{Team, World},
};

/// The folder of the autoencoder that a run trains first, in the run's own.
const CODEC: &str = "codec";

/// The run of the autoencoder that another trains first, in a folder of that.
fn first_run(config: &TrainingConfig, folder: PathBuf) -> TrainingConfig {
    TrainingConfig {
        trainee: TraineeKind::Codec,
        codec_model: config.codec_model.clone(),
        kl_weight: config.kl_weight,
        output_dir: Some(folder),
        overwrite_output_dir: config.overwrite_output_dir,
        resume_from_checkpoint: (config.resume_from_checkpoint.is_some() && !config.overwrite_output_dir)
            .then_some(ResumeFrom::Latest),
        dataset_name: config.dataset_name.clone(),
        dataset_config_name: config.dataset_config_name.clone(),
        split: config.split.clone(),
        only_classes: config.only_classes.clone(),
        train_data_dir: config.train_data_dir.clone(),
        resolution: config.resolution,
        center_crop: config.center_crop,
        random_flip: config.random_flip,
        resize: config.resize,
        channels: config.channels,
        alpha: config.alpha,
        cache: config.cache,
        strict: config.strict,
        dataloader_num_workers: config.dataloader_num_workers,
        train_batch_size: config.codec_batch_size.unwrap_or(config.train_batch_size),
        eval_batch_size: config.eval_batch_size,
        max_train_steps: Some(config.codec_train_steps),
        save_images_epochs: 0,
        save_model_epochs: 0,
        checkpointing_steps: config.checkpointing_steps,
        checkpoints_total_limit: config.checkpoints_total_limit.or(Some(1)),
        learning_rate: config
            .codec_learning_rate
            .unwrap_or(TraineeKind::Codec.learning_rate()),
        lr_warmup_steps: config.codec_train_steps / 20,
        use_ema: true,
        ema_max_decay: 0.999,
        num_slots: config.num_slots,
        allow_mixed_processors: config.allow_mixed_processors,
        seed: config.seed,
        exact_convolution: config.exact_convolution,
        mixed_precision: config.mixed_precision,
        ..TrainingConfig::script()
    }
}

impl Trainer {
    /// The same as [`Trainer::estimate`] of the autoencoder that is trained first, or `None` where there is none to train.
    ///
    /// # Errors
    /// If a step fails.
    pub fn estimate_codec(&self) -> Result<Option<Estimate>> {
        if self.resumed.is_some() || self.space.as_ref().is_none_or(LatentSpace::is_there) {
            return Ok(None);
        }
        // Of a run that has not begun, wherever this one stands.
        let config = TrainingConfig {
            output_dir: None,
            resume_from_checkpoint: None,
            ..first_run(&self.config, PathBuf::new())
        };
        let before = Self::on(config, Arc::clone(&self.dataset), &self.device)?;
        before.estimate().map(Some)
    }
}

/// Trains the autoencoder of a run that asks for one, unless it is there, and takes it up. Where that was interrupted, so is the run.
///
/// # Errors
/// As [`Trainer::run`].
pub(super) fn first(
    trainer: &mut Trainer,
    world: &mut dyn World,
    observer: &mut dyn Observer,
) -> Result<Option<Outcome>> {
    let start = Instant::now();
    if trainer.space.as_ref().is_none_or(LatentSpace::is_there) {
        return Ok(None);
    }
    let run = match &trainer.resumed {
        Some(saved) => checkpoints::run_of(saved.folder()),
        None => trainer.folder.clone(),
    };
    let folder = run.join(CODEC);
    if trainer.resumed.is_none() {
        let config = first_run(&trainer.config, folder.clone());
        let is_first = world.rank() == 0;
        let lock = is_first.then(|| begin(&trainer.config, &run)).transpose();
        let _lock = Team::new(world).agree(lock)?;
        if ended(&config, trainer.dataset.len())?.is_none() {
            let mut before = Trainer::on(config, Arc::clone(&trainer.dataset), &trainer.device)?;
            observer.message(&format!(
                "an autoencoder is trained first, in {}",
                folder.display()
            ));
            let outcome = before.run_among(world, observer)?;
            if outcome.interrupted {
                observer.message(
                    "stopped while the autoencoder was trained: the same line with --resume-from-checkpoint latest goes on from there",
                );
                return Ok(Some(Outcome {
                    folder: trainer.folder.clone(),
                    steps: 0,
                    interrupted: true,
                    checkpoint: None,
                    final_loss: None,
                    samples: None,
                    plot: None,
                    classes: trainer.class_names(),
                    seconds: start.elapsed().as_secs_f64(),
                }));
            }
        }
    }
    let device = trainer.device.clone();
    if let Some(space) = &mut trainer.space {
        space.take(&folder, &device)?;
    }
    Ok(None)
}

/// Makes the folder of a run whose own steps come later, so that it is known as one, and nobody else begins one there.
fn begin(config: &TrainingConfig, run: &Path) -> Result<RunLock> {
    fs::create_dir_all(run).map_err(|e| Error::io("create", run, e))?;
    let lock = RunLock::acquire(run)?;
    // Else the same line, told to go on from the latest, would go on with the run that this one replaces, or take it for this one at its end.
    samples::forget(run);
    checkpoints::remove_later(run, None)?;
    let resolved = TrainingConfig {
        output_dir: Some(run.to_path_buf()),
        resume_from_checkpoint: None,
        ..config.clone()
    };
    files::write_json(run.join(RUN_CONFIG), &resolved.portable())?;
    Ok(lock)
}
