//! What the typed flags of `langevin train` mean.

use std::{collections::HashSet, path::PathBuf};

use anyhow::{Context, Result, bail};
use clap::FromArgMatches;
use langevin::{
    data::{Channels, Dataset},
    models::{ClassChannels, ModelPreset},
    named::Named,
    objectives::{LossWeighting, ObjectiveKind, PredictionType},
    training::{
        self, CodecSource, ConditioningKind, DataCodec, MixedPrecision, ModelSource, SavedRun, TrackerKind,
        TraineeKind, TrainingConfig, checkpoints, config::DIGITS, runs::RunSummary,
    },
};
use langevin_hub::ModelFiles;

use super::{
    args::{ScriptArgs, TrainArgs},
    publish::{self, Checked, Publish},
};
use crate::hub::Names;

/// The side of pictures whose latents a model of nothing draws, and the steps of its samples on the way.
const LATENT_RESOLUTION: usize = 64;
const LATENT_STEPS: usize = 50;

/// A run, and what its user should know about flags that have no effect.
pub(super) struct Resolved {
    /// The configuration, checked.
    pub config: TrainingConfig,
    /// Its data, opened.
    pub dataset: Box<dyn Dataset>,
    /// The run that it asks to go on with, if that is over.
    pub done: Option<RunSummary>,
    /// Where the run is published when it is over, unless it is only said with what it would train.
    pub publish: Option<Checked>,
    /// One line a flag.
    pub notes: Vec<String>,
}

/// Turns flags into a configuration: the digits recipe or the script's defaults, then the model's own sizes, then
/// what was typed. A run that is begun has so many slots where nothing else was typed.
///
/// # Errors
/// If a flag asks for what is not there yet, or the values contradict each other.
pub(super) fn resolve(args: &TrainArgs, slots: usize, publishes: bool) -> Result<Resolved> {
    let program = &args.program;
    let mut notes = script_notes(&program.script);
    let (names, publish) = publish::resolve(&program.hub, &mut notes)?;
    // Hours before there is something to publish, and before data are pulled, is the time to find out that it cannot be.
    let publish = publish
        .filter(|_| !program.dry_run && publishes)
        .map(Publish::check)
        .transpose()?;
    let mut config = defaults(args, slots)?;
    if args.has("dataset_name") || args.has("train_data_dir") {
        (config.dataset_name, config.train_data_dir) = (None, None);
    }
    let mut options = args.options.clone();
    // What a model brings along gives way to what was typed.
    let model: Option<ModelSource> = options.remove_one("model");
    if let Some(model) = model.as_ref().or(program.model_config_name_or_path.as_ref()) {
        config.use_model(names.model_config(model)?)?;
    }
    if let Some(folder) = options.remove_one::<PathBuf>("pretrained") {
        let folder = names.model(&folder, &ModelFiles::default())?;
        match args.get::<TraineeKind>("trainee") {
            Some(TraineeKind::Codec) => config.use_pretrained_codec(&folder)?,
            _ => config.use_pretrained(&folder)?,
        }
        let conditioning = args.get::<ConditioningKind>("conditioning");
        if conditioning.is_some_and(|kind| *kind != config.conditioning) {
            // It belongs to another conditioning, which the model had.
            config.class_emb_size = ClassChannels::default();
        }
    }
    config.update_from_arg_matches_mut(&mut options)?;
    pull(&mut config, &names)?;
    imply(args, &mut config)?;
    notes.extend(replaced(&mut config));
    if let Some(names) = &args.trackers {
        config.report_to = trackers(names)?;
    }
    config.validate()?;
    // A data set that is not there, or holds nothing, is told before anything is made.
    let dataset = config.open_dataset()?;
    if !config.only_classes.is_empty() {
        // However they were typed.
        config.only_classes = dataset.class_names().unwrap_or_default().to_vec();
    }
    Ok(Resolved {
        done: training::ended(&config, dataset.len())?,
        dataset,
        config,
        publish,
        notes,
    })
}

/// Puts paths in place of the names of the Hub that the configuration holds, typed or from the checkpoint that is resumed.
fn pull(config: &mut TrainingConfig, names: &Names) -> Result<()> {
    config.model = names.model_config(&config.model)?;
    if let Some(folder) = &config.pretrained {
        config.pretrained = Some(names.model(folder, &ModelFiles::default())?);
    }
    if config.conditioning == ConditioningKind::CrossAttention {
        config.text_encoder = names.text_encoder(&config.text_encoder)?;
    }
    if let Some(CodecSource::Autoencoder(folder)) = &mut config.codec {
        *folder = names.model(folder, &ModelFiles::default())?;
    }
    if let Some(clip) = &mut config.vector_clip {
        *clip = names.model(clip, &ModelFiles::default())?;
    }
    if let Some(name) = &config.dataset_name {
        config.dataset_name = Some(names.dataset(name, &config.open_options())?);
    }
    Ok(())
}

/// What holds where nothing is typed: the configuration of the checkpoint that is resumed, so that nothing of it has to be typed again,
/// or the script's defaults where data are named, or the digits recipe.
fn defaults(args: &TrainArgs, slots: usize) -> Result<TrainingConfig> {
    let mut typed = TrainingConfig::script();
    typed.update_from_arg_matches(&args.options)?;
    if let Some(checkpoint) = checkpoints::asked_for(&typed)? {
        let saved = SavedRun::open(&checkpoint)?;
        if !names_data(&typed) {
            saved.check_data_are_there()?;
        }
        return Ok(TrainingConfig {
            // Wherever the folder was when it was written, and whatever was allowed then.
            output_dir: Some(checkpoints::run_of(&checkpoint)),
            overwrite_output_dir: false,
            ..saved.config().clone()
        });
    }
    if !names_data(&typed) && typed.trainee == TraineeKind::Codec {
        // The recipe says much of noise, which an autoencoder has none of.
        return Ok(TrainingConfig {
            dataset_name: Some(DIGITS.into()),
            num_slots: slots,
            resolution: ModelPreset::Digits.resolution(),
            center_crop: true,
            channels: Channels::Grey,
            ..TrainingConfig::script()
        });
    }
    let is_digits = typed.dataset_name.as_deref() == Some(DIGITS) && typed.train_data_dir.is_none();
    Ok(TrainingConfig {
        num_slots: slots,
        ..match names_data(&typed) && !is_digits {
            true => TrainingConfig::script(),
            false => TrainingConfig::digits(),
        }
    })
}

/// Whether a configuration says what to train on.
fn names_data(config: &TrainingConfig) -> bool {
    config.dataset_name.is_some() || config.train_data_dir.is_some()
}

/// What some flags say about others that were not typed.
fn imply(args: &TrainArgs, config: &mut TrainingConfig) -> Result<()> {
    if args.has("snr_gamma") && !args.has("loss_weighting") && config.loss_weighting == LossWeighting::Script
    {
        config.loss_weighting = LossWeighting::MinSnr;
    }
    let hears = matches!(&config.codec, Some(CodecSource::Data(codec)) if *codec != DataCodec::Pixels);
    if hears && !args.has("channels") {
        // A spectrogram has one.
        config.channels = Channels::Grey;
    }
    if args.has("codec") && config.draws_latents() {
        imply_latents(args, config);
    }
    if args.has("trainee") && config.trainee == TraineeKind::Codec && !args.has("learning_rate") {
        config.learning_rate = config.trainee.learning_rate();
    }
    let tunes = config.tunes_latents()?;
    if args.has("prediction_type") && args.has("pretrained") && !tunes {
        bail!("--prediction-type cannot be used with --pretrained: what the model predicts is settled");
    }
    if tunes && args.has("pretrained") && !args.has("learning_rate") {
        config.learning_rate = config.trainee.learning_rate();
    }
    if let Some(rate) = config.optimizer.learning_rate()
        && !args.has("learning_rate")
    {
        config.learning_rate = rate;
    }
    if args.has("ddpm_num_steps") && !args.has("ddpm_num_inference_steps") {
        // The samples on the way take no more steps than there are.
        config.ddpm_num_inference_steps = config.ddpm_num_inference_steps.min(config.ddpm_num_steps);
    }
    if config.objective != ObjectiveKind::Ddpm {
        if args.has("ddpm_beta_schedule") {
            bail!(
                "--ddpm-beta-schedule belongs to the objective ddpm; {} has no such table",
                config.objective
            );
        }
        // The recipe's; what an edm or a flow predicts is settled.
        if !args.has("prediction_type") {
            config.prediction_type = PredictionType::Epsilon;
        }
    }
    Ok(())
}

/// What goes well with an autoencoder's latents, where nothing else was typed.
fn imply_latents(args: &TrainArgs, config: &mut TrainingConfig) {
    if !args.has("model") && args.program.model_config_name_or_path.is_none() {
        config.model = ModelPreset::Latent.into();
    }
    if !args.has("resolution") {
        config.resolution = LATENT_RESOLUTION;
    }
    if !args.has("center_crop") {
        // So that latents are computed once.
        config.center_crop = true;
    }
    if !args.has("ddpm_num_inference_steps") {
        config.ddpm_num_inference_steps = LATENT_STEPS;
    }
    if config.objective == ObjectiveKind::Edm && !args.has("edm_sigma_data") {
        // Latents are brought to that.
        config.edm_sigma_data = 1.0;
    }
}

/// Puts what there is in place of what scripts for GPUs ask for, and says so.
fn replaced(config: &mut TrainingConfig) -> Option<String> {
    if config.mixed_precision != MixedPrecision::Fp16 {
        return None;
    }
    config.mixed_precision = MixedPrecision::Bf16;
    Some(
        "--mixed-precision fp16 becomes bf16, which takes as little memory: the gradients of fp16 vanish without a scaled loss, and no CPU \
         computes faster with it"
            .into(),
    )
}

/// The trackers that `--logger` names, each once.
fn trackers(names: &[String]) -> Result<Vec<TrackerKind>> {
    let mut trackers = vec![];
    for name in names {
        let named = match name.as_str() {
            "all" => TrackerKind::ALL.to_vec(),
            "none" => vec![],
            name => vec![name.parse().context("--logger")?],
        };
        trackers.extend(named);
    }
    let mut seen = HashSet::new();
    trackers.retain(|tracker| seen.insert(*tracker));
    Ok(trackers)
}

/// A note for each of the script's flags that has nothing to do here.
fn script_notes(script: &ScriptArgs) -> Vec<String> {
    let without_effect = [
        (
            "--enable-xformers-memory-efficient-attention",
            script.enable_xformers_memory_efficient_attention,
            "attention never stores its scores here",
        ),
        (
            "--local-rank",
            script.local_rank.is_some(),
            "MPI says which process is which",
        ),
        (
            "--preserve-input-precision",
            script.preserve_input_precision,
            "pictures of 8 and 16 bits keep their precision",
        ),
    ];
    let given = without_effect.into_iter().filter(|(_, given, _)| *given);
    given
        .map(|(flag, _, why)| format!("{flag} has no effect: {why}"))
        .collect()
}
