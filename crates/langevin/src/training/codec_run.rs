//! Runs that train an autoencoder: what they draw and leave, and how a run of a latent model has one trained first.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use burn::tensor::{Tensor, TensorData};

use super::{
    CodecSource, Drawn, Observer, Outcome, RUN_CONFIG, ResumeFrom, RunLock, TraineeKind, Trainer,
    TrainingConfig, checkpoints,
    ended::ended,
    latent_space::LatentSpace,
    setup::transform,
    trainee::codec::{Spread, normalised},
};
use crate::{
    Error, Result,
    codec::AnyCodec,
    data::{Crop, Picture, Transform},
    files, grid,
    models::{AutoencoderKL, AutoencoderKLConfig, Model, ModelConfig},
    ops::in_pool,
    pipelines::to_pictures,
    random::Generator,
    weights,
    world::{Team, World},
};

/// The folder of the autoencoder that a run trains first, in the run's own.
pub(super) const CODEC: &str = "codec";

/// Pictures that an autoencoder is measured on, at most.
const MEASURED: usize = 512;
/// Pictures that are looked at together.
const TOGETHER: usize = 16;
/// Pictures in a row of a grid of reconstructions.
const COLUMNS: usize = 8;

/// The configuration of the autoencoder that a run trains: that of a pipeline, or a new one.
///
/// # Errors
/// If it cannot be read, or is none that can be trained.
pub(super) fn trained_network(config: &TrainingConfig) -> Result<AutoencoderKLConfig> {
    if let (TraineeKind::Codec, Some(path)) = (config.trainee, &config.pretrained) {
        return Ok(pretrained_network(path, &crate::device::default_device())?
            .config()
            .clone());
    }
    config
        .codec_model
        .config(config.resolution, config.channels.count())
}

/// The autoencoder in a folder or a file.
pub(super) fn pretrained_network(path: &Path, device: &burn::tensor::Device) -> Result<AutoencoderKL> {
    match AnyCodec::open(path, device)? {
        AnyCodec::Autoencoder(codec) => Ok(weights::widened(codec.network().clone())),
        _ => Err(Error::file(
            path,
            format!(
                "has an autoencoder of another class than {}, which is the one that is trained",
                AutoencoderKLConfig::CLASS
            ),
        )),
    }
}

/// The autoencoder that a run begins with.
///
/// # Errors
/// If it cannot be read or made, or does not fit the pictures.
pub(super) fn begun(
    config: &TrainingConfig,
    device: &burn::tensor::Device,
    generator: &mut Generator,
) -> Result<AutoencoderKL> {
    let network = match &config.pretrained {
        Some(path) => pretrained_network(path, device)?,
        None => AutoencoderKL::new(&trained_network(config)?, device, generator)?,
    };
    let (channels, of_pictures) = (network.config().in_channels, config.channels.count());
    if channels != of_pictures || network.config().out_channels != of_pictures {
        return Err(Error::option(
            &["channels"],
            format!("the autoencoder takes pictures of {channels} channels, and these have {of_pictures}"),
        ));
    }
    let (side, factor) = (config.resolution, network.config().factor());
    if !side.is_multiple_of(factor) {
        return Err(Error::option(
            &["resolution"],
            format!(
                "`resolution` is {side}, and the autoencoder's latents stand for {factor}x{factor} pixels each: it must be a multiple"
            ),
        ));
    }
    Ok(network)
}

/// Pictures of the data that are evenly apart, in batches; those that cannot be read are left out.
fn pictures(trainer: &Trainer, most: usize) -> impl Iterator<Item = Result<Tensor<4>>> {
    let config = &trainer.config;
    let transform = Transform {
        crop: Crop::Center,
        random_flip: false,
        ..transform(config)
    };
    let count = trainer.dataset.len();
    let chosen: Vec<usize> = (0..count.min(most))
        .map(|n| n * count / count.min(most))
        .collect();
    let (side, channels) = (config.resolution, config.channels.count());
    let batches: Vec<Vec<usize>> = chosen.chunks(TOGETHER).map(<[usize]>::to_vec).collect();
    batches.into_iter().filter_map(move |batch| {
        let mut pixels = Vec::new();
        for index in batch {
            if let Ok(example) = trainer.dataset.get(index) {
                match transform.apply(example.picture, &mut Generator::new(0)) {
                    Ok(values) => pixels.extend(values),
                    Err(error) => return Some(Err(error)),
                }
            }
        }
        let rows = pixels.len() / (channels * side * side);
        let shape = [rows, channels, side, side];
        (rows > 0).then(|| Ok(Tensor::from_data(TensorData::new(pixels, shape), &trainer.device)))
    })
}

/// How well pictures come back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fidelity {
    /// The mean of the absolute differences, of pictures in 0..255.
    pub error: f64,
    /// Of pictures in 0..1, over all of them, in decibels.
    pub psnr: f64,
    /// Pictures that were looked at.
    pub pictures: usize,
}

impl std::fmt::Display for Fidelity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "mean absolute error {:.2} of 255, {:.1} dB (PSNR), over {} pictures",
            self.error, self.psnr, self.pictures
        )
    }
}

/// Measures the reconstruction of the data's pictures by their likeliest latents.
///
/// # Errors
/// If they do not fit, or none can be read.
pub(super) fn fidelity(trainer: &Trainer, network: &AutoencoderKL) -> Result<Fidelity> {
    let (mut sum, mut squares, mut numbers, mut count) = (0.0f64, 0.0f64, 0usize, 0usize);
    for batch in pictures(trainer, MEASURED) {
        let batch = batch?;
        count += batch.dims()[0];
        let back = in_pool(|| back(network, batch.clone()))?;
        let difference = (batch - back).into_data().convert::<f32>();
        for value in difference.iter::<f32>() {
            // Pictures are in -1..1.
            let value = f64::from(value) / 2.0;
            sum += value.abs();
            squares += value * value;
            numbers += 1;
        }
    }
    if numbers == 0 {
        return Err(Error::Config(
            "there are no pictures to measure the autoencoder on".into(),
        ));
    }
    Ok(Fidelity {
        error: 255.0 * sum / numbers as f64,
        psnr: -10.0 * (squares / numbers as f64).log10(),
        pictures: count,
    })
}

/// What becomes of pictures, bounded as pictures are.
fn back(network: &AutoencoderKL, pictures: Tensor<4>) -> Result<Tensor<4>> {
    let latents = network.encode(pictures)?.mode();
    Ok(network.decode(latents)?.clamp(-1.0, 1.0))
}

/// Draws a grid of pictures, each with what becomes of it below.
///
/// # Errors
/// If they do not fit, or a file cannot be written.
pub(super) fn draw(trainer: &Trainer, network: &AutoencoderKL, path: &Path) -> Result<Drawn> {
    let (mut rows, mut drawn) = (Vec::new(), Vec::new());
    let shown = trainer.config.eval_batch_size.next_multiple_of(COLUMNS);
    for batch in pictures(trainer, shown) {
        let batch = batch?;
        let [originals, backs] = [
            to_pictures(&batch)?,
            to_pictures(&in_pool(|| back(network, batch))?)?,
        ];
        for (originals, backs) in originals.chunks(COLUMNS).zip(backs.chunks(COLUMNS)) {
            rows.extend(row(originals)?);
            rows.extend(row(backs)?);
            drawn.extend_from_slice(backs);
        }
    }
    let Some(first) = rows.first() else {
        return Err(Error::Config("there are no pictures to draw".into()));
    };
    let whole = grid::grid(&rows, COLUMNS, 2, grid::visible_scale(first))?;
    let text = [
        (
            "Title",
            "pictures, and below each what comes back of it".to_string(),
        ),
        ("model", trainer.folder.display().to_string()),
    ];
    grid::write_png(path, &whole, &text)?;
    Ok(Drawn {
        pictures: drawn,
        columns: COLUMNS,
        denoising: whole.clone(),
        grid: whole,
        path: path.to_path_buf(),
        sound: None,
    })
}

/// A whole row of a grid: white pictures stand where there are none.
fn row(pictures: &[Picture]) -> Result<Vec<Picture>> {
    let mut row = pictures.to_vec();
    if let Some(first) = pictures.first() {
        let (channels, height, width) = (first.channels().count(), first.height(), first.width());
        let white = vec![1.0; channels * height * width];
        while row.len() < COLUMNS {
            row.push(Picture::from_chw(&white, channels, height, width)?);
        }
    }
    Ok(row)
}

/// Leaves an autoencoder in a folder: `config.json` and its weights. One that was trained from nothing gets latents of deviation 1; that of a
/// pipeline keeps the space that the pipeline's model knows.
///
/// # Errors
/// If the data's pictures do not fit it, or a file cannot be written.
pub(super) fn save(trainer: &Trainer, network: &AutoencoderKL, folder: &Path) -> Result<()> {
    if trainer.config.pretrained.is_some() {
        return network.save(folder);
    }
    let spread = in_pool(|| Spread::of(network, pictures(trainer, MEASURED)))?;
    normalised(network, &spread, &trainer.device)?.save(folder)
}

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
    let resolved = TrainingConfig {
        output_dir: Some(run.to_path_buf()),
        resume_from_checkpoint: None,
        ..config.clone()
    };
    files::write_json(run.join(RUN_CONFIG), &resolved.portable())?;
    Ok(lock)
}

impl TrainingConfig {
    /// Whether the run's model draws an autoencoder's latents, from nothing.
    pub fn draws_latents(&self) -> bool {
        self.codec.as_ref().is_some_and(CodecSource::is_latent)
    }

    /// Starts from an autoencoder that is there, its own or a pipeline's, and trains that.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn use_pretrained_codec(&mut self, path: &Path) -> Result<()> {
        let network = pretrained_network(path, &crate::device::default_device())?;
        if let Some([height, _]) = network.config().sample_size() {
            self.resolution = height;
        }
        self.channels =
            crate::data::Channels::from_count(network.config().in_channels).unwrap_or(self.channels);
        self.pretrained = Some(path.to_path_buf());
        Ok(())
    }
}

/// What the options of autoencoders must be.
pub(super) fn check(config: &TrainingConfig) -> Result<()> {
    const OPTIONS: &[&str] = &[
        "codec",
        "codec_model",
        "codec_train_steps",
        "codec_batch_size",
        "codec_learning_rate",
        "kl_weight",
        "trainee",
        "pretrained",
        "conditioning_image",
        "gradient_checkpointing",
    ];
    let refused = |message: String| Err(Error::option(OPTIONS, message));
    if let Some(codec) = &config.codec {
        codec.check()?;
    }
    let (trains, before) = (
        config.trainee == TraineeKind::Codec,
        config.codec == Some(CodecSource::Train),
    );
    let usual = TrainingConfig::script();
    let asked = [
        (
            "codec_model",
            config.codec_model != usual.codec_model,
            trains || before,
        ),
        ("kl_weight", config.kl_weight != usual.kl_weight, trains || before),
        (
            "codec_train_steps",
            config.codec_train_steps != usual.codec_train_steps,
            before,
        ),
        ("codec_batch_size", config.codec_batch_size.is_some(), before),
        (
            "codec_learning_rate",
            config.codec_learning_rate.is_some(),
            before,
        ),
    ];
    if let Some((name, ..)) = asked.into_iter().find(|(_, asked, used)| *asked && !used) {
        return refused(format!(
            "`{name}` goes with `codec` train, which trains an autoencoder first"
        ));
    }
    if !(config.kl_weight.is_finite() && config.kl_weight >= 0.0) {
        return refused(format!(
            "`kl_weight` is {}; it must be 0 or more",
            config.kl_weight
        ));
    }
    if config.codec_train_steps == 0 || config.codec_batch_size == Some(0) {
        return refused("`codec_train_steps` and `codec_batch_size` must be at least 1".into());
    }
    if config
        .codec_learning_rate
        .is_some_and(|rate| !(rate.is_finite() && rate > 0.0))
    {
        return refused("`codec_learning_rate` must be a positive number".into());
    }
    if config.draws_latents() {
        if config.pretrained.is_some() {
            return refused(
                "`codec` is of a model from nothing; the one that `pretrained` names has an autoencoder, or draws pictures themselves"
                    .into(),
            );
        }
        if config.conditioning_image.is_some() {
            return refused(
                "`conditioning_image` is shown beside the picture that a model draws, and with `codec` it draws latents".into(),
            );
        }
    }
    if !trains {
        return Ok(());
    }
    if config
        .codec
        .as_ref()
        .is_some_and(|codec| *codec != super::DataCodec::Pixels.into())
    {
        return refused("`trainee` codec learns from pictures themselves: `codec` is not for it".into());
    }
    if config.gradient_checkpointing {
        return refused(
            "`gradient_checkpointing` is there for models that denoise; `trainee` codec has none".into(),
        );
    }
    check_unused(config)
}

/// Refuses options of noise and conditions where an autoencoder is trained, which has neither.
///
/// # Errors
/// If one is given.
fn check_unused(config: &TrainingConfig) -> Result<()> {
    let fields = |config: &TrainingConfig| serde_json::to_value(config).unwrap_or_default();
    let (given, usual) = (fields(config), fields(&TrainingConfig::script()));
    const UNUSED: &[&str] = &[
        "trainee",
        "objective",
        "prediction_type",
        "ddpm_num_steps",
        "ddpm_beta_schedule",
        "rescale_betas_zero_snr",
        "loss_weighting",
        "snr_gamma",
        "noise_offset",
        "input_perturbation",
        "timestep_bias_strategy",
        "dream_training",
        "conditioning",
        "conditioning_image",
        "attribute_columns",
        "class_dropout",
        "caption_dropout",
        "vector_dropout",
    ];
    match UNUSED[1..].iter().find(|&&name| given[name] != usual[name]) {
        Some(name) => Err(Error::option(
            UNUSED,
            format!(
                "`{name}` is for models that denoise, and `trainee` codec learns an autoencoder: leave it out"
            ),
        )),
        None => Ok(()),
    }
}
